"""What was made from an image belongs to it: under another name, in another place, beside another image."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Image

import napari_defects as nd
from napari_defects.widgets import _exclusion, analyze
from napari_defects.widgets._exclusion import Mask
from napari_defects.widgets._layers import KEY, about, image_layer, set_scale_nm
from napari_defects.widgets._picks import IMAGE
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._rows import go_to
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.analyze import Analyze
from napari_defects.widgets.average import Average, average_layer
from napari_defects.widgets.bonds import Bonds
from napari_defects.widgets.classify import Classify
from napari_defects.widgets.discover import Discover
from napari_defects.widgets.localize import Localize
from napari_defects.widgets.review import Review
from napari_defects.widgets.strain import StrainMap

Finish = Callable[..., Any]
Measured = tuple[pd.DataFrame, nd.Lattice]


def names(viewer: ViewerModel) -> list[str]:
    return [layer.name for layer in viewer.layers]


def add_results(viewer: ViewerModel, name: str, measured: Measured, micrograph: nd.Micrograph) -> None:
    known = {"image": name, "crystal": "WSe2", "lattice": measured[1]}
    upsert(viewer, table_layer(measured[0], "sites", f"atoms · {name}", **known))
    upsert(viewer, table_layer(pd.DataFrame(micrograph.metadata["defects"]), "defects", f"defects · {name}", **known))


@pytest.fixture
def two(viewer: ViewerModel, wse2: tuple[nd.Micrograph, Any], measured: Measured) -> ViewerModel:
    """Two images of WSe2, with atoms and defects."""
    upsert(viewer, image_layer(wse2[0], "other", crystal="WSe2"))
    for name in ("wse2", "other"):
        add_results(viewer, name, measured, wse2[0])
    return viewer


# -- names ------------------------------------------------------------------------------------------------------------


def test_an_image_keeps_what_was_made_from_it_under_another_name(two: ViewerModel, qtbot: Any) -> None:
    widget = Average(two)
    qtbot.addWidget(widget)
    image = two.layers["wse2"]
    widget.pickers["image"].value = image
    widget.fill({"average": {"radius_nm": 0.7}})
    image.name = "my scan"
    assert widget.pickers["image"].value is image
    assert widget.parameters["average"]["radius_nm"] == 0.7, "a new name is no new choice"
    assert names(two) == [
        "my scan",
        "other",
        "atoms · my scan",
        "defects · my scan",
        "atoms · other",
        "defects · other",
    ]
    assert widget.gather()["sites"].image == widget.gather()["image"].image == "my scan"
    image.name = "other"  # is taken
    assert {about(layer)["image"] for layer in two.layers if "table" in about(layer)} == {image.name, "other"}


def test_what_is_still_being_made_finds_its_image_under_another_name(
    viewer: ViewerModel, measured: Measured, wse2: tuple[nd.Micrograph, Any], qtbot: Any
) -> None:
    qtbot.addWidget(Localize(viewer))
    viewer.layers["wse2"].name = "my scan"
    add_results(viewer, "wse2", measured, wse2[0])
    assert names(viewer) == ["my scan", "atoms · my scan", "defects · my scan"]
    assert {about(layer)["image"] for layer in viewer.layers[1:]} == {"my scan"}


def test_only_images_of_their_own_are_images(two: ViewerModel, wse2: tuple[nd.Micrograph, Any], qtbot: Any) -> None:
    upsert(two, image_layer(wse2[0], "residual · wse2", image="wse2"))
    widget = Localize(two)
    qtbot.addWidget(widget)
    assert widget.pickers["image"].value is two.layers["other"]
    assert [layer.name for layer in widget.pickers["image"].choices if layer] == ["wse2", "other"]


def test_where_another_image_takes_its_place_what_was_made_from_it_goes(
    two: ViewerModel, wse2: tuple[nd.Micrograph, Any]
) -> None:
    _exclusion.paint(two, two.layers["wse2"])
    upsert(two, image_layer(wse2[0], "wse2"))
    assert "atoms · wse2" in names(two), "the same image again"
    upsert(two, image_layer(nd.Micrograph(wse2[0].frame(0)[::-1].copy(), 0.025), "wse2"))
    assert names(two) == ["wse2", "other", "atoms · other", "defects · other"]


def test_a_layer_renamed_is_still_the_one_brought_up_to_date(
    two: ViewerModel, measured: Measured, wse2: tuple[nd.Micrograph, Any]
) -> None:
    layer = two.layers["defects · wse2"]
    layer.name = "mine"
    mask = _exclusion.paint(two, two.layers["wse2"])
    mask.name = "holes"
    assert _exclusion.paint(two, two.layers["wse2"]) is mask
    two.layers.remove(mask)
    two.layers["defects · other"].name = "defects · wse2 copy"
    add_results(two, "wse2", measured, wse2[0])
    assert names(two)[2:] == ["atoms · wse2", "mine", "atoms · other", "defects · wse2 copy"]
    two.layers["wse2"].name = "scan"
    upsert(two, image_layer(wse2[0], "wse2"))
    add_results(two, "wse2", measured, wse2[0])
    assert two.layers[-1] is not layer, "of another image"


# -- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "nm"), [("nm", 1.0), ("um", 1e3)])
def test_results_and_mask_lie_where_the_image_lies(
    wse2: tuple[nd.Micrograph, Any], measured: Measured, unit: str, nm: float
) -> None:
    viewer = ViewerModel()
    scale, corner = 0.025 / nm, (10 / nm, 20 / nm)
    image = viewer.add_image(wse2[0].data, name="A", scale=(scale, scale), translate=corner, units=unit)
    add_results(viewer, "A", measured, wse2[0])
    for layer in (viewer.layers["atoms · A"], mask := _exclusion.paint(viewer, image)):
        np.testing.assert_allclose(layer.translate, (10, 20))
        assert str(layer.units[0]) == "nanometer"
    np.testing.assert_allclose(mask.scale, 0.025)
    table = table_of(viewer.layers["atoms · A"])
    pd.testing.assert_frame_equal(table, nd.tables.check(measured[0], "sites"))
    mask.data_setitem(tuple(np.indices(mask.data.shape)[:, :120].reshape(2, -1)), 1)
    places = table["y_ideal_nm"].where(table["y_nm"].isna(), table["y_nm"])
    np.testing.assert_array_equal(Mask(mask).leaves(table), places >= 119.5 * 0.025)


@pytest.mark.parametrize(("unit", "nm"), [("nm", 1.0), ("um", 1e3)])
def test_results_go_with_their_image(wse2: tuple[nd.Micrograph, Any], measured: Measured, unit: str, nm: float) -> None:
    viewer = ViewerModel()
    image = viewer.add_image(wse2[0].data, name="A", scale=(0.025 / nm, 0.025 / nm), units=unit)
    add_results(viewer, "A", measured, wse2[0])
    average = upsert(viewer, (np.zeros((9, 9)), {"name": "a", "translate": (0, 7), "scale": (0.025, 0.025),
                     "units": ("nm", "nm"), "metadata": {KEY: {"image": "A"}}}, "image"))  # fmt: skip
    table, mask = table_of(viewer.layers["atoms · A"]), _exclusion.paint(viewer, image)
    image.translate = (2 / nm, 3 / nm)
    for layer in (viewer.layers["atoms · A"], viewer.layers["defects · A"], mask):
        np.testing.assert_allclose(layer.translate, (2, 3))
    np.testing.assert_allclose(average.translate, (2, 10))
    pd.testing.assert_frame_equal(table_of(viewer.layers["atoms · A"]), table)
    np.testing.assert_allclose(Mask(mask).corner_nm, 0)
    add_results(viewer, "A", measured, wse2[0])
    np.testing.assert_allclose(viewer.layers["atoms · A"].translate, (2, 3))


def test_frames_of_results_are_those_of_the_image(measured: Measured) -> None:
    viewer, table = ViewerModel(), pd.concat([measured[0].assign(frame=n) for n in (0, 1)], ignore_index=True)
    image = viewer.add_image(np.zeros((2, 40, 40)), name="A", scale=(2.5, 25, 25), units=("s", "pm", "pm"))
    image.translate = (10, 0, 0)
    atoms = upsert(viewer, table_layer(table, "sites", "atoms · A", movie=True, image="A"))
    assert (atoms.scale[0], atoms.translate[0], str(atoms.units[0])) == (2.5, 10, "second")
    assert table_of(atoms)["frame"].tolist() == table["frame"].tolist()
    go_to(viewer, atoms, table.iloc[-1])
    assert viewer.dims.point[0] == 12.5
    set_scale_nm(image, 0.03)
    assert (image.scale.tolist(), str(image.units[0])) == ([2.5, 0.03, 0.03], "second")


def test_a_mirrored_image_is_refused_with_the_remedy(viewer: ViewerModel, qtbot: Any) -> None:
    viewer.layers["wse2"].scale = (-0.025, 0.025)
    widget = Localize(viewer)
    qtbot.addWidget(widget)
    with pytest.raises(ValueError, match=r"mirrored.*flip the pixels"):
        widget.gather()


def test_a_mask_has_the_pixels_of_its_image_whatever_the_lattice_says(viewer: ViewerModel) -> None:
    mask = _exclusion.paint(viewer, viewer.layers["wse2"])
    set_scale_nm(viewer.layers["wse2"], 0.026)
    np.testing.assert_allclose(mask.scale, 0.026)


def test_a_table_from_a_file_is_painted_over_on_the_image(viewer: ViewerModel, measured: Measured) -> None:
    atoms = upsert(viewer, table_layer(measured[0], "sites", "atoms"))
    mask = _exclusion.paint(viewer, atoms)
    assert (mask.name, mask.data.shape) == ("left out · wse2", viewer.layers["wse2"].data.shape)
    with pytest.raises(ValueError, match="no image to paint on"):
        _exclusion.paint(ViewerModel(), atoms)


# -- what a panel takes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Average, Classify, Discover, Review])
def test_what_was_made_from_another_image_is_not_taken(two: ViewerModel, qtbot: Any, kind: Any) -> None:
    two.layers.remove("atoms · other")
    widget = kind(two)
    qtbot.addWidget(widget)
    widget.pickers["image"].value = two.layers["other"]
    assert widget.pickers["sites"].value is None
    with pytest.raises(ValueError, match="of 'other' yet: run Localize"):
        widget.gather()
    widget.pickers["sites"].value = two.layers["atoms · wse2"]
    with pytest.raises(ValueError, match="'atoms · wse2' is of 'wse2', not of 'other'"):
        widget.gather()


def test_a_table_from_a_file_is_taken_for_any_image(two: ViewerModel, measured: Measured, qtbot: Any) -> None:
    two.layers.remove("atoms · other")
    stray = upsert(two, table_layer(measured[0], "sites", "atoms"))
    widget = Average(two)
    qtbot.addWidget(widget)
    widget.pickers["image"].value = two.layers["other"]
    assert widget.pickers["sites"].value is stray
    widget.gather()
    widget.pickers["image"].value = two.layers["wse2"]
    assert widget.pickers["sites"].value is two.layers["atoms · wse2"]


def test_results_in_pixels_of_another_size_are_refused(two: ViewerModel, qtbot: Any) -> None:
    average, strain = Average(two), StrainMap(two)
    average.pickers["image"].value = two.layers["wse2"]
    strain.pickers["sites"].value = two.layers["atoms · wse2"]
    two.layers["wse2"].scale = (0.03, 0.03)
    for widget in (average, strain):
        qtbot.addWidget(widget)
        with pytest.raises(ValueError, match=r"'wse2' has changed since \(0.025 → 0.03 nm\): run Localize again"):
            widget.gather()
    two.layers["wse2"].scale = (0.025, 0.025001)
    with pytest.raises(ValueError, match=r"\(0.025 → 0.025 × 0.025001 nm\)"):
        average.gather()
    two.layers["wse2"].scale = (0.025, 0.025)
    average.gather()


def test_a_photograph_is_not_the_first_to_be_offered(viewer: ViewerModel, qtbot: Any) -> None:
    viewer.add_image(np.zeros((20, 20, 3)), rgb=True, name="photograph")
    widget = Localize(viewer)
    qtbot.addWidget(widget)
    assert widget.pickers["image"].value is viewer.layers["wse2"]


# -- what a panel shows -----------------------------------------------------------------------------------------------


def test_bonds_are_those_of_the_image_chosen(finish: Finish) -> None:
    viewer = ViewerModel()
    for name, defect in (("one", "Si1C3"), ("two", "Si1C4")):
        image, _ = nd.simulate("graphene", field_of_view_nm=2.2, pixel_size_nm=0.0145, at=[(defect, 1.1, 1.1)], seed=3)
        layer = upsert(viewer, image_layer(image, name, crystal="graphene"))
        widget = Bonds(viewer)
        widget.pickers["image"].value = layer
        if name == "one":
            finish(widget)
    assert widget.results is None
    assert widget.words.isHidden()
    widget.pickers["image"].value = viewer.layers["one"]
    assert widget.results is about(viewer.layers["bonds · one"])["bonds"]
    assert not widget.structure.isHidden()
    row, corner = widget.results.tracks.iloc[0], np.array([10.0, 20.0])
    viewer.layers["bonds · one"].translate = corner
    widget.defect.value = None
    event = type("Event", (), {"position": row[["y_nm", "x_nm"]].to_numpy(float) + corner, "button": 1})
    widget._clicked(viewer, event)
    assert widget.defect.value == row["track"]
    widget.pickers["image"].value = viewer.layers["two"]
    assert widget.results is None
    assert widget.structure.isHidden()


@pytest.fixture
def averaged(two: ViewerModel, finish: Finish) -> Average:
    """The averages of one of two images."""
    widget = Average(two)
    widget.pickers["image"].value = two.layers["wse2"]
    widget.fill({"average": {"radius_nm": 0.6, "rounds": 1}})
    return finish(widget)


def test_averages_are_those_of_the_image_chosen(averaged: Average) -> None:
    assert averaged._chosen is not None
    averaged.pickers["image"].value = averaged.viewer.layers["other"]
    assert averaged._chosen is None
    assert averaged.gallery.isHidden()
    assert averaged.status.text() == ""
    averaged.export()
    assert "no average yet" in averaged.status.text()


def test_averages_of_species_that_are_no_more_go(averaged: Average, finish: Finish) -> None:
    viewer, defects = averaged.viewer, averaged.viewer.layers["defects · wse2"]
    average, known = about(viewer.layers["average Te_Se · wse2"])["average"], {"image": "wse2"}
    data, keywords, kind = average_layer(average, (0, 0), known)
    upsert(viewer, (data, {**keywords, "name": f"strain · {keywords['name']}", "metadata": {KEY: known}}, kind))
    defects.features = defects.features.assign(species=defects.features["species"].replace("Te_Se", "V_Se"))
    averaged.fill({"average": {"species": ["V_Se"]}})
    finish(averaged)
    assert "average Te_Se · wse2" in names(viewer), "it was not asked for"
    averaged.fill({"average": {"species": None}})
    finish(averaged)
    assert [name for name in names(viewer) if "average" in name] == ["average V_Se · wse2"]
    assert averaged.status.text().startswith("✓ 1 average, V_Se of ")


def test_strain_is_that_of_the_atoms_chosen_as_the_controls_say(two: ViewerModel, finish: Finish) -> None:
    widget = StrainMap(two)
    widget.pickers["sites"].value = two.layers["atoms · wse2"]
    finish(widget)
    whole = np.isfinite(two.layers["strain · wse2"].data).sum()
    widget.significant.value = True
    widget.component.value = "ε xx"
    finish(widget)
    assert widget.significant.value
    assert widget.component.value == "ε xx"
    assert np.isfinite(two.layers["strain · wse2"].data).sum() < whole
    assert about(two.layers["strain · wse2"])["strain"] == "exx"
    widget.pickers["sites"].value = two.layers["atoms · other"]
    assert widget.view.isHidden()
    with pytest.raises(ValueError, match="no strain yet"):
        widget.draw_map(None)
    widget.pickers["sites"].value = two.layers["atoms · wse2"]
    assert not widget.view.isHidden()
    assert (widget._name(), widget.significant.value, widget.component.value) == ("wse2", True, "ε xx")


def test_errors_are_those_of_the_columns_of_the_image_chosen(two: ViewerModel, finish: Finish) -> None:
    widget = Localize(two)
    widget.pickers["image"].value = two.layers["wse2"]
    finish(widget)
    assert not widget.plot.isHidden()
    widget.pickers["image"].value = two.layers["other"]
    assert widget.plot.isHidden()
    assert widget.status.text() == ""
    widget.pickers["image"].value = two.layers["wse2"]
    assert not widget.plot.isHidden()


# -- what is analysed -------------------------------------------------------------------------------------------------


def test_an_analysis_is_of_its_image_whatever_is_chosen_meanwhile(
    two: ViewerModel, qtbot: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Analyze, "start", lambda self, *_: setattr(self, "job", Running()))
    widget = Analyze(two)
    qtbot.addWidget(widget)
    image, other = two.layers["wse2"], two.layers["other"]
    widget.pickers["image"].value = image
    widget.run()
    widget.pickers["image"].value = other
    counts = pd.DataFrame({"count": [21]})
    widget._stepped("count", Made([], "21 defects", extra=counts))
    assert about(two.layers["defects · wse2"])["counts"]["count"].sum() == 21
    assert "counts" not in about(two.layers["defects · other"])
    widget.shown(Made([]), [])
    assert two.layers.selection.active is two.layers["defects · wse2"]
    opened = Localize(two)
    qtbot.addWidget(opened)
    monkeypatch.setattr(analyze, "open_widget", lambda *_: opened)
    widget._open("localize")
    assert opened.pickers["image"].value is image
    widget._stepped("calibrate", Made([], "", "off", (0.026, 0.026)))
    widget._use_lattice()
    assert (image.scale[0], other.scale[0]) == pytest.approx((0.026, 0.025))
    two.layers.remove(image)
    two.layers.remove(other)
    widget._stepped("count", Made([], "21 defects", extra=counts))


class Slow(Panel):
    """Takes a while to make a layer of an image."""

    title = "Slow"
    inputs: ClassVar = {"image": IMAGE}

    @staticmethod
    def work(progress: Any, image: Any) -> Made:
        time.sleep(0.1)
        return Made([table_layer(nd.tables.empty("atoms"), "atoms", f"atoms · {image.image}", image=image.image)])


@pytest.mark.parametrize("change", ["deleted", "replaced", "calibrated"])
def test_an_image_that_is_another_by_the_time_results_come_gets_none(
    viewer: ViewerModel, wse2: tuple[nd.Micrograph, Any], finish: Finish, change: str
) -> None:
    def start() -> None:
        widget.run()
        if change == "calibrated":
            set_scale_nm(viewer.layers["wse2"], 0.03)
            return
        viewer.layers.remove("wse2")
        if change == "replaced":
            upsert(viewer, image_layer(wse2[0], "wse2"))

    widget = Slow(viewer)
    finish(widget, start)
    assert names(viewer) == ["wse2"] * (change != "deleted")
    assert ("pixel size" if change == "calibrated" else "'wse2' has left the viewer") in widget.status.text()


def test_results_are_of_the_image_they_were_made_from_though_another_has_its_name(
    viewer: ViewerModel, wse2: tuple[nd.Micrograph, Any], finish: Finish
) -> None:
    def start() -> None:
        widget.run()
        viewer.layers["wse2"].name = "before"
        upsert(viewer, image_layer(wse2[0], "wse2"))

    widget = Slow(viewer)
    finish(widget, start)
    assert names(viewer) == ["before", "wse2", "atoms · before"]


class Running:
    """A job that never ends."""

    running, cancelled, seconds = True, False, 0.0


# -- one after the other ----------------------------------------------------------------------------------------------


class Deaf(Panel):
    """Never looks at its progress, and reports at the end."""

    title = "Deaf"
    heard: list[int]
    number = 0

    def gather(self) -> dict[str, Any]:
        self.number += 1
        return {"number": self.number, "report": self.heard.append}

    @staticmethod
    def work(progress: Any, number: int, report: Any) -> Made:
        time.sleep(0.3)
        report(number)
        return Made([], f"number {number}")


@pytest.fixture
def deaf(qtbot: Any) -> Deaf:
    widget = Deaf(ViewerModel())
    widget.heard = []
    qtbot.addWidget(widget)
    return widget


def test_after_cancel_a_click_starts_anew(deaf: Deaf, qtbot: Any) -> None:
    deaf.run_button.click()
    first = deaf.job
    deaf.cancel_button.click()
    assert first is not None
    assert first.running
    deaf.run_button.click()
    assert deaf.job is not first
    assert deaf.cancel_button.isEnabled()
    qtbot.waitUntil(lambda: not first.running and not deaf.job.running, timeout=10_000)
    qtbot.wait(20)
    assert "number 2" in deaf.status.text()
    assert deaf.heard == [2], "nor is anything heard of the first"


def test_one_thing_at_a_time(deaf: Deaf, qtbot: Any) -> None:
    deaf.run()
    first = deaf.job
    deaf.start(deaf.work, {"number": 9, "report": deaf.heard.append}, deaf._made, "another")
    assert deaf.job is first
    assert "cancel it first" in deaf.status.text()
    assert deaf.cancel_button.isEnabled()
    qtbot.waitUntil(lambda: not deaf.working, timeout=10_000)
    qtbot.wait(20)
    assert deaf.heard == [1]


def test_residuals_are_no_images(wse2: tuple[nd.Micrograph, Any]) -> None:
    data, keywords, _ = image_layer(wse2[0], "residual · A", image="A")
    assert not IMAGE.fits(Image(data, **keywords))


def test_the_image_worked_on_is_the_one_in_view(two: ViewerModel, qtbot: Any) -> None:
    widget = Localize(two)
    qtbot.addWidget(widget)
    for name in ("wse2", "other"):
        widget.pickers["image"].value = two.layers[name]
        widget.unveil()
        assert two.layers[name].visible
        assert two.layers["other"].visible == (name == "other"), "it lies over the first"
    widget.pickers["image"].value = two.layers["wse2"]
    two.layers["other"].blending = "additive"  # a second channel
    widget.unveil()
    assert two.layers["other"].visible
    assert two.layers["atoms · wse2"].visible
