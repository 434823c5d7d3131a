"""Fisher information of all columns of an image, as a system to be solved for steps."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from napari_defects.gaussian import solvers
from napari_defects.gaussian.columns import Columns
from napari_defects.gaussian.pixels import Pixels
from napari_defects.gaussian.shared import Shared
from napari_defects.gaussian.threads import spread
from napari_defects.gaussian.windows import Array, Index

_NEAR = 5.5  # sigma beyond which columns hardly know of each other
_EXACT = 0.05  # relative error of a step: steps are many, and the information is not the latest
_EXACT_FREE = 0.02  # where widths are free: all of them together move the background little by little
_NEAR_FREE = 7.5  # the same where every width is free: all of them together are nearly a background


class Neighbors:
    """Which columns overlap: pairs (each with itself first), and the same as rows of a sparse matrix."""

    def __init__(self, columns: Columns) -> None:
        n = len(columns.yx)
        near = columns.pairs((_NEAR_FREE if columns.free_sigma else _NEAR) * max(1.0, columns.profile.reach / 5))
        self.pairs: Index = np.concatenate([np.repeat(np.arange(n), 2).reshape(-1, 2), near])
        i, self.other = np.concatenate([self.pairs, near[:, ::-1]]).T
        order = np.lexsort((self.other, i))
        self.other = self.other[order].astype(np.int32)
        self.pointer = np.searchsorted(i[order], np.arange(n + 1)).astype(np.int32)
        number = np.concatenate([np.arange(len(self.pairs)), np.arange(n, len(self.pairs))])
        self.which, self.turned = number[order], (np.arange(len(order)) >= len(self.pairs))[order]

    def rows(self, blocks: Array, size: int) -> Array:
        """Blocks of pairs as rows of a matrix, shape (entry, size, size)."""
        own = np.empty((len(self.other), size, size))
        spread(solvers.compact, len(self.pointer) - 1, blocks, self.which, self.turned, self.pointer, own)
        return own

    def rings(self, isotropic: Array, n: int) -> Index:
        """Each column's nearest, itself last, shape (column, n); -1 where there are no more."""
        out = np.full((len(isotropic), n), -1)
        spread(solvers.nearest, len(out), isotropic, self.other, self.pointer, out)
        return out


class NormalEquations:
    """Fisher information of the free parameters.

    The unknowns are 3 per column (4 where each width is free), then what all columns share: the widths of the groups
    and the background nodes.
    """

    def __init__(self, pixels: Pixels, columns: Columns, neighbors: Neighbors) -> None:
        n, weight = len(columns.yx), pixels.weight(columns)
        self.size = size = 4 if columns.free_sigma else 3
        self.groups = groups = 0 if columns.free_sigma else int(columns.group.max()) + 1
        self.group, self.near = columns.group, neighbors
        blocks = pixels.blocks(columns, neighbors.pairs, weight)
        self.diagonal = np.ascontiguousarray(blocks[:n, :size, :size])
        self.own = neighbors.rows(blocks, size)
        side, node, nodes = pixels.background_blocks(columns, weight)
        wide, widths, joint = pixels.width_blocks(columns, weight, groups)
        self.shared = Shared(widths, joint, nodes)
        self.side = np.concatenate([wide[:, :size], side[:, :size]], axis=2)
        self.place = np.concatenate(
            [np.broadcast_to(np.arange(groups), (n, groups)), groups + node], axis=1, dtype=np.int32
        )

    def gather(self, own: Array, nodes: Array) -> Array:
        """Score of the unknowns from that of every column's four parameters and the nodes."""
        widths = np.bincount(self.group, own[:, 3], minlength=self.groups) if self.groups else np.zeros(0)
        return np.concatenate([own[:, : self.size].ravel(), widths, nodes.ravel()])

    def squared(self, step: Array) -> Array:
        """Squares of the columns' part of a step in units of its error, neighbours fixed, (column, 3 or 4)."""
        stiffness = np.einsum("nii->ni", self.diagonal)
        return np.asarray(stiffness * step[: stiffness.size].reshape(stiffness.shape) ** 2)

    def solve(self, score: Array, damping: Array, trust: Array) -> Array:
        """Solve for a step; `damping`, per column and relative, and `trust`, (column, 3 or 4), add to the diagonal.

        Conjugate gradients. The preconditioner solves for each column by itself, and exactly for what all share.
        """
        n, size = trust.shape
        extra = trust + damping[:, None] * np.einsum("nii->ni", self.diagonal)
        blocks, inverse = self.diagonal.copy(), np.empty_like(self.diagonal)
        blocks[:, range(size), range(size)] += extra
        spread(solvers.invert, n, blocks, inverse)
        solve_shared = self.shared.solver(float(np.median(damping)))
        own = sparse.bsr_array((self.own, self.near.other, self.near.pointer), shape=(n * size, n * size))
        places = np.repeat(self.place, size, axis=0)
        every = np.arange(0, places.size + 1, places.shape[1], dtype=np.int32)
        side = sparse.csr_array((self.side.ravel(), places.ravel(), every), shape=(n * size, len(self.shared)))
        springs, turned = extra.ravel(), side.T

        def multiply(v: Array) -> Array:
            head, tail = v[: n * size], v[n * size :]
            return np.append(own @ head + springs * head + side @ tail, turned @ head + self.shared.times(tail))

        def precondition(v: Array) -> Array:
            alone = np.einsum("nij,nj->ni", inverse, v[: n * size].reshape(n, size))
            return np.append(alone.ravel(), solve_shared(v[n * size :]))

        return _conjugate_gradients(multiply, precondition, score, _EXACT if size == 3 else _EXACT_FREE)


def _conjugate_gradients(multiply, precondition, right: Array, tolerance: float, most: int = 100) -> Array:  # type: ignore[no-untyped-def]
    """Solution of a positive definite system, to a relative tolerance in the preconditioner's norm."""
    solution, residual = np.zeros_like(right), right.copy()
    turned = precondition(residual)
    direction, energy = turned.copy(), float(residual @ turned)
    goal = tolerance**2 * energy
    for _ in range(most):
        if not energy > goal:
            break
        product = multiply(direction)
        curvature = float(direction @ product)
        if not curvature > 0:
            break
        length = energy / curvature
        solution += length * direction
        residual -= length * product
        turned = precondition(residual)
        before, energy = energy, float(residual @ turned)
        direction *= energy / before
        direction += turned
    return solution
