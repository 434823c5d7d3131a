"""Gaussian mixtures whose number of components the data choose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.special import logsumexp

Array = npt.NDArray[np.float64]

_MOST = 8
_STEPS = 200
_PRIOR = 5.0  # members that the noise counts for in each variance


def fit_mixture(points: Array, *, noise: float, most: int = _MOST) -> npt.NDArray[np.int64]:
    """Sort points into Gaussian components (diagonal covariance).

    Parameters
    ----------
    points : ndarray, shape (n, dimension)
    noise : float
        Rms scatter of a point along each axis, towards which the widths of small components are drawn.
    most : int
        Components at most.

    Returns
    -------
    ndarray of int, shape (n,)
        Component of each point; numbered from 0 without gaps.

    Notes
    -----
    Expectation–maximization from Ward's clusters, so that the result is the same every time; the number of components
    has the least Bayesian information criterion (Schwarz, Ann. Stat. 6, 461 (1978)).
    """
    n = len(points)
    tree = linkage(points, "ward") if n > 1 else None
    best, least = np.zeros(n, np.int64), np.inf
    for k in range(1, min(most, n) + 1):
        first = np.zeros(n, np.int64) if tree is None else fcluster(tree, k, "maxclust") - 1
        likelihood, member = _maximize(points, np.eye(first.max() + 1)[first], noise)
        criterion = (k * (points.shape[1] + 1) - 1) * np.log(n) - 2 * likelihood
        if criterion < least:
            best, least = member, criterion
    return np.unique(best, return_inverse=True)[1].astype(np.int64)


def _maximize(points: Array, share: Array, noise: float) -> tuple[float, npt.NDArray[np.int64]]:
    """Expectation–maximization; the likelihood and the component of each point."""
    for _ in range(_STEPS):
        weight = share.sum(0)[:, None] + 1e-12
        mean = share.T @ points / weight
        square = np.stack([share[:, c] @ (points - mean[c]) ** 2 for c in range(share.shape[1])])
        variance = (square + _PRIOR * noise**2) / (weight + _PRIOR)
        log = -0.5 * ((points[:, None] - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum(-1)
        log += np.log(weight[:, 0] / weight.sum())
        total = logsumexp(log, axis=1, keepdims=True)
        new = np.exp(log - total)
        settled = np.abs(new - share).max() < 1e-4
        share = new
        if settled:
            break
    return float(total.sum()), share.argmax(1)
