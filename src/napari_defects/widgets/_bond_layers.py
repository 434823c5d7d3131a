"""Bonds, rings and trajectories as layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from napari_defects.bonds import bond_table, ring_table
from napari_defects.crystals import species_color
from napari_defects.tracks import BondResults
from napari_defects.widgets._layers import KEY, LayerData, units_of
from napari_defects.widgets._points import table_layer

RING_COLORS = {4: "#8c6bb1", 5: "#56b4e9", 7: "#e69f00", 8: "#d55e00"}
"""Of rings by size; larger ones are holes."""
_HOLE = "#cc79a7"
_MOST_RINGS = 4000  # Shapes of more than that are slow


def bond_layers(results: BondResults, image: str, movie: bool, **known: Any) -> list[LayerData]:
    """Layers of all that was found: bonds, rings, trajectories, and the defects on top."""
    known = {"image": image, "crystal": results.crystal.name, **known}
    layers = [bonds_layer(results, image, movie, known), rings_layer(results, image, movie, known)]
    if movie:
        trajectories = tracks_layer(results.tracks, image, known)
        layers += [trajectories] if trajectories is not None else []
        layers.append(table_layer(results.tracks, "tracks", f"defects · {image}", movie=True, **known))
    else:
        layers.append(table_layer(results.defects, "defects", f"defects · {image}", **known))
    return layers


def bonds_layer(results: BondResults, image: str, movie: bool, known: dict[str, Any]) -> LayerData:
    """Bonds as lines coloured by their length; the layer carries the results."""
    table = bond_table(results.graph)
    start, end = (table[[f"y{n}_nm", f"x{n}_nm"]].to_numpy(float) for n in (0, 1))
    data = np.stack([start, end - start], axis=1)
    if movie:
        frame = np.zeros((len(table), 2, 1))
        frame[:, 0, 0] = table["frame"]
        data = np.concatenate([frame, data], axis=2)
    usual = 1e3 * results.crystal.nearest_neighbor_nm
    keywords: dict[str, Any] = {
        "name": f"bonds · {image}",
        "features": table[["bond", "length_pm", "length_err_pm"]],
        "edge_color": "length_pm" if len(table) else "white",
        "edge_colormap": "turbo",
        "edge_contrast_limits": (0.85 * usual, 1.35 * usual),
        "edge_width": 0.018,
        "vector_style": "line",
        "opacity": 0.9,
        "units": units_of(data.shape[2]),
        "metadata": {KEY: {**known, "bonds": results}},
    }
    return data, keywords, "vectors"


def rings_layer(results: BondResults, image: str, movie: bool, known: dict[str, Any]) -> LayerData:
    """Rings that are no hexagons, filled with the colour of their size."""
    table = ring_table(results.graph)
    table = table[table["size"] != 6].head(_MOST_RINGS)
    nodes, shapes = results.graph.nodes, []
    for frame, atoms in table[["frame", "atoms"]].itertuples(index=False):
        corners = [(nodes[n]["y_nm"], nodes[n]["x_nm"]) for n in map(int, atoms.split())]
        shapes.append(np.array([(frame, *c) for c in corners] if movie else corners, float))
    colors = [RING_COLORS.get(size, _HOLE) for size in table["size"]]
    keywords: dict[str, Any] = {
        "name": f"rings · {image}",
        "ndim": 3 if movie else 2,
        "shape_type": "polygon",
        "face_color": colors or "white",
        "edge_width": 0.0,
        "opacity": 0.35,
        "features": table[["size", "area_nm2"]].reset_index(drop=True),
        "units": units_of(3 if movie else 2),
        "metadata": {KEY: {**known, "rings": True}},
    }
    return shapes, keywords, "shapes"


def tracks_layer(tracks: pd.DataFrame, image: str, known: dict[str, Any]) -> LayerData | None:
    """Trajectories of more than one frame, coloured by class."""
    from napari.utils.colormaps import Colormap

    rows = tracks[tracks.groupby("track")["frame"].transform("nunique") > 1].sort_values(["track", "frame"])
    rows = rows.drop_duplicates(["track", "frame"])
    if rows.empty:
        return None
    names = sorted(rows["species"].unique())
    code = rows["species"].map({name: k for k, name in enumerate(names)}).to_numpy(float)
    share = code / max(len(names) - 1, 1)  # napari stretches the values of a feature over its colour map
    stops = [0.0, *((np.arange(1, len(names)) - 0.5) / max(len(names) - 1, 1)), 1.0]
    palette = Colormap([species_color(n) for n in names], controls=stops, interpolation="zero", name="species")
    parents = {k: v for k, v in tracks.attrs.get("parents", {}).items() if {k, *v} <= set(rows["track"])}
    keywords: dict[str, Any] = {
        "name": f"trajectories · {image}",
        "features": pd.DataFrame(
            {"class": share, "species": rows["species"].to_numpy(), "track": rows["track"].to_numpy()}
        ),
        "color_by": "class",
        "colormaps_dict": {"class": palette},
        "tail_width": 4,
        "tail_length": max(int(rows["frame"].max()), 1),
        "graph": parents,
        "units": units_of(3),
        "metadata": {KEY: {**known, "trajectories": names}},
    }
    return rows[["track", "frame", "y_nm", "x_nm"]].to_numpy(float), keywords, "tracks"
