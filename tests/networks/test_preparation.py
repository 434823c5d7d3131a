from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import uniform_filter

from napari_defects.micrograph import Micrograph
from napari_defects.networks.boxes import box_mean
from napari_defects.networks.preparation import (
    draw_targets,
    grid_shape,
    normalize,
    prepare,
    resample,
    usual_range,
)


@pytest.mark.parametrize("step", [(1.0, 1.0), (1.6, 1.6), (0.63, 0.63), (2.0, 0.8)])
def test_resampling_keeps_positions(step):
    y, x = np.mgrid[:120, :140]
    blob = np.exp(-((y - 51.3) ** 2 + (x - 70.6) ** 2) / (2 * 4.0**2)).astype(np.float32)
    small = resample(blob, np.asarray(step), grid_shape(blob.shape, np.asarray(step)))
    rows, columns = np.mgrid[: small.shape[0], : small.shape[1]]
    assert (small * rows).sum() / small.sum() * step[0] == pytest.approx(51.3, abs=0.02)
    assert (small * columns).sum() / small.sum() * step[1] == pytest.approx(70.6, abs=0.02)


def test_coarsening_averages_noise():
    noise = np.random.default_rng(0).standard_normal((400, 400)).astype(np.float32)
    assert resample(noise, np.array([3.0, 3.0]), (80, 80)).std() < 0.45


def test_normalization_is_local():
    rng = np.random.default_rng(1)
    image = rng.standard_normal((300, 300)).astype(np.float32)
    image[:, 150:] = image[:, 150:] * 3 + 50
    out = normalize(image, 0.02)
    for part in (out[:, :80], out[:, -80:]):
        assert part.std() == pytest.approx(1, abs=0.2)
        assert abs(part.mean()) < 0.05


def test_quiet_places_stay_quiet():
    rng = np.random.default_rng(2)
    image = rng.standard_normal((400, 400)).astype(np.float32)
    image[:, :150] *= 0.01
    assert normalize(image, 0.02)[:, :80].std() < 0.1


def test_hot_pixels_do_not_reach_their_neighbourhood():
    rng = np.random.default_rng(3)
    image = rng.poisson(20, (300, 300)).astype(np.float32)
    hot = image.copy()
    hot[[50, 120, 200], [80, 150, 220]] = 1e6
    clean, spoiled = (prepare(Micrograph(data, 0.02), 0.02) for data in (image, hot))
    away = np.ones(clean.shape, bool)
    for y, x in ((50, 80), (120, 150), (200, 220)):
        away[y - 3 : y + 4, x - 3 : x + 4] = False
    assert np.abs(clean - spoiled)[away].max() < 0.5
    assert np.clip(hot, *usual_range(hot)).max() < 300


def test_discs_lie_where_the_table_says():
    table = pd.DataFrame({"y_nm": [0.50, np.nan, 5.0], "x_nm": [0.30, 0.2, 5.0], "species": ["W", "W", "V_W"]})
    for stem in (1, 2):
        target = draw_targets(
            table, ("background", "W", "V_W"), shape=(60, 80), pixel_size_nm=0.02, stem=stem, radius_nm=0.1
        )
        assert target.shape == (60 // stem, 80 // stem)
        assert set(np.unique(target)) == {0, 1}
        y, x = (np.nonzero(target)[axis].mean() * stem + (stem - 1) / 2 for axis in (0, 1))
        assert (y, x) == (pytest.approx(25, abs=0.3), pytest.approx(15, abs=0.3))
        assert target.astype(bool).sum() * stem**2 == pytest.approx(np.pi * 25, rel=0.15)


def test_later_class_wins_where_discs_meet():
    table = pd.DataFrame({"y_nm": [0.5, 0.5], "x_nm": [0.5, 0.5], "species": ["V_W", "W"]})
    target = draw_targets(table, ("background", "W", "V_W"), shape=(60, 60), pixel_size_nm=0.02, stem=1, radius_nm=0.1)
    assert set(np.unique(target)) == {0, 2}


@pytest.mark.parametrize("size", [3, 8, 50])
def test_box_means_are_those_of_scipy(size):
    image = np.random.default_rng(1).uniform(0, 1e4, (37, 61)).astype(np.float32)
    expected = uniform_filter(uniform_filter(image.astype(float), size, mode="reflect"), size, mode="reflect")
    assert np.allclose(box_mean(image, size, times=2), expected, rtol=1e-6)
