"""Loops over the pixels under each column, which multiply its functions of y and of x (`windows`).

Derivatives come in the order (amplitude, y, x, sigma), per unit of amplitude. Every loop works on the elements from
`first` to `last`. Pixels are single precision, which is far below their noise; sums over many are double.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from napari_defects.gaussian.threads import spread
from napari_defects.gaussian.windows import Array, Image, Index, Windows


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _shrink(first: int, last: int, image: Array, binning: int, out: Array) -> None:
    wide = np.empty(out.shape[1] * binning)
    for y in range(first, last):
        wide[:] = 0.0
        for a in range(binning):
            line = image[y * binning + a]
            for x in range(len(wide)):
                wide[x] += line[x]
        for x in range(out.shape[1]):
            total = 0.0
            for b in range(binning):
                total += wide[x * binning + b]
            out[y, x] = total / (binning * binning)


def shrink(image: Array, binning: int, dtype: type = np.float64) -> Array:
    """Means of `binning` x `binning` pixels."""
    out = np.empty(tuple(n // binning for n in image.shape), dtype)
    spread(_shrink, len(out), image, binning, out)
    return out


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _render(
    first: int, last: int, image: Image, w: Windows, order: Index, rows: Index, amplitude: Image, down: int, right: int
) -> None:
    reach, width = w.fy.shape[3], w.fx.shape[3]
    begin = np.searchsorted(rows, first - reach)
    for n in range(begin, np.searchsorted(rows, last)):
        k = order[n]
        for r in range(w.fy.shape[1]):
            f = w.fx[k, r, right]
            for a in range(max(first - w.y[k], 0), min(last - w.y[k], w.ny[k])):
                line, height = image[w.y[k] + a, w.x[k] : w.x[k] + width], amplitude[k] * w.fy[k, r, down, a]
                for b in range(width):
                    line[b] += height * f[b]


def render(image: Array | Image, w: Windows, amplitude: Array, *, down: int = 0, right: int = 0) -> None:
    """Add the columns to `image`, or products of other functions of y and of x of them."""
    short = w.y.astype(np.int16) if len(image) < 2**15 else w.y  # short numbers are sorted by their digits
    order = np.argsort(short, kind="stable")
    spread(_render, len(image), image, w, order, w.y[order], amplitude.astype(w.fy.dtype), down, right)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _along(first: int, last: int, values: Image, hat: Image, span: Index, out: Image) -> None:
    for y in range(first, last):
        line = out[y]
        line[:] = 0
        for m in range(len(hat)):
            value, f = values[y, m], hat[m]
            for x in range(span[m, 0], span[m, 1]):
                line[x] += value * f[x]


def along(values: Array | Image, hat: Image, span: Index) -> Image:
    """Sum over nodes of values, shape (line, node), times what interpolates between them, shape (node, pixel).

    `span`, shape (node, 2), is where that is not 0.
    """
    out = np.empty((len(values), hat.shape[1]), np.float32)
    spread(_along, len(out), np.ascontiguousarray(values, np.float32), hat, span, out)
    return out


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _across(first: int, last: int, image: Image, hat: Image, span: Index, out: Image) -> None:
    for y in range(first, last):
        line = image[y]
        for m in range(len(hat)):
            total, f = np.float32(0), hat[m]
            for x in range(span[m, 0], span[m, 1]):
                total += line[x] * f[x]
            out[y, m] = total


def across(image: Image, hat: Image, span: Index) -> Image:
    """Sum over pixels of `image`, shape (line, pixel), times what interpolates between nodes: shape (line, node)."""
    out = np.empty((len(image), len(hat)), np.float32)
    spread(_across, len(out), np.ascontiguousarray(image, np.float32), hat, span, out)
    return out


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _misfit(first: int, last: int, counts: Image, model: Image, least: float, pull: Image, part: Array) -> None:
    one, two, far, c3, c5 = np.float32(1), np.float32(2), np.float32(0.12), np.float32(1 / 3), np.float32(1 / 5)
    c7, c9, c11, c13 = np.float32(1 / 7), np.float32(1 / 9), np.float32(1 / 11), np.float32(1 / 13)
    for y in range(first, last):
        own, drawn, left = counts[y], model[y], pull[y]
        for x in range(len(own)):
            left[x] = own[x] / max(drawn[x], least) - one
        total = beyond = np.float32(0)
        for x in range(len(own)):  # log(k/m) as a series in z = (k - m)/(k + m): no small differences of large numbers
            k, m = max(own[x], least), max(drawn[x], least)
            z = (k - m) / (k + m)
            q = z * z
            series = q * (c3 + q * (c5 + q * (c7 + q * (c9 + q * (c11 + q * c13)))))
            total += z * (k - m) + two * k * z * series + (k - own[x]) * (one - two * z * (one + series))
            beyond += max(q - far, np.float32(0))
        part[y] = total
        if beyond > 0:  # an error of 1e-8
            part[y] = 0.0
            for x in range(len(own)):
                m = max(drawn[x], least)
                part[y] += m - own[x] + own[x] * np.log(max(own[x], least) / m)


def misfit(counts: Image, model: Image, floor: float) -> tuple[float, Image]:
    """Poisson deviance, and the pull of each pixel, counts / model - 1."""
    part, pull = np.empty(len(counts)), np.empty_like(model)
    spread(_misfit, len(counts), counts, model, np.float32(floor), pull, part)
    return 2 * float(part.sum()), pull


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _project(first: int, last: int, image: Image, w: Windows, amplitude: Array, out: Array) -> None:
    width = w.fx.shape[3]
    for k in range(first, last):
        d0 = d1 = d2 = d3 = 0.0
        for a in range(w.ny[k]):
            line = image[w.y[k] + a, w.x[k] : w.x[k] + width]
            for r in range(w.fy.shape[1]):
                f0, f1, f2 = w.fx[k, r, 0], w.fx[k, r, 1], w.fx[k, r, 2]
                s0 = s1 = s2 = np.float32(0)
                for b in range(width):
                    s0 += line[b] * f0[b]
                    s1 += line[b] * f1[b]
                    s2 += line[b] * f2[b]
                g0, g1, g2 = w.fy[k, r, 0, a], w.fy[k, r, 1, a], w.fy[k, r, 2, a]
                d0 += g0 * s0
                d1 += g1 * s0
                d2 += g0 * s1
                d3 += g2 * s0 + g0 * s2
        out[k, 0], out[k, 1], out[k, 2], out[k, 3] = d0, amplitude[k] * d1, amplitude[k] * d2, amplitude[k] * d3


def project(image: Array | Image, w: Windows, amplitude: Array) -> Array:
    """Sum of `image` times each column's derivatives, shape (column, 4)."""
    out = np.empty((len(w.y), 4))
    spread(_project, len(out), np.ascontiguousarray(image, np.float32), w, amplitude, out)
    return out


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _products(
    first: int, last: int, weight: Image, pairs: Index, slot: Index, w: Windows, amplitude: Array,
    unit: tuple[int, ...], out: Image,
) -> None:  # fmt: skip
    size, rank, width = len(unit), w.fy.shape[1], w.fx.shape[3]
    both, block = np.empty((3, 3, width), np.float32), np.empty((size, size))
    b00, b01, b02, b10, b11 = both[0, 0], both[0, 1], both[0, 2], both[1, 0], both[1, 1]
    b12, b20, b21, b22 = both[1, 2], both[2, 0], both[2, 1], both[2, 2]
    for n in range(first, last):
        i, j = pairs[n]
        begin, end = max(w.x[i], w.x[j]), min(w.x[i], w.x[j]) + width
        y0, y1 = max(w.y[i], w.y[j]), min(w.y[i] + w.ny[i], w.y[j] + w.ny[j])
        block[:] = 0.0
        for r in range(rank if end > begin and y1 > y0 else 0):
            for s in range(rank):
                for c in range(size - 1):
                    for d in range(size - 1):
                        p, q = w.fx[i, r, c, begin - w.x[i] :], w.fx[j, s, d, begin - w.x[j] :]
                        pq = both[c, d]
                        for x in range(end - begin):
                            pq[x] = p[x] * q[x]
                for y in range(y0, y1):
                    line = weight[y, begin:end]
                    s00 = s01 = s10 = s11 = np.float32(0)
                    for x in range(len(line)):
                        s00 += line[x] * b00[x]
                        s01 += line[x] * b01[x]
                        s10 += line[x] * b10[x]
                        s11 += line[x] * b11[x]
                    a, b = y - w.y[i], y - w.y[j]
                    g0, g1, g2 = w.fy[i, r, 0, a], w.fy[i, r, 1, a], w.fy[i, r, 2, a]
                    h0, h1, h2 = w.fy[j, s, 0, b], w.fy[j, s, 1, b], w.fy[j, s, 2, b]
                    block[0, 0] += g0 * h0 * s00
                    block[0, 1] += g0 * h1 * s00
                    block[0, 2] += g0 * h0 * s01
                    block[1, 0] += g1 * h0 * s00
                    block[1, 1] += g1 * h1 * s00
                    block[1, 2] += g1 * h0 * s01
                    block[2, 0] += g0 * h0 * s10
                    block[2, 1] += g0 * h1 * s10
                    block[2, 2] += g0 * h0 * s11
                    if size == 4:
                        s02 = s12 = s20 = s21 = s22 = np.float32(0)
                        for x in range(len(line)):
                            s02 += line[x] * b02[x]
                            s12 += line[x] * b12[x]
                            s20 += line[x] * b20[x]
                            s21 += line[x] * b21[x]
                            s22 += line[x] * b22[x]
                        left, right = g2 * s00 + g0 * s20, h2 * s00 + h0 * s02
                        block[0, 3] += g0 * right
                        block[1, 3] += g1 * right
                        block[2, 3] += g0 * (h2 * s10 + h0 * s12)
                        block[3, 0] += left * h0
                        block[3, 1] += left * h1
                        block[3, 2] += (g2 * s01 + g0 * s21) * h0
                        block[3, 3] += left * h2 + (g2 * s02 + g0 * s22) * h0
        for c in range(size):
            for d in range(size):
                value = block[c, d] * (amplitude[i] if c else 1.0) * (amplitude[j] if d else 1.0)
                out[slot[n, 0], c, d] = out[slot[n, 1], d, c] = value


