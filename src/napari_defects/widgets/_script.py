"""An analysis as a script, and what a script cannot know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_defects.widgets._corrections import by_hand, how_many
from napari_defects.widgets._layers import about, micrograph_of
from napari_defects.widgets._viewer import made_from


def script(layer: Any, steps: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a script that analyses the file of an image layer.

    Raises
    ------
    ValueError
        If the layer cannot be analysed.
    """
    channel = about(layer).get("micrograph", {}).get("channel")
    keywords = f"pixel_size_nm={micrograph_of(layer).pixel_size_nm!r}" + (f", channel={channel!r}" if channel else "")
    return (
        "import napari_defects as nd\n\n"
        f"micrograph = nd.read_micrograph({_path(layer) or 'IMAGE'!r}, {keywords})\n"
        f"results = nd.analyze(micrograph, {_literal(steps)})\n"
        'results.write("results")\n'
    )


def left_out_of(viewer: Any, layer: Any) -> list[str]:
    """Say what of an image and its results is not in its script."""
    known, own = about(layer), made_from(viewer, layer.name)
    found = [one for one in own if about(one).get("table") == "defects" and "truth" not in about(one)]
    shape, path = known.get("shape"), _path(layer)
    hand = sum(how_many(by_hand(one)) for one in found)
    painted = any("exclusion" in about(one) and one.data.any() for one in own)
    return (
        ["the image, which came from no file: put its path for IMAGE"] * (path is None)
        + ["the crop: the script reads the whole file"] * (path is not None and shape not in (None, layer.data.shape))
        + [f"the {hand} defects set by hand"] * bool(hand)
        + ["what is painted to be left out"] * painted
    )


def _path(layer: Any) -> Any:
    known = about(layer).get("micrograph", {})
    return known.get("path", known.get("file"))


def _literal(steps: Mapping[str, Mapping[str, Any]]) -> str:
    lines = (f"    {step!r}: {dict(keywords)!r},\n" for step, keywords in steps.items() if keywords)
    return "{\n" + "".join(lines) + "}"
