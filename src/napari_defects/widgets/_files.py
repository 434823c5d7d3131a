"""napari's reader and writers: micrographs with their calibration, tables as Points."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_defects.widgets._layers import LayerData, about, image_layer, scale_nm
from napari_defects.widgets._points import table_layer

OURS = (".dm3", ".dm4", ".emd", ".ser", ".mrc", ".hspy")
TABLES = (".csv", ".parquet", ".xlsx")


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return the reader of a path, or None where it is better left to others.

    Files of microscopes always are ours, and say in one sentence why they cannot be read. Pictures, arrays and csv
    files are ours only if they are micrographs, or tables with positions in nm.
    """
    if isinstance(path, list):
        return None if len(path) != 1 else get_reader(path[0])
    suffix = Path(path).suffix.lower()
    if suffix in OURS:
        return read
    try:
        layers = read(path)
    except (ValueError, TypeError, OSError):
        return None
    return lambda _: layers


def read(path: str | os.PathLike[str] | list[str]) -> list[LayerData]:
    """Layers of a file: every channel of a micrograph (all but the first hidden), or the points of a table."""
    path = Path(path[0] if isinstance(path, list) else path)
    layers = _read_table(path) if path.suffix.lower() in TABLES else _read_images(path)
    show_scale_bar(layers)
    return layers


def _read_images(path: Path) -> list[LayerData]:
    from napari_defects.formats import read_signals
    from napari_defects.micrograph import Micrograph

    layers = []
    signals = read_signals(path)
    for number, signal in enumerate(signals):
        metadata = {"file": path.name, "path": str(path), "channel": signal.name, **signal.metadata}
        micrograph = Micrograph(signal.data, signal.pixel_size_nm, signal.frame_interval_s, metadata)
        name = path.stem if number == 0 else f"{path.stem} · {signal.name}"
        data, keywords, kind = image_layer(micrograph, name)
        layers.append((data, {**keywords, "visible": number == 0}, kind))
    return layers


def _read_table(path: Path) -> list[LayerData]:
    from napari_defects.io import read_table
    from napari_defects.tables import check

    table = read_table(path)
    if not {"frame", "y_nm", "x_nm"} <= set(table.columns):
        raise ValueError(f"{path.name} has no columns frame, y_nm and x_nm; it is not a table with positions.")
    kind = table_kind(table)
    table = check(table, kind) if kind else table
    return [table_layer(table, kind or "points", path.stem, movie=bool((table["frame"] > 0).any()), file=path.name)]


def table_kind(table: pd.DataFrame) -> str | None:
    """Return the fullest kind of table whose columns are all there."""
    from napari_defects.tables import TABLES as KINDS

    full = [k for k, columns in KINDS.items() if {c.name for c in columns} <= set(table.columns)]
    return max(full, key=lambda k: len(KINDS[k]), default=None)


def show_scale_bar(layers: list[LayerData]) -> None:
    """Show the scale bar of the viewer that these layers are for, if they have a scale."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None and any("units" in keywords for _, keywords, _ in layers):
        viewer.canvas.overlays.scale_bar.visible = True


def write_points(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write the table of a Points layer as csv, parquet or xlsx, with the edits made by hand."""
    from napari.layers import Points

    from napari_defects.io import write_table
    from napari_defects.widgets._points import table_of

    keep = ("features", "metadata", "name", "scale", "translate", "units", "ndim")
    layer = Points(np.asarray(data), **{k: attributes[k] for k in keep if k in attributes})
    kind = about(layer).get("table")
    if kind in (None, "points"):
        table = layer.features.copy()
        if not {"y_nm", "x_nm"} <= set(table.columns):
            table = pd.DataFrame(data).add_prefix("axis_") if scale_nm(layer) is None else table_of(layer, "atoms")
    else:
        table = table_of(layer)
    return [str(write_table(table, path))]


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write an Image layer as a TIFF that keeps its calibration."""
    from napari.layers import Image

    from napari_defects.io import write_micrograph
    from napari_defects.widgets._layers import micrograph_of

    keep = ("metadata", "name", "scale", "units", "rgb", "multiscale")
    layer = Image(data, **{k: attributes[k] for k in keep if k in attributes})
    return [str(write_micrograph(micrograph_of(layer), path))]
