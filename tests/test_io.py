from __future__ import annotations

import importlib
import logging
import os
import struct

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
import tifffile

import napari_defects as nd
from napari_defects import tables
from napari_defects.io import channels, write_micrograph
from napari_defects.saving import writing

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 4000, (40, 56)).astype(np.uint16)


def axes(unit, scale, n_frames=None):
    image = [
        {"name": name, "units": unit, "scale": scale, "offset": 0.0, "size": size, "navigate": False}
        for name, size in zip("yx", PIXELS.shape, strict=True)
    ]
    time = {"name": "t", "units": "s", "scale": 0.5, "offset": 0.0, "size": n_frames, "navigate": True}
    return image if n_frames is None else [time, *image]


def write_rosetta(plugin, path, unit="nm", scale=0.02, data=PIXELS, title="HAADF"):
    frames = len(data) if data.ndim == 3 else None
    signal = {
        "data": data,
        "axes": axes(unit, scale, frames),
        "metadata": {"General": {"title": title}, "Signal": {"signal_type": ""}},
        "original_metadata": {},
        "tmp_parameters": {},
        "learning_results": {},
        "models": {},
        "attributes": {"_lazy": False},
        "package": "rosettasciio",
        "package_version": "0",
        "package_info": {},
    }
    for k, axis in enumerate(signal["axes"]):
        axis |= {"_type": "UniformDataAxis", "is_binned": False, "index_in_array": k}
    importlib.import_module(f"rsciio.{plugin}").file_writer(str(path), signal)
    return path


def write_ser(path, data, pixel_size_m):
    """One image in the format of FEI's TIA (version 0x0210)."""
    header = struct.pack("<HHHIIIIII", 0x4949, 0x0197, 0x0210, 0x4122, 0x4152, 1, 1, 0, 1)
    dimension = struct.pack("<IddI", 1, 0.0, 1.0, 0) + struct.pack("<I", 6) + b"Number" + struct.pack("<I", 0)
    array_at = len(header) + len(dimension)
    header = header[:-8] + struct.pack("<II", array_at, 1)
    data_at = array_at + 8
    calibration = struct.pack("<ddI", 0.0, pixel_size_m, 0) * 2
    element = calibration + struct.pack("<HII", 2, data.shape[1], data.shape[0]) + data[::-1].astype("<u2").tobytes()
    offsets = struct.pack("<II", data_at, data_at + len(element))
    path.write_bytes(header + dimension + offsets + element + struct.pack("<HHI", 0x4152, 0, 0))
    return path


@pytest.mark.parametrize(
    ("unit", "scale"), [("nm", 0.02), ("pm", 20), ("Å", 0.2), ("A", 0.2), ("angstrom", 0.2), ("µm", 2e-5), ("m", 2e-11)]
)
def test_hspy_calibration_in_any_unit(tmp_path, unit, scale):
    image = nd.read_micrograph(write_rosetta("hspy", tmp_path / "a.hspy", unit, scale))
    assert image.pixel_size_nm == pytest.approx(0.02)
    assert np.array_equal(image.data, PIXELS)
    assert image.metadata["channel"] == "HAADF"
    assert image.metadata["file"] == "a.hspy"


def test_reciprocal_scale_is_not_a_pixel_size(tmp_path, caplog):
    image = nd.read_micrograph(write_rosetta("hspy", tmp_path / "a.hspy", "1/nm", 0.02))
    assert image.pixel_size_nm is None
    assert "diffraction" in caplog.text


def test_absurd_scale_opens_without_one(tmp_path, caplog):
    assert nd.read_micrograph(write_rosetta("hspy", tmp_path / "a.hspy", "nm", 20.0)).pixel_size_nm is None
    assert "not atomic resolution" in caplog.text


def test_argument_overrides_file(tmp_path):
    path = write_rosetta("hspy", tmp_path / "a.hspy")
    assert nd.read_micrograph(path, pixel_size_nm=0.031).pixel_size_nm == 0.031
    assert nd.read_micrograph(path, pixel_size_nm=(0.03, 0.04)).pixel_size_nm == (0.03, 0.04)


@pytest.mark.parametrize("plugin", ["hspy", "emd"])
def test_movie_with_frame_interval(tmp_path, plugin):
    data = RNG.random((6, *PIXELS.shape)).astype(np.float32)
    movie = nd.read_micrograph(write_rosetta(plugin, tmp_path / f"a.{plugin}", data=data))
    assert np.array_equal(movie.data, data)
    assert movie.frame_interval_s == pytest.approx(0.5)
    assert movie.pixel_size_nm == pytest.approx(0.02)


