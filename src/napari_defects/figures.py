"""Figures: each function draws one on the Axes it is given and returns it.

    figure, ax = new()
    overview(ax, micrograph, defects)
    save(figure, "overview.png")

Neither pyplot nor global settings are touched.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullFormatter

from .averages import ClassAverage
from .crystals import species_color, species_label
from .deformation import LineProfile, strain_image
from .eshelby import EshelbyFit
from .io import writing
from .micrograph import Micrograph

Array = npt.NDArray[np.floating[Any]]

_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
DIVERGING = "RdBu_r"
_OUTLINE = [withStroke(linewidth=1.6, foreground="black", alpha=0.7)]
_COMPONENTS = {
    "exx": "strain ε$_{xx}$ (%)", "eyy": "strain ε$_{yy}$ (%)", "exy": "shear ε$_{xy}$ (%)",
    "dilation": "dilation ε$_{xx}$ + ε$_{yy}$ (%)", "rotation_rad": "rotation (mrad)",
    "ux_pm": "displacement u$_x$ (pm)", "uy_pm": "displacement u$_y$ (pm)",
}  # fmt: skip


def new(width_mm: float = 120.0, height_mm: float = 100.0) -> tuple[Figure, Axes]:
    """Return an empty figure of this size and its axes."""
    figure = Figure(figsize=(width_mm / 25.4, height_mm / 25.4))
    return figure, figure.add_subplot()


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 200) -> Path:
    """Write a figure as png, pdf, svg ... by the suffix of `path`; all of it or nothing."""
    path = Path(path)
    with writing(path) as temporary:
        known = {"Software": None} if path.suffix == ".png" else None
        figure.savefig(temporary, dpi=dpi, metadata=known, bbox_inches="tight", pad_inches=0.05)
    return path


def overview(
    ax: Axes, micrograph: Micrograph, defects: pd.DataFrame | None = None, *, frame: int = 0, legend: bool = True
) -> Axes:
    """Draw the image with its defects in the colours of their species, a legend and a scale bar."""
    pixels = micrograph.frame(frame)
    size = micrograph.pixel_size_yx_nm
    _picture(ax, pixels, _extent(pixels.shape, size))
    scale_bar(ax)
    if defects is None:
        return ax
    here = defects[(defects["frame"] == frame) & np.isfinite(defects["x_nm"])]
    diameter = max(0.34, 0.014 * float(max(size * pixels.shape)))
    for species, group in _by_species(here):
        xy = group[["x_nm", "y_nm"]].to_numpy(float)
        diameters = np.full(len(xy), diameter)
        for color, width in (("black", 2.2), (species_color(species), 1.2)):
            circles = EllipseCollection(
                diameters, diameters, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=ax.transData,
                facecolors="none", edgecolors=color, linewidths=width, alpha=0.55 if color == "black" else 1,
            )  # fmt: skip
            ax.add_collection(circles)
    if legend and len(here):
        _legend(ax, {s: f"{species_label(s)}   {len(group)}" for s, group in _by_species(here)})
    return ax


def class_average(ax: Axes, average: ClassAverage, *, columns: bool = False) -> Axes:
    """Draw a class average around its defect, and crosses where its columns were measured."""
    _picture(ax, average.image, average.extent_nm, clip=0.0, interpolation="bicubic")
    if columns:
        ax.plot(average.sites["x_nm"], average.sites["y_nm"], "+", color="#ffb000", ms=4, mew=0.8)
    scale_bar(ax)
    ax.set_title(f"{species_label(average.species)}, average of {average.n}", fontsize=9)
    return ax


def precision(ax: Axes, average: ClassAverage) -> Axes:
    """Draw how precisely columns are located in averages of n members, and what the counts allow."""
    for (name, group), color, marker in zip(average.precision.groupby("sublattice"), _SERIES, "os^D", strict=False):
        group = group.sort_values("n")
        ax.plot(group["n"], group["precision_pm"], marker, color=color, ms=4, label=f"{name}")
        ax.plot(group["n"], group["bound_pm"], "-", color=color, lw=1, label=f"{name}, bound")
    ax.set_xscale("log")
    ax.set_yscale("log")
    _few_ticks(ax, "x")
    _few_ticks(ax, "y")
    ax.set_xlabel("members averaged", fontsize=8)
    ax.set_ylabel("precision per axis (pm)", fontsize=8)
    _plain(ax)
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
        magnification = min(_nice(wanted, (1, 1.5, 2, 3, 5, 7)), 100.0)
    err = here[["ux_err_pm", "uy_err_pm"]].to_numpy(float).max(1)
    sure = np.nan_to_num(length / err, nan=0.0) > significance
    ends = u * 1e-3 * magnification
    reference = _nice(max(float(np.quantile(length, 0.97)), 1e-3))
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
        _bare(ax)
        scale_bar(ax, color="black")
    _key(ax, f"{reference:g} pm", reference * 1e-3 * magnification, options)
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
    label = _COMPONENTS.get(component, component)
    if len(here) < 3:
        ax.set_title("no strain", fontsize=9)
        return ax
    unit = 100.0 if "%" in label else 1000.0 if component == "rotation_rad" else 1.0
    low, high = here[["y_nm", "x_nm"]].min().to_numpy(), here[["y_nm", "x_nm"]].max().to_numpy()
    step = max(pixel_size_nm, float((high - low).max()) / 350)
    height, width = (int(n) for n in np.ceil((high - low) / step) + 1)
    sure = (here[component].abs() / (significance * here[_error(component)])).clip(0.15, 1.0).fillna(1.0)
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
    _bare(ax)
    scale_bar(ax, color="black")
    bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.02, alpha=1.0)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(5)
    return ax


def radial_profile(ax: Axes, fit: EshelbyFit) -> Axes:
    """Draw measured radial displacements (± 1 sigma) over the distance, and the elastic inclusion fitted to them."""
    table = fit.residuals.sort_values("r_nm")
    for (name, group), color, marker in zip(table.groupby("sublattice"), _SERIES, "os^D", strict=False):
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
    _plain(ax)
    return ax


def line_profile(ax: Axes, measured: LineProfile, **models: LineProfile) -> Axes:
    """Draw values along a line with ± 1 sigma, and models such as ``elastic=...`` or ``DFT=...`` beside them."""
    unit = 100.0 if "%" in _COMPONENTS.get(measured.component, "") else 1.0
    x, value, err = (np.asarray(a) for a in (measured.distance_nm, measured.value * unit, measured.err * unit))
    ax.fill_between(x, value - err, value + err, color="#0072b2", alpha=0.25, lw=0)
    ax.plot(x, value, "o-", color="#0072b2", ms=3, lw=1, label="experiment ± 1σ")
    for (name, model), style in zip(models.items(), ("-", "--", ":", "-."), strict=False):
        ax.plot(model.distance_nm, np.asarray(model.value) * unit, style, color="black", lw=1.2, label=name)
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)
    ax.set_xlabel("distance along the line (nm)", fontsize=8)
    ax.set_ylabel(_COMPONENTS.get(measured.component, measured.component), fontsize=8)
    _plain(ax)
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
        _few_ticks(ax, "x")
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
    _plain(ax, legend=False)
    return ax


def scale_bar(ax: Axes, *, color: str = "white") -> Axes:
    """Draw a scale bar of a round length into the lower left corner; axes in nm."""
    left, right = sorted(ax.get_xlim())
    low, high = ax.get_ylim()
    width, height = right - left, abs(high - low)
    bottom = max(low, high) if low > high else min(low, high)
    up = -1.0 if low > high else 1.0
    length = _nice(width / 4.5)
    x, y = left + 0.05 * width, bottom + up * 0.05 * height
    effects = _OUTLINE if color == "white" else None
    ax.plot([x, x + length], [y, y], color=color, lw=3, solid_capstyle="butt", path_effects=effects, zorder=9)
    ax.text(
        x + length / 2, y + up * 0.02 * height, f"{length:g} nm", color=color, fontsize=8, ha="center", va="bottom",
        path_effects=effects, zorder=9,
    )  # fmt: skip
    ax.set(xlim=ax.get_xlim(), ylim=(low, high))
    return ax


def _key(ax: Axes, text: str, length_nm: float, options: dict[str, Any]) -> None:
    """Draw an arrow of known length into the lower right corner."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x, y = right - 0.05 * (right - left) - length_nm, bottom + 0.05 * (top - bottom)
    ax.quiver(x, y, length_nm, 0.0, **options)
    ax.text(
        right - 0.05 * (right - left), y + 0.025 * (top - bottom), text, color=options["color"], fontsize=8, ha="right",
        va="bottom", path_effects=_OUTLINE if ax.images else None,
    )  # fmt: skip


