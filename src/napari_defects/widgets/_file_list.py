"""Many files through one recipe: a list that fills while they are analysed; a double-click opens one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem

from napari_defects.micrograph import Progress
from napari_defects.widgets._files import read
from napari_defects.widgets._ink import DOUBT, ground_of, readable
from napari_defects.widgets._layers import KEY
from napari_defects.widgets._viewer import upsert

HEADS = ("file", "status", "defects")


class Files(QTableWidget):
    """One row a file: done, with how many defects; or failed, with the reason.

    Parameters
    ----------
    panel : Panel
        Its worker does the work.
    """

    reported = Signal(object)

    def __init__(self, panel: Any):
        super().__init__(0, len(HEADS))
        self._panel = panel
        self._rows: list[dict[str, Any]] = []
        self._shown: list[str] = []
        self.setHorizontalHeaderLabels(HEADS)
        self.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.verticalHeader().setVisible(False)
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setToolTip("Double-click a file to see it with its atoms and defects.")
        self.cellDoubleClicked.connect(lambda row, _column: self.open(row))
        self.reported.connect(self.add)
        self.setFixedHeight(160)
        self.setVisible(False)

    def run(self, paths: list[str], folder: str, recipe: Any) -> None:
        """Analyse the files one after the other; one that fails does not keep the others from going on."""
        self.clear_rows()
        arguments = {"paths": paths, "folder": folder, "recipe": recipe, "report": self.reported.emit}
        self._panel.start(analyse, arguments, self.done, "Analyze files")

    def clear_rows(self) -> None:
        """Begin a new list."""
        self._rows = []
        self._shown = []
        self.setRowCount(0)
        self.setVisible(True)

    def add(self, row: dict[str, Any]) -> None:
        """Show what became of a file."""
        self._rows.append(row)
        number = self.rowCount()
        self.insertRow(number)
        failed = row["status"] == "failed"
        words = (Path(row["file"]).name, row["status"], "" if failed else f"{row['defects']:,.0f}")
        for column, text in enumerate(words):
            item = QTableWidgetItem(text)
            item.setToolTip(str(row["error"] or row["folder"]))
            self.setItem(number, column, item)
        self._ink()
        self._panel.say(f"{len(self._rows)} done: {words[0]} {row['error'] if failed else ''}".strip(), doubt=failed)

    def changeEvent(self, event: Any) -> None:
        super().changeEvent(event)
        self._ink()

    def _ink(self) -> None:
        """Let the files that failed stand out, in a colour that can be read."""
        color = QColor(readable(DOUBT, ground_of(self)))
        for number, row in enumerate(getattr(self, "_rows", ())):
            for column in range(self.columnCount() if row["status"] == "failed" else 0):
                if (item := self.item(number, column)) is not None and item.foreground().color() != color:
                    item.setForeground(color)

    def done(self, summary: Any) -> None:
        """Say how it went."""
        failed = summary[summary["status"] == "failed"]
        good = f"{len(summary) - len(failed)} of {len(summary)} files analysed; summary.csv has the list"
        reasons = "".join(f"\n{Path(f).name}: {e}" for f, e in zip(failed["file"], failed["error"], strict=True))
        self._panel.say(f"✓ {good}.{reasons}", doubt=bool(len(failed)))

    def show_counts(self, numbers: dict[str, int]) -> None:
        """Show a number for each image, by the name of its folder, in place of its defects."""
        for row, found in enumerate(self._rows):
            if found["status"] != "failed":
                self.item(row, 2).setText(f"{numbers.get(Path(found['folder']).name, 0):,}")

    def show_alone(self, row: int) -> None:
        """Open a file in place of the one opened this way before."""
        before = {layer.name for layer in self._panel.viewer.layers}
        for name in self._shown:
            if name in self._panel.viewer.layers:
                self._panel.viewer.layers.remove(name)
        self.open(row)
        self._shown = [layer.name for layer in self._panel.viewer.layers if layer.name not in before - set(self._shown)]

    def open(self, row: int) -> None:
        """Open an analysed file with its atoms and defects; one that failed has nothing to show."""
        viewer, found = self._panel.viewer, self._rows[row]
        if found["status"] == "failed":
            return
        image = Path(found["path"])
        for made in read(image):
            upsert(viewer, made)
        for name in ("strain", "sites", "defects"):
            table = Path(found["folder"]) / f"{name}.csv"
            if table.is_file() and not (name == "sites" and (table.parent / "strain.csv").is_file()):
                ((data, keywords, kind),) = read(table)
                about = {**keywords["metadata"][KEY], "image": image.stem, "crystal": found.get("crystal")}
                label = "defects" if name == "defects" else "atoms"
                keywords = {**keywords, "name": f"{label} · {image.stem}", "metadata": {KEY: about}}
                upsert(viewer, (data, {**keywords, "visible": label == "defects"}, kind))


def analyse(progress: Progress, paths: list[str], folder: str, recipe: Any, report: Any, workers: int = 0) -> Any:
    """Analyse files, each told of as soon as it is there, and write the summary."""
    from napari_defects.batch import run_batch

    def on_file(row: dict[str, Any]) -> None:
        report({**row, "crystal": recipe.crystal})

    return run_batch(paths, folder, recipe, workers=workers, on_file=on_file, progress=progress)
