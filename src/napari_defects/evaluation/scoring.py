"""Scores of what was found against what is true: who meets whom, class by class, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..statistics.counting import INVENTED, MISSED, wilson_interval

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


def match_points(first: Array, second: Array, radius: float) -> tuple[Index, Index]:
    """Match points one to one within a radius: as many as possible, and then as near as possible.

    Parameters
    ----------
    first, second : ndarray, shape (n, 2) and (m, 2)
    radius : float

    Returns
    -------
    ndarray of int, ndarray of int
        Indices into `first` and `second` of the pairs.
    """
    n, m = len(first), len(second)
    none = np.zeros(0, np.int64)
    if not n or not m:
        return none, none
    near = cKDTree(first).sparse_distance_matrix(cKDTree(second), radius, output_type="coo_matrix")
    graph = coo_array((np.ones(near.nnz), (near.row, near.col + n)), shape=(n + m, n + m))
    island = connected_components(graph, directed=False)[1][near.row]
    order = np.argsort(island, kind="stable")
    pairs = []
    for own in np.split(order, np.flatnonzero(np.diff(island[order])) + 1) if len(order) else []:
        a, row = np.unique(near.row[own], return_inverse=True)
        b, column = np.unique(near.col[own], return_inverse=True)
        far = 1e3 * radius * (len(a) + len(b))
        cost = np.full((len(a), len(b)), far)
        cost[row, column] = near.data[own]
        chosen = [(i, j) for i, j in zip(*linear_sum_assignment(cost), strict=True) if cost[i, j] < far]
        pairs += [(a[i], b[j]) for i, j in chosen]
    met = np.array(pairs, np.int64).reshape(-1, 2)
    return met[:, 0], met[:, 1]


def outcomes(
    found: pd.DataFrame, truth: pd.DataFrame, *, radius_nm: float, border_nm: float, extent_nm: Sequence[float]
) -> pd.DataFrame:
    """Meet what was found with what is true, frame by frame.

    Parameters
    ----------
    found, truth : DataFrame
        frame, y_nm, x_nm, species. Rows of `truth` where a column `edge` is true count neither for nor against.
    radius_nm : float
        A pair may be this far apart.
    border_nm : float
        So near to the border nothing counts.
    extent_nm : (float, float)
        Of the image.

    Returns
    -------
    DataFrame
        frame, y_nm, x_nm, truth, said, distance_pm: one row for each true or found defect. ``truth`` is ``(none)``
        where there is nothing, ``said`` is ``(missed)`` where nothing was found.
    """
    parts = []
    for frame in sorted({*found["frame"], *truth["frame"]}):
        said, true = found[found["frame"] == frame], truth[truth["frame"] == frame]
        at, there = (t[["y_nm", "x_nm"]].to_numpy(float).reshape(-1, 2) for t in (said, true))
        a, b = match_points(at, there, radius_nm)
        counts, counts_true = _inside(at, border_nm, extent_nm), _inside(there, border_nm, extent_nm)
        if "edge" in true:
            counts_true &= ~true["edge"].to_numpy(bool)
        counts[a] = counts_true[b]  # a pair counts if its truth does
        alone, lost = counts.copy(), counts_true.copy()
        alone[a] = lost[b] = False
        pair = counts[a]
        a, b = a[pair], b[pair]
        distance = np.linalg.norm(at[a] - there[b], axis=1) * 1e3
        names, true_names = said["species"].to_numpy(object), true["species"].to_numpy(object)
        parts += [
            _rows(frame, there[b], true_names[b], names[a], distance),
            _rows(frame, there[lost], true_names[lost], MISSED, np.nan),
            _rows(frame, at[alone], INVENTED, names[alone], np.nan),
        ]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else _rows(0, np.zeros((0, 2)), "", "", np.nan)


def class_scores(outcome: pd.DataFrame) -> pd.DataFrame:
    """Recall, precision and F1 of each class, with Wilson's 95 % intervals.

    Parameters
    ----------
    outcome : DataFrame
        From `outcomes`.

    Returns
    -------
    DataFrame
        class, truth, said, right, recall, recall_low, recall_high, precision, precision_low, precision_high, f1. The
        last three rows: ``any class`` (found, whatever it was called), ``micro`` and ``macro``.
    """
    true, said = outcome["truth"].to_numpy(object), outcome["said"].to_numpy(object)
    classes = sorted({*true, *said} - {MISSED, INVENTED})
    rows = [
        _score(name, (true == name).sum(), (said == name).sum(), ((true == name) & (said == name)).sum())
        for name in classes
    ]
    there, claimed = (true != INVENTED).sum(), (said != MISSED).sum()
    mean = [row for row in rows if row["truth"]]
    rows.append(_score("any class", there, claimed, ((true != INVENTED) & (said != MISSED)).sum()))
    rows.append(_score("micro", there, claimed, (true == said).sum()))
    macro = {key: np.mean([row[key] for row in mean]) if mean else np.nan for key in ("recall", "precision", "f1")}
    rows.append({"class": "macro", "truth": there, "said": claimed, "right": rows[-1]["right"], **macro})
    return pd.DataFrame(rows)


def confusion(outcome: pd.DataFrame) -> pd.DataFrame:
    """Count who is taken for whom: true classes as rows, what was said as columns."""
    classes = sorted({*outcome["truth"], *outcome["said"]} - {MISSED, INVENTED})
    table = pd.crosstab(outcome["truth"], outcome["said"]).reindex(
        index=[*classes, INVENTED], columns=[*classes, MISSED], fill_value=0
    )
    return table.rename_axis(index="truth", columns="said")


def _score(name: str, truth: int, said: int, right: int) -> dict[str, object]:
    recall, precision = wilson_interval(right, truth), wilson_interval(right, said)
    return {
        "class": name, "truth": int(truth), "said": int(said), "right": int(right),
        "recall": right / truth if truth else np.nan, "recall_low": recall[0], "recall_high": recall[1],
        "precision": right / said if said else np.nan, "precision_low": precision[0], "precision_high": precision[1],
        "f1": 2 * right / (truth + said) if truth + said else np.nan,
    }  # fmt: skip


def _rows(frame: int, at: Array, truth: object, said: object, distance: object) -> pd.DataFrame:
    columns = {
        "frame": frame,
        "y_nm": at[:, 0],
        "x_nm": at[:, 1],
        "truth": truth,
        "said": said,
        "distance_pm": distance,
    }
    return pd.DataFrame(columns, index=range(len(at)))


def _inside(at: Array, border_nm: float, extent_nm: Sequence[float]) -> npt.NDArray[np.bool_]:
    return np.asarray(((at >= border_nm) & (at <= np.asarray(extent_nm) - border_nm)).all(1))
