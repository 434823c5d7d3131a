"""Relaxed point defects of graphene, and silicon in it, by springs between bonded neighbours.

Each defect is made by its topology in a periodic cell (atoms removed, bonds rewired) and relaxed in
the plane. Silicon sits above the plane, so its bonds are shorter in projection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from ase.data import atomic_masses
from scipy.spatial import cKDTree

from ..checks import check_choice
from ..crystals import GRAPHENE
from .keating import Bond, bond, relaxed, wrapped

Array = npt.NDArray[np.float64]
POINTS = ("Si1C3", "Si1C4", "V1", "V2", "SW")
ROTORS = ("Si3C6", "Si4C6")
"""Triangles of silicon in the hole of a hexagon, the second with one more atom above its middle."""
CLUSTERS = ("Si2C4", "Si2C5", "Si2C6", *ROTORS)
KINDS = POINTS + CLUSTERS
_CELLS = 14
_BOND = GRAPHENE.a_nm / np.sqrt(3)
_REACH_NM, _TAPER_NM = 1.5, 0.4


@dataclass(frozen=True)
class Template:
    """A relaxed defect, relative to the pristine site of its first atom (sublattice A).

    Attributes
    ----------
    pristine_nm, displacement_nm : ndarray, shape (atom, 2)
    changes : tuple of (atom, element)
        Atoms that are removed (element ``""``) or exchanged.
    center_nm : ndarray, shape (2,)
    """

    pristine_nm: Array
    displacement_nm: Array
    changes: tuple[tuple[int, str], ...]
    center_nm: Array
    radius_nm: float

    @cached_property
    def tree(self) -> cKDTree:
        """Index of the pristine positions."""
        return cKDTree(self.pristine_nm)


@dataclass
class _Sheet:
    """A periodic sheet around its atom `first` that can be rewired; atoms 2k and 2k + 1 are A and B of one cell."""

    first: int = 2 * (_CELLS // 2 * _CELLS + _CELLS // 2)
    lengths: dict[Bond, float] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    silicon: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        vectors = GRAPHENE.vectors_nm
        cells = np.stack(np.meshgrid(*[np.arange(_CELLS)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
        atoms = ((cells + GRAPHENE.fractions) @ vectors).reshape(-1, 2)
        self.edges = vectors * _CELLS
        self.place = wrapped(atoms - atoms[self.first], self.edges)
        self.start = self.place.copy()
        distance = np.linalg.norm(wrapped(atoms[:, None] - atoms[None], self.edges), axis=-1)
        self.bonds = {bond(int(a), int(b)) for a, b in np.argwhere(np.triu(distance < 1.2 * _BOND, 1))}
        self.center = np.zeros(2)

    def neighbors(self, atom: int) -> list[int]:
        return [b if a == atom else a for a, b in sorted(self.bonds) if atom in (a, b)]

    def join(self, a: int, b: int, length: float | None = None) -> None:
        self.bonds.add(bond(a, b))
        if length is not None:
            self.lengths[bond(a, b)] = length

    def part(self, a: int, b: int) -> None:
        self.bonds.discard(bond(a, b))

    def relax(self) -> Template:
        """Let go of the removed atoms, and relax."""
        bonds = {pair for pair in self.bonds if not self.removed & set(pair)}
        final = relaxed(self.start, self.edges, bonds, self.lengths, _BOND, self.silicon)
        displacement = wrapped(final - self.place, self.edges)
        displacement[sorted(self.removed)] = 0.0
        far = np.linalg.norm(self.place, axis=1)
        displacement -= displacement[far > 1.0].mean(axis=0)
        displacement *= np.clip((_REACH_NM - far) / _TAPER_NM, 0, 1)[:, None]
        changes = [(k, "Si") for k in sorted(self.silicon)] + [(k, "") for k in sorted(self.removed)]
        center = self.center
        if len(self.silicon) > 1:  # the centre of mass of the silicon and what it bonds to
            rim = {k for pair in bonds if self.silicon & set(pair) for k in pair} - self.silicon
            mass = np.zeros(len(far))
            mass[sorted(rim)], mass[sorted(self.silicon)] = atomic_masses[6], atomic_masses[14]
            center = mass @ (self.place + displacement) / mass.sum()
        return Template(self.place, displacement, tuple(sorted(changes)), center, _REACH_NM)


@lru_cache(maxsize=64)
def template(kind: str, variant: int = 0, state: int = 0) -> Template:
    """Relax the defect `kind`.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    variant : int
        0 to 3, which differ in how far it reconstructs.
    state : int
        0 or 1: the two orientations of a rotor, 60 degrees apart.
    """
    check_choice("kind", kind, KINDS)
    sheet = _Sheet()
    if kind in CLUSTERS:
        _cluster(sheet, kind, variant, state)
    else:
        _point(sheet, kind, variant)
    return sheet.relax()


def _point(sheet: _Sheet, kind: str, variant: int) -> None:
    """Rewire the bond between the first atom and a neighbour: one silicon atom, or graphene's own defects."""
    first, partner = sheet.first, sheet.neighbors(sheet.first)[0]
    middle = sheet.place[partner] / 2
    normal = np.array([-middle[1], middle[0]])

    def around(atom: int, other: int) -> list[int]:
        """Return the two other neighbours of an atom, low side first."""
        return sorted((k for k in sheet.neighbors(atom) if k != other), key=lambda k: float(sheet.place[k] @ normal))

    low_a, high_a = around(first, partner)
    low_b, high_b = around(partner, first)
    if kind == "Si1C3":
        sheet.silicon = {first}
        for k in sheet.neighbors(first):
            sheet.join(first, k, (0.150, 0.155, 0.160, 0.165)[variant])
    elif kind == "V1":
        sheet.removed = {first}
        if variant:  # two of the three open atoms draw together: a pentagon and a nonagon
            sheet.join(low_a, high_a, (0.26, 0.22, 0.19)[variant - 1])
    elif kind == "V2":  # two pentagons and an octagon
        sheet.center, sheet.removed = middle, {first, partner}
        for pair in ((low_a, high_a), (low_b, high_b)):
            sheet.join(*pair, (0.152, 0.155, 0.165, 0.175)[variant])
    elif kind == "Si1C4":
        sheet.center, sheet.removed, sheet.silicon = middle, {partner}, {first}
        sheet.start[first] = middle
        for k in (low_a, high_a, low_b, high_b):
            sheet.join(first, k, (0.172, 0.178, 0.184, 0.190)[variant])
    else:  # SW: A keeps its low neighbour and takes B's low one; B has the high ones
        sheet.center = middle
        sheet.start[first], sheet.start[partner] = middle - normal, middle + normal
        sheet.part(first, high_a)
        sheet.part(partner, low_b)
        sheet.join(first, low_b)
        sheet.join(partner, high_a)
        sheet.lengths[bond(first, partner)] = (0.130, 0.132, 0.135, 0.138)[variant]


