"""Fine-tuning: a model learns the microscope, the day and the dose of one image from that image's simulated twins."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..checks import check_range
from ..crystals import Crystal, get_crystal, is_species, site_of
from ..intensities.verdicts import OUTLIERS
from ..micrograph import Micrograph, Progress
from ..simulation import Conditions, Microscope, training_pairs
from ..simulation.scattering import cross_section_A2
from ..twins import Twin, match
from .annotations import Pair, mixed

SHAPE_PX = (256, 256)
STEPS_PER_MINUTE = 240
"""More than two cores make: the clock ends a training, and the learning rate follows it."""

_WIDER = 1.25  # each condition is known to about this factor
_HELD_BACK = 16
_KEPT = ("kind", "channels", "levels", "stem", "disc_radius_nm", "balance", "batch", "crop_px", "average")


def conditions_like(
    twin: Twin, classes: Sequence[str] = (), drawn: Mapping[str, Sequence[str]] | None = None
) -> Conditions:
    """Ranges around the conditions of a twin, as wide as they are uncertain; any rotation.

    Parameters
    ----------
    twin : Twin
    classes : sequence of str
        Where ``darker_W`` and all its likes are among them, dopants of any brightness are drawn.
    drawn : mapping, optional
        Class to the species to draw; without, those of the crystal.
    """
    usual = Conditions.for_crystal(twin.crystal)
    generic = {f"{word}_{s.element}" for word in OUTLIERS for s in twin.crystal.sublattices}
    m, surface, scan = twin.microscope, twin.surface, twin.scan
    brightest = max(cross_section_A2(tuple(sorted(s.column)), m) for s in twin.crystal.sublattices)
    shot_e = np.sqrt(0.6 * brightest * twin.dose_e_per_A2 * 100 * twin.pixel_size_nm**2)
    drift = 1e-3 * max(abs(d) for d in scan.drift_pm_per_line) / twin.pixel_size_nm
    return replace(
        usual,
        species=tuple(s for many in (drawn or {}).values() for s in many) or usual.species,
        foreign=0.5 if generic <= set(classes) else 0.0, foreign_fraction=(0.002, 0.02),
        pixel_size_nm=_around(twin.pixel_size_nm, 1.03),
        dose_e_per_A2=_around(twin.dose_e_per_A2, _WIDER),
        pixel_aspect=0.01,
        energies_keV=(m.energy_keV,),
        convergence_mrad=_around(m.convergence_mrad, 1.05),
        detector_inner_mrad=_around(m.detector_inner_mrad, 1.08),
        detector_outer_mrad=_around(m.detector_outer_mrad, 1.08),
        source_fwhm_nm=_around(m.source_fwhm_nm, 1.1),
        focal_spread_nm=(0.0, max(m.focal_spread_nm, 0.5)),
        source_tail=(0.0, max(m.source_tail, 0.05)),
        defocus_nm=1.5, twofold_nm=1.0, coma_nm=15.0, threefold_nm=15.0, spherical_um=0.5,
        contrast_exponent=0.07, low_dose=0.0, miscalibration=0.0,
        drift=min(usual.drift, drift + 0.01),
        wander_pm=max(10.0, 2 * scan.wander_pm),
        jitter_pm=max(2.0, 1.5 * scan.jitter_pm),
        contamination=max(0.3, 2 * surface.contamination),
        speckle=max(0.03, _WIDER * surface.speckle),
        read_noise=max(0.1, _WIDER * twin.detector.read_noise_e / max(float(shot_e), 1e-9)),
        flicker=max(0.05, _WIDER * twin.detector.flicker_e / max(float(shot_e), 1e-9)),
    )  # fmt: skip


def fine_tune(
    micrograph: Micrograph,
    model: Any,
    *,
    crystal: str | Crystal | None = None,
    minutes: float = 10.0,
    steps: int | None = None,
    pairs: Sequence[Pair] = (),
    share: float = 0.5,
    classes: Sequence[str] | None = None,
    drawn_as: Mapping[str, Sequence[str]] | None = None,
    microscope: Microscope = Microscope(),  # noqa: B008
    brightest: str | None = None,
    learning_rate: float = 1e-3,
    seed: int = 0,
    workers: int = 1,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Any:
    """Fine-tune a model to the microscope of an image.

    The conditions of the image are estimated (`match`), images are simulated around them, and the model goes on
    learning on those; with `pairs`, also on labelled images of one's own.

    Parameters
    ----------
    micrograph : Micrograph
        Its pixel size may be unknown.
    model : Model, str or path
        What to start from.
    crystal : str or Crystal, optional
        That of the model where it is not given.
    minutes : float
        For everything, matching included.
    steps : int, optional
        End after so many at the latest.
    pairs : sequence of (Micrograph, DataFrame)
        Labelled images of one's own, see `crops`.
    share : float
        Of the training images that are one's own, where there are any.
    classes : sequence of str, optional
        Of the result; by default those of the model, and what is new in `pairs` and `drawn_as`. Weights are taken over
        class by class.
    drawn_as : mapping, optional
        Class to the species that are simulated for it, ``{"Ti_W": ("As_W",)}``; classes that are species are drawn as
        themselves, ``darker_W`` and the like as dopants of any brightness.
    microscope : Microscope
        What is known of the instrument, as for `match`.
    brightest : str, optional
        Name of the brightest sublattice, as for `fit_lattice`.
    learning_rate : float
        At its highest.
    seed : int
    workers : int
        Processes that simulate; 0 simulates between the steps.
    device : str, optional
        As for `train`.
    checkpoint : path, optional
        File to resume from where it exists, and to write as the training goes on.
    progress : callable, optional
        ``progress(done, total)``; `StopTraining` raised from it ends the training with the best weights so far.

    Returns
    -------
    Model
        Its card compares it with the model it started from, on twins held back from the training.

    Raises
    ------
    ValueError
        If no lattice of the crystal is found, or an argument is out of range.
    """
    from ..networks import Model, StopTraining, Training, load_model, train

    check_range("minutes", minutes, 0, above=True)
    check_range("share", share, 0, 1, below=True)
    began = time.perf_counter()
    start = model if isinstance(model, Model) else load_model(model)
    crystal = get_crystal(crystal or start.crystal or _no_crystal(start))
    new = (*(drawn_as or {}), *(s for _, table in pairs for s in table["species"].unique()))
    classes = tuple(dict.fromkeys((*start.classes, *new))) if classes is None else tuple(classes)
    drawn = drawn_species(classes, crystal, drawn_as or {})
    conditions = conditions_like(match(micrograph, crystal, microscope=microscope, brightest=brightest), classes, drawn)
    known = start.card.get("training", {}) | dict(start.network.architecture)
    options = Training(
        crystal=crystal.name, pixel_size_nm=start.pixel_size_nm, learning_rate=learning_rate, held_back=_HELD_BACK,
        minutes=max(minutes - (time.perf_counter() - began) / 60, 0.01),
        steps=steps or max(20, round(minutes * STEPS_PER_MINUTE)), checkpoint=checkpoint,
        validate_every=max(10, min(200, (steps or round(minutes * STEPS_PER_MINUTE)) // 8)),
        odds={c: f for c, f in known.get("odds", {}).items() if c in classes},
        **{key: known[key] for key in _KEPT if key in known},
    )  # fmt: skip

    def stream(number: int, helpers: int) -> Iterator[Pair]:
        made = training_pairs(crystal, shape=SHAPE_PX, seed=number, conditions=conditions, workers=helpers)
        return _renamed(made, drawn)

    def report(done: int, total: int) -> None:
        spent = (time.perf_counter() - began) / 60 / minutes
        if progress is not None:
            progress(min(round(1000 * max(done / total, spent)), 1000), 1000)
        if spent >= 1:
            raise StopTraining

    with tempfile.TemporaryDirectory() as folder:
        options = replace(options, start=start.save(Path(folder) / "start"))
        lessons = mixed(stream(seed, workers), pairs, share=share, first=options.held_back, seed=seed)
        tuned = train(lessons, classes=classes, options=options, device=device, seed=seed, progress=report)
    tuned.card["taught"] = list(start.card.get("taught", ()))
    held_back = list(islice(stream(seed + 1_000_003, 0), _HELD_BACK))
    rows = compared({"before": start, "after": tuned}, held_back, crystal)
    tuned.card["tests"] = {"Before and after fine-tuning, on simulated twins of the image that neither saw": rows}
    tuned.card["notes"] = [
        f"- **fine-tuned** from `{start.sha256[:16]}` to {micrograph.metadata.get('file', 'an image')}: "
        f"{_words(conditions.dose_e_per_A2)} e/Å², pixels of {_words(conditions.pixel_size_nm)} nm, "
        f"source of {_words(conditions.source_fwhm_nm)} nm" + (f"; with {len(pairs)} labelled crops" if pairs else "")
    ]
    return tuned


def drawn_species(
    classes: Sequence[str], crystal: Crystal, drawn_as: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Species to simulate for each class: as told, else itself where it is a species of the crystal's sites."""
    elements = {s.element for s in crystal.sublattices}
    plain = {c: (c,) for c in classes if is_species(c) and not c.startswith(OUTLIERS) and site_of(c) in elements}
    return plain | {c: tuple(many) for c, many in drawn_as.items()}


