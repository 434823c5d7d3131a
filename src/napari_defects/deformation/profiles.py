"""Strain and displacement as images, along lines, and by distance from a defect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.interpolate import LinearNDInterpolator

from ..checks import check_choice, check_place, check_range
from ..tables import check
from .shifts import DISPLACEMENT

Array = npt.NDArray[np.float64]

_PLACED = ("frame", "y_ideal_nm", "x_ideal_nm")


def strain_image(
    strain: pd.DataFrame,
    component: str,
    shape: tuple[int, int],
    pixel_size_nm: float | tuple[float, float],
    *,
    origin_nm: tuple[float, float] = (0.0, 0.0),
    frame: int = 0,
) -> npt.NDArray[np.float32]:
    """Interpolate a column of a STRAIN table between the columns of the crystal.

    Parameters
    ----------
    strain : DataFrame
        STRAIN table.
    component : str
        Name of the table's column: ``"exx"``, ``"dilation"``, ``"exx_err"``, ``"ux_pm"``, ...
    shape : (int, int)
        Height and width of the image in pixels.
    pixel_size_nm : float or (float, float)
    origin_nm : (float, float)
        Position (y, x) of pixel (0, 0).
    frame : int

    Returns
    -------
    ndarray of float32, shape `shape`
        NaN outside the columns.
    """
    strain = _with(strain, component)
    check_range("frame", frame, 0, whole=True)
    for size in np.ravel(pixel_size_nm):
        check_range("pixel_size_nm", size, 0, above=True)
    pixel = np.broadcast_to(np.asarray(pixel_size_nm, float), (2,))
    origin = check_place("origin_nm", origin_nm)
    rows = strain[(strain["frame"] == frame) & strain[component].notna() & strain["y_ideal_nm"].notna()]
    if len(rows) < 4:
        return np.full(shape, np.nan, np.float32)
    axes = [origin[k] + pixel[k] * np.arange(shape[k]) for k in (0, 1)]
    inside = LinearNDInterpolator(rows[["y_ideal_nm", "x_ideal_nm"]].to_numpy(), rows[component].to_numpy(float))
    return np.asarray(inside(*np.meshgrid(*axes, indexing="ij")), np.float32)


@dataclass(frozen=True)
class LineProfile:
    """Values along a line.

    Parameters
    ----------
    component : str
    distance_nm : ndarray, shape (n,)
        From the line's start.
    value, err : ndarray, shape (n,)
        1 sigma errors.
    """

    component: str
    distance_nm: Array
    value: Array
    err: Array

    def to_frame(self) -> pd.DataFrame:
        """Table of distance_nm, value and err."""
        return pd.DataFrame({"distance_nm": self.distance_nm, "value": self.value, "err": self.err})


def line_profile(
    strain: pd.DataFrame,
    component: str,
    start_nm: npt.ArrayLike,
    end_nm: npt.ArrayLike,
    *,
    width_nm: float = 0.2,
    step_nm: float | None = None,
    frame: int = 0,
) -> LineProfile:
    """Strain, or any other column of a STRAIN table, along a line.

    Parameters
    ----------
    strain : DataFrame
        STRAIN table.
    component : str
    start_nm, end_nm : array_like, shape (2,)
        (y, x).
    width_nm : float
        Columns of the crystal within half of it on either side belong to the line.
    step_nm : float, optional
        Average in steps of this length, weighted by the errors; None gives one point per column.
    frame : int

    Returns
    -------
    LineProfile
    """
    strain = _with(strain, component)
    check_range("width_nm", width_nm, 0, above=True)
    if step_nm is not None:
        check_range("step_nm", step_nm, 0, above=True, hint="or None for one point per column")
    start, end = check_place("start_nm", start_nm), check_place("end_nm", end_nm)
    length = float(np.linalg.norm(end - start))
    if length == 0:
        raise ValueError("`start_nm` and `end_nm` are the same point; draw a longer line.")
    along = (end - start) / length
    rows = strain[(strain["frame"] == frame) & strain[component].notna()]
    offset = rows[["y_ideal_nm", "x_ideal_nm"]].to_numpy() - start
    distance, aside = offset @ along, np.abs(offset @ np.array([along[1], -along[0]]))
    on = (distance >= -1e-9) & (distance <= length + 1e-9) & (aside <= width_nm / 2)
    rows, distance = rows[on], distance[on]
    errors = next((e for e in _error_names(component) if e in rows.columns), None)
    value = rows[component].to_numpy(float)
    err = rows[errors].to_numpy(float) if errors else np.full(len(rows), np.nan)
    if step_nm is not None:
        weight = np.where(np.isfinite(err) & (err > 0), 1 / np.square(np.where(err > 0, err, 1)), 0.0)
        known = bool(weight.any())
        weight = weight if known else np.ones_like(value)
        bins = np.floor(np.maximum(distance, 0) / step_nm).astype(int)
        total = np.bincount(bins, weight)
        full = total > 0
        value = np.bincount(bins, weight * value)[full] / total[full]
        distance = np.bincount(bins, weight * distance)[full] / total[full]
        err = 1 / np.sqrt(total[full]) if known else np.full(int(full.sum()), np.nan)
    order = np.argsort(distance)
    return LineProfile(component, distance[order], value[order], err[order])


def _with(strain: pd.DataFrame, component: str) -> pd.DataFrame:
    """Return a table whose rows have places, and a component; ValueError where it has not."""
    strain = check(strain, "strain", _PLACED)
    check_choice("component", component, strain.columns)
    return strain


def _error_names(component: str) -> list[str]:
    """Names under which the error of a column may stand."""
    stem, _, unit = component.rpartition("_")
    return [f"{component}_err"] + ([f"{stem}_err_{unit}"] if stem else [])


def radial_profile(
    strain: pd.DataFrame, center_nm: npt.ArrayLike = (0.0, 0.0), *, tolerance_nm: float = 0.01, reach_nm: float = 2.0
) -> pd.DataFrame:
    """Displacement away from a defect, by shells of columns at equal distance.

    Parameters
    ----------
    strain : DataFrame
        Table of `displacements` or `strain`, of one frame.
    center_nm : array_like, shape (2,)
        The defect, (y, x).
    tolerance_nm : float
        Columns whose ideal distances differ by less are of one shell.
    reach_nm : float
        Farthest shell.

    Returns
    -------
    DataFrame
        r_nm, sublattice, columns (their number), radial_pm, radial_err_pm (of the mean over the
        shell), turning_pm (perpendicular, from x towards y), turning_err_pm, spread_pm (standard
        deviation within the shell).
    """
    strain = check(strain, "strain", [*_PLACED, "sublattice", *DISPLACEMENT])
    check_range("tolerance_nm", tolerance_nm, 0)
    check_range("reach_nm", reach_nm, 0, above=True)
    x = strain[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float) - check_place("center_nm", center_nm)
    u, err = strain[["uy_pm", "ux_pm"]].to_numpy(float), strain[["uy_err_pm", "ux_err_pm"]].to_numpy(float)
    r = np.linalg.norm(x, axis=1)
    rows, copies = [], strain.attrs.get("copies", 1)
    for name in dict.fromkeys(strain["sublattice"]):
        member = (
            (strain["sublattice"] == name).to_numpy() & np.isfinite(u).all(1) & (r > tolerance_nm) & (r <= reach_nm)
        )
        order = np.flatnonzero(member)[np.argsort(r[member], kind="stable")]
        for shell in np.split(order, np.flatnonzero(np.diff(r[order]) > tolerance_nm) + 1):
            if not len(shell):
                continue
            n = x[shell] / r[shell][:, None]
            across = n[:, ::-1] * (1, -1)
            row = {"r_nm": r[shell].mean(), "sublattice": name, "columns": len(shell)}
            for key, direction in (("radial", n), ("turning", across)):
                row[f"{key}_pm"] = (direction * u[shell]).sum(1).mean()
                row[f"{key}_err_pm"] = np.sqrt((direction**2 * err[shell] ** 2).sum() * min(copies, len(shell))) / len(
                    shell
                )
            row["spread_pm"] = (n * u[shell]).sum(1).std(ddof=1) if len(shell) > 1 else np.nan
            rows.append(row)
    return pd.DataFrame(rows).sort_values("r_nm", ignore_index=True) if rows else pd.DataFrame(columns=["r_nm"])
