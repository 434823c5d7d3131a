"""Sub-pixel registration of patches to a tabulated template, and their sum on a common grid.

A patch is never resampled. The template is tabulated with its slopes, finer than the pixels, and is
looked up where each pixel of the untouched image lies in the template's frame: Gauss-Newton on
shift, gain and offset (rotation too, if asked), each pixel weighted by its variance, reaches the
Cramer-Rao bound. Averaging gives each pixel's value to the grid's nodes around it with bilinear
weights that sum to one: counts are kept, their variance is known, and the only price is a blur by
the bilinear kernel, p^2 / 6 in variance per axis for a grid of step p (6 pm for 15 pm, in
quadrature to a column's 65 pm).

Everything here is in pixels of the image and steps of the grid; a member's map takes an offset
from its centre in image pixels to grid steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numba import get_num_threads, njit
from scipy import ndimage

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

T = TypeVar("T")

FINE = 2
"""Table points per grid step."""
CONVERGED = 0.02
"""Grid steps: the error left by a last Gauss-Newton step is its square over the columns' width, below 1e-3."""


@dataclass(frozen=True)
class Template:
    """A template and its slopes on a fine grid around its centre.

    Parameters
    ----------
    table : ndarray of float32, shape (m, m, 3)
        Value, slope along y, slope along x (per grid step) at FINE points a grid step.
    variance : (float, float)
        Variance of an image pixel where the template is T: variance[0] + variance[1] * T.
    """

    table: Image
    variance: tuple[float, float] = (1.0, 0.0)

    def with_variance(self, variance: tuple[float, float]) -> Template:
        """Return the same template for pixels of another noise."""
        return Template(self.table, variance)


def make_template(image: Array, smooth: float, variance: tuple[float, float] = (1.0, 0.0)) -> Template:
    """Tabulate an average of odd side, blurred by `smooth` grid steps against its noise."""
    blurred = ndimage.gaussian_filter(image, smooth, mode="nearest") if smooth > 0 else np.asarray(image, float)
    coefficients = ndimage.spline_filter(blurred, 3, mode="mirror")
    at = np.arange((image.shape[0] - 1) * FINE + 1) / FINE
    grid = np.stack(np.meshgrid(at, at, indexing="ij"))
    h = 0.05

    def sample(dy: float, dx: float) -> Array:
        shifted = grid + np.array([dy, dx])[:, None, None]
        return np.asarray(ndimage.map_coordinates(coefficients, shifted, order=3, mode="mirror", prefilter=False))

    slopes = [(sample(h * (1 - k), h * k) - sample(-h * (1 - k), -h * k)) / (2 * h) for k in (0, 1)]
    return Template(np.ascontiguousarray(np.stack([sample(0, 0), *slopes], -1), np.float32), variance)


def variance_of(sums: Array, lowest: float) -> tuple[float, float]:
    """Variance of a pixel against the template's value, c0 + c1 t, from the sums of `Patches.register`.

    It does not fall with t, and stays above a twentieth of its mean at the `lowest` t.
    """
    n, t, tt, _, _, _, rr, rrt = np.sum(sums, axis=0)
    mean, square = t / n, rr / n
    slope = (rrt / n - square * mean) / max(tt / n - mean**2, 1e-30)
    slope = min(max(slope, 0.0), 0.95 * square / max(mean - lowest, 1e-30))
    return float(square - slope * mean), float(slope)


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
def _register(
    image: Image, centers: Array, to_grid: Array, half: float, other_start: Any, other: Array, mask2: float,
    table: Image, variance: Array, turn: bool, steps: int, pose: Array, found: Array, sums: Array,
) -> None:  # fmt: skip
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
def _add(
    image: Image, centers: Array, to_grid: Array, half: int, other_start: Any, other: Array, mask2: float,
    pose: Array, weight: Array, part: Any, sums: Array,
) -> None:  # fmt: skip
    for k in range(len(centers)):
        others = other[other_start[k] : other_start[k + 1]]
        m, p = to_grid[k], part[k]
        area = abs(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0])
        width = max(1.0, max(np.hypot(m[0, 0], m[1, 0]), np.hypot(m[0, 1], m[1, 1])))  # wider for coarse pixels
        c, s = np.cos(pose[k, 4]), np.sin(pose[k, 4])
        gain, offset = weight[k, 1], weight[k, 2]
        share, seen = weight[k, 0] / width**2, area / weight[k, 0]
        y0, y1, x0, x1 = _box(centers[k], m, half + 2.0 * width, image.shape)
        for py in range(y0, y1):
            for px in range(x0, x1):
                dy, dx = py - centers[k, 0], px - centers[k, 1]
                gy, gx = m[0, 0] * dy + m[0, 1] * dx, m[1, 0] * dy + m[1, 1] * dx
                if _masked(gy, gx, others, mask2):
                    continue
                uy, ux = gy - pose[k, 0], gx - pose[k, 1]
                ty, tx = c * uy - s * ux + half, s * uy + c * ux + half
                if min(ty, tx) <= -width or max(ty, tx) >= 2 * half + width:
                    continue
                v = (float(image[py, px]) - offset) / gain
                first_y, first_x = max(0, int(np.ceil(ty - width))), max(0, int(np.ceil(tx - width)))
                last_y, last_x = min(2 * half, int(ty + width)), min(2 * half, int(tx + width))
                for iy in range(first_y, last_y + 1):
                    wy = (1.0 - abs(iy - ty) / width) * share
                    for ix in range(first_x, last_x + 1):
                        w = wy * (1.0 - abs(ix - tx) / width)
                        sums[p, iy, ix, 0] += w * v
                        sums[p, iy, ix, 1] += w
                        sums[p, iy, ix, 2] += w * seen


