"""How much the noise of the training images matters: Fig. 4 of 2DIP-Net, and noise that is measured instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ..crystals import Crystal, get_crystal
from ..micrograph import Micrograph, Progress
from ..noise import estimate
from ..simulation import Conditions, Microscope
from ..simulation.scattering import amplitudes
from .examples import Examples, conditions_for, scenes, simulated
from .kinds import kinds_of
from .recipes import ENDINGS, CellRecipe
from .training import Fitting, fit, logits_of

_SPREAD = 1.5  # factor on both sides of a dose


@dataclass(frozen=True)
class NoiseRange:
    """Noise of training images.

    Parameters
    ----------
    name : str
    dose_e_per_A2 : (float, float)
        Electrons counted (lambda).
    read_noise : float
        Largest electronic noise over the shot noise at the brightest column (mu).
    """

    name: str
    dose_e_per_A2: tuple[float, float]
    read_noise: float


def estimated_range(
    micrograph: Micrograph,
    crystal: str | Crystal,
    name: str = "estimated",
    microscope: Microscope = Microscope(),  # noqa: B008 (it is frozen)
) -> NoiseRange:
    """Range around the noise of an image, from `noise.estimate`.

    The image tells how many electrons were counted, not how many passed the specimen: those follow from the fraction
    of the beam that a perfect monolayer sends onto the detector.
    """
    host, found = get_crystal(crystal), estimate(micrograph)
    fraction = amplitudes((s.column for s in host.sublattices), microscope).sum() / (100 * host.cell_area_nm2)
    dose = found.electrons_per_px / (100 * float(np.prod(micrograph.pixel_size_yx_nm))) / fraction
    return NoiseRange(name, (dose / _SPREAD, dose * _SPREAD), 0.3)


def sweep_tests(
    crystal: str | Crystal, doses: Sequence[float] = (6e3, 5e4), *, images: int = 25, seed: int = 0
) -> tuple[dict[str, Examples], list[NoiseRange]]:
    """Simulate cells at doses that a training is not told, and estimate the noise of one image of each.

    Parameters
    ----------
    crystal : str or Crystal
    doses : sequence of float
        In e/Å^2.
    images : int
        Simulated at each dose.
    seed : int

    Returns
    -------
    tests : dict
        Name to `Examples`.
    ranges : list of NoiseRange
        As `noise.estimate` has them.
    """
    host, recipe = get_crystal(crystal), ENDINGS["cells"]
    assert isinstance(recipe, CellRecipe)
    tests, ranges = {}, []
    for dose in doses:
        given = replace(Conditions(), dose_e_per_A2=(dose, 1.01 * dose), defect_fraction=(0.03, 0.3))
        view: dict[str, Any] = {"px_per_a": recipe.px_per_a, "conditions": given}
        stream = 900_000 + seed
        tests[f"{dose:.0e} e/A^2"] = simulated(host, recipe.architecture, n_images=images, seed=stream, **view)
        micrograph, _ = next(scenes(host, 1, stream, conditions_for(host, given)))
        ranges.append(estimated_range(micrograph, host, f"estimated from an image of {dose:.0e}"))
    return tests, ranges


def noise_sweep(
    crystal: str | Crystal,
    ranges: Sequence[NoiseRange],
    tests: dict[str, Examples],
    *,
    images: int = 60,
    steps: int = 300,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Train once for each range of noise, and test each network on the same cells.

    Parameters
    ----------
    crystal : str or Crystal
    ranges : sequence of NoiseRange
    tests : dict
        Name to cells with known kinds.
    images, steps : int
        Simulated images, and batches, of each training.
    seed : int
    progress : callable, optional

    Returns
    -------
    DataFrame
        One row a range and test: ``accuracy`` (mean over the kinds), and the recall of each kind.
    """
    host = get_crystal(crystal)
    recipe = ENDINGS["cells"]
    assert isinstance(recipe, CellRecipe)
    kinds, rows = kinds_of(host), []
    for done, noise in enumerate(ranges):
        conditions = conditions_for(host, _narrowed(noise))
        view: dict[str, Any] = {"px_per_a": recipe.px_per_a, "conditions": conditions}
        taught = simulated(host, recipe.architecture, n_images=images, seed=seed, **view)
        held_back = simulated(host, recipe.architecture, n_images=8, seed=seed + 7, **view)
        network, _ = fit(recipe.architecture, len(kinds), taught, held_back, Fitting(steps, 128), seed=seed)
        for name, test in tests.items():
            said = logits_of(network, test.pictures).argmax(1)
            recall = {
                kind: float(np.mean(said[test.kinds == k] == k))
                for k, kind in enumerate(kinds)
                if (test.kinds == k).any()
            }
            rows.append(
                {"trained": noise.name, "test": name, "accuracy": float(np.mean(list(recall.values()))), **recall}
            )
        if progress is not None:
            progress(done + 1, len(ranges))
    return pd.DataFrame(rows)


def _narrowed(noise: NoiseRange) -> Conditions:
    return replace(
        Conditions(), dose_e_per_A2=noise.dose_e_per_A2, read_noise=noise.read_noise, defect_fraction=(0.05, 0.3)
    )
