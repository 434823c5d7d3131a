"""How defects lie to each other: neighbours, clusters, pair correlation, Ripley's L."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from .. import tables
from .counting import ideal_nm, on_lattice

Array = npt.NDArray[np.float64]


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
    if not max_distance_nm > 0:
        raise ValueError(f"`max_distance_nm` must be positive, got {max_distance_nm}.")
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


def pair_correlation(
    defects: pd.DataFrame,
    sites: pd.DataFrame,
    *,
    species: str | tuple[str, str] | None = None,
    max_distance_nm: float = 3.0,
    bin_nm: float = 0.25,
    n_simulations: int = 199,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Pair correlation of defects, relative to the same defects thrown at random on the same sites.

    The expectation is taken over the sites that were seen, so that borders, holes and the lattice
    itself need no further correction: g = 1 means no interaction, whatever the shape of the field.

    Parameters
    ----------
    defects, sites : DataFrame
        DEFECTS and SITES of the same image or movie.
    species : str or (str, str), optional
        Within this species, or between two; by default all together, each on its own sublattice.
    max_distance_nm, bin_nm : float
        Largest distance, and width of a bin.
    n_simulations : int
        Random arrangements behind the envelope.
    confidence : float
        Share of them that lies in the envelope at each distance.
    seed : int

    Returns
    -------
    DataFrame
        ``r_nm`` (bin centre), ``pairs``, ``g``, ``g_low``, ``g_high`` (envelope of no interaction).

    Raises
    ------
    ValueError
        If there are fewer than two defects, or none of one of two species.
    """
    edges = _edges(max_distance_nm, bin_nm)
    pairs = _pair_counts(defects, sites, species, edges, n_simulations, seed)
    g, low, high = pairs.relative(confidence)
    return pd.DataFrame({
        "r_nm": (edges[1:] + edges[:-1]) / 2, "pairs": pairs.observed.astype(int), "g": g, "g_low": low, "g_high": high,
    })  # fmt: skip


