"""Scan and detector."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects.simulation.detector import Detector, Surface, smooth_noise
from napari_defects.simulation.scan import Scan, seen_at_px

SHAPE, PIXEL = (300, 400), (0.02, 0.021)


def test_seen_positions_solve_the_scan_equation() -> None:
    rng = np.random.default_rng(0)
    scan = Scan(drift_pm_per_line=(2.0, -3.0), wander_pm=80, flyback_pm=200, flyback_nm=0.4)
    distortion = scan.distortion_nm(SHAPE, PIXEL, rng)
    center = np.array([149.5, 199.5])
    points = rng.uniform(-3, 3, (500, 2))
    seen = seen_at_px(points, PIXEL, distortion, center)
    back = (seen - center) * PIXEL + distortion(seen)
    assert np.abs(back - points).max() * 1e3 < 1e-3  # pm
    assert np.abs(seen - center - points / PIXEL).max() > 5  # and the distortion is not small


def test_drift_is_what_it_says() -> None:
    distortion = Scan(drift_pm_per_line=(1.0, 2.0)).distortion_nm(SHAPE, PIXEL, np.random.default_rng(0))
    first, last = distortion(np.array([[0.0, 0.0], [300.0, 0.0]]))
    np.testing.assert_allclose(last - first, [0.3, 0.6])


def test_rotation_turns_x_towards_y() -> None:
    np.testing.assert_allclose(np.array([0.0, 1.0]) @ Scan(rotation_deg=90).rotation(), [1.0, 0.0], atol=1e-12)


def test_jitter_has_its_size_and_memory() -> None:
    shift = Scan(jitter_pm=10, jitter_memory=0.6).row_shift_px(20000, 0.02, np.random.default_rng(0))
    assert shift is not None
    assert shift.std() * 20 == pytest.approx(10, rel=0.05)
    assert np.corrcoef(shift[1:], shift[:-1])[0, 1] == pytest.approx(0.6, abs=0.03)
    assert Scan().row_shift_px(10, 0.02, np.random.default_rng(0)) is None


def test_beam_trembles_along_lines_and_anew_in_each() -> None:
    ramp = np.add.outer(np.zeros(300), np.arange(400.0))
    moved = Scan(tremor_pm=10, tremor_nm=0.5).trembling(ramp, (0.02, 0.025), np.random.default_rng(0)) - ramp
    inner = moved[:, 20:-20] * 25
    assert inner.std() == pytest.approx(10, rel=0.02)
    assert np.corrcoef(inner[:, 20:].ravel(), inner[:, :-20].ravel())[0, 1] == pytest.approx(np.exp(-1), abs=0.02)
    assert np.corrcoef(inner[1:].ravel(), inner[:-1].ravel())[0, 1] == pytest.approx(0, abs=0.02)
    still, atoms = nd.simulate("WSe2", field_of_view_nm=4, seed=1)
    trembling, same = nd.simulate("WSe2", field_of_view_nm=4, seed=1, scan=Scan(tremor_pm=10))
    pd.testing.assert_frame_equal(atoms, same)
    assert 0 < (trembling.frame() - still.frame()).std() < 2 * np.sqrt(2 * still.frame().mean())


def test_current_varies_slowly_around_one() -> None:
    current = np.stack([Scan(current_variation=0.05).current(256, np.random.default_rng(k)) for k in range(200)])
    assert current.mean() == pytest.approx(1, abs=0.01)
    assert current.std() == pytest.approx(0.05, rel=0.2)
    assert np.abs(np.diff(current, axis=1)).max() < 0.03


def test_detector_counts_and_calibrates() -> None:
    rng = np.random.default_rng(0)
    image = Detector(gain=3.0, offset=100.0, read_noise_e=2.0).read(np.full((400, 400), 20.0), rng)
    assert image.dtype == np.float32
    assert image.mean() == pytest.approx(160, abs=0.2)
    assert image.var() == pytest.approx(9 * (20 + 4), rel=0.02)


def test_detector_integers_saturate() -> None:
    expected = np.linspace(0, 500, 10000).reshape(100, 100)
    image = Detector(dtype="uint8", saturation_e=200).read(expected, np.random.default_rng(0))
    assert image.dtype == np.uint8
    assert image.max() == 200
    spiked = Detector(hot_pixels=0.01, read_noise_e=0).read(np.ones((200, 200)), np.random.default_rng(0))
    assert 100 < (spiked > 6).sum() < 450


def test_smooth_noise_has_unit_variance_and_its_length() -> None:
    for length in (0.3, 3.0):
        field = smooth_noise((400, 500), (0.02, 0.02), length, np.random.default_rng(1))
        assert field.shape == (400, 500)
        assert field.std() == pytest.approx(1, abs=0.01)
        lag = int(length / 0.02)
        near, far = (np.corrcoef(field[:, k:].ravel(), field[:, :-k].ravel())[0, 1] for k in (lag // 8 + 1, lag))
        assert near > 0.8
        assert far < 0.35


def test_surface_has_its_mean_and_its_holes() -> None:
    rng = np.random.default_rng(2)
    layer = Surface(contamination=1.5).layer((200, 300), PIXEL, rng)
    assert layer is not None
    assert layer.mean() == pytest.approx(1.5, rel=1e-3)
    assert layer.min() >= 0
    assert Surface().layer((200, 300), PIXEL, rng) is None
    points = rng.uniform(-5, 5, (20000, 2))
    kept = Surface(holes=1, hole_radius_nm=1.0).flake(np.array([4.0, 4.0]), rng)(points)
    assert (~kept).mean() * 100 == pytest.approx(np.pi, rel=0.25)


@pytest.mark.parametrize(
    "make",
    [lambda: Scan(jitter_pm=-1), lambda: Scan(jitter_memory=1.0), lambda: Scan(flyback_nm=0), lambda: Scan(tremor_nm=0),
     lambda: Detector(gain=0), lambda: Detector(read_noise_e=-1), lambda: Detector(dtype="complex64"),
     lambda: Scan(jitter_pm=np.nan), lambda: Scan(rotation_deg="a"), lambda: Scan(drift_pm_per_line=1.0),
     lambda: Detector(gain=np.nan), lambda: Detector(offset=None), lambda: Surface(holes=0.5),
     lambda: nd.Microscope(energy_keV="80"), lambda: nd.Microscope(aberrations=None),
     lambda: nd.Aberrations(C10_nm=np.nan),
     lambda: Detector(hot_pixels=2), lambda: Surface(contamination=-1), lambda: Surface(patch_radius_nm=0)],
)  # fmt: skip
def test_nonsense_is_refused(make: object) -> None:
    with pytest.raises((ValueError, TypeError), match="must be"):
        make()  # type: ignore[operator]


def test_afterglow_and_line_noise_leave_their_marks() -> None:
    rng = np.random.default_rng(0)
    expected = np.full((300, 300), 50.0)
    glow = Detector(read_noise_e=0, afterglow=0.3).read(expected, rng).astype(float)
    assert np.corrcoef(glow[:, 51:].ravel(), glow[:, 50:-1].ravel())[0, 1] == pytest.approx(0.3, abs=0.02)
    assert glow[:, 50:].mean() == pytest.approx(50, rel=0.01)
    lines = Detector(read_noise_e=0, line_noise_e=3).read(expected, rng).mean(axis=1)
    assert lines.std() == pytest.approx(3, rel=0.15)
