"""Small plots in widgets: points with errors and lines, in colours that can be told apart."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_defects.widgets._ink import Ink, InkedAxes

COLORS = ("#2183d0", "#d55e00", "#00946b", "#c2589b")
"""Each has a contrast of 3 or more on napari's dark and on its light theme."""
HEIGHT_PX = 190


class Plot(QWidget):
    """One plot with a legend; hidden while there is nothing to show."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.plot: Any = None
        self.legend = Ink()
        self.legend.setWordWrap(True)
        layout.addWidget(self.legend)
        self.setVisible(False)

    def begin(self, bottom: str, left: str, *, log: bool = False) -> Any:
        """Empty the plot and name its axes."""
        import pyqtgraph as pg

        if self.plot is None:
            self.plot = pg.PlotWidget(background=None)
            self.plot.setFixedHeight(HEIGHT_PX)
            self.plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)  # as wide as the panel is
            self.plot.setMouseEnabled(False, False)
            self.plot.hideButtons()
            self.plot.setMenuEnabled(False)
            for axis in ("bottom", "left"):
                self.plot.getAxis(axis).enableAutoSIPrefix(False)
            self.layout().addWidget(self.plot)
            InkedAxes(self.plot)
        self.plot.clear()
        self.plot.setVisible(True)
        self.legend.setText("")
        self.plot.setLogMode(log, log)
        self._log = log
        self.plot.setLabel("bottom", bottom)
        self.plot.setLabel("left", left)
        self.setVisible(True)
        return self.plot

    def excuse(self, words: str) -> None:
        """Say why there is nothing to draw."""
        self.begin("", "").setVisible(False)
        self.legend.setText(escape(words))

    def points(self, x: Any, y: Any, err: Any, color: str, name: str) -> None:
        """Draw points with bars of 1 sigma."""
        import pyqtgraph as pg

        x, y, err = (np.asarray(v, float) for v in (x, y, err))
        low, high = y - np.nan_to_num(err), y + np.nan_to_num(err)
        if self._log:
            ends = np.repeat(np.log10(x), 2), np.log10(np.maximum(np.column_stack([low, high]).ravel(), 1e-6))
        else:
            ends = np.repeat(x, 2), np.column_stack([low, high]).ravel()
        self.plot.addItem(pg.PlotCurveItem(*ends, connect="pairs", pen=pg.mkPen(color, width=1)))
        self.plot.plot(x, y, pen=None, symbol="o", symbolSize=5, symbolBrush=color, symbolPen=None)
        self._explain("●", color, name)

    def line(self, x: Any, y: Any, color: str, name: str | None = None, *, dashed: bool = False) -> None:
        """Draw a line."""
        import pyqtgraph as pg

        style = Qt.PenStyle.DashLine if dashed else Qt.PenStyle.SolidLine
        pen = pg.mkPen(color, width=1.5, style=style)
        self.plot.plot(np.asarray(x, float), np.asarray(y, float), pen=pen)
        self._explain("╌╌" if dashed else "━━", color, name)

    def _explain(self, sign: str, color: str, name: str | None) -> None:
        entry = name and f'<span style="color: {color}">{sign}</span>&nbsp;{escape(name)}'
        self.legend.setText(" &emsp;".join(filter(None, (self.legend.text(), entry))))


def draw_precision(plot: Plot, precision: pd.DataFrame) -> None:
    """Precision against members, 1/√n through the whole average, and the bound."""
    plot.setVisible(len(precision) > 0)
    if not len(precision):
        return
    plot.begin("members averaged", "precision (pm)", log=True)
    for (name, group), color in zip(precision.groupby("sublattice"), COLORS, strict=False):
        group = group.sort_values("n")
        n, value = group["n"].to_numpy(float), group["precision_pm"].to_numpy(float)
        plot.line(n, group["bound_pm"], color, f"{name} bound")
        plot.line(n, value[-1] * np.sqrt(n[-1] / n), color, f"{name} 1/√n", dashed=True)
        plot.points(n, value, group["precision_err_pm"], color, str(name))
