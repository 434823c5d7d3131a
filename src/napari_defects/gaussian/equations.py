"""Score and Fisher information of all columns of an image, and the normal equations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, cg
from scipy.spatial import cKDTree

from napari_defects.gaussian import kernels
from napari_defects.gaussian.kernels import Array, Index


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
        2 sum(m - n + n log n/m) over all pixels.
    """

    yx: Array
    amplitude: Array
    sigma: Array
    group: Index
    nodes: Array
    aspect: float = 1.0
    covariance: Array = field(default_factory=lambda: np.zeros((0, 3, 3)))
    deviance: float = np.inf

    @property
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

    def pairs(self, within: float) -> Index:
        """Pairs of columns nearer than `within` sigma, shape (pair, 2)."""
        radius = within * float(np.median(self.sigma))
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

    def render(self, shape: tuple[int, ...], reach: float = 5.0) -> Array:
        """Model image, columns drawn out to `reach` sigma."""
        return Pixels(np.zeros(shape), self.nodes.shape, reach=reach).model(self)


def hat(n: int, nodes: int, binning: int = 1) -> Array:
    """Linear interpolation from `nodes` spanning `n` pixels to those pixels, shape (n // binning, nodes)."""
    full = np.clip(1 - np.abs(np.linspace(0, nodes - 1, n)[:, None] - np.arange(nodes)), 0, None)
    return np.asarray(full[: n // binning * binning].reshape(-1, binning, nodes).mean(axis=1))


class Pixels:
    """Counts on (binned) pixels, compared with a model of them.

    Binning by b averages b x b pixels: a column gets wider and lower, and the information of a
    pixel is that of b^2.
    """

    def __init__(self, counts: Array, grid: tuple[int, ...], *, binning: int = 1, reach: float = 4.0) -> None:
        ny, nx = (n // binning for n in counts.shape)
        cut = counts[: ny * binning, : nx * binning]
        self.counts = cut.reshape(ny, binning, nx, binning).mean(axis=(1, 3)) if binning > 1 else cut
        self.shape, self.binning, self.reach = counts.shape, binning, reach
        self.hats = [hat(n, g, binning) for n, g in zip(counts.shape, grid, strict=True)]
        self.floor = max(1e-3 * float(np.mean(np.abs(self.counts))), 1e-12)

    def _drawn(self, columns: Columns) -> tuple[kernels.Profiles, Array, Array]:
        """Profiles and amplitudes on these pixels, and the derivatives' factors, shape (column, 4)."""
        b = self.binning
        sigma = np.sqrt(columns.sigma**2 + (b * b - 1) / 24 * (1 + columns.aspect**2)) / b
        loss = (columns.sigma / (sigma * b)) ** 2
        p = kernels.profiles((columns.yx - (b - 1) / 2) / b, sigma, columns.aspect, self.reach, self.counts.shape)
        chain = np.stack([loss, np.full_like(loss, 1 / b), np.full_like(loss, 1 / b), np.sqrt(loss) / b], axis=1)
        return p, columns.amplitude * loss, chain * kernels.factors(columns.amplitude * loss, sigma, p.scale)

    def model(self, columns: Columns) -> Array:
        """Model on these pixels."""
        image: Array = np.ascontiguousarray(self.hats[0] @ columns.nodes @ self.hats[1].T)
        p, amplitude, _ = self._drawn(columns)
        kernels.render(image, p, amplitude)
        return image

    def compare(self, columns: Columns) -> tuple[float, Array]:
        """Deviance, and the image of counts / model - 1."""
        image = self.model(columns)
        return self.binning**2 * kernels.misfit(self.counts, image, self.floor), image

    def score(self, columns: Columns, pull: Array) -> tuple[Array, Array]:
        """Slope of the likelihood by column, shape (column, 4), and by node."""
        p, _, factors = self._drawn(columns)
        area = self.binning**2
        return area * kernels.project(pull, p) * factors, area * (self.hats[0].T @ pull @ self.hats[1])

    def weight(self, columns: Columns) -> Array:
        """Information of each pixel: 1 / variance."""
        return np.asarray(self.binning**2 / np.maximum(self.model(columns), self.floor))

    def blocks(self, columns: Columns, pairs: Index, weight: Array) -> Array:
        """Fisher information of pairs of columns, shape (pair, 4, 4)."""
        p, _, factors = self._drawn(columns)
        return np.asarray(
            kernels.products(weight, pairs, p) * factors[pairs[:, 0], :, None] * factors[pairs[:, 1], None, :]
        )

    def background_blocks(self, columns: Columns, weight: Array) -> tuple[Array, Index, Array]:
        """Fisher information of columns with nodes (column, 4, 9), those nodes (column, 9), and of nodes."""
        p, _, factors = self._drawn(columns)
        grid = np.array([h.shape[1] for h in self.hats])
        at = columns.yx / np.subtract(self.shape, 1) * (grid - 1)
        first = np.clip(np.rint(at).astype(np.int64) - 1, 0, grid - 3)
        side = kernels.overlaps(weight, *self.hats, first, p) * factors[:, :, None, None]
        three = np.arange(3)
        node = (first[:, 0, None, None] + three[:, None]) * grid[1] + first[:, 1, None, None] + three
        basis = sparse.kron(sparse.csr_array(self.hats[0]), sparse.csr_array(self.hats[1]), format="csr")
        own = (basis.T @ sparse.diags_array(weight.ravel()) @ basis).toarray()
        n = len(columns.yx)
        return side.reshape(n, 4, 9), node.reshape(n, 9), own


class NormalEquations:
    """Fisher information of the free parameters, as a system to be solved for steps.

    The unknowns are 3 per column (4 where each width is free), then what all columns share: the
    widths of the groups and the background nodes. Columns couple to near ones only.
    """

    def __init__(self, pixels: Pixels, columns: Columns) -> None:
        n, weight = len(columns.yx), pixels.weight(columns)
        self.size = 4 if columns.free_sigma else 3
        groups = 0 if columns.free_sigma else int(columns.group.max()) + 1
        near = columns.pairs(2 * pixels.reach)
        pairs = np.concatenate([np.repeat(np.arange(n), 2).reshape(-1, 2), near])
        blocks = pixels.blocks(columns, pairs, weight)
        i, j = np.concatenate([pairs, near[:, ::-1]]).T
        blocks = np.concatenate([blocks, blocks[n:].transpose(0, 2, 1)])
        order = np.lexsort((j, i))
        i, j, blocks = i[order], j[order], blocks[order]
        self.diagonal = np.flatnonzero(i == j)
        pointer = np.searchsorted(i, np.arange(n + 1))
        own = np.ascontiguousarray(blocks[:, : self.size, : self.size])
        self.own = sparse.bsr_array((own, j, pointer), shape=(self.size * n,) * 2)
        self.lumped = np.add.reduceat(np.abs(own).sum(axis=2), pointer[:-1]) - np.abs(own[self.diagonal]).sum(axis=2)

        side, node, nodes = pixels.background_blocks(columns, weight)
        shared = groups + len(nodes)
        row = (np.arange(n)[:, None] * self.size + np.arange(self.size))[:, :, None]
        parts = [(side[:, : self.size], row, groups + node[:, None, :])]
        self.shared = np.zeros((shared, shared))
        self.shared[groups:, groups:] = nodes
        if groups:  # a width moves all columns of its group
            parts.append((blocks[:, :3, 3, None], row[i], columns.group[j][:, None, None]))
            np.add.at(self.shared, (columns.group[i], columns.group[j]), blocks[:, 3, 3])
            np.add.at(self.shared, (columns.group[:, None], groups + node), side[:, 3])
            self.shared[groups:, :groups] = self.shared[:groups, groups:].T
        value, rows, cols = (
            np.concatenate([a.ravel() for a in arrays])
            for arrays in zip(*(np.broadcast_arrays(*part) for part in parts), strict=True)
        )
        self.side = sparse.coo_array((value, (rows, cols)), shape=(self.size * n, shared)).tocsr()
        self.groups, self.group = groups, columns.group

    def gather(self, own: Array, nodes: Array) -> Array:
        """Score of the unknowns from that of every column's four parameters and the nodes."""
        widths = np.bincount(self.group, own[:, 3], minlength=self.groups) if self.groups else np.zeros(0)
        return np.concatenate([own[:, : self.size].ravel(), widths, nodes.ravel()])

    def squared(self, step: Array) -> Array:
        """Squares of the columns' part of a step in units of its error, neighbours fixed, (column, 3 or 4)."""
        stiffness = np.einsum("nii->ni", self.own.data[self.diagonal])
        return np.asarray(stiffness * step[: stiffness.size].reshape(stiffness.shape) ** 2)

    def solve(self, score: Array, damping: float, trust: Array) -> Array:
        """Solve for a step; `trust`, shape (column, 3 or 4), is added to the columns' diagonal.

        Conjugate gradients. The preconditioner keeps the block of each column, with the coupling to
        its neighbours lumped onto the diagonal, and everything shared exactly.
        """
        n, size = trust.shape
        extra = trust + damping * np.einsum("nii->ni", self.own.data[self.diagonal])
        blocks = self.own.data[self.diagonal].copy()
        blocks[:, range(size), range(size)] += extra + self.lumped
        inverse = sparse.bsr_array((np.linalg.inv(blocks), np.arange(n), np.arange(n + 1)), shape=self.own.shape)
        shared = self.shared + np.diag((damping + 1e-9) * np.diag(self.shared))
        spread = sparse.csr_array(inverse @ self.side)
        turned = sparse.csr_array(self.side.T)
        root = 1 / np.sqrt(np.diag(shared))
        values, vectors = eigh((shared - (turned @ spread).toarray()) * root * root[:, None])
        solved = root[:, None] * (vectors / np.maximum(values, 1e-6)) @ (vectors.T * root)

        def multiply(v: Array) -> Array:
            head, tail = v[: n * size], v[n * size :]
            return np.concatenate(
                [self.own @ head + extra.ravel() * head + self.side @ tail, turned @ head + shared @ tail]
            )

        def precondition(v: Array) -> Array:
            head = inverse @ v[: n * size]
            tail = solved @ (v[n * size :] - turned @ head)
            return np.concatenate([head - spread @ tail, tail])

        shape = (len(score), len(score))
        operators: list[Any] = [LinearOperator(shape, matvec=f, dtype=np.float64) for f in (multiply, precondition)]
        solution, _ = cg(operators[0], score, rtol=1e-3, maxiter=100, M=operators[1])
        return np.asarray(solution)
