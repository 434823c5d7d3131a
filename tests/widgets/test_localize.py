"""The Localize widget in a real window: candidates live, columns, colours, residual, errors beside the bound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import napari
import numpy as np
import pytest

import napari_defects as nd
from napari_defects.widgets._layers import image_layer
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.localize import Localize


@pytest.fixture
def window(wse2: tuple[nd.Micrograph, Any], qtbot: Any) -> Iterator[napari.Viewer]:
    viewer = napari.Viewer(show=True)
    upsert(viewer, image_layer(wse2[0], "wse2", crystal="WSe2"))
    yield viewer
    viewer.close()


def number(window: napari.Viewer, qtbot: Any, widget: Localize, threshold: float) -> int:
    """How many candidates are shown once the threshold is set."""
    widget.fields["locate", "threshold"].value = threshold
    qtbot.waitUntil(lambda: f"above {threshold:g} " in widget.status.text(), timeout=60_000)
    return len(window.layers["candidates · wse2"].data)


def test_from_candidates_to_errors(window: napari.Viewer, qtbot: Any, wse2: tuple[nd.Micrograph, Any]) -> None:
    widget = Localize(window)
    window.window.add_dock_widget(widget)
    many, few = (number(window, qtbot, widget, t) for t in (4.0, 25.0))
    truth = int(wse2[1]["y_nm"].notna().sum())
    assert few < many <= 1.2 * truth
    assert many > 0.8 * truth

    widget.reset()
    widget.run()
    qtbot.waitUntil(lambda: not widget.job.running, timeout=120_000)
    assert "candidates · wse2" not in window.layers
    said = re.search(r"precision ([\d.]+) pm, bound ([\d.]+) pm", widget.status.text())
    assert said is not None, widget.status.text()
    assert 0.9 < float(said[1]) / float(said[2]) < 2.5
    assert widget.plot.isVisible()

    layer = window.layers["atoms · wse2"]
    by_sublattice = layer.face_color.copy()
    assert len(np.unique(by_sublattice[:, :3], axis=0)) <= 4
    for by in ("intensity", "error"):
        widget.color_by.setCurrentText(by)
        assert len(np.unique(layer.face_color[:, :3], axis=0)) > 20
    amplitude = layer.features["amplitude"].to_numpy()
    widget.color_by.setCurrentText("intensity")
    green = layer.face_color[:, 1]
    filled = np.isfinite(amplitude)
    assert np.corrcoef(amplitude[filled], green[filled])[0, 1] > 0.8
    widget.color_by.setCurrentText("sublattice")
    np.testing.assert_allclose(layer.face_color, by_sublattice)

    widget.residual_button.click()
    qtbot.waitUntil(lambda: "residual · wse2" in window.layers, timeout=60_000)
    left = window.layers["residual · wse2"]
    assert left.data.shape == wse2[0].data.shape
    assert 0.8 < left.data[20:-20, 20:-20].std() < 2.5


def test_residual_needs_columns(window: napari.Viewer, qtbot: Any) -> None:
    widget = Localize(window)
    qtbot.addWidget(widget)
    widget.residual_button.click()
    assert "press Run first" in widget.status.text()
