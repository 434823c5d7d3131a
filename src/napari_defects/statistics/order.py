"""How the occupants of a sublattice mix: Warren-Cowley short-range order, and maps of density."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from .. import tables
from ..checks import check_choice, check_range
from ..micrograph import Micrograph
from .counting import could_be, ideal_nm, on_lattice

Array = npt.NDArray[np.float64]


def short_range_order(
    defects: pd.DataFrame,
    sites: pd.DataFrame,
    *,
    sublattice: str,
    shells: int = 3,
    n_permutations: int = 199,
    seed: int = 0,
) -> pd.DataFrame:
    """Warren-Cowley parameters of the occupants of a sublattice.

    α(A, B, shell) = 1 - p(B next to A) / p(B): below zero where A attracts B, above where it avoids it. What
    chance gives is taken from permutations of the occupants over the same sites, which corrects for borders,
    holes and the finite number of sites.

    Parameters
    ----------
    defects, sites : DataFrame
        DEFECTS and SITES of the same image or movie.
    sublattice : str
        Its name, as ``"Se"``.
    shells : int
        Shells of neighbours on that sublattice.
    n_permutations : int
    seed : int

    Returns
    -------
    DataFrame
        ``center``, ``neighbor`` (a species, or the sublattice's name for its host), ``shell``, ``r_nm``,
        ``pairs``, ``alpha``, ``alpha_err`` (1 sigma of chance) and ``p_value``.

    Raises
    ------
    ValueError
        If there is no such sublattice, or less than two kinds of occupants.

    References
    ----------
    Cowley, Phys. Rev. 77, 669 (1950).
    """
    defects, sites = tables.check(defects, "defects"), on_lattice(sites)
    here = sites[sites["sublattice"] == sublattice]
    check_choice("sublattice", sublattice, sorted(sites["sublattice"].unique()))
    occupant = _occupants(defects, here, sublattice)
    names, code = np.unique(occupant, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"short-range order on {sublattice!r} needs two kinds of occupants, got {names[0]} alone.")
    bonds, r = _shells(here, shells)
    rng = np.random.default_rng(seed)
    trials = np.stack([_pair_table(np.array(code), bonds, len(names), shells)]
                      + [_pair_table(_permuted(code, here, rng), bonds, len(names), shells)
                         for _ in range(n_permutations)])  # fmt: skip
    expected = trials[1:].mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = np.where(expected > 0, 1 - trials[0] / expected, np.nan)
        err = np.where(expected > 0, trials[1:].std(0) / expected, np.nan)
        p_value = 2 * norm.sf(np.abs(alpha) / err)
    rows = [
        (names[a], names[b], s + 1, r[s], int(trials[0, s, a, b]), alpha[s, a, b], err[s, a, b], p_value[s, a, b])
        for s, a, b in product(range(shells), range(len(names)), range(len(names)))
        if a <= b
    ]
    columns = ["center", "neighbor", "shell", "r_nm", "pairs", "alpha", "alpha_err", "p_value"]
    return pd.DataFrame(rows, columns=columns)


def density_map(
    defects: pd.DataFrame,
    sites: pd.DataFrame,
    *,
    species: str,
    smoothing_nm: float = 2.0,
    pixel_size_nm: float = 0.25,
    frame: int = 0,
) -> Micrograph:
    """Map the local fraction of a species among the sites it could be on.

    Parameters
    ----------
    defects, sites : DataFrame
        DEFECTS and SITES of the same image.
    species : str
    smoothing_nm : float
        Standard deviation of the Gaussian over which is averaged.
    pixel_size_nm : float
        Of the map.
    frame : int

    Returns
    -------
    Micrograph
        Fractions; the centre of its pixel (0, 0) is the origin of the tables. NaN where no sites are near.
    """
    check_range("smoothing_nm", smoothing_nm, 0, above=True)
    check_range("pixel_size_nm", pixel_size_nm, 0, above=True)
    defects, sites = tables.check(defects, "defects"), on_lattice(sites)
    possible = ideal_nm(sites[could_be(sites, species) & (sites["frame"] == frame)])
    if not len(possible):
        raise ValueError(f"`sites` has no site for {species!r} in frame {frame}; is it a species of this crystal?")
    found = defects[(defects["species"] == species) & (defects["frame"] == frame)]
    shape = tuple(int(n) + 1 for n in np.ceil(np.maximum(possible.max(0), 0.0) / pixel_size_nm))
    there, all_ = (_smoothed(at, shape, pixel_size_nm, smoothing_nm) for at in (tables.positions_nm(found), possible))
    seen = all_ > 0.05 * np.quantile(all_, 0.9)
    return Micrograph(np.where(seen, there / np.where(seen, all_, 1.0), np.nan).astype(np.float32), pixel_size_nm)


def _smoothed(at: Array, shape: tuple[int, ...], pixel_size_nm: float, smoothing_nm: float) -> Array:
    at = at[np.isfinite(at).all(1)]
    counts, *_ = np.histogramdd(at / pixel_size_nm, bins=[np.arange(n + 1) - 0.5 for n in shape])
    return np.asarray(gaussian_filter(counts, smoothing_nm / pixel_size_nm, mode="constant"), float)


def _occupants(defects: pd.DataFrame, sites: pd.DataFrame, sublattice: str) -> npt.NDArray[np.str_]:
    """Name of the species on each site, that of the sublattice for its host."""
    place = ["frame", "i", "j"]
    there = defects[defects["sublattice"] == sublattice].drop_duplicates(place)
    names = sites[place].merge(there[[*place, "species"]], how="left", on=place)["species"]
    return names.fillna(sublattice).to_numpy(str)


def _shells(sites: pd.DataFrame, shells: int) -> tuple[list[npt.NDArray[np.intp]], list[float]]:
    """Ordered pairs of rows for each shell of lattice vectors, and the shell's mean distance."""
    cell = [tuple(key) for key in sites[["frame", "i", "j"]].to_numpy(np.int64).tolist()]
    row = {key: k for k, key in enumerate(cell)}
    at = ideal_nm(sites)

    def pairs(step: tuple[int, int], n: int | None = None) -> npt.NDArray[np.intp]:
        others = ((k, row.get((f, i + step[0], j + step[1]), -1)) for k, (f, i, j) in enumerate(cell[:n]))
        return np.array([pair for pair in others if pair[1] >= 0], np.intp).reshape(-1, 2)

    steps: dict[tuple[int, int], float] = {}
    reach = range(-shells - 1, shells + 2)
    for step in ((di, dj) for di in reach for dj in reach):
        if step != (0, 0) and len(few := pairs(step, 400)):
            steps[step] = float(np.median(np.linalg.norm(at[few[:, 0]] - at[few[:, 1]], axis=1)))
    if not steps:
        raise ValueError("short-range order needs neighbouring sites; `sites` has none.")
    distances = np.sort(np.array(list(steps.values())))
    breaks = np.flatnonzero(np.diff(distances) > 0.2 * distances[0])
    edges = [0.0, *(float(distances[k] + distances[k + 1]) / 2 for k in breaks), np.inf]
    bonds: list[npt.NDArray[np.intp]] = []
    r: list[float] = []
    for low, high in pairwise(edges[: shells + 1]):
        chosen = [step for step, d in steps.items() if low < d < high]
        bonds.append(np.concatenate([pairs(step) for step in chosen]))
        r.append(float(np.mean([steps[step] for step in chosen])))
    return bonds, r


def _pair_table(code: npt.NDArray[np.intp], bonds: list[npt.NDArray[np.intp]], kinds: int, shells: int) -> Array:
    """Ordered pairs (shell, center, neighbor)."""
    counts = [np.bincount(code[b[:, 0]] * kinds + code[b[:, 1]], minlength=kinds * kinds) for b in bonds]
    return np.array(counts, float).reshape(shells, kinds, kinds)


def _permuted(code: npt.NDArray[np.intp], sites: pd.DataFrame, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Shuffle the occupants within each frame."""
    result = np.array(code)
    for rows in sites.reset_index(drop=True).groupby("frame").indices.values():
        result[rows] = rng.permutation(result[rows])
    return result
