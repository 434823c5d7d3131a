"""What is painted to be left out: a Labels layer over an image, and the rows of a table it leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from napari.layers import Labels

from napari_defects.widgets._layers import KEY, about, scale_nm, source_name, units_of
from napari_defects.widgets._picks import Pick
from napari_defects.widgets._points import places_nm

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
        shift = np.asarray(layer.translate[-2:], float) * size / np.abs(np.asarray(layer.scale[-2:], float))
        self.corner_nm = shift

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
    """Add an empty mask over an image, ready to be painted on; the one that is there where there is one."""
    name = f"{NAME} · {source_name(image)}"
    if name in viewer.layers:
        layer = viewer.layers[name]
    else:
        shape = image.data.shape[-2:]
        layer = viewer.add_labels(
            np.zeros(shape, np.uint8),
            name=name,
            scale=image.scale[-2:],
            translate=image.translate[-2:],
            units=units_of(2),
            opacity=0.35,
            metadata={KEY: {"image": source_name(image), "exclusion": True}},
        )
    layer.brush_size = max(3, round(0.03 * max(layer.data.shape)))
    layer.mode = "paint"
    viewer.layers.selection.active = layer
    return layer
