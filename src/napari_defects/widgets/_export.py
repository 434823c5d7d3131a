"""A button that writes the figure a widget shows, at the widths that journals print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton

from napari_defects.saving import file_name

WIDTHS_MM = {"one column": 85.0, "one and a half": 120.0, "two columns": 170.0}
"""Widths that most journals print."""

FILTERS = "PDF (*.pdf);;SVG (*.svg);;PNG (*.png)"


class ExportFigure(QPushButton):
    """Export figure ▾: 85, 120 or 170 mm wide, as pdf, svg or png.

    Parameters
    ----------
    panel : Panel
        The widget it belongs to, which tells what was written and what went wrong.
    draw : callable
        Called with empty matplotlib Axes, as ``lambda ax: figures.strain_map(ax, table)``; raises ValueError with one
        sentence where there is nothing to draw yet.
    name : callable
        Returns the name to propose for the file, as ``lambda: "strain of V_Se"``.
    aspect : float
        Height over width of the paper.
    """

    def __init__(self, panel: Any, draw: Callable[[Any], Any], name: Callable[[], str], *, aspect: float = 0.8):
        super().__init__("Export figure")
        self._panel, self._draw, self._name, self._aspect = panel, draw, name, aspect
        menu = QMenu(self)
        for words, width_mm in WIDTHS_MM.items():
            menu.addAction(f"{width_mm:g} mm, {words}…", lambda width=width_mm: self.export(width))
        self.setMenu(menu)
        self.setToolTip("Write this as a figure of exactly that width; text stays text in PDF and SVG.")

    def export(self, width_mm: float, path: str | Path | None = None) -> None:
        """Write the figure; ask where to, if no `path` is given."""
        from napari_defects.figures.publication import publish

        if path is None:
            path, chosen = QFileDialog.getSaveFileName(self, "Export figure", file_name(self._name()), FILTERS)
            if not path:
                return
            if Path(path).suffix.lower() not in (".pdf", ".svg", ".png"):
                path = f"{path}.{chosen.partition(' ')[0].lower() or 'pdf'}"
        try:
            written = publish(self._draw, path, width_mm=width_mm, aspect=self._aspect)
        except (ValueError, TypeError, OSError) as error:
            self._panel.fail(error)
            return
        self._panel.say(f"✓ Wrote {written.name}, {width_mm:g} mm wide.")
