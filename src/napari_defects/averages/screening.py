"""Strain that a member's surroundings have from elsewhere, and which members it rules out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree
from scipy.stats import median_abs_deviation

from .members import Ground

Array = npt.NDArray[np.float64]

_CORE_NM = 0.3
_FEWEST = 12  # columns around a member
_OUTLIER = 5.0  # robust standard deviations of the class
_SURE = 4.0  # standard errors


def gradients(ground: Ground | None, members: pd.DataFrame, maps: Array, radius_nm: float) -> tuple[Array, Array]:
    """Gradient of the displacement around each member, core left out, against the lattice.

    Parameters
    ----------
    ground : Ground or None
        With `sites`; without, nothing is known.
    members : DataFrame
        frame, y_nm, x_nm.
    maps : ndarray, shape (n, 2, 2)
        From the frame of the class to the image.
    radius_nm : float

    Returns
    -------
    gradient, err : ndarray, shape (n, 2, 2)
        du_a / dx_b in the frame of the class, and 1 sigma; NaN where too few columns are near.
    """
    gradient, error = np.full((len(members), 2, 2), np.nan), np.full((len(members), 2, 2), np.nan)
    if ground is None or ground.sites is None:
        return gradient, error
    sites = ground.sites[ground.sites["i"].notna() & ground.sites["y_nm"].notna()]
    ideal = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    u = sites[["y_nm", "x_nm"]].to_numpy(float) - ideal
    for _, rows in sites.reset_index(drop=True).groupby(["frame", "sublattice"]).groups.items():
        u[rows] -= np.median(u[rows], axis=0)  # probe and detector move sublattices, each as a whole
    centers, frames = members[["y_nm", "x_nm"]].to_numpy(float), members["frame"].to_numpy()
    usable = np.isfinite(centers).all(1) & np.isfinite(maps).all((1, 2))
    for frame in np.unique(frames):
        own = np.flatnonzero((sites["frame"] == frame).to_numpy())
        if not len(own):
            continue
        tree = cKDTree(ideal[own])
        for k in np.flatnonzero(usable & (frames == frame)):
            near = own[tree.query_ball_point(centers[k], radius_nm)]
            inverse = np.linalg.inv(maps[k])
            x, v = (ideal[near] - centers[k]) @ inverse.T, u[near] @ inverse.T
            far = np.hypot(*x.T) > _CORE_NM
            if far.sum() < _FEWEST:
                continue
            design = np.column_stack([np.ones(far.sum()), x[far]])
            inverted = np.linalg.pinv(design.T @ design)
            solution = inverted @ design.T @ v[far]
            rest = ((v[far] - design @ solution) ** 2).sum(0) / (far.sum() - 3)
            gradient[k] = solution[1:].T
            error[k] = np.sqrt(np.outer(rest, np.diag(inverted)[1:]))
    return gradient, error


def strain_of(gradient: Array, err: Array, usual: npt.NDArray[np.bool_]) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Largest principal strain beyond the class's median, its error, and which members are outliers.

    Parameters
    ----------
    gradient, err : ndarray, shape (n, 2, 2)
    usual : ndarray of bool, shape (n,)
        Members that say what is usual.
    """
    e, de = (np.stack([g[:, 0, 0], g[:, 1, 1], (g[:, 0, 1] + g[:, 1, 0]) / 2], -1) for g in (gradient, err))
    known = usual & np.isfinite(e).all(1)
    outlier = np.zeros(len(e), bool)
    if known.any():
        e = e - np.median(e[known], axis=0)
        spread = median_abs_deviation(e[known], axis=0, scale="normal")
        outlier = (np.abs(e) > np.maximum(_OUTLIER * spread, _SURE * de)).any(1) & (known.sum() >= 5)
    principal = np.abs((e[:, 0] + e[:, 1]) / 2) + np.hypot((e[:, 0] - e[:, 1]) / 2, e[:, 2])
    return principal, np.sqrt((de**2).mean(1)), outlier
