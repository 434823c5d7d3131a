"""Endless labelled images under the conditions that real microscopes meet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context

import numpy as np
import pandas as pd
from ase.data import atomic_numbers

from ..crystals import Crystal, get_crystal
from ..micrograph import Micrograph
from .bench import Scene, make_scene
from .detector import Detector, Surface
from .graphene import KINDS
from .probe import Aberrations, Microscope
from .scan import Scan
from .scattering import cross_section_A2
from .specimen import Relaxation

Range = tuple[float, float]


@dataclass(frozen=True)
class Conditions:
    """Ranges from which each training image draws its conditions, uniformly unless said otherwise.

    Parameters
    ----------
    species : tuple of str, optional
        Defects; None for those of the crystal (`training_species`).
    defect_fraction : (float, float)
        Fraction of the sites that are defects, all species together, split at random.
    pristine, empty : float
        Share of images without defects, and without a crystal.
    pixel_size_nm, dose_e_per_A2 : (float, float)
        Log-uniform.
    pixel_aspect : float
        Largest relative difference between the sides of a pixel.
    energies_keV : tuple of float
    convergence_mrad, detector_inner_mrad, detector_outer_mrad, source_fwhm_nm, focal_spread_nm : (float, float)
    defocus_nm, twofold_nm, coma_nm, threefold_nm, spherical_um : float
        Largest residual aberrations, drawn small more often than large; defocus and spherical aberration of either
        sign.
    contrast_exponent, contrast_element, contrast_pair : float
        Spread (rms) of the atomic-number exponent, of each element's and of all pairs' cross-sections.
    relaxation_pm, disorder_pm : float
        Largest displacement next to a defect (either sign), and of every column (rms).
    drift, wander_pm, jitter_pm, flyback_pm, current_variation : float
        Largest drift over the frame relative to its height, and largest values of the `Scan` fields.
    contamination, patch, gradient : float
        Largest values of the `Surface` fields.
    dirty, patched, sloped, holed, edged, spiked : float
        Share of images with each.
    read_noise : float
        Largest electronic noise relative to the shot noise at the brightest host column.
    afterglow : float
        Largest value of the `Detector` field.
    """

    species: tuple[str, ...] | None = None
    defect_fraction: Range = (0.02, 0.25)
    pristine: float = 0.06
    empty: float = 0.03
    pixel_size_nm: Range = (0.010, 0.042)
    dose_e_per_A2: Range = (1.5e3, 5e5)
    pixel_aspect: float = 0.04
    energies_keV: tuple[float, ...] = (60.0, 80.0, 80.0)
    convergence_mrad: Range = (24.0, 33.0)
    detector_inner_mrad: Range = (55.0, 88.0)
    detector_outer_mrad: Range = (180.0, 280.0)
    source_fwhm_nm: Range = (0.05, 0.13)
    focal_spread_nm: Range = (0.0, 3.0)
    defocus_nm: float = 4.0
    twofold_nm: float = 3.0
    coma_nm: float = 30.0
    threefold_nm: float = 30.0
    spherical_um: float = 1.5
    contrast_exponent: float = 0.10
    contrast_element: float = 0.04
    contrast_pair: float = 0.04
    relaxation_pm: float = 10.0
    disorder_pm: float = 4.0
    drift: float = 0.06
    wander_pm: float = 60.0
    jitter_pm: float = 12.0
    flyback_pm: float = 60.0
    current_variation: float = 0.06
    contamination: float = 2.0
    patch: float = 2.5
    gradient: float = 1.0
    dirty: float = 0.7
    patched: float = 0.25
    sloped: float = 0.2
    holed: float = 0.15
    edged: float = 0.08
    spiked: float = 0.1
    read_noise: float = 0.7
    afterglow: float = 0.25

    @classmethod
    def for_crystal(cls, crystal: str | Crystal) -> Conditions:
        """Return defaults for a crystal: graphene scatters little, and is imaged at higher doses and angles."""
        if get_crystal(crystal).name in ("graphene", "hBN"):
            return cls(
                defect_fraction=(0.006, 0.06), pixel_size_nm=(0.007, 0.026), dose_e_per_A2=(2e5, 6e6),
                energies_keV=(60.0, 60.0, 80.0), convergence_mrad=(27.0, 35.0), detector_inner_mrad=(50.0, 100.0),
                detector_outer_mrad=(180.0, 300.0), source_fwhm_nm=(0.04, 0.11), focal_spread_nm=(0.0, 2.0),
                defocus_nm=3.0, twofold_nm=2.0, disorder_pm=5.0, relaxation_pm=0.0,
            )  # fmt: skip
        return cls()


def training_species(crystal: str | Crystal) -> tuple[str, ...]:
    """Defects that a network for `crystal` learns unless told otherwise."""
    crystal = get_crystal(crystal)
    if crystal.name == "graphene":
        return KINDS
    hosts = {s.element: len(s.column) for s in crystal.sublattices}
    species = [f"V_{e}" for e in hosts] + [f"V{n}_{e}" for e, n in hosts.items() if n > 1]
    if crystal.name == "WSe2":
        species += ["Te_Se", "Te2_Se", "Se_W", "Te2_W"]
    return tuple(sorted(species))


def training_pairs(
    crystal: str | Crystal,
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
    crystal : str or Crystal
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
    crystal = get_crystal(crystal)
    conditions = conditions or Conditions.for_crystal(crystal)
    if min(shape) < 32:
        raise ValueError(f"`shape` must be at least 32 pixels a side, got {shape}.")
    if workers < 0:
        raise ValueError(f"`workers` must be 0 or more, got {workers}.")
    return _stream(crystal, n, shape, seed, conditions, workers)


def _stream(
    crystal: Crystal, n: int | None, shape: tuple[int, int], seed: int, conditions: Conditions, workers: int
) -> Iterator[tuple[Micrograph, pd.DataFrame]]:
    indices = iter(range(n)) if n is not None else count()
    if not workers:
        for index in indices:
            yield draw_pair(crystal, shape, conditions, seed, index)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        waiting: deque[Future[tuple[Micrograph, pd.DataFrame]]] = deque()
        for index in indices:
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
    rng = np.random.default_rng([seed, index])
    c = conditions
    pixel = float(np.exp(rng.uniform(*np.log(c.pixel_size_nm))))
    aspect = float(np.exp(rng.uniform(-c.pixel_aspect, c.pixel_aspect) / 2))
    pixel_nm = (pixel * aspect, pixel / aspect)
    species = c.species if c.species is not None else training_species(crystal)
    defects: dict[str, float] = {}
    if species and rng.random() > c.pristine:
        fraction = rng.uniform(*c.defect_fraction) * len(crystal.sublattices)
        defects = dict(zip(species, fraction * rng.dirichlet(np.full(len(species), 0.8)), strict=True))
        defects = {name: float(min(share, 0.9)) for name, share in defects.items()}
    microscope = _microscope(c, rng)
    dose = float(np.exp(rng.uniform(*np.log(c.dose_e_per_A2))))
    scene = make_scene(
        crystal,
        shape=shape,
        pixel_nm=pixel_nm,
        defects=defects,
        microscope=microscope,
        scan=_scan(c, shape, pixel, rng),
        surface=_surface(c, shape, pixel, rng),
        relaxation={s: _relaxation(c, rng) for s in species if s not in KINDS},
        disorder_pm=rng.uniform(0, c.disorder_pm),
        dose_e_per_A2=dose,
        contrast=_contrast(c, crystal, species, rng),
        rng=rng,
        empty=rng.random() < c.empty,
    )
    brightest = max(cross_section_A2(tuple(sorted(s.column)), microscope) for s in crystal.sublattices)
    peak_e = 0.6 * brightest * dose * pixel**2 * 100
    detector = Detector(
        gain=float(10 ** rng.uniform(-2, 3)),
        offset=float(rng.normal(0, 100)),
        read_noise_e=float(rng.uniform(0, c.read_noise) * np.sqrt(peak_e)),
        line_noise_e=float(rng.uniform(0, 0.15 * c.read_noise) * np.sqrt(peak_e)),
        afterglow=float(rng.uniform(0, c.afterglow)),
        hot_pixels=float(rng.uniform(0, 2e-3)) if rng.random() < c.spiked else 0.0,
    )
    return Micrograph(detector.read(scene.expected_e, rng), pixel_nm, metadata={"dose_e_per_A2": dose}), labels(scene)


def labels(scene: Scene) -> pd.DataFrame:
    """List what a network is to find in a scene: frame, y_nm, x_nm, species, elements."""
    specimen = scene.specimen
    graph = np.isin(specimen.species.astype(str), KINDS)
    filled = specimen.column > 0
    used = filled | ~graph  # of graphene's empty sites the centre of the defect speaks
    position = np.where(filled[:, None], scene.seen_px, scene.ideal_px)[used]
    elements = np.array(["+".join(column) for column in specimen.columns], object)[specimen.column]
    names = np.where(graph, elements, specimen.species)[used]
    centers = [k for k, (name, _, _) in enumerate(specimen.defects) if name in ("V1", "V2", "SW")]
    position = np.concatenate([position, scene.defect_px[centers]])
    names = np.concatenate([names, np.array([specimen.defects[k][0] for k in centers], object)])
    contents = np.concatenate([elements[used], np.full(len(centers), "", object)])
    inside = np.all((position >= -0.5) & (position < np.array(scene.expected_e.shape) - 0.5), axis=1)
    place = (position * np.asarray(scene.pixel_nm))[inside]
    return pd.DataFrame(
        {"frame": 0, "y_nm": place[:, 0], "x_nm": place[:, 1], "species": names[inside], "elements": contents[inside]}
    )


def _small(rng: np.random.Generator) -> float:
    """Draw from 0 to 1, small values more often: microscopes are aligned."""
    return float(rng.random() ** 1.7)


def _microscope(c: Conditions, rng: np.random.Generator) -> Microscope:
    angle = {f"phi{nm}_deg": float(rng.uniform(0, 360)) for nm in ("12", "21", "23")}
    return Microscope(
        energy_keV=float(rng.choice(c.energies_keV)),
        convergence_mrad=float(rng.uniform(*c.convergence_mrad)),
        detector_inner_mrad=float(rng.uniform(*c.detector_inner_mrad)),
        detector_outer_mrad=float(rng.uniform(*c.detector_outer_mrad)),
        source_fwhm_nm=float(rng.uniform(*c.source_fwhm_nm)),
        focal_spread_nm=float(rng.uniform(*c.focal_spread_nm)),
        aberrations=Aberrations(
            C10_nm=float(_small(rng) * c.defocus_nm * rng.choice((-1, 1))),
            C12_nm=float(_small(rng) * c.twofold_nm),
            C21_nm=float(_small(rng) * c.coma_nm),
            C23_nm=float(_small(rng) * c.threefold_nm),
            C30_um=float(rng.uniform(-1, 1) * c.spherical_um),
            **angle,
        ),
    )


def _scan(c: Conditions, shape: tuple[int, int], pixel: float, rng: np.random.Generator) -> Scan:
    drift = rng.uniform(-1, 1, 2) * c.drift * pixel * 1e3
    return Scan(
        rotation_deg=float(rng.uniform(0, 360)),
        drift_pm_per_line=(float(drift[0]), float(drift[1])),
        wander_pm=float(rng.uniform(0, c.wander_pm) * rng.random()),
        wander_cycles=float(rng.uniform(0.5, 4)),
        jitter_pm=float(rng.uniform(0, c.jitter_pm)),
        jitter_memory=float(rng.uniform(0, 0.6)),
        flyback_pm=float(rng.uniform(0, c.flyback_pm)) if rng.random() < 0.5 else 0.0,
        flyback_nm=float(rng.uniform(0.1, 0.2) * shape[1] * pixel),
        current_variation=float(rng.uniform(0, c.current_variation)),
    )


def _surface(c: Conditions, shape: tuple[int, int], pixel: float, rng: np.random.Generator) -> Surface:
    side = min(shape) * pixel
    return Surface(
        contamination=float(c.contamination * rng.random() ** 2) if rng.random() < c.dirty else 0.0,
        contamination_scale_nm=float(rng.uniform(1.2, 6.0)),
        patch=float(rng.uniform(0.2, c.patch)) if rng.random() < c.patched else 0.0,
        patch_radius_nm=float(rng.uniform(0.1, 0.4) * side),
        gradient=float(rng.uniform(0, c.gradient)) if rng.random() < c.sloped else 0.0,
        holes=int(rng.integers(1, 4)) if rng.random() < c.holed else 0,
        hole_radius_nm=float(rng.uniform(0.25, 1.5)),
        edge=bool(rng.random() < c.edged),
    )


def _relaxation(c: Conditions, rng: np.random.Generator) -> Relaxation:
    return Relaxation(
        amplitude_pm=float(rng.uniform(-1, 1) * c.relaxation_pm),
        wavelength_nm=float(rng.uniform(0.4, 3.0)),
        decay_nm=float(rng.uniform(0.2, 2.0)),
    )


def _contrast(c: Conditions, crystal: Crystal, species: tuple[str, ...], rng: np.random.Generator) -> dict[str, float]:
    """Factor of each element's cross-section and (``"pair"``) of every column of two or more atoms."""
    hosts = [e for s in crystal.sublattices for e in s.column]
    reference = float(np.mean([np.log(atomic_numbers[e]) for e in hosts]))
    exponent = np.clip(rng.normal(0, c.contrast_exponent), -0.25, 0.25)
    elements = sorted({*hosts, *(e for e in ("Si", "Se", "Te") if any(e in s for s in species))})
    factors = {
        e: float(np.exp(exponent * (np.log(atomic_numbers[e]) - reference) + rng.normal(0, c.contrast_element)))
        for e in elements
    }
    return {**factors, "pair": float(np.exp(rng.normal(0, c.contrast_pair)))}
