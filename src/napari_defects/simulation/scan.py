"""The scan: where on the specimen the beam is when each pixel is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates
from scipy.signal import lfilter

from ..checks import check_fields, check_place, check_range
from .probe import Step

Array = npt.NDArray[np.float64]
_FIXED_POINT_STEPS = 12


@dataclass(frozen=True)
class Scan:
    """How the beam moves over the specimen.

    Pixel (row, col) is read at the position ``s (row, col) + d``, with s the pixel size and d the sum
    of drift, wander and flyback; a column is seen where that meets it. Lines jitter on top, along x,
    and the beam trembles within them; truth positions leave both out.

    Parameters
    ----------
    rotation_deg : float
        Angle of the crystal's a1 from +x towards +y (down the image).
    drift_pm_per_line : (float, float)
        Linear drift (y, x) of the beam over the specimen, per line.
    wander_pm : float
        Amplitude (rms) of a smooth non-linear drift, along each axis.
    wander_cycles : float
        Periods of its fastest part within a frame.
    jitter_pm : float
        Random shift of each line along x, rms.
    jitter_memory : float
        Correlation of that shift with the line before, 0 to 1: line-to-line offsets that persist.
    tremor_pm : float
        Random displacement of the beam within a line, rms along each axis, new in each line.
    tremor_nm : float
        Length of the line over which it fades to 1/e.
    flyback_pm, flyback_nm : float
        Lag of the beam at the start of each line, and the length over which it decays.
    current_variation : float
        Relative rms of a slow variation of the probe current.
    """

    rotation_deg: float = 0.0
    drift_pm_per_line: tuple[float, float] = (0.0, 0.0)
    wander_pm: float = 0.0
    wander_cycles: float = 2.5
    jitter_pm: float = 0.0
    jitter_memory: float = 0.0
    tremor_pm: float = 0.0
    tremor_nm: float = 0.7
    flyback_pm: float = 0.0
    flyback_nm: float = 0.5
    current_variation: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, ("wander_pm", "jitter_pm", "tremor_pm", "current_variation"), 0)
        check_fields(self, ("flyback_nm", "tremor_nm"), 0, above=True)
        check_fields(self, ("rotation_deg", "wander_cycles", "flyback_pm"))
        check_range("jitter_memory", self.jitter_memory, 0, 1, below=True)
        check_place("drift_pm_per_line", self.drift_pm_per_line, "a pair (y, x) in pm")

    def rotation(self) -> Array:
        """Matrix R with ``row @ R`` turning (y, x) from the crystal's frame to the scan's."""
        c, s = np.cos(np.deg2rad(self.rotation_deg)), np.sin(np.deg2rad(self.rotation_deg))
        return np.array([[c, -s], [s, c]])

    def step_nm(self, shape: tuple[int, int], pixel_nm: tuple[float, float]) -> Step:
        """Matrix whose product with a pixel (row, col) is the place it samples: pixel size and linear drift."""
        dy, dx = (1e-3 * d for d in self.drift_pm_per_line)
        return ((pixel_nm[0] + dy, dy / shape[1]), (dx, pixel_nm[1] + dx / shape[1]))

    def distortion_nm(
        self, shape: tuple[int, int], pixel_nm: tuple[float, float], rng: np.random.Generator
    ) -> Callable[..., Array]:
        """Draw d: a function of pixel positions (n, 2), and of the frame, that gives (n, 2) in nm."""
        terms = rng.uniform(0.3, 1.0, 3) * 2 * np.pi * self.wander_cycles, rng.uniform(0, 2 * np.pi, (3, 2))
        size = rng.normal(0, 1, (3, 2)) * self.wander_pm * 1e-3 * np.sqrt(2 / 3)
        drift = np.asarray(self.drift_pm_per_line, float) * 1e-3

        def distortion(position_px: Array, frame: int = 0) -> Array:
            lines = position_px[:, :1] + position_px[:, 1:] / shape[1] + frame * shape[0]
            d = drift * (lines - shape[0] / 2)
            if self.wander_pm:
                for frequency, phase, amplitude in zip(*terms, size, strict=True):
                    d = d + amplitude * np.sin(frequency * lines / shape[0] + phase)
            if self.flyback_pm:
                lag = np.exp(-np.clip(position_px[:, 1] * pixel_nm[1] / self.flyback_nm, -1, 50))
                d = d - np.stack([np.zeros_like(lag), 1e-3 * self.flyback_pm * lag], 1)
            return d

        return distortion

    def row_shift_px(self, n_rows: int, pixel_x_nm: float, rng: np.random.Generator) -> Array | None:
        """Draw the jitter of each line along x, in pixels; None without jitter."""
        noise = rng.normal(0, 1, n_rows)
        if not self.jitter_pm:
            return None
        for row in range(1, n_rows):
            noise[row] = self.jitter_memory * noise[row - 1] + np.sqrt(1 - self.jitter_memory**2) * noise[row]
        return noise * self.jitter_pm * 1e-3 / pixel_x_nm

    def trembling(
        self, expected: npt.NDArray[np.float32], pixel_nm: tuple[float, float], rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Return what a beam that trembles along the lines sees of an image."""
        if not self.tremor_pm:
            return expected
        memory = np.exp(-pixel_nm[1] / self.tremor_nm)
        white = rng.standard_normal((2, *expected.shape), np.float32) * np.float32(np.sqrt(1 - memory**2))
        start = rng.standard_normal((2, expected.shape[0], 1)) * memory
        moved = 1e-3 * self.tremor_pm * lfilter([1], [1, -memory], white, axis=-1, zi=start)[0]
        place = np.indices(expected.shape) + moved / np.reshape(pixel_nm, (2, 1, 1))
        return np.asarray(map_coordinates(expected, place, order=3, mode="nearest"), np.float32)

    def places_nm(
        self,
        shape: tuple[int, int],
        pixel_nm: tuple[float, float],
        distortion: Callable[[Array], Array],
        row_shift_px: Array | None,
    ) -> Array:
        """Place on the specimen that each pixel samples, shape (y, x, 2): the inverse of `seen_at_px`."""
        pixel = np.moveaxis(np.indices(shape, float), 0, -1).copy()
        if row_shift_px is not None:
            pixel[..., 1] -= row_shift_px[:, None]
        middle = (np.asarray(shape) - 1) / 2
        place = (pixel - middle) * pixel_nm + distortion(pixel.reshape(-1, 2)).reshape(*shape, 2)
        return np.asarray(place)

    def current(self, n_rows: int, rng: np.random.Generator) -> Array:
        """Draw the probe current of each line relative to its mean, shape (row, 1)."""
        time = np.linspace(0, 1, n_rows)[:, None]
        frequency, phase = rng.uniform(0.5, 6, 4) * 2 * np.pi, rng.uniform(0, 2 * np.pi, 4)
        wave = np.sin(frequency * time + phase) @ rng.normal(0, 1, 4) / np.sqrt(2)
        current: Array = np.clip(1 + self.current_variation * wave, 0.1, None)
        return current[:, None]


def seen_at_px(
    specimen_nm: Array, pixel_nm: tuple[float, float], distortion: Callable[[Array], Array], center_px: Array
) -> Array:
    """Pixels at which points of the specimen are seen.

    Parameters
    ----------
    specimen_nm : ndarray, shape (n, 2)
        Points in the scan's frame, relative to what the centre of the image would show undistorted.
    pixel_nm : (float, float)
    distortion : callable
        From `Scan.distortion_nm`.
    center_px : ndarray, shape (2,)

    Returns
    -------
    ndarray, shape (n, 2)
        Solution p of ``s (p - center) + d(p) = r``, by iteration to a fixed point.
    """
    pixel = np.asarray(pixel_nm)
    start = center_px + specimen_nm / pixel
    position: Array = start
    for _ in range(_FIXED_POINT_STEPS):
        moved = start - distortion(position) / pixel
        change = float(np.abs(moved - position).max(initial=0.0))
        position = moved
        if change < 1e-6:
            break
    return position
