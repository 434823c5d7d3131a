"""Hexagonal cells and the unit cells in them, as boxes (2DIP-Net: Yang et al., Mater. Horiz., 2024).

In an image turned to the lattice (a1 along x) six columns stand around every hollow. The box around them is 1 / ALPHA
unit cells wide and 1 / BETA high, and two unit cells are cut from it: one from its corner A at the top left, to B, one
from C to its corner D at the bottom right. Every unit cell lies in two hexagons, so one that is missed costs nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..checks import check_range
from ..crystals import Crystal
from .kinds import Array, pair_of
from .patches import CELL_SIZE

ALPHA, BETA = 0.65, 0.5
"""Width and height of a unit cell over those of its hexagon."""

CLASSES = ("background", "hexagon", "cell")


def hexagon_size(alpha: float = ALPHA, beta: float = BETA) -> Array:
    """Height and width of a hexagon's box, in lattice constants."""
    return np.asarray(CELL_SIZE / np.array([beta, alpha]))


def unit_cells(hexagons: Array, alpha: float = ALPHA, beta: float = BETA) -> Array:
    """Cut two unit cells from each hexagon.

    Parameters
    ----------
    hexagons : ndarray, shape (n, 4)
        Boxes (y0, x0, y1, x1).
    alpha, beta : float
        Width and height of a unit cell over those of the hexagon.

    Returns
    -------
    ndarray, shape (2 n, 4)
        All the upper ones, then all the lower ones.
    """
    check_range("alpha", alpha, 0, 1, above=True)
    check_range("beta", beta, 0, 1, above=True)
    size = (hexagons[:, 2:] - hexagons[:, :2]) * [beta, alpha]
    upper = np.concatenate([hexagons[:, :2], hexagons[:, :2] + size], 1)
    lower = np.concatenate([hexagons[:, 2:] - size, hexagons[:, 2:]], 1)
    return np.concatenate([upper, lower])


def true_hexagons(cells: pd.DataFrame, crystal: Crystal) -> Array:
    """Middles (n, 2) of the hollows with all six columns around them, in the unit of `cells`.

    Parameters
    ----------
    cells : DataFrame
        From `cells_of`, of one frame.
    crystal : Crystal
    """
    vectors = crystal.vectors_nm
    corners = []
    for letter, name in zip("MX", pair_of(crystal), strict=True):
        site = crystal.sublattice(name)
        steps = np.array([(m, n) for m in (-1, 0, 1) for n in (-1, 0, 1)])
        reach = np.linalg.norm((steps + np.array([site.u, site.v])) @ vectors, axis=1)
        corners += [(letter, *step) for step in steps[np.argsort(reach)[:3]].tolist()]
    index = cells.index.to_frame(index=False)[["i", "j"]].to_numpy(np.int64)
    middles = np.zeros((len(cells), 2))
    for letter, di, dj in corners:
        wanted = pd.MultiIndex.from_arrays([index[:, 0] + di, index[:, 1] + dj], names=["i", "j"])
        places = cells.droplevel("frame")[[f"y_{letter}", f"x_{letter}"]].reindex(wanted).to_numpy(float)
        middles += places / 6
    return np.asarray(middles[np.isfinite(middles).all(1)])


def boxes_around(middles: Array, size: Array) -> Array:
    """Boxes (y0, x0, y1, x1) of one size."""
    return np.concatenate([middles - size / 2, middles + size / 2], 1)
