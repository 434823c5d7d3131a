from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel

from napari_defects.widgets import _picks
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.segment import Segment
from napari_defects.widgets.train import LABELLED, TWINS, Train


@pytest.fixture
def calls(monkeypatch: Any) -> list[dict[str, Any]]:
    """Stand in for a training of a thousand steps, which validates every twenty and saves what it has."""
    from napari_defects.networks import StopTraining

    made: list[dict[str, Any]] = []
    log = logging.getLogger("napari_defects.networks.training")

    def train_recipe(name: str, *, out: Path, progress: Any, **keywords: Any) -> Any:
        made.append({"name": name, "steps_done": 0, **keywords})
        try:
            for step in range(keywords["steps"] or 1000):
                time.sleep(0.001)
                log.debug("step %d: loss %.4f", step + 1, 1 / (step + 1))
                if step % 20 == 19:
                    log.info("step %d: loss %.4f, score %.4f (%.0f s)", step, math.nan, 1 - 1 / step, 0.1)
                progress(step + 1, 1000)
                made[-1]["steps_done"] = step + 1
        except StopTraining:
            pass
        out.write_bytes(b"model")
        return SimpleNamespace(card={"history": [{"score": 0.987}]})

    monkeypatch.setattr("napari_defects.networks.train_recipe", train_recipe)
    monkeypatch.setattr(_picks, "_own_models", [])
    return made


def test_the_curve_grows_and_the_model_is_offered(calls: list[dict[str, Any]], finish: Any, tmp_path: Path) -> None:
    widget = Train(ViewerModel())
    assert "wse2-te" in widget.pickers["recipe"].choices
    widget.fill({"recipe": "wse2-te", "train_recipe": {"steps": 100, "seed": 3}})
    widget.out.value = tmp_path / "mine"
    finish(widget)
    assert (calls[0]["name"], calls[0]["steps"], calls[0]["seed"], calls[0]["minutes"]) == ("wse2-te", 100, 3, None)
    assert [step for step, _ in widget.curves.scores] == [19, 39, 59, 79, 99]
    assert [step for step, _ in widget.curves.losses] == [*range(1, 101)]
    widget.curves.draw()
    assert widget.curves.plot is not None
    assert "mine.safetensors, score 0.987" in widget.status.text()
    segment = Segment(ViewerModel())
    assert str(tmp_path / "mine.safetensors") in segment.pickers["model"].choices


def test_networks_for_cells_are_trained_too_with_cells_labelled_by_hand(
    calls: list[dict[str, Any]], monkeypatch: Any, finish: Any, tmp_path: Path
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "napari_defects.cells.recipes.train_cells",
        lambda name, **keywords: made.append({"name": name, **keywords}) or SimpleNamespace(card={}),
    )
    widget = Train(ViewerModel())
    assert not widget.own["cells"].native.isVisibleTo(widget), "for cells only"
    widget.pickers["recipe"].value = "mote2-boxes"
    assert not widget.own["cells"].native.isVisibleTo(widget), "boxes are not named"
    widget.pickers["recipe"].value = "mote2-cells"
    assert widget.own["cells"].native.isVisibleTo(widget)
    widget.cells.value = tmp_path
    widget.out.value = tmp_path / "mine"
    widget.fill({"train_recipe": {"steps": 7}})
    finish(widget)
    assert not calls
    assert (made[0]["name"], made[0]["steps"], made[0]["labels"]) == ("mote2-cells", 7, tmp_path)
    assert "workers" not in made[0]
    assert (made[0]["out"], "start" in made[0]) == (tmp_path / "mine.safetensors", False)


def test_cancel_keeps_the_best_so_far(calls: list[dict[str, Any]], qtbot: Any, tmp_path: Path) -> None:
    widget = Train(ViewerModel())
    qtbot.addWidget(widget)
    widget.out.value = tmp_path / "mine.safetensors"
    widget.run()
    qtbot.waitUntil(lambda: widget.bar.value() > 50, timeout=20_000)
    widget.cancel_button.click()
    qtbot.waitUntil(lambda: not widget.job.running, timeout=20_000)
    qtbot.wait(20)
    assert calls[0]["steps_done"] < 1000
    assert (tmp_path / "mine.safetensors").exists()
    assert widget.status.text().startswith("✓ mine.safetensors")


def test_a_stopped_training_can_go_on_or_begin_anew(
    calls: list[dict[str, Any]], finish: Any, qtbot: Any, tmp_path: Path
) -> None:
    widget = Train(ViewerModel())
    widget.out.value = tmp_path / "mine.safetensors"
    assert not widget.own["resume"].native.isVisibleTo(widget)
    kept = tmp_path / "mine.checkpoint"
    kept.write_bytes(b"state")
    widget._look()
    assert widget.own["resume"].native.isVisibleTo(widget)
    widget.resume.value = False
    widget.fill({"train_recipe": {"steps": 20}})
    widget.gather()
    assert not kept.exists()
    kept.write_bytes(b"state")
    widget.resume.value = True
    finish(widget)
    assert calls[0]["checkpoint"] == kept
    assert not kept.exists()  # it came to its end


