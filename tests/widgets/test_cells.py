from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel

import napari_defects as nd
from napari_defects.cells import Collection
from napari_defects.widgets._cells import cells_of_layer
from napari_defects.widgets._exclusion import EXCLUSION
from napari_defects.widgets._layers import image_layer
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.cells import Cells

DEFECTS = {"V_Te": 5, "V2_Te": 3, "V_Mo": 4}


@pytest.fixture(scope="module")
def mote2() -> tuple[nd.Micrograph, Any]:
    scan = nd.Scan(rotation_deg=21.0)
    return nd.simulate("MoTe2", field_of_view_nm=5.0, pixel_size_nm=0.02, defects=DEFECTS, scan=scan, seed=6)


@pytest.fixture
def widget(mote2: Any, finish: Any, tmp_path: Any) -> Cells:
    """The widget after its run on known sites."""
    viewer = ViewerModel()
    upsert(viewer, image_layer(mote2[0], "mote2", crystal="MoTe2"))
    upsert(viewer, table_layer(mote2[1], "sites", "atoms · mote2", image="mote2", crystal="MoTe2"))
    made = Cells(viewer)
    made.folder.value = tmp_path / "mine"
    return finish(made)


def click(widget: Cells, place: Any) -> None:
    """Press and release the mouse at a place in nm."""
    event = SimpleNamespace(type="mouse_press", position=tuple(place))
    steps = widget._clicked(widget.viewer, event)
    next(steps, None)
    event.type = "mouse_release"
    next(steps, None)


def test_every_cell_is_a_label_and_the_counts_are_per_area(widget: Cells) -> None:
    cells = cells_of_layer(widget.layer)
    assert {"perfect", *DEFECTS} >= set(cells["species"]) >= {"perfect", "V_Te"}
    assert len(np.unique(np.asarray(widget.layer.data))) == len(cells) + 1
    for row in (3, 40, 111):
        place = cells.loc[row, ["y_nm", "x_nm"]].to_numpy(float)
        assert widget.layer.get_value(tuple(place), world=True) == row + 1
    assert not EXCLUSION.fits(widget.layer), "cells are nothing to leave out"
    counts = widget.counts().set_index("species")
    area = len(cells) * nd.MOTE2.cell_area_nm2
    assert counts.loc["V_Te", "density_per_cm2"] == pytest.approx(counts.loc["V_Te", "count"] / area * 1e14)
    assert widget.table.isVisibleTo(widget)


def test_a_click_shows_a_cell_and_a_button_corrects_it(widget: Cells, tmp_path: Any) -> None:
    cells = cells_of_layer(widget.layer)
    row = int(cells.index[cells["species"] == "V_Te"][0])
    click(widget, cells.loc[row, ["y_nm", "x_nm"]])
    assert widget.chosen == row
    assert "V_Te" in widget.words.text()
    assert list(widget.panel.buttons) == list(nd.cells.kinds_of("MoTe2"))
    assert widget.panel.buttons["V_Te"].isChecked()
    (corners,) = widget.viewer.layers["cell looked at"].data
    np.testing.assert_allclose(corners.mean(0), cells.loc[row, ["y_nm", "x_nm"]].to_numpy(float), atol=1e-6)
    sides = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    np.testing.assert_allclose(sides[:2], cells.loc[row, ["width_nm", "height_nm"]].to_numpy(float), rtol=1e-6)
    labels = widget.layer.get_value(tuple(corners.mean(0) + 0.8 * (corners[0] - corners.mean(0))), world=True)
    assert labels == row + 1, "the outline lies around the cell as it is painted"
    before = widget.counts().set_index("species")["count"]
    widget.panel.buttons["V2_Te"].click()
    after = widget.counts().set_index("species")["count"]
    assert after["V2_Te"] == before["V2_Te"] + 1
    assert after.get("V_Te", 0) == before["V_Te"] - 1
    assert cells_of_layer(widget.layer).loc[row, "method"] == "manual"
    collection = Collection(tmp_path / "mine")
    assert collection.table[["species", "called", "source"]].to_numpy().tolist() == [["V2_Te", "V_Te", "mote2"]]
    widget.panel.buttons["V_Te"].click()
    assert Collection(tmp_path / "mine").table["species"].tolist() == ["V_Te"], "named again, not twice"


def test_the_outline_lies_where_the_image_lies(widget: Cells) -> None:
    for place in ((10.0, 20.0), (0.0, -5.0)):
        widget.layer.translate = place
        widget.look(0)
        np.testing.assert_allclose(widget.viewer.layers["cell looked at"].translate, place)


def test_drags_and_places_without_cells_show_nothing(widget: Cells) -> None:
    click(widget, (-1.0, -1.0))
    assert widget.chosen is None
    event = SimpleNamespace(type="mouse_press", position=(2.5, 2.5))
    steps = widget._clicked(widget.viewer, event)
    next(steps)
    event.type = "mouse_move"
    next(steps)
    event.type = "mouse_release"
    assert next(steps, "end") == "end"
    assert widget.chosen is None


def test_what_cannot_be_is_one_sentence(mote2: Any, finish: Any, notifications: Any) -> None:
    viewer = ViewerModel()
    upsert(viewer, image_layer(mote2[0], "mote2"))
    widget = Cells(viewer)
    widget.pickers["crystal"].value = "graphene"
    finish(widget)
    assert "MX2" in str(notifications[-1].message) or "lattice" in str(notifications[-1].message)
    assert isinstance(widget.layer, type(None))


def test_cells_without_their_image(widget: Cells, notifications: Any) -> None:
    widget.viewer.layers.remove("mote2")
    widget.look(0)
    assert "cell looked at" not in widget.viewer.layers
    assert "is gone" in str(notifications[-1].message)
    assert isinstance(cells_of_layer(widget.layer), pd.DataFrame)
