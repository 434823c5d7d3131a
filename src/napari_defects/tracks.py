"""Defects through the frames of a movie: trajectories, transitions, dwell times, rotors.

Frames keep their numbers: a missing frame is a gap that a trajectory may cross, and nothing is
invented in it. Linking is the linear assignment of Jaqaman et al., Nat. Methods 5, 695 (2008),
by laptrack.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from laptrack import LapTrack
from scipy.stats import chi2

from . import tables
from .tables import Tracks

Floats = npt.NDArray[np.float64]


def track(defects: pd.DataFrame, *, max_step_nm: float = 0.5, memory_frames: int = 2) -> Tracks:
    """Link defects of successive frames into trajectories.

    Parameters
    ----------
    defects : DataFrame
        DEFECTS.
    max_step_nm : float
        Farthest a defect goes from one frame to the next; over a gap of n frames, n times as far.
    memory_frames : int
        Frames a defect may be missing (or the microscope's file) before its trajectory ends.

    Returns
    -------
    Tracks
        The same rows in the same order, with `track` numbered from 0 in order of appearance.

    Raises
    ------
    ValueError
        If a column is missing, or an option is not positive.

    References
    ----------
    Jaqaman et al., Nat. Methods 5, 695 (2008).
    """
    table = tables.check(defects, "defects")
    if not max_step_nm > 0:
        raise ValueError(f"`max_step_nm` must be positive, got {max_step_nm}.")
    if memory_frames < 0 or memory_frames != int(memory_frames):
        raise ValueError(f"`memory_frames` must be 0, 1, 2, ..., got {memory_frames}.")
    if bad := int((~np.isfinite(tables.positions_nm(table))).any(1).sum()):
        raise ValueError(f"{bad} defect(s) have no position; drop them first: defects.dropna(subset=['y_nm', 'x_nm']).")
    table["track"] = np.arange(len(table))
    if table["frame"].nunique() > 1:
        cost = float(max_step_nm) ** 2  # also that of an end: one long hop among short ones still links
        linker = LapTrack(
            metric=_speed2,
            cutoff=cost,
            track_start_cost=cost,
            track_end_cost=cost,
            gap_closing_metric=_speed2,
            gap_closing_cutoff=cost if memory_frames else False,
            segment_start_cost=cost,
            segment_end_cost=cost,
            gap_closing_max_frame_count=int(memory_frames) + 1,  # laptrack counts from the last frame seen
        )
        points = table[["frame", "y_nm", "x_nm"]].assign(time=table["frame"], row=table.index)
        linked, *_ = linker.predict_dataframe(
            points, ["y_nm", "x_nm", "time"], frame_col="frame", only_coordinate_cols=False
        )
        table.loc[linked["row"], "track"] = linked["track_id"].to_numpy()
        first = table.sort_values("frame", kind="stable")["track"].drop_duplicates()
        table["track"] = table["track"].map(dict(zip(first, range(len(first)), strict=True)))
    return Tracks(tables.check(table, "tracks"))


def _speed2(one: Floats, two: Floats) -> float:
    """Squared distance over squared time between two points (y, x, frame)."""
    return float(((one[:2] - two[:2]) ** 2).sum() / max(abs(one[2] - two[2]), 1) ** 2)


def transitions(tracks: pd.DataFrame) -> pd.DataFrame:
    """Where a trajectory's species changes.

    Parameters
    ----------
    tracks : DataFrame
        TRACKS.

    Returns
    -------
    DataFrame
        `track`, `frame` (the first with the new species), `frame_before`, `gap_frames` (missing
        in between: the change was somewhere there), `species_from`, `species_to`, `y_nm`, `x_nm`,
        `step_nm`.
    """
    table, before = _steps(tracks)
    changed = before["species"].notna() & (before["species"] != table["species"])
    new, old = table[changed], before[changed]
    return pd.DataFrame({
        "track": new["track"], "frame": new["frame"], "frame_before": old["frame"].astype("int64"),
        "gap_frames": (new["frame"] - old["frame"] - 1).astype("int64"),
        "species_from": old["species"], "species_to": new["species"], "y_nm": new["y_nm"], "x_nm": new["x_nm"],
        "step_nm": np.hypot(new["y_nm"] - old["y_nm"], new["x_nm"] - old["x_nm"]),
    }).reset_index(drop=True)  # fmt: skip


def transition_matrix(tracks: pd.DataFrame) -> pd.DataFrame:
    """How often each species (row) was followed by each (column) in the next frame seen."""
    table, before = _steps(tracks)
    names = sorted(table["species"].unique())
    seen = before["species"].notna()
    counts = pd.crosstab(before.loc[seen, "species"], table.loc[seen, "species"])
    return counts.reindex(index=names, columns=names, fill_value=0).rename_axis(index="from", columns="to")


def dwells(tracks: pd.DataFrame) -> pd.DataFrame:
    """Stretches of a trajectory with one species.

    Returns
    -------
    DataFrame
        `track`, `species`, `first_frame`, `last_frame`, `frames` (its length: up to the first
        frame of the next stretch), `complete` (its beginning and end were both seen).
    """
    table, before = _steps(tracks)
    table["stretch"] = (before["species"] != table["species"]).cumsum()
    group = table.groupby(["track", "stretch"], sort=True)
    result = group.agg(species=("species", "first"), first_frame=("frame", "min"), last_frame=("frame", "max"))
    result = result.reset_index().drop(columns="stretch")
    following = result.groupby("track")["first_frame"].shift(-1)
    result["frames"] = (following.fillna(result["last_frame"] + 1) - result["first_frame"]).astype("int64")
    result["complete"] = following.notna() & result.groupby("track")["first_frame"].shift(1).notna()
    return result[["track", "species", "first_frame", "last_frame", "frames", "complete"]]


def dwell_times(
    tracks: pd.DataFrame, *, confidence: float = 0.95, frame_interval_s: float | None = None
) -> pd.DataFrame:
    """Mean life of each species, were it to leave at a constant rate.

    Frames spent divided by departures seen; stretches cut off by the movie count as time without
    departure. The interval is exact for Poisson departures.

    Parameters
    ----------
    tracks : DataFrame
    confidence : float
    frame_interval_s : float, optional
        Gives the times in seconds; frames otherwise.

    Returns
    -------
    DataFrame
        `species`, `stretches`, `departures`, `dwell`, `dwell_low`, `dwell_high`, `unit`; a dwell
        never seen to end is infinite, with a finite lower end.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}.")
    scale, unit = (1.0, "frame") if frame_interval_s is None else (float(frame_interval_s), "s")
    table = dwells(tracks)
    last = table.groupby("track")["last_frame"].transform("max") == table["last_frame"]
    rows = []
    for name, part in table.assign(left=~last).groupby("species"):
        time, n = scale * part["frames"].sum(), int(part["left"].sum())
        low, high = (float(chi2.ppf((1 + s * confidence) / 2, 2 * k)) / 2 for s, k in ((-1, n), (1, n + 1)))
        with np.errstate(divide="ignore"):
            mean, longest, shortest = (time / np.array([n, np.nan_to_num(low), high])).tolist()
        rows.append((name, len(part), n, mean, shortest, longest, unit))
    return pd.DataFrame(
        rows, columns=["species", "stretches", "departures", "dwell", "dwell_low", "dwell_high", "unit"]
    )


def _steps(tracks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows sorted by track and frame, and beside each the row before it on its track."""
    table = tables.check(tracks, "tracks").sort_values(["track", "frame"], kind="stable").reset_index(drop=True)
    return table, table.groupby("track")[["frame", "species", "y_nm", "x_nm"]].shift(1)


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
