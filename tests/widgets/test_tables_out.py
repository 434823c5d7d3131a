"""Tables out of the layers: always of the image, and of the defects as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel

import napari_defects as nd
from napari_defects.widgets._cells import cells_layer
from napari_defects.widgets._layers import KEY, about, image_layer
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._tables_out import export
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.analyze import Analyze
from napari_defects.widgets.count import Count

COUNTS = {"Te_Se": 10, "V_Se": 8, "V2_Se": 3}


@pytest.fixture
def classified(viewer: ViewerModel, wse2: tuple[nd.Micrograph, Any], measured: Any) -> ViewerModel:
    known = {"image": "wse2", "crystal": "WSe2", "lattice": measured[1]}
    upsert(viewer, table_layer(measured[0], "sites", "atoms · wse2", **known))
    defects = pd.DataFrame(wse2[0].metadata["defects"])
    upsert(viewer, table_layer(defects, "defects", "defects · wse2", **known))
    return viewer


def written(viewer: ViewerModel, folder: Path, chosen: Any = None) -> dict[str, pd.DataFrame]:
    return {path.stem: nd.read_table(path) for path in export(viewer, "wse2", folder, ".csv", chosen)}


def counted(widget: Count) -> dict[str, int]:
    """What the table shows; nothing where it is hidden."""
    rows = range(widget.table.rowCount() if widget.table.isVisibleTo(widget) else 0)
    return {widget.table.item(row, 0).text(): int(widget.table.item(row, 1).text()) for row in rows}


def test_counts_of_an_analysis_are_counted_again(classified: ViewerModel, qtbot: Any, tmp_path: Path) -> None:
    layer = classified.layers["defects · wse2"]
    known = {"counts": pd.DataFrame(), "made": {"recipe": "[count]\nconfidence = 0.5"}}
    layer.metadata = {KEY: {**about(layer), **known}}
    layer.remove(np.flatnonzero(layer.features["species"] == "V_Se")[:5].tolist())
    widget = Count(classified)
    qtbot.addWidget(widget)
    assert counted(widget) == {**COUNTS, "V_Se": 3}
    assert widget.counts().attrs["confidence"] == 0.5
    tables = written(classified, tmp_path)
    assert tables["counts"]["count"].sum() == len(tables["defects"]) == 16


def test_counts_go_out_as_they_were_counted(
    classified: ViewerModel, finish: Callable[..., Any], tmp_path: Path
) -> None:
    widget = Count(classified)
    widget.fields["count", "area_nm2"].value = 50.0
    finish(widget)
    classified.layers["defects · wse2"].remove([0, 1])
    counts = written(classified, tmp_path)["counts"]
    assert counts["count"].sum() == 19
    np.testing.assert_allclose(counts["density_per_cm2"], counts["count"] / 50 * 1e14)


def test_counts_go_out_with_the_mask_they_were_counted_with_whatever_it_is_called(
    classified: ViewerModel, finish: Callable[..., Any], qtbot: Any, tmp_path: Path
) -> None:
    widget = finish(Count(classified))
    widget.paint()
    other = classified.layers["left out · wse2"]
    mask = classified.add_labels(np.zeros((240, 240), int), name="Labels", scale=(0.025, 0.025), units="nm")
    widget.pickers["left_out"].value = mask
    mask.data_setitem(tuple(np.indices((240, 240))[:, :120].reshape(2, -1)), 1)
    qtbot.waitUntil(lambda: "left out" in widget.status.text() and ", 0 left" not in widget.status.text())
    n = sum(counted(widget).values())
    assert 0 < n < 21
    mask.name = "holes"
    classified.layers["atoms · wse2"].name = "columns"
    assert widget.counts()["count"].sum() == n
    classified.layers.move(classified.layers.index(other), 0)
    paths = {path.stem: path for path in export(classified, "wse2", tmp_path)}
    assert nd.read_table(paths["counts"])["count"].sum() == n
    np.testing.assert_array_equal(nd.read_micrograph(paths["left_out"]).data, mask.data)


def test_counts_are_of_the_defects_written(classified: ViewerModel, finish: Callable[..., Any], tmp_path: Path) -> None:
    layer = classified.layers["defects · wse2"]
    finish(Count(classified))
    twin = upsert(classified, table_layer(layer.features.head(3), "defects", "mine", image="wse2", crystal="WSe2"))
    assert "counts" not in written(classified, tmp_path / "twin", twin), "they were not counted"
    assert len(written(classified, tmp_path / "own", layer)["defects"]) == 21
    assert sum(counted(finish(Count(classified))).values()) == 3, "the newest"


def test_counting_goes_on_after_something_was_out_of_date(
    classified: ViewerModel, finish: Callable[..., Any], qtbot: Any
) -> None:
    widget, image = finish(Count(classified)), classified.layers["wse2"]
    mask = classified.add_labels(np.zeros(image.data.shape, int), name="in pixels")
    widget.pickers["left_out"].value = mask
    qtbot.waitUntil(lambda: "in pixels, not nm" in widget.status.text())
    assert not counted(widget)
    widget.pickers["left_out"].value = None
    qtbot.waitUntil(lambda: counted(widget) == COUNTS)


def test_without_an_image_there_is_nothing_to_paint_on(classified: ViewerModel, qtbot: Any) -> None:
    stray = ViewerModel()
    for kind, name in (("sites", "atoms · wse2"), ("defects", "defects · wse2")):
        upsert(stray, table_layer(classified.layers[name].features, kind, kind))
    widget = Count(stray)
    qtbot.addWidget(widget)
    widget.paint()
    assert "no image to paint on" in widget.status.text()


def test_nothing_is_no_export(viewer: ViewerModel, qtbot: Any, tmp_path: Path) -> None:
    widget = Analyze(viewer)
    qtbot.addWidget(widget)
    widget.export_button.export(tmp_path / "out")
    assert "no tables of 'wse2' yet" in widget.status.text()
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_comes_with_the_remedy(classified: ViewerModel, qtbot: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    widget = Analyze(classified)
    qtbot.addWidget(widget)
    for write in (widget.export_button.export, widget.save_recipe):
        widget.say("")
        write(str(tmp_path / "file" / "out"))
        assert "choose another place" in widget.status.text()


def test_the_list_follows_the_defects(classified: ViewerModel, finish: Callable[..., Any], qtbot: Any) -> None:
    widget = finish(Count(classified))
    widget.table.setCurrentCell(1, 0)
    assert widget.rows.rowCount() == 8
    layer = classified.layers["defects · wse2"]
    layer.remove(np.flatnonzero(layer.features["species"] == "V_Se")[:6].tolist())
    qtbot.waitUntil(lambda: counted(widget).get("V_Se") == 2)
    assert widget.rows.rowCount() == 2
    assert widget.table.species(widget.table.currentRow()) == "V_Se"


def test_another_image_has_counts_of_its_own(
    classified: ViewerModel, wse2: Any, measured: Any, finish: Callable[..., Any], qtbot: Any
) -> None:
    known = {"image": "other", "crystal": "WSe2", "lattice": measured[1]}
    upsert(classified, image_layer(wse2[0], "other", crystal="WSe2"))
    upsert(classified, table_layer(measured[0], "sites", "atoms · other", **known))
    defects = pd.DataFrame(wse2[0].metadata["defects"]).head(3)
    other = upsert(classified, table_layer(defects, "defects", "defects · other", **known))
    widget = Count(classified)
    widget.look_at("wse2")
    finish(widget)
    widget.table.setCurrentCell(1, 0)
    widget.pickers["defects"].value = other
    qtbot.wait(200)
    assert counted(widget) == {}
    assert not widget.rows.isVisibleTo(widget)
    widget.pickers["defects"].value = classified.layers["defects · wse2"]
    assert counted(widget) == COUNTS


def test_cells_and_discovered_columns_are_tables_of_their_own(classified: ViewerModel, tmp_path: Path) -> None:
    layer = classified.layers["defects · wse2"]
    table = layer.features.head(4).assign(species="darker_Se")
    copy = upsert(classified, table_layer(table, "defects", "defects by somebody else", image="wse2"))
    cells = pd.DataFrame({"cell": [0], "frame": 0, "y_nm": 3.0, "x_nm": 3.0, "height_nm": 0.5, "width_nm": 0.3})
    cells = cells.assign(rotation_deg=0.0, i=0, j=0, species="perfect", probability=1.0, score=1.0, method="lattice")
    upsert(classified, cells_layer(cells, "cells · wse2", (6.0, 6.0), 1, image="wse2", crystal="WSe2"))
    tables = written(classified, tmp_path, layer)
    assert len(tables["defects"]) == 21, "those that were chosen"
    assert len(tables["cells"]) == 1
    assert len(written(classified, tmp_path, copy)["defects"]) == 4
