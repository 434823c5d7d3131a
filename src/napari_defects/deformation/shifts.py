"""How far columns are from where the lattice wants them: u = measured - reference."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..checks import check_choice, check_place, check_range, check_type
from ..lattice import Lattice
from ..tables import STRAIN, Strain, check

Array = npt.NDArray[np.float64]

DISPLACEMENT = ["uy_pm", "ux_pm", "uy_err_pm", "ux_err_pm"]
_SITE = ["frame", "i", "j", "sublattice"]
_FITS = ("offsets", "none", "affine")
_CLIP = 4.0


def displacements(
    sites: pd.DataFrame,
    lattice: Lattice | None = None,
    *,
    center_nm: npt.ArrayLike | None = None,
    exclude_nm: float = 0.5,
    fit: Literal["none", "offsets", "affine"] = "offsets",
    reference: pd.DataFrame | None = None,
) -> Strain:
    """Displacement of every column from the reference lattice.

    Parameters
    ----------
    sites : DataFrame
        SITES table.
    lattice : Lattice, optional
        Reference; None takes the sites' own ideal positions. Both hold the scan's distortion.
    center_nm : array_like, shape (2,), optional
        A defect whose surroundings the reference must not be fitted to.
    exclude_nm : float
        Radius of these surroundings; used only with `center_nm`.
    fit : {"offsets", "none", "affine"}
        What is adjusted before differences are taken: the offset of each sublattice, nothing, or the
        offsets and a uniform strain and rotation. A fitted strain takes part of a defect's own field.
    reference : DataFrame, optional
        STRAIN table of the pristine crystal or of the same defect without a field, measured in the
        same way: its displacements (the method's bias) are taken off, its errors added.

    Returns
    -------
    Strain
        With uy_pm, ux_pm and their errors filled; the strains are NaN.

    Raises
    ------
    TypeError
        If `sites` is no table, or `lattice` no Lattice.
    ValueError
        If columns are missing, an argument is out of range, or no column is left outside the excluded core.
    """
    table = check(sites, "sites")
    check_choice("fit", fit, _FITS)
    check_lattice(lattice)
    check_range("exclude_nm", exclude_nm, 0)
    on_lattice = table["i"].notna().to_numpy() & table["j"].notna().to_numpy()
    ideal = np.where(on_lattice[:, None], table[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float), np.nan)
    if lattice is not None:
        for frame in np.unique(table.loc[on_lattice, "frame"]):
            rows = on_lattice & (table["frame"] == frame).to_numpy()
            cells = (table.loc[rows, k].to_numpy() for k in ("i", "j", "sublattice"))
            ideal[rows] = lattice.at(frame).position(*cells)
    u = table[["y_nm", "x_nm"]].to_numpy() - ideal
    err = table[["y_err_nm", "x_err_nm"]].to_numpy()
    fitted = np.isfinite(u).all(1)
    if center_nm is not None:
        fitted &= np.linalg.norm(ideal - check_place("center_nm", center_nm), axis=1) >= exclude_nm
    if fit != "none" and np.isfinite(u).any():
        u = u - _reference_shift(table, ideal, u, fitted, affine=fit == "affine")
    result = table.assign(**dict.fromkeys((c.name for c in STRAIN if c.name not in table.columns), np.nan))
    result["y_ideal_nm"], result["x_ideal_nm"] = ideal.T
    result[DISPLACEMENT] = 1000 * np.column_stack([u, err])
    if reference is not None:
        twin = check(reference, "strain").drop_duplicates(_SITE[1:])
        bias = result[_SITE[1:]].merge(twin[_SITE[1:] + DISPLACEMENT], on=_SITE[1:], how="left")
        result[DISPLACEMENT[:2]] -= bias[DISPLACEMENT[:2]].fillna(0).to_numpy()
        squares = result[DISPLACEMENT[2:]] ** 2 + bias[DISPLACEMENT[2:]].fillna(0).to_numpy() ** 2
        result[DISPLACEMENT[2:]] = np.sqrt(squares)
    checked = check(result, "strain")
    checked.attrs = dict(sites.attrs) | ({} if lattice is None else {"crystal": lattice.crystal.name})
    return Strain(checked)


def check_lattice(lattice: Lattice | None) -> None:
    """Raise TypeError for what is no reference."""
    if lattice is not None:
        check_type("lattice", lattice, Lattice, "fit one with fit_lattice(atoms, crystal), or leave it out")


def _reference_shift(
    table: pd.DataFrame, ideal: Array, u: Array, fitted: npt.NDArray[np.bool_], *, affine: bool
) -> Array:
    """Offset per frame and sublattice, with a common gradient per frame if `affine`, by clipped least squares."""
    shift = np.zeros_like(u)
    for _, rows in table.reset_index(drop=True).groupby("frame").groups.items():
        index = rows.to_numpy()
        names = table["sublattice"].to_numpy()[index]
        design = np.column_stack([names == name for name in np.unique(names)]).astype(float)
        if affine:
            middle = np.nanmean(ideal[index], axis=0)
            design = np.column_stack([design, np.nan_to_num(ideal[index] - middle)])
        use = fitted[index]
        if use.sum() < design.shape[1]:
            raise ValueError(
                f"`exclude_nm` leaves {int(use.sum())} columns to fit the reference lattice to; make it smaller."
            )
        for _ in range(4):
            solution = np.linalg.lstsq(design[use], u[index][use], rcond=None)[0]
            rest = np.abs(u[index] - design @ solution).max(1)
            spread = 1.4826 * np.median(rest[use])
            use = fitted[index] & (rest <= _CLIP * spread + 1e-9)
        shift[index] = design @ solution
    return shift
