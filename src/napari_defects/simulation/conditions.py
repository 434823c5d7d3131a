"""The conditions of training images: wide enough for the microscopes, flakes and days there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers

from ..crystals import Crystal, get_crystal
from .detector import Detector, Surface
from .graphene import POINTS
from .probe import Aberrations, Microscope
from .relaxation import Relaxation
from .scan import Scan
from .scattering import cross_section_A2

Range = tuple[float, float]
OUTLIERS = ("darker", "brighter")
FOREIGN = (("Ti", "Au"), ("O", "I"))
"""Elements that stand for any dark or bright dopant: on columns of one atom, and in place of one of two."""


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
    foreign : float
        Share of images with dopants of any brightness, labelled ``darker_W``, ``brighter_Se`` and so on.
    foreign_fraction : (float, float)
        Fraction of the sites that they take, each kind by itself.
    pixel_size_nm, dose_e_per_A2 : (float, float)
        Log-uniform.
    low_dose : float
        0 for doses uniform in the logarithm; higher to draw the lower ones more often.
    miscalibration : float
        Largest relative error of the pixel size that the image claims.
    pixel_aspect : float
        Largest relative difference between the sides of a pixel.
    energies_keV : tuple of float
    convergence_mrad, detector_inner_mrad, detector_outer_mrad, source_fwhm_nm : (float, float)
    focal_spread_nm, source_tail : (float, float)
    defocus_nm, twofold_nm, coma_nm, threefold_nm, spherical_um : float
        Largest residual aberrations, drawn small more often than large; defocus and spherical aberration of either
        sign.
    contrast_exponent, contrast_element, contrast_pair : float
        Spread (rms) of the atomic-number exponent, of each element's and of all pairs' cross-sections.
    relaxation_pm, disorder_pm : float
        Largest displacement next to a defect (either sign), and of every column (rms).
    drift, wander_pm, jitter_pm, tremor_pm, flyback_pm, current_variation : float
        Largest drift over the frame relative to its height, and largest values of the `Scan` fields.
    contamination, patch, gradient, speckle : float
        Largest values of the `Surface` fields.
    dirty, patched, sloped, holed, edged, grained, spiked : float
        Share of images with each.
    read_noise, flicker : float
        Largest electronic noise, and its slow part, relative to the shot noise at the brightest host column.
    afterglow, pulse_spread : float
        Largest values of the `Detector` fields.
    """

    species: tuple[str, ...] | None = None
    defect_fraction: Range = (0.02, 0.25)
    pristine: float = 0.06
    empty: float = 0.03
    foreign: float = 0.0
    foreign_fraction: Range = (0.002, 0.05)
    pixel_size_nm: Range = (0.010, 0.042)
    dose_e_per_A2: Range = (1.5e3, 5e5)
    low_dose: float = 0.0
    miscalibration: float = 0.0
    pixel_aspect: float = 0.04
    energies_keV: tuple[float, ...] = (60.0, 80.0, 80.0)
    convergence_mrad: Range = (24.0, 33.0)
    detector_inner_mrad: Range = (55.0, 88.0)
    detector_outer_mrad: Range = (180.0, 280.0)
    source_fwhm_nm: Range = (0.05, 0.13)
    focal_spread_nm: Range = (0.0, 3.0)
    source_tail: Range = (0.0, 0.25)
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
    tremor_pm: float = 12.0
    flyback_pm: float = 60.0
    current_variation: float = 0.06
    contamination: float = 2.0
    patch: float = 2.5
    gradient: float = 1.0
    speckle: float = 0.2
    dirty: float = 0.7
    patched: float = 0.25
    sloped: float = 0.2
    holed: float = 0.15
    edged: float = 0.08
    grained: float = 0.05
    spiked: float = 0.1
    read_noise: float = 0.7
    flicker: float = 0.4
    afterglow: float = 0.25
    pulse_spread: float = 0.4

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
        return POINTS
    hosts = {s.element: len(s.column) for s in crystal.sublattices}
    species = [f"V_{e}" for e in hosts] + [f"V{n}_{e}" for e, n in hosts.items() if n > 1]
    if sorted(hosts.values()) == [1, 2]:
        metal, chalcogen = sorted(hosts, key=hosts.__getitem__)
        species += [f"{chalcogen}_{metal}"] + [f"{chalcogen}2_{metal}"] * (crystal.name != "WSe2")
    if crystal.name == "WSe2":
        species += ["Te_Se", "Te2_Se", "Te2_W"]
    return tuple(sorted(species))


