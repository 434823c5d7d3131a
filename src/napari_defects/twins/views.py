"""The middle of an image, and its columns drawn again with some source size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.stats import median_abs_deviation

from napari_defects.crystals import Crystal
from napari_defects.simulation import Microscope, Scan
from napari_defects.simulation.render import render
from napari_defects.simulation.scattering import amplitudes
from napari_defects.tables import Sites

Array = npt.NDArray[np.float64]

_CROP_PX = 512
_FLAT_NM = 0.8  # everything smoother than this is background
_BORDER_NM = 0.5


def _quiet_positions(sites: Sites) -> Array:
    """Positions (y, x), drawn towards the lattice's by as much as their scatter around it is noise."""
    ideal = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    off = sites[["y_nm", "x_nm"]].to_numpy(float) - ideal
    noisy = np.nanmedian(sites[["y_err_nm", "x_err_nm"]].to_numpy(float) ** 2)
    scatter = median_abs_deviation(off, axis=None, scale="normal") ** 2
    near = np.linalg.norm(off, axis=1, keepdims=True) < 4 * np.sqrt(2 * scatter)
    return np.asarray(ideal + np.where(near, max(0.0, 1 - noisy / scatter), 1.0) * off)


class View:
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
        self.columns = tuple(s.column for s in crystal.sublattices)

    def _flattened(self, image: Array) -> Array:
        """Columns without background, away from the border, beyond which nothing is drawn."""
        border = int(_BORDER_NM / self.pixel)
        return np.asarray((image - gaussian_filter(image, self.sigma))[border:-border, border:-border])

    def draw(self, source_fwhm_nm: float) -> list[Array]:
        """Fraction of the beam, drawn for each sublattice alone."""
        microscope = replace(self.microscope, source_fwhm_nm=source_fwhm_nm)
        weights = amplitudes(self.columns, microscope)[self.sublattice] * self.strength
        drawn = []
        for k in range(len(self.columns)):
            own = self.sublattice == k
            args = (self.places[own], weights[own], microscope, self.shape, self.step, self.rows)
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

    def parts(self, source_fwhm_nm: float) -> tuple[float, Array, Array]:
        """Image units per fraction of the beam, the smooth background, and what is left; these without the border."""
        scales, drawn, _ = self.fit(source_fwhm_nm)
        shares = [float(d.sum()) for d in drawn]
        model: Array = np.sum([a * d for a, d in zip(scales, drawn, strict=True)], axis=0)
        background = gaussian_filter(self.image - model, self.sigma)
        border = int(_BORDER_NM / self.pixel)
        inner = slice(border, -border), slice(border, -border)
        self.signal = (model + background)[inner]
        return float(np.average(scales, weights=shares)), background[inner], self.image[inner] - self.signal
