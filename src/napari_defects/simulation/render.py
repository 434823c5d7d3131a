"""Columns to a noise-free image: a non-uniform Fourier transform, then the probe's transfer function."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from .probe import Microscope, cached_transfer
from .scattering import profiles

_WIDTH = 6  # pixels over which a point is spread
_SHAPE = 2.3 * _WIDTH
_SAMPLING = 1.25  # grid frequency over the probe's cutoff, at least
MARGIN_NM = 0.6

FloatArray = npt.NDArray[np.floating]


@lru_cache(maxsize=64)
def _spread_transfer(n: int) -> npt.NDArray[np.float64]:
    """Fourier transform of the spreading kernel at the frequencies of an n-point grid."""
    x = (np.arange(400) + 0.5) / 400
    kernel = np.exp(_SHAPE * (np.sqrt(1 - x**2) - 1))
    phase = 2 * np.pi * fft.fftfreq(n)[:, None] * (x * _WIDTH / 2)
    return np.asarray(_WIDTH * (np.cos(phase) @ kernel) / 400)


def _spread(positions_px: FloatArray, weights: FloatArray, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Add points to a periodic grid, each spread over `_WIDTH` pixels a side."""
    first = np.ceil(positions_px - _WIDTH / 2).astype(int)
    taps = first[:, :, None] + np.arange(_WIDTH)
    z = (taps - positions_px[:, :, None]) * (2 / _WIDTH)
    values = np.exp(_SHAPE * (np.sqrt(np.clip(1 - z**2, 0, 1)) - 1))
    rows, columns = taps[:, 0] % shape[0], taps[:, 1] % shape[1]
    index = rows[:, :, None] * shape[1] + columns[:, None, :]
    share = (weights[:, None] * values[:, 0])[:, :, None] * values[:, 1][:, None, :]
    grid = np.bincount(index.ravel(), share.ravel(), minlength=shape[0] * shape[1])
    return grid.reshape(shape).astype(np.float32)


def grid_for(
    shape: tuple[int, int], pixel_nm: tuple[float, float], microscope: Microscope
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Size of the padded grid, its refinement over the image's pixels, and its margin, each (y, x)."""
    refine, size, margin = [], [], []
    for n, d in zip(shape, pixel_nm, strict=True):
        refine.append(int(np.ceil(_SAMPLING * microscope.cutoff_per_nm * d)))
        margin.append(int(np.ceil(MARGIN_NM / d)))
        padded = n + 2 * margin[-1]
        size.append(refine[-1] * fft.next_fast_len(padded, real=True))
    return (size[0], size[1]), (refine[0], refine[1]), (margin[0], margin[1])


def render(
    positions_px: FloatArray,
    amplitudes_A2: FloatArray,
    microscope: Microscope,
    shape: tuple[int, int],
    pixel_nm: tuple[float, float],
    row_shift_px: FloatArray | None = None,
) -> npt.NDArray[np.float32]:
    """Fraction of the beam that each pixel's probe position sends onto the detector.

    Parameters
    ----------
    positions_px : ndarray, shape (column, 2)
        Columns (y, x) in pixels of the image; those beyond its border matter up to `MARGIN_NM`.
    amplitudes_A2 : ndarray, shape (profile, column)
        Cross-sections, see `scattering.amplitudes`.
    microscope : Microscope
    shape : (int, int)
    pixel_nm : (float, float)
    row_shift_px : ndarray, shape (y,), optional
        Line jitter: how far each row's content is moved along x.

    Returns
    -------
    ndarray, shape (y, x)
        Exact to about 1e-5 of the peak: the probe is band limited, and the grid fine enough for it.
    """
    (ny, nx), refine, margin = grid_for(shape, pixel_nm, microscope)
    fine = (pixel_nm[0] / refine[0], pixel_nm[1] / refine[1])
    optics = cached_transfer(microscope, (ny, nx), fine)
    qy, qx = fft.fftfreq(ny, fine[0])[:, None], fft.rfftfreq(nx, fine[1])
    spread = (_spread_transfer(ny)[:, None] * _spread_transfer(nx)[: nx // 2 + 1]).astype(np.float32)
    place = (np.asarray(positions_px, float) + margin) * refine
    near = np.all((place > -_WIDTH) & (place < np.array([ny, nx]) + _WIDTH), axis=1)
    spectrum = np.zeros((ny, nx // 2 + 1), np.complex64)
    for weights, profile in zip(np.asarray(amplitudes_A2), profiles(np.hypot(qy, qx)), strict=True):
        used = near & (weights > 0)
        if used.any():
            spectrum += fft.rfft2(_spread(place[used], weights[used], (ny, nx))) * profile
    lines = fft.ifft(spectrum * (optics / spread), axis=0)
    lines = lines[margin[0] * refine[0] :: refine[0]][: shape[0]]
    if row_shift_px is not None:
        cycles = fft.rfftfreq(nx) * refine[1]
        lines = lines * np.exp(-2j * np.pi * cycles * np.asarray(row_shift_px)[:, None]).astype(np.complex64)
    image = fft.irfft(lines, nx, axis=1)[:, margin[1] * refine[1] :: refine[1]][:, : shape[1]]
    return np.asarray(image / (fine[0] * fine[1] * 100.0), np.float32)
