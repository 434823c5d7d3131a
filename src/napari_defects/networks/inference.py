"""Prediction: tiles with overlap, so that memory is bounded and no seam shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..micrograph import Maps, Micrograph, Progress
from .models import Model, Network, fast_dtype, load_model, pick_device
from .preparation import Image, prepare

Positions = npt.NDArray[np.float64]


def predict(
    micrograph: Micrograph,
    model: Model | str | Path,
    *,
    tile_px: int = 512,
    overlap_px: int = 56,
    device: str | None = None,
    progress: Progress | None = None,
) -> Maps:
    """Class probabilities of every pixel of an image or movie.

    Each frame is resampled to the model's pixel size, normalized by its local mean and standard
    deviation, cut into tiles, and the maps are brought back to the micrograph's own pixels.

    Parameters
    ----------
    micrograph : Micrograph
        With a known pixel size.
    model : Model, str or path
        A model, the name of a shipped one, or its file.
    tile_px : int
        About the side of a tile, in pixels of the model.
    overlap_px : int
        What a tile sees beyond its border. The default covers the reach of the shipped networks:
        then the maps do not depend on `tile_px`.
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"mps"``; by itself the best that is there.
    progress : callable, optional
        Called as ``progress(done, total)`` after each tile.

    Returns
    -------
    Maps
        float16, shape (class, y, x), or (class, frame, y, x) for a movie.

    Raises
    ------
    ValueError
        If the pixel size is unknown or too coarse, a frame cannot be analysed, there is no such
        model or device, or a tile is out of bounds.
    """
    for name, value, low in (("tile_px", tile_px, 32), ("overlap_px", overlap_px, 0)):
        if not isinstance(value, int | np.integer) or not low <= value <= 16384:
            raise ValueError(f"`{name}` must be a whole number from {low} to 16384, got {value!r}.")
    if not isinstance(model, Model):
        model = load_model(model)
    if model.task != "maps":
        raise ValueError(f"`model` must be one for class maps, got one for {model.task}; detect_cells() takes it.")
    step = model.pixel_size_nm / micrograph.pixel_size_yx_nm
    where = pick_device(device)
    dtype = fast_dtype(where)
    network = model.network.folded().to(where, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    height, width = micrograph.shape_yx
    maps = np.empty((len(model.classes), micrograph.n_frames, height, width), np.float16)
    for frame in range(micrograph.n_frames):
        image = prepare(micrograph, model.pixel_size_nm, frame=frame)
        tiles = _Tiles(image, network, int(tile_px), int(overlap_px))
        for done, (tile, origin, core) in enumerate(tiles, start=1):
            rows, columns = (
                _within(n, s, c, last) for n, s, (c, last) in zip((height, width), step, core, strict=True)
            )
            x = torch.from_numpy(tile)[None, None].to(where, dtype)
            with torch.inference_mode():
                probabilities = F.softmax(network(x)[0].float().contiguous(), dim=0)
                at_rows, at_columns = (
                    (pixels / s - start - (network.stem - 1) / 2) / network.stem
                    for pixels, s, start in zip((rows, columns), step, origin, strict=True)
                )
                probabilities = _interpolated(probabilities, at_rows, at_columns)
                part = probabilities.to(torch.float16).cpu().numpy()
            if part.size:
                maps[:, frame, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = part
            if progress is not None:
                progress(frame * len(tiles) + done, micrograph.n_frames * len(tiles))
    return Maps(maps if micrograph.is_movie else maps[:, 0], model.classes, micrograph.pixel_size_nm or 0.0)


class _Tiles:
    """Tiles of a prepared image: (pixels, origin, [(first, last) per axis] of the core)."""

    def __init__(self, image: Image, network: Network, tile_px: int, overlap_px: int) -> None:
        grain = network.granularity_px
        self.margin = -(-overlap_px // grain) * grain
        self.counts = [max(1, round(n / tile_px)) for n in image.shape]
        self.sides = [-(-n // (count * grain)) * grain for n, count in zip(image.shape, self.counts, strict=True)]
        extra = [c * s - n for n, c, s in zip(image.shape, self.counts, self.sides, strict=True)]
        self.image = np.pad(image, [(self.margin, self.margin + e) for e in extra], mode="reflect")

    def __len__(self) -> int:
        return int(np.prod(self.counts))

    def __iter__(self):  # type: ignore[no-untyped-def]
        for number in np.ndindex(*self.counts):
            start = [k * side for k, side in zip(number, self.sides, strict=True)]
            tile = self.image[
                start[0] : start[0] + self.sides[0] + 2 * self.margin,
                start[1] : start[1] + self.sides[1] + 2 * self.margin,
            ]
            last = [k + 1 == count for k, count in zip(number, self.counts, strict=True)]
            core = [(s, np.inf if end else s + side) for s, side, end in zip(start, self.sides, last, strict=True)]
            yield np.ascontiguousarray(tile), [s - self.margin for s in start], core


def _within(n: int, step: float, first: float, last: float) -> npt.NDArray[np.int64]:
    """Pixels of the micrograph, out of `n` along an axis, that lie in a tile's core."""
    pixels = np.arange(n)
    return pixels[(pixels / step >= first) & (pixels / step < last)]


def _interpolated(maps: torch.Tensor, rows: Positions, columns: Positions) -> torch.Tensor:
    """Linear interpolation of `maps` (class, y, x) at `rows` and `columns`, constant beyond the ends."""
    left, right = _weights(columns, maps.shape[2], maps.device)
    matrix = torch.zeros(maps.shape[2], len(columns), device=maps.device)
    number = torch.arange(len(columns), device=maps.device)
    matrix[left, number], matrix[left + 1, number] = 1 - right, right
    maps = maps @ matrix  # columns by a product, rows by copies: each the quicker way in memory
    upper, lower = _weights(rows, maps.shape[1], maps.device)
    return torch.lerp(maps.index_select(1, upper), maps.index_select(1, upper + 1), lower[:, None])


def _weights(positions: Positions, n: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of the sample before each position, and weight of the one after."""
    inside = np.clip(positions, 0, n - 1)
    before = np.minimum(inside.astype(np.int64), n - 2)
    return torch.from_numpy(before).to(device), torch.from_numpy((inside - before).astype(np.float32)).to(device)
