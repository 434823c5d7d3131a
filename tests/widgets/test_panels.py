"""Every widget, without a window: what it makes, what a second run does, and what it says to bad input."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QLabel

import napari_defects as nd
from napari_defects import tables
from napari_defects.widgets._layers import about, image_layer, map_layer, scale_nm
from napari_defects.widgets._picks import remember_model
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._tables_out import export
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.average import Average
from napari_defects.widgets.classify import Classify
from napari_defects.widgets.count import Count
from napari_defects.widgets.localize import Localize
from napari_defects.widgets.segment import Segment
from napari_defects.widgets.simulate import Simulate, parse_species, usual_species
from napari_defects.widgets.strain import StrainMap

Finish = Callable[..., Any]


def names(viewer: ViewerModel) -> list[str]:
    return [layer.name for layer in viewer.layers]


@pytest.fixture
def located(viewer: ViewerModel, measured: tuple[pd.DataFrame, nd.Lattice]) -> ViewerModel:
    """The viewer with sites as they are measured, and their lattice."""
    known = {"image": "wse2", "crystal": "WSe2", "lattice": measured[1]}
    upsert(viewer, table_layer(measured[0], "sites", "atoms · wse2", **known))
    return viewer


@pytest.fixture
def classified(located: ViewerModel, wse2: tuple[nd.Micrograph, Any]) -> ViewerModel:
    """The viewer with sites and the true defects."""
    defects = pd.DataFrame(wse2[0].metadata["defects"])
    upsert(located, table_layer(defects, "defects", "defects · wse2", image="wse2", crystal="WSe2"))
    return located


# -- the steps --------------------------------------------------------------------------------------------------------


def test_localize_makes_sites_in_nm(viewer: ViewerModel, finish: Finish, wse2: tuple[nd.Micrograph, Any]) -> None:
    widget = finish(Localize(viewer))
    layer = viewer.layers["atoms · wse2"]
    table, truth = table_of(layer), wse2[1]
    assert about(layer)["table"] == "sites"
    assert about(layer)["crystal"] == "WSe2"
    assert about(layer)["made"]["locate"]["column_sigma_nm"] is None
    assert abs(table["y_nm"].notna().sum() - truth["y_nm"].notna().sum()) < 0.08 * len(truth)
    assert "columns" in widget.status.text()
    assert [str(u) for u in layer.units] == ["nanometer"] * 2


def test_a_second_run_updates_the_layer(viewer: ViewerModel, finish: Finish) -> None:
    widget = finish(Localize(viewer))
    layer, before = viewer.layers["atoms · wse2"], names(viewer)
    layer.remove(range(100))
    finish(widget)
    assert names(viewer) == before
    assert viewer.layers["atoms · wse2"] is layer
    assert len(table_of(layer)) > 500


def test_classify_uses_the_maps_and_the_edited_sites(
    located: ViewerModel, maps: nd.Maps, finish: Finish, wse2: tuple[nd.Micrograph, Any]
) -> None:
    upsert(located, map_layer(maps, "maps · wse2", "V_Se", image="wse2"))
    widget = finish(Classify(located))
    defects = table_of(located.layers["defects · wse2"])
    truth = pd.DataFrame(wse2[0].metadata["defects"])
    assert widget.legend.counts() == truth["species"].value_counts().to_dict()
    for row in truth.itertuples():
        near = defects[np.hypot(defects["y_nm"] - row.y_nm, defects["x_nm"] - row.x_nm) < 0.05]
        assert near["species"].tolist() == [row.species]


def test_without_a_network_classify_goes_by_intensities_and_says_so(
    located: ViewerModel, finish: Finish, monkeypatch: Any
) -> None:
    monkeypatch.setattr("napari_defects.networks.model_for", lambda crystal: None)
    widget = finish(Classify(located))
    assert "No network knows WSe2: classified by intensities" in widget.status.text()
    assert set(table_of(located.layers["defects · wse2"])["method"]) == {"intensities"}


def test_the_legend_hides_and_shows_species(classified: ViewerModel, qtbot: Any) -> None:
    widget = Classify(classified)
    qtbot.addWidget(widget)
    layer = classified.layers["defects · wse2"]
    assert widget.legend.counts() == {"Te_Se": 10, "V_Se": 8, "V2_Se": 3}
    widget.legend.toggle("V_Se")
    assert layer.shown.sum() == 13
    assert widget.legend.hidden_species() == {"V_Se"}
    widget.legend.only("V2_Se")
    assert layer.shown.sum() == 3
    widget.legend.toggle("Te_Se")
    assert layer.shown.sum() == 13
    layer.remove([int(np.flatnonzero(layer.features["species"] == "V2_Se")[0])])
    assert widget.legend.counts()["V2_Se"] == 2, "the legend follows the layer"


def test_average_lays_the_averages_beside_the_image(classified: ViewerModel, finish: Finish, tmp_path: Path) -> None:
    widget = Average(classified)
    widget.fill({"average": {"radius_nm": 0.8}})
    finish(widget)
    made = [layer for layer in classified.layers if "average" in about(layer)]
    assert made
    for layer in made:
        assert layer.extent.world[0][1] > 6.0, "to the right of the image"
        assert about(layer)["average"].n >= 1
        assert str(layer.units[0]) == "nanometer"
    export(classified, "wse2", tmp_path)
    species = about(made[0])["average"].species
    assert {f"{species}.tif", f"{species}_sites.csv", f"{species}_members.csv"} <= {
        path.name for path in (tmp_path / "averages").iterdir()
    }
    words = [label.text() for label in widget.gallery.findChildren(QLabel) if label.text().startswith("<b>")]
    assert len(words) == len(made)


def test_strain_is_a_map_centred_at_zero_with_arrows(located: ViewerModel, finish: Finish) -> None:
    widget = finish(StrainMap(located))
    layer, arrows = located.layers["strain · wse2"], located.layers["displacement · wse2"]
    low, high = layer.contrast_limits
    assert low == -high
    assert layer.colorbar.visible
    assert about(located.layers["atoms · wse2"])["table"] == "strain", "tables only grow"
    widget.component.value = "ε xx"
    expected = table_of(located.layers["atoms · wse2"])["exx"]
    assert np.nanmedian(layer.data) == pytest.approx(100 * np.nanmedian(expected), abs=0.3)
    shown = np.isfinite(layer.data).sum()
    widget.significant.value = True
    assert np.isfinite(layer.data).sum() < shown
    widget.magnify.value = 77
    assert arrows.length == 77


def test_count_shows_a_table_and_exports_it(classified: ViewerModel, finish: Finish, tmp_path: Path) -> None:
    widget = finish(Count(classified))
    counts = widget.counts()
    assert counts is not None
    assert counts.set_index("species")["count"].to_dict() == {"Te_Se": 10, "V_Se": 8, "V2_Se": 3}
    assert widget.table.rowCount() == 3
    assert widget.table.item(0, 1).text() == "10"
    widget.export(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"atoms.csv", "sites.csv", "defects.csv", "counts.csv"}
    pd.testing.assert_frame_equal(
        nd.read_table(tmp_path / "out" / "counts.csv", "counts"), tables.check(counts, "counts")
    )


def test_counts_follow_what_is_painted_and_what_is_corrected(
    classified: ViewerModel, finish: Finish, qtbot: Any
) -> None:
    widget = finish(Count(classified))
    before = widget.counts()
    widget.paint()
    mask = classified.layers["left out · wse2"]
    assert widget.pickers["left_out"].value is mask
    assert mask.mode == "paint"
    defects, half = table_of(classified.layers["defects · wse2"]), 120
    mask.data_setitem(tuple(np.indices(mask.data.shape)[:, :half].reshape(2, -1)), 1)
    kept = int((defects["y_nm"] >= (half - 0.5) * 0.025).sum())
    qtbot.waitUntil(lambda: f"{21 - kept} left out" in widget.status.text(), timeout=5000)
    assert widget.counts()["count"].sum() == kept
    assert 0 < kept < 21
    area, whole = widget.counts().attrs["area_nm2"], before.attrs["area_nm2"]
    assert area / whole == pytest.approx(1 - half / mask.data.shape[0], abs=0.04)
    mask.undo()
    qtbot.waitUntil(lambda: widget.counts()["count"].sum() == 21, timeout=5000)
    assert widget.counts().attrs["area_nm2"] == whole
    classified.layers["defects · wse2"].remove([0])
    qtbot.waitUntil(lambda: widget.counts()["count"].sum() == 20, timeout=5000)


def test_the_arrangement_is_that_of_the_library(classified: ViewerModel, finish: Finish, tmp_path: Path) -> None:
    widget = finish(Count(classified))
    one = widget.arrangement
    assert set(one.species.choices) == {"all", "Te_Se", "V_Se", "V2_Se"}
    defects, sites, _ = widget._where()
    for way, columns in (
        ("pair correlation", ["r_nm", "pairs", "g", "g_low", "g_high"]),
        ("Ripley's L", ["r_nm", "pairs", "l_minus_r_nm", "l_low_nm", "l_high_nm"]),
        ("nearest neighbours", ["r_nm", "defects"]),
        ("clusters", ["size", "clusters"]),
        ("short-range order", ["center", "neighbor", "shell", "r_nm", "pairs", "alpha", "alpha_err", "p_value"]),
    ):
        one.way.value = way
        finish(widget, one.run)
        shown = [one.table.horizontalHeaderItem(k).text() for k in range(one.table.columnCount())]
        assert shown == columns, widget.status.text()
        assert one.table.rowCount() > 0
        assert one.plot.isVisibleTo(one)
    one.way.value, one.species.value, one.other.value = "pair correlation", "V_Se", "Te_Se"
    finish(widget, one.run)
    one.save(tmp_path / "g.csv")
    expected = nd.statistics.pair_correlation(defects, sites, species=("V_Se", "Te_Se"))
    pd.testing.assert_frame_equal(nd.read_table(tmp_path / "g.csv"), expected)
    one.way.value = "density map"
    finish(widget, one.run)
    layer = classified.layers["density V_Se · wse2"]
    np.testing.assert_allclose(layer.scale, 0.25)
    assert 0 < np.nanmedian(layer.data) < 0.2
    one.species.value = "all"
    finish(widget, one.run)
    assert "one species" in widget.status.text()


def test_a_species_is_listed_and_a_click_goes_there(classified: ViewerModel, finish: Finish) -> None:
    widget = finish(Count(classified))
    widget.table.setCurrentCell(1, 0)
    assert widget.rows.rowCount() == 8
    widget.rows.setCurrentCell(2, 0)
    defects = table_of(classified.layers["defects · wse2"]).set_index("defect")
    row = defects.loc[int(widget.rows.item(2, 0).text())]
    assert row["species"] == "V_Se"
    np.testing.assert_allclose(classified.scene.camera.center[-2:], (row["y_nm"], row["x_nm"]))


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
def test_all_tables_go_out_in_any_format(classified: ViewerModel, finish: Finish, tmp_path: Path, suffix: str) -> None:
    widget = finish(Count(classified))
    widget.paint()
    layer = classified.layers["defects · wse2"]
    layer.features = layer.features.assign(note=["=1+1"] * 21)
    widget.export(tmp_path, suffix)
    names = {"atoms", "sites", "defects", "counts"}
    assert {p.name for p in tmp_path.iterdir()} == {f"{name}{suffix}" for name in names} | {"left_out.tif"}
    back = nd.read_table(tmp_path / f"defects{suffix}", "defects")
    pd.testing.assert_frame_equal(
        back[[c.name for c in tables.DEFECTS]], table_of(layer)[[c.name for c in tables.DEFECTS]]
    )
    if suffix == ".csv":
        assert "'=1+1" in (tmp_path / "defects.csv").read_text("utf-8")


def test_points_corrected_by_hand_are_counted(classified: ViewerModel, finish: Finish) -> None:
    layer = classified.layers["defects · wse2"]
    layer.remove([0])
    layer.selected_data = {3}
    species = layer.features["species"].iloc[3]
    before = layer.features["species"].value_counts()[species]
    layer.add([[3.0, 3.0], [2.0, 2.0]])
    widget = finish(Count(classified))
    counts = widget.counts().set_index("species")["count"]
    assert counts.sum() == 22
    assert counts[species] == before + 2


def test_segment_threshold_moves_mask_and_defects(
    located: ViewerModel, maps: nd.Maps, finish: Finish, monkeypatch: Any, qtbot: Any
) -> None:
    monkeypatch.setattr("napari_defects.networks.predict", lambda *args, **keywords: maps)
    monkeypatch.setattr("napari_defects.networks.model_for", lambda crystal: "wse2-te")
    widget = finish(Segment(located))
    layer, mask = located.layers["maps · wse2"], located.layers["mask · wse2"]
    assert not layer.visible
    assert about(layer)["maps"] is maps
    widget.show_class.value = "V2_Se"
    assert layer.visible
    np.testing.assert_array_equal(layer.data, maps["V2_Se"])
    qtbot.waitUntil(lambda: "defects · wse2" in located.layers, timeout=60_000)
    assert len(located.layers["defects · wse2"].data) == 21
    widget.threshold.value = 1.0
    qtbot.waitUntil(lambda: len(located.layers["defects · wse2"].data) == 0, timeout=60_000)
    assert mask.data.max() == 0


def test_simulate_makes_an_image_with_its_truth(finish: Finish) -> None:
    viewer = ViewerModel()
    widget = Simulate(viewer)
    widget.pickers["crystal"].value = "MoS2"
    widget.fill({"simulate": {"field_of_view_nm": 4.0, "seed": 5}})
    finish(widget)
    assert names(viewer) == ["simulated MoS2", "true atoms · simulated MoS2", "true defects · simulated MoS2"]
    assert viewer.layers[0].extent.world[1][0] == pytest.approx(4.0, abs=0.1)
    assert set(table_of(viewer.layers[2])["species"]) <= set(usual_species("MoS2"))
    assert viewer.canvas.overlays.scale_bar.visible


def test_species_are_written_with_percent() -> None:
    assert parse_species("Te_Se 5, V_W=0.5%; ") == {"Te_Se": 0.05, "V_W": 0.005}
    with pytest.raises(ValueError, match="like Te_Se 5; got 'Te_Se'"):
        parse_species("Te_Se")


# -- bad input --------------------------------------------------------------------------------------------------------


def refused(widget: Any, finish: Finish, notifications: list[Any]) -> str:
    finish(widget)
    assert notifications, "napari has been told"
    text = str(notifications[-1].message)
    assert text == widget.status.text()
    assert "\n" not in text
    assert not widget.job or not widget.job.running
    return text


def test_no_image(finish: Finish, notifications: list[Any]) -> None:
    assert "There is no image: drop a file" in refused(Localize(ViewerModel()), finish, notifications)


def test_wrong_layer(viewer: ViewerModel, finish: Finish, notifications: list[Any]) -> None:
    viewer.add_points([[1, 2]], name="dots")
    assert "There are no atoms on a lattice yet: run Localize first" in refused(Classify(viewer), finish, notifications)
    assert "There are no defects yet: run Classify first" in refused(Count(viewer), finish, notifications)


def test_rgb_layer(finish: Finish, notifications: list[Any]) -> None:
    viewer = ViewerModel()
    viewer.add_image(np.zeros((50, 50, 3)), rgb=True, name="photo", scale=(0.02, 0.02), units=("nm", "nm"))
    assert "'photo' is an RGB picture" in refused(Localize(viewer), finish, notifications)


def test_nan(finish: Finish, notifications: list[Any]) -> None:
    pixels = np.random.default_rng(0).random((64, 64))
    pixels[3, 4] = np.nan
    viewer = ViewerModel()
    upsert(viewer, image_layer(nd.Micrograph(pixels, 0.02), "holes"))
    assert "NaN" in refused(Localize(viewer), finish, notifications)


def test_tiny_and_constant_images(finish: Finish, notifications: list[Any]) -> None:
    for pixels, word in ((np.eye(16), "at least 32 px"), (np.ones((64, 64)), "constant")):
        viewer = ViewerModel()
        upsert(viewer, image_layer(nd.Micrograph(pixels, 0.02), "bad"))
        assert word in refused(Localize(viewer), finish, notifications)


def test_a_damaged_model_file(viewer: ViewerModel, finish: Finish, notifications: list[Any], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x80\x04 a pickle, not a model")
    remember_model(str(damaged))
    widget = Segment(viewer)
    widget.pickers["model"].value = str(damaged)
    assert "damaged.safetensors" in refused(widget, finish, notifications)


def test_atoms_that_lost_a_column(located: ViewerModel, finish: Finish, notifications: list[Any]) -> None:
    layer = located.layers["atoms · wse2"]
    layer.features = layer.features.drop(columns="y_ideal_nm")
    assert "y_ideal_nm" in refused(Classify(located), finish, notifications)


@pytest.mark.parametrize("dtype", ["uint8", ">u2", ">f8"])
def test_any_number_format_is_fine(wse2: tuple[nd.Micrograph, Any], finish: Finish, dtype: str) -> None:
    viewer = ViewerModel()
    pixels = np.asarray(wse2[0].data, float)
    upsert(viewer, image_layer(nd.Micrograph((200 * pixels / pixels.max()).astype(dtype), 0.025), "numbers"))
    assert finish(Localize(viewer)).status.text().startswith("✓")


def test_no_lattice_leaves_the_atoms_and_says_why(finish: Finish) -> None:
    rng = np.random.default_rng(0)
    y, x = np.indices((100, 100))
    pixels = rng.poisson(5, (100, 100)).astype(float)
    for cy, cx in rng.uniform(10, 90, (6, 2)):
        pixels += 200 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 8)
    viewer = ViewerModel()
    upsert(viewer, image_layer(nd.Micrograph(pixels, 0.02), "blobs"))
    widget = finish(Localize(viewer))
    assert "No lattice" in widget.status.text()
    assert about(viewer.layers["atoms · blobs"])["table"] == "atoms"


def test_no_scale_is_asked_for_in_place(viewer: ViewerModel, finish: Finish, notifications: list[Any]) -> None:
    viewer.add_image(viewer.layers["wse2"].data, name="raw")
    widget = Localize(viewer)
    widget.pickers["image"].value = viewer.layers["raw"]
    assert not widget.calibration.isHidden()
    assert "raw has no pixel size" in widget.calibration.words.text()
    assert "'raw' has no pixel size: give it above" in refused(widget, finish, notifications)
    widget.calibration.size.value = 0.025
    widget.calibration.set_button.click()
    assert scale_nm(viewer.layers["raw"])[0] == pytest.approx(0.025)
    assert widget.calibration.isHidden()


def test_the_lattice_measures_the_pixel(viewer: ViewerModel, finish: Finish) -> None:
    viewer.add_image(viewer.layers["wse2"].data, name="raw")
    widget = Localize(viewer)
    widget.pickers["image"].value = viewer.layers["raw"]
    widget.calibration.crystal.value = "WSe2"
    finish(widget, widget.calibration.measure)
    assert scale_nm(viewer.layers["raw"])[0] == pytest.approx(0.025, rel=0.01)
    assert widget.calibration.isHidden()


def test_a_scale_that_cannot_be_is_asked_for(viewer: ViewerModel, qtbot: Any) -> None:
    viewer.add_image(viewer.layers["wse2"].data, name="raw", scale=(25, 25), units=("nm", "nm"))
    widget = Localize(viewer)
    qtbot.addWidget(widget)
    widget.pickers["image"].value = viewer.layers["raw"]
    assert "25 nm cannot be atomic resolution" in widget.calibration.words.text()


def test_a_keyword_out_of_range(viewer: ViewerModel, finish: Finish, notifications: list[Any]) -> None:
    widget = Localize(viewer)
    widget.fill({"locate": {"column_sigma_nm": 100.0}})
    assert "column_sigma_nm must be" in refused(widget, finish, notifications)


def test_no_network_for_the_crystal(viewer: ViewerModel, finish: Finish, notifications: list[Any]) -> None:
    widget = Segment(viewer)
    widget.pickers["crystal"].value = "hBN"
    assert "No network knows hBN" in refused(widget, finish, notifications)


def test_a_folder_that_cannot_be_written(
    classified: ViewerModel, finish: Finish, notifications: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    widget = finish(Count(classified))
    widget.export(tmp_path / "file" / "out")
    assert str(tmp_path / "file") in str(notifications[-1].message)


# -- the mechanism ----------------------------------------------------------------------------------------------------


class Slow(Panel):
    """Counts to a hundred."""

    title = "Slow"
    outcome: str | None = "fine"

    @staticmethod
    def work(progress: Any) -> Made:
        for k in range(100):
            progress(k, 100)
            time.sleep(0.01)
        if Slow.outcome is None:
            raise RuntimeError("oh")
        return Made([(np.zeros((40, 40)), {"name": "late", "metadata": {}}, "image")], Slow.outcome)


def test_progress_shows_and_cancel_leaves_nothing(qtbot: Any) -> None:
    viewer = ViewerModel()
    widget = Slow(viewer)
    qtbot.addWidget(widget)
    widget.run_button.click()
    assert not widget.run_button.isEnabled()
    qtbot.waitUntil(lambda: widget.bar.value() > 10, timeout=10_000)
    assert widget.bar.maximum() == 100
    widget.cancel_button.click()
    assert widget.run_button.isEnabled()
    assert widget.status.text() == "Cancelled."
    qtbot.waitUntil(lambda: not widget.job.running, timeout=10_000)
    qtbot.wait(50)
    assert names(viewer) == []
    assert widget.status.text() == "Cancelled."


def test_the_unexpected_is_one_sentence_too(finish: Finish, notifications: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(Slow, "outcome", None)
    widget = finish(Slow(ViewerModel()))
    assert "RuntimeError: oh" in widget.status.text()
    assert str(notifications[-1].message) == widget.status.text()


def test_parameters_can_be_filled_and_reset(viewer: ViewerModel, qtbot: Any) -> None:
    widget = Localize(viewer)
    qtbot.addWidget(widget)
    before = widget.parameters
    widget.fill({"crystal": "MoS2", "assign_sites": {"max_offset_nm": 0.05}, "other": {"x": 1}})
    assert widget.pickers["crystal"].value == "MoS2"
    assert widget.parameters["assign_sites"] == {"max_offset_nm": 0.05}
    widget.reset()
    assert widget.parameters == before


def test_pickers_follow_the_image(classified: ViewerModel, qtbot: Any, wse2: tuple[nd.Micrograph, Any]) -> None:
    upsert(classified, image_layer(wse2[0], "other", crystal="MoS2"))
    upsert(classified, table_layer(wse2[1], "sites", "atoms · other", image="other"))
    widget = Average(classified)
    qtbot.addWidget(widget)
    widget.pickers["image"].value = classified.layers["other"]
    assert widget.pickers["sites"].value.name == "atoms · other"
    widget.pickers["image"].value = classified.layers["wse2"]
    assert widget.pickers["sites"].value.name == "atoms · wse2"
    classified.layers.remove("atoms · wse2")
    assert widget.pickers["sites"].value is None, "not those of the other"
