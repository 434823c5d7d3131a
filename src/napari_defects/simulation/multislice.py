"""The second engine: multislice with the potentials and frozen phonons of abTEM, the check on the fast one.

The specimen becomes atoms, its potential is sliced by abTEM, and the probe of `probe` goes through a
window of it around each point of a grid as fine as the probe's band limit asks. The result is a field
over the specimen that the same scan then samples, line by line, as it does with the fast engine.
J. Madsen, T. Susi, Open Research Europe 1, 24 (2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.ndimage import map_coordinates

from ..micrograph import Progress
from .probe import Microscope, frequencies, pupils, source_transfer
from .scattering import THERMAL_NM
from .specimen import Array, Specimen

_HEIGHT_NM = {"S": 0.156, "Se": 0.168, "Te": 0.181}
"""Of a chalcogen above the plane of metal; other atoms above each other are a bond apart."""
_BOND_NM = 0.3
_SLICE_NM = 0.2
_SAMPLING_NM = 0.0065
_BATCH = 32
_PAD = 12  # points beyond a field, where it fades to its mean before it is made periodic


@dataclass(frozen=True)
class Field:
    """Fraction of the beam on the detector, over the specimen.

    Attributes
    ----------
    values : ndarray, shape (y, x)
        Band limited, on a grid that is just fine enough.
    origin_nm : ndarray, shape (2,)
        Place of the first value.
    step_nm : float
    """

    values: npt.NDArray[np.float32]
    origin_nm: Array
    step_nm: float

    def blurred(self, microscope: Microscope, refine: int = 3) -> Field:
        """Return the field as a source of finite size gives it, on a finer grid."""
        shape = self.values.shape
        fade = np.pad(np.ones(shape), _PAD, mode="linear_ramp")
        mean = self.values.mean()
        padded = np.pad(self.values - mean, _PAD, mode="edge") * np.sin(np.pi / 2 * fade) ** 2
        spectrum = fft.rfft2(padded.astype(np.float32))
        ny, nx = padded.shape
        step = ((self.step_nm, 0.0), (0.0, self.step_nm))
        spectrum = fft.fftshift(spectrum * source_transfer(microscope, *frequencies((ny, nx), step, half=True)), axes=0)
        wide = np.zeros((ny * refine, nx * refine // 2 + 1), np.complex64)
        first = ny * refine // 2 - ny // 2
        wide[first : first + ny, : spectrum.shape[1]] = spectrum
        fine = fft.irfft2(fft.ifftshift(wide, axes=0), (ny * refine, nx * refine)) * refine**2 + mean
        return Field(fine.astype(np.float32), self.origin_nm - _PAD * self.step_nm, self.step_nm / refine)

    def at(self, places_nm: Array) -> npt.NDArray[np.float32]:
        """Value at places (..., 2)."""
        grid = (places_nm - self.origin_nm) / self.step_nm
        return np.asarray(map_coordinates(self.values, np.moveaxis(grid, -1, 0), order=3, mode="nearest"), np.float32)


def multislice(
    specimen: Specimen,
    microscope: Microscope,
    low_nm: Array,
    high_nm: Array,
    rng: np.random.Generator,
    *,
    frozen_phonons: int = 4,
    progress: Progress | None = None,
) -> Field:
    """Field of a specimen over a rectangle, without the source's blur.

    Parameters
    ----------
    specimen : Specimen
    microscope : Microscope
    low_nm, high_nm : ndarray, shape (2,)
        Corners of the rectangle.
    rng : Generator
    frozen_phonons : int
        Configurations of displaced atoms to average; 0 for atoms at rest.
    progress : callable, optional
        ``progress(done, total)`` over rows of the grid.

    Raises
    ------
    ValueError
        If abTEM is not installed.
    """
    _abtem()
    sampling = min(microscope.wavelength_nm / (3.3e-3 * microscope.detector_outer_mrad), _SAMPLING_NM)
    stride = max(1, int(0.45 / microscope.cutoff_per_nm / sampling))
    window = fft.next_fast_len(int(_window_nm(microscope) / sampling) + 1)
    points = np.ceil((high_nm - low_nm) / (sampling * stride)).astype(int) + 2
    origin = low_nm - 0.5 * sampling * stride
    shape = tuple(((points - 1) * stride + window).tolist())
    corner = origin - window // 2 * sampling
    total = np.zeros(points, np.float64)
    configurations = max(1, frozen_phonons)
    pupil = pupils(microscope, (window, window), ((sampling, 0.0), (0.0, sampling)))
    bench = _Bench(microscope, sampling, window, stride)
    still, moved = _atoms(specimen, corner, sampling * np.array(shape), rng), np.empty((0, 3))
    for k in range(configurations):
        atoms = still.copy()
        if frozen_phonons:
            moved = _next_phonon(moved, k, len(atoms), rng)
            atoms.positions += moved
        slices, thickness = _transmission(atoms, shape, microscope)
        for weight, aperture in pupil:
            psi = fft.ifft2(aperture / np.sqrt((np.abs(aperture) ** 2).sum()), norm="ortho")
            rows = bench.rows(slices, thickness, fft.fftshift(psi).astype(np.complex64), points)
            for row, values in enumerate(rows):
                total[row] += weight / configurations * values
                if progress is not None and weight == pupil[0][0]:
                    progress(k * int(points[0]) + row + 1, configurations * int(points[0]))
    return Field(total.astype(np.float32), origin, sampling * stride)


def _abtem() -> Any:
    try:
        import abtem
    except ImportError:
        raise ValueError(
            '`engine` "multislice" needs abTEM; install it with: pip install "napari-defects[multislice]".'
        ) from None
    return abtem


def _window_nm(microscope: Microscope) -> float:
    """Side of what the probe needs around it."""
    a, alpha = microscope.aberrations, 1e-3 * microscope.convergence_mrad
    spread = abs(a.C10_nm) + abs(a.C12_nm) + 3 * microscope.focal_spread_nm
    spread += alpha * (abs(a.C21_nm) + abs(a.C23_nm)) + alpha**2 * 1e3 * abs(a.C30_um)
    return 1.2 + 2 * alpha * spread


def _atoms(specimen: Specimen, corner_nm: Array, size_nm: Array, rng: np.random.Generator) -> Any:
    """Atoms within a rectangle, as ASE wants them: in angstrom, (y, x, z), the middle of the layer at z = 0."""
    from ase import Atoms

    symbols: list[str] = []
    places: list[tuple[float, float, float]] = []
    inside = np.all((specimen.position_nm > corner_nm) & (specimen.position_nm < corner_nm + size_nm), axis=1)
    hosts = [*(s.column for s in specimen.crystal.sublattices), ()]
    for k in np.flatnonzero(inside & (specimen.column > 0)):
        column = specimen.columns[specimen.column[k]]
        z = _heights(column, len(hosts[specimen.sublattice[k]]))
        y, x = specimen.position_nm[k] - corner_nm
        symbols += rng.permutation(column).tolist()  # which of two is above is chance
        places += [(y, x, float(h)) for h in z]
    return Atoms(symbols, 10 * np.array(places).reshape(-1, 3), cell=[*(10 * size_nm), 1.0])


def _heights(column: tuple[str, ...], host: int) -> Array:
    """Heights in nm of the atoms of a column; one that is left of several stays where it was."""
    number = max(len(column), host)
    if number == 1:
        return np.zeros(1)
    half = np.mean([_HEIGHT_NM.get(element, _BOND_NM / 2) for element in column]) * (number - 1)
    return np.linspace(-half, half, number)[: len(column)]


def _next_phonon(before: Array, k: int, number: int, rng: np.random.Generator) -> Array:
    """Thermal displacements in angstrom: drawn, then turned by right angles, so that four have no mean."""
    if k % 4 == 0:
        return rng.normal(0, 10 * THERMAL_NM, (number, 3))
    return np.stack([-before[:, 1], before[:, 0], -before[:, 2]], 1)


def _transmission(atoms: Any, shape: tuple[int, ...], microscope: Microscope) -> tuple[list[npt.NDArray[Any]], float]:
    """Transmission functions of the slices of a layer, and their thickness in nm."""
    abtem = _abtem()
    from abtem.core.energy import energy2sigma

    if not len(atoms):
        return [np.ones(shape, np.complex64)], _SLICE_NM
    z = atoms.positions[:, 2]
    number = 1 + int(np.ceil(np.ptp(z) / (10 * _SLICE_NM) - 0.25))
    thickness = np.ptp(z) / (number - 1) if number > 1 else 10 * _SLICE_NM
    atoms = atoms.copy()
    atoms.positions[:, 2] += (number * thickness - z.max() - z.min()) / 2
    atoms.cell[2, 2] = number * thickness
    potential = abtem.Potential(atoms, gpts=shape, slice_thickness=(thickness,) * number).build(lazy=False).array
    sigma = energy2sigma(1e3 * microscope.energy_keV)
    limit = _band(shape)
    result = []
    for v in potential:
        spectrum = fft.fft2(np.exp(1j * np.float32(sigma) * v).astype(np.complex64), workers=-1)
        result.append(fft.ifft2(spectrum * limit, workers=-1))
    return result, thickness / 10


def _band(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Frequencies within two thirds of the grid's."""
    fy, fx = (fft.fftfreq(n) for n in shape)
    return np.asarray(np.hypot(fy[:, None], fx) < 1 / 3)


