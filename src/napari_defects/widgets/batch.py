"""Batch: a folder of images through one recipe; a finished dataset to look through. Watch: images as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from magicgui.widgets import CheckBox, ComboBox, SpinBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QPushButton

from napari_defects.micrograph import Progress
from napari_defects.widgets._file_list import Files, analyse
from napari_defects.widgets._forms import Form, path_field
from napari_defects.widgets._layers import about
from napari_defects.widgets._picks import CRYSTAL, MODEL
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.average import GAP_NM, Gallery, average_layer, details

EVERY = "all species"


class _OverFiles(Panel):
    """What both have in common: two folders, a recipe, a list of files."""

    inputs: ClassVar = {"crystal": CRYSTAL, "model": MODEL}

    def build(self) -> None:
        """Put the folders above, the list below."""
        self.images = path_field(
            name="images", label="Images", mode="d", tooltip="Folder of the images.", nullable=True
        )
        self.results = path_field(
            name="results", label="Results", mode="d", tooltip="Folder of the results.", nullable=True
        )
        self.recipe_file = path_field(
            name="recipe", label="Recipe", filter="*.toml", nullable=True,
            tooltip="Keywords of the steps, as saved by Analyze; none for the defaults.",
        )  # fmt: skip
        self.folders = Form([self.images, self.results, self.recipe_file, *self.options()])
        self._layout.insertWidget(1, self.folders)
        self.files = Files(self)
        self.add(self.files)

    def options(self) -> list[Any]:
        """Fields of its own."""
        return []

    def run(self) -> None:
        """Start; two runs at once would write into the same folder."""
        if self.job is not None and self.job.cancelled and self.job.running:
            self.say("The file that was under way is finished first.", doubt=True)
        else:
            super().run()

    def recipe(self) -> Any:
        """Return the recipe of the file, with the crystal and the network chosen."""
        from napari_defects.recipes import Recipe

        chosen = self.recipe_file.value
        recipe = Recipe() if not _given(chosen) else Recipe.read(chosen)
        model = self.pickers["model"].value
        changes: dict[str, dict[str, Any]] = {"fit_lattice": {"crystal": self.pickers["crystal"].value}}
        if model != "auto":
            changes["predict"] = {"model": model}
        return recipe.updated(changes)

    def gather(self) -> dict[str, Any]:
        """Folders and recipe; ValueError where one is missing."""
        for field, what in ((self.images, "images"), (self.results, "results")):
            if not _given(field.value):
                raise ValueError(f"Choose the folder of the {what} first.")
        if not Path(self.images.value).is_dir():
            raise ValueError(f"There is no folder {self.images.value}.")
        return {"images": str(self.images.value), "results": str(self.results.value), "recipe": self.recipe()}


class Batch(_OverFiles):
    """Analyse a folder of images with one recipe, on several processes; look through what came out."""

    title = "Batch"
    help = "Analyses every image of a folder. Broken off, it goes on where it stopped. Double-click a file to see it."
    run_text = "Run"

    @staticmethod
    def work(
        progress: Progress, images: str, results: str, recipe: Any, workers: int, report: Callable[[Any], None]
    ) -> Made:
        """Analyse all files of the folder."""
        summary = analyse(progress, [images], results, recipe, report, workers)
        return Made([], "", extra=summary)

    def options(self) -> list[Any]:
        """Return the number of processes."""
        self.workers = SpinBox(
            name="workers", label="Processes", value=1, min=0, max=256,
            tooltip="Beside napari; 0 to work within napari. Each needs about 2 GiB.",
        )  # fmt: skip
        return [self.workers]

    def build(self) -> None:
        """Add what is for a finished dataset."""
        super().build()
        self.open_button, self.report_button = QPushButton("Open finished dataset…"), QPushButton("Show report")
        self.average_button = QPushButton("Show averages")
        self.open_button.clicked.connect(lambda: self.open_dataset())
        self.report_button.clicked.connect(lambda: self.show_report())
        self.average_button.clicked.connect(lambda: self.show_averages())
        self.report_button.setEnabled(False)
        self.average_button.setEnabled(False)
        self.gallery, self.words = Gallery(self.viewer), QLabel()
        self.gallery.chosen.connect(lambda layer: self.words.setText(details(about(layer)["average"])))
        self.words.setWordWrap(True)
        for widget in (self.gallery, self.words):
            widget.setVisible(False)
        self.species = ComboBox(name="species", label="Count", choices=[EVERY])
        self.species.changed.connect(lambda species: self.count(species))
        self.filter = Form([self.species])
        self.filter.setVisible(False)
        buttons = (self.open_button, self.average_button, self.report_button)
        for widget in (self.filter, *buttons, self.gallery, self.words):
            self.add(widget)
        self.dataset: Any = None

    def gather(self) -> dict[str, Any]:
        """Folders, recipe, processes."""
        return {**super().gather(), "workers": self.workers.value, "report": self.files.reported.emit}

    def run(self) -> None:
        """Start with an empty list."""
        if self.job is None or not self.job.running:
            self._empty()
        super().run()

    def _empty(self) -> None:
        """Begin a list, of all species."""
        self.species.value = EVERY
        self.files.clear_rows()

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Offer the dataset."""
        self.files.done(made.extra)
        self._show(str(self.results.value))

    def open_dataset(self, folder: str | None = None) -> None:
        """List a dataset that was made before."""
        from qtpy.QtWidgets import QFileDialog

        folder = folder or QFileDialog.getExistingDirectory(self, "Open finished dataset")
        if folder:
            self._empty()
            try:
                self._show(folder, fill=True)
            except (OSError, ValueError) as error:
                self.fail(error)

    def count(self, species: str | None) -> None:
        """Show how many of a species each image has."""
        if self.dataset is None or species is None:
            return
        found = self.dataset.table("defects", columns=["species"])
        kept = found if species == EVERY else found[found["species"] == species]
        self.files.show_counts(kept.groupby("image").size().to_dict())

    def show_averages(self) -> None:
        """Show the class averages over all images: as layers left of the images, and side by side."""
        averages = sorted(self.dataset.averages.values(), key=lambda one: -one.n)
        known = {"image": self.dataset.folder.name, "crystal": self.pickers["crystal"].value}
        layers = []
        for number, one in enumerate(averages):
            side = one.pixel_size_nm * len(one.image) + GAP_NM / 2
            row, column = divmod(number, 2)
            layers.append(upsert(self.viewer, average_layer(one, (row * side, -GAP_NM - (column + 1) * side), known)))
        self.gallery.show_layers(layers)
        self.words.setVisible(True)
        if layers:
            self.gallery.take(layers[0])

    def show_report(self) -> None:
        """Open the report in the browser."""
        from qtpy.QtCore import QUrl
        from qtpy.QtGui import QDesktopServices

        QDesktopServices.openUrl(QUrl.fromLocalFile(str((self.dataset.folder / "report.html").resolve())))

    def _show(self, folder: str, fill: bool = False) -> None:
        from napari_defects.batch import Dataset

        self.dataset = Dataset(folder)
        if fill:
            for row in self.dataset.summary.to_dict("records"):
                place = self.dataset.folder / Path(str(row["folder"])).name
                self.files.add({**row, "folder": str(place), "crystal": self.pickers["crystal"].value})
            self.say(f"{len(self.dataset.images)} images in {self.dataset.folder.name}.")
        found = self.dataset.table("defects", columns=["species"])["species"].value_counts()
        self.species.choices = [EVERY, *found.index]
        self.filter.setVisible(True)
        self.report_button.setEnabled((self.dataset.folder / "report.html").is_file())
        self.average_button.setEnabled(any((self.dataset.folder / "averages").glob("*.npz")))
        self.gallery.show_layers([])
        self.words.setVisible(False)


