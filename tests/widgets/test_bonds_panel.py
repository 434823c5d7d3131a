"""The Bonds and tracks widget: without a window, and in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from npe2 import PluginManager

import napari_defects as nd
from napari_defects.simulation import Motion
from napari_defects.widgets._corrections import judged
from napari_defects.widgets._layers import about, image_layer
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.bonds import Bonds, sentence_of

TURNS = (3, 6)


@pytest.fixture(scope="module")
def rotor() -> nd.Micrograph:
    """Eight frames of a silicon rotor that turns in frames 3 and 6."""
    microscope = nd.Microscope(60.0, 31.0, 86.0, 200.0, 0.08)
    return nd.simulate(
        "graphene", field_of_view_nm=2.2, pixel_size_nm=0.0145, at=[("Si3C6", 1.1, 1.1)], microscope=microscope,
        dose_e_per_A2=6e5, frames=8, motion={"Si3C6": Motion(turn_at=TURNS)}, seed=3,
    )[0]  # fmt: skip


@pytest.fixture(scope="module")
def still(rotor: nd.Micrograph) -> nd.Micrograph:
    """Its first frame."""
    return nd.Micrograph(rotor.data[0], rotor.pixel_size_nm)


def names(viewer: ViewerModel) -> list[str]:
    return [layer.name for layer in viewer.layers]


def showing(micrograph: nd.Micrograph) -> ViewerModel:
    model = ViewerModel()
    upsert(model, image_layer(micrograph, "rotor", crystal="graphene"))
    return model


def test_a_movie_becomes_bonds_rings_trajectories_and_a_timeline(rotor: nd.Micrograph, finish: Any) -> None:
    viewer = showing(rotor)
    widget = finish(Bonds(viewer))
    assert names(viewer) == ["rotor", "bonds · rotor", "rings · rotor", "trajectories · rotor", "defects · rotor"]
    bonds, rings, lines, defects = list(viewer.layers)[1:]
    assert all(layer.ndim == 3 for layer in viewer.layers)
    assert {str(layer.units[-1]) for layer in viewer.layers} == {"nanometer"}
    assert bonds.features["length_pm"].median() == pytest.approx(144, abs=5)
    assert len(np.unique(bonds.edge_color, axis=0)) > 20, "coloured by length"
    assert set(np.unique(bonds.data[:, 0, 0])) == set(range(8)), "in the frame they belong to"
    assert 6 not in set(rings.features["size"])
    assert lines.features["species"].mode()[0] == "Si3C6"
    table = table_of(defects)
    assert about(defects)["table"] == "tracks"
    assert (table["species"] == "Si3C6").groupby(table["frame"]).any().all()
    assert "in 8 frames" in widget.status.text()
    turned = widget.offered["angle (°)"]
    angle = turned["value"].to_numpy()
    assert np.flatnonzero(np.abs((np.diff(angle) + 60) % 120 - 60) > 30).tolist() == [t - 1 for t in TURNS]
    assert turned["error"].max() < 5
    assert widget.quantity.value == "angle (°)"


def test_the_panel_follows_the_slider_and_the_slider_a_click(rotor: nd.Micrograph, finish: Any) -> None:
    viewer = showing(rotor)
    widget = finish(Bonds(viewer))
    viewer.dims.set_current_step(0, 5)
    assert widget.timeline.cursors[0].value() == 5
    assert widget.structure.words.count("Si") == 3
    assert sum("±" in word for word in widget.structure.words) == 9, "three bonds among silicon, six to carbon"
    assert "Si3C6" in widget.words.text()
    widget.timeline.clicked(2.3)
    assert viewer.dims.current_step[0] == 2
    widget.quantity.value = "bond (pm)"
    assert widget.timeline.plots[1].getAxis("left").labelText == "bond (pm)"


def test_a_still_has_no_timeline(still: nd.Micrograph, finish: Any) -> None:
    viewer = showing(still)
    widget = finish(Bonds(viewer))
    assert names(viewer) == ["rotor", "bonds · rotor", "rings · rotor", "defects · rotor"]
    assert about(viewer.layers["defects · rotor"])["table"] == "defects"
    assert "1 Si3C6" in widget.status.text()
    assert widget.timeline.isHidden()
    assert not widget.structure.isHidden()
    before = viewer.layers["bonds · rotor"]
    finish(widget)
    assert names(viewer).count("rings · rotor") == 1
    assert viewer.layers["bonds · rotor"] is before


def test_defects_corrected_by_hand_stay(still: nd.Micrograph, finish: Any) -> None:
    viewer = showing(still)
    widget = finish(Bonds(viewer))
    layer = viewer.layers["defects · rotor"]
    layer.features = judged(table_of(layer), 0, "N_C")
    finish(widget)
    assert layer.features["species"].iloc[0] == "N_C"
    assert "corrected by hand and stays" in widget.status.text()
    assert names(viewer) == ["rotor", "bonds · rotor", "defects · rotor", "rings · rotor"]


def test_it_is_said_why_a_row_is_unsure(still: nd.Micrograph) -> None:
    row = nd.analyze_bonds(still, crystal="graphene").tracks.iloc[0]
    for cut, words in ((True, "cut by the border"), (False, "perhaps taken during a change")):
        assert sentence_of(pd.Series({**row, "unsure": True, "cut": cut})).endswith(f"unsure: {words}")


def test_everything_is_exported_and_the_structure_saved(rotor: nd.Micrograph, finish: Any, tmp_path: Path) -> None:
    widget = finish(Bonds(showing(rotor)))
    widget.export(tmp_path / "all")
    written = {path.name for path in (tmp_path / "all").iterdir()}
    assert {"bonds.csv", "tracks.csv", "rotors.csv", "hops.csv", "graph.graphml", "atoms.xyz"} <= written
    table = pd.read_csv(tmp_path / "all" / "rotors.csv")
    assert table["frame"][table["switch"]].tolist() == list(TURNS)
    widget.save(tmp_path / "frame.cif")
    assert "Wrote" in widget.status.text()
    widget.save(tmp_path / "frame.pdb")
    assert "must be a graphml or json" in widget.status.text()


def test_the_work_can_be_cancelled_and_says_what_is_wrong(rotor: nd.Micrograph, finish: Any, qtbot: Any) -> None:
    viewer = showing(rotor)
    widget = Bonds(viewer)
    qtbot.addWidget(widget)
    widget.run()
    widget.cancel()
    qtbot.waitUntil(lambda: not widget.job.running, timeout=60_000)
    assert names(viewer) == ["rotor"]
    viewer.layers["rotor"].scale = (1, 1, 1)
    viewer.layers["rotor"].units = "pixel"
    finish(widget)
    assert "no pixel size" in widget.status.text()


def test_in_a_window(make_napari_viewer: Callable[..., Any], rotor: nd.Micrograph, qtbot: Any) -> None:
    PluginManager.instance().discover()
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1400, 900)
    upsert(viewer, image_layer(nd.Micrograph(rotor.data[2:4], rotor.pixel_size_nm), "rotor", crystal="graphene"))
    _, widget = viewer.window.add_plugin_dock_widget("napari-defects", "Bonds and tracks")
    widget.run()
    qtbot.waitUntil(lambda: not widget.job.running, timeout=600_000)
    assert widget.width() < 420

    def seen(frame: int) -> np.ndarray:
        viewer.dims.set_current_step(0, frame)
        qtbot.wait(50)
        return np.asarray(viewer.screenshot(canvas_only=True, flash=False)).astype(int)

    viewer.layers["rotor"].visible = False
    first, later = seen(0), seen(1)
    assert (first[..., :3].max(-1) > 60).mean() > 0.03, "bonds are drawn"
    assert (np.abs(first - later).max(-1) > 60).mean() > 0.01, "and follow the slider"
    assert not widget.timeline.isHidden()
    place = widget.track.iloc[0]
    widget.defect.value = None
    viewer.dims.set_current_step(0, int(place["frame"]))
    event = type("Event", (), {"position": (place["frame"], place["y_nm"], place["x_nm"]), "button": 1})
    widget._clicked(viewer, event)
    assert widget.defect.value == place["track"]


def test_the_crystal_is_that_of_what_was_made_of_the_image(still: nd.Micrograph, qtbot: Any) -> None:
    viewer = ViewerModel()
    for name, crystal in (("sheet", "hBN"), ("thick", "WSe2")):
        upsert(viewer, image_layer(still, name))
        defects = nd.tables.empty("defects")
        upsert(viewer, table_layer(defects, "defects", f"defects · {name}", image=name, crystal=crystal))
    widget = Bonds(viewer)
    qtbot.addWidget(widget)
    widget.pickers["image"].value = viewer.layers["thick"]
    assert "of WSe2" in widget.status.text()
    widget.pickers["image"].value = viewer.layers["sheet"]
    assert widget.pickers["crystal"].value == "hBN"
    assert widget.status.text() == ""
