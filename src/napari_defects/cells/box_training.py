"""Training of the box detector: crops of simulated images turned to the lattice, with the boxes that are in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..crystals import Crystal
from ..micrograph import Progress
from ..networks.devices import pick_device
from ..networks.models import build
from ..simulation import Conditions
from .descent import Descent, in_half_precision
from .examples import conditions_for, prepared, scenes
from .hexagons import CLASSES, boxes_around, hexagon_size, true_hexagons
from .kinds import Array, frame_of
from .patches import CELL_SIZE, Image, upright


@dataclass(frozen=True)
class BoxFitting:
    """How the box detector is trained.

    Parameters
    ----------
    images : int
        Simulated images to draw crops from.
    steps, batch, crop_px : int
    learning_rate, weight_decay : float
        Of AdamW, on a half cosine to zero.
    average : float
        Decay of the running average of the weights, which is what is kept.
    tilt_deg : float
        Largest rotation left between lattice and image.
    minutes : float, optional
        End after this time; the learning rate then follows the clock.
    """

    images: int = 120
    steps: int = 700
    batch: int = 4
    crop_px: int = 192
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    average: float = 0.99
    tilt_deg: float = 3.0
    minutes: float | None = None


def examples(
    crystal: Crystal, px_per_a: float, options: BoxFitting, *, seed: int, conditions: Conditions | None = None,
    side_px: int = 400, progress: Progress | None = None,
) -> list[tuple[Image, Array, Array]]:  # fmt: skip
    """Upright images with their boxes (y0, x0, y1, x1) in pixels: hexagons, and unit cells."""
    pixel = crystal.a_nm / px_per_a
    found: list[tuple[Image, Array, Array]] = []
    ranges = replace(conditions_for(crystal, conditions), pixel_size_nm=(0.8 * pixel, 1.2 * pixel))
    stream = scenes(crystal, options.images, seed, ranges, (side_px, side_px))
    for index, (micrograph, cells) in enumerate(stream):
        rng = np.random.default_rng([seed, index, 2])
        if len(cells) >= 12:
            image, pixel_nm, frame_px = prepared(micrograph, frame_of(cells, crystal), crystal, px_per_a)
            tilt = np.deg2rad(rng.uniform(-1, 1) * options.tilt_deg)
            turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
            middle = (np.array(image.shape) - 1) / 2
            turned, matrix, origin = upright(image, turn @ frame_px * rng.uniform(0.96, 1.04), px_per_a, middle)
            hollows = true_hexagons(cells, crystal) / pixel_nm
            bonds = 0.5 * (cells[["y_M", "x_M"]].to_numpy() + cells[["y_X", "x_X"]].to_numpy()) / pixel_nm
            seen = [(points - origin) @ np.linalg.inv(matrix) for points in (hollows, bonds)]
            sizes = (px_per_a * hexagon_size(), px_per_a * CELL_SIZE)
            around = [boxes_around(p, s) for p, s in zip(seen, sizes, strict=True)]
            found.append((turned, around[0], around[1]))
        if progress is not None:
            progress(index + 1, options.images)
    return found


def fit_boxes(
    architecture: dict[str, Any],
    pictures: list[tuple[Image, Array, Array]],
    options: BoxFitting = BoxFitting(),
    *,
    seed: int = 0,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train the detector; go on from `checkpoint` where it exists.

    Returns
    -------
    network
        Its weights rounded to half precision.
    card : dict
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    network: Any = build(architecture, len(CLASSES)).to(where)
    averaged: Any = build(architecture, len(CLASSES)).to(where)
    averaged.load_state_dict(network.state_dict())
    way = Descent(network, averaged, options, warm_up=50, rng=np.random.default_rng([seed, 3]), checkpoint=checkpoint)
    losses: list[float] = []
    for step in way.run(progress):
        images, targets = _batch(pictures, options, np.random.default_rng([seed, step, 3]), where)
        loss = sum(network(images, targets).values())
        way.learn(loss, longest=5.0)
        losses.append(loss.item())
    card = way.card(seed) | {"loss": round(float(np.mean(losses[-50:])), 4) if losses else None}
    return in_half_precision(averaged), card


def _batch(
    pictures: list[tuple[Image, Array, Array]], options: BoxFitting, rng: np.random.Generator, where: torch.device
) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Random crops, each with the boxes that lie within it."""
    images: list[torch.Tensor] = []
    targets: list[dict[str, torch.Tensor]] = []
    while len(images) < options.batch:
        image, *boxes = pictures[int(rng.integers(len(pictures)))]
        side = options.crop_px
        room = np.array(image.shape) - side
        if min(room) < 1:
            raise ValueError(f"`crop_px` must be less than the images' {min(image.shape)} pixels, got {side}.")
        origin = (room * rng.uniform(0.2, 0.8, 2)).astype(int)
        crop = image[origin[0] : origin[0] + side, origin[1] : origin[1] + side]
        inside, labels = [], []
        for label, kind in enumerate(boxes, 1):
            shifted = kind - np.tile(origin, 2)
            kept = shifted[((shifted >= 0) & (shifted <= side - 1)).all(1)]
            inside.append(kept)
            labels.append(np.full(len(kept), label))
        places, numbers = np.concatenate(inside), np.concatenate(labels)
        if not len(places):
            continue
        images.append(torch.from_numpy(np.ascontiguousarray(crop)[None]).to(where))
        boxes_xy = torch.from_numpy(places[:, [1, 0, 3, 2]].astype(np.float32))
        targets.append({"boxes": boxes_xy.to(where), "labels": torch.from_numpy(numbers.astype(np.int64)).to(where)})
    return images, targets
