"""What the figures share: an empty one, its file, scale bar, colours, plain axes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter

from ..crystals import species_color
from ..saving import writing

Array = npt.NDArray[np.floating[Any]]

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
DIVERGING = "RdBu_r"
OUTLINE = [withStroke(linewidth=1.6, foreground="black", alpha=0.7)]
COMPONENTS = {
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


def scale_bar(ax: Axes, *, color: str = "white") -> Axes:
    """Draw a scale bar of a round length into the lower left corner; axes in nm."""
    left, right = sorted(ax.get_xlim())
    low, high = ax.get_ylim()
    width, height = right - left, abs(high - low)
    bottom = max(low, high) if low > high else min(low, high)
    up = -1.0 if low > high else 1.0
    length = round_down(width / 4.5)
    x, y = left + 0.05 * width, bottom + up * 0.05 * height
    effects = OUTLINE if color == "white" else None
    ax.plot([x, x + length], [y, y], color=color, lw=3, solid_capstyle="butt", path_effects=effects, zorder=9)
    ax.text(
        x + length / 2, y + up * 0.02 * height, f"{length:g} nm", color=color, fontsize=8, ha="center", va="bottom",
        path_effects=effects, zorder=9,
    )  # fmt: skip
    ax.set(xlim=ax.get_xlim(), ylim=(low, high))
    return ax


def arrow_key(ax: Axes, text: str, length_nm: float, options: dict[str, Any]) -> None:
    """Draw an arrow of known length into the lower right corner."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x, y = right - 0.05 * (right - left) - length_nm, bottom + 0.05 * (top - bottom)
    ax.quiver(x, y, length_nm, 0.0, **options)
    ax.text(
        right - 0.05 * (right - left), y + 0.025 * (top - bottom), text, color=options["color"], fontsize=8, ha="right",
        va="bottom", path_effects=OUTLINE if ax.images else None,
    )  # fmt: skip


def picture(
    ax: Axes,
    pixels: Array,
    extent: tuple[float, float, float, float],
    clip: float = 0.3,
    interpolation: str = "nearest",
) -> None:
    low, high = np.percentile(pixels, [clip, 100 - clip])
    ax.imshow(pixels, cmap="gray", norm=Normalize(low, high), extent=extent, interpolation=interpolation)
    bare(ax)


def bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def plain(ax: Axes, legend: bool = True) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)
    if legend:
        ax.legend(frameon=False, fontsize=7)


def few_ticks(ax: Axes, which: Literal["x", "y"]) -> None:
    """Let a logarithmic axis span whole decades, with numbers at these alone."""
    low, high = getattr(ax, f"get_{which}lim")()
    ax.set(**{f"{which}lim": (10.0 ** np.floor(np.log10(low)), 10.0 ** np.ceil(np.log10(high)))})
    getattr(ax, f"{which}axis").set_minor_formatter(NullFormatter())


def species_legend(ax: Axes, labels: dict[str, str]) -> None:
    handles = [
        Line2D([], [], ls="", marker="o", mfc="none", mec=species_color(s), mew=1.6, ms=7, label=text)
        for s, text in labels.items()
    ]
    ax.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, handletextpad=0.3
    )


def by_species(defects: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Defects by species, the most frequent first."""
    groups = [(str(name), group) for name, group in defects.groupby("species")]
    return sorted(groups, key=lambda item: (-len(item[1]), item[0]))


def extent_nm(shape: tuple[int, ...], size: Array) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of an image in nm; pixel (0, 0) has its centre at the origin."""
    return -size[1] / 2, (shape[1] - 0.5) * size[1], (shape[0] - 0.5) * size[0], -size[0] / 2


def round_down(value: float, steps: tuple[float, ...] = (1, 2, 5)) -> float:
    """Round down to one of the steps times a power of ten."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(m for m in steps if m * power <= value * 1.0001))


def error_column(component: str) -> str:
    """Name of the column with the errors of another."""
    stem, _, unit = component.rpartition("_")
    return f"{stem}_err_{unit}" if unit in ("pm", "nm", "rad") else f"{component}_err"
