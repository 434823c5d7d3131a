"""Which defects are near each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from .. import tables
from ..checks import check_range


def nearest_neighbors(defects: pd.DataFrame, *, same_species: bool = False) -> pd.DataFrame:
    """Add to each defect the distance to its nearest neighbour among the defects of its frame.

    Parameters
    ----------
    defects : DataFrame
        DEFECTS.
    same_species : bool
        Only look at neighbours of the same species.

    Returns
    -------
    DataFrame
        DEFECTS + ``neighbor_nm``, ``neighbor`` (its number), ``neighbor_species``; NaN, <NA> and "" for
        one that is alone.
    """
    result = tables.check(defects, "defects")
    result["neighbor_nm"] = np.nan
    result["neighbor"] = pd.array([pd.NA] * len(result), dtype="Int64")
    result["neighbor_species"] = ""
    for _, group in result.groupby(["frame", "species"] if same_species else ["frame"]):
        group = group.dropna(subset=["y_nm", "x_nm"])
        if len(group) < 2:
            continue
        distance, other = map(np.asarray, KDTree(tables.positions_nm(group)).query(tables.positions_nm(group), k=2))
        nearest = group.iloc[other[:, 1]]
        result.loc[group.index, "neighbor_nm"] = distance[:, 1]
        result.loc[group.index, "neighbor"] = nearest["defect"].to_numpy()
        result.loc[group.index, "neighbor_species"] = nearest["species"].to_numpy()
    return result


def clusters(defects: pd.DataFrame, *, max_distance_nm: float = 0.5) -> pd.DataFrame:
    """Join defects that are near each other, directly or through others, into clusters.

    Parameters
    ----------
    defects : DataFrame
        DEFECTS.
    max_distance_nm : float
        Largest distance between two neighbours in a cluster.

    Returns
    -------
    DataFrame
        DEFECTS + ``cluster`` (a number, unique over the frames) and ``cluster_size``; a lone defect is a
        cluster of one, and what has no position has cluster -1 and size 0.

    Raises
    ------
    ValueError
        If `max_distance_nm` is not positive.
    """
    check_range("max_distance_nm", max_distance_nm, 0, above=True)
    result = tables.check(defects, "defects").assign(cluster=-1, cluster_size=0)
    first = 0
    for _, group in result.dropna(subset=["y_nm", "x_nm"]).groupby("frame"):
        a, b = KDTree(tables.positions_nm(group)).query_pairs(max_distance_nm, output_type="ndarray").T
        links = coo_array((np.ones(len(a)), (a, b)), shape=(len(group), len(group)))
        n, label = connected_components(links, directed=False)
        result.loc[group.index, "cluster"] = first + label
        result.loc[group.index, "cluster_size"] = np.bincount(label, minlength=n)[label]
        first += n
    return result
