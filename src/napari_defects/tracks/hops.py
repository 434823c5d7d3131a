"""Steps from site to site of the crystal, how often, and the diffusion they make."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from scipy.stats import chi2

from ..lattice.phasing import Host
from .changes import in_order, time_unit

Floats = npt.NDArray[np.float64]

_STAYS = 0.62  # bond lengths from where it was at which a defect has not hopped; half a one where it becomes four-fold


def find_hops(tracks: pd.DataFrame, lattice: Host) -> pd.DataFrame:
    """Find steps of the trajectories from one lattice site to another.

    A defect has hopped when it is 0.62 bonds or more from where it was on average since its last hop, drift taken
    out: noise halfway makes no hops back and forth, and neither does silicon that takes a fourth bond.

    Parameters
    ----------
    tracks : DataFrame
        TRACKS.
    lattice : Host
        Of the first frame.

    Returns
    -------
    DataFrame
        `track`, `frame`, `frame_before`, `gap_frames`, `species`, `y_nm`, `x_nm` (drift taken out), `step_nm` of the
        ideal lattice, and `bonds`: how many bonds of the host lead from the nearest site before to that after.
    """
    table = in_order(tracks)
    names = ("y_crystal_nm", "x_crystal_nm")
    place = table[list(names if set(names) <= set(table) else ("y_nm", "x_nm"))].to_numpy(float)
    bond = lattice.crystal.nearest_neighbor_nm * lattice.scale
    low = place.min(0, initial=np.inf) if len(place) else np.zeros(2)
    shifted = Host(lattice.crystal, lattice.origin_nm - np.nan_to_num(low, posinf=0.0), lattice.vectors_nm)
    extent = np.ptp(place, axis=0) if len(place) else np.zeros(2)
    sites = shifted.sites_within(extent, margin_nm=5 * bond)[1] + low if len(place) else np.zeros((0, 2))
    tree = cKDTree(sites)
    bonds = tree.sparse_distance_matrix(tree, 1.2 * bond).tocsr()
    rows = []
    for number, own in table.groupby("track"):
        stay: list[Floats] = []
        before = 0
        for frame, species, at in zip(own["frame"], own["species"], place[own.index], strict=True):
            was = np.mean(stay, axis=0) if stay else at
            step = float(np.linalg.norm(at - was))
            if step > _STAYS * bond:
                old, new = int(tree.query(was)[1]), int(tree.query(at)[1])
                lead = max(int(dijkstra(bonds, indices=[old], unweighted=True)[0, new]), 1)
                ideal = float(np.linalg.norm(sites[new] - sites[old])) or step  # noise makes steps longer, not shorter
                rows.append((number, frame, before, frame - before - 1, species, *at, ideal, lead))
                stay = []
            stay.append(at)
            before = frame
    columns = ["track", "frame", "frame_before", "gap_frames", "species", "y_nm", "x_nm", "step_nm", "bonds"]
    return pd.DataFrame(rows, columns=columns)


def hop_rates(
    tracks: pd.DataFrame, hops: pd.DataFrame, *, confidence: float = 0.95, frame_interval_s: float | None = None
) -> pd.DataFrame:
    """How often each species hops, and the diffusion coefficient this makes.

    Parameters
    ----------
    tracks, hops : DataFrame
        From `track` and `find_hops`.
    confidence : float
    frame_interval_s : float, optional
        Gives rates per second; per frame otherwise.

    Returns
    -------
    DataFrame
        `species`, `time` (watched, gaps included), `hops`, `rate`, `rate_low`, `rate_high` (exact for Poisson
        counts), `step_nm` (root mean square), `diffusion_nm2`, `diffusion_low_nm2`, `diffusion_high_nm2` (per unit
        of time: rate × step² / 4, for hops in random directions), `unit`.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    scale, unit = time_unit(confidence, frame_interval_s)
    table = in_order(tracks)
    passed = table.groupby("track")["frame"].diff()
    rows = []
    for species, time in passed.groupby(table["species"]).sum().items():
        own = hops[hops["species"] == species]
        n, time = len(own), scale * float(time)
        ends = [chi2.ppf((1 + s * confidence) / 2, 2 * k) / 2 if k else 0.0 for s, k in ((-1, n), (1, n + 1))]
        rate = np.array([n, *ends]) / time if time else np.full(3, np.nan)
        square = float((own["step_nm"] ** 2).mean()) if n else lone_step_nm(hops) ** 2
        rows.append((species, time, n, *rate, np.sqrt(square), *(rate * square / 4), unit))
    columns = ["species", "time", "hops", "rate", "rate_low", "rate_high", "step_nm"]
    columns += ["diffusion_nm2", "diffusion_low_nm2", "diffusion_high_nm2", "unit"]
    return pd.DataFrame(rows, columns=columns)


def lone_step_nm(hops: pd.DataFrame) -> float:
    """Step to assume for what was never seen to hop: that of the others, or unknown."""
    return float(np.sqrt((hops["step_nm"] ** 2).mean())) if len(hops) else float("nan")
