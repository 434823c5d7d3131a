"""Simulate: an image of a crystal with defects, with a preview that follows the fields."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from magicgui.widgets import FloatSlider, LineEdit
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel

from napari_defects.crystals import get_crystal
from napari_defects.micrograph import Progress
from napari_defects.widgets._forms import Form, nested
from napari_defects.widgets._frame import fold
from napari_defects.widgets._layers import contrast
from napari_defects.widgets._picks import CRYSTAL
from napari_defects.widgets._samples import simulated
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._work import Job
from napari_defects.widgets.average import picture

PREVIEW_NM, PREVIEW_PX = 4.0, 170


class Simulate(Panel):
    """Simulate a micrograph whose truth is known."""

    title = "Simulate"
    help = "Simulates an image whose every atom is known."
    inputs: ClassVar = {"crystal": CRYSTAL}
    steps = ("simulation.simulate",)
    main = ("field_of_view_nm", "pixel_size_nm", "dose_e_per_A2")
    hide = ("defects",)
    follow = "Analyze"
    run_text = "Simulate"

    @staticmethod
    def work(progress: Progress, crystal: str, simulate: dict[str, Any]) -> Made:
        """Simulate the image and its truth."""
        progress(0, 1)
        layers = simulated(f"simulated {crystal}", crystal, **simulate)
        progress(1, 1)
        return Made(layers, " × ".join(str(n) for n in layers[0][0].shape) + " px")

    def build(self) -> None:
        """Put the defects, the microscope, the scan and the detector, and the preview below."""
        from napari_defects.simulation import simulate

        self.groups = {name: Group(kind) for name, kind in nested(simulate).items()}
        self.defects = Form([])
        self.more = LineEdit(
            label="others", tooltip="Other species with their percentage, as in: Te_Se+V_W 0.5, S_Se 2"
        )
        self.more.native.setPlaceholderText("species percent, …")
        self._species = fold("Defects (% of their sites)")
        self._layout.insertWidget(self._layout.indexOf(self.fold), self._species)
        for name, group in self.groups.items():
            group.fold_into(self._layout, self._layout.indexOf(self.fold), name)
            group.changed(self._later)
        self._species.expand(animate=False)
        self.picture = QLabel()
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.picture.setMinimumHeight(PREVIEW_PX)
        self._layout.insertWidget(self._layout.indexOf(self.pickers) + 1, self.picture)
        self._timer = QTimer(self, interval=300, singleShot=True)
        self._timer.timeout.connect(self._preview)
        self._previewing: Job | None = None
        for widget in self.fields.values():
            widget.changed.connect(self._later)
        self.more.changed.connect(self._later)
        self.pickers["crystal"].changed.connect(self._crystal_chosen)
        self._crystal_chosen(self.pickers["crystal"].value)

    def gather(self) -> dict[str, Any]:
        """Fields, microscope and defects as the simulator takes them."""
        arguments = super().gather()
        defects = {name: value / 100 for name, value in self.defects.values().items() if value}
        defects |= parse_species(self.more.value)
        objects = {name: group.build() for name, group in self.groups.items()}
        return {**arguments, "simulate": {**arguments["simulate"], **objects, "defects": defects}}

    def _crystal_chosen(self, crystal: str) -> None:
        if self.defects.parent() is not None:
            self._species.removeWidget(self.defects)
            self._species.removeWidget(self.more.native)
            self.defects.setParent(None)
        sliders = [
            FloatSlider(
                name=name,
                label=name,
                value=value,
                min=0,
                max=10,
                step=0.05,
                tooltip=f"Percent of the sites that are {name}",
            )
            for name, value in usual_species(crystal).items()
        ]
        self.defects = Form(sliders)
        self._species.addWidget(self.defects)
        self._species.addWidget(self.more.native)
        for slider in sliders:
            slider.changed.connect(self._later)
        self._later()

    def _later(self) -> None:
        self._timer.start()

    def _preview(self) -> None:
        if not self.isVisible():
            return
        if self._previewing is not None and self._previewing.running:
            self._timer.start()
            return
        try:
            arguments = self.gather()
        except ValueError as error:
            self.say(str(error), doubt=True)
            return
        small = {
            **arguments["simulate"],
            "field_of_view_nm": min(PREVIEW_NM, arguments["simulate"]["field_of_view_nm"]),
        }
        self._previewing = Job("Preview", _preview, {"crystal": arguments["crystal"], "simulate": small})
        self._previewing.done.connect(self._show_preview)
        self._previewing.failed.connect(lambda error: self.say(str(error).replace("`", ""), doubt=True))
        self._previewing.start()

    def _show_preview(self, pixels: Any) -> None:
        self.picture.setPixmap(picture(pixels, contrast(pixels), PREVIEW_PX))
        self.say("")

    def showEvent(self, event: Any) -> None:  # noqa: D102
        super().showEvent(event)
        self._later()


class Group:
    """The form of a dataclass (a microscope), with those of the dataclasses in it (its aberrations)."""

    def __init__(self, kind: type):
        self.kind = kind
        self.form = Form.of(kind)
        inner = {f.name: f for f in dataclasses.fields(kind)}
        self.children = {name: Group(child) for name, child in nested(kind).items() if name in inner}

    def build(self) -> Any:
        """Return the object the fields describe."""
        return self.kind(**self.form.values(), **{name: child.build() for name, child in self.children.items()})

    def changed(self, callback: Any) -> None:
        """Call back when a field changes."""
        for widget in self.form:
            widget.changed.connect(callback)
        for child in self.children.values():
            child.changed(callback)

    def fold_into(self, layout: Any, place: int, name: str) -> None:
        """Put the folded form into a layout."""
        group = fold(name.capitalize())
        group.addWidget(self.form)
        layout.insertWidget(place, group)
        for inner, child in self.children.items():
            child.fold_into(layout, layout.indexOf(group) + 1, inner)


def _preview(progress: Progress, crystal: str, simulate: dict[str, Any]) -> Any:
    from napari_defects.simulation import simulate as run

    progress(0, 1)
    return run(crystal, **simulate)[0].frame(0)


def usual_species(crystal: str) -> dict[str, float]:
    """Species people ask for in a crystal, with a percentage to begin with."""
    chosen = get_crystal(crystal)
    if chosen.name == "graphene":
        return {"Si1C3": 0.3, "Si1C4": 0.1, "V1": 0.1, "V2": 0.1, "SW": 0.0}
    metal, other = (s.element for s in chosen.sublattices)
    if len(chosen.sublattices[1].column) < 2:
        return {f"V_{metal}": 0.5, f"V_{other}": 0.5}
    dopant = {"S": "Se", "Se": "Te", "Te": "Se"}[other]
    return {
        f"V_{other}": 2.0, f"V2_{other}": 0.3, f"{dopant}_{other}": 4.0, f"{dopant}2_{other}": 0.5,
        f"V_{metal}": 0.2, f"{other}_{metal}": 0.2,
    }  # fmt: skip


def parse_species(text: str) -> dict[str, float]:
    """Read ``Te_Se 5, V_W 0.5``: species with percent, as fractions.

    Raises
    ------
    ValueError
        If it is not a list of species with numbers.
    """
    result = {}
    for entry in filter(None, (part.strip() for part in text.replace(";", ",").split(","))):
        name, _, number = entry.replace("=", " ").replace("%", "").partition(" ")
        try:
            result[name] = float(number) / 100
        except ValueError:
            raise ValueError(
                f"Other species are written as species and percent, like Te_Se 5; got {entry!r}."
            ) from None
    return result
