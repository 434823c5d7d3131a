"""Counts on (binned) pixels, compared with a model of them."""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt

from napari_defects.gaussian import kernels, solvers
from napari_defects.gaussian.columns import Columns, hat
from napari_defects.gaussian.neighbors import Neighbors
from napari_defects.gaussian.threads import spread
from napari_defects.gaussian.windows import Array, Image, Index, Windows

_SAMPLED = 1.3  # samples in a width, at least: errors are then right to 0.3 %, on the edge to a few


class Pixels:
    """Counts of an image, and the likelihood of columns given them.

    Binning by b averages b x b pixels, of the counts and of the model alike, so that it costs a little information
    but biases nothing; the information of a binned pixel is that of b^2.

    Parameters
    ----------
    counts : ndarray, shape (y, x)
        In units in which the variance equals the mean.
    grid : (int, int)
        Nodes of the background.
    binning : int
    reach : float, optional
        Columns are drawn out to so many sigma, or as far as their profile goes.
    """

    def __init__(self, counts: Array, grid: tuple[int, ...], *, binning: int = 1, reach: float | None = None) -> None:
        small = kernels.shrink(counts, binning, np.float32) if binning > 1 else counts
        self.counts: Image = np.ascontiguousarray(small, np.float32)
        self.shape, self.binning, self.reach = counts.shape, binning, reach
        self.hats: list[tuple[Image, Index]] = [
            _spanned(hat(n, g, binning).T) for n, g in zip(counts.shape, grid, strict=True)
        ]
        self.floor = max(1e-3 * float(np.abs(self.counts).mean()), 1e-12)
        self._drawn: tuple[tuple[object, ...], Windows] | None = None
        self._seen: tuple[tuple[object, ...], Image] | None = None

    def within(self, reach: float) -> Pixels:
        """Return the same pixels, columns being drawn out to `reach` only; enough for information."""
        if reach == self.reach:
            return self
        other = copy(self)
        other.reach, other._drawn = reach, None
        return other

    def windows(self, columns: Columns) -> Windows:
        """Tables of all columns on these pixels; kept until other columns come."""
        key = columns.yx, columns.sigma, columns.profile
        if self._drawn is None or not _same(self._drawn[0], key):
            self._drawn = key, self._tables(columns)
        return self._drawn[1]

    def _tables(self, columns: Columns) -> Windows:
        return columns.windows(self.counts.shape, self.binning, self.reach)

    def model(self, columns: Columns) -> Image:
        """Model on these pixels; kept until other columns come."""
        key = columns.yx, columns.sigma, columns.profile, columns.amplitude, columns.nodes
        if self._seen is None or not _same(self._seen[0], key):
            self._seen = key, self._image(columns)
        return self._seen[1]

    def _image(self, columns: Columns) -> Image:
        image = kernels.along(kernels.along(columns.nodes.T, *self.hats[0]).T, *self.hats[1])
        if len(columns.yx):
            kernels.render(image, self.windows(columns), columns.amplitude)
        return image

    def compare(self, columns: Columns) -> tuple[float, Image]:
        """Deviance, and the image of counts / model - 1."""
        deviance, pull = kernels.misfit(self.counts, self.model(columns), self.floor)
        return self.binning**2 * deviance, pull

    def score(self, columns: Columns, pull: Array | Image) -> tuple[Array, Array]:
        """Slope of the likelihood by column, shape (column, 4), and by node."""
        area = self.binning**2
        own = area * kernels.project(pull, self.windows(columns), columns.amplitude)
        return own, area * self._gathered(pull)

    def _gathered(self, image: Array | Image) -> Array:
        """Sum of `image` times what interpolates between nodes, shape (node y, node x)."""
        lines = kernels.across(np.asarray(image, np.float32), *self.hats[1])
        return kernels.across(lines.T, *self.hats[0]).T.astype(np.float64)

    def worse(self, before: Columns, after: Columns) -> npt.NDArray[np.bool_]:
        """Columns under which the deviance is larger after a step than before it."""
        new, old = (np.maximum(self.model(c), self.floor) for c in (after, before))
        change = new - old - self.counts * np.log(new / old)
        return np.asarray(kernels.project(change, self.windows(before), before.amplitude)[:, 0] > 0)

    def weight(self, columns: Columns) -> Image:
        """Information of each pixel: 1 / variance."""
        return np.asarray(np.float32(self.binning**2) / np.maximum(self.model(columns), np.float32(self.floor)))

    def blocks(self, columns: Columns, near: Neighbors, weight: Array | Image) -> Image:
        """Fisher information of columns that overlap, as rows of a sparse matrix, shape (entry, 3 or 4, 3 or 4)."""
        size = 4 if columns.free_sigma else 3
        return kernels.products(weight, near.pairs, near.slot, self.windows(columns), columns.amplitude, size)

    def sparse_blocks(self, columns: Columns, near: Neighbors) -> Image:
        """`blocks` from as few of the pixels as such smooth functions need, each for those around it."""
        size, skip = 4 if columns.free_sigma else 3, self.skip(columns)
        down, right = self.shares(skip)
        weight = self.weight(columns)[::skip, ::skip] * down[:, None] * right
        drawn = columns.windows(weight.shape, self.binning, self.reach, pitch=skip * self.binning)
        return kernels.products(weight, near.pairs, near.slot, drawn, columns.amplitude, size)

    def skip(self, columns: Columns) -> int:
        """Pixels from one to the next of those that `sparse_blocks` takes."""
        return max(1, int(columns.width / self.binning / max(1.0, columns.aspect) / _SAMPLED))

    def shares(self, skip: int) -> list[Image]:
        """How many rows, and how many lines, each of those stands for."""
        made = []
        for n in self.counts.shape:
            share = np.full(-(-n // skip), skip, np.float32)
            share[[0, -1]] -= 0.5 * (skip - 1)  # on the edge
            share[-1] += (n - 1) % skip
            made.append(share)
        return made

    def covariances(self, columns: Columns, near: Neighbors, rings: Index) -> Array:
        """Covariance of each column with those of its ring, shape (column, 3 or 4, 3 or 4); `solvers.covariances`."""
        size, blocks = 4 if columns.free_sigma else 3, self.sparse_blocks(columns, near)
        own = near.pointer[:-1][columns.outside(self.shape)]
        blocks[own, 1, 1] = blocks[own, 2, 2] = 1e6  # their places are taken as known
        result = np.empty((len(rings), size, size))
        spread(solvers.covariances, len(rings), blocks, near.other, near.pointer, rings, (0,) * size, result)
        return result

    def background_blocks(self, columns: Columns, weight: Image) -> tuple[Array, Index, Array]:
        """Fisher information of columns with nodes (column, 3 or 4, 9), those nodes (column, 9), and of nodes."""
        size, (first, node) = 4 if columns.free_sigma else 3, self.around(columns)
        side = kernels.overlaps(
            weight, self.hats[0][0], self.hats[1][0], first, self.windows(columns), columns.amplitude, size
        )
        return side.reshape(len(node), size, 9), node, self._nodes(weight)

    def around(self, columns: Columns) -> tuple[Index, Index]:
        """First of three nodes along each axis around each column, shape (column, 2), and all, shape (column, 9)."""
        grid, three = np.array(columns.nodes.shape), np.arange(3)
        at = columns.yx / np.subtract(self.shape, 1) * (grid - 1)
        first = np.clip(np.rint(at).astype(np.int64) - 1, 0, grid - 3)
        node = (first[:, 0, None, None] + three[:, None]) * grid[1] + first[:, 1, None, None] + three
        return first, node.reshape(len(first), 9)

    def width_blocks(self, columns: Columns, weight: Image, groups: int) -> tuple[Array, Array, Array]:
        """Fisher information of columns with widths of groups (column, 4, group), of widths, and of them with nodes.

        A width moves all columns of its group: what it does is drawn as an image, so that no pair is left out.
        """
        drawn = self.windows(columns)
        images = np.zeros((groups, *self.counts.shape), np.float32)
        for group, image in enumerate(images):
            amplitude = np.where(columns.group == group, columns.amplitude, 0.0)
            kernels.render(image, drawn, amplitude, down=2)
            kernels.render(image, drawn, amplitude, right=2)
        heavy = images * weight
        own = [kernels.project(image, drawn, columns.amplitude) for image in heavy]
        joint = [self._gathered(image).ravel() for image in heavy]
        nodes = len(self.hats[0][0]) * len(self.hats[1][0])
        return (
            np.stack(own, axis=2) if own else np.zeros((len(columns.yx), 4, 0)),
            np.array([[np.sum(a * b, dtype=np.float64) for b in images] for a in heavy]).reshape(groups, groups),
            np.array(joint, np.float64).reshape(groups, nodes),
        )

    def _nodes(self, weight: Image) -> Array:
        """Fisher information of the nodes, each with itself and those after it in a row, (offset, node).

        Each overlaps with the eight around it.
        """
        (down, rows), (right, lines) = self.hats
        ny, nx = len(down), len(right)
        band = np.zeros((nx + 2, ny, nx))
        for dx in (0, 1):
            half = kernels.across(weight, right[: nx - dx] * right[dx:], lines).T
            for dy in (0, 1):
                value = kernels.across(half, down[: ny - dy] * down[dy:], rows).T
                band[dy * nx + dx, : ny - dy, : nx - dx] = value
                if dy:
                    band[nx - dx, : ny - 1, dx:] = value
        return band.reshape(nx + 2, ny * nx)


def _spanned(hat: Array) -> tuple[Image, Index]:
    """Lay out what interpolates between nodes, (node, pixel), and where it is not 0, (node, 2)."""
    n, felt = hat.shape[1], hat > 0
    return np.ascontiguousarray(hat, np.float32), np.stack([felt.argmax(1), n - felt[:, ::-1].argmax(1)], axis=1)


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether these are the same things, not only equal ones."""
    return all(a is b for a, b in zip(one, other, strict=True))
