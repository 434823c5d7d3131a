"""The bench: specimen, scan, probe, surface and detector put together into micrographs with their truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from .. import tables
from ..crystals import Crystal, get_crystal
from ..micrograph import Micrograph, check_pixel_size
from ..tables import Sites
from .detector import Detector, Surface
from .motion import Motion, move
from .placement import Placer, apply, check_defects, check_species
from .probe import Microscope
from .render import MARGIN_NM, render
from .scan import Scan, seen_at_px
from .scattering import amplitudes, cross_section_A2
from .specimen import Array, Relaxation, Specimen, joined, pristine, relax
from .truth import Scene, true_defects, true_sites


@dataclass(frozen=True)
class Bench:
    """Everything but the flake: an instrument, its scan over some crystal, and the dirt on it."""

    crystal: Crystal
    shape: tuple[int, int]
    pixel_nm: tuple[float, float]
    microscope: Microscope
    scan: Scan
    surface: Surface
    dose_e_per_A2: float
    contrast: Mapping[str, float] = field(default_factory=dict)

    @property
    def extent_nm(self) -> Array:
        """Height and width of the image."""
        extent: Array = np.asarray(self.shape) * np.asarray(self.pixel_nm)
        return extent

    def flake(self, distortion: Callable[..., Array], rng: np.random.Generator, frames: int = 1) -> Specimen:
        """Fill what the scan will see, in all frames, with pristine crystal."""
        corners = np.array([[y, x] for y in (0, self.shape[0]) for x in (0, self.shape[1] / 2, self.shape[1])], float)
        travel = max(float(np.abs(distortion(corners, k)).max()) for k in (0, frames - 1))
        extent = self.extent_nm + 2 * (travel + 5e-3 * self.scan.wander_pm + MARGIN_NM + 0.3)
        shift, dirt = rng.uniform(-1, 1, 2) * self.crystal.a_nm, np.random.default_rng(rng.integers(2**63))
        rotation = self.scan.rotation()
        present = self.surface.flake(self.extent_nm, dirt)
        if not self.surface.grain_deg:
            return pristine(self.crystal, extent, rotation=rotation, shift_nm=shift, covers=present)
        beyond = self.surface.boundary(self.extent_nm, dirt)
        turned = rotation @ Scan(rotation_deg=self.surface.grain_deg).rotation()
        first, second = (
            pristine(
                self.crystal,
                extent,
                rotation=frame,
                shift_nm=shift,
                covers=lambda points, side=side: present(points) & (beyond(points) == side),  # type: ignore[misc]
            )
            for side, frame in enumerate((rotation, turned))
        )
        return joined(first, second)

    def look(
        self,
        specimen: Specimen,
        distortion: Callable[..., Array],
        layer: np.ndarray | None,
        rng: np.random.Generator,
        frame: int = 0,
    ) -> Scene:
        """Scan a specimen: where everything is seen, and the electrons that each pixel expects."""
        n = len(specimen.column)
        centers = np.array([d.center_nm for d in specimen.defects]).reshape(-1, 2)
        seen = seen_at_px(
            np.concatenate([specimen.position_nm, specimen.ideal_nm, centers]),
            self.pixel_nm,
            lambda position: distortion(position, frame),
            (np.asarray(self.shape) - 1) / 2,
        )
        sigma = amplitudes(tuple(specimen.columns), self.microscope) * [self._factor(c) for c in specimen.columns]
        rows = self.scan.row_shift_px(self.shape[0], self.pixel_nm[1], rng)
        step = self.scan.step_nm(self.shape, self.pixel_nm)
        fraction = render(seen[:n], sigma[:, specimen.column], self.microscope, self.shape, step, rows)
        if layer is not None:
            clean = sum(cross_section_A2(tuple(sorted(s.column)), self.microscope) for s in self.crystal.sublattices)
            fraction += layer * np.float32(clean / (self.crystal.cell_area_nm2 * 100))
        beam = self.dose_e_per_A2 * self.pixel_nm[0] * self.pixel_nm[1] * 100 * self.scan.current(self.shape[0], rng)
        expected = fraction * beam.astype(np.float32)
        return Scene(specimen, seen[:n], seen[n : 2 * n], seen[2 * n :], expected, self.pixel_nm, frame)

    def _factor(self, column: tuple[str, ...]) -> float:
        """Product of `contrast` for a column."""
        if not column:
            return 1.0
        single = float(np.mean([self.contrast.get(element, 1.0) for element in column]))
        return single * (self.contrast.get("pair", 1.0) if len(column) > 1 else 1.0)

    def scenes(
        self,
        defects: Mapping[str, float],
        rng: np.random.Generator,
        *,
        at: Sequence[tuple[str, float, float]] = (),
        relaxation: Mapping[str, Relaxation] | None = None,
        disorder_pm: float = 0.0,
        clustering: float = 0.0,
        frames: int = 1,
        motion: Mapping[str, Motion] | None = None,
        empty: bool = False,
    ) -> Iterator[Scene]:
        """Make a specimen and look at it, `frames` times while its defects move."""
        distortion = self.scan.distortion_nm(self.shape, self.pixel_nm, rng)
        flake = self.flake(distortion, rng, frames)
        if empty:
            flake = flake.without_columns()
        placer = Placer(flake, self.extent_nm / 2, rng, clustering)
        middle = (np.asarray(self.shape) - 1) / 2 * np.asarray(self.pixel_nm)
        given = [placer.put_at(species, np.array(place) - middle) for species, *place in at]
        placed = [defect for defect in given if defect is not None]
        for species in rng.permutation(sorted(defects)).tolist():
            placed += placer.add(species, defects[species])
        static = rng.normal(0, 1e-3 * disorder_pm, flake.position_nm.shape)
        layer = self.surface.layer(self.shape, self.pixel_nm, rng)
        for frame in range(frames):
            specimen = apply(flake, placed)
            relax(specimen, relaxation or {})
            specimen.position_nm += static
            yield self.look(specimen, distortion, layer, rng, frame)
            placed = move(placer, placed, motion or {}, frame + 1)


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
    at: Sequence[tuple[str, float, float]] = (),
    clustering: float = 0.0,
    disorder_pm: float = 0.0,
    dose_e_per_A2: float = 1e5,
    shot_noise: bool = True,
    frames: int = 1,
    motion: Mapping[str, Motion] | None = None,
    frame_interval_s: float | None = None,
    seed: int = 0,
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
        In graphene, ``Si1C3``, ``Si1C4``, ``V1``, ``V2``, ``SW``, the dimers ``Si2C4``, ``Si2C5``,
        ``Si2C6`` and the rotors ``Si3C6``, ``Si4C6`` are relaxed structures.
    microscope : Microscope
    scan : Scan
    detector : Detector
    surface : Surface
        Contamination, holes and edges.
    relaxation : mapping, optional
        Species to a `Relaxation`: how the columns around it are displaced.
    at : sequence of (species, y_nm, x_nm), optional
        Defects at given places of an undistorted image, each put on the nearest of its sites.
    clustering : float
        0 for defects on random sites, towards 1 for defects that keep together.
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
    seed : int

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
        If a parameter is out of range, or a species unknown to the crystal.

    Notes
    -----
    Incoherent model: each column is its cross-section times the probe, see `scattering` for the table
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
    if not 0 < dose_e_per_A2 < 1e12:
        raise ValueError(f"`dose_e_per_A2` must be positive, got {dose_e_per_A2}.")
    if frames < 1:
        raise ValueError(f"`frames` must be 1 or more, got {frames}.")
    if not 0 <= clustering <= 1:
        raise ValueError(f"`clustering` must be 0 to 1, got {clustering}.")
    defects, motion, relaxation = dict(defects or {}), dict(motion or {}), dict(relaxation or {})
    check_defects(crystal, defects)
    others = [m.becomes for m in motion.values() if m.becomes is not None]
    for species in (*(name for name, *_ in at), *motion, *others):
        check_species(crystal, species)
    rng = np.random.default_rng(seed)
    bench = Bench(
        crystal, (shape[0], shape[1]), (float(pixel[0]), float(pixel[1])), microscope, scan, surface, dose_e_per_A2
    )
    options: dict[str, Any] = {"disorder_pm": disorder_pm, "clustering": clustering, "frames": frames}
    images, sites, truth = [], [], []
    for scene in bench.scenes(defects, rng, at=at, relaxation=relaxation, motion=motion, **options):
        images.append(detector.read(scene.expected_e, rng, shot_noise=shot_noise))
        sites.append(true_sites(scene))
        truth.append(true_defects(scene))
    parameters = {
        **{name: asdict(part) for name, part in (("microscope", microscope), ("scan", scan), ("detector", detector),
                                                 ("surface", surface))},
        **{name: {k: asdict(v) for k, v in part.items()} for name, part in (("relaxation", relaxation),
                                                                             ("motion", motion))},
        **options, "crystal": crystal.name, "defects": defects, "at": [list(place) for place in at],
        "dose_e_per_A2": dose_e_per_A2, "shot_noise": shot_noise, "seed": seed,
    }  # fmt: skip
    defect_table = pd.concat(truth, ignore_index=True) if frames > 1 else truth[0].drop(columns="track")
    defect_table["defect"] = np.arange(len(defect_table))
    site_table = pd.concat(sites, ignore_index=True) if frames > 1 else sites[0]
    site_table.attrs["crystal"] = crystal.name
    metadata = {"defects": tables.check(defect_table, "defects"), "simulation": parameters}
    data = np.stack(images) if frames > 1 else images[0]
    return Micrograph(data, pixel_size_nm, frame_interval_s, metadata), Sites(site_table)
