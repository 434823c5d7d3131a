"""Precision, honesty of the errors and speed of locate, beside the Cramér–Rao bound and other tools.

python benchmarks/localization.py [bound speed peers pulls] [--side 1024] [--peaks 5 50 200 1000 5000]
    [--device cpu|cuda|mps]

bound, peers:

A WSe2-like honeycomb: a = 0.329 nm, 12 pm pixels, columns 65 pm wide, Se2 at 0.6 of W, background 10 %; the peak is
counts per pixel at a W column. Fresh seed for each row. `rms / bound` is over both axes; `pull` the standard deviation
of error / reported error; `found` and `false` are shares of columns 0.4 nm inside the border. The last columns fit
every column alone in a window of its own, as most tools do (scipy's curve_fit, on a sample of 150 columns).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.gaussian import Columns, fit_columns

PIXEL_NM, A_NM, SIGMA_NM, SECOND = 0.012, 0.329, 0.065, 0.6


def honeycomb(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in pixels and relative heights."""
    turn = np.deg2rad([17.0, 77.0])
    vectors = A_NM * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    reach = int(2 * side * PIXEL_NM / A_NM) + 4
    ij = np.stack(np.meshgrid(np.arange(-reach, reach), np.arange(-reach, reach)), -1).reshape(-1, 2)
    first = ij @ vectors + 0.013
    yx = np.concatenate([first, first + vectors.sum(axis=0) / 3]) / PIXEL_NM
    inside = ((yx > -25) & (yx < side + 25)).all(axis=1)
    return yx[inside], np.repeat([1.0, SECOND], len(first))[inside]


def alone(image: np.ndarray, yx: np.ndarray) -> np.ndarray:
    """Fit one column in a window reaching half-way to its neighbours."""
    y0, x0 = np.rint(yx).astype(int)
    y, x = (g.ravel() for g in np.mgrid[y0 - 8 : y0 + 9, x0 - 8 : x0 + 9])
    values = image[y, x].astype(float)

    def model(_: object, a: float, v: float, u: float, s: float, b: float) -> np.ndarray:
        return a * np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * s * s)) + b

    start = (np.ptp(values), y0, x0, SIGMA_NM / PIXEL_NM, values.min())
    return curve_fit(model, None, values, start, maxfev=4000)[0][1:3]


def row(side: int, peak: float, seed: int) -> str:
    yx, height = honeycomb(side)
    sigma = SIGMA_NM / PIXEL_NM
    truth = Columns(yx, peak * height, np.full(len(yx), sigma), np.zeros(len(yx), int), np.full((3, 3), 0.1 * peak))
    image = np.random.default_rng(seed).poisson(truth.render((side, side)))
    start = time.perf_counter()
    atoms = nd.locate(nd.Micrograph(image, PIXEL_NM))
    seconds = time.perf_counter() - start
    found = atoms[["y_nm", "x_nm"]].to_numpy() / PIXEL_NM
    distance, near = cKDTree(yx).query(found)
    inner, inner_truth = (((p > 33) & (p < side - 34)).all(axis=1) for p in (found, yx))
    good = inner & (distance < 6)
    recall = np.isin(np.flatnonzero(inner_truth), near[good]).mean()
    off = found - yx[near]
    bound = nd.cramer_rao(yx * PIXEL_NM, peak * height, SIGMA_NM, pixel_size_nm=PIXEL_NM, background=0.1 * peak)[:, :2]
    cells = []
    for species in (height == 1, height < 1):
        k = good & species[near]
        rms, limit = np.sqrt((off[k] ** 2).mean()) * PIXEL_NM * 1e3, np.sqrt((bound[near[k]] ** 2).mean()) * 1e3
        cells.append(f"{rms:6.2f} {rms / limit:5.3f}")
    errors = atoms[["y_err_nm", "x_err_nm"]].to_numpy()
    pull = (off * PIXEL_NM / errors)[good].std()

    rough = Columns(
        yx + np.random.default_rng(seed).normal(0, 1, yx.shape), np.full(len(yx), 0.7 * peak), 1.1 * truth.sigma,
        truth.group, 2 * truth.nodes,
    )  # fmt: skip
    rough = rough.taken(((yx > -3) & (yx < side + 2)).all(axis=1))
    begin = time.process_time()
    fit_columns(image.astype(float), rough)
    per_second = len(rough.yx) / (time.process_time() - begin)

    sample = np.random.default_rng(0).choice(np.flatnonzero(inner_truth), 150, replace=False)
    begin, lone = time.process_time(), []
    warnings.simplefilter("ignore")  # of lone fits that fail, as some do at low counts
    for k in sample:
        try:
            lone.append((alone(image, yx[k]) - yx[k]) * PIXEL_NM * 1e3)
        except RuntimeError:
            lone.append(np.full(2, np.nan))
    lone_rate, size = len(sample) / (time.process_time() - begin), np.abs(np.array(lone)).max(axis=1)
    lone_rms = [
        np.sqrt(np.nanmean(np.array(lone)[((height[sample] == 1) == w) & (size < 100)] ** 2)) for w in (True, False)
    ]
    return (
        f"{side:5d} {peak:6g} | {cells[0]} | {cells[1]} | {pull:5.3f} "
        f"| {recall:6.4f} {(inner & ~good).sum() / inner.sum():7.4f}"
        f" | {seconds:6.1f} {per_second:9.0f} | {lone_rms[0]:5.2f} {lone_rms[1]:6.2f} {lone_rate:6.0f}"
    )


