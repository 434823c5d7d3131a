"""An inclusion fitted to the displacements around a defect, and a test for what it cannot explain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2 as chi2_distribution
from scipy.stats import f as f_distribution

from ..checks import check_choice, check_place, check_range
from ..crystals import CRYSTALS
from ..deformation import strain as gradient
from ..tables import Strain, check
from .inclusion import basis, strain_tensor
from .oscillation import Oscillation, find_oscillation

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EshelbyFit:
    """An inclusion fitted to the displacements around a defect.

    Parameters
    ----------
    c_nm2, c_err_nm2 : float
        C = (1 + nu) t R^2 / 2 of the dilatational part: u = C x / r^2 outside.
    deviator_nm2, deviator_err_nm2 : ndarray, shape (2,)
        R^2 d_xx and R^2 d_xy (d_yy = -d_xx); zero unless a general eigenstrain was fitted.
    radius_nm, radius_err_nm : float
        R; NaN when the data do not fix it.
    center_nm : ndarray, shape (2,)
    poisson_ratio : float
    chi2 : float
    dof : int
    p_value : float
        Chance of so large a chi-square if the model and the errors are right; of noise as drawn, where it was given.
    residuals : DataFrame
        Rows used: y_nm, x_nm, r_nm, angle_rad, radial_pm, radial_err_pm, model_pm (radial),
        uy_residual_pm, ux_residual_pm, sublattice.
    oscillation : Oscillation
    """

    c_nm2: float
    c_err_nm2: float
    deviator_nm2: Array
    deviator_err_nm2: Array
    radius_nm: float
    radius_err_nm: float
    center_nm: Array
    poisson_ratio: float
    chi2: float
    dof: int
    p_value: float
    residuals: pd.DataFrame = field(repr=False)
    oscillation: Oscillation

    def displacement_pm(self, positions_nm: npt.ArrayLike) -> Array:
        """Fitted (u_y, u_x) in pm at positions (y, x), shape (..., 2); the field outside R."""
        x = np.asarray(positions_nm, float) - self.center_nm
        strengths = np.array([self.c_nm2, *self.deviator_nm2])
        radius = 0.0 if np.isnan(self.radius_nm) else self.radius_nm
        return np.asarray(1000 * np.einsum("...ip,p->...i", basis(x, radius, self.poisson_ratio), strengths))

    def strain(self, positions_nm: npt.ArrayLike) -> pd.DataFrame:
        """Fitted eyy, exx, exy, dilation and rotation_rad (0) at positions (y, x), shape (n, 2)."""
        x = np.asarray(positions_nm, float) - self.center_nm
        radius = 1e-4 if np.isnan(self.radius_nm) else max(self.radius_nm, 1e-4)
        dxx, dxy = self.deviator_nm2 / radius**2
        t = 2 * self.c_nm2 / (1 + self.poisson_ratio) / radius**2
        tensor = np.array([[t - dxx, dxy], [dxy, t + dxx]])
        e = strain_tensor(x, tensor, radius, poisson_ratio=self.poisson_ratio)
        columns = {"eyy": e[:, 0, 0], "exx": e[:, 1, 1], "exy": e[:, 0, 1], "dilation": e[:, 0, 0] + e[:, 1, 1]}
        return pd.DataFrame(columns | {"rotation_rad": np.zeros(len(x))})

    def as_strain(self, strain: pd.DataFrame, *, neighbors: int = 6) -> Strain:
        """Return the fitted field on the columns of a STRAIN table, its strain by the code that measures strain.

        The stencil blurs both alike; the field itself is in `strain`.
        """
        table = strain.copy()
        table[["uy_pm", "ux_pm"]] = self.displacement_pm(table[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float))
        table[["uy_err_pm", "ux_err_pm"]] = np.nan
        table.attrs = dict(strain.attrs)
        return gradient(table, neighbors=neighbors)

    def to_frame(self) -> pd.DataFrame:
        """Return every number of the fit as a table of quantity, value and err."""
        wave = self.oscillation
        rows = [
            ("C_nm2", self.c_nm2, self.c_err_nm2),
            ("R2dxx_nm2", self.deviator_nm2[0], self.deviator_err_nm2[0]),
            ("R2dxy_nm2", self.deviator_nm2[1], self.deviator_err_nm2[1]),
            ("R_nm", self.radius_nm, self.radius_err_nm),
            ("poisson_ratio", self.poisson_ratio, np.nan),
            ("chi2", self.chi2, np.nan), ("dof", self.dof, np.nan), ("p_value", self.p_value, np.nan),
            ("oscillation_p_value", wave.p_value, np.nan),
            ("oscillation_wavelength_nm", wave.wavelength_nm, wave.wavelength_err_nm),
            ("oscillation_decay_nm", wave.decay_nm, np.nan),
            ("oscillation_amplitude_pm", wave.amplitude_pm, wave.amplitude_err_pm),
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["quantity", "value", "err"])


def fit_eshelby(
    strain: pd.DataFrame,
    center_nm: npt.ArrayLike = (0.0, 0.0),
    *,
    exclude_nm: float = 0.3,
    reach_nm: float | None = None,
    eigenstrain: Literal["dilatation", "general"] = "dilatation",
    poisson_ratio: float | None = None,
    background: Literal["offsets", "affine"] = "offsets",
    draws_pm: Array | None = None,
    n_null: int = 2000,
    seed: int = 0,
) -> EshelbyFit:
    """Fit a circular inclusion to the displacements around a defect.

    The displacements are fitted, not the strains, as only their errors are independent. Beside the
    inclusion a rigid offset per sublattice is free, and with ``background="affine"`` a uniform
    strain and rotation too.

    Parameters
    ----------
    strain : DataFrame
        STRAIN table, of a class average, an image or a relaxed structure (without errors: all are
        then taken as 1 pm).
    center_nm : array_like, shape (2,)
        The defect, (y, x).
    exclude_nm : float
        Columns closer than this are left out: the core is not elastic.
    reach_nm : float, optional
        Columns farther than this are left out; None for all.
    eigenstrain : {"dilatation", "general"}
        Whether the inclusion may be anisotropic.
    poisson_ratio : float, optional
        None for that of the crystal named in ``strain.attrs["crystal"]``, else 0.2. Without a
        deviator it does not enter C.
    background : {"offsets", "affine"}
        What the reference lattice may have wrong, fitted beside the inclusion: a rigid offset of each
        sublattice, or a uniform strain and rotation as well.
    draws_pm : ndarray, shape (m, row, 2), optional
        Noise of uy_pm and ux_pm of each row, from `ClassAverage.draws`, for the errors of the inclusion and both
        p-values: neighbouring columns share some; None takes it from the errors of the rows, as if they did not.
    n_null : int
        Number of draws from the errors.
    seed : int

    Returns
    -------
    EshelbyFit

    Raises
    ------
    ValueError
        If an argument is out of range, or fewer than 6 columns with errors are left.
    """
    table, center = check(strain, "strain"), check_place("center_nm", center_nm)
    check_choice("eigenstrain", eigenstrain, ("dilatation", "general"))
    check_choice("background", background, ("offsets", "affine"))
    check_range("n_null", n_null, 1, whole=True)
    if poisson_ratio is None:
        crystal = CRYSTALS.get(str(strain.attrs.get("crystal")))
        poisson_ratio = crystal.poisson_ratio if crystal else 0.2
    use = _selected(table, center, exclude_nm, np.inf if reach_nm is None else reach_nm)
    noise = None
    if draws_pm is not None:
        if np.shape(draws_pm)[1:] != (len(table), 2):
            raise ValueError(f"`draws_pm` must be of shape (m, {len(table)}, 2), got {np.shape(draws_pm)}.")
        noise = np.asarray(draws_pm, float)[:, use] / 1000
    table = table[use].reset_index(drop=True)
    x = table[["y_ideal_nm", "x_ideal_nm"]].to_numpy() - center
    u, r = table[["uy_pm", "ux_pm"]].to_numpy() / 1000, np.linalg.norm(x, axis=1)
    copies = int(strain.attrs.get("copies", 1))
    err = _errors(table) * np.sqrt(copies)  # symmetric copies are not independent
    nuisance = _nuisance(x, table["sublattice"].to_numpy(), background)
    n_strengths = 3 if eigenstrain == "general" else 1

    def solve(radius: float) -> tuple[float, Array, Array]:
        design = np.concatenate([basis(x, radius, poisson_ratio)[..., :n_strengths], nuisance], -1)
        a, b = (design / err[..., None]).reshape(u.size, -1), (u / err).ravel()
        solution = np.linalg.lstsq(a, b, rcond=None)[0]
        return float(((b - a @ solution) ** 2).sum()), solution, np.linalg.pinv(a.T @ a)

    radius, radius_err = np.nan, np.nan
    if eigenstrain == "general":  # R enters through q^2 only: keep it where chi-square says so on both sides
        grid = np.linspace(0, r.min(), 41)
        curve = np.array([solve(value)[0] for value in grid])
        best = int(curve.argmin())
        inside = grid[curve < curve[best] + 1]
        if 0 < best < 40 and inside[0] > 0 and inside[-1] < grid[-1]:
            radius, radius_err = float(grid[best]), float(np.ptp(inside) / 2 + grid[1] / 2)
    chi2, solution, covariance = solve(0.0 if np.isnan(radius) else radius)
    sigma = np.sqrt(np.diag(covariance))
    left_over = None
    if noise is not None:
        design = np.concatenate([basis(x, 0.0 if np.isnan(radius) else radius, poisson_ratio), nuisance], -1)
        design = np.delete(design, np.arange(n_strengths, 3), axis=-1) / err[..., None]
        design, white = design.reshape(u.size, -1), (noise / err).reshape(len(noise), -1).T
        drawn = np.linalg.pinv(design) @ white
        sigma, left_over = drawn.std(axis=1), white - design @ drawn
    strengths, strength_errs = np.zeros(3), np.zeros(3)
    strengths[:n_strengths], strength_errs[:n_strengths] = solution[:n_strengths], sigma[:n_strengths]
    fields = basis(x, 0.0 if np.isnan(radius) else radius, poisson_ratio)
    model, offset = fields @ strengths, nuisance @ solution[n_strengths:]
    free = len(solution) if copies == 1 else n_strengths  # offsets and gradients of a symmetric average are zero
    dof = max(round(u.size / copies) - free - int(np.isfinite(radius)), 1)
    taken = np.concatenate([fields[..., :n_strengths], nuisance], -1)
    return EshelbyFit(
        c_nm2=float(strengths[0]),
        c_err_nm2=float(strength_errs[0]),
        deviator_nm2=strengths[1:],
        deviator_err_nm2=strength_errs[1:],
        radius_nm=radius,
        radius_err_nm=radius_err,
        center_nm=center,
        poisson_ratio=poisson_ratio,
        chi2=chi2,
        dof=dof,
        p_value=_chance(chi2, dof) if left_over is None else _chance_by_draws(chi2, left_over),
        residuals=_residuals(table, x, u - offset, err, model),
        oscillation=find_oscillation(x, u, err, taken, draws=noise, n_null=n_null, seed=seed),
    )


def _chance(chi2: float, dof: int) -> float:
    """Probability of a chi-square as large, of independent noise of known strength."""
    return float(chi2_distribution.sf(chi2, dof))


def _chance_by_draws(chi2: float, noise: Array) -> float:
    """Probability of a chi-square as large, of noise as drawn, (2 x row, draw): correlated, and known from few parts.

    Its sum of squares is taken as a multiple of a chi-square with as many degrees of freedom as its variance has
    (Satterthwaite), and the multiple as uncertain as so many independent parts leave it.
    """
    total, parts = np.sum(noise**2, axis=0), int(np.linalg.matrix_rank(noise))
    freedom = np.clip(2 * total.mean() ** 2 / max(float(total.var()), 1e-300), 1, len(noise))
    usual = total.mean() * max(parts - 2, 1) / parts  # `ClassAverage.draws` are wider by that
    return float(f_distribution.sf(chi2 / usual, freedom, parts * freedom))


def _errors(table: pd.DataFrame) -> Array:
    """1 sigma of the displacements in nm, shape (n, 2)."""
    err = table[["uy_err_pm", "ux_err_pm"]].to_numpy() / 1000
    return err if np.isfinite(err).any() else np.full_like(err, 1e-3)  # a structure is exact: chi-square is in pm^2


def _selected(table: pd.DataFrame, center: Array, exclude_nm: float, reach_nm: float) -> npt.NDArray[np.bool_]:
    """Rows with displacement and error around the core; ValueError where they are too few."""
    r = np.linalg.norm(table[["y_ideal_nm", "x_ideal_nm"]].to_numpy() - center, axis=1)
    u, err = table[["uy_pm", "ux_pm"]].to_numpy(), _errors(table)
    use = (r >= exclude_nm) & (r <= reach_nm) & np.isfinite(u).all(1) & np.isfinite(err).all(1) & (err > 0).all(1)
    if use.sum() < 6:
        raise ValueError(
            f"only {int(use.sum())} columns with displacement and error lie outside `exclude_nm` = {exclude_nm} nm of "
            f"{center}; at least 6 are needed: make it smaller or the averaged patch larger."
        )
    return np.asarray(use)


def _residuals(table: pd.DataFrame, x: Array, u: Array, err: Array, model: Array) -> pd.DataFrame:
    """Return what was fitted, less its offset, and what is left of it; all in pm."""
    r = np.linalg.norm(x, axis=1)
    n, left = x / r[:, None], u - model
    return pd.DataFrame({
        "y_nm": table["y_ideal_nm"], "x_nm": table["x_ideal_nm"], "sublattice": table["sublattice"], "r_nm": r,
        "angle_rad": np.arctan2(x[:, 0], x[:, 1]), "radial_pm": 1000 * (n * u).sum(1),
        "radial_err_pm": 1000 * np.sqrt((n**2 * err**2).sum(1)), "model_pm": 1000 * (n * model).sum(1),
        "uy_residual_pm": 1000 * left[:, 0], "ux_residual_pm": 1000 * left[:, 1],
    })  # fmt: skip


def _nuisance(x: Array, sublattice: npt.NDArray[np.object_], background: str) -> Array:
    """Fields that the reference may have wrong: offsets per sublattice, a uniform gradient; (n, 2, p)."""
    fields = [np.where((sublattice == s)[:, None], axis, 0.0) for s in np.unique(sublattice) for axis in np.eye(2)]
    if background == "affine":
        fields += [x[:, [k]] * axis for k in (0, 1) for axis in np.eye(2)]
    return np.stack(fields, -1)
