"""Loops over the pixels under each column, which multiply its functions of y and of x (`windows`).

Derivatives come in the order (amplitude, y, x, sigma), per unit of amplitude. Every loop works on the elements from
`first` to `last`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from napari_defects.gaussian.threads import spread
from napari_defects.gaussian.windows import Array, Index, Windows


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _shrink(first: int, last: int, image: Array, binning: int, out: Array) -> None:
    for y in range(first, last):
        out[y] = 0.0
        for a in range(binning):
            line = image[y * binning + a]
            for x in range(out.shape[1]):
                total = 0.0
                for b in range(binning):
                    total += line[x * binning + b]
                out[y, x] += total
        out[y] /= binning * binning


def shrink(image: Array, binning: int) -> Array:
    """Means of `binning` x `binning` pixels."""
    out = np.empty(tuple(n // binning for n in image.shape))
    spread(_shrink, len(out), image, binning, out)
    return out


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _render(first: int, last: int, image: Array, w: Windows, order: Index, rows: Index, amplitude: Array) -> None:
    reach = w.fy.shape[3]
    begin = np.searchsorted(rows, first - reach)
    for n in range(begin, np.searchsorted(rows, last)):
        k = order[n]
        for a in range(max(first - w.y[k], 0), min(last - w.y[k], w.ny[k])):
            line = image[w.y[k] + a]
            for r in range(w.fy.shape[1]):
                height, f = amplitude[k] * w.fy[k, r, 0, a], w.fx[k, r, 0]
                for b in range(w.nx[k]):
                    line[w.x[k] + b] += height * f[b]


def render(image: Array, w: Windows, amplitude: Array) -> None:
    """Add the columns to `image`."""
    short = w.y.astype(np.int16) if len(image) < 2**15 else w.y  # short numbers are sorted by their digits
    order = np.argsort(short, kind="stable")
    spread(_render, len(image), image, w, order, w.y[order], amplitude)


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _misfit(first: int, last: int, counts: Array, model: Array, floor: float, part: Array) -> None:
    for y in range(first, last):
        total = farthest = 0.0
        for x in range(counts.shape[1]):  # log(n/m) as a series in z = (n - m)/(n + m)
            n, m = counts[y, x], max(model[y, x], floor)
            k = max(n, floor)
            z = (k - m) / (k + m)
            q = z * z
            log = 2 * z * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q / 13))))))
            total += m - n + n * log
            farthest = max(farthest, q)
        if farthest > 0.12:  # an error of 1e-8
            total = 0.0
            for x in range(counts.shape[1]):
                n, m = counts[y, x], max(model[y, x], floor)
                total += m - n + n * np.log(max(n, floor) / m)
        for x in range(counts.shape[1]):
            model[y, x] = counts[y, x] / max(model[y, x], floor) - 1
        part[y] = total


def misfit(counts: Array, model: Array, floor: float) -> float:
    """Poisson deviance; `model` is replaced by the pull of each pixel, counts / model - 1."""
    part = np.zeros(len(counts))
    spread(_misfit, len(counts), counts, model, floor, part)
    return 2 * float(part.sum())


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _project(first: int, last: int, image: Array, w: Windows, amplitude: Array, out: Array) -> None:
    for k in range(first, last):
        d0 = d1 = d2 = d3 = 0.0
        for a in range(w.ny[k]):
            line = image[w.y[k] + a, w.x[k] : w.x[k] + w.nx[k]]
            for r in range(w.fy.shape[1]):
                f0, f1, f2 = w.fx[k, r, 0], w.fx[k, r, 1], w.fx[k, r, 2]
                s0 = s1 = s2 = 0.0
                for b in range(len(line)):
                    s0 += line[b] * f0[b]
                    s1 += line[b] * f1[b]
                    s2 += line[b] * f2[b]
                g0, g1, g2 = w.fy[k, r, 0, a], w.fy[k, r, 1, a], w.fy[k, r, 2, a]
                d0 += g0 * s0
                d1 += g1 * s0
                d2 += g0 * s1
                d3 += g2 * s0 + g0 * s2
        out[k, 0], out[k, 1], out[k, 2], out[k, 3] = d0, amplitude[k] * d1, amplitude[k] * d2, amplitude[k] * d3


def project(image: Array, w: Windows, amplitude: Array) -> Array:
    """Sum of `image` times each column's derivatives, shape (column, 4)."""
    out = np.zeros((len(w.y), 4))
    spread(_project, len(out), image, w, amplitude, out)
    return out


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _products(first: int, last: int, weight: Array, pairs: Index, w: Windows, amplitude: Array, out: Array) -> None:
    rank = w.fy.shape[1]
    left = np.empty((4, 3))
    for n in range(first, last):
        i, j = pairs[n]
        x0, x1 = max(w.x[i], w.x[j]), min(w.x[i] + w.nx[i], w.x[j] + w.nx[j])
        if x1 <= x0:
            continue
        block = out[n]
        for y in range(max(w.y[i], w.y[j]), min(w.y[i] + w.ny[i], w.y[j] + w.ny[j])):
            line, a, b = weight[y, x0:x1], y - w.y[i], y - w.y[j]
            for r in range(rank):
                p0, p1, p2 = (
                    w.fx[i, r, 0, x0 - w.x[i] :], w.fx[i, r, 1, x0 - w.x[i] :], w.fx[i, r, 2, x0 - w.x[i] :]
                )  # fmt: skip
                g0, g1, g2 = w.fy[i, r, 0, a], w.fy[i, r, 1, a], w.fy[i, r, 2, a]
                for s in range(rank):
                    q0, q1, q2 = (
                        w.fx[j, s, 0, x0 - w.x[j] :], w.fx[j, s, 1, x0 - w.x[j] :], w.fx[j, s, 2, x0 - w.x[j] :]
                    )  # fmt: skip
                    s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = 0.0
                    for x in range(x1 - x0):
                        v = line[x]
                        v0, v1, v2 = v * q0[x], v * q1[x], v * q2[x]
                        s00 += p0[x] * v0
                        s01 += p0[x] * v1
                        s02 += p0[x] * v2
                        s10 += p1[x] * v0
                        s11 += p1[x] * v1
                        s12 += p1[x] * v2
                        s20 += p2[x] * v0
                        s21 += p2[x] * v1
                        s22 += p2[x] * v2
                    left[0, 0], left[0, 1], left[0, 2] = g0 * s00, g0 * s01, g0 * s02
                    left[1, 0], left[1, 1], left[1, 2] = g1 * s00, g1 * s01, g1 * s02
                    left[2, 0], left[2, 1], left[2, 2] = g0 * s10, g0 * s11, g0 * s12
                    left[3, 0] = g2 * s00 + g0 * s20
                    left[3, 1] = g2 * s01 + g0 * s21
                    left[3, 2] = g2 * s02 + g0 * s22
                    h0, h1, h2 = w.fy[j, s, 0, b], w.fy[j, s, 1, b], w.fy[j, s, 2, b]
                    for c in range(4):
                        block[c, 0] += left[c, 0] * h0
                        block[c, 1] += left[c, 0] * h1
                        block[c, 2] += left[c, 1] * h0
                        block[c, 3] += left[c, 0] * h2 + left[c, 2] * h0
        for c in range(1, 4):
            for d in range(4):
                block[c, d] *= amplitude[i]
                block[d, c] *= amplitude[j]


