"""In a real window of 1280 × 800, in a dark theme and a light one: nothing is cut off, everything can be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QLabel, QScrollArea, QSlider
from superqt import QCollapsible

import napari_defects as nd
from napari_defects.widgets._frame import WIDTH_PX, open_widget
from napari_defects.widgets._ink import DOUBT, Ink, contrast, ground_of, readable
from napari_defects.widgets._layers import image_layer, map_layer, mask_layer
from napari_defects.widgets._legend import marker
from napari_defects.widgets._plots import COLORS, Plot
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.average import average_layer

TITLES = [w.display_name for w in PluginManifest.from_distribution("napari-defects").contributions.widgets or ()]
DARK, LIGHT = "#23242b", "#ebe7e6"


@pytest.fixture
def window(make_napari_viewer: Callable[..., Any]) -> Any:
    PluginManager.instance().discover()
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1280, 800)
    return viewer


@pytest.fixture(scope="module")
def average(wse2: Any, measured: Any) -> nd.ClassAverage:
    defects = wse2[0].metadata["defects"].assign(method="maps", probability=0.9)
    found = nd.average(wse2[0], defects, sites=measured[0], lattice=measured[1], radius_nm=0.8, species=["Te_Se"])
    return found["Te_Se"]


@pytest.fixture
def full(window: Any, wse2: Any, measured: Any, maps: nd.Maps, average: nd.ClassAverage) -> Any:
    """A window that shows an image with all that is made of it."""
    known = {"image": "wse2", "crystal": "WSe2", "lattice": measured[1]}
    defects = wse2[0].metadata["defects"].assign(method="maps", probability=0.9, by_intensity="brighter_Se")
    upsert(window, image_layer(wse2[0], "wse2", crystal="WSe2"))
    upsert(window, map_layer(maps, "maps · wse2", "V_Se", **known))
    upsert(window, mask_layer(maps, "mask · wse2", 0.5, **known))
    upsert(window, table_layer(measured[0], "sites", "atoms · wse2", **known))
    upsert(window, table_layer(defects, "defects", "defects · wse2", **known))
    for number, species in enumerate(("Te_Se", "V_Se+V_W@0.33")):
        upsert(window, average_layer(replace(average, species=species), (0, 7 + number), known))
    return window


def states(title: str, widget: Any, average: nd.ClassAverage, finish: Any, folder: Path) -> Iterator[str]:
    """Bring a widget into what it can be in, one after the other."""
    yield "opened"
    for group in widget.findChildren(QCollapsible):
        group.expand(animate=False)
    yield "unfolded"
    if title == "Train":
        widget.out.value = folder / "model.safetensors"
        (folder / "model.checkpoint").touch()
        for learn in widget.pickers["learn"].choices:
            widget.pickers["learn"].value = learn
            widget._look()
            yield learn
    elif title == "Batch":
        widget.dataset = SimpleNamespace(averages={"a": average, "b": average, "c": average}, folder=folder)
        widget.show_averages()
        yield "averages"
    elif title in ("Review", "Count and export"):
        finish(widget)
        yield "run"
    elif title == "Strain":
        widget.pickers["sites"].value = widget.viewer.layers["average V_Se+V_W@0.33 · wse2"]
        finish(widget)
        widget.profiles.add_line()
        yield "line"
    widget.say(f"A name of a file without any place to break: {'x' * 30}.tif", doubt=True)
    yield "said"


def test_every_widget_is_as_narrow_as_its_dock_whatever_it_shows(
    full: Any, average: nd.ClassAverage, qtbot: Any, tmp_path: Path
) -> None:
    def finish(widget: Any) -> None:
        widget.run()
        qtbot.waitUntil(lambda: widget.job is None or not widget.job.running, timeout=60_000)
        qtbot.wait(20)

    for title in TITLES:
        dock, widget = full.window.add_plugin_dock_widget("napari-defects", title)
        scroll = widget.findChildren(QScrollArea)[0]
        for state in states(title, widget, average, finish, tmp_path):
            qtbot.wait(20)
            needs, has = scroll.widget().layout().minimumSize().width(), scroll.viewport().width()
            assert needs <= min(has, WIDTH_PX - scroll.verticalScrollBar().sizeHint().width()), (title, state)
            assert scroll.widget().width() == has, (title, state)
            for slider in widget.findChildren(QSlider):
                assert slider.width() > 50 or not slider.isVisible(), (title, state, slider.toolTip())
        if title == "Average":
            assert widget.members.horizontalScrollBar().maximum() == 0
        if title == "Batch":
            assert widget.images.line_edit.native.width() > 120
        full.window.remove_dock_widget(dock)


def test_what_is_too_wide_is_cut_alone(window: Any, qtbot: Any) -> None:
    widget = open_widget(window, "Localize")
    widget.add(QLabel("x" * 200))
    qtbot.wait(30)
    scroll = widget.findChildren(QScrollArea)[0]
    assert scroll.widget().width() == scroll.viewport().width()


# -- colours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ground", [DARK, LIGHT])
@pytest.mark.parametrize("color", ["#56b4e9", "#e9a23b", "#808080", "#f0e442", "#0072b2"])
def test_a_colour_is_changed_no_more_than_it_takes(color: str, ground: str) -> None:
    shade = readable(color, ground)
    assert contrast(shade, ground) >= 4.5
    assert shade == color or contrast(shade, ground) < 5.2
    assert abs(QColor(shade).hue() - QColor(color).hue()) < 5 or QColor(color).hue() < 0


def test_words_links_and_doubts_can_be_read_when_the_theme_changes(window: Any, qtbot: Any) -> None:
    widget = open_widget(window, "Analyze")
    widget.lines.reset()
    widget.lines.done("calibrate", "0.04 nm a pixel", "3.3 % off")
    widget.lines.done("segment", "13 classes")
    widget.say("careful", doubt=True)
    for theme, ground in (("light", LIGHT), ("dark", DARK), ("light", LIGHT)):
        window.theme = theme
        qtbot.wait(100)
        for label in widget.findChildren(Ink):
            assert ground_of(label) == ground
            colors = re.findall(r"#[0-9a-f]{6}", label.styleSheet() + QLabel.text(label))
            assert all(contrast(color, ground) >= 4.5 for color in colors), label.text()
    assert "style" not in widget.lines.text("calibrate"), "what is read has no markup of colours"


def test_plots_take_the_theme(window: Any, qtbot: Any) -> None:
    plot = Plot()
    window.window.add_dock_widget(plot, name="plot")
    plot.begin("x", "y")
    plot.line([0, 1], [0, 1], COLORS[0], "a line of many words", dashed=True)
    plot.points([0, 1], [0, 1], [0.1, 0.1], COLORS[1], "experiment ± 1 σ, as it was measured")
    for theme, ground in (("dark", DARK), ("light", LIGHT)):
        window.theme = theme
        qtbot.wait(150)
        assert plot.plot.grab().toImage().pixelColor(2, 2).name() == ground
        assert contrast(plot.plot.getAxis("left").textPen().color().name(), ground) >= 4.5
        assert all(contrast(color, ground) >= 3 for color in COLORS)
    assert "experiment ± 1 σ" in plot.legend.text()
    assert plot.legend.wordWrap()
    plot.excuse("nothing")
    assert (plot.legend.text(), plot.plot.isVisible()) == ("nothing", False)


@pytest.mark.parametrize("species", ["V_W", "Te_W", "V_Se", "Te2_Se"])
@pytest.mark.parametrize("ground", [DARK, LIGHT])
def test_markers_stand_out_on_every_theme(species: str, ground: str, qapp: Any) -> None:
    image = marker(species).pixmap(16, 16).toImage()
    pixels = [image.pixelColor(x, y) for x in range(image.width()) for y in range(image.height())]
    assert max(contrast(p.name(), ground) for p in pixels if p.alpha() == 255) >= 3


def test_files_that_failed_can_be_read(window: Any, qtbot: Any) -> None:
    widget = open_widget(window, "Batch")
    row = {"file": "bad.tif", "status": "failed", "error": "no tiff", "folder": "", "defects": np.nan}
    widget.files.clear_rows()
    widget.files.add(row)
    for theme in ("light", "dark"):
        window.theme = theme
        qtbot.wait(100)
        ground = ground_of(widget.files)
        assert widget.files.item(0, 0).foreground().color().name() == readable(DOUBT, ground)
