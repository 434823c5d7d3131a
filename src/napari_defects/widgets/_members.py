"""The members of a class average as a list, those left out with their reason; a double click goes there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_defects.widgets._rows import go_to

MOST = 2000


class Members(QTableWidget):
    """Candidates of a class: those left out first, then by their correlation with the average.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    HEADS = ("no.", "strain (%)", "correlation", "shift (pm)")

    def __init__(self, viewer: Any):
        super().__init__(0, len(self.HEADS))
        self._viewer, self._table, self._layer = viewer, pd.DataFrame(), None
        self.setHorizontalHeaderLabels(self.HEADS)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.verticalHeader().setVisible(False)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setFixedHeight(150)
        self.setToolTip("Double-click a member to see it in the image.")
        self.cellDoubleClicked.connect(lambda row, _column: self.jump(row))
        self.setVisible(False)

    def show_members(self, layer: Any, members: pd.DataFrame) -> None:
        """List the members of an average that lie in an image layer."""
        order = members.sort_values(["accepted", "correlation"], kind="stable", na_position="first").index[:MOST]
        self._layer, self._table = layer, members.loc[order].reset_index(drop=True)
        slanted = self.font()
        slanted.setItalic(True)
        self.clearSpans()
        self.setRowCount(len(self._table))
        for number, row in enumerate(self._table.to_dict("records")):
            words = [str(row.get("defect", number)), _digits(100 * row["strain"], 2)]
            measured = [_digits(row["correlation"], 3), _digits(np.hypot(row["dy_pm"], row["dx_pm"]), 1)]
            words += measured if row["accepted"] else [str(row["reason"])]
            if not row["accepted"]:
                self.setSpan(number, 2, 1, 2)
            for column, text in enumerate(words):
                item = QTableWidgetItem(text)
                item.setToolTip("" if row["accepted"] else f"Left out: {row['reason']}.")
                side = Qt.AlignmentFlag.AlignRight if row["accepted"] or column < 2 else Qt.AlignmentFlag.AlignLeft
                item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
                if not row["accepted"]:
                    item.setFont(slanted)
                self.setItem(number, column, item)
        self.setVisible(len(self._table) > 0)

    def jump(self, row: int) -> None:
        """Move the view to a member."""
        if 0 <= row < len(self._table) and self._layer is not None and self._layer in self._viewer.layers:
            self._layer.visible = True
            go_to(self._viewer, self._layer, self._table.iloc[row])


def _digits(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"
