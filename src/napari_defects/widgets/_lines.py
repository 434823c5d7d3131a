"""A list of steps that fills while they run: waiting, running with its progress, done with its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QWidget

from napari_defects.widgets._ink import DOUBT as AMBER
from napari_defects.widgets._ink import FAINT, LINK, Ink

WAITING, RUNNING, DONE, DOUBT, FAILED = "·", "…", "✓", "!", "✗"
_COLORS = {WAITING: FAINT, RUNNING: LINK, DONE: "#2a9d6f", DOUBT: AMBER, FAILED: AMBER}


class Lines(QWidget):
    """One line a step; a done one is a link.

    Parameters
    ----------
    names : sequence of str
    """

    clicked = Signal(str)
    link_clicked = Signal()

    def __init__(self, names: Sequence[str]):
        super().__init__()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 4, 0, 4)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(2, 1)
        self.state = dict.fromkeys(names, WAITING)
        self._marks, self._names, self._words = {}, {}, {}
        for row, name in enumerate(names):
            self._marks[name], self._names[name], self._words[name] = Ink(WAITING), Ink(name), Ink()
            self._words[name].setWordWrap(True)
            self._names[name].linkActivated.connect(self.clicked.emit)
            self._words[name].linkActivated.connect(lambda _link: self.link_clicked.emit())
            for column, label in enumerate((self._marks[name], self._names[name], self._words[name])):
                grid.addWidget(label, row, column, Qt.AlignmentFlag.AlignTop)
        self.setVisible(False)

    def text(self, name: str) -> str:
        """Return the words of a line, as they are read."""
        return str(self._words[name].text())

    def reset(self) -> None:
        """Every line waits."""
        self.setVisible(True)
        for name in self.state:
            self._set(name, WAITING, "")

    def start(self, name: str, fraction: float = 0.0) -> None:
        """Show that a step runs, and how far it is."""
        if self.state[name] in (WAITING, RUNNING):
            full = round(8 * fraction)
            self._set(name, RUNNING, "▓" * full + "░" * (8 - full))

    def done(self, name: str, words: str, doubt: str = "") -> None:
        """Show what a step gave; a doubt comes with a link to mend it."""
        if doubt and name == "calibrate":
            words = f'{words}: {doubt} <a href="use">use lattice</a>'
        elif doubt:
            words = f"{words}: {doubt}"
        self._set(name, DOUBT if doubt else DONE, words)

    def fail(self) -> None:
        """Mark the line that was running."""
        for name, state in self.state.items():
            if state == RUNNING:
                self._set(name, FAILED, "stopped")

    def finish(self) -> None:
        """Mark what did not need to run."""
        for name, state in self.state.items():
            if state in (WAITING, RUNNING):
                self._set(name, WAITING, "not needed")

    def _set(self, name: str, state: str, words: str) -> None:
        self.state[name] = state
        self._marks[name].setText(f"<b>{state}</b>")
        self._marks[name].set_color(_COLORS[state])
        link = state in (DONE, DOUBT) and name != "calibrate"
        self._names[name].setText(f'<a href="{name}">{name}</a>' if link else name)
        self._words[name].setText(words)
