"""A tiny generator of honeycomb images with exact truth, for tests of noise, gaussian and atoms."""

from __future__ import annotations

import numpy as np

SIGMA_NM, A_NM, PIXEL_NM = 0.065, 0.329, 0.012


def honeycomb(
    shape: tuple[int, int] = (256, 256),
    *,
    pixel_nm: float = PIXEL_NM,
    a_nm: float = A_NM,
    second: float = 0.6,
    turn_deg: float = 17.0,
    margin_nm: float = 0.3,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (y, x) in pixels and relative amplitudes of both sublattices, some outside the image."""
    turn = np.deg2rad(turn_deg)
    a1 = a_nm * np.array([np.sin(turn), np.cos(turn)])
    a2 = a_nm * np.array([np.sin(turn + 2 * np.pi / 3), np.cos(turn + 2 * np.pi / 3)])
    reach = int(2 * max(shape) * pixel_nm / a_nm) + 4
    ij = np.stack(np.meshgrid(np.arange(-reach, reach), np.arange(-reach, reach)), -1).reshape(-1, 2)
    first = ij @ np.array([a1, a2]) + 0.013
    yx = np.concatenate([first, first + (2 * a1 + a2) / 3])
    amplitude = np.repeat([1.0, second], len(first))
    kept = ((yx > -margin_nm) & (yx < np.array(shape) * pixel_nm + margin_nm)).all(axis=1)
    return yx[kept] / pixel_nm, amplitude[kept]


def draw(
    shape: tuple[int, int],
    yx: np.ndarray,
    amplitude: np.ndarray,
    sigma_px: float,
    background: float,
    aspect: float = 1.0,
) -> np.ndarray:
    """Noise-free image, every column drawn in full (separable Gaussians, no window)."""
    y, x = np.arange(shape[0])[:, None] - yx[:, 0], (np.arange(shape[1])[:, None] - yx[:, 1]) * aspect
    gy, gx = np.exp(-0.5 * (y / sigma_px) ** 2), np.exp(-0.5 * (x / sigma_px) ** 2)
    return background + (gy * amplitude) @ gx.T


def inner(yx: np.ndarray, shape: tuple[int, int], border: float = 35.0) -> np.ndarray:
    """Which positions lie further than `border` pixels from the edge."""
    return ((yx > border) & (yx < np.array(shape) - 1 - border)).all(axis=1)


def draw_line(
    y: int, width: int, yx: np.ndarray, amplitude: np.ndarray, sigma_px: float, background: float
) -> np.ndarray:
    """One line of an image, shape (1, width), as `draw` would draw it."""
    near = np.abs(yx[:, 0] - y) < 6 * sigma_px
    gy = np.exp(-0.5 * ((y - yx[near, 0]) / sigma_px) ** 2) * amplitude[near]
    gx = np.exp(-0.5 * ((np.arange(width)[:, None] - yx[near, 1]) / sigma_px) ** 2)
    return background + (gx @ gy)[None]
