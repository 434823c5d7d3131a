from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from npe2 import PluginManager

import napari_defects as nd
from napari_defects import tables
from napari_defects.io import read_table, write_micrograph, write_table
from napari_defects.widgets._files import get_reader, read, write_image, write_points
from napari_defects.widgets._layers import about, micrograph_of
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._viewer import upsert


@pytest.fixture
def defects(wse2: tuple[nd.Micrograph, Any]) -> pd.DataFrame:
    return pd.DataFrame(wse2[0].metadata["defects"])


def test_a_calibrated_file_is_an_image_in_nm(tmp_path: Path, wse2: tuple[nd.Micrograph, Any]) -> None:
    path = write_micrograph(wse2[0], tmp_path / "a.tif")
    reader = get_reader(str(path))
    assert reader is not None
    ((data, keywords, kind),) = reader(str(path))
    layer = Image(data, **keywords)
    assert (kind, layer.name, layer.visible) == ("image", "a", True)
    assert micrograph_of(layer).pixel_size_nm == pytest.approx(0.025, rel=1e-6)
    assert about(layer)["micrograph"]["path"] == str(path)


def test_files_of_others_are_left_to_others(tmp_path: Path) -> None:
    import imageio.v3 as iio

    iio.imwrite(tmp_path / "photo.png", np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8))
    (tmp_path / "broken.tif").write_bytes(b"nothing")
    np.save(tmp_path / "line.npy", np.arange(10))
    pd.DataFrame({"a": [1, 2]}).to_csv(tmp_path / "other.csv")
    for name in ("photo.png", "broken.tif", "line.npy", "other.csv", "missing.tif"):
        assert get_reader(str(tmp_path / name)) is None, name
    assert get_reader([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]) is None


def test_a_broken_file_of_a_microscope_says_so_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.dm4"
    path.write_bytes(b"nothing")
    reader = get_reader(str(path))
    assert reader is not None
    with pytest.raises(ValueError, match=r"broken.dm4 cannot be read"):
        reader(str(path))


def test_a_table_becomes_points_and_is_written_with_its_edits(tmp_path: Path, defects: pd.DataFrame) -> None:
    path = write_table(defects, tmp_path / "defects.csv")
    layer = upsert(ViewerModel(), read(path)[0])
    assert about(layer)["table"] == "defects"
    pd.testing.assert_frame_equal(table_of(layer), tables.check(defects, "defects"))
    layer.remove([0])
    layer.add([[3.0, 3.5]])
    written = write_points(str(tmp_path / "edited.csv"), *layer.as_layer_data_tuple()[:2])
    back = read_table(written[0], "defects")
    assert len(back) == len(defects)
    assert back.iloc[-1][["y_nm", "x_nm", "method"]].tolist() == [3.0, 3.5, "manual"]


def test_points_of_others_can_be_written(tmp_path: Path) -> None:
    viewer = ViewerModel()
    layer = viewer.add_points([[1, 2], [3, 4]], scale=(0.02, 0.02), units=("nm", "nm"))
    (path,) = write_points(str(tmp_path / "p.csv"), *layer.as_layer_data_tuple()[:2])
    np.testing.assert_allclose(read_table(path, "atoms")[["y_nm", "x_nm"]], [[0.02, 0.04], [0.06, 0.08]])


def test_an_image_is_written_with_its_scale(tmp_path: Path, viewer: ViewerModel) -> None:
    layer = viewer.layers["wse2"]
    (path,) = write_image(str(tmp_path / "x.tif"), *layer.as_layer_data_tuple()[:2])
    again = nd.read_micrograph(path)
    assert again.pixel_size_nm == pytest.approx(0.025, rel=1e-6)
    np.testing.assert_array_equal(again.data, layer.data)


def test_through_napari_itself(tmp_path: Path, wse2: tuple[nd.Micrograph, Any], defects: pd.DataFrame) -> None:
    PluginManager.instance().discover()
    viewer = ViewerModel()
    write_micrograph(wse2[0], tmp_path / "a.tif")
    viewer.open(tmp_path / "a.tif", plugin="napari-defects")
    upsert(viewer, table_layer(defects, "defects", "d"))
    assert viewer.layers["d"].save(str(tmp_path / "d.csv"), plugin="napari-defects") == [str(tmp_path / "d.csv")]
    viewer.open(tmp_path / "d.csv", plugin="napari-defects")
    assert [about(layer).get("table") for layer in viewer.layers] == [None, "defects", "defects"]


def test_a_folder_of_frames_dropped_on_napari_is_a_movie(tmp_path: Path, wse2: tuple[nd.Micrograph, Any]) -> None:
    PluginManager.instance().discover()
    (tmp_path / "frames").mkdir()
    for number in (1, 2, 4):
        write_micrograph(wse2[0], tmp_path / "frames" / f"scan_{number}.tif")
    model = ViewerModel()
    (layer,) = model.open(tmp_path / "frames", plugin="napari-defects")
    assert layer.data.shape == (4, *wse2[0].shape_yx)
    assert np.isnan(layer.data[2]).all()
    np.testing.assert_allclose(layer.scale[-2:], 0.025)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.txt").write_text("nothing")
    assert get_reader(str(tmp_path / "others")) is None


def test_real_files_open_with_the_scale_they_have(shared: Path) -> None:
    folder = shared / "data"
    ((_, keywords, _),) = read(folder / "wse2_ti" / "1028_ADF2_25.dm4")
    assert keywords["scale"] == pytest.approx((0.03988, 0.03988), rel=1e-3)
    emd = read(folder / "formats" / "WS2.emd")
    assert emd[0][1]["scale"][0] == pytest.approx(0.01062, rel=1e-3)
    assert [k["visible"] for _, k, _ in emd] == [True] + [False] * (len(emd) - 1)
    ((movie, keywords, _),) = read(folder / "movie" / "moving-Si-1.mp4")
    assert (movie.ndim, "units" in keywords) == (3, False)
