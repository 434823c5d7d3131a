"""The classes one can choose from, each under its key."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSize
from qtpy.QtWidgets import QGridLayout, QInputDialog, QPushButton, QWidget

from napari_defects.crystals import is_species
from napari_defects.widgets._legend import marker


class Classes(QWidget):
    """Buttons of the classes, in the order of their keys, and one for a class that is not there yet."""

    COLUMNS = 3

    def __init__(self, chosen: Any):
        super().__init__()
        self._chosen = chosen
        self.names: list[str] = []
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(3)
        self._buttons: dict[str, QPushButton] = {}

    def offer(self, names: list[str]) -> None:
        """Offer these classes under the keys 1 to 9."""
        while (item := self._grid.takeAt(0)) is not None:
            item.widget().hide()  # it is deleted later, and would be seen until then
            item.widget().deleteLater()
        self.names, self._buttons = names[:9], {}
        for number, name in enumerate(self.names):
            button = QPushButton(marker(name), f"{number + 1}  {name}")
            button.setIconSize(QSize(14, 14))
            button.setStyleSheet("text-align: left; padding: 3px 6px")
            button.setCheckable(True)
            button.clicked.connect(lambda _checked=False, name=name: self._chosen(name))
            self._grid.addWidget(button, *divmod(number, self.COLUMNS))
            self._buttons[name] = button
        other = QPushButton("other…")
        other.clicked.connect(lambda: self.ask())
        self._grid.addWidget(other, *divmod(len(self.names), self.COLUMNS))

    def press(self, number: int) -> None:
        """Choose the class under a key."""
        if number <= len(self.names):
            self._chosen(self.names[number - 1])

    def mark(self, name: str) -> None:
        """Show which class it is now."""
        for other, button in self._buttons.items():
            button.setChecked(other == name)

    def ask(self) -> None:
        """Ask for a class that is not offered, and choose it."""
        text, fine = QInputDialog.getText(self, "Another class", "Species, as V_Se, Te2_Se or Si1C3:")
        if fine and is_species(text.strip()):
            self.offer(list(dict.fromkeys([*self.names[:8], text.strip()])))
            self._chosen(text.strip())
