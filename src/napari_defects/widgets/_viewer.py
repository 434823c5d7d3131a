"""Layers into the viewer: added once, brought up to date after."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Points

from napari_defects.widgets import _detail
from napari_defects.widgets._layers import KEY, LayerData, about
from napari_defects.widgets._points import Keeper

_REMADE = ("shapes", "tracks")  # cannot be given other data and features at once


def upsert(viewer: Any, made: LayerData) -> Any:
    """Add a layer, or bring the layer of the same name up to date: its place, and whether it is shown, stay."""
    data, keywords, kind = made
    name = keywords["name"]
    layer = next((old for old in viewer.layers if old.name == name), None)
    if layer is not None and (
        kind in _REMADE or type(layer).__name__.lower() != kind or layer.ndim != _ndim(data, kind)
    ):
        keywords = keywords | ({"visible": layer.visible} if kind in _REMADE else {})
        viewer.layers.remove(layer)
        layer = None
    if layer is None:
        layer = getattr(viewer, f"add_{kind}")(data, **keywords)
        if kind == "points":
            layer.events.data.connect(Keeper(layer))
            _detail.attach(layer)
    else:
        _update(layer, data, {k: v for k, v in keywords.items() if k not in ("name", "visible", "ndim")})
    if viewer.dims.ndim == 3:
        viewer.dims.axis_labels = ("frame", "y", "x")
    if any("nanometer" in str(unit) for unit in layer.units):
        viewer.canvas.overlays.scale_bar.visible = True
    return layer


def _ndim(data: Any, kind: str) -> int:
    return int(np.shape(data)[-1]) if kind in ("points", "vectors") else int(np.ndim(data))


def _update(layer: Any, data: Any, keywords: dict[str, Any]) -> None:
    used = about(layer).get("parameters")
    layer.metadata = keywords.pop("metadata")
    if used is not None and KEY in layer.metadata:
        layer.metadata[KEY].setdefault("parameters", used)
    features = keywords.pop("features", None)
    with layer.events.data.blocker():
        if isinstance(layer, Points):
            layer.selected_data = set()
            layer.shown = True
        layer.data = data
    if features is not None:
        layer.features = features
    if isinstance(layer, Image):
        keywords.pop("opacity", None)
    for name in ("border_color_cycle", "face_color_cycle"):
        if name in keywords:
            setattr(layer, name, keywords.pop(name))
    for name, value in keywords.items():
        setattr(layer, name, value)
    layer.events.data(value=layer.data)
