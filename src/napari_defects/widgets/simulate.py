"""Simulate: an image of a crystal with defects, with a preview that follows the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from magicgui.widgets import ComboBox, FloatSlider, LineEdit, SpinBox
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QPushButton

from napari_defects.crystals import get_crystal
from napari_defects.docstrings import declared
from napari_defects.micrograph import Progress
from napari_defects.widgets._comparison import Comparison
from napari_defects.widgets._forms import Form, fields_of, nested, value_of
from napari_defects.widgets._frame import fold
from napari_defects.widgets._layers import contrast
from napari_defects.widgets._picks import CRYSTAL, IMAGE
from napari_defects.widgets._samples import simulated
from napari_defects.widgets._stages import Stage
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._work import Job
from napari_defects.widgets.average import picture

PREVIEW_PX, SHOWN_PX = 256, 200
EXPERIMENT = replace(IMAGE, label="Compare with", optional=True)
AS_SET = "as set below"


class Simulate(Panel):
    """Simulate a micrograph whose truth is known."""

    title = "Simulate"
    help = "Simulates an image whose every atom is known."
    inputs: ClassVar = {"crystal": CRYSTAL, "experiment": EXPERIMENT}
    steps = ("simulation.simulate",)
    main = ("field_of_view_nm", "pixel_size_nm", "dose_e_per_A2")
    hide = ("defects",)
    follow = "Analyze"
    run_text = "Simulate"

    @staticmethod
    def work(progress: Progress, crystal: str, simulate: dict[str, Any], experiment: Any = None) -> Made:
        """Simulate the image and its truth."""
        progress(0, 1)
        layers = simulated(f"simulated {crystal}", crystal, progress=progress, **simulate)
        layers[-1][1]["visible"] = True
        progress(1, 1)
        return Made(layers, " × ".join(str(n) for n in layers[0][0].shape) + " px")

    def build(self) -> None:
        """Put the defects, the microscope, the scan and the detector, and the preview below."""
        from napari_defects.simulation import simulate

        self.groups = {name: Stage(kind) for name, kind in nested(simulate).items()}
        self.defects = Form([])
        self.more = LineEdit(
            label="others", tooltip="Other species with their percentage, as in: Te_Se+V_W 0.5, S_Se 2"
        )
        self.more.native.setPlaceholderText("others, as in: Te_Se+V_W 0.5, S_Se 2")
        self._species = fold("Defects (% of their sites)")
        self._layout.insertWidget(self._layout.indexOf(self.fold), self._species)
        for name, group in self.groups.items():
            group.fold_into(self._layout, self._layout.indexOf(self.fold), name)
            group.changed(self._later)
        self._species.expand(animate=False)
        self.picture = QLabel()
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.picture.setMinimumHeight(SHOWN_PX)
        self._layout.insertWidget(self._layout.indexOf(self.pickers) + 1, self.picture)
        self._add_helpers()
        self._timer = QTimer(self, interval=30, singleShot=True)
        self._timer.timeout.connect(self._preview)
        self._previewing: Job | None = None
        for widget in self.fields.values():
            widget.changed.connect(self._later)
        self.more.changed.connect(self._later)
        self.pickers["crystal"].changed.connect(self._crystal_chosen)
        self.pickers["experiment"].changed.connect(self._later)
        self._crystal_chosen(self.pickers["crystal"].value)

    def _add_helpers(self) -> None:
        """Put presets, and the buttons that match, compare and make training pairs."""
        from napari_defects.simulation import PRESETS

        self.comparison: Comparison | None = None
        words = "Microscope, pixel size and dose of published work"
        self.preset = ComboBox(name="preset", label="preset", choices=[AS_SET, *PRESETS], tooltip=words)
        self.preset.changed.connect(self._preset_chosen)
        self._layout.insertWidget(self._layout.indexOf(self.top), Form([self.preset]))
        self.match_button, self.compare_button = QPushButton("Match this image"), QPushButton("Side by side")
        self.match_button.setToolTip("Estimate pixel size, rotation, blur, dose, noise and drift from the image above")
        self.compare_button.setToolTip("Histograms, power spectra and a line profile of image and preview")
        self.brightest = fields_of(declared("lattice.fitting.fit_lattice"))["brightest"]
        self.brightest.label = "brightest here"
        self.brightest.tooltip = "Sublattice that is brightest in the image to match, as Se, if not the one expected."
        self.number = SpinBox(value=100, min=1, max=1_000_000)
        self.pairs_button = QPushButton("Make training pairs…")
        self.pairs_button.setToolTip("Write so many random images with the table of what is in each into a folder")
        below = self._layout.indexOf(self.status) + 1
        for row, widgets in enumerate(
            (
                (self.number.native, self.pairs_button),
                (Form([self.brightest]),),
                (self.match_button, self.compare_button),
            )
        ):
            line = QHBoxLayout()
            for widget in widgets:
                line.addWidget(widget)
            self._layout.insertLayout(below + row, line)
        self.match_button.clicked.connect(lambda: self.match())
        self.compare_button.clicked.connect(lambda: self.compare())
        self.pairs_button.clicked.connect(lambda: self.make_pairs())

    def _preset_chosen(self, name: str) -> None:
        from napari_defects.simulation import PRESETS

        if name in PRESETS:
            self._take(PRESETS[name])

    def _take(self, keywords: Mapping[str, Any]) -> None:
        """Show keywords of `simulate`: stages in their sliders, the others in their fields."""
        for name, value in keywords.items():
            if name in self.groups:
                self.groups[name].fill(value)
            elif ("simulate", name) in self.fields:
                self.fill({"simulate": {name: float(np.max(value))}})

    def match(self) -> None:
        """Estimate the conditions of the chosen image, and take them over."""
        layer = self.pickers["experiment"].value
        try:
            if layer is None:
                raise ValueError("Choose the image to match, under Compare with.")
            image = EXPERIMENT.read(layer)
        except ValueError as error:
            self.fail(error)
            return
        crystal, microscope = self.pickers["crystal"].value, self.groups["microscope"].build()
        known = {"microscope": microscope, "brightest": value_of(self.brightest)}
        arguments = {"micrograph": image, "crystal": crystal, **known}
        self.start(_match, arguments, self._matched, "Match")

    def _matched(self, twin: Any) -> None:
        self.preset.value = AS_SET
        self._take(twin.keywords())
        size = f"{1e3 * twin.pixel_size_nm:.2f} pm/px, {twin.scan.rotation_deg:.1f}°"
        self.say(f"✓ {size}, {twin.dose_e_per_A2:.3g} e/Å², source {1e3 * twin.microscope.source_fwhm_nm:.0f} pm")

    def compare(self) -> None:
        """Open the comparison below the canvas."""
        if self.comparison is None:
            self.comparison = Comparison()
            window = getattr(self.viewer, "window", None)
            if window is not None:
                window.add_dock_widget(self.comparison, name="Simulation beside experiment", area="bottom")
        self.comparison.setVisible(True)
        self._later()

    def make_pairs(self, folder: str = "") -> None:
        """Write training pairs into a folder; asks for it where none is given."""
        folder = folder or QFileDialog.getExistingDirectory(self, "Folder for the training pairs")
        if folder:
            arguments = {"crystal": self.pickers["crystal"].value, "number": self.number.value, "folder": folder}
            self.start(_write_pairs, arguments, lambda n: self.say(f"✓ {n} pairs in {folder}"), "Training pairs")

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
        side = PREVIEW_PX * arguments["simulate"]["pixel_size_nm"]
        small = {
            **arguments["simulate"],
            "engine": "fast",
            "field_of_view_nm": min(side, arguments["simulate"]["field_of_view_nm"]),
        }
        self._previewing = Job("Preview", _preview, {"crystal": arguments["crystal"], "simulate": small}, self)
        self._previewing.done.connect(self._show_preview)
        self._previewing.failed.connect(lambda error: self.say(str(error).replace("`", ""), doubt=True))
        self._previewing.start()

    def _show_preview(self, micrograph: Any) -> None:
        pixels = micrograph.frame(0)
        self.picture.setPixmap(picture(pixels, contrast(pixels), SHOWN_PX))
        if self.comparison is not None and self.comparison.isVisible():
            experiment, scale = None, micrograph.pixel_size_yx_nm
            layer = self.pickers["experiment"].value
            if layer is not None and EXPERIMENT.fits(layer):
                image = EXPERIMENT.read(layer)
                scale = image.pixel_size_yx_nm
                experiment = _middle(image.frame(0), np.array(pixels.shape) * micrograph.pixel_size_yx_nm / scale)
            self.comparison.show_pair(
                experiment, scale, pixels, micrograph.pixel_size_yx_nm, micrograph.metadata["defects"]
            )

    def showEvent(self, event: Any) -> None:  # noqa: D102
        super().showEvent(event)
        self._later()


def _preview(progress: Progress, crystal: str, simulate: dict[str, Any]) -> Any:
    from napari_defects.simulation import simulate as run

    progress(0, 1)
    return run(crystal, **simulate)[0]


def _match(progress: Progress, **arguments: Any) -> Any:
    from napari_defects.twins import match

    return match(progress=progress, **arguments)


def _write_pairs(progress: Progress, crystal: str, number: int, folder: str) -> int:
    """Write images and tables of labels."""
    from napari_defects.io import write_micrograph, write_table
    from napari_defects.simulation import training_pairs

    for k, (image, labels) in enumerate(training_pairs(crystal, n=number)):
        write_micrograph(image, Path(folder) / f"{crystal}_{k:05d}.tif")
        write_table(labels, Path(folder) / f"{crystal}_{k:05d}.csv")
        progress(k + 1, number)
    return number


def _middle(image: Any, shape: Any) -> Any:
    """Cut the middle of an image, of about a shape."""
    low = [max(0, int(n - m) // 2) for n, m in zip(image.shape, shape, strict=True)]
    return image[low[0] : low[0] + int(shape[0]), low[1] : low[1] + int(shape[1])]


def usual_species(crystal: str) -> dict[str, float]:
    """Species people ask for in a crystal, with a percentage to begin with."""
    chosen = get_crystal(crystal)
    if chosen.name == "graphene":
        return {"Si1C3": 0.3, "Si1C4": 0.1, "V1": 0.1, "V2": 0.1, "SW": 0.0, "Si2C6": 0.0, "Si3C6": 0.0}
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
