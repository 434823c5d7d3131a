"""Fisher information of what all columns share: the widths of groups, and the background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import LinAlgError, cho_solve_banded, cholesky_banded

from napari_defects.gaussian.windows import Array

_FEW = 400  # nodes up to which a full matrix is quicker
_RIDGE = 1e-6  # relative; ten times more where it does not make the matrix positive definite


@dataclass(frozen=True, eq=False)
class Shared:
    """Widths, few, that know of everything, and nodes of the background that know of those around them.

    Parameters
    ----------
    widths : ndarray, shape (group, group)
    joint : ndarray, shape (group, node)
    band : ndarray, shape (offset, node)
        Row d has what each node knows of the d-th after it; nodes are counted row by row.
    """

    widths: Array
    joint: Array
    band: Array

    def __len__(self) -> int:
        return int(len(self.widths) + self.band.shape[1])

    @cached_property
    def _nodes(self) -> Any:
        n, used = self.band.shape[1], np.flatnonzero(self.band.any(axis=1))
        if n > _FEW:
            lower = sparse.dia_array((self.band[used], -used), shape=(n, n))
            return sparse.csr_array(lower + sparse.tril(lower, -1).T)
        full, at = np.zeros((n, n)), np.arange(n)
        for d in used:
            full[at[d:], at[: n - d]] = full[at[: n - d], at[d:]] = self.band[d, : n - d]
        return full

    def times(self, v: Array) -> Array:
        """Return the information times a vector (group and node,)."""
        few, many = v[: len(self.widths)], v[len(self.widths) :]
        return np.append(self.widths @ few + self.joint @ many, few @ self.joint + self._nodes @ many)

    def solver(self, damping: float) -> Callable[[Array], Array]:
        """Return what solves for a vector, the diagonal being so much larger."""
        root = 1 / np.sqrt(np.maximum(self.band[0], 1e-300))
        band, n = self.band * root, len(root)
        for d in np.flatnonzero(band.any(axis=1)):
            band[d, : n - d] *= root[d:]
        factor = _factor(band, 1 + damping)

        def inner(v: Array) -> Array:
            return np.asarray((cho_solve_banded((factor, True), (v.T * root).T, check_finite=False).T * root).T)

        reach = inner(self.joint.T)
        corner = self.widths * (1 + damping * np.eye(len(self.widths))) - self.joint @ reach
        inverse = np.linalg.pinv(corner, rcond=1e-9, hermitian=True)

        def solve(v: Array) -> Array:
            few, many = v[: len(inverse)], inner(v[len(inverse) :])
            few = inverse @ (few - v[len(inverse) :] @ reach)
            return np.append(few, many - reach @ few)

        return solve


def _factor(band: Array, diagonal: float) -> Array:
    """Cholesky factor of a banded matrix of unit diagonal, made `diagonal`."""
    ridge = _RIDGE
    while True:
        band[0] = diagonal + ridge
        try:
            return np.asarray(cholesky_banded(band, lower=True, check_finite=False))
        except LinAlgError:
            ridge *= 10
