"""Simulate, analyse, compare with the truth: the whole chain on small images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import KDTree

import napari_defects as nd


def matched(found, truth, within_nm):
    """Index pairs of mutual nearest neighbours."""
    distance, nearest = KDTree(truth).query(found, distance_upper_bound=within_nm)
    _, back = KDTree(found).query(truth)
    pairs = [(k, t) for k, (d, t) in enumerate(zip(distance, nearest, strict=True)) if np.isfinite(d) and back[t] == k]
    return np.array(pairs, int).reshape(-1, 2)


def inside(table, micrograph, border_nm=0.3):
    yx = table[["y_nm", "x_nm"]].to_numpy(float)
    keep = ((yx > border_nm) & (yx < micrograph.extent_nm - border_nm)).all(1)
    return table[keep].reset_index(drop=True)


def f1(defects, truth, micrograph):
    """Class-aware micro-F1, and the worst class-blind position error."""
    defects, truth = inside(defects, micrograph), inside(truth, micrograph)
    pairs = matched(defects[["y_nm", "x_nm"]].to_numpy(), truth[["y_nm", "x_nm"]].to_numpy(), 0.1)
    same = (defects["species"].to_numpy()[pairs[:, 0]] == truth["species"].to_numpy()[pairs[:, 1]]).sum()
    return 2 * same / (len(defects) + len(truth))


def check_positions(found, truth, micrograph, limit_pm):
    """Recall and precision of columns, and the RMS position error per axis."""
    found = inside(found, micrograph)[["y_nm", "x_nm"]].to_numpy()
    true = inside(truth[np.isfinite(truth["y_nm"])], micrograph)[["y_nm", "x_nm"]].to_numpy()
    pairs = matched(found, true, 0.08)
    assert len(pairs) / len(true) > 0.99
    assert len(pairs) / len(found) > 0.99
    error = found[pairs[:, 0]] - true[pairs[:, 1]]
    error -= np.median(error, axis=0)
    assert 1000 * np.sqrt((error**2).mean()) < limit_pm


def test_vacancies_by_intensity(wse2, results):
    truth = wse2.metadata["defects"]
    assert f1(results.defects, truth, wse2) >= 0.97
    counts = results.counts.set_index("species")
    for species, n in truth["species"].value_counts().items():
        assert abs(counts["count"][species] - n) <= 1
        assert counts["density_low_per_cm2"][species] <= n / 36 * 1e14 <= counts["density_high_per_cm2"][species]
    assert results.lattice.scale == pytest.approx(1, abs=0.005)


def test_columns_where_they_are():
    micrograph, truth = nd.simulate("WSe2", field_of_view_nm=6.0, pixel_size_nm=0.02, dose_e_per_A2=2e5, seed=2)
    check_positions(nd.locate(micrograph), truth, micrograph, limit_pm=6)


def test_seven_species_by_the_shipped_network():
    if nd.networks.model_for("WSe2") is None:
        pytest.skip("the weights are not there yet")
    amounts = {"V_Se": 0.03, "V2_Se": 0.01, "Te_Se": 0.03, "Te2_Se": 0.01, "V_W": 0.01, "Se_W": 0.01, "Te2_W": 0.01}
    micrograph, _ = nd.simulate("WSe2", field_of_view_nm=8.0, pixel_size_nm=0.02, defects=amounts, seed=4)
    maps = nd.predict(micrograph, "wse2-te")
    atoms = nd.locate(micrograph, maps=maps)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))
    defects = nd.classify(micrograph, sites, maps=maps)
    assert f1(defects, micrograph.metadata["defects"], micrograph) >= 0.95
