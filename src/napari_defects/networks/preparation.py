"""From a micrograph to what the network sees: resampled, locally normalized; and from a table to its targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from ..micrograph import Micrograph
from .boxes import box_mean

Image = npt.NDArray[np.float32]
WINDOW_NM = 1.0
"""Two passes of a box this wide weigh the neighbourhood like one of 1.4 nm."""
CLIP = 10.0


def prepare(micrograph: Micrograph, pixel_size_nm: float, *, frame: int = 0) -> Image:
    """One frame resampled to `pixel_size_nm` and locally normalized.

    Pixel (k, l) of the result lies at ``(k, l) * pixel_size_nm`` in the frame's own coordinates.

    Returns
    -------
    ndarray of float32, shape (y, x)
        In local standard deviations.

    Raises
    ------
    ValueError
        If the frame cannot be analysed or its pixel size is unknown or far too large.
    """
    step = steps(micrograph, pixel_size_nm)
    pixels = micrograph.frame(frame)
    pixels = np.clip(pixels, *usual_range(pixels))
    return normalize(resample(pixels, step, grid_shape(pixels.shape, step)), pixel_size_nm)


class HugeFrame:
    """A frame too large to be prepared at once: any part of it, as `prepare` would give it but for its rarest values.

    The levels that `prepare` takes from all pixels are taken from samples all over the frame.

    Attributes
    ----------
    shape : (int, int)
        In pixels of the model.
    """

    def __init__(self, micrograph: Micrograph, pixel_size_nm: float, frame: int = 0) -> None:
        self._pixels = micrograph.data[frame] if micrograph.is_movie else micrograph.data
        self._pixel_size_nm, self._step = pixel_size_nm, steps(micrograph, pixel_size_nm)
        self.shape = grid_shape(micrograph.shape_yx, self._step)
        self._margin = 2 * _window_px(pixel_size_nm) + 4
        stride = max(1, int(np.sqrt(np.prod(micrograph.shape_yx) / 65536)))
        self._range = usual_range(np.asarray(self._pixels[::stride, ::stride], np.float32))
        starts = [np.linspace(0, max(n - 512, 0), 5).astype(int) for n in self.shape]
        samples = [self._flat((y, y + 512), (x, x + 512))[1][::8, ::8].ravel() for y in starts[0] for x in starts[1]]
        self._typical = float(np.median(np.concatenate(samples)))

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> Image:
        """Return a part, reflected where it reaches beyond the frame."""
        inside = [(max(0, a), min(n, b)) for (a, b), n in zip((rows, columns), self.shape, strict=True)]
        part = _scaled(*self._flat(*inside), self._typical)
        beyond = [(c - a, b - d) for (a, b), (c, d) in zip((rows, columns), inside, strict=True)]
        return np.pad(part, beyond, mode="reflect")

    def _flat(self, *ranges: tuple[int, int]) -> tuple[Image, Image]:
        wider = [
            (max(0, a - self._margin), min(n, b + self._margin)) for (a, b), n in zip(ranges, self.shape, strict=True)
        ]
        sources, firsts = [], []
        for (a, b), s, n in zip(wider, self._step, self._pixels.shape, strict=True):
            reach = int(np.ceil(2 * max(1.0, s))) + 1
            sources.append(slice(max(0, int(a * s) - reach), min(n, int(b * s) + reach + 1)))
            firsts.append(a * s - sources[-1].start)
        raw = np.asarray(self._pixels[sources[0], sources[1]]).astype(np.float32)
        if not np.isfinite(raw).all():
            raise ValueError("the image has NaN or infinite pixels; crop or fill them first, e.g. numpy.nan_to_num.")
        grid = resample(np.clip(raw, *self._range), self._step, [b - a for a, b in wider], firsts)
        core = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(ranges, wider, strict=True))
        flat, spread = _flattened(grid, self._pixel_size_nm)
        return flat[core], spread[core]


def steps(micrograph: Micrograph, pixel_size_nm: float) -> npt.NDArray[np.float64]:
    """Pixels of the micrograph per pixel of the model, along y and x."""
    step = pixel_size_nm / micrograph.pixel_size_yx_nm
    if np.any(step < 0.2):
        raise ValueError(
            f"`pixel_size_nm` of the image is {micrograph.pixel_size_nm}: too coarse for a model of {pixel_size_nm}; "
            "is it right? calibrate(micrograph, crystal) measures it on the lattice."
        )
    return np.asarray(step)


def grid_shape(shape: Sequence[int], step: npt.NDArray[np.floating[Any]]) -> tuple[int, int]:
    """Shape of an image of `shape` pixels when it is sampled every `step` pixels."""
    ny, nx = (int((n - 1) / s + 1e-6) + 1 for n, s in zip(shape, step, strict=True))
    if min(ny, nx) < 8:
        raise ValueError(f"the image is only {ny} x {nx} pixels of the model's size.")
    return ny, nx


def usual_range(pixels: Image) -> tuple[float, float]:
    """Limits for hot and dead pixels: a few times the range that nearly all pixels lie in."""
    stride = max(1, int(np.sqrt(pixels.size / 65536)))
    low, high = np.quantile(pixels[::stride, ::stride], (0.002, 0.998))
    margin = 4 * (high - low)
    return (float(low - margin), float(high + margin)) if margin > 0 else (-np.inf, np.inf)


def resample(
    pixels: Image, step: npt.NDArray[np.floating[Any]], shape: Sequence[int], first: Sequence[float] = (0.0, 0.0)
) -> Image:
    """Sample an image every `step` = (y, x) pixels from pixel `first`, smoothed first where that is coarser."""
    rows, columns = (
        _sampling(n, start + np.arange(m) * s, max(1.0, s))
        for n, s, m, start in zip(pixels.shape, step, shape, first, strict=True)
    )
    return np.ascontiguousarray((columns @ (rows @ pixels).T).T, dtype=np.float32)


def normalize(pixels: Image, pixel_size_nm: float) -> Image:
    """Subtract the local mean and divide by the local standard deviation, at quiet places by less."""
    flat, spread = _flattened(pixels, pixel_size_nm)
    return _scaled(flat, spread, float(np.median(spread)))


def _window_px(pixel_size_nm: float) -> int:
    return max(3, round(WINDOW_NM / pixel_size_nm))


def _flattened(pixels: Image, pixel_size_nm: float) -> tuple[Image, Image]:
    """Subtract the local mean; return also the local standard deviation."""
    size = _window_px(pixel_size_nm)
    flat = pixels - box_mean(pixels, size, times=2)
    return flat, np.sqrt(np.maximum(box_mean(flat * flat, size, times=2), 0))


def _scaled(flat: Image, spread: Image, typical: float) -> Image:
    """Divide by the local standard deviation, at quiet places by less."""
    floor = 0.2 * typical + np.finfo(np.float32).tiny
    return np.clip(flat / np.hypot(spread, floor), -CLIP, CLIP).astype(np.float32, copy=False)


def draw_targets(
    table: pd.DataFrame, classes: tuple[str, ...], *, shape: tuple[int, int], pixel_size_nm: float, stem: int,
    radius_nm: float,
) -> npt.NDArray[np.uint8]:  # fmt: skip
    """Class of every output pixel of the network: a disc around each column, later classes over earlier ones.

    Parameters
    ----------
    table : DataFrame
        ``y_nm``, ``x_nm`` and ``species`` of everything to be found; rows without a position are left out.
    classes : tuple of str
    shape : (int, int)
        Of the prepared image, of pixels of `pixel_size_nm`; the result is `stem` times smaller.

    Raises
    ------
    ValueError
        If columns are missing or a species is not among the classes.
    """
    missing = [c for c in ("y_nm", "x_nm", "species") if c not in table.columns]
    if missing:
        raise ValueError(f"`pairs`: the table lacks {', '.join(missing)}; it needs y_nm, x_nm and species.")
    if unknown := set(table["species"]) - set(classes[1:]):
        raise ValueError(f"`pairs` hold species {sorted(map(str, unknown))[0]!r}, which is not among `classes`.")
    number = table["species"].map({name: k for k, name in enumerate(classes)}).to_numpy(int)
    centers = (table[["y_nm", "x_nm"]].to_numpy(float) / pixel_size_nm - (stem - 1) / 2) / stem
    radius = radius_nm / pixel_size_nm / stem
    side_y, side_x = shape[0] // stem, shape[1] // stem
    target = np.zeros((side_y, side_x), np.uint8)
    order = np.argsort(number, kind="stable")
    order = order[np.isfinite(centers[order]).all(axis=1)]
    span = np.arange(-int(radius) - 1, int(radius) + 2)
    offsets = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1).reshape(-1, 2)
    pixels = np.round(centers[order])[:, None] + offsets
    near = np.linalg.norm(pixels - centers[order][:, None], axis=-1) <= radius
    y, x = pixels[near].astype(int).T
    inside = (y >= 0) & (y < side_y) & (x >= 0) & (x < side_x)
    target[y[inside], x[inside]] = np.broadcast_to(number[order][:, None], near.shape)[near][inside]
    return target


def _sampling(n: int, positions: npt.NDArray[np.floating[Any]], width: float) -> csr_array:
    """Matrix that samples `n` pixels at `positions` with a cubic kernel stretched by `width`; clamped at the ends."""
    taps = np.arange(-int(np.ceil(2 * width)), int(np.ceil(2 * width)) + 1)
    columns = np.floor(positions).astype(int)[:, None] + taps
    t = np.abs(columns - positions[:, None]) / width
    weights = np.where(t < 1, (1.5 * t - 2.5) * t * t + 1, np.where(t < 2, ((-0.5 * t + 2.5) * t - 4) * t + 2, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.broadcast_to(np.arange(len(positions))[:, None], columns.shape)
    entries = (weights.astype(np.float32).ravel(), (rows.ravel(), np.clip(columns, 0, n - 1).ravel()))
    matrix = csr_array(entries, shape=(len(positions), n))
    matrix.eliminate_zeros()
    return matrix
