"""Tables to Points layers and back, with the edits made by hand on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_defects.crystals import site_of, species_color
from napari_defects.tables import TABLES, check
from napari_defects.widgets._layers import KEY, LayerData, about, scale_nm, units_of

ATOM_NM, DEFECT_NM, RING = 0.07, 0.30, 0.12
_CHOSEN = ("frame", "y_nm", "x_nm", "species")  # for a point by whoever sets it
_ATOM_COLORS = ("#c77dff", "#80ffdb", "#ffe8a3")


def table_layer(table: pd.DataFrame, kind: str, name: str, *, movie: bool = False, **known: Any) -> LayerData:
    """Return a Points layer of a table: atoms small, coloured by sublattice; defects as rings coloured by species."""
    places = places_nm(table)
    keep = np.isfinite(places).all(axis=1)
    table, places = table[pd.Series(keep, index=table.index)].reset_index(drop=True), places[keep]
    data = np.column_stack([table["frame"], places]) if movie else places
    keywords: dict[str, Any] = {
        "name": name,
        "features": table,
        "units": units_of(data.shape[1]),
        "ndim": data.shape[1],
        "metadata": {KEY: {"table": kind, **known}},
        **style(table),
    }
    if len(table) == 0:
        del keywords["features"]
    return data, keywords, "points"


def places_nm(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Where to draw each row, (y, x): where it was measured, or where the lattice expects it."""
    places = table[["y_nm", "x_nm"]].to_numpy(float)
    if {"y_ideal_nm", "x_ideal_nm"} <= set(table.columns):
        ideal = table[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
        places = np.where(np.isfinite(places), places, ideal)
    return places


def style(table: pd.DataFrame) -> dict[str, Any]:
    """Sizes, symbols and colours of the rows of a table."""
    if "species" in table.columns and "defect" in table.columns:
        species = table["species"].astype(str)
        colors = {s: species_color(s) for s in species.unique()} or {"": "#999999"}
        return {
            "size": DEFECT_NM,
            "face_color": "transparent",
            "border_color": "species" if len(table) else "#999999",
            "border_color_cycle": colors,
            "border_width": RING,
            "symbol": [species_symbol(s) for s in species] if len(table) else "disc",
        }
    places = table[["y_nm", "x_nm"]].to_numpy(float)
    empty = ~np.isfinite(places).all(axis=1)
    face = sublattice_colors(table)
    face[empty, 3] = 0.0
    return {
        "size": ATOM_NM,
        "face_color": face if len(table) else "#ffffff",
        "border_color": "#ff5d8f",
        "border_width": np.where(empty, 0.2, 0.0) if len(table) else 0.0,
        "opacity": 0.9,
    }


def sublattice_colors(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """RGBA per row: one colour a sublattice, white where there is none."""
    from matplotlib.colors import to_rgba

    if "sublattice" not in table.columns:
        return np.tile(to_rgba(_ATOM_COLORS[0]), (len(table), 1)).astype(float)
    codes, names = pd.factorize(table["sublattice"].astype(str))
    order = [name for name in sorted(names, key=_chalcogens_last) if name]
    palette = [to_rgba(_ATOM_COLORS[order.index(name) % 3]) if name else (1, 1, 1, 1) for name in names]
    return np.array(palette, float).reshape(-1, 4)[codes]


def _chalcogens_last(name: str) -> tuple[bool, str]:
    return name in ("S", "Se", "Te", "N"), name


def species_symbol(species: str) -> str:
    """Marker of a species: squares for vacancies, diamonds on the metal's site, rings for substitutions."""
    if species.startswith("V"):
        return "square"
    site = site_of(species)
    return "diamond" if site is not None and site not in ("S", "Se", "Te", "N") else "disc"


def points_nm(layer: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Frames and positions (y, x) in nm of a Points layer, wherever and however it was drawn."""
    data = np.asarray(layer.data, float).reshape(-1, layer.ndim)
    places = data[:, -2:]
    if KEY not in layer.metadata:
        size = scale_nm(layer)
        if size is None:
            raise ValueError(
                f"layer {layer.name!r} is in pixels, not nm; give its image a pixel size and draw it again."
            )
        unit = size / np.abs(np.asarray(layer.scale[-2:], float))
        places = (places * layer.scale[-2:] + layer.translate[-2:]) * unit
    frames = np.zeros(len(data), np.int64) if layer.ndim < 3 else np.rint(data[:, -3]).astype(np.int64)
    return frames, places


def table_of(layer: Any, kind: str | None = None) -> pd.DataFrame:
    """Return the table a Points layer shows, with the edits made by hand: moved, added and deleted points.

    Parameters
    ----------
    layer : napari.layers.Points
    kind : str, optional
        Table to return; the layer's own where it says one, else atoms.

    Raises
    ------
    ValueError
        If it is another kind of table, or its points are not in nm.
    """
    known = about(layer)
    kind = kind or known.get("table") or ("defects" if "species" in layer.features else "atoms")
    frames, places = points_nm(layer)
    table = layer.features.reset_index(drop=True).copy()
    for column in TABLES[kind]:
        if column.name not in table and KEY not in layer.metadata:
            table[column.name] = _blank(column.dtype)
    if not {"frame", "y_nm", "x_nm"} <= set(table.columns):
        return check(table, kind)
    stored = places_nm(table)
    moved = ~np.isclose(stored, places, atol=1e-7).all(axis=1) | (table["frame"].to_numpy(float) != frames)
    copied = table.duplicated(["frame", "y_nm", "x_nm"]).to_numpy() | ~np.isfinite(stored).all(axis=1)
    if "defect" in table:  # a second click on one place adds a point that differs in nothing
        moved |= table.duplicated("defect").to_numpy()
    if moved.any():
        table.loc[moved, "y_nm"], table.loc[moved, "x_nm"] = places[moved].T
        table["frame"] = frames
        _rewrite(table, moved, moved & copied, known)
    return check(table, kind)


def nearest_sites(table: pd.DataFrame, lattice: Any) -> pd.DataFrame:
    """Return the site nearest to each row, by the lattice of its frame, and where that is expected."""
    names, parts = np.array([s.name for s in lattice.crystal.sublattices]), []
    for frame, rows in table.groupby("frame"):
        own = lattice.at(frame)
        i, j, which = own.index(rows[["y_nm", "x_nm"]].to_numpy(float))
        y, x = own.position(i, j, which).T
        sites = {"i": i, "j": j, "sublattice": names[which], "y_ideal_nm": y, "x_ideal_nm": x}
        parts.append(pd.DataFrame(sites, index=rows.index))
    return pd.concat(parts).loc[table.index]


def _rewrite(table: pd.DataFrame, moved: npt.NDArray[Any], added: npt.NDArray[Any], known: Mapping[str, Any]) -> None:
    """Make honest rows of points set by hand: no error bars, sure of themselves, said to be manual.

    A defect is of the site it was moved to; a column stays that of its site.
    """
    sited = moved if "defect" in table else added
    fixed: Mapping[str, Any] = {"probability": 1.0, "score": 1.0, "method": "manual"}
    for name in table.columns:
        if name in fixed:
            table.loc[moved, name] = fixed[name]
        elif "_err" in name and moved.any():
            table.loc[moved, name] = np.nan
        elif name in ("i", "j"):
            table.loc[sited, name] = pd.NA
        elif name == "sublattice":
            table.loc[sited, name] = ""
        elif name in ("defect", "track"):
            given = pd.concat([table, known.get("rejected")])[name]  # no number is given twice
            table.loc[added, name] = int(given.max()) + 1 + np.arange(int(added.sum()))
        elif name not in _CHOSEN:  # measured on another point, of which the new one is a copy
            blank = {"i": -1, "O": "", "T": "", "U": ""}.get(table[name].dtype.kind, np.nan)
            table[name] = table[name].where(~added, blank)
    lattice = known.get("lattice")
    if lattice is None or "sublattice" not in table or not sited.any():
        return
    sites = nearest_sites(table[sited], lattice)
    for name in sites.columns.intersection(table.columns):
        table.loc[sited, name] = sites[name]


def _blank(dtype: str) -> Any:
    return {"str": "", "Int64": pd.NA, "int64": 0}.get(dtype, np.nan)
