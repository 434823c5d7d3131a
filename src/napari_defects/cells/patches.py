"""Pictures of cells: cut along the lattice, turned to it, a fixed number of pixels per lattice constant.

Two ways to show a cell of an MX2 crystal to a network, both in the crystal's own frame, a1 along x:

- kind ``patches``: two windows, one centred on each site (channels metal, chalcogen); one around the middle of the
  cell where there is one channel; of four, the other two are those of the image's `Typical` cell;
- kind ``resnet18``: the cell's own rectangle, a wide and sqrt(3)/2 a high, as one picture, or its two halves (metal
  left, chalcogen right), each stretched to a square, as 2DIP-Net has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from ..crystals import Crystal
from .kinds import pair_of

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

PX_PER_A = 14
"""Pixels per lattice constant of the windows of ``patches``."""
CELL_SIZE = np.array([np.sqrt(3) / 2, 1.0])
"""Height and width of a unit cell's rectangle, in lattice constants."""


def sample(image: Image, points_px: Array) -> Image:
    """Read an image at points (..., 2), linearly between pixels and mirrored beyond the border."""
    values = map_coordinates(image, points_px.reshape(-1, 2).T, order=1, mode="reflect", output=np.float32)
    return np.asarray(values.reshape(points_px.shape[:-1]), np.float32)


def window(side_px: int, step: float) -> Array:
    """Offsets (side, side, 2) of a square window of pixels `step` apart around its centre."""
    line = (np.arange(side_px) - (side_px - 1) / 2) * step
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1)


def turns() -> list[Array]:
    """Return the six operations of the symmetry of a site: matrices G, with ``offset @ G``."""
    found = []
    for mirror in (1.0, -1.0):
        for angle in np.deg2rad([0, 120, 240]):
            c, s = np.cos(angle), np.sin(angle)
            found.append(np.diag([1.0, mirror]) @ np.array([[c, s], [-s, c]]))
    return found


def cut(
    image: Image, sites_px: Array, frames_px: Array, architecture: Mapping[str, Any], sizes: Array = CELL_SIZE
) -> Image:
    """Cut the pictures that a network wants to see.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        Locally normalized.
    sites_px : ndarray, shape (cell, 2, 2)
        Where metal and chalcogen of each cell are, (y, x) in pixels of `image`.
    frames_px : ndarray, shape (2, 2) or (cell, 2, 2)
        Matrix L: ``offset @ L`` turns an offset in lattice constants in the crystal's frame into pixels.
    architecture : mapping
        Of the network: ``kind``, ``inputs`` and ``side_px``.
    sizes : ndarray, shape (2,) or (cell, 2)
        Height and width of the cells' rectangles, in lattice constants.

    Returns
    -------
    ndarray, shape (cell, windows, side, side)
        One or two windows.
    """
    side, inputs = int(architecture["side_px"]), min(int(architecture["inputs"]), 2)
    middles = sites_px.mean(1)
    if architecture["kind"] == "patches":
        centers = sites_px if inputs == 2 else middles[:, None]
        grid = window(side, 1 / PX_PER_A)[None].repeat(inputs, 0)[None]
    else:
        down = (np.arange(side) + 0.5) / side - 0.5
        across = ((np.arange(side) + 0.5) / side + np.arange(inputs)[:, None]) / inputs - 0.5
        halves = [np.stack(np.meshgrid(down, part, indexing="ij"), -1) for part in across]
        centers = middles[:, None].repeat(inputs, 1)
        grid = np.stack(halves)[None] * np.reshape(sizes, (-1, 1, 1, 1, 2))
    offsets = grid @ np.reshape(frames_px, (-1, 1, 1, 2, 2))
    return sample(image, centers[:, :, None, None] + offsets)


def middle_to_sites(crystal: Crystal) -> Array:
    """Offsets (metal, chalcogen) x (y, x) from the middle of a cell to its sites, in lattice constants."""
    names = [s.name for s in crystal.sublattices]
    order = [names.index(name) for name in pair_of(crystal)]
    places = crystal.fractions[order] @ crystal.vectors_nm / crystal.a_nm
    return np.asarray(places - places.mean(0))


def upright(image: Image, frame_px: Array, px_per_a: float, around_px: Array) -> tuple[Image, Array, Array]:
    """Turn an image to the lattice.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    frame_px : ndarray, shape (2, 2)
        As for `site_patches`.
    px_per_a : float
        Pixels per lattice constant of the result.
    around_px : ndarray, shape (2,)
        The point that both images share.

    Returns
    -------
    turned : ndarray
        What lies beyond the border is 0.
    matrix, origin : ndarray
        A point p of `turned` is ``p @ matrix + origin`` in `image`.
    """
    matrix = frame_px / px_per_a
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * (np.array(image.shape) - 1.0)
    seen = (corners - around_px) @ np.linalg.inv(matrix)
    low = np.floor(seen.min(0))
    shape = (np.ceil(seen.max(0)) - low).astype(int) + 1
    origin = around_px + low @ matrix
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    points = (grid @ matrix + origin).reshape(-1, 2).T
    turned = map_coordinates(image, points, order=1, mode="constant", cval=0.0, output=np.float32)
    return turned.reshape(tuple(shape)), matrix, origin
