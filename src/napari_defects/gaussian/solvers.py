"""Loops over columns and their neighbours: products, inverses and covariances of small blocks."""

from __future__ import annotations

import numpy as np
from numba import njit

from napari_defects.gaussian.windows import Array


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def compact(first: int, last: int, blocks: Array, which: Array, turned: Array, pointer: Array, out: Array) -> None:
    """Lay the blocks of pairs out row by row."""
    size = out.shape[1]
    for e in range(pointer[first], pointer[last]):
        block = blocks[which[e]]
        for a in range(size):
            for b in range(size):
                out[e, a, b] = block[b, a] if turned[e] else block[a, b]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def invert(first: int, last: int, blocks: Array, out: Array) -> None:
    """Inverses of positive definite blocks."""
    size = blocks.shape[1]
    for i in range(first, last):
        m = blocks[i].copy()
        out[i] = np.eye(size)
        for c in range(size):
            pivot = 1 / max(m[c, c], 1e-300)
            for b in range(size):
                m[c, b] *= pivot
                out[i, c, b] *= pivot
            for r in range(size):
                if r != c:
                    f = m[r, c]
                    for b in range(size):
                        m[r, b] -= f * m[c, b]
                        out[i, r, b] -= f * out[i, c, b]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def nearest(first: int, last: int, at: Array, other: Array, pointer: Array, out: Array) -> None:
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


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def covariances(first: int, last: int, own: Array, other: Array, pointer: Array, rings: Array, out: Array) -> None:
    """Covariance of each column with those around it, (column, size, size); NaN where undetermined.

    `rings`, shape (column, n), ends with the column itself: of the triangular factor of their joint information the
    last corner alone makes its covariance.
    """
    size, n = own.shape[1], rings.shape[1] * own.shape[1]
    m, corner, unit = np.empty((n, n)), np.empty((size, size)), np.empty((size, size))
    for i in range(first, last):
        m[:] = 0.0
        for r in range(rings.shape[1]):
            j = rings[i, r]
            if j < 0:
                for a in range(size):
                    m[r * size + a, r * size + a] = 1.0
                continue
            for s in range(r + 1):
                for e in range(pointer[j], pointer[j + 1]):
                    if other[e] == rings[i, s]:
                        for a in range(size):
                            for b in range(size):
                                m[r * size + a, s * size + b] = own[e, a, b]
                        break
        good = True
        for c in range(n):  # Cholesky, by rows
            for d in range(c + 1):
                total = m[c, d]
                for k in range(d):
                    total -= m[c, k] * m[d, k]
                if c > d:
                    m[c, d] = total / m[d, d]
                elif total > 1e-12 * m[c, c]:
                    m[c, c] = np.sqrt(total)
                elif c < n - size:
                    m[c, c] = np.inf  # nothing is known of a neighbour: as it cannot be fitted, it stays where it is
                else:
                    m[c, c], good = 1.0, False
        corner[:] = m[n - size :, n - size :]
        for c in range(size):  # its inverse, column by column
            for a in range(size):
                total = 1.0 if a == c else 0.0
                for k in range(a):
                    total -= corner[a, k] * unit[k, c]
                unit[a, c] = total / corner[a, a]
        for a in range(size):
            for b in range(size):
                total = 0.0
                for k in range(size):
                    total += unit[k, a] * unit[k, b]
                out[i, a, b] = total if good else np.nan
