"""Which sites of the host are empty: as dark as the middle of a hexagon, which an atom that was missed is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.stats import median_abs_deviation

from ..crystals import Crystal
from ..lattice.phasing import Field, Host, find_host, refine_host
from ..micrograph import Micrograph

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

CALIBRATED = (0.88, 1.14)
"""Scales of the lattice that are looked for in a calibrated image."""
_SMOOTH_NM = 0.04
_TILE_NM, _PIECE_NM = 1.4, (-1.7, 1.7)  # parts of the frame with a lattice each, and how far around it is told
_NEAR_NM = 1.0  # about the middle of a part, in which brightness is compared
_EMPTY = 1e-3  # share of sites that are, before one has looked
_VOTERS = 60
_LEAST_SPREAD = 0.2  # of brightness, relative to an atom's
_FAINT = 0.5  # of the usual height of an atom; where they are lower, there is no lattice
_LARGEST = 4  # neighbours that are a vacancy; more are a hole
_RIM = 2.1  # bonds around a vacancy, in which the lattice goes on,
_BROKEN = 0.4  # with no atom so dim
_SEEN = 1.8  # bonds to the border: all hexagons around are in view
_APART_NM = 0.36  # from a foreign atom or a rotated bond, which move the atoms around


class Hole(NamedTuple):
    """Neighbouring sites without an atom: where, of which elements, and the odds that just these are empty."""

    places_nm: Floats
    elements: tuple[str, ...]
    odds: float


def sublattice_of(host: Host, cells: Floats) -> Indices:
    """Which sublattice of the crystal each fractional cell is on."""
    off = cells[:, None] - host.crystal.fractions
    return np.asarray(np.abs(off - np.rint(off)).sum(-1).argmin(1))


def sublattice_elements(host: Host, around_nm: Floats, places_nm: Floats, elements: Sequence[str]) -> tuple[str, ...]:
    """Element of each sublattice, as most atoms near a place say: the image alone does not tell one from the other."""
    known = tuple(s.element for s in host.crystal.sublattices)
    if len(set(known)) == 1:
        return known
    near = np.linalg.norm(places_nm - around_nm, axis=1).argsort()[:_VOTERS]
    cells, sites = host.sites_within(places_nm.max(0), margin_nm=host.crystal.nearest_neighbor_nm)
    on = sublattice_of(host, cells)[cKDTree(sites).query(places_nm[near])[1]]
    votes = Counter((k, elements[n]) for k, n in zip(on.tolist(), near.tolist(), strict=True))
    straight, swapped = (sum(votes[k, e] for k, e in enumerate(one)) for one in (known, known[::-1]))
    return known if straight >= swapped else known[::-1]


@dataclass(frozen=True, eq=False)
class Ground:
    """A frame to look for holes in: the sites of its lattice, how bright they are, and its atoms.

    Parameters
    ----------
    host : Host
    sites_nm : ndarray, shape (site, 2)
    on : ndarray, shape (site,)
        Sublattice of each.
    filled : ndarray, shape (site,)
        Brightness, from 0 in the middles of hexagons to 1 of the sites around; NaN where there is no lattice.
    odds : ndarray, shape (site,)
        Of being empty.
    extent_nm : ndarray, shape (2,)
    atoms_nm : ndarray, shape (atom, 2)
    elements : tuple of str
    """

    host: Host
    sites_nm: Floats
    on: Indices
    filled: Floats
    odds: Floats
    extent_nm: Floats
    atoms_nm: Floats
    elements: tuple[str, ...]

    @classmethod
    def of(
        cls, micrograph: Micrograph, frame: int, crystal: Crystal, known: Mapping[int, Host],
        atoms_nm: Floats, elements: Sequence[str],
    ) -> Ground | None:  # fmt: skip
        """Prepare a frame, whose lattice is looked for unless `known`; None where there is none, or no honeycomb."""
        if len(crystal.sublattices) != 2:
            return None
        field = Field.of(micrograph, frame)
        with suppress(ValueError):
            host = known.get(frame) or find_host(field, crystal, scales=CALIBRATED)
            smooth = gaussian_filter(micrograph.frame(frame).astype(float), _SMOOTH_NM / field.pixel_nm)
            return cls(host, *_look(field, smooth, host), field.extent_nm, atoms_nm, tuple(elements))
        return None

    def holes(self, apart_nm: Sequence[Floats]) -> list[Hole]:
        """Empty sites in the midst of the lattice, neighbours together; none near the places `apart_nm`."""
        sites, tree = self.sites_nm, cKDTree(self.sites_nm)
        free = cKDTree(self.atoms_nm).query(sites)[0] > self._bond_nm / 2
        empty = np.flatnonzero(free & (self.odds > 1))
        pairs = tree.query_pairs(1.2 * self._bond_nm, output_type="ndarray")
        pairs = pairs[np.isin(pairs, empty).all(1)]
        matrix = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(sites), len(sites)))
        labels = connected_components(matrix, directed=False)[1]
        barred = np.minimum(sites, self.extent_nm - sites).min(1) < _SEEN * self._bond_nm
        barred |= np.asarray(cKDTree(np.reshape(apart_nm, (-1, 2))).query(sites)[0]) < _APART_NM
        found = []
        for group in np.unique(labels[empty]):
            own = np.flatnonzero(labels == group)
            beside, around = (
                np.setdiff1d(np.concatenate(tree.query_ball_point(sites[own], r * self._bond_nm)).astype(int), own)
                for r in (1.2, _RIM)
            )
            if len(own) > _LARGEST or barred[own].any() or not self.filled[around].min() > _BROKEN:  # a hole, an end
                continue
            least = min(*self.odds[own], *1 / self.odds[beside])  # had one of these been dark, it would be another
            names = sublattice_elements(self.host, sites[own].mean(0), self.atoms_nm, self.elements)
            found.append(Hole(sites[own], tuple(names[k] for k in self.on[own]), float(least)))
        return found

    @property
    def _bond_nm(self) -> float:
        return self.host.crystal.nearest_neighbor_nm * self.host.scale


def _look(field: Field, smooth: Floats, host: Host) -> tuple[Floats, Indices, Floats, Floats]:
    """Sites of the lattice as it follows the scan, their sublattice, how filled they are, and the odds of being empty.

    An empty one is as dark as the middles of hexagons around, a full one as bright as the sites like it.
    """
    cells, sites = host.sites_within(field.extent_nm)
    on, tree = sublattice_of(host, cells), cKDTree(sites)
    counts = np.ceil(field.extent_nm / _TILE_NM).astype(int)
    knots = (np.argwhere(np.ones(counts)) + 0.5) * field.extent_nm / counts
    owner = np.asarray(cKDTree(knots).query(sites)[1])
    step = np.diff(host.crystal.fractions, axis=0)[0]
    followed, height, spread, excess = sites.copy(), *np.full((3, len(sites)), np.nan)

    def brightness(places_nm: Floats) -> Floats:
        return np.asarray(map_coordinates(smooth, (places_nm / field.pixel_nm).T, order=1, mode="nearest"))

    for k, knot in enumerate(knots):
        near = np.array(tree.query_ball_point(knot, _NEAR_NM), int)
        local = _followed(field, host, knot)
        places = local.origin_nm + cells[near] @ local.vectors_nm
        bright, dark = brightness(places), brightness(places[on[near] == 1] + step @ local.vectors_nm)
        level = np.median(dark)
        for s in (0, 1):
            alike = on[near] == s
            mine = alike & (owner[near] == k)
            rows = near[mine]
            followed[rows], excess[rows] = places[mine], bright[mine] - level
            height[rows] = np.median(bright[alike]) - level
            spread[rows] = max(median_abs_deviation(v, scale="normal") for v in (bright[alike], dark))
    height[~(height > _FAINT * np.nanmedian(height))] = np.nan
    filled, spread = excess / height, np.maximum(spread / height, _LEAST_SPREAD)
    odds = _EMPTY * np.exp(np.clip((1 - 2 * filled) / (2 * spread**2), -12, 12))
    return followed, on, filled, np.nan_to_num(odds)


def _followed(field: Field, host: Host, place_nm: Floats) -> Host:
    """Lattice as it is around a place, which only the piece of the frame there tells."""
    low, high = (np.clip((place_nm + way) / field.pixel_nm, 0, field.flat.shape).astype(int) for way in _PIECE_NM)
    cut = (..., slice(low[0], high[0]), slice(low[1], high[1]))
    piece = Field(field.flat[cut], field.smooth[cut], field.slope[cut], field.bend[cut], field.pixel_nm)
    corner = low * field.pixel_nm
    local = refine_host(piece, replace(host, origin_nm=host.origin_nm - corner), around_nm=place_nm - corner)
    return replace(local, origin_nm=local.origin_nm + corner)
