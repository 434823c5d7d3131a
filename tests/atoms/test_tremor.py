"""Beams that tremble, and lines whose jitter lasts: stated errors say how far columns were moved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

import napari_defects as nd

PIXEL_NM = 0.0125


def located(scan: nd.Scan) -> tuple[np.ndarray, np.ndarray, dict[str, list[float]]]:
    """Errors of y and x and their 1 sigma in pm, a common offset of each sublattice left out, and the attributes."""
    image, sites = nd.simulate(
        "WSe2", field_of_view_nm=5, pixel_size_nm=PIXEL_NM, dose_e_per_A2=8.7e4, seed=40, scan=scan
    )
    atoms, truth = nd.locate(image), sites.dropna(subset=["y_nm"])
    found, true = (table[["y_nm", "x_nm"]].to_numpy() for table in (atoms, truth))
    distance, near = cKDTree(true).query(found)
    good = (distance < 0.06) & ((found > 0.3) & (found < 4.7)).all(axis=1)
    off, kind = 1000 * (found - true[near])[good], truth["sublattice"].to_numpy(str)[near][good]
    for name in np.unique(kind):
        off[kind == name] -= np.median(off[kind == name], axis=0)
    return off, 1000 * atoms[["y_err_nm", "x_err_nm"]].to_numpy()[good], atoms.attrs


def test_tremor_is_in_the_errors() -> None:
    off, error, notes = located(nd.Scan(rotation_deg=12, tremor_pm=8))
    assert notes["tremor_pm"][0] == pytest.approx(7, abs=1.2)  # a column is too wide to see all of it
    assert np.median(error) > 1.5  # counting noise alone: 1.0
    np.testing.assert_allclose((off / error).std(axis=0), 1, atol=0.2)


@pytest.mark.parametrize("scan", [nd.Scan(rotation_deg=12), nd.Scan(rotation_deg=12, jitter_pm=6)])
def test_neither_counting_noise_nor_line_jitter_is_tremor(scan: nd.Scan) -> None:
    assert located(scan)[2]["tremor_pm"] == [0.0]


def test_jitter_that_lasts_moves_columns_more() -> None:
    off, error, notes = located(nd.Scan(rotation_deg=12, jitter_pm=8, jitter_memory=0.7))
    assert notes["line_jitter_pm"][0] == pytest.approx(8, abs=2.5)
    assert np.median(error[:, 1]) > 1.5
    np.testing.assert_allclose((off / error).std(axis=0), 1, atol=0.3)
