"""Where an image shows the specimen: not where it is blank, saturated, or drawn upon."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from ..micrograph import Micrograph

log = logging.getLogger(__name__)
Mask = npt.NDArray[np.bool_]

_CUT_NM = 0.15  # from where the specimen is seen no more: columns that are cut
_EMPTY_NM = 0.6  # sides of a square without an electron: so much is no chance
_BAR_NM, _STROKE_PX = 0.4, 3  # length of a patch of the highest value that is no column's, and its width, at least
_LETTERS = 0.15  # of the image's height: how far from a bar its letters are


def in_sight(micrograph: Micrograph, places: pd.DataFrame) -> Mask:
    """Whether a whole column can be seen at each place.

    Hidden is what lies in or beside lines of pixels in which there is nothing, patches of the lowest value (where an
    image was turned, or padded), and of the highest (where the detector saturated, or a scale bar and its letters were
    drawn).

    Parameters
    ----------
    micrograph : Micrograph
    places : DataFrame
        With ``frame``, ``y_nm`` and ``x_nm``.

    Returns
    -------
    ndarray of bool
    """
    scale = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    at, frames = places[["y_nm", "x_nm"]].to_numpy(float) / scale, places["frame"].to_numpy()
    known, result = np.isfinite(at).all(1), np.ones(len(places), bool)
    for frame in np.unique(frames[known]).tolist():
        rows, hidden = known & (frames == frame), _hidden(micrograph.frame(frame), scale)
        if hidden.any():
            y, x = np.clip(np.rint(at[rows]), 0, np.subtract(hidden.shape, 1)).astype(int).T
            result[rows] = ndimage.distance_transform_edt(~hidden, sampling=scale)[y, x] > _CUT_NM
    if not result.all():
        log.warning(
            "no verdict at %d places: they lie at pixels that are blank or saturated, as those of a scale bar are.",
            int(np.count_nonzero(~result)),
        )
    return result


def _hidden(image: npt.NDArray[np.floating], scale: npt.NDArray[np.float64]) -> Mask:
    """Pixels that show nothing of the specimen."""
    low, high = image == image.min(), image == image.max()
    blank = (np.ptp(image, axis=1) == 0)[:, None] | (np.ptp(image, axis=0) == 0)
    blank |= _solid(low, np.ceil(_EMPTY_NM / scale))  # no farther: single pixels without an electron lie side by side
    thin, long = np.full(2, _STROKE_PX), np.maximum(np.ceil(_BAR_NM / scale), _STROKE_PX)
    bars = _solid(high, np.where([True, False], thin, long)) | _solid(high, np.where([True, False], long, thin))
    if bars.any():
        blank |= high & (ndimage.distance_transform_edt(~bars) < _LETTERS * len(image))
    return np.asarray(blank)


def _solid(pixels: Mask, sides: npt.NDArray[np.floating]) -> Mask:
    """Those pixels that lie in full rectangles."""
    if np.count_nonzero(pixels) < np.prod(sides):
        return np.zeros_like(pixels)
    return np.asarray(ndimage.binary_opening(pixels, np.ones(sides.astype(int), bool)))
