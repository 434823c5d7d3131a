"""Segment: the threshold moves mask and defects from what is kept, at once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects.widgets._decision import LEAST, Decision
from napari_defects.widgets._layers import KEY, about, map_layer, mask_layer
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.segment import EACH, Segment


@pytest.fixture
def segmented(viewer: Any, maps: nd.Maps, measured: tuple[Any, nd.Lattice], qtbot: Any) -> Segment:
    """A viewer with maps and measured atoms, and the widget that looks at them."""
    sites, lattice = measured
    known = {"image": "wse2", "crystal": "WSe2", "made": {}}
    upsert(viewer, map_layer(maps, "maps · wse2", "V_Se", **known))
    upsert(viewer, mask_layer(maps, "mask · wse2", 0.5, **known))
    upsert(viewer, table_layer(sites, "sites", "atoms · wse2", image="wse2", crystal="WSe2", lattice=lattice))
    widget = Segment(viewer)
    qtbot.addWidget(widget)
    widget.decide()
    qtbot.waitUntil(lambda: widget._decision is not None and widget._decision.candidates is not None, timeout=60_000)
    qtbot.wait(20)
    return widget


def defects_layer(widget: Segment) -> Any:
    return widget.viewer.layers["defects · wse2"]


def test_the_decision_is_what_classify_says(
    segmented: Segment, wse2: Any, maps: nd.Maps, measured: Any, qtbot: Any
) -> None:
    for threshold in (0.3, 0.9):
        segmented.threshold.value = threshold
        qtbot.wait(50)
        expected = nd.classify(wse2[0], measured[0], maps=maps, min_probability=threshold)
        shown = defects_layer(segmented).features
        assert len(expected) > 10
        for column in ("defect", "species", "i", "j"):
            assert shown[column].tolist() == expected[column].tolist()
        mask = mask_layer(maps, "mask", threshold)[0]
        np.testing.assert_array_equal(segmented.viewer.layers["mask · wse2"].data, mask)
    assert set(segmented.legend.counts()) == set(expected["species"])


def test_moving_the_threshold_runs_nothing_again_and_is_quick(segmented: Segment, qtbot: Any) -> None:
    job = segmented._weighing
    spent = []
    for threshold in np.linspace(0.05, 0.99, 12):
        segmented.threshold.value = threshold
        began = time.process_time()
        segmented.decide()
        spent.append(time.process_time() - began)
    qtbot.wait(20)
    assert segmented._weighing is job
    assert min(spent) < 0.05  # CPU seconds, which a busy machine only makes more


def test_a_large_image_is_decided_in_time() -> None:
    """2048 x 2048 pixels, twenty thousand candidates."""
    rng = np.random.default_rng(0)
    data = rng.random((8, 2048, 2048), np.float32).astype(np.float16)
    maps = nd.Maps(data, ("background", "W", "Se2", "V_Se", "V2_Se", "Te_Se", "V_W", "Se_W"), 0.02)
    n = 20_000
    candidates = pd.DataFrame({
        "frame": 0, "defect": range(n), "i": range(n), "j": 0, "sublattice": "W", "species": "V_W",
        "probability": rng.random(n),
    })  # fmt: skip
    decision = Decision(maps, candidates)
    began = time.process_time()
    mask, defects = decision.mask(0.99), decision.defects(0.7)
    assert time.process_time() - began < 0.05
    assert mask.max() > 2
    assert len(defects) == (candidates["probability"] >= 0.7).sum()


def test_what_was_set_by_hand_stays(segmented: Segment, qtbot: Any) -> None:
    layer = defects_layer(segmented)
    table = layer.features.copy()
    table.loc[0, ["species", "method", "probability"]] = ["Te2_Se", "manual", 1.0]
    layer.features = table
    place = tuple(table.loc[0, ["i", "j", "sublattice"]])
    for threshold in (0.99, LEAST):
        segmented.threshold.value = threshold
        qtbot.wait(50)
        shown = defects_layer(segmented).features
        own = shown[(shown["i"] == place[0]) & (shown["j"] == place[1]) & (shown["sublattice"] == place[2])]
        assert own["species"].tolist() == ["Te2_Se"]


def test_what_was_rejected_stays_away(segmented: Segment, qtbot: Any) -> None:
    layer = defects_layer(segmented)
    rejected = layer.features.iloc[[0]]
    place = tuple(rejected.iloc[0][["i", "j", "sublattice"]])
    layer.remove([0])
    layer.metadata[KEY]["rejected"] = rejected
    segmented.threshold.value = LEAST
    qtbot.wait(50)
    shown = defects_layer(segmented)
    assert place not in set(shown.features[["i", "j", "sublattice"]].itertuples(index=False, name=None))
    assert about(shown)["rejected"]["defect"].tolist() == [len(shown.data)]
    assert "1 set by hand kept" in segmented.status.text()


def test_moved_atoms_are_weighed_again(segmented: Segment, qtbot: Any) -> None:
    job = segmented._weighing
    atoms = segmented.viewer.layers["atoms · wse2"]
    atoms.data = np.asarray(atoms.data) + np.where(np.arange(len(atoms.data)) == 0, 0.01, 0.0)[:, None]
    segmented.decide()
    assert segmented._weighing is not job
    qtbot.waitUntil(lambda: not segmented._weighing.running, timeout=60_000)


def test_only_species_that_can_be_there(
    segmented: Segment, wse2: Any, maps: nd.Maps, measured: Any, qtbot: Any, notifications: Any
) -> None:
    def typed(text: str) -> None:
        segmented.species.value = text
        segmented.species.native.editingFinished.emit()
        qtbot.wait(50)
        qtbot.waitUntil(lambda: not segmented._weighing.running, timeout=60_000)
        qtbot.wait(50)

    typed("V_Se, V2_Se")
    expected = nd.classify(wse2[0], measured[0], maps=maps, species="V_Se, V2_Se", min_probability=0.5)
    assert defects_layer(segmented).features["species"].tolist() == expected["species"].tolist()
    typed("V_Se, Xx_Se")
    assert "Xx_Se" in segmented.status.text()
    segmented.threshold.value = 0.7
    qtbot.wait(50)
    assert len(notifications) == 1, "said once, not at every move"
    typed("")
    assert "Te_Se" in set(defects_layer(segmented).features["species"]) - set(expected["species"])


def test_each_class_can_have_its_layer(segmented: Segment) -> None:
    segmented.show_class.value = EACH
    names = {layer.name for layer in segmented.viewer.layers}
    assert {"V_Se · wse2", "V2_Se · wse2", "Te_Se · wse2"} <= names
    assert not segmented.viewer.layers["V_Se · wse2"].visible
