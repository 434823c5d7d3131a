from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_defects import Maps, Micrograph


@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.int32, ">f4", np.float64, bool])
def test_frame_is_native_float32_whatever_the_dtype(dtype):
    pixels = (np.arange(40 * 50).reshape(40, 50) % 7 > 3).astype(dtype)
    frame = Micrograph(pixels, 0.02).frame()
    assert frame.dtype == np.float32
    assert frame.dtype.isnative
    assert np.array_equal(frame, pixels.astype(float))


def test_movie_frames_from_dask_are_read_one_by_one():
    data = da.random.random((3, 40, 50), chunks=(1, 40, 50))
    movie = Micrograph(data, (0.01, 0.02))
    assert movie.is_movie
    assert movie.n_frames == 3
    assert movie.shape_yx == (40, 50)
    assert np.allclose(movie.extent_nm, (0.4, 1.0))
    assert [f.shape for f in movie.frames()] == [(40, 50)] * 3
    with pytest.raises(IndexError, match="0 to 2"):
        movie.frame(3)


def test_list_becomes_array():
    assert Micrograph([[1, 2], [3, 4]]).shape_yx == (2, 2)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (np.zeros(5), ValueError, r"\(5,\)"),
        (np.zeros((2, 2, 2, 2)), ValueError, "(frame, y, x)"),
        (np.zeros((50, 50, 3)), ValueError, "RGB"),
        (np.zeros((50, 50, 4)), ValueError, "RGB"),
        (np.zeros((0, 50)), ValueError, "empty"),
        (np.zeros((50, 50), complex), TypeError, "real numbers"),
        (np.array([["a"]]), TypeError, "real numbers"),
        (None, TypeError, "real numbers"),
    ],
)
def test_what_is_not_an_image_is_refused(data, error, words):
    with pytest.raises(error, match=words):
        Micrograph(data)


@pytest.mark.parametrize("size", [0, -0.02, 20.0, 1e-5, np.nan, np.inf, (0.02, 0.0), (0.02, 0.02, 0.02)])
def test_absurd_pixel_size_is_refused(size):
    with pytest.raises(ValueError, match="pixel_size_nm"):
        Micrograph(np.zeros((50, 50)), size)


@pytest.mark.parametrize("size", ["wide", object()])
def test_pixel_size_must_be_a_number(size):
    with pytest.raises(TypeError, match="pixel_size_nm"):
        Micrograph(np.zeros((50, 50)), size)


def test_missing_pixel_size_says_how_to_give_one():
    with pytest.raises(ValueError, match=r"pixel_size_nm=.*calibrate"):
        _ = Micrograph(np.zeros((50, 50))).pixel_size_yx_nm


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.ones((40, 40)), "constant"),
        (np.where(np.eye(40) > 0, np.nan, 1.0), "40 NaN"),
        (np.random.default_rng(0).random((16, 16)), "at least 32"),
    ],
)
def test_frames_that_cannot_be_analysed_are_refused(pixels, words):
    with pytest.raises(ValueError, match=words):
        Micrograph(pixels, 0.02).frame()


def test_with_pixel_size_leaves_the_original():
    image = Micrograph(np.zeros((50, 50)))
    assert image.with_pixel_size(0.02).pixel_size_nm == 0.02
    assert image.pixel_size_nm is None


def test_maps_by_name_and_frame():
    maps = Maps(np.random.default_rng(0).random((2, 3, 4, 5)), ("background", "W"), 0.02)
    assert maps["W"].shape == (3, 4, 5)
    assert np.array_equal(maps.frame(1), maps.data[:, 1])
    with pytest.raises(KeyError, match="Se2"):
        maps["Se2"]


@pytest.mark.parametrize(("shape", "classes"), [((2, 5), ("a", "b")), ((2, 5, 5), ("a", "b", "c"))])
def test_maps_are_checked(shape, classes):
    with pytest.raises(ValueError, match="class"):
        Maps(np.zeros(shape), classes, 0.02)


def test_masked_pixels_are_not_measured():
    pixels = np.ma.masked_less(np.arange(1600).reshape(40, 40), 5)
    with pytest.raises(ValueError, match=r"5 NaN or infinite pixel"):
        Micrograph(pixels, 0.02).frame()
    assert type(Micrograph(np.ma.asarray(pixels.data), 0.02).data) is np.ndarray


def test_values_beyond_float32_are_not_called_nan():
    with pytest.raises(ValueError, match="overflow float32"):
        Micrograph(np.arange(1600.0).reshape(40, 40) * 1e300, 0.02).frame()


@pytest.mark.parametrize("interval", [-1, 0, "a", np.nan])
def test_time_between_frames_is_positive(interval):
    with pytest.raises((ValueError, TypeError), match="`frame_interval_s` must be above 0"):
        Micrograph(np.zeros((2, 40, 40)), 0.02, interval)
