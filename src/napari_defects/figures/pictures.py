"""Figures in the plane of the image: the image itself, averages, displacements, strain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import MaxNLocator

from ..averages import ClassAverage, Superposition
from ..crystals import species_color, species_label
from ..deformation import strain_image
from ..micrograph import Micrograph
from ._axes import (
    COMPONENTS,
    DIVERGING,
    arrow_key,
    bare,
    by_species,
    error_column,
    extent_nm,
    picture,
    round_down,
    scale_bar,
    species_legend,
)


def overview(
    ax: Axes, micrograph: Micrograph, defects: pd.DataFrame | None = None, *, frame: int = 0, legend: bool = True
) -> Axes:
    """Draw the image with its defects in the colours of their species, a legend and a scale bar."""
    pixels = micrograph.frame(frame)
    size = micrograph.pixel_size_yx_nm
    picture(ax, pixels, extent_nm(pixels.shape, size))
    scale_bar(ax)
    if defects is None:
        return ax
    here = defects[(defects["frame"] == frame) & np.isfinite(defects["x_nm"])]
    diameter = max(0.34, 0.014 * float(max(size * pixels.shape)))
    for species, group in by_species(here):
        xy = group[["x_nm", "y_nm"]].to_numpy(float)
        diameters = np.full(len(xy), diameter)
        for color, width in (("black", 2.2), (species_color(species), 1.2)):
            circles = EllipseCollection(
                diameters, diameters, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=ax.transData,
                facecolors="none", edgecolors=color, linewidths=width, alpha=0.55 if color == "black" else 1,
            )  # fmt: skip
            ax.add_collection(circles)
    if legend and len(here):
        species_legend(ax, {s: f"{species_label(s)}   {len(group)}" for s, group in by_species(here)})
    return ax


def class_average(ax: Axes, average: ClassAverage, *, columns: bool = False) -> Axes:
    """Draw a class average around its defect, and crosses where its columns were measured."""
    picture(ax, average.image, average.extent_nm, clip=0.0, interpolation="bicubic")
    if columns:
        ax.plot(average.sites["x_nm"], average.sites["y_nm"], "+", color="#ffb000", ms=4, mew=0.8)
    scale_bar(ax)
    ax.set_title(f"{species_label(average.species)}, average of {average.n}", fontsize=9)
    return ax


def displacements(
    ax: Axes,
    strain: pd.DataFrame,
    *,
    magnification: float | None = None,
    significance: float = 2.0,
    frame: int = 0,
) -> Axes:
    """Draw displacement vectors, enlarged; faint where they are within `significance` times their error.

    Parameters
    ----------
    ax : Axes
        Empty, or with the image in nm.
    strain : DataFrame
        STRAIN table.
    magnification : float, optional
        Of the vectors; by default such that the longest ones about reach the next column; 100 at most.
    significance : float
    frame : int
    """
    here = strain[(strain["frame"] == frame) & np.isfinite(strain["ux_pm"]) & np.isfinite(strain["x_nm"])]
    u = here[["ux_pm", "uy_pm"]].to_numpy(float)
    length = np.hypot(*u.T)
    if not len(u):
        ax.set_title("no displacements", fontsize=9)
        return ax
    if magnification is None:
        wanted = min(180.0 / max(float(np.quantile(length, 0.9)), 1e-3), 250.0 / max(float(length.max()), 1e-3))
        magnification = min(round_down(wanted, (1, 1.5, 2, 3, 5, 7)), 100.0)
    err = here[["ux_err_pm", "uy_err_pm"]].to_numpy(float).max(1)
    sure = np.nan_to_num(length / err, nan=0.0) > significance
    ends = u * 1e-3 * magnification
    reference = round_down(max(float(np.quantile(length, 0.97)), 1e-3))
    color = "#ffb000" if ax.images else "#c04000"
    if not ax.images:
        ax.plot(here["x_nm"], here["y_nm"], "o", color="0.8", ms=3, zorder=0)
    for shown, alpha in ((~sure, 0.35), (sure, 1.0)):
        options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.006, "color": color}
        ax.quiver(*here[["x_nm", "y_nm"]].to_numpy()[shown].T, *ends[shown].T, alpha=alpha, **options)
    ax.set_title(", ".join(filter(None, (ax.get_title(), f"displacements × {magnification:g}"))), fontsize=9)
    if not ax.images:
        ax.set_aspect("equal")
        ax.invert_yaxis()
        bare(ax)
        scale_bar(ax, color="black")
    arrow_key(ax, f"{reference:g} pm", reference * 1e-3 * magnification, options)
    return ax


def superposition(ax: Axes, cluster: ClassAverage, found: Superposition, *, magnification: float | None = None) -> Axes:
    """Draw the measured field of a cluster, and the sum of those of its single defects, over its average."""
    longest = float(np.hypot(found.table["uy_pm"], found.table["ux_pm"]).max())
    magnification = magnification or min(round_down(220.0 / max(longest, 1e-3)), 100.0)
    picture(ax, cluster.image, cluster.extent_nm, clip=0.0, interpolation="bicubic")
    options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1000 / magnification}
    place = found.table[["x_ideal_nm", "y_ideal_nm"]].to_numpy(float).T
    for columns, color, width, label in (
        (["ux_sum_pm", "uy_sum_pm"], "#56b4e9", 0.011, "sum of singles"),
        (["ux_pm", "uy_pm"], "#ffb000", 0.005, "measured"),
    ):
        ax.quiver(*place, *found.table[columns].to_numpy(float).T, color=color, width=width, label=label, **options)
    scale_bar(ax)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2, frameon=False, fontsize=7)
    words = (
        f"× {magnification:g}, measured = ({found.factor:.2f} ± {found.factor_err:.2f}) × sum, p = {found.p_value:.2g}"
    )
    ax.set_title(f"{cluster.species}, average of {cluster.n}\n{words}", fontsize=8)
    return ax


def strain_map(
    ax: Axes,
    strain: pd.DataFrame,
    component: str = "dilation",
    *,
    limit: float | None = None,
    significance: float = 2.0,
    pixel_size_nm: float = 0.03,
    frame: int = 0,
) -> Axes:
    """Draw a column of a STRAIN table as a map, in colours centred at zero, faint where it is not significant.

    Parameters
    ----------
    ax : Axes
    strain : DataFrame
        STRAIN table.
    component : str
        ``"dilation"``, ``"exx"``, ``"rotation_rad"``, ``"ux_pm"`` ...
    limit : float, optional
        Value, in the unit of the table, at the ends of the colour scale; by default the 99th percentile.
    significance : float
        Full colour from this multiple of the local error on.
    pixel_size_nm : float
        Of the map; that of large fields is coarser.
    frame : int
    """
    here = strain[(strain["frame"] == frame) & np.isfinite(strain[component]) & np.isfinite(strain["x_nm"])]
    label = COMPONENTS.get(component, component)
    if len(here) < 3:
        ax.set_title("no strain", fontsize=9)
        return ax
    unit = 100.0 if "%" in label else 1000.0 if component == "rotation_rad" else 1.0
    low, high = here[["y_nm", "x_nm"]].min().to_numpy(), here[["y_nm", "x_nm"]].max().to_numpy()
    step = max(pixel_size_nm, float((high - low).max()) / 350)
    height, width = (int(n) for n in np.ceil((high - low) / step) + 1)
    sure = (here[component].abs() / (significance * here[error_column(component)])).clip(0.15, 1.0).fillna(1.0)
    values, alpha = (
        strain_image(here.assign(sure=sure), name, (height, width), step, origin_nm=(low[0], low[1]), frame=frame)
        for name in (component, "sure")
    )
    if limit is None:
        limit = float(np.nanquantile(np.abs(here[component]), 0.99)) or 1.0
    extent = (low[1] - step / 2, low[1] + (width - 0.5) * step, low[0] + (height - 0.5) * step, low[0] - step / 2)
    drawn = ax.imshow(
        values * unit, cmap=DIVERGING, norm=TwoSlopeNorm(0.0, -limit * unit, limit * unit),
        alpha=np.nan_to_num(alpha), extent=extent, interpolation="bilinear",
    )  # fmt: skip
    ax.set_facecolor("white")
    bare(ax)
    scale_bar(ax, color="black")
    bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.02, alpha=1.0)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(5)
    return ax
