"""The bench: specimen, scan, probe, surface and detector put together into micrographs with their truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..crystals import Crystal
from ..micrograph import Progress
from .detector import Surface
from .motion import Motion, move
from .multislice import multislice
from .placement import Placer, apply
from .probe import Microscope
from .relaxation import Displacements, Relaxation, relax
from .render import MARGIN_NM, render
from .scan import Scan, seen_at_px
from .scattering import amplitudes
from .specimen import Array, Specimen, joined, pristine
from .truth import Scene


@dataclass(frozen=True)
class Bench:
    """Everything but the flake: an instrument, its scan over some crystal, and the dirt on it.

    With a number of `frozen_phonons`, multislice is the engine.
    """

    crystal: Crystal
    shape: tuple[int, int]
    pixel_nm: tuple[float, float]
    microscope: Microscope
    scan: Scan
    surface: Surface
    dose_e_per_A2: float
    contrast: Mapping[str, float] = field(default_factory=dict)
    frozen_phonons: int | None = None
    progress: Progress | None = None

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
        rows = self.scan.row_shift_px(self.shape[0], self.pixel_nm[1], rng)
        if self.frozen_phonons is None:
            sigma = amplitudes(specimen.columns, self.microscope) * [self._factor(c) for c in specimen.columns]
            step = self.scan.step_nm(self.shape, self.pixel_nm)
            fraction = render(seen[:n], sigma[specimen.column], self.microscope, self.shape, step, rows)
        else:
            places = self.scan.places_nm(self.shape, self.pixel_nm, lambda p: distortion(p, frame), rows)
            options: dict[str, Any] = {"frozen_phonons": self.frozen_phonons, "progress": self.progress}
            corners = places.min((0, 1)), places.max((0, 1))
            fraction = (
                multislice(specimen, self.microscope, *corners, rng, **options).blurred(self.microscope).at(places)
            )
        if layer is not None:
            clean = float(amplitudes((s.column for s in self.crystal.sublattices), self.microscope).sum())
            fraction += layer * np.float32(clean / (self.crystal.cell_area_nm2 * 100))
        beam = self.dose_e_per_A2 * self.pixel_nm[0] * self.pixel_nm[1] * 100 * self.scan.current(self.shape[0], rng)
        expected = self.scan.trembling(fraction, self.pixel_nm, rng) * beam.astype(np.float32)
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
        relaxation: Mapping[str, Relaxation | Displacements] | None = None,
        disorder_pm: float = 0.0,
        clustering: float = 0.0,
        lines: Mapping[str, int] | None = None,
        frames: int = 1,
        motion: Mapping[str, Motion] | None = None,
        empty: bool = False,
    ) -> Iterator[Scene]:
        """Make a specimen and look at it, `frames` times while its defects move."""
        distortion = self.scan.distortion_nm(self.shape, self.pixel_nm, rng)
        flake = self.flake(distortion, rng, frames)
        if empty:
            flake = flake.without_columns()
        placer = Placer(flake, self.extent_nm / 2, rng, clustering, lines)
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
            specimen.position_nm[: len(static)] += static  # not the adatoms
            yield self.look(specimen, distortion, layer, rng, frame)
            placed = move(placer, placed, motion or {}, frame + 1)
