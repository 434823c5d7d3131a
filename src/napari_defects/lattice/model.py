"""A crystal's lattice as it lies in an image: vectors, origin, smooth distortion; from sites to places and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crystals import Crystal
from .distortion import Distortion

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lattice:
    """A crystal's lattice as it lies in an image.

    Parameters
    ----------
    crystal : Crystal
    origin_nm, a1_nm, a2_nm : ndarray, shape (2,)
        Origin of cell (0, 0) and lattice vectors, each (y, x) in nm.
    distortion : Distortion, optional
        Smooth displacement by the scan, added to the affine lattice.
    residual_pm : float
        Root mean square distance per axis between atoms and lattice, outliers left out.
    frames : tuple of Lattice
        One lattice per frame of a movie; empty for a still.
    spread : ndarray, shape (term, term)
        Inverse of the normal matrix of everything fitted: with the residual, the uncertainty of each site.
    """

    crystal: Crystal
    origin_nm: Array
    a1_nm: Array
    a2_nm: Array
    distortion: Distortion | None = None
    residual_pm: float = float("nan")
    frames: tuple[Lattice, ...] = ()
    spread: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def at(self, frame: int) -> Lattice:
        """Lattice of one frame; a still's is the same for all."""
        return self.frames[min(int(frame), len(self.frames) - 1)] if self.frames else self

    @property
    def vectors_nm(self) -> Array:
        """Lattice vectors as rows (a1, a2), each (y, x)."""
        return np.array([self.a1_nm, self.a2_nm], float)

    @property
    def _deformation(self) -> tuple[Array, Array, Array]:
        """SVD of the linear map from the crystal's own vectors to these, as it acts on columns (y, x)."""
        left, stretch, right = np.linalg.svd(np.linalg.solve(self.crystal.vectors_nm, self.vectors_nm).T)
        return left, stretch, right

    @property
    def scale(self) -> float:
        """Length in the image over length in the crystal; 1.03 where the pixel size is stated 3 % too large."""
        return float(np.sqrt(np.prod(self._deformation[1])))

    @property
    def shear(self) -> float:
        """How much longer the lattice is along its most stretched direction than across it, minus one."""
        stretch = self._deformation[1]
        return float(stretch[0] / stretch[1] - 1)

    @property
    def rotation_deg(self) -> float:
        """Rotation from the crystal's own orientation (a1 along x), from x towards y (down)."""
        left, _, right = self._deformation
        turn = left @ right
        return float(np.rad2deg(np.arctan2(turn[0, 1], turn[1, 1])))

    def position(self, i: Any, j: Any, sublattice: Any) -> Array:
        """Where the image shows a site.

        Parameters
        ----------
        i, j : array_like of int
            Cell indices; one stands for all.
        sublattice : array_like of int or str
            Index or name of the sublattice; one stands for all.

        Returns
        -------
        ndarray, shape (n, 2)
            (y, x) in nm, the scan distortion included.
        """
        affine = self.origin_nm + self._cells(i, j, sublattice) @ self.vectors_nm
        return affine if self.distortion is None else affine + self.distortion(affine)

    def position_err(self, i: Any, j: Any, sublattice: Any) -> Array:
        """1 sigma of where a site is expected, per axis, in nm, shape (n,); NaN where the lattice was not fitted."""
        cells = self._cells(i, j, sublattice)
        if not len(self.spread):
            return np.full(len(cells), np.nan)
        terms = fitted_terms(self.origin_nm + cells @ self.vectors_nm, self.distortion)
        variance = np.einsum("nt,tu,nu->n", terms, self.spread, terms)
        return np.asarray(1e-3 * self.residual_pm * np.sqrt(np.maximum(variance, 0)))

    def index(self, points_nm: Any) -> tuple[Indices, Indices, Indices]:
        """Find the site nearest to each position.

        Parameters
        ----------
        points_nm : array_like, shape (n, 2)
            (y, x) in nm.

        Returns
        -------
        i, j, sublattice : ndarrays of int, shape (n,)

        Raises
        ------
        ValueError
            If a position is not finite.
        """
        points = np.asarray(points_nm, float)
        points = np.atleast_2d(points) if points.size else points.reshape(0, 2)
        if points.shape[1:] != (2,) or not np.isfinite(points).all():
            bad = int(np.sum(~np.isfinite(points)))
            raise ValueError(
                f"`points_nm` must be finite places (y, x), shape (n, 2), got {points.shape} with {bad} not finite."
            )
        cells = (self._undistorted(points) - self.origin_nm) @ np.linalg.inv(self.vectors_nm)
        corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
        fractions = self.crystal.fractions
        found = np.floor(cells[:, None] - fractions)[:, :, None] + corners  # (n, sublattice, corner, 2)
        distance = np.linalg.norm((found + fractions[:, None] - cells[:, None, None]) @ self.vectors_nm, axis=-1)
        best = distance.reshape(len(cells), 4 * len(fractions)).argmin(1)
        ij = found.reshape(len(cells), 4 * len(fractions), 2)[np.arange(len(cells)), best].astype(np.int64)
        return ij[:, 0], ij[:, 1], (best // 4).astype(np.int64)

    def _undistorted(self, points_nm: Array) -> Array:
        affine = points_nm
        if self.distortion is not None:
            for _ in range(6):
                affine = points_nm - self.distortion(affine)
        return affine

    def _cells(self, i: Any, j: Any, sublattice: Any) -> Array:
        """Fractional coordinates of sites, shape (n, 2)."""
        i, j, number = np.broadcast_arrays(*(np.atleast_1d(np.asarray(k, float)) for k in (i, j)),
                                           self._numbers(sublattice))  # fmt: skip
        return np.asarray(np.column_stack([i, j]) + self.crystal.fractions[number])

    def _numbers(self, sublattice: Any) -> Indices:
        names = np.atleast_1d(np.asarray(sublattice))
        order = {s.name: n for n, s in enumerate(self.crystal.sublattices)}
        if names.dtype.kind in "iu":
            if ((names < 0) | (names >= len(order))).any():
                raise ValueError(f"`sublattice` must be 0 to {len(order) - 1} or a name, got {sublattice!r}.")
            return names.astype(np.int64)
        unknown = sorted({str(n) for n in names} - set(order))
        if unknown:
            raise ValueError(f"`sublattice` must be one of {', '.join(order)}, got {', '.join(unknown)}.")
        return np.array([order[str(n)] for n in names], np.int64)


def fitted_terms(affine_nm: Array, distortion: Distortion | None) -> Array:
    """Return all that a lattice is a linear function of: places, or the scan's smooth functions, shape (n, term)."""
    return np.column_stack([np.ones(len(affine_nm)), affine_nm]) if distortion is None else distortion.terms(affine_nm)
