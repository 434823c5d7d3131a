"""The intensity of every site, occupied or not, relative to the host around it.

All columns are fitted together at known positions, which makes the fit linear: heights of Gaussians plus a
smooth background. A vacancy gets a height as any column does, and overlapping neighbours are no bias.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage, sparse
from scipy.interpolate import BSpline
from scipy.sparse.linalg import LinearOperator, cg, splu
from scipy.spatial import cKDTree
from scipy.special import ndtr

from ..micrograph import Micrograph

Array = npt.NDArray[np.float64]

BACKGROUND_NM = 2.5
"""Spacing of the splines that make the background."""

_STEADY_NM = 0.005  # scatter of columns about the lattice: noisier positions are drawn towards their site
_NEIGHBORS = 60


def measuring_points(sites: pd.DataFrame) -> Array:
    """Where to look at each site, shape (n, 2) in nm.

    The measured position as far as its error allows, the lattice's otherwise.
    """
    measured = sites[["y_nm", "x_nm"]].to_numpy(float)
    ideal = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    ideal = np.where(np.isfinite(ideal), ideal, measured)
    error = sites[["y_err_nm", "x_err_nm"]].to_numpy(float)
    trust = _STEADY_NM**2 / (_STEADY_NM**2 + np.where(np.isfinite(error), error, np.inf) ** 2)
    return np.where(np.isfinite(measured), ideal + trust * (measured - ideal), ideal)


def heights(image: Array, points_px: Array, sigma_px: Array, background_px: Array) -> Array:
    """Heights of Gaussian columns at known positions above a smooth background.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    points_px : ndarray, shape (n, 2)
    sigma_px : ndarray, shape (n, 2)
        Width of each column along y and x.
    background_px : ndarray, shape (2,)
        Spacing of the background's splines along y and x.

    Returns
    -------
    ndarray, shape (n,)
    """
    n, shape = len(points_px), image.shape
    splines = [_knots(side, float(step)) for side, step in zip(shape, background_px, strict=True)]
    on_pixels = [_spline(np.arange(side, dtype=float), k) for side, k in zip(shape, splines, strict=True)]
    under = [_profiles(points_px[:, a], sigma_px[:, a], shape[a]) @ on_pixels[a] for a in (0, 1)]

    pairs = cKDTree(points_px).query_pairs(6 * float(sigma_px.max()), output_type="ndarray")
    first, second = (np.concatenate([np.arange(n), pairs[:, k], pairs[:, 1 - k]]) for k in (0, 1))
    wide = sigma_px[first] ** 2 + sigma_px[second] ** 2
    narrow = sigma_px[first] ** 2 * sigma_px[second] ** 2 / wide
    apart = points_px[first] - points_px[second]
    middle = (points_px[first] * sigma_px[second] ** 2 + points_px[second] * sigma_px[first] ** 2) / wide
    overlap = 2 * np.pi * np.sqrt(narrow.prod(1)) * np.exp(-0.5 * (apart**2 / wide).sum(1))
    overlap *= _inside(middle, np.sqrt(narrow), shape)
    columns = sparse.csr_array((overlap, (first, second)), shape=(n, n))
    mixed = _products(*under)
    smooth = sparse.kron(*[b.T @ b for b in on_pixels]) + 1e-6 * sparse.eye_array(mixed.shape[1])

    light = np.zeros(n)
    margin = int(5 * sigma_px.max()) + 3
    framed = np.pad(image, margin)
    for width in np.unique(sigma_px.round(4), axis=0):
        own = (np.abs(sigma_px - width) < 1e-4).all(1)
        blurred = ndimage.gaussian_filter(framed, width, mode="constant", truncate=5)
        at = (points_px[own] + margin).T
        light[own] = 2 * np.pi * width.prod() * ndimage.map_coordinates(blurred, at, order=3, mode="nearest")
    glow = (on_pixels[0].T @ image @ on_pixels[1]).ravel()
    system = sparse.block_array([[columns, mixed], [mixed.T, smooth]], format="csr")
    bare, flat = 1 / columns.diagonal(), splu(sparse.csc_array(smooth))

    def precondition(v: Array) -> Array:
        return np.concatenate([bare * v[:n], flat.solve(v[n:])])

    operator = LinearOperator(system.shape, precondition, dtype=np.float64)
    return np.asarray(cg(system, np.concatenate([light, glow]), rtol=1e-8, maxiter=2000, M=operator)[0])[:n]


def relative_heights(micrograph: Micrograph, sites: pd.DataFrame) -> pd.DataFrame:
    """Measure every site of every frame.

    Parameters
    ----------
    micrograph : Micrograph
    sites : DataFrame
        SITES; rows without sublattice are fitted along, but get a NaN, as do columns cut in half by the border.

    Returns
    -------
    DataFrame
        `sites` with `height` (in the image's unit; the amplitude where there is an atom, the linear fit's where
        there is none) and `relative_height` (1 for the host column of its sublattice in its neighbourhood; the mean
        of what the free and the linear fit say, as they err differently), and `scatter`: how much more than
        elsewhere the relative heights scatter in its neighbourhood, 1 or more.
    """
    scale = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    height, relative, scatter = np.full((3, len(sites)), np.nan)
    points, sigma = measuring_points(sites), _widths(sites)[:, None] / scale
    amplitude, names = sites["amplitude"].to_numpy(float), sites["sublattice"].to_numpy(str)
    frames, placed = sites["frame"].to_numpy(np.int64), np.isfinite(points).all(1)
    for frame in np.unique(frames).tolist():
        rows = (frames == frame) & placed
        image, spikes = without_spikes(micrograph.frame(frame).astype(np.float64))
        fitted = heights(image - np.median(image), points[rows] / scale, sigma[rows], BACKGROUND_NM / scale)
        spoiled = np.zeros(len(fitted), bool)
        if len(spikes):
            spoiled = cKDTree(spikes * scale).query(points[rows])[0] < 2.5 * (sigma[rows] * scale).max()
        height[rows] = np.where(np.isfinite(amplitude[rows]) & ~spoiled, amplitude[rows], fitted)
        both = [_relative(of, points[rows], names[rows]) for of in (fitted, height[rows])]
        relative[rows] = np.mean(both, axis=0)
        scatter[rows] = _local_scatter(relative[rows], points[rows], names[rows])
    cut = (points < 0).any(1) | (points > micrograph.extent_nm - scale).any(1)
    return sites.assign(height=height, relative_height=np.where(cut, np.nan, relative), scatter=scatter)


def without_spikes(image: Array) -> tuple[Array, Array]:
    """Give pixels far beyond the range of nearly all others the median of those around them; and where they are."""
    low, high = np.quantile(image, (0.002, 0.998))
    spikes = (image > high + 2 * (high - low)) | (image < low - 2 * (high - low))
    if not spikes.any() or spikes.mean() > 0.01:
        return image, np.zeros((0, 2))
    result = image.copy()
    around = np.argwhere(spikes)[:, None] + np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x])
    at = np.clip(around, 0, np.array(image.shape) - 1)
    result[spikes] = np.median(image[at[..., 0], at[..., 1]], axis=1)
    return result, np.argwhere(spikes).astype(float)


def center_and_width(values: Array) -> tuple[float, float]:
    """Mode and 1 sigma of the main population among `values`."""
    values = np.sort(values[np.isfinite(values)])
    if len(values) < 3:
        return (float(np.median(values)) if len(values) else float("nan")), float("nan")
    half = max(2, (len(values) + 1) // 2)
    start = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
    center = float(np.median(values[start : start + half]))
    width = float("nan")
    for _ in range(3):
        width = max(1.4826 * float(np.median(np.abs(values - center))), 1e-12)
        values = values[np.abs(values - center) < 3 * width]
        center = float(np.median(values))
    return center, width


def _relative(height: Array, points: Array, sublattice: npt.NDArray[np.str_]) -> Array:
    """Heights over their sublattice's mode, and over what the neighbourhood (of all sublattices) makes of it."""
    relative, reference = np.full(len(height), np.nan), np.full(len(height), np.nan)
    for name in np.unique(sublattice[sublattice != ""]):
        own = sublattice == name
        reference[own] = center_and_width(height[own])[0]
        relative[own] = height[own] / reference[own]
    on = np.flatnonzero(np.isfinite(relative))
    if len(on) < 3:
        return relative
    near = np.asarray(cKDTree(points[on]).query(points[on], k=min(_NEIGHBORS, len(on)))[1])
    local = np.maximum(np.median(relative[on][near], axis=1), 0.1)
    relative[on] /= local
    relative[on] -= _crosstalk(relative[on], reference[on], points[on], sublattice[on])
    return relative


