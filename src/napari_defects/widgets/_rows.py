"""The defects of one species as a list; a click goes there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem

from napari_defects.widgets._corrections import doubt
from napari_defects.widgets._layers import corner_nm

MOST = 500
FIELD_NM = 3.0
"""Width of what is seen around a defect one jumps to."""


class Rows(QTableWidget):
    """Defects, the most doubtful first, `MOST` of them at most.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    HEADS = ("no.", "probability", "y (nm)", "x (nm)")

    def __init__(self, viewer: Any):
        super().__init__(0, len(self.HEADS))
        self._viewer, self._table = viewer, pd.DataFrame()
        self._layer: Any = None
        self._species = ""
        self.setHorizontalHeaderLabels(self.HEADS)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.verticalHeader().setVisible(False)
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.setFixedHeight(150)
        self.setToolTip("Click a defect, or walk with the arrow keys, to see it.")
        self.currentCellChanged.connect(lambda row, *_: self.jump(row))
        self.setVisible(False)

    def show_rows(self, layer: Any, table: pd.DataFrame, species: str) -> None:
        """List the defects of a species."""
        rows = table[table["species"] == species]
        order = doubt(rows).sort_values(ascending=False, kind="stable").index[:MOST]
        self._layer, self._species, self._table = layer, species, rows.loc[order]
        self.blockSignals(True)
        self.setRowCount(len(self._table))
        for number, row in enumerate(self._table.itertuples()):
            words = (str(row.defect), f"{row.probability:.2f}", f"{row.y_nm:.2f}", f"{row.x_nm:.2f}")
            for column, text in enumerate(words):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(number, column, item)
        self.clearSelection()
        self.setCurrentCell(-1, -1)
        self.blockSignals(False)
        self.setVisible(len(self._table) > 0)

    def again(self, layer: Any, table: pd.DataFrame) -> None:
        """List what there is now of the species listed; nothing where it was another layer's."""
        self.show_rows(layer, table, self._species if layer is self._layer else "")

    def jump(self, row: int) -> None:
        """Move the view to a defect of the list."""
        if 0 <= row < len(self._table) and self._layer in self._viewer.layers:
            go_to(self._viewer, self._layer, self._table.iloc[row])


def go_to(viewer: Any, layer: Any, row: pd.Series) -> None:
    """Centre the view on a defect, near enough to see its columns, and mark it."""
    if layer.ndim > 2:
        viewer.dims.set_point(0, layer.translate[0] + layer.scale[0] * int(row["frame"]))
    camera = viewer.scene.camera
    y, x = corner_nm(layer) + row[["y_nm", "x_nm"]].to_numpy(float)
    camera.center = (float(y), float(x))
    camera.zoom = max(camera.zoom, min(viewer.canvas.size) / FIELD_NM)
    if "defect" in getattr(layer, "features", ()):
        layer.selected_data = set(np.flatnonzero(layer.features["defect"].to_numpy() == row["defect"]).tolist())


def fly_to(viewer: Any, layer: Any) -> None:
    """Let a layer fill the view."""
    low, high = np.asarray(layer.extent.world)[:, -2:]
    viewer.scene.camera.center = tuple((low + high) / 2)
    viewer.scene.camera.zoom = 0.8 * float(min(np.asarray(viewer.canvas.size) / (high - low)))
