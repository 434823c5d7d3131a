"""Columns as tables: a column is a sum of products of a function of y and of one of x, a Gaussian just one.

`tabulate` writes these functions down along both axes, averaged over (binned) pixels, with their derivatives.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from napari_defects.gaussian.threads import spread

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


class Windows(NamedTuple):
    """Pixels under every column: first row, number of rows, functions of y (column, term, 3, row); the same along x.

    The three are the function itself and its derivatives by the centre and by the width.
    """

    y: Index
    ny: Index
    fy: Array
    x: Index
    nx: Index
    fx: Array


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _tabulate(
    first: int, last: int, center: Array, sigma: Array, scale: float, reach: float, n: int, binning: int,
    terms: Array, step: float, start: Index, count: Index, out: Array,
) -> None:  # fmt: skip
    half, value = (terms.shape[1] - 1) / 2, np.empty((2, binning * out.shape[3]))
    for k in range(first, last):
        radius, step_t = reach * sigma[k] / scale, scale / sigma[k]
        low = max(0, int(np.ceil((center[k] - radius - (binning - 1) / 2) / binning)))
        high = min(n - 1, int(np.floor((center[k] + radius - (binning - 1) / 2) / binning)))
        start[k], count[k] = low, max(0, min(high + 1 - low, out.shape[3]))
        begin = (low * binning - center[k]) * step_t
        for r in range(out.shape[1]):
            if len(terms) == 0:  # exp(-t^2 / 2) at equal steps: each is the last times a factor, and so is the factor
                f, factor = np.exp(-0.5 * begin * begin), np.exp(-begin * step_t - 0.5 * step_t * step_t)
                shrink = np.exp(-step_t * step_t)
                for s in range(count[k] * binning):
                    value[0, s], value[1, s] = f, -(begin + s * step_t) * f
                    f *= factor
                    factor *= shrink
            else:  # Catmull-Rom between the samples
                for s in range(count[k] * binning):
                    place = min(max((begin + s * step_t) / step + half, 1.0), 2 * half - 2)
                    m = int(place)
                    u = place - m
                    p0, p1, p2, p3 = terms[r, m - 1], terms[r, m], terms[r, m + 1], terms[r, m + 2]
                    c1, c2, c3 = p2 - p0, 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * (p1 - p2) + p3 - p0
                    value[0, s] = p1 + 0.5 * u * (c1 + u * (c2 + u * c3))
                    value[1, s] = 0.5 * (c1 + u * (2 * c2 + 3 * u * c3)) / step
            for a in range(count[k]):
                f0 = f1 = f2 = 0.0
                for s in range(a * binning, (a + 1) * binning):
                    f0 += value[0, s]
                    f1 -= value[1, s]
                    f2 -= value[1, s] * (begin + s * step_t)
                out[k, r, 0, a] = f0 / binning
                out[k, r, 1, a] = f1 / binning * step_t
                out[k, r, 2, a] = f2 / binning / sigma[k]


def tabulate(
    yx: Array,
    sigma: Array,
    aspect: float,
    reach: float,
    shape: tuple[int, ...],
    binning: int,
    terms: Array,
    step: float,
) -> Windows:
    """Tabulate columns at `yx` (pixels), of widths `sigma` (pixels along y), out to `reach` sigma, on binned pixels.

    Parameters
    ----------
    shape : (int, int)
        Of the binned image.
    terms : ndarray, shape (2, term, sample)
        Functions of y and of x at multiples of `step` sigma; without terms for a Gaussian.
    """
    n, rank = len(yx), max(terms.shape[1], 1)
    parts: list[Any] = []
    for axis, scale in enumerate((1.0, aspect)):
        width = int(2 * reach * float(np.max(sigma)) / scale / binning) + 2
        table = np.zeros((n, rank, 3, width))
        start, count = np.zeros(n, np.int64), np.zeros(n, np.int64)
        arguments = (scale, reach, shape[axis], binning, terms[axis], step, start, count, table)
        spread(_tabulate, n, np.ascontiguousarray(yx[:, axis]), sigma, *arguments)
        parts += [start, count, table]
    return Windows(*parts)