def compared(models: Mapping[str, Any], pairs: Sequence[Pair], crystal: Crystal) -> list[dict[str, Any]]:
    """Recall and precision of each class by each model, at known positions: one row a class.

    Parameters
    ----------
    models : mapping of str to Model
    pairs : sequence of (Micrograph, DataFrame)
    crystal : Crystal

    Returns
    -------
    list of dict
        class, n, and for each model ``f1 NAME``, ``recall NAME`` and ``precision NAME``.
    """
    from ..networks.validation import score

    tables = {name: said(model, pairs) for name, model in models.items()}
    classes = tuple(dict.fromkeys(c for model in models.values() for c in model.classes))
    rows: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        for row in score(table, classes, crystal.name)[1]:
            if row["dose_e_per_A2"] == "all":
                own = rows.setdefault(row["class"], {"class": row["class"], "n": row["n"]})
                own |= {f"{key} {name}": row[key] for key in ("f1", "recall", "precision")}
    order = [f"{key} {name}" for key in ("f1", "recall", "precision") for name in models]
    return [{"class": r["class"], "n": r["n"], **{key: r[key] for key in order}} for r in rows.values()]


def said(model: Any, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Return what a model says at every known position: species, verdict, dose_e_per_A2."""
    from ..networks import predict
    from ..networks.validation import READ_RADIUS_NM, mean_around

    tables = []
    for micrograph, table in pairs:
        size = micrograph.pixel_size_yx_nm
        table = table.dropna(subset=["y_nm", "x_nm"])
        maps = predict(micrograph, model)
        at = table[["y_nm", "x_nm"]].to_numpy(float) / size
        means = mean_around(maps.data, at, READ_RADIUS_NM / float(size.mean()))
        verdict = np.asarray(maps.classes)[means.argmax(1)]
        dose = float(micrograph.metadata.get("dose_e_per_A2", np.nan))
        tables.append(pd.DataFrame({"species": table["species"], "verdict": verdict, "dose_e_per_A2": dose}))
    return pd.concat(tables, ignore_index=True)


def _renamed(pairs: Iterator[Pair], drawn: Mapping[str, Sequence[str]]) -> Iterator[Pair]:
    """Call what was simulated after the class it stands for."""
    names = {species: c for c, many in drawn.items() for species in many}
    for micrograph, table in pairs:
        yield micrograph, table.assign(species=table["species"].map(lambda s: names.get(s, s)))


def _around(value: float, factor: float) -> tuple[float, float]:
    return value / factor, value * factor


def _words(span: tuple[float, float]) -> str:
    return f"{span[0]:.3g} to {span[1]:.3g}"


def _no_crystal(model: Any) -> str:
    raise ValueError(f"`crystal` must be given: the model (of {', '.join(model.classes[1:])}) is for any.")
