"""What lies on the specimen, and how electrons become numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.signal import lfilter

from ..checks import check_fields, check_range

Image = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
Mask = Callable[[Array], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Surface:
    """Dirt on the flake, and where the flake ends.

    Parameters
    ----------
    contamination : float
        Mean intensity of a smooth layer, relative to the mean of the clean lattice.
    contamination_scale_nm : float
        Length over which its thickness varies; half of the variation is at a third of it.
    speckle : float
        Rms intensity of atoms that lie about at random, an amorphous film, relative to the mean of the clean lattice.
    speckle_scale_nm : float
        Size of their images.
    patch : float
        Intensity of one amorphous patch, relative to the mean of the clean lattice; 0 for none.
    patch_radius_nm : float
    gradient : float
        Rise of the background across the image, relative to the mean of the clean lattice.
    holes : int
        Number of holes in the flake.
    hole_radius_nm : float
    edge : bool
        Whether the flake ends within the image.
    grain_deg : float
        Misorientation of a second grain, beyond a boundary through the image; 0 for a single crystal.
    """

    contamination: float = 0.0
    contamination_scale_nm: float = 4.0
    speckle: float = 0.0
    speckle_scale_nm: float = 0.12
    patch: float = 0.0
    patch_radius_nm: float = 1.5
    gradient: float = 0.0
    holes: int = 0
    hole_radius_nm: float = 0.8
    edge: bool = False
    grain_deg: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, ("contamination", "speckle", "patch"), 0)
        check_fields(self, ("contamination_scale_nm", "speckle_scale_nm", "patch_radius_nm", "hole_radius_nm"), 0,
                     above=True)  # fmt: skip
        check_fields(self, ("gradient", "grain_deg"))
        check_range("holes", self.holes, 0, whole=True)

    def flake(self, extent_nm: Array, rng: np.random.Generator) -> Mask:
        """Draw where the flake is: a function of points (n, 2) relative to the centre of an image of `extent_nm`."""
        ends = self.boundary(extent_nm, rng) if self.edge else None
        holes = [(rng.uniform(-0.5, 0.5, 2) * extent_nm, rng.normal(0, 0.12, 2), rng.uniform(0, 6, (2, 1)))
                 for _ in range(self.holes)]  # fmt: skip

        def covers(points_nm: Array) -> npt.NDArray[np.bool_]:
            keep = np.ones(len(points_nm), bool) if ends is None else ~ends(points_nm)
            for center, size, phase in holes:
                offset = points_nm - center
                lobes = size @ np.cos(np.arctan2(*offset.T)[None] * np.array([[2], [3]]) + phase)
                keep &= np.linalg.norm(offset, axis=1) > self.hole_radius_nm * (1 + lobes)
            return keep

        return covers

    def boundary(self, extent_nm: Array, rng: np.random.Generator) -> Mask:
        """Draw a wavy line through the image: a function that tells whether points lie beyond it."""
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(-0.35, 0.35) * extent_nm.min()
        normal, phase = np.array([np.sin(angle), np.cos(angle)]), rng.uniform(0, 6)

        def beyond(points_nm: Array) -> npt.NDArray[np.bool_]:
            along = points_nm @ np.array([normal[1], -normal[0]])
            wave = 0.1 * np.sin(along / 0.4 + phase) + 0.15 * np.sin(along)
            return np.asarray(points_nm @ normal >= reach + wave)

        return beyond

    def layer(self, shape: tuple[int, int], pixel_nm: tuple[float, float], rng: np.random.Generator) -> Image | None:
        """Intensity of the dirt relative to the mean of the clean lattice, shape (y, x); None when clean."""
        total: Image | None = None
        y, x = ((np.arange(n) - n / 2) * d for n, d in zip(shape, pixel_nm, strict=True))
        if self.contamination:
            large = smooth_noise(shape, pixel_nm, self.contamination_scale_nm, rng)
            small = smooth_noise(shape, pixel_nm, self.contamination_scale_nm / 3, rng)
            thickness = np.exp(0.5 * large + 0.3 * small)
            total = np.float32(self.contamination / thickness.mean()) * thickness
        if self.patch:
            center = rng.uniform(-0.5, 0.5, 2) * (y[-1] - y[0], x[-1] - x[0])
            distance = np.hypot(y[:, None] - center[0], x - center[1])
            ragged = self.patch_radius_nm * (1 + 0.3 * smooth_noise(shape, pixel_nm, self.patch_radius_nm / 2, rng))
            shape_of_patch = 1 / (1 + np.exp(np.clip((distance - ragged) / 0.12, -30, 30)))
            grain = 1 + 0.45 * smooth_noise(shape, pixel_nm, 0.07, rng)  # atoms of the patch, out of register
            patch = (self.patch * shape_of_patch * np.clip(grain, 0.1, None)).astype(np.float32)
            total = patch if total is None else total + patch
        if self.gradient:
            angle = rng.uniform(0, 2 * np.pi)
            ramp = y[:, None] * np.sin(angle) + x * np.cos(angle)
            ramp = (self.gradient * (ramp - ramp.min()) / np.ptp(ramp)).astype(np.float32)
            total = ramp if total is None else total + ramp
        if self.speckle:
            atoms = np.float32(self.speckle) * smooth_noise(shape, pixel_nm, self.speckle_scale_nm, rng)
            total = atoms if total is None else total + atoms
        return total


def smooth_noise(
    shape: tuple[int, int], pixel_nm: tuple[float, float], length_nm: float, rng: np.random.Generator
) -> Image:
    """Gaussian random field of unit variance that varies over about `length_nm`."""
    coarse = [max(1, int(length_nm / (6 * d))) for d in pixel_nm]
    padded = [fft.next_fast_len(-(-n // c) + int(2 * length_nm / (d * c))) for n, c, d in
              zip(shape, coarse, pixel_nm, strict=True)]  # fmt: skip
    qy, qx = (
        fft.fftfreq(padded[0], pixel_nm[0] * coarse[0])[:, None],
        fft.rfftfreq(padded[1], pixel_nm[1] * coarse[1]),
    )
    low_pass = np.exp(-((np.pi * length_nm / 2) ** 2) * (qy**2 + qx**2) / 2).astype(np.float32)
    field = fft.irfft2(fft.rfft2(rng.standard_normal(padded, np.float32)) * low_pass, padded)
    for axis, step in enumerate(coarse):
        if step > 1:
            at = np.arange(shape[axis]) / step
            first = np.minimum(at.astype(int), field.shape[axis] - 2)
            share = (at - first).astype(np.float32)
            share = share[:, None] if axis == 0 else share
            field = np.take(field, first, axis) * (1 - share) + np.take(field, first + 1, axis) * share
        else:
            field = np.take(field, np.arange(shape[axis]), axis)
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)


@dataclass(frozen=True)
class Detector:
    """How scattered electrons become the numbers of an image.

    Parameters
    ----------
    gain, offset : float
        Value = ``offset + gain * (electrons + noise)``.
    read_noise_e : float
        Gaussian noise of the electronics, rms, in electrons per pixel.
    pulse_spread : float
        Relative spread (rms) of the signal of one electron.
    line_noise_e : float
        Gaussian noise common to each line, rms, in electrons per pixel.
    flicker_e : float
        Slow noise of emission and electronics, rms, in electrons per pixel: alike along a line, new in each.
    flicker_memory : float
        How alike it is from one pixel to the next, 0 to 1.
    afterglow : float
        Part of the signal that is left to the next pixel of the line, 0 to 1.
    hot_pixels : float
        Fraction of pixels with a spike.
    saturation_e : float, optional
        Electrons beyond which the signal is clipped.
    dtype : str
        Type of the image; integers are rounded and clipped to their range.
    """

    gain: float = 1.0
    offset: float = 0.0
    read_noise_e: float = 0.5
    pulse_spread: float = 0.0
    line_noise_e: float = 0.0
    flicker_e: float = 0.0
    flicker_memory: float = 0.5
    afterglow: float = 0.0
    hot_pixels: float = 0.0
    saturation_e: float | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_range("gain", self.gain, 0, above=True)
        check_range("offset", self.offset)
        check_fields(self, ("read_noise_e", "line_noise_e", "flicker_e", "pulse_spread"), 0)
        check_fields(self, ("hot_pixels", "afterglow", "flicker_memory"), 0, 1, below=True)
        if self.saturation_e is not None:
            check_range("saturation_e", self.saturation_e, 0, above=True, hint="or None")
        if np.dtype(self.dtype).kind not in "iuf":
            raise ValueError(f"`dtype` must be an integer or float type, got {self.dtype!r}.")

    def read(
        self, expected_e: npt.NDArray[np.floating], rng: np.random.Generator, *, shot_noise: bool = True
    ) -> npt.NDArray[np.generic]:
        """Draw the image of `expected_e` electrons per pixel."""
        expected = np.clip(expected_e, 0, None)
        counts = (rng.poisson(expected) if shot_noise else expected).astype(np.float32)
        if self.pulse_spread:
            spread = np.float32(self.pulse_spread) * np.sqrt(counts)
            counts += spread * rng.standard_normal(counts.shape, np.float32)
        if self.afterglow:
            counts = lfilter([1 - self.afterglow], [1, -self.afterglow], counts, axis=1).astype(np.float32)
        if self.line_noise_e:
            counts += np.float32(self.line_noise_e) * rng.standard_normal((len(counts), 1), np.float32)
        if self.flicker_e:
            white, memory = rng.standard_normal(counts.shape, np.float32), self.flicker_memory
            slow = lfilter([(1 - memory**2) ** 0.5], [1, -memory], white, axis=1)
            counts += np.float32(self.flicker_e) * slow.astype(np.float32)
        if self.read_noise_e:
            counts += np.float32(self.read_noise_e) * rng.standard_normal(counts.shape, np.float32)
        if self.hot_pixels:
            hot = rng.random(counts.shape, np.float32) < self.hot_pixels
            counts[hot] += rng.exponential(5 * counts.std() + 1, int(hot.sum()))
        if self.saturation_e is not None:
            np.minimum(counts, np.float32(self.saturation_e), out=counts)
        values = self.offset + self.gain * counts
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return np.asarray(values).astype(dtype)
