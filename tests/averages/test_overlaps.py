"""Neighbouring fields taken apart: unit by unit, and C at 3 % of the sites."""

from __future__ import annotations

import numpy as np
import pytest
from planted import sites_of

import napari_defects as nd
from napari_defects.averages.overlaps import Field, Sources
from napari_defects.averages.surroundings import Reference
from napari_defects.crystals import WSE2
from napari_defects.simulation import Relaxation

C = -1.1e-3


def pull(x: np.ndarray) -> np.ndarray:
    return 1000 * C * x / np.maximum((x**2).sum(-1, keepdims=True), 0.02)


def test_a_field_is_what_was_measured_and_falls_off_beyond():
    field = Field.of(sites_of(reach_nm=1.0, field_pm=pull, sigma_pm=0.01, center="Se"), WSE2, "Se")
    assert field.c_nm2 == pytest.approx(C, rel=0.01)
    near = np.array([[0.0, WSE2.a_nm], [0.0, -2 * WSE2.a_nm]])
    np.testing.assert_allclose(field(near), pull(near) / 1000, atol=5e-5)
    far = np.array([[1.6, -2.1]])
    np.testing.assert_allclose(field(far), C * far / (far**2).sum(), rtol=0.02)
    assert not field(np.zeros((1, 2))).any()


def test_fields_add_in_the_frame_of_the_image_but_for_ones_own():
    field = Field.of(sites_of(reach_nm=1.0, field_pm=pull, sigma_pm=0.01, center="Se"), WSE2, "Se")
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    centers = np.array([[0.0, 0.0], [5.0, 0.0]])
    sources = Sources(np.zeros(2, int), np.array([7, 8]), centers, np.stack([turn] * 2), np.array(["V_Se"] * 2, object))
    points = np.array([[2.5, 0.0], [2.5, 2.0]])
    total = sources.sum(points, np.zeros(2, int), {"V_Se": field})
    assert total[0] == pytest.approx([0, 0], abs=1e-6), "in the middle between two"
    both = sum(C * (points[1] - c) / ((points[1] - c) ** 2).sum() for c in centers)
    np.testing.assert_allclose(total[1], both, rtol=0.02, atol=1e-9)
    alone = sources.sum(points, np.zeros(2, int), {"V_Se": field}, np.array([0, 1]), np.array([[0, 7], [1, 7]]))
    np.testing.assert_allclose(alone[0], C * (points[0] - centers[1]) / 2.5**2, rtol=0.02, atol=1e-9)


def test_a_reference_follows_lattice_and_drift():
    cells = np.array([(i, j) for i in range(25) for j in range(25)], float)
    straight = cells @ WSE2.vectors_nm + [1, 2]
    drifted = straight + 0.004 * np.sin(straight[:, :1] / 2) * [0.3, 1]
    assert np.abs(Reference.fit(cells, drifted)(cells) - drifted).max() < 3e-4


@pytest.fixture(scope="module")
def crowded():
    """A field of 3 % vacancies that all pull."""
    micrograph, sites = nd.simulate(
        "WSe2", field_of_view_nm=14.0, pixel_size_nm=0.02, defects={"V_Se": 0.03}, dose_e_per_A2=4e5, seed=2,
        relaxation={"V_Se": Relaxation(-6.0)},
    )  # fmt: skip
    return micrograph, sites


def test_errors_hold_the_noise_that_separating_adds(crowded):
    micrograph, sites = crowded
    one = nd.average(micrograph, micrograph.metadata["defects"], sites=sites)["V_Se"]
    stated, drawn = one.strain()[["uy_err_pm", "ux_err_pm"]].to_numpy(), one.draws(400).std(axis=0)
    known = np.isfinite(stated).all(axis=1) & (drawn > 0).all(axis=1)
    assert np.mean(drawn[known] / stated[known]) == pytest.approx(1, abs=0.06)


def test_many_vacancies_do_not_weaken_each_other(crowded):
    micrograph, sites = crowded
    results = {}
    for overlap in (False, True):
        found = nd.average(micrograph, micrograph.metadata["defects"], sites=sites, overlap=overlap)["V_Se"]
        fit = nd.fit_eshelby(found.strain(), exclude_nm=0.1, draws_pm=found.draws(400))
        results[overlap] = fit.c_nm2 / (-6e-3 * WSE2.nearest_neighbor_nm)
    assert results[False] < 0.96
    assert results[True] == pytest.approx(1, abs=0.05)
    whole = found.precision[found.precision["n"] == found.n]
    assert (whole["precision_pm"] / whole["bound_pm"]).between(0.85, 2.0).all()


def test_lines_that_the_lattice_has_bent_are_no_displacement(crowded):
    micrograph, sites = crowded
    defects = micrograph.metadata["defects"]
    bent = sites.assign(y_ideal_nm=sites["y_ideal_nm"] + 0.003 * np.sin(2 * np.pi * sites["x_ideal_nm"] / 4.0))
    bent.attrs = dict(sites.attrs)
    straight, curved = (nd.average(micrograph, defects, sites=t, radius_nm=0.7)["V_Se"] for t in (sites, bent))
    moved = 1000 * (curved.sites[["y_nm", "x_nm"]] - straight.sites[["y_nm", "x_nm"]]).to_numpy()
    assert np.nanstd(moved, axis=0).max() < 0.15
