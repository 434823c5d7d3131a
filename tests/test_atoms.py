"""Columns are found where they are, with errors that are true."""

from __future__ import annotations

import columns
import numpy as np
import pytest
from scipy.spatial import cKDTree

import napari_defects as nd

SHAPE = (256, 256)
SIGMA = columns.SIGMA_NM / columns.PIXEL_NM


def located(image: np.ndarray, **options: object) -> tuple[np.ndarray, object]:
    atoms = nd.locate(nd.Micrograph(image, columns.PIXEL_NM), **options)
    return atoms[["y_nm", "x_nm"]].to_numpy() / columns.PIXEL_NM, atoms


def compare(
    found: np.ndarray, truth: np.ndarray, radius_px: float = 5.0
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Index of the nearest truth, errors, recall and precision, away from the border."""
    distance, near = cKDTree(truth).query(found)
    good = distance < radius_px
    recall = np.isin(np.flatnonzero(columns.inner(truth, SHAPE)), near[good]).mean()
    return near, found - truth[near], float(recall), float(good[columns.inner(found, SHAPE)].mean())


@pytest.mark.parametrize(("gain", "offset", "dtype"), [(1, 0, "f4"), (37.0, 1500, ">u2"), (0.004, -3.0, ">f8")])
def test_all_columns_in_any_unit(gain: float, offset: float, dtype: str) -> None:
    yx, amplitude = columns.honeycomb(SHAPE)
    vacancy = 60 + int(np.argmax(columns.inner(yx[60:], SHAPE) & (amplitude[60:] < 1)))
    amplitude[vacancy] = 0.3
    counts = np.random.default_rng(1).poisson(columns.draw(SHAPE, yx, 50 * amplitude, SIGMA, 5.0))
    found, atoms = located((counts * gain + offset).astype(dtype))
    near, _, recall, precision = compare(found, yx)
    assert recall == 1
    assert precision == 1
    assert vacancy in near
    kept = columns.inner(found, SHAPE)
    np.testing.assert_allclose(np.median(atoms["amplitude"][kept] / amplitude[near][kept]), 50 * gain, rtol=0.05)
    np.testing.assert_allclose(np.median(atoms["background"][kept]), 5 * gain + offset, atol=3 * gain)
    np.testing.assert_allclose(atoms["sigma_nm"].iloc[0], columns.SIGMA_NM, rtol=0.02)