def _local_scatter(relative: Array, points: Array, sublattice: npt.NDArray[np.str_]) -> Array:
    """Scatter of the heights around each site over that of its whole sublattice, at least 1: large under dirt."""
    deviation = np.full(len(relative), np.nan)
    for name in np.unique(sublattice[sublattice != ""]):
        own = sublattice == name
        deviation[own] = np.abs(relative[own] - 1) / max(float(np.nanmedian(np.abs(relative[own] - 1))), 1e-9)
    on = np.flatnonzero(np.isfinite(deviation))
    result = np.ones(len(relative))
    if len(on) > _NEIGHBORS:
        near = np.asarray(cKDTree(points[on]).query(points[on], k=_NEIGHBORS)[1])
        ratio = np.median(deviation[on][near], axis=1)
        result[on] = np.where(ratio < 1.5, 1.0, np.minimum(ratio, 2 * ratio - 2))  # up to half as much again is chance
    return result


def _crosstalk(relative: Array, reference: Array, points: Array, sublattice: npt.NDArray[np.str_]) -> Array:
    """Light from unusual neighbours, by the tails of the probe; learned from the host columns."""
    tree = cKDTree(points)
    bond = float(np.median(np.asarray(tree.query(points, k=2)[0])[:, 1]))
    pairs = tree.query_pairs(2.05 * bond, output_type="ndarray")
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    close = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1) < 1.35 * bond
    excess = (relative[pairs[:, 1]] - 1) * reference[pairs[:, 1]] / reference[pairs[:, 0]]
    shells = np.column_stack([np.bincount(pairs[k, 0], excess[k], len(points)) for k in (close, ~close)])
    added = np.zeros(len(points))
    for name in np.unique(sublattice):
        own = sublattice == name
        host = own & (np.abs(relative - 1) < 4 * center_and_width(relative[own])[1])
        if host.sum() > 30:
            design, target = shells[host], relative[host] - 1
            penalty = 0.1 * np.eye(2)  # few unusual neighbours teach nothing
            added[own] = shells[own] @ np.linalg.solve(design.T @ design + penalty, design.T @ target)
    return added


