"""The panel every widget is: what it works on, the parameters of its steps, Run and Cancel, and what came out.

A widget is a subclass that names its steps and says how to call them (`Panel.work`); the form, the worker, the
progress, the errors and the layers are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt
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

from napari_defects.widgets._calibration import Calibration
from napari_defects.widgets._forms import Form, declared, fields_of, set_value, value_of
from napari_defects.widgets._layers import LayerData, about, source_name
from napari_defects.widgets._picks import Choice, Pick, Source
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets._work import Job, sentence

PLUGIN = "napari-defects"
WIDTH_PX = 340


class Made(NamedTuple):
    """What a widget's work gives back: layers, one line that sums them up, and a doubt worth saying."""

    layers: list[LayerData]
    summary: str = ""
    doubt: str = ""
    extra: Any = None


class Panel(QWidget):
    """Base of the widgets.

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
    work : staticmethod
        Calls the steps, in a worker: with ``progress``, the inputs as `Source`, the keywords of each step as a dict.
    """

    title: ClassVar[str]
    help: ClassVar[str] = ""
    inputs: ClassVar[dict[str, Pick | Choice]] = {}
    steps: ClassVar[tuple[str, ...]] = ()
    main: ClassVar[tuple[str, ...]] = ()
    hide: ClassVar[tuple[str, ...]] = ()
    follow: ClassVar[str | None] = None
    work: ClassVar[Callable[..., Made]]
    run_text: ClassVar[str] = "Run"

    def __init__(self, napari_viewer: Any):
        super().__init__()
        self.viewer = napari_viewer
        self.job: Job | None = None
        body, scroll, outer = QWidget(), QScrollArea(), QVBoxLayout(self)
        scroll.setWidget(body)
        scroll.setWidgetResizable(True)
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
        self._watch()
        self.refresh()

    # -- what subclasses say ------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Add what is the widget's own (a legend, a plot) below the buttons."""

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Look at the layers that were just made."""

    # -- what all have ------------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Keywords by step, as the form stands."""
        values: dict[str, dict[str, Any]] = {path.rpartition(".")[2]: {} for path in self.steps}
        for (step, name), widget in self.fields.items():
            values[step][name] = value_of(widget)
        return values

    def fill(self, parameters: Mapping[str, Any]) -> None:
        """Set keywords by step, and choices by name, as they were used somewhere else."""
        for key, value in parameters.items():
            if key in self.inputs and isinstance(self.inputs[key], Choice) and value in self.pickers[key].choices:
                self.pickers[key].value = value
            for name, keyword in value.items() if isinstance(value, Mapping) else ():
                if (key, name) in self.fields:
                    set_value(self.fields[key, name], keyword)

    def gather(self) -> dict[str, Any]:
        """Return inputs and keywords for `work`, read from the layers now; ValueError where something is missing."""
        arguments: dict[str, Any] = {}
        for name, pick in self.inputs.items():
            value = self.pickers[name].value
            if isinstance(pick, Choice):
                arguments[name] = value
            elif value is None or value not in self.viewer.layers:
                if not pick.optional:
                    raise ValueError(pick.missing)
                arguments[name] = None
            elif not pick.fits(value):
                raise ValueError(f"Layer {value.name!r} does not fit here. {pick.missing}")
            else:
                arguments[name] = Source(pick.read(value), source_name(value), about(value))
        return arguments | self.parameters

    def run(self) -> None:
        """Start the work; a click on Run."""
        if self.job is not None and self.job.running:
            return
        try:
            arguments = self.gather()
        except (ValueError, TypeError, KeyError) as error:
            self.fail(error)
            return
        self.start(self.work, arguments, self._made, self.title)

    def start(
        self, function: Callable[..., Any], arguments: dict[str, Any], done: Callable[[Any], None], title: str
    ) -> None:
        """Run a function in a worker; its result goes to `done`, its errors to the user."""
        self.job = Job(title, function, arguments)
        self.job.done.connect(done)
        self.job.failed.connect(self.fail)
        self.job.progressed.connect(self._progressed)
        self.job.ended.connect(self._ended)
        self.destroyed.connect(self.job.cancel)
        self._busy(True)
        self.say("…")
        self.job.start()

    def cancel(self) -> None:
        """Stop the work; a click on Cancel."""
        if self.job is not None and self.job.running:
            self.job.cancel()
            self.say("Cancelled.")

    def say(self, text: str, doubt: bool = False) -> None:
        """One line under the buttons."""
        self.status.setText(text)
        self.status.setStyleSheet("color: #e9a23b" if doubt else "")
        self.status.setVisible(bool(text))

    def fail(self, error: BaseException) -> None:
        """Tell of an error in one sentence: a notification, and the line under the buttons."""
        from napari.utils.notifications import show_error

        text = sentence(error)
        self.say(text, doubt=True)
        show_error(text)

    def refresh(self, _event: Any = None) -> None:
        """Offer the layers there are now."""
        for name, pick in self.inputs.items():
            if isinstance(pick, Pick):
                picker = self.pickers[name]
                before = picker.value
                picker.reset_choices()
                if before is None or before not in picker.choices:
                    picker.value = self._best(name)
        self.calibration.look(self._image_layer())

    def _image_layer(self) -> Any:
        return self.pickers["image"].value if isinstance(self.inputs.get("image"), Pick) else None

    def _best(self, name: str) -> Any:
        """Choose the layer that fits best: of the first picker's image, measured rather than true, the newest."""
        first = next(iter(self.inputs))
        leader = self.pickers[first].value if name != first else None
        active = self.viewer.layers.selection.active

        def rank(layer: Any) -> tuple[bool, ...]:
            kin = leader is not None and source_name(layer) == source_name(leader)
            return (kin, "truth" not in about(layer), "average" not in about(layer), layer is active)

        pick = self.inputs[name]
        fitting = [layer for layer in reversed(self.viewer.layers) if isinstance(pick, Pick) and pick.fits(layer)]
        if leader is not None and isinstance(pick, Pick) and pick.optional:
            fitting = [layer for layer in fitting if rank(layer)[0]]
        return max(fitting, key=rank, default=None)

    def _first_chosen(self, layer: Any) -> None:
        """Let the other pickers follow the first, and the crystal what the image is known to be."""
        self.calibration.look(self._image_layer())
        if layer is None:
            return
        for name, pick in list(self.inputs.items())[1:]:
            if isinstance(pick, Pick):
                self.pickers[name].value = self._best(name)
        crystal = about(layer).get("crystal")
        if crystal and isinstance(self.inputs.get("crystal"), Choice) and crystal in self.pickers["crystal"].choices:
            self.pickers["crystal"].value = crystal

    def _made(self, made: Made) -> None:
        layers = [upsert(self.viewer, layer) for layer in made.layers]
        seconds = f" · {self.job.seconds:.1f} s" if self.job is not None and made.summary else ""
        self.say(f"✓ {made.summary}{seconds}" + (f"\n{made.doubt}" if made.doubt else ""), doubt=bool(made.doubt))
        if self.follow:
            self.next_button.setVisible(True)
        self.shown(made, layers)

    def _progressed(self, done: int, total: int) -> None:
        self.bar.setRange(0, max(total, 0))
        self.bar.setValue(done)

    def _busy(self, busy: bool) -> None:
        self.run_button.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)
        self.bar.setVisible(busy)
        self.bar.setRange(0, 0)

    def _ended(self) -> None:
        self._busy(False)

    # -- building -----------------------------------------------------------------------------------------------------

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
            words = QLabel(self.help)
            words.setWordWrap(True)
            words.setStyleSheet("color: gray")
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
        self.bar, self.status = QProgressBar(), QLabel()
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
            self.next_button.clicked.connect(lambda: open_widget(self.viewer, self.follow or ""))
            self.next_button.setVisible(False)
            self.add(self.next_button)

    def add(self, widget: QWidget) -> None:
        """Add a widget at the bottom."""
        self._layout.addWidget(widget)

    def _watch(self) -> None:
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered, events.renamed):
            emitter.connect(self.refresh)


def fold(title: str) -> QCollapsible:
    """Make a group that is folded up."""
    group = QCollapsible(title, expandedIcon="▾", collapsedIcon="▸")
    group.layout().setContentsMargins(0, 0, 0, 0)
    group.layout().setSpacing(0)
    group.content().layout().setContentsMargins(8, 4, 0, 4)
    group.toggleButton().setStyleSheet("text-align: left; border: none; background: transparent; padding: 0")
    return group


def open_widget(viewer: Any, title: str, parameters: dict[str, Any] | None = None) -> Any:
    """Open another widget of ours beside this one, filled with `parameters`; None without a window."""
    window = getattr(viewer, "window", None)
    if window is None:
        return None
    _, widget = window.add_plugin_dock_widget(PLUGIN, title, tabify=True)
    if parameters:
        widget.fill(parameters)
    return widget
