from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel

import napari_defects as nd
from napari_defects import tables
from napari_defects.learning.labels import label_sites, read_labels, write_labels
from napari_defects.widgets._corrections import classes_for, corrections, doubt, in_order, judged
from napari_defects.widgets._glimpse import crop, examples, line_angle, profile
from napari_defects.widgets._layers import about, image_layer
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.review import Review


@pytest.fixture
def found(wse2: tuple[nd.Micrograph, Any]) -> pd.DataFrame:
    """Defects as if they had been found: some more certain than others, one where the intensity disagrees."""
    table = pd.DataFrame(wse2[0].metadata["defects"]).assign(method="maps")
    table["probability"] = np.linspace(0.55, 0.999, len(table))
    table["by_intensity"] = table["species"]
    table.loc[20, "by_intensity"] = "Se2"
    return table


@pytest.fixture
def ready(viewer: ViewerModel, measured: tuple[Any, nd.Lattice], found: pd.DataFrame) -> ViewerModel:
    known = {"image": "wse2", "crystal": "WSe2", "lattice": measured[1]}
    upsert(viewer, table_layer(measured[0], "sites", "atoms · wse2", **known))
    upsert(viewer, table_layer(found, "defects", "defects · wse2", **known))
    return viewer


@pytest.fixture
def review(ready: ViewerModel, qtbot: Any) -> Review:
    widget = Review(ready)
    qtbot.addWidget(widget)
    widget.run()
    return widget


def defects_of(widget: Review) -> pd.DataFrame:
    return table_of(widget.viewer.layers["defects · wse2"]).set_index("defect")


# -- the order ------------------------------------------------------------------------------------------------------


def test_the_unsure_and_the_contradicted_come_first(found: pd.DataFrame) -> None:
    assert in_order(found)[:3] == [20, 0, 1], "called a host by its intensity; then by probability"
    assert doubt(found)[20] == pytest.approx(0.501)
    assert in_order(judged(found, 20, "V_Se"))[0] == 0, "not again what somebody has looked at"
    assert set(in_order(found, "V_Se")) == set(found.loc[found["species"] == "V_Se", "defect"])


def test_a_verdict_keeps_what_was_found(found: pd.DataFrame) -> None:
    once = judged(found, 3, "V2_Se")
    twice = judged(once, 3, "V_W").set_index("defect")
    row = twice.loc[3]
    assert (row["species"], row["probability"], row["method"]) == ("V_W", 1.0, "manual")
    assert (row["found_species"], row["found_method"]) == (found.loc[3, "species"], "maps")
    assert row["found_probability"] == pytest.approx(found.loc[3, "probability"])
    tables.check(twice.reset_index(), "defects")
    others = twice.drop(index=3)[list(found.columns.drop("defect"))]
    pd.testing.assert_frame_equal(
        others, tables.check(found, "defects").set_index("defect").drop(index=3)[others.columns]
    )


def test_classes_are_those_there_are_and_the_vacancies_of_the_crystal(found: pd.DataFrame) -> None:
    assert classes_for(found, "WSe2") == ["Te_Se", "V_Se", "V2_Se", "V_W"]
    assert classes_for(found, None) == ["Te_Se", "V_Se", "V2_Se"]


# -- what is seen ---------------------------------------------------------------------------------------------------


def test_a_crop_has_its_middle_where_it_should() -> None:
    y, x = np.indices((200, 200)) * 0.02
    image = np.exp(-((y - 2.013) ** 2 + (x - 1.508) ** 2) / (2 * 0.05**2))
    patch = crop(image, np.array([0.02, 0.02]), np.array([2.013, 1.508]))
    assert patch.shape == (61, 61)
    middle = np.unravel_index(patch.argmax(), patch.shape)
    assert middle == (30, 30)
    np.testing.assert_allclose(profile(patch, 0.7), profile(patch, 0.7)[::-1], atol=0.02)


def test_a_crop_beyond_the_border_is_empty_there() -> None:
    patch = crop(np.full((50, 50), 7, np.int16), np.array([0.02, 0.02]), np.array([0.0, 0.5]))
    assert np.isnan(patch[:29]).all()
    np.testing.assert_allclose(patch[31:, 5:-5], 7)


def test_profiles_run_to_the_nearest_column_of_the_other_kind(measured: tuple[Any, nd.Lattice]) -> None:
    lattice = measured[1]
    angle = line_angle(lattice, "Se")
    start = np.asarray(lattice.position(5, 5, 1)).ravel()
    end = start + 0.3282 / np.sqrt(3) * np.array([np.sin(angle), np.cos(angle)])
    i, j, which = lattice.index(end[None])
    assert which[0] == 0, "a tungsten column"
    assert np.hypot(*(np.asarray(lattice.position(i[0], j[0], 0)).ravel() - end)) < 0.01
    assert line_angle(None, "Se") == 0.0


