"""Loops over the pixels under each column.

A Gaussian is separable: `profiles` tabulates it along both axes, the other kernels multiply the two.
Derivatives come in the order (amplitude, y, x, sigma), without their constant factors, which
`factors` gives: g, u g, v g, (u^2 + v^2) g for offsets u down and v right.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


class Profiles(NamedTuple):
    """Gaussians of all columns along both axes: first pixel, offset of that pixel, length, values."""

    y: Index
    u: Array
    ny: Index
    gy: Array
    x: Index
    v: Array
    nx: Index
    gx: Array
    scale: Array


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _axis(center: Array, scale: float, sigma: Array, reach: float, n: int, width: int) -> Any:
    first, start = np.zeros(len(center), np.int64), np.zeros(len(center))
    count, values = np.zeros(len(center), np.int64), np.zeros((len(center), width))
    for k in range(len(center)):
        radius = reach * sigma[k] / scale
        first[k] = max(0, int(np.ceil(center[k] - radius)))
        last = min(n - 1, int(np.floor(center[k] + radius)))
        count[k] = max(0, last + 1 - first[k])
        start[k] = (first[k] - center[k]) * scale
        for a in range(count[k]):
            values[k, a] = np.exp(-0.5 * ((start[k] + a * scale) / sigma[k]) ** 2)
    return first, start, count, values


def profiles(yx: Array, sigma: Array, aspect: float, reach: float, shape: tuple[int, ...]) -> Profiles:
    """Tabulate columns at `yx` (pixels) and of widths `sigma` (pixels along y), out to `reach` sigma."""
    parts: list[Any] = []
    for axis, scale in enumerate((1.0, aspect)):
        width = int(2 * reach * float(np.max(sigma)) / scale) + 2
        parts += _axis(np.ascontiguousarray(yx[:, axis]), scale, sigma, reach, shape[axis], width)
    return Profiles._make([*parts, np.array([1.0, aspect])])


def factors(amplitude: Array, sigma: Array, scale: Array) -> Array:
    """Constant factors of the four derivatives, shape (column, 4)."""
    slope = amplitude / sigma**2
    return np.stack([np.ones_like(slope), slope * scale[0], slope * scale[1], slope / sigma], axis=1)


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def render(image: Array, p: Profiles, amplitude: Array) -> None:
    """Add the columns to `image`."""
    for k in range(len(amplitude)):
        for a in range(p.ny[k]):
            line, height = image[p.y[k] + a], amplitude[k] * p.gy[k, a]
            for b in range(p.nx[k]):
                line[p.x[k] + b] += height * p.gx[k, b]


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def misfit(counts: Array, model: Array, floor: float) -> float:
    """Poisson deviance; `model` is replaced by the pull of each pixel, counts / model - 1."""
    total = 0.0
    for y in range(counts.shape[0]):
        part = 0.0
        for x in range(counts.shape[1]):
            n, m = counts[y, x], max(model[y, x], floor)
            part += m - n + n * np.log(max(n, floor) / m)
            model[y, x] = n / m - 1
        total += part
    return 2 * total


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def project(image: Array, p: Profiles) -> Array:
    """Sum of `image` times each column's derivatives, shape (column, 4)."""
    out = np.zeros((len(p.y), 4))
    for k in range(len(p.y)):
        for a in range(p.ny[k]):
            line, g, u = image[p.y[k] + a], p.gy[k, a], p.u[k] + a * p.scale[0]
            s0 = s1 = s2 = 0.0
            for b in range(p.nx[k]):
                q, v = line[p.x[k] + b] * p.gx[k, b], p.v[k] + b * p.scale[1]
                s0 += q
                s1 += q * v
                s2 += q * v * v
            out[k, 0] += g * s0
            out[k, 1] += g * u * s0
            out[k, 2] += g * s1
            out[k, 3] += g * (u * u * s0 + s2)
    return out


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def products(weight: Array, pairs: Index, p: Profiles) -> Array:
    """Weighted products of the derivatives of pairs of columns, shape (pair, 4, 4)."""
    out = np.zeros((len(pairs), 4, 4))
    first, second = np.empty(4), np.empty(4)
    for n in range(len(pairs)):
        i, j = pairs[n]
        x0, x1 = max(p.x[i], p.x[j]), min(p.x[i] + p.nx[i], p.x[j] + p.nx[j])
        block = out[n]
        for y in range(max(p.y[i], p.y[j]), min(p.y[i] + p.ny[i], p.y[j] + p.ny[j])):
            s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = 0.0
            for x in range(x0, x1):
                q = weight[y, x] * p.gx[i, x - p.x[i]] * p.gx[j, x - p.x[j]]
                vi, vj = p.v[i] + (x - p.x[i]) * p.scale[1], p.v[j] + (x - p.x[j]) * p.scale[1]
                s00 += q
                s01 += q * vj
                s02 += q * vj * vj
                q *= vi
                s10 += q
                s11 += q * vj
                s12 += q * vj * vj
                q *= vi
                s20 += q
                s21 += q * vj
                s22 += q * vj * vj
            a, b = y - p.y[i], y - p.y[j]
            h, ui, uj = p.gy[i, a] * p.gy[j, b], p.u[i] + a * p.scale[0], p.u[j] + b * p.scale[0]
            first[0], first[1], first[2], first[3] = h * s00, h * uj * s00, h * s01, h * (uj * uj * s00 + s02)
            second[0], second[1], second[2], second[3] = h * s10, h * uj * s10, h * s11, h * (uj * uj * s10 + s12)
            for r in range(4):
                block[0, r] += first[r]
                block[1, r] += ui * first[r]
                block[2, r] += second[r]
                block[3, r] += ui * ui * first[r]
            block[3, 0] += h * s20
            block[3, 1] += h * uj * s20
            block[3, 2] += h * s21
            block[3, 3] += h * (uj * uj * s20 + s22)
    return out


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def overlaps(weight: Array, hat_y: Array, hat_x: Array, first: Index, p: Profiles) -> Array:
    """Weighted products of each column's derivatives with 3 x 3 background nodes, shape (column, 4, 3, 3).

    `hat_y` and `hat_x`, shape (pixel, node), interpolate between the nodes; `first`, shape
    (column, 2), is the first of a column's three nodes along each axis.
    """
    out = np.zeros((len(p.y), 4, 3, 3))
    for k in range(len(p.y)):
        for a in range(p.ny[k]):
            y, u = p.y[k] + a, p.u[k] + a * p.scale[0]
            for m in range(3):
                s0 = s1 = s2 = 0.0
                for b in range(p.nx[k]):
                    x, v = p.x[k] + b, p.v[k] + b * p.scale[1]
                    q = weight[y, x] * p.gx[k, b] * hat_x[x, first[k, 1] + m]
                    s0 += q
                    s1 += q * v
                    s2 += q * v * v
                for r in range(3):
                    h = p.gy[k, a] * hat_y[y, first[k, 0] + r]
                    out[k, 0, r, m] += h * s0
                    out[k, 1, r, m] += h * u * s0
                    out[k, 2, r, m] += h * s1
                    out[k, 3, r, m] += h * (u * u * s0 + s2)
    return out


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def lines(image: Array, p: Profiles) -> Array:
    """Sum of `image` times each column, line by line of its window, shape (column, line)."""
    out = np.zeros(p.gy.shape)
    for k in range(len(p.y)):
        for a in range(p.ny[k]):
            line, total = image[p.y[k] + a], 0.0
            for b in range(p.nx[k]):
                total += line[p.x[k] + b] * p.gx[k, b]
            out[k, a] = p.gy[k, a] * total
    return out
