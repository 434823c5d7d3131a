"""In a real window, under Xvfb: every widget opens, layers are drawn, and what is seen is what was meant."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from npe2 import PluginManager, PluginManifest

import napari_defects as nd
from napari_defects.crystals import species_color
from napari_defects.widgets._frame import open_widget
from napari_defects.widgets._layers import image_layer
from napari_defects.widgets._viewer import upsert

TITLES = [w.display_name for w in PluginManifest.from_distribution("napari-defects").contributions.widgets or ()]


@pytest.fixture
def window(make_napari_viewer: Callable[..., Any], wse2: tuple[nd.Micrograph, Any]) -> Any:
    """A napari window that shows the image."""
    PluginManager.instance().discover()
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1400, 900)
    upsert(viewer, image_layer(wse2[0], "wse2", crystal="WSe2"))
    return viewer


def seen(viewer: Any, qtbot: Any) -> np.ndarray:
    qtbot.wait(100)
    return np.asarray(viewer.screenshot(canvas_only=True, flash=False))[..., :3].astype(int)


def has_color(picture: np.ndarray, color: str, tolerance: int = 40) -> int:
    wanted = np.round(255 * np.array(to_rgb(color)))
    return int((np.abs(picture - wanted).max(axis=-1) < tolerance).sum())


def test_every_widget_opens_from_the_plugin_menu_and_fits_a_small_screen(window: Any, qtbot: Any) -> None:
    height = window.window._qt_window.height()
    for title in TITLES:
        dock, widget = window.window.add_plugin_dock_widget("napari-defects", title, tabify=True)
        qtbot.wait(10)
        assert widget.viewer is not None
        assert type(widget).title == title
        again = window.window.add_plugin_dock_widget("napari-defects", title, tabify=True)[1]
        assert again is widget, "a widget opens once"
        assert widget.minimumSizeHint().width() <= 420, title
        assert dock.widget().minimumSizeHint().height() <= 400, title
    assert window.window._qt_window.height() == height


def test_analyze_draws_defects_in_their_colours(window: Any, qtbot: Any, monkeypatch: Any, maps: nd.Maps) -> None:
    monkeypatch.setattr("napari_defects.pipeline.Run.predicted", lambda run, micrograph: maps)
    raw = seen(window, qtbot)
    assert raw.std() > 10, "the image is drawn"
    assert window.canvas.overlays.scale_bar.visible
    widget = open_widget(window, "Analyze", {"average": {"radius_nm": 0.8}})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        widget.run()
        qtbot.waitUntil(lambda: not widget.job.running, timeout=180_000)
        drawn = seen(window, qtbot)
    assert widget.status.text().startswith("✓ Done"), widget.status.text()
    assert not [w for w in caught if "Inconsistent units" in str(w.message) or "napari_defects" in w.filename]
    assert widget.legend.counts() == {"Te_Se": 10, "V_Se": 8, "V2_Se": 3}
    for species in ("Te_Se", "V_Se"):
        assert has_color(drawn, species_color(species)) > 100 > has_color(raw, species_color(species))
    widget.legend.toggle("Te_Se")
    assert has_color(seen(window, qtbot), species_color("Te_Se")) < 20
    widget.lines.clicked.emit("average")
    average = window.window.dock_widgets["Average (napari-defects)"]
    assert average.parameters["average"]["radius_nm"] == 0.8, "filled with what was just used"


def test_a_closed_widget_is_quiet(window: Any, qtbot: Any) -> None:
    dock, widget = window.window.add_plugin_dock_widget("napari-defects", "Localize")
    widget.run()
    window.window.remove_dock_widget(dock)
    qtbot.wait(50)
    window.add_image(np.eye(40), name="more")
    window.layers.remove("more")
    qtbot.wait(50)


def test_points_are_added_with_the_mouse_and_counted(window: Any, qtbot: Any, wse2: tuple[nd.Micrograph, Any]) -> None:
    from napari_defects.widgets._points import table_layer, table_of

    defects = wse2[0].metadata["defects"]
    layer = upsert(window, table_layer(defects, "defects", "defects · wse2", image="wse2", crystal="WSe2"))
    window.layers.selection.active = layer
    layer.mode = "add"
    layer.add((2.5, 2.5))
    layer.mode = "select"
    qtbot.wait(20)
    table = table_of(layer)
    assert len(table) == len(defects) + 1
    assert table["method"].iloc[-1] == "manual"
    assert table["x_nm"].iloc[-1] == pytest.approx(2.5)


def test_review_is_under_the_keys_wherever_the_mouse_is(
    window: Any, qtbot: Any, wse2: tuple[nd.Micrograph, Any]
) -> None:
    from qtpy.QtCore import Qt

    from napari_defects.widgets._points import table_layer, table_of

    defects = wse2[0].metadata["defects"].assign(probability=np.linspace(0.5, 0.9, 21), method="maps")
    layer = upsert(window, table_layer(defects, "defects", "defects · wse2", image="wse2", crystal="WSe2"))
    upsert(window, table_layer(wse2[1], "sites", "atoms · wse2", image="wse2", crystal="WSe2"))
    review = open_widget(window, "Review")
    review.run()
    window.layers.selection.active = layer
    window.window._qt_window.activateWindow()
    canvas = window.window._qt_viewer.canvas.native
    canvas.setFocus()
    qtbot.wait(50)

    def press(key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
        qtbot.keyClick(canvas, key, modifier)
        qtbot.wait(20)

    press(Qt.Key.Key_Right)
    assert review.current == 1
    press(Qt.Key.Key_Left)
    assert review.current == 0
    press(Qt.Key.Key_4)
    press(Qt.Key.Key_A)
    press(Qt.Key.Key_X)
    table = table_of(layer).set_index("defect")
    assert table.loc[0, "species"] == review.classes.names[3]
    assert table.loc[1, "method"] == "manual"
    assert 2 not in table.index
    assert review.current == 3
    press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert 2 in set(table_of(layer)["defect"])
    assert layer.mode == "pan_zoom", "the keys do not also mean what napari means by them"
    assert has_color(seen(window, qtbot), species_color("V_Se")) > 100


@pytest.fixture
def reviewed(window: Any, qtbot: Any, wse2: tuple[nd.Micrograph, Any]) -> tuple[Any, Any]:
    """A review that has begun, and its layer."""
    from napari_defects.widgets._points import table_layer

    defects = wse2[0].metadata["defects"].assign(probability=np.linspace(0.5, 0.9, 21), method="maps")
    layer = upsert(window, table_layer(defects, "defects", "defects · wse2", image="wse2", crystal="WSe2"))
    upsert(window, table_layer(wse2[1], "sites", "atoms · wse2", image="wse2", crystal="WSe2"))
    review = open_widget(window, "Review")
    review.run()
    front(window, qtbot)
    return review, layer


def front(viewer: Any, qtbot: Any) -> Any:
    """Work in a window, with the mouse on its canvas."""
    canvas = viewer.window._qt_viewer.canvas.native
    viewer.window._qt_window.activateWindow()
    canvas.setFocus()
    qtbot.waitUntil(canvas.hasFocus, timeout=5000)
    return canvas


def test_the_keys_act_in_the_window_one_is_in(
    reviewed: Any, make_napari_viewer: Callable[..., Any], wse2: tuple[nd.Micrograph, Any], qtbot: Any
) -> None:
    from qtpy.QtCore import Qt

    from napari_defects.widgets._points import table_layer

    review, layer = reviewed
    other = make_napari_viewer(show=True)
    upsert(other, image_layer(wse2[0], "other"))
    defects = wse2[0].metadata["defects"].assign(probability=0.5, method="maps")
    theirs = upsert(other, table_layer(defects, "defects", "defects · other", image="other", crystal="WSe2"))
    qtbot.keyClick(front(other, qtbot), Qt.Key.Key_X)
    assert (len(layer.data), len(theirs.data)) == (21, 21)
    upsert(other, table_layer(wse2[1], "sites", "atoms · other", image="other", crystal="WSe2"))
    second = open_widget(other, "Review")
    second.run()
    qtbot.waitUntil(second.isVisible)
    qtbot.keyClick(front(other, qtbot), Qt.Key.Key_X)
    assert (len(layer.data), len(theirs.data)) == (21, 20)
    qtbot.keyClick(front(review.viewer, qtbot), Qt.Key.Key_X)
    assert (len(layer.data), len(theirs.data)) == (20, 20)


def test_a_stroke_is_taken_back_before_a_verdict(reviewed: Any, qtbot: Any) -> None:
    from qtpy.QtCore import Qt

    from napari_defects.widgets._exclusion import paint

    review, layer = reviewed
    viewer = review.viewer
    review.reject()
    mask = paint(viewer, viewer.layers["wse2"])
    mask.paint([100, 100], 1)
    canvas = front(viewer, qtbot)
    qtbot.keyClick(canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert (int(mask.data.sum()), len(layer.data)) == (0, 20)
    viewer.layers.selection.active = layer
    qtbot.keyClick(canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert len(layer.data) == 21


def test_arrows_move_the_slider_they_are_on(reviewed: Any, qtbot: Any) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QSlider

    review, _ = reviewed
    slider = next(one for one in review.window().findChildren(QSlider) if one.isVisible() and one.isEnabled())
    front(review.viewer, qtbot)
    before = review.current
    slider.setFocus()
    qtbot.waitUntil(slider.hasFocus, timeout=5000)
    qtbot.keyClick(slider, Qt.Key.Key_Right)
    qtbot.keyClick(slider, Qt.Key.Key_Left)
    assert review.current == before
    qtbot.keyClick(front(review.viewer, qtbot), Qt.Key.Key_Right)
    assert review.current != before


def test_a_movie_and_its_points_share_the_frames(make_napari_viewer: Callable[..., Any], qtbot: Any) -> None:
    from napari_defects.widgets._samples import graphene_si_movie

    viewer = make_napari_viewer(show=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for layer in graphene_si_movie():
            upsert(viewer, layer)
        viewer.layers[1].visible = True
        qtbot.wait(50)
    assert viewer.dims.nsteps[0] == 12
    assert viewer.dims.axis_labels[0] == "frame"
    viewer.dims.set_point(0, 5)
    qtbot.wait(50)
    shown = viewer.layers[1].get_value((5, *viewer.layers[1].data[viewer.layers[1].data[:, 0] == 5][0][1:]), world=True)
    assert shown is not None
    assert viewer.layers[1].features["frame"][shown] == 5
