"""Analyze: all steps in a row with one recipe; each line, when done, leads to its widget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QApplication, QFileDialog, QMenu, QPushButton

from napari_defects.micrograph import Progress
from napari_defects.widgets._file_list import Files
from napari_defects.widgets._frame import open_widget
from napari_defects.widgets._layers import KEY, LayerData, about, map_layer, mask_layer, micrograph_of, set_scale_nm
from napari_defects.widgets._legend import Legend
from napari_defects.widgets._lines import Lines
from napari_defects.widgets._picks import CRYSTAL, IMAGE, MODEL, Source
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._tables_out import ExportTables
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.average import Gallery, average_layer, average_place, drop_stale
from napari_defects.widgets.classify import corrected, summary
from napari_defects.widgets.localize import found
from napari_defects.widgets.segment import defect_classes
from napari_defects.widgets.strain import arrow_layer, strain_layer, strain_words

LINES = {
    "segment": ("Segment", ("predict",)),
    "localize": ("Localize", ("locate", "fit_lattice", "assign_sites")),
    "calibrate": (None, ("calibrate",)),
    "classify": ("Classify", ("classify",)),
    "average": ("Average", ("average",)),
    "strain": ("Strain", ("strain",)),
    "count": ("Count and export", ("count",)),
}
"""Lines of the list, with the widget each leads to and the steps it stands for."""


class Analyze(Panel):
    """From the image to tables, averages, strain and counts with one click."""

    title = "Analyze"
    help = "Runs all steps: atoms, defects, averages, strain and counts."
    inputs: ClassVar = {"image": IMAGE, "crystal": CRYSTAL, "model": MODEL}
    steps = (
        "networks.inference.predict", "atoms.locate", "lattice.assign_sites", "defects.classify", "averages.average",
        "deformation.strain", "statistics.count",
    )  # fmt: skip
    hide = ("maps", "model", "sites", "lattice", "device", "center_nm", "reference")
    follow = "Count and export"
    stepped = Signal(str, object)

    @staticmethod
    def work(
        progress: Progress, image: Source, recipe: Any, report: Callable[[str, Made], None], **_parameters: Any
    ) -> Made:
        """Run the pipeline; layers and lines are reported as they are made."""
        from napari_defects.pipeline import analyze

        telling = _Telling(image, recipe, report)
        results = analyze(image.value, recipe, progress=progress, on_step=telling)
        return Made([], "Done", extra=results)

    def build(self) -> None:
        """Put the lines, the legend, the gallery and the recipe's menu below."""
        self.lines = Lines(list(LINES))
        self.lines.clicked.connect(self._open)
        self.lines.link_clicked.connect(self._use_lattice)
        self.legend, self.gallery = Legend(), Gallery(self.viewer)
        menu = QMenu(self)
        menu.addAction("Save recipe…", lambda: self.save_recipe())
        menu.addAction("Load recipe…", lambda: self.load_recipe())
        menu.addAction("Copy as Python", lambda: self.copy_python())
        menu.addAction("Run recipe on files…", lambda: self.run_on_files())
        button = QPushButton("Recipe")
        button.setMenu(menu)
        self.files = Files(self)
        self.export_button = ExportTables(self, lambda: self.pickers["image"].value, IMAGE.missing)
        self.export_button.setVisible(False)
        for widget in (self.lines, self.legend, self.gallery, self.export_button, button, self.files):
            self.add(widget)
        self.stepped.connect(self._stepped)
        self._calibrate = False
        self._lattice_pixel_nm: Any = None
        self._image: Any = None  # the layer that is, or was, analysed
        self._steps_done = 0

    def recipe(self) -> Any:
        """Return the recipe the form stands for: only what differs from the defaults."""
        from napari_defects.recipes import Recipe

        changed: dict[str, dict[str, Any]] = {"fit_lattice": {"crystal": self.pickers["crystal"].value}}
        for (step, name), default in self._defaults.items():
            if (value := self.parameters[step][name]) != default:
                changed.setdefault(step, {})[name] = value
        if self.pickers["model"].value != "auto":
            changed.setdefault("predict", {})["model"] = self.pickers["model"].value
        return Recipe(changed)

    def gather(self) -> dict[str, Any]:
        """Image and recipe for the pipeline."""
        image = super().gather()["image"]
        return {"image": image, "recipe": self.recipe(), "report": self.stepped.emit}

    def run(self) -> None:
        """Start over with empty lines."""
        if not self.working:
            self._image = self.pickers["image"].value
            self.lines.reset()
            self.lines.start("segment")
        super().run()

    def fail(self, error: BaseException) -> None:
        """Tell of an error, and on which line it happened."""
        self.lines.fail()
        super().fail(error)

    def cancel(self) -> None:
        """Stop; lines that are not done say so."""
        super().cancel()
        self.lines.fail()

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Leave nothing running, and the defects at hand."""
        self.lines.finish()
        self.export_button.setVisible(True)
        if (layer := self._made_layer("defects")) is not None:
            self.viewer.layers.selection.active = layer

    def _progressed(self, done: int, total: int) -> None:
        from napari_defects.pipeline import STEPS

        super()._progressed(done, total)
        names = list(STEPS)
        step = names[min(len(names) * done // max(total, 1), len(names) - 1)]
        line = next((key for key, (_, steps) in LINES.items() if step in steps), None)
        if line is not None and step != "calibrate":
            self.lines.start(line, len(names) * done / max(total, 1) % 1)

    def _stepped(self, line: str, made: Made) -> None:
        if self.job is None or self.job.cancelled:
            return
        if line == "classify":
            made = corrected(self.viewer, made)
        layers = [upsert(self.viewer, layer) for layer in made.layers]
        self.lines.done(line, made.summary, made.doubt)
        if line == "calibrate":
            self._lattice_pixel_nm = made.extra
        if line == "classify":
            if (atoms := self._made_layer("atoms")) is not None:
                atoms.visible = False
            self.legend.follow(layers[0])
        if line == "average":
            drop_stale(self.viewer, *made.extra)
            self.gallery.show_layers(layers)
        if line == "strain":
            layers[0].colorbar.visible = layers[0].visible
        if line == "count" and (layer := self._made_layer("defects")) is not None:
            layer.metadata = {**layer.metadata, KEY: {**about(layer), "counts": made.extra}}

    def _made_layer(self, kind: str) -> Any:
        """Return what was made of the image analysed, whichever is chosen by now; None where it is gone."""
        name = f"{kind} · {'' if self._image is None else self._image.name}"
        return next((layer for layer in self.viewer.layers if layer.name == name), None)

    def _open(self, line: str) -> None:
        title = LINES[line][0]
        if title is not None:
            widget = open_widget(self.viewer, title)
            if widget is not None:
                if self._image in self.viewer.layers:
                    widget.look_at(self._image.name)
                widget.fill({**self.choices, **self.parameters})

    def _use_lattice(self) -> None:
        if self._image in self.viewer.layers:
            self.pickers["image"].value = self._image
            set_scale_nm(self._image, self._lattice_pixel_nm)
            self.run()

    def save_recipe(self, path: str | None = None) -> None:
        """Write the recipe, with every default, as TOML."""
        path = path or QFileDialog.getSaveFileName(self, "Save recipe", "recipe.toml", "Recipe (*.toml)")[0]
        if path:
            try:
                Path(path).write_text(self.recipe().complete().to_toml(), "utf-8")
            except OSError as error:
                self.fail(error)

    def run_on_files(self, paths: list[str] | None = None, folder: str | None = None) -> None:
        """Run the recipe on many files, into a folder; what each gave is listed while the others go on."""
        paths = paths or QFileDialog.getOpenFileNames(self, "Run the recipe on these files")[0]
        folder = folder or (QFileDialog.getExistingDirectory(self, "Results into folder") if paths else "")
        if paths and folder and not self.working:
            self.files.run(paths, folder, self.recipe())

    def load_recipe(self, path: str | None = None) -> None:
        """Fill the form from a recipe."""
        from napari_defects.recipes import Recipe

        path = path or QFileDialog.getOpenFileName(self, "Load recipe", "", "Recipe (*.toml)")[0]
        if not path:
            return
        try:
            recipe = Recipe.read(path)
        except (ValueError, OSError) as error:
            self.fail(error)
            return
        self.reset()
        choices = {"crystal": recipe.crystal, "model": recipe.keywords("predict").get("model", "auto")}
        self.fill({**recipe.steps, **choices})

    def copy_python(self) -> None:
        """Copy a script that makes the same tables."""
        QApplication.clipboard().setText(self.python())
        self.say("Copied: the script makes the same tables.")

    def python(self) -> str:
        """Return a script that makes the same tables."""
        layer = self.pickers["image"].value
        known = layer.metadata.get("napari_defects", {}).get("micrograph", {}) if layer is not None else {}
        path = known.get("path", known.get("file", "IMAGE"))
        size = micrograph_of(layer).pixel_size_nm if layer is not None else None
        steps = {step: dict(keywords) for step, keywords in self.recipe().steps.items()}
        return (
            "import napari_defects as nd\n\n"
            f"micrograph = nd.read_micrograph({path!r}, pixel_size_nm={size!r})\n"
            f"results = nd.analyze(micrograph, {_literal(steps)})\n"
            'results.write("results")\n'
        )


class _Telling:
    """Turns what a step gave into layers and a line, in the worker."""

    def __init__(self, image: Source, recipe: Any, report: Callable[[str, Made], None]):
        self.image, self.report = image, report
        self.known = {
            "image": image.image,
            "crystal": recipe.crystal,
            "made": {"step": "Analyze", "recipe": recipe.to_toml()},
        }
        self.movie, self.lattice = image.value.is_movie, None
        self.asked = recipe.keywords("average").get("species")

    def __call__(self, step: str, result: Any) -> None:
        if step == "locate":
            self.known["atom_columns"] = list(result.columns)  # to write the atoms as they were before they had sites
        tell = getattr(self, f"_{step}", None)
        if tell is not None:
            line = next(key for key, (_, steps) in LINES.items() if step in steps)
            self.report("calibrate" if step == "fit_lattice" else line, tell(result))

    def _predict(self, maps: Any) -> Made:
        from napari_defects.widgets._forms import default_of

        name = self.image.image
        threshold = default_of("defects.classify", "min_probability")
        mask, keywords, kind = mask_layer(maps, f"mask · {name}", threshold, **self.known)
        shown = map_layer(maps, f"maps · {name}", defect_classes(maps)[0], **self.known)
        return Made([shown, (mask, {**keywords, "visible": False}, kind)], f"{len(maps.classes) - 1} classes")

    def _fit_lattice(self, lattice: Any) -> Made:
        self.lattice = lattice
        size = self.image.value.pixel_size_yx_nm
        right = size / lattice.scale
        off = abs(lattice.scale - 1)
        words = f"{np.sqrt(size.prod()):.4f} nm a pixel"
        doubt = f"lattice says {np.sqrt(right.prod()):.4f}, {off:.1%} off" if off > 0.01 else ""
        return Made([], words + ("" if doubt else ", as the lattice says"), doubt, tuple(right))

    def _assign_sites(self, sites: Any) -> Made:
        return Made([self._table(sites, "sites", "atoms")], found(sites))

    def _classify(self, defects: Any) -> Made:
        return Made([self._table(defects, "defects", "defects")], summary(defects), extra=defects)

    def _average(self, averages: Mapping[str, Any]) -> Made:
        layers = [
            average_layer(result, average_place(self.image.value, number, result), self.known)
            for number, result in enumerate(averages.values())
        ]
        return Made(layers, f"{len(averages)} species", extra=(self.image.image, averages, self.asked))

    def _strain(self, table: Any) -> Made:
        picture, keywords, kind = strain_layer(table, "dilation", self.image.image, self.known)
        arrows, more, vectors = arrow_layer(table, self.image.image, self.known)
        hidden = [(picture, {**keywords, "visible": False}, kind), (arrows, {**more, "visible": False}, vectors)]
        return Made([*hidden, self._table(table, "strain", "atoms")], strain_words(table))

    def _count(self, counts: Any) -> Made:
        return Made([], f"{int(counts['count'].sum()):,} defects", extra=counts)

    def _table(self, table: Any, kind: str, name: str) -> LayerData:
        title = f"{name} · {self.image.image}"
        return table_layer(table, kind, title, movie=self.movie, lattice=self.lattice, **self.known)


def _literal(steps: Mapping[str, Mapping[str, Any]]) -> str:
    lines = (f"    {step!r}: {dict(keywords)!r},\n" for step, keywords in steps.items() if keywords)
    return "{\n" + "".join(lines) + "}"
