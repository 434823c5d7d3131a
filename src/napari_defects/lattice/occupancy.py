"""Which sites of a lattice are empty, and which are no crystal at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..crystals import Crystal

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
_MOST_CELLS = 2**28


def empty_sites(
    position: Callable[[Indices, Indices, Indices], Array], crystal: Crystal, scale: float, occupied: Indices
) -> tuple[Indices, Indices, Indices]:
    """Unoccupied sites within the area of the occupied ones that have two thirds of the expected neighbours.

    Fewer are expected of a sublattice whose columns are too dim to be found everywhere.

    Parameters
    ----------
    position : callable
        Gives (y, x) of sites (i, j, sublattice), as `Lattice.position`.
    crystal : Crystal
    scale : float
        Size of the lattice over the crystal's.
    occupied : ndarray of int, shape (n, 3)
        i, j and number of the sublattice.

    Returns
    -------
    i, j, sublattice : ndarrays of int
    """
    full, start = _grid(occupied, crystal, 2)
    shape = full.shape
    i, j, s = (k.ravel() for k in np.indices(shape))
    where = position(i + start[0], j + start[1], s)
    margin = 0.5 * crystal.nearest_neighbor_nm * scale
    points = position(*occupied.T)
    low, high = points.min(0), points.max(0)
    seen = ((where >= low) & (where <= high)).all(1).reshape(shape) | full
    well_inside = ((where >= low + margin) & (where <= high - margin)).all(1).reshape(shape)

    found = full.sum((0, 1)) / full.sum((0, 1)).max()
    empty = np.zeros(shape, bool)
    for number, neighbors in enumerate(_neighbors(crystal)):
        present, countable, expected = np.zeros((3, *shape[:2]))
        for di, dj, other in neighbors:
            present += _shifted(full[..., other], di, dj)
            countable += _shifted(seen[..., other], di, dj)
            expected += found[other] * _shifted(seen[..., other], di, dj)
        crystalline = (3 * present >= 2 * expected) & (2 * countable >= len(neighbors))
        empty[..., number] = crystalline & well_inside[..., number] & ~full[..., number]
    ei, ej, es = np.nonzero(empty)
    return ei + start[0], ej + start[1], es


def occupancy(sites: Indices, crystal: Crystal) -> float:
    """Share of the neighbouring sites of occupied ones that are occupied, too.

    Near 1 in a crystal, two thirds where one of two sublattices is not seen, a third where the lattice is too fine.

    Parameters
    ----------
    sites : ndarray of int, shape (n, 3)
        i, j and number of the sublattice of every atom.
    crystal : Crystal
    """
    full, _ = _grid(sites, crystal, 3)
    shares = [
        np.mean([_shifted(full[..., other], di, dj)[full[..., number]] for di, dj, other in neighbors])
        for number, neighbors in enumerate(_neighbors(crystal))
        if full[..., number].any()
    ]
    return float(np.average(shares, weights=[n for n in full.sum((0, 1)) if n]))


def _grid(sites: Indices, crystal: Crystal, rim: int) -> tuple[npt.NDArray[np.bool_], Indices]:
    """Which sites are occupied, shape (i, j, sublattice), with an empty rim; and the cell that comes first."""
    start = sites[:, :2].min(0) - rim
    cells = sites[:, :2].max(0) - start + rim + 1
    if np.prod(cells, dtype=float) > _MOST_CELLS:
        raise ValueError(f"`atoms` lie {cells.max()} cells of {crystal.name} apart, as in no image; are they in nm?")
    full = np.zeros((*cells, len(crystal.sublattices)), bool)
    full[tuple((sites - [*start, 0]).T)] = True
    return full, start


def _neighbors(crystal: Crystal) -> list[list[tuple[int, int, int]]]:
    """For each sublattice, the (di, dj, sublattice) of all sites up to one lattice vector away."""
    reach = 1.05 * max(crystal.a_nm, crystal.b_nm)
    result: list[list[tuple[int, int, int]]] = []
    for here in crystal.fractions:
        result.append([])
        for di in range(-2, 3):
            for dj in range(-2, 3):
                for other, there in enumerate(crystal.fractions):
                    length = np.linalg.norm((there + np.array((di, dj)) - here) @ crystal.vectors_nm)
                    if 1e-6 < length < reach:
                        result[-1].append((di, dj, other))
    return result


def _shifted(grid: npt.NDArray[np.bool_], di: int, dj: int) -> npt.NDArray[np.bool_]:
    """``grid[i + di, j + dj]`` at ``[i, j]``; the grid's rim of two is empty, so that rolling is safe."""
    return np.roll(grid, (-di, -dj), (0, 1))
