"""How bright the columns of the sublattices are, relative to each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import median_abs_deviation

from ..tables import Sites, check


def sublattice_intensities(sites: Sites) -> pd.DataFrame:
    """Median amplitude of each sublattice, its scatter, and its ratio to the brightest.

    Parameters
    ----------
    sites : Sites
        From `assign_sites`.

    Returns
    -------
    DataFrame
        One row a sublattice, the brightest first: `sublattice`, `columns` (how many), `amplitude` and
        `amplitude_err` (of the median), `scatter` (1 sigma from column to column), `ratio` and `ratio_err`.

    Raises
    ------
    ValueError
        If no atom has a site.
    """
    table = check(sites, "sites")
    on = table[table["i"].notna() & table["amplitude"].notna()]
    if not len(on):
        raise ValueError("no atom of `sites` has a place in the lattice; run assign_sites() with the right lattice.")
    rows = []
    for name, own in on.groupby("sublattice")["amplitude"]:
        middle = float(own.median())
        scatter = float(median_abs_deviation(own, scale="normal"))
        rows.append((name, len(own), middle, 1.2533 * scatter / np.sqrt(len(own)), scatter))
    result = pd.DataFrame(rows, columns=["sublattice", "columns", "amplitude", "amplitude_err", "scatter"])
    result = result.sort_values("amplitude", ascending=False, ignore_index=True)
    relative = result["amplitude_err"] / result["amplitude"]
    result["ratio"] = result["amplitude"] / result["amplitude"].iloc[0]
    result["ratio_err"] = result["ratio"] * np.hypot(relative, relative.iloc[0])
    result.loc[0, "ratio_err"] = 0.0
    return result
