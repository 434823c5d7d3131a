"""Classify a second time: what a person has said of a site stays, as long as it is the same site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy

import napari_defects as nd
from napari_defects.widgets._corrections import by_hand, judged, kept
from napari_defects.widgets._layers import KEY, about, image_layer, set_scale_nm
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


def test_points_deleted_and_moved_with_the_tools_of_napari_stay_so(
    classify: Classify, finish: Callable[..., Any]
) -> None:
    layer = classify.viewer.layers["defects · wse2"]
    before = table_of(layer)
    layer.selected_data = {0, 1}
    layer.remove_selected()
    data = layer.data.copy()
    data[3] = about(layer)["lattice"].position(9, 8, "W")[0]
    layer.data = data
    gone = [*before.index[:2], 5]
    left = set(before.loc[gone, SITE].itertuples(index=False, name=None))
    for _ in range(2):
        finish(classify)
        after = set(table_of(layer)[SITE].itertuples(index=False, name=None))
        assert len(after) == len(before) - 2
        assert not left & after
        assert (9, 8, "W") in after
    rejected = about(layer)["rejected"]
    assert set(rejected[SITE].itertuples(index=False, name=None)) == left
    layer.add(before.loc[[0], ["y_nm", "x_nm"]].to_numpy())
    layer.remove([len(layer.data) - 1])
    assert len(about(layer)["rejected"]) == 3, "each once"


def test_points_deleted_in_a_window_stay_so(viewer: ViewerModel, wse2: tuple[nd.Micrograph, Any], qtbot: Any) -> None:
    widget = Classify(PublicOnlyProxy(viewer))  # as napari hands it to widgets
    qtbot.addWidget(widget)
    defects = pd.DataFrame(wse2[0].metadata["defects"])
    upsert(widget.viewer, table_layer(defects, "defects", "defects · wse2", image="wse2"))
    layer = viewer.layers["defects · wse2"]
    layer.remove([0, 1])
    assert len(about(layer)["rejected"]) == 2


def test_corrections_stay_in_a_layer_of_another_name(classify: Classify, finish: Callable[..., Any]) -> None:
    layer = corrected(classify)
    layer.name = "my defects"
    finish(classify)
    assert "3 set by hand kept" in classify.status.text()
    assert [one for one in classify.viewer.layers if about(one).get("table") == "defects"] == [layer]


@pytest.mark.parametrize("shift", [0, 1])
def test_corrections_stay_with_a_new_scale_and_it_is_said_what_does_not(
    classify: Classify, finish: Callable[..., Any], shift: int
) -> None:
    layer, viewer = corrected(classify), classify.viewer
    sites = table_of(viewer.layers["atoms · wse2"])
    lengths = [name for name in sites if name.endswith("_nm")]
    sites[lengths] *= 1.033
    old = about(layer)["lattice"]
    lattice = replace(old, origin_nm=1.033 * (old.origin_nm + shift * old.a1_nm), a1_nm=1.033 * old.a1_nm,
                      a2_nm=1.033 * old.a2_nm)  # fmt: skip
    set_scale_nm(viewer.layers["wse2"], 0.025 * 1.033)
    upsert(viewer, table_layer(sites, "sites", "atoms · wse2", image="wse2", crystal="WSe2", lattice=lattice))
    finish(classify)
    assert ("3 set by hand kept" if not shift else "3 set by hand not kept") in classify.status.text()
    if not shift:
        row = table_of(layer)[table_of(layer)["method"] == "manual"].iloc[-1]
        np.testing.assert_allclose(row[["y_nm", "x_nm"]].astype(float), lattice.position(8, 8, "W")[0], atol=1e-4)


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
    layer.name = "mine"
    layer.features = judged(table_of(layer), 4, "V_W")
    place = table_of(layer).loc[4, SITE].tolist()
    results: list[nd.Results] = []
    monkeypatch.setattr(widget, "shown", lambda made, layers: results.append(made.extra))
    finish(widget)
    assert "V_W" in set(results[0].counts["species"]), "what follows is of the defects as corrected"
    layer.name = "defects · wse2"
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