def _widths(table: pd.DataFrame) -> Array:
    """Width of each column in nm: the median of its sublattice."""
    sigma = table["sigma_nm"].astype(float)
    own = sigma.groupby(table["sublattice"].astype(str)).transform("median")
    return own.fillna(sigma.median()).fillna(0.07).to_numpy(float)


def _inside(points: Array, sigma: Array, shape: tuple[int, ...]) -> Array:
    """Share of a Gaussian that lies within the image."""
    high = np.array(shape) - 0.5
    return np.asarray((ndtr((high - points) / sigma) - ndtr((-0.5 - points) / sigma)).prod(1))


def _knots(side: int, step: float) -> Array:
    return np.concatenate(
        [np.zeros(3), np.linspace(0, side - 1, max(1, round(side / step)) + 1), np.full(3, side - 1.0)]
    )


def _spline(at: Array, knots: Array) -> sparse.csr_array:
    return sparse.csr_array(BSpline.design_matrix(np.clip(at, 0, knots[-1] - 1e-9), knots, 3))


def _profiles(center: Array, sigma: Array, side: int) -> sparse.csr_array:
    """Gaussians on the pixels of one axis, shape (n, side)."""
    reach = int(np.ceil(5 * sigma.max()))
    pixel = np.rint(center).astype(int)[:, None] + np.arange(-reach, reach + 1)
    value = np.exp(-0.5 * ((pixel - center[:, None]) / sigma[:, None]) ** 2) * ((pixel >= 0) & (pixel < side))
    ends = pixel.shape[1] * np.arange(len(center) + 1)
    return sparse.csr_array((value.ravel(), np.clip(pixel, 0, side - 1).ravel(), ends), shape=(len(center), side))


def _products(a: sparse.csr_array, b: sparse.csr_array) -> sparse.csr_array:
    """All products of row n of `a` with row n of `b`, as row n."""
    (i, u), (j, v) = _padded(a), _padded(b)
    which = i[:, :, None] * b.shape[1] + j[:, None]
    values = u[:, :, None] * v[:, None]
    ends = which[0].size * np.arange(len(which) + 1)
    return sparse.csr_array((values.ravel(), which.ravel(), ends), shape=(len(which), a.shape[1] * b.shape[1]))


def _padded(matrix: sparse.csr_array) -> tuple[npt.NDArray[np.int64], Array]:
    """Columns and values of a sparse matrix, every row as long as the longest."""
    count = np.diff(matrix.indptr)
    row = np.repeat(np.arange(len(count)), count)
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], count)
    columns, values = np.zeros((len(count), count.max()), np.int64), np.zeros((len(count), count.max()))
    columns[row, place], values[row, place] = matrix.indices, matrix.data
    return columns, values
