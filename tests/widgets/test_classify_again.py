"""Classify a second time: what a person has said of a site stays, as long as it is the same site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

import napari_defects as nd
from napari_defects.widgets._corrections import by_hand, judged, kept
from napari_defects.widgets._layers import KEY, about, image_layer
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.analyze import Analyze
from napari_defects.widgets.classify import Classify

SITE = ["i", "j", "sublattice"]


@pytest.fixture
def classify(viewer: ViewerModel, measured: tuple[Any, nd.Lattice], finish: Callable[..., Any]) -> Classify:
    """The defects found without a network."""
    known = {"image": "wse2", "crystal": "WSe2", "lattice": measured[1]}
    upsert(viewer, table_layer(measured[0], "sites", "atoms · wse2", **known))
    widget = Classify(viewer)
    widget.fields["classify", "method"].value = "intensities"
    return finish(widget)


def corrected(classify: Classify) -> Any:
    """The layer with one defect named, one rejected, one added."""
    layer = classify.viewer.layers["defects · wse2"]
    table = judged(table_of(layer), 4, "V_W")
    layer.features = table
    layer.metadata[KEY]["rejected"] = table.iloc[[0]]
    layer.remove([0])
    layer.add(about(layer)["lattice"].position(8, 8, "W"))
    return layer


def test_corrections_stay(classify: Classify, finish: Callable[..., Any]) -> None:
    layer = corrected(classify)
    before, gone = table_of(layer), about(layer)["rejected"]
    finish(classify)
    after = table_of(layer)
    assert "3 set by hand kept" in classify.status.text()
    sites = after[SITE].to_records(index=False).tolist()
    assert sorted(sites) == sorted(before[SITE].to_records(index=False).tolist())
    assert gone[SITE].to_records(index=False).tolist()[0] not in sites
    assert sorted(after.loc[after["method"] == "manual", "species"]) == sorted(
        before.loc[before["method"] == "manual", "species"]
    )
    assert after["defect"].tolist() == list(range(len(after)))
    np.testing.assert_array_equal(about(layer)["rejected"][SITE], gone[SITE])


def test_corrections_of_other_sites_do_not(classify: Classify) -> None:
    layer = corrected(classify)
    lattice = about(layer)["lattice"]
    assert [len(rows) for rows in by_hand(layer, lattice)] == [2, 1]
    other = replace(lattice, origin_nm=lattice.origin_nm + lattice.a1_nm)
    assert [len(rows) for rows in by_hand(layer, other)] == [0, 0]


def test_all_can_be_by_hand(classify: Classify) -> None:
    table = table_of(corrected(classify))
    hand = table[table["method"] == "manual"]
    defects, gone = kept(table.iloc[:0], hand, None)
    assert defects["species"].tolist() == hand["species"].tolist()
    assert gone is None


def test_they_stay_when_everything_is_analysed_again(
    viewer: ViewerModel, finish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_defects.pipeline.model_for", lambda crystal: None)
    widget = finish(Analyze(viewer))
    layer = viewer.layers["defects · wse2"]
    layer.features = judged(table_of(layer), 4, "V_W")
    place = table_of(layer).loc[4, SITE].tolist()
    finish(widget)
    after = table_of(viewer.layers["defects · wse2"])
    assert after.loc[after["method"] == "manual", SITE].to_numpy().tolist() == [place]
    assert "1 set by hand kept" in widget.lines.text("classify")


def test_the_legend_is_of_the_image_chosen(classify: Classify, qtbot: Any) -> None:
    assert classify.legend.counts()
    other, _ = nd.simulate("WSe2", field_of_view_nm=3, pixel_size_nm=0.03, seed=1)
    upsert(classify.viewer, image_layer(other, "other", crystal="WSe2"))
    classify.pickers["image"].value = classify.viewer.layers["other"]
    assert not classify.legend.counts()
    classify.pickers["image"].value = classify.viewer.layers["wse2"]
    assert classify.legend.counts()


def test_tables_that_do_not_say_their_crystal_are_told_by_their_sublattices(
    viewer: ViewerModel, measured: tuple[Any, nd.Lattice], finish: Callable[..., Any]
) -> None:
    upsert(viewer, table_layer(measured[0], "sites", "atoms · wse2", image="wse2"))
    widget = Classify(viewer)
    widget.fields["classify", "method"].value = "intensities"
    finish(widget)
    assert about(viewer.layers["defects · wse2"])["crystal"] == "WSe2"