def products(weight: Array, pairs: Index, w: Windows, amplitude: Array) -> Array:
    """Weighted products of the derivatives of pairs of columns, shape (pair, 4, 4)."""
    out = np.zeros((len(pairs), 4, 4))
    spread(_products, len(pairs), weight, pairs, w, amplitude, out)
    return out


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _overlaps(
    first: int, last: int, weight: Array, hat_y: Array, hat_x: Array, node: Index, w: Windows, amplitude: Array,
    out: Array,
) -> None:  # fmt: skip
    for k in range(first, last):
        x0, x1 = w.x[k], w.x[k] + w.nx[k]
        for a in range(w.ny[k]):
            y = w.y[k] + a
            line = weight[y, x0:x1]
            for r in range(w.fy.shape[1]):
                f0, f1, f2 = w.fx[k, r, 0], w.fx[k, r, 1], w.fx[k, r, 2]
                for m in range(3):
                    hat = hat_x[node[k, 1] + m, x0:x1]
                    if hat[0] == 0 and hat[-1] == 0 and hat[len(hat) // 2] == 0:
                        continue  # the node is farther away, as most are
                    s0 = s1 = s2 = 0.0
                    for b in range(len(line)):
                        v = line[b] * hat[b]
                        s0 += v * f0[b]
                        s1 += v * f1[b]
                        s2 += v * f2[b]
                    g0, g1, g2 = w.fy[k, r, 0, a], w.fy[k, r, 1, a], w.fy[k, r, 2, a]
                    d0, d1, d2, d3 = g0 * s0, g1 * s0, g0 * s1, g2 * s0 + g0 * s2
                    for c in range(3):
                        h = hat_y[y, node[k, 0] + c]
                        out[k, 0, c, m] += h * d0
                        out[k, 1, c, m] += h * d1
                        out[k, 2, c, m] += h * d2
                        out[k, 3, c, m] += h * d3
        out[k, 1:] *= amplitude[k]


def overlaps(weight: Array, hat_y: Array, hat_x: Array, node: Index, w: Windows, amplitude: Array) -> Array:
    """Weighted products of each column's derivatives with 3 x 3 background nodes, shape (column, 4, 3, 3).

    `hat_y` and `hat_x`, shape (pixel, node), interpolate between the nodes; `node`, shape (column, 2), is the first
    of a column's three nodes along each axis.
    """
    out = np.zeros((len(w.y), 4, 3, 3))
    spread(_overlaps, len(out), weight, hat_y, np.ascontiguousarray(hat_x.T), node, w, amplitude, out)
    return out


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _lines(first: int, last: int, image: Array, w: Windows, kind: int, out: Array) -> None:
    for k in range(first, last):
        for a in range(w.ny[k]):
            line = image[w.y[k] + a]
            for r in range(w.fy.shape[1]):
                total = 0.0
                for b in range(w.nx[k]):
                    total += line[w.x[k] + b] * w.fx[k, r, kind, b]
                out[k, a] += w.fy[k, r, 0, a] * total


def lines(image: Array, w: Windows, kind: int = 0) -> Array:
    """Sum of `image` times each column, line by line of its window, shape (column, line).

    `kind` 1 takes the column's derivative by x instead.
    """
    out = np.zeros((len(w.y), w.fy.shape[3]))
    spread(_lines, len(out), image, w, kind, out)
    return out
