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
    elif not is_species(species) or species.startswith(("darker", "brighter")) or site_of(species) is None:
        raise ValueError(f"`defects` must be named like V_Se, Te2_Se or {', '.join(KINDS)}, got {species!r}.")
    else:
        occupants(species, crystal)


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
    cluster_nm : float
        Size of the regions in which they do.
    """

    def __init__(
        self,
        specimen: Specimen,
        half_extent_nm: Array,
        rng: np.random.Generator,
        clustering: float = 0.0,
        cluster_nm: float = 1.5,
    ) -> None:
        self.specimen, self.rng = specimen, rng
        self.free = np.ones(len(specimen.column), bool)
        self.visible = np.all(np.abs(specimen.ideal_nm) < half_extent_nm, axis=1)
        self.tree = cKDTree(specimen.ideal_nm.reshape(-1, 2))
        self._clustering, self._cluster_nm = clustering, cluster_nm
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
            name = next(iter(occupants(species, self.specimen.crystal)))
            candidates = self.specimen.sublattice == [s.name for s in self.specimen.crystal.sublattices].index(name)
        counted = isinstance(amount, (int, np.integer)) or amount > 1
        wanted = int(amount) if counted else int(self.rng.binomial(int(candidates.sum()), amount))
        placed: list[Placed] = []
        for site in self._order(np.flatnonzero(candidates & self.free & (self.visible if counted else True))):
            if len(placed) >= wanted:
                break
            if self.free[site] and (defect := self.put(species, int(site))) is not None:
                placed.append(defect)
        return placed

    def put(self, species: str, site: int) -> Placed | None:
        """Place one defect at a site; None where its other columns find no room."""
        if species in KINDS:
            self.free[self.tree.query_ball_point(self.specimen.ideal_nm[site], _APART_NM)] = False
            defect = Placed(species, (site,), int(self.rng.integers(3)), int(self.rng.integers(4)), self._tracks)
        else:
            names = [s.name for s in self.specimen.crystal.sublattices]
            sites = [site]
            for name in list(occupants(species, self.specimen.crystal))[1:]:
                reach = 1.05 * self.specimen.crystal.nearest_neighbor_nm
                near = self.tree.query_ball_point(self.specimen.ideal_nm[site], reach)
                near = [k for k in near if self.specimen.sublattice[k] == names.index(name) and self.free[k]]
                if not near:
                    return None
                sites.append(int(self.rng.choice(near)))
            self.free[sites] = False
            defect = Placed(species, tuple(sites), track=self._tracks)
        self._tracks += 1
        return defect

    def put_at(self, species: str, place_nm: Sequence[float]) -> Placed | None:
        """Place one defect at the site of its sublattice that is nearest to a point."""
        name = None if species in KINDS else next(iter(occupants(species, self.specimen.crystal)))
        names = [s.name for s in self.specimen.crystal.sublattices]
        right = self.free & (name is None or self.specimen.sublattice == names.index(name))
        distance = np.where(right, np.linalg.norm(self.specimen.ideal_nm - place_nm, axis=1), np.inf)
        if not len(distance) or distance.min() > 2 * self.specimen.crystal.nearest_neighbor_nm:
            return None
        return self.put(species, int(distance.argmin()))


def apply(specimen: Specimen, placed: Iterable[Placed]) -> Specimen:
    """Return a copy of a pristine specimen, with defects."""
    result = specimen.copy()
    tree: cKDTree | None = None
    names = [s.name for s in specimen.crystal.sublattices]
    for defect in placed:
        first = defect.sites[0]
        if defect.species not in KINDS:
            columns = occupants(defect.species, specimen.crystal)
            for site in defect.sites:
                result.occupy(site, columns[names[specimen.sublattice[site]]], defect.species)
            center = specimen.ideal_nm[list(defect.sites)].mean(axis=0)
        else:
            tree = tree or cKDTree(specimen.ideal_nm)
            center = _apply_template(result, defect, tree)
        result.defects.append(Defect(defect.species, center, first, defect.track))
    return result


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
