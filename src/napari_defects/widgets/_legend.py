"""The legend of a layer of defects: symbol, name and count of each species; a click hides or shows one."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QPointF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap, QPolygonF
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_defects.crystals import species_color, species_label
from napari_defects.widgets._points import RING, species_symbol


class Legend(QTreeWidget):
    """Species of a Points layer with their counts; click a row to toggle it, double-click to see it alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer: Any = None
        self.setColumnCount(3)
        self.setHeaderHidden(True)
        self.setRootIsDecorated(False)
        self.setIndentation(4)
        self.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.header().setStretchLastSection(False)
        self.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2):
            self.header().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.setToolTip("Click a species to hide or show it, double-click to see it alone.")
        self.itemClicked.connect(lambda item: self.toggle(item.data(0, Qt.ItemDataRole.UserRole)))
        self.itemDoubleClicked.connect(lambda item: self.only(item.data(0, Qt.ItemDataRole.UserRole)))
        self.setVisible(False)

    def follow(self, layer: Any) -> None:
        """Show the species of `layer`, and follow its changes; None for nothing."""
        if self.layer is not None and self.layer is not layer:
            self.layer.events.features.disconnect(self.update_counts)
        if layer is not None and self.layer is not layer:
            layer.events.features.connect(self.update_counts)
        self.layer = layer
        self.update_counts()

    def counts(self) -> dict[str, int]:
        """How many of each species, the most frequent first."""
        if self.layer is None or "species" not in self.layer.features:
            return {}
        return {str(k): int(v) for k, v in self.layer.features["species"].value_counts().items() if v and str(k)}

    def hidden_species(self) -> set[str]:
        """Species of which no point is shown."""
        if self.layer is None:
            return set()
        species = self.layer.features["species"].astype(str)
        return set(species.unique()) - set(species[self.layer.shown].unique())

    def toggle(self, species: str) -> None:
        """Hide or show one species."""
        self._show(self.hidden_species() ^ {species})

    def only(self, species: str) -> None:
        """Show one species alone."""
        self._show(set(self.counts()) - {species})

    def update_counts(self, _event: Any = None) -> None:
        """Read the layer again."""
        self.clear()
        counts = self.counts()
        hidden = self.hidden_species() if counts else set()
        crossed = self.font()
        crossed.setStrikeOut(True)
        for species, count in counts.items():
            label = species_label(species)
            item = QTreeWidgetItem([species, label if label != species else "", f"{count:,}"])
            item.setIcon(0, marker(species, faint=species in hidden))
            item.setData(0, Qt.ItemDataRole.UserRole, species)
            item.setTextAlignment(2, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for column in range(3) if species in hidden else ():
                item.setFont(column, crossed)
            self.addTopLevelItem(item)
        self.setVisible(bool(counts))
        row = self.sizeHintForRow(0) if counts else 0
        self.setFixedHeight(row * len(counts) + 2 * self.frameWidth() + 2)

    def _show(self, hidden: set[str]) -> None:
        shown = ~self.layer.features["species"].isin(hidden).to_numpy()
        with self.layer.events.blocker_all():  # to draw once, not twice
            self.layer.border_width = np.where(shown, RING, 0.0)  # napari 0.9 draws all points of a flat layer
        self.layer.shown = shown
        self.update_counts()


def marker(species: str, side: int = 16, faint: bool = False) -> QIcon:
    """Return the symbol of a species as it is drawn on the image."""
    pixmap = QPixmap(side * 2, side * 2)
    pixmap.setDevicePixelRatio(2)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setOpacity(0.35 if faint else 1.0)
    low, high, middle = 3.0, side - 3.0, side / 2
    corners = {
        "square": [(low, low), (high, low), (high, high), (low, high)],
        "diamond": [(middle, low - 1), (high + 1, middle), (middle, high + 1), (low - 1, middle)],
    }.get(species_symbol(species))
    for color, width in (("#303030", 4.0), (species_color(species), 2.2)):  # its rim is seen where the colour is not
        painter.setPen(QPen(QColor(color), width))
        if corners is None:
            painter.drawEllipse(QPointF(middle, middle), middle - 3, middle - 3)
        else:
            painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in corners]))
    painter.end()
    return QIcon(pixmap)
