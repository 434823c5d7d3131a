"""Train: a network for a material, with its curve while it learns; Cancel keeps the best so far."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, ClassVar

from magicgui.widgets import FileEdit
from qtpy.QtCore import Signal

from napari_defects.micrograph import Progress
from napari_defects.widgets import _picks
from napari_defects.widgets._picks import Choice
from napari_defects.widgets._steps import Made, Panel


def _recipes() -> list[str]:
    from napari_defects.networks import RECIPES

    return list(RECIPES)


class Train(Panel):
    """Train a network on simulated images."""

    title = "Train"
    help = "Trains a network on simulated images. Cancel keeps the best so far."
    inputs: ClassVar = {"recipe": Choice("Recipe", _recipes, "What to train: material, classes and conditions.")}
    steps = ("networks.recipes.train_recipe",)
    main = ("minutes", "steps", "seed")
    hide = ("device", "checkpoint", "start")
    follow = "Segment"
    run_text = "Train"
    validated = Signal(int, float, float)

    @staticmethod
    def work(
        progress: Progress, recipe: str, train_recipe: dict[str, Any], out: Path, stop: threading.Event, report: Any
    ) -> Made:
        """Train from a recipe; validations are reported while it runs."""
        from napari_defects.networks import StopTraining
        from napari_defects.networks import train_recipe as run
        from napari_defects.widgets._settings import device

        def step(done: int, total: int) -> None:
            if stop.is_set():
                raise StopTraining
            progress(done, total)

        log, listener = logging.getLogger("napari_defects.networks.training"), _Listener(report)
        level = log.level
        log.addHandler(listener)
        log.setLevel(logging.INFO)
        try:
            model = run(recipe, out=out, device=device(), progress=step, **train_recipe)
        finally:
            log.removeHandler(listener)
            log.setLevel(level)
        score = (model.card.get("history") or [{}])[-1].get("score")
        return Made([], f"{out.name}" + (f", score {score:.3f}" if score else ""), extra=out)

    def build(self) -> None:
        """Put the file and the curve below."""
        self.out = FileEdit(
            mode="w", label="save as", filter="*.safetensors", value=Path.home() / "my-model.safetensors"
        )
        self._layout.insertWidget(self._layout.indexOf(self.fold), self.out.native)
        self.validated.connect(self._add_point)
        self.plot: Any = None
        self._points: list[tuple[int, float, float]] = []
        self._stop = threading.Event()

    def gather(self) -> dict[str, Any]:
        """Recipe and keywords, the file to write, and the ways to hear and to stop."""
        out = Path(self.out.value).with_suffix(".safetensors")
        if not out.parent.is_dir():
            raise ValueError(f"There is no folder {out.parent}; choose another place for the model.")
        self._stop = threading.Event()
        self._points = []
        return super().gather() | {"out": out, "stop": self._stop, "report": self.validated.emit}

    def cancel(self) -> None:
        """End the training; what it has learned so far is kept and saved."""
        if self.job is not None and self.job.running:
            self._stop.set()
            self.say("Stopping after this step; the best so far is kept.")

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Offer the new model wherever a model is chosen."""
        _picks.remember_model(str(made.extra))

    def _add_point(self, step: int, loss: float, score: float) -> None:
        if self.plot is None:
            self._add_plot()
        self._points.append((step, loss, score))
        steps, losses, scores = zip(*self._points, strict=True)
        self._loss.setData(steps, losses)
        self._score.setData(steps, scores)

    def _add_plot(self) -> None:
        import pyqtgraph as pg

        self.plot = pg.PlotWidget(background=None)
        self.plot.setFixedHeight(170)
        self.plot.setLabel("bottom", "step")
        self.plot.addLegend(offset=(-5, 5))
        self._loss = self.plot.plot(pen=pg.mkPen("#e69f00", width=2), symbol="o", symbolSize=4, name="loss")
        self._score = self.plot.plot(pen=pg.mkPen("#56b4e9", width=2), symbol="o", symbolSize=4, name="score")
        self._layout.insertWidget(self._layout.indexOf(self.status) + 1, self.plot)


class _Listener(logging.Handler):
    """Hears the validations that the training writes to its log."""

    def __init__(self, report: Any):
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        values: Any = record.args
        if isinstance(values, tuple) and len(values) == 4:
            self._report(int(values[0]), float(values[1]), float(values[2]))