def test_emd(tmp_path):
    image = nd.read_micrograph(write_rosetta("emd", tmp_path / "a.emd"))
    assert np.array_equal(image.data, PIXELS)
    assert image.pixel_size_nm == pytest.approx(0.02)


def test_mrc(tmp_path):
    data = PIXELS.astype(np.float32)
    header = np.zeros(256, "<i4")
    header[:4] = (data.shape[1], data.shape[0], 1, 2)
    header[7:10] = (data.shape[1], data.shape[0], 1)
    header.view("<f4")[10:13] = (data.shape[1] * 0.2, data.shape[0] * 0.2, 1.0)  # angstrom
    path = tmp_path / "a.mrc"
    path.write_bytes(header.tobytes() + data.tobytes())
    image = nd.read_micrograph(path)
    assert np.array_equal(image.data, data)
    assert image.pixel_size_nm == pytest.approx(0.02)
    header[7:13] = 0
    path.write_bytes(header.tobytes() + data.tobytes())
    assert nd.read_micrograph(path).pixel_size_nm is None


def test_ser(tmp_path):
    image = nd.read_micrograph(write_ser(tmp_path / "a.ser", PIXELS, 2e-11))
    assert np.array_equal(image.data, PIXELS)
    assert image.pixel_size_nm == pytest.approx(0.02)


@pytest.mark.parametrize(("unit", "per_unit"), [("nm", 50.0), ("pm", 0.05), ("\\u00B5m", 5e4), ("micron", 5e4)])
def test_tif_of_imagej(tmp_path, unit, per_unit):
    path = tmp_path / "a.tif"
    metadata = {"unit": unit, "finterval": 0.25, "axes": "TYX"}
    movie = np.stack([PIXELS] * 3)
    tifffile.imwrite(path, movie, imagej=True, resolution=(per_unit, per_unit / 2), metadata=metadata)
    image = nd.read_micrograph(path)
    assert image.pixel_size_nm == pytest.approx((0.04, 0.02), rel=1e-5)
    assert image.frame_interval_s == pytest.approx(0.25)
    assert np.array_equal(image.data, movie)


def test_tif_of_ome_with_channels(tmp_path):
    path = tmp_path / "a.ome.tif"
    metadata = {
        "axes": "TCYX", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 20, "PhysicalSizeYUnit": "pm",
        "TimeIncrement": 100, "TimeIncrementUnit": "ms", "Channel": {"Name": ["BF", "HAADF"]},
    }  # fmt: skip
    data = RNG.integers(0, 9, (3, 2, *PIXELS.shape), dtype=np.uint8)
    tifffile.imwrite(path, data, ome=True, metadata=metadata)
    assert channels(path) == ["BF", "HAADF"]
    for channel in ("haadf", 1, "1"):
        image = nd.read_micrograph(path, channel=channel)
        assert np.array_equal(image.data, data[:, 1])
    assert image.pixel_size_nm == pytest.approx(0.02)
    assert image.frame_interval_s == pytest.approx(0.1)
    for wrong in ("EDS", 2, -1, True):
        with pytest.raises(ValueError, match="'HAADF'"):
            nd.read_micrograph(path, channel=wrong)


