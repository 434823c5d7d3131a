"""The simulator: column intensities and whole images against multislice, truth positions, speed.

    python benchmarks/simulation.py [--pairs 60] [--workers 2] [--engines]

`--engines` also computes clean fields by multislice (abTEM, extra `multislice`; minutes) and compares the fast engine,
and takes the time of abTEM itself on a field of the same size beside a training step.

Images of independent multislice need their folder (NAPARI_DEFECTS_SHARED, or ../shared beside the repository).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from scipy.ndimage import gaussian_filter

import napari_defects as nd
from napari_defects.simulation.render import render
from napari_defects.simulation.scattering import amplitudes

SHARED = Path(os.environ.get("NAPARI_DEFECTS_SHARED", Path(__file__).parents[2] / "shared"))
CLEAN = {"detector": nd.Detector(read_noise_e=0), "shot_noise": False}
WSE2 = ("Se2", "V_Se", "V2_Se", "Te_Se", "Te2_Se", "V_W", "Se_W", "Te2_W")
RATIOS = [
    ("WSe2", nd.Microscope(), dict(zip(WSE2, (0.785, 0.365, 0.050, 1.13, 1.49, 0.03, 0.35, 1.48), strict=True))),
    ("WSe2", nd.Microscope(convergence_mrad=25),
     dict(zip(WSE2, (0.769, 0.357, 0.045, 1.11, 1.49, 0.03, 0.35, 1.48), strict=True))),
    ("MoTe2", nd.Microscope(80, 27, 70, 278), {"Te2": 2.96, "V_Te": 1.32, "V2_Te": 0.05, "V_Mo": 0.08}),
]  # fmt: skip


def column_ratios() -> None:
    """Peaks of columns in the lattice, relative to the metal's, beside those of multislice."""
    for crystal, microscope, expected in RATIOS:
        defects = {species: 3 for species in expected if "_" in species}
        micrograph, sites = nd.simulate(
            crystal, field_of_view_nm=9, pixel_size_nm=0.006, defects=defects, microscope=microscope, **CLEAN
        )
        place = np.rint(sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy() / 0.006).astype(int)
        inner = (place.min(1) > 80) & (place.max(1) < 1420)
        value = pd.Series(micrograph.data[tuple(place[inner].T)]).groupby(sites["species"][inner].to_numpy()).median()
        metal = value[nd.get_crystal(crystal).sublattices[0].host]
        print(f"{crystal} {microscope.convergence_mrad:g} mrad, metal {metal / 1e5 / 0.36e-2:.4f} of the beam")
        for species, ratio in expected.items():
            print(f"  {species:8s} here {value[species] / metal:6.3f}   multislice {ratio:6.3f}")


ENGINES = [
    ("WSe2", nd.Microscope(), {"V_Se": 3, "V2_Se": 2, "Te_Se": 4, "Te2_Se": 3, "V_W": 1, "Se_W": 2, "Te2_W": 2}),
    ("MoTe2", nd.Microscope(80, 27, 70, 278), {"V_Te": 3, "V2_Te": 2, "V_Mo": 2}),
    ("graphene", nd.Microscope(60, 31, 86, 200), {"Si1C3": 2, "V1": 1}),
]


def engines(configurations: int = 4) -> None:
    """Clean fields of both engines: one specimen, multislice twice with other phonons, which tells its own scatter."""
    for crystal, microscope, defects in ENGINES:
        options = {"field_of_view_nm": 2.4, "pixel_size_nm": 0.012, "defects": defects, "microscope": microscope}
        start = time.process_time()
        fast = nd.simulate(crystal, **options, **CLEAN)[0].frame().astype(float)
        took, start = time.process_time() - start, time.process_time()
        # In one call the specimen is drawn before the phonons: two frames of a still movie differ in the phonons alone.
        slow = nd.simulate(
            crystal, **options, **CLEAN, engine="multislice", frozen_phonons=configurations, frames=2
        )[0].data.astype(float)  # fmt: skip
        mean, own = slow.mean(0), (slow[0] - slow[1]).std() / 2 / np.ptp(slow)
        slope = float((fast * mean).sum() / (fast**2).sum())
        residual = (mean - slope * fast).std() / np.ptp(mean)
        print(
            f"{crystal:8s} correlation {np.corrcoef(fast.ravel(), mean.ravel())[0, 1]:.4f}  intensity {slope:.3f}  "
            f"residual {100 * residual:.2f} % of range, of which phonons {100 * own:.2f} %; "
            f"{took:.2f} and {time.process_time() - start:.0f} CPU seconds", flush=True,
        )  # fmt: skip


PLACES = (("V_Se", 0.8, 0.8), ("Se_W", 0.8, 1.7), ("V_W", 1.7, 0.8), ("V2_Se", 1.7, 1.7), ("Te_Se", 1.25, 1.25))
ABERRATED = nd.Aberrations(
    C10_nm=0.8, C12_nm=1.2, phi12_deg=80, C21_nm=8, phi21_deg=23, C23_nm=6, phi23_deg=74, C30_um=0.6
)  # as an aligned instrument still has


