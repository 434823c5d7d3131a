"""What every widget does: read its inputs, run its steps in a worker, and turn what came out into layers.

A widget is a subclass that names its steps and says how to call them (`Panel.work`); the form, the worker, the
progress, the errors and the layers are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from napari_defects.widgets._belonging import Subject, check_belongs, image_name, image_of
from napari_defects.widgets._forms import set_value, value_of
from napari_defects.widgets._frame import Frame, open_widget
from napari_defects.widgets._layers import KEY, LayerData, about, source_name
from napari_defects.widgets._picks import IMAGE, Choice, Pick, Source
from napari_defects.widgets._viewer import follow_names, upsert
from napari_defects.widgets._work import Job, sentence


class Made(NamedTuple):
    """What a widget's work gives back: layers, one line that sums them up, and a doubt worth saying."""

    layers: list[LayerData]
    summary: str = ""
    doubt: str = ""
    extra: Any = None


class Panel(Frame):
    """Base of the widgets.

    Attributes
    ----------
    work : staticmethod
        Calls the steps, in a worker: with ``progress``, the inputs as `Source`, the keywords of each step as a dict.
    """

    work: ClassVar[Callable[..., Made]]

    def __init__(self, napari_viewer: Any):
        self.job: Job | None = None
        self.subject = Subject()
        super().__init__(napari_viewer)
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered, events.renamed):
            emitter.connect(self.refresh)
        self.refresh()

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Look at the layers that were just made."""

    def show_chosen(self) -> None:
        """Show what belongs to the layers chosen, and nothing where there is nothing."""

    @property
    def working(self) -> bool:
        """Whether there is work whose result is waited for."""
        return self.job is not None and self.job.running and not self.job.cancelled

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

    @property
    def choices(self) -> dict[str, str]:
        """What is chosen besides layers: the crystal, the model."""
        return {name: self.pickers[name].value for name, pick in self.inputs.items() if isinstance(pick, Choice)}

    def look_at(self, image: str) -> None:
        """Choose the layers that belong to an image."""
        first = next(iter(self.inputs))
        if isinstance(self.inputs[first], Pick) and (best := self._best(first, image)) is not None:
            self.pickers[first].value = best

    def lead_on(self) -> Any:
        """Open the widget that comes next, for the same image and crystal."""
        widget = open_widget(self.viewer, self.follow or "", self.choices)
        name, pick = next(iter(self.inputs.items()))
        layer = self.pickers[name].value if isinstance(pick, Pick) else self.viewer.layers.selection.active
        if widget is not None and layer is not None and layer in self.viewer.layers:
            widget.look_at(source_name(layer))
        return widget

    def gather(self) -> dict[str, Any]:
        """Return inputs and keywords for `work`, read from the layers now; ValueError where something is missing."""
        arguments: dict[str, Any] = {}
        leader = self._leader()
        image, whose = (None, None) if leader is None else (image_of(self.viewer, leader), image_name(leader))
        for name, pick in self.inputs.items():
            value = self.pickers[name].value
            if isinstance(pick, Choice):
                arguments[name] = value
            elif value is None or value not in self.viewer.layers:
                if not pick.optional:
                    others = any(map(pick.fits, self.viewer.layers))
                    raise ValueError(pick.lacking(whose if others else None))
                arguments[name] = None
            elif not pick.fits(value):
                raise ValueError(f"Layer {value.name!r} does not fit here. {pick.missing}")
            else:
                check_belongs(value, whose, image)
                arguments[name] = Source(pick.read(value), source_name(value), about(value))
        return arguments | self.parameters

    def run(self) -> None:
        """Start the work; a click on Run."""
        if self.working:
            return
        try:
            arguments = self.gather()
        except (ValueError, TypeError, KeyError) as error:
            self.fail(error)
            return
        self.unveil()
        self._remember()
        self.start(self.work, arguments, self._made, self.title)

    def unveil(self) -> None:
        """Show the image chosen, and no other that is drawn over it: what is marked is to be seen on its own image."""
        image = self._image_layer()
        if image is None:
            return
        image.visible = True
        low, high = image.extent.world[:, -2:]
        for other in self.viewer.layers[self.viewer.layers.index(image) + 1 :]:
            (near, far) = other.extent.world[:, -2:]
            if IMAGE.fits(other) and other.blending != "additive" and (near < high).all() and (far > low).all():
                other.visible = False

    def _remember(self) -> None:
        """Write into the layer worked on what the form says, to come back to it with the layer."""
        layer = self.pickers[next(iter(self.inputs))].value if self.inputs else None
        if layer is not None and hasattr(layer, "metadata"):
            known = about(layer)
            used = {**known.get("parameters", {}), self.title: {**self.choices, **self.parameters}}
            layer.metadata = {**layer.metadata, KEY: {**known, "parameters": used}}

    def start(
        self, function: Callable[..., Any], arguments: dict[str, Any], done: Callable[[Any], None], title: str
    ) -> None:
        """Run a function in a worker, one at a time; its result goes to `done`, its errors to the user."""
        if self.working:
            self.say("Wait for what is running, or cancel it first.", doubt=True)
            return
        leader = self._leader()
        self.subject = Subject(None if leader is None else image_of(self.viewer, leader))
        self.job = Job(title, function, arguments, self)
        self.job.done.connect(done)
        self.job.failed.connect(self.fail)
        self.job.progressed.connect(self._progressed)
        self.job.ended.connect(self._ended)
        self._busy(True)
        self.say("…")
        self.job.start()

    def cancel(self) -> None:
        """Stop the work; a click on Cancel."""
        if self.job is not None and self.working:
            self.job.cancel()
            self.say("Cancelled.")

    def fail(self, error: BaseException) -> None:
        """Tell of an error in one sentence: a notification, and the line under the buttons."""
        from napari.utils.notifications import show_error

        text = sentence(error)
        self.say(text, doubt=True)
        show_error(text)

    def refresh(self, _event: Any = None) -> None:
        """Offer the layers there are now; what is chosen stays chosen while it is there, whatever its name."""
        follow_names(self.viewer)
        before = {name: self.pickers[name].value for name, pick in self.inputs.items() if isinstance(pick, Pick)}
        for name, layer in before.items():
            picker = self.pickers[name]
            with picker.changed.blocked():
                picker.reset_choices()
                picker.value = layer if layer in picker.choices else None
        for name, layer in before.items():
            picker = self.pickers[name]
            if picker.value is None and (best := self._best(name)) is not None:
                picker.value = best
            elif picker.value is None and layer is not None:
                picker.changed.emit(None)
        self.calibration.look(self._image_layer())
        self.show_chosen()

    def _image_layer(self) -> Any:
        return self.pickers["image"].value if isinstance(self.inputs.get("image"), Pick) else None

    def _leader(self) -> Any:
        """Return the layer that the others belong with: the first of those that the work cannot do without."""
        needed = (name for name, pick in self.inputs.items() if isinstance(pick, Pick) and not pick.optional)
        return None if (name := next(needed, None)) is None else self.pickers[name].value

    def _best(self, name: str, image: str | None = None) -> Any:
        """Choose the layer that fits best: of the first picker's image or of none, measured, not true, the newest."""
        pick = self.inputs[name]
        first = next(key for key, one in self.inputs.items() if isinstance(one, Pick))
        leader = self.pickers[first].value if name != first else None
        wanted = image if leader is None else image_name(leader)
        active = self.viewer.layers.selection.active

        def rank(layer: Any) -> tuple[bool, ...]:
            known = about(layer)
            kin = wanted is not None and source_name(layer) == wanted
            return kin, "truth" not in known, "average" not in known, not getattr(layer, "rgb", False), layer is active

        def fits(layer: Any) -> bool:
            assert isinstance(pick, Pick)
            free = leader is None or (not pick.optional and None in (wanted, image_name(layer)))
            return pick.fits(layer) and (free or rank(layer)[0])

        return max((layer for layer in reversed(self.viewer.layers) if fits(layer)), key=rank, default=None)

    def _first_chosen(self, layer: Any) -> None:
        """Take up what was chosen first; what was said of another is no longer true."""
        self.calibration.look(self._image_layer())
        if not self.working:
            self.say("")
        if layer is not None:
            self._follow_first(layer)
        self.show_chosen()

    def _follow_first(self, layer: Any) -> None:
        """Let the other pickers follow the first, and the crystal what the image is known to be."""
        for name, pick in list(self.inputs.items())[1:]:
            if isinstance(pick, Pick):
                self.pickers[name].value = self._best(name)
        crystal = about(layer).get("crystal")
        if crystal and isinstance(self.inputs.get("crystal"), Choice) and crystal in self.pickers["crystal"].choices:
            self.pickers["crystal"].value = crystal
        self.fill(about(layer).get("parameters", {}).get(self.title, {}))

    def _made(self, made: Made) -> None:
        try:
            self.subject.check(self.viewer)
        except ValueError as error:
            self.fail(error)
            return
        layers = [upsert(self.viewer, layer, self.subject.layer) for layer in made.layers]
        seconds = f" · {self.job.seconds:.1f} s" if self.job is not None and made.summary else ""
        self.say(f"✓ {made.summary}{seconds}" + (f"\n{made.doubt}" if made.doubt else ""), doubt=bool(made.doubt))
        if self.follow:
            self.next_button.setVisible(True)
        self.shown(made, layers)

    def _progressed(self, done: int, total: int) -> None:
        self.bar.setRange(0, max(total, 0))
        self.bar.setValue(done)

    def _ended(self) -> None:
        self._busy(False)
