"""Which columns overlap."""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt
from numba import njit

from napari_defects.gaussian.columns import Columns
from napari_defects.gaussian.threads import spread
from napari_defects.gaussian.windows import Array, Index

_NEAR = 5.5  # sigma beyond which columns hardly know of each other,
_NEARER = 5.0  # and within which they decide where a step leads
_NEAR_FREE = 7.5  # the same where every width is free: all of them together are nearly a background


class Neighbors:
    """Pairs of columns that overlap (each with itself first), and the same as rows of a sparse matrix.

    Row i has the columns ``other[pointer[i]:pointer[i + 1]]``, i itself first; `slot`, shape (pair, 2), is where a pair
    is found in the row of its first column, and in that of its second. `within` is in widths.
    """

    def __init__(self, columns: Columns, within: float | None = None) -> None:
        own = np.repeat(np.arange(len(columns.yx)), 2).reshape(-1, 2)
        within = within or (_NEAR_FREE if columns.free_sigma else _NEAR) * max(1.0, columns.profile.reach / 5)
        near = columns.pairs(within)
        self._lay(np.concatenate([own, near]), len(own))

    def _lay(self, pairs: Index, n: int) -> None:
        self.pairs, (self.pointer, self.other, self.slot) = pairs, _rows(pairs, n)

    def nearer(self, columns: Columns) -> Neighbors:
        """Leave out the farther ones, which matter little to a step."""
        if columns.free_sigma:
            return self
        apart = columns.isotropic[self.pairs[:, 0]] - columns.isotropic[self.pairs[:, 1]]
        limit = _NEARER * max(1.0, columns.profile.reach / 5) * columns.width
        some = copy(self)
        some._lay(self.pairs[(apart**2).sum(axis=1) < limit**2], len(columns.yx))
        return some

    def rings(self, isotropic: Array, n: int) -> Index:
        """Each column's nearest, itself last, shape (column, n); -1 where there are no more."""
        out = np.full((len(isotropic), n), -1)
        spread(_nearest, len(out), isotropic, self.other, self.pointer, out)
        return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _rows(pairs: Index, n: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Index]:
    """Lay pairs, of which the first n are of columns with themselves, out in rows."""
    pointer = np.zeros(n + 1, np.int32)
    for p in range(len(pairs)):
        pointer[pairs[p, 0] + 1] += 1
        if p >= n:
            pointer[pairs[p, 1] + 1] += 1
    pointer = np.cumsum(pointer).astype(np.int32)
    free, other, slot = pointer.copy(), np.empty(pointer[n], np.int32), np.empty((len(pairs), 2), np.int64)
    for p in range(len(pairs)):
        i, j = pairs[p]
        other[free[i]], other[free[j]] = j, i
        slot[p, 0], slot[p, 1] = free[i], free[j]
        free[i] += 1
        if p >= n:
            free[j] += 1
    return pointer, other, slot


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _nearest(first: int, last: int, at: Array, other: Index, pointer: Index, out: Index) -> None:
    """Nearest of each column's neighbours, the nearest (itself) last; what is left of a row is untouched."""
    n = out.shape[1]
    distance = np.empty(n)
    for i in range(first, last):
        distance[:] = np.inf
        for e in range(pointer[i], pointer[i + 1]):
            j = other[e]
            d = (at[i, 0] - at[j, 0]) ** 2 + (at[i, 1] - at[j, 1]) ** 2
            if d < distance[0]:
                k = 0
                while k + 1 < n and d < distance[k + 1]:
                    distance[k], out[i, k] = distance[k + 1], out[i, k + 1]
                    k += 1
                distance[k], out[i, k] = d, j