def ratios_of_both_engines() -> None:
    """Peaks of columns relative to W's by either engine: one of each defect, four phonon configurations."""
    for name, microscope in (
        ("25 mrad", nd.Microscope(convergence_mrad=25)),
        ("30 mrad, aberrated", nd.Microscope(aberrations=ABERRATED)),
    ):
        for engine in ("fast", "multislice"):
            micrograph, sites = nd.simulate(
                "WSe2", field_of_view_nm=2.5, pixel_size_nm=0.01, at=PLACES, microscope=microscope, seed=5,
                engine=engine, **CLEAN,
            )  # fmt: skip
            place = np.rint(sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy() / 0.01).astype(int)
            inner = (place.min(1) >= 12) & (place.max(1) < 238)
            peaks = pd.Series(micrograph.frame()[tuple(place[inner].T)])
            peaks = peaks.groupby(sites["species"][inner].to_numpy()).mean()
            shown = ", ".join(f"{k} {v:.3f}" for k, v in (peaks / peaks["W"]).items() if k != "W")
            print(f"{name:18s} {engine:10s} W {peaks['W'] / 1e5 / 1e-2:.4f} of the beam; {shown}", flush=True)


def beside_abtem_and_training() -> None:
    """CPU time of one 256 x 256 pair here, of abTEM's own scan of a small field, and of a training step."""
    start = time.process_time()
    list(nd.training_pairs("WSe2", n=10))
    print(f"a pair of 256 x 256: {(time.process_time() - start) / 10:.3f} CPU seconds")
    try:
        import abtem
        import dask
        from ase.build import mx2
    except ImportError:
        print("abTEM is not installed: skipped")
    else:
        dask.config.set(scheduler="synchronous")
        atoms = mx2("WSe2", a=3.282, thickness=3.36, size=(1, 1, 1), vacuum=2)
        atoms = abtem.orthogonalize_cell(atoms) * (4, 2, 1)
        probe = abtem.Probe(energy=80e3, semiangle_cutoff=30, sampling=0.065)
        potential = abtem.Potential(atoms, sampling=0.065, slice_thickness=1.7)
        scan = abtem.GridScan(start=(0, 0), end=(5, 5), sampling=0.3)
        start = time.process_time()
        probe.scan(potential, scan=scan, detectors=abtem.AnnularDetector(60, 200)).compute(progress_bar=False)
        each = (time.process_time() - start) / np.prod(scan.gpts)
        print(f"abTEM: {1e3 * each:.0f} ms a probe position, {each * (256 * 0.2 / 0.3) ** 2:.0f} CPU seconds "
              "for the field of a 256 x 256 image of 0.02 nm pixels, one phonon configuration")  # fmt: skip
    import torch

    torch.set_num_threads(1)
    from napari_defects.networks import load_model

    network = load_model("wse2-te").network.train()
    image = torch.randn(8, 1, 256, 256)
    start = time.process_time()
    network(image).float().mean().backward()
    print(f"a training step (forward and backward) on 8 images: {time.process_time() - start:.2f} CPU seconds")


def multislice_images() -> None:
    """Noisy multislice images against the noise-free image drawn from their list of atoms."""
    folder = SHARED / "checks" / "multislice"
    if not folder.is_dir():
        print(f"no multislice images at {folder}: skipped")
        return
    for entry in json.loads((folder / "manifest.json").read_text())["images"]:
        expected, counts = multislice_twin(folder, entry)
        sigma = 0.02 / entry["params"]["pixel_size_nm"]
        flat = [gaussian_filter(image, sigma) - gaussian_filter(image, 30 * sigma) for image in (expected, counts)]
        a, b = (image[40:-40, 40:-40].ravel() for image in flat)
        noise = np.sqrt(gaussian_noise(counts, sigma))
        slope = float(a @ b / (a @ a))
        residual = float(np.std(b - slope * a))
        print(
            f"{entry['name']:14s} correlation {np.corrcoef(a, b)[0, 1]:.4f}  intensity {slope:.3f}  residual "
            f"{100 * residual / np.ptp(a):.2f} % of range, of which counting {100 * noise / np.ptp(a):.2f} %"
        )


def gaussian_noise(counts: np.ndarray, sigma: float) -> float:
    """Variance of counting noise left after a Gaussian filter."""
    return float(np.clip(counts, 0, None).mean() / (4 * np.pi * sigma**2))