def test_plain_tif_has_no_scale_though_it_has_dpi(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, PIXELS.astype(">u2"), byteorder=">", resolution=(72, 72), resolutionunit="INCH", metadata=None
    )
    image = nd.read_micrograph(path)
    assert image.pixel_size_nm is None
    assert np.array_equal(image.data, PIXELS)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_grey_saved_as_rgb_is_grey_and_colour_is_refused(tmp_path, suffix):
    grey = (PIXELS // 16).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    iio.imwrite(path, np.stack([grey] * 3, -1))
    image = nd.read_micrograph(path)
    assert image.shape_yx == grey.shape
    assert np.abs(image.data.astype(int) - grey).mean() < (20 if suffix == "jpg" else 0.5)
    iio.imwrite(path, np.stack([grey, grey.T.reshape(grey.shape), 255 - grey], -1))
    with pytest.raises(ValueError, match="colour picture"):
        nd.read_micrograph(path)


def test_png_of_16_bit(tmp_path):
    iio.imwrite(tmp_path / "a.png", PIXELS)
    image = nd.read_micrograph(tmp_path / "a.png")
    assert np.array_equal(image.data, PIXELS)
    assert image.pixel_size_nm is None


def test_movies_of_mp4_and_gif(tmp_path, caplog):
    ramp = np.linspace(0, 200, 64 * 64).reshape(64, 64)
    frames = np.stack([np.roll(ramp, 4 * k, 1) for k in range(5)]).astype(np.uint8)
    iio.imwrite(tmp_path / "a.mp4", np.stack([frames] * 3, -1), fps=4, macro_block_size=16)
    movie = nd.read_micrograph(tmp_path / "a.mp4")
    assert movie.data.shape == frames.shape
    assert np.abs(movie.data.astype(float) - frames).mean() < 8
    assert movie.frame_interval_s == pytest.approx(0.25)
    assert "losses" in caplog.text
    assert "false colour" not in caplog.text
    false_color = np.stack([frames, frames // 2, 0 * frames], -1)
    iio.imwrite(tmp_path / "a.gif", false_color, duration=500)
    with caplog.at_level(logging.WARNING):
        movie = nd.read_micrograph(tmp_path / "a.gif")
    assert movie.data.shape == frames.shape
    assert "false colour" in caplog.text


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    assert np.array_equal(nd.read_micrograph(tmp_path / "a.npy", pixel_size_nm=0.02).data, PIXELS)
    np.save(tmp_path / "b.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"b\.npy"):
        nd.read_micrograph(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.zeros((50, 60, 3)))
    with pytest.raises(ValueError, match=r"c\.npy.*RGB"):
        nd.read_micrograph(tmp_path / "c.npy")


SUFFIXES = ["dm3", "dm4", "emd", "ser", "mrc", "hspy", "tif", "npy", "png", "jpg", "mp4", "gif"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"not a picture at all " * 100])
def test_damaged_files_end_in_one_sentence(tmp_path, suffix, content):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"broken\.{suffix} cannot be read as {suffix}") as error:
        nd.read_micrograph(path)
    assert "\n" not in str(error.value)


def test_truncated_file_is_damaged(tmp_path):
    path = write_rosetta("hspy", tmp_path / "a.hspy", data=RNG.random((8, *PIXELS.shape)))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(ValueError, match="damaged"):
        nd.read_micrograph(path)


def test_missing_unknown_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        nd.read_micrograph(tmp_path / "none.tif")
    (tmp_path / "a.docx").write_text("")
    with pytest.raises(ValueError, match=r"docx is not an image format.*dm4"):
        nd.read_micrograph(tmp_path / "a.docx")
    with pytest.raises(ValueError, match="folder"):
        nd.read_micrograph(tmp_path)
    with pytest.raises(ValueError, match="pixel_size_nm"):
        nd.read_micrograph(tmp_path / "none.tif", pixel_size_nm=39.9)


def test_huge_files_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_defects.formats.LAZY_BYTES", 1)
    np.save(tmp_path / "a.npy", np.stack([PIXELS] * 4))
    tifffile.imwrite(tmp_path / "a.tif", np.stack([PIXELS] * 4), imagej=True, metadata={"axes": "TYX"})
    write_rosetta("hspy", tmp_path / "a.hspy", data=np.stack([PIXELS] * 4))
    for suffix in ("npy", "tif", "hspy"):
        movie = nd.read_micrograph(tmp_path / f"a.{suffix}")
        assert type(movie.data) is not np.ndarray
        assert np.array_equal(movie.frame(3), PIXELS)


@pytest.mark.parametrize("size", [0.02, (0.03, 0.02), None])
@pytest.mark.parametrize("shape", [(40, 56), (3, 40, 56)])
@pytest.mark.parametrize("dtype", [">u2", np.uint8, np.float64])
def test_write_micrograph_round_trip(tmp_path, size, shape, dtype):
    data = RNG.integers(0, 200, shape).astype(dtype)
    written = nd.Micrograph(data, size, 0.5 if len(shape) == 3 else None)
    read = nd.read_micrograph(write_micrograph(written, tmp_path / "new" / "a.tif"))
    assert np.array_equal(read.data, data)
    assert read.pixel_size_nm == (None if size is None else pytest.approx(size))
    assert read.frame_interval_s == written.frame_interval_s
    with pytest.raises(ValueError, match=r"\.tif"):
        write_micrograph(written, tmp_path / "a.dm4")


REAL = [
    ("formats/HAADF26.dm3", (512, 512), 0.020217),
    ("formats/WS2.emd", (1024, 1024), 0.010622),
    ("formats/Cropped_PTO-SRO_Aligned.hspy", (224, 1312), 0.014997),
    ("wse2_ti/1028_ADF1_25.dm4", (512, 512), 0.039879),
    ("wse2_ti/1028_ADF2_25.dm4", (512, 512), 0.039879),
    ("mos2/MoS2_stem_Exp-000-2.npy", (512, 512), None),
    ("graphene_si/Si1C3_10.tif", (256, 256), None),
    ("graphene_si/grain_boundary_4nm.tif", (512, 512), None),
]


@pytest.mark.parametrize(("name", "shape", "size"), REAL)
def test_real_files(shared, name, shape, size):
    image = nd.read_micrograph(shared / "data" / name)
    assert image.data.shape == shape
    assert image.pixel_size_nm == (None if size is None else pytest.approx(size, rel=1e-4))
    assert image.frame().std() > 0
    assert len(channels(shared / "data" / name)) == 1


def test_real_movie(shared, caplog):
    movie = nd.read_micrograph(shared / "data/movie/moving-Si-1.mp4")
    assert movie.data.shape == (30, 256, 256)
    assert movie.frame_interval_s == pytest.approx(0.2)
    assert "false colour" in caplog.text


def atoms_table():
    table = tables.empty("atoms").reindex(range(3))
    for number, name in enumerate(table.columns):
        table[name] = RNG.random(3) * 10**number if name != "frame" else [0, 0, 1]
    table.loc[1, "y_err_nm"] = np.nan
    return tables.check(table, "atoms")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "xlsx"])
