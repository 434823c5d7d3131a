"""Cells labelled by hand, on disk: pictures and a table, which grow and can be trained on.

A collection is a folder::

    cells.csv            one row a cell: picture, species, called, crystal, px_per_a, source, frame, y_nm, x_nm
    pictures/000001.tif  two pages: the cell in the crystal's own frame, 2.5 lattice constants a side, float32, locally
                         normalized; and the typical cell of its image, likewise

``called`` is what the network had said. Rows may be edited or deleted in any spreadsheet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile

from ..crystals import Crystal, get_crystal
from ..micrograph import Micrograph
from .examples import Examples, prepared, sites_nm
from .kinds import Array, cells_of, frame_of, kinds_of
from .patches import Image, cut, middle_to_sites, sample, window
from .typical import Typical, some

PX_PER_A, SIDE_PX = 28, 70
_SHAPE = (2, SIDE_PX, SIDE_PX)
COLUMNS = ("picture", "species", "called", "crystal", "px_per_a", "source", "frame", "y_nm", "x_nm")


class Collection:
    """A folder of labelled cells.

    Parameters
    ----------
    folder : path
        Made when the first cell is added.

    Raises
    ------
    ValueError
        If the folder holds a table of something else.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.table = self._read()

    def __len__(self) -> int:
        return len(self.table)

    def add(self, pictures: npt.NDArray[np.float32], rows: pd.DataFrame) -> None:
        """Append cells: pictures (cell, 2, 70, 70) from `crops`, and their rows; written at once, whole or not at all.

        Parameters
        ----------
        pictures : ndarray
        rows : DataFrame
            species, called, crystal, source, frame, y_nm, x_nm of each. A cell that is in the collection already (same
            source, frame and place) is replaced.
        """
        if pictures.shape[1:] != _SHAPE or len(pictures) != len(rows):
            raise ValueError(f"`pictures` must be (cell, 2, {SIDE_PX}, {SIDE_PX}), one a row, got {pictures.shape}.")
        for crystal, part in rows.groupby("crystal"):
            unknown = set(part["species"]) - set(kinds_of(str(crystal)))
            if unknown:
                raise ValueError(f"`species` {min(unknown)!r} is no kind of cell of {crystal}.")
        (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
        numbers = self.table["picture"].str.extract(r"(\d+)", expand=False).astype(float)
        first = int(numbers.max()) + 1 if len(numbers) else 1
        names = [f"pictures/{first + k:06d}.tif" for k in range(len(rows))]
        for name, picture in zip(names, pictures, strict=True):
            tifffile.imwrite(self.folder / name, picture.astype(np.float32))
        new = rows.assign(picture=names, px_per_a=PX_PER_A)[list(COLUMNS)]
        table = pd.concat([self.table, new], ignore_index=True) if len(self.table) else new.reset_index(drop=True)
        place = table[["y_nm", "x_nm"]].astype(float).round(3)
        again = table[["source", "frame"]].assign(y=place["y_nm"], x=place["x_nm"]).duplicated(keep="last")
        self.table = table[~again].reset_index(drop=True)
        partial = self.folder / f".cells.{os.getpid()}.part"
        self.table.to_csv(partial, index=False)
        os.replace(partial, self.folder / "cells.csv")

    def pictures(self, table: pd.DataFrame | None = None) -> npt.NDArray[np.float32]:
        """Pictures (cell, 2, 70, 70) of the rows; ValueError where one cannot be read."""
        found = []
        for name in (self.table if table is None else table)["picture"]:
            path = (self.folder / str(name)).resolve()
            try:
                if self.folder.resolve() not in path.parents:
                    raise ValueError("it lies outside the collection")
                picture = np.asarray(tifffile.imread(path), np.float32)
                if picture.shape != _SHAPE or not np.isfinite(picture).all():
                    raise ValueError(f"it must be two pages of {SIDE_PX} x {SIDE_PX} finite pixels")
            except (OSError, ValueError) as error:
                raise ValueError(f"picture {str(name)!r} of {str(self.folder)!r} cannot be read: {error}.") from None
            found.append(picture)
        return np.stack(found) if found else np.zeros((0, *_SHAPE), np.float32)

    def examples(self, crystal: str | Crystal, architecture: Mapping[str, Any], px_per_a: float) -> Examples:
        """Pictures of one crystal's cells as a network wants to see them.

        Raises
        ------
        ValueError
            If the collection has none, or a species that is no kind of cell.
        """
        crystal = get_crystal(crystal)
        rows = self.table[self.table["crystal"] == crystal.name]
        if rows.empty:
            raise ValueError(f"{str(self.folder)!r} has no labelled cells of {crystal.name}.")
        kinds = kinds_of(crystal)
        if unknown := set(rows["species"]) - set(kinds):
            raise ValueError(f"{str(self.folder)!r}: {min(map(str, unknown))!r} is no kind of cell of {crystal.name}.")
        cuts = [seen(picture, crystal, architecture) for picture in self.pictures(rows)]
        numbers = rows["species"].map({name: k for k, name in enumerate(kinds)}).to_numpy(np.int64)
        pictures, not_known = np.stack(cuts).astype(np.float16), np.full(len(rows), -1)
        return Examples(pictures, np.asarray(numbers, np.int64), np.full(len(rows), np.nan), not_known)

    def _read(self) -> pd.DataFrame:
        path = self.folder / "cells.csv"
        if not path.is_file():
            return pd.DataFrame({name: pd.Series(dtype=object) for name in COLUMNS})
        try:
            table = pd.read_csv(path, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{str(path)!r} cannot be read: {str(error).splitlines()[0]}.") from None
        if missing := [name for name in COLUMNS if name not in table.columns]:
            raise ValueError(f"{str(path)!r} is no collection of cells: column(s) {', '.join(missing)} missing.")
        return table


def seen(picture: npt.NDArray[np.float32], crystal: str | Crystal, architecture: Mapping[str, Any]) -> Image:
    """Show a network (`architecture`) a picture (2, 70, 70) of a collection: (input, side, side)."""
    places = SIDE_PX / 2 - 0.5 + middle_to_sites(get_crystal(crystal)) * PX_PER_A
    own, usual = (cut(page, places[None], np.eye(2) * PX_PER_A, architecture) for page in picture)
    both: Image = Typical(usual[0]).beside(own, int(architecture["inputs"]))[0]
    return both


def crops(
    micrograph: Micrograph, sites: pd.DataFrame, crystal: str | Crystal, which: Array, frame: int = 0
) -> npt.NDArray[np.float32]:
    """Pictures (cell, 2, 70, 70) of cells and of the typical cell of their image, as a collection keeps them.

    Parameters
    ----------
    micrograph : Micrograph
    sites : DataFrame
        SITES of the image.
    crystal : str or Crystal
    which : ndarray, shape (cell, 2)
        Indices i, j of the cells; one whose columns are not in `sites` is ValueError.
    frame : int
    """
    crystal = get_crystal(crystal)
    cells = cells_of(sites[sites["frame"] == frame], crystal)
    image, pixel_nm, frame_px = prepared(micrograph, frame_of(cells, crystal), crystal, PX_PER_A, frame)
    wanted = pd.MultiIndex.from_tuples([(frame, int(i), int(j)) for i, j in np.asarray(which)])
    if not wanted.isin(cells.index).all():
        raise ValueError("`which` names a cell that is not among the sites; detect the cells again.")
    grid = window(SIDE_PX, 1 / PX_PER_A) @ frame_px

    def of(table: pd.DataFrame) -> Image:
        middles = sites_nm(table).mean(1) / pixel_nm
        return sample(image, middles[:, None, None] + grid)[:, None]

    return Typical.of(of(cells[some(len(cells), SIDE_PX)])).beside(of(cells.loc[wanted]), 2)
