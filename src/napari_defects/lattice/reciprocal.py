"""Lattice vectors from the power spectrum of an image: needs neither atoms nor a pixel size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree

from ..crystals import Crystal

Array = npt.NDArray[np.float64]

PEAK_POWER = 11.0  # of the median at the same frequency, smoothed; noise alone reaches that
_PEAK_DEPTH = 0.02  # of the strongest peak
_ANISOTROPY = 1.4


def find_period(images: list[Array], crystal: Crystal, sides: Array | None = None) -> Array | None:
    """Lattice vectors in pixels from the power spectrum; needs no pixel size.

    Parameters
    ----------
    images : list of ndarray, shape (y, x)
        Frames of one lattice; their power spectra are averaged.
    crystal : Crystal
        Only the shape of its cell is used; its size is free.
    sides : ndarray, shape (2,), optional
        Height and width of a pixel, in any unit; it is square when None.

    Returns
    -------
    ndarray, shape (2, 2), or None
        Rows a1 and a2 as (y, x), or None where the spectrum has no peaks that fit.
    """
    power = np.mean([_relative_power(image) for image in images], axis=0)
    smooth = ndimage.gaussian_filter(power, 0.7, mode="wrap")
    center = np.array(power.shape) // 2
    top = (ndimage.maximum_filter(smooth, 5, mode="wrap") == smooth) & (smooth > PEAK_POWER)
    where = np.argwhere(top)
    where = where[np.linalg.norm(where - center, axis=1) > 4]
    strength = np.log(smooth[tuple(where.T)])
    above = strength > strength.max(initial=0) + np.log(_PEAK_DEPTH)
    where, strength = where[above], strength[above]
    strongest = np.argsort(-strength, kind="stable")[:40]
    spots, strength = (where[strongest] - center) / power.shape, strength[strongest]  # cycles per pixel

    tree, best, best_score = cKDTree(spots) if len(spots) else None, None, 0.5
    reciprocal = np.linalg.inv(crystal.vectors_nm).T
    undo, slack = np.linalg.inv(reciprocal), 2.5 / min(power.shape)
    for b1 in spots:
        for b2 in spots:
            pair = np.array([b1, b2])
            stretch = np.linalg.svd(undo @ (pair if sides is None else pair / sides), compute_uv=False)
            if stretch[0] > _ANISOTROPY * stretch[1] or np.linalg.det(pair) * np.linalg.det(reciprocal) < 0:
                continue
            hk = spots @ np.linalg.inv(pair)
            explained = np.linalg.norm((hk - np.round(hk)) @ pair, axis=1) < slack * np.maximum(np.abs(hk).max(1), 1)
            third = -b1 - b2 if np.dot(b1, b2) < 0 else b1 - b2
            ring = 1.0 if tree is not None and tree.query(third)[0] < 2 * slack else 0.6
            score = ring * float(strength[explained].sum() / strength.sum()) / np.sqrt(stretch[0] / stretch[1])
            if score > best_score:
                best, best_score = pair, score
    return None if best is None else np.asarray(np.linalg.inv(_refine_spots(best, spots, smooth)).T)


def _relative_power(image: Array) -> Array:
    """Power spectrum over its median at the same frequency; zero frequency in the middle."""
    side = 2048
    image = image[: min(side, image.shape[0]), : min(side, image.shape[1])]
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
    flat = image - ndimage.uniform_filter(image, max(3, min(image.shape) // 12), mode="nearest")
    flat = np.clip(flat, *np.percentile(flat, (1, 98)))
    power = np.abs(np.fft.fftshift(np.fft.fft2(flat * window))) ** 2
    y, x = (np.fft.fftshift(np.fft.fftfreq(n)) for n in power.shape)
    ring = (np.hypot(y[:, None], x) * 128).astype(int)
    return over_rings(power, ring)


def over_rings(power: Array, ring: npt.NDArray[np.int64]) -> Array:
    """Power over its median in the same ring."""
    median = pd.Series(power.ravel()).groupby(ring.ravel()).transform("median").to_numpy()
    return np.asarray(power / np.maximum(median.reshape(power.shape), 1e-30))


def _refine_spots(pair: Array, spots: Array, power: Array) -> Array:
    """Reciprocal vectors from the interpolated maxima of all spots near their multiples."""
    center = np.array(power.shape) // 2
    hk = np.round(spots @ np.linalg.inv(pair))
    near = (np.abs(hk).max(1) <= 3) & (
        np.linalg.norm(spots - hk @ pair, axis=1) < 3 * np.abs(hk).max(1) / min(power.shape)
    )
    log = np.log(power)
    measured = []
    for spot in np.round(spots[near] * power.shape).astype(int) + center:
        y, x = np.clip(spot, 1, np.array(power.shape) - 2)
        a, b = log[y - 1 : y + 2, x], log[y, x - 1 : x + 2]
        shift = [(v[2] - v[0]) / 2 / max(2 * v[1] - v[0] - v[2], 1e-9) for v in (a, b)]
        measured.append((np.array([y, x]) + np.clip(shift, -1, 1) - center) / power.shape)
    return np.asarray(np.linalg.lstsq(hk[near], np.array(measured), rcond=None)[0])
