"""A flake: columns with their occupants, defects and displacements, before any microscope looks at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ..crystals import Crystal, is_species, occupants, site_of
from .graphene import KINDS, template

Array = npt.NDArray[np.float64]
_APART_NM = 1.2


@dataclass(frozen=True)
class Relaxation:
    """Static displacement of the columns around a defect, along the line from it.

    ``u(r) = amplitude (r0 / r) exp(-(r - r0) / decay) cos(2 pi (r - r0) / wavelength)``, with r0 the
    distance of the nearest columns: the far field of an inclusion where `decay_nm` and `wavelength_nm`
    are infinite, an oscillating one otherwise.

    Parameters
    ----------
    amplitude_pm : float
        Displacement of the nearest columns; outwards is positive.
    wavelength_nm, decay_nm : float
    """

    amplitude_pm: float
    wavelength_nm: float = np.inf
    decay_nm: float = np.inf

    def __call__(self, distance_nm: Array, nearest_nm: float) -> Array:
        """Radial displacement in nm."""
        beyond = distance_nm - nearest_nm
        fall = nearest_nm / np.maximum(distance_nm, 0.5 * nearest_nm) * np.exp(-np.maximum(beyond, 0) / self.decay_nm)
        return 1e-3 * self.amplitude_pm * fall * np.cos(2 * np.pi * beyond / self.wavelength_nm)


@dataclass
class Specimen:
    """Columns of a flake in the scan's frame, relative to the middle of the image.

    Attributes
    ----------
    position_nm, ideal_nm : ndarray, shape (column, 2)
        Where each column is, and where the perfect lattice has it.
    cell : ndarray of int, shape (column, 2)
    sublattice : ndarray of int, shape (column,)
    columns : list of tuple of str
        Distinct occupations; the first is the empty one.
    column : ndarray of int, shape (column,)
        Index into `columns`.
    species : ndarray of str, shape (column,)
        Host column (``W``) or the defect that the column belongs to.
    rotation : ndarray, shape (2, 2)
        ``row @ rotation`` turns (y, x) from the crystal's frame to the scan's.
    defects : list of (species, position_nm, column index)
    """

    crystal: Crystal
    position_nm: Array
    ideal_nm: Array
    cell: npt.NDArray[np.int64]
    sublattice: npt.NDArray[np.int64]
    columns: list[tuple[str, ...]]
    column: npt.NDArray[np.int64]
    species: npt.NDArray[np.object_]
    rotation: Array
    defects: list[tuple[str, Array, int]] = field(default_factory=list)

    def occupy(self, index: int, column: tuple[str, ...], species: str) -> None:
        """Change the occupants of one column."""
        column = tuple(sorted(column))
        if column not in self.columns:
            self.columns.append(column)
        self.column[index] = self.columns.index(column)
        self.species[index] = species


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
    return Specimen(crystal, ideal.copy(), ideal, cell, sublattice, columns, column, names[sublattice], rotation)


def check_defects(crystal: Crystal, defects: Mapping[str, float]) -> None:
    """Raise ValueError for a species that the crystal cannot have, or an amount that makes no sense."""
    for species, amount in defects.items():
        if isinstance(amount, bool) or not isinstance(amount, Real) or not 0 <= amount < np.inf:
            raise ValueError(f"`defects[{species!r}]` must be a fraction 0 to 1 or a count, got {amount!r}.")
        if amount > 1 and amount != int(amount):
            raise ValueError(f"`defects[{species!r}]` above 1 is a count and must be whole, got {amount!r}.")
        if species in KINDS:
            if crystal.name != "graphene":
                raise ValueError(f"`defects` {species!r} belongs to graphene, not to {crystal.name}.")
        elif not is_species(species) or site_of(species) is None or species in ("darker", "brighter"):
            raise ValueError(f"`defects` must be named like V_Se, Te2_Se or {', '.join(KINDS)}, got {species!r}.")
        else:
            occupants(species, crystal)


def add_defects(
    specimen: Specimen, defects: Mapping[str, float], half_extent_nm: Array, rng: np.random.Generator
) -> None:
    """Put defects at random sites: a fraction of a sublattice's sites everywhere, or a count within the image."""
    check_defects(specimen.crystal, defects)
    free = np.ones(len(specimen.column), bool)
    visible = np.all(np.abs(specimen.ideal_nm) < half_extent_nm, axis=1)
    tree = cKDTree(specimen.ideal_nm) if len(free) else None
    names = rng.permutation(sorted(defects)).tolist()
    for species, amount in ((name, defects[name]) for name in names):
        if tree is None:
            return
        if species in KINDS:
            _add_graphene(specimen, species, amount, free, visible, tree, rng)
        else:
            _add_columns(specimen, species, amount, free, visible, tree, rng)


