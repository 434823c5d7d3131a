"""Boxes around hexagonal cells, found by Faster R-CNN in an image turned to its lattice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..crystals import Crystal
from ..micrograph import Micrograph, Progress
from ..networks import Model
from ..networks.devices import pick_device
from .examples import prepared
from .hexagons import ALPHA, BETA, CLASSES, unit_cells
from .kinds import Array
from .patches import Image, upright

TILE_PX = 512


class Found(NamedTuple):
    """Boxes (y0, x0, y1, x1) in pixels of `image`, which is turned to the lattice, and how sure they are.

    A point p of `image` lies at ``(p @ matrix + origin) * pixel_nm`` in the micrograph.
    """

    boxes: Array
    scores: Array
    image: Image
    matrix: Array
    origin: Array
    pixel_nm: float

    def places_nm(self) -> Array:
        """Middles of the boxes in the micrograph, (y, x)."""
        middles = 0.5 * (self.boxes[:, :2] + self.boxes[:, 2:])
        return np.asarray((middles @ self.matrix + self.origin) * self.pixel_nm)


def find_cells(
    micrograph: Micrograph,
    boxes: Model,
    crystal: Crystal,
    frame_nm: Array,
    *,
    direct: bool = False,
    alpha: float = ALPHA,
    beta: float = BETA,
    min_score: float = 0.5,
    index: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
) -> Found:
    """Find the unit cells of one frame by boxes.

    Parameters
    ----------
    micrograph : Micrograph
    boxes : Model
        For boxes.
    crystal : Crystal
    frame_nm : ndarray, shape (2, 2)
        Orientation and scale of the lattice, from `frame_of`; the identity leaves the image as it lies.
    direct : bool
        Take the boxes that the network draws around unit cells, instead of two cut from each hexagon.
    alpha, beta : float
        Width and height of a unit cell over those of its hexagon.
    min_score : float
        Leave out boxes that are less sure.
    index : int
        Frame of a movie.
    device, progress
        As for `predict`.
    """
    px_per_a = crystal.a_nm / boxes.pixel_size_nm
    image, pixel_nm, frame_px = prepared(micrograph, frame_nm, crystal, px_per_a, index)
    turned, matrix, origin = upright(image, frame_px, px_per_a, (np.array(image.shape) - 1) / 2)
    found, labels, scores = _tiled(boxes, turned, device, progress)
    kept = (labels == CLASSES.index("cell" if direct else "hexagon")) & (scores >= min_score)
    found, scores = found[kept], scores[kept]
    if not direct:
        found, scores = unit_cells(found, alpha, beta), np.tile(scores, 2)
    return Found(found, scores, turned, matrix, origin, pixel_nm)


def _tiled(
    model: Model, image: Image, device: str | None, progress: Progress | None
) -> tuple[Array, npt.NDArray[np.int64], Array]:
    """Boxes of tiles that overlap by half; each is taken from the tile in which it is farthest from the border."""
    where = pick_device(device)
    network = model.network.to(where)
    half = TILE_PX // 2
    starts = [_starts(n) for n in image.shape]
    tiles = [(y, x) for y in starts[0] for x in starts[1]]
    parts: list[tuple[Array, npt.NDArray[np.int64], Array]] = []
    for done, (y, x) in enumerate(tiles, 1):
        tile = image[y : y + TILE_PX, x : x + TILE_PX]
        if np.any(tile):
            with torch.inference_mode():
                (answer,) = network([torch.from_numpy(np.ascontiguousarray(tile)[None]).to(where)])
            boxes = answer["boxes"].cpu().numpy().astype(float)[:, [1, 0, 3, 2]] + [y, x, y, x]
            middles = 0.5 * (boxes[:, :2] + boxes[:, 2:])
            own = np.ones(len(boxes), bool)
            for axis, start in enumerate((y, x)):
                position = starts[axis].index(start)
                low = start + half // 2 if position else -np.inf
                high = starts[axis][position + 1] + half // 2 if position + 1 < len(starts[axis]) else np.inf
                own &= (middles[:, axis] >= low) & (middles[:, axis] < high)
            parts.append((boxes[own], answer["labels"].cpu().numpy()[own], answer["scores"].cpu().numpy()[own]))
        if progress is not None:
            progress(done, len(tiles))
    if not parts:
        return np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0)
    first, second, third = zip(*parts, strict=True)
    return np.concatenate(first), np.concatenate(second).astype(np.int64), np.concatenate(third).astype(float)


def _starts(n: int) -> list[int]:
    """Where tiles begin along an axis."""
    if n <= TILE_PX:
        return [0]
    return [*range(0, n - TILE_PX, TILE_PX // 2), n - TILE_PX]
