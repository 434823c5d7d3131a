"""The joint fit: at the bound, without bias, with errors that are true."""

from __future__ import annotations

from dataclasses import replace

import columns as sample
import numpy as np
import pytest

import napari_defects as nd
from napari_defects.gaussian import Columns, Pixels, column_misfit, fit_columns
from napari_defects.gaussian.bounds import covariance

SHAPE = (384, 384)
SIGMA = sample.SIGMA_NM / sample.PIXEL_NM


def start(yx: np.ndarray, amplitude: float, background: float, *, free: bool = False, seed: int = 0) -> Columns:
    """A poor guess: places off by a quarter of a width, one height for all, the wrong width and background."""
    n = len(yx)
    group = np.arange(n) if free else np.zeros(n, np.int64)
    rough = yx + np.random.default_rng(seed).normal(0, 0.25 * SIGMA, yx.shape)
    return Columns(rough, np.full(n, 0.7 * amplitude), np.full(n, 1.1 * SIGMA), group, np.full((4, 4), 2 * background))


def fitted(peak: float, seed: int | None, **options: bool) -> tuple[Columns, np.ndarray, np.ndarray, np.ndarray]:
    """Fit a honeycomb; return it, the errors of y and x in pixels, the truth's amplitudes and what lies inside."""
    yx, amplitude = sample.honeycomb(SHAPE, margin_nm=0.1 if seed is not None else -0.1)
    image = sample.draw(SHAPE, yx, peak * amplitude, SIGMA, 0.1 * peak)
    if seed is not None:
        image = np.random.default_rng(seed).poisson(image).astype(float)
    fit = fit_columns(image, start(yx, peak, 0.1 * peak, **options), tolerance=1e-3 if seed is not None else 1e-7)
    return fit, fit.yx - yx, amplitude, sample.inner(yx, SHAPE)


@pytest.mark.parametrize("peak", [5, 50, 200, 1000])
def test_reaches_the_bound(peak: int) -> None:
    error, pull, bound = [], [], []
    for seed in range(2):
        fit, off, amplitude, inner = fitted(peak, seed)
        error.append((off**2).mean(axis=1)[inner])
        pull.append((off / fit.errors[:, 1:])[inner])
        limit = nd.cramer_rao(
            (fit.yx - off) * sample.PIXEL_NM, peak * amplitude, sample.SIGMA_NM,
            pixel_size_nm=sample.PIXEL_NM, background=0.1 * peak,
        )  # fmt: skip
        bound.append((limit[:, 0] / sample.PIXEL_NM)[inner] ** 2)
    ratio = np.sqrt(np.concatenate(error).mean() / np.concatenate(bound).mean())
    assert 0.9 < ratio < 1.10 if peak == 5 else 0.9 < ratio < 1.06
    assert 0.94 < np.concatenate(pull).std() < 1.06
    assert np.abs(np.concatenate(pull)).max() < 6


def test_no_bias_without_noise() -> None:
    fit, off, _, inner = fitted(1000, None)
    assert np.abs(off[inner]).max() * 1000 * sample.PIXEL_NM < 0.02
    np.testing.assert_allclose(fit.sigma, SIGMA, rtol=1e-4)


@pytest.mark.parametrize(("free", "first", "second"), [(False, 9.37, 14.54), (True, 11.03, 17.16)])
def test_bound_of_the_reference_image(free: bool, first: float, second: float) -> None:
    yx, amplitude = sample.honeycomb((300, 300))
    inner = sample.inner(yx, (300, 300), 70)
    bound = nd.cramer_rao(
        yx * sample.PIXEL_NM, 400 * amplitude, sample.SIGMA_NM,
        pixel_size_nm=sample.PIXEL_NM, background=40, free_sigma=free,
    )  # fmt: skip
    per_root_count = 1000 * np.sqrt(400 * (bound[:, :2] ** 2).mean(axis=1))
    np.testing.assert_allclose(per_root_count[inner & (amplitude == 1)].mean(), first, rtol=0.025)
    np.testing.assert_allclose(per_root_count[inner & (amplitude < 1)].mean(), second, rtol=0.025)


def test_bound_of_one_column_alone() -> None:
    bound = nd.cramer_rao([[0.0, 0.0]], [400.0], 0.065, pixel_size_nm=0.012, background=40)
    np.testing.assert_allclose(bound[0, :2] * 1000 * 20, 6.29, rtol=0.02)


def test_bound_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="`amplitudes` must be positive"):
        nd.cramer_rao([[0.0, 0.0]], [-1.0], 0.065, pixel_size_nm=0.012)
    with pytest.raises(ValueError, match="`background` must not be negative"):
        nd.cramer_rao([[0.0, 0.0]], [1.0], 0.065, pixel_size_nm=0.012, background=-1)


