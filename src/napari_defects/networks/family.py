"""One network for a family of crystals: generic names of its classes, and a hint at what it looks at.

In WS2 the metal is the brighter column, in MoTe2 the chalcogen: an image alone cannot tell which is which. A network
of the family is shown, beside the image, how bright a pair of chalcogens is to be expected next to a metal.
"""

from __future__ import annotations

import math

from ..crystals import CRYSTALS, Crystal, get_crystal, occupants
from ..simulation.probe import Microscope
from ..simulation.scattering import cross_section_A2

FAMILY = "MX2"
"""Stands for the crystal of a network that serves all of `members`."""


def members() -> tuple[str, ...]:
    """Formulas of the crystals with one metal and a pair of chalcogens per cell."""
    return tuple(name for name, crystal in CRYSTALS.items() if is_member(crystal))


def is_member(crystal: Crystal) -> bool:
    """Whether a crystal has one column of one atom and one of two per cell."""
    return sorted(len(s.column) for s in crystal.sublattices) == [1, 2]


def specific(name: str, crystal: str | Crystal) -> str:
    """Name of a generic class in a crystal: ``V2_X`` is ``V2_Te`` in MoTe2, and ``M`` is ``Mo``."""
    sublattices = get_crystal(crystal).sublattices
    metal, chalcogen = (next(s.element for s in sublattices if len(s.column) == n) for n in (1, 2))
    words = {"M": metal, "X": chalcogen, "X2": f"{chalcogen}2"}
    return "_".join(words.get(word, word) for word in name.split("_"))


def generic(species: str, crystal: str | Crystal, classes: tuple[str, ...]) -> str:
    """Class of `classes` that a species of a crystal belongs to: ``Te_Se`` in WSe2 is ``brighter_X``."""
    crystal = get_crystal(crystal)
    names = {specific(name, crystal): name for name in classes}
    if species in names:
        return names[species]
    ((name, column),) = occupants(species, crystal).items()
    host = crystal.sublattice(name).column
    more = cross_section_A2(tuple(sorted(column)), Microscope()) > cross_section_A2(host, Microscope())
    return f"{'brighter' if more else 'darker'}_{'X' if len(host) == 2 else 'M'}"


def hint(crystal: str | Crystal) -> float:
    """Logarithm of how much brighter the chalcogens' column is than the metal's, for an ordinary microscope."""
    sizes = {len(s.column): cross_section_A2(s.column, Microscope()) for s in get_crystal(crystal).sublattices}
    return math.log(sizes[2] / sizes[1])