def test_tables_round_trip_to_the_last_bit(tmp_path, suffix):
    table = atoms_table()
    table.attrs = {"crystal": "WSe2", "of": object()}
    read = nd.read_table(nd.write_table(table, tmp_path / "deep" / f"atoms.{suffix}"), "atoms")
    tolerance = {"rtol": 1e-15} if suffix == "xlsx" else {"check_exact": True}
    pd.testing.assert_frame_equal(read, table, **tolerance)
    assert os.listdir(tmp_path / "deep") == [f"atoms.{suffix}"]


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_formulas_are_quoted_for_spreadsheets(tmp_path, suffix):
    words = ["=1+2", "+A1", "-3", "@cmd", "V_Se", "'=x", "it's"]
    table = pd.DataFrame({"species": words, "value": -np.arange(len(words))})
    path = nd.write_table(table, tmp_path / f"a.{suffix}")
    raw = pd.read_csv(path) if suffix == "csv" else pd.read_excel(path)
    assert not raw["species"].str.match(r"[=+\-@]").any()
    assert raw["value"].tolist() == table["value"].tolist()
    assert nd.read_table(path)["species"].tolist() == words


def test_sites_keep_their_empty_rows(tmp_path):
    row = {c.name: 0.0 for c in tables.SITES} | {"y_nm": np.nan, "sublattice": "N", "i": 3, "j": None}
    sites = tables.check(pd.DataFrame([row]), "sites")
    read = nd.read_table(nd.write_table(sites, tmp_path / "sites.csv"), "sites")
    pd.testing.assert_frame_equal(read, sites)


def test_wrong_tables_are_named(tmp_path):
    with pytest.raises(ValueError, match="csv, parquet or xlsx"):
        nd.write_table(atoms_table(), tmp_path / "atoms.txt")
    with pytest.raises(TypeError, match="DataFrame"):
        nd.write_table([1, 2], tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match="no table"):
        nd.read_table(tmp_path / "a.csv")
    path = nd.write_table(atoms_table(), tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"a\.csv is not a table of defects.*classify"):
        nd.read_table(path, "defects")
    for suffix in ("csv", "parquet", "xlsx"):
        (tmp_path / f"b.{suffix}").write_bytes(b"\x00\xff\x13" * 50)
        with pytest.raises(ValueError, match=rf"b\.{suffix}"):
            nd.read_table(tmp_path / f"b.{suffix}", "atoms")


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(TypeError), writing(path) as temporary:
        temporary.write_text(temporary.write_text("half"))  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_unwritable_places_end_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        nd.write_table(atoms_table(), tmp_path / "file" / "a.csv")
    with pytest.raises(OSError, match="cannot be written"):
        nd.write_table(atoms_table(), "/proc/a.csv")
    if os.path.exists("/dev/full"):
        with (
            pytest.raises(OSError, match=r"No space left.*make room"),
            writing(tmp_path / "a.csv"),
            open("/dev/full", "w") as device,
        ):
            device.write("x" * 100000)
