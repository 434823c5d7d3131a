"""Heights of columns at known places: linear, so that an empty site gets its height as a full one does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

from napari_defects.gaussian import kernels
from napari_defects.gaussian.columns import Columns
from napari_defects.gaussian.neighbors import Neighbors
from napari_defects.gaussian.pixels import Pixels
from napari_defects.gaussian.windows import Array, Image

_APART = 7.5  # widths between the nodes of the background, which has to be held stiff
_REACH = 4.3  # widths out to which columns are drawn
_NEIGHBORS = 7.5  # widths within which columns overlap: all of them together are nearly a background
_SAMPLED = 1.7  # binned pixels in a width, at least
_FIRST = 0.3  # stiffness of the background while the pixels' variances are not known
_DARKEST = 0.05  # of the mean: no pixel is surer than one so dark
_HELD = 1e-6  # of the information of a node: where nothing is known of the background, it is 0
_EXACT = 1e-7


class Heights:
    """Weighted least squares for the heights of all columns and a smooth background, at once.

    Pixels are weighted by the variance that a first, unweighted fit makes one expect of them: this is what Poisson
    likelihood comes to for a linear model, and it gains most on bright columns above a dark background.

    Parameters
    ----------
    counts : ndarray, shape (y, x)
        Image in units in which the variance equals the mean.
    yx : ndarray, shape (column, 2)
        Places, in pixels.
    sigma : ndarray, shape (column,)
        Widths (1 sigma), in pixels along y.
    aspect : float
        Pixel size along x over that along y.
    """

    def __init__(self, counts: Array, yx: Array, sigma: Array, aspect: float = 1.0) -> None:
        n, width = len(yx), float(np.median(sigma))
        size = np.multiply(counts.shape, (1.0, aspect))
        grid = tuple(max(3, 1 + round(float(side) / (_APART * width))) for side in size)
        pixels = Pixels(counts, grid, binning=max(1, int(width / _SAMPLED)), reach=_REACH)
        group, places = np.zeros(n, np.int64), np.ascontiguousarray(yx, np.float64)
        self._columns = Columns(places, np.ones(n), np.asarray(sigma, np.float64), group, np.zeros(grid), aspect)
        self._pixels, self._near = pixels, Neighbors(self._columns, _NEIGHBORS)
        least = max(_DARKEST * float(np.abs(pixels.counts).mean()), 1e-12)
        self._weigh(np.full_like(pixels.counts, 1 / least))
        found, nodes = self._solve(_FIRST)
        model = pixels.model(replace(self._columns, amplitude=np.maximum(found, 0), nodes=nodes))
        self._weigh(np.asarray(1 / np.maximum(model, np.float32(least))))

    def __call__(self, stiffness: float) -> Array:
        """Heights above a background whose nodes differ little from their neighbours: the less, the stiffer.

        Parameters
        ----------
        stiffness : float
            Information about each difference between neighbouring nodes, relative to that which the image has about
            a node.

        Returns
        -------
        ndarray, shape (column,)
        """
        return self._solve(stiffness)[0]

    @property
    def errors(self) -> Array:
        """1 sigma of the heights of columns as they are, by counting alone, all else being known, shape (column,)."""
        return np.asarray(1 / (self._pixels.binning * np.sqrt(np.maximum(self._own.diagonal(), 1e-300))))

    def _weigh(self, weight: Image) -> None:
        """Work out the normal equations, each pixel with its weight."""
        columns, pixels, near = self._columns, self._pixels, self._near
        n, (ny, nx), drawn = len(columns.yx), columns.nodes.shape, pixels.windows(columns)
        blocks = kernels.products(weight, near.pairs, near.slot, drawn, columns.amplitude, 3)[:, 0, 0]
        self._own = sparse.csr_array((blocks.astype(np.float64), near.other, near.pointer), shape=(n, n))
        side, node, band = pixels.background_blocks(columns, weight)
        row = np.repeat(np.arange(n), node.shape[1])
        self._side = sparse.csr_array((side[:, 0].ravel(), (row, node.ravel())), shape=(n, ny * nx))
        steps = (0, 1, nx - 1, nx, nx + 1)
        diagonals: Any = [band[d, : ny * nx - d] for d in steps]
        upper = sparse.diags_array(diagonals, offsets=steps, shape=(ny * nx, ny * nx))
        self._nodes = sparse.csr_array(upper + sparse.triu(upper, 1).T)
        seen = weight * pixels.counts
        gathered = pixels.score(columns, seen)
        self._right = np.concatenate([gathered[0][:, 0], gathered[1].ravel()]) / pixels.binning**2

    def _solve(self, stiffness: float) -> tuple[Array, Array]:
        n, (ny, nx) = len(self._columns.yx), self._columns.nodes.shape
        known = float(self._nodes.diagonal().mean())
        held = known * (stiffness * _differences(ny, nx) + _HELD * sparse.eye_array(ny * nx))
        system = sparse.block_array([[self._own, self._side], [self._side.T, self._nodes + held]], format="csr")
        alone = sparse.diags_array(1 / np.maximum(system.diagonal(), 1e-300))
        found = cg(system, self._right, rtol=_EXACT, maxiter=1000, M=alone)[0]
        return found[:n], found[n:].reshape(ny, nx)


def _differences(ny: int, nx: int) -> sparse.csr_array:
    """Matrix of the sum of squared differences between neighbouring nodes."""
    along = [sparse.eye_array(n - 1, n, k=1) - sparse.eye_array(n - 1, n) for n in (ny, nx)]
    down, right = sparse.kron(along[0], sparse.eye_array(nx)), sparse.kron(sparse.eye_array(ny), along[1])
    return sparse.csr_array(down.T @ down + right.T @ right)
