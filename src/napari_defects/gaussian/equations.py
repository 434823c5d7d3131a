"""Fisher information of all columns of an image, as a system to be solved for steps."""

from __future__ import annotations

import numpy as np

from napari_defects.gaussian import solvers
from napari_defects.gaussian.columns import Columns
from napari_defects.gaussian.neighbors import Neighbors
from napari_defects.gaussian.pixels import Pixels
from napari_defects.gaussian.shared import Shared
from napari_defects.gaussian.threads import spread
from napari_defects.gaussian.windows import Array

_EXACT = 0.05  # relative error of a step: steps are many, and the information is not the latest
_EXACT_FREE = 0.02  # where widths are free: all of them together move the background little by little
MOST = 100  # turns of the solver


class NormalEquations:
    """Fisher information of the free parameters.

    The unknowns are 3 per column (4 where each width is free), then what all columns share: the widths of the groups
    and the background nodes.
    """

    def __init__(self, pixels: Pixels, columns: Columns, near: Neighbors) -> None:
        self.size = 4 if columns.free_sigma else 3
        self.groups = 0 if columns.free_sigma else int(columns.group.max()) + 1
        self.group, self.exact = columns.group, _EXACT if self.size == 3 else _EXACT_FREE
        self.stiffness = self._lay(pixels, columns, near)

    def _lay(self, pixels: Pixels, columns: Columns, near: Neighbors) -> Array:
        """Work the information out; return what there is of every column's own parameters, (column, 3 or 4)."""
        n, size, groups, weight = len(columns.yx), self.size, self.groups, pixels.weight(columns)
        self.near, self.blocks = near, pixels.blocks(columns, near, weight)
        side, node, nodes = pixels.background_blocks(columns, weight)
        wide, widths, joint = pixels.width_blocks(columns, weight, groups)
        self.shared = Shared(widths, joint, nodes)
        self.side = np.concatenate([wide[:, :size], side], axis=2, dtype=np.float32)
        first = np.broadcast_to(np.arange(groups), (n, groups))
        self.place = np.concatenate([first, groups + node], axis=1, dtype=np.int32)
        return np.asarray(np.einsum("nii->ni", self.blocks[near.pointer[:-1]]), np.float64)

    def gather(self, own: Array, nodes: Array) -> Array:
        """Score of the unknowns from that of every column's four parameters and the nodes."""
        widths = np.bincount(self.group, own[:, 3], minlength=self.groups) if self.groups else np.zeros(0)
        return np.concatenate([own[:, : self.size].ravel(), widths, nodes.ravel()])

    def squared(self, step: Array) -> Array:
        """Squares of the columns' part of a step in units of its error, neighbours fixed, (column, 3 or 4)."""
        return np.asarray(self.stiffness * step[: self.stiffness.size].reshape(self.stiffness.shape) ** 2)

    def solve(self, score: Array, damping: Array, trust: Array) -> Array:
        """Solve for a step; `damping`, per column and relative, and `trust`, (column, 3 or 4), add to the diagonal."""
        near, extra = self.near, trust + damping[:, None] * self.stiffness
        inverse, unit = np.empty((len(extra), self.size, self.size)), (0,) * self.size
        spread(solvers.invert, len(extra), self.blocks, near.pointer, extra, unit, inverse)
        own = solvers.Own(self.blocks, near.other, near.pointer, extra, inverse, self.side, self.place)
        common = self.shared.common(float(damping.min()))
        return np.asarray(solvers.solve(own, common, unit, score, self.exact, MOST))