def _choose(amount: float, sites: npt.NDArray[np.int64], visible: npt.NDArray[np.bool_], total: int,
            rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], int]:  # fmt: skip
    """Candidate sites in random order, and how many of them `amount` asks for."""
    if isinstance(amount, (int, np.integer)) or amount > 1:
        return rng.permutation(sites[visible[sites]]), int(amount)
    return rng.permutation(sites), int(rng.binomial(total, amount))


def _add_columns(
    specimen: Specimen,
    species: str,
    amount: float,
    free: npt.NDArray[np.bool_],
    visible: npt.NDArray[np.bool_],
    tree: cKDTree,
    rng: np.random.Generator,
) -> None:
    names = [s.name for s in specimen.crystal.sublattices]
    changes = [(names.index(name), column) for name, column in occupants(species, specimen.crystal).items()]
    on_site = specimen.sublattice == changes[0][0]
    sites, wanted = _choose(amount, np.flatnonzero(on_site & free), visible, int(on_site.sum()), rng)
    for index in sites:
        if wanted == 0:
            break
        members = [int(index)]
        for sublattice, _ in changes[1:]:
            near = tree.query_ball_point(specimen.ideal_nm[index], 1.05 * specimen.crystal.nearest_neighbor_nm)
            near = [k for k in near if specimen.sublattice[k] == sublattice and free[k]]
            members += [int(rng.choice(near))] if near else []
        if len(members) < len(changes):
            continue
        for member, (_, column) in zip(members, changes, strict=True):
            specimen.occupy(member, column, species)
            free[member] = False
        specimen.defects.append((species, specimen.ideal_nm[members].mean(axis=0), members[0]))
        wanted -= 1


def _add_graphene(
    specimen: Specimen,
    species: str,
    amount: float,
    free: npt.NDArray[np.bool_],
    visible: npt.NDArray[np.bool_],
    tree: cKDTree,
    rng: np.random.Generator,
) -> None:
    """Put relaxed defects, far enough apart to keep their shapes, into graphene."""
    sites, wanted = _choose(amount, np.flatnonzero(free), visible, len(free), rng)
    for index in sites:
        if wanted == 0:
            break
        if not free[index]:
            continue
        patch = template(species, int(rng.integers(4)))
        around = np.array(tree.query_ball_point(specimen.ideal_nm[index], patch.radius_nm))
        # The template has its first atom on sublattice A: turned by 180 degrees, it fits B; by 120, a second bond.
        turn = np.deg2rad(180 * specimen.sublattice[index] + 120 * int(rng.integers(3)))
        frame = _turned(turn) @ specimen.rotation
        relative = (specimen.ideal_nm[around] - specimen.ideal_nm[index]) @ frame.T
        distance, match = patch.tree.query(relative)
        fits = distance < 0.03
        around, match = around[fits], np.asarray(match)[fits]
        specimen.position_nm[around] += patch.displacement_nm[match] @ frame
        for atom, element in patch.changes:
            for k in around[match == atom]:
                specimen.occupy(int(k), (element,) if element else (), species)
        specimen.defects.append((species, specimen.ideal_nm[index] + patch.center_nm @ frame, int(index)))
        free[tree.query_ball_point(specimen.ideal_nm[index], _APART_NM)] = False
        wanted -= 1


def _turned(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def relax(specimen: Specimen, relaxation: Mapping[str, Relaxation], reach_nm: float = 1.2) -> None:
    """Displace the columns around each defect whose species has a `Relaxation`."""
    if not len(specimen.column):
        return
    tree, nearest = cKDTree(specimen.ideal_nm), specimen.crystal.nearest_neighbor_nm
    for species, field_of in relaxation.items():
        centers = np.array([center for name, center, _ in specimen.defects if name == species])
        if not len(centers):
            continue
        pairs = cKDTree(centers).sparse_distance_matrix(tree, reach_nm, output_type="ndarray")
        pairs = pairs[pairs["v"] > 1e-3]
        size = field_of(pairs["v"], nearest) / pairs["v"]
        np.add.at(
            specimen.position_nm, pairs["j"], size[:, None] * (specimen.ideal_nm[pairs["j"]] - centers[pairs["i"]])
        )
