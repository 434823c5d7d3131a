"""The joint fit, the errors of its columns, and the bound no fit surpasses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from napari_defects.gaussian import kernels
from napari_defects.gaussian.equations import Columns, NormalEquations, Pixels
from napari_defects.gaussian.kernels import Array

_RING = 13  # a column and the neighbours whose joint covariance gives its errors


def fit_columns(
    counts: Array,
    start: Columns,
    *,
    steps: int = 12,
    coarse: bool = True,
    polish: bool = True,
    errors: bool = True,
    tolerance: float = 1e-3,
) -> Columns:
    """Fit all columns of an image at once by Poisson maximum likelihood.

    Fisher scoring on the sparse normal equations, a step being kept only when the deviance falls:
    first on binned pixels, where it is cheap, then with the same equations at full resolution,
    which removes what binning biases.

    Parameters
    ----------
    counts : ndarray, shape (y, x)
        Image in units in which the variance equals the mean.
    start : Columns
        Where to begin: positions good to about sigma, any reasonable rest.
    steps : int
        Most steps of each pass.
    coarse : bool
        Whether to begin with binned pixels; not needed where `start` is a fit.
    polish : bool
        Whether the pass at full resolution follows the one on binned pixels.
    errors : bool
        Whether to work out the covariance.
    tolerance : float
        A pass ends when the next step would lower the deviance by less than this per parameter, or
        move all but a few columns (those beyond the edge) by less than its root in units of their error.

    Returns
    -------
    Columns
        With `deviance`, and `covariance` if asked for.
    """
    if len(start.yx) == 0:
        return start
    counts = np.ascontiguousarray(counts, np.float64)
    width, grid = float(np.median(start.sigma)), start.nodes.shape
    binned = Pixels(counts, grid, binning=max(1, int(width / 1.3)))
    columns, equations = start, None
    if coarse:
        columns, equations = _iterate(binned, binned, start, None, steps, 10 * tolerance)
    if polish:
        columns, _ = _iterate(Pixels(counts, grid, reach=5.0), binned, columns, equations, steps, tolerance)
    return replace(columns, covariance=covariance(counts, columns) if errors else start.covariance[:0])


def _iterate(
    pixels: Pixels,
    coarse: Pixels,
    columns: Columns,
    equations: NormalEquations | None,
    steps: int,
    tolerance: float,
) -> tuple[Columns, NormalEquations | None]:
    """Take steps that lower the deviance on `pixels`, by normal equations made on `coarse`."""
    damping, before = 0.0, 1e-300
    deviance, pull = pixels.compare(columns)
    for _ in range(steps):
        equations = equations or NormalEquations(coarse, columns)
        score = equations.gather(*pixels.score(columns, pull))
        for _ in range(6):
            step = equations.solve(score, damping, _trust(columns, pixels.shape))
            trial = _moved(columns, equations, step, pixels.shape)
            lower, trial_pull = pixels.compare(trial)
            if lower < deviance:
                break
            damping = max(10 * damping, 1e-2)
        else:
            break
        gain = (deviance - lower) / (3 * len(columns.yx))
        columns, deviance, pull, damping = trial, lower, trial_pull, damping / 10
        moves = np.sort(equations.squared(step).max(axis=1))[int(0.98 * len(columns.yx))]
        if min(gain, moves) * min(1, gain / before) < tolerance:  # what the next step would bring
            break
        before = gain
        if gain > 1:
            equations = None
    return replace(columns, deviance=deviance), equations


def _trust(columns: Columns, shape: tuple[int, ...]) -> Array:
    """Weak springs that hold every column's parameters near where they are, shape (column, 3 or 4)."""
    width = 0.3 * columns.sigma
    spring = np.stack([0.3 * columns.amplitude, width, width, width], axis=1)[:, : 4 if columns.free_sigma else 3]
    far = 0.8 * columns.sigma[:, None] / (1.0, columns.aspect)
    out = (columns.yx < -far) | (columns.yx > np.subtract(shape, 1) + far)
    spring[:, 1:3][out] *= 1e-5  # of a tail beyond the edge, height and distance cannot both be had
    return np.asarray(spring**-2.0)


def _moved(columns: Columns, equations: NormalEquations, step: Array, shape: tuple[int, ...]) -> Columns:
    """Columns after a step, no parameter going further than the model can be trusted."""
    n, size, groups = len(columns.yx), equations.size, equations.groups
    own = step[: size * n].reshape(n, size)
    wider = own[:, 3] if size == 4 else step[size * n : size * n + groups][columns.group]
    limit = 0.4 * columns.sigma[:, None] / (1.0, columns.aspect)
    yx = columns.yx + np.clip(own[:, 1:3], -limit, limit)
    return replace(
        columns,
        amplitude=columns.amplitude + np.maximum(own[:, 0], -0.6 * columns.amplitude),
        yx=np.clip(yx, -4 * limit, np.subtract(shape, 1) + 4 * limit),
        sigma=columns.sigma + np.clip(wider, -0.2 * columns.sigma, 0.2 * columns.sigma),
        nodes=columns.nodes + step[size * n + groups :].reshape(columns.nodes.shape),
    )


