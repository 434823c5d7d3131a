"""Precision, honesty of the errors and speed of locate, beside the Cramér–Rao bound and a fit column by column.

python benchmarks/localization.py [--side 1024] [--peaks 5 50 200 1000 5000]

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
    image = np.random.default_rng(seed).poisson(truth.render((side, side), 6.0))
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
        np.sqrt(np.nanmean(np.array(lone)[(height[sample] == 1) == w & (size < 100)] ** 2)) for w in (True, False)
    ]
    return (
        f"{side:5d} {peak:6g} | {cells[0]} | {cells[1]} | {pull:5.3f} "
        f"| {recall:6.4f} {(inner & ~good).sum() / inner.sum():7.4f}"
        f" | {seconds:6.1f} {per_second:9.0f} | {lone_rms[0]:5.2f} {lone_rms[1]:6.2f} {lone_rate:6.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--peaks", type=float, nargs="+", default=[5, 50, 200, 1000, 5000])
    options = parser.parse_args()
    nd.locate(nd.Micrograph(np.random.default_rng(0).poisson(5, (64, 64)), 0.012))  # compiles
    print(
        "             |     W         |    Se2        |       |                | locate   fit cols/ | column by column"
    )
    print(
        " side   peak | rms pm /bound | rms pm /bound | pull  |  found   false "
        "|      s  CPU second | W pm Se2 pm   per s"
    )
    for seed, peak in enumerate(options.peaks):
        print(row(options.side, peak, 100 + seed), flush=True)


if __name__ == "__main__":
    main()
