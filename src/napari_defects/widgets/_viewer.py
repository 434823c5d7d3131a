"""Layers into the viewer: added once, brought up to date after."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Points

from napari_defects.widgets import _detail
from napari_defects.widgets._keeper import Keeper
from napari_defects.widgets._layers import KEY, LayerData, about, corner_nm, scale_nm

_MEASURED = {"table", "average", "maps"}  # in nm of the pixels that the image had then
_REMADE = ("shapes", "tracks")  # cannot be given other data and features at once
_names: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()  # that layers have had, the newest last


def follow_names(viewer: Any) -> None:
    """Let what was made from an image go with it when the image has been given another name, or another place."""
    there = [layer.name for layer in viewer.layers]
    for image in [layer for layer in viewer.layers if there.count(layer.name) == 1]:  # else napari is to change it yet
        if image not in _names and not about(image).get("image"):
            _keep_place(viewer, image)
        before = _names.setdefault(image, [image.name])[-1]
        if before != image.name:
            _names[image].append(image.name)
            made = [] if about(image).get("image") else made_from(viewer, before)
            for layer in made:
                layer.metadata = {**layer.metadata, KEY: {**about(layer), "image": image.name}}
            for layer in made:
                layer.name = _renamed(layer.name, before, image.name)


def _keep_place(viewer: Any, image: Any) -> None:
    """Move what was made from an image to wherever the image goes."""

    def follow(_event: Any = None) -> None:
        corner = corner_nm(image)
        for layer in made_from(viewer, image.name):
            step = corner - about(layer).get("corner_nm", corner)
            if step.any():
                layer.metadata = {**layer.metadata, KEY: {**about(layer), "corner_nm": tuple(corner.tolist())}}
                layer.translate = (*layer.translate[:-2], *(layer.translate[-2:] + step))

    image.events.translate.connect(follow)
    image.events.units.connect(follow)


def _renamed(name: str, before: str, now: str) -> str:
    return name.removesuffix(before) + now if name.endswith(f" · {before}") else name


def made_from(viewer: Any, image: str) -> list[Any]:
    """Layers that say they were made from an image."""
    return [layer for layer in viewer.layers if about(layer).get("image") == image]


def standing(viewer: Any, name: str, image: str | None) -> Any:
    """Return the layer of this name, or the one made from an image under it, whatever it is called by now; or None."""
    named = [layer for layer in viewer.layers if layer.name == name]
    own = made_from(viewer, image) if image else []
    return next(iter(named + [layer for layer in own if name in _names.get(layer, ())]), None)


def upsert(viewer: Any, made: LayerData, image: Any = None) -> Any:
    """Add a layer, or bring the one made before up to date: its name, its place, and whether it is shown, stay.

    A layer made from an image lies where the image lies: the `image` given, else the one of the name it says. Where
    another image takes the place of one, what was made from that goes.
    """
    follow_names(viewer)
    data, keywords, kind = made
    keywords = over_its_image(viewer, keywords, image)
    layer = standing(viewer, keywords["name"], keywords["metadata"].get(KEY, {}).get("image"))
    name = keywords["name"] = keywords["name"] if layer is None else layer.name
    if kind == "image" and layer is not None and not about(layer).get("image") and _differ(layer.data, data):
        for old in made_from(viewer, name):
            viewer.layers.remove(old)
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
    follow_names(viewer)
    return layer


def _differ(one: Any, other: Any) -> bool:
    return one is not other and not np.array_equal(one, other)


def over_its_image(viewer: Any, keywords: dict[str, Any], image: Any = None) -> dict[str, Any]:
    """Return the keywords of a layer with place, frames and name of its image as that is now, and its pixel size."""
    known = keywords["metadata"].get(KEY, {})
    called = known.get("image")
    named = [] if image is None else [image]
    named += [layer for layer in viewer.layers if layer.name == called]
    named += [layer for layer in viewer.layers if called in _names.get(layer, ())]  # given another name since
    if not called or not named or "units" not in keywords:
        return keywords
    image, corner, ndim = named[0], corner_nm(named[0]), len(keywords["units"])
    translate = np.zeros(ndim) + keywords.get("translate", 0.0)
    translate[-2:] += corner
    if ndim == image.ndim > 2:  # the frames lie where those of the image lie
        translate[0], scale = image.translate[0], keywords.get("scale", (1.0,) * ndim)
        keywords = {**keywords, "scale": (image.scale[0], *scale[1:])}
        keywords["units"] = (str(image.units[0]), *keywords["units"][1:])
    known = {**known, "image": image.name, "corner_nm": tuple(corner.tolist())}
    if _MEASURED & set(known) and (size := scale_nm(image)) is not None:
        known.setdefault("pixel_size_nm", tuple(size.tolist()))
    return {
        **keywords,
        "name": _renamed(keywords["name"], called, image.name),
        "translate": tuple(translate.tolist()),
        "metadata": {**keywords["metadata"], KEY: known},
    }


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
