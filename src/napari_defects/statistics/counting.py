"""How many defects there are, of how many sites, on which area."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2, norm

from .. import tables
from ..crystals import site_of
from ..tables import Counts, crystal_of

Array = npt.NDArray[np.float64]

PER_CM2 = 1e14
"""1 nm^-2 in cm^-2."""

MISSED, INVENTED = "(missed)", "(none)"
"""What is said of a defect that was not found, and what is true where one was invented."""


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
        COUNTS, the most frequent first; ``attrs["area_nm2"]`` is the area, ``attrs["sites"]`` the number of all sites.

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22, 209 (1927); Garwood, Biometrika 28, 437 (1936).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence}; 0.95 is usual.")
    if area_nm2 is not None and not area_nm2 > 0:
        raise ValueError(f"`area_nm2` must be positive, got {area_nm2}.")
    defects, sites = tables.check(defects, "defects"), on_lattice(sites)
    area = _area_nm2(sites) if area_nm2 is None else float(area_nm2)
    numbers = dict.fromkeys(species or (), 0) | Counter(defects["species"])
    rows = []
    for name, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0])):
        n_sites = int(could_be(sites, name).sum())
        low, high = wilson_interval(number, n_sites, confidence)
        fewest, most = poisson_interval(number, confidence)
        density = np.array([number, fewest, most]) / area * PER_CM2 if area > 0 else np.full(3, np.nan)
        rows.append((name, number, n_sites, number / n_sites if n_sites else np.nan, low, high, *density))
    names = [c.name for c in tables.COUNTS]
    counts = tables.check(pd.DataFrame(rows, columns=names) if rows else tables.empty("counts"), "counts")
    counts.attrs = {"area_nm2": area, "confidence": confidence, "sites": len(sites)}
    return Counts(counts)


def wilson_interval(number: float, total: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a fraction `number` / `total`; NaN where `total` is 0."""
    if total <= 0 or number > total:
        return float("nan"), float("nan")
    z = float(norm.ppf(0.5 + confidence / 2))
    p, spread = number / total, z * z / total
    center = (p + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(p * (1 - p) / total + spread / (4 * total))
    return max(float(center - half), 0.0), min(float(center + half), 1.0)


def poisson_interval(number: float, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Garwood) interval of the mean of a Poisson distribution that gave `number`."""
    tail = (1 - confidence) / 2
    low = float(chi2.ppf(tail, 2 * number)) / 2 if number else 0.0
    return low, float(chi2.ppf(1 - tail, 2 * number + 2)) / 2


def on_lattice(sites: pd.DataFrame) -> pd.DataFrame:
    """Return SITES without the atoms that lie off the lattice."""
    checked = tables.check(sites, "sites")
    return checked[checked["sublattice"] != ""]


def ideal_nm(sites: pd.DataFrame) -> Array:
    """Ideal positions (y, x) in nm, shape (row, 2)."""
    return sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)


def could_be(sites: pd.DataFrame, species: str) -> npt.NDArray[np.bool_]:
    """Tell which sites could have been a species: those of its element, or all for a bonding class."""
    element = site_of(species)
    if element is None:
        return np.ones(len(sites), bool)
    names = {element}
    with suppress(ValueError):  # a crystal of one's own: its sublattices are called after their elements
        names |= {s.name for s in crystal_of(sites).sublattices if s.element == element}
    return sites["sublattice"].isin(names).to_numpy()


def _area_nm2(sites: pd.DataFrame) -> float:
    """Area of the unit cells seen, frames added up."""
    with suppress(ValueError):
        crystal = crystal_of(sites)
        return len(sites) / len(crystal.sublattices) * crystal.cell_area_nm2
    if len(sites) < 3:
        return float("nan")
    design = np.column_stack([sites[["i", "j"]].to_numpy(float), pd.get_dummies(sites["sublattice"], dtype=float)])
    vectors = np.linalg.lstsq(design, ideal_nm(sites), rcond=None)[0][:2]
    return len(sites) / sites["sublattice"].nunique() * float(abs(np.linalg.det(vectors)))
