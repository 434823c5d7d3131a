"""Loops over the pixels of members: their moments against a template, and their sum on a grid; compiled.

A member's map takes an offset from its centre, in pixels of its image, to steps of the common grid. Its
pose is shift y, shift x (grid steps), gain, offset and angle (rad).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

FINE = 2
"""Table points per grid step."""
CONVERGED = 0.02
"""Grid steps: the error left by a last Gauss-Newton step is its square over the columns' width, below 1e-3."""

WIDER = 1.05
"""Grid steps per pixel from which on a pixel is shared among more than the four nodes around it."""


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _box(center: Array, to_grid: Array, half: float, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows and columns of an image that may fall on the grid: first and one past last."""
    det = to_grid[0, 0] * to_grid[1, 1] - to_grid[0, 1] * to_grid[1, 0]
    reach_y = half * (abs(to_grid[1, 1]) + abs(to_grid[0, 1])) / abs(det)
    reach_x = half * (abs(to_grid[1, 0]) + abs(to_grid[0, 0])) / abs(det)
    return (
        max(0, int(np.ceil(center[0] - reach_y))),
        min(shape[0], int(np.floor(center[0] + reach_y)) + 1),
        max(0, int(np.ceil(center[1] - reach_x))),
        min(shape[1], int(np.floor(center[1] + reach_x)) + 1),
    )


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _masked(y: float, x: float, others: Array, radius2: float) -> bool:
    for k in range(len(others)):
        dy, dx = y - others[k, 0], x - others[k, 1]
        if dy * dy + dx * dx < radius2:
            return True
    return False


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _moments(
    image: Image, center: Array, to_grid: Array, half: float, others: Array, mask2: float,
    pose: Array, table: Image, variance: Array, turn: bool, normal: Array, right: Array,
    sums: Array,
) -> None:  # fmt: skip
    """Fill the normal equations of (shift y, shift x, gain, offset, angle) at `pose`.

    Fill `sums` over the pixels: 1, t, t^2, v, v^2, t v, r^2, r^2 t, r being the residual.
    """
    normal[:] = 0.0
    right[:] = 0.0
    c, s = np.cos(pose[4]), np.sin(pose[4])
    middle = (len(table) - 1) / 2
    n00 = n10 = n11 = n20 = n21 = n22 = n30 = n31 = n32 = n33 = r0 = r1 = r2 = r3 = 0.0
    count = sum_t = sum_tt = sum_v = sum_vv = sum_tv = square = square_t = 0.0
    y0, y1, x0, x1 = _box(center, to_grid, half, image.shape)
    for py in range(y0, y1):
        for px in range(x0, x1):
            dy, dx = py - center[0], px - center[1]
            gy = to_grid[0, 0] * dy + to_grid[0, 1] * dx
            gx = to_grid[1, 0] * dy + to_grid[1, 1] * dx
            if abs(gy) > half or abs(gx) > half or _masked(gy, gx, others, mask2):
                continue
            uy, ux = gy - pose[0], gx - pose[1]
            wy, wx = c * uy - s * ux, s * uy + c * ux
            ty, tx = middle + FINE * wy, middle + FINE * wx
            iy, ix = int(ty), int(tx)
            if iy < 0 or ix < 0 or iy >= len(table) - 1 or ix >= len(table) - 1:
                continue
            fy, fx = ty - iy, tx - ix
            a, b, d, e = (1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx
            t = a * table[iy, ix, 0] + b * table[iy, ix + 1, 0]
            t += d * table[iy + 1, ix, 0] + e * table[iy + 1, ix + 1, 0]
            sy = a * table[iy, ix, 1] + b * table[iy, ix + 1, 1]
            sy += d * table[iy + 1, ix, 1] + e * table[iy + 1, ix + 1, 1]
            sx = a * table[iy, ix, 2] + b * table[iy, ix + 1, 2]
            sx += d * table[iy + 1, ix, 2] + e * table[iy + 1, ix + 1, 2]
            v = float(image[py, px])
            w = 1.0 / (variance[0] + variance[1] * t)
            by, bx = -pose[2] * (c * sy + s * sx), -pose[2] * (c * sx - s * sy)
            residual = v - pose[2] * t - pose[3]
            wby, wbx, wt = w * by, w * bx, w * t
            n00 += wby * by
            n10 += wbx * by
            n11 += wbx * bx
            n20 += wby * t
            n21 += wbx * t
            n22 += wt * t
            n30 += wby
            n31 += wbx
            n32 += wt
            n33 += w
            r0 += wby * residual
            r1 += wbx * residual
            r2 += wt * residual
            r3 += w * residual
            if turn:
                bend = pose[2] * (wy * sx - wx * sy)
                for m, other in enumerate((by, bx, t, 1.0, bend)):
                    normal[4, m] += w * bend * other
                right[4] += w * bend * residual
            count += 1.0
            sum_t += t
            sum_tt += t * t
            sum_v += v
            sum_vv += v * v
            sum_tv += t * v
            square += residual * residual
            square_t += residual * residual * t
    normal[0, 0], normal[1, 0], normal[1, 1], normal[2, 0], normal[2, 1] = n00, n10, n11, n20, n21
    normal[2, 2], normal[3, 0], normal[3, 1], normal[3, 2], normal[3, 3] = n22, n30, n31, n32, n33
    right[0], right[1], right[2], right[3] = r0, r1, r2, r3
    sums[0], sums[1], sums[2], sums[3] = count, sum_t, sum_tt, sum_v
    sums[4], sums[5], sums[6], sums[7] = sum_vv, sum_tv, square, square_t


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def register(
    image: Image, centers: Array, to_grid: Array, half: float, other_start: Any, other: Array, mask2: float,
    table: Image, variance: Array, turn: bool, steps: int, pose: Array, found: Array, sums: Array,
) -> None:  # fmt: skip
    """Fit each member to the template: Gauss-Newton on its pose; `found` and `sums` as in `Patches.register`."""
    n = 5 if turn else 4
    normal, right = np.zeros((5, 5)), np.zeros(5)
    for k in range(len(centers)):
        others = other[other_start[k] : other_start[k + 1]]
        for step in range(steps + 1):
            _moments(
                image,
                centers[k],
                to_grid[k],
                half,
                others,
                mask2,
                pose[k],
                table,
                variance,
                turn,
                normal,
                right,
                sums[k],
            )
            count, st, stt, sv, svv, stv = sums[k, :6]
            if count < 16:
                found[k] = np.nan
                break
            for m in range(n):
                for q in range(m):
                    normal[q, m] = normal[m, q]
            covariance = np.linalg.inv(normal[:n, :n])
            change = covariance @ right[:n]
            spread = np.sqrt(max((stt - st * st / count) * (svv - sv * sv / count), 1e-30))
            found[k, 0] = (stv - st * sv / count) / spread
            found[k, 1] = count * abs(np.linalg.det(to_grid[k])) / (2 * half + 1) ** 2
            found[k, 2], found[k, 3] = np.sqrt(covariance[0, 0]), np.sqrt(covariance[1, 1])
            found[k, 4] = np.hypot(change[0], change[1])
            if step == steps:
                break
            pose[k, :n] += change
            if found[k, 4] < CONVERGED:
                break


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _to_four(nodes: Array, y: float, x: float, v: float) -> None:
    """Share a value, and its weight of 1, among the nodes less than a step from (y, x); neither is negative."""
    iy, ix, one = np.uint64(y), np.uint64(x), np.uint64(1)  # unsigned: no test for negative indices
    fy, fx = y - np.floor(y), x - np.floor(x)
    a, b, c, d = (1.0 - fy) * (1.0 - fx), (1.0 - fy) * fx, fy * (1.0 - fx), fy * fx
    nodes[iy, ix, 0] += a * v
    nodes[iy, ix, 1] += a
    nodes[iy, ix + one, 0] += b * v
    nodes[iy, ix + one, 1] += b
    nodes[iy + one, ix, 0] += c * v
    nodes[iy + one, ix, 1] += c
    nodes[iy + one, ix + one, 0] += d * v
    nodes[iy + one, ix + one, 1] += d


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _to_many(nodes: Array, y: float, x: float, v: float, width: float) -> None:
    """Share a value, and its weight of 1, among the nodes less than `width` steps from (y, x)."""
    for iy in range(max(0, int(np.ceil(y - width))), min(len(nodes) - 1, int(y + width)) + 1):
        wy = (1.0 - abs(iy - y) / width) / width**2
        for ix in range(max(0, int(np.ceil(x - width))), min(len(nodes) - 1, int(x + width)) + 1):
            w = wy * (1.0 - abs(ix - x) / width)
            nodes[iy, ix, 0] += w * v
            nodes[iy, ix, 1] += w


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def add(
    image: Image, centers: Array, to_grid: Array, half: int, other_start: Any, other: Array, mask2: float,
    pose: Array, weight: Array, part: Any, sums: Array,
) -> None:  # fmt: skip
    """Add members to the grid of the average they belong to, with bilinear weights; see `Patches.add`."""
    nodes = np.zeros((2 * half + 3, 2 * half + 3, 2))  # of one member; a node wider on all sides
    for k in range(len(centers)):
        others = other[other_start[k] : other_start[k + 1]]
        m00, m01, m10, m11 = to_grid[k, 0, 0], to_grid[k, 0, 1], to_grid[k, 1, 0], to_grid[k, 1, 1]
        width = max(np.hypot(m00, m10), np.hypot(m01, m11))
        width = 1.0 if width < WIDER else width
        c, s, end = np.cos(pose[k, 4]), np.sin(pose[k, 4]), 2 * half + 1 + width
        gain, offset = weight[k, 1], weight[k, 2]
        nodes[:] = 0.0
        y0, y1, x0, x1 = _box(centers[k], to_grid[k], half + 2.0 * width, image.shape)
        for py in range(y0, y1):
            for px in range(x0, x1):
                dy, dx = py - centers[k, 0], px - centers[k, 1]
                gy, gx = m00 * dy + m01 * dx, m10 * dy + m11 * dx
                uy, ux = gy - pose[k, 0], gx - pose[k, 1]
                y, x = c * uy - s * ux + half + 1.0, s * uy + c * ux + half + 1.0
                if min(y, x) <= 1.0 - width or max(y, x) >= end or _masked(gy, gx, others, mask2):
                    continue
                v = (float(image[py, px]) - offset) / gain
                if width == 1.0:
                    _to_four(nodes, y, x, v)
                else:
                    _to_many(nodes, y, x, v, width)
        share, area = weight[k, 0], abs(m00 * m11 - m01 * m10)
        for iy in range(2 * half + 1):
            for ix in range(2 * half + 1):
                v, w = nodes[iy + 1, ix + 1, 0], nodes[iy + 1, ix + 1, 1]
                sums[part[k], iy, ix, 0] += share * v
                sums[part[k], iy, ix, 1] += share * w
                sums[part[k], iy, ix, 2] += area * w
