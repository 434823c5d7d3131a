"""One unit cell at a glance: picture, what the network is shown, profile over the references, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QWidget

from napari_defects.widgets._cells import cell_color
from napari_defects.widgets.average import picture

Array = npt.NDArray[np.floating[Any]]
SIDE_PX, COLUMNS = 70, 4
PINK = "#ff5d8f"
"""Of the cell that is looked at: its outline in the image, its profile."""


class CellView(NamedTuple):
    """What there is to see of a cell.

    Attributes
    ----------
    pictures : ndarray, shape (2, side, side)
        The cell in the crystal's frame, and the typical one of its image.
    channels : ndarray, shape (1, 2 or 4, side, side)
        As the network sees it.
    distance_nm, profile : ndarray
        From metal to chalcogen.
    references : mapping
        Kind to the profile expected of it.
    probabilities : mapping
        Kind to probability.
    species : str
        As the table has it.
    """

    pictures: Array
    channels: Array
    distance_nm: Array
    profile: Array
    references: Mapping[str, Array]
    probabilities: Mapping[str, float]
    species: str


class CellPanel(QWidget):
    """Shows a `CellView`; its buttons name the cell."""

    def __init__(self, chosen: Callable[[str], None]):
        super().__init__()
        self._chosen = chosen
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(3)
        self.images = [(QLabel(), QLabel()) for _ in range(COLUMNS)]
        for column, (image, words) in enumerate(self.images):
            image.setFixedSize(SIDE_PX, SIDE_PX)
            words.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            self._grid.addWidget(image, 0, column, Qt.AlignmentFlag.AlignHCenter)
            self._grid.addWidget(words, 1, column)
        self.plot: Any = None
        self.buttons: dict[str, QPushButton] = {}
        self.setVisible(False)

    def look(self, view: CellView) -> None:
        """Show a cell."""
        low, high = np.percentile(view.pictures, (1, 99.8))
        names = ("as seen",) if len(view.channels) == 1 else ("metal", "chalcogen")
        shown = [*zip(("cell", "typical cell"), view.pictures, strict=True), *zip(names, view.channels, strict=False)]
        for (image, words), (name, data) in zip(self.images, shown, strict=False):
            image.setPixmap(picture(data, (float(low), float(high)), SIDE_PX))
            words.setText(name)
        self._draw(view)
        self._offer(view)
        self.setVisible(True)

    def _draw(self, view: CellView) -> None:
        import pyqtgraph as pg

        if self.plot is None:
            self.plot = pg.PlotWidget(background=None)
            self.plot.setFixedHeight(130)
            self.plot.setMouseEnabled(False, False)
            self.plot.hideButtons()
            self.plot.setMenuEnabled(False)
            self.plot.getAxis("bottom").enableAutoSIPrefix(False)
            self.plot.setLabel("bottom", "from metal to chalcogen (nm)")
            self.plot.setToolTip("Pink: this cell. Others: simulated cells, in the colours of the buttons.")
            self.plot.getAxis("left").setStyle(showValues=False)
            self.plot.getAxis("left").setWidth(8)
            self._grid.addWidget(self.plot, 2, 0, 1, COLUMNS)
        self.plot.clear()
        for name, line in view.references.items():
            own = name == view.species
            pen = pg.mkPen(cell_color(name), width=2.5 if own else 1.2, style=_STYLES[own])
            self.plot.plot(view.distance_nm, line, pen=pen)
        self.plot.plot(view.distance_nm, view.profile, pen=pg.mkPen(PINK, width=3))

    def _offer(self, view: CellView) -> None:
        from qtpy.QtGui import QColor, QIcon, QPixmap

        if list(self.buttons) != list(view.probabilities):
            for button in self.buttons.values():
                button.deleteLater()
            self.buttons = {}
            for number, name in enumerate(view.probabilities):
                spot = QPixmap(12, 12)
                spot.fill(QColor(cell_color(name)))
                button = QPushButton(QIcon(spot), name)
                button.setCheckable(True)
                button.setStyleSheet("text-align: left; padding: 3px 5px")
                button.setToolTip("Click to give the cell this name, or to confirm it; it joins the collection.")
                button.clicked.connect(lambda _checked=False, name=name: self._chosen(name))
                self._grid.addWidget(button, 3 + number // 2, 2 * (number % 2), 1, 2)
                self.buttons[name] = button
        for name, probability in view.probabilities.items():
            self.buttons[name].setText(f"{name}   {100 * probability:.1f} %")
            self.buttons[name].setChecked(name == view.species)


_STYLES = {True: Qt.PenStyle.SolidLine, False: Qt.PenStyle.DashLine}
