"""Many points as one picture, few as markers; only what is drawn changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel

from napari_defects.tables import SITES
from napari_defects.widgets import _detail
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._raster import Marks, packed, paint, stamps, unpacked
from napari_defects.widgets._viewer import upsert

RED, BLUE, CLEAR = (1.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0)


def marks(places: list[tuple[float, float]], size: float, border: float = 0.0, face: Any = RED) -> Marks:
    n = len(places)
    full = np.ones(n)
    return Marks(
        np.array(places, float), size * full, border * full, packed(BLUE, n), packed(face, n), np.zeros(n, int)
    )


@pytest.mark.parametrize(("symbol", "area"), [("disc", np.pi / 4), ("square", 1.0), ("diamond", 0.5)])
@pytest.mark.parametrize("side", [6, 31])
def test_a_stamp_has_the_area_of_its_mark(symbol: str, area: float, side: int) -> None:
    assert stamps(symbol, side, 0)["face"].sum() == pytest.approx(area * side**2, rel=0.03)


@pytest.mark.parametrize(("side", "border"), [(30, 4.0), (12, 1.4), (9, 0.5)])
def test_a_ring_covers_as_much_as_its_border(side: int, border: float) -> None:
    ring = stamps("disc", side, border)["border"]
    assert ring.sum() == pytest.approx(np.pi * side * border, rel=0.05)
    middle = len(ring) // 2
    assert not ring[middle - 1 : middle + 2, middle - 1 : middle + 2].any()


def test_marks_are_painted_where_they_are_and_nothing_else() -> None:
    picture = paint(marks([(10.5, 5.5), (30.5, 20.5), (-3.0, 8.0), (500.0, 8.0)], 5.0), (40, 60))
    assert picture.shape == (40, 60, 4)
    y, x = np.nonzero(picture[..., 3])
    assert {tuple(c) for c in picture[y, x, :3]} == {(255, 0, 0)}
    left = x < 20
    assert (y[left].mean(), x[left].mean()) == (5.0, 10.0)
    assert (y[~left].mean(), x[~left].mean()) == (20.0, 30.0)
    assert tuple(picture[5, 10]) == (255, 0, 0, 255)


def test_the_pale_rim_of_a_mark_never_hides_another() -> None:
    picture = paint(marks([(10.0, 10.0), (12.0, 10.0), (10.0, 12.0)], 6.0), (20, 20))
    assert (picture[8:12, 8:12, 3] == 255).all()


def test_a_border_finer_than_a_pixel_is_paler_and_a_clear_face_is_not_painted() -> None:
    picture = paint(marks([(10.0, 10.0)], 8.0, border=0.5, face=CLEAR), (20, 20))
    painted = picture[picture[..., 3] > 0]
    assert {tuple(c) for c in painted[:, :3]} == {(0, 0, 255)}
    assert 40 < painted[:, 3].max() < 140
    assert picture[10, 10, 3] == 0


def test_colours_come_back_from_where_they_are_packed() -> None:
    colors = np.array([RED, BLUE, (0.2, 0.4, 0.6, 0.8)])
    assert np.allclose(unpacked(packed(colors, 3)), colors)


def test_without_a_window_there_is_nothing_to_do() -> None:
    viewer = ViewerModel()
    assert _detail.attach(viewer.add_points(np.zeros((3, 2)))) is None


def sites(n: int, side_nm: float) -> pd.DataFrame:
    """Return a square grid of columns, in rows of two sublattices."""
    y, x = (np.stack(np.meshgrid(*2 * [np.arange(n)], indexing="ij")) + 0.5) * side_nm / n
    table = pd.DataFrame({c.name: 0.0 for c in SITES}, index=range(n * n))
    return table.assign(
        frame=0, y_nm=y.ravel(), x_nm=x.ravel(), y_ideal_nm=y.ravel(), x_ideal_nm=x.ravel(),
        i=np.arange(n * n), j=0, sublattice=np.where(np.arange(n * n) // n % 2, "W", "Se"), score=1.0,
    )  # fmt: skip


def seen(viewer: Any, qtbot: Any) -> np.ndarray:
    qtbot.wait(60)
    return np.asarray(viewer.screenshot(canvas_only=True, flash=False))[..., :3].astype(float)


def test_far_away_a_picture_near_by_markers_and_always_the_whole_table(
    make_napari_viewer: Callable[..., Any], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1000, 800)
    monkeypatch.setattr(_detail, "drawn_in_software", lambda _canvas: False)
    table = sites(60, 12.0)
    viewer.theme = "dark"
    layer = upsert(viewer, table_layer(table, "sites", "atoms · x", crystal="WSe2"))
    viewer.canvas.overlays.scale_bar.visible = False
    viewer.reset_view()
    plain = seen(viewer, qtbot)

    detail = _detail.attach(layer, most=500)
    assert detail is not None
    picture = seen(viewer, qtbot)
    assert detail.picture.visible
    assert len(detail.markers._data) == 1, "one of no size"
    where = plain.max(axis=-1) > 100
    assert where.mean() > 0.02
    assert (picture[where].max(axis=-1) > 100).mean() > 0.9, "the same places"
    assert np.abs(picture.mean(axis=(0, 1)) - plain.mean(axis=(0, 1))).max() < 8, "the same colours and coverage"

    viewer.scene.camera.zoom *= 5
    seen(viewer, qtbot)
    assert not detail.picture.visible
    high, wide = np.array(viewer.canvas.size) / viewer.scene.camera.zoom / 0.2
    assert len(detail.markers._data) == pytest.approx(high * wide, rel=0.3), "those in view"

    center = np.array(viewer.scene.camera.center)[-2:]
    here = int(np.argmin(np.abs(layer.data - center).sum(axis=1)))
    assert layer.get_value(tuple(layer.data[here]), world=True) == here, "picked by its row of the whole table"
    layer.add([center + 0.05])
    seen(viewer, qtbot)
    added = np.abs(detail.markers._data["a_position"][:, 1::-1] - (center + 0.05)).max(axis=1) < 1e-4
    assert added.sum() == 1, "what is set by hand is drawn at once"
    assert len(table_of(layer)) == 60 * 60 + 1
    layer.selected_data = {here}
    layer.remove_selected()
    seen(viewer, qtbot)
    assert len(table_of(layer)) == 60 * 60

    viewer.scene.camera.center = (100.0, 100.0)
    assert seen(viewer, qtbot).max() < 150, "nothing in view"
    viewer.reset_view()
    again = seen(viewer, qtbot)
    assert detail.picture.visible
    assert np.abs(again.mean(axis=(0, 1)) - plain.mean(axis=(0, 1))).max() < 8
    viewer.dims.ndisplay = 3
    viewer.scene.camera.perspective, viewer.scene.camera.angles = 45, (0, 50, 30)
    seen(viewer, qtbot)
    assert len(detail.markers._data) == 60 * 60, "all markers in perspective"
    viewer.dims.ndisplay = 2
    viewer.layers.remove(layer)
    assert seen(viewer, qtbot).max() < 150


def test_software_is_known_by_its_name_and_left_alone_otherwise(
    make_napari_viewer: Callable[..., Any], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vispy.gloo import gl

    viewer = make_napari_viewer(show=True)
    qtbot.wait(50)
    node = _detail.drawn_by(viewer.add_points(np.zeros((3, 2))))
    assert node is not None, "napari draws points as this version does"
    assert _detail.drawn_in_software(node.canvas) == ("llvmpipe" in str(gl.glGetParameter(gl.GL_RENDERER)))
    for name, software in (("NVIDIA H200", False), ("llvmpipe (LLVM 15.0.6, 256 bits)", True)):
        monkeypatch.setattr(gl, "glGetParameter", lambda _what, name=name: name)
        assert (_detail.attach(viewer.add_points(np.zeros((3, 2)))) is not None) == software


def test_a_widget_may_use_it(make_napari_viewer: Callable[..., Any], recwarn: pytest.WarningsRecorder) -> None:
    from napari.utils._proxies import PublicOnlyProxy

    viewer = make_napari_viewer(show=True)
    layer = upsert(PublicOnlyProxy(viewer), table_layer(sites(40, 8.0), "sites", "atoms · x"))
    assert type(_detail.drawn_by(layer).points_markers.set_data.__self__) is _detail.Detail
    assert not [w for w in recwarn if "Private attribute" in str(w.message)]
