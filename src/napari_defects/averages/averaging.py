"""Class averages: all defects of one kind on top of each other, until a vacancy is seen to pull on its crystal.

Members are brought into the crystal's own frame (members.py), registered to their iterated average
without ever being resampled (registration.py), screened, and added on one grid (stacks.py). The columns
of the average are fitted jointly; disjoint parts of the members, averaged and measured apart, say how
precise that is (measurement.py). What neighbouring defects add is taken off (overlaps.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..checks import check_range
from ..crystals import species_names
from ..lattice import Lattice
from ..micrograph import PIXEL_SIZE_RANGE_NM, Micrograph, Progress, check_micrograph
from ..tables import Defects, Sites, check, check_sites, empty
from .classes import ClassAverage
from .clusters import clusters_on
from .gathering import PRISTINE, gather
from .measurement import Measurement
from .members import Ground
from .overlaps import Field, Sources
from .stacks import Frames
from .surroundings import Surroundings

log = logging.getLogger(__name__)
_OF_SITES = ("frame", "i", "j", "sublattice", "y_nm", "x_nm", "y_ideal_nm", "x_ideal_nm")
_SEPARATIONS = 3
"""Most rounds in which fields of neighbours are taken apart; each leaves less than a fifth of the one before."""
_SETTLED_NM = 1e-5
"""Largest change of what is taken off a column after which no more rounds are made."""


def average(
    micrographs: Micrograph | Sequence[Micrograph],
    defects: Defects | Sequence[Defects],
    *,
    radius_nm: float = 1.0,
    sites: Sites | Sequence[Sites] | None = None,
    lattice: Lattice | Sequence[Lattice] | None = None,
    species: str | Sequence[str] | None = None,
    symmetrize: bool = False,
    rotation: bool = False,
    isolation_nm: float = 0.45,
    max_strain: float | None = None,
    min_coverage: float = 0.7,
    min_correlation: float | None = None,
    max_members: int | None = None,
    clusters_nm: float = 0.0,
    overlap: bool = True,
    pixel_size_nm: float | None = None,
    rounds: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, ClassAverage]:
    """Register and average the defects of each species.

    Parameters
    ----------
    micrographs : Micrograph or sequence of Micrograph
        Members may come from many images, of any rotation, pixel size and intensity scale.
    defects : DataFrame or sequence of DataFrame
        DEFECTS table of each micrograph.
    radius_nm : float
        Half the side of the patches that are registered; columns within it are measured.
    sites : DataFrame or sequence of DataFrame, optional
        SITES tables; where `lattice` is not given the lattice is that of their ideal positions.
    lattice : Lattice or sequence of Lattice, optional
        Lattices of the micrographs. With neither, members are taken as they lie in the image.
    species : str or sequence of str, optional
        What to average, as ``"V_Se, Te_Se"``; None for every species found. ``"pristine:W"`` averages W columns far
        from any defect and needs `sites`.
    symmetrize : bool
        Average the six equivalent copies (C3v) of every member: a gain of up to sqrt(6) in precision,
        if the field sought has that symmetry.
    rotation : bool
        Let each member turn, beyond what the lattice says.
    isolation_nm : float
        Members with another defect closer than this are rejected; farther ones are masked.
    max_strain : float, optional
        Largest strain of the lattice around a member, beyond what is usual of its class, that the member
        may have from elsewhere; needs `sites`. None takes out outliers only.
    min_coverage : float
        Part of a patch that must lie in the image and not under masks.
    min_correlation : float, optional
        With the template; None takes out outliers only.
    max_members : int, optional
        Most members of a class that are registered, evenly from all images and of those that are not ruled out by
        where they lie; the others still count as neighbours. None for all.
    clusters_nm : float
        Pairs and triples of defects that are not farther apart than this are classes of their own, see
        `find_clusters`, beside the single ones.
    overlap : bool
        Take off what neighbouring defects of the classes averaged add to each other's surroundings, and
        what of it the reference lattice has taken up.
    pixel_size_nm : float, optional
        Of the averages; None for that of the finest image.
    rounds : int
        Most times that the template is made anew; two are enough when the lattice is good.
    seed : int
        For the division into halves.
    progress : callable, optional
        ``progress(done, total)``.

    Returns
    -------
    dict of str to ClassAverage
        Without those species of which no member was accepted.

    Raises
    ------
    ValueError
        If the numbers of micrographs and tables differ, pixel sizes are not known, an argument is out of range, or a
        species is neither found nor possible.
    """
    images, tables, grounds = _inputs(micrographs, defects, sites, lattice)
    largest = max(float(image.extent_nm.max()) for image in images) / 2
    check_range("radius_nm", radius_nm, 0.25, max(largest, 0.25), hint="a column and its neighbours, within the image")
    check_range("isolation_nm", isolation_nm, 0)
    check_range("min_coverage", min_coverage, 0, 1)
    check_range("clusters_nm", clusters_nm, 0)
    check_range("rounds", rounds, 1, whole=True)
    check_range("seed", seed, 0, whole=True)
    for name, value, low, high in (("max_strain", max_strain, 0, np.inf), ("min_correlation", min_correlation, -1, 1),
                                   ("pixel_size_nm", pixel_size_nm, *PIXEL_SIZE_RANGE_NM)):  # fmt: skip
        if value is not None:
            check_range(name, value, low, high, hint="or None")
    if max_members is not None:
        check_range("max_members", max_members, 1, whole=True, hint="or None for all")
    pixel = pixel_size_nm or min(float(image.pixel_size_yx_nm.min()) for image in images)
    clusters = _clusters(tables, grounds, clusters_nm)
    names = _names(species, [*tables, *clusters], grounds)
    frames = Frames(images)
    stacks = [
        gather(name, frames, tables, grounds, pixel, radius_nm, isolation_nm, clusters, max_members) for name in names
    ]
    total = sum(len(stack.groups) for stack in stacks) * (2 * rounds + 1)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    measured = []
    for stack in stacks:
        stack.tick = tick
        stack.register(rounds, rotation, min_coverage, min_correlation, max_strain)
        if stack.accepted.any():
            measured.append(Measurement(stack, symmetrize, seed))
        else:
            log.warning(
                "no %s was averaged: %s.", stack.species, ", ".join(sorted(set(stack.reasons))) or "there is none"
            )
    sources = _separate(measured, grounds, overlap)
    result = {m.stack.species: _class_average(m, sources) for m in measured}
    if progress is not None and done < total:
        progress(total, total)
    return result


def _inputs(
    micrographs: Micrograph | Sequence[Micrograph], defects: Any, sites: Any, lattice: Any
) -> tuple[list[Micrograph], list[pd.DataFrame], list[Ground | None]]:
    """Images, checked DEFECTS and ground of each."""
    images = _as_list(micrographs)
    for image in images:
        check_micrograph(image, "micrographs")
    tables = [check(t, "defects") for t in _as_list(defects)]
    seen = [None] * len(images) if sites is None else [check_sites(t, _OF_SITES) for t in _as_list(sites)]
    lattices = [None] * len(images) if lattice is None else _as_list(lattice)
    for name, values in (("defects", tables), ("sites", seen), ("lattice", lattices)):
        if len(values) != len(images):
            raise ValueError(f"`{name}` must be one per micrograph: {len(images)}, got {len(values)}.")
    grounds = [Ground.of(*pair) for pair in zip(lattices, seen, strict=True)]
    if len(crystals := {ground.crystal.name for ground in grounds if ground}) > 1:
        raise ValueError(f"`micrographs` must be of one crystal to be averaged, got {', '.join(sorted(crystals))}.")
    return images, tables, grounds


def _names(species: str | Sequence[str] | None, tables: list[pd.DataFrame], grounds: list[Ground | None]) -> list[str]:
    """Return what to average; ValueError for what is neither found nor possible."""
    found = sorted({s for t in tables for s in t["species"]})
    if species is None:
        return found
    if PRISTINE in str(species) and None in grounds:
        raise ValueError("`sites` must be given to average pristine columns; run assign_sites() first.")
    crystal = next((ground.crystal for ground in grounds if ground), None)
    hosts = [PRISTINE + s.name for s in crystal.sublattices] if crystal else []
    return list(species_names(species, crystal if crystal and crystal.name else None, [*found, *hosts]))


def _clusters(tables: list[pd.DataFrame], grounds: list[Ground | None], reach_nm: float) -> list[pd.DataFrame]:
    """Clusters of each table; none where they are not asked for."""
    if not reach_nm:
        return [empty("defects") for _ in tables]
    result = []
    for table, ground in zip(tables, grounds, strict=True):
        if ground is None:
            raise ValueError("`sites` or `lattice` must be given to average clusters; run assign_sites() first.")
        result.append(clusters_on(ground.crystal, table, reach_nm))
    return result


def _separate(measured: list[Measurement], grounds: list[Ground | None], overlap: bool) -> list[Sources]:
    """Take the fields of neighbours, and what the reference saw of them, off all classes."""
    single = [m for m in measured if overlap and "@" not in m.stack.species and PRISTINE not in m.stack.species]
    sources = [Sources.of([m.stack for m in single], number) for number in range(len(grounds))]
    fields: dict[str, Field] = {}
    around: list[Surroundings | None] = []
    lattices = [m for m in measured if m.ruler is not None]
    for turn in range(1 + (_SEPARATIONS if single else 0)):
        if turn:
            found = {m.stack.species: m.field(around) for m in single}
            fields = {name: one for name, one in found.items() if one is not None}
        around = [None if g is None else Surroundings(g, s, fields) for g, s in zip(grounds, sources, strict=True)]
        before = [m.offset for m in lattices]
        for m in lattices:
            m.separate(around)
        moved = [np.abs(m.offset - was).max(initial=0.0) for m, was in zip(lattices, before, strict=True)]
        if turn and max(moved, default=0.0) < _SETTLED_NM:
            break
    return sources


def _class_average(m: Measurement, sources: list[Sources]) -> ClassAverage:
    """Return the result of a measurement."""
    if m.ruler is not None:
        m.take_apart(sources)
    stack, precision = m.stack, m.precision()
    return ClassAverage(
        species=stack.species,
        image=m.image.astype(np.float32),
        pixel_size_nm=stack.pixel,
        counts=m.sums[..., 2].sum(0).astype(np.float32),
        n=m.n,
        members=stack.members(m.part),
        half=(m.image_of(slice(0, None, 2)).astype(np.float32), m.image_of(slice(1, None, 2)).astype(np.float32)),
        sites=m.sites(precision),
        precision=precision,
        crystal=stack.crystal,
        copies=len(m.operations),
        scatter_pm=1000 * m.deviations[:, m.inside] if m.ruler else np.zeros((m.parts, 0, 2)),
        parts=stack.parts,
    )


def _as_list(value: Any) -> list[Any]:
    """One thing, or a sequence of them, as a list."""
    one = isinstance(value, pd.DataFrame | np.ndarray) or not isinstance(value, Iterable)
    return [value] if one else list(value)
