"""What is painted to be left out: a Labels layer over an image, and the rows of a table it leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from napari.layers import Labels

from napari_defects.widgets._layers import KEY, about, corner_nm, scale_nm, source_name, units_of
from napari_defects.widgets._picks import IMAGE, Pick
from napari_defects.widgets._points import places_nm
from napari_defects.widgets._viewer import standing, upsert

NAME = "left out"


def _fits(layer: Any) -> bool:
    return isinstance(layer, Labels) and "classes" not in about(layer)


EXCLUSION = Pick(
    "Leave out",
    _fits,
    lambda layer: Mask(layer),
    "Paint what to leave out first.",
    optional=True,
    tooltip="A Labels layer; what is painted there (contamination, a hole, a second layer) is not counted.",
)


class Mask:
    """A painted mask: where it lies, and what it leaves."""

    def __init__(self, layer: Any):
        self.data = np.asarray(layer.data) != 0
        size = scale_nm(layer)
        if size is None:
            raise ValueError(f"layer {layer.name!r} is in pixels, not nm; paint on an image that has a pixel size.")
        self.size_nm = size
        self.corner_nm = corner_nm(layer) - about(layer).get("corner_nm", 0.0)  # from that of the image

    def leaves(self, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Whether each row of a table stays; a mask without frames holds for all of them."""
        index = np.rint(np.nan_to_num((places_nm(table) - self.corner_nm) / self.size_nm, nan=-1)).astype(int)
        inside = ((index >= 0) & (index < self.data.shape[-2:])).all(axis=1)
        y, x = np.where(inside[:, None], index, 0).T
        if self.data.ndim == 2:
            painted = self.data[y, x]
        else:
            painted = self.data[np.clip(table["frame"].to_numpy(int), 0, len(self.data) - 1), y, x]
        return np.asarray(~(painted & inside))


def paint(viewer: Any, image: Any) -> Any:
    """Add an empty mask over an image, ready to be painted on; the one that is there where there is one.

    Where the image of a table is not known, as of one read from a file, it is the newest.
    """
    if not IMAGE.fits(image):
        image = next((layer for layer in reversed(viewer.layers) if IMAGE.fits(layer)), None)
    if image is None:
        raise ValueError("There is no image to paint on: open it first.")
    name = f"{NAME} · {source_name(image)}"
    layer = standing(viewer, name, image.name) or _empty_mask(viewer, image, name)
    layer.brush_size = max(3, round(0.03 * max(layer.data.shape)))
    layer.mode = "paint"
    viewer.layers.selection.active = layer
    return layer


def _empty_mask(viewer: Any, image: Any, name: str) -> Any:
    """Add a mask whose pixels are, and stay, those of the image."""
    size = scale_nm(image)
    keywords: dict[str, Any] = {
        "name": name,
        "scale": image.scale[-2:] if size is None else size,
        "units": image.units[-2:] if size is None else units_of(2),
        "opacity": 0.35,
        "metadata": {KEY: {"image": source_name(image), "exclusion": True}},
    }
    layer = upsert(viewer, (np.zeros(image.data.shape[-2:], np.uint8), keywords, "labels"))

    def follow(_event: Any = None) -> None:
        if (size := scale_nm(image)) is not None:
            layer.units, layer.scale = units_of(2), size

    image.events.scale.connect(follow)
    return layer
