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
from ..checks import check_range
from ..crystals import CRYSTALS, Crystal, site_of, species_names
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
    species: str | Sequence[str] | None = None,
) -> Counts:
    """Count each species: how many, of how many sites, per area, with intervals.

    Parameters
    ----------
    defects : DataFrame
        DEFECTS. The frames of a movie show one specimen: numbers add up over them, intervals are those of one frame.
    sites : DataFrame
        SITES of the same image: what has been looked at, empty sites included.
    confidence : float
        Of the intervals: Wilson's for fractions, the exact one of a Poisson count for densities.
    area_nm2 : float, optional
        Area looked at. By default the area of the cells in `sites`, which leaves holes out; a known
        crystal (``sites.attrs["crystal"]``) is the ruler, else the lattice as measured.
    species : str or sequence of str, optional
        Count these also, as ``"V_Se, V_W"``, where there are none: the upper limits of their intervals then bound them.

    Returns
    -------
    DataFrame
        COUNTS, the most frequent first; ``attrs["area_nm2"]`` is the area, ``attrs["sites"]`` the number of all sites.

    Raises
    ------
    ValueError
        If a number is out of range, or `sites` are not of the crystal that they name or that can have `species`.

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22, 209 (1927); Garwood, Biometrika 28, 437 (1936).
    """
    check_range("confidence", confidence, 0, 1, above=True, below=True, hint="0.95 is usual")
    if area_nm2 is not None:
        check_range("area_nm2", area_nm2, 0, above=True)
    defects, sites = tables.check(defects, "defects"), on_lattice(sites)
    area = _area_nm2(sites) if area_nm2 is None else float(area_nm2)
    found = Counter(defects["species"])
    numbers = dict.fromkeys(species_names(species or (), _crystal(sites), found), 0) | found
    frames = max(sites["frame"].nunique(), 1)  # the same defects again and again: worth one look
    rows = []
    for name, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0])):
        n_sites = int(could_be(sites, name).sum())
        low, high = wilson_interval(number / frames, n_sites / frames, confidence)
        fewest, most = poisson_interval(number / frames, confidence)
        density = (
            np.array([number, fewest * frames, most * frames]) / area * PER_CM2 if area > 0 else np.full(3, np.nan)
        )
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
    crystal = _crystal(sites)
    names = {s.name for s in crystal.sublattices if s.element == element} if crystal else set()
    return sites["sublattice"].isin({element, *names}).to_numpy()


def _crystal(sites: pd.DataFrame) -> Crystal | None:
    """Crystal of sites; None for one of one's own, whose sublattices are called after their elements."""
    if sites.attrs.get("crystal") in CRYSTALS:
        return crystal_of(sites)
    with suppress(ValueError):
        return crystal_of(sites)
    return None


def _area_nm2(sites: pd.DataFrame) -> float:
    """Area of the unit cells seen, frames added up."""
    if (crystal := _crystal(sites)) is not None:
        return len(sites) / len(crystal.sublattices) * crystal.cell_area_nm2
    if len(sites) < 3:
        return float("nan")
    design = np.column_stack([sites[["i", "j"]].to_numpy(float), pd.get_dummies(sites["sublattice"], dtype=float)])
    vectors = np.linalg.lstsq(design, ideal_nm(sites), rcond=None)[0][:2]
    return len(sites) / sites["sublattice"].nunique() * float(abs(np.linalg.det(vectors)))
