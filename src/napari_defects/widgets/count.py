"""Count & export: how many of what, on how large an area; and all tables out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog, QHBoxLayout, QPushButton, QTableWidget, QTableWidgetItem

from napari_defects.micrograph import Progress
from napari_defects.widgets._layers import KEY, about, source_name
from napari_defects.widgets._legend import Legend, marker
from napari_defects.widgets._picks import DEFECTS, SITES, Source
from napari_defects.widgets._points import table_of
from napari_defects.widgets._steps import Made, Panel

HEADS = ("species", "n", "% of sites", "10¹² cm⁻²")


class Count(Panel):
    """Count defects per species, with intervals; export tables."""

    title = "Count & export"
    help = "Counts the species, with intervals, on the area that was looked at."
    inputs: ClassVar = {"defects": DEFECTS, "sites": SITES}
    steps = ("statistics.count",)
    main = ("confidence", "area_nm2")
    run_text = "Count"

    @staticmethod
    def work(progress: Progress, defects: Source, sites: Source, count: dict[str, Any]) -> Made:
        """Count the defects on their sites."""
        from napari_defects.statistics import count as run

        progress(0, 1)
        sites.value.attrs["crystal"] = sites.about.get("crystal")
        counts = run(defects.value, sites.value, **count)
        total = int(counts["count"].sum())
        return Made([], f"{total:,} defects of {len(counts)} species", extra=(defects.image, counts))

    def build(self) -> None:
        """Put the table and the exports below."""
        self.table = QTableWidget(0, len(HEADS))
        self.table.setHorizontalHeaderLabels(HEADS)
        self.table.verticalHeader().setVisible(False)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setVisible(False)
        self.legend = Legend()
        self.copy_button, self.export_button = QPushButton("Copy table"), QPushButton("Export all…")
        self.copy_button.clicked.connect(lambda: self.copy())
        self.export_button.clicked.connect(lambda: self.export())
        self.export_button.setToolTip("Write every table of this image to a folder, as csv, and its averages as tif.")
        row = QHBoxLayout()
        row.addWidget(self.copy_button)
        row.addWidget(self.export_button)
        self.add(self.table)
        self._layout.addLayout(row)
        self.copy_button.setEnabled(False)

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Keep the counts in the layer they belong to, and show them."""
        _, counts = made.extra
        layer = self.pickers["defects"].value
        layer.metadata = {**layer.metadata, KEY: {**about(layer), "counts": counts}}
        self.show_counts(counts)

    def show_counts(self, counts: pd.DataFrame) -> None:
        """Fill the table."""
        self.table.setRowCount(len(counts))
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
                self.table.setItem(row, column, item)
            self.table.item(row, 0).setIcon(marker(str(entry["species"])))
        self.table.resizeColumnsToContents()
        self.table.setVisible(True)
        height = self.table.horizontalHeader().sizeHint().height() + sum(map(self.table.rowHeight, range(len(counts))))
        self.table.setFixedHeight(min(height + 20, 360))
        self.copy_button.setEnabled(True)

    def counts(self) -> pd.DataFrame | None:
        """Return counts of the chosen layer, as they stand in it."""
        layer = self.pickers["defects"].value
        return None if layer is None else about(layer).get("counts")

    def copy(self) -> None:
        """Copy the counts to the clipboard, ready for a spreadsheet."""
        counts = self.counts()
        if counts is not None:
            QApplication.clipboard().setText(counts.to_csv(sep="\t", index=False))
            self.say("Copied.")

    def export(self, folder: str | Path | None = None) -> None:
        """Write all tables of the image, and its class averages, to a folder."""
        folder = folder or QFileDialog.getExistingDirectory(self, "Export to folder")
        if not folder:
            return
        layer = self.pickers["defects"].value
        try:
            if layer is None:
                raise ValueError(DEFECTS.missing)
            written = export(self.viewer, source_name(layer), Path(folder))
        except (ValueError, OSError) as error:
            self.fail(error)
            return
        self.say(f"✓ Wrote {', '.join(p.name for p in written)} to {folder}.")


def export(viewer: Any, image: str, folder: Path) -> list[Path]:
    """Write the tables and averages that came from an image, under the names the command line gives them."""
    from napari_defects.io import write_table

    tables: dict[str, pd.DataFrame] = {}
    averages: dict[str, Any] = {}
    for layer in viewer.layers:
        known = about(layer)
        if source_name(layer) != image or "truth" in known:
            continue
        if "average" in known:
            averages[known["average"].species] = known["average"]
        elif known.get("table") in ("atoms", "sites", "defects", "strain", "tracks"):
            table = table_of(layer)
            tables[known["table"]] = table
            if known["table"] in ("sites", "strain"):
                tables["sites"] = table
                tables["atoms"] = table[np.isfinite(table["y_nm"])]
            if "counts" in known:
                tables["counts"] = known["counts"]
    folder.mkdir(parents=True, exist_ok=True)
    written = [write_table(table, folder / f"{name}.csv") for name, table in tables.items()]
    if averages:
        from napari_defects.pipeline import write_averages

        (folder / "averages").mkdir(exist_ok=True)
        write_averages(averages, folder / "averages")
        written.append(folder / "averages")
    return written


def _interval(unit: float, value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "–"
    span = unit * max(high - low, 0.0) if np.isfinite(high - low) else unit * value
    digits = 2 if span < 0.5 else 1 if span < 5 else 0
    interval = f" ({unit * low:.{digits}f}–{unit * high:.{digits}f})" if np.isfinite(high - low) else ""
    return f"{unit * value:.{digits}f}{interval}"
