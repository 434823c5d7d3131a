"""Keys of a widget that act anywhere in its window, where they mean nothing else there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from napari.layers import Labels, Shapes
from qtpy.QtCore import QObject, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QAbstractSlider, QApplication, QShortcut, QWidget


class Keys(QObject):
    """Shortcuts that are off in other windows, and where napari or the field in use has something to do with them.

    Parameters
    ----------
    owner : QWidget
        They act while it is seen.
    viewer : napari.Viewer
    actions : mapping of str to callable
        What to call for each key.
    """

    def __init__(self, owner: QWidget, viewer: Any, actions: Mapping[str, Callable[[], Any]]):
        super().__init__(owner)
        self._owner, self._viewer, self._wanted = owner, viewer, False
        self.shortcuts = {key: QShortcut(QKeySequence(key), owner) for key in actions}
        for key, shortcut in self.shortcuts.items():
            shortcut.setContext(Qt.ShortcutContext.ApplicationShortcut)  # the canvas may be in another window than we
            for signal in (shortcut.activated, shortcut.activatedAmbiguously):
                signal.connect(lambda key=key: actions[key]())
        QApplication.instance().focusChanged.connect(self._arm)
        viewer.layers.selection.events.active.connect(self._arm)
        self._arm()

    def listen(self, wanted: bool) -> None:
        """Switch all keys on or off."""
        self._wanted = wanted
        self._arm()

    def _arm(self, *_event: Any) -> None:
        focus = QApplication.focusWidget()
        ours = self._wanted and focus is not None and _root(focus) is _root(self._owner)
        taken: set[str] = {"Left", "Right"} if isinstance(focus, QAbstractSlider) else set()
        if isinstance(self._viewer.layers.selection.active, (Labels, Shapes)):  # a stroke is what is to be taken back
            taken |= {"Ctrl+Z"}
        for key, shortcut in self.shortcuts.items():
            shortcut.setEnabled(ours and key not in taken)


def _root(widget: QWidget) -> QWidget:
    while (above := widget.parentWidget()) is not None:
        widget = above
    return widget
