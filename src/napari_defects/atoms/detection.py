"""Candidates for columns: where to begin a fit, what it left over, and what it should not keep.

Everything here is in pixels and counts (variance = mean); `apart` is a distance in pixels along y.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter, gaussian_laplace, maximum_filter, zoom
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from napari_defects.gaussian import Columns, Pixels, background_grid, wide_mean

Array = npt.NDArray[np.float64]

_TAIL = 4.5  # widths from which the tail of a column outside the image reaches into it
_EDGE = 4.0  # widths inside from which a column is on the edge
_DEEP = 5.0  # widths inside from which columns are trusted to say what lies outside
_REPEATED = 0.8  # of the columns that a shift must bring onto others to be a period of the pattern
_WEAKEST = 0.2  # response, relative to the strongest around, that may be a column
_BINNED = 2.2  # bins in a width, at least, where what is left over is looked through
_UNSEEN, _BRIGHT = 0.05, 0.4  # probability of a column by maps, and height beside bright ones, that say it is one
_DIMMEST = 0.1  # of the bright columns around: half of a lone chalcogen, twice a doubly empty one
_DIMMER = 0.35  # of a dim sublattice, where that is less: sulfur beside tungsten


@dataclass(frozen=True, eq=False)
class Peaks:
    """Maxima of the Laplacian at the scale of a column, before any threshold.

    Parameters
    ----------
    yx : ndarray, shape (peak, 2)
    z : ndarray, shape (peak,)
        How far they stand out of the noise, in sigma of it.
    share : ndarray, shape (peak,)
        Height relative to the strongest around.
    likely : ndarray, shape (peak,), optional
        What a network says of the place, and whether it says so more than of any place around.
    """

    yx: Array
    z: Array
    share: Array
    likely: Array | None = None
    top: npt.NDArray[np.bool_] | None = None

    def above(self, threshold: float, apart: float, aspect: float) -> Array:
        """Positions of those that stand out of the noise by `threshold` sigma, the best of each that are too near."""
        keep, rank = (self.z > threshold) & (self.share > _WEAKEST), self.z
        if self.likely is not None and self.top is not None:
            # a dopant the network was never told about stays
            keep = (keep & ((self.likely > 0.2) | (self.z > threshold + 2.5))) | (self.top & (self.likely > 0.5))
            rank = self.likely
        return thinned(self.yx[keep], rank[keep], apart, aspect)


def maxima(counts: Array, sigma: float, aspect: float, apart: float, likely: Array | None = None) -> Peaks:
    """Find maxima of the Laplacian at the scale of a column."""
    width = (0.8 * sigma, 0.8 * sigma / aspect)
    response = -gaussian_laplace(counts, width)
    # noise of the response: variance = mean of the counts, times the squared norm of the kernel
    norm = 1 / (2 * np.pi * width[0] ** 5 * width[1])
    sd = np.sqrt(np.maximum(gaussian_filter(counts, width), 0.02 * counts.mean()) * norm)
    size = tuple(max(3, 2 * int(0.7 * apart / a) + 1) for a in (1.0, aspect))
    highest = maximum_filter(response, size=size)
    strongest = response == highest
    peak = strongest & (response > 0)
    smooth = top = None
    if likely is not None:
        smooth = gaussian_filter(likely, tuple(0.4 * w for w in width))
        top = smooth == maximum_filter(smooth, size=size)
        peak |= top & (smooth > 0.5)
    at = np.argwhere(peak).astype(float)
    z, share = (strongest * response / sd)[peak], response[peak] / wide_mean(highest, np.full(2, 4 * sigma), at)
    return Peaks(at, z, share) if smooth is None or top is None else Peaks(at, z, share, smooth[peak], top[peak])


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
    coarse = smooth[::step, ::step]
    size = np.minimum(max(5, int(10 * sigma / step)), coarse.shape)
    windows = sliding_window_view(np.pad(coarse, [(n // 2, n // 2) for n in size], mode="reflect"), size)
    windows = windows[:: max(1, size[0] // 3), :: max(1, size[1] // 3)]
    low = np.percentile(windows.reshape(*windows.shape[:2], -1), 10, axis=2)
    grid = background_grid(counts.shape, sigma, aspect)
    nodes = zoom(gaussian_filter(low, 2), np.divide(grid, low.shape), order=1, mode="nearest")
    columns = Columns(yx, np.ones(len(yx)), np.full(len(yx), sigma), np.zeros(len(yx), np.int64), nodes, aspect)
    at = np.rint(yx).astype(int)
    height = smooth[at[:, 0], at[:, 1]] - columns.background(counts.shape)
    return replace(columns, amplitude=np.maximum(height, 0.1 * np.median(np.abs(height)) + 1e-9))


def bright(columns: Columns) -> Array:
    """Return the amplitude of the brighter columns around each column."""
    k = min(25, len(columns.yx))
    _, near = cKDTree(columns.isotropic).query(columns.isotropic, k=k)
    brighter = round(0.75 * (k - 1))
    return np.asarray(np.partition(columns.amplitude[near.reshape(-1, k)], brighter, axis=1)[:, brighter])


def dimmest(columns: Columns) -> Array:
    """Return the amplitude, around each column, below which nothing is a column."""
    around = bright(columns)
    dim = np.percentile(columns.amplitude / around, 25) if len(around) else 1.0
    return np.asarray(min(_DIMMEST, _DIMMER * dim) * around)


def pruned(columns: Columns, apart: float) -> Columns:
    """Leave out columns that are too dim, too uncertain, or on top of a brighter one."""
    keep = columns.amplitude > dimmest(columns)
    if len(columns.covariance):
        keep &= ~(columns.amplitude < 3 * columns.errors[:, 0])
    pairs = cKDTree(columns.isotropic).query_pairs(apart, output_type="ndarray")
    a, b = columns.amplitude[pairs[:, 0]], columns.amplitude[pairs[:, 1]]
    keep[np.where(a < b, pairs[:, 0], pairs[:, 1])] = False
    return columns.taken(keep)


def believed(columns: Columns, likely: Array) -> Columns:
    """Leave out dim columns that a network sees nothing of, if it sees most others: bumps of the dirt between columns.

    What no network was told of, as an atom that lies on the crystal, is kept if it is bright.
    """
    seen = sampled(likely, columns.yx)
    if len(seen) == 0 or np.median(seen) < 0.5:
        return columns
    return columns.taken((seen > _UNSEEN) | (columns.amplitude > _BRIGHT * bright(columns)))


def sampled(likely: Array, yx: Array) -> Array:
    """Values of an image at the pixels nearest to some places, shape (n,)."""
    at = np.clip(np.rint(yx).astype(int), 0, np.subtract(likely.shape, 1))
    return np.asarray(likely[at[:, 0], at[:, 1]])


def joined(columns: Columns, yx: Array, amplitude: Array | None = None) -> Columns:
    """Add columns at `yx`."""
    n = len(yx)
    height = np.full(n, 0.3 * np.median(columns.amplitude)) if amplitude is None else amplitude
    return replace(
        columns,
        yx=np.concatenate([columns.yx, yx]),
        amplitude=np.concatenate([columns.amplitude, height]),
        sigma=np.concatenate([columns.sigma, np.full(n, np.median(columns.sigma))]),
        group=np.concatenate([columns.group, np.zeros(n, np.int64)]),
        covariance=columns.covariance[:0],
    )


def continued(columns: Columns, shape: tuple[int, ...], apart: float) -> Columns:
    """Add the columns just outside the image, whose tails reach into it: where the pattern inside goes on.

    Columns on the edge, which had to account for those tails, begin again from where the pattern has them. What is
    added comes last.
    """
    width, at, limit = columns.width, columns.isotropic, np.subtract(shape, 1) * (1.0, columns.aspect)
    shifts = repeats(at, limit, width)
    deep = np.minimum(at, limit - at).min(axis=1) / width
    rim = np.flatnonzero((deep > _DEEP) & (deep < _DEEP + 16))  # nearer the edge, columns still lean on these tails
    place, height = (at[rim, None] + shifts).reshape(-1, 2), np.repeat(columns.amplitude[rim], len(shifts))
    out = np.maximum(-place, place - limit).max(axis=1, initial=-np.inf)
    near_edge = (out > -_EDGE * width) & (out < _TAIL * width)
    place, height = place[near_edge], height[near_edge]
    if len(place) == 0:
        return columns
    rows, found, left = np.column_stack([place, height]), [], np.ones(len(place), bool)
    for k, near in enumerate(cKDTree(place).query_ball_point(place, 0.5 * apart)):
        if left[k]:
            left[near] = False
            found.append(np.median(rows[near], axis=0))
    sites = np.array(found)
    edge = np.flatnonzero(deep < _EDGE)
    distance = np.linalg.norm(at[edge, None] - sites[:, :2], axis=-1)
    out = np.maximum(-sites[:, :2], sites[:, :2] - limit).max(axis=1) > 0.5
    a, b = linear_sum_assignment(np.minimum(distance, 2 * apart) + 2 * apart * out)  # rather those that were found
    same = distance[a, b] < 1.8 * apart
    yx = columns.yx.copy()
    yx[edge[a[same]]] = sites[b[same], :2] / (1.0, columns.aspect)
    free = out & ~np.isin(np.arange(len(sites)), b[same])
    sites = sites[free]
    return joined(replace(columns, yx=yx), sites[:, :2] / (1.0, columns.aspect), sites[:, 2])


def repeats(at: Array, limit: Array, width: float) -> Array:
    """Find the shifts that take nearly every column inside onto another, shape (n, 2)."""
    inside = at[((at > 16 * width) & (at < limit - 16 * width)).all(axis=1)]
    if len(inside) < 20:
        return np.zeros((0, 2))
    tree = cKDTree(at)
    some = inside[np.linspace(0, len(inside) - 1, 300).astype(int)]
    some = np.unique(some, axis=0)
    candidates = np.concatenate(
        [at[tree.query_ball_point(p, 16 * width)] - p for p in some[:: max(1, len(some) // 12)]]
    )
    candidates = thinned(candidates, -np.linalg.norm(candidates, axis=1), 0.7 * width, 1.0)
    shifts = []
    for shift in candidates[np.linalg.norm(candidates, axis=1) > width]:
        distance, near = (np.asarray(k) for k in tree.query(some + shift))
        hit = distance < 0.7 * width
        if hit.mean() > _REPEATED:
            shifts.append(np.median(at[near[hit]] - some[hit], axis=0))
    return np.array(shifts).reshape(-1, 2)


def left_over(counts: Array, columns: Columns, apart: float) -> Array:
    """Find columns in what the fit leaves over: a matched filter, in units of its own noise."""
    bins = max(1, int(columns.width / _BINNED))
    pixels = Pixels(counts, columns.nodes.shape, binning=bins, reach=4.0)
    model = np.maximum(pixels.model(columns), 0.02 * pixels.counts.mean())
    width = columns.width / bins / np.array([1.0, columns.aspect])
    area = 2 * np.pi * width[0] * width[1] * bins**2
    score = area * gaussian_filter((pixels.counts - model) / model, width)
    information = area / 2 * gaussian_filter(1 / model, width / np.sqrt(2))
    amplitude, z = score / information, score / np.sqrt(information)
    size = tuple(max(3, 2 * int(0.7 * apart / bins / a) + 1) for a in (1.0, columns.aspect))
    peak = (z == maximum_filter(z, size=size)) & (z > 3.6)
    yx = np.asarray(np.argwhere(peak) * float(bins) + 0.5 * (bins - 1), np.float64)
    if len(yx) == 0:
        return yx
    distance, near = cKDTree(columns.isotropic).query(yx * (1.0, columns.aspect))
    keep = (distance > 1.1 * apart) & (amplitude[peak] > 1.2 * dimmest(columns)[near])
    return thinned(yx[keep], z[peak][keep], apart, columns.aspect)
