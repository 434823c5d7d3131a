"""What defects do between the frames of a movie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..checks import check_fields, check_range
from .graphene import KINDS, ROTORS
from .placement import Placed, Placer


@dataclass(frozen=True)
class Motion:
    """Chances, per frame, of what a defect of a species does.

    Parameters
    ----------
    hop : float
        Of stepping to a neighbouring site of its kind.
    turn : float
        Of turning on its site (relaxed defects of graphene): a rotor by 60 degrees, others by 120.
    turn_at : tuple of int
        Frames in which all of them have turned, beside.
    switch : float
        Of becoming another species.
    becomes : str, optional
        That other species.
    vanish : float
        Of healing.
    appear : float
        Expected number of new ones in the image.
    """

    hop: float = 0.0
    turn: float = 0.0
    turn_at: tuple[int, ...] = ()
    switch: float = 0.0
    becomes: str | None = None
    vanish: float = 0.0
    appear: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, ("hop", "turn", "switch", "vanish"), 0, 1)
        check_range("appear", self.appear, 0)
        if self.switch and self.becomes is None:
            raise ValueError("`becomes` must name the species that a switch leads to, as V2_Se; got None.")


def move(placer: Placer, placed: list[Placed], motion: Mapping[str, Motion], frame: int = 1) -> list[Placed]:
    """Return the defects of the next `frame`; a defect keeps its track through hops, turns and switches."""
    rng, result = placer.rng, []
    for defect in placed:
        chances = motion.get(defect.species, Motion())
        if rng.random() < chances.vanish:
            placer.free[list(defect.sites)] = True
            continue
        if rng.random() < chances.hop:
            defect = _hop(placer, defect)
        if rng.random() < chances.turn or frame in chances.turn_at:
            by = 1 if defect.species in ROTORS else int(rng.integers(1, 3))
            defect = replace(defect, turn=(defect.turn + by) % (2 if defect.species in ROTORS else 3))
        if chances.becomes is not None and rng.random() < chances.switch:
            defect = replace(defect, species=chances.becomes)
        result.append(defect)
    for species, chances in motion.items():
        if number := int(rng.poisson(chances.appear)):
            result += placer.add(species, number)
    return result


def _hop(placer: Placer, defect: Placed) -> Placed:
    """Step to a free neighbouring site: of the same sublattice, or any in graphene."""
    if len(defect.sites) > 1:
        return defect
    specimen, site = placer.specimen, defect.sites[0]
    same = np.ones(len(specimen.column), bool)
    reach = 1.05 * specimen.crystal.nearest_neighbor_nm
    taken = ~placer.free
    if defect.species in KINDS:
        taken = np.zeros_like(same)
    else:
        same = specimen.sublattice == specimen.sublattice[site]
        reach = 1.05 * max(specimen.crystal.a_nm, specimen.crystal.b_nm)
    near = [k for k in placer.tree.query_ball_point(specimen.ideal_nm[site], reach) if same[k] and not taken[k]]
    near = [k for k in near if k != site]
    if not near:
        return defect
    target = int(placer.rng.choice(near))
    placer.free[site], placer.free[target] = True, False
    return replace(defect, sites=(target,))
