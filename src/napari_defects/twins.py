"""The simulated twin of an image: the conditions under which `simulate` makes one like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d, gaussian_filter
from scipy.optimize import minimize_scalar

from napari_defects.atoms import locate
from napari_defects.crystals import Crystal, get_crystal
from napari_defects.lattice import Lattice, assign_sites, calibrate, fit_lattice
from napari_defects.micrograph import Micrograph, Progress
from napari_defects.simulation import Detector, Microscope, Scan, Surface, simulate
from napari_defects.simulation.render import render
from napari_defects.simulation.scattering import amplitudes, cross_section_A2
from napari_defects.tables import Sites

Array = npt.NDArray[np.float64]

_CROP_PX = 512
_FLAT_NM = 0.8  # everything smoother than this is background
_BORDER_NM = 0.5
_SOURCES_NM = (0.01, 0.25)


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
    frame: int = 0,
    progress: Progress | None = None,
) -> Twin:
    """Estimate the conditions of an image: what makes `simulate` draw one like it.

    The lattice gives pixel size, rotation and drift; the columns, drawn again at their measured places
    with their measured intensities, give source size, jitter and intensity; what is left gives background
    and, from how its variance grows with the signal, the counting. Energy, angles and aberrations are
    those of `microscope`: a residual blur of any origin counts as source size. A layer of even thickness
    cannot be told from an offset, and the noise that its electrons make counts as read noise.

    Parameters
    ----------
    micrograph : Micrograph
        Its pixel size may be unknown.
    crystal : str or Crystal
    microscope : Microscope
        What is known of the instrument; its source size is replaced.
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
    crystal = get_crystal(crystal)
    report = progress or (lambda done, total: None)
    report(0, 3)
    still = Micrograph(micrograph.frame(frame), micrograph.pixel_size_nm)
    still = calibrate(still, crystal)
    atoms = locate(still)
    lattice = fit_lattice(atoms, crystal)
    report(1, 3)
    image = still.frame().astype(float)
    stated = still.pixel_size_yx_nm.astype(np.float64)
    pixel, scan = _scan_of(lattice, stated, image.shape)
    sites = assign_sites(atoms, lattice)
    view = _View(image, sites, crystal, microscope, stated, pixel, scan)
    found = minimize_scalar(view.misfit, bounds=_SOURCES_NM, method="bounded", options={"xatol": 5e-4})
    report(2, 3)
    view.find_jitter(float(found.x))
    found = minimize_scalar(view.misfit, bounds=_SOURCES_NM, method="bounded", options={"xatol": 5e-4})
    microscope = replace(microscope, source_fwhm_nm=round(float(found.x), 4))
    scale, background, (gain, constant) = view.parts(float(found.x))
    offset = float(np.percentile(background, 1))
    read = max(constant + gain * offset, 0.0) ** 0.5 / gain
    clean = sum(cross_section_A2(tuple(sorted(s.column)), microscope) for s in crystal.sublattices)
    dirt = (background - offset) / (scale * clean / (crystal.cell_area_nm2 * 100))
    surface = Surface(contamination=max(float(dirt.mean()), 0.0), contamination_scale_nm=_length(dirt, pixel))
    dose = scale / gain / (pixel**2 * 100)
    detector = Detector(gain=gain, offset=offset, read_noise_e=read)
    report(3, 3)
    scan = replace(scan, jitter_pm=view.jitter_pm, wander_pm=_wander_pm(lattice, sites))
    return Twin(crystal, micrograph.shape_yx, pixel, microscope, scan, detector, surface, dose, float(found.fun) ** 0.5)


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


def _quiet_positions(sites: Sites) -> Array:
    """Positions (y, x), drawn towards the lattice's by as much as their scatter around it is noise."""
    ideal = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    off = sites[["y_nm", "x_nm"]].to_numpy(float) - ideal
    noisy = np.nanmedian(sites[["y_err_nm", "x_err_nm"]].to_numpy(float) ** 2)
    scatter = (1.4826 * np.median(np.abs(off))) ** 2
    near = np.linalg.norm(off, axis=1, keepdims=True) < 4 * np.sqrt(2 * scatter)
    return np.asarray(ideal + np.where(near, max(0.0, 1 - noisy / scatter), 1.0) * off)


