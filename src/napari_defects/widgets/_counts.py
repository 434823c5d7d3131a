"""The table of counts: species, number, fraction and density with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QTableWidget, QTableWidgetItem

from napari_defects.widgets._legend import marker

HEADS = ("species", "n", "% of sites", "10¹² cm⁻²")


class CountsTable(QTableWidget):
    """Counts per species, the most frequent first."""

    def __init__(self) -> None:
        super().__init__(0, len(HEADS))
        self.setHorizontalHeaderLabels(HEADS)
        self.verticalHeader().setVisible(False)
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.setToolTip("Click a species to see its defects one by one.")
        self.setVisible(False)

    def species(self, row: int) -> str:
        """Species in a row; empty where there is none."""
        item = self.item(row, 0)
        return "" if item is None else str(item.text())

    def show_counts(self, counts: pd.DataFrame) -> None:
        """Fill the table; the species chosen stays so."""
        chosen, names = self.species(self.currentRow()), list(counts["species"])
        self.blockSignals(True)
        self.setRowCount(len(counts))
        for row, entry in enumerate(counts.to_dict("records")):
            cells = [entry["species"], f"{entry['count']:,}"]
            cells.append(_interval(100, *(entry[f"fraction{end}"] for end in ("", "_low", "_high"))))
            cells.append(_interval(1e-12, *(entry[f"density{end}_per_cm2"] for end in ("", "_low", "_high"))))
            for column, text in enumerate(cells):
                item = QTableWidgetItem(str(text))
                item.setTextAlignment(
                    Qt.AlignmentFlag.AlignVCenter
                    | (Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft)
                )
                item.setToolTip(f"{entry['count']:,} of {entry['sites']:,} sites; intervals in brackets")
                self.setItem(row, column, item)
            self.item(row, 0).setIcon(marker(str(entry["species"])))
        self.setCurrentCell(names.index(chosen) if chosen in names else -1, 0)
        self.blockSignals(False)
        self.resizeColumnsToContents()
        self.setVisible(True)
        height = self.horizontalHeader().sizeHint().height() + sum(map(self.rowHeight, range(len(counts))))
        self.setFixedHeight(min(height + 20, 360))


def _interval(unit: float, value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "–"
    span = unit * max(high - low, 0.0) if np.isfinite(high - low) else unit * value
    digits = 2 if span < 0.5 else 1 if span < 5 else 0
    interval = f" ({unit * low:.{digits}f}–{unit * high:.{digits}f})" if np.isfinite(high - low) else ""
    return f"{unit * value:.{digits}f}{interval}"
