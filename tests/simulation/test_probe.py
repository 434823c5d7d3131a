"""Probe and cross-sections against closed forms and the numbers of multislice."""

from __future__ import annotations

import numpy as np
import pytest

from napari_defects.simulation.probe import Aberrations, Microscope, probe_intensity, transfer, wavelength_nm
from napari_defects.simulation.scattering import amplitudes, cross_section_A2

SHAPE, PIXEL = (512, 512), ((0.01, 0.0), (0.0, 0.01))


@pytest.mark.parametrize(("energy_keV", "picometres"), [(60, 4.866), (80, 4.176), (200, 2.508)])
def test_wavelength(energy_keV: float, picometres: float) -> None:
    assert wavelength_nm(energy_keV) == pytest.approx(picometres * 1e-3, rel=2e-4)


def test_perfect_probe_is_an_airy_pattern() -> None:
    microscope = Microscope(convergence_mrad=30)
    row = probe_intensity(microscope, SHAPE, PIXEL)[0]
    r = np.arange(200) * 0.01
    half = np.interp(-0.5, -row[:40] / row[0], r[:40])
    assert 2 * half == pytest.approx(0.515 * microscope.wavelength_nm / 0.030, rel=0.02)
    first_zero = r[np.argmin(row[:14])]
    assert first_zero == pytest.approx(0.61 * microscope.wavelength_nm / 0.030, abs=0.008)


def test_transfer_is_one_at_rest_and_ends_at_the_cutoff() -> None:
    microscope = Microscope(source_fwhm_nm=0.0)
    values = transfer(microscope, SHAPE, PIXEL)
    q = np.hypot(np.fft.fftfreq(512, 0.01)[:, None], np.fft.rfftfreq(512, 0.01))
    assert values[0, 0] == pytest.approx(1)
    assert np.abs(values[q > 1.05 * microscope.cutoff_per_nm]).max() < 1e-4


def test_source_blurs_by_its_width() -> None:
    sharp, blurred = (transfer(Microscope(source_fwhm_nm=f), SHAPE, PIXEL) for f in (0.0, 0.1))
    q, sigma = np.fft.rfftfreq(512, 0.01)[10], 0.1 / 2.3548
    assert np.abs(blurred[0, 10] / sharp[0, 10]) == pytest.approx(np.exp(-2 * (np.pi * sigma * q) ** 2), rel=1e-3)


def test_a_tail_of_the_source_keeps_its_width() -> None:
    for tail in (0.0, 1.0):
        spread = transfer(Microscope(convergence_mrad=100, source_fwhm_nm=0.4, source_tail=tail), SHAPE, PIXEL)
        row = np.fft.irfft2(spread, SHAPE)[0]
        half = np.interp(-0.5, -row[:60] / row[0], np.arange(60) * 0.01)
        assert 2 * half == pytest.approx(0.4, rel=0.04)


def test_focal_spread_is_an_average_over_defocus() -> None:
    spread = probe_intensity(Microscope(focal_spread_nm=3.0), SHAPE, PIXEL)[0, 0]
    defocus = np.linspace(-12, 12, 97)
    weight = np.exp(-(defocus**2) / 18)
    peaks = [
        probe_intensity(Microscope(aberrations=Aberrations(C10_nm=d)), (256, 256), ((0.02, 0.0), (0.0, 0.02)))[0, 0] / 4
        for d in defocus
    ]
    assert spread == pytest.approx(np.average(peaks, weights=weight), rel=0.01)


def test_the_scanned_image_is_a_correlation() -> None:
    """Coma pulls the probe to one side, and so the image of a point to the other."""
    microscope = Microscope(source_fwhm_nm=0.0, aberrations=Aberrations(C21_nm=60))
    probe = np.roll(probe_intensity(microscope, SHAPE, PIXEL), (256, 256), (0, 1))
    image = np.roll(np.fft.irfft2(transfer(microscope, SHAPE, PIXEL), SHAPE), (256, 256), (0, 1))
    x = np.arange(512) - 256
    middle = slice(206, 307)

    def skew(picture: np.ndarray) -> float:
        return float((picture[middle, middle].sum(0) * x[middle]).sum())

    assert abs(skew(probe)) > 0.2
    assert skew(image) == pytest.approx(-skew(probe), rel=1e-3)


def test_every_aberration_has_its_symmetry() -> None:
    for name, size, m in (("C12_nm", 5, 2), ("C23_nm", 80, 3), ("C34_um", 3, 4), ("C45_um", 100, 5), ("C56_mm", 3, 6)):
        alpha, phi = np.full(361, 0.03), np.deg2rad(np.arange(361.0))
        chi = Aberrations(**{name: float(size)}).phase(alpha, phi, 0.004176)
        spectrum = np.abs(np.fft.rfft(chi[:-1]))
        assert np.argmax(spectrum) == m


def test_bad_microscopes_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="convergence_mrad"):
        Microscope(convergence_mrad=0)
    with pytest.raises(ValueError, match="detector_outer_mrad"):
        Microscope(detector_outer_mrad=50)


@pytest.mark.parametrize(
    ("column", "inner", "expected"),
    [(("Se",), 60, 0.0183), (("W",), 60, 0.0485), (("Te", "Se"), 60, 0.0617), (("Se", "Se"), 80, 0.0227),
     (("Te", "Te"), 80, 0.0440), (("Mo",), 80, 0.0146)],
)  # fmt: skip
def test_measured_cross_sections(column: tuple[str, ...], inner: float, expected: float) -> None:
    microscope = Microscope(80, 30, inner, 200)
    assert cross_section_A2(column, microscope) == pytest.approx(expected, rel=2e-3)


def test_cross_sections_outside_the_table() -> None:
    microscope = Microscope()
    sulphur, pair = (cross_section_A2(("S",) * n, microscope) for n in (1, 2))
    silicon, selenium = (cross_section_A2((e,), microscope) for e in ("Si", "Se"))
    assert silicon < sulphur < selenium
    assert pair / sulphur == pytest.approx(2 * 1.17, rel=1e-3)
    assert cross_section_A2((), microscope) == 0
    assert cross_section_A2(("W",), Microscope(energy_keV=60)) > cross_section_A2(("W",), Microscope(energy_keV=120))
    with pytest.raises(ValueError, match="Xx"):
        cross_section_A2(("Xx",), microscope)


def test_of_lighter_columns_less_is_seen() -> None:
    columns = ((), ("W",), ("Te", "Se"), ("Mo", "Se"), ("S", "S"))
    seen = amplitudes(columns, Microscope()) / np.maximum([cross_section_A2(c, Microscope()) for c in columns], 1e-9)
    assert seen[:3].tolist() == [0, 1, 0.875]
    assert 0.86 < seen[3] < 0.88
    assert 0.9 < seen[4] < 1
