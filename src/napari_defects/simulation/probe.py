"""The electron probe, and how strongly each column scatters it onto the detector."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from ..checks import check_fields, check_range, check_type

_UNITS_NM = {"nm": 1.0, "um": 1e3, "mm": 1e6}
_PATCH_NM = 6.0  # the probe is computed on a patch of at most this side

Array = npt.NDArray[np.float32]
Step = tuple[tuple[float, float], tuple[float, float]]
"""Matrix of a scan: pixel p = (row, col) lies at ``step @ p`` (y, x) in nm."""


@dataclass(frozen=True)
class Aberrations:
    """Coherent aberrations in Krivanek's notation, to fifth order; defocus is ``-C10_nm``.

    ``Cnm`` has order n and symmetry m; its angle ``phinm_deg`` is measured from +x towards +y
    (down the image). The phase is ``(2 pi / lambda) sum Cnm alpha^(n+1) cos(m (phi - phinm)) / (n+1)``.
    """

    C10_nm: float = 0.0
    C12_nm: float = 0.0
    phi12_deg: float = 0.0
    C21_nm: float = 0.0
    phi21_deg: float = 0.0
    C23_nm: float = 0.0
    phi23_deg: float = 0.0
    C30_um: float = 0.0
    C32_um: float = 0.0
    phi32_deg: float = 0.0
    C34_um: float = 0.0
    phi34_deg: float = 0.0
    C41_um: float = 0.0
    phi41_deg: float = 0.0
    C43_um: float = 0.0
    phi43_deg: float = 0.0
    C45_um: float = 0.0
    phi45_deg: float = 0.0
    C50_mm: float = 0.0
    C52_mm: float = 0.0
    phi52_deg: float = 0.0
    C54_mm: float = 0.0
    phi54_deg: float = 0.0
    C56_mm: float = 0.0
    phi56_deg: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, (item.name for item in fields(self)))

    def phase(self, alpha: Any, phi: Any, wavelength_nm: float) -> Any:
        """Phase chi in rad at polar angle `alpha` (rad) and azimuth `phi` (rad)."""
        chi = np.zeros_like(alpha)
        for item in fields(self):
            value = getattr(self, item.name)
            if value and item.name.startswith("C"):
                n, m, unit = int(item.name[1]), int(item.name[2]), item.name[4:]
                angle = np.deg2rad(getattr(self, f"phi{n}{m}_deg")) if m else 0.0
                chi += value * _UNITS_NM[unit] * alpha ** (n + 1) * np.cos(m * (phi - angle)) / (n + 1)
        return 2 * np.pi / wavelength_nm * chi


@dataclass(frozen=True)
class Microscope:
    """An aberration-corrected STEM with an annular dark-field detector.

    Parameters
    ----------
    energy_keV, convergence_mrad : float
        Beam energy and convergence semi-angle.
    detector_inner_mrad, detector_outer_mrad : float
        Collection angles of the annular detector.
    source_fwhm_nm : float
        Full width at half maximum of the effective source.
    focal_spread_nm : float
        Standard deviation of defocus from the chromatic aberration, ``Cc dE / E``.
    source_tail : float
        Share of the source in a bivariate Cauchy profile of the same width, the rest being Gaussian:
        J. Verbeeck et al., Ultramicroscopy 120, 35 (2012).
    aberrations : Aberrations
    """

    energy_keV: float = 80.0
    convergence_mrad: float = 30.0
    detector_inner_mrad: float = 60.0
    detector_outer_mrad: float = 200.0
    source_fwhm_nm: float = 0.08
    focal_spread_nm: float = 0.0
    source_tail: float = 0.0
    aberrations: Aberrations = field(default_factory=Aberrations)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("energy_keV", 10.0, 1000.0),
            ("convergence_mrad", 1.0, 100.0),
            ("detector_inner_mrad", 1.0, 500.0),
            ("source_fwhm_nm", 0.0, 1.0),
            ("focal_spread_nm", 0.0, 100.0),
            ("source_tail", 0.0, 1.0),
        ):
            check_range(name, getattr(self, name), low, high)
        check_range("detector_outer_mrad", self.detector_outer_mrad, self.detector_inner_mrad, above=True,
                    hint="the inner angle is smaller")  # fmt: skip
        check_type("aberrations", self.aberrations, Aberrations, "make one: Aberrations(C10_nm=...)")

    @property
    def wavelength_nm(self) -> float:
        """Relativistic de Broglie wavelength."""
        return wavelength_nm(self.energy_keV)

    @property
    def cutoff_per_nm(self) -> float:
        """Spatial frequency beyond which the probe transfers nothing."""
        return 2e-3 * self.convergence_mrad / self.wavelength_nm


def wavelength_nm(energy_keV: float) -> float:
    """Electron wavelength: 4.866 pm at 60 keV, 4.176 pm at 80 keV."""
    return 1.226426 / np.sqrt(energy_keV * 1e3 * (1 + 0.978476e-3 * energy_keV))  # type: ignore[no-any-return]


def frequencies(shape: tuple[int, int], step_nm: Step, *, half: bool = False) -> tuple[Array, Array]:
    """Spatial frequencies (y, x) in 1/nm of a grid whose pixel p lies at ``step_nm @ p``; `half` as for ``rfft2``."""
    per_px = fft.fftfreq(shape[0])[:, None], (fft.rfftfreq if half else fft.fftfreq)(shape[1])
    inverse = np.linalg.inv(np.array(step_nm))
    qy, qx = (per_px[0] * inverse[0, k] + per_px[1] * inverse[1, k] for k in (0, 1))
    return qy.astype(np.float32), qx.astype(np.float32)


def pupils(
    microscope: Microscope, shape: tuple[int, int], step_nm: Step
) -> list[tuple[float, npt.NDArray[np.complex64]]]:
    """Aperture times aberrations on the frequencies of a grid, with its weight, for each defocus of the spread."""
    ky, kx = frequencies(shape, step_nm)
    alpha = np.hypot(ky, kx) * np.float32(microscope.wavelength_nm)
    edge = 0.7 * max(alpha[1, 0], alpha[0, 1])
    aperture = np.clip((1e-3 * microscope.convergence_mrad - alpha) / edge + 0.5, 0, 1)
    lit = np.nonzero(aperture)
    aperture, alpha, phi = aperture[lit], alpha[lit], np.arctan2(ky[lit], kx[lit])
    chi = microscope.aberrations.phase(alpha, phi, microscope.wavelength_nm)
    nodes, weights = [0.0], [1.0]
    if microscope.focal_spread_nm:
        points, shares = np.polynomial.hermite_e.hermegauss(5)
        nodes, weights = (points * microscope.focal_spread_nm).tolist(), (shares / shares.sum()).tolist()
    result = []
    for node, weight in zip(nodes, weights, strict=True):
        pupil = np.zeros(shape, np.complex64)
        pupil[lit] = aperture * np.exp(-1j * (chi + np.pi / microscope.wavelength_nm * node * alpha**2))
        result.append((weight, pupil))
    return result


def probe_intensity(microscope: Microscope, shape: tuple[int, int], step_nm: Step) -> npt.NDArray[np.float32]:
    """|psi|^2 of the aberrated probe, centred on pixel (0, 0) and periodic, with sum 1; without the source."""
    intensity = np.zeros(shape, np.float32)
    for weight, pupil in pupils(microscope, shape, step_nm):
        psi = fft.ifft2(pupil)
        intensity += np.float32(weight) * (psi.real**2 + psi.imag**2)
    return np.asarray(intensity / intensity.sum())


def source_transfer(microscope: Microscope, qy: Array, qx: Array) -> Array:
    """Fourier transform of the source at spatial frequencies in 1/nm."""
    square, width = qy**2 + qx**2, microscope.source_fwhm_nm
    blur = (1 - microscope.source_tail) * np.exp(-2 * (np.pi * width / 2.3548) ** 2 * square)
    if microscope.source_tail:
        blur += microscope.source_tail * np.exp(-2 * np.pi * width / 1.5328 * np.sqrt(square))
    return np.asarray(blur)


@lru_cache(maxsize=16)
def transfer(microscope: Microscope, shape: tuple[int, int], step_nm: Step) -> npt.NDArray[np.complex64]:
    """Transfer function of the scanned image on the half plane of ``rfft2``; 1 at zero frequency.

    The scanned image is the correlation of |psi|^2 with the object, hence the conjugate.
    """
    sides = np.linalg.norm(np.array(step_nm), axis=0)
    rows, columns = (min(n, fft.next_fast_len(int(_PATCH_NM / d))) for n, d in zip(shape, sides, strict=True))
    patch = probe_intensity(microscope, (rows, columns), step_nm)
    if patch.shape != shape:
        full = np.zeros(shape, np.float32)
        full[np.ix_(*(fft.fftfreq(n, 1 / n).astype(int) for n in patch.shape))] = patch
        patch = full
    qy, qx = frequencies(shape, step_nm, half=True)
    return np.asarray(np.conj(fft.rfft2(patch)) * source_transfer(microscope, qy, qx), np.complex64)
