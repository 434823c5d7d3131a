"""The bench: specimen, scan, probe, surface and detector put together into one micrograph with its truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from .. import tables
from ..crystals import Crystal, get_crystal
from ..micrograph import Micrograph, check_pixel_size
from ..tables import Sites
from .detector import Detector, Surface
from .probe import Microscope
from .render import MARGIN_NM, render
from .scan import Scan, seen_at_px
from .scattering import amplitudes, cross_section_A2
from .specimen import Array, Relaxation, Specimen, add_defects, check_defects, pristine, relax


@dataclass(frozen=True)
class Scene:
    """A specimen as the scan sees it, and the electrons that each pixel expects."""

    specimen: Specimen
    seen_px: Array
    ideal_px: Array
    defect_px: Array
    expected_e: Any
    pixel_nm: tuple[float, float]


def make_scene(
    crystal: Crystal,
    *,
    shape: tuple[int, int],
    pixel_nm: tuple[float, float],
    defects: Mapping[str, float],
    microscope: Microscope,
    scan: Scan,
    surface: Surface,
    relaxation: Mapping[str, Relaxation],
    disorder_pm: float,
    dose_e_per_A2: float,
    contrast: Mapping[str, float],
    rng: np.random.Generator,
    empty: bool = False,
) -> Scene:
    """Build the specimen, look at it through the scan, and draw the expected electrons of each pixel."""
    pixel = np.asarray(pixel_nm)
    image_nm = np.asarray(shape) * pixel
    distortion = scan.distortion_nm(shape, pixel_nm, rng)
    corners = np.array([[y, x] for y in (0, shape[0]) for x in (0, shape[1] / 2, shape[1])], float)
    reach = float(np.abs(distortion(corners)).max()) + 5e-3 * scan.wander_pm + MARGIN_NM + 0.3
    extent = image_nm + 2 * reach
    shift = rng.uniform(-1, 1, 2) * crystal.a_nm
    rotation = scan.rotation()
    flake_rng = np.random.default_rng(rng.integers(2**63))
    specimen = pristine(
        crystal,
        extent if not empty else np.zeros(2),
        rotation=rotation,
        shift_nm=shift,
        covers=lambda points: surface.covers(points, image_nm, flake_rng),
    )
    add_defects(specimen, defects, image_nm / 2, rng)
    relax(specimen, relaxation)
    if disorder_pm:
        specimen.position_nm += rng.normal(0, 1e-3 * disorder_pm, specimen.position_nm.shape)
    center = (np.asarray(shape) - 1) / 2
    centers = np.array([c for _, c, _ in specimen.defects]).reshape(-1, 2)
    n = len(specimen.column)
    everything = np.concatenate([specimen.position_nm, specimen.ideal_nm, centers])
    seen = seen_at_px(everything, pixel_nm, distortion, center)
    sigma = amplitudes(tuple(specimen.columns), microscope)
    pair = contrast.get("pair", 1.0)
    factor = [
        np.mean([contrast.get(e, 1.0) for e in c]) * (pair if len(c) > 1 else 1.0) if c else 1.0
        for c in specimen.columns
    ]
    weights = (sigma * np.array(factor))[:, specimen.column]
    rows = scan.row_shift_px(shape[0], pixel_nm[1], rng)
    fraction = render(seen[:n], weights, microscope, shape, scan.step_nm(shape, pixel_nm), rows)
    clean = sum(cross_section_A2(tuple(sorted(s.column)), microscope) for s in crystal.sublattices)
    layer = surface.layer(shape, pixel_nm, rng)
    if layer is not None:
        fraction += layer * np.float32(clean / (crystal.cell_area_nm2 * 100))
    beam = dose_e_per_A2 * pixel_nm[0] * pixel_nm[1] * 100 * scan.current(shape[0], rng).astype(np.float32)
    return Scene(specimen, seen[:n], seen[n : 2 * n], seen[2 * n :], fraction * beam, pixel_nm)


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
    relaxation: Mapping[str, Relaxation] | None = None,
    disorder_pm: float = 0.0,
    dose_e_per_A2: float = 1e5,
    shot_noise: bool = True,
    seed: int = 0,
) -> tuple[Micrograph, Sites]:
    """Simulate an ADF-STEM micrograph of a two-dimensional crystal, with its truth.

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
        where it is a whole number; ``{"V_Se": 0.02, "Te2_Se": 5}``. In graphene, ``Si1C3``, ``Si1C4``,
        ``V1``, ``V2`` and ``SW`` are relaxed structures.
    microscope : Microscope
    scan : Scan
    detector : Detector
    surface : Surface
        Contamination, holes and edges.
    relaxation : mapping, optional
        Species to a `Relaxation`: how the columns around it are displaced.
    disorder_pm : float
        Random static displacement of each column, rms along each axis.
    dose_e_per_A2 : float
        Electrons per square angstrom of one frame.
    shot_noise : bool
        Whether electrons are counted; without, the image is the expectation (and read noise).
    seed : int

    Returns
    -------
    Micrograph
        With the table of true defects in ``metadata["defects"]`` and every parameter in
        ``metadata["simulation"]``.
    Sites
        Every column within the image, where it is seen: scan distortion included, line jitter not.
        Beside the columns of SITES: ``species`` (the host column, or the defect it belongs to) and
        ``elements`` (``Se+Te``). An empty column has NaN position.

    Raises
    ------
    ValueError
        If a parameter is out of range, or a species unknown to the crystal.

    Notes
    -----
    Incoherent model: each column is its cross-section times the probe, see `scattering` for the table
    and its range, `probe` for the optics, `scan` for the sign conventions.
    """
    crystal = get_crystal(crystal)
    pixel = np.broadcast_to(np.asarray(check_pixel_size(pixel_size_nm), float), (2,))
    field = np.broadcast_to(np.asarray(field_of_view_nm, float), (2,))
    shape = np.nan_to_num(np.rint(field / pixel), nan=0.0, posinf=1e9).astype(int).tolist()
    if min(shape) < 32 or max(shape) > 16384:
        raise ValueError(
            f"`field_of_view_nm` must make an image of 32 to 16384 pixels a side, got {field_of_view_nm} "
            f"with pixels of {pixel_size_nm} nm."
        )
    if not 0 < dose_e_per_A2 < 1e12:
        raise ValueError(f"`dose_e_per_A2` must be positive, got {dose_e_per_A2}.")
    defects = dict(defects or {})
    check_defects(crystal, defects)
    rng = np.random.default_rng(seed)
    pixel_nm = (float(pixel[0]), float(pixel[1]))
    scene = make_scene(
        crystal,
        shape=(shape[0], shape[1]),
        pixel_nm=pixel_nm,
        defects=defects,
        microscope=microscope,
        scan=scan,
        surface=surface,
        relaxation=relaxation or {},
        disorder_pm=disorder_pm,
        dose_e_per_A2=dose_e_per_A2,
        contrast={},
        rng=rng,
    )
    data = detector.read(scene.expected_e, rng, shot_noise=shot_noise)
    parameters = {
        "crystal": crystal.name, "defects": defects, "microscope": asdict(microscope), "scan": asdict(scan),
        "detector": asdict(detector), "surface": asdict(surface), "disorder_pm": disorder_pm,
        "relaxation": {k: asdict(v) for k, v in (relaxation or {}).items()},
        "dose_e_per_A2": dose_e_per_A2, "shot_noise": shot_noise, "seed": seed,
    }  # fmt: skip
    metadata = {"defects": true_defects(scene), "simulation": parameters}
    return Micrograph(data, pixel_size_nm, metadata=metadata), true_sites(scene)


def _within(position_px: Array, shape: tuple[int, ...]) -> Any:
    return np.all((position_px >= -0.5) & (position_px < np.asarray(shape) - 0.5), axis=1)


def true_sites(scene: Scene) -> Sites:
    """SITES of the columns within the image, with `species` and `elements`."""
    specimen, pixel = scene.specimen, np.asarray(scene.pixel_nm)
    filled = specimen.column > 0
    inside = _within(np.where(filled[:, None], scene.seen_px, scene.ideal_px), scene.expected_e.shape)
    seen = np.where(filled[:, None], scene.seen_px * pixel, np.nan)[inside]
    ideal = (scene.ideal_px * pixel)[inside]
    names = np.array([s.name for s in specimen.crystal.sublattices], object)
    elements = np.array(["+".join(c) for c in specimen.columns], object)
    n = int(inside.sum())
    nan = np.full(n, np.nan)
    table = pd.DataFrame(
        {
            "frame": 0, "y_nm": seen[:, 0], "x_nm": seen[:, 1], "y_err_nm": nan, "x_err_nm": nan, "sigma_nm": nan,
            "amplitude": nan, "amplitude_err": nan, "background": nan, "score": np.ones(n),
            "i": specimen.cell[inside, 0], "j": specimen.cell[inside, 1],
            "sublattice": names[specimen.sublattice[inside]], "y_ideal_nm": ideal[:, 0], "x_ideal_nm": ideal[:, 1],
            "species": specimen.species[inside], "elements": elements[specimen.column[inside]],
        }
    )  # fmt: skip
    sites = tables.check(table, "sites")
    sites.attrs["crystal"] = specimen.crystal.name
    return Sites(sites)


def true_defects(scene: Scene) -> pd.DataFrame:
    """DEFECTS within the image, method ``truth``."""
    specimen, pixel = scene.specimen, np.asarray(scene.pixel_nm)
    inside = np.flatnonzero(_within(scene.defect_px, scene.expected_e.shape))
    if not len(inside):
        return tables.empty("defects")
    index = np.array([specimen.defects[k][2] for k in inside])
    at_column = np.isin([specimen.defects[k][0] for k in inside], ("V2", "SW", "Si1C4"), invert=True)
    single = at_column & (specimen.column[index] > 0)
    position = np.where(single[:, None], scene.seen_px[index], scene.defect_px[inside]) * pixel
    names = np.array([s.name for s in specimen.crystal.sublattices], object)
    table = pd.DataFrame(
        {
            "frame": 0, "defect": np.arange(len(inside)), "y_nm": position[:, 0], "x_nm": position[:, 1],
            "i": specimen.cell[index, 0], "j": specimen.cell[index, 1],
            "sublattice": names[specimen.sublattice[index]],
            "species": [specimen.defects[k][0] for k in inside], "probability": 1.0, "method": "truth",
        }
    )  # fmt: skip
    return tables.check(table, "defects")
