from __future__ import annotations

import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from napari.components import ViewerModel

from napari_defects.widgets import _picks
from napari_defects.widgets.segment import Segment
from napari_defects.widgets.train import Train


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
                if step % 20 == 19:
                    log.info("step %d: loss %.4f, score %.4f (%.0f s)", step, 1 / step, 1 - 1 / step, 0.1)
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
    assert [point[0] for point in widget._points] == [19, 39, 59, 79, 99]
    assert widget.plot is not None
    assert "mine.safetensors, score 0.987" in widget.status.text()
    segment = Segment(ViewerModel())
    assert str(tmp_path / "mine.safetensors") in segment.pickers["model"].choices


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


def test_a_folder_that_is_not_there(
    calls: list[dict[str, Any]], finish: Any, tmp_path: Path, notifications: Any
) -> None:
    widget = Train(ViewerModel())
    widget.out.value = tmp_path / "nowhere" / "mine.safetensors"
    finish(widget)
    assert "There is no folder" in str(notifications[-1].message)
    assert not calls
