"""From named clusters to a model that knows them: the loop of discovery, naming and training closes here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from ase.data import chemical_symbols

from .annotations import Pair, crops
from .crystals import Crystal, Sublattice, occupants, site_of
from .discovery import Discovery
from .labels import label_sites
from .micrograph import Micrograph, Progress
from .tables import Sites
from .tuning import fine_tune
from .verdicts import choices

_ELEMENTS = [e for e in chemical_symbols[5:84] if e not in ("V", "He", "Ne", "Ar", "Kr", "Xe")]  # V is a vacancy


def learn(
    micrograph: Micrograph,
    sites: Sites,
    discovery: Discovery,
    names: Mapping[int, str],
    model: Any,
    *,
    minutes: float = 10.0,
    steps: int | None = None,
    share: float = 0.4,
    seed: int = 0,
    workers: int = 1,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Any:
    """Teach a model the clusters that got a name.

    It goes on learning on simulated twins of the image, in which a dopant of the measured brightness stands for each
    named cluster, and on crops of the image itself: there the named sites have their new name, and all others what the
    model says of them.

    Parameters
    ----------
    micrograph : Micrograph
    sites : Sites
        Those that `discovery` was made from.
    discovery : Discovery
        From `discover`, with this model.
    names : mapping of int to str
        Cluster to species, ``{0: "Ti_W"}``.
    model : Model, str or path
        What to start from.
    minutes, steps, share, seed, workers, device, checkpoint, progress
        As for `fine_tune`.

    Returns
    -------
    Model
        With the new names among its classes.

    Raises
    ------
    ValueError
        If there is no such cluster, a name is not that of a species on its site, or the host is called so.
    """
    from .networks import Model, load_model

    start = model if isinstance(model, Model) else load_model(model)
    pairs = lesson_crops(micrograph, sites, discovery, names, start.classes)
    drawn = lesson_species(discovery, names)
    tuned = fine_tune(
        micrograph, start, crystal=discovery.crystal, minutes=minutes, steps=steps, pairs=pairs, share=share, drawn_as=drawn,
        seed=seed, workers=workers, device=device, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    for number, name in names.items():
        one = discovery.clusters[number]
        tuned.card["notes"].append(
            f"- **{name}** was learned from {one.n} columns of {one.relative_height:.2f} ± {one.relative_height_err:.2f}"
            f" of the host; simulated as {', '.join(drawn[name])}"
        )
    return tuned


def lesson_crops(
    micrograph: Micrograph, sites: Sites, discovery: Discovery, names: Mapping[int, str], classes: tuple[str, ...]
) -> list[Pair]:
    """Crops of the image: named sites by their name, others by the model's word, the rest as pristine columns."""
    judged, crystal = discovery.sites, discovery.crystal
    believed = judged[judged["said"].isin(classes[1:]) & ~judged["cluster"].isin(names)]
    believed = believed.assign(species=believed["said"])
    said = zip(believed["species"], believed["sublattice"], strict=True)
    believed = believed[[_same_site(species, name, crystal) for species, name in said]]
    defects = pd.concat([believed, discovery.named(names)], ignore_index=True)
    defects = defects.assign(defect=range(len(defects)), probability=defects["novelty"], method="manual")
    labels = label_sites(sites, defects, crystal)
    labels = labels[labels["species"].isin([*classes, *names.values()])]
    return [pair for frame in labels["frame"].unique() for pair in crops(micrograph, labels, frame=int(frame))]


def lesson_species(discovery: Discovery, names: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
    """Tell what to simulate for each name: a dopant as bright as its clusters are."""
    crystal, drawn = discovery.crystal, dict[str, tuple[str, ...]]()
    discovery.named(names)  # raises where a name cannot be
    for number, species in names.items():
        sublattice, wanted = crystal.sublattice(site_of(species) or ""), discovery.clusters[number].relative_height
        heights = dopant_heights(sublattice, crystal, number=_replaced(species, sublattice, crystal))
        alike = min((abs(height - wanted), s) for s, height in heights.items())[1]
        drawn[species] = tuple(dict.fromkeys((*drawn.get(species, ()), alike)))
    return drawn


def dopant_heights(sublattice: Sublattice, crystal: Crystal, *, number: int = 1) -> dict[str, float]:
    """Relative heights expected of columns with foreign atoms, `number` of them in a column, by species."""
    hosts = {e for s in crystal.sublattices for e in s.column}
    species = [f"{e}{number if number > 1 else ''}_{sublattice.element}" for e in _ELEMENTS if e not in hosts]
    return {c.name: c.ratio for c in choices(sublattice, species, crystal)[1:]}


def _same_site(species: str, sublattice: str, crystal: Crystal) -> bool:
    """Whether a species, or a host column, is one of this sublattice."""
    one = crystal.sublattice(sublattice)
    return species == one.host or site_of(species) == one.element


def _replaced(species: str, sublattice: Sublattice, crystal: Crystal) -> int:
    """How many foreign atoms a species puts into a column."""
    return sum(element not in sublattice.column for element in occupants(species, crystal)[sublattice.name]) or 1
