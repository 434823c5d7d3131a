"""Class averages against their bounds, against peers, and against planted fields.

python benchmarks/averages.py registration [--patches 200]
python benchmarks/averages.py speed [--members 1000]
python benchmarks/averages.py planted | nulls | vacancies | maps | multislice [--seeds 20] [--first 1000] [--sites true]

pystackreg is not a dependency of this package: it is measured where it is installed. Sets are made by the
simulator and go through locate, fit_lattice, assign_sites and average, as a user's images do; only which
columns are vacancies is taken from the truth.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from skimage.registration import phase_cross_correlation

import napari_defects as nd
from napari_defects.averages.registration import Patches, make_template
from napari_defects.simulation import Relaxation

SIDE, STEP_NM, A_NM, SIGMA_NM = 128, 0.0156, 0.329, 0.065
PIXEL_NM, DOSE = 0.015, 1.3e5
NEAREST = nd.WSE2.nearest_neighbor_nm


def patch(shift_nm: np.ndarray, peak: float, side: int = SIDE) -> np.ndarray:
    """Return a vacancy in a WSe2-like lattice: W at 1, Se2 at 0.6, the vacancy at 0.3, background at 0.1 of `peak`."""
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) * STEP_NM
    image = np.full((side, side), 0.1)
    for i in range(-9, 10):
        for j in range(-9, 10):
            for fraction, height in ((0.0, 0.6), (1 / 3, 1.0)):
                row, column = (j - fraction) * A_NM * 0.75**0.5, (i + fraction - (j - fraction) / 2) * A_NM
                squared = (y - row - shift_nm[0]) ** 2 + (x - column - shift_nm[1]) ** 2
                image += (0.3 if i == j == fraction == 0 else height) * np.exp(-squared / 2 / SIGMA_NM**2)
    return peak * image


def one_by_one(method: Callable[[np.ndarray], np.ndarray]) -> Callable[[list[np.ndarray]], np.ndarray]:
    return lambda images: np.array([method(image) for image in images])


def registration(arguments: argparse.Namespace) -> None:
    """Shift of patches to a known template: error over bound, and speed, beside peers."""
    count = arguments.patches
    print(f"{'peak':>6}{'bound pm':>10}  {'method':28}{'rms / bound':>12}{'patches per CPU s':>20}")
    for peak in (5.0, 50.0, 1000.0):
        rng = np.random.default_rng(0)
        shifts = rng.uniform(-0.5, 0.5, (8, 2)) * STEP_NM
        clean = [patch(s, peak) for s in shifts]
        images = [rng.poisson(clean[k % 8]).astype(np.float32) for k in range(count)]
        truth = np.array([shifts[k % 8] for k in range(count)]) / STEP_NM
        reference = patch(np.zeros(2), peak)
        bound = np.sqrt([1 / (slope**2 / reference).sum() for slope in np.gradient(reference)])
        template = make_template(patch(np.zeros(2), peak, SIDE + 1), 0.0, (0.0, 1.0))

        def ours(stack: list[np.ndarray], template=template) -> np.ndarray:
            """Register all at once, as `average` does: patches below each other in one image."""
            n = len(stack)
            centers = np.column_stack([SIDE * np.arange(n), np.zeros(n)]) + (SIDE - 1) / 2
            patches = Patches(centers, np.tile(np.eye(2), (n, 1, 1)), [np.zeros((0, 2))] * n, 1.0)
            pose = np.tile([0.0, 0, 1, 0, 0], (n, 1))
            patches.register(np.concatenate(stack), template, SIDE // 2, pose)
            return pose[:, :2]

        def phase(image: np.ndarray, reference=reference) -> np.ndarray:
            return -phase_cross_correlation(reference, image, upsample_factor=100, normalization=None)[0]

        methods: dict[str, Callable[[list[np.ndarray]], np.ndarray]] = {
            "napari-defects": ours, "skimage, 1/100 px": one_by_one(phase),
        }  # fmt: skip
        try:
            from pystackreg import StackReg
        except ImportError:
            print("pystackreg is not installed")
        else:
            stack = StackReg(StackReg.TRANSLATION)
            methods["pystackreg"] = one_by_one(lambda image, r=reference, s=stack: s.register(r, image)[:2, 2][::-1])
        for name, method in methods.items():
            method(images[:2])
            start = time.process_time()
            found = method(images)
            seconds = time.process_time() - start
            rms = np.sqrt(np.mean(((found - truth) / bound) ** 2))
            print(f"{peak:6.0f}{1000 * STEP_NM * bound[0]:10.3f}  {name:28}{rms:12.3f}{count / seconds:20.0f}")


def speed(arguments: argparse.Namespace) -> None:
    """Time of one class average of many patches of 128 px."""
    members = arguments.members
    side = float(np.ceil(np.sqrt(members / 0.15)))
    micrograph, sites = nd.simulate(
        "WSe2", field_of_view_nm=side, pixel_size_nm=STEP_NM, defects={"V_Se": members}, dose_e_per_A2=DOSE
    )
    defects = micrograph.metadata["defects"]
    nd.average(micrograph, defects[:8], sites=sites)
    for overlap in (True, False):
        start, cpu = time.perf_counter(), time.process_time()
        found = nd.average(micrograph, defects, sites=sites, overlap=overlap)["V_Se"]
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"{found.n} of {members} patches of {SIDE} px, overlap={overlap}: {seconds:.1f} s, {cpu:.1f} CPU s")
    print(found.precision.to_string(index=False))


def images_of(seed: int, members: float, relaxation: Relaxation | None, side_nm: float, sites: str):
    """Make an image and measure it: micrograph, defects, sites and lattice."""
    micrograph, truth = nd.simulate(
        "WSe2", field_of_view_nm=side_nm, pixel_size_nm=PIXEL_NM, defects={"V_Se": members},
        relaxation={} if relaxation is None else {"V_Se": relaxation}, dose_e_per_A2=DOSE, seed=seed,
    )  # fmt: skip
    if sites == "true":
        return micrograph, micrograph.metadata["defects"], truth, None
    return measured(micrograph, micrograph.metadata["defects"])


def measured(micrograph: nd.Micrograph, defects: pd.DataFrame):
    """Find columns and lattice: micrograph, defects with their sites on this lattice, sites and lattice."""
    atoms = nd.locate(micrograph)
    lattice = nd.fit_lattice(atoms, "WSe2")
    i, j, number = lattice.index(defects[["y_nm", "x_nm"]].to_numpy())
    names = np.array([s.name for s in lattice.crystal.sublattices])[number]
    return micrograph, defects.assign(i=i, j=j, sublattice=names), nd.assign_sites(atoms, lattice), lattice


def one_set(seed: int, members: float, relaxation: Relaxation | None, side_nm: float, how: str) -> nd.ClassAverage:
    """Class average of one set."""
    micrograph, defects, sites, lattice = images_of(seed, members, relaxation, side_nm, how)
    return nd.average(micrograph, defects, sites=sites, lattice=lattice, species=["V_Se"])["V_Se"]


def shells_of(average: nd.ClassAverage, relaxation: Relaxation | None) -> pd.DataFrame:
    """Radial displacement by shells, beside what was planted."""
    shells = nd.radial_profile(average.strain(), reach_nm=1.01)
    r = shells["r_nm"].to_numpy()
    shells["planted_pm"] = 0.0 if relaxation is None else 1000 * relaxation(r, NEAREST)
    return shells.assign(error_pm=shells["radial_pm"] - shells["planted_pm"])


def planted(arguments: argparse.Namespace) -> None:
    """Fields of 1 to 5 pm on 150 vacancies or more: error by shell, oscillation, half-set precision against truth."""
    fields = {
        "-4 r1/r": Relaxation(-4.0),
        "-4 r1/r, wave 0.66 nm": Relaxation(-4.0, wavelength_nm=0.66, decay_nm=1.5),
        "2 r1/r, wave 0.5 nm": Relaxation(2.0, wavelength_nm=0.5, decay_nm=1.0),
    }
    for k, (name, relaxation) in enumerate(fields.items()):
        cpu = time.process_time()
        found = one_set(100 + k, arguments.vacancies, relaxation, arguments.side, arguments.sites)
        print(f"\n{name}: {found.n} vacancies, {time.process_time() - cpu:.0f} CPU s")
        report(found, relaxation)


def report(found: nd.ClassAverage, relaxation: Relaxation | None) -> None:
    """Print shells beside what was planted, true error beside the half-sets', the oscillation and C."""
    shells, table = shells_of(found, relaxation), found.strain()
    x = table[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    r = np.linalg.norm(x, axis=1)
    use = (r > 0.1) & table["uy_pm"].notna().to_numpy()
    radial = np.zeros(use.sum()) if relaxation is None else 1000 * relaxation(r[use], NEAREST)
    error = table.loc[use, ["uy_pm", "ux_pm"]].to_numpy() - radial[:, None] * x[use] / r[use, None]
    stated = np.sqrt((table.loc[use, ["uy_err_pm", "ux_err_pm"]].to_numpy() ** 2).mean())
    fit = nd.fit_eshelby(table, exclude_nm=0.1, draws_pm=found.draws())
    wave, c = fit.oscillation, 0.0 if relaxation is None else relaxation.amplitude_pm * NEAREST
    columns = ["r_nm", "sublattice", "planted_pm", "radial_pm", "radial_err_pm", "error_pm"]
    print(shells[columns].round(3).to_string(index=False))
    print(
        f"largest error of a shell {shells['error_pm'].abs().max():.2f} pm; "
        f"true error {np.sqrt((error**2).mean()):.3f} pm, half-set precision {stated:.3f} pm; "
        f"oscillation p = {wave.p_value:.2g}, {wave.wavelength_nm:.2f} nm, decay {wave.decay_nm:.2f} nm; "
        f"C = {1e3 * fit.c_nm2:.3f} ± {1e3 * fit.c_err_nm2:.3f} (planted {c:.3f}) 1e-3 nm2"
    )
    print(found.members_for(0.3).round(1).to_string(index=False))


def multislice(arguments: argparse.Namespace) -> None:
    """Count a field of either engine many times: five vacancies that pull, and five that do not."""
    places = [("V_Se", y, x) for y, x in ((1.3, 1.4), (1.4, 3.7), (2.6, 2.5), (3.7, 1.3), (3.6, 3.6))]
    for seed, relaxation in ((71, Relaxation(-4.0, wavelength_nm=0.66, decay_nm=1.5)), (72, None)):
        for engine in ("fast", "multislice"):
            cpu = time.process_time()
            expected, _ = nd.simulate(
                "WSe2", field_of_view_nm=5.0, pixel_size_nm=PIXEL_NM, at=places, dose_e_per_A2=DOSE, engine=engine,
                relaxation={} if relaxation is None else {"V_Se": relaxation}, scan=nd.Scan(rotation_deg=11.0),
                detector=nd.Detector(read_noise_e=0), shot_noise=False, seed=seed,
            )  # fmt: skip
            rng, camera = np.random.default_rng(seed), nd.Detector()
            noisy = [nd.Micrograph(camera.read(expected.frame(), rng), PIXEL_NM) for _ in range(arguments.copies)]
            images, defects, sites, lattices = zip(
                *(measured(one, expected.metadata["defects"]) for one in noisy), strict=True
            )
            found = nd.average(images, defects, sites=sites, lattice=lattices, species=["V_Se"])["V_Se"]
            name = "no field" if relaxation is None else "-4 r1/r, wave 0.66 nm"
            print(f"\n{engine}, {name}: {found.n} vacancies, {time.process_time() - cpu:.0f} CPU s")
            report(found, relaxation)


def nulls(arguments: argparse.Namespace) -> None:
    """Vacancies without a field: how often an oscillation or a shell is called significant."""
    flags, pulls, first = [], [], []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        found = one_set(seed, arguments.vacancies, None, arguments.side, arguments.sites)
        shells = shells_of(found, None)
        fit = nd.fit_eshelby(found.strain(), exclude_nm=0.1, draws_pm=found.draws())
        pull = (shells["radial_pm"] / shells["radial_err_pm"]).to_numpy()
        flags.append(fit.oscillation.p_value)
        pulls.append(pull)
        first.append(shells["radial_pm"].to_numpy())
        print(
            f"{seed}: {found.n} vacancies, oscillation p = {flags[-1]:.3f}, "
            f"C / error = {fit.c_nm2 / fit.c_err_nm2:+.2f}, "
            f"shells beyond 2 sigma {int((abs(pull) > 2).sum())} of {len(pull)}",
            flush=True,
        )
    pulls = np.array(pulls)
    print(
        f"p < 0.05 in {np.sum(np.array(flags) < 0.05)} of {len(flags)}; shells beyond 2 sigma: "
        f"{np.mean(np.abs(pulls) > 2):.1%} (chance: 4.6 %); rms pull {np.sqrt((pulls**2).mean()):.2f}"
    )
    print("mean radial displacement by shell (pm):", np.round(np.mean(first, axis=0), 3))


def vacancies(arguments: argparse.Namespace) -> None:
    """Bias where vacancies are many: C against what was planted, with and without the overlap taken off."""
    for fraction, side in ((0.003, 40.0), (0.01, 26.0), (0.03, 22.0)):
        micrograph, defects, sites, lattice = images_of(
            int(1e4 * fraction), fraction, Relaxation(-6.0), side, arguments.sites
        )
        for overlap in (False, True):
            found = nd.average(micrograph, defects, sites=sites, lattice=lattice, species=["V_Se"], overlap=overlap)[
                "V_Se"
            ]
            fit = nd.fit_eshelby(found.strain(), exclude_nm=0.1, draws_pm=found.draws())
            c, worst = -6e-3 * NEAREST, shells_of(found, Relaxation(-6.0))["error_pm"].abs().max()
            print(
                f"{100 * fraction:4.1f} %, {found.n} vacancies, overlap={overlap!s:5}: "
                f"C / planted = {fit.c_nm2 / c:.3f} ± {abs(fit.c_err_nm2 / c):.3f}, "
                f"oscillation p = {fit.oscillation.p_value:.2g}, "
                f"largest error of a shell {worst:.2f} pm"
            )


def maps(arguments: argparse.Namespace) -> None:
    """Uniform strain of a whole image, and the strain around a vacancy: returned within 1.1 of the error."""
    from napari_defects.eshelby import displacement

    ratios: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)
    for name in ("uniform", "Eshelby"):
        for _ in range(arguments.seeds):
            lattice = nd.Lattice(nd.WSE2, np.zeros(2), *nd.WSE2.vectors_nm)
            i, j = (v.ravel() for v in np.meshgrid(range(-9, 10), range(-9, 10)))
            rows = pd.DataFrame({"i": np.tile(i, 2), "j": np.tile(j, 2), "sublattice": np.repeat(["W", "Se"], len(i))})
            ideal = lattice.position(rows["i"], rows["j"], rows["sublattice"])
            gradient = np.array([[0.002, -0.001], [0.0015, -0.001]])
            u = ideal @ gradient.T if name == "uniform" else displacement(ideal, 0.05, 0.25, poisson_ratio=0.19)
            table = pd.DataFrame(0.0, index=rows.index, columns=[c.name for c in nd.tables.SITES]).assign(**rows)
            table[["y_ideal_nm", "x_ideal_nm"]] = ideal
            noisy = ideal + u + rng.normal(0, 3e-4, u.shape)
            table[["y_nm", "x_nm"]], table[["y_err_nm", "x_err_nm"]] = noisy, 3e-4
            exact = table.assign(y_nm=(ideal + u)[:, 0], x_nm=(ideal + u)[:, 1])
            shifted = [nd.displacements(t, fit="none") for t in (table, exact)]
            for one in shifted:
                one.attrs["crystal"] = "WSe2"
            measured, true = (nd.strain(t) for t in shifted)
            for c in ("exx", "eyy", "exy", "dilation"):
                ratios.setdefault(f"{name} {c}", []).append(
                    float(np.nanmean(((measured[c] - true[c]) / measured[f"{c}_err"]) ** 2))
                )
    for key, value in ratios.items():
        print(f"{key:20} error / propagated error = {np.sqrt(np.mean(value)):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = {f.__name__: f for f in (registration, speed, planted, nulls, vacancies, maps, multislice)}
    parser.add_argument("what", nargs="*", default=["registration", "speed"], help=", ".join(jobs))
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--vacancies", type=float, default=160, help="in each set")
    parser.add_argument("--side", type=float, default=26.0, help="field of view of a set in nm")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sites", default="measured", help="true: those of the truth, without locate and fit_lattice")
    parser.add_argument("--first", type=int, default=1000, help="first seed of the nulls")
    parser.add_argument("--copies", type=int, default=32, help="noisy copies of the multislice field")
    arguments = parser.parse_args()
    for name in arguments.what:
        jobs[name](arguments)


if __name__ == "__main__":
    main()
