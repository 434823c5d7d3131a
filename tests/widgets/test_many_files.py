"""A folder of images through one recipe, and images as they come."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel

import napari_defects as nd
from napari_defects.io import write_micrograph
from napari_defects.widgets.batch import EVERY, Batch, Watch

Finish = Callable[..., Any]
RECIPE = {"average": {"species": ["V_Se"], "rounds": 1}}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("images")
    for k in range(2):
        image, _ = nd.simulate("WSe2", field_of_view_nm=4.0, pixel_size_nm=0.03, defects={"V_Se": 4}, seed=k)
        write_micrograph(image, place / f"scan{k}.tif")
    (place / "broken.tif").write_bytes(b"nothing")
    return place


def ready(widget: Any, images: Path, tmp_path: Path) -> Any:
    (tmp_path / "recipe.toml").write_text(nd.Recipe(RECIPE).to_toml())
    widget.pickers["crystal"].value = "WSe2"
    widget.pickers["model"].value = "none" if "none" in widget.pickers["model"].choices else "auto"
    widget.images.value, widget.results.value = images, tmp_path / "out"
    widget.recipe_file.value = tmp_path / "recipe.toml"
    return widget


def test_batch_lists_filters_and_opens(finish: Finish, images: Path, tmp_path: Path) -> None:
    viewer = ViewerModel()
    widget = ready(Batch(viewer), images, tmp_path)
    widget.workers.value = 0
    finish(widget)
    assert "2 of 3 files analysed" in widget.status.text()
    assert "broken.tif" in widget.status.text()
    rows = {widget.files.item(r, 0).text(): [widget.files.item(r, c).text() for c in (1, 2)] for r in range(3)}
    assert rows["broken.tif"][0] == "failed"
    found = nd.read_table(tmp_path / "out" / "scan0" / "defects.csv", "defects")
    assert rows["scan0.tif"] == ["done", f"{len(found)}"]
    assert {EVERY, "V_Se"} <= set(widget.species.choices)
    widget.species.value = "V_Se"
    row = next(r for r in range(3) if widget.files.item(r, 0).text() == "scan0.tif")
    assert widget.files.item(row, 2).text() == str((found["species"] == "V_Se").sum())
    widget.files.open(row)
    assert {"scan0", "atoms · scan0", "defects · scan0"} <= {layer.name for layer in viewer.layers}
    assert widget.report_button.isEnabled()

    widget.open_dataset(str(tmp_path / "out"))
    row = next(r for r in range(3) if widget.files.item(r, 0).text() == "scan0.tif")
    assert (widget.species.value, widget.files.item(row, 2).text()) == (EVERY, f"{len(found)}")

    widget.show_averages()
    assert "average V_Se · out" in {layer.name for layer in viewer.layers}
    assert "members" in widget.words.text()
    assert not widget.gallery.isHidden()

    again = Batch(ViewerModel())
    finish(again, lambda: again.open_dataset(str(tmp_path / "out")))
    assert again.files.rowCount() == 3
    assert "2 images" in again.status.text()
    again.open_dataset(str(images))
    assert "no dataset" in again.status.text()


def test_an_unguarded_script_is_not_run_again_by_every_process(
    finish: Finish, images: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "mine.py").write_text("import napari\nnapari.Viewer()\nnapari.run()\n")
    monkeypatch.setattr("__main__.__file__", str(tmp_path / "mine.py"))
    widget = finish(ready(Batch(ViewerModel()), images, tmp_path))
    assert "mine.py" in widget.status.text()
    assert 'if __name__ == "__main__":' in widget.status.text()


def test_folders_are_asked_for(finish: Finish, tmp_path: Path, notifications: list[Any]) -> None:
    widget = finish(Batch(ViewerModel()))
    assert "folder of the images" in widget.status.text()
    widget.images.value = tmp_path / "nowhere"
    widget.results.value = tmp_path / "out"
    widget.run()
    assert "no folder" in widget.status.text()
    assert len(notifications) == 2


def test_a_cancelled_run_ends_before_the_next(finish: Finish, images: Path, tmp_path: Path) -> None:
    widget = finish(ready(Batch(ViewerModel()), images, tmp_path), lambda: None)
    widget.workers.value = 0
    widget.run()
    first = widget.job
    widget.cancel()
    widget.run()
    assert widget.job is first
    assert "finished first" in widget.status.text()
    finish(widget, lambda: None)
    widget.run()
    assert widget.job is not first
    widget.cancel()


def test_watch_shows_the_newest_until_it_is_cancelled(qtbot: Any, images: Path, tmp_path: Path, finish: Finish) -> None:
    (tmp_path / "in").mkdir()
    viewer = ViewerModel()
    widget = ready(Watch(viewer), tmp_path / "in", tmp_path)
    qtbot.addWidget(widget)
    widget.run()
    for number in range(2):
        shutil.copy(images / f"scan{number}.tif", tmp_path / "in" / f"scan{number}.tif")
        qtbot.waitUntil(lambda n=number: widget.files.rowCount() == n + 1, timeout=120_000)
        shown = {layer.name for layer in viewer.layers}
        assert {f"scan{number}", f"defects · scan{number}"} <= shown
        assert not any("scan0" in name for name in shown) or number == 0
    widget.cancel()
    qtbot.waitUntil(lambda: not widget.job.running, timeout=60_000)
    assert widget.files.rowCount() == 2
