"""A flake: columns with their occupants, defects and displacements, before any microscope looks at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ..crystals import Crystal

Array = npt.NDArray[np.float64]
SECOND_GRAIN = 100_000


class Defect(NamedTuple):
    """A defect of a specimen: its centre, the column of its (first) site, and its number in a movie."""

    species: str
    center_nm: Array
    site: int
    track: int


@dataclass
class Specimen:
    """Columns of a flake in the scan's frame, relative to the middle of the image.

    Attributes
    ----------
    position_nm, ideal_nm : ndarray, shape (column, 2)
        Where each column is, and where the perfect lattice has it.
    cell : ndarray of int, shape (column, 2)
    sublattice : ndarray of int, shape (column,)
        One more than the last for an adatom between the sites.
    columns : list of tuple of str
        Distinct occupations; the first is the empty one.
    column : ndarray of int, shape (column,)
        Index into `columns`.
    species : ndarray of str, shape (column,)
        Host column (``W``) or the defect that the column belongs to.
    rotations : ndarray, shape (grain, 2, 2)
        ``row @ rotation`` turns (y, x) from the crystal's frame to the scan's.
    grain : ndarray of int, shape (column,)
        Grain that each column belongs to.
    defects : list of Defect
    """

    crystal: Crystal
    position_nm: Array
    ideal_nm: Array
    cell: npt.NDArray[np.int64]
    sublattice: npt.NDArray[np.int64]
    columns: list[tuple[str, ...]]
    column: npt.NDArray[np.int64]
    species: npt.NDArray[np.object_]
    rotations: Array
    grain: npt.NDArray[np.int64]
    defects: list[Defect] = field(default_factory=list)

    def occupy(self, index: int, column: tuple[str, ...], species: str) -> None:
        """Change the occupants of one column."""
        column = tuple(sorted(column))
        if column not in self.columns:
            self.columns.append(column)
        self.column[index] = self.columns.index(column)
        self.species[index] = species

    def add(self, position_nm: Array, column: tuple[str, ...], species: str, near: int) -> int:
        """Put a column where the lattice has none, in the cell of another; returns its index."""
        self.position_nm = np.append(self.position_nm, position_nm[None], axis=0)
        self.ideal_nm = np.append(self.ideal_nm, position_nm[None], axis=0)
        self.cell = np.append(self.cell, self.cell[near][None], axis=0)
        self.grain = np.append(self.grain, self.grain[near])
        self.sublattice = np.append(self.sublattice, len(self.crystal.sublattices))
        self.column = np.append(self.column, 0)
        self.species = np.append(self.species, np.array([species], object))
        self.occupy(len(self.column) - 1, column, species)
        return len(self.column) - 1

    def without_columns(self) -> Specimen:
        """Return the same frame without a crystal."""
        none = slice(0, 0)
        return replace(
            self, position_nm=self.position_nm[none], ideal_nm=self.ideal_nm[none], cell=self.cell[none],
            sublattice=self.sublattice[none], column=self.column[none], species=self.species[none],
            grain=self.grain[none],
        )  # fmt: skip

    def copy(self) -> Specimen:
        """Return a copy that can be changed."""
        return replace(
            self, position_nm=self.position_nm.copy(), columns=list(self.columns), column=self.column.copy(),
            species=self.species.copy(), defects=list(self.defects),
        )  # fmt: skip


def pristine(
    crystal: Crystal,
    extent_nm: Array,
    *,
    rotation: Array,
    shift_nm: Array,
    covers: Callable[[Array], npt.NDArray[np.bool_]] | None = None,
) -> Specimen:
    """Fill a rectangle around the middle of the image with perfect crystal.

    Parameters
    ----------
    crystal : Crystal
    extent_nm : ndarray, shape (2,)
        Height and width to fill.
    rotation : ndarray, shape (2, 2)
        From `Scan.rotation`.
    shift_nm : ndarray, shape (2,)
        Where the crystal's origin lies.
    covers : callable, optional
        Points (n, 2) to whether the flake is there.
    """
    vectors = crystal.vectors_nm @ rotation
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * extent_nm / 2 - shift_nm
    low, high = (f(corners @ np.linalg.inv(vectors), axis=0) for f in (np.min, np.max))
    ranges = [np.arange(int(np.floor(a)) - 1, int(np.ceil(b)) + 2) for a, b in zip(low, high, strict=True)]
    cells = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 1, 2)
    n = len(crystal.sublattices)
    ideal = ((cells + crystal.fractions) @ vectors + shift_nm).reshape(-1, 2)
    cell = np.broadcast_to(cells, (len(cells), n, 2)).reshape(-1, 2)
    sublattice = np.tile(np.arange(n), len(cells))
    keep = np.all(np.abs(ideal) <= extent_nm / 2, axis=1)
    if covers is not None:
        keep[keep] = covers(ideal[keep])
    ideal, cell, sublattice = ideal[keep], cell[keep], sublattice[keep]
    hosts = [tuple(sorted(s.column)) for s in crystal.sublattices]
    columns: list[tuple[str, ...]] = [(), *dict.fromkeys(hosts)]
    names = np.array([s.host for s in crystal.sublattices], object)
    column = np.array([columns.index(h) for h in hosts])[sublattice]
    return Specimen(
        crystal,
        ideal.copy(),
        ideal,
        cell,
        sublattice,
        columns,
        column,
        names[sublattice],
        rotation[None],
        np.zeros(len(column), int),
    )


def joined(first: Specimen, second: Specimen) -> Specimen:
    """Put two pristine grains together; of columns that would overlap, the second's are left out.

    Cells of the second grain are numbered from `SECOND_GRAIN` on.
    """
    tree, near = cKDTree(first.ideal_nm.reshape(-1, 2)), 0.75 * first.crystal.nearest_neighbor_nm
    keep = np.asarray(tree.query(second.ideal_nm.reshape(-1, 2))[0]) > near

    def both(name: str) -> Any:
        return np.concatenate([getattr(first, name), getattr(second, name)[keep]])

    grain = np.repeat([0, 1], [len(first.column), int(keep.sum())])
    return Specimen(
        first.crystal, both("position_nm"), both("ideal_nm"), both("cell") + SECOND_GRAIN * grain[:, None],
        both("sublattice"), first.columns, both("column"), both("species"),
        np.concatenate([first.rotations, second.rotations]), grain,
    )  # fmt: skip
