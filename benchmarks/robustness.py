"""What spoils the verdicts: one row for each thing that goes wrong with images, through all steps to the defects.

    python benchmarks/robustness.py [--seeds N] [--dose 8.7e4]

Simulated WSe2 with seven kinds of defects; F1 is class-aware, and the fall is against the image as it is. The perfect
crystals below count defects that are not there, per 1000 sites.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from accuracy import f1
from scipy.ndimage import gaussian_filter

import napari_defects as nd
from napari_defects.crystals import get_crystal
from napari_defects.simulation import Detector, Microscope, Scan, Surface
from napari_defects.simulation.bench import Bench
from napari_defects.simulation.truth import true_defects

AMOUNTS = {"V_Se": 0.03, "V2_Se": 0.015, "Te_Se": 0.08, "Te2_Se": 0.02, "V_W": 0.015, "Se_W": 0.015, "Te2_W": 0.015}
PIXEL_NM, SIDE = 0.016, 512
CLEAN = Surface(contamination=0.3)
Case = tuple[nd.Micrograph, pd.DataFrame]


def image(
    seed: int, dose: float, *, surface: Surface = CLEAN, rotation: float = 20.0,
    contrast: dict[str, float] | None = None, defects: dict[str, float] = AMOUNTS,
) -> Case:  # fmt: skip
    """Simulate an image as it should be, and its true defects."""
    rng = np.random.default_rng(seed)
    bench = Bench(
        get_crystal("WSe2"), (SIDE, SIDE), (PIXEL_NM, PIXEL_NM), Microscope(source_fwhm_nm=0.08),
        Scan(rotation_deg=rotation, jitter_pm=5, drift_pm_per_line=(0.3, 0.2), wander_pm=15), surface, dose,
        contrast or {},
    )  # fmt: skip
    scene = next(bench.scenes(defects, rng))
    return nd.Micrograph(Detector(gain=100.0, offset=1500.0).read(scene.expected_e, rng), PIXEL_NM), true_defects(scene)


def changed(case: Case, change: Callable[[np.ndarray], np.ndarray]) -> Case:
    """Change the pixels of an image."""
    return replace(case[0], data=change(case[0].data.astype(np.float32))), case[1]


def claimed(case: Case, factor: float) -> Case:
    """Give the image a wrong pixel size."""
    return case[0].with_pixel_size(PIXEL_NM * factor), case[1]


def hot(pixels: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    pixels[rng.integers(SIDE, size=20), rng.integers(SIDE, size=20)] = 50 * pixels.max()
    return pixels


def sloped(pixels: np.ndarray) -> np.ndarray:
    return pixels + 3 * (pixels.mean() - 1500) * np.linspace(0, 1, SIDE, dtype=np.float32)


def blurred(pixels: np.ndarray) -> np.ndarray:
    return gaussian_filter(pixels, 0.05 / PIXEL_NM)


def found(case: Case, *, calibrate: bool = False) -> tuple[pd.DataFrame, nd.Micrograph, int]:
    """Defects by all steps, the image as calibrated, and the number of sites."""
    micrograph = nd.calibrate(case[0], "WSe2") if calibrate else case[0]
    maps = nd.predict(micrograph, "wse2-te")
    atoms = nd.locate(micrograph, maps=maps)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))
    return nd.classify(micrograph, sites, maps=maps), micrograph, int(sites["i"].notna().sum())


def score(case: Case, *, calibrate: bool = False) -> float:
    """Micro-F1; positions compared in units of the true pixel size."""
    defects, micrograph, _ = found(case, calibrate=calibrate)
    scale = PIXEL_NM / float(np.mean(micrograph.pixel_size_yx_nm))
    at = defects.assign(y_nm=defects["y_nm"] * scale, x_nm=defects["x_nm"] * scale)
    return f1(at, case[1], 0.1, np.full(2, SIDE * PIXEL_NM))["micro_f1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--dose", type=float, default=8.7e4)
    options = parser.parse_args()
    seeds, make = range(options.seeds), partial(image, dose=options.dose)
    rows: dict[str, tuple[Callable[[int], Case], float]] = {
        "as it is": (make, 0.0),
        "pixel size 15 % too small": (lambda s: claimed(make(s), 0.85), 0.01),
        "pixel size 15 % too large": (lambda s: claimed(make(s), 1.15), 0.01),
        **{f"turned by {angle} degrees": (partial(make, rotation=angle), 0.01) for angle in (0.0, 47.0, 90.0)},
        "blur of 0.05 nm": (lambda s: changed(make(s), blurred), 0.005),
        "20 hot pixels": (lambda s: changed(make(s), hot), 0.01),
        "gradient to 3 x the mean": (lambda s: changed(make(s), sloped), 0.01),
        "contamination of 1 x the mean": (partial(make, surface=Surface(contamination=1.0)), 0.01),
        "contamination of 2 x the mean": (partial(make, surface=Surface(contamination=2.0)), 0.01),
        **{
            f"{element} scatters {change:+.0%}": (partial(make, contrast={element: 1 + change}), 0.01)
            for element in ("Te", "W")
            for change in (-0.1, 0.1)
        },
    }
    print(f"{'':34}{'F1':>8}{'fall':>9}{'allowed':>9}")
    reference = 0.0
    for name, (case, allowed) in rows.items():
        value = float(np.mean([score(case(s), calibrate=name.startswith("pixel")) for s in seeds]))
        reference = reference or value
        print(f"{name:34}{value:8.4f}{reference - value:9.4f}{allowed:9.3f}", flush=True)
    print(f"\n{'a perfect crystal with':34}{'sites':>8}{'false':>9}{'per 1000':>9}")
    for name, surface in {
        "nothing": CLEAN,
        "three holes": Surface(holes=3),
        "an edge": Surface(edge=True),
        "an amorphous patch of 1.5 x": Surface(patch=1.5),
        "a grain boundary": Surface(grain_deg=22.0),
        "contamination of 2 x": Surface(contamination=2.0),
    }.items():
        results = [found(image(100 + s, options.dose, surface=surface, defects={})) for s in seeds]
        sites, false = sum(n for *_, n in results), sum(len(d) for d, *_ in results)
        print(f"{name:34}{sites:8}{false:9}{1e3 * false / sites:9.2f}", flush=True)


if __name__ == "__main__":
    main()
