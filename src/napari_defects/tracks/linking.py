"""Defects linked through the frames of a movie.

Frames keep their numbers: a missing frame is a gap that a trajectory may cross, and nothing is
invented in it. Linking is the linear assignment of Jaqaman et al., Nat. Methods 5, 695 (2008),
by laptrack.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from laptrack import LapTrack

from .. import tables
from ..tables import Tracks

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