def rough(image_side: int, peak: float, seed: int) -> tuple[np.ndarray, Columns]:
    """Image and a poor guess of its columns: off by a pixel, one height for all, width and background too large."""
    yx, height = honeycomb(image_side)
    n, sigma = len(yx), SIGMA_NM / PIXEL_NM
    truth = Columns(yx, peak * height, np.full(n, sigma), np.zeros(n, int), np.full((3, 3), 0.1 * peak))
    rng = np.random.default_rng(seed)
    image = rng.poisson(truth.render((image_side, image_side))).astype(float)
    near = yx + rng.normal(0, 1, yx.shape)
    start = Columns(near, np.full(n, 0.7 * peak), np.full(n, 1.1 * sigma), truth.group, 2 * truth.nodes)
    return image, start.taken(((yx > -3) & (yx < image_side + 2)).all(axis=1))


def speed(options: argparse.Namespace) -> None:
    """Columns per second of the joint fit with its errors, warm; the best of four; by torch, too, on `--device`."""
    print(f"\nfit_columns, warm, {os.environ['NUMBA_NUM_THREADS']} threads")
    for peak in (50, 200, 1000):
        image, start = rough(2048, peak, 0)
        for device in (None, options.device) if options.device else (None,):
            took = []
            for _ in range(4):
                wall, cpu = time.perf_counter(), time.process_time()
                fit_columns(image, start, device=device)
                took.append((time.perf_counter() - wall, time.process_time() - cpu))
            wall, cpu = np.min(took, axis=0)
            n, by = len(start.yx), f"torch on {device}" if device else "compiled loops"
            print(
                f"  2048 x 2048, peak {peak:5g}, {by}: {n} columns, "
                f"{n / wall:7.0f} per second, {n / cpu:7.0f} per CPU second"
            )


def peers(options: argparse.Namespace) -> None:
    """Other tools on the same image, where they are installed, given the true places as seeds."""
    side, peak = 512, 1000
    image, start = rough(side, peak, 7)
    yx, height = honeycomb(side)
    seeds = yx[((yx > 30) & (yx < side - 31)).all(axis=1)]
    kind = height[((yx > 30) & (yx < side - 31)).all(axis=1)]

    def ours() -> np.ndarray:
        return fit_columns(image, start, coarse=True).yx

    def with_atomap() -> np.ndarray:
        import atomap.api  # noqa: F401  (its modules import each other)
        from atomap.sublattice import Sublattice

        lattice = Sublattice(seeds[:, ::-1] + 0.3, image=image)
        lattice.find_nearest_neighbors()
        lattice.refine_atom_positions_using_center_of_mass(show_progressbar=False)
        lattice.refine_atom_positions_using_2d_gaussian(show_progressbar=False)
        return np.column_stack([lattice.y_position, lattice.x_position])

    def with_picasso() -> np.ndarray:
        from picasso import gausslq, localize

        box, corner = 15, np.rint(seeds).astype(int)
        ids = pd.DataFrame({"frame": 0, "x": corner[:, 1], "y": corner[:, 0], "net_gradient": 1.0})
        spots = localize.get_spots(
            image[None].astype(np.float32), ids, box, {"Baseline": 0, "Sensitivity": 1, "Gain": 1}
        )
        theta = gausslq.fit_spots(spots)
        return np.column_stack([theta[:, 1] + corner[:, 0], theta[:, 0] + corner[:, 1]])

    def with_skimage() -> np.ndarray:
        from skimage.feature import blob_log

        sigma = SIGMA_NM / PIXEL_NM
        return blob_log(image / image.max(), min_sigma=0.7 * sigma, max_sigma=1.2 * sigma, num_sigma=4, threshold=0.02)[
            :, :2
        ]

    print(f"\nother tools at peak {peak}, {side} x {side}, seeded within a pixel (skimage finds its own)")
    for name, run in (
        ("this package", ours),
        ("atomap", with_atomap),
        ("picasso LSQ", with_picasso),
        ("skimage LoG", with_skimage),
    ):
        try:
            run()
            begin = time.process_time()
            found = run()
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            print(f"  {name:14} skipped: {type(error).__name__}: {error}")
            continue
        rate = len(found) / (time.process_time() - begin)
        distance, near = cKDTree(found).query(seeds)
        off = (found[near] - seeds) * PIXEL_NM * 1e3
        good = (distance < 4) & ((seeds > 70) & (seeds < side - 71)).all(axis=1)
        rms = [np.sqrt((off[good & ((kind == 1) == w)] ** 2).mean()) for w in (True, False)]
        print(f"  {name:14} W {rms[0]:5.2f} pm  Se2 {rms[1]:5.2f} pm  {rate:8.0f} columns per CPU second")


