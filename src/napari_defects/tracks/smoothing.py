"""What a defect most probably was in each frame, given all the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

_SUREST = 0.99  # no single frame is believed more


def smooth_species(tracks: pd.DataFrame, *, dwell_frames: float) -> pd.DataFrame:
    """Overrule frames that say otherwise than their neighbours and hardly know better.

    A hidden Markov model along each track: a defect stays what it is for `dwell_frames` on average, and a
    frame's own class is right with its `probability`. Missing frames count as time. Each frame gets the class
    that is most probable given all frames (forward and backward).

    Parameters
    ----------
    tracks : DataFrame
        TRACKS.
    dwell_frames : float

    Returns
    -------
    DataFrame
        The same rows; what the frame alone said is in `species_seen` and `probability_seen`.

    Raises
    ------
    ValueError
        If `dwell_frames` is not above 1.
    """
    if not dwell_frames > 1:
        raise ValueError(f"`smooth_frames` must be above 1 frame, or 0 for no smoothing, got {dwell_frames}.")
    table = tracks.assign(species_seen=tracks["species"], probability_seen=tracks["probability"])
    for rows in tracks.sort_values("frame", kind="stable").groupby("track").groups.values():
        own = tracks.loc[rows].sort_values("frame", kind="stable")
        codes, names = pd.factorize(own["species"])
        if len(names) > 1:
            seen = _likelihood(codes, own["probability"].to_numpy(float), len(names))
            chance = _smoothed(seen, np.diff(own["frame"].to_numpy(int)), 1 / dwell_frames)
            table.loc[own.index, "species"] = names.to_numpy()[chance.argmax(1)]
            table.loc[own.index, "probability"] = chance.max(1)
    return table


def _likelihood(codes: npt.NDArray[np.intp], probability: Floats, n: int) -> Floats:
    """How well each class agrees with what was seen, shape (frame, class)."""
    sure = np.clip(np.nan_to_num(probability, nan=1 / n), 1 / n, _SUREST)
    seen = np.repeat(((1 - sure) / (n - 1))[:, None], n, axis=1)
    seen[np.arange(len(codes)), codes] = sure
    return seen


def _smoothed(seen: Floats, passed: npt.NDArray[np.int_], leave: float) -> Floats:
    """Probability of each class in each frame: forward times backward."""
    n = seen.shape[1]
    step = np.full((n, n), leave / (n - 1))
    np.fill_diagonal(step, 1 - leave)
    steps = [np.linalg.matrix_power(step, int(gap)) for gap in passed]
    forward, backward = seen / seen.sum(1, keepdims=True), np.ones_like(seen)
    for k, move in enumerate(steps):
        forward[k + 1] *= forward[k] @ move
        forward[k + 1] /= forward[k + 1].sum()
    for k in range(len(steps) - 1, -1, -1):
        backward[k] = steps[k] @ (backward[k + 1] * seen[k + 1])
        backward[k] /= backward[k].sum()
    chance = forward * backward
    return np.asarray(chance / chance.sum(1, keepdims=True))