class _View:
    """The middle of an image, and its columns drawn with some source size."""

    def __init__(
        self,
        image: Array,
        sites: Sites,
        crystal: Crystal,
        microscope: Microscope,
        stated_nm: Array,
        pixel: float,
        scan: Scan,
    ) -> None:
        low = [max(0, (n - _CROP_PX) // 2) for n in image.shape]
        self.image = image[low[0] : low[0] + _CROP_PX, low[1] : low[1] + _CROP_PX]
        self.shape = (int(self.image.shape[0]), int(self.image.shape[1]))
        self.microscope, self.pixel = microscope, pixel
        self.step = scan.step_nm((image.shape[0], image.shape[1]), (pixel, pixel))
        self.sigma = _FLAT_NM / pixel
        self.flat = self._flattened(self.image)
        self.rows: Array | None = None
        self.jitter_pm = 0.0
        present = sites[sites["y_nm"].notna() & sites["sublattice"].isin([s.name for s in crystal.sublattices])]
        self.places = _quiet_positions(present) / stated_nm - low
        names = [s.name for s in crystal.sublattices]
        self.sublattice = np.array([names.index(n) for n in present["sublattice"]])
        strength = present["amplitude"].to_numpy(float)
        error = present["amplitude_err"].to_numpy(float)
        self.strength = np.ones(len(present))
        for k in range(len(names)):
            own = self.sublattice == k
            usual = np.median(strength[own])
            odd = own & (np.abs(strength - usual) > 4 * np.nan_to_num(error) + 0.05 * usual)
            self.strength[odd] = np.clip(strength[odd] / usual, 0, 8)
        self.columns = tuple(tuple(sorted(s.column)) for s in crystal.sublattices)

    def _flattened(self, image: Array) -> Array:
        """Columns without background, away from the border, beyond which nothing is drawn."""
        border = int(_BORDER_NM / self.pixel)
        return np.asarray((image - gaussian_filter(image, self.sigma))[border:-border, border:-border])

    def draw(self, source_fwhm_nm: float) -> list[Array]:
        """Fraction of the beam, drawn for each sublattice alone."""
        microscope = replace(self.microscope, source_fwhm_nm=source_fwhm_nm)
        weights = amplitudes(self.columns, microscope)[:, self.sublattice] * self.strength
        drawn = []
        for k in range(len(self.columns)):
            own = self.sublattice == k
            args = (self.places[own], weights[:, own], microscope, self.shape, self.step, self.rows)
            drawn.append(render(*args).astype(float))
        return drawn

    def fit(self, source_fwhm_nm: float) -> tuple[Array, list[Array], Array]:
        """Image units per fraction of the beam for each sublattice, what was drawn, and the residual."""
        drawn = self.draw(source_fwhm_nm)
        design = np.stack([self._flattened(d).ravel() for d in drawn], 1)
        scales: Array = np.linalg.lstsq(design, self.flat.ravel(), rcond=None)[0].astype(np.float64)
        residual: Array = self.flat - (design @ scales).reshape(self.flat.shape)
        return scales, drawn, residual

    def misfit(self, source_fwhm_nm: float) -> float:
        """Mean squared residual relative to the variance of the columns."""
        return float((self.fit(source_fwhm_nm)[2] ** 2).mean() / self.flat.var())

    def find_jitter(self, source_fwhm_nm: float) -> None:
        """Shift of each line that explains the residual, shrunk by its own noise."""
        scales, drawn, residual = self.fit(source_fwhm_nm)
        slope = self._flattened(np.gradient(sum(a * d for a, d in zip(scales, drawn, strict=True)), axis=1))
        power = (slope**2).sum(axis=1)
        shift = -(residual * slope).sum(axis=1) / power
        shift -= gaussian_filter(shift, 8.0)
        uncertain = float(np.median(residual.var(axis=1) / power))
        true = max(float(shift.var()) - uncertain, 0.0)
        self.rows = np.zeros(self.shape[0])
        border = (self.shape[0] - len(shift)) // 2
        self.rows[border:-border] = shift * true / max(float(shift.var()), 1e-12)
        self.jitter_pm = float(np.sqrt(true) * self.pixel * 1e3)

    def parts(self, source_fwhm_nm: float) -> tuple[float, Array, tuple[float, float]]:
        """Image units per fraction of the beam, the smooth background, and the line of variance in signal."""
        scales, drawn, _ = self.fit(source_fwhm_nm)
        shares = [float(d.sum()) for d in drawn]
        model: Array = np.sum([a * d for a, d in zip(scales, drawn, strict=True)], axis=0)
        border = int(_BORDER_NM / self.pixel)
        inner = slice(border, -border), slice(border, -border)
        background = gaussian_filter(self.image - model, self.sigma)
        signal = model + background
        line = _variance_line((self.image - signal)[inner], signal[inner])
        return float(np.average(scales, weights=shares)), background[inner], line


def _variance_line(residual: Array, signal: Array) -> tuple[float, float]:
    """Slope and intercept of the variance of a residual in the signal, blind to what is smooth in it."""
    kernels = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70), np.array([1.0, -2.0, 1.0]) / np.sqrt(6)
    square = convolve1d(convolve1d(residual, kernels[0], axis=1), kernels[1], axis=0).ravel() ** 2
    level = convolve1d(convolve1d(signal, kernels[0] ** 2, axis=1), kernels[1] ** 2, axis=0).ravel()
    design = np.stack([level, np.ones_like(level)], 1)
    line, expected = np.zeros(2), np.full(len(level), float(square.mean()))
    for _ in range(4):  # the scatter of a square is its mean
        line = np.linalg.lstsq(design / expected[:, None], square / expected, rcond=None)[0]
        expected = np.maximum(design @ line, 0.05 * square.mean())
    return max(float(line[0]), 1e-12), float(line[1])
