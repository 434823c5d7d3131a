"""The loop over the pixels of a patch: least squares of overlapping Gaussians, each felt only where it reaches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_REACH = 5.0  # standard deviations


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def normal_equations(
    place: Array, data: Array, weight: Array, plane: Array, yx: Array, tall: Array, width: Array, owner: Index,
    level: Array, normal: Array, force: Array,
) -> float:  # fmt: skip
    """Fill J^T W J and J^T W (data - model), and return chi squared.

    The parameters are (y, x) of every atom, the height of every bump, the logarithm of the common width, and the
    coefficients of `plane`. Bumps may share an atom (`owner`).

    Parameters
    ----------
    place : ndarray, shape (pixel, 2)
    data, weight : ndarray, shape (pixel,)
    plane : ndarray, shape (pixel, term)
    yx : ndarray, shape (atom, 2)
    tall, width : ndarray, shape (bump,)
    owner : ndarray of int, shape (bump,)
    level : ndarray, shape (term,)
    normal : ndarray, shape (parameter, parameter)
    force : ndarray, shape (parameter,)
    """
    atoms, bumps = len(yx), len(tall)
    index, slope = np.empty(3 * bumps + 1 + len(level), np.int64), np.empty(3 * bumps + 1 + len(level))
    normal[:], force[:] = 0.0, 0.0
    chi2 = 0.0
    for p in range(len(place)):
        n, value, widen = 0, 0.0, 0.0
        for b in range(bumps):
            k, narrow = owner[b], 1 / width[b]
            dy, dx = (place[p, 0] - yx[k, 0]) * narrow, (place[p, 1] - yx[k, 1]) * narrow
            far = dy * dy + dx * dx
            if far > _REACH**2:
                continue
            bump = np.exp(-0.5 * far)
            value += tall[b] * bump
            widen += tall[b] * bump * far
            for which, derivative in (
                (2 * k, tall[b] * bump * dy * narrow),
                (2 * k + 1, tall[b] * bump * dx * narrow),
                (2 * atoms + b, bump),
            ):
                index[n], slope[n] = which, derivative
                n += 1
        index[n], slope[n] = 2 * atoms + bumps, widen
        n += 1
        for t in range(len(level)):
            value += level[t] * plane[p, t]
            index[n], slope[n] = 2 * atoms + bumps + 1 + t, plane[p, t]
            n += 1
        rest = data[p] - value
        chi2 += weight[p] * rest * rest
        for a in range(n):  # half of it: what is missing is the same turned about
            share, row = weight[p] * slope[a], normal[index[a]]
            force[index[a]] += share * rest
            row[index[a]] += 0.5 * share * slope[a]
            for b in range(a + 1, n):
                row[index[b]] += share * slope[b]
    for a in range(len(force)):
        for b in range(a + 1):
            normal[a, b] = normal[b, a] = normal[a, b] + normal[b, a]
    return chi2
