"""Which sites of the host are empty: as dark as the middle of a hexagon, which an atom that was missed is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates
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
_NEAR_NM = 1.0  # about a site, in which it is compared with others
_EMPTY = 1e-3  # share of sites that are, before one has looked
_VOTERS = 60
_ON = 0.45  # of the atoms around; by chance it is 0.26, in the noise of low doses half
_LEAST_SPREAD = 0.2  # of brightness, relative to an atom's


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
    """A frame to look for holes in: its lattice, and its atoms with their elements."""

    field: Field
    smooth: Floats
    host: Host
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
            return cls(field, smooth, host, atoms_nm, tuple(elements))
        return None

    def holes(self, rings_nm: Sequence[Floats]) -> list[Hole] | None:
        """Empty sites inside of rings, neighbours together; None where the atoms do not lie on the lattice."""
        rim = np.concatenate(rings_nm)
        middle, bond = rim.mean(0), self.host.crystal.nearest_neighbor_nm
        host = refine_host(self.field, self.host, around_nm=middle)
        cells, sites = host.sites_within(self.field.extent_nm)
        if np.mean(cKDTree(sites).query(rim)[0] < bond / 3) < _ON:
            return None
        rows = np.flatnonzero(cKDTree(self.atoms_nm).query(sites)[0] > bond / 2)
        rows = rows[np.any([_inside(sites[rows], ring) for ring in rings_nm], axis=0)]
        if not len(rows):
            return []
        on = sublattice_of(host, cells)
        odds = np.array([_EMPTY * self._odds(host, sites, on, k) for k in rows.tolist()])
        names = sublattice_elements(host, middle, self.atoms_nm, self.elements)
        away = np.linalg.norm(sites[rows, None] - sites[rows], axis=-1)
        dark, beside = odds > 1, away < 1.2 * bond * host.scale
        groups = connected_components(beside & dark & dark[:, None], directed=False)[1]
        found = []
        for group in np.unique(groups[dark]):
            own = groups == group
            rivals = beside[own].any(0) & ~own  # had one of these been dark, it would be another vacancy
            least = min(*odds[own], *1 / odds[rivals], np.inf)
            found.append(Hole(sites[rows[own]], tuple(names[k] for k in on[rows[own]]), float(least)))
        return found

    def _odds(self, host: Host, sites: Floats, on: Indices, k: int) -> float:
        """Odds that a site is as dark as the middles of hexagons, against as bright as the sites like it."""
        near = np.linalg.norm(sites - sites[k], axis=1) < _NEAR_NM
        step = np.diff(host.crystal.fractions, axis=0)[0] @ host.vectors_nm
        bright = self._brightness(sites[near & (on == on[k])])
        dark = self._brightness(sites[near & (on == 1)] + step)
        level = float(np.median(dark))
        height = max(float(np.median(bright)) - level, 1e-12)
        spread = max(*(median_abs_deviation(v, scale="normal") / height for v in (bright, dark)), _LEAST_SPREAD)
        filled = float(self._brightness(sites[[k]])[0] - level) / height
        return float(np.exp(np.clip((1 - 2 * filled) / (2 * spread**2), -12, 12)))

    def _brightness(self, places_nm: Floats) -> Floats:
        return np.asarray(map_coordinates(self.smooth, (places_nm / self.field.pixel_nm).T, order=1, mode="nearest"))


def _inside(points: Floats, ring: Floats) -> npt.NDArray[np.bool_]:
    """Which points a ring goes around."""
    corner = (ring @ [1j, 1]) - (points @ [1j, 1])[:, None]
    return np.asarray(np.abs(np.angle(np.roll(corner, -1, axis=1) / corner).sum(1)) > np.pi)