def test_local_errors_agree_with_the_whole_matrix() -> None:
    yx, amplitude = sample.honeycomb((160, 160), margin_nm=-0.1)
    truth = Columns(yx, 100 * amplitude, np.full(len(yx), SIGMA), np.zeros(len(yx), np.int64), np.full((3, 3), 10.0))
    image = truth.render((160, 160))
    slopes = []
    for name in ("amplitude", "yx", "nodes"):
        value = getattr(truth, name)
        for k in range(value.size):
            step = np.zeros(value.shape)
            step.flat[k] = 1e-4
            slopes.append((replace(truth, **{name: value + step}).render((160, 160)) - image).ravel() / 1e-4)
    slopes.append((replace(truth, sigma=truth.sigma + 1e-4).render((160, 160)) - image).ravel() / 1e-4)
    design, n = np.array(slopes), len(yx)
    exact = np.sqrt(np.diag(np.linalg.inv(design / image.ravel() @ design.T)))[n : 3 * n].reshape(n, 2)
    local = np.sqrt(np.diagonal(covariance(Pixels(image, (3, 3)), truth), axis1=1, axis2=2))[:, 1:]
    inner = sample.inner(yx, (160, 160), 30)
    np.testing.assert_allclose(local[inner], exact[inner], rtol=0.03)


def test_free_widths_are_found() -> None:
    yx, amplitude = sample.honeycomb(SHAPE, margin_nm=-0.1)
    image = sample.draw(SHAPE, yx[amplitude == 1], 2000 * amplitude[amplitude == 1], 1.15 * SIGMA, 200)
    image += sample.draw(SHAPE, yx[amplitude < 1], 2000 * amplitude[amplitude < 1], 0.9 * SIGMA, 0)
    noisy = np.random.default_rng(0).poisson(image).astype(float)
    fit = fit_columns(noisy, start(yx, 2000, 200, free=True))
    inner = sample.inner(yx, SHAPE)
    assert fit.errors.shape == (len(yx), 4)
    truth = np.where(amplitude == 1, 1.15, 0.9) * SIGMA
    np.testing.assert_allclose(fit.sigma[inner], truth[inner], rtol=0.03)
    assert 0.9 < ((fit.sigma - truth) / fit.errors[:, 3])[inner].std() < 1.1


def test_the_deviance_never_rises() -> None:
    yx, amplitude = sample.honeycomb(SHAPE, margin_nm=0.1)
    image = np.random.default_rng(3).poisson(sample.draw(SHAPE, yx, 50 * amplitude, SIGMA, 5)).astype(float)
    begin = start(yx, 50, 5, seed=3)
    before = Pixels(image, begin.nodes.shape, reach=5.0).compare(begin)[0]
    few, many = (fit_columns(image, begin, steps=s, tolerance=1e-6).deviance for s in (2, 12))
    assert many <= few < before
    pixels, free = image.size / 4, 3 * len(yx) + begin.nodes.size  # the last pass bins 2 x 2 here
    assert many / (pixels - free) == pytest.approx(1.0, abs=0.02)


def test_misfit_names_the_column_that_is_not_one() -> None:
    yx, amplitude = sample.honeycomb(SHAPE, margin_nm=-0.1)
    image = sample.draw(SHAPE, yx, 500 * amplitude, SIGMA, 50)
    odd = int(np.argmax(sample.inner(yx, SHAPE, 100)))
    image += sample.draw(SHAPE, yx[[odd]] + np.array([0.0, 6.0]), np.array([300.0]), SIGMA, 0)
    noisy = np.random.default_rng(0).poisson(image).astype(float)
    misfit = column_misfit(noisy, fit_columns(noisy, start(yx, 500, 50)))
    assert np.argmax(misfit) == odd
    assert np.median(misfit) == pytest.approx(1.0, abs=0.05)


def test_pixels_need_not_be_square() -> None:
    yx, amplitude = sample.honeycomb((256, 256), margin_nm=-0.1)
    aspect = 1.25
    wide = yx / (1.0, aspect)
    shape = (256, int(256 / aspect))
    image = sample.draw(shape, wide, 400 * amplitude, SIGMA, 40, aspect)
    begin = start(wide, 400, 40)
    fit = fit_columns(np.random.default_rng(0).poisson(image).astype(float),
                      Columns(begin.yx, begin.amplitude, begin.sigma, begin.group, begin.nodes, aspect))  # fmt: skip
    inner = sample.inner(wide, shape)
    assert 0.85 < ((fit.yx - wide) / fit.errors[:, 1:])[inner].std() < 1.15
    np.testing.assert_allclose(fit.sigma[0], SIGMA, rtol=0.01)
