"""Line jitter is found, taken out where the columns allow, and counted in the errors where not."""

from __future__ import annotations

import columns as sample
import numpy as np
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.atoms import line_offsets
from napari_defects.atoms.jitter import straighten

SHAPE = (384, 384)
SIGMA = sample.SIGMA_NM / sample.PIXEL_NM


def along_x(jitter_pm: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Errors of x and their 1 sigma in pm, and the jitter found, of a planted honeycomb."""
    yx, amplitude = sample.honeycomb(SHAPE)
    rng = np.random.default_rng(5)
    offsets = rng.normal(0, jitter_pm / 1000 / sample.PIXEL_NM, SHAPE[0])
    lines = [
        sample.draw_line(y, SHAPE[1], yx + np.array([0.0, d]), 400 * amplitude, SIGMA, 40)
        for y, d in enumerate(offsets)
    ]
    atoms = nd.locate(nd.Micrograph(rng.poisson(np.concatenate(lines)).astype(float), sample.PIXEL_NM))
    found = atoms[["y_nm", "x_nm"]].to_numpy() / sample.PIXEL_NM
    distance, near = cKDTree(yx).query(found)
    good = (distance < 5) & sample.inner(found, SHAPE)
    off = (found - yx[near])[good, 1] * sample.PIXEL_NM * 1000
    return off, atoms["x_err_nm"].to_numpy()[good] * 1000, atoms.attrs["line_jitter_pm"][0]


def test_jitter_is_measured_and_removed() -> None:
    off, error, strength = along_x(8.0)
    assert abs(strength - 8) < 0.8
    # left alone, 8 pm on each line would move a column by 2.2 pm; 28 columns cross a line here
    assert off.std() < 1.75
    assert 0.75 < (off / error).std() < 1.25


def test_no_jitter_is_invented() -> None:
    off, error, strength = along_x(0.0)
    assert strength < 1.0
    assert 0.9 < (off / error).std() < 1.1


def test_straighten_moves_lines_and_keeps_noise() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, (40, 200))
    offset = rng.normal(0, 0.7, 40)
    moved = straighten(image, offset)
    np.testing.assert_allclose(moved.std(), image.std(), rtol=0.03)
    shape = 30 + 5 * np.exp(-0.5 * ((np.arange(200) - 90 - offset[:, None]) / 4) ** 2)
    straight = 30 + 5 * np.exp(-0.5 * ((np.arange(200) - 90) / 4) ** 2)
    np.testing.assert_allclose(straighten(shape, offset), np.tile(straight, (40, 1)), atol=1e-3)


def test_mains_hum_stands_out_of_the_spectrum() -> None:
    yx, amplitude = sample.honeycomb(SHAPE)
    rng = np.random.default_rng(1)
    hum = 6.0 * np.sin(2 * np.pi * 0.21 * np.arange(SHAPE[0]) + 0.4) + rng.normal(0, 2.0, SHAPE[0])
    lines = [
        sample.draw_line(y, SHAPE[1], yx + np.array([0.0, d]), 800 * amplitude, SIGMA, 80)
        for y, d in enumerate(hum / 1000 / sample.PIXEL_NM)
    ]
    micrograph = nd.Micrograph(rng.poisson(np.concatenate(lines)).astype(float), sample.PIXEL_NM)
    found = line_offsets(micrograph, nd.locate(micrograph), line_time_s=0.01)
    spectrum = found.attrs["spectrum"]
    top = spectrum.loc[spectrum["amplitude_pm"].idxmax()]
    assert abs(top["frequency_Hz"] - 21) < 0.5
    assert abs(top["amplitude_pm"] - 6) < 1.5
    assert top["above"] > 20
    assert np.corrcoef(found["offset_pm"], hum)[0, 1] > 0.65  # single lines are noisy: few columns cross one here
