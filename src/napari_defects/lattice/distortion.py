"""The smooth displacement that a scan adds to a lattice: drift along the slow axis, ramps along the fast one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.interpolate import BSpline

Array = npt.NDArray[np.float64]

SMOOTH_NM = (1.0, 3.0)
"""Shortest lengths on which the scan distortion may vary along (y, x). Drift is quick along the slow axis, where
every line is an average over many atoms; a point defect's own strain field is local in both and stays out."""

_ATOMS_PER_INTERVAL = 150


@dataclass(frozen=True, eq=False)
class Distortion:
    """A smooth displacement (y, x) in nm: splines along y and along x, and their mixed polynomial terms."""

    low_nm: Array
    high_nm: Array
    intervals: tuple[int, int]
    degree: int
    coefficients: Array

    def __call__(self, points_nm: Array) -> Array:
        """Displacement at undistorted positions, shape (n, 2); constant beyond the fitted area."""
        return self.terms(points_nm) @ self.coefficients if len(points_nm) else np.zeros((0, 2))

    def terms(self, points_nm: Array) -> Array:
        """Values of the basis functions, shape (n, term)."""
        t = np.clip((points_nm - self.low_nm) / (self.high_nm - self.low_nm), 0, 1)
        mixed = [
            t[:, 0] ** p * t[:, 1] ** q
            for p in range(1, self.degree)
            for q in range(1, self.degree)
            if p + q <= self.degree
        ]
        return np.column_stack([_spline_terms(t[:, axis], self.intervals[axis]) for axis in (0, 1)] + mixed)


def fit_distortion(points_nm: Array, displacement_nm: Array) -> tuple[Distortion | None, Array]:
    """Fit a distortion to displacements, outliers rejected.

    Parameters
    ----------
    points_nm, displacement_nm : ndarray, shape (n, 2)

    Returns
    -------
    Distortion or None
        None where there are too few points to tell.
    residual_nm : ndarray, shape (n, 2)
        What is left of the displacements.
    """
    if len(points_nm) < 60:
        return None, displacement_nm
    low, high = points_nm.min(0), points_nm.max(0)
    most = len(points_nm) / _ATOMS_PER_INTERVAL
    ny, nx = (int(max(1, min(most, side // smooth))) for side, smooth in zip(high - low, SMOOTH_NM, strict=True))
    form = Distortion(low, high, (ny, nx), 3 if len(points_nm) >= 150 else 2, np.zeros((0, 2)))
    coefficients, residual = robust_fit(form.terms(points_nm), displacement_nm)
    return replace(form, coefficients=coefficients), residual


def robust_fit(design: Array, values: Array) -> tuple[Array, Array]:
    """Least squares with Tukey's biweight: (coefficients, residuals)."""
    weight = np.ones(len(design))
    ridge = 1e-4 * np.eye(design.shape[1])
    for _ in range(5):
        weighted = (design * weight[:, None] ** 2).T
        coefficients = np.linalg.solve(weighted @ design + ridge, weighted @ values)
        residual = values - design @ coefficients
        distance = np.linalg.norm(residual, axis=1)
        limit = max(4 * float(np.median(distance)), 1e-9)
        weight = np.maximum(1 - (distance / limit) ** 2, 0)
    return np.asarray(coefficients), residual


def _spline_terms(t: Array, intervals: int) -> Array:
    """Cubic B-splines on 0 to 1, shape (n, intervals + 3)."""
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, intervals + 1), np.ones(3)])
    return np.asarray(BSpline.design_matrix(np.clip(t, 0, 1 - 1e-12), knots, 3).toarray())
