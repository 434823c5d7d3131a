"""The shape of a column, measured on all columns of the image itself, neighbours and background accounted for."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from scipy.special import eval_hermite, factorial

from napari_defects.gaussian.columns import GAUSSIAN, Columns, Profile
from napari_defects.gaussian.kernels import Array
from napari_defects.gaussian.pixels import Pixels

_RANK = 1e-3  # products of functions of y and of x weaker than this, relative to the strongest, are left out


def measure_profile(counts: Array, columns: Columns, *, order: int = 6) -> Profile:
    """Measure the profile of fitted columns: what they have been drawn as, and what the fit leaves over of it.

    What is left is a sum of Gauss-Hermite functions of the offset from each column, equal for all but for the
    amplitude. Those that a column's amplitude, place or width could take up are left out. Fit and measure in turn,
    twice: it is the tails of the probe that this catches. Strongly elliptical columns are not resolved by it.

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
    pixels = Pixels(counts, columns.nodes.shape)
    model = np.maximum(pixels.model(columns), pixels.floor)
    rim = np.ceil(4 * columns.width / np.array([1.0, columns.aspect])).astype(int)
    inner = tuple(slice(n, -n) for n in np.minimum(rim, (np.array(counts.shape) - 1) // 3))
    root = 1 / np.sqrt(model[inner])
    bare = replace(columns, nodes=np.zeros_like(columns.nodes))
    drawn = [
        replace(bare, profile=Profile(terms, GAUSSIAN.step)).render(counts.shape)[inner] * root for terms in functions
    ]
    design = np.stack([d.ravel() for d in drawn], axis=1)
    weights = np.linalg.lstsq(design.T @ design, design.T @ ((counts - model)[inner] * root).ravel(), rcond=1e-10)[0]
    stamp = stamp + sum(c * np.einsum("ra,rb->ab", *terms) for c, terms in zip(weights, functions, strict=True))
    down, strength, right = np.linalg.svd(stamp / stamp[len(t) // 2, len(t) // 2])
    kept = strength > _RANK * strength[0]
    terms = np.stack([(down * strength)[:, : kept.sum()].T, right[: kept.sum()]])
    return Profile(np.ascontiguousarray(terms), GAUSSIAN.step)


def _functions(t: Array, order: int) -> list[Array]:
    """Products of Gauss-Hermite functions of y and of x, each (2, term, sample)."""
    wave = [eval_hermite(n, t) * np.exp(-0.5 * t * t) / np.sqrt(2.0**n * factorial(n)) for n in range(order + 1)]
    pairs = [(p, q) for p, q in product(range(order + 1), repeat=2) if 2 <= p + q <= order and {p, q} != {0, 2}]
    return [np.array([[wave[2], wave[0]], [wave[0], -wave[2]]])] + [np.array([[wave[p]], [wave[q]]]) for p, q in pairs]