def ripley_l(
    defects: pd.DataFrame,
    sites: pd.DataFrame,
    *,
    species: str | tuple[str, str] | None = None,
    max_distance_nm: float = 3.0,
    bin_nm: float = 0.1,
    n_simulations: int = 199,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Ripley's L(r) - r: above zero where there are more pairs within r than chance on these sites puts there.

    As in `pair_correlation` the expectation is that of the sites seen: L = r √(pairs / expected pairs).

    Parameters
    ----------
    defects, sites, species, max_distance_nm, n_simulations, confidence, seed
        As for `pair_correlation`.
    bin_nm : float
        Step of r.

    Returns
    -------
    DataFrame
        ``r_nm``, ``pairs`` (within r), ``l_minus_r_nm``, ``l_low_nm``, ``l_high_nm`` (envelope).

    Raises
    ------
    ValueError
        As `pair_correlation`.

    References
    ----------
    Ripley, J. R. Stat. Soc. B 39, 172 (1977); Besag, ibid. 193.
    """
    edges = _edges(max_distance_nm, bin_nm)
    pairs = _pair_counts(defects, sites, species, edges, n_simulations, seed).cumulated()
    r = edges[1:]
    value, low, high = (r * np.sqrt(share) - r for share in pairs.relative(confidence))
    return pd.DataFrame({
        "r_nm": r, "pairs": pairs.observed.astype(int), "l_minus_r_nm": value, "l_low_nm": low, "l_high_nm": high,
    })  # fmt: skip


class _PairCounts(NamedTuple):
    """Pairs by distance: as seen, as expected by chance, and in each random arrangement (trial, bin)."""

    observed: Array
    expected: Array
    simulated: Array

    def cumulated(self) -> _PairCounts:
        return _PairCounts(np.cumsum(self.observed), np.cumsum(self.expected), np.cumsum(self.simulated, axis=1))

    def relative(self, confidence: float) -> tuple[Array, Array, Array]:
        """Observed over expected, and the envelope; NaN where nothing could be."""
        tail = (1 - confidence) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(self.expected > 0, self.observed / self.expected, np.nan)
            envelope = np.quantile(self.simulated, [tail, 1 - tail], axis=0) / self.expected
            low, high = np.where(self.expected > 0, envelope, np.nan)
        return value, low, high


def _edges(max_distance_nm: float, bin_nm: float) -> Array:
    if not 0 < bin_nm <= max_distance_nm:
        raise ValueError(f"`bin_nm` must lie between 0 and max_distance_nm = {max_distance_nm}, got {bin_nm}.")
    return np.arange(0.0, max_distance_nm + bin_nm / 2, bin_nm)


def _pair_counts(
    defects: pd.DataFrame, sites: pd.DataFrame, species: str | tuple[str, str] | None, edges: Array, n: int, seed: int
) -> _PairCounts:
    defects, sites = tables.check(defects, "defects"), on_lattice(sites)
    between = species if isinstance(species, tuple) and species[0] != species[1] else None
    if between is None and species is not None:
        defects = defects[defects["species"] == (species if isinstance(species, str) else species[0])]
    rng = np.random.default_rng(seed)
    observed = np.zeros(len(edges) - 1)
    expected, simulated = np.zeros_like(observed), np.zeros((n, len(observed)))
    numbers = [len(defects)] if between is None else [int((defects["species"] == s).sum()) for s in between]
    if min(numbers) < 2 - (between is not None):
        what = "at least two defects" if between is None else "defects of both species"
        raise ValueError(f"pairs need {what}, got {' and '.join(map(str, numbers))} of {species or 'any species'}.")
    for frame, group in defects.groupby("frame"):
        here = sites[sites["frame"] == frame]
        groups = [group] if between is None else [group[group["species"] == s] for s in between]
        placed = [_placed(one, here) for one in groups]
        sublattice = {name: ideal_nm(here[here["sublattice"] == name]) for one in placed for name in one}
        observed += _pairs(edges, *(np.concatenate([np.empty((0, 2)), *one.values()]) for one in placed))
        for a in placed[0]:
            for b in placed[-1]:
                ways = len(sublattice[a]) * (len(sublattice[b]) - (a == b))
                same = a == b and between is None
                wanted = len(placed[0][a]) * (len(placed[-1][b]) - same)
                if ways > 0:
                    share = wanted / ways / (2 if between is None else 1)
                    expected += _pairs(edges, sublattice[a], sublattice[b]) * share
        for trial in simulated:
            trial += _pairs(edges, *_thrown(placed, sublattice, rng))
    return _PairCounts(observed, expected, simulated)


def _thrown(placed: list[dict[str, Array]], sublattice: dict[str, Array], rng: np.random.Generator) -> list[Array]:
    """As many defects of each group as were placed, at random on their sublattices, no two on one site."""
    thrown: list[list[Array]] = [[np.empty((0, 2))] for _ in placed]
    for name, at in sublattice.items():
        numbers = [len(one.get(name, ())) for one in placed]
        chosen = rng.choice(len(at), sum(numbers), replace=False)
        for k, rows in enumerate(np.split(chosen, np.cumsum(numbers)[:-1])):
            thrown[k].append(at[rows])
    return [np.concatenate(one) for one in thrown]


def _placed(defects: pd.DataFrame, sites: pd.DataFrame) -> dict[str, Array]:
    """Ideal positions of the sites nearest to the defects, by sublattice; each site once."""
    at = tables.positions_nm(defects.dropna(subset=["y_nm", "x_nm"]))
    if not len(at) or not len(sites):
        return {}
    rows = np.unique(KDTree(ideal_nm(sites)).query(at)[1])
    names = sites["sublattice"].to_numpy()[rows]
    return {name: ideal_nm(sites)[rows[names == name]] for name in np.unique(names)}


def _pairs(edges: Array, first: Array, second: Array | None = None) -> Array:
    """Histogram of distances: unordered pairs within `first`, or ordered pairs from `first` to `second`."""
    if not len(first) or (second is not None and not len(second)):
        return np.zeros(len(edges) - 1)
    tree = KDTree(first)
    other = tree if second is None else KDTree(second)
    cumulative = tree.count_neighbors(other, np.append(1e-9, edges[1:]))
    return np.diff(cumulative.astype(float)) / (2 if second is None else 1)
