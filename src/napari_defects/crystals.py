"""Two-dimensional crystals, and the grammar in which their point defects are named.

A species is ``occupant_site``: ``V_Se`` (one of the two Se missing), ``V2_Se`` (both), ``Te_Se``,
``Te2_Se``, ``V_W``, ``Se_W``, ``Te2_W``; ``+`` joins a complex (``V_Te+V_Mo``); ``@`` is an adatom,
on top of a column (``Mo@Mo``) or between them (``Mo@hollow``). A column whose
intensity fits nothing known is ``darker_W`` or ``brighter_W``. Bonding-graph classes (``Si1C3``)
and graphene's own (``V1``, ``V2``, ``SW``) are not sites and are left as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers

_TERM = re.compile(r"(V|[A-Z][a-z]?)([2-9]?)_([A-Z][a-z]?)")
_ADATOM = re.compile(r"([A-Z][a-z]?)@([A-Z][a-z]?|hollow)")
_ARRANGED = re.compile(r"@[\d.]+(-[\d.]+)*[a-h]?$")
_OUTLIER = re.compile(r"(darker|brighter)_([A-Z][a-z]?)")
_GRAPH = re.compile(r"(?:[A-Z][a-z]?[1-9][0-9]*)+(?:\+V[1-9])?|V[1-9]|SW")


@dataclass(frozen=True)
class Sublattice:
    """One kind of column: fractional coordinates `u`, `v` and its occupants in projection."""

    name: str
    u: float
    v: float
    column: tuple[str, ...]

    @property
    def element(self) -> str:
        """The host element, as it stands after ``_`` in a species."""
        return self.column[0]

    @property
    def host(self) -> str:
        """Name of the pristine column: ``W``, ``Se2``."""
        return column_name(self.column)


@dataclass(frozen=True)
class Crystal:
    """A layered crystal in projection.

    Parameters
    ----------
    name : str
        Formula, as in ``WSe2``.
    a_nm, b_nm : float
        Lengths of the lattice vectors.
    gamma_deg : float
        Angle from a1 to a2, in the (x, y) frame of the image.
    sublattices : tuple of Sublattice
    poisson_ratio : float
        In-plane, for the elastic inclusion model.
    """

    name: str
    a_nm: float
    b_nm: float
    gamma_deg: float
    sublattices: tuple[Sublattice, ...]
    poisson_ratio: float = 0.2

    @property
    def vectors_nm(self) -> npt.NDArray[np.float64]:
        """Lattice vectors as rows (a1, a2), each (y, x), unrotated: a1 along x."""
        gamma = np.deg2rad(self.gamma_deg)
        return np.array([[0.0, self.a_nm], [self.b_nm * np.sin(gamma), self.b_nm * np.cos(gamma)]])

    @property
    def fractions(self) -> npt.NDArray[np.float64]:
        """Fractional coordinates (u, v) of the sublattices, shape (sublattice, 2)."""
        return np.array([(s.u, s.v) for s in self.sublattices])

    @property
    def cell_area_nm2(self) -> float:
        """Area of the unit cell."""
        return float(abs(np.linalg.det(self.vectors_nm)))

    @property
    def nearest_neighbor_nm(self) -> float:
        """Shortest distance between two columns in projection."""
        shifts = np.array([(m, n) for m in (-1, 0, 1) for n in (-1, 0, 1)])
        delta = self.fractions[:, None, None] - self.fractions[None, :, None] + shifts
        distance = np.linalg.norm(delta @ self.vectors_nm, axis=-1)
        return float(distance[distance > 1e-6].min())

    @property
    def hollow_nm(self) -> npt.NDArray[np.float64]:
        """The place (y, x) in the cell that is farthest from all columns."""
        u = (np.arange(24) / 24)[:, None, None]
        grid = np.concatenate(np.broadcast_arrays(u, u.reshape(1, -1, 1)), -1).reshape(-1, 1, 1, 2)
        shifts = np.array([(m, n) for m in (-1, 0, 1) for n in (-1, 0, 1)])
        delta = (self.fractions[:, None] + shifts - grid) @ self.vectors_nm
        place: npt.NDArray[np.float64] = grid[np.linalg.norm(delta, axis=-1).min((1, 2)).argmax(), 0, 0]
        return place @ self.vectors_nm

    def sublattice(self, name: str) -> Sublattice:
        """Return the sublattice called `name`, or else the first whose host element is `name`."""
        for match in (s for key in ("name", "element") for s in self.sublattices if getattr(s, key) == name):
            return match
        names = ", ".join(s.name for s in self.sublattices)
        raise ValueError(f"{self.name} has no site {name!r}; its sublattices are {names}.")


def _mx2(metal: str, chalcogen: str, a_nm: float, poisson_ratio: float) -> Crystal:
    columns = (Sublattice(metal, 1 / 3, 2 / 3, (metal,)), Sublattice(chalcogen, 2 / 3, 1 / 3, (chalcogen,) * 2))
    return Crystal(f"{metal}{chalcogen}2", a_nm, a_nm, 120.0, columns, poisson_ratio)


# Lattice constants: Mounet et al., Nat. Nanotechnol. 13, 246 (2018) and experiment; Poisson ratios:
# Zeng et al., Chin. Phys. B 24, 026201 (2015) and Liu et al., Phys. Rev. B 76, 064120 (2007).
MOS2 = _mx2("Mo", "S", 0.3160, 0.25)
MOSE2 = _mx2("Mo", "Se", 0.3288, 0.23)
MOTE2 = _mx2("Mo", "Te", 0.3519, 0.24)
WS2 = _mx2("W", "S", 0.3153, 0.22)
WSE2 = _mx2("W", "Se", 0.3282, 0.19)
WTE2 = _mx2("W", "Te", 0.3550, 0.18)
NBS2 = _mx2("Nb", "S", 0.3310, 0.28)
NBSE2 = _mx2("Nb", "Se", 0.3442, 0.29)
TAS2 = _mx2("Ta", "S", 0.3316, 0.27)
TASE2 = _mx2("Ta", "Se", 0.3434, 0.27)
VSE2 = _mx2("V", "Se", 0.3330, 0.25)
GRAPHENE = Crystal(
    "graphene",
    0.2460,
    0.2460,
    120.0,
    (Sublattice("A", 1 / 3, 2 / 3, ("C",)), Sublattice("B", 2 / 3, 1 / 3, ("C",))),
    0.16,
)
HBN = Crystal(
    "hBN", 0.2504, 0.2504, 120.0, (Sublattice("B", 1 / 3, 2 / 3, ("B",)), Sublattice("N", 2 / 3, 1 / 3, ("N",))), 0.21
)

CRYSTALS: dict[str, Crystal] = {
    c.name: c for c in (WSE2, WS2, WTE2, MOS2, MOSE2, MOTE2, NBS2, NBSE2, TAS2, TASE2, VSE2, GRAPHENE, HBN)
}


def get_crystal(crystal: str | Crystal) -> Crystal:
    """Return a crystal by its formula, whatever the case; a `Crystal` passes through.

    Raises
    ------
    ValueError
        If the formula is not known.
    """
    if isinstance(crystal, Crystal):
        return crystal
    found = {name.lower(): c for name, c in CRYSTALS.items()}.get(str(crystal).strip().lower())
    if found is None:
        raise ValueError(f"`crystal` must be one of {', '.join(CRYSTALS)}, got {crystal!r}; or make a Crystal(...).")
    return found


def column_name(column: tuple[str, ...]) -> str:
    """Name of a column from its occupants: ``("Se", "Se")`` is ``Se2``, ``("Se", "Te")`` is ``SeTe``."""
    return "".join(f"{element}{n if n > 1 else ''}" for element, n in sorted(Counter(column).items()))


def occupants(species: str, crystal: str | Crystal) -> dict[str, tuple[str, ...]]:
    """Occupants of the columns a species changes.

    Parameters
    ----------
    species : str
        In the grammar of this module; complexes allowed, host columns (``Se2``) too.
    crystal : str or Crystal

    Returns
    -------
    dict
        Sublattice name to occupants, e.g. ``{"Se": ("Se", "Te")}`` for ``Te_Se``; ``hollow`` for an
        adatom between the columns.

    Raises
    ------
    ValueError
        If the species is not in the grammar, its site is not in the crystal, or it takes one of the cell twice.
    """
    crystal = get_crystal(crystal)
    result: dict[str, tuple[str, ...]] = {}
    if adatom := _ADATOM.fullmatch(species):
        element, site = adatom.groups()
        below = None if site == "hollow" else crystal.sublattice(site)
        return {"hollow": (element,)} if below is None else {below.name: (*below.column, element)}
    for term in species.split("+"):
        host = next((s for s in crystal.sublattices if s.host == term), None)
        match = _TERM.fullmatch(term)
        site = host.name if host else match and crystal.sublattice(match.group(3)).name
        if site in result:
            raise ValueError(f"`species` {species!r} changes the {site} of one cell twice; count them one by one.")
        if host is not None:
            result[host.name] = host.column
        elif match is None:
            raise ValueError(f"`species` must be occupant_site such as V_Se or Te2_Se, got {species!r}.")
        else:
            element, number, site = match.groups()
            sublattice = crystal.sublattice(site)
            n = int(number or 1)
            if element not in atomic_numbers:
                raise ValueError(f"`species` {species!r} holds {element!r}, which is no chemical element.")
            if element == "V" and n > len(sublattice.column):
                raise ValueError(
                    f"`species` {species!r} takes {n} atoms from a column that has {len(sublattice.column)}."
                )
            result[sublattice.name] = sublattice.column[n:] + (() if element == "V" else (element,) * n)
    return result


def is_species(species: str) -> bool:
    """Whether `species` is well-formed, for any crystal."""
    terms = str(species).split("+")
    return bool(
        _GRAPH.fullmatch(str(species))
        or _OUTLIER.fullmatch(str(species))
        or _ADATOM.fullmatch(str(species))
        or all(_TERM.fullmatch(t) for t in terms)
    )


def species_names(
    species: str | Iterable[str], crystal: Crystal | None = None, known: Iterable[str] = ()
) -> tuple[str, ...]:
    """Names in a list of species, or in one string with commas between; clusters (``V_Se+V_Se@0.33``) among them.

    Parameters
    ----------
    species : str or iterable of str
    crystal : Crystal, optional
        In which they must be possible.
    known : iterable of str
        Names that are right whatever the grammar says, as those found.

    Raises
    ------
    ValueError
        If a name is neither known nor in the grammar of this module, or its site is not in the crystal.
    """
    listed = species.split(",") if isinstance(species, str) else map(str, species)
    names = tuple(dict.fromkeys(name.strip() for name in listed if name.strip()))
    for name in (_ARRANGED.sub("", name) for name in names if name not in set(known)):
        if not is_species(name):
            raise ValueError(f"`species` must be names such as V_Se, Te2_Se, V_Se+V_W or Si1C3, got {name!r}.")
        if crystal is None or _GRAPH.fullmatch(name):
            continue
        if outlier := _OUTLIER.fullmatch(name):
            crystal.sublattice(outlier.group(2))
        else:
            for term in name.split("+"):
                occupants(term, crystal)
    return names


def site_of(species: str) -> str | None:
    """Host element of the (first) site of a species, or None for a bonding-graph class or an adatom between sites."""
    if adatom := _ADATOM.fullmatch(species):
        return None if adatom.group(2) == "hollow" else adatom.group(2)
    match = _TERM.match(species) or _OUTLIER.fullmatch(species)
    return match.group(match.lastindex or 0) if match else None


_LABELS = {"V_Se": "SV", "V2_Se": "DV", "Te_Se": "SeTe", "Te2_Se": "2Te", "V_W": "VW", "Se_W": "SeW", "Te2_W": "2TeW"}
_LABELS |= {"V_Te": "VTe", "V2_Te": "VTe2", "V_Mo": "VMo", "Si1C3": "Si3", "Si1C4": "Si4"}
_COLORS = {
    "V_X": "#56b4e9", "V2_X": "#0072b2", "V_M": "#f0e442", "V_X+V_M": "#b266ff", "V2_X+V_M": "#ff4d4d",
    "Te_X": "#e69f00", "Te2_X": "#d55e00", "Se_X": "#a3deff", "Se2_X": "#00a0fa", "S_X": "#00fab6", "S2_X": "#1d725b",
    "O_X": "#cda8bc", "O2_X": "#e9d8e1", "other_X": "#8b5123", "+": "#ffbb85",
    "Se_M": "#009e73", "Te2_M": "#cc79a7", "Te_M": "#9de7d3", "Se2_M": "#9f3c73", "S_M": "#ffcb57", "S2_M": "#d18447",
    "Mo_M": "#d2cc74", "W_M": "#d2cc74", "Ti_M": "#847c0a", "Nb_M": "#7e6120", "Re_M": "#266e97", "other_M": "#afa40e",
    "darker_M": "#00c2c7", "brighter_M": "#ff6f91", "darker_X": "#8c6bb1", "brighter_X": "#a6d854",
    "Si1C3": "#e69f00", "Si1C4": "#56b4e9", "V1": "#0072b2", "V2": "#009e73", "SW": "#cc79a7",
    "Si1C3+V1": "#f0e442", "Si1C2": "#a6d854", "Si2C4": "#8c6bb1", "Si2C5": "#ff6f91", "Si2C6": "#d55e00",
    "Si3C6": "#00c2c7", "Si4C6": "#b15928",
}  # fmt: skip
"""Occupant and side, chalcogen's or metal's; with its symbol each is 12 or more apart (CIE 1976), as the colour-blind
see it too. Mo and W share one: where one is a dopant, the other is the host."""


def species_label(species: str) -> str:
    """Short label of a species as papers' figures write it: ``V_Se`` is ``SV``, ``Te_Se`` is ``SeTe``."""
    return _LABELS.get(species, species)


def species_of_label(label: str) -> str:
    """Species that papers' figures call so: ``SeTe`` is ``Te_Se``; anything else is returned as it is."""
    return {short: species for species, short in _LABELS.items()}.get(label, label)


def species_color(species: str) -> str:
    """Colour of a species, the same in every layer and figure; distinguishable without red–green vision."""
    if species in _COLORS:
        return _COLORS[species]
    if outlier := _OUTLIER.fullmatch(species):
        return _COLORS[f"{outlier.group(1)}_{_side(outlier.group(2))}"]
    if species.startswith("V") and "+V_" in species:
        return _COLORS["V2_X+V_M" if species.startswith("V2") else "V_X+V_M"]
    if "+" in species:
        return _COLORS["+"]
    if match := _TERM.match(species):
        occupant, number, side = match.group(1), "2" if match.group(2) else "", _side(match.group(3))
        return _COLORS.get(f"{occupant}{number}_{side}", _COLORS[f"other_{side}"])
    return "#999999"


def _side(element: str) -> str:
    return "X" if element in ("S", "Se", "Te", "N") else "M"
