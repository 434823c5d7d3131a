"""Pairs of defects by distance, beside what chance puts there: pair correlation, Ripley's L."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import KDTree

from .. import tables
from ..checks import check_range
from .counting import ideal_nm, on_lattice

Array = npt.NDArray[np.float64]


def pair_correlation(
    defects: pd.DataFrame | Iterable[pd.DataFrame],
    sites: pd.DataFrame | Iterable[pd.DataFrame],
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
    defects, sites : DataFrame, or iterable of DataFrame
        DEFECTS and SITES of the same image or movie; or of many images in the same order, taken one by one.
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
    pairs = _counted(defects, sites, species, edges, n_simulations, seed)
    g, low, high = pairs.relative(confidence)
    return pd.DataFrame({
        "r_nm": (edges[1:] + edges[:-1]) / 2, "pairs": pairs.observed.astype(int), "g": g, "g_low": low, "g_high": high,
    })  # fmt: skip


def ripley_l(
    defects: pd.DataFrame | Iterable[pd.DataFrame],
    sites: pd.DataFrame | Iterable[pd.DataFrame],
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
    defects, sites, species, max_distance_nm
        As for `pair_correlation`.
    bin_nm : float
        Step of r.
    n_simulations, confidence, seed
        As for `pair_correlation`.

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
    pairs = _counted(defects, sites, species, edges, n_simulations, seed).cumulated()
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

    @classmethod
    def none(cls, bins: int, trials: int) -> _PairCounts:
        return cls(np.zeros(bins), np.zeros(bins), np.zeros((trials, bins)))

    def plus(self, other: _PairCounts) -> _PairCounts:
        return _PairCounts(*(a + b for a, b in zip(self, other, strict=True)))

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


def _counted(
    defects: pd.DataFrame | Iterable[pd.DataFrame], sites: pd.DataFrame | Iterable[pd.DataFrame],
    species: str | tuple[str, str] | None, edges: Array, n_simulations: int, seed: int,
) -> _PairCounts:  # fmt: skip
    """Pairs of one image, or of many together."""
    images = ([one] if isinstance(one, pd.DataFrame) else one for one in (defects, sites))
    rng, pairs, numbers = np.random.default_rng(seed), _PairCounts.none(len(edges) - 1, n_simulations), [0]
    for found, seen in zip(*images, strict=True):
        groups = _groups(tables.check(found, "defects"), species)
        numbers = [sum(n) for n in zip_longest(numbers, map(len, groups), fillvalue=0)]
        pairs = pairs.plus(_pair_counts(groups, on_lattice(seen), edges, n_simulations, rng))
    _check_numbers(numbers, species)
    return pairs


def _edges(max_distance_nm: float, bin_nm: float) -> Array:
    check_range("max_distance_nm", max_distance_nm, 0, above=True)
    check_range("bin_nm", bin_nm, 0, max_distance_nm, above=True)
    return np.arange(0.0, max_distance_nm + bin_nm / 2, bin_nm)


def _groups(defects: pd.DataFrame, species: str | tuple[str, str] | None) -> list[pd.DataFrame]:
    """Defects between which pairs are counted: one group for pairs within it, two for pairs between them."""
    names = () if species is None else (species,) if isinstance(species, str) else tuple(dict.fromkeys(species))
    return [defects[defects["species"] == name] for name in names] or [defects]


def _check_numbers(numbers: list[int], species: str | tuple[str, str] | None) -> None:
    if min(numbers) < 3 - len(numbers):
        what = "at least two defects" if len(numbers) == 1 else "defects of both species"
        raise ValueError(f"pairs need {what}, got {' and '.join(map(str, numbers))} of {species or 'any species'}.")


def _pair_counts(
    groups: list[pd.DataFrame], sites: pd.DataFrame, edges: Array, n: int, rng: np.random.Generator
) -> _PairCounts:
    total, within = _PairCounts.none(len(edges) - 1, n), len(groups) == 1
    for frame in sorted(set().union(*(group["frame"].unique() for group in groups))):
        here = sites[sites["frame"] == frame]
        placed = [_placed(group[group["frame"] == frame], here) for group in groups]
        sublattice = {name: ideal_nm(here[here["sublattice"] == name]) for one in placed for name in one}
        total.observed[:] += _pairs(edges, *(np.concatenate([np.empty((0, 2)), *one.values()]) for one in placed))
        for a in placed[0]:
            for b in placed[-1]:
                ways = len(sublattice[a]) * (len(sublattice[b]) - (a == b))
                wanted = len(placed[0][a]) * (len(placed[-1][b]) - (a == b and within))
                if ways > 0:
                    share = wanted / ways / (2 if within else 1)
                    total.expected[:] += _pairs(edges, sublattice[a], sublattice[b]) * share
        for trial in total.simulated:
            trial += _pairs(edges, *_thrown(placed, sublattice, rng))
    return total


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
