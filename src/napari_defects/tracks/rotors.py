"""Triangles that turn: three foreign atoms with two orientations, 60 degrees apart."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from ..tables import check, positions_nm

_REACH_NM = 0.3  # from the middle of a defect to the atoms of its triangle, and a little more
_ROTOR = re.compile(r"^([A-Z][a-z]?)[34](?=[A-Z])")


def rotor(
    triangles: pd.DataFrame, *, coherent: float = 0.5, between_deg: float = 20.0, distorted: float = 0.15
) -> pd.DataFrame:
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
    distorted : float
        And with a `distortion` above this.

    Returns
    -------
    DataFrame
        `frame`, `angle_deg` (anticlockwise from the right, within 120 degrees that begin 30 before
        one of the two orientations), `angle_err_deg`, `order`,
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
    clear = ((result["order"] >= coherent) & (result["distortion"] <= distorted)).to_numpy()
    axis = np.sqrt(np.mean(phase[clear] ** 2)) if clear.any() else 1.0  # the orientation, whichever of the two
    side = np.real(phase / axis) * np.abs(axis)
    result["unsure"] = ~clear | ~(np.abs(side) >= np.cos(np.deg2rad(3 * between_deg)))
    fold = np.rad2deg(np.angle(axis)) / 3 - 30
    result["angle_deg"] = fold + (result["angle_deg"] - fold) % 120
    sure = result.index[~result["unsure"]]
    result["state"] = pd.array([pd.NA] * len(result), dtype="Int64")
    result.loc[sure, "state"] = (side[sure] < 0).astype(int)
    before = result["state"].ffill().shift(1)
    result["switch"] = (result["state"] != before).fillna(False).astype(bool) & before.notna()
    return result


def triangles(atoms: pd.DataFrame, tracks: pd.DataFrame) -> pd.DataFrame:
    """Atoms of the rotors among the defects of a movie, for `rotor`.

    A rotor is a trajectory that has three atoms of a foreign element in most of its frames (``Si3C6``), or four,
    the one in the middle not counted (``Si4C6``).

    Parameters
    ----------
    atoms : DataFrame
        With `element`, as `resolve` makes them.
    tracks : DataFrame
        TRACKS of the same movie.

    Returns
    -------
    DataFrame
        `track`, then the columns of `atoms`; a frame during a turn may have other than three atoms.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    if missing := [c for c in ("frame", "y_nm", "x_nm", "element") if c not in atoms]:
        raise ValueError(f"`atoms` has no column {missing[0]!r}; run resolve() or assign_elements() first.")
    tracks = check(tracks, "tracks")
    parts = []
    for number, own in tracks.groupby("track"):
        element = own["species"].str.extract(_ROTOR, expand=False)
        if element.notna().mean() <= 0.5:
            continue
        foreign = atoms[atoms["element"] == element.mode()[0]]
        for frame, y, x in own[["frame", "y_nm", "x_nm"]].itertuples(index=False):
            near = foreign[foreign["frame"] == frame]
            near = near[np.linalg.norm(positions_nm(near) - (y, x), axis=1) < _REACH_NM]
            if len(near) == 4:
                near = near.drop(
                    near.index[np.linalg.norm(positions_nm(near) - positions_nm(near).mean(0), axis=1).argmin()]
                )
            parts.append(near.assign(track=number))
    columns = ["track", *atoms.columns]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def rotors(atoms: pd.DataFrame, tracks: pd.DataFrame) -> pd.DataFrame:
    """`rotor` for every trajectory that is one: its columns after `track`."""
    turning = triangles(atoms, tracks)
    parts = [rotor(own).assign(track=number) for number, own in turning.groupby("track")]
    found = pd.concat(parts, ignore_index=True) if parts else rotor(turning).assign(track=[])
    return found[["track", *(c for c in found if c != "track")]]
