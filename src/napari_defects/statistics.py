"""How many defects there are, and how they lie to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import KDTree
from scipy.stats import chi2, norm

from . import tables
from .crystals import CRYSTALS, get_crystal, site_of
from .tables import Counts

Array = npt.NDArray[np.float64]

PER_CM2 = 1e14
"""1 nm^-2 in cm^-2."""


def count(
    defects: pd.DataFrame,
    sites: pd.DataFrame,
    *,
    confidence: float = 0.95,
    area_nm2: float | None = None,
    species: Sequence[str] | None = None,
) -> Counts:
    """Count each species: how many, of how many sites, per area, with intervals.

    Parameters
    ----------
    defects : DataFrame
        DEFECTS; of a movie, all frames are pooled.
    sites : DataFrame
        SITES of the same image: what has been looked at, empty sites included.
    confidence : float
        Of the intervals: Wilson's for fractions, the exact one of a Poisson count for densities.
    area_nm2 : float, optional
        Area looked at. By default the area of the cells in `sites`, which leaves holes out; a known
        crystal (``sites.attrs["crystal"]``) is the ruler, else the lattice as measured.
    species : sequence of str, optional
        Count these also where there are none: the upper limits of their intervals then bound them.

    Returns
    -------
    DataFrame
        COUNTS, the most frequent first; ``attrs["area_nm2"]`` is the area.

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22, 209 (1927); Garwood, Biometrika 28, 437 (1936).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence}; 0.95 is usual.")
    if area_nm2 is not None and not area_nm2 > 0:
        raise ValueError(f"`area_nm2` must be positive, got {area_nm2}.")
    defects, sites = tables.check(defects, "defects"), _on_lattice(sites)
    area = _area_nm2(sites) if area_nm2 is None else float(area_nm2)
    numbers = dict.fromkeys(species or (), 0) | Counter(defects["species"])
    rows = []
    for name, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0])):
        n_sites = int(_could_be(sites, name).sum())
        low, high = wilson_interval(number, n_sites, confidence)
        fewest, most = poisson_interval(number, confidence)
        density = np.array([number, fewest, most]) / area * PER_CM2 if area > 0 else np.full(3, np.nan)
        rows.append((name, number, n_sites, number / n_sites if n_sites else np.nan, low, high, *density))
    names = [c.name for c in tables.COUNTS]
    counts = tables.check(pd.DataFrame(rows, columns=names) if rows else tables.empty("counts"), "counts")
    counts.attrs = {"area_nm2": area, "confidence": confidence}
    return Counts(counts)


