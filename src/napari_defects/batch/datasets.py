"""What a batch leaves behind: a summary, and every table of all images as partitioned parquet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import tables
from ..averages import ClassAverage
from ..averages.files import read_averages
from ..checks import check_choice
from ..io import read_table, write_table
from ..statistics import pool
from ..tables import Counts

TABLES = ("atoms", "sites", "defects", "counts", "strain")


class Dataset:
    """The results of many images.

    Parameters
    ----------
    folder : path
        As written by `run_batch`.

    Raises
    ------
    FileNotFoundError
        If `folder` holds no finished batch.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not (self.folder / "summary.csv").is_file():
            raise FileNotFoundError(f"there is no dataset in {folder}: it has no summary.csv; make one with batch.")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a file: file, folder, status, error, seconds, columns, defects, area_nm2, path."""
        return read_table(self.folder / "summary.csv")

    @property
    def images(self) -> list[str]:
        """Names of the images analysed: those of their folders."""
        done = self.summary[self.summary["status"].isin(["done", "kept"])]
        return [Path(str(folder)).name for folder in done["folder"]]

    def table(self, name: str, *, columns: Sequence[str] | None = None, species: str | None = None) -> pd.DataFrame:
        """Read a table of all images, with the column ``image``.

        Parameters
        ----------
        name : {"atoms", "sites", "defects", "counts", "strain"}
        columns : sequence of str, optional
            Only these.
        species : str, optional
            Only its rows.
        """
        check_choice("name", name, TABLES)
        place = self.folder / "tables" / name
        if not place.is_dir():
            return tables.empty(name).assign(image="")
        chosen = None if species is None else [("species", "==", species)]
        wanted = None if columns is None else [*columns, "image"]
        return pd.read_parquet(place, columns=wanted, filters=chosen, partitioning=_by_image())

    def each(self, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield the table of each image, one after the other: ``(image, table)``."""
        for image in self.images:
            if (file := self.folder / image / f"{name}.csv").is_file():
                yield image, read_table(file, name)

    def counts(self, *, confidence: float = 0.95) -> Counts:
        """Count all images together: see `statistics.pool`."""
        area = dict(zip(self.images, self._areas(), strict=True))
        pages = []
        for image, page in self.each("counts"):
            page.attrs["area_nm2"] = area[image]
            pages.append(page)
        return pool(pages, confidence=confidence)

    @property
    def averages(self) -> dict[str, ClassAverage]:
        """Class averages over all images, by species, as `average_dataset` made them."""
        return read_averages(self.folder / "averages")

    def _areas(self) -> list[float]:
        done = self.summary[self.summary["status"].isin(["done", "kept"])]
        return [float(a) for a in pd.to_numeric(done["area_nm2"]).fillna(np.nan)]


def write_partitions(folder: Path, made: Mapping[str, pd.DataFrame] | None = None) -> None:
    """Write the tables of one image beside those of the others: those just `made`, else those in its folder.

    What is there and newer is left; what no longer has a table is removed.
    """
    for name in TABLES:
        source, part = folder / f"{name}.csv", partition(folder.parent, name, folder.name)
        if not source.is_file():
            shutil.rmtree(part.parent, ignore_errors=True)
        if source.is_file() and not (part.is_file() and part.stat().st_mtime_ns >= source.stat().st_mtime_ns):
            write_table(read_table(source, name) if made is None else made[name], part)


def _by_image() -> Any:
    """How the parts of a table are found; images are called as they are, `001` and `a%20b` too."""
    import pyarrow as pa
    from pyarrow.dataset import HivePartitioning

    return HivePartitioning(pa.schema([("image", pa.string())]), segment_encoding="none")


def partition(out: Path, table: str, image: str) -> Path:
    """Place of one image's part of a table."""
    return out / "tables" / table / f"image={image}" / "part.parquet"


def drop_partitions(out: Path, keep: Iterable[str]) -> None:
    """Remove the parts of images that are no longer in the dataset."""
    kept = set(keep)
    for part in (out / "tables").glob("*/image=*"):
        if part.name.removeprefix("image=") not in kept:
            shutil.rmtree(part, ignore_errors=True)
