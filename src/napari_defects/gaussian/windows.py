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
Image = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

_LANES = 8  # pixels of a line that a processor takes at once


class Windows(NamedTuple):
    """Pixels under every column: first row, number of rows, functions of y (column, term, 3, row); the same along x.

    The three are the function itself and its derivatives by the centre and by the width. Along x all windows are
    equally wide, a multiple of 8 pixels where the image is not narrower, and 0 beyond the reach of the column.
    """

    y: Index
    ny: Index
    fy: Image
    x: Index
    fx: Image


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _tabulate(
    first: int, last: int, center: Array, sigma: Array, scale: float, reach: float, n: int, binning: int, pitch: int,
    terms: Array, step: float, start: Index, count: Index, out: Image,
) -> None:  # fmt: skip
    width, half = out.shape[3], (terms.shape[1] - 1) / 2
    total = np.empty((3, width))
    for k in range(first, last):
        radius, step_t = reach * sigma[k] / scale, scale / sigma[k]
        low = max(0, int(np.ceil((center[k] - radius - (binning - 1) / 2) / pitch)))
        high = min(n - 1, int(np.floor((center[k] + radius - (binning - 1) / 2) / pitch)))
        start[k] = max(0, min(low, n - width))
        count[k] = max(0, min(high + 1 - start[k], width))
        for r in range(out.shape[1]):
            total[:] = 0.0
            for s in range(binning):
                begin, along = (start[k] * pitch + s - center[k]) * step_t, pitch * step_t
                if len(terms) == 0:
                    for a in range(width):
                        t = begin + a * along
                        y = t * t * (-0.5 / 128)  # exp(y) as a series, then to the power of 128
                        f = 1 + y * (1 + y * (1 / 2 + y * (1 / 6 + y * (1 / 24 + y * (1 / 120)))))
                        f *= f
                        f *= f
                        f *= f
                        f *= f
                        f *= f
                        f *= f
                        f *= f
                        total[0, a] += f
                        total[1, a] += f * t
                        total[2, a] += f * t * t
                else:  # Catmull-Rom between the samples
                    for a in range(width):
                        t = begin + a * along
                        place = min(max(t / step + half, 1.0), 2 * half - 2)
                        m = int(place)
                        u = place - m
                        p0, p1, p2, p3 = terms[r, m - 1], terms[r, m], terms[r, m + 1], terms[r, m + 2]
                        c1, c2, c3 = p2 - p0, 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * (p1 - p2) + p3 - p0
                        slope = 0.5 * (c1 + u * (2 * c2 + 3 * u * c3)) / step
                        total[0, a] += p1 + 0.5 * u * (c1 + u * (c2 + u * c3))
                        total[1, a] -= slope
                        total[2, a] -= slope * t
            for a in range(width):
                part = 1 / binning if low <= start[k] + a <= high else 0.0
                out[k, r, 0, a] = total[0, a] * part
                out[k, r, 1, a] = total[1, a] * part * step_t
                out[k, r, 2, a] = total[2, a] * part / sigma[k]


def tabulate(
    yx: Array,
    sigma: Array,
    aspect: float,
    reach: float,
    shape: tuple[int, ...],
    binning: int,
    terms: Array,
    step: float,
    *,
    pitch: int = 0,
    dtype: npt.DTypeLike = np.float32,
) -> Windows:
    """Tabulate columns at `yx` (pixels), of widths `sigma` (pixels along y), out to `reach` sigma, on binned pixels.

    Parameters
    ----------
    shape : (int, int)
        Of the binned image.
    terms : ndarray, shape (2, term, sample)
        Functions of y and of x at multiples of `step` sigma; without terms for a Gaussian.
    pitch : int
        Pixels from one binned pixel to the next, where there are gaps between them; `binning` without.
    dtype : dtype
        Of the tables.
    """
    n, rank, widest = len(yx), max(terms.shape[1], 1), float(np.max(sigma))
    parts: list[Any] = []
    for axis, scale in enumerate((1.0, aspect)):
        width = int(2 * reach * widest / scale / (pitch or binning)) + 1
        width = min(-(-width // _LANES) * _LANES if axis else width, shape[axis])
        table = np.empty((n, rank, 3, width), dtype)
        start, count = np.empty(n, np.int64), np.empty(n, np.int64)
        arguments = (scale, reach, shape[axis], binning, pitch or binning, terms[axis], step, start, count, table)
        spread(_tabulate, n, np.ascontiguousarray(yx[:, axis]), sigma, *arguments)
        parts += [start, count, table]
    y, ny, fy, x, _, fx = parts
    return Windows(y, ny, fy, x, fx)
