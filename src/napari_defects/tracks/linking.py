"""Defects linked through the frames of a movie.

Frames keep their numbers: a missing frame is a gap that a trajectory may cross, and nothing is
invented in it. Linking is the linear assignment of Jaqaman et al., Nat. Methods 5, 695 (2008),
by laptrack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from laptrack import LapTrack

from .. import tables
from ..tables import Tracks
from .drift import without_drift
from .smoothing import smooth_species

Floats = npt.NDArray[np.float64]

_BORDER_NM = 0.3  # nearer to the border of the image a defect may have gone out of sight


def track(
    defects: pd.DataFrame,
    *,
    max_step_nm: float = 0.5,
    memory_frames: int = 2,
    branching: bool = False,
    drift: pd.DataFrame | None = None,
    min_probability: float = 0.5,
    smooth_frames: float = 0.0,
) -> Tracks:
    """Link defects of successive frames into trajectories.

    Parameters
    ----------
    defects : DataFrame
        DEFECTS.
    max_step_nm : float
        Farthest a defect goes from one frame to the next; over a gap of n frames, n times as far.
    memory_frames : int
        Frames for which a defect may be missing, or the frames themselves, before its trajectory ends.
    branching : bool
        Whether trajectories may merge (two vacancies into one) and split, within `max_step_nm`. Then
        ``attrs["parents"]`` maps a track to those it came from, as napari's ``Tracks.graph``.
    drift : DataFrame, optional
        From `measure_drift`; steps are then those in the crystal.
    min_probability : float
        Less certain frames are `unsure`: linked, but no change of species is read from them.
    smooth_frames : float
        0 leaves every frame its own class; otherwise about how many frames a defect is expected to
        stay what it is: `smooth_species` then overrules frames that hardly know better.

    Returns
    -------
    Tracks
        The same rows in the same order, with `track` numbered from 0 in order of appearance and
        `unsure`: less probable than asked, or, between two different classes, a third seen in that
        one frame only, as a frame looks during which the defect switched; or `cut` by the border. `gone`:
        the last row of a trajectory that ends while the movie goes on, within it and not by merging. With `drift`,
        `y_crystal_nm`, `x_crystal_nm` are the positions without it.

    Raises
    ------
    ValueError
        If a column is missing, or an option is out of range.

    References
    ----------
    Jaqaman et al., Nat. Methods 5, 695 (2008).
    """
    table = tables.check(defects, "defects")
    if not max_step_nm > 0:
        raise ValueError(f"`max_step_nm` must be positive, got {max_step_nm}.")
    if memory_frames < 0 or memory_frames != int(memory_frames):
        raise ValueError(f"`memory_frames` must be 0, 1, 2, ..., got {memory_frames}.")
    if not 0 <= min_probability <= 1:
        raise ValueError(f"`min_probability` must be within 0 to 1, got {min_probability}.")
    if bad := int((~np.isfinite(tables.positions_nm(table))).any(1).sum()):
        raise ValueError(f"{bad} defect(s) have no position; drop them first: defects.dropna(subset=['y_nm', 'x_nm']).")
    place = without_drift(table, drift)
    table["track"], parents = _linked(table["frame"], place, max_step_nm, int(memory_frames), branching)
    if drift is not None:
        table["y_crystal_nm"], table["x_crystal_nm"] = place.T
    table["unsure"] = (table["probability"] < min_probability) | _passing(table)
    if "cut" in table:
        table["unsure"] |= table["cut"].fillna(False).astype(bool)
    merged = table["track"].isin({old for own in parents.values() for old in own})
    table["gone"] = ~merged & _ended(table, defects.attrs.get("last_frame", table["frame"].max()), int(memory_frames))
    table = smooth_species(table, dwell_frames=smooth_frames) if smooth_frames else table
    result = Tracks(tables.check(table, "tracks"))
    if branching:
        result.attrs["parents"] = parents
    return result


def _linked(
    frame: pd.Series[int], place: Floats, max_step_nm: float, memory_frames: int, branching: bool
) -> tuple[pd.Series[int], dict[int, list[int]]]:
    """Give the number of the trajectory of each row, and which trajectories went over into which."""
    if frame.nunique() < 2:
        return pd.Series(np.arange(len(frame)), frame.index), {}
    cost = float(max_step_nm) ** 2  # also that of an end: one long hop among short ones still links
    branch: dict[str, Any] = {}
    for name in ("splitting", "merging") if branching else ():
        branch |= {f"{name}_metric": _speed2, f"{name}_cutoff": cost, f"no_{name}_cost": cost}
    linker = LapTrack(
        metric=_speed2,
        cutoff=cost,
        track_start_cost=cost,
        track_end_cost=cost,
        gap_closing_metric=_speed2,
        gap_closing_cutoff=cost if memory_frames else False,
        segment_start_cost=cost,
        segment_end_cost=cost,
        gap_closing_max_frame_count=memory_frames + 1,  # laptrack counts from the last frame seen
        **branch,
    )
    points = pd.DataFrame({"frame": frame, "y": place[:, 0], "x": place[:, 1], "time": frame, "row": frame.index})
    linked, *branches = linker.predict_dataframe(
        points, ["y", "x", "time"], frame_col="frame", only_coordinate_cols=False
    )
    number = pd.Series(linked["track_id"].to_numpy(), linked["row"].to_numpy()).reindex(frame.index)
    first = number[frame.sort_values(kind="stable").index].drop_duplicates()
    order = dict(zip(first, range(len(first)), strict=True))
    parents: dict[int, list[int]] = {}
    for found in branches:
        for old, new in zip(found.get("parent_track_id", ()), found.get("child_track_id", ()), strict=True):
            parents.setdefault(order[new], []).append(order[old])
    return number.map(order).astype("int64"), parents


def _speed2(one: Floats, two: Floats) -> float:
    """Squared distance over squared time between two points (y, x, frame)."""
    return float(((one[:2] - two[:2]) ** 2).sum() / max(abs(one[2] - two[2]), 1) ** 2)


def _ended(table: pd.DataFrame, last_frame: int, memory_frames: int) -> pd.Series[bool]:
    """Last rows of trajectories, in sight, after which the movie goes on for longer than a defect may be missing."""
    last = table["frame"] == table.groupby("track")["frame"].transform("max")
    inside = table["border_nm"].fillna(np.inf) > _BORDER_NM if "border_nm" in table else True
    return last & (last_frame - table["frame"] > memory_frames) & inside


def _passing(table: pd.DataFrame) -> pd.Series[bool]:
    """Rows of a class of their own between two frames of two other classes."""
    ordered = table.sort_values(["track", "frame"], kind="stable")
    before, after = (ordered.groupby("track")["species"].shift(step) for step in (1, -1))
    own = ordered["species"]
    between = before.notna() & after.notna() & (before != own) & (own != after) & (before != after)
    return between.reindex(table.index).astype(bool)
