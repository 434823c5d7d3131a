"""Figures as journals want them: a column wide to the millimetre, text that stays text."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ..saving import writing

Drawing = Callable[[Axes], Any]
"""Draws a figure on the Axes it is given, as the functions of this package do; ``ax.figure`` is there for more."""

FORMATS = (".pdf", ".svg", ".png")
PAD_MM = 1.0
_TEXT_AS_TEXT: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "napari-defects", "font.size": 8.0}


def publish(
    draw: Drawing, path: str | os.PathLike[str], *, width_mm: float = 85.0, aspect: float = 0.8, dpi: int = 600
) -> Path:
    """Write a figure of exactly this width; its height is what the drawing needs.

    Parameters
    ----------
    draw : callable
        Called with empty Axes.
    path : path
        pdf, svg (text stays text in both) or png.
    width_mm : float
        Width of the page of the file.
    aspect : float
        Height over width of the paper to draw on; what stays empty above and below is cut off.
    dpi : int
        Of a png, and of images within pdf and svg.

    Raises
    ------
    ValueError
        If the format is another, or the width cannot be printed.
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"`path` must end in {', '.join(FORMATS)}, got {path.name!r}.")
    if not 20 <= width_mm <= 500:
        raise ValueError(f"`width_mm` must be 20 to 500, got {width_mm}; journals print 85, 120 or 170.")
    with mpl.rc_context(_TEXT_AS_TEXT):
        figure = Figure(figsize=(width_mm / 25.4, width_mm * aspect / 25.4), layout="constrained")
        draw(figure.add_subplot())
        figure.draw_without_rendering()
        tight, pad = figure.get_tightbbox(), PAD_MM / 25.4
        page = Bbox([[0.0, tight.y0 - pad], [width_mm / 25.4, tight.y1 + pad]])
        known = {"Software": None} if path.suffix.lower() == ".png" else {"Creator": "napari-defects"}
        with writing(path) as temporary:
            figure.savefig(temporary, dpi=dpi, metadata=known, bbox_inches=page)
    return path
