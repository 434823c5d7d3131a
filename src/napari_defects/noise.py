"""Gain, offset and read noise of an image, from nothing but the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d, gaussian_filter

from napari_defects.micrograph import FloatArray, Micrograph, check_micrograph

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

    Pixels are binned as far as the columns allow, for it is the noise at their scale that moves
    them. A filter that no column passes (fourth difference along the fast, second along the slow
    scan direction; blind to line jitter) leaves noise, whose variance is a straight line in the mean.

    Parameters
    ----------
    micrograph : Micrograph
    frame : int
        Frame of a movie.

    Returns
    -------
    Noise
    """
    check_micrograph(micrograph)
    pixels = micrograph.frame(frame)
    return from_pixels(pixels, column_scale_px(pixels))


def column_scale_px(
    pixels: FloatArray, pixel: tuple[float, float] = (1.0, 1.0), low: float = 0.8, usual: float | None = None
) -> float:
    """Width whose Laplacian of Gaussian has most structure above the noise, in the unit of `pixel`.

    Parameters
    ----------
    pixels : ndarray, shape (y, x)
    pixel : (float, float)
        Height and width of a pixel.
    low : float
        Smallest width to try; the largest is five times that or a twelfth of the image.
    usual : float, optional
        Width that columns usually have: others count less, so that dirt and single bright atoms are not taken for them.
    """
    shape = pixels.shape
    taper = np.multiply.outer(*(np.hanning(n) for n in shape))
    power = np.abs(np.fft.rfft2((pixels - float(np.mean(pixels))) * taper)) ** 2
    fy, fx = np.fft.fftfreq(shape[0], pixel[0])[:, None], np.fft.rfftfreq(shape[1], pixel[1])
    squared = (2 * np.pi) ** 2 * (fy**2 + fx**2)
    outer = squared > 0.8 * (np.pi / max(pixel)) ** 2
    power -= float(np.mean(power[outer]))
    ring = np.sqrt(squared / squared.max() * 4e6).astype(int).ravel()
    count = np.bincount(ring)
    summed, mean = np.bincount(ring, power.ravel()), np.bincount(ring, squared.ravel()) / np.maximum(count, 1)
    scales = np.geomspace(low, max(1.2 * low, min(5.2 * low, min(shape) * min(pixel) / 12)), 24)
    excess = np.array([np.sum(summed * (mean * s * s) ** 2 * np.exp(-mean * s * s)) for s in scales])
    if usual is not None:
        excess = excess * np.exp(-0.5 * (np.log(scales / usual) / 0.35) ** 2)
    return float(scales[int(np.argmax(excess))])


def from_pixels(image: FloatArray, column_px: float) -> Noise:
    """`estimate` for pixels, shape (y, x), in which columns are `column_px` wide (1 sigma)."""
    full = np.asarray(image, np.float64)
    b = int(np.clip(column_px / 1.7, 1, max(1, min(full.shape) // 24)))
    ny, nx = (n // b for n in full.shape)
    pixels = full[: ny * b, : nx * b].reshape(ny, b, nx, b).mean(axis=(1, 3))
    squares = _filtered(pixels) ** 2 * b * b
    own = _robust_mean(_filtered(full).ravel() ** 2) / max(_robust_mean(squares.ravel()), 1e-300)
    if own < 0.93 or b == 1:  # smoothed after it was counted, perhaps beyond the bins
        share = _whiteness(pixels)
        own, squares = own * share, squares / share
    mean = convolve1d(convolve1d(pixels, _ALONG_X**2, axis=1), _ALONG_Y**2, axis=0)[2:-2, 3:-3].ravel()
    smooth = gaussian_filter(pixels, 1.0)[2:-2, 3:-3].ravel()
    rank = (smooth - smooth.min()) * (65535 / max(float(np.ptp(smooth)), 1e-300))
    order = np.argsort(rank.astype(np.uint16), kind="stable")  # short numbers are sorted by their digits
    parts = np.array_split(order, int(np.clip(len(order) / 300, 3, 40)))
    level = np.array([mean[p].mean() for p in parts])
    variance = np.array([_robust_mean(squares.ravel()[p]) for p in parts])
    typical = max(float(np.mean(variance)), (1e-7 * float(np.ptp(full))) ** 2)
    fitted = np.full_like(variance, typical)
    for _ in range(4):
        slope, constant = np.polyfit(level, variance, 1, w=1 / fitted)
        fitted = np.maximum(slope * level + constant, 0.1 * typical)
    if slope * (level[-1] - level[0]) < 0.02 * typical:  # as good as constant, or falling
        slope = typical / (50 * float(np.ptp(full)))
        constant = typical - slope * float(level.mean())
    offset = min(float(-constant / slope), float(level[0]))  # no part of an image has fewer than no electrons
    smoothing = float(np.sqrt(-np.log(own)) / (2 * np.pi * 0.42)) if 0 < own < 0.93 else 0.0
    return Noise(float(slope), float(offset), 0.0, smoothing, float((full.mean() - offset) / slope))


def _filtered(pixels: FloatArray) -> FloatArray:
    """Filter out all columns; white noise keeps its variance."""
    return np.asarray(convolve1d(convolve1d(pixels, _ALONG_X, axis=1), _ALONG_Y, axis=0)[2:-2, 3:-3])


def _robust_mean(squares: FloatArray) -> float:
    """Mean of squared Gaussian noise, what lies beyond 4 sigma left out."""
    kept = squares
    for _ in range(3):
        kept = kept[kept <= 16 * np.mean(kept) + 1e-300]
    return float(np.mean(kept))


def _whiteness(pixels: FloatArray) -> float:
    """Share of the noise that the filter sees, 1 where it is white.

    The power of smoothed noise falls as exp(-(2 pi f s)^2): fitted to the medians of rings (which
    pass over Bragg peaks) at high frequencies, where columns have none.
    """
    taper = np.multiply.outer(*(np.hanning(n) for n in pixels.shape))
    power = np.abs(np.fft.rfft2((pixels - pixels.mean()) * taper)) ** 2
    fy, fx = np.fft.fftfreq(pixels.shape[0])[:, None], np.fft.rfftfreq(pixels.shape[1])
    radius = np.hypot(fy, fx)
    edges = np.linspace(0.3, 0.66, 13)
    ring = np.digitize(radius, edges)
    squared = (0.5 * (edges[1:] + edges[:-1])) ** 2
    members = [power[ring == k] for k in range(1, len(edges))]
    level = np.log([np.median(m) + 1e-300 for m in members])
    weight = np.sqrt([m.size for m in members])
    slope, _ = np.polyfit(squared, level, 1, w=weight)
    error = 1.7 / float(np.sqrt(np.sum(weight**2)) * np.std(squared))
    if -slope < 4 * error:
        return 1.0
    slope = max(float(slope), -20.0)
    response = (2 - 2 * np.cos(2 * np.pi * fx)) ** 4 * (2 - 2 * np.cos(2 * np.pi * fy)) ** 2
    return float(np.sum(response * np.exp(slope * radius**2)) / np.sum(response))
