"""Analyze: all steps in a row with one recipe; each line, when done, leads to its widget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QApplication, QFileDialog, QMenu, QPushButton

from napari_defects.micrograph import Progress
from napari_defects.saving import writing
from napari_defects.widgets._corrections import Hand
from napari_defects.widgets._file_list import Files
from napari_defects.widgets._frame import open_widget
from napari_defects.widgets._layers import KEY, about, scale_nm, set_scale_nm
from napari_defects.widgets._legend import Legend
from napari_defects.widgets._lines import Lines
from napari_defects.widgets._picks import CRYSTAL, IMAGE, MODEL, Source
from napari_defects.widgets._points import table_of
from napari_defects.widgets._script import left_out_of, script
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._tables_out import ExportTables, counts_of
from napari_defects.widgets._telling import LINES, Telling, count_words
from napari_defects.widgets._viewer import made_from, standing, upsert
from napari_defects.widgets.average import Gallery, averages_of, drop_stale
from napari_defects.widgets.classify import corrected, defects_of, said_of


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
    def work(progress: Progress, image: Source, recipe: Any, hand: Hand, report: Callable[[str, Made], None]) -> Made:
        """Run the pipeline; layers and lines are reported as they are made."""
        from napari_defects.pipeline import analyze

        telling = Telling(image, recipe, hand, report)
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
        """Image, recipe and what was set by hand for the pipeline."""
        image, chosen = super().gather()["image"], self.pickers["image"].value
        hand = said_of(self.viewer, f"defects · {chosen.name}", chosen.name, scale_nm(chosen))
        return {"image": image, "recipe": self.recipe(), "hand": hand, "report": self.stepped.emit}

    def run(self) -> None:
        """Start over with empty lines, once there is nothing in the way."""
        before = self.job
        super().run()
        if self.job is not before:
            self._image = self.pickers["image"].value
            self.lines.reset()
            self.lines.start("segment")
            self.show_chosen()

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
        self.show_chosen()
        if (layer := self._made_layer("defects")) is not None:
            self.viewer.layers.selection.active = layer

    def show_chosen(self) -> None:
        """Show what there is of the image chosen; the lines are of the one analysed."""
        image = self.pickers["image"].value
        own = [] if image is None else made_from(self.viewer, image.name)
        self.lines.setVisible(image is not None and image is self._image)
        self.legend.follow(defects_of(self.viewer, image))
        self.gallery.show_layers([] if image is None else averages_of(self.viewer, image.name))
        self.export_button.setVisible(any("table" in about(layer) for layer in own))

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
        try:
            self.subject.check(self.viewer)
        except ValueError as error:
            self.cancel()
            self.fail(error)
            return
        if line == "classify":
            made = corrected(self.viewer, made, self._image)
        layers = [upsert(self.viewer, layer, self._image) for layer in made.layers]
        if line == "calibrate":
            self._lattice_pixel_nm = made.extra
        if line == "classify" and (atoms := self._made_layer("atoms")) is not None:
            atoms.visible = False
        if line == "average":
            drop_stale(self.viewer, self._image.name, *made.extra)
        if line == "strain":
            layers[0].colorbar.visible = layers[0].visible
        if line == "count" and (layer := self._made_layer("defects")) is not None:
            made = made._replace(summary=self._counted(layer, made.extra))
        self.lines.done(line, made.summary, made.doubt)
        self.show_chosen()

    def _counted(self, layer: Any, counts: Any) -> str:
        """Keep the counts in the layer of the defects, and say how many there are without what is painted."""
        for _ in range(2):  # as the pipeline has counted; then without what is painted, as they are exported
            layer.metadata = {**layer.metadata, KEY: {**about(layer), "counts": counts}}
            counts = counts_of(self.viewer, layer)
        return count_words(counts, len(table_of(layer)) - int(counts["count"].sum()))

    def _made_layer(self, kind: str) -> Any:
        """Return what was made of the image analysed, whichever is chosen by now; None where it is gone."""
        name = "" if self._image is None else self._image.name
        return standing(self.viewer, f"{kind} · {name}", name)

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
                with writing(path) as file:
                    file.write_text(self.recipe().complete().to_toml(), "utf-8")
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
        """Copy a script that makes the same tables; say what it cannot know."""
        layer = self.pickers["image"].value
        try:
            if layer is None:
                raise ValueError(IMAGE.missing)
            QApplication.clipboard().setText(self.python())
        except (ValueError, TypeError) as error:
            self.fail(error)
            return
        lacking = "; ".join(left_out_of(self.viewer, layer))
        self.say(f"Copied. Not in it: {lacking}." if lacking else "Copied: the script makes the same tables.")

    def python(self) -> str:
        """Return a script that makes the tables of the image chosen, as far as a script can."""
        return script(self.pickers["image"].value, self.recipe().steps)
