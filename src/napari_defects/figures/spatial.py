"""Figures of how defects are spread: over distances, over images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..crystals import species_color, species_label
from ..statistics import wilson_interval
from ._axes import plain


def pair_correlation(ax: Axes, table: pd.DataFrame, species: str | None = None) -> Axes:
    """Draw g(r) from `statistics.pair_correlation`, and in grey the envelope of defects that do not interact."""
    there = table.dropna(subset=["g"])
    color = "#0072b2" if species is None else species_color(species)
    ax.fill_between(there["r_nm"], there["g_low"], there["g_high"], color="0.85", lw=0, label="no interaction")
    ax.axhline(1, color="0.6", lw=0.6)
    ax.plot(there["r_nm"], there["g"], "o-", color=color, mec="black", mew=0.4, ms=4, lw=1)
    top = float(np.nanmax(there[["g", "g_high"]].to_numpy(float), initial=0.0))
    ax.set(xlim=(0, None), ylim=(0, max(2.0, 1.1 * top)))
    ax.set_xlabel("distance (nm)", fontsize=8)
    ax.set_ylabel("pair correlation g", fontsize=8)
    ax.set_title("" if species is None else species_label(species), fontsize=9)
    plain(ax)
    return ax


def spread_over_images(ax: Axes, fractions: pd.DataFrame, species: str) -> Axes:
    """Draw the fraction of a species in each image over its sites, and where chance would put them.

    Parameters
    ----------
    ax : Axes
    fractions : DataFrame
        COUNTS of all images with the column ``image``.
    species : str
    """
    here = fractions[fractions["species"] == species]
    sites = here["sites"].to_numpy(float)
    mean = here["count"].sum() / max(sites.sum(), 1)
    grid = np.geomspace(max(sites.min(initial=np.inf) * 0.8, 1), max(sites.max(initial=1.0) * 1.25, 2), 60)
    for confidence, gray in ((0.997, "0.93"), (0.95, "0.85")):
        low, high = np.array([wilson_interval(mean * n, n, confidence) for n in grid]).T
        ax.fill_between(grid, 100 * low, 100 * high, color=gray, lw=0, label=f"{100 * confidence:g} % of images")
    ax.axhline(100 * mean, color="0.5", lw=0.8)
    ax.plot(sites, 100 * here["fraction"], "o", color=species_color(species), mec="black", mew=0.4, ms=4)
    ax.set(xlim=(grid[0], grid[-1]), ylim=(0, None))
    ax.set_xlabel("sites in the image", fontsize=8)
    ax.set_ylabel(f"{species_label(species)} (% of sites)", fontsize=8)
    plain(ax)
    return ax