def _picture(
    ax: Axes,
    pixels: Array,
    extent: tuple[float, float, float, float],
    clip: float = 0.3,
    interpolation: str = "nearest",
) -> None:
    low, high = np.percentile(pixels, [clip, 100 - clip])
    ax.imshow(pixels, cmap="gray", norm=Normalize(low, high), extent=extent, interpolation=interpolation)
    _bare(ax)


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _plain(ax: Axes, legend: bool = True) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)
    if legend:
        ax.legend(frameon=False, fontsize=7)


def _few_ticks(ax: Axes, which: Literal["x", "y"]) -> None:
    """Let a logarithmic axis span whole decades, with numbers at these alone."""
    low, high = getattr(ax, f"get_{which}lim")()
    ax.set(**{f"{which}lim": (10.0 ** np.floor(np.log10(low)), 10.0 ** np.ceil(np.log10(high)))})
    getattr(ax, f"{which}axis").set_minor_formatter(NullFormatter())


def _legend(ax: Axes, labels: dict[str, str]) -> None:
    handles = [
        Line2D([], [], ls="", marker="o", mfc="none", mec=species_color(s), mew=1.6, ms=7, label=text)
        for s, text in labels.items()
    ]
    ax.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, handletextpad=0.3
    )


def _by_species(defects: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Defects by species, the most frequent first."""
    groups = [(str(name), group) for name, group in defects.groupby("species")]
    return sorted(groups, key=lambda item: (-len(item[1]), item[0]))


def _extent(shape: tuple[int, ...], size: Array) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of an image in nm; pixel (0, 0) has its centre at the origin."""
    return -size[1] / 2, (shape[1] - 0.5) * size[1], (shape[0] - 0.5) * size[0], -size[0] / 2


def _nice(value: float, steps: tuple[float, ...] = (1, 2, 5)) -> float:
    """Round down to one of the steps times a power of ten."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(m for m in steps if m * power <= value * 1.0001))


def _error(component: str) -> str:
    """Name of the column with the errors of another."""
    stem, _, unit = component.rpartition("_")
    return f"{stem}_err_{unit}" if unit in ("pm", "nm", "rad") else f"{component}_err"
