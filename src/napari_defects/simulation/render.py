"""Columns to a noise-free image: a non-uniform Fourier transform, then the probe's transfer function."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from .probe import Microscope, Step, frequencies, transfer
from .scattering import profile

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


def render(
    positions_px: FloatArray,
    amplitudes_A2: FloatArray,
    microscope: Microscope,
    shape: tuple[int, int],
    step_nm: Step | tuple[float, float],
    row_shift_px: FloatArray | None = None,
) -> npt.NDArray[np.float32]:
    """Fraction of the beam that each pixel's probe position sends onto the detector.

    Parameters
    ----------
    positions_px : ndarray, shape (column, 2)
        Columns (y, x) in pixels of the image; those beyond its border matter up to `MARGIN_NM`.
    amplitudes_A2 : ndarray, shape (column,)
        Cross-sections, see `scattering.amplitudes`.
    microscope : Microscope
    shape : (int, int)
    step_nm : (float, float) or matrix
        Sides of a pixel (y, x), or the matrix of a scan sheared by drift.
    row_shift_px : ndarray, shape (y,), optional
        Line jitter: how far each row's content is moved along x.

    Returns
    -------
    ndarray, shape (y, x)
        Exact to about 1e-4 of the peak: the probe is band limited, and the grid fine enough for it.
    """
    step = np.diag(step_nm) if np.ndim(step_nm) == 1 else np.array(step_nm, float)
    sides = np.linalg.norm(step, axis=0)
    refine = np.ceil(_SAMPLING * microscope.cutoff_per_nm * sides).astype(int)
    margin = np.ceil(MARGIN_NM / sides).astype(int)
    ny, nx = (int(r * fft.next_fast_len(int(n + 2 * m), real=True))
              for n, m, r in zip(shape, margin, refine, strict=True))  # fmt: skip
    (a, b), (c, d) = (step / refine).tolist()
    fine = ((a, b), (c, d))
    optics = transfer(microscope, (ny, nx), fine)
    q = np.hypot(*frequencies((ny, nx), fine, half=True))
    spread = (_spread_transfer(ny)[:, None] * _spread_transfer(nx)[: nx // 2 + 1]).astype(np.float32)
    place = (np.asarray(positions_px, float) + margin) * refine
    weights = np.asarray(amplitudes_A2, float)
    used = np.all((place > -_WIDTH) & (place < np.array([ny, nx]) + _WIDTH), axis=1) & (weights > 0)
    spectrum = fft.rfft2(_spread(place[used], weights[used], (ny, nx)))
    lines = fft.ifft(spectrum * profile(q) * (optics / spread), axis=0)
    lines = lines[margin[0] * refine[0] :: refine[0]][: shape[0]]
    if row_shift_px is not None:
        cycles = fft.rfftfreq(nx) * refine[1]
        lines = lines * np.exp(-2j * np.pi * cycles * np.asarray(row_shift_px)[:, None]).astype(np.complex64)
    image = fft.irfft(lines, nx, axis=1)[:, margin[1] * refine[1] :: refine[1]][:, : shape[1]]
    return np.asarray(image / (abs(a * d - b * c) * 100.0), np.float32)
