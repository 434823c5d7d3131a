"""Errors of fitted columns, how well they fit, and the bound no fit surpasses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from napari_defects.gaussian import kernels
from napari_defects.gaussian.blur import wide_mean
from napari_defects.gaussian.columns import Columns
from napari_defects.gaussian.neighbors import Neighbors
from napari_defects.gaussian.pixels import Pixels
from napari_defects.gaussian.windows import Array

FINE = 2.5  # (binned) pixels in a width, at least: costs half a per cent of the precision
_REACH = 0.65  # of a profile, within which all information is
_RING = 10  # a column and the neighbours whose joint covariance gives its errors


def covariance(pixels: Pixels, columns: Columns, near: Neighbors | None = None) -> Array:
    """Covariance of (amplitude, y, x[, sigma]) of each column, its neighbours being unknown too.

    The information of a column and its nearest neighbours is inverted; what lies beyond them is
    taken as known, which changes the errors by less than a per cent.

    Returns
    -------
    ndarray, shape (column, 3 or 4, 3 or 4)
    """
    near = near or Neighbors(columns)
    rings = near.rings(columns.isotropic, min(_RING, len(columns.yx)))
    return pixels.within(_REACH * columns.profile.reach).covariances(columns, near, rings)


def column_misfit(counts: Array, columns: Columns) -> Array:
    """Mean squared residual under each column, in units of its noise; 1 where the model is right.

    Returns
    -------
    ndarray, shape (column,)
    """
    pixels = Pixels(counts, columns.nodes.shape)
    model = np.maximum(pixels.model(columns), pixels.floor)
    under = Pixels(counts, columns.nodes.shape, reach=2.0).windows(columns)
    squares = kernels.project((pixels.counts - model) ** 2 / model, under, columns.amplitude)[:, 0]
    return np.asarray(squares / np.maximum(kernels.project(np.ones_like(model), under, columns.amplitude)[:, 0], 1e-12))


def local_excess(counts: Array, columns: Columns) -> Array:
    """How much more than counting noise moves a column, at least 1; dirt and a wrong model do.

    What the fit leaves over is smoothed to the scale of a column; its strength around each column
    is compared with the median over the image; half more is still taken for chance.

    Returns
    -------
    ndarray, shape (column,)
        Factor on the errors.
    """
    pixels = Pixels(counts, columns.nodes.shape)
    model = np.maximum(pixels.model(columns), pixels.floor)
    width = np.median(columns.sigma) / np.array([1.0, columns.aspect])
    left = gaussian_filter((counts - model) / np.sqrt(model), width) ** 2
    inner = np.zeros_like(left)  # beyond the edge are columns nobody fitted
    rim = np.minimum(np.ceil(4 * width).astype(int), np.subtract(left.shape, 1) // 2)
    inner[rim[0] : -rim[0], rim[1] : -rim[1]] = 1.0
    share = wide_mean(inner, 8 * width, columns.yx, mode="constant") + 1e-6
    around = wide_mean(left * inner, 8 * width, columns.yx, mode="constant") / share
    ratio = around / np.median(around)
    return np.asarray(np.sqrt(1 + np.clip((ratio - 1.5) / 0.5, 0, 1) * (ratio - 1)))


def cramer_rao(
    positions_nm: npt.ArrayLike,
    amplitudes: npt.ArrayLike,
    sigma_nm: npt.ArrayLike,
    *,
    pixel_size_nm: float,
    background: float = 0.0,
    free_sigma: bool = False,
) -> Array:
    """Precision that no unbiased fit of overlapping columns can surpass.

    Parameters
    ----------
    positions_nm : array_like, shape (column, 2)
        Positions (y, x); the image is taken to extend beyond all of them.
    amplitudes : array_like, shape (column,)
        Peak heights above the background, in electrons per pixel.
    sigma_nm : float or array_like, shape (column,)
        Width (1 sigma) of the columns.
    pixel_size_nm : float
        Side of a pixel.
    background : float
        Electrons per pixel between the columns; the square of the read noise, in electrons, adds to it.
    free_sigma : bool
        Whether every column has an unknown width of its own; one width for all is known well.

    Returns
    -------
    ndarray, shape (column, 3)
        1 sigma of y (nm), x (nm) and amplitude (electrons) of each column, neighbours being unknown too.

    Raises
    ------
    ValueError
        If what must be positive is not.
    """
    yx = np.asarray(positions_nm, np.float64).reshape(-1, 2) / pixel_size_nm
    n = len(yx)
    amplitude = np.broadcast_to(np.asarray(amplitudes, np.float64), (n,)).copy()
    sigma = np.broadcast_to(np.asarray(sigma_nm, np.float64), (n,)) / pixel_size_nm
    for name, values in (("amplitudes", amplitude), ("sigma_nm", sigma)):
        if n and not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"`{name}` must be positive, got {float(np.min(values)):g}; leave empty sites out.")
    if not background >= 0:
        raise ValueError(f"`background` must not be negative, got {background:g} electrons per pixel.")
    if n == 0:
        return np.zeros((0, 3))
    yx = yx - yx.min(axis=0) + 4 * sigma.max()
    shape = np.ceil(yx.max(axis=0) + 4 * sigma.max()).astype(int) + 1
    group = np.arange(n) if free_sigma else np.zeros(n, np.int64)
    columns = Columns(yx, amplitude, sigma, group, np.full((3, 3), float(background)))
    pixels = Pixels(np.zeros(shape), (3, 3))
    error = replace(columns, covariance=covariance(pixels, columns)).errors
    return error[:, [1, 2, 0]] * (pixel_size_nm, pixel_size_nm, 1.0)