class Watch(_OverFiles):
    """Analyse each image the microscope writes, as soon as it is there, and show it."""

    title = "Watch folder"
    help = "Analyses each new image of a folder until cancelled, and shows the newest."
    run_text = "Watch"
    came = Signal(object)

    @staticmethod
    def work(
        progress: Progress, images: str, results: str, recipe: Any, stop: threading.Event,
        report: Callable[[Any], None],
    ) -> Made:  # fmt: skip
        """Watch until cancelled."""
        from napari_defects.batch import watch

        seen = 0
        for row in watch(images, results, recipe, stop=stop):
            seen += 1
            report({**row, "crystal": recipe.crystal})
            progress(0, 0)
        return Made([], f"{seen} images")

    def options(self) -> list[Any]:
        """Return whether to show each image."""
        self.show_newest = CheckBox(name="show", label="Show the newest", value=True)
        return [self.show_newest]

    def build(self) -> None:
        """Take up each result in the window's thread."""
        super().build()
        self.stop = threading.Event()
        self.came.connect(self._came)
        self.destroyed.connect(self.stop.set)

    def gather(self) -> dict[str, Any]:
        """Folders, recipe, and how to stop."""
        self.stop.clear()
        self.files.clear_rows()
        return {**super().gather(), "stop": self.stop, "report": self.came.emit}

    def cancel(self) -> None:
        """Stop watching."""
        self.stop.set()
        super().cancel()

    def _came(self, row: dict[str, Any]) -> None:
        self.files.add(row)
        if row["status"] != "failed":
            self.say(f"{row['file']}: {row['defects']:,} defects, {row['latency_s']:.1f} s after it was written.")
            if self.show_newest.value:
                self.files.show_alone(self.files.rowCount() - 1)


def _given(path: Any) -> bool:
    return path is not None and str(path) not in ("", ".")
