"""Simulate: sliders, preview, presets, matching, comparison, training pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from magicgui.widgets import FloatSlider
from napari.components import ViewerModel

import napari_defects as nd
from napari_defects.widgets._comparison import Comparison, power, profile
from napari_defects.widgets._layers import image_layer
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._stages import Stage
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.simulate import PREVIEW_PX, Simulate, _preview

Finish = Callable[..., Any]


@pytest.mark.parametrize("kind", [nd.Microscope, nd.Scan, nd.Detector, nd.Surface])
def test_a_stage_is_filled_and_read_as_it_was(qtbot: Any, kind: type) -> None:
    others = {
        nd.Microscope: {
            "energy_keV": 60.0,
            "source_fwhm_nm": 0.3,
            "aberrations": nd.Aberrations(C10_nm=-3, C21_nm=500),
        },
        nd.Scan: {"drift_pm_per_line": (0.4, -7.0), "rotation_deg": -33.5},
        nd.Detector: {"read_noise_e": 31.0, "dtype": "uint16", "saturation_e": 900.0},
        nd.Surface: {"contamination": 1.2, "edge": True, "holes": 2},
    }
    stage = Stage(kind)
    qtbot.addWidget(stage.form)
    assert stage.build() == kind()
    assert sum(isinstance(w, FloatSlider) for w in stage.form) >= 5
    stage.fill(kind(**others[kind]))
    assert stage.build() == kind(**others[kind])


def test_presets_and_matching_move_the_sliders(finish: Finish) -> None:
    conditions = {"microscope": nd.Microscope(source_fwhm_nm=0.1), "dose_e_per_A2": 2e5}
    image, _ = nd.simulate(
        "MoS2", field_of_view_nm=6, pixel_size_nm=0.024, scan=nd.Scan(rotation_deg=11.0), **conditions
    )
    viewer = ViewerModel()
    upsert(viewer, image_layer(image, "real", crystal="MoS2"))
    widget = Simulate(viewer)
    widget.pickers["crystal"].value = "MoS2"
    widget.preset.value = "Ziatdinov 2017"
    assert widget.groups["microscope"].build() == nd.PRESETS["Ziatdinov 2017"]["microscope"]
    assert widget.parameters["simulate"]["pixel_size_nm"] == pytest.approx(0.0156)
    widget.preset.value = "Lee 2020"
    widget.groups["microscope"].fill(nd.Microscope())
    finish(widget, widget.match)
    made = widget.gather()["simulate"]
    assert made["pixel_size_nm"] == pytest.approx(0.024, rel=3e-3)
    assert made["microscope"].source_fwhm_nm == pytest.approx(0.1, abs=0.01)
    assert (made["scan"].rotation_deg - 11 + 60) % 120 - 60 == pytest.approx(0, abs=0.15)
    assert "pm/px" in widget.status.text()


def test_another_simulation_leaves_nothing_of_the_last_but_its_truth_made_anew(finish: Finish) -> None:
    viewer = ViewerModel()
    widget = Simulate(viewer)
    widget.fill({"simulate": {"field_of_view_nm": 3.0}})
    finish(widget)
    before = [layer.name for layer in viewer.layers]
    truth = viewer.layers[1].data
    upsert(viewer, table_layer(table_of(viewer.layers[1]), "sites", "atoms · simulated WSe2", image=before[0]))
    widget.fill({"simulate": {"seed": 99}})
    finish(widget)
    assert [layer.name for layer in viewer.layers] == before
    assert not np.array_equal(viewer.layers[1].data, truth)


def test_matching_nothing_says_what_to_choose(finish: Finish) -> None:
    widget = finish(Simulate(ViewerModel()), lambda: None)
    widget.match()
    assert widget.status.text() == "Choose the image to match, under Compare with."


def test_training_pairs_are_written(finish: Finish, tmp_path: Path) -> None:
    widget = Simulate(ViewerModel())
    widget.number.value = 3
    finish(widget, lambda: widget.make_pairs(str(tmp_path)))
    assert len(list(tmp_path.glob("*.tif"))) == len(list(tmp_path.glob("*.csv"))) == 3
    assert nd.read_micrograph(next(tmp_path.glob("*.tif"))).shape_yx == (256, 256)
    assert {"y_nm", "x_nm", "species"} <= set(pd.read_csv(next(tmp_path.glob("*.csv"))))


def test_the_preview_takes_less_than_a_tenth_of_a_second(finish: Finish) -> None:
    widget = finish(Simulate(ViewerModel()), lambda: None)
    arguments = widget.gather()
    arguments["simulate"]["field_of_view_nm"] = PREVIEW_PX * arguments["simulate"]["pixel_size_nm"]
    times = []
    for _ in range(5):
        start = time.process_time()
        made = _preview(lambda *_: None, arguments["crystal"], arguments["simulate"])
        times.append(time.process_time() - start)
    assert made.shape_yx == (PREVIEW_PX, PREVIEW_PX)
    assert min(times) < 0.1


def test_curves_of_a_wave() -> None:
    y, x = np.indices((200, 200)) * 0.02
    image = np.cos(2 * np.pi * (3 * x + 4 * y))
    frequency, height = power(image, np.array([0.02, 0.02]))
    assert frequency[height.argmax()] == pytest.approx(5, abs=0.3)
    distance, value = profile(image, np.array([0.02, 0.02]), np.array([[1.0, 1.0], [1.0, 3.0]]), width_nm=0.0)
    np.testing.assert_allclose(value, np.cos(2 * np.pi * (3 * (1 + distance) + 4)), atol=0.05)
    assert distance[-1] == pytest.approx(2.0)


def test_side_by_side_in_a_window(make_napari_viewer: Any, finish: Finish, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    image, _ = nd.simulate("WSe2", field_of_view_nm=6, pixel_size_nm=0.025, defects={"V_Se": 0.05}, seed=9)
    upsert(viewer, image_layer(image, "real", crystal="WSe2"))
    widget = Simulate(viewer)
    viewer.window.add_dock_widget(widget)
    widget.compare()
    widget._preview()
    qtbot.waitUntil(lambda: bool(widget.comparison.curves), timeout=60_000)
    shown: Comparison = widget.comparison
    assert all(len(shown.curves[name]) == 2 for name in ("histogram", "power spectrum", "profile"))
    assert len(shown.truth.points())
    before = shown.curves["profile"][0][1]
    shown.line.setPos((0.3, 0.4))
    assert not np.array_equal(shown.curves["profile"][0][1], before)
    assert not shown.grab().toImage().isNull()
