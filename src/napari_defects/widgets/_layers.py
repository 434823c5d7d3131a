"""Images to layers and back, in nm: micrographs, class maps, masks. Tables are in `_points`.

Each layer of ours says what it is in ``layer.metadata["napari_defects"]``: the table's kind (``table``), the image it
came from (``image``) and the size of its pixels then (``pixel_size_nm``), its ``crystal``, how it was made (``made``),
and whatever a later step needs (``lattice``, ``maps``). Nothing else is remembered, so layers edited by hand are simply
what the next step reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_defects.crystals import CRYSTALS, species_color
from napari_defects.micrograph import Maps, Micrograph, check_pixel_size

KEY = "napari_defects"
LayerData = tuple[Any, dict[str, Any], str]
"""Data, keywords and type, as napari's readers return them."""


def about(layer: Any) -> dict[str, Any]:
    """Return what a layer says of itself; empty for layers of others."""
    return dict(layer.metadata.get(KEY, {}))


def source_name(layer: Any) -> str:
    """Name of the image a layer came from; its own name for an image."""
    return str(about(layer).get("image") or layer.name)


def scale_nm(layer: Any) -> npt.NDArray[np.float64] | None:
    """Side of a pixel in nm as ``array([y, x])``, from scale and units; None where the units are not lengths."""
    units = _units_nm(layer)
    return None if units is None else np.asarray(np.abs(np.asarray(layer.scale[-2:], float)) * units)


def corner_nm(layer: Any) -> npt.NDArray[np.float64]:
    """Where the first pixel of a layer lies, in nm as ``array([y, x])``; zero where its units are not lengths."""
    units = _units_nm(layer)
    return np.zeros(2) if units is None else np.asarray(np.asarray(layer.translate[-2:], float) * units)


def _units_nm(layer: Any) -> npt.NDArray[np.float64] | None:
    try:
        return np.array([float((1.0 * unit).to("nm").magnitude) for unit in layer.units[-2:]])
    except Exception:  # pint raises its own family for pixels and plain numbers
        return None


def set_scale_nm(layer: Any, pixel_size_nm: float | tuple[float, float]) -> None:
    """Calibrate an Image layer, and say so in its units; its frames stay as they are."""
    size = np.broadcast_to(np.asarray(check_pixel_size(pixel_size_nm), float), (2,))
    with layer.events.blocker_all():
        layer.units = (*(str(unit) for unit in layer.units[:-2]), *units_of(2))
    layer.scale = (*layer.scale[:-2], *size)
    layer.events.units()


def micrograph_of(layer: Any) -> Micrograph:
    """Return the micrograph an Image layer shows, with the pixel size of the layer.

    Raises
    ------
    ValueError, TypeError
        If the layer is RGB, or cannot be a micrograph.
    """
    if getattr(layer, "rgb", False):
        raise ValueError(
            f"layer {layer.name!r} is an RGB picture; make it one channel first: right-click it, Split RGB, or Convert."
        )
    known = about(layer)
    size = scale_nm(layer)
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    pixel = None if size is None else float(size[0]) if np.isclose(size[0], size[1], rtol=1e-9) else tuple(size)
    metadata = {"name": layer.name, **known.get("micrograph", {})}
    return Micrograph(data, pixel, known.get("frame_interval_s"), metadata)


def image_layer(micrograph: Micrograph, name: str, **known: Any) -> LayerData:
    """Return an Image layer of a micrograph; in pixels where its pixel size is not known."""
    ndim = 3 if micrograph.is_movie else 2
    keywords: dict[str, Any] = {"name": name, "colormap": "gray", "metadata": {KEY: known}}
    known["frame_interval_s"] = micrograph.frame_interval_s
    known["micrograph"], known["shape"] = dict(micrograph.metadata), micrograph.data.shape
    if micrograph.pixel_size_nm is not None:
        keywords["scale"] = (*(1.0,) * (ndim - 2), *micrograph.pixel_size_yx_nm)
        keywords["units"] = units_of(ndim)
    if isinstance(micrograph.data, np.ndarray):
        keywords["contrast_limits"] = contrast(micrograph.data)
    return micrograph.data, keywords, "image"


def contrast(data: npt.NDArray[Any], low: float = 0.1, high: float = 99.9) -> tuple[float, float]:
    """Limits that leave out the few extreme pixels, from a sample of the finite ones."""
    sample = np.asarray(data[..., :: max(1, data.shape[-2] // 512), :: max(1, data.shape[-1] // 512)], float)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    bottom, top = np.percentile(sample, (low, high))
    return float(bottom), float(max(top, bottom + 1e-12 + 1e-6 * abs(bottom)))


def map_layer(maps: Maps, name: str, show: str, **known: Any) -> LayerData:
    """One hidden Image layer of the probability of class `show`; the layer carries all maps."""
    keywords = {
        "name": name,
        "visible": False,
        "opacity": 0.7,
        "blending": "additive",
        "colormap": "magma",
        "contrast_limits": (0.0, 1.0),
        "metadata": {KEY: {"maps": maps, "class": show, **known}},
    }
    return np.asarray(maps[show], np.float32), _calibrated(keywords, maps), "image"


def mask_layer(maps: Maps, name: str, min_probability: float, **known: Any) -> LayerData:
    """Labels of the defect classes whose probability reaches a threshold; host columns stay clear."""
    hosts = host_names()
    colors: dict[int | None, str] = {i: species_color(c) for i, c in enumerate(maps.classes) if i and c not in hosts}
    palette: dict[int | None, str] = {None: "transparent", 0: "transparent", **colors}
    winner = np.argmax(maps.data, axis=0).astype(np.uint8)
    winner[np.max(maps.data, axis=0) < min_probability] = 0
    winner[~np.isin(winner, [int(i or 0) for i in colors])] = 0
    keywords = {
        "name": name,
        "opacity": 0.45,
        "colormap": palette,
        "features": pd.DataFrame({"index": range(len(maps.classes)), "class": maps.classes}),
        "metadata": {KEY: {"classes": maps.classes, **known}},
    }
    return winner, _calibrated(keywords, maps), "labels"


def _calibrated(keywords: dict[str, Any], maps: Maps) -> dict[str, Any]:
    ndim = maps.data.ndim - 1
    size = np.broadcast_to(np.asarray(maps.pixel_size_nm, float), (2,))
    return {**keywords, "scale": (*(1.0,) * (ndim - 2), *size), "units": units_of(ndim)}


def units_of(ndim: int) -> tuple[str, ...]:
    return ("pixel",) * (ndim - 2) + ("nm", "nm")


def host_names() -> set[str]:
    """Names that pristine columns have in any crystal: ``W``, ``Se2``, ``C``."""
    return {s.host for c in CRYSTALS.values() for s in c.sublattices} | {"background"}
