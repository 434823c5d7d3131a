"""Loops over columns and their neighbours: what solves for all of them, and covariances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from napari_defects.gaussian.windows import Array, Image, Index

Rows = npt.NDArray[np.int32]

UNKNOWN = 1e-6  # of the information that a column would have alone: none
_SIDE = 64  # columns side by side


class Own(NamedTuple):
    """What columns know of each other, (entry, size, size) as rows of a sparse matrix, and of what all share.

    `extra` (column, size) adds to the diagonal, `inverse` (column, size, size) solves for a column by itself. `side`
    (column, size, m) is what a column knows of m of the shared unknowns, which are `place` (column, m).
    """

    blocks: Image
    other: Rows
    pointer: Rows
    extra: Array
    inverse: Array
    side: Image
    place: Rows


class Common(NamedTuple):
    """What is shared: widths (group, group), widths with nodes (group, node), nodes with the ones so far on (d, node).

    What solves for it: a banded factor of the nodes (node, d), their scale, and what is left to the widths.
    """

    widths: Array
    joint: Array
    offset: Index
    band: Array
    factor: Array
    root: Array
    reach: Array
    corner: Array


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def invert(
    first: int, last: int, blocks: Image, pointer: Rows, extra: Array, unit: tuple[int, ...], out: Array
) -> None:
    """Inverses of the blocks of columns by themselves, `extra` being added to the diagonal."""
    size = len(unit)
    m = np.empty((size, size))
    for i in range(first, last):
        for c in range(size):
            for d in range(size):
                m[c, d] = blocks[pointer[i], c, d] + (extra[i, c] if c == d else 0.0)
        for c in range(size):  # Gauss and Jordan, in place
            pivot = 1 / max(m[c, c], 1e-300)
            m[c, c] = 1.0
            for b in range(size):
                m[c, b] *= pivot
            for r in range(size):
                if r != c:
                    f = m[r, c]
                    m[r, c] = 0.0
                    for b in range(size):
                        m[r, b] -= f * m[c, b]
        for c in range(size):
            for d in range(size):
                out[i, c, d] = m[c, d]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _multiply(own: Own, common: Common, unit: tuple[int, ...], v: Array, out: Array) -> None:
    """Information times a vector of all unknowns."""
    size, n = len(unit), len(own.extra)
    few, tail, to = len(common.widths), v[size * n :], out[size * n :]
    felt = np.empty(own.place.shape[1])
    to[:] = 0.0
    for i in range(n):
        for m in range(len(felt)):
            k, total = own.place[i, m], 0.0
            for a in range(size):
                total += own.side[i, a, m] * v[size * i + a]
            felt[m] = tail[k]
            to[k] += total
        for a in range(size):
            total = own.extra[i, a] * v[size * i + a]
            for m in range(len(felt)):
                total += own.side[i, a, m] * felt[m]
            out[size * i + a] = total
        for e in range(own.pointer[i], own.pointer[i + 1]):
            j = size * own.other[e]
            for a in range(size):
                total = 0.0
                for b in range(size):
                    total += own.blocks[e, a, b] * v[j + b]
                out[size * i + a] += total
    nodes = len(common.root)
    for g in range(few):
        for h in range(few):
            to[g] += common.widths[g, h] * tail[h]
        for k in range(nodes):
            to[g] += common.joint[g, k] * tail[few + k]
            to[few + k] += common.joint[g, k] * tail[g]
    for m in range(len(common.offset)):
        d = common.offset[m]
        for k in range(nodes - d):
            to[few + k] += common.band[m, k] * tail[few + k + d]
            if d:
                to[few + k + d] += common.band[m, k] * tail[few + k]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _alone(own: Own, common: Common, unit: tuple[int, ...], v: Array, out: Array) -> None:
    """Solve for every column by itself, and exactly for what all share."""
    size, n = len(unit), len(own.extra)
    for i in range(n):
        for a in range(size):
            total = 0.0
            for b in range(size):
                total += own.inverse[i, a, b] * v[size * i + b]
            out[size * i + a] = total
    few, nodes, wide = len(common.widths), len(common.root), common.factor.shape[1]
    tail, to = v[size * n :], out[size * n :]
    many = to[few:]
    for k in range(nodes):
        many[k] = common.root[k] * tail[few + k]
    for k in range(nodes):  # down the triangle, and up again
        many[k] /= common.factor[k, 0]
        for d in range(1, min(wide, nodes - k)):
            many[k + d] -= common.factor[k, d] * many[k]
    for k in range(nodes - 1, -1, -1):
        total = many[k]
        for d in range(1, min(wide, nodes - k)):
            total -= common.factor[k, d] * many[k + d]
        many[k] = total / common.factor[k, 0]
    for k in range(nodes):
        many[k] *= common.root[k]
    for g in range(few):
        to[g] = 0.0
        for h in range(few):
            left = tail[h]
            for k in range(nodes):
                left -= common.reach[k, h] * tail[few + k]
            to[g] += common.corner[g, h] * left
    for g in range(few):
        for k in range(nodes):
            many[k] -= common.reach[k, g] * to[g]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _dot(one: Array, two: Array) -> float:
    total = 0.0
    for k in range(len(one)):
        total += one[k] * two[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def solve(own: Own, common: Common, unit: tuple[int, ...], right: Array, tolerance: float, most: int) -> Array:
    """Conjugate gradients, to a relative tolerance in the norm of the preconditioner, which `_alone` is."""
    solution, residual, turned, product = np.zeros_like(right), right.copy(), np.empty_like(right), np.empty_like(right)
    _alone(own, common, unit, residual, turned)
    direction, energy = turned.copy(), _dot(residual, turned)
    goal = tolerance**2 * energy
    for _ in range(most):
        if not energy > goal:
            break
        _multiply(own, common, unit, direction, product)
        curvature = _dot(direction, product)
        if not curvature > 0:
            break
        length = energy / curvature
        for k in range(len(right)):
            solution[k] += length * direction[k]
            residual[k] -= length * product[k]
        _alone(own, common, unit, residual, turned)
        before, energy = energy, _dot(residual, turned)
        for k in range(len(right)):
            direction[k] = turned[k] + energy / before * direction[k]
    return solution


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def covariances(
    first: int, last: int, blocks: Image, other: Rows, pointer: Rows, rings: Index, unit: tuple[int, ...], out: Array
) -> None:  # fmt: skip
    """Covariance of each column with those around it, (column, size, size); NaN where undetermined.

    `rings`, shape (column, n), ends with the column itself: the others are eliminated from their joint information
    one by one, and what is left is the information about the column. Many columns go side by side.
    """
    size, ring = len(unit), rings.shape[1]
    n, place = ring * size, np.full(len(pointer) - 1, -1)
    m, least, known, share = np.empty((n, n, _SIDE)), np.empty((n, _SIDE)), np.empty(_SIDE), np.empty(_SIDE)
    for begin in range(first, last, _SIDE):
        m[:] = 0.0
        for k in range(begin, min(begin + _SIDE, last)):
            for r in range(ring):
                if rings[k, r] >= 0:
                    place[rings[k, r]] = r * size
            for r in range(ring):
                if rings[k, r] >= 0:
                    for e in range(pointer[rings[k, r]], pointer[rings[k, r] + 1]):
                        at = place[other[e]]
                        if 0 <= at <= r * size:
                            for a in range(size):
                                for b in range(size):
                                    m[r * size + a, at + b, k - begin] = blocks[e, a, b]
            for r in range(ring):
                if rings[k, r] >= 0:
                    place[rings[k, r]] = -1
        for c in range(n):
            least[c] = UNKNOWN * m[c, c]
        for c in range(n - size):
            for k in range(_SIDE):  # where nothing is known of a neighbour, it stays where it is
                known[k] = 1 / m[c, c, k] if m[c, c, k] > least[c, k] else 0.0
            for r in range(c + 1, n):
                one = m[r, c]
                for k in range(_SIDE):
                    share[k] = one[k] * known[k]
                for s in range(c + 1, r + 1):
                    row, two = m[r, s], m[s, c]
                    for k in range(_SIDE):
                        row[k] -= share[k] * two[k]
        for k in range(begin, min(begin + _SIDE, last)):
            _inverse(m[n - size :, n - size :, k - begin], least[n - size :, k - begin], unit, out[k])


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _inverse(matrix: Array, least: Array, unit: tuple[int, ...], out: Array) -> None:
    """Inverse of a positive definite matrix, of which only the lower triangle is looked at; NaN where it is not."""
    size = len(unit)
    lower, inverse = np.zeros((size, size)), np.zeros((size, size))
    for c in range(size):
        for d in range(c + 1):
            total = matrix[c, d]
            for k in range(d):
                total -= lower[c, k] * lower[d, k]
            if c > d:
                lower[c, d] = total / lower[d, d]
            elif total > least[c]:
                lower[c, c] = np.sqrt(total)
            else:
                out[:] = np.nan
                return
    for c in range(size):
        for a in range(size):
            total = 1.0 if a == c else 0.0
            for k in range(a):
                total -= lower[a, k] * inverse[k, c]
            inverse[a, c] = total / lower[a, a]
    for a in range(size):
        for b in range(size):
            out[a, b] = 0.0
            for k in range(size):
                out[a, b] += inverse[k, a] * inverse[k, b]