def _small(rng: np.random.Generator) -> float:
    """Draw from 0 to 1, small values more often: microscopes are aligned."""
    return float(rng.random() ** 1.7)


def draw_microscope(c: Conditions, rng: np.random.Generator) -> Microscope:
    """Draw optics."""
    angle = {f"phi{nm}_deg": float(rng.uniform(0, 360)) for nm in ("12", "21", "23")}
    return Microscope(
        energy_keV=float(rng.choice(c.energies_keV)),
        convergence_mrad=float(rng.uniform(*c.convergence_mrad)),
        detector_inner_mrad=float(rng.uniform(*c.detector_inner_mrad)),
        detector_outer_mrad=float(rng.uniform(*c.detector_outer_mrad)),
        source_fwhm_nm=float(rng.uniform(*c.source_fwhm_nm)),
        focal_spread_nm=float(rng.uniform(*c.focal_spread_nm)),
        source_tail=float(rng.uniform(*c.source_tail)),
        aberrations=Aberrations(
            C10_nm=float(_small(rng) * c.defocus_nm * rng.choice((-1, 1))),
            C12_nm=float(_small(rng) * c.twofold_nm),
            C21_nm=float(_small(rng) * c.coma_nm),
            C23_nm=float(_small(rng) * c.threefold_nm),
            C30_um=float(rng.uniform(-1, 1) * c.spherical_um),
            **angle,
        ),
    )


def draw_scan(c: Conditions, shape: tuple[int, int], pixel: float, rng: np.random.Generator) -> Scan:
    """Draw a scan."""
    drift = rng.uniform(-1, 1, 2) * c.drift * pixel * 1e3
    return Scan(
        rotation_deg=float(rng.uniform(0, 360)),
        drift_pm_per_line=(float(drift[0]), float(drift[1])),
        wander_pm=float(rng.uniform(0, c.wander_pm) * rng.random()),
        wander_cycles=float(rng.uniform(0.5, 4)),
        jitter_pm=float(rng.uniform(0, c.jitter_pm)),
        jitter_memory=float(rng.uniform(0, 0.6)),
        tremor_pm=float(rng.uniform(0, c.tremor_pm)) if rng.random() < 0.25 else 0.0,
        tremor_nm=float(rng.uniform(0.2, 1.5)),
        flyback_pm=float(rng.uniform(0, c.flyback_pm)) if rng.random() < 0.5 else 0.0,
        flyback_nm=float(rng.uniform(0.1, 0.2) * shape[1] * pixel),
        current_variation=float(rng.uniform(0, c.current_variation)),
    )


def draw_surface(c: Conditions, shape: tuple[int, int], pixel: float, rng: np.random.Generator) -> Surface:
    """Draw dirt, holes and edges."""
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
        grain_deg=float(rng.uniform(5, 55)) if rng.random() < c.grained else 0.0,
        speckle=float(rng.uniform(0, c.speckle)) if rng.random() < c.dirty else 0.0,
    )


def draw_relaxation(c: Conditions, rng: np.random.Generator) -> Relaxation:
    """Draw how a kind of defect displaces its neighbours."""
    return Relaxation(
        amplitude_pm=float(rng.uniform(-1, 1) * c.relaxation_pm),
        wavelength_nm=float(rng.uniform(0.4, 3.0)),
        decay_nm=float(rng.uniform(0.2, 2.0)),
        reach_nm=1.2,  # as far as a network sees it
    )