def test_examples_are_of_the_same_sublattice_and_hosts_are_clear(
    found: pd.DataFrame, measured: tuple[Any, Any]
) -> None:
    row = found.iloc[4]
    known = examples(found, measured[0], row)
    assert list(known)[:2] == [row["species"], "host"]
    for places in known.values():
        assert np.hypot(*(places - row[["y_nm", "x_nm"]].to_numpy(float)).T).min() > 0.2, "not itself"
    away = np.hypot(*(known["host"][:, None] - tables.positions_nm(found)[None]).transpose(2, 0, 1))
    assert away.min() > 0.4


# -- the widget -----------------------------------------------------------------------------------------------------


def test_review_goes_by_doubt_and_centres_the_view(review: Review, found: pd.DataFrame) -> None:
    assert review.current == 20
    for wanted in (0, 1):
        review.forward()
        assert review.current == wanted
        row = found.loc[wanted]
        np.testing.assert_allclose(review.viewer.scene.camera.center[-2:], (row["y_nm"], row["x_nm"]))
    review.back()
    assert review.current == 0
    assert review.layer.selected_data == {0}
    assert f"<b>{found.loc[0, 'species']}</b>, probability 0.55 by maps" in review.words.text()


def test_verdicts_are_in_the_layer_at_once_and_can_be_taken_back(review: Review, found: pd.DataFrame) -> None:
    before = defects_of(review)
    review.accept()
    review.classes.press(3)
    review.reject()
    table = defects_of(review)
    assert table.loc[20, ["species", "method", "probability"]].tolist() == [found.loc[20, "species"], "manual", 1.0]
    assert table.loc[0, "species"] == review.classes.names[2] == "V2_Se"
    assert 1 not in table.index
    assert review.current == 2
    assert len(about(review.layer)["rejected"]) == 1
    for expected in (1, 0, 20):
        review.undo()
        assert review.current == expected
    after = defects_of(review)
    pd.testing.assert_frame_equal(after[before.columns], before)
    assert about(review.layer)["rejected"] is None or not len(about(review.layer)["rejected"])


def test_points_deleted_or_added_by_hand_meanwhile(review: Review) -> None:
    review.layer.remove([0])
    review.forward()
    assert review.current == 1, "0 is gone"
    review.layer.add([[3.0, 3.0]])
    review.judge("V_W")
    table = defects_of(review)
    assert table.loc[1, "species"] == "V_W"
    assert table["method"].value_counts()["manual"] == 2


def test_the_view_goes_to_where_the_image_lies(review: Review, found: pd.DataFrame) -> None:
    review.layer.translate = (20.0, -5.0)
    review.forward()
    row = found.loc[review.current]
    np.testing.assert_allclose(review.viewer.scene.camera.center[-2:], (row["y_nm"] + 20, row["x_nm"] - 5))


def test_undo_takes_back_the_verdict_alone(review: Review) -> None:
    before = defects_of(review)
    review.judge("V_W")
    review.reject()
    review.layer.add([[3.0, 3.0]])
    review.layer.remove([int(np.flatnonzero(review.layer.features["defect"] == 5)[0])])
    added = defects_of(review).index[-1]
    assert added not in before.index, "no number is given twice"
    review.undo()
    review.undo()
    after = defects_of(review)
    assert set(after.index) == {*before.index, added} - {5}
    columns = ["species", "probability", "method"]
    pd.testing.assert_frame_equal(after.drop(index=added)[columns], before.drop(index=5)[columns])


@pytest.fixture
def other(ready: ViewerModel, wse2: tuple[nd.Micrograph, Any], measured: Any, found: pd.DataFrame) -> ViewerModel:
    """A second image with defects of its own."""
    known = {"image": "other", "crystal": "WSe2", "lattice": measured[1]}
    upsert(ready, image_layer(wse2[0], "other", crystal="WSe2"))
    upsert(ready, table_layer(measured[0], "sites", "atoms · other", **known))
    fewer = found.iloc[5:12].reset_index(drop=True)
    upsert(ready, table_layer(fewer, "defects", "defects · other", **known))
    return ready


def test_another_image_is_reviewed_anew(other: ViewerModel, qtbot: Any) -> None:
    widget = Review(other)
    qtbot.addWidget(widget)
    widget.show()
    widget.look_at("wse2")
    widget.run()
    widget.judge("V_W")
    before = table_of(other.layers["defects · other"])
    widget.pickers["image"].value = other.layers["other"]
    widget.reject()
    widget.undo()
    pd.testing.assert_frame_equal(table_of(other.layers["defects · other"]), before)
    qtbot.waitUntil(lambda: widget.current == in_order(before)[0])
    widget.undo()
    widget.reject()
    assert len(other.layers["defects · other"].data) == len(before) - 1
    assert len(other.layers["defects · wse2"].data) == 21


