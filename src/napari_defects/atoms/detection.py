"""Candidates for columns: where to begin a fit, what it left over, and what it should not keep.

Everything here is in pixels and counts (variance = mean); `apart` is a distance in pixels along y.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_laplace, maximum_filter, percentile_filter, zoom
from scipy.spatial import cKDTree

from napari_defects.gaussian import Columns

Array = npt.NDArray[np.float64]

_DIMMEST = 0.1  # of the bright columns around: half of a lone chalcogen, twice a doubly empty one


def maxima(counts: Array, sigma: float, aspect: float, apart: float, likely: Array | None) -> Array:
    """Find maxima of the Laplacian at the scale of a column that stand out of the noise."""
    width = (0.8 * sigma, 0.8 * sigma / aspect)
    response = -gaussian_laplace(counts, width)
    # noise of the response: variance = mean of the counts, times the squared norm of the kernel
    norm = 1 / (2 * np.pi * width[0] ** 5 * width[1])
    sd = np.sqrt(np.maximum(gaussian_filter(counts, width), 0.02 * counts.mean()) * norm)
    z = response / sd
    size = tuple(max(3, 2 * int(0.7 * apart / a) + 1) for a in (1.0, aspect))
    peak = (response == maximum_filter(response, size=size)) & (z > 3.5)
    strong = gaussian_filter(maximum_filter(response, size=size), 4 * sigma)
    peak &= response > 0.2 * strong
    if likely is not None:
        smooth = gaussian_filter(likely, tuple(0.4 * w for w in width))
        peak &= (smooth > 0.2) | (z > 6)  # a dopant the network was never told about stays
        peak |= (smooth == maximum_filter(smooth, size=size)) & (smooth > 0.5)
    yx = np.argwhere(peak).astype(float)
    return thinned(yx, (likely if likely is not None else z)[peak], apart, aspect)


def thinned(yx: Array, rank: Array, apart: float, aspect: float) -> Array:
    """Leave out positions that have a better one nearer than `apart`."""
    if len(yx) == 0:
        return yx
    keep = np.ones(len(yx), bool)
    pairs = cKDTree(yx * (1.0, aspect)).query_pairs(apart, output_type="ndarray")
    worse = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    keep[worse] = False
    return yx[keep]


def first_guess(counts: Array, yx: Array, sigma: float, aspect: float) -> Columns:
    """Guess all parameters at candidate positions."""
    smooth = gaussian_filter(counts, (0.5 * sigma, 0.5 * sigma / aspect))
    step = max(1, int(sigma / 1.2))
    low = percentile_filter(smooth[::step, ::step], 10, size=max(5, int(10 * sigma / step)))
    grid = [max(3, 1 + round(n * a / (24 * sigma))) for n, a in zip(counts.shape, (1.0, aspect), strict=True)]
    nodes = zoom(gaussian_filter(low, 6), np.divide(grid, low.shape), order=1, mode="nearest")
    columns = Columns(yx, np.ones(len(yx)), np.full(len(yx), sigma), np.zeros(len(yx), np.int64), nodes, aspect)
    at = np.rint(yx).astype(int)
    height = smooth[at[:, 0], at[:, 1]] - columns.background(counts.shape)
    return replace(columns, amplitude=np.maximum(height, 0.1 * np.median(np.abs(height)) + 1e-9))


def bright(columns: Columns) -> Array:
    """Return the amplitude of the brighter columns around each column."""
    k = min(25, len(columns.yx))
    _, near = cKDTree(columns.isotropic).query(columns.isotropic, k=k)
    return np.asarray(np.percentile(columns.amplitude[near.reshape(-1, k)], 75, axis=1))


def pruned(columns: Columns, apart: float) -> Columns:
    """Leave out columns that are too dim, too uncertain, or on top of a brighter one."""
    keep = columns.amplitude > _DIMMEST * bright(columns)
    if len(columns.covariance):
        keep &= ~(columns.amplitude < 3 * columns.errors[:, 0])
    pairs = cKDTree(columns.isotropic).query_pairs(apart, output_type="ndarray")
    a, b = columns.amplitude[pairs[:, 0]], columns.amplitude[pairs[:, 1]]
    keep[np.where(a < b, pairs[:, 0], pairs[:, 1])] = False
    return columns.taken(keep)


def joined(columns: Columns, yx: Array) -> Columns:
    """Add columns at `yx`."""
    n = len(yx)
    return replace(
        columns,
        yx=np.concatenate([columns.yx, yx]),
        amplitude=np.concatenate([columns.amplitude, np.full(n, 0.3 * np.median(columns.amplitude))]),
        sigma=np.concatenate([columns.sigma, np.full(n, np.median(columns.sigma))]),
        group=np.concatenate([columns.group, np.zeros(n, np.int64)]),
    )


def left_over(counts: Array, columns: Columns, apart: float) -> Array:
    """Find columns in what the fit leaves over: a matched filter, in units of its own noise."""
    model = np.maximum(columns.render(counts.shape, 4.0), 0.02 * counts.mean())
    sigma = float(np.median(columns.sigma))
    width = np.array([sigma, sigma / columns.aspect])
    area = 2 * np.pi * width[0] * width[1]
    score = area * gaussian_filter((counts - model) / model, width)
    information = area / 2 * gaussian_filter(1 / model, width / np.sqrt(2))
    amplitude, z = score / information, score / np.sqrt(information)
    size = tuple(max(3, 2 * int(0.7 * apart / a) + 1) for a in (1.0, columns.aspect))
    peak = (z == maximum_filter(z, size=size)) & (z > 3.6)
    yx = np.argwhere(peak).astype(float)
    if len(yx) == 0:
        return yx
    distance, near = cKDTree(columns.isotropic).query(yx * (1.0, columns.aspect))
    keep = (distance > 1.1 * apart) & (amplitude[peak] > 1.2 * _DIMMEST * bright(columns)[near])
    return thinned(yx[keep], z[peak][keep], apart, columns.aspect)