@dataclass(frozen=True)
class Patches:
    """Members that lie in one frame of one image.

    Parameters
    ----------
    centers : ndarray, shape (n, 2)
        Centre (y, x) in image pixels.
    to_grid : ndarray, shape (n, 2, 2)
        From an offset in image pixels to grid steps.
    others : list of ndarray, shape (m, 2)
        For each member, what to mask around it, in grid steps.
    mask : float
        Radius of the masks in grid steps.
    """

    centers: Array
    to_grid: Array
    others: list[Array]
    mask: float

    @property
    def _other(self) -> tuple[Any, Array]:
        start = np.concatenate([[0], np.cumsum([len(o) for o in self.others])]).astype(np.int64)
        return start, np.concatenate([np.zeros((0, 2)), *self.others])

    def register(
        self, image: Image, template: Template, half: int, pose: Array, *, steps: int = 4, rotation: bool = False
    ) -> tuple[Array, Array]:
        """Fit each member to the template.

        Parameters
        ----------
        image : ndarray of float32, shape (y, x)
        template : Template
        half : int
            Half the side, in grid steps, of the square that is compared.
        pose : ndarray, shape (n, 5)
            Shift y, x (grid steps), gain, offset, angle (rad); start, and result in place.
        steps : int
            Most Gauss-Newton steps.
        rotation : bool
            Whether the angle is free.

        Returns
        -------
        found : ndarray, shape (n, 5)
            Correlation with the template, part of the patch that was seen, 1 sigma of the shift in
            y and x (grid steps), length of the last step. NaN where there was nothing to compare.
        sums : ndarray, shape (n, 8)
            Over the patch's pixels v, with the template t and the residual r: number, t, t^2, v,
            v^2, t v, r^2, r^2 t; `variance_of` makes a model of the noise of them.
        """
        found, sums = np.full((len(self.centers), 5), np.nan), np.zeros((len(self.centers), 8))

        def fit(part: slice) -> None:
            patches = self.only(part)
            _register(
                image, patches.centers, patches.to_grid, float(half), *patches._other, self.mask**2,
                template.table, np.array(template.variance), rotation, steps, pose[part], found[part], sums[part],
            )  # fmt: skip

        _in_threads(fit, len(self.centers))
        return found, sums

    def add(self, image: Image, half: int, pose: Array, weight: Array, part: Any, sums: Array) -> None:
        """Add members to the averages.

        Parameters
        ----------
        image : ndarray of float32, shape (y, x)
        half : int
            The grid is 2 * half + 1 on a side.
        pose : ndarray, shape (n, 5)
        weight : ndarray, shape (n, 3)
            Weight, gain and offset of each member: (value - offset) / gain is averaged. Weight 0 leaves out.
        part : ndarray of int, shape (n,)
            Which of the averages it belongs to.
        sums : ndarray, shape (part, 2 * half + 1, 2 * half + 1, 3)
            Weighted values, weights, and numbers of members, added to in place.
        """
        keep = np.flatnonzero(weight[:, 0] > 0)

        def put(part_of: slice) -> Array:
            rows = keep[part_of]
            patches, own = self.only(rows), np.zeros_like(sums)
            _add(
                image, patches.centers, patches.to_grid, half, *patches._other, self.mask**2,
                pose[rows], weight[rows], np.asarray(part, np.int64)[rows], own,
            )  # fmt: skip
            return own

        for own in _in_threads(put, len(keep)):
            sums += own

    def only(self, rows: slice | npt.NDArray[np.int64]) -> Patches:
        """Return some of the members."""
        index = np.arange(len(self.centers))[rows]
        return Patches(self.centers[index], self.to_grid[index], [self.others[k] for k in index], self.mask)


def _in_threads(work: Callable[[slice], T], n: int) -> list[T]:
    """Do `work` on consecutive slices of n members, one per thread that numba may use."""
    edges = np.linspace(0, n, max(min(get_num_threads(), n // 16), 1) + 1).astype(int)
    slices = [slice(a, b) for a, b in itertools.pairwise(edges.tolist()) if b > a]
    with ThreadPoolExecutor(max(len(slices), 1)) as pool:
        return list(pool.map(work, slices))
