"""Which defect is where: random, clustered or given sites, and what each does to its columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ..crystals import Crystal, get_crystal, is_species, occupants, site_of
from .graphene import KINDS, ROTORS, template
from .specimen import Array, Defect, Specimen

_HOLLOW = "@hollow"
_APART_NM = 1.2  # between relaxed defects, whose shapes would not survive each other


@dataclass(frozen=True)
class Placed:
    """A defect on its sites; `turn` and `variant` choose among the shapes of a relaxed one."""

    species: str
    sites: tuple[int, ...]
    turn: int = 0
    variant: int = 0
    track: int = 0


def check_defects(crystal: Crystal, defects: Mapping[str, float]) -> None:
    """Raise ValueError for a species that the crystal cannot have, or an amount that makes no sense."""
    for species, amount in defects.items():
        if isinstance(amount, bool) or not isinstance(amount, Real) or not 0 <= amount < np.inf:
            raise ValueError(f"`defects[{species!r}]` must be a fraction 0 to 1 or a count, got {amount!r}.")
        if amount > 1 and amount != int(amount):
            raise ValueError(f"`defects[{species!r}]` above 1 is a count and must be whole, got {amount!r}.")
        check_species(crystal, species)


def check_species(crystal: Crystal, species: str) -> None:
    """Raise ValueError for a species that the crystal cannot have."""
    if species in KINDS:
        if crystal.name != "graphene":
            raise ValueError(f"`defects` {species!r} belongs to graphene, not to {crystal.name}.")
    elif (
        species.startswith(("darker", "brighter"))
        or not (site_of(species) or species.endswith(_HOLLOW))
        or not is_species(species)
    ):
        raise ValueError(f"`defects` must be named like V_Se, Te2_Se, Mo@Mo or {', '.join(KINDS)}, got {species!r}.")
    else:
        _terms(species, crystal)


def alloy(crystal: str | Crystal, composition: Mapping[str, float]) -> dict[str, float]:
    """Return the `defects` of a random alloy.

    Parameters
    ----------
    crystal : str or Crystal
    composition : mapping
        ``{"Te_Se": 0.3}``: three in ten Se atoms are Te, each by itself.

    Returns
    -------
    dict
        Species to fraction of its columns: ``{"Te_Se": 0.42, "Te2_Se": 0.09}``.

    Raises
    ------
    ValueError
        If a fraction is not 0 to 1, or a species is not a substitution of one atom.
    """
    crystal = get_crystal(crystal)
    result: dict[str, float] = {}
    for species, share in composition.items():
        check_species(crystal, species)
        element, _, site = species.partition("_")
        if element == "V" or not element.isalpha() or "+" in species or not 0 <= share <= 1:
            raise ValueError(f"`composition` must be like {{'Te_Se': 0.3}}, got {species!r}: {share!r}.")
        if len(crystal.sublattice(site).column) == 1:
            result[species] = float(share)
        else:
            result[species], result[f"{element}2_{site}"] = float(2 * share * (1 - share)), float(share**2)
    return result


def _terms(species: str, crystal: Crystal) -> list[tuple[str, tuple[str, ...]]]:
    """Sublattice and occupants of each column of a species; an adatom between columns counts as on the first."""
    if species.endswith(_HOLLOW):
        return [(crystal.sublattices[0].name, crystal.sublattices[0].column)]
    return [item for term in species.split("+") for item in occupants(term, crystal).items()]


class Placer:
    """Chooses sites of a specimen, each used once.

    Parameters
    ----------
    specimen : Specimen
        Pristine.
    half_extent_nm : ndarray, shape (2,)
        Half the height and width of the image: where defects that are counted go.
    rng : Generator
    clustering : float
        0 for random sites, towards 1 for sites that keep together.
    lines : mapping, optional
        Species to the number of neighbouring sites of each row of them.
    cluster_nm : float
        Size of the regions in which clustered defects keep together.
    """

    def __init__(
        self,
        specimen: Specimen,
        half_extent_nm: Array,
        rng: np.random.Generator,
        clustering: float = 0.0,
        lines: Mapping[str, int] | None = None,
        cluster_nm: float = 1.5,
    ) -> None:
        self.specimen, self.rng = specimen, rng
        self.free = np.ones(len(specimen.column), bool)
        self.visible = np.all(np.abs(specimen.ideal_nm) < half_extent_nm, axis=1)
        self.tree = cKDTree(specimen.ideal_nm.reshape(-1, 2))
        self._clustering, self._cluster_nm, self._lines = clustering, cluster_nm, lines or {}
        self._names = [s.name for s in specimen.crystal.sublattices]
        self._tracks = 0

    def _order(self, sites: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Sites in the order in which they are taken."""
        if not self._clustering or not len(sites):
            return self.rng.permutation(sites)
        waves = self.rng.normal(0, 1.5 / self._cluster_nm, (2, 60))  # a random field, from plane waves
        field = np.cos(self.specimen.ideal_nm[sites] @ waves + self.rng.uniform(0, 2 * np.pi, 60)).sum(1) / np.sqrt(30)
        noise = self.rng.normal(0, 1, len(sites))
        return sites[np.argsort(self._clustering * field + (1 - self._clustering) * noise)]

    def add(self, species: str, amount: float) -> list[Placed]:
        """Place a fraction of the sublattice's sites everywhere, or a count of sites within the image."""
        if species in KINDS:
            candidates = np.ones(len(self.free), bool)
        else:
            name = _terms(species, self.specimen.crystal)[0][0]
            candidates = self.specimen.sublattice == self._names.index(name)
        counted = isinstance(amount, (int, np.integer)) or amount > 1
        wanted = int(amount) if counted else int(self.rng.binomial(int(candidates.sum()), amount))
        placed: list[Placed] = []
        for site in self._order(np.flatnonzero(candidates & self.free & (self.visible if counted else True))):
            if len(placed) >= wanted:
                break
            row = self._row(int(site), min(self._lines.get(species, 1), wanted - len(placed)))
            placed += [defect for k in row if (defect := self.put(species, k)) is not None]
        return placed

    def _row(self, site: int, length: int) -> list[int]:
        """Free sites of one kind in a row along a short vector of the lattice; empty where there is no room."""
        if length == 1:
            return [site] if self.free[site] else []
        vectors = self.specimen.crystal.vectors_nm @ self.specimen.rotations[self.specimen.grain[site]]
        vectors = np.concatenate([vectors, vectors.sum(0)[None], (vectors[0] - vectors[1])[None]])
        short = np.linalg.norm(vectors, axis=1)
        way = self.rng.choice(np.flatnonzero(short < 1.1 * short.min()))
        along = self.specimen.ideal_nm[site] + np.arange(length)[:, None] * vectors[way]
        distance, found = self.tree.query(along)
        row = np.asarray(found)
        fits = self.free[row] & (distance < 0.02) & (self.specimen.sublattice[row] == self.specimen.sublattice[site])
        return row.tolist() if fits.all() else []

    def put(self, species: str, site: int) -> Placed | None:
        """Place one defect at a site; None where its other columns find no room."""
        if species in KINDS:
            self.free[self.tree.query_ball_point(self.specimen.ideal_nm[site], _APART_NM)] = False
            defect = Placed(species, (site,), int(self.rng.integers(3)), int(self.rng.integers(4)), self._tracks)
        else:
            sites = [site]
            for name, _ in _terms(species, self.specimen.crystal)[1:]:
                reach = 1.05 * self.specimen.crystal.nearest_neighbor_nm
                near = [
                    k
                    for k in self.tree.query_ball_point(self.specimen.ideal_nm[site], reach)
                    if self.specimen.sublattice[k] == self._names.index(name) and self.free[k] and k not in sites
                ]
                if not near:
                    return None
                sites.append(int(self.rng.choice(near)))
            self.free[sites] = False
            defect = Placed(species, tuple(sites), track=self._tracks)
        self._tracks += 1
        return defect

    def put_at(self, species: str, place_nm: Sequence[float]) -> Placed | None:
        """Place one defect at the site of its sublattice that is nearest to a point."""
        name = None if species in KINDS else _terms(species, self.specimen.crystal)[0][0]
        right = self.free & (name is None or self.specimen.sublattice == self._names.index(name))
        distance = np.where(right, np.linalg.norm(self.specimen.ideal_nm - place_nm, axis=1), np.inf)
        if not len(distance) or distance.min() > 2 * self.specimen.crystal.nearest_neighbor_nm:
            return None
        return self.put(species, int(distance.argmin()))


