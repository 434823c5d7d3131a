"""A table of unit cells as a Labels layer and back: every cell a label, its row the label's features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from napari_defects.cells.kinds import PERFECT
from napari_defects.crystals import species_color
from napari_defects.tables import check
from napari_defects.widgets._layers import KEY, LayerData, units_of

_PX_PER_CELL = 12
_FILLED = 0.92  # of a cell's sides, so that neighbours can be told apart
_ALPHA = {PERFECT: 0.10}


def cells_layer(cells: pd.DataFrame, name: str, extent_nm: Any, n_frames: int, **known: Any) -> LayerData:
    """Return a Labels layer: label n + 1 is the cell in row n, coloured by what it lacks.

    Parameters
    ----------
    cells : DataFrame
        CELLS.
    name : str
    extent_nm : array_like
        Height and width of the image.
    n_frames : int
    """
    step = float(cells["width_nm"].median()) / _PX_PER_CELL if len(cells) else 0.03
    shape = tuple(np.maximum(np.ceil(np.asarray(extent_nm, float) / step).astype(int), 1))
    frames = [_painted(cells, frame, shape, step) for frame in range(n_frames)]
    data = np.stack(frames) if n_frames > 1 else frames[0]
    keywords = {
        "name": name,
        "scale": (*(1.0,) * (data.ndim - 2), step, step),
        "units": units_of(data.ndim),
        "opacity": 0.6,
        "colormap": palette(cells),
        "features": features(cells),
        "metadata": {KEY: {"table": "cells", "classes": sorted(set(cells["species"])), **known}},
    }
    return data, keywords, "labels"


def cells_of_layer(layer: Any) -> pd.DataFrame:
    """Return the table of a Labels layer of cells, as it stands."""
    table = layer.features.iloc[1:].drop(columns="index").reset_index(drop=True)
    cells = check(table, "cells")
    cells.attrs["crystal"] = layer.metadata[KEY]["crystal"]
    return cells


def features(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the features of the layer: a row for the background, then the cells."""
    rows = pd.concat([cells.head(1), cells], ignore_index=True) if len(cells) else cells
    rows.loc[:0, "species"] = ""
    return rows.assign(index=range(len(rows)))


def palette(cells: pd.DataFrame) -> dict[int | None, Any]:
    """Colour of every label."""
    from matplotlib.colors import to_rgba

    colors: dict[int | None, Any] = {None: (0.0, 0.0, 0.0, 0.0), 0: (0.0, 0.0, 0.0, 0.0)}
    known = {s: to_rgba(cell_color(s), _ALPHA.get(s, 1.0)) for s in cells["species"].unique()}
    return colors | {n: known[s] for n, s in enumerate(cells["species"], 1)}


def outline(cell: Any) -> npt.NDArray[np.float64]:
    """Corners (4, 2) of a cell, in nm."""
    across, along = 0.5 * np.array([[-1, -1, 1, 1], [-1, 1, 1, -1]]) * [[cell["height_nm"]], [cell["width_nm"]]]
    corners = np.column_stack([across, along]) @ _turned(float(cell["rotation_deg"])).T
    return np.asarray(corners + cell[["y_nm", "x_nm"]].to_numpy(float))


def cell_color(species: str) -> str:
    """Colour of a kind of cell."""
    return "#9a9a9a" if species == PERFECT else species_color(species)


def _painted(cells: pd.DataFrame, frame: int, shape: tuple[int, ...], step: float) -> npt.NDArray[np.int32]:
    own = cells[cells["frame"] == frame]
    painted = np.zeros(shape, np.int32)
    if own.empty:
        return painted
    turn = _turned(float(own["rotation_deg"].median()))
    size = own[["height_nm", "width_nm"]].median().to_numpy(float)
    tree = cKDTree(own[["y_nm", "x_nm"]].to_numpy(float) @ turn / size)
    rows = own.index.to_numpy()
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, 2)
    distance, nearest = tree.query(grid * step @ turn / size, p=np.inf, distance_upper_bound=_FILLED / 2)
    inside = np.isfinite(distance)
    painted.ravel()[inside] = rows[np.asarray(nearest)[inside]] + 1
    return painted


def _turned(degrees: float) -> npt.NDArray[np.float64]:
    """Matrix that turns (y, x) to (across, along) the rows of cells."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, s], [-s, c]])
