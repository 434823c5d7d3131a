"""Columns with wide tails: their shape is measured, and their places are the better for it."""

from __future__ import annotations

from dataclasses import replace

import columns as sample
import numpy as np

from napari_defects.gaussian import Columns, fit_columns, measure_ellipse, measure_profile

SHAPE, SIGMA, PEAK = (256, 256), sample.SIGMA_NM / sample.PIXEL_NM, 4000.0


def test_a_measured_shape_halves_the_error_that_tails_make() -> None:
    yx, amplitude = sample.honeycomb(SHAPE, margin_nm=-0.1)
    image = sample.draw(SHAPE, yx, 0.88 * PEAK * amplitude, SIGMA, 0.1 * PEAK)
    image += sample.draw(SHAPE, yx, 0.12 * PEAK * amplitude, 1.8 * SIGMA, 0.0)
    counts = np.random.default_rng(0).poisson(image).astype(float)
    n = len(yx)
    start = Columns(yx, PEAK * amplitude, np.full(n, SIGMA), np.zeros(n, np.int64), np.full((3, 3), 0.1 * PEAK))
    plain = shaped = fit_columns(counts, start)
    for _ in range(2):
        profile = measure_profile(counts, shaped)
        shaped = fit_columns(counts, replace(shaped, profile=profile), coarse=False)
    inner = sample.inner(yx, SHAPE)
    rms = [np.sqrt(((fit.yx - yx)[inner] ** 2).mean()) for fit in (plain, shaped)]
    assert rms[1] < 0.6 * rms[0]
    assert shaped.deviance < 0.5 * plain.deviance
    assert abs(profile.terms[0, :, 42] @ profile.terms[1, :, 42] - 1) < 0.02


def test_an_ellipse_is_found() -> None:
    yx, amplitude = sample.honeycomb(SHAPE, margin_nm=-0.1)
    matrix = np.array([[1.25, 0.2], [0.2, 0.75]])
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.full(SHAPE, 0.1 * PEAK)
    for (cy, cx), a in zip(yx, amplitude, strict=True):
        t = np.stack([y - cy, x - cx]) / SIGMA
        image += PEAK * a * np.exp(-0.5 * np.einsum("iyx,ij,jyx->yx", t, matrix, t))
    counts = np.random.default_rng(0).poisson(image).astype(float)
    n = len(yx)
    start = Columns(yx, PEAK * amplitude, np.full(n, SIGMA), np.zeros(n, np.int64), np.full((3, 3), 0.1 * PEAK))
    plain = shaped = fit_columns(counts, start)
    for _ in range(2):
        profile, found = measure_ellipse(counts, shaped)
        shaped = fit_columns(counts, replace(shaped, profile=profile), coarse=False)
    np.testing.assert_allclose(found, matrix, atol=0.02)
    assert shaped.deviance < 0.2 * plain.deviance
    inner = sample.inner(yx, SHAPE)
    np.testing.assert_allclose(shaped.amplitude[inner], PEAK * amplitude[inner], rtol=0.03)
