from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_defects.micrograph import Micrograph
from napari_defects.networks import inference, predict
from napari_defects.networks.validation import mean_around

from .toys import toy


def named(maps, micrograph, table):
    positions = table[["y_nm", "x_nm"]].to_numpy(float) / micrograph.pixel_size_yx_nm
    means = mean_around(maps.data, positions, 0.05 / micrograph.pixel_size_yx_nm.max())
    return float(np.mean(np.asarray(maps.classes)[means.argmax(axis=1)] == table["species"]))


@pytest.mark.parametrize("pixel_size_nm", [0.02, 0.013, 0.031, (0.02, 0.025)])
def test_names_columns_whatever_the_pixel_size(toy_model, pixel_size_nm):
    counts = 30 * float(np.prod(np.broadcast_to(pixel_size_nm, 2))) / 0.02**2
    micrograph, table = toy(77, side_px=200, pixel_size_nm=pixel_size_nm, counts=counts)
    maps = predict(micrograph, toy_model)
    assert maps.data.shape == (4, 200, 200)
    assert maps.data.dtype == np.float16
    assert np.abs(maps.data.astype(float).sum(axis=0) - 1).max() < 4e-3
    assert named(maps, micrograph, table) > 0.93


@pytest.mark.parametrize("pixel_size_nm", [0.02, 0.013])
def test_tiles_leave_no_seam(toy_model, pixel_size_nm):
    micrograph, _ = toy(78, side_px=333, pixel_size_nm=pixel_size_nm)
    whole = predict(micrograph, toy_model, tile_px=2048).data.astype(float)
    for tile_px in (64, 100, 200):
        tiled = predict(micrograph, toy_model, tile_px=tile_px).data.astype(float)
        assert np.abs(tiled - whole).max() < 1e-3
    careless = predict(micrograph, toy_model, tile_px=64, overlap_px=0).data.astype(float)
    assert np.abs(careless - whole).max() > 0.05


def test_movies_dask_and_other_types(toy_model):
    micrograph, _ = toy(79)
    other, _ = toy(80)
    single = predict(micrograph, toy_model).data
    stack = np.stack([micrograph.data, other.data])
    for data in (stack, da.from_array(stack, chunks=(1, 64, 64)), stack.astype(">u2")):
        calls: list[tuple[int, int]] = []
        maps = predict(
            Micrograph(data, 0.02), toy_model, tile_px=64, progress=lambda *now, calls=calls: calls.append(now)
        )
        assert maps.data.shape == (4, 2, 128, 128)
        assert np.abs(maps.frame(0).astype(float) - single).max() < 1e-3
        assert calls == [(k, 8) for k in range(1, 9)]


def test_hot_pixels_gain_offset_and_gradient_change_little(toy_model):
    micrograph, table = toy(81, side_px=256)
    reference = named(predict(micrograph, toy_model), micrograph, table)
    rng = np.random.default_rng(0)
    spoiled = np.array(micrograph.data) * 1234.5 - 4e4
    spoiled += np.linspace(0, 2, 256)[:, None] * spoiled.std()
    spoiled[rng.integers(256, size=6), rng.integers(256, size=6)] = 1e9
    again = named(predict(Micrograph(spoiled, 0.02), toy_model), micrograph, table)
    assert again > reference - 0.03


def test_cancelling_stops_at_the_next_tile(toy_model):
    def cancel(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        predict(toy(82)[0], toy_model, progress=cancel)


def test_bad_input_is_one_sentence(toy_model):
    micrograph, _ = toy(83)
    for arguments, message in (
        ({"tile_px": 0}, "`tile_px` must be"), ({"overlap_px": -1}, "`overlap_px` must be"),
        ({"tile_px": 64.5}, "`tile_px` must be"), ({"device": "abacus"}, "`device` must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            predict(micrograph, toy_model, **arguments)
    with pytest.raises(ValueError, match="`pixel_size_nm` is not known"):
        predict(Micrograph(micrograph.data), toy_model)
    with pytest.raises(ValueError, match="too coarse"):
        predict(Micrograph(micrograph.data, 0.4), toy_model)
    with pytest.raises(ValueError, match="pixels of the model's size"):
        predict(Micrograph(micrograph.data, 6e-4), toy_model)
    with pytest.raises(ValueError, match="shipped model"):
        predict(micrograph, "no-such-model")
    with pytest.raises(ValueError, match="NaN"):
        predict(Micrograph(np.full((64, 64), np.nan), 0.02), toy_model)


def test_a_huge_frame_is_read_part_by_part(toy_model, monkeypatch):
    micrograph, _ = toy(84, side_px=700, pixel_size_nm=0.017)
    whole = predict(micrograph, toy_model, tile_px=128)
    monkeypatch.setattr(inference, "HUGE_PX", 10**5)
    monkeypatch.setattr(inference, "MAX_BYTES", 10**5)
    monkeypatch.setattr(Micrograph, "frame", None)
    for data in (micrograph.data, da.from_array(micrograph.data, chunks=(200, 300))):
        parts = predict(Micrograph(data, 0.017), toy_model, tile_px=128)
        assert isinstance(parts.data.base, np.memmap) or isinstance(parts.data, np.memmap)
        difference = np.abs(parts.data.astype(float) - whole.data)
        assert difference.max() < 0.05  # the levels come from samples
        assert difference.mean() < 1e-3
    with pytest.raises(ValueError, match="NaN"):
        predict(Micrograph(np.full((700, 700), np.nan, np.float32), 0.017), toy_model)


def test_views_and_ensembles_tell_where_they_disagree(toy_model):
    micrograph, table = toy(85, side_px=160)
    single = predict(micrograph, toy_model)
    assert single.spread is None
    for arguments in ({"views": 2}, {"views": 8}):
        maps = predict(micrograph, toy_model, **arguments)
        assert np.abs(maps.data.astype(float).sum(axis=0) - 1).max() < 4e-3
        assert maps.spread.shape == micrograph.shape_yx
        assert 0.01 < maps.spread.max() <= 0.51
        assert named(maps, micrograph, table) >= named(single, micrograph, table) - 0.02
    sure = maps.data.max(axis=0) > 0.98
    assert maps.spread[sure].mean() < 0.2 * maps.spread[~sure].mean()
    twice = predict(micrograph, [toy_model, toy_model])
    assert np.abs(twice.data.astype(float) - single.data).max() < 1e-3
    assert twice.spread.max() < 1e-2
    for wrong, message in ((["wse2-te", toy_model], "must have the same classes"), ([], "at least one model")):
        with pytest.raises(ValueError, match=message):
            predict(micrograph, wrong)
    with pytest.raises(ValueError, match="`views` must be a whole number, 1 or more and at most 8"):
        predict(micrograph, toy_model, views=9)
