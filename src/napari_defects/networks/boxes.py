"""Means over boxes, by running sums: the cost does not depend on the size of the box."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Image = npt.NDArray[np.float32]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mirrored(k: int, n: int) -> int:
    k %= 2 * n
    return k if k < n else 2 * n - 1 - k


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _down(image: Any, size: int, out: Any) -> None:
    ny, nx = image.shape
    total = np.zeros(nx)
    for k in range(-(size // 2), size - size // 2):
        total += image[_mirrored(k, ny)]
    for y in range(ny):
        new, old = image[_mirrored(y + size - size // 2, ny)], image[_mirrored(y - size // 2, ny)]
        for x in range(nx):
            out[y, x] = total[x] / size
            total[x] += new[x] - old[x]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _across(image: Any, size: int, out: Any) -> None:
    ny, nx = image.shape
    line = np.empty(nx + size, image.dtype)
    for y in range(ny):
        for x in range(nx + size):
            line[x] = image[y, _mirrored(x - size // 2, nx)] if x < size or x >= nx else image[y, x - size // 2]
        total = 0.0
        for x in range(size):
            total += line[x]
        for x in range(nx):
            out[y, x] = total / size
            total += line[x + size] - line[x]


def box_mean(image: Image, size: int, *, times: int = 1) -> Image:
    """Mean over a box around each pixel, `times` over; mirrored at the borders.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    size : int
        Side of the box in pixels.
    times : int
    """
    once, out = np.empty_like(image), np.ascontiguousarray(image)
    for _ in range(times):
        _down(out, size, once)
        out = np.empty_like(once)
        _across(once, size, out)
    return out