def multislice_twin(folder: Path, entry: dict) -> tuple[np.ndarray, np.ndarray]:
    """Electrons expected from the list of atoms, and those of the image."""
    image, optics = entry["params"], entry["simulation"]
    coefficients = optics["aberrations_A"]
    angle = {
        f"phi{nm}_deg": np.rad2deg(coefficients.get(f"phi{nm}", 0)) - image["theta_deg"] for nm in ("12", "21", "23")
    }
    inner, outer = optics["detectors_mrad"][0]
    microscope = nd.Microscope(
        optics["energy_eV"] / 1e3, optics["semiangle_mrad"], inner, outer, image["source_fwhm_nm"],
        aberrations=nd.Aberrations(
            C10_nm=coefficients.get("C10", 0) / 10, C12_nm=coefficients.get("C12", 0) / 10,
            C21_nm=coefficients.get("C21", 0) / 10, C23_nm=coefficients.get("C23", 0) / 10,
            C30_um=coefficients.get("C30", 0) / 1e4, **angle,
        ),
    )  # fmt: skip
    atoms = pd.read_csv(folder / f"{entry['name']}_atoms.csv", keep_default_na=False)
    columns = tuple(tuple(e.split("+")) if e else () for e in atoms["elements"].astype(str))
    weights, pixel = amplitudes(columns, microscope), image["pixel_size_nm"]
    fraction = render(atoms[["y_px", "x_px"]].to_numpy(), weights, microscope, tuple(image["shape"]), (pixel, pixel))
    pixels = tifffile.imread(folder / entry["file"]).astype(float)
    return fraction * image["dose_e_per_px"], (pixels - image["offset"]) / image["gain"]


def truth_positions() -> None:
    """Maxima of noise-free images, found by a parabola, against the truth."""
    for name, scan in {
        "still": nd.Scan(rotation_deg=33),
        "linear drift": nd.Scan(rotation_deg=33, drift_pm_per_line=(0.8, -1.1)),
        "and non-linear": nd.Scan(rotation_deg=33, drift_pm_per_line=(0.8, -1.1), wander_pm=40, flyback_pm=60),
    }.items():
        micrograph, sites = nd.simulate("WSe2", field_of_view_nm=6, pixel_size_nm=0.01, scan=scan, **CLEAN)
        offset = peak_offsets_pm(np.log(micrograph.data.astype(float)), nd.tables.positions_nm(sites) / 0.01) * 10
        print(f"truth, {name:15s} rms {np.sqrt((offset**2).mean()):.3f} pm, mean {np.abs(offset.mean(0)).max():.4f} pm")


def peak_offsets_pm(image: np.ndarray, places_px: np.ndarray) -> np.ndarray:
    """Distance of the local maxima from given places, in pixels."""
    y, x = (a.ravel() for a in np.mgrid[-1:2, -1:2])
    design = np.linalg.pinv(np.stack([np.ones(9), y, x, y**2, x**2, x * y], 1))
    result = []
    for place in places_px:
        row, column = np.rint(place).astype(int)
        if min(row, column) > 10 and max(row, column) < len(image) - 11:
            c = design @ image[row - 1 : row + 2, column - 1 : column + 2].ravel()
            result.append((row, column) - np.linalg.solve([[2 * c[3], c[5]], [c[5], 2 * c[4]]], c[1:3]) - place)
    return np.array(result)


def speed(pairs: int, workers: int) -> None:
    """Labelled 256 x 256 pairs per second, and one large image."""
    for crystal in ("WSe2", "MoTe2", "graphene"):
        list(nd.training_pairs(crystal, n=5))
        start, cpu = time.perf_counter(), time.process_time()
        list(nd.training_pairs(crystal, n=pairs))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        line = f"{crystal:8s} {pairs / wall:5.1f} pairs/s here, {pairs / cpu:5.1f} per CPU second"
        if workers:
            stream = nd.training_pairs(crystal, n=pairs + 4 * workers, workers=workers)
            for _ in range(4 * workers):
                next(stream)
            start = time.perf_counter()
            rest = len(list(stream))
            line += f", {rest / (time.perf_counter() - start):5.1f} pairs/s from {workers} workers"
        print(line)
    cpu = []
    for k in range(12):  # another probe each time, as a slider makes it
        start = time.process_time()
        nd.simulate(
            "WSe2", field_of_view_nm=5.12, pixel_size_nm=0.02, defects={"V_Se": 0.02, "Te_Se": 0.05}, seed=1,
            microscope=nd.Microscope(source_fwhm_nm=0.08 + 0.001 * k, aberrations=nd.Aberrations(C12_nm=1.0)),
            scan=nd.Scan(rotation_deg=10, jitter_pm=5, wander_pm=20, flyback_pm=20, drift_pm_per_line=(0.2, 0.1)),
            surface=nd.simulation.Surface(contamination=0.3, patch=0.5, speckle=0.1),
            detector=nd.Detector(flicker_e=1, afterglow=0.2, line_noise_e=0.2, hot_pixels=0.001, pulse_spread=0.3),
        )  # fmt: skip
        cpu.append(time.process_time() - start)
    print(f"preview, 256 x 256, everything switched on: {1e3 * np.median(cpu):.0f} CPU ms")
    start = time.perf_counter()
    nd.simulate("WSe2", field_of_view_nm=41, pixel_size_nm=0.02, defects={"V_Se": 0.02})
    print(f"simulate, 2050 x 2050: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engines", action="store_true")
    options = parser.parse_args()
    column_ratios()
    multislice_images()
    truth_positions()
    speed(options.pairs, options.workers)
    if options.engines:
        beside_abtem_and_training()
        engines()
        ratios_of_both_engines()
