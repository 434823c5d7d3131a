"""Triangles that turn: three foreign atoms with two orientations, 60 degrees apart."""

from __future__ import annotations

import numpy as np
import pandas as pd


def rotor(triangles: pd.DataFrame, *, coherent: float = 0.5, between_deg: float = 20.0) -> pd.DataFrame:
    """Orientation of a triangle of atoms in every frame, folded by its threefold symmetry.

    The order parameter is Σz³ / Σ|z|³ over the three atoms, z = x - iy from their centre: its
    phase is three times the angle, its size 1 for a regular triangle and 0 for a row of atoms. A
    turn by 60° changes its sign.

    Parameters
    ----------
    triangles : DataFrame
        `frame`, `y_nm`, `x_nm` of the atoms, three a frame; `y_err_nm`, `x_err_nm` if known.
    coherent : float
        Below this order, or with other than three atoms, a frame is `unsure`: taken during a turn.
    between_deg : float
        So far from both orientations it is unsure as well.

    Returns
    -------
    DataFrame
        `frame`, `angle_deg` (anticlockwise from the right, -60 to 60), `angle_err_deg`, `order`,
        `distortion` (spread of the sides over their mean), `state` (0 or 1: which of the two
        orientations 60° apart), `switch` (first sure frame of the other state), `unsure`.
    """
    if missing := [c for c in ("frame", "y_nm", "x_nm") if c not in triangles]:
        raise ValueError(f"`triangles` has no column {missing[0]!r}; give the three atoms of each frame.")
    rows = []
    for frame, atoms in triangles.groupby("frame"):
        z = atoms["x_nm"].to_numpy(float) - 1j * atoms["y_nm"].to_numpy(float)
        z = z - z.mean()
        if len(z) != 3:
            rows.append((frame, np.nan, np.nan, 0.0, np.nan))
            continue
        moment = np.sum(z**3) / np.sum(np.abs(z) ** 3)
        sides = np.abs(z - np.roll(z, 1))
        error = np.nan
        if {"y_err_nm", "x_err_nm"} <= set(atoms):
            error = np.rad2deg(
                np.sqrt((atoms[["y_err_nm", "x_err_nm"]].to_numpy(float) ** 2).mean() / 3) / np.abs(z).mean()
            )
        rows.append((frame, np.rad2deg(np.angle(moment)) / 3, error, abs(moment), sides.std() / sides.mean()))
    result = pd.DataFrame(rows, columns=["frame", "angle_deg", "angle_err_deg", "order", "distortion"])
    phase = np.exp(3j * np.deg2rad(result["angle_deg"].to_numpy(float)))
    clear = (result["order"] >= coherent).to_numpy()
    axis = np.sqrt(np.mean(phase[clear] ** 2)) if clear.any() else 1.0  # the orientation, whichever of the two
    side = np.real(phase / axis) * np.abs(axis)
    result["unsure"] = ~clear | ~(np.abs(side) >= np.cos(np.deg2rad(3 * between_deg)))
    sure = result.index[~result["unsure"]]
    result["state"] = pd.array([pd.NA] * len(result), dtype="Int64")
    result.loc[sure, "state"] = (side[sure] < 0).astype(int)
    before = result["state"].ffill().shift(1)
    result["switch"] = (result["state"] != before).fillna(False).astype(bool) & before.notna()
    return result