def wilson_interval(number: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a fraction `number` / `total`; NaN where `total` is 0."""
    if total <= 0 or number > total:
        return float("nan"), float("nan")
    z = float(norm.ppf(0.5 + confidence / 2))
    p, spread = number / total, z * z / total
    center = (p + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(p * (1 - p) / total + spread / (4 * total))
    return max(float(center - half), 0.0), min(float(center + half), 1.0)


def poisson_interval(number: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Garwood) interval of the mean of a Poisson distribution that gave `number`."""
    tail = (1 - confidence) / 2
    low = float(chi2.ppf(tail, 2 * number)) / 2 if number else 0.0
    return low, float(chi2.ppf(1 - tail, 2 * number + 2)) / 2


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


def pair_correlation(
    defects: pd.DataFrame,
    sites: pd.DataFrame,
    *,
    species: str | None = None,
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
    species : str, optional
        Only this species; by default all together, each on its own sublattice.
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
        If there are fewer than two defects.
    """
    if not 0 < bin_nm <= max_distance_nm:
        raise ValueError(f"`bin_nm` must lie between 0 and max_distance_nm = {max_distance_nm}, got {bin_nm}.")
    defects, sites = tables.check(defects, "defects"), _on_lattice(sites)
    if species is not None:
        defects = defects[defects["species"] == species]
    if len(defects) < 2:
        which = species or "any species"
        raise ValueError(f"a pair correlation needs at least two defects, got {len(defects)} of {which}.")
    edges = np.arange(0.0, max_distance_nm + bin_nm / 2, bin_nm)
    rng = np.random.default_rng(seed)
    observed = np.zeros(len(edges) - 1)
    expected = np.zeros_like(observed)
    simulated = np.zeros((n_simulations, len(observed)))
    for frame, group in defects.groupby("frame"):
        here = sites[sites["frame"] == frame]
        chosen = _chosen(group, here)
        observed += _pairs(np.concatenate([_ideal_nm(here)[rows] for rows in chosen.values()]), edges)
        trees = {name: _ideal_nm(here[here["sublattice"] == name]) for name in chosen}
        numbers = {name: len(rows) for name, rows in chosen.items()}
        for a, first in trees.items():
            for b, second in trees.items():
                ways = len(first) * (len(second) - (a == b))
                wanted = numbers[a] * (numbers[b] - (a == b))
                if ways > 0:
                    expected += _pairs(first, edges, second) * wanted / ways / 2
        for trial in simulated:
            thrown = [tree[rng.choice(len(tree), numbers[name], replace=False)] for name, tree in trees.items()]
            trial += _pairs(np.concatenate(thrown), edges)
    tail = (1 - confidence) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        g = np.where(expected > 0, observed / expected, np.nan)
        low, high = np.where(expected > 0, np.quantile(simulated, [tail, 1 - tail], axis=0) / expected, np.nan)
    return pd.DataFrame({
        "r_nm": (edges[1:] + edges[:-1]) / 2, "pairs": observed.astype(int), "g": g, "g_low": low, "g_high": high,
    })  # fmt: skip


def _on_lattice(sites: pd.DataFrame) -> pd.DataFrame:
    """SITES without the atoms that lie off the lattice."""
    checked = tables.check(sites, "sites")
    return checked[checked["sublattice"] != ""]


def _could_be(sites: pd.DataFrame, species: str) -> npt.NDArray[np.bool_]:
    """Which sites could have been a species: those of its element, or all for a bonding class."""
    element = site_of(species)
    if element is None:
        return np.ones(len(sites), bool)
    names = {element}
    if crystal := sites.attrs.get("crystal"):
        names |= {s.name for s in get_crystal(crystal).sublattices if s.element == element}
    return sites["sublattice"].isin(names).to_numpy()


def _area_nm2(sites: pd.DataFrame) -> float:
    """Area of the unit cells seen, frames added up."""
    name = sites.attrs.get("crystal")
    if name in CRYSTALS:
        crystal = CRYSTALS[name]
        return len(sites) / len(crystal.sublattices) * crystal.cell_area_nm2
    if len(sites) < 3:
        return float("nan")
    design = np.column_stack([sites[["i", "j"]].to_numpy(float), pd.get_dummies(sites["sublattice"], dtype=float)])
    vectors = np.linalg.lstsq(design, _ideal_nm(sites), rcond=None)[0][:2]
    return len(sites) / sites["sublattice"].nunique() * float(abs(np.linalg.det(vectors)))


def _ideal_nm(sites: pd.DataFrame) -> Array:
    return sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)


def _chosen(defects: pd.DataFrame, sites: pd.DataFrame) -> dict[str, npt.NDArray[np.intp]]:
    """Rows of `sites` nearest to the defects, by sublattice; each row once."""
    _, rows = KDTree(_ideal_nm(sites)).query(tables.positions_nm(defects.dropna(subset=["y_nm", "x_nm"])))
    rows = np.unique(rows)
    names = sites["sublattice"].to_numpy()[rows]
    return {name: rows[names == name] for name in np.unique(names)}


def _pairs(first: Array, edges: Array, second: Array | None = None) -> Array:
    """Histogram of distances: unordered pairs within `first`, or ordered pairs from `first` to `second`."""
    tree = KDTree(first)
    other = tree if second is None else KDTree(second)
    cumulative = tree.count_neighbors(other, np.append(1e-9, edges[1:]))
    return np.diff(cumulative.astype(float)) / (2 if second is None else 1)