def test_defects_that_were_made_again_end_the_review(review: Review, found: pd.DataFrame) -> None:
    review.judge("V_W")
    upsert(review.viewer, table_layer(found, "defects", "defects · wse2", image="wse2", made={}))
    review.undo()
    review.reject()
    assert set(defects_of(review)["method"]) == {"maps"}
    assert len(defects_of(review)) == 21
    assert "made again" in review.status.text()


def test_one_species_alone(review: Review) -> None:
    review.which.value = "V2_Se"
    table = defects_of(review)
    seen = set()
    for _ in range(3):
        seen.add(review.current)
        review.accept()
    assert set(table.loc[list(seen), "species"]) == {"V2_Se"}
    assert review.status.text() == "✓ That was the last one."


def test_corrections_reach_counts(review: Review, finish: Callable[..., Any]) -> None:
    from napari_defects.widgets.count import Count

    review.judge("V_W")
    review.reject()
    counts = finish(Count(review.viewer)).counts().set_index("species")["count"]
    assert counts["V_W"] == 1
    assert counts.sum() == 20


def test_corrections_are_saved_with_what_was_found(review: Review, tmp_path: Path) -> None:
    first = defects_of(review).loc[20, "species"]
    review.accept()
    review.judge("V_W")
    review.reject()
    review.layer.add([[3.0, 3.0]])
    review.save(tmp_path / "corrections.csv")
    saved = nd.read_table(tmp_path / "corrections.csv")
    assert sorted(saved["verdict"]) == ["accepted", "added", "no defect", "renamed"]
    assert saved.loc[saved["verdict"] == "accepted", "species"].tolist() == [first]
    assert "Wrote 4 corrections" in review.status.text()
    assert len(corrections(defects_of(review).reset_index())) == 3


def test_corrections_become_a_training_set(review: Review, tmp_path: Path, measured: tuple[Any, Any]) -> None:
    review.judge("V_W")
    rejected = defects_of(review).loc[0]
    review.reject()
    review.teach(tmp_path / "set")
    ((micrograph, labels),) = read_labels(tmp_path / "set")
    np.testing.assert_allclose(micrograph.data, review.viewer.layers["wse2"].data, rtol=1e-6)
    assert micrograph.pixel_size_nm == pytest.approx(0.025)
    assert labels["species"].value_counts()["V_W"] == 1
    near = np.hypot(labels["y_nm"] - rejected["y_nm"], labels["x_nm"] - rejected["x_nm"]).idxmin()
    assert labels.loc[near, "species"] == "Se2", "no defect is a host"
    assert labels[["y_nm", "x_nm"]].notna().all().all()
    assert len(labels) == len(measured[0][measured[0]["sublattice"] != ""])


def test_nothing_to_review(viewer: ViewerModel, qtbot: Any, notifications: list[Any]) -> None:
    widget = Review(viewer)
    qtbot.addWidget(widget)
    widget.run()
    assert "There are no defects yet: run Classify first." in str(notifications[-1].message)
    widget.save("x.csv")
    assert "There are no defects yet" in widget.status.text()


def test_all_has_been_looked_at(ready: ViewerModel, found: pd.DataFrame, qtbot: Any) -> None:
    layer = ready.layers["defects · wse2"]
    upsert(
        ready,
        table_layer(
            found.assign(method="manual"), "defects", layer.name, **about(layer) | {"table": None} and {"image": "wse2"}
        ),
    )
    widget = Review(ready)
    qtbot.addWidget(widget)
    widget.run()
    assert widget.status.text() == "✓ Every one of 21 defects has been looked at."


# -- labels ---------------------------------------------------------------------------------------------------------


def test_labels_of_a_movie_are_one_image_a_frame(wse2: tuple[nd.Micrograph, Any], tmp_path: Path) -> None:
    micrograph, truth = wse2
    movie = nd.Micrograph(np.stack([micrograph.data, micrograph.data]), 0.025, 1.0)
    sites = pd.concat([truth.assign(frame=0), truth.assign(frame=1)], ignore_index=True)
    defects = pd.DataFrame(micrograph.metadata["defects"]).assign(frame=1)
    written = write_labels(movie, label_sites(sites, defects, "WSe2"), tmp_path, "movie")
    assert [p.name for p in written] == ["movie_0000.tif", "movie_0001.tif"]
    first, second = (labels for _, labels in read_labels(tmp_path))
    assert set(first["species"]) == {"W", "Se2"}
    assert second["species"].value_counts()["Te_Se"] == 10
    assert (second["frame"] == 0).all()


def test_labels_are_refused_in_one_sentence(wse2: tuple[nd.Micrograph, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no labelled images in"):
        next(read_labels(tmp_path))
    with pytest.raises(ValueError, match="file name without folders"):
        write_labels(wse2[0], wse2[1], tmp_path, "../up")