CONDITIONS = {
    "nothing": {},
    "jitter 5 pm": {"scan": nd.Scan(rotation_deg=12, jitter_pm=5.0)},
    "lasting jitter": {"scan": nd.Scan(rotation_deg=12, jitter_pm=8.0, jitter_memory=0.7)},
    "tremor 8 pm": {"scan": nd.Scan(rotation_deg=12, tremor_pm=8.0)},
    "source tails": {"microscope": nd.Microscope(source_tail=0.15)},
    "astigmatism": {"microscope": nd.Microscope(aberrations=nd.Aberrations(C12_nm=3.0, phi12_deg=30))},
    "gradient": {"surface": nd.Surface(gradient=0.3)},
    "dirt": {"surface": nd.Surface(contamination=0.3, patch=0.5)},
    "all of it": {
        "scan": nd.Scan(rotation_deg=12, jitter_pm=5.0),
        "surface": nd.Surface(contamination=0.3, patch=0.5, gradient=0.3),
        "microscope": nd.Microscope(source_tail=0.15, aberrations=nd.Aberrations(C12_nm=3.0, phi12_deg=30)),
    },
}  # fmt: skip


def pulls(options: argparse.Namespace) -> None:
    """Print error / stated error under what the simulator can switch on, without common offsets."""
    print("\npull (error / stated error): standard deviation along y, x; 68 % half-width; dose 8.7e4 e/A^2")
    for name, keywords in CONDITIONS.items():
        off, err = [], []
        for seed in range(2):
            scan = {"scan": nd.Scan(rotation_deg=12)} | keywords
            image, truth = nd.simulate(
                "WSe2", field_of_view_nm=8.0, pixel_size_nm=0.0125, dose_e_per_A2=8.7e4, seed=40 + seed, **scan
            )
            atoms = nd.locate(image)
            true = truth[truth["y_nm"].notna()]
            distance, near = cKDTree(true[["y_nm", "x_nm"]]).query(atoms[["y_nm", "x_nm"]])
            at = atoms[["y_nm", "x_nm"]].to_numpy()
            good = (distance < 0.05) & ((at > 0.3) & (at < 7.7)).all(axis=1)
            delta = (at - true[["y_nm", "x_nm"]].to_numpy()[near])[good]
            kind = true["sublattice"].to_numpy()[near][good]
            for one in np.unique(kind):
                delta[kind == one] -= np.median(delta[kind == one], axis=0)
            off.append(delta)
            err.append(atoms[["y_err_nm", "x_err_nm"]].to_numpy()[good])
        pull = np.concatenate(off) / np.concatenate(err)
        half = np.percentile(np.abs(pull), 68.3)
        print(
            f"  {name:14} {pull.std(axis=0).round(2)}  {half:.2f}"
            f"  median error {1e3 * np.median(np.concatenate(err)):.2f} pm"
        )


def bounds(options: argparse.Namespace) -> None:
    """Table of precision at all counts."""
    print(
        "             |     W         |    Se2        |       |                | locate   fit cols/ | column by column"
    )
    print(
        " side   peak | rms pm /bound | rms pm /bound | pull  |  found   false |      s     CPU s  | W pm Se2 pm per s"
    )
    for seed, peak in enumerate(options.peaks):
        print(row(options.side, peak, 100 + seed), flush=True)


PARTS = {"bound": bounds, "speed": speed, "peers": peers, "pulls": pulls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without one")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--peaks", type=float, nargs="+", default=[5, 50, 200, 1000, 5000])
    parser.add_argument("--device", help="cpu, cuda or mps: speed by torch there, beside the compiled loops")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in options.parts or PARTS:
        PARTS[part](options)


if __name__ == "__main__":
    main()
