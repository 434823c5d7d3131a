"""What was made from an image belongs to it: while it is there, with the pixels it had, and is the one chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defects.widgets._layers import about, scale_nm, source_name
from napari_defects.widgets._picks import IMAGE


def image_name(layer: Any) -> str | None:
    """Name of the image a layer is, or came from; None for a table of no image, as one read from a file."""
    known = about(layer)
    return None if "table" in known and not known.get("image") else source_name(layer)


def image_of(viewer: Any, layer: Any) -> Any:
    """Return the image a layer is, or came from; None where that is not there."""
    name = source_name(layer)
    return next((one for one in viewer.layers if one.name == name and IMAGE.fits(one)), None)


def check_belongs(layer: Any, name: str | None, image: Any) -> None:
    """Raise ValueError where a layer was made from another image, or when the pixels of this one had another size.

    Parameters
    ----------
    layer : napari.layers.Layer
    name : str or None
        Of the image chosen; None where what is chosen belongs to none.
    image : napari.layers.Image or None
        The layer of that name.
    """
    known = about(layer)
    own = known.get("image")
    if own and name and own != name:
        raise ValueError(f"Layer {layer.name!r} is of {own!r}, not of {name!r}: choose layers of one image.")
    if own and image is not None:
        _check_size(f"Layer {layer.name!r}", image, known.get("pixel_size_nm"))


def _check_size(what: str, image: Any, then: Any) -> None:
    now = scale_nm(image)
    if then is not None and now is not None and not np.allclose(then, now, rtol=1e-6):
        raise ValueError(
            f"{what} is out of date: the pixel size of {image.name!r} has changed since ({_change(then, now)} nm): run"
            " Localize again, and what follows."
        )


def _change(then: npt.ArrayLike, now: npt.ArrayLike) -> str:
    """Say both sizes, with as many digits as it takes to tell them apart."""
    words = ([_sides(size, digits) for size in (then, now)] for digits in range(4, 9))
    return " → ".join(next(two for two in words if two[0] != two[1]))


def _sides(size: npt.ArrayLike, digits: int) -> str:
    return " × ".join(dict.fromkeys(f"{side:.{digits}g}" for side in np.ravel(size)))


class Subject:
    """The image that work is on, as it is when the work starts."""

    def __init__(self, image: Any = None):
        self.layer, self._size = image, None if image is None else scale_nm(image)

    def check(self, viewer: Any) -> None:
        """Raise ValueError where it has left the viewer since, or has been given another pixel size."""
        if self.layer is None:
            return
        if self.layer not in viewer.layers:
            raise ValueError(f"Cancelled: the image {self.layer.name!r} has left the viewer.")
        _check_size("The result", self.layer, self._size)
