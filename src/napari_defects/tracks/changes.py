"""When the species of a trajectory changes, and how long it stays what it is.

Frames that are `unsure`, as `track` flags them, say nothing here: a change is somewhere between the sure ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import chi2

from .. import tables


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
        or unsure in between: the change was somewhere there), `species_from`, `species_to`, `y_nm`, `x_nm`,
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
        frame of the next stretch), `left` (its end was seen: another species followed, or the defect was `gone`, as
        `track` tells), `complete` (its beginning was seen, too).
    """
    gone = set(tracks.loc[tracks["gone"].astype(bool), "track"]) if "gone" in tracks else set()
    table, before = _steps(tracks)
    table["stretch"] = (before["species"] != table["species"]).cumsum()
    group = table.groupby(["track", "stretch"], sort=True)
    result = group.agg(species=("species", "first"), first_frame=("frame", "min"), last_frame=("frame", "max"))
    result = result.reset_index().drop(columns="stretch")
    following = result.groupby("track")["first_frame"].shift(-1)
    result["frames"] = (following.fillna(result["last_frame"] + 1) - result["first_frame"]).astype("int64")
    result["left"] = following.notna() | result["track"].isin(gone)
    result["complete"] = result["left"] & result.groupby("track")["first_frame"].shift(1).notna()
    return result[["track", "species", "first_frame", "last_frame", "frames", "left", "complete"]]


def dwell_times(
    tracks: pd.DataFrame, *, confidence: float = 0.95, frame_interval_s: float | None = None
) -> pd.DataFrame:
    """Mean life of each species, were it to leave at a constant rate.

    Frames after which one could see whether it left, divided by departures seen: to another species, or to nothing
    where the defect is `gone`. Stretches cut off by the end of the movie or the border of the image count as time
    without departure. The interval is exact for Poisson departures.

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

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    scale, unit = time_unit(confidence, frame_interval_s)
    rows = []
    for name, part in dwells(tracks).groupby("species"):
        n = int(part["left"].sum())
        time = scale * (part["frames"].sum() - (len(part) - n))  # after the last frame of a track nothing was seen
        low, high = (float(chi2.ppf((1 + s * confidence) / 2, 2 * k)) / 2 for s, k in ((-1, n), (1, n + 1)))
        rate = np.array([n, np.nan_to_num(low), high])
        mean, longest, shortest = np.divide(time, rate, out=np.full(3, np.inf), where=rate > 0).tolist()
        rows.append((name, len(part), n, mean, shortest, longest, unit))
    return pd.DataFrame(
        rows, columns=["species", "stretches", "departures", "dwell", "dwell_low", "dwell_high", "unit"]
    )


def time_unit(confidence: float, frame_interval_s: float | None) -> tuple[float, str]:
    """Length of a frame, and its unit; refuses what is out of range."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}.")
    if frame_interval_s is None:
        return 1.0, "frame"
    if not 0 < frame_interval_s < np.inf:
        raise ValueError(f"`frame_interval_s` must be positive, got {frame_interval_s}; leave it out where unknown.")
    return float(frame_interval_s), "s"


def in_order(tracks: pd.DataFrame) -> pd.DataFrame:
    """Rows by track and frame, without those that are `unsure`: they count as frames not seen."""
    table = tables.check(tracks, "tracks").sort_values(["track", "frame"], kind="stable").reset_index(drop=True)
    return table[~table["unsure"].astype(bool)].reset_index(drop=True) if "unsure" in table else table


def _steps(tracks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows in order, and beside each the row before it on its track."""
    table = in_order(tracks)
    return table, table.groupby("track")[["frame", "species", "y_nm", "x_nm"]].shift(1)
