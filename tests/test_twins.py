"""match(): the conditions of simulated images, found again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import napari_defects as nd
from napari_defects.twins import match
from napari_defects.twins.leftovers import counted, flicker_of, speckle_of, variance_line


@pytest.mark.parametrize(
    ("source_nm", "rotation_deg", "pixel_nm", "dose"), [(0.06, 17.0, 0.021, 2e5), (0.11, -9.0, 0.016, 6e4)]
)
def test_conditions_are_found_again(source_nm: float, rotation_deg: float, pixel_nm: float, dose: float) -> None:
    micrograph, _ = nd.simulate(
        "WSe2",
        field_of_view_nm=320 * pixel_nm,
        pixel_size_nm=pixel_nm,
        defects={"V_Se": 0.03, "Te_Se": 0.02},
        microscope=nd.Microscope(source_fwhm_nm=source_nm),
        scan=nd.Scan(rotation_deg=rotation_deg, drift_pm_per_line=(0.2, -0.3), jitter_pm=5),
        detector=nd.Detector(gain=40, offset=300, read_noise_e=1.0),
        dose_e_per_A2=dose,
        seed=2,
    )
    done: list[tuple[int, int]] = []
    twin = match(nd.Micrograph(micrograph.data, 1.03 * pixel_nm), "WSe2", progress=lambda *p: done.append(p))
    assert done[-1] == (3, 3)
    assert twin.pixel_size_nm == pytest.approx(pixel_nm, rel=2e-3)
    assert (twin.scan.rotation_deg - rotation_deg + 60) % 120 - 60 == pytest.approx(0, abs=0.1)
    assert twin.scan.drift_pm_per_line == pytest.approx((0.2, -0.3), abs=0.06)
    assert twin.scan.jitter_pm == pytest.approx(5, abs=1)
    assert twin.scan.tremor_pm < 2
    assert twin.microscope.source_fwhm_nm == pytest.approx(source_nm, abs=0.01)
    assert twin.dose_e_per_A2 == pytest.approx(dose, rel=0.05)
    assert twin.detector.gain == pytest.approx(40, rel=0.05)
    again = twin.simulate(seed=1)[0].frame()
    original = micrograph.frame()
    assert again.shape == original.shape
    assert again.mean() == pytest.approx(original.mean(), rel=0.03)
    assert again.std() == pytest.approx(original.std(), rel=0.05)


def test_a_beam_that_trembles_is_matched() -> None:
    scan = nd.Scan(rotation_deg=17, jitter_pm=3, tremor_pm=9)
    image, _ = nd.simulate("WSe2", field_of_view_nm=6, pixel_size_nm=0.018, dose_e_per_A2=1e5, scan=scan, seed=2)
    assert 6 < match(image, "WSe2").scan.tremor_pm < 10  # a column averages some of it


def test_the_twin_of_a_real_image(shared) -> None:  # type: ignore[no-untyped-def]
    real = nd.read_micrograph(shared / "data" / "wse2_ti" / "1028_ADF2_25.dm4")
    middle = nd.Micrograph(real.frame()[128:448, 64:384], real.pixel_size_nm)
    twin = match(middle, "WSe2")
    assert twin.pixel_size_nm == pytest.approx(0.0387, rel=0.01)
    image, original = twin.simulate()[0].frame(), middle.frame()
    quantiles = [5, 25, 50, 75, 95]
    np.testing.assert_allclose(np.percentile(image, quantiles), np.percentile(original, quantiles), rtol=0.15)


def test_an_image_without_a_lattice_is_refused(noise_image) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError):  # noqa: PT011
        match(noise_image((128, 128)), "WSe2")


def test_flicker_and_speckle_are_found_again() -> None:
    rng = np.random.default_rng(0)
    white = rng.normal(0, 1.0, (300, 320))
    assert flicker_of(white) == (0.0, 0.0)
    slow = nd.Detector(read_noise_e=0, flicker_e=0.8, flicker_memory=0.5).read(np.zeros((300, 320)), rng)
    assert flicker_of(white + slow) == pytest.approx((0.8, 0.5), abs=0.12)
    assert flicker_of(np.asarray(gaussian_filter(white, 1.0))) == (0.0, 0.0), "smoothed on both axes"
    surface = nd.simulation.Surface(speckle=0.5)
    layer = surface.layer((300, 320), (0.02, 0.02), rng)
    assert layer is not None
    assert layer.std() == pytest.approx(0.5, rel=0.05)
    assert speckle_of(layer + white, 0.02, surface.speckle_scale_nm) == pytest.approx(0.5, rel=0.2)


def test_skewness_tells_what_was_counted() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(12.0, (400, 400)) + rng.normal(0, 3.0, (400, 400))
    mean, error = counted(40.0 * (counts - counts.mean()), 40.0)
    assert error < 0.1 * mean
    assert mean == pytest.approx(480.0, abs=4 * error)
    slope, intercept = variance_line(counts - 12.0, np.full(counts.shape, 12.0))
    assert slope * 12.0 + intercept == pytest.approx(21.0, rel=0.03)


def test_read_noise_under_an_uneven_layer() -> None:
    image, _ = nd.simulate(
        "WSe2", field_of_view_nm=6.4, pixel_size_nm=0.02, dose_e_per_A2=2e4, seed=4,
        detector=nd.Detector(gain=10, offset=100, read_noise_e=1.5), surface=nd.simulation.Surface(contamination=0.4),
    )  # fmt: skip
    twin = match(image, "WSe2")
    assert twin.detector.read_noise_e == pytest.approx(1.5, rel=0.25)
    assert twin.surface.contamination == pytest.approx(0.4, abs=0.25)


@pytest.mark.parametrize("brightest", ["W", "Se"])
def test_sublattices_are_those_that_one_says(brightest: str) -> None:
    """At low angles Se2 is brighter than W: taken for one another, the twin is turned by 60 degrees."""
    low = nd.Microscope(detector_inner_mrad=30, detector_outer_mrad=90)
    image, _ = nd.simulate(
        "WSe2", field_of_view_nm=6.0, pixel_size_nm=0.03, microscope=low, scan=nd.Scan(rotation_deg=10.0), seed=3
    )
    turned = nd.match(image, "WSe2", microscope=low, brightest=brightest).scan.rotation_deg
    assert (turned - 10.0) % 120 == pytest.approx(0.0 if brightest == "Se" else 60.0, abs=0.5)