def draw_contrast(
    c: Conditions, crystal: Crystal, species: tuple[str, ...], rng: np.random.Generator
) -> dict[str, float]:
    """Draw the factor of each element's cross-section and (``"pair"``) of every column of two or more atoms."""
    hosts = [e for s in crystal.sublattices for e in s.column]
    reference = float(np.mean([np.log(atomic_numbers[e]) for e in hosts]))
    exponent = np.clip(rng.normal(0, c.contrast_exponent), -0.25, 0.25)
    elements = sorted({*hosts, *(e for e in ("Si", "Se", "Te") if any(e in s for s in species))})
    factors = {
        e: float(np.exp(exponent * (np.log(atomic_numbers[e]) - reference) + rng.normal(0, c.contrast_element)))
        for e in elements
    }
    return {**factors, "pair": float(np.exp(rng.normal(0, c.contrast_pair)))}


def draw_defects(c: Conditions, crystal: Crystal, rng: np.random.Generator) -> dict[str, float]:
    """Draw the fraction of each species."""
    species = c.species if c.species is not None else training_species(crystal)
    defects: dict[str, float] = {}
    if species and rng.random() > c.pristine:
        fraction = rng.uniform(*c.defect_fraction) * len(crystal.sublattices)
        defects = dict(zip(species, fraction * rng.dirichlet(np.full(len(species), 0.8)), strict=True))
        defects = {name: float(min(share, 0.9)) for name, share in defects.items()}
    return defects


class Dopant(NamedTuple):
    """An element that is none of those known: its species, what it is labelled, and its factor of cross-section."""

    species: str
    label: str
    element: str
    factor: float


def draw_dopants(
    c: Conditions, crystal: Crystal, microscope: Microscope, contrast: Mapping[str, float], rng: np.random.Generator
) -> list[Dopant]:
    """Draw dopants that are darker or brighter than the host columns by any amount that can be seen."""
    if rng.random() >= c.foreign:
        return []
    dopants = []
    for sublattice in crystal.sublattices:
        n, host = len(sublattice.column), cross_section_A2(tuple(sorted(sublattice.column)), microscope)
        for kind, element, ratios in zip(OUTLIERS, FOREIGN[n > 1], ((0.12, 0.9), (1.1, 2.6)), strict=True):
            if rng.random() < 0.5:
                continue
            column = tuple(sorted((element, *sublattice.column[1:])))
            bare = cross_section_A2(column, microscope)
            wanted = float(np.exp(rng.uniform(*np.log(ratios)))) * contrast[sublattice.element] * host / bare
            factor = n * wanted - (n - 1) * contrast[sublattice.element]  # a column's factor is the mean of its atoms'
            dopants.append(
                Dopant(f"{element}_{sublattice.element}", f"{kind}_{sublattice.element}", element, float(factor))
            )
    return dopants


def draw_dose(c: Conditions, rng: np.random.Generator) -> float:
    """Draw a dose in electrons per square angstrom."""
    low, high = np.log(c.dose_e_per_A2)
    return float(np.exp(low + (high - low) * rng.random() ** (1 + c.low_dose)))


def draw_detector(c: Conditions, crystal: Crystal, microscope: Microscope, electrons: float,
                  rng: np.random.Generator) -> Detector:  # fmt: skip
    """Draw a detector for `electrons` per square angstrom times the area of a pixel."""
    brightest = max(cross_section_A2(tuple(sorted(s.column)), microscope) for s in crystal.sublattices)
    peak_e = 0.6 * brightest * electrons
    return Detector(
        gain=float(10 ** rng.uniform(-2, 3)),
        offset=float(rng.normal(0, 100)),
        read_noise_e=float(rng.uniform(0, c.read_noise) * np.sqrt(peak_e)),
        line_noise_e=float(rng.uniform(0, 0.15 * c.read_noise) * np.sqrt(peak_e)),
        pulse_spread=float(rng.uniform(0, c.pulse_spread)),
        afterglow=float(rng.uniform(0, c.afterglow)),
        hot_pixels=float(rng.uniform(0, 2e-3)) if rng.random() < c.spiked else 0.0,
        flicker_e=float(rng.uniform(0, c.flicker) * np.sqrt(peak_e)),
        flicker_memory=float(rng.uniform(0, 0.9)),
    )
