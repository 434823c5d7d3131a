"""What a defect was, and how it lay, frame after frame; a click goes to that frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_defects.crystals import species_color
from napari_defects.widgets._ink import InkedAxes

HEIGHT_PX = 118


class Timeline(QWidget):
    """Class over frame above, a quantity over frame below; open symbols are unsure frames.

    Parameters
    ----------
    go : callable
        Called with a frame that was clicked on.
    """

    def __init__(self, go: Callable[[int], None]):
        super().__init__()
        self._go = go
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(0)
        self.plots: list[Any] = []
        self.cursors: list[Any] = []
        self.frames = np.zeros(0, int)
        self.setVisible(False)

    def show_track(self, track: pd.DataFrame, quantity: pd.DataFrame, words: str) -> None:
        """Show one trajectory: `track` with frame, species, unsure; `quantity` with frame, value, error, unsure."""
        self._make()
        self.frames = track["frame"].to_numpy(int)
        names = sorted(track["species"].unique())
        above, below = self.plots
        for plot in self.plots:
            for item in [*plot.listDataItems(), *getattr(plot, "bars", [])]:
                plot.removeItem(item)
        above.getAxis("left").setTicks([list(enumerate(names))])
        above.setYRange(-0.6, len(names) - 0.4, padding=0)
        code = track["species"].map({name: k for k, name in enumerate(names)}).to_numpy(float)
        self._line(above, track["frame"], code, None, [species_color(s) for s in track["species"]], track["unsure"])
        colors = ["#56b4e9"] * len(quantity)
        self._line(below, quantity["frame"], quantity["value"], quantity["error"], colors, quantity["unsure"])
        below.getAxis("left").setLabel(words)
        below.enableAutoRange(axis="y")
        above.setXRange(self.frames.min() - 0.5, self.frames.max() + 0.5, padding=0.02)
        self.setVisible(True)

    def at(self, frame: int) -> None:
        """Put the cursor on a frame."""
        for cursor in self.cursors:
            cursor.setValue(frame)

    def clicked(self, x: float) -> None:
        """Go to the frame of the trajectory nearest to a place on the axis."""
        if len(self.frames):
            self._go(int(self.frames[np.abs(self.frames - x).argmin()]))

    def _make(self) -> None:
        import pyqtgraph as pg

        if self.plots:
            return
        for number in range(2):
            plot = pg.PlotWidget(background=None)
            plot.setFixedHeight(HEIGHT_PX if number else HEIGHT_PX - 20)
            plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            plot.setMouseEnabled(False, False)
            plot.hideButtons()
            plot.setMenuEnabled(False)
            plot.showGrid(x=True, y=True, alpha=0.15)
            plot.getAxis("left").setWidth(58)
            for side in ("left", "bottom"):
                plot.getAxis(side).enableAutoSIPrefix(False)
            cursor = pg.InfiniteLine(angle=90, pen=pg.mkPen("#ff5d8f", width=1.5))
            plot.addItem(cursor)
            plot.scene().sigMouseClicked.connect(
                lambda event, p=plot: self.clicked(p.getViewBox().mapSceneToView(event.scenePos()).x())
            )
            self.cursors.append(cursor)
            self.plots.append(plot)
            self._layout.addWidget(plot)
            InkedAxes(plot)
        self.plots[0].getAxis("bottom").setStyle(showValues=False)
        self.plots[1].setXLink(self.plots[0])
        self.plots[1].setLabel("bottom", "frame")

    @staticmethod
    def _line(plot: Any, frame: Any, value: Any, error: Any, colors: list[str], unsure: Any) -> None:
        import pyqtgraph as pg

        x, y, open_ = np.asarray(frame, float), np.asarray(value, float), np.asarray(unsure, bool)
        plot.plot(x, y, pen=pg.mkPen("#8a8a8a", width=1), connect="finite")
        plot.bars = []
        if error is not None and np.isfinite(np.asarray(error, float)).any():
            bars = pg.ErrorBarItem(
                x=x, y=np.nan_to_num(y), height=2 * np.nan_to_num(np.asarray(error, float)), pen=pg.mkPen("#8a8a8a")
            )
            plot.addItem(bars)
            plot.bars = [bars]
        brushes = [pg.mkBrush(None if o else c) for c, o in zip(colors, open_, strict=True)]
        dots = pg.PlotDataItem(
            x, y, pen=None, symbol="o", symbolSize=6, symbolBrush=brushes, symbolPen=[pg.mkPen(c) for c in colors]
        )
        plot.addItem(dots)


def quantities(track: pd.DataFrame, rotor: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Give what can be shown over the frames of a trajectory: words to a table of frame, value, error, unsure."""
    found = {}
    if len(rotor):
        found["angle (°)"] = _column(rotor, "angle_deg", "angle_err_deg")
        found["triangle distortion"] = _column(rotor, "distortion", None)
    for words, name, error in (
        ("bond (pm)", "bond_pm", "bond_err_pm"),
        ("off 360°/n (°)", "angle_off_deg", "angle_off_err_deg"),
        ("probability", "probability", None),
    ):
        if track[name].notna().any():
            found[words] = _column(track, name, error)
    return found


def _column(table: pd.DataFrame, name: str, error: str | None) -> pd.DataFrame:
    return pd.DataFrame({
        "frame": table["frame"], "value": table[name], "error": np.nan if error is None else table[error],
        "unsure": table.get("unsure", False),
    })  # fmt: skip
