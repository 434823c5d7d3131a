"""The joint fit by torch agrees with that by compiled loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import columns as sample
import numpy as np
import pytest

import napari_defects as nd
from napari_defects.gaussian import Columns, Pixels, background_grid, fit_columns, measure_profile
from napari_defects.gaussian.bounds import covariance
from napari_defects.gaussian.device import DeviceEquations, DevicePixels
from napari_defects.gaussian.equations import NormalEquations
from napari_defects.gaussian.neighbors import Neighbors

SHAPE = (272, 240)


def scene(
    *, sigma: float = 5.4, aspect: float = 1.0, free: bool = False, margin_nm: float = -0.1
) -> tuple[np.ndarray, Columns]:
    """Counts of a honeycomb of columns of two widths above a slope, and a poor guess of the columns."""
    yx, kind = sample.honeycomb(SHAPE, pixel_nm=sample.SIGMA_NM / sigma, margin_nm=margin_nm)
    yx, shape, n = yx / (1.0, aspect), (SHAPE[0], int(SHAPE[1] / aspect)), len(yx)
    group = (kind < 1).astype(np.int64)
    down, right = (np.linspace(0, 1, nodes) for nodes in background_grid(shape, sigma, aspect))
    slope, width = 20 + 20 * down[:, None] + 10 * right, np.array([1.05, 0.9])[group] * sigma
    truth = Columns(yx, 200 * kind, width, np.arange(n) if free else group, slope, aspect)
    rng = np.random.default_rng(1)
    counts = rng.poisson(truth.render(shape)).astype(float)
    rough = yx + rng.normal(0, 0.2 * sigma, yx.shape) / (1.0, aspect)
    return counts, replace(truth, yx=rough, amplitude=0.8 * truth.amplitude, sigma=np.full(n, sigma), nodes=1.5 * slope)


def relative(matrix: np.ndarray, columns: Columns) -> np.ndarray:
    """Covariance in units of the errors."""
    return matrix / (columns.errors[:, :, None] * columns.errors[:, None, :])


def agree(counts: np.ndarray, start: Columns, **options: Any) -> Columns:
    """Fit by torch and by compiled loops; compare."""
    one, two = (fit_columns(counts, start, tolerance=1e-6, steps=30, device=d, **options) for d in ("cpu", None))
    assert np.abs(one.yx - two.yx).max() < 1e-3
    np.testing.assert_allclose(one.amplitude, two.amplitude, rtol=1e-3)
    np.testing.assert_allclose(one.sigma, two.sigma, rtol=1e-3)
    np.testing.assert_allclose(one.errors, two.errors, rtol=1e-3)
    np.testing.assert_allclose(relative(one.covariance, two), relative(two.covariance, two), atol=2e-3)
    assert one.deviance == pytest.approx(two.deviance, rel=1e-6)
    return one


@pytest.mark.parametrize(
    "given", [{}, {"free": True}, {"sigma": 11.0}, {"aspect": 1.25}], ids=["shared", "free", "binned", "oblong"]
)
def test_fit_agrees_with_compiled_loops(given: dict[str, Any]) -> None:
    agree(*scene(**given))


def test_fit_of_a_measured_profile_agrees() -> None:
    counts, start = scene()
    fitted = fit_columns(counts, start)
    start = replace(fitted, profile=measure_profile(counts, fitted))
    assert start.profile.terms.shape[1] > 1
    agree(counts, start, coarse=False)


@pytest.mark.parametrize("binning", [1, 3])
@pytest.mark.parametrize("free", [False, True])
def test_likelihood_and_information_agree(free: bool, binning: int) -> None:
    counts, start = scene(free=free, margin_nm=0.1)  # some columns lie beyond the edge
    counts[50, 60], counts[100, 30] = 0.0, 5000.0  # far from any model
    loops, there = (kind(counts, start.nodes.shape, binning=binning, reach=4.3) for kind in (Pixels, DevicePixels))
    (one, pull), (two, there_pull) = loops.compare(start), there.compare(start)
    assert two == pytest.approx(one, rel=1e-6)
    near, n = Neighbors(start), len(start.yx)
    equations, other = NormalEquations(loops, start, near), DeviceEquations(there, start, near)
    score, there_score = equations.gather(*loops.score(start, pull)), other.gather(*there.score(start, there_pull))
    np.testing.assert_allclose(there_score, score, atol=1e-5 * np.abs(score).max())
    np.testing.assert_allclose(other.stiffness, equations.stiffness, rtol=1e-5)
    equations.exact = other.exact = 1e-4
    steps = [e.solve(score, np.full(n, 0.01), np.full((n, e.size), 1e-3)) for e in (equations, other)]
    np.testing.assert_allclose(steps[1], steps[0], atol=3e-3 * np.abs(steps[0]).max())
    known, there_known = (covariance(p, start, near) for p in (loops, there))
    scale = replace(start, covariance=known)
    np.testing.assert_allclose(relative(there_known, scale), relative(known, scale), atol=1e-3)
    moved = replace(start, yx=start.yx + 0.1)
    assert (loops.worse(start, moved) == there.worse(start, moved)).mean() > 0.99


def test_locate_on_a_device() -> None:
    yx, height = sample.honeycomb((160, 160), margin_nm=0.1)
    image = np.random.default_rng(0).poisson(sample.draw((160, 160), yx, 200 * height, 5.4, 20))
    one, two = (nd.locate(nd.Micrograph(image, sample.PIXEL_NM), device=d) for d in ("cpu", None))
    assert len(one) == len(two) > 40
    off = one[["y_nm", "x_nm"]].to_numpy() - two[["y_nm", "x_nm"]].to_numpy()
    assert (np.abs(off) / two[["y_err_nm", "x_err_nm"]].to_numpy()).max() < 0.1
    np.testing.assert_allclose(one["y_err_nm"], two["y_err_nm"], rtol=0.01)


def test_unknown_device_is_refused() -> None:
    image = nd.Micrograph(np.ones((64, 64)), sample.PIXEL_NM)
    with pytest.raises(ValueError, match=r"`device` must be one that is there \(.*cpu\), got 'abacus'"):
        nd.locate(image, device="abacus")
