"""Named trainings: how the shipped weights were made, for anyone to make again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..checks import check_choice
from ..crystals import CRYSTALS
from ..micrograph import Progress
from ..simulation import Conditions, training_pairs
from .cards import keep, place_for
from .family import FAMILY, generic, members
from .models import Model
from .options import Training
from .training import Pair, train


@dataclass(frozen=True)
class TrainingRecipe:
    """A training on simulated images.

    Parameters
    ----------
    crystals : tuple of str
        Each in turn.
    classes : tuple of str
    options : Training
    conditions : Conditions, optional
        Ranges of what is simulated; None for those of each crystal.
    shape : (int, int)
        Of the simulated images, in pixels.
    """

    crystals: tuple[str, ...]
    classes: tuple[str, ...]
    options: Training
    conditions: Conditions | None = None
    shape: tuple[int, int] = (256, 256)

    def pairs(self, *, n: int | None = None, seed: int = 0, workers: int = 0) -> Iterator[Pair]:
        """Yield simulated images with their tables, as `training_pairs`; species are named as the classes are."""
        drawn = training_pairs(
            self.crystals, n=n, seed=seed, workers=workers, shape=self.shape, conditions=self.conditions
        )
        for micrograph, table in drawn:
            yield micrograph, self._named(table, micrograph.metadata["crystal"])

    def _named(self, table: pd.DataFrame, crystal: str) -> pd.DataFrame:
        if self.classes == ATOMS:
            return table[table["elements"] != ""].assign(species="atom")
        if self.options.crystal == FAMILY:
            names = {s: generic(s, crystal, self.classes) for s in table["species"].unique()}
            return table.assign(species=table["species"].map(names))
        return table


ATOMS = ("background", "atom")


_ROUGH = replace(
    Conditions.for_crystal("WSe2"), dose_e_per_A2=(1.5e3, 3e5), low_dose=0.4, miscalibration=0.03,
    source_fwhm_nm=(0.05, 0.15), grained=0.15, holed=0.25, edged=0.12, patched=0.3,
)  # fmt: skip
"""Of dichalcogenides: more low doses, blur, boundaries, holes and dirt than elsewhere."""

RECIPES: dict[str, TrainingRecipe] = {
    "wse2-te": TrainingRecipe(
        ("WSe2",),
        (
            "background",
            "W",
            "Se2",
            "V_Se",
            "V2_Se",
            "Te_Se",
            "Te2_Se",
            "V_W",
            "Se_W",
            "Te2_W",
            "darker_W",
            "brighter_W",
            "darker_Se",
            "brighter_Se",
        ),
        Training(
            crystal="WSe2",
            pixel_size_nm=0.02,
            steps=12000,
            images=1500,
            images_per_step=0.5,
            held_back=64,
            odds={"Te_Se": 2.0},
        ),
        replace(_ROUGH, foreign=0.6),
    ),
    "graphene-si": TrainingRecipe(
        ("graphene",),
        ("background", "C", "Si", "V1", "V2", "SW"),
        Training(crystal="graphene", pixel_size_nm=0.015, steps=6000, images=1500, held_back=64, disc_radius_nm=0.06),
        replace(Conditions.for_crystal("graphene"), defect_fraction=(0.01, 0.06)),
    ),
    "mx2": TrainingRecipe(
        (*members(), "MoTe2", "MoS2"),
        (
            "background",
            "M",
            "X2",
            "V_X",
            "V2_X",
            "V_M",
            "X_M",
            "X2_M",
            "darker_M",
            "brighter_M",
            "darker_X",
            "brighter_X",
        ),
        Training(crystal=FAMILY, pixel_size_nm=0.02, steps=6000, images=1500, images_per_step=0.5, held_back=104),
        replace(_ROUGH, foreign=0.9, foreign_fraction=(0.004, 0.08)),
    ),
    "atoms": TrainingRecipe(
        (*CRYSTALS, "graphene", "graphene", "hBN"),
        ATOMS,
        Training(
            pixel_size_nm=0.02,
            channels=16,
            steps=2500,
            images=600,
            images_per_step=0.4,
            held_back=64,
            disc_radius_nm=0.05,
        ),
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
    device : str, optional
        As for `train`.
    checkpoint, start : path, optional
        As in `Training`: resume there; begin from these weights.
    progress : callable, optional
        As for `train`.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If there is no such recipe, or `out` cannot be written.
    """
    check_choice("name", name, RECIPES)
    recipe, out = RECIPES[name], place_for(out)
    given: dict[str, Any] = {"steps": steps, "minutes": minutes, "checkpoint": checkpoint, "start": start}
    options = replace(recipe.options, **{key: value for key, value in given.items() if value is not None})
    pairs = recipe.pairs(seed=seed, workers=workers)
    model = train(pairs, classes=recipe.classes, options=options, device=device, seed=seed, progress=progress).compact()
    model.card["recipe"] = name
    keep(model, out)
    return model
