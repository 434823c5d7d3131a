from __future__ import annotations

import numpy as np
import pytest
from planted import sites_of

import napari_defects as nd
from napari_defects import eshelby
from napari_defects.deformation import displacements
from napari_defects.eshelby import oscillation

TENSOR = np.array([[0.02, 0.007], [0.007, -0.013]])
NU, R = 0.19, 0.31


def gradient(f, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """d f / d x_j in the last axis."""
    return np.stack([(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(2)], -1)


def stress(x: np.ndarray, plane: eshelby.Plane) -> np.ndarray:
    """Stress / shear modulus, from the elastic part of the strain."""
    kappa = (3 - NU) / (1 + NU) if plane == "stress" else 3 - 4 * NU
    inside = (np.linalg.norm(x, axis=-1) < R)[..., None, None]
    e = eshelby.strain_tensor(x, TENSOR, R, poisson_ratio=NU, plane=plane) - np.where(inside, TENSOR, 0)
    trace = np.trace(e, axis1=-2, axis2=-1)[..., None, None]
    return 2 * e + (3 - kappa) / (kappa - 1) * trace * np.eye(2)


@pytest.mark.parametrize("plane", ["stress", "strain"])
def test_field_is_the_solution_of_elasticity(plane: eshelby.Plane):
    angle = np.linspace(0, 2 * np.pi, 17)
    n = np.stack([np.sin(angle), np.cos(angle)], -1)

    def u(x: np.ndarray) -> np.ndarray:
        return eshelby.displacement(x, TENSOR, R, poisson_ratio=NU, plane=plane)

    np.testing.assert_allclose(u(n * (R - 1e-12)), u(n * (R + 1e-12)), atol=1e-12)
    inner, outer = (np.einsum("nab,nb->na", stress(n * (R + d), plane), n) for d in (-1e-9, 1e-9))
    np.testing.assert_allclose(inner, outer, atol=1e-8)
    for radius in (0.5 * R, 1.3 * R, 4 * R):
        x = n * radius + 0.01
        slope = gradient(u, x)
        closed = eshelby.strain_tensor(x, TENSOR, R, poisson_ratio=NU, plane=plane)
        np.testing.assert_allclose(closed, (slope + np.swapaxes(slope, -1, -2)) / 2, atol=1e-9)
        divergence = np.trace(gradient(lambda p: stress(p, plane), x), axis1=-2, axis2=-1)
        np.testing.assert_allclose(divergence, 0, atol=1e-7)


def test_dilatational_limits_of_physics():
    t = 0.03
    inside = eshelby.strain_tensor(np.zeros((1, 2)), t, R, poisson_ratio=NU)[0]
    np.testing.assert_allclose(inside, (1 + NU) * t / 2 * np.eye(2), atol=1e-15)
    y, x = 0.7, -0.4
    c, r2 = (1 + NU) * t * R**2 / 2, y**2 + x**2
    e = eshelby.strain_tensor(np.array([y, x]), t, R, poisson_ratio=NU)
    np.testing.assert_allclose(e[1, 1], c * (y**2 - x**2) / r2**2)
    np.testing.assert_allclose(e[0, 1], -2 * c * x * y / r2**2)
    assert np.trace(e) == pytest.approx(0, abs=1e-18)
    deviatoric = eshelby.strain_tensor(np.array([y, x]), TENSOR - np.trace(TENSOR) / 2 * np.eye(2), R)
    assert abs(np.trace(deviatoric)) > 1e-4


def test_planted_c_is_recovered_with_its_error():
    c = -6e-4
    pulls, chi2, flags = [], [], []
    for seed in range(60):
        sites = sites_of(
            reach_nm=1.1, sigma_pm=0.4, center="Se", seed=seed,
            field_pm=lambda x: 1000 * c * x / np.maximum((x**2).sum(1, keepdims=True), 0.01) + 3.0,
        )  # fmt: skip
        fit = nd.fit_eshelby(nd.displacements(sites), (0, 0), n_null=400)
        pulls.append((fit.c_nm2 - c) / fit.c_err_nm2)
        chi2.append(fit.p_value)
        flags.append(fit.oscillation.p_value)
    assert abs(np.mean(pulls)) < 0.4
    assert np.std(pulls) == pytest.approx(1, abs=0.25)
    assert 0.3 < np.mean(chi2) < 0.7
    assert np.mean(np.array(flags) < 0.05) < 0.15
    assert np.isnan(fit.radius_nm)
    assert fit.poisson_ratio == nd.WSE2.poisson_ratio
    inside = np.array([[0.5, 0.2]])
    np.testing.assert_allclose(fit.displacement_pm(inside), 1000 * fit.c_nm2 * inside / 0.29, rtol=1e-9)
    np.testing.assert_allclose(fit.strain(inside)["exx"], fit.c_nm2 * (0.25 - 0.04) / 0.29**2, rtol=1e-3)


def test_chance_of_a_chi_square_of_noise_that_columns_share():
    """Noise of neighbours is alike, and known only from the deviations of 24 parts: p is still uniform."""
    values = {True: [], False: []}
    for seed in range(60):
        sites = sites_of(reach_nm=1.1, sigma_pm=0.4, center="Se", seed=seed)
        place = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
        away = np.linalg.norm(place[:, None] - place, axis=2)
        spread = np.linalg.cholesky(0.3 * np.eye(len(place)) + 0.7 * np.exp(-away / 0.3))
        rng = np.random.default_rng(seed)
        parts = 0.4 * np.sqrt(24) * np.einsum("kl,plb->pkb", spread, rng.normal(size=(24, len(place), 2)))
        table = nd.displacements(sites, fit="none")
        table[["uy_pm", "ux_pm"]] = parts.mean(0)
        signs = rng.choice([-1.0, 1.0], (500, 24)) * np.sqrt(23 / 21 / 23 / 24)
        draws = np.einsum("np,pkb->nkb", signs, parts - parts.mean(0))
        for known, given in ((True, draws), (False, None)):
            values[known].append(nd.fit_eshelby(table, draws_pm=given, n_null=1).p_value)
    by_draws, by_columns = (np.array(values[known]) for known in (True, False))
    assert 0.4 < by_draws.mean() < 0.6
    assert np.mean(by_draws < 0.2) == pytest.approx(0.2, abs=0.12)
    assert np.mean(by_draws < 0.05) < 0.12
    assert by_columns.mean() > 0.62, "columns are not independent"


def test_general_eigenstrain_and_radius():
    def field(x: np.ndarray) -> np.ndarray:
        return 1000 * eshelby.displacement(x, TENSOR, 0.3, poisson_ratio=NU)

    table = displacements(sites_of(reach_nm=2.0, sigma_pm=0.02, field_pm=field), fit="none")
    fit = nd.fit_eshelby(table, eigenstrain="general", exclude_nm=0.35, poisson_ratio=NU)
    t, dxx = np.trace(TENSOR) / 2, (TENSOR[1, 1] - TENSOR[0, 0]) / 2
    assert fit.c_nm2 == pytest.approx((1 + NU) * t * 0.09 / 2, abs=5 * fit.c_err_nm2)
    np.testing.assert_allclose(fit.deviator_nm2, 0.09 * np.array([dxx, 0.007]), atol=5 * fit.deviator_err_nm2.max())
    assert fit.radius_nm == pytest.approx(0.3, abs=max(4 * fit.radius_err_nm, 0.02))
    x = np.array([[0.6, -0.3], [0.1, 0.9]])
    np.testing.assert_allclose(fit.displacement_pm(x), field(x), atol=0.05)
    e = eshelby.strain_tensor(x, TENSOR, 0.3, poisson_ratio=NU)
    np.testing.assert_allclose(fit.strain(x)["exy"], e[:, 0, 1], atol=1e-4)


def test_oscillation_is_found_with_its_wavelength():
    def field(x: np.ndarray) -> np.ndarray:
        r = np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 0.05)
        return x / r * (-0.6 / r + 2.0 * np.cos(2 * np.pi * r / 0.6) * np.exp(-r / 0.8))

    sites = sites_of(reach_nm=1.3, sigma_pm=0.3, center="Se", field_pm=field)
    fit = nd.fit_eshelby(nd.displacements(sites))
    wave = fit.oscillation
    assert wave.p_value < 1e-3
    assert fit.p_value < 1e-3
    assert wave.p_value < 1e-6
    assert abs(wave.wavelength_nm - 0.6) < max(4 * wave.wavelength_err_nm, 0.02)
    r = np.linspace(0.35, 1.2, 50)
    planted = 2.0 * np.cos(2 * np.pi * r / 0.6) * np.exp(-r / 0.8)
    found = np.cos(2 * np.pi * r / wave.wavelength_nm + wave.phase_rad) * np.exp(-r / wave.decay_nm)
    assert np.corrcoef(found, planted)[0, 1] > 0.9


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="exclude_nm"):
        nd.fit_eshelby(nd.displacements(sites_of(reach_nm=0.6, sigma_pm=0.1)), exclude_nm=0.55)
    with pytest.raises(ValueError, match="strain\\(\\) first"):
        nd.fit_eshelby(sites_of())
    with pytest.raises(ValueError, match="poisson_ratio"):
        eshelby.displacement(np.ones(2), 0.1, 0.3, poisson_ratio=2)
    with pytest.raises(ValueError, match="eigenstrain"):
        eshelby.displacement(np.ones(2), [[1, 2], [3, 4]], 0.3)


def test_symmetric_copies_are_not_counted_as_independent():
    table = nd.displacements(sites_of(reach_nm=1.1, sigma_pm=0.3, center="Se"))
    alone = nd.fit_eshelby(table, n_null=200)
    table.attrs["copies"] = 6
    copied = nd.fit_eshelby(table, n_null=200)
    assert copied.c_err_nm2 == pytest.approx(np.sqrt(6) * alone.c_err_nm2)
    assert copied.chi2 == pytest.approx(alone.chi2 / 6)


def test_p_value_goes_on_beyond_the_draws():
    rng = np.random.default_rng(0)
    for trials in (1, 10, 40):
        nulls = np.sort(rng.chisquare(2, (2000, trials)).max(1))
        for gain in (12.0, 25.0, 40.0):
            truth = 1 - (1 - np.exp(-gain / 2)) ** trials
            assert np.log(oscillation._p_value(gain, nulls) / truth) == pytest.approx(0, abs=0.7)
