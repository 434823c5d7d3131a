"""Wide averages of an image at some places, quicker than a wide filter over all of it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_defects.gaussian import kernels
from napari_defects.gaussian.windows import Array

_BINS = 3.0  # of the average's width: binning by more would show


def wide_mean(image: Array, width: Array, yx: Array, *, mode: Literal["reflect", "constant"] = "reflect") -> Array:
    """Gaussian average around places.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    width : ndarray, shape (2,)
        1 sigma along y and x, in pixels.
    yx : ndarray, shape (place, 2)
    mode : {'reflect', 'constant'}
        What lies outside of the image, as for `scipy.ndimage.gaussian_filter`.

    Returns
    -------
    ndarray, shape (place,)
    """
    bins = max(1, min(int(np.min(width) / _BINS), min(image.shape) // 8))
    small = kernels.shrink(np.ascontiguousarray(image, np.float64), bins)
    smooth = gaussian_filter(small, np.asarray(width) / bins, mode=mode)
    return np.asarray(map_coordinates(smooth, (yx.T - 0.5 * (bins - 1)) / bins, order=1, mode="nearest"))
