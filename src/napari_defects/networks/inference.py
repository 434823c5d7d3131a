"""Prediction: tiles with overlap, so that memory is bounded and no seam shows."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..checks import check_range, check_type
from ..micrograph import Maps, Micrograph, Progress, check_micrograph
from .devices import fast_dtype, pick_device
from .folding import folded
from .models import Model, Network, load_model
from .preparation import HugeFrame, Image, grid_shape, prepare, steps

HUGE_PX = 2**25
"""Frames of more pixels are prepared tile by tile."""
MAX_BYTES = 2**30
"""Maps larger than this lie in a temporary file."""
Positions = npt.NDArray[np.float64]


def predict(
    micrograph: Micrograph,
    model: Model | str | Path | Sequence[Model | str | Path],
    *,
    tile_px: int = 1024,
    overlap_px: int = 56,
    views: int = 1,
    device: str | None = None,
    progress: Progress | None = None,
) -> Maps:
    """Class probabilities of every pixel of an image or movie.

    Each frame is resampled to the model's pixel size, normalized by its local mean and standard
    deviation, cut into tiles, and the maps are brought back to the micrograph's own pixels.

    Parameters
    ----------
    micrograph : Micrograph
        With a known pixel size. A dask array is read frame by frame, a huge frame tile by tile.
    model : Model, str or path, or a sequence of them
        A model, the name of a shipped one, or its file. Of several, which must agree in classes and pixel size, the
        mean is taken: an ensemble.
    tile_px : int
        About the side of a tile, in pixels of the model.
    overlap_px : int
        What a tile sees beyond its border. The default covers the reach of the shipped networks:
        then the maps do not depend on `tile_px`.
    views : int
        Turned and mirrored copies of each tile, 1 to 8, whose mean is taken. Where models and views are several, the
        maps have a `spread`: where it is large, the network is not to be trusted.
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"mps"``; by itself the best that is there.
    progress : callable, optional
        Called as ``progress(done, total)`` after each tile.

    Returns
    -------
    Maps
        float16, shape (class, y, x), or (class, frame, y, x) for a movie; beyond 1 GiB in a temporary file.

    Raises
    ------
    ValueError
        If the pixel size is unknown or too coarse, a frame cannot be analysed, there is no such
        model or device, models do not agree, or a number is out of bounds.
    """
    check_micrograph(micrograph)
    for name, value, low, high in (("tile_px", tile_px, 32, 16384), ("overlap_px", overlap_px, 0, 16384),
                                   ("views", views, 1, 8)):  # fmt: skip
        check_range(name, value, low, high, whole=True)
    models = _loaded(model)
    main, where = models[0], pick_device(device)
    members = _Members(models, int(views), where)
    step = steps(micrograph, main.pixel_size_nm)
    height, width = micrograph.shape_yx
    maps = _room((len(main.classes), micrograph.n_frames, height, width))
    spread = _room((1, *maps.shape[1:])) if members.several else None
    for frame in range(micrograph.n_frames):
        tiles = _Tiles(_source(micrograph, main.pixel_size_nm, frame), main.network, int(tile_px), int(overlap_px))
        for done, (tile, origin, core) in enumerate(tiles, start=1):
            inside = [_within(n, s, c, last) for n, s, (c, last) in zip((height, width), step, core, strict=True)]
            at = [
                (pixels / s - start - (main.network.stem - 1) / 2) / main.network.stem
                for pixels, s, start in zip(inside, step, origin, strict=True)
            ]
            for target, found in zip((maps, spread), members(tile), strict=True):
                if target is not None and found is not None and all(len(pixels) for pixels in inside):
                    rows, columns = (slice(int(pixels[0]), int(pixels[-1]) + 1) for pixels in inside)
                    target[:, frame, rows, columns] = _interpolated(found, *at).to(torch.float16).cpu().numpy()
                    _released(target)
            if progress is not None:
                progress(frame * len(tiles) + done, micrograph.n_frames * len(tiles))
    still = () if micrograph.is_movie else (0,)
    return Maps(
        maps[:, *still], main.classes, micrograph.pixel_size_nm or 0.0,
        None if spread is None else spread[0, *still], tuple(main.card.get("taught", ())),
    )  # fmt: skip


def _loaded(model: Model | str | Path | Sequence[Model | str | Path]) -> list[Model]:
    """Load what is not loaded, and check that all can be averaged."""
    given: list[Any] = [model] if isinstance(model, str) or not isinstance(model, Sequence) else list(model)
    for one in given:
        check_type("model", one, Model | str | Path, "name a shipped one (list_models) or a file")
    models = [m if isinstance(m, Model) else load_model(m) for m in given]
    if not models:
        raise ValueError("`model` must name at least one model.")
    for one in models:
        if one.task != "maps":
            raise ValueError(f"`model` must be one for class maps, got one for {one.task}; detect_cells() takes it.")
        same = (one.classes, one.pixel_size_nm, one.network.stem, one.network.granularity_px)
        main = models[0]
        if same != (main.classes, main.pixel_size_nm, main.network.stem, main.network.granularity_px):
            raise ValueError("`model`: all of an ensemble must have the same classes, pixel size and architecture.")
    return models


class _Members:
    """Several networks and views of a tile: mean and spread of their probabilities."""

    def __init__(self, models: list[Model], views: int, device: torch.device) -> None:
        self.dtype, self.device, self.models = fast_dtype(device), device, models
        self.networks = [
            folded(m.network).to(device, dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for m in models
        ]
        turns = [(turn, mirror) for mirror in (False, True) for turn in range(4)]
        self.views = turns[:views] if views != 2 else [turns[0], turns[6]]  # two: as it is, and its mirror image
        self.several = len(models) * views > 1

    def __call__(self, tile: Image) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean (class, y, x), and spread (1, y, x) where there are several."""
        mean: torch.Tensor | float = 0.0
        square: torch.Tensor | float = 0.0
        n = len(self.models) * len(self.views)
        with torch.inference_mode():
            for model, network in zip(self.models, self.networks, strict=True):
                planes = model.planes(torch.from_numpy(tile)).to(self.device, self.dtype)
                for turn, mirror in self.views:
                    seen = torch.rot90(planes.flip(-1) if mirror else planes, turn, (-2, -1))
                    back = torch.rot90(network(seen)[0].float(), -turn, (-2, -1))
                    found = F.softmax(back.flip(-1) if mirror else back, dim=0)
                    mean = mean + found / n
                    square = square + found**2 / n if self.several else 0.0
            assert isinstance(mean, torch.Tensor)
            if not isinstance(square, torch.Tensor):
                return mean.contiguous(), None
            return mean.contiguous(), (square - mean**2).clamp(min=0).sqrt().amax(0, keepdim=True)


