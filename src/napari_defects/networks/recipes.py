"""Named trainings: how the shipped weights were made, for anyone to make again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..micrograph import Progress
from ..simulation import Conditions, training_pairs
from .cards import write_card
from .models import Model, with_ending
from .options import Training
from .training import train


@dataclass(frozen=True)
class TrainingRecipe:
    """A training on simulated images.

    Parameters
    ----------
    crystal : str
    classes : tuple of str
    options : Training
    conditions : Conditions
        Ranges of what is simulated.
    shape : (int, int)
        Of the simulated images, in pixels.
    """

    crystal: str
    classes: tuple[str, ...]
    options: Training
    conditions: Conditions
    shape: tuple[int, int] = (256, 256)


RECIPES: dict[str, TrainingRecipe] = {
    "wse2-te": TrainingRecipe(
        "WSe2",
        ("background", "W", "Se2", "V_Se", "V2_Se", "Te_Se", "Te2_Se", "V_W", "Se_W", "Te2_W"),
        Training(
            crystal="WSe2",
            pixel_size_nm=0.02,
            steps=9000,
            images=1500,
            images_per_step=0.25,
            held_back=64,
            odds={"Te_Se": 2.0},
        ),
        Conditions.for_crystal("WSe2"),
    ),
    "graphene-si": TrainingRecipe(
        "graphene",
        ("background", "C", "Si", "V1", "V2", "SW"),
        Training(crystal="graphene", pixel_size_nm=0.015, steps=6000, images=1500, held_back=64, disc_radius_nm=0.06),
        replace(Conditions.for_crystal("graphene"), defect_fraction=(0.01, 0.06)),
    ),
}


def train_recipe(
    name: str,
    *,
    out: str | Path,
    seed: int = 0,
    steps: int | None = None,
    minutes: float | None = None,
    workers: int = 1,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    start: str | Path | None = None,
    progress: Progress | None = None,
) -> Model:
    """Train a model from its recipe, and write it with its card.

    Parameters
    ----------
    name : str
        One of `RECIPES`.
    out : path
        Where to write ``OUT.safetensors`` and ``OUT.md``.
    seed : int
    steps : int, optional
        Other than the recipe's.
    minutes : float, optional
        End after this time at the latest.
    workers : int
        Processes that simulate; 0 simulates between the steps.
    device, progress
        As for `train`.
    checkpoint, start : path, optional
        As in `Training`: resume there; begin from these weights.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If there is no such recipe, or `out` cannot be written.
    """
    if name not in RECIPES:
        raise ValueError(f"`name` must be one of the recipes {', '.join(RECIPES)}, got {name!r}.")
    recipe, out = RECIPES[name], with_ending(out)
    if not out.parent.is_dir():
        raise ValueError(f"`out` must lie in a folder that exists, got {str(out)!r}.")
    given: dict[str, Any] = {"steps": steps, "minutes": minutes, "checkpoint": checkpoint, "start": start}
    options = replace(recipe.options, **{key: value for key, value in given.items() if value is not None})
    pairs = training_pairs(recipe.crystal, shape=recipe.shape, seed=seed, conditions=recipe.conditions, workers=workers)
    model = train(pairs, classes=recipe.classes, options=options, device=device, seed=seed, progress=progress)
    model.card["recipe"] = name
    model.save(out)
    write_card(model, out.with_suffix(".md"))
    return model
