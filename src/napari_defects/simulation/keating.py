"""Springs between bonded neighbours: relaxed structures of a flat sheet.

Keating's energy: bonds keep their length and the angle between two bonds stays near 120 degrees.
P. N. Keating, Phys. Rev. 145, 637 (1966).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

Array = npt.NDArray[np.float64]
Bond = tuple[int, int]
_STRETCH, _BEND = 1.0, 0.22


def bond(a: int, b: int) -> Bond:
    """Key of the bond between two atoms."""
    return (min(a, b), max(a, b))


def wrapped(delta: Array, edges: Array) -> Array:
    """Shortest of the periodic images of vectors (..., 2), for a cell with the given edges."""
    fraction = delta @ np.linalg.inv(edges)
    return np.asarray((fraction - np.round(fraction)) @ edges)


def relaxed(
    start: Array, edges: Array, bonds: set[Bond], lengths: dict[Bond, float], usual: float, soft: Collection[int]
) -> Array:
    """Positions of least Keating energy.

    Parameters
    ----------
    start : ndarray, shape (atom, 2)
    edges : ndarray, shape (2, 2)
        Of the periodic cell, as rows.
    bonds : set of (int, int)
    lengths : dict
        Rest lengths of bonds other than `usual`.
    usual : float
    soft : collection of int
        Atoms whose own angles cost nothing.
    """
    pairs = np.array(sorted(bonds))
    rest = np.array([lengths.get((int(a), int(b)), usual) for a, b in pairs])
    bonded: dict[int, list[int]] = {}
    for a, b in pairs.tolist():
        bonded.setdefault(a, []).append(b)
        bonded.setdefault(b, []).append(a)
    angles = np.array([(k, n[i], n[j]) for k, n in bonded.items() if k not in soft
                       for i in range(len(n)) for j in range(i)])  # fmt: skip
    rest_of = {tuple(pair): length for pair, length in zip(pairs.tolist(), rest, strict=True)}
    product = np.array([rest_of[bond(k, i)] * rest_of[bond(k, j)] for k, i, j in angles.tolist()])

    def energy(flat: Array) -> tuple[float, Array]:
        x = flat.reshape(-1, 2)
        d = wrapped(x[pairs[:, 1]] - x[pairs[:, 0]], edges)
        stretch = ((d**2).sum(1) - rest**2) / rest
        u = wrapped(x[angles[:, 1]] - x[angles[:, 0]], edges)
        v = wrapped(x[angles[:, 2]] - x[angles[:, 0]], edges)
        scale = np.sqrt(product)
        bend = ((u * v).sum(1) + product / 2) / scale
        gradient = np.zeros_like(x)
        pull = (2 * _STRETCH * stretch / rest * 2)[:, None] * d
        np.add.at(gradient, pairs[:, 1], pull)
        np.add.at(gradient, pairs[:, 0], -pull)
        twist = (2 * _BEND * bend / scale)[:, None]
        np.add.at(gradient, angles[:, 1], twist * v)
        np.add.at(gradient, angles[:, 2], twist * u)
        np.add.at(gradient, angles[:, 0], -twist * (u + v))
        return float(_STRETCH * (stretch**2).sum() + _BEND * (bend**2).sum()), gradient.ravel()

    found = minimize(energy, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-14})
    return np.asarray(found.x).reshape(-1, 2)
