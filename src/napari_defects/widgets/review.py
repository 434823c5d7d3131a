"""Review: the doubtful defects one by one, under the keys; corrections are in the layer at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from magicgui.widgets import ComboBox
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QGridLayout, QHBoxLayout, QLabel, QPushButton, QWidget

from napari_defects.micrograph import Micrograph
from napari_defects.saving import file_name
from napari_defects.widgets._classes import Classes
from napari_defects.widgets._corrections import classes_for, corrections, dropped, in_order, judged, taken_back
from napari_defects.widgets._glimpse import Glimpse, examples, line_angle, views
from napari_defects.widgets._keys import Keys
from napari_defects.widgets._layers import about, contrast, source_name
from napari_defects.widgets._picks import DEFECTS, IMAGE, SITES
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._rows import go_to
from napari_defects.widgets._steps import Panel
from napari_defects.widgets._viewer import upsert

ALL = "all species"


class Review(Panel):
    """Step through the defects and correct them."""

    title = "Review"
    help = "Steps through the defects, the most doubtful first. Every verdict is in the layer at once."
    inputs: ClassVar = {"image": IMAGE, "defects": DEFECTS, "sites": SITES}
    follow = "Average"
    run_text = "Start with the most doubtful"

    def build(self) -> None:
        """Put the crops, the classes and the ways out below."""
        self.current: int | None = None
        self._queue: list[int] = []
        self._past: list[pd.DataFrame] = []
        self._of: tuple[Any, ...] | None = None
        self._frame: tuple[Any, Any] | None = None
        self.cancel_button.setVisible(False)
        self.which = ComboBox(name="which", label="look at", choices=[ALL])
        self.pickers.layout().addRow(QLabel("look at"), self.which.native)
        self.words, self.glimpse, self.classes = QLabel(), Glimpse(), Classes(self.judge)
        self.words.setWordWrap(True)
        self.body = QWidget()
        body = QGridLayout(self.body)
        body.setContentsMargins(0, 0, 0, 0)
        body.addWidget(self.words, 0, 0, 1, 4)
        body.addWidget(self.glimpse, 1, 0, 1, 4)
        body.addWidget(self.classes, 2, 0, 1, 4)
        actions = (
            ("← back", self.back), ("✓ yes (a)", self.accept), ("✗ none (x)", self.reject), ("next →", self.forward),
        )  # fmt: skip
        for column, (text, action) in enumerate(actions):
            button = QPushButton(text)
            button.clicked.connect(lambda _checked=False, action=action: action())
            body.addWidget(button, 3, column)
        self.add(self.body)
        self._add_ways_out()
        self.keys = Keys(self, self.viewer, self._actions())
        self._reviewing(False)
        self.which.changed.connect(lambda: self.run() if self.current is not None else None)
        self._anew = QTimer(self, interval=0, singleShot=True)  # once all layers are chosen
        self._anew.timeout.connect(self._start_anew)
        for name in self.inputs:
            self.pickers[name].changed.connect(lambda: self._leave())

    def _add_ways_out(self) -> None:
        row = QHBoxLayout()
        row.setSpacing(3)
        ways = {
            "↶ Undo": (self.undo, "ctrl+z"),
            "Save corrections…": (self.save, "What you have looked at, with what was found, as csv, parquet or xlsx."),
            "To training set…": (self.teach, "Write image and species of every site, as corrected, to train with."),
        }
        for text, (way, tip) in ways.items():
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _checked=False, way=way: way())
            row.addWidget(button)
        self._layout.addLayout(row)

    def _actions(self) -> dict[str, Any]:
        keys = {"Right": self.forward, "Left": self.back, "A": self.accept, "Return": self.accept, "X": self.reject}
        keys |= {"Enter": self.accept, "Ctrl+Z": self.undo}
        return keys | {str(n): (lambda n=n: self.classes.press(n)) for n in range(1, 10)}

    def _reviewing(self, yes: bool) -> None:
        self.body.setVisible(yes)
        self.keys.listen(yes)

    # -- what is there -------------------------------------------------------------------------------------------------

    @property
    def layer(self) -> Any:
        """The layer of defects under review, or None."""
        layer = self.pickers["defects"].value
        return layer if layer in self.viewer.layers else None

    def table(self) -> pd.DataFrame:
        """Return the defects as they stand in the layer, with the edits made by mouse."""
        if self.layer is None:
            raise ValueError(DEFECTS.missing)
        return table_of(self.layer)

    def refresh(self, _event: Any = None) -> None:
        """Offer the layers there are now; a layer that is gone ends the review."""
        super().refresh()
        self._leave()

    def _chosen(self) -> tuple[Any, ...]:
        """Return what a review is of: the picture, the layer of defects, and how these were made."""
        return self.pickers["image"].value, self.layer, None if self.layer is None else about(self.layer).get("made")

    def _leave(self, _event: Any = None) -> None:
        """End a review of what is no longer chosen, and start with what is; end one of defects that were made again."""
        if self._of is None or all(old is new for old, new in zip(self._of, self._chosen(), strict=True)):
            return
        if self._of[:2] == self._chosen()[:2]:
            self.say("These defects were made again: start with the most doubtful.")
        elif self.isVisible():
            self._anew.start()
        self.current, self._queue, self._past, self._of = None, [], [], None
        self._reviewing(False)

    def _start_anew(self) -> None:
        image = self.pickers["image"].value
        if self.layer is not None and image is not None and source_name(self.layer) == image.name:
            self.run()

    # -- steps ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start with the most doubtful of those nobody has looked at."""
        try:
            self.gather()
            table = self.table()
        except (ValueError, TypeError, KeyError) as error:
            self.fail(error)
            return
        self.unveil()
        chosen = self.which.value if self.which.value in set(table["species"]) else ALL
        with self.which.changed.blocked():
            self.which.choices = [ALL, *sorted(set(table["species"]))]
            self.which.value = chosen
        self._queue = in_order(table, None if chosen == ALL else chosen)
        self._frame, self._of = None, self._chosen()
        self.layer.events.metadata.connect(self._leave)
        self.classes.offer(classes_for(table, about(self.layer).get("crystal")))
        if not self._queue:
            self._reviewing(False)
            self.say(f"✓ Every one of {len(table):,} defects has been looked at.")
            return
        self.say("")
        self.viewer.layers.selection.active = self.layer  # its tools are at hand, to add and delete by mouse
        self._reviewing(True)
        self._go(self._queue[0])

    def forward(self) -> None:
        """Go to the next doubtful one."""
        self._move(1)

    def back(self) -> None:
        """Go to the one before."""
        self._move(-1)

    def _move(self, step: int) -> None:
        there = set(self.table()["defect"])
        place = self._queue.index(self.current) if self.current in self._queue else -1
        rest = self._queue[place + 1 :] if step > 0 else self._queue[:place][::-1]
        left = [n for n in rest if n in there]
        if left:
            self._go(left[0])
        else:
            self.say("✓ That was the last one." if step > 0 else "This is the most doubtful one.")

    def accept(self) -> None:
        """Take the current one for what it is said to be; go on."""
        if (row := self._row()) is not None:
            self.judge(str(row["species"]))

    def judge(self, species: str) -> None:
        """Give the current defect this species; go on."""
        if self._row() is not None:
            self._change(judged(self.table(), int(self.current or 0), species))

    def reject(self) -> None:
        """Take the current one out of the table, as no defect; go on."""
        rows = self._rows()
        if len(rows):
            rejected = pd.concat([about(self.layer).get("rejected"), rows], ignore_index=True)
            self._change(dropped(self.table(), int(self.current or 0)), rejected)

    def undo(self) -> None:
        """Take the last verdict back, and nothing else; go there."""
        if self._past and self.layer is not None:
            before = self._past.pop()
            self._put(*taken_back(self.table(), about(self.layer).get("rejected"), before))
            self._go(int(before["defect"].iloc[0]))
            self.say("Taken back.")

    def _rows(self) -> pd.DataFrame:
        """Return the row of the current defect; none where it is gone."""
        table = self.table() if self.layer is not None else pd.DataFrame({"defect": []})
        return table[table["defect"] == self.current]

    def _row(self) -> pd.Series | None:
        rows = self._rows()
        return rows.iloc[0] if len(rows) else None

    def _change(self, table: pd.DataFrame, rejected: pd.DataFrame | None = None) -> None:
        self._past = [*self._past[-99:], self._rows()]
        self._put(table, about(self.layer).get("rejected") if rejected is None else rejected)
        self.say("")
        self.next_button.setVisible(True)
        here = self.current
        self._move(1)
        if self.current == here:
            self._show()

    def _put(self, table: pd.DataFrame, rejected: pd.DataFrame | None) -> None:
        layer = self.layer
        known = {k: v for k, v in about(layer).items() if k not in ("table", "rejected")}
        made = table_layer(
            table, about(layer).get("table", "defects"), layer.name, movie=layer.ndim > 2, rejected=rejected, **known
        )
        upsert(self.viewer, made)

    # -- what is seen --------------------------------------------------------------------------------------------------

    def _go(self, defect: int | None) -> None:
        self.current = defect
        self._show()
        if (row := self._row()) is not None:
            go_to(self.viewer, self.layer, row)

    def _show(self) -> None:
        row, table = self._row(), self.table()
        if row is None:
            self.words.setText("This one is gone.")
            return
        seen = len(set(self._queue) - set(in_order(table)))
        alone = str(row.get("by_intensity") or "")
        says = f", by intensity alone {alone}" if alone not in ("", row["species"]) else ""
        self.words.setText(
            f"<b>{row['species']}</b>, probability {row['probability']:.2f} by {row['method']}{says}"
            f"<br>{seen} of {len(self._queue)} looked at"
        )
        self.classes.mark(str(row["species"]))
        frame, size = self._pixels(int(row["frame"]))
        angle = line_angle(about(self.layer).get("lattice"), str(row["sublattice"]))
        sites = self.pickers["sites"].value
        known = examples(table, table_of(sites) if sites in self.viewer.layers else None, row)
        shown = views(frame, size, row, dict(list(known.items())[: Glimpse.COLUMNS - 1]), angle)
        self.glimpse.show_views(shown, angle, contrast(frame))

    def _pixels(self, number: int) -> tuple[Any, Any]:
        micrograph: Micrograph = IMAGE.read(self.pickers["image"].value)
        if self._frame is None or self._frame[0] != number:
            self._frame = (number, micrograph.frame(number))
        return self._frame[1], micrograph.pixel_size_yx_nm

    # -- ways out ------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path | None = None) -> None:
        """Write the rows that were looked at, with the verdicts."""
        from napari_defects.io import write_table

        try:
            table = corrections(self.table(), about(self.layer).get("rejected"))
            if path is None:
                name = file_name(f"corrections {self.layer.name}")
                path = QFileDialog.getSaveFileName(
                    self, "Save corrections", f"{name}.csv", "Tables (*.csv *.parquet *.xlsx)"
                )[0]
            if path:
                self.say(f"✓ Wrote {len(table)} corrections to {write_table(table, path).name}.")
        except (ValueError, OSError) as error:
            self.fail(error)

    def teach(self, folder: str | Path | None = None) -> None:
        """Write the image with the species of every site, as corrected, into a collection to train with."""
        from napari_defects.learning.labels import label_sites, write_labels

        try:
            arguments = self.gather()
            image, sites = arguments["image"], arguments["sites"]
            labels = label_sites(sites.value, arguments["defects"].value, sites.about.get("crystal", ""))
            folder = folder or QFileDialog.getExistingDirectory(self, "Folder of labelled images")
            if folder:
                written = write_labels(image.value, labels, folder, file_name(image.image))
                self.say(f"✓ Wrote {len(written)} labelled image(s), {len(labels):,} sites, to {folder}.")
        except (ValueError, TypeError, OSError) as error:
            self.fail(error)