@dataclass(frozen=True)
class _Bench:
    """A grid of probe positions over windows of a potential."""

    microscope: Microscope
    sampling: float
    window: int
    stride: int

    def rows(
        self, slices: list[npt.NDArray[Any]], thickness: float, psi: npt.NDArray[Any], points: npt.NDArray[Any]
    ) -> Iterator[Array]:
        """Yield each row of the field."""
        n, wavelength = self.window, self.microscope.wavelength_nm
        qy, qx = frequencies((n, n), ((self.sampling, 0.0), (0.0, self.sampling)))
        q = np.hypot(qy, qx)
        allowed = _band((n, n))
        forward = (allowed * np.exp(-1j * np.pi * wavelength * thickness * q**2)).astype(np.complex64)
        angle = 1e3 * wavelength * q
        counted = (angle >= self.microscope.detector_inner_mrad) & (angle < self.microscope.detector_outer_mrad)
        for row in range(int(points[0])):
            strips = [s[row * self.stride : row * self.stride + n] for s in slices]
            values = np.zeros(int(points[1]))
            for first in range(0, len(values), _BATCH):
                columns = np.arange(first, min(first + _BATCH, len(values))) * self.stride
                wave = np.broadcast_to(psi, (len(columns), n, n))
                for k, strip in enumerate(strips):
                    wave = wave * np.stack([strip[:, c : c + n] for c in columns])
                    wave = fft.fft2(wave, workers=-1, overwrite_x=True)
                    if k < len(strips) - 1:
                        wave = fft.ifft2(wave * forward, workers=-1, overwrite_x=True)
                values[first : first + len(columns)] = (np.abs(wave[:, counted]) ** 2).sum(1) / n**2
            yield values
