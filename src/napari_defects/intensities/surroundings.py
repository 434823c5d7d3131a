"""Where a lattice can be trusted to say what a site should hold: not beyond an edge, not in another grain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from ..crystals import Crystal

_REACH = 1.1  # of the longer lattice vector: the second neighbours of an MX2 column, and a margin
_STRANGERS = 0.4  # share of columns around that are on no site: above, another lattice rules here
_MISSING = 1  # sites around an empty one that may lie beyond the end of the lattice


def within_lattice(sites: pd.DataFrame, crystal: Crystal, extent_nm: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether a verdict can be given at each site.

    None is given where many columns around are on no site of the lattice (a grain boundary, debris), and at an empty
    site beyond which the lattice ends: the rim of a hole is no vacancy. Sites near the image's border pass, as what is
    beyond cannot be known.

    Parameters
    ----------
    sites : DataFrame
        SITES; rows without sublattice are columns on no site.
    crystal : Crystal
    extent_nm : ndarray, shape (2,)
        Height and width of the image.

    Returns
    -------
    ndarray of bool
    """
    reach = _REACH * max(crystal.a_nm, crystal.b_nm)
    ideal, seen = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float), sites[["y_nm", "x_nm"]].to_numpy(float)
    filled = np.isfinite(seen).all(1)
    place = np.where(np.isfinite(ideal), ideal, seen)
    on_site = (sites["sublattice"].astype(str) != "").to_numpy() & np.isfinite(ideal).all(1)
    result = np.ones(len(sites), bool)
    for _, rows in sites.groupby("frame").indices.items():
        here, strange = rows[on_site[rows]], rows[~on_site[rows] & filled[rows]]
        if not len(here):
            continue
        tree = cKDTree(place[here])
        others = np.zeros(len(here), int)
        if len(strange):
            others = np.array([len(k) for k in cKDTree(place[strange]).query_ball_point(place[here], reach)])
        near = tree.query_ball_point(place[here], reach)
        own = np.array([filled[here[k]].sum() for k in near])
        missing = expected_neighbors(crystal, reach)[sites["sublattice"].astype(str).to_numpy()[here]].to_numpy() - [
            len(k) for k in near
        ]
        inside = np.all((place[here] > reach) & (place[here] < extent_nm - reach), axis=1)
        result[here] = (others <= _STRANGERS * (own + others)) & (filled[here] | ~inside | (missing <= _MISSING))
    return result


def expected_neighbors(crystal: Crystal, reach_nm: float) -> pd.Series:
    """Sites of a perfect crystal within `reach_nm` of a site of each sublattice, itself included."""
    cells = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
    points = ((cells + crystal.fractions) @ crystal.vectors_nm).reshape(-1, 2)
    centers = crystal.fractions @ crystal.vectors_nm
    counts = [int((np.linalg.norm(points - c, axis=1) < reach_nm).sum()) for c in centers]
    return pd.Series(counts, index=[s.name for s in crystal.sublattices])
