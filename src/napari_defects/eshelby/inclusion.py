"""The Eshelby inclusion in two dimensions: its displacement and its strain.

A circle of radius R has the eigenstrain e* = t I + d (d without trace) and the elastic constants of
its surroundings. With kappa = (3 - nu) / (1 + nu) in plane stress (a monolayer; 3 - 4 nu in plane
strain), q = R^2 / r^2 and n = x / r:

* inside: u = [2 t x + kappa d x] / (kappa + 1)
* outside: u = [2 t q x + ((kappa - 1) q + q^2) d x + 2 q (1 - q) (n d n) x] / (kappa + 1)

The dilatational field outside, in plane stress, is u = C x / r^2 with C = (1 + nu) t R^2 / 2: data
outside fix that product and not R (Eshelby, Proc. R. Soc. A 241, 376 (1957)).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Plane = Literal["stress", "strain"]


def _kappa(poisson_ratio: float, plane: Plane) -> float:
    if not -1 < poisson_ratio < (1 if plane == "stress" else 0.5):
        raise ValueError(f"`poisson_ratio` must be -1 to {1 if plane == 'stress' else 0.5}, got {poisson_ratio}.")
    return (3 - poisson_ratio) / (1 + poisson_ratio) if plane == "stress" else 3 - 4 * poisson_ratio


def _split(eigenstrain: float | npt.ArrayLike) -> tuple[float, Array]:
    """Return t and d of an eigenstrain given as a number (t) or as a symmetric (2, 2) tensor."""
    tensor = np.asarray(eigenstrain, float)
    tensor = tensor * np.eye(2) if tensor.ndim == 0 else tensor
    if tensor.shape != (2, 2) or not np.allclose(tensor, tensor.T):
        raise ValueError(f"`eigenstrain` must be a number or a symmetric (2, 2) tensor, got {eigenstrain!r}.")
    t = float(np.trace(tensor) / 2)
    return t, tensor - t * np.eye(2)


def displacement(
    offsets_nm: npt.ArrayLike,
    eigenstrain: float | npt.ArrayLike,
    radius_nm: float,
    *,
    poisson_ratio: float = 0.2,
    plane: Plane = "stress",
) -> Array:
    """Displacement field of a circular inclusion.

    Parameters
    ----------
    offsets_nm : array_like, shape (..., 2)
        Positions (y, x) from the inclusion's centre.
    eigenstrain : float or array_like, shape (2, 2)
        t of a dilatational inclusion, or the tensor in (y, x) order.
    radius_nm : float
    poisson_ratio : float
    plane : {"stress", "strain"}

    Returns
    -------
    ndarray, shape (..., 2)
        (u_y, u_x) in nm.
    """
    x = np.asarray(offsets_nm, float)
    kappa, (t, d) = _kappa(poisson_ratio, plane), _split(eigenstrain)
    r2 = np.maximum((x**2).sum(-1, keepdims=True), 1e-30)
    q = np.minimum(radius_nm**2 / r2, 1.0)
    dx = x @ d
    s = (x * dx).sum(-1, keepdims=True) / r2
    outside = 2 * t * q * x + ((kappa - 1) * q + q**2) * dx + 2 * q * (1 - q) * s * x
    return np.asarray(np.where(q < 1, outside, 2 * t * x + kappa * dx) / (kappa + 1))


def strain_tensor(
    offsets_nm: npt.ArrayLike,
    eigenstrain: float | npt.ArrayLike,
    radius_nm: float,
    *,
    poisson_ratio: float = 0.2,
    plane: Plane = "stress",
) -> Array:
    """Strain field of a circular inclusion; parameters as in `displacement`.

    Returns
    -------
    ndarray, shape (..., 2, 2)
        Total strain, the eigenstrain included, in (y, x) order: ``[..., 0, 0]`` is eyy.
    """
    x = np.asarray(offsets_nm, float)
    kappa, (t, d) = _kappa(poisson_ratio, plane), _split(eigenstrain)
    r2 = np.maximum((x**2).sum(-1), 1e-30)[..., None, None]
    q = np.minimum(radius_nm**2 / r2, 1.0)
    dx = x @ d
    identity = np.eye(2)
    xx, dxx = x[..., :, None] * x[..., None, :], dx[..., :, None] * x[..., None, :]
    s = (x * dx).sum(-1)[..., None, None] / r2
    slope = 4 * q * (1 - q) / r2  # of n d n: the gradient of s is 2 (d x - s x) / r^2
    gradient = (
        2 * t * q * (identity - 2 * xx / r2)
        + ((kappa - 1) * q + q**2) * d
        - 2 * q / r2 * (kappa - 1 + 2 * q) * dxx
        + 2 * q * (1 - q) * s * identity
        + slope * (np.swapaxes(dxx, -1, -2) - s * xx)
        - 4 * q / r2 * (1 - 2 * q) * s * xx
    )
    gradient = np.where(q < 1, gradient, 2 * t * identity + kappa * d) / (kappa + 1)
    return np.asarray((gradient + np.swapaxes(gradient, -1, -2)) / 2)


def basis(x: Array, radius_nm: float, poisson_ratio: float) -> Array:
    """Fields per unit C, R^2 d_xx and R^2 d_xy outside an inclusion: shape (..., 2, 3)."""
    kappa = _kappa(poisson_ratio, "stress")
    r2 = np.maximum((x**2).sum(-1, keepdims=True), 1e-30)
    q = radius_nm**2 / r2
    fields = [x / r2]
    for d in (np.array([[-1.0, 0], [0, 1]]), np.array([[0, 1.0], [1, 0]])):
        s = (x * (x @ d)).sum(-1, keepdims=True) / r2
        fields.append(((kappa - 1 + q) * (x @ d) + 2 * (1 - q) * s * x) / r2 / (kappa + 1))
    return np.stack(fields, -1)