@pytest.fixture
def tuning(monkeypatch: Any) -> list[dict[str, Any]]:
    """Stand in for fine-tuning and learning."""
    made: list[dict[str, Any]] = []
    rows = [{"class": "defects", "n": 5, "f1 before": 0.8, "f1 after": 0.9}]
    card = {"history": [{"score": 0.95}], "tests": {"Before and after": rows}}

    def stand_in(kind: str) -> Any:
        def run(micrograph: Any, *args: Any, **keywords: Any) -> Any:
            made.append({"kind": kind, "shape": micrograph.shape_yx, "args": args, **keywords})
            return SimpleNamespace(card=card, save=lambda out: out)

        return run

    monkeypatch.setattr("napari_defects.learning.tuning.fine_tune", stand_in("tune"))
    monkeypatch.setattr("napari_defects.learning.lessons.learn", stand_in("learn"))
    monkeypatch.setattr("napari_defects.networks.cards.write_card", lambda model, path: path.write_text("card"))
    monkeypatch.setattr(_picks, "_own_models", [])
    return made


def test_twins_of_an_image(tuning: list[dict[str, Any]], viewer: ViewerModel, finish: Any, tmp_path: Path) -> None:
    widget = Train(viewer)
    shown = {name for name in widget.inputs if widget.pickers[name].native.isVisibleTo(widget)}
    assert shown == {"learn", "recipe"}
    widget.pickers["learn"].value = TWINS
    shown = {name for name in widget.inputs if widget.pickers[name].native.isVisibleTo(widget)}
    assert shown == {"learn", "start", "image", "crystal"}
    widget.pickers["start"].value = "wse2-te"
    widget.out.value = tmp_path / "mine.safetensors"
    widget.brightest.value = "Se"
    widget.fill({"train_recipe": {"minutes": 3.0}})
    finish(widget)
    assert tuning[0]["kind"] == "tune"
    assert tuning[0]["brightest"] == "Se"
    assert (tuning[0]["args"], tuning[0]["minutes"], tuning[0]["crystal"]) == (("wse2-te",), 3.0, "WSe2")
    assert "0.800 → 0.900" in widget.status.text()


def test_points_and_painted_masks_are_labels(
    tuning: list[dict[str, Any]], viewer: ViewerModel, measured: Any, finish: Any, tmp_path: Path, notifications: Any
) -> None:
    sites, lattice = measured
    widget = Train(viewer)
    widget.out.value = tmp_path / "mine.safetensors"
    widget.pickers["learn"].value = LABELLED
    finish(widget)
    assert "no atoms on a lattice" in str(notifications[-1].message)
    upsert(viewer, table_layer(sites, "sites", "atoms · wse2", image="wse2", crystal="WSe2", lattice=lattice))
    finish(widget)
    assert "There are no labels" in str(notifications[-1].message)
    viewer.add_points(
        [[1.0, 1.0], [2.0, 3.0]], features={"species": ["Ti_W", "V_Se"]}, units=("nm", "nm"), name="by hand"
    )
    widget.pickers["labels"].value = viewer.layers["by hand"]
    widget.share.value = 0.7
    finish(widget)
    labels = tuning[-1]["args"][1]
    assert labels[["y_nm", "x_nm", "species"]].to_numpy().tolist() == [[1.0, 1.0, "Ti_W"], [2.0, 3.0, "V_Se"]]
    assert tuning[-1]["share"] == 0.7
    assert tuning[-1]["args"][0].attrs["crystal"] == "WSe2"
    painted = np.zeros((240, 240), int)
    painted[38:43, 78:83], painted[100:103, 20:23] = 1, 2
    viewer.add_labels(
        painted, scale=(0.025, 0.025), units=("nm", "nm"), name="painted",
        features=pd.DataFrame({"index": [0, 1, 2], "class": ["background", "Ti_W", "V_Se"]}),
    )  # fmt: skip
    widget.pickers["labels"].value = viewer.layers["painted"]
    finish(widget)
    labels = tuning[-1]["args"][1]
    assert labels["species"].tolist() == ["Ti_W", "V_Se"]
    assert labels[["y_nm", "x_nm"]].to_numpy() == pytest.approx(np.array([[1.0, 2.0], [2.525, 0.525]]))


def test_a_folder_that_is_not_there(
    calls: list[dict[str, Any]], finish: Any, tmp_path: Path, notifications: Any
) -> None:
    widget = Train(ViewerModel())
    widget.out.value = tmp_path / "nowhere" / "mine.safetensors"
    finish(widget)
    assert "There is no folder" in str(notifications[-1].message)
    assert not calls
