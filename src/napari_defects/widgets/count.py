"""Count and export: how many of what, on how large an area, as soon as it changes; and all tables out."""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakValueDictionary

import pandas as pd
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QGridLayout, QPushButton

from napari_defects import tables
from napari_defects.micrograph import Progress
from napari_defects.widgets._arrangement import Arrangement
from napari_defects.widgets._counts import CountsTable
from napari_defects.widgets._exclusion import EXCLUSION, paint
from napari_defects.widgets._export import ExportFigure
from napari_defects.widgets._layers import KEY, about, source_name
from napari_defects.widgets._picks import DEFECTS, SITES, Source
from napari_defects.widgets._points import table_of
from napari_defects.widgets._rows import Rows
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._tables_out import ExportTables, counts_of, looked_at

_CHANGES = {"Points": ("data", "features"), "Labels": ("paint", "labels_update", "set_data")}
"""What a layer tells of when its points, or what is painted on it, have changed; undo included."""


class Count(Panel):
    """Count defects per species, with intervals; export tables."""

    title = "Count and export"
    help = "Counts the species on the area looked at, and again whenever points or painted areas change."
    inputs: ClassVar = {"defects": DEFECTS, "sites": SITES, "left_out": EXCLUSION}
    steps = ("statistics.count",)
    main = ("confidence", "area_nm2")
    run_text = "Count"

    @staticmethod
    def work(
        progress: Progress, defects: Source, sites: Source, left_out: Source | None, count: dict[str, Any]
    ) -> Made:
        """Count the defects on their sites, without what is left out."""
        from napari_defects.statistics import count as run

        progress(0, 1)
        found, seen = looked_at(defects, sites, left_out)
        counts = run(found, seen, **count)
        words = (
            f"{int(counts['count'].sum()):,} defects of {len(counts)} species on {counts.attrs['area_nm2']:,.1f} nm²"
        )
        gone = len(defects.value) - len(found)
        return Made([], words + (f", {gone:,} left out" if left_out is not None else ""), extra=counts)

    def build(self) -> None:
        """Put the table, the list and the exports below."""
        self.table = CountsTable()
        self.table.currentCellChanged.connect(lambda row, *_: self.list_species(row))
        self.rows = Rows(self.viewer)
        self.paint_button = QPushButton("Paint what to leave out")
        self.paint_button.clicked.connect(lambda: self.paint())
        self.copy_button = QPushButton("Copy table")
        self.copy_button.clicked.connect(lambda: self.copy())
        self.export_button = ExportTables(self, lambda: self.pickers["defects"].value, DEFECTS.missing)
        self.export = self.export_button.export
        self.figure_button = ExportFigure(self, self.draw, lambda: "counts", aspect=0.6)
        grid = QGridLayout()
        for place, button in enumerate((self.paint_button, self.copy_button, self.export_button, self.figure_button)):
            grid.addWidget(button, *divmod(place, 2))
        self.arrangement = Arrangement(self, self._where)
        self.add(self.table)
        self.add(self.rows)
        self._layout.addLayout(grid)
        self.add(self.arrangement)
        self.copy_button.setEnabled(False)
        self._timer = QTimer(self, interval=120, singleShot=True)
        self._timer.timeout.connect(self._again)
        self._followed: list[Any] = []
        self._counting = False  # goes on when something is out of date meanwhile
        for name in self.inputs:
            self.pickers[name].changed.connect(lambda: self._later())

    def refresh(self, _event: Any = None) -> None:
        """Offer the layers there are now, and follow what is chosen."""
        super().refresh()
        self._follow()

    def _first_chosen(self, layer: Any) -> None:
        super()._first_chosen(layer)
        self._timer.stop()
        self._counting = layer is not None and about(layer).get("counts") is not None
        self._follow()
        try:
            self._show(self.counts())
        except ValueError as error:
            self._show(None)
            self.say(str(error), doubt=True)

    def _show(self, counts: pd.DataFrame | None) -> None:
        """Show counts, and the defects of the species listed; nothing where nothing was counted."""
        layer, shown = self.pickers["defects"].value, tables.empty("counts") if counts is None else counts
        self.table.show_counts(shown)
        self.table.setVisible(counts is not None)
        self.rows.again(layer, tables.empty("defects") if counts is None else table_of(layer))
        self.arrangement.offer(shown["species"].tolist())
        self.copy_button.setEnabled(counts is not None)

    def _follow(self) -> None:
        """Count again when a chosen layer changes."""
        chosen = [self.pickers[name].value for name in self.inputs]
        chosen = [layer for layer in chosen if layer is not None and layer in self.viewer.layers]
        for layer in self._followed:
            for emitter in _emitters(layer):
                emitter.disconnect(self._later)
        for layer in chosen:
            for emitter in _emitters(layer):
                emitter.connect(self._later)
        self._followed = chosen

    def _later(self, _event: Any = None) -> None:
        if self._counting:
            self._timer.start()

    def _again(self) -> None:
        """Count again, at once: it takes milliseconds."""
        try:
            made = self.work(lambda done, total: None, **self.gather())
        except (ValueError, TypeError, KeyError) as error:
            self.say(str(error), doubt=True)
            self._show(None)
            return
        self.say(f"✓ {made.summary}")
        self.shown(made, [])

    def paint(self) -> None:
        """Give the user a brush over the image; what is painted is left out at once."""
        layer = self.pickers["defects"].value
        name = "" if layer is None else source_name(layer)
        try:
            if name not in self.viewer.layers:
                raise ValueError("There is no image to paint on: its layer is gone." if name else DEFECTS.missing)
            mask = paint(self.viewer, self.viewer.layers[name])
        except ValueError as error:
            self.fail(error)
            return
        self.refresh()
        self.pickers["left_out"].value = mask
        self._follow()
        self._again()

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Keep the counts in the layer they belong to, and show them."""
        layer, self._counting = self.pickers["defects"].value, True
        chosen = {name: self.pickers[name].value for name in ("sites", "left_out")}
        used = WeakValueDictionary({name: one for name, one in chosen.items() if one is not None})
        known = {"counts": made.extra, "counted": (used, self.parameters["count"])}
        layer.metadata = {**layer.metadata, KEY: {**about(layer), **known}}
        self._show(self.counts())
        self._follow()

    def _where(self) -> tuple[pd.DataFrame, pd.DataFrame, str]:
        """Defects and sites looked at, and their image."""
        given = self.gather()
        return *looked_at(given["defects"], given["sites"], given["left_out"]), given["defects"].image

    def list_species(self, row: int) -> None:
        """List the defects of the species in a row of the table."""
        layer, species = self.pickers["defects"].value, self.table.species(row)
        if layer in self.viewer.layers and species:
            self.rows.show_rows(layer, table_of(layer), species)

    def counts(self) -> pd.DataFrame | None:
        """Return counts of the chosen defects as they are now; None where they were never counted."""
        layer = self.pickers["defects"].value
        return None if layer is None else counts_of(self.viewer, layer)

    def draw(self, ax: Any) -> Any:
        """Draw the densities with their intervals."""
        from napari_defects import figures

        counts = self.counts()
        if counts is None:
            raise ValueError("There are no counts yet: click Count first.")
        return figures.counts(ax, counts)

    def copy(self) -> None:
        """Copy the counts to the clipboard, ready for a spreadsheet."""
        from napari_defects.io import spreadsheet_safe

        counts = self.counts()
        if counts is not None:
            QApplication.clipboard().setText(spreadsheet_safe(counts).to_csv(sep="\t", index=False))
            self.say("Copied.")


def _emitters(layer: Any) -> list[Any]:
    return [layer.events.emitters[name] for name in _CHANGES[type(layer).__name__]]
