"""The joint fit of all columns of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_defects.gaussian.bounds import FINE, covariance
from napari_defects.gaussian.columns import Columns
from napari_defects.gaussian.equations import NormalEquations
from napari_defects.gaussian.neighbors import Neighbors
from napari_defects.gaussian.pixels import Pixels
from napari_defects.gaussian.windows import Array

if TYPE_CHECKING:
    import torch

_STALE = 0.07  # change of a column that makes its information worth working out anew
_CORE = 0.8  # of a profile: its information
_RIM = 2.0  # widths from the edge within which columns settle slowly, and are not waited for
_CAREFUL = 0.1  # damping of these
_TAILS = 4.3  # widths of a Gaussian beyond which it moves no neighbour by a hundredth of a picometre
_COARSE = 1.3  # binned pixels in a width, at least, while the fit is on its way


def fit_columns(
    counts: Array,
    start: Columns,
    *,
    steps: int = 12,
    coarse: bool = True,
    polish: bool = True,
    errors: bool = True,
    tolerance: float = 1e-3,
    fine_px: float = FINE,
    device: torch.device | str | None = None,
) -> Columns:
    """Fit all columns of an image at once by Poisson maximum likelihood.

    Fisher scoring on the sparse normal equations, a step being kept only when the deviance falls:
    first on coarsely binned pixels, where it is cheap, then with the same equations on pixels fine
    enough for all but half a per cent of the precision. The model is binned as the counts are, so
    that no bin biases anything.

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
        Whether the pass on fine pixels follows the one on coarse ones.
    errors : bool
        Whether to work out the covariance.
    tolerance : float
        A pass ends when the next step would lower the deviance by less than this per parameter, or
        move all but a few columns (those beyond the edge) by less than its root in units of their error.
    fine_px : float
        Binned pixels that a width has at least in the second pass.
    device : torch.device or str, optional
        Where torch fits, to the same result; loops compiled for the processor when None.

    Returns
    -------
    Columns
        With `deviance`, and `covariance` if asked for.
    """
    if len(start.yx) == 0:
        return start
    counts = np.ascontiguousarray(counts, np.float64)
    kind, make = _kinds(device)
    grid, near = start.nodes.shape, Neighbors(start)
    nearer = near.nearer(start)
    binned = kind(counts, grid, binning=max(1, int(start.width / _COARSE)), reach=4.0)
    columns, equations = start, None
    if coarse:
        columns, equations = _iterate(make, binned, binned, start, None, nearer, steps, 100 * tolerance)
    reach = _TAILS if start.profile.terms.shape[1] == 0 else None
    fine = kind(counts, grid, binning=max(1, int(columns.width / fine_px)), reach=reach)
    if polish:
        columns, _ = _iterate(make, fine, binned, columns, equations, nearer, steps, tolerance)
    return replace(columns, covariance=covariance(fine, columns, near) if errors else start.covariance[:0])


def _kinds(device: torch.device | str | None) -> tuple[Callable[..., Pixels], type[NormalEquations]]:
    """Return what makes pixels and normal equations: compiled loops, or torch, loaded only when asked for."""
    if device is None:
        return Pixels, NormalEquations
    from napari_defects.gaussian.device import DeviceEquations, DevicePixels

    return partial(DevicePixels, device=device), DeviceEquations


def _iterate(
    make: type[NormalEquations],
    pixels: Pixels,
    coarse: Pixels,
    columns: Columns,
    equations: NormalEquations | None,
    near: Neighbors,
    steps: int,
    tolerance: float,
) -> tuple[Columns, NormalEquations | None]:
    """Take steps that lower the deviance on `pixels`, by normal equations made on `coarse`."""
    coarse = coarse.within(_CORE * columns.profile.reach)
    settled = columns.deep(pixels.shape, _RIM)
    least = np.where(settled, 0.0, _CAREFUL)
    damping, before = np.maximum(0.0 if equations else 1e-2, least), np.full(2, 1e-300)
    deviance, pull = pixels.compare(columns)
    for _ in range(steps):
        equations = equations or make(coarse, columns, near)
        score = equations.gather(*pixels.score(columns, pull))
        for _ in range(6):
            step = equations.solve(score, damping, _trust(columns, pixels.shape))
            trial = _moved(columns, equations, step, pixels.shape)
            lower, trial_pull = pixels.compare(trial)
            if lower < deviance:
                break
            damping = np.where(pixels.worse(columns, trial), np.maximum(10 * damping, 1.0), damping)
        else:
            break
        gain = (deviance - lower) / (3 * len(columns.yx))
        deviance, pull, damping = lower, trial_pull, np.maximum(np.where(damping > 0.01, 0.3 * damping, 0.0), least)
        moves = _share(equations.squared(step).max(axis=1)[settled], 0.98)
        now = np.array([gain, moves])
        if np.min(now * np.minimum(now, before) / before) < tolerance:  # what the next step would bring
            columns = trial
            break
        before = np.maximum(now, 1e-300)
        if _changed(columns, trial) > _STALE:
            equations = None
        columns = trial
    return replace(columns, deviance=deviance), equations


def _changed(before: Columns, after: Columns) -> float:
    """How far a step went for nearly all columns, relative to amplitudes and widths: information changes as much."""
    moved = np.abs(after.yx - before.yx).max(axis=1) / before.sigma
    steps = moved, np.abs(after.amplitude / before.amplitude - 1), 2 * np.abs(after.sigma / before.sigma - 1)
    return _share(np.max(steps, axis=0), 0.9)


def _share(values: Array, share: float) -> float:
    """Value that so many of these do not exceed."""
    k = int(share * (len(values) - 1))
    return float(np.partition(values, k)[k])


def _trust(columns: Columns, shape: tuple[int, ...]) -> Array:
    """Weak springs that hold every column's parameters near where they are, shape (column, 3 or 4)."""
    width = 0.3 * columns.sigma
    spring = np.stack([0.3 * columns.amplitude, width, width, width], axis=1)[:, : 4 if columns.free_sigma else 3]
    spring[columns.outside(shape), 1:3] *= 1e-5
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
        yx=np.clip(yx, np.minimum(columns.yx, -4 * limit), np.maximum(columns.yx, np.subtract(shape, 1) + 4 * limit)),
        sigma=columns.sigma + np.clip(wider, -0.2 * columns.sigma, 0.2 * columns.sigma),
        nodes=columns.nodes + step[size * n + groups :].reshape(columns.nodes.shape),
    )
