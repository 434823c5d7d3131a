"""The shape of a column, measured on all columns of the image itself, neighbours and background accounted for."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from scipy.special import eval_hermite, factorial

from napari_defects.gaussian.bounds import FINE
from napari_defects.gaussian.columns import GAUSSIAN, Columns, Profile
from napari_defects.gaussian.equations import NormalEquations
from napari_defects.gaussian.neighbors import Neighbors
from napari_defects.gaussian.pixels import Pixels
from napari_defects.gaussian.windows import Array

_TURNS = 2  # Gauss-Newton steps to the ellipse
_FLATTEST = 0.6  # of the ellipse: twice as long as wide
_RANK = 1e-3  # products of functions of y and of x weaker than this, relative to the strongest, are left out


def measure_profile(counts: Array, columns: Columns, *, order: int = 6) -> Profile:
    """Measure the profile of fitted columns: what they have been drawn as, and what the fit leaves over of it.

    What is left is a sum of Gauss-Hermite functions of the offset from each column, equal for all but for the
    amplitude. Those that a column's amplitude, place or width could take up are left out. Fit and measure in turn,
    twice: it is the tails of the probe that this catches. For strongly elliptical columns see `measure_ellipse`.

    Parameters
    ----------
    counts : ndarray, shape (y, x)
    columns : Columns
        Fitted to it.
    order : int
        Highest sum of the two orders.

    Returns
    -------
    Profile
        1 at the centre.
    """
    t, stamp = GAUSSIAN.stamp if columns.profile.terms.shape[1] == 0 else columns.profile.stamp
    functions = _functions(t, order)
    weights = _strengths(counts, columns, [Profile(terms, GAUSSIAN.step) for terms in functions])
    stamp = stamp + sum(c * np.einsum("ra,rb->ab", *terms) for c, terms in zip(weights, functions, strict=True))
    return _profile(stamp)


def measure_ellipse(counts: Array, columns: Columns) -> tuple[Profile, Array]:
    """Measure the ellipse that all columns share: astigmatism, or a scan whose pixels are not what they seem.

    Parameters
    ----------
    counts : ndarray, shape (y, x)
    columns : Columns
        Fitted to it.

    Returns
    -------
    Profile
        exp(-t' S t / 2) with t = (y, x) in widths.
    ndarray, shape (2, 2)
        S, of trace 2.
    """
    t, _ = GAUSSIAN.stamp
    y, x = t[:, None], t[None, :]
    flat = np.zeros(2)
    for _ in range(_TURNS):
        bell = np.exp(-0.5 * ((1 + flat[0]) * y**2 + (1 - flat[0]) * x**2 + 2 * flat[1] * y * x))
        drawn = replace(columns, profile=_profile(bell))
        slopes = [-0.5 * (y**2 - x**2) * bell, -y * x * bell]
        flat = flat + _strengths(counts, drawn, [_profile(f, scaled=False) for f in slopes])
        flat *= min(1.0, _FLATTEST / max(float(np.hypot(*flat)), 1e-12))
    matrix = np.array([[1 + flat[0], flat[1]], [flat[1], 1 - flat[0]]])
    return _profile(np.exp(-0.5 * (matrix[0, 0] * y**2 + matrix[1, 1] * x**2 + 2 * matrix[0, 1] * y * x))), matrix


def _strengths(counts: Array, columns: Columns, shapes: list[Profile]) -> Array:
    """Strengths of additional shapes of the columns, equal for all but for the amplitude, that explain what is left.

    Heights, places and widths of all columns and the background follow.
    """
    pixels = Pixels(counts, columns.nodes.shape, binning=max(1, int(columns.width / FINE)))
    model = np.maximum(pixels.model(columns), pixels.floor).astype(np.float64)
    equations = NormalEquations(pixels, columns, Neighbors(columns))
    bare = replace(columns, nodes=np.zeros_like(columns.nodes))
    drawn = np.stack([pixels.model(replace(bare, profile=shape)) for shape in shapes]).astype(np.float64)
    free = np.zeros(len(columns.yx)), np.full((len(columns.yx), equations.size), 1e-9)
    scores = np.stack([equations.gather(*pixels.score(columns, image / model)) for image in drawn])
    follow = np.stack([equations.solve(score, *free) for score in scores])
    area = pixels.binning**2
    information = area * np.einsum("ayx,byx->ab", drawn / model, drawn) - 0.5 * (follow @ scores.T + scores @ follow.T)
    left = area * np.einsum("ayx,yx->a", drawn, pixels.counts / model - 1)
    left -= follow @ equations.gather(*pixels.score(columns, pixels.counts / model - 1))
    return np.asarray(np.linalg.lstsq(information, left, rcond=1e-3)[0])


def _profile(stamp: Array, *, scaled: bool = True) -> Profile:
    """Write a shape as products of functions of y and of x; `scaled` to 1 at the centre."""
    down, strength, right = np.linalg.svd(stamp / stamp[len(stamp) // 2, len(stamp) // 2] if scaled else stamp)
    kept = int((strength > _RANK * strength[0]).sum())
    return Profile(np.ascontiguousarray(np.stack([(down * strength)[:, :kept].T, right[:kept]])), GAUSSIAN.step)


def _functions(t: Array, order: int) -> list[Array]:
    """Products of Gauss-Hermite functions of y and of x, each (2, term, sample)."""
    wave = [eval_hermite(n, t) * np.exp(-0.5 * t * t) / np.sqrt(2.0**n * factorial(n)) for n in range(order + 1)]
    pairs = [(p, q) for p, q in product(range(order + 1), repeat=2) if 2 <= p + q <= order and {p, q} != {0, 2}]
    return [np.array([[wave[2], wave[0]], [wave[0], -wave[2]]])] + [np.array([[wave[p]], [wave[q]]]) for p, q in pairs]
