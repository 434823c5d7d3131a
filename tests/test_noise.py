"""Gain and offset from nothing but the image, whatever the columns do."""

from __future__ import annotations

import columns as sample
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

import napari_defects as nd

SHAPE = (384, 384)


def image(peak: float, seed: int = 0, pixel_nm: float = sample.PIXEL_NM) -> tuple[np.ndarray, np.ndarray]:
    """Counts, and what they scatter around."""
    yx, amplitude = sample.honeycomb(SHAPE, pixel_nm=pixel_nm)
    clean = sample.draw(SHAPE, yx, peak * amplitude, sample.SIGMA_NM / pixel_nm, 0.1 * peak)
    return np.random.default_rng(seed).poisson(clean).astype(float), clean


@pytest.mark.parametrize(("peak", "pixel_nm"), [(5, 0.012), (200, 0.012), (50, 0.02), (500, 0.0388)])
@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (250.0, 1500.0)])
def test_gain_of_counts(peak: float, pixel_nm: float, gain: float, offset: float) -> None:
    counts, clean = image(peak, pixel_nm=pixel_nm)
    noise = nd.noise.estimate(nd.Micrograph(gain * counts + offset, pixel_nm))
    assert noise.gain == pytest.approx(gain, rel=0.1)
    level = float(clean.mean())
    assert noise.variance(gain * level + offset) == pytest.approx(gain**2 * level, rel=0.06)
    assert noise.correlation_px == 0


def test_read_noise_adds_to_the_variance() -> None:
    counts, clean = image(20)
    read = np.random.default_rng(1).normal(0, 3, counts.shape)
    noise = nd.noise.estimate(nd.Micrograph(counts + read, sample.PIXEL_NM))
    for level in (float(clean.mean()), float(clean.max())):
        assert noise.variance(level) == pytest.approx(level + 9, rel=0.08)
    in_counts = noise.counts(counts + read)  # whose variance is their mean
    assert in_counts.mean() == pytest.approx((clean.mean() + 9) / noise.gain**2, rel=0.05)


def test_line_jitter_is_not_taken_for_noise() -> None:
    yx, amplitude = sample.honeycomb(SHAPE)
    rng = np.random.default_rng(0)
    shifted = np.concatenate(
        [sample.draw_line(y, SHAPE[1], yx + np.array([0.0, d]), 200 * amplitude, sample.SIGMA_NM / sample.PIXEL_NM, 20)
         for y, d in enumerate(rng.normal(0, 0.8, SHAPE[0]))]
    )  # fmt: skip
    noise = nd.noise.estimate(nd.Micrograph(rng.poisson(shifted).astype(float), sample.PIXEL_NM))
    assert noise.gain == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("smooth_px", [0.6, 1.0])
def test_smoothing_is_seen_through(smooth_px: float) -> None:
    counts, _ = image(50)
    noise = nd.noise.estimate(nd.Micrograph(gaussian_filter(counts, smooth_px), sample.PIXEL_NM))
    assert noise.gain == pytest.approx(1, rel=0.35)  # pixel by pixel the variance is 4 to 12 times smaller
    assert noise.correlation_px == pytest.approx(smooth_px, rel=0.25)


def test_enlarged_images_have_no_more_electrons() -> None:
    counts, _ = image(50)
    noise = nd.noise.estimate(nd.Micrograph(zoom(counts, 1.5, order=3), sample.PIXEL_NM / 1.5))
    assert noise.gain == pytest.approx(1.5**2, rel=0.25)


def test_noise_that_does_not_depend_on_the_signal() -> None:
    _, clean = image(50)
    flat = clean + np.random.default_rng(0).normal(0, 4, clean.shape)
    noise = nd.noise.estimate(nd.Micrograph(flat, sample.PIXEL_NM))
    for level in (float(clean.min()), float(clean.max())):
        assert noise.variance(level) == pytest.approx(16, rel=0.12)


@pytest.mark.parametrize("dose", [3e3, 3e4])
def test_electrons_are_counted_from_where_there_are_none(dose: float) -> None:
    quiet = nd.Detector(gain=1.0, offset=0.0, read_noise_e=0.0)
    micrograph, _ = nd.simulate(
        "WSe2", field_of_view_nm=8, pixel_size_nm=0.02, dose_e_per_A2=dose, detector=quiet, seed=3
    )
    assert nd.noise.estimate(micrograph).electrons_per_px == pytest.approx(float(micrograph.data.mean()), rel=0.06)
