"""The simulated twin of an image: the conditions under which `simulate` makes one like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from napari_defects.atoms import locate
from napari_defects.crystals import Crystal, get_crystal
from napari_defects.lattice import Lattice, assign_sites, calibrate, fit_lattice
from napari_defects.micrograph import Micrograph, Progress, check_micrograph
from napari_defects.simulation import Detector, Microscope, Scan, Surface, simulate
from napari_defects.simulation.scattering import amplitudes
from napari_defects.tables import Sites

from .leftovers import counted, flicker_of, speckle_of, variance_line
from .views import View

Array = npt.NDArray[np.float64]

_SOURCES_NM = (0.01, 0.25)
_CLEAN = 0.03  # of the mean signal: a background no more uneven than this may be what columns leave
_UNEVEN = 0.55
"""Rms of a simulated layer of contamination over its mean."""


@dataclass(frozen=True)
class Twin:
    """Conditions of an image, as `simulate` takes them.

    Parameters
    ----------
    crystal : Crystal
    shape : (int, int)
    pixel_size_nm : float
    microscope, scan, detector, surface
        Parts of the bench. The scan's drift holds also a pixel that is not square.
    dose_e_per_A2 : float
    residual : float
        What the twin leaves unexplained of the image's columns, relative to their rms: 0 for nothing.
    """

    crystal: Crystal
    shape: tuple[int, int]
    pixel_size_nm: float
    microscope: Microscope
    scan: Scan
    detector: Detector
    surface: Surface
    dose_e_per_A2: float
    residual: float = field(default=float("nan"), compare=False)

    def keywords(self) -> dict[str, Any]:
        """Keywords of `simulate`."""
        return {
            "field_of_view_nm": (self.shape[0] * self.pixel_size_nm, self.shape[1] * self.pixel_size_nm),
            "pixel_size_nm": self.pixel_size_nm, "microscope": self.microscope, "scan": self.scan,
            "detector": self.detector, "surface": self.surface, "dose_e_per_A2": self.dose_e_per_A2,
        }  # fmt: skip

    def simulate(self, *, defects: Mapping[str, float] | None = None, seed: int = 0) -> tuple[Micrograph, Sites]:
        """Make an image under these conditions, see `simulate`."""
        return simulate(self.crystal, defects=defects, seed=seed, **self.keywords())


def match(
    micrograph: Micrograph,
    crystal: str | Crystal,
    *,
    microscope: Microscope = Microscope(),  # noqa: B008
    brightest: str | None = None,
    frame: int = 0,
    progress: Progress | None = None,
) -> Twin:
    """Estimate the conditions of an image: what makes `simulate` draw one like it.

    The lattice gives pixel size, rotation and drift; the columns, drawn again at their measured places
    with their measured intensities, give source size, jitter and intensity; what is left gives background
    and, from how its variance grows with the signal, the counting. Energy, angles and aberrations are
    those of `microscope`: a residual blur of any origin counts as source size. How much of the background is
    dirt, and what of the noise is read noise, follow from how skewed the noise is, as counts are, and from how
    uneven the background is, as simulated layers are.

    Parameters
    ----------
    micrograph : Micrograph
        Its pixel size may be unknown.
    crystal : str or Crystal
    microscope : Microscope
        What is known of the instrument; its source size is replaced.
    brightest : str, optional
        Name of the brightest sublattice, as for `fit_lattice`.
    frame : int
        Frame of a movie.
    progress : callable, optional
        ``progress(done, total)``.

    Returns
    -------
    Twin

    Raises
    ------
    ValueError
        If no lattice of the crystal is found.
    """
    check_micrograph(micrograph)
    crystal = get_crystal(crystal)
    report = progress or (lambda done, total: None)
    report(0, 3)
    still = Micrograph(micrograph.frame(frame), micrograph.pixel_size_nm)
    still = calibrate(still, crystal)
    atoms = locate(still)
    lattice = fit_lattice(atoms, crystal, brightest=brightest)
    report(1, 3)
    image = still.frame().astype(float)
    stated = still.pixel_size_yx_nm.astype(np.float64)
    pixel, scan = _scan_of(lattice, stated, image.shape)
    sites = assign_sites(atoms, lattice)
    view = View(image, sites, crystal, microscope, stated, pixel, scan)
    found = minimize_scalar(view.misfit, bounds=_SOURCES_NM, method="bounded", options={"xatol": 5e-4})
    report(2, 3)
    view.find_jitter(float(found.x))
    found = minimize_scalar(view.misfit, bounds=_SOURCES_NM, method="bounded", options={"xatol": 5e-4})
    microscope = replace(microscope, source_fwhm_nm=round(float(found.x), 4))
    scale, background, residual = view.parts(float(found.x))
    flicker = flicker_of(residual)
    gain, constant = variance_line(residual, view.signal, flicker)
    clean = amplitudes((s.column for s in crystal.sublattices), microscope).sum()
    level = float(scale * clean / (crystal.cell_area_nm2 * 100))  # of the clean lattice, in image units
    offset = _offset(background, counted(residual, gain), float(view.signal.mean()))
    offset = float(np.clip(offset, -constant / gain, np.percentile(background, 1)))  # read noise has a square
    read = max(constant + gain * offset, 0.0) ** 0.5 / gain
    dirt = (background - offset) / level
    surface = Surface(
        contamination=max(float(dirt.mean()), 0.0), contamination_scale_nm=_length(dirt, pixel),
    )  # fmt: skip
    surface = replace(surface, speckle=speckle_of(residual, pixel, surface.speckle_scale_nm) / level)
    dose = scale / gain / (pixel**2 * 100)
    detector = Detector(
        gain=gain, offset=offset, read_noise_e=read, flicker_e=flicker[0] / gain, flicker_memory=flicker[1]
    )
    report(3, 3)
    tremor_pm = atoms.attrs["tremor_pm"][0]
    scan = replace(scan, jitter_pm=view.jitter_pm, tremor_pm=tremor_pm, wander_pm=_wander_pm(lattice, sites))
    return Twin(crystal, micrograph.shape_yx, pixel, microscope, scan, detector, surface, dose, float(found.fun) ** 0.5)


def _offset(background: Array, skewed: tuple[float, float], mean: float) -> float:
    """Image value of no electrons: from how uneven the background is, and from how skewed the noise is."""
    if background.std() < _CLEAN * mean:
        return float(np.percentile(background, 1))
    thick = float(background.std()) / _UNEVEN
    guesses = np.array([background.mean() - thick, mean - skewed[0]])
    weights = 1 / np.array([0.4 * thick + 1e-9 * mean, skewed[1] + 0.03 * abs(skewed[0])]) ** 2
    return float(np.average(guesses, weights=weights))


def _scan_of(lattice: Lattice, stated_nm: Array, shape: tuple[int, ...]) -> tuple[float, Scan]:
    """Pixel size and scan of an affine lattice, with square pixels; see `Scan.step_nm`."""
    to_crystal = np.linalg.solve(lattice.vectors_nm, lattice.crystal.vectors_nm).T * stated_nm
    fast = to_crystal[:, 1]  # where a step along the line leads, in the crystal's frame (y, x)
    turn = np.arctan2(fast[0], fast[1])
    c, s = np.cos(turn), np.sin(turn)
    step = np.array([[c, -s], [s, c]]) @ to_crystal
    drift = float(step[0, 0] - step[1, 1]) * 1e3, float(step[1, 0]) * 1e3
    pixel = float(step[1, 1] - step[1, 0] / shape[1])
    return pixel, Scan(rotation_deg=float(-np.rad2deg(turn)), drift_pm_per_line=drift)


def _wander_pm(lattice: Lattice, sites: Sites) -> float:
    """Rms of the smooth distortion along an axis."""
    if lattice.distortion is None:
        return 0.0
    moved = lattice.distortion(sites[["y_ideal_nm", "x_ideal_nm"]].dropna().to_numpy(float))
    return float(1e3 * np.sqrt(((moved - moved.mean(axis=0)) ** 2).mean()))


def _length(field_: Array, pixel: float) -> float:
    """Length over which a smooth field varies, from its gradient."""
    varied = float(field_.std())
    slope = float(np.sqrt(np.mean(np.square(np.gradient(field_, pixel)))))
    return float(np.clip(1.7 * varied / max(slope, 1e-9), 1.0, 20.0))
