"""What the atoms are: what brightness and class maps say of each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree
from scipy.special import ndtr
from scipy.stats import median_abs_deviation

from .. import tables
from ..micrograph import Maps
from ..tables import Atoms
from .rules import VACANCY, BondRules

Floats = npt.NDArray[np.float64]

_HOST_SCATTER = 0.15  # relative scatter of equal columns' brightness
_TAIL, _TAIL_NM = 0.15, 0.3  # share of a bright column's height that its tail adds to columns so near


def assign_elements(atoms: pd.DataFrame, rules: BondRules, *, maps: Maps | None = None) -> Atoms:
    """Add `element` and `element_probability`, from brightness and from class maps where given.

    A column's height is compared with the host's around it (median of the 24 nearest): host
    columns scatter normally around 1, a foreign element lies anywhere in its range. Class maps of
    that name multiply the odds.

    Parameters
    ----------
    atoms : DataFrame
        ATOMS, or SITES, where a row without position becomes a vacancy node at its ideal place.
    rules : BondRules
    maps : Maps, optional
        Probabilities on the pixels the atoms were found in.

    Raises
    ------
    ValueError
        If the host is of several elements and the atoms do not say their `sublattice`.
    """
    table = atoms.reset_index(drop=True).copy()
    if "frame" not in table:
        table["frame"] = 0
    hosts = dict.fromkeys(rules.host)
    element = np.full(len(table), next(iter(hosts)), dtype=object)
    if len(hosts) > 1:
        if "sublattice" not in table:
            raise ValueError(
                f"`atoms` must have `sublattice` to tell {' from '.join(hosts)}; run fit_lattice() and assign_sites()."
            )
        named = table["sublattice"].astype(str).str.extract(r"^([A-Z][a-z]?)", expand=False)
        element = named.fillna(next(iter(hosts))).to_numpy(object)  # off the lattice nothing says which
    probability = np.ones(len(table))
    empty = ~np.isfinite(tables.positions_nm(table)).all(1)
    if "amplitude" in table and rules.brightness:
        ratio, spread = np.ones(len(table)), np.ones(len(table))
        for _, rows in table[~empty].groupby("frame").groups.items():
            ratio[rows], spread[rows] = _relative_brightness(table.loc[rows])
        odds = {
            name: foreign_odds(ratio, spread, low, high) * map_odds(table, maps, name)
            for name, (low, high) in rules.brightness.items()
        }
        total = 1 + sum(odds.values())
        probability = np.asarray(1 / total)
        for name, value in odds.items():
            better = value / total > probability
            element[better], probability[better] = name, (value / total)[better]
    element[empty], probability[empty] = VACANCY, 1.0
    table["element"], table["element_probability"] = element, probability
    return Atoms(table)


def _relative_brightness(atoms: pd.DataFrame) -> tuple[Floats, Floats]:
    """Height over that of the host around, and the 1 sigma that a host column would have."""
    height = atoms["amplitude"].to_numpy(float)
    error = atoms["amplitude_err"].to_numpy(float) if "amplitude_err" in atoms else np.zeros(len(atoms))
    place = tables.positions_nm(atoms)
    tree = cKDTree(place)
    near = tree.query(place, k=min(25, len(atoms)))[1].reshape(len(atoms), -1)
    local = np.maximum(np.median(height[near], axis=1), 1e-12)
    ratio = height / local
    usual = max(_HOST_SCATTER, float(median_abs_deviation(ratio, scale="normal")))
    spread = np.hypot(usual, np.nan_to_num(error / local, nan=1.0))
    first, second = tree.query_pairs(_TAIL_NM, output_type="ndarray").T
    tail = np.zeros(len(atoms))  # what the brightest neighbour's tail may add
    np.maximum.at(tail, first, ratio[second] - 1)
    np.maximum.at(tail, second, ratio[first] - 1)
    return ratio, np.hypot(spread, _TAIL * tail)


def foreign_odds(ratio: Floats, spread: Floats, low: float, high: float, prior: float = 0.01) -> Floats:
    """Odds of an element whose brightness is anywhere in a range against a host column."""
    density = (ndtr((high - ratio) / spread) - ndtr((low - ratio) / spread)) / (high - low)
    host = np.exp(-0.5 * ((ratio - 1) / spread) ** 2) / spread / np.sqrt(2 * np.pi) + 1e-5
    return np.asarray(prior * density / host)


def map_odds(table: pd.DataFrame, maps: Maps | None, species: str) -> Floats:
    """Odds that the maps give for `species` against every other class but background; 1 where they do not know it."""
    if maps is None or species not in maps.classes:
        return np.ones(len(table))
    rivals = [c for c in maps.classes if c not in ("background", species)]
    own, other = (sample_maps(table, maps, group) for group in ([species], rivals))
    return (own + 0.02) / (other + 0.02)


def sample_maps(table: pd.DataFrame, maps: Maps, classes: list[str], *, radius_nm: float = 0.05) -> Floats:
    """Mean of the summed maps of `classes` within a disc around each row; 0 without position."""
    step = np.broadcast_to(np.asarray(maps.pixel_size_nm, float), (2,))
    reach = np.ceil(radius_nm / step).astype(int)
    dy, dx = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    inside = np.hypot(dy * step[0], dx * step[1]) <= radius_nm
    center = np.rint(tables.positions_nm(table) / step)
    result = np.zeros(len(table))
    channels = [maps.classes.index(c) for c in classes if c in maps.classes]
    for frame in table["frame"].unique():
        rows = np.flatnonzero((table["frame"] == frame).to_numpy() & np.isfinite(center).all(1))
        stack = maps.frame(int(frame))[channels].astype(np.float32).sum(0)
        y, x = (
            np.clip(center[rows, None, axis].astype(int) + d[inside], 0, stack.shape[axis] - 1)
            for axis, d in enumerate((dy, dx))
        )
        result[rows] = stack[y, x].mean(1)
    return result