def products(weight: Array | Image, pairs: Index, slot: Index, w: Windows, amplitude: Array, size: int) -> Image:
    """Weighted products of the derivatives of pairs of columns, shape (entry, size, size), size 3 or 4.

    A pair's block goes to the first of the pair's slots, and turned about to the second.
    """
    out = np.empty((int(slot.max()) + 1, size, size), np.float32)
    spread(_products, len(pairs), weight, pairs, slot, w, amplitude, (0,) * size, out)
    return out


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _overlaps(
    first: int, last: int, weight: Image, hat_y: Image, hat_x: Image, node: Index, w: Windows, amplitude: Array,
    unit: tuple[int, ...], out: Array,
) -> None:  # fmt: skip
    size, width = len(unit), w.fx.shape[3]
    both, sums, felt = np.empty((3, 3, width), np.float32), np.zeros((4, 3)), np.zeros(3, np.bool_)
    for k in range(first, last):
        out[k], sums[:] = 0.0, 0.0
        for r in range(w.fy.shape[1]):
            for m in range(3):
                hat = hat_x[node[k, 1] + m, w.x[k] : w.x[k] + width]
                felt[m] = hat[0] > 0 or hat[width // 2] > 0 or hat[width - 1] > 0
                for c in range(size - 1):
                    f, hf = w.fx[k, r, c], both[m, c]
                    for b in range(width):
                        hf[b] = hat[b] * f[b]
            for a in range(w.ny[k]):
                line = weight[w.y[k] + a, w.x[k] : w.x[k] + width]
                g0, g1, g2 = w.fy[k, r, 0, a], w.fy[k, r, 1, a], w.fy[k, r, 2, a]
                for m in range(3):
                    if not felt[m]:
                        continue
                    b0, b1, b2 = both[m, 0], both[m, 1], both[m, 2]
                    s0 = s1 = s2 = np.float32(0)
                    for b in range(width):
                        s0 += line[b] * b0[b]
                        s1 += line[b] * b1[b]
                        if size == 4:
                            s2 += line[b] * b2[b]
                    sums[0, m], sums[1, m], sums[2, m], sums[3, m] = g0 * s0, g1 * s0, g0 * s1, g2 * s0 + g0 * s2
                for c in range(3):
                    h = hat_y[node[k, 0] + c, w.y[k] + a]
                    if h > 0:
                        for d in range(size):
                            for m in range(3):
                                out[k, d, c, m] += h * sums[d, m]
        out[k, 1:] *= amplitude[k]


def overlaps(weight: Image, hat_y: Image, hat_x: Image, node: Index, w: Windows, amplitude: Array, size: int) -> Array:
    """Weighted products of each column's derivatives with 3 x 3 background nodes, shape (column, size, 3, 3).

    `hat_y` and `hat_x`, shape (node, pixel), interpolate between the nodes; `node`, shape (column, 2), is the first
    of a column's three nodes along each axis.
    """
    out = np.empty((len(w.y), size, 3, 3))
    arguments = (weight, hat_y, hat_x, node, w, amplitude, (0,) * size)
    spread(_overlaps, len(out), *arguments, out)
    return out


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _lines(first: int, last: int, image: Image, w: Windows, right: int, out: Array) -> None:
    width = w.fx.shape[3]
    for k in range(first, last):
        for a in range(w.ny[k]):
            line = image[w.y[k] + a, w.x[k] : w.x[k] + width]
            for r in range(w.fy.shape[1]):
                f, total = w.fx[k, r, right], np.float32(0)
                for b in range(width):
                    total += line[b] * f[b]
                out[k, a] += w.fy[k, r, 0, a] * total


def lines(image: Array | Image, w: Windows, *, right: int = 0) -> Array:
    """Sum of `image` times each column, line by line of its window, shape (column, line).

    `right` 1 takes the column's derivative by x instead.
    """
    out = np.zeros((len(w.y), w.fy.shape[3]))
    spread(_lines, len(out), image, w, right, out)
    return out