def _source(micrograph: Micrograph, pixel_size_nm: float, frame: int) -> Image | HugeFrame:
    """Return the prepared frame, or what prepares it part by part."""
    ny, nx = grid_shape(micrograph.shape_yx, steps(micrograph, pixel_size_nm))
    if max(ny * nx, float(np.prod(micrograph.shape_yx))) > HUGE_PX:
        return HugeFrame(micrograph, pixel_size_nm, frame)
    return prepare(micrograph, pixel_size_nm, frame=frame)


def _room(shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    """Return an array for the maps: in memory, or in a nameless file where they are many."""
    if 2 * np.prod(shape, dtype=float) <= MAX_BYTES:
        return np.empty(shape, np.float16)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float16, "w+", shape=shape)


def _released(maps: npt.NDArray[np.float16]) -> None:
    """Write what is in a file to the disk, and give back its memory."""
    if isinstance(maps, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        maps.flush()
        maps._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


class _Tiles:
    """Tiles of a frame: (pixels, origin, [(first, last) per axis] of the core)."""

    def __init__(self, image: Image | HugeFrame, network: Network, tile_px: int, overlap_px: int) -> None:
        grain = network.granularity_px
        self.margin = -(-overlap_px // grain) * grain
        counts = [max(1, round(n / tile_px)) for n in image.shape]
        self.sides = [-(-n // (count * grain)) * grain for n, count in zip(image.shape, counts, strict=True)]
        self.counts = [-(-n // side) for n, side in zip(image.shape, self.sides, strict=True)]
        self.shape = [-(-n // grain) * grain for n in image.shape]
        beyond = [(0, m - n) for n, m in zip(image.shape, self.shape, strict=True)]
        self.image = image if isinstance(image, HugeFrame) else np.pad(image, beyond, mode="reflect")

    def __len__(self) -> int:
        return int(np.prod(self.counts))

    def __iter__(self):  # type: ignore[no-untyped-def]
        for number in np.ndindex(*self.counts):
            start = [k * side for k, side in zip(number, self.sides, strict=True)]
            ranges = [
                (max(0, s - self.margin), min(n, s + side + self.margin))
                for s, side, n in zip(start, self.sides, self.shape, strict=True)
            ]
            if isinstance(self.image, HugeFrame):
                tile = self.image.read(*ranges)
            else:
                tile = self.image[tuple(slice(*r) for r in ranges)]
            last = [k + 1 == count for k, count in zip(number, self.counts, strict=True)]
            core = [(s, np.inf if end else s + side) for s, side, end in zip(start, self.sides, last, strict=True)]
            yield np.ascontiguousarray(tile), [first for first, _ in ranges], core


def _within(n: int, step: float, first: float, last: float) -> npt.NDArray[np.int64]:
    """Pixels of the micrograph, out of `n` along an axis, that lie in a tile's core."""
    pixels = np.arange(n)
    return pixels[(pixels / step >= first) & (pixels / step < last)]


def _interpolated(maps: torch.Tensor, rows: Positions, columns: Positions) -> torch.Tensor:
    """Linear interpolation of `maps` (class, y, x) at `rows` and `columns`, constant beyond the ends."""
    y, x = (
        torch.from_numpy((2 * positions / (n - 1) - 1).astype(np.float32)).to(maps.device)  # -1 to 1 from end to end
        for positions, n in zip((rows, columns), maps.shape[1:], strict=True)
    )
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
    return F.grid_sample(maps[None], grid[None], align_corners=True, padding_mode="border")[0]
