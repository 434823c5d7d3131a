"""Figures with axes of numbers: precision, profiles, counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..averages import ClassAverage
from ..crystals import species_color, species_label
from ..deformation import LineProfile
from ..eshelby import EshelbyFit
from ._axes import COMPONENTS, SERIES, few_ticks, plain


def precision(ax: Axes, average: ClassAverage) -> Axes:
    """Draw how precisely columns are located in averages of n members, 1/√n from all of them, and the bound."""
    for (name, group), color, marker in zip(average.precision.groupby("sublattice"), SERIES, "os^D", strict=False):
        group = group.sort_values("n")
        n, value = group["n"].to_numpy(float), group["precision_pm"].to_numpy(float)
        ax.errorbar(n, value, group["precision_err_pm"], fmt=marker, color=color, ms=4, lw=0.8, label=f"{name}")
        ax.plot(n, value[-1] * np.sqrt(n[-1] / n), "--", color=color, lw=0.8, label=f"{name}, 1/√n")
        ax.plot(n, group["bound_pm"], "-", color=color, lw=1, label=f"{name}, bound")
    ax.set_xscale("log")
    ax.set_yscale("log")
    few_ticks(ax, "x")
    few_ticks(ax, "y")
    ax.set_xlabel("members averaged", fontsize=8)
    ax.set_ylabel("precision per axis (pm)", fontsize=8)
    plain(ax)
    return ax


def radial_profile(ax: Axes, fit: EshelbyFit) -> Axes:
    """Draw measured radial displacements (± 1 sigma) over the distance, and the elastic inclusion fitted to them."""
    table = fit.residuals.sort_values("r_nm")
    for (name, group), color, marker in zip(table.groupby("sublattice"), SERIES, "os^D", strict=False):
        at, u, err = (group[c] for c in ("r_nm", "radial_pm", "radial_err_pm"))
        ax.errorbar(at, u, err, fmt=marker, color=color, ms=3.5, lw=0.8, label=f"{name}")
    r = np.linspace(table["r_nm"].min(), table["r_nm"].max(), 200)
    ax.plot(r, 1000 * fit.c_nm2 / r, color="black", lw=1.2, label="elastic inclusion")
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)
    ax.set_xlabel("distance from the defect (nm)", fontsize=8)
    ax.set_ylabel("radial displacement (pm)", fontsize=8)
    note = f"C = {1e6 * fit.c_nm2:.0f} ± {1e6 * fit.c_err_nm2:.0f} pm²,  p = {fit.p_value:.2g}"
    ax.set_title(note, fontsize=8)
    ax.margins(y=0.2)
    plain(ax)
    return ax


def line_profile(ax: Axes, measured: LineProfile, **models: LineProfile) -> Axes:
    """Draw values along a line with ± 1 sigma, and models such as ``elastic=...`` or ``DFT=...`` beside them."""
    unit = 100.0 if "%" in COMPONENTS.get(measured.component, "") else 1.0
    x, value, err = (np.asarray(a) for a in (measured.distance_nm, measured.value * unit, measured.err * unit))
    ax.fill_between(x, value - err, value + err, color="#0072b2", alpha=0.25, lw=0)
    ax.plot(x, value, "o-", color="#0072b2", ms=3, lw=1, label="experiment ± 1σ")
    for (name, model), style in zip(models.items(), ("-", "--", ":", "-."), strict=False):
        ax.plot(model.distance_nm, np.asarray(model.value) * unit, style, color="black", lw=1.2, label=name)
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)
    ax.set_xlabel("distance along the line (nm)", fontsize=8)
    ax.set_ylabel(COMPONENTS.get(measured.component, measured.component), fontsize=8)
    plain(ax)
    return ax


def counts(ax: Axes, counts: pd.DataFrame, *, area_nm2: float | None = None) -> Axes:
    """Draw the density of each species with its interval; the counts stand beside the points."""
    rows = counts.iloc[::-1].reset_index(drop=True)
    density, low, high = (rows[f"density{s}_per_cm2"].to_numpy(float) for s in ("", "_low", "_high"))
    for k, species in enumerate(rows["species"]):
        start = low[k] if low[k] > 0 else high[k] / 1e3
        ax.plot([start, high[k]], [k, k], color=species_color(species), lw=2.2, solid_capstyle="butt")
        if density[k] > 0:
            ax.plot(density[k], k, "o", color=species_color(species), mec="black", mew=0.5, ms=6)
        ax.annotate(
            f"{rows['count'][k]}",
            (1.02, k),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            annotation_clip=False,
        )
    if len(rows):
        ax.set_xscale("log")
        few_ticks(ax, "x")
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.annotate(
            "count",
            (1.02, len(rows) - 0.4),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize=8,
            annotation_clip=False,
        )
    else:
        ax.set_title("no defects", fontsize=9)
    ax.set_yticks(range(len(rows)), [species_label(s) for s in rows["species"]], fontsize=8)
    area_nm2 = counts.attrs.get("area_nm2") if area_nm2 is None else area_nm2
    confidence = counts.attrs.get("confidence", 0.95)
    over = f", {area_nm2:.0f} nm² seen" if area_nm2 else ""
    ax.set_xlabel(f"density (cm⁻²), {100 * confidence:g} % interval{over}", fontsize=8)
    plain(ax, legend=False)
    return ax
