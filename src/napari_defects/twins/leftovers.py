"""Detector and dirt, from what is left of an image when its columns are taken out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve, convolve1d
from scipy.optimize import nnls

Array = npt.NDArray[np.float64]

_QUICK = 0.36  # cycles per pixel, along the slow axis: beyond what columns have
_SURE = 60.0  # by how much a flicker must lower chi-square
_SPIKE = 8.0  # standard deviations beyond which a pixel is no noise
_ALONG_X = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70)
_ALONG_Y = np.array([1.0, -2.0, 1.0]) / np.sqrt(6)


def flicker_of(residual: Array) -> tuple[float, float]:
    """Rms in image units, and memory from pixel to pixel, of noise that is alike along lines and new in each.

    White noise has the same power at all frequencies along the lines, flicker one that falls. What falls across the
    lines as well is no flicker: (0, 0) then, and where nothing shows it.
    """
    along, across = (_slow_noise(part) for part in (residual, residual.T))
    return along if across[0] < 0.5 * along[0] else (0.0, 0.0)


def _slow_noise(residual: Array) -> tuple[float, float]:
    """Flicker along x, from the noise at high frequencies along y."""
    taper = np.multiply.outer(*(np.hanning(n) for n in residual.shape))
    power = np.abs(np.fft.rfft2(residual * taper)) ** 2 / (taper**2).sum()
    power = power[np.abs(np.fft.fftfreq(len(power))) > _QUICK]
    edges = np.linspace(0.0, 0.5, 21)
    part = np.clip(np.digitize(np.fft.rfftfreq(residual.shape[1]), edges) - 1, 0, 19)
    level = np.array([np.median(power[:, part == k]) for k in range(20)]) / np.log(2)  # passes over peaks of columns
    error = level / np.sqrt([max((part == k).sum(), 1) * len(power) for k in range(20)])
    wave = np.cos(np.pi * (edges[1:] + edges[:-1]))
    found = []
    for memory in np.linspace(0.0, 0.9, 46):
        falling = (1 - memory**2) / (1 + memory**2 - 2 * memory * wave)
        strength, rest = nnls(np.stack([falling, np.ones(20)], 1) / error[:, None], level / error)
        found.append((rest**2, float(np.sqrt(strength[0])), float(memory)))
    best = min(found)
    return best[1:] if found[0][0] - best[0] > _SURE else (0.0, 0.0)


def variance_line(residual: Array, signal: Array, flicker: tuple[float, float] = (0.0, 0.0)) -> tuple[float, float]:
    """Slope and intercept of the variance of a residual in the signal, blind to flicker and what is smooth."""
    square = convolve1d(convolve1d(residual, _ALONG_X, axis=1), _ALONG_Y, axis=0).ravel() ** 2
    level = convolve1d(convolve1d(signal, _ALONG_X**2, axis=1), _ALONG_Y**2, axis=0).ravel()
    design = np.stack([level, np.ones_like(level)], 1)
    line, expected = np.zeros(2), np.full(len(level), float(square.mean()))
    for _ in range(4):  # the scatter of a square is its mean
        line = np.linalg.lstsq(design / expected[:, None], square / expected, rcond=None)[0]
        expected = np.maximum(design @ line, 0.05 * square.mean())
    rms, memory = flicker
    apart = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    passed = float(_ALONG_X @ np.power(memory, apart) @ _ALONG_X)  # of the flicker, through the filter along lines
    return max(float(line[0]), 1e-12), float(line[1]) - rms**2 * passed


def counted(residual: Array, gain: float) -> tuple[float, float]:
    """Mean of what was counted, in image units above nothing, and its error: from the noise's skewness.

    Counts of n electrons have the third cumulant n, all other noise none; so even a layer of even thickness is seen.
    """
    ring = np.full((3, 3), -1 / 8)
    ring[1, 1] = 1.0
    high = convolve(residual, ring, mode="mirror")
    high = high[np.abs(high) < _SPIKE * float(high.std())]
    third = float(((high - high.mean()) ** 3).mean()) / float((ring**3).sum())
    error = float(np.sqrt(15 / high.size)) * float(high.std()) ** 3
    return third / gain**2, error / gain**2


def speckle_of(residual: Array, pixel_nm: float, length_nm: float) -> float:
    """Rms of a speckle of this length in a residual, in its units: the power that is above the noise's.

    Power at 1 to 2.5 per nm, where columns have none, less that near the highest frequencies.
    """
    taper = np.multiply.outer(*(np.hanning(n) for n in residual.shape))
    power = np.abs(np.fft.rfft2(residual * taper)) ** 2 / (taper**2).sum()
    q = np.hypot(np.fft.fftfreq(residual.shape[0], pixel_nm)[:, None], np.fft.rfftfreq(residual.shape[1], pixel_nm))
    band, quiet = (q > 1.0) & (q < 2.5), q > 0.7 * float(q.max())
    excess = float(np.median(power[band]) - np.median(power[quiet])) / np.log(2)  # medians of exponentials
    shape = np.exp(-((np.pi * length_nm / 2) ** 2) * q**2)
    mean = float(shape.mean()) / float(shape[band].mean())  # of the speckle's power over all frequencies
    return float(np.sqrt(max(excess * mean, 0.0)))
