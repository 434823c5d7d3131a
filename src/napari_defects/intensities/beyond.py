"""Columns that no site stands for: those just outside the image, and those that a table of sites leaves out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

Array = npt.NDArray[np.float64]


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
        beyond = _continued(points[sublattice == name], shape, 0.0, 4 * float(width.max()))
        if len(beyond):
            along = [_profiles(x, np.full(len(x), w), n) for x, w, n in zip(beyond.T, width, shape, strict=True)]
            light += float(np.median(amplitude[own])) * (along[0].T @ along[1]).toarray()
    return light


def left_out(image: Array, points: Array, sublattice: npt.NDArray[np.str_]) -> Array:
    """Places inside the image where the lattice of some sites goes on, and it is as bright as they are, in pixels."""
    smooth, found = ndimage.uniform_filter(image, 3), [np.zeros((0, 2))]

    def values(at: Array) -> Array:
        return np.asarray(smooth[tuple(np.clip(np.rint(at).astype(int), 0, np.subtract(image.shape, 1)).T)])

    tree, dark = cKDTree(points), float(np.percentile(smooth, 5))
    apart = 0.5 * float(np.median(np.asarray(tree.query(points, k=2)[0])[:, 1])) if len(points) > 1 else 0.0
    for name in np.unique(sublattice[sublattice != ""]):
        own = points[sublattice == name]
        there = _continued(own, image.shape, -np.inf, 0.0) if len(own) >= 3 else own[:0]
        there = there[tree.query(there)[0] > apart]
        found.append(there[values(there) > 0.5 * (dark + np.median(values(own)))])
    return np.concatenate(found)


def _continued(points: Array, shape: tuple[int, ...], least: float, most: float) -> Array:
    """Where a lattice goes on, `least` to `most` outside the image: its points reflected about their neighbours."""
    tree = cKDTree(points)
    spacing = float(np.median(np.asarray(tree.query(points, k=2)[0])[:, 1]))
    pairs = tree.query_pairs(1.2 * spacing, output_type="ndarray")
    there = np.concatenate([2 * points[pairs[:, k]] - points[pairs[:, 1 - k]] for k in (0, 1)])
    outside = np.maximum(-0.5 - there, there - np.array(shape) + 0.5).max(1)
    there = there[(outside > least) & (outside < most) & (tree.query(there)[0] > 0.5 * spacing)]
    same = cKDTree(there).query_ball_point(there, 0.5 * spacing) if len(there) else []
    return np.array([there[k].mean(0) for n, k in enumerate(same) if min(k) == n]).reshape(-1, 2)


def _profiles(center: Array, sigma: Array, side: int) -> sparse.csr_array:
    """Gaussians on the pixels of one axis, shape (n, side)."""
    reach = int(np.ceil(5 * sigma.max()))
    pixel = np.rint(center).astype(int)[:, None] + np.arange(-reach, reach + 1)
    value = np.exp(-0.5 * ((pixel - center[:, None]) / sigma[:, None]) ** 2) * ((pixel >= 0) & (pixel < side))
    ends = pixel.shape[1] * np.arange(len(center) + 1)
    return sparse.csr_array((value.ravel(), np.clip(pixel, 0, side - 1).ravel(), ends), shape=(len(center), side))
