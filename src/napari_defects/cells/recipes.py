"""Named trainings of the networks for cells, for any MX2 crystal: ``mote2-cells``, ``wse2-boxes``, ...."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..crystals import CRYSTALS, Crystal
from ..micrograph import Progress
from ..networks import Model
from ..networks.cards import keep, place_for
from ..simulation import Conditions
from .box_training import BoxFitting, fit_boxes
from .box_training import examples as box_examples
from .collection import Collection
from .examples import Examples, simulated
from .hexagons import CLASSES
from .kinds import kinds_of, pair_of
from .patches import PX_PER_A
from .training import Fitting, fit
from .validation import by_kind

_HAND_MADE = 10  # times that a cell labelled by hand counts for a simulated one

BOX_PX_PER_A = 20
"""Pixels per lattice constant of images in which boxes are found."""


@dataclass(frozen=True)
class CellRecipe:
    """A training of a network that names cells.

    Parameters
    ----------
    architecture : dict
    px_per_a : int
        Pixels per lattice constant of the images that cells are cut from.
    images : int
        Simulated images to cut from.
    fitting : Fitting
    about : str
        What it is, in a few words.
    held_back : int
        Simulated images to calibrate and to validate on.
    """

    architecture: dict[str, Any]
    px_per_a: int
    images: int
    fitting: Fitting
    about: str
    held_back: int = 120


@dataclass(frozen=True)
class BoxRecipe:
    """A training of the box detector; fields as for `CellRecipe`."""

    architecture: dict[str, Any]
    fitting: BoxFitting
    about: str
    px_per_a: int = BOX_PX_PER_A
    conditions: Conditions | None = field(default=None)


def _resnet(inputs: int, channels: int, side_px: int) -> dict[str, Any]:
    return {"kind": "resnet18", "channels": channels, "inputs": inputs, "side_px": side_px}


_PAPER = Fitting(steps=1500, batch=64)  # 20 epochs of 4800 cells
_FEW = {"images": 44, "held_back": 11}  # 4800 and 1200 cells
ENDINGS: dict[str, CellRecipe | BoxRecipe] = {
    "cells": CellRecipe(
        {"kind": "patches", "channels": 16, "inputs": 4, "side_px": 20}, PX_PER_A, 1200, Fitting(1800, 192, noise=0.5),
        "cells along the lattice, a window on each site, beside those of the image's typical cell",
    ),
    "cells-one": CellRecipe(
        {"kind": "patches", "channels": 16, "inputs": 1, "side_px": 20}, PX_PER_A, 1200, Fitting(1800, 192, noise=0.5),
        "one window around the cell, and nothing beside it",
    ),
    "cells-halves": CellRecipe(
        _resnet(2, 16, 64), BOX_PX_PER_A, 100, Fitting(450, 96), "CNN-2 of 2DIP-Net, two channels, a quarter as wide"
    ),
    "cells-whole": CellRecipe(
        _resnet(1, 16, 64), BOX_PX_PER_A, 100, Fitting(450, 96), "CNN-2 of 2DIP-Net, one channel, a quarter as wide"
    ),
    "cells-paper": CellRecipe(
        _resnet(2, 64, 224), 75, fitting=_PAPER, about="CNN-2 as in the paper, two channels", **_FEW
    ),
    "cells-paper-one": CellRecipe(
        _resnet(1, 64, 224), 75, fitting=_PAPER, about="CNN-2 as in the paper, one channel", **_FEW
    ),
    "boxes": BoxRecipe(
        {"kind": "mobilenet", "blocks": 7, "hidden": 128}, BoxFitting(), "CNN-1 of 2DIP-Net, MobileNetV2 to stride 8"
    ),
    "boxes-paper": BoxRecipe(
        {"kind": "mobilenet", "blocks": 19, "hidden": 1024}, BoxFitting(images=500, steps=12000, crop_px=512),
        "CNN-1 as in the paper: all of MobileNetV2, 512 x 512 px",
    ),
}  # fmt: skip


def names() -> list[str]:
    """Names of the recipes for the crystals with shipped weights; other MX2 crystals go the same way."""
    return [f"{crystal.lower()}-{ending}" for crystal in ("MoTe2", "WSe2", "MoS2") for ending in ENDINGS]


def recipe_of(name: str) -> tuple[Crystal, CellRecipe | BoxRecipe] | None:
    """Crystal and recipe of a name such as ``mote2-cells``; None where it is none."""
    first, _, ending = name.partition("-")
    found = {c.name.lower(): c for c in CRYSTALS.values()}.get(first.lower())
    if found is None or ending not in ENDINGS:
        return None
    pair_of(found)
    return found, ENDINGS[ending]


def train_cells(
    name: str,
    *,
    out: str | Path,
    seed: int = 0,
    steps: int | None = None,
    minutes: float | None = None,
    labels: str | Path | None = None,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Model:
    """Train a network for cells or boxes from its recipe, and write it with its card.

    Parameters
    ----------
    name : str
        Crystal and kind, as ``mote2-cells``, ``mote2-cells-halves``, ``wse2-boxes``.
    out, seed, steps, minutes
        As for `train_recipe`.
    labels : path, optional
        A `Collection` of cells labelled by hand, to learn from beside the simulated ones.
    device : str, optional
        As for `train_recipe`.
    checkpoint : path, optional
        Go on from there, and write there.
    progress : callable, optional
        As for `train_recipe`.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If there is no such recipe, `out` cannot be written, or the collection is of another crystal.
    """
    found, out = recipe_of(name), place_for(out)
    if found is None:
        raise ValueError(f"`name` must be like mote2-cells with one of {', '.join(ENDINGS)}, got {name!r}.")
    crystal, recipe = found
    if isinstance(recipe, BoxRecipe):
        if labels is not None:
            raise ValueError("`labels` teach networks that name cells, not the one that finds boxes.")
        boxes = replace(recipe.fitting, steps=steps or recipe.fitting.steps, minutes=minutes)
        pictures = box_examples(crystal, recipe.px_per_a, boxes, seed=seed, conditions=recipe.conditions)
        network, card = fit_boxes(
            recipe.architecture, pictures, boxes, seed=seed, device=device, checkpoint=checkpoint, progress=progress
        )
        card |= {"training": asdict(boxes), "read_out": "`python benchmarks/cells.py find` measures it."}
        classes: tuple[str, ...] = CLASSES
    else:
        options = replace(recipe.fitting, steps=steps or recipe.fitting.steps, minutes=minutes)
        view: dict[str, Any] = {"px_per_a": recipe.px_per_a}
        taught = simulated(crystal, recipe.architecture, n_images=recipe.images, seed=2 * seed + 1, **view)
        if labels is not None:
            own = Collection(labels).examples(crystal, recipe.architecture, recipe.px_per_a)
            taught = Examples.joined([taught, *[own] * _HAND_MADE])
        held_back = simulated(crystal, recipe.architecture, n_images=recipe.held_back, seed=2 * seed + 2, **view)
        classes = kinds_of(crystal)
        network, card = fit(
            recipe.architecture, len(classes), taught, held_back, options, seed=seed, device=device,
            checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
        card["read_out"] = "Cells at their true places, with the errors that a lattice fit makes; the likeliest kind."
        card["validation"] = by_kind(network, held_back, classes)
        card["dose_e_per_A2"] = [float(f"{d:.3g}") for d in (np.nanmin(taught.doses), np.nanmax(taught.doses))]
    card |= {"recipe": name if steps is None else f"{name} --steps {steps}", "about": recipe.about}
    model = Model(network, classes, crystal.a_nm / recipe.px_per_a, crystal.name, card)
    keep(model, out)
    return model
