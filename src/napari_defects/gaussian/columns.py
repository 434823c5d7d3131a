"""The columns of an image: what a fit begins with and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from napari_defects.gaussian import kernels
from napari_defects.gaussian.windows import Array, Index, Windows, tabulate

_APART = 12.0  # widths between the nodes of the background: nearer, they would take part in the columns
_TAIL = 0.8  # widths outside the image from which the place of a column is not fitted


@dataclass(frozen=True, eq=False)
class Profile:
    """Shape of a column: a Gaussian, or the sum of products of functions of y and of x.

    Parameters
    ----------
    terms : ndarray, shape (2, term, sample)
        Functions of y and of x, sampled at multiples of `step` sigma about zero, an odd number of samples;
        without terms a Gaussian.
    step : float
        In units of the column's width.
    reach : float
        Distance in units of the width beyond which there is nothing.
    """

    terms: Array = field(default_factory=lambda: np.zeros((2, 0, 1)))
    step: float = 0.125
    reach: float = 5.0

    @property
    def stamp(self) -> tuple[Array, Array]:
        """Distances in units of the width, shape (sample,), and the values there, shape (sample, sample)."""
        half = round(self.reach / self.step) + 2
        t = np.asarray(np.arange(-half, half + 1) * self.step, np.float64)
        if self.terms.shape[1] == 0:
            g = np.exp(-0.5 * t * t)
            return t, np.asarray(np.outer(g, g))
        return t, np.asarray(np.einsum("ra,rb->ab", *self.terms))


GAUSSIAN = Profile()


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of one image, in pixels and counts.

    Parameters
    ----------
    yx : ndarray, shape (column, 2)
        Positions.
    amplitude : ndarray, shape (column,)
        Peak heights above the background.
    sigma : ndarray, shape (column,)
        Widths (1 sigma), in pixels along y.
    group : ndarray of int, shape (column,)
        Columns of one group share their width; every column its own group frees it.
    nodes : ndarray, shape (node y, node x)
        Background at the nodes of a regular grid that spans the image corner to corner; at least 3 x 3.
    aspect : float
        Pixel size along x over that along y.
    covariance : ndarray, shape (column, 3, 3) or (column, 4, 4)
        Of (amplitude, y, x[, sigma]), neighbours free; without rows before the fit.
    deviance : float
        2 sum(m - n + n log n/m) over the pixels that the fit ended with.
    profile : Profile
        Shape of all columns.
    """

    yx: Array
    amplitude: Array
    sigma: Array
    group: Index
    nodes: Array
    aspect: float = 1.0
    covariance: Array = field(default_factory=lambda: np.zeros((0, 3, 3)))
    deviance: float = np.inf
    profile: Profile = GAUSSIAN

    @cached_property
    def free_sigma(self) -> bool:
        """Whether every column has a width of its own."""
        return len(self.group) > 1 and len(np.unique(self.group)) == len(self.group)

    @property
    def errors(self) -> Array:
        """1 sigma of (amplitude, y, x[, sigma]), shape (column, 3 or 4); NaN where undetermined."""
        return np.asarray(np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2)))

    @property
    def isotropic(self) -> Array:
        """Positions in pixels along y, whatever the aspect."""
        return self.yx * (1.0, self.aspect)

    @cached_property
    def width(self) -> float:
        """Usual width, in pixels along y."""
        return float(np.median(self.sigma))

    def pairs(self, within: float) -> Index:
        """Pairs of columns nearer than `within` sigma, shape (pair, 2)."""
        radius = within * self.width
        return np.asarray(cKDTree(self.isotropic).query_pairs(radius, output_type="ndarray"), np.int64).reshape(-1, 2)

    def taken(self, keep: npt.NDArray[np.bool_]) -> Columns:
        """Keep only some columns."""
        names = ["yx", "amplitude", "sigma", "group"] + ["covariance"] * bool(len(self.covariance))
        return replace(self, **{name: getattr(self, name)[keep] for name in names})

    def background(self, shape: tuple[int, ...]) -> Array:
        """Background under each column, for an image of `shape`."""
        ends = np.subtract(self.nodes.shape, 1)
        at = np.clip(self.yx * ends / np.subtract(shape, 1), 0, ends - 1e-9)
        (iy, ix), (fy, fx) = at.astype(int).T, (at % 1).T
        upper = self.nodes[iy, ix] * (1 - fx) + self.nodes[iy, ix + 1] * fx
        lower = self.nodes[iy + 1, ix] * (1 - fx) + self.nodes[iy + 1, ix + 1] * fx
        return np.asarray(upper * (1 - fy) + lower * fy)

    def outside(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Columns so far outside the image that only a tail is seen: height and place cannot both be had."""
        far = _TAIL * self.sigma[:, None] / (1.0, self.aspect)
        return np.asarray(((self.yx < -far) | (self.yx > np.subtract(shape, 1) + far)).any(axis=1))

    def deep(self, shape: tuple[int, ...], widths: float) -> npt.NDArray[np.bool_]:
        """Columns at least so many widths inside the image; all, where none is."""
        margin = widths * self.sigma[:, None] / (1.0, self.aspect)
        inside = ((self.yx >= margin) & (self.yx <= np.subtract(shape, 1) - margin)).all(axis=1)
        return np.asarray(inside if inside.any() else ~inside)

    def windows(
        self,
        shape: tuple[int, ...],
        binning: int = 1,
        reach: float | None = None,
        *,
        pitch: int = 0,
        dtype: npt.DTypeLike = np.float32,
    ) -> Windows:
        """Tables of all columns on binned pixels of that shape, out to `reach` sigma or as far as the profile goes."""
        far = min(reach or np.inf, self.profile.reach)
        scale = self.sigma, self.aspect, far, shape, binning
        return tabulate(self.yx, *scale, self.profile.terms, self.profile.step, pitch=pitch, dtype=dtype)

    def render(self, shape: tuple[int, ...], reach: float | None = None) -> Array:
        """Model image, columns drawn out to `reach` sigma or as far as the profile goes."""
        down, right = (hat(n, nodes) for n, nodes in zip(shape, self.nodes.shape, strict=True))
        image: Array = np.ascontiguousarray(down @ self.nodes @ right.T)
        if len(self.yx):
            kernels.render(image, self.windows(shape, reach=reach, dtype=np.float64), self.amplitude)
        return image


def background_grid(shape: tuple[int, ...], sigma: float, aspect: float = 1.0) -> list[int]:
    """Nodes of the background of an image of `shape` that columns of width `sigma` (pixels along y) leave free."""
    return [max(3, 1 + round(n * a / (_APART * sigma))) for n, a in zip(shape, (1.0, aspect), strict=True)]


def hat(n: int, nodes: int, binning: int = 1) -> Array:
    """Linear interpolation from `nodes` spanning `n` pixels to those pixels, shape (n // binning, nodes)."""
    full = np.clip(1 - np.abs(np.linspace(0, nodes - 1, n)[:, None] - np.arange(nodes)), 0, None)
    return np.asarray(full[: n // binning * binning].reshape(-1, binning, nodes).mean(axis=1))