def apply(specimen: Specimen, placed: Iterable[Placed]) -> Specimen:
    """Return a copy of a pristine specimen, with defects."""
    result = specimen.copy()
    tree: cKDTree | None = None
    for defect in placed:
        first = defect.sites[0]
        if defect.species.endswith(_HOLLOW):
            center = _hollow(specimen, first)
            first = result.add(center, occupants(defect.species, specimen.crystal)["hollow"], defect.species, first)
        elif defect.species not in KINDS:
            for site, (_, column) in zip(defect.sites, _terms(defect.species, specimen.crystal), strict=True):
                result.occupy(site, column, defect.species)
            center = specimen.ideal_nm[list(defect.sites)].mean(axis=0)
        else:
            tree = tree or cKDTree(specimen.ideal_nm)
            center = _apply_template(result, defect, tree)
        result.defects.append(Defect(defect.species, center, first, defect.track))
    return result


def _hollow(specimen: Specimen, site: int) -> Array:
    """Middle of the empty place in the cell of a column of the first sublattice."""
    crystal = specimen.crystal
    offset = crystal.hollow_nm - crystal.fractions[0] @ crystal.vectors_nm
    return np.asarray(specimen.ideal_nm[site] + offset @ specimen.rotations[specimen.grain[site]])


def _apply_template(specimen: Specimen, defect: Placed, tree: cKDTree) -> Array:
    """Relax the surroundings of a defect of graphene; returns its centre."""
    turns = defect.species in ROTORS  # on its place, where the others turn around their first atom
    patch = template(defect.species, defect.variant, defect.turn % 2 if turns else 0)
    site = defect.sites[0]
    around = np.array(tree.query_ball_point(specimen.ideal_nm[site], patch.radius_nm))
    # The template has its first atom on sublattice A: turned by 180 degrees, it fits B; by 120, another bond.
    turn = np.deg2rad(180 * specimen.sublattice[site] + (0 if turns else 120 * defect.turn))
    frame = (
        np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        @ specimen.rotations[specimen.grain[site]]
    )
    distance, match = patch.tree.query((specimen.ideal_nm[around] - specimen.ideal_nm[site]) @ frame.T)
    fits = (distance < 0.03) & (specimen.grain[around] == specimen.grain[site])
    around, match = around[fits], np.asarray(match)[fits]
    specimen.position_nm[around] += patch.displacement_nm[match] @ frame
    for atom, element in patch.changes:
        for k in around[match == atom]:
            specimen.occupy(int(k), (element,) if element else (), defect.species)
    return np.asarray(specimen.ideal_nm[site] + patch.center_nm @ frame)
