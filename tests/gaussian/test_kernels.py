"""Quick ways of working things out agree with slow and plain ones."""

from __future__ import annotations

from dataclasses import replace

import columns as sample
import numpy as np
import pytest

from napari_defects.gaussian import Columns, Pixels, covariance, equations, kernels, pixels
from napari_defects.gaussian.neighbors import Neighbors

SHAPE = (150, 170)
SIGMA = sample.SIGMA_NM / sample.PIXEL_NM


def honeycomb(*, free: bool = False) -> Columns:
    yx, amplitude = sample.honeycomb(SHAPE, margin_nm=-0.1)
    n = len(yx)
    group = np.arange(n) if free else np.zeros(n, np.int64)
    return Columns(yx, 100 * amplitude, np.full(n, SIGMA), group, np.full((3, 4), 10.0))


@pytest.mark.parametrize(("mean", "shift"), [(0.3, 0), (5, 3), (100, 0), (1e5, 0)])
def test_deviance_is_that_of_the_formula(mean: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    model = rng.uniform(0.5 * mean, 2 * mean, (40, 130))
    counts = rng.poisson(model) - shift
    floor = 1e-3 * np.abs(counts).mean()
    deviance, pull = kernels.misfit(counts.astype(np.float32), model.astype(np.float32), floor)
    expected = 2 * np.sum(model - counts + counts * np.log(np.maximum(counts, floor) / model))
    assert deviance == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(pull, counts / model - 1, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("binning", [1, 3])
def test_windows_hold_gaussians_and_their_slopes(binning: int) -> None:
    columns = honeycomb()
    shape = tuple(n // binning for n in SHAPE)
    windows = columns.windows(shape, binning, 4.0)
    k = len(columns.yx) // 2
    at = binning * (windows.x[k] + np.arange(windows.fx.shape[3]))[:, None] + np.arange(binning)
    t = (at - columns.yx[k, 1]) / SIGMA
    bell = np.exp(-0.5 * t**2)
    inside = np.abs(at.mean(axis=1) - columns.yx[k, 1]) <= 4 * SIGMA
    for kind, value in enumerate((bell, t * bell / SIGMA, t**2 * bell / SIGMA)):
        np.testing.assert_allclose(windows.fx[k, 0, kind], value.mean(axis=1) * inside, atol=2e-7)


@pytest.mark.parametrize("free", [False, True])
def test_a_step_solves_the_normal_equations(free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_EXACT", "_EXACT_FREE"):
        monkeypatch.setattr(equations, name, 1e-5)
    columns = honeycomb(free=free)
    image = Pixels(columns.render(SHAPE), columns.nodes.shape)
    normal = equations.NormalEquations(image, columns, Neighbors(columns))
    slopes, step, size = [], 1e-3, normal.size
    shapes = [("amplitude", ()), ("yx", (0,)), ("yx", (1,)), ("sigma", ())][:size]
    for k in range(len(columns.yx)):
        for name, place in shapes:
            slopes.append(_slope(columns, name, (k, *place), step))
    if not free:
        slopes.append((replace(columns, sigma=columns.sigma + step).render(SHAPE) - columns.render(SHAPE)) / step)
    slopes += [_slope(columns, "nodes", (a, b), step) for a, b in np.ndindex(columns.nodes.shape)]
    design = np.array(slopes).reshape(len(slopes), -1)
    dense = design / columns.render(SHAPE).ravel() @ design.T
    trust = np.full((len(columns.yx), size), 1e-3)
    damping = np.zeros(len(columns.yx))
    dense[: trust.size, : trust.size] += np.diag(trust.ravel())
    truth = np.random.default_rng(0).normal(0, 1, len(dense)) / np.sqrt(np.diag(dense))
    found = normal.solve(dense @ truth, damping, trust)
    off = found - truth
    assert off @ dense @ off < 0.015**2 * (truth @ dense @ truth)


def _slope(columns: Columns, name: str, place: tuple[int, ...], step: float) -> np.ndarray:
    value = getattr(columns, name).copy()
    value[place] += step
    return (replace(columns, **{name: value}).render(SHAPE) - columns.render(SHAPE)) / step


def test_few_pixels_give_the_same_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = honeycomb()
    image = Pixels(columns.render(SHAPE), columns.nodes.shape)
    few = replace(columns, covariance=covariance(image, columns)).errors
    monkeypatch.setattr(pixels, "_SAMPLED", np.inf)
    every = replace(columns, covariance=covariance(image, columns)).errors
    inner = sample.inner(columns.yx, SHAPE, 25)
    np.testing.assert_allclose(few[inner], every[inner], rtol=0.004)
    seen = sample.inner(columns.yx, SHAPE, 2)
    np.testing.assert_allclose(few[seen], every[seen], rtol=0.06)
