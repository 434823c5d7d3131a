"""How every widget looks: inputs, the keywords that matter, the others folded, Run and Cancel, a line of news."""

from __future__ import annotations

from typing import Any, ClassVar

from magicgui.widgets import ComboBox
from qtpy.QtCore import QPointF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap, QPolygonF
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_defects.docstrings import declared
from napari_defects.widgets._calibration import Calibration
from napari_defects.widgets._forms import Form, fields_of, set_value, value_of
from napari_defects.widgets._ink import DOUBT, FAINT, Ink
from napari_defects.widgets._picks import Choice, Pick

PLUGIN = "napari-defects"
WIDTH_PX = 340


class Frame(QWidget):
    """The form of a widget, built from what its class says.

    Attributes
    ----------
    title : str
        Name in menus and docks.
    help : str
        One sentence: what it does and needs.
    inputs : dict of str to Pick or Choice
        Arguments of `work` that the user picks.
    steps : tuple of str
        The functions called, as ``module.function``; their keywords make the form.
    main : tuple of str
        Keywords shown on top; the others are folded.
    hide : tuple of str
        Keywords that are no choice here.
    follow : str or None
        Title of the widget that comes next.
    """

    title: ClassVar[str]
    help: ClassVar[str] = ""
    inputs: ClassVar[dict[str, Pick | Choice]] = {}
    steps: ClassVar[tuple[str, ...]] = ()
    main: ClassVar[tuple[str, ...]] = ()
    hide: ClassVar[tuple[str, ...]] = ()
    follow: ClassVar[str | None] = None
    run_text: ClassVar[str] = "Run"

    def __init__(self, napari_viewer: Any):
        super().__init__()
        # itself, not the proxy that napari gives: a layer out of that is another object each time, and soon gone
        self.viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        body, scroll, outer = QWidget(), QScrollArea(), QVBoxLayout(self)
        scroll.setWidget(body)
        scroll.setWidgetResizable(True)
        body.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)  # what is too wide is cut alone
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self._layout = QVBoxLayout(body)
        self._layout.setContentsMargins(8, 6, 8, 8)
        self._layout.setSpacing(6)
        self.setMinimumWidth(WIDTH_PX)
        self._add_inputs()
        self._add_forms()
        self._add_buttons()
        self.build()
        self._add_follow()
        self._layout.addStretch(1)

    def build(self) -> None:
        """Add what is the widget's own (a legend, a plot) below the buttons."""

    def run(self) -> None:
        """Start the work; a click on Run."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop the work; a click on Cancel."""
        raise NotImplementedError

    def _first_chosen(self, layer: Any) -> None:
        raise NotImplementedError

    def say(self, text: str, doubt: bool = False) -> None:
        """One line under the buttons."""
        self.status.setText(text)
        self.status.set_color(DOUBT if doubt else None)
        self.status.setVisible(bool(text))

    def _busy(self, busy: bool) -> None:
        self.run_button.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)
        self.bar.setVisible(busy)
        self.bar.setRange(0, 0)

    def _add_inputs(self) -> None:
        boxes = []
        for name, pick in self.inputs.items():
            if isinstance(pick, Pick):
                choices = (lambda p: lambda _w: [layer for layer in self.viewer.layers if p.fits(layer)])(pick)
                boxes.append(
                    ComboBox(name=name, label=pick.label, choices=choices, nullable=True, tooltip=pick.tooltip)
                )
            else:
                boxes.append(ComboBox(name=name, label=pick.label, choices=list(pick.options()), tooltip=pick.tooltip))
        self.pickers = Form(boxes)
        for box in boxes:
            box.native.setSizeAdjustPolicy(box.native.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.native.setMinimumContentsLength(12)
        if self.help:
            words = Ink(self.help, FAINT)
            words.setWordWrap(True)
            self.add(words)
        self.add(self.pickers)
        self.calibration = Calibration(self)
        self.add(self.calibration)
        for name, pick in list(self.inputs.items())[:1]:
            if isinstance(pick, Pick):
                self.pickers[name].changed.connect(lambda layer: self._first_chosen(layer))

    def _add_forms(self) -> None:
        self.fields: dict[tuple[str, str], Any] = {}
        self.fold = fold("Settings")
        top: list[Any] = []
        for path in self.steps:
            step = path.rpartition(".")[2]
            widgets = list(fields_of(declared(path), ("progress", *self.hide)).values())
            self.fields |= {(step, w.name): w for w in widgets}
            top += [w for w in widgets if w.name in self.main]
            rest = [w for w in widgets if w.name not in self.main]
            if len(self.steps) > 2 and rest:
                self.fold.addWidget(QLabel(f"<b>{step.replace('_', ' ')}</b>"))
            if rest:
                self.fold.addWidget(Form(rest))
        self._defaults = {key: value_of(widget) for key, widget in self.fields.items()}
        top.sort(key=lambda w: self.main.index(w.name))
        self.top = Form(top)
        self.add(self.top)
        reset = QPushButton("Reset to defaults")
        reset.clicked.connect(lambda: self.reset())
        self.fold.addWidget(reset)
        self.add(self.fold)
        self.fold.setVisible(bool(self.fields))

    def reset(self) -> None:
        """Every keyword back to the step's default."""
        for key, value in self._defaults.items():
            set_value(self.fields[key], value)

    def _add_buttons(self) -> None:
        self.run_button, self.cancel_button = QPushButton(self.run_text), QPushButton("Cancel")
        self.run_button.clicked.connect(lambda: self.run())
        self.cancel_button.clicked.connect(lambda: self.cancel())
        self.bar, self.status = QProgressBar(), Ink()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.status.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        row = QHBoxLayout()
        row.addWidget(self.run_button, 2)
        row.addWidget(self.cancel_button, 1)
        self._layout.addLayout(row)
        self.add(self.bar)
        self.add(self.status)
        self._busy(False)
        self.say("")

    def _add_follow(self) -> None:
        if self.follow:
            self.next_button = QPushButton(f"Next: {self.follow.replace('&', '&&')} ▸")
            self.next_button.setFlat(True)
            self.next_button.clicked.connect(lambda: self.lead_on())
            self.next_button.setVisible(False)
            self.add(self.next_button)

    def lead_on(self) -> Any:
        """Open the widget that comes next, for the same image and crystal."""
        raise NotImplementedError

    def add(self, widget: QWidget) -> None:
        """Add a widget at the bottom."""
        self._layout.addWidget(widget)


def fold(title: str) -> QCollapsible:
    """Make a group that is folded up."""
    group = QCollapsible(
        title, expandedIcon=_triangle([(3, 5), (13, 5), (8, 11)]), collapsedIcon=_triangle([(5, 3), (11, 8), (5, 13)])
    )
    group.layout().setContentsMargins(0, 0, 0, 0)
    group.layout().setSpacing(0)
    group.content().layout().setContentsMargins(8, 4, 0, 4)
    group.toggleButton().setStyleSheet("text-align: left; border: none; background: transparent; padding: 0")
    return group


def _triangle(corners: list[tuple[int, int]]) -> QIcon:
    """Draw a triangle in a grey that is seen on light and on dark; text would keep the colour of the first theme."""
    pixmap = QPixmap(32, 32)
    pixmap.setDevicePixelRatio(2)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor("#909090"))
    painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in corners]))
    painter.end()
    return QIcon(pixmap)


def open_widget(viewer: Any, title: str, parameters: dict[str, Any] | None = None) -> Any:
    """Open another widget of ours beside this one, filled with `parameters`; None without a window."""
    window = getattr(viewer, "window", None)
    if window is None:
        return None
    _, widget = window.add_plugin_dock_widget(PLUGIN, title, tabify=True)
    if parameters:
        widget.fill(parameters)
    return widget
