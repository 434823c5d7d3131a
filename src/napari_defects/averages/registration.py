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
from numba import get_num_threads
from scipy import ndimage

from . import kernels
from .kernels import CONVERGED as CONVERGED
from .kernels import FINE, Array, Image

T = TypeVar("T")


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
            kernels.register(
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
            kernels.add(
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


_SLICES = 4


def _in_threads(work: Callable[[slice], T], n: int) -> list[T]:
    """Do `work` on consecutive slices of n members, the same whatever number of threads there are."""
    edges = np.linspace(0, n, max(min(_SLICES, n // 16), 1) + 1).astype(int)
    slices = [slice(a, b) for a, b in itertools.pairwise(edges.tolist()) if b > a]
    with ThreadPoolExecutor(get_num_threads()) as pool:
        return list(pool.map(work, slices))
