"""Endless labelled images under the conditions that real microscopes meet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context

import numpy as np
import pandas as pd

from ..checks import check_range
from ..crystals import Crystal, get_crystal
from ..micrograph import Micrograph
from .bench import Bench
from .conditions import (
    Conditions,
    draw_contrast,
    draw_defects,
    draw_detector,
    draw_dopants,
    draw_dose,
    draw_microscope,
    draw_relaxation,
    draw_scan,
    draw_surface,
)
from .graphene import KINDS
from .truth import Scene, labels


def training_pairs(
    crystal: str | Crystal | Sequence[str | Crystal],
    *,
    n: int | None = None,
    shape: tuple[int, int] = (256, 256),
    seed: int = 0,
    conditions: Conditions | None = None,
    workers: int = 0,
) -> Iterator[tuple[Micrograph, pd.DataFrame]]:
    """Yield simulated micrographs with what is to be drawn on each.

    Parameters
    ----------
    crystal : str or Crystal, or a sequence of them
        Of several, each in turn.
    n : int, optional
        How many; None for an endless stream.
    shape : (int, int)
        Pixels (y, x) of each image.
    seed : int
        Pair k depends on `seed` and k alone, whatever `workers`.
    conditions : Conditions, optional
        None for `Conditions.for_crystal`.
    workers : int
        Processes beside this one; 0 to draw here.

    Yields
    ------
    Micrograph
    DataFrame
        frame, y_nm, x_nm, species, elements of every host column (``W``, ``Se2``, ``C``), every defect
        column (an empty one where it would be) and, in graphene, every ``Si`` and the centre of every
        ``V1``, ``V2`` and ``SW``.

    Raises
    ------
    ValueError
        If `shape` is too small or `workers` negative.
    """
    several = [crystal] if isinstance(crystal, str | Crystal) else crystal
    scenes = [(c, conditions or Conditions.for_crystal(c)) for c in map(get_crystal, several)]
    if min(shape) < 32:
        raise ValueError(f"`shape` must be at least 32 pixels a side, got {shape}.")
    check_range("workers", workers, 0, whole=True)
    return _stream(scenes, n, shape, seed, workers)


def _stream(
    scenes: list[tuple[Crystal, Conditions]], n: int | None, shape: tuple[int, int], seed: int, workers: int
) -> Iterator[tuple[Micrograph, pd.DataFrame]]:
    indices = iter(range(n)) if n is not None else count()
    if not workers:
        for index in indices:
            crystal, conditions = scenes[index % len(scenes)]
            yield draw_pair(crystal, shape, conditions, seed, index)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        waiting: deque[Future[tuple[Micrograph, pd.DataFrame]]] = deque()
        for index in indices:
            crystal, conditions = scenes[index % len(scenes)]
            waiting.append(pool.submit(draw_pair, crystal, shape, conditions, seed, index))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def draw_pair(
    crystal: Crystal, shape: tuple[int, int], conditions: Conditions, seed: int, index: int
) -> tuple[Micrograph, pd.DataFrame]:
    """Pair number `index` of the stream `seed`."""
    micrograph, _, table = draw_scene(crystal, shape, conditions, seed, index)
    return micrograph, table


def draw_scene(
    crystal: Crystal, shape: tuple[int, int], conditions: Conditions, seed: int, index: int
) -> tuple[Micrograph, Scene, pd.DataFrame]:
    """Pair number `index` of the stream `seed`, with the scene that was imaged."""
    rng = np.random.default_rng([seed, index])
    c = conditions
    pixel = float(np.exp(rng.uniform(*np.log(c.pixel_size_nm))))
    aspect = float(np.exp(rng.uniform(-c.pixel_aspect, c.pixel_aspect) / 2))
    pixel_nm = (pixel * aspect, pixel / aspect)
    defects = draw_defects(c, crystal, rng)
    microscope = draw_microscope(c, rng)
    dose = draw_dose(c, rng)
    contrast = draw_contrast(c, crystal, tuple(defects), rng)
    dopants = draw_dopants(c, crystal, microscope, contrast, rng)
    defects |= {d.species: float(rng.uniform(*c.foreign_fraction)) for d in dopants}
    bench = Bench(
        crystal,
        shape,
        pixel_nm,
        microscope,
        draw_scan(c, shape, pixel, rng),
        draw_surface(c, shape, pixel, rng),
        dose,
        contrast | {d.element: d.factor for d in dopants},
    )
    relaxation = {species: draw_relaxation(c, rng) for species in defects if species not in KINDS}
    disorder_pm, empty = rng.uniform(0, c.disorder_pm), bool(rng.random() < c.empty)
    clustering = rng.uniform(0, 0.6) if rng.random() < 0.2 else 0.0
    scene = next(
        bench.scenes(defects, rng, relaxation=relaxation, disorder_pm=disorder_pm, clustering=clustering, empty=empty)
    )
    detector = draw_detector(c, crystal, microscope, 100 * dose * pixel**2, rng)
    claimed = 1 + rng.uniform(-c.miscalibration, c.miscalibration)
    table = labels(scene).replace({"species": {d.species: d.label for d in dopants}})
    table[["y_nm", "x_nm"]] *= claimed
    size = (pixel_nm[0] * claimed, pixel_nm[1] * claimed)
    metadata = {"dose_e_per_A2": dose, "crystal": crystal.name}
    return Micrograph(detector.read(scene.expected_e, rng), size, metadata=metadata), scene, table
