"""Average and Strain: members one can go to, precision, Eshelby, profiles beside theory, everything as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QLabel

import napari_defects as nd
from napari_defects.simulation import Relaxation
from napari_defects.widgets._layers import about, image_layer
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.average import Average, average_layer, details
from napari_defects.widgets.strain import StrainMap

Finish = Callable[..., Any]
FIELD = Relaxation(-8.0, wavelength_nm=0.7, decay_nm=1.0, reach_nm=1.2)


@pytest.fixture(scope="module")
def pulling() -> tuple[nd.Micrograph, pd.DataFrame, nd.Lattice]:
    """Ten vacancies that pull, with true sites, and their lattice."""
    micrograph, sites = nd.simulate(
        "WSe2", field_of_view_nm=7.0, pixel_size_nm=0.025, defects={"V_Se": 10}, relaxation={"V_Se": FIELD},
        dose_e_per_A2=3e5, seed=6,
    )  # fmt: skip
    return micrograph, sites, nd.fit_lattice(sites.assign(score=1.0).dropna(subset="y_nm"), "WSe2")


@pytest.fixture
def averaged(pulling: Any, finish: Finish) -> tuple[ViewerModel, Average]:
    """A viewer in which the vacancies were averaged."""
    micrograph, sites, _ = pulling
    viewer = ViewerModel()
    upsert(viewer, image_layer(micrograph, "wse2", crystal="WSe2"))
    upsert(viewer, table_layer(sites, "sites", "atoms · wse2", image="wse2", crystal="WSe2"))
    upsert(viewer, table_layer(micrograph.metadata["defects"], "defects", "defects · wse2", image="wse2"))
    widget = Average(viewer)
    widget.fill({"average": {"radius_nm": 0.8}})
    return viewer, finish(widget)


def test_members_are_listed_with_reasons_and_a_double_click_goes_there(averaged: Any, tmp_path: Path) -> None:
    viewer, widget = averaged
    average = about(widget._chosen)["average"]
    assert widget.members.rowCount() == len(average.members)
    one_out = average.members.copy()
    one_out.loc[one_out.index[-1], ["accepted", "reason"]] = [False, "another defect nearby"]
    widget.members.show_members(widget.members._layer, one_out)
    assert widget.members.item(0, 2).text() == "another defect nearby", "first, in place of its numbers"
    assert (widget.members.columnSpan(0, 2), widget.members.columnSpan(1, 2)) == (2, 1)
    widget.members.show_members(widget.members._layer, average.members)
    assert widget.members.columnSpan(0, 2) == 1
    last = widget.members.rowCount() - 1
    assert float(widget.members.item(last, 2).text()) == pytest.approx(average.members["correlation"].max(), abs=1e-3)
    assert float(widget.members.item(last, 3).text()) >= 0
    widget.members.cellDoubleClicked.emit(last, 0)
    member = widget.members._table.iloc[last]
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], member[["y_nm", "x_nm"]].to_numpy(float))
    assert not widget.large.pixmap().isNull()
    assert widget.plot.plot is not None
    assert "by half-sets" in details(average)
    assert "more" in details(average, 1e-3)
    widget.export(tmp_path)
    assert len(pd.read_csv(tmp_path / "V_Se_members.csv")) == len(average.members)
    assert list(pd.read_csv(tmp_path / "V_Se_precision.csv")) == list(average.precision)
    widget.figure_button.export(85, tmp_path / "precision.pdf")
    assert (tmp_path / "precision.pdf").stat().st_size > 1000


def test_opened_with_averages_already_there_pictures_are_whole_and_the_panel_narrow(averaged: Any) -> None:
    viewer, _ = averaged
    widget = Average(viewer)
    widget.resize(320, 200)
    pictures = [label for label in widget.gallery.findChildren(QLabel) if not label.pixmap().isNull()]
    assert pictures
    for label in pictures:
        assert label.minimumWidth() > label.pixmap().width() - 1
        assert label.minimumHeight() > label.pixmap().height() - 1
    assert widget.sizeHint().width() < 360, "the plot must not ask for more than the panel has"


def theory_file(folder: Path) -> Path:
    """A POSCAR of the same field."""
    build, io = pytest.importorskip("ase.build"), pytest.importorskip("ase.io")
    atoms = build.mx2("WSe2", kind="2H", a=3.282, thickness=3.36, size=(8, 8, 1), vacuum=8)
    middle = atoms.cell.array[:2].sum(0) / 2
    chalcogens = [k for k, s in enumerate(atoms.symbols) if s == "Se"]
    gone = min(chalcogens, key=lambda k: np.hypot(*(atoms.positions[k] - middle)[:2]))
    delta = atoms.positions[:, :2] - atoms.positions[gone, :2]
    r = np.maximum(np.hypot(*delta.T)[:, None], 0.1)
    atoms.positions[:, :2] += np.where(r > 0.5, 10 * FIELD(r / 10, nd.WSE2.nearest_neighbor_nm) * delta / r, 0)
    del atoms[gone]
    io.write(folder / "POSCAR", atoms, format="vasp")
    return folder / "POSCAR"


def test_eshelby_profiles_theory_and_export(averaged: Any, finish: Finish, tmp_path: Path) -> None:
    viewer, average = averaged
    widget = StrainMap(viewer)
    widget.pickers["sites"].value = average._chosen
    finish(widget)
    panel = widget.profiles
    words = panel.words.text()
    assert "C = " in words
    assert "oscillation: p = " in words
    assert "wavelength" in words, "it was planted"
    finish(widget, lambda: panel.open_theory(theory_file(tmp_path)))
    assert "theory POSCAR" in panel.plot.legend.text()
    radial = panel.radial()
    both = radial["experiment"].merge(radial["theory"].round({"r_nm": 3}).assign(r_nm=lambda t: t["r_nm"]), how="cross")
    near = both[np.abs(both["r_nm_x"] - both["r_nm_y"]) < 2e-3]
    assert np.abs(near["radial_pm_x"] - near["radial_pm_y"]).max() < 1.5
    panel.along.value = "along the line"
    assert "click Draw a line" in panel.plot.legend.text()
    widget.component.value = "ε xx"
    panel.add_line()
    measured, models = panel.profiles()
    assert set(models) == {"elastic", "theory"}
    assert len(measured.value) >= 4
    assert np.nanmax(np.abs(models["theory"].value)) > 2 * np.nanmax(np.abs(models["elastic"].value))
    widget.magnify.value = 18
    assert next(one for one in viewer.layers if one.name.startswith("displacement")).length == 18
    panel.export(tmp_path)
    written = {path.name.rpartition("_")[2] for path in tmp_path.glob("*.csv")}
    assert {"strain.csv", "eshelby.csv", "line.csv", "experiment.csv", "theory.csv"} <= written
    line = pd.read_csv(next(tmp_path.glob("*_line.csv")))
    assert set(line["source"]) == {"experiment", "elastic", "theory"}
    for suffix, width in (("svg", 85), ("pdf", 120), ("png", 85)):
        panel.figure_button.export(width, tmp_path / f"profile.{suffix}")
        assert (tmp_path / f"profile.{suffix}").stat().st_size > 1000
    widget.map_button.export(85, tmp_path / "map.svg")
    assert "<text" in (tmp_path / "map.svg").read_text()


def test_a_second_average_has_its_own_line_theory_and_colour_bar(averaged: Any, finish: Finish, tmp_path: Path) -> None:
    viewer, average = averaged
    first = average._chosen
    known = {key: about(first)[key] for key in ("image", "crystal")}
    other = replace(about(first)["average"], species="V2_Se")
    second = upsert(viewer, average_layer(other, (0.0, 20.0), known))
    widget = StrainMap(viewer)
    widget.pickers["sites"].value = first
    finish(widget)
    panel = widget.profiles
    finish(widget, lambda: panel.open_theory(theory_file(tmp_path)))
    panel.add_line()
    widget.pickers["sites"].value = second
    finish(widget)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], about(second)["place_nm"], atol=0.1)
    assert panel.theory is None
    assert "There is no line on average V2_Se" in panel.plot.legend.text()
    panel.add_line()
    assert "theory" not in panel.plot.legend.text()
    assert np.isfinite(panel.profiles()[0].value).all()
    line = viewer.layers["line profile · average V2_Se · wse2"]
    line.data = [line.data[0] + 30.0]
    assert "lies along the line" in panel.plot.legend.text()
    bars = {layer.name: layer.colorbar.visible for layer in viewer.layers if layer.name.startswith("strain · average")}
    assert bars == {"strain · average V_Se · wse2": False, "strain · average V2_Se · wse2": True}
    widget.pickers["sites"].value = first
    assert "theory POSCAR" in panel.plot.legend.text()
    assert viewer.layers["strain · average V_Se · wse2"].colorbar.visible
    widget.fill({"strain": {"neighbors": 12}})
    finish(widget)
    qtbot_wait(widget)
    assert panel.theory.neighbors == 12


def qtbot_wait(widget: Any) -> None:
    from qtpy.QtTest import QTest

    while widget.job.running:
        QTest.qWait(20)
    QTest.qWait(20)


def test_what_was_made_of_an_average_goes_when_it_is_made_again(averaged: Any, finish: Finish) -> None:
    viewer, average = averaged
    widget = StrainMap(viewer)
    widget.pickers["sites"].value = average._chosen
    finish(widget)
    made = {"strain · average V_Se · wse2", "displacement · average V_Se · wse2"}
    assert made <= {layer.name for layer in viewer.layers}
    widget.magnify.value = 30
    widget.component.value = "ε xx"
    assert made <= {layer.name for layer in viewer.layers}
    average.fill({"average": {"radius_nm": 0.7}})
    finish(average)
    assert not made & {layer.name for layer in viewer.layers}
    assert widget.profiles.isHidden()
    assert widget.status.text() == ""


def test_every_keyword_of_the_fit_has_words(averaged: Any) -> None:
    widget = StrainMap(averaged[0])
    assert "rigid offset" in widget.fields["fit_eshelby", "background"].tooltip


def test_a_wrong_theory_file_is_one_sentence(averaged: Any, finish: Finish, tmp_path: Path) -> None:
    viewer, average = averaged
    widget = StrainMap(viewer)
    widget.pickers["sites"].value = average._chosen
    finish(widget)
    (tmp_path / "x.cif").write_text("nothing")
    finish(widget, lambda: widget.profiles.open_theory(tmp_path / "x.cif"))
    assert "Traceback" not in widget.status.text()
    assert "x.cif" in widget.status.text()