def covariance(counts: Array, columns: Columns) -> Array:
    """Covariance of (amplitude, y, x[, sigma]) of each column, its neighbours being unknown too.

    The information of a column and its nearest neighbours is inverted; what lies beyond them is
    taken as known, which changes the errors by less than a per cent.

    Returns
    -------
    ndarray, shape (column, 3 or 4, 3 or 4)
    """
    pixels = Pixels(counts, columns.nodes.shape, binning=max(1, int(float(np.median(columns.sigma)) / 2.2)))
    n, size, ring = len(columns.yx), 4 if columns.free_sigma else 3, min(_RING, len(columns.yx))
    near = np.asarray(cKDTree(columns.isotropic).query(columns.isotropic, k=ring)[1]).reshape(n, ring)
    pairs = np.concatenate([np.repeat(np.arange(n), 2).reshape(-1, 2), columns.pairs(5.5)])
    found = pixels.blocks(columns, pairs, pixels.weight(columns))[:, :size, :size]
    blocks = np.concatenate([found, found.transpose(0, 2, 1), np.zeros((1, size, size))])
    keys = np.concatenate([pairs @ [n, 1], pairs @ [1, n]])
    order = np.argsort(keys, kind="stable")
    result = np.full((n, size, size), np.nan)
    for start in range(0, n, 256):
        rings = near[start : start + 256]
        wanted = rings[:, :, None] * n + rings[:, None, :]
        place = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        place = np.where(keys[place] == wanted, place, len(keys))
        dense = blocks[place].transpose(0, 1, 3, 2, 4).reshape(len(rings), ring * size, ring * size)
        scale = 1 / np.sqrt(np.maximum(np.einsum("nii->ni", dense), 1e-300))
        dense = dense * scale[:, :, None] * scale[:, None, :] + 1e-9 * np.eye(ring * size)
        unit = np.broadcast_to(np.eye(ring * size, size), (len(rings), ring * size, size))
        solved = np.linalg.solve(dense, unit)[:, :size]
        result[start : start + 256] = solved * scale[:, :size, None] * scale[:, None, :size]
    bad = ~(np.diagonal(result, axis1=1, axis2=2) > 0).all(axis=1)
    result[bad] = np.nan
    return result


def column_misfit(counts: Array, columns: Columns) -> Array:
    """Mean squared residual under each column, in units of its noise; 1 where the model is right.

    Returns
    -------
    ndarray, shape (column,)
    """
    pixels = Pixels(counts, columns.nodes.shape, reach=5.0)
    model = np.maximum(pixels.model(columns), pixels.floor)
    under = kernels.profiles(columns.yx, columns.sigma, columns.aspect, 2.0, counts.shape)
    squares = kernels.project((pixels.counts - model) ** 2 / model, under)[:, 0]
    return np.asarray(squares / np.maximum(kernels.project(np.ones_like(model), under)[:, 0], 1e-12))


def local_excess(counts: Array, columns: Columns) -> Array:
    """How much more than counting noise moves a column, at least 1; dirt and a wrong model do.

    What the fit leaves over is smoothed to the scale of a column; its strength around each column
    is compared with the median over the image; half more is still taken for chance.

    Returns
    -------
    ndarray, shape (column,)
        Factor on the errors.
    """
    pixels = Pixels(counts, columns.nodes.shape, reach=5.0)
    model = np.maximum(pixels.model(columns), pixels.floor)
    width = np.median(columns.sigma) / np.array([1.0, columns.aspect])
    left = gaussian_filter((counts - model) / np.sqrt(model), width) ** 2
    at = np.clip(np.rint(columns.yx).astype(int), 0, np.subtract(counts.shape, 1))
    inner = np.zeros_like(left)  # beyond the edge are columns nobody fitted
    rim = np.minimum(np.ceil(4 * width).astype(int), np.subtract(left.shape, 1) // 2)
    inner[rim[0] : -rim[0], rim[1] : -rim[1]] = 1.0
    share = gaussian_filter(inner, 8 * width, mode="constant") + 1e-6
    around = (gaussian_filter(left * inner, 8 * width, mode="constant") / share)[at[:, 0], at[:, 1]]
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
    error = replace(columns, covariance=covariance(columns.render(tuple(shape)), columns)).errors
    return error[:, [1, 2, 0]] * (pixel_size_nm, pixel_size_nm, 1.0)
