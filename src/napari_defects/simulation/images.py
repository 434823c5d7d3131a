"""Simulate: a micrograph, or a movie, with its truth."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import tables
from ..checks import check_choice, check_place, check_range, check_type
from ..crystals import Crystal, get_crystal
from ..micrograph import Micrograph, Progress, check_pixel_size
from ..tables import Sites
from .bench import Bench
from .detector import Detector, Surface
from .motion import Motion
from .placement import check_defects, check_species
from .probe import Microscope
from .relaxation import Displacements, Relaxation, read_relaxation
from .scan import Scan
from .truth import Scene, true_defects, true_sites

log = logging.getLogger(__name__)


def simulate(
    crystal: str | Crystal,
    *,
    field_of_view_nm: float | tuple[float, float] = 10.0,
    pixel_size_nm: float | tuple[float, float] = 0.02,
    defects: Mapping[str, float] | None = None,
    microscope: Microscope = Microscope(),  # noqa: B008
    scan: Scan = Scan(),  # noqa: B008
    detector: Detector = Detector(),  # noqa: B008
    surface: Surface = Surface(),  # noqa: B008
    relaxation: Mapping[str, Relaxation | Displacements | str | Path] | None = None,
    at: Sequence[tuple[str, float, float]] = (),
    clustering: float = 0.0,
    lines: Mapping[str, int] | None = None,
    disorder_pm: float = 0.0,
    dose_e_per_A2: float = 1e5,
    shot_noise: bool = True,
    frames: int = 1,
    motion: Mapping[str, Motion] | None = None,
    frame_interval_s: float | None = None,
    engine: str = "fast",
    frozen_phonons: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Micrograph, Sites]:
    """Simulate an ADF-STEM micrograph, or a movie, of a two-dimensional crystal, with its truth.

    Parameters
    ----------
    crystal : str or Crystal
        Formula, as in ``WSe2``, ``graphene``.
    field_of_view_nm : float or (float, float)
        Height and width of the image.
    pixel_size_nm : float or (float, float)
        Side of a pixel; a pair (y, x) where pixels are not square.
    defects : mapping, optional
        Species to the fraction of its sublattice's sites (0 to 1), or to a count within the image
        where it is a whole number; ``{"V_Se": 0.02, "Te2_Se": 5}``. `alloy` makes one from a composition.
        ``V_Mo+V_S+V_S+V_S`` is a complex of neighbours, ``Mo@Mo`` an adatom on a column, ``Mo@hollow``
        one between columns.
        In graphene, ``Si1C3``, ``Si1C4``, ``V1``, ``V2``, ``SW``, the dimers ``Si2C4``, ``Si2C5``,
        ``Si2C6`` and the rotors ``Si3C6``, ``Si4C6`` are relaxed structures.
    microscope : Microscope
    scan : Scan
    detector : Detector
    surface : Surface
        Contamination, holes and edges.
    relaxation : mapping, optional
        Species to a `Relaxation`, or to a file of relaxed coordinates (`read_relaxation`): how the columns
        around it are displaced.
    at : sequence of (species, y_nm, x_nm), optional
        Defects at given places of an undistorted image, each put on the nearest of its sites.
    clustering : float
        0 for defects on random sites, towards 1 for defects that keep together.
    lines : mapping, optional
        Species to the number of neighbouring sites that its defects take in a row, as in ``{"V_S": 6}``.
    disorder_pm : float
        Random static displacement of each column, rms along each axis.
    dose_e_per_A2 : float
        Electrons per square angstrom of one frame.
    shot_noise : bool
        Whether electrons are counted; without, the image is the expectation (and read noise).
    frames : int
        Frames of a movie, over which the drift goes on; 1 for a still.
    motion : mapping, optional
        Species to a `Motion`: how its defects hop, turn, switch, vanish and appear between frames.
    frame_interval_s : float, optional
        Time between frames, handed to the micrograph.
    engine : {"fast", "multislice"}
        Multislice is dynamical scattering with the potentials of abTEM, and takes some milliseconds for
        each point of a grid of 0.03 nm. Scan, surface and detector are the same.
    frozen_phonons : int
        Configurations of displaced atoms that multislice averages; 0 for atoms at rest.
    seed : int
    progress : callable, optional
        ``progress(done, total)`` of multislice.

    Returns
    -------
    Micrograph
        With the table of true defects in ``metadata["defects"]`` (of a movie with the column `track`)
        and every parameter in ``metadata["simulation"]``.
    Sites
        Every column within the image, where it is seen: scan distortion included, line jitter not.
        Beside the columns of SITES: ``species`` (the host column, or the defect it belongs to) and
        ``elements`` (``Se+Te``). An empty column has NaN position.

    Raises
    ------
    ValueError
        If a parameter is out of range, a species unknown to the crystal, or abTEM missing for multislice.

    Notes
    -----
    The fast engine is incoherent: each column is its cross-section times the probe, see `scattering` for the table
    and its range, `probe` for the optics, `scan` for the sign conventions.
    """
    crystal = get_crystal(crystal)
    pixel = np.broadcast_to(np.asarray(check_pixel_size(pixel_size_nm), float), (2,))
    side = np.broadcast_to(np.asarray(field_of_view_nm, float), (2,))
    shape = np.nan_to_num(np.rint(side / pixel), nan=0.0, posinf=1e9).astype(int).tolist()
    if min(shape) < 32 or max(shape) > 16384:
        raise ValueError(
            f"`field_of_view_nm` must make an image of 32 to 16384 pixels a side, got {field_of_view_nm} "
            f"with pixels of {pixel_size_nm} nm."
        )
    for name, part, kind in (("microscope", microscope, Microscope), ("scan", scan, Scan),
                             ("detector", detector, Detector), ("surface", surface, Surface)):  # fmt: skip
        check_type(name, part, kind, f"make one: {kind.__name__}(...), or leave it out")
    check_range("dose_e_per_A2", dose_e_per_A2, 0, 1e12, above=True)
    check_range("disorder_pm", disorder_pm, 0)
    check_range("clustering", clustering, 0, 1)
    check_range("frames", frames, 1, whole=True)
    check_range("frozen_phonons", frozen_phonons, 0, whole=True)
    check_choice("engine", engine, ("fast", "multislice"))
    defects, motion, lines = dict(defects or {}), dict(motion or {}), dict(lines or {})
    shifts = {
        species: read_relaxation(by, crystal) if isinstance(by, (str, Path)) else by
        for species, by in (relaxation or {}).items()
    }
    for species, length in lines.items():
        check_range(f"lines[{species!r}]", length, 1, whole=True, hint="sites in a row")
    for species, *place in at:
        check_place("at", place, f"(species, y_nm, x_nm): a place of {species}")
    check_defects(crystal, defects)
    others = [m.becomes for m in motion.values() if m.becomes is not None]
    for species in (*(name for name, *_ in at), *motion, *others, *lines, *shifts):
        check_species(crystal, species)
    rng = np.random.default_rng(seed)
    bench = Bench(
        crystal, (shape[0], shape[1]), (float(pixel[0]), float(pixel[1])), microscope, scan, surface, dose_e_per_A2,
        frozen_phonons=frozen_phonons if engine == "multislice" else None, progress=progress,
    )  # fmt: skip
    options: dict[str, Any] = {"disorder_pm": disorder_pm, "clustering": clustering, "frames": frames, "lines": lines}
    images: list[np.ndarray] = []
    sites, truth = [], []
    for scene in bench.scenes(defects, rng, at=at, relaxation=shifts, motion=motion, **options):
        if not images:
            _warn_of_missing(Counter({s: n for s, n in defects.items() if n > 1}) + Counter(s for s, *_ in at), scene)
        images.append(detector.read(scene.expected_e, rng, shot_noise=shot_noise))
        sites.append(true_sites(scene))
        truth.append(true_defects(scene))
    parameters = {
        **{name: asdict(part) for name, part in (("microscope", microscope), ("scan", scan), ("detector", detector),
                                                 ("surface", surface))},
        "motion": {k: asdict(v) for k, v in motion.items()},
        "relaxation": {k: v.source if isinstance(v, Displacements) else asdict(v) for k, v in shifts.items()},
        **options, "crystal": crystal.name, "defects": defects, "at": [list(place) for place in at],
        "dose_e_per_A2": dose_e_per_A2, "shot_noise": shot_noise, "engine": engine, "seed": seed,
    }  # fmt: skip
    defect_table = pd.concat(truth, ignore_index=True) if frames > 1 else truth[0].drop(columns="track")
    defect_table["defect"] = np.arange(len(defect_table))
    site_table = pd.concat(sites, ignore_index=True) if frames > 1 else sites[0]
    site_table.attrs["crystal"] = crystal.name
    metadata = {"defects": tables.check(defect_table, "defects"), "simulation": parameters}
    data = np.stack(images) if frames > 1 else images[0]
    return Micrograph(data, pixel_size_nm, frame_interval_s, metadata), Sites(site_table)


def _warn_of_missing(wanted: Mapping[str, float], scene: Scene) -> None:
    """Tell of which species fewer found room than were asked for by number or place."""
    placed = Counter(defect.species for defect in scene.specimen.defects)
    for species, asked in wanted.items():
        if placed[species] < asked:
            log.warning(
                "only %d of %d %s found room in this field; simulate a larger one, or fewer defects.",
                placed[species], asked, species,
            )  # fmt: skip
