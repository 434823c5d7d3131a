"""Fisher information of what all columns share: the widths of groups, and the background."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.linalg import LinAlgError, cho_solve_banded, cholesky_banded

from napari_defects.gaussian.solvers import Common
from napari_defects.gaussian.windows import Array

_RIDGE = 1e-6  # relative; ten times more where it does not make the matrix positive definite


class Shared:
    """Widths, few, that know of everything, and nodes of the background that know of those around them.

    Parameters
    ----------
    widths : ndarray, shape (group, group)
    joint : ndarray, shape (group, node)
    band : ndarray, shape (offset, node)
        Row d has what each node knows of the d-th after it; nodes are counted row by row.
    """

    def __init__(self, widths: Array, joint: Array, band: Array) -> None:
        self.widths, self.joint, self.band = widths, joint, band
        self.used = np.flatnonzero(band.any(axis=1))
        self.root = 1 / np.sqrt(np.maximum(band[0], 1e-300))
        self.scaled, n = band * self.root, band.shape[1]
        for d in self.used:
            self.scaled[d, : n - d] *= self.root[d:]
        self.common = cache(self._common)

    def _common(self, damping: float) -> Common:
        """Lay out what is shared, and what solves for it, the diagonal being so much larger."""
        factor, root = _factor(self.scaled, 1 + damping), self.root[:, None]
        reach = cho_solve_banded((factor, True), self.joint.T * root, check_finite=False) * root
        corner = self.widths * (1 + damping * np.eye(len(self.widths))) - self.joint @ reach
        inverse = np.linalg.pinv(corner, rcond=1e-9, hermitian=True) if len(corner) > 1 else 1 / corner
        return Common(
            self.widths, self.joint, self.used, np.ascontiguousarray(self.band[self.used]),
            np.ascontiguousarray(factor.T), self.root, np.ascontiguousarray(reach), np.ascontiguousarray(inverse),
        )  # fmt: skip


def _factor(band: Array, diagonal: float) -> Array:
    """Cholesky factor of a banded matrix of unit diagonal, made `diagonal`."""
    ridge = _RIDGE
    while True:
        band[0] = diagonal + ridge
        try:
            return np.asarray(cholesky_banded(band, lower=True, check_finite=False))
        except LinAlgError:
            ridge *= 10
