"""Class averages as files, and back."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..crystals import CRYSTALS
from ..io import read_micrograph, read_table, write_micrograph, write_table
from ..micrograph import Micrograph
from ..saving import file_name, writing
from ..tables import empty
from .classes import ClassAverage

log = logging.getLogger(__name__)


def write_averages(averages: Mapping[str, ClassAverage], folder: str | os.PathLike[str]) -> None:
    """Write class averages into a folder.

    Of each ``SPECIES.tif``, the image; ``SPECIES_sites.csv``, its columns as a STRAIN table, positions relative
    to the defect; ``SPECIES_columns.csv``, the same as they were fitted; ``SPECIES_members.csv``;
    ``SPECIES_precision.csv``; and ``SPECIES.npz``, halves and scatter, from which `read_averages` has the rest.
    """
    folder = Path(folder)
    for species, one in averages.items():
        name = file_name(species)
        write_micrograph(Micrograph(one.image, one.pixel_size_nm), folder / f"{name}.tif")
        tables = {"sites": strain_of(one), "columns": one.sites, "members": one.members, "precision": one.precision}
        for kind, table in tables.items():
            write_table(table, folder / f"{name}_{kind}.csv")
        about: dict[str, Any] = {"species": species, "n": one.n, "copies": one.copies}
        about |= {"pixel_size_nm": one.pixel_size_nm}
        about |= {"crystal": one.crystal.name if one.crystal else "", "half": one.half, "counts": one.counts}
        names = [part[:2] for part in one.parts]
        about |= {"part_names": np.array(names, str).reshape(-1, 2), "scatter_pm": one.scatter_pm}
        about |= {"part_places": np.array([part[2:] for part in one.parts], float).reshape(-1, 2)}
        with writing(folder / f"{name}.npz") as temporary:
            np.savez(temporary, **about)


def read_averages(folder: str | os.PathLike[str]) -> dict[str, ClassAverage]:
    """Read what `write_averages` wrote, by species."""
    return {one.species: one for one in (_read(file) for file in sorted(Path(folder).glob("*.npz")))}


def _read(file: Path) -> ClassAverage:
    table = {
        kind: read_table(file.with_name(f"{file.stem}_{kind}.csv")) for kind in ("columns", "members", "precision")
    }
    members = table["members"].assign(reason=table["members"]["reason"].fillna(""))
    with np.load(file, allow_pickle=False) as known:
        crystal = CRYSTALS.get(str(known["crystal"]))
        sites = table["columns"].reindex(columns=[*dict.fromkeys([*empty("sites"), *table["columns"]])])
        sites.attrs["crystal"] = str(known["crystal"])
        return ClassAverage(
            species=str(known["species"]), image=read_micrograph(file.with_suffix(".tif")).data.astype(np.float32),
            pixel_size_nm=float(known["pixel_size_nm"]), counts=known["counts"], n=int(known["n"]), members=members,
            half=(known["half"][0], known["half"][1]), sites=sites, precision=table["precision"], crystal=crystal,
            copies=int(known["copies"]), scatter_pm=known["scatter_pm"],
            parts=tuple((str(s), str(lattice), float(y), float(x)) for (s, lattice), (y, x) in
                        zip(known["part_names"], known["part_places"], strict=True)),
        )  # fmt: skip


def strain_of(average: ClassAverage) -> pd.DataFrame:
    """STRAIN of a class average; without strains where it has too few columns for a lattice."""
    try:
        return average.strain()
    except ValueError as error:
        log.info("no strain in the average of %s: %s", average.species, error)
        return average.sites.reindex(columns=empty("strain").columns)