def _cluster(sheet: _Sheet, kind: str, variant: int, state: int) -> None:
    """Put two to four silicon atoms into the hole that a part of a hexagon leaves.

    Two, three or four atoms of the hexagon make room for a dimer whose atoms are three- or four-fold;
    all six for a triangle, each corner bonded to two neighbouring atoms of the rim: there are two ways.
    """
    one, other = sheet.neighbors(sheet.first)[:2]
    middle = sheet.place[one] + sheet.place[other]  # of the hexagon
    spokes = sheet.place - middle
    ring = np.flatnonzero(np.linalg.norm(spokes, axis=1) < 1.1 * _BOND)
    turn = np.arctan2(*spokes[ring].T) - np.arctan2(*spokes[sheet.first])
    ring = ring[np.argsort(np.round(turn % (2 * np.pi), 6))]
    outer = [next(k for k in sheet.neighbors(int(n)) if k not in ring) for n in ring]
    number, slots = int(kind[2]), ring.tolist()
    rims: list[tuple[int, ...]]
    if kind in ROTORS:
        rims = [(outer[k], outer[(k + 1) % 6]) for k in (((2 * n - state) % 6) for n in range(3))]
        atoms = slots[0::2]
    else:
        gone = int(kind[4]) - 2  # of the hexagon's atoms
        last = gone - 1
        rims = [(outer[0], slots[5]), (outer[last], slots[gone])]
        if gone == 3:  # the atom between them bonds to either
            rims[variant % 2] += (outer[1],)
        elif gone == 4:
            rims = [(*rims[0], outer[1]), (*rims[1], outer[2])]
        atoms, slots = [slots[0], slots[last]], slots[:gone]
    for atom in slots:
        for k in sheet.neighbors(atom):
            sheet.part(atom, k)
    for atom, rim in zip(atoms, rims, strict=True):
        sheet.start[atom] = np.mean([sheet.place[k] for k in rim], axis=0) * 0.6 + 0.4 * middle
        for k in rim:
            sheet.join(atom, k, (0.172, 0.177, 0.182, 0.187)[variant])
        for k in atoms:
            if k != atom:
                sheet.join(atom, k, (0.215, 0.222, 0.229, 0.236)[variant])
    sheet.silicon = set(atoms)
    if number == 4:
        above = slots[1]
        sheet.start[above] = middle
        sheet.silicon.add(above)
    sheet.removed = set(slots) - sheet.silicon
