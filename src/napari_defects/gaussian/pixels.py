"""Counts on (binned) pixels, compared with a model of them."""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt

from napari_defects.gaussian import kernels
from napari_defects.gaussian.columns import Columns, hat
from napari_defects.gaussian.windows import Array, Index, Windows


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
        self.counts = kernels.shrink(counts, binning) if binning > 1 else counts
        self.shape, self.binning, self.reach = counts.shape, binning, reach
        self.hats = [hat(n, g, binning) for n, g in zip(counts.shape, grid, strict=True)]
        self.floor = max(1e-3 * float(np.mean(np.abs(self.counts))), 1e-12)
        self._drawn: tuple[tuple[object, ...], Windows] | None = None

    def within(self, reach: float) -> Pixels:
        """Return the same pixels, columns being drawn out to `reach` only; enough for information."""
        other = copy(self)
        other.reach, other._drawn = reach, None
        return other

    def windows(self, columns: Columns) -> Windows:
        """Tables of all columns on these pixels; kept until other columns come."""
        key = columns.yx, columns.sigma, columns.profile
        if self._drawn is None or any(a is not b for a, b in zip(self._drawn[0], key, strict=True)):
            self._drawn = key, columns.windows(self.counts.shape, self.binning, self.reach)
        return self._drawn[1]

    def model(self, columns: Columns) -> Array:
        """Model on these pixels."""
        image: Array = np.ascontiguousarray(self.hats[0] @ columns.nodes @ self.hats[1].T)
        if len(columns.yx):
            kernels.render(image, self.windows(columns), columns.amplitude)
        return image

    def compare(self, columns: Columns) -> tuple[float, Array]:
        """Deviance, and the image of counts / model - 1."""
        image = self.model(columns)
        return self.binning**2 * kernels.misfit(self.counts, image, self.floor), image

    def score(self, columns: Columns, pull: Array) -> tuple[Array, Array]:
        """Slope of the likelihood by column, shape (column, 4), and by node."""
        area = self.binning**2
        own = area * kernels.project(pull, self.windows(columns), columns.amplitude)
        return own, area * (self.hats[0].T @ pull @ self.hats[1])

    def worse(self, before: Columns, after: Columns) -> npt.NDArray[np.bool_]:
        """Columns under which the deviance is larger after a step than before it."""
        old, new = (np.maximum(self.model(c), self.floor) for c in (before, after))
        change = new - old - self.counts * np.log(new / old)
        return np.asarray(kernels.project(change, self.windows(before), before.amplitude)[:, 0] > 0)

    def weight(self, columns: Columns) -> Array:
        """Information of each pixel: 1 / variance."""
        return np.asarray(self.binning**2 / np.maximum(self.model(columns), self.floor))

    def blocks(self, columns: Columns, pairs: Index, weight: Array) -> Array:
        """Fisher information of pairs of columns, shape (pair, 4, 4)."""
        return kernels.products(weight, pairs, self.windows(columns), columns.amplitude)

    def background_blocks(self, columns: Columns, weight: Array) -> tuple[Array, Index, Array]:
        """Fisher information of columns with nodes (column, 4, 9), those nodes (column, 9), and of nodes."""
        grid = np.array([h.shape[1] for h in self.hats])
        at = columns.yx / np.subtract(self.shape, 1) * (grid - 1)
        first = np.clip(np.rint(at).astype(np.int64) - 1, 0, grid - 3)
        side = kernels.overlaps(weight, self.hats[0], self.hats[1], first, self.windows(columns), columns.amplitude)
        three = np.arange(3)
        node = (first[:, 0, None, None] + three[:, None]) * grid[1] + first[:, 1, None, None] + three
        n = len(columns.yx)
        return side.reshape(n, 4, 9), node.reshape(n, 9), self._nodes(weight)

    def width_blocks(self, columns: Columns, weight: Array, groups: int) -> tuple[Array, Array, Array]:
        """Fisher information of columns with widths of groups (column, 4, group), of widths, and of them with nodes.

        A width moves all columns of its group: what it does is drawn as an image, so that no pair is left out.
        """
        drawn = self.windows(columns)
        taller, wider = (np.ascontiguousarray(f[:, :, [2, 2, 2]]) for f in (drawn.fy, drawn.fx))
        images = np.zeros((groups, *self.counts.shape))
        for group, image in enumerate(images):
            amplitude = np.where(columns.group == group, columns.amplitude, 0.0)
            kernels.render(image, drawn._replace(fy=taller), amplitude)
            kernels.render(image, drawn._replace(fx=wider), amplitude)
        heavy = images * weight
        own = [kernels.project(image, drawn, columns.amplitude) for image in heavy]
        joint = [(self.hats[0].T @ image @ self.hats[1]).ravel() for image in heavy]
        nodes = self.hats[0].shape[1] * self.hats[1].shape[1]
        return (
            np.stack(own, axis=2) if own else np.zeros((len(columns.yx), 4, 0)),
            np.einsum("ayx,byx->ab", heavy, images),
            np.array(joint).reshape(groups, nodes),
        )

    def _nodes(self, weight: Array) -> Array:
        """Fisher information of the nodes, each with itself and those after it in a row, (offset, node).

        Each overlaps with the eight around it.
        """
        (down, right), (ny, nx) = self.hats, (h.shape[1] for h in self.hats)
        band = np.zeros((nx + 2, ny, nx))
        for dy in (0, 1):
            half = (down[:, : ny - dy] * down[:, dy:]).T @ weight
            for dx in (0, 1):
                value = half @ (right[:, : nx - dx] * right[:, dx:])
                band[dy * nx + dx, : ny - dy, : nx - dx] = value
                if dy:
                    band[nx - dx, : ny - 1, dx:] = value
        return band.reshape(nx + 2, ny * nx)
