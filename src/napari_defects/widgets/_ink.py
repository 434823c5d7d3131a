"""Colours that can be read on the panel in any theme: a hue is kept, and made as dark or as light as it takes."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QLabel, QWidget

LINK, DOUBT, FAINT = "#56b4e9", "#e9a23b", "#808080"
CONTRAST = 4.5
"""What text needs, by the Web Content Accessibility Guidelines."""
_CHANGES = (QEvent.Type.StyleChange, QEvent.Type.PaletteChange, QEvent.Type.Polish)


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def readable(color: str, ground: str) -> str:
    """Return a colour with as much black or white in it as it takes to be read on a ground."""
    end = max(("#000000", "#ffffff"), key=lambda one: contrast(one, ground))
    mixed = (_mixed(color, end, part / 50) for part in range(51))
    return next((one for one in mixed if contrast(one, ground) >= CONTRAST), end)


def ground_of(widget: QWidget) -> str:
    """Colour that a widget lies on, as the theme has it."""
    return str(widget.palette().window().color().name())


class Ink(QLabel):
    """A label whose colour and links can be read in any theme.

    Parameters
    ----------
    text : str
    color : str, optional
        None takes the theme's own.
    """

    def __init__(self, text: str = "", color: str | None = None):
        super().__init__()
        self._text, self._color = text, color
        self._ink()

    def setText(self, text: str) -> None:
        self._text = text
        self._ink()

    def text(self) -> str:
        """Return what was set, without the colour of its links."""
        return self._text

    def set_color(self, color: str | None) -> None:
        """Take another colour; None for the theme's own."""
        self._color = color
        self._ink()

    def changeEvent(self, event: Any) -> None:
        super().changeEvent(event)
        if event.type() in _CHANGES:
            self._ink()

    def _ink(self) -> None:
        ground = ground_of(self)
        style = "" if self._color is None else f"color: {readable(self._color, ground)}"
        if style != self.styleSheet():
            self.setStyleSheet(style)
        super().setText(self._text.replace("<a ", f'<a style="color: {readable(LINK, ground)}" '))


class InkedAxes(QObject):
    """Keeps the axes of plots readable in any theme.

    Parameters
    ----------
    widget : pyqtgraph.PlotWidget or GraphicsView
    *plots : pyqtgraph.PlotItem
        Those in it, where it is not one itself.
    """

    def __init__(self, widget: Any, *plots: Any):
        super().__init__(widget)
        self._widget, self._plots = widget, plots or (widget.getPlotItem(),)
        widget.installEventFilter(self)
        self._ink()

    def eventFilter(self, _widget: Any, event: Any) -> bool:
        if event.type() in _CHANGES:
            self._ink()
        return False

    def _ink(self) -> None:
        self._widget.resetCachedContent()  # the ground of the theme before
        color = readable(FAINT, ground_of(self._widget))
        for plot in self._plots:
            plot.titleLabel.setText(plot.titleLabel.text, color=color)
            for axis in (plot.getAxis("bottom"), plot.getAxis("left")):
                axis.setPen(color)
                axis.setTextPen(color)


def _mixed(color: str, end: str, part: float) -> str:
    pairs = zip(QColor(color).getRgbF()[:3], QColor(end).getRgbF()[:3], strict=True)
    return str(QColor.fromRgbF(*((1 - part) * a + part * b for a, b in pairs)).name())


def _luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in QColor(color).getRgbF()[:3]]
    return float(sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
