"""Heights of columns at known positions: a linear fit of all together, and the light of those just outside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.interpolate import BSpline
from scipy.sparse.linalg import LinearOperator, cg, splu
from scipy.spatial import cKDTree
from scipy.special import ndtr

Array = npt.NDArray[np.float64]


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


def light_from_beyond(
    shape: tuple[int, ...], points: Array, sigma: Array, amplitude: Array, sublattice: npt.NDArray[np.str_]
) -> Array:
    """Image of the host columns just beyond the border, which no site stands for."""
    light = np.zeros(shape)
    for name in np.unique(sublattice[sublattice != ""]):
        own = (sublattice == name) & np.isfinite(amplitude)
        if own.sum() < 3:
            continue
        width = np.median(sigma[own], axis=0)
        beyond = _continued(points[sublattice == name], shape, 4 * float(width.max()))
        if len(beyond):
            along = [_profiles(x, np.full(len(x), w), n) for x, w, n in zip(beyond.T, width, shape, strict=True)]
            light += float(np.median(amplitude[own])) * (along[0].T @ along[1]).toarray()
    return light


def _continued(points: Array, shape: tuple[int, ...], reach: float) -> Array:
    """Where a lattice goes on outside the image, within `reach`: its points reflected about their neighbours."""
    tree = cKDTree(points)
    spacing = float(np.median(np.asarray(tree.query(points, k=2)[0])[:, 1]))
    pairs = tree.query_pairs(1.2 * spacing, output_type="ndarray")
    there = np.concatenate([2 * points[pairs[:, k]] - points[pairs[:, 1 - k]] for k in (0, 1)])
    outside = np.maximum(-0.5 - there, there - np.array(shape) + 0.5).max(1)
    there = there[(outside > 0) & (outside < reach) & (tree.query(there)[0] > 0.5 * spacing)]
    same = cKDTree(there).query_ball_point(there, 0.5 * spacing) if len(there) else []
    return np.array([there[k].mean(0) for n, k in enumerate(same) if min(k) == n]).reshape(-1, 2)


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
