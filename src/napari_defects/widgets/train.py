"""Train: a network for a material, a microscope, or one's own labels, with its curves while it learns."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from magicgui.widgets import CheckBox
from napari.layers import Labels, Points

from napari_defects.docstrings import declared
from napari_defects.micrograph import Progress
from napari_defects.widgets import _picks
from napari_defects.widgets._curves import Curves, Listener
from napari_defects.widgets._forms import Form, fields_of, path_field, value_of
from napari_defects.widgets._layers import KEY, about
from napari_defects.widgets._picks import CRYSTAL, IMAGE, SITES, Choice, Pick, Source
from napari_defects.widgets._points import points_nm
from napari_defects.widgets._steps import Made, Panel

SIMULATED, TWINS, LABELLED = "simulated images", "twins of an image", "labels in an image"
"""What to learn from."""

_NEEDS = {
    SIMULATED: ("recipe",),
    TWINS: ("start", "image", "crystal"),
    LABELLED: ("start", "image", "crystal", "sites", "labels"),
}


def _recipes() -> list[str]:
    from napari_defects.cells.recipes import names
    from napari_defects.networks import RECIPES

    return [*RECIPES, *names()]


def _of_cells(recipe: str) -> bool:
    return "-cells" in recipe or "-boxes" in recipe


def _starts() -> list[str]:
    return [name for name in _picks.MODEL.options() if name != "auto"]


def _labels(layer: Any) -> bool:
    named = isinstance(layer, Points) and "species" in layer.features and about(layer).get("table") != "sites"
    return named or (isinstance(layer, Labels) and bool(label_names(layer)))


LABELS = Pick(
    "Labels",
    _labels,
    lambda layer: labels_table(layer),
    "There are no labels: Points with a species each (Classify, Review, Discover), or a painted mask with names.",
    optional=True,
    tooltip="Points with a species each, or Labels whose features say what each label is called.",
)


class Train(Panel):
    """Train a network on simulated images, on twins of an image, or on labels of one's own."""

    title = "Train"
    help = "Trains a network. Cancel keeps the best so far; Train goes on from there."
    inputs: ClassVar = {
        "image": replace(IMAGE, optional=True),
        "learn": Choice("Learn from", lambda: list(_NEEDS), "Where the training images come from."),
        "recipe": Choice("Recipe", _recipes, "What to train: material, classes and conditions."),
        "start": Choice("Start from", _starts, "The network whose weights to begin with."),
        "crystal": CRYSTAL,
        "sites": replace(SITES, optional=True),
        "labels": LABELS,
    }
    steps = ("networks.recipes.train_recipe",)
    main = ("minutes", "steps", "seed")
    hide = ("device", "checkpoint", "start")
    follow = "Segment"
    run_text = "Train"

    @staticmethod
    def work(
        progress: Progress, learn: str, recipe: str, start: str, image: Source | None, crystal: str,
        sites: Source | None, labels: Source | None, train_recipe: dict[str, Any], brightest: str | None,
        share: float, out: Path, collection: Path | None, stop: threading.Event, listener: Listener,
    ) -> Made:  # fmt: skip
        """Train, and write the model with its card; validations are heard while it runs."""
        from napari_defects.networks import StopTraining
        from napari_defects.networks.cards import keep
        from napari_defects.widgets._settings import device

        def step(done: int, total: int) -> None:
            if stop.is_set():
                raise StopTraining
            progress(done, total)

        checkpoint = checkpoint_of(out)
        common: dict[str, Any] = {"device": device(), "checkpoint": checkpoint, "progress": step}
        with listener:
            if learn == SIMULATED:
                model = by_recipe(recipe, out, collection, train_recipe | common)
            else:
                keywords = {k: v for k, v in train_recipe.items() if v is not None} | common
                model = tuned(start, image, crystal, sites, labels, share, keywords | {"brightest": brightest})
                keep(model, out)
        if not stop.is_set():
            checkpoint.unlink(missing_ok=True)
        score = (model.card.get("history") or [{}])[-1].get("score")
        return Made([], f"{out.name}" + (f", score {score:.3f}" if score else "") + gained(model.card), extra=out)

    def build(self) -> None:
        """Put the file, what to go on from, and the curves below."""
        self.out = path_field(
            name="out",
            mode="w",
            label="save as",
            tooltip="The trained network, with all that is needed to use it.",
            filter="*.safetensors",
            value=Path.home() / "my-model.safetensors",
        )
        self.share = fields_of(declared("learning.lessons.learn"))["share"]
        self.share.tooltip = "Of the training images that are crops of this image; the others are its simulated twins."
        self.brightest = fields_of(declared("lattice.fitting.fit_lattice"))["brightest"]
        self.brightest.label = "brightest here"
        self.cells = path_field(
            name="cells", mode="d", label="labelled cells", nullable=True, value=None,
            tooltip="Folder of cells corrected in the Cells widget, to learn from beside the simulated ones.",
        )  # fmt: skip
        self.resume = CheckBox(
            name="resume", text="go on where it stopped", label="", value=True,
            tooltip="A training into this file was stopped; off begins anew.",
        )  # fmt: skip
        self.own = Form([self.share, self.brightest, self.cells, self.resume])
        place = self._layout.indexOf(self.fold)
        self._layout.insertWidget(place, self.own)
        self._layout.insertWidget(place, Form([self.out]))
        self.curves = Curves()
        self._layout.insertWidget(self._layout.indexOf(self.status) + 1, self.curves)
        self._stop = threading.Event()
        for name in ("learn", "recipe"):
            self.pickers[name].changed.connect(lambda: self._look())
        self.out.changed.connect(lambda: self._look())
        self.pickers["crystal"].changed.connect(self._crystal_chosen)
        self._crystal_chosen(self.pickers["crystal"].value)
        self._look()

    def refresh(self, _event: Any = None) -> None:
        """Offer the layers and models there are now."""
        super().refresh()
        box, before = self.pickers["start"], self.pickers["start"].value
        box.choices = _starts()
        box.value = before if before in box.choices else box.choices[0]

    def _crystal_chosen(self, crystal: str) -> None:
        from napari_defects.networks import model_for

        if (name := model_for(crystal)) in self.pickers["start"].choices:
            self.pickers["start"].value = name

    def _look(self) -> None:
        needed = _NEEDS[self.pickers["learn"].value]
        for name in self.inputs:
            self.pickers.show_row(name, name == "learn" or name in needed)
        self.own.show_row("share", self.pickers["learn"].value == LABELLED)
        self.own.show_row("brightest", self.pickers["learn"].value != SIMULATED)
        recipe = str(self.pickers["recipe"].value)
        cells = self.pickers["learn"].value == SIMULATED and _of_cells(recipe) and "boxes" not in recipe
        self.own.show_row("cells", cells)
        self.own.show_row("resume", checkpoint_of(self._path()).is_file())

    def _path(self) -> Path:
        return Path(self.out.value).with_suffix(".safetensors")

    def gather(self) -> dict[str, Any]:
        """Return what to learn from, the file to write, and the ways to hear and to stop."""
        out, learn = self._path(), self.pickers["learn"].value
        if not out.parent.is_dir():
            raise ValueError(f"There is no folder {out.parent}; choose another place for the model.")
        for name in _NEEDS[learn]:
            pick = self.inputs[name]
            if isinstance(pick, Pick) and self.pickers[name].value is None:
                raise ValueError(pick.missing)
        arguments = super().gather()
        for name in set(self.inputs) - {"learn", *_NEEDS[learn]}:
            arguments[name] = None if isinstance(self.inputs[name], Pick) else arguments[name]
        if not self.resume.value:
            checkpoint_of(out).unlink(missing_ok=True)
        self._stop = threading.Event()
        self.curves.clear()
        recipe = str(self.pickers["recipe"].value)
        collection = self.cells.value if "-cells" in recipe else None
        own = {
            "share": self.share.value,
            "brightest": value_of(self.brightest),
            "collection": collection,
            "out": out,
            "stop": self._stop,
            "listener": self.curves.listener(),
        }
        return arguments | own

    def cancel(self) -> None:
        """End the training; what it has learned so far is kept and saved."""
        if self.job is not None and self.job.running:
            self._stop.set()
            self.say("Stopping after this step; the best so far is kept.")

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Offer the new model wherever a model is chosen."""
        _picks.remember_model(str(made.extra))
        self.refresh()
        self._look()


def by_recipe(recipe: str, out: Path, collection: Path | None, keywords: dict[str, Any]) -> Any:
    """Train from a recipe, of class maps or of unit cells; these with cells labelled by hand, where there are any."""
    if not _of_cells(recipe):
        from napari_defects.networks import train_recipe

        return train_recipe(recipe, out=out, **keywords)
    from napari_defects.cells.recipes import train_cells

    own = {key: value for key, value in keywords.items() if key not in ("workers", "start")}
    return train_cells(recipe, out=out, labels=collection, **own)


def tuned(
    start: str, image: Source | None, crystal: str, sites: Source | None, labels: Source | None, share: float,
    keywords: dict[str, Any],
) -> Any:  # fmt: skip
    """Fine-tune to an image, with its labels where there are any."""
    from napari_defects.learning.lessons import learn
    from napari_defects.learning.tuning import fine_tune

    assert image is not None
    if sites is None or labels is None:
        return fine_tune(image.value, start, crystal=crystal, **keywords)
    table = sites.value
    table.attrs["crystal"] = sites.about.get("crystal") or crystal
    return learn(image.value, table, labels.value, start, share=share, **keywords)


def gained(card: dict[str, Any]) -> str:
    """Say what a fine-tuning changed, on twins that neither model saw."""
    rows = [row for many in card.get("tests", {}).values() for row in many if "f1 before" in row]
    own = next((row for row in rows if row["class"] == "defects"), None)
    return f"\nF1 of the defects on twins: {own['f1 before']:.3f} → {own['f1 after']:.3f}" if own else ""


def checkpoint_of(out: Path) -> Path:
    """File that keeps the state of a training that was stopped or killed."""
    return out.with_suffix(".checkpoint")


def label_names(layer: Any) -> dict[int, str]:
    """Species of each label of a painted mask, as its features (``index``, ``class``) or our masks say."""
    features = layer.features
    column = next((c for c in ("species", "class", "name") if c in features), None)
    if column is not None and "index" in features:
        return {int(k): str(v) for k, v in zip(features["index"], features[column], strict=True) if k and v}
    return dict(enumerate(about(layer).get("classes", ()))) if KEY in layer.metadata else {}


def labels_table(layer: Any) -> Any:
    """Table of y_nm, x_nm, species of Points with species, or of a painted mask with names."""
    import pandas as pd

    from napari_defects.learning.annotations import mask_labels
    from napari_defects.widgets._layers import scale_nm

    if isinstance(layer, Labels):
        size = scale_nm(layer)
        if size is None:
            raise ValueError(f"{layer.name!r} has no pixel size: give it the scale of its image.")
        names = {k: name for k, name in label_names(layer).items() if name != "background"}
        return mask_labels(layer.data, names, tuple(size))
    frames, places = points_nm(layer)
    species = layer.features["species"].astype(str).to_numpy()
    return pd.DataFrame({"frame": frames, "y_nm": places[:, 0], "x_nm": places[:, 1], "species": species})
