"""Labelled images: what a person has seen in a real one, as pairs to train with and to score against.

A pair is ``NAME.tif`` beside ``NAME_sites.csv``, the SITES table with a ``species`` for every site, as
``napari-defects simulate`` writes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from .. import tables
from ..crystals import Crystal, get_crystal
from ..io import read_micrograph, read_table, write_micrograph, write_table
from ..micrograph import Micrograph

SITE_NM = 0.1
"""A defect this near to a site stands on it."""


def label_sites(sites: pd.DataFrame, defects: pd.DataFrame, crystal: str | Crystal) -> pd.DataFrame:
    """Give every site its species: that of the defect on it, else its host.

    Parameters
    ----------
    sites : DataFrame
        SITES.
    defects : DataFrame
        DEFECTS of the same image; those on no site get a row of their own.
    crystal : str or Crystal

    Returns
    -------
    DataFrame
        SITES + ``species``; every row has a position, an empty site that of the lattice.
    """
    sites, defects = tables.check(sites, "sites"), tables.check(defects, "defects")
    hosts = {s.name: s.host for s in get_crystal(crystal).sublattices}
    labels = sites[sites["sublattice"].isin(hosts)].reset_index(drop=True)
    labels["species"] = labels["sublattice"].map(hosts)
    for axis in "yx":
        labels[f"{axis}_nm"] = labels[f"{axis}_nm"].fillna(labels[f"{axis}_ideal_nm"])
    rest: list[pd.DataFrame] = []
    for frame, group in defects.dropna(subset=["y_nm", "x_nm"]).groupby("frame"):
        here = labels.index[labels["frame"] == frame]
        if not len(here):
            rest.append(group)
            continue
        distance, nearest = KDTree(tables.positions_nm(labels.loc[here])).query(tables.positions_nm(group))
        on = distance < SITE_NM
        labels.loc[here[np.asarray(nearest)[on]], "species"] = group["species"].to_numpy()[on]
        rest.append(pd.DataFrame(group[~on]))
    off = pd.concat(rest)[["frame", "y_nm", "x_nm", "species"]] if rest else defects.iloc[:0]
    return pd.concat([labels, off], ignore_index=True) if len(off) else labels


def write_labels(micrograph: Micrograph, labels: pd.DataFrame, folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Write an image with its labels into a collection; of a movie, each labelled frame as an image of its own.

    Parameters
    ----------
    micrograph : Micrograph
    labels : DataFrame
        From `label_sites`.
    folder : path
        The collection; pairs of the same name are replaced.
    name : str
        Of the files, without suffix.

    Returns
    -------
    list of path
        The images.
    """
    folder, written = Path(folder), []
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"`name` must be a file name without folders, got {name!r}.")
    for frame, group in labels.groupby("frame"):
        stem = f"{name}_{frame:04d}" if micrograph.is_movie else name
        image = replace(micrograph, data=np.asarray(micrograph.frame(int(str(frame)))), frame_interval_s=None)
        written.append(write_micrograph(image, folder / f"{stem}.tif"))
        write_table(group.assign(frame=0), folder / f"{stem}_sites.csv")
    return written


def read_labels(folder: str | os.PathLike[str]) -> Iterator[tuple[Micrograph, pd.DataFrame]]:
    """Read a collection, pair by pair, as `train` takes them.

    Raises
    ------
    ValueError
        If there is no pair in the folder, or a table has no species.
    """
    images = [p for p in sorted(Path(folder).glob("*.tif")) if p.with_name(f"{p.stem}_sites.csv").is_file()]
    if not images:
        raise ValueError(f"there are no labelled images in {folder}: NAME.tif beside NAME_sites.csv.")
    for path in images:
        table = read_table(path.with_name(f"{path.stem}_sites.csv"))
        if "species" not in table:
            raise ValueError(f"{path.stem}_sites.csv has no column species; write it with write_labels().")
        yield read_micrograph(path), table
