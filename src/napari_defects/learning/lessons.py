"""From labels to a model that knows them: the loop of discovery, naming and training closes here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from ase.data import chemical_symbols

from ..crystals import Crystal, Sublattice, get_crystal, is_species, occupants, site_of
from ..intensities.photometry import relative_heights
from ..intensities.verdicts import OUTLIERS, choices
from ..micrograph import Micrograph, Progress
from ..simulation import Microscope
from ..tables import Sites, empty
from .annotations import Pair, crops
from .labels import label_sites
from .tuning import fine_tune

_ELEMENTS = [e for e in chemical_symbols[5:84] if e not in ("V", "Ne", "Ar", "Kr", "Xe")]  # V is a vacancy
_MARK = "="


def learn(
    micrograph: Micrograph,
    sites: Sites,
    labels: pd.DataFrame,
    model: Any,
    *,
    minutes: float = 10.0,
    steps: int | None = None,
    share: float = 0.4,
    microscope: Microscope | None = None,
    brightest: str | None = None,
    learning_rate: float = 1e-3,
    seed: int = 0,
    workers: int = 1,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Any:
    """Teach a model what is labelled in an image: named clusters (`Discovery.named`), or labels set by hand.

    It goes on learning on simulated twins of the image, in which a dopant of the measured brightness stands for each
    species that the model did not know, and on crops of the image itself: there labelled sites are what the labels say,
    and all others what the model says of them.

    Parameters
    ----------
    micrograph : Micrograph
    sites : Sites
        Of this image, from `assign_sites`.
    labels : DataFrame
        y_nm, x_nm and species (and frame): each names the site it is on.
    model : Model, str or path
        What to start from.
    minutes, steps, share, microscope, brightest, learning_rate, seed, workers, device, checkpoint, progress
        As for `fine_tune`.

    Returns
    -------
    Model
        With the new names among its classes.

    Raises
    ------
    ValueError
        If columns are missing, no site is labelled, or a new name is not that of a species on its site.
    """
    from ..networks import Model, load_model

    start = model if isinstance(model, Model) else load_model(model)
    crystal = get_crystal(sites.attrs.get("crystal") or start.crystal)
    named = labelled_sites(sites, labels, crystal)
    drawn = stand_ins(micrograph, named, start.classes, crystal)
    pairs = lesson_crops(micrograph, named, start)
    tuned = fine_tune(
        micrograph, start, crystal=crystal, minutes=minutes, steps=steps, pairs=pairs, share=share, drawn_as=drawn,
        microscope=microscope or Microscope(), brightest=brightest, learning_rate=learning_rate, seed=seed,
        workers=workers, device=device, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    tuned.card["taught"] += [name for name in drawn if not name.startswith(OUTLIERS)]
    for name, species in drawn.items():
        n = int((named["label"] == name).sum())
        tuned.card["notes"].append(f"- **{name}** was learned from {n} columns; simulated as {', '.join(species)}")
    return tuned


def labelled_sites(sites: Sites, labels: pd.DataFrame, crystal: Crystal) -> pd.DataFrame:
    """Sites with a column `label`: the species that is said to be there, empty where nothing is said.

    Raises
    ------
    ValueError
        If columns are missing or no label is on a site.
    """
    if missing := [name for name in ("y_nm", "x_nm", "species") if name not in labels]:
        raise ValueError(f"`labels` lack {', '.join(missing)}; they need y_nm, x_nm and species.")
    defects = labels.reindex(columns=empty("defects").columns)
    defects = defects.assign(
        frame=defects["frame"].fillna(0), defect=range(len(labels)), species=_MARK + labels["species"].astype(str),
        probability=1.0, method="manual",
    )  # fmt: skip
    named = label_sites(sites, defects, crystal)
    named = named[named["sublattice"].notna() & named["i"].notna()].reset_index(drop=True)
    own = named["species"].str.startswith(_MARK)
    if not own.any():
        raise ValueError("`labels` name no site: are they of this image, and in nm?")
    return named.assign(label=named["species"].str.removeprefix(_MARK).where(own, ""))


def stand_ins(
    micrograph: Micrograph, named: pd.DataFrame, classes: tuple[str, ...], crystal: Crystal
) -> dict[str, tuple[str, ...]]:
    """Species to simulate for each label that is no class yet: foreign atoms as bright as the labelled columns are.

    Parameters
    ----------
    micrograph : Micrograph
    named : DataFrame
        From `labelled_sites`.
    classes : tuple of str
    crystal : Crystal
    """
    heights = relative_heights(micrograph, named)["relative_height"]
    drawn: dict[str, tuple[str, ...]] = {}
    for name in sorted(set(named["label"]) - {"", *classes}):
        own = named["label"] == name
        sublattice = crystal.sublattice(str(named.loc[own, "sublattice"].mode().iloc[0]))
        if not is_species(name) or site_of(name) != sublattice.element:
            element = sublattice.element
            raise ValueError(f"`labels`: a column on {element} must be called as Ti_{element} is, got {name!r}.")
        number = 1 if name.startswith(OUTLIERS) else _replaced(name, sublattice, crystal)
        expected = dopant_heights(sublattice, crystal, number=number)
        wanted = float(np.nan_to_num(heights[own].median(), nan=1.0))
        drawn[name] = (min((abs(height - wanted), species) for species, height in expected.items())[1],)
    return drawn


def lesson_crops(micrograph: Micrograph, named: pd.DataFrame, model: Any) -> list[Pair]:
    """Crops of the image: labelled sites as labelled, others as the model calls them, where it knows the site at all.

    Parameters
    ----------
    micrograph : Micrograph
    named : DataFrame
        From `labelled_sites`.
    model : Model
    """
    from ..networks import predict
    from ..networks.validation import READ_RADIUS_NM, mean_around

    maps, size = predict(micrograph, model), micrograph.pixel_size_yx_nm
    pairs: list[Pair] = []
    for frame, own in named.groupby("frame"):
        number = int(str(frame))
        at = own[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float) / size
        means = mean_around(maps.frame(number), at, READ_RADIUS_NM / float(size.mean()))
        said = np.asarray(model.classes, object)[means.argmax(1)]
        own = own.assign(species=np.where(own["label"] != "", own["label"], _believed(said, own["species"])))
        pairs += crops(micrograph, own[["y_nm", "x_nm", "species"]], frame=number)
    return pairs


def dopant_heights(sublattice: Sublattice, crystal: Crystal, *, number: int = 1) -> dict[str, float]:
    """Relative heights expected of columns with foreign atoms, `number` of them in a column, by species."""
    hosts = {e for s in crystal.sublattices for e in s.column}
    species = [f"{e}{number if number > 1 else ''}_{sublattice.element}" for e in _ELEMENTS if e not in hosts]
    return {c.name: c.ratio for c in choices(sublattice, species, crystal)[1:]}


def _believed(said: npt.NDArray[np.object_], hosts: pd.Series) -> list[str]:
    """Return what the model says, where that can be at the site; else the host."""
    site = [host.rstrip("0123456789") for host in hosts]
    return [word if site_of(word) == own else host for word, own, host in zip(said, site, hosts, strict=True)]


def _replaced(species: str, sublattice: Sublattice, crystal: Crystal) -> int:
    """How many foreign atoms a species puts into a column."""
    return sum(element not in sublattice.column for element in occupants(species, crystal)[sublattice.name]) or 1
