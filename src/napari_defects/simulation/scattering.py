"""How strongly a column scatters onto the annular detector.

Cross-sections of isolated columns (multislice with frozen phonons, 80 kV) for two detector ranges
fix, column by column, a screened Rutherford law ``A [1/(t_in^2 + t_0^2) - 1/(t_out^2 + t_0^2)]``
that serves every other range. Other energies scatter to other angles at the same momentum, hence
``t -> t lambda(80 kV) / lambda`` and a factor ``(gamma lambda)^2``. Columns outside the table fall
back on interpolation in log Z between elements of the table, and on raising the sum of a
pair's atoms (x 1.17 from 60 mrad on, x 1.05 from 80 mrad on).

The image of a column is the probe widened by the column's own profile: a thermal Gaussian, and a wider
one for a share of the cross-section. Of lighter atoms beside heavy ones less is seen in a lattice than of
isolated columns. Both were set once against fields by multislice (`multislice`), and are interpolated in Z.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers

from .probe import Microscope, wavelength_nm

# Column -> (Å^2 at 60-200 mrad, Å^2 at 80-200 mrad), 80 kV.
_MEASURED = {
    ("Se",): (0.0183, 0.0109),
    ("Mo",): (0.0246, 0.0146),
    ("Te",): (0.0334, 0.0198),
    ("W",): (0.0485, 0.0297),
    ("Se", "Se"): (0.0429, 0.0227),
    ("Se", "Te"): (0.0617, 0.0343),
    ("Te", "Te"): (0.0809, 0.0440),
}
# Element -> (amplitude of the law in Å^2 mrad^2, screening angle in mrad): light atoms, from the ratio
# Si/C at 60 kV and 86-200 mrad and from the peak of C there; screening after Thomas and Fermi.
_LIGHT = {"C": (3.15, 21.6), "Si": (16.8, 28.7)}
# Column -> what is seen in a lattice of the cross-section that it has alone.
_SEEN = {
    ("C",): 1.0, ("Si",): 1.0, ("Se",): 0.88, ("Mo",): 0.87, ("Te",): 0.89, ("W",): 1.0,
    ("Se", "Se"): 0.86, ("Se", "Te"): 0.875, ("Te", "Te"): 0.89,
}  # fmt: skip
_WIDE_SHARE = 0.137
THERMAL_NM = 0.006
"""Thermal displacement of a column, rms along one axis."""
WIDE_NM = 0.03
"""Rms width of the wide profile along one axis."""


def _law(screening: float, inner: float, outer: float) -> float:
    return 1 / (inner**2 + screening**2) - 1 / (outer**2 + screening**2)


@lru_cache(maxsize=1)
def _table() -> dict[tuple[str, ...], tuple[float, float]]:
    """Amplitude (Å^2 mrad^2) and screening angle (mrad) of each measured column."""
    table: dict[tuple[str, ...], tuple[float, float]] = {(element,): law for element, law in _LIGHT.items()}
    angles = np.linspace(0, 90, 9001)
    steepness = _law(angles, 60, 200) / _law(angles, 80, 200)  # type: ignore[arg-type]
    for column, (wide, narrow) in _MEASURED.items():
        screening = float(np.interp(-wide / narrow, -steepness, angles))
        table[column] = (wide / _law(screening, 60, 200), screening)
    return table


def _single(element: str, inner: float, outer: float) -> float:
    """Cross-section of one atom in Å^2 at 80 kV, interpolated in log Z where it is not in the table."""
    table = _table()
    if (element,) in table:
        amplitude, screening = table[(element,)]
        return amplitude * _law(screening, inner, outer)
    known = sorted((column[0] for column in table if len(column) == 1), key=atomic_numbers.__getitem__)
    log_z = np.log([atomic_numbers[e] for e in known])
    log_sigma = np.log([_single(e, inner, outer) for e in known])
    z = np.log(atomic_numbers[element])
    k = int(np.clip(np.searchsorted(log_z, z), 1, len(known) - 1))  # extrapolates with the last exponent
    slope = (log_sigma[k] - log_sigma[k - 1]) / (log_z[k] - log_z[k - 1])
    return float(np.exp(log_sigma[k] + slope * (z - log_z[k])))


@lru_cache(maxsize=4096)
def cross_section_A2(column: tuple[str, ...], microscope: Microscope) -> float:
    """Cross-section of a column of atoms, in Å^2, for the detector of `microscope`.

    Parameters
    ----------
    column : tuple of str
        Elements in projection, ``("Se", "Te")``; empty for a vacancy.
    microscope : Microscope

    Raises
    ------
    ValueError
        If an element is not in the periodic table.
    """
    if not column:
        return 0.0
    for element in column:
        if not atomic_numbers.get(element):
            raise ValueError(f"`column` must hold chemical elements, got {element!r}.")
    energy = microscope.energy_keV
    scale = wavelength_nm(80.0) / microscope.wavelength_nm
    inner, outer = microscope.detector_inner_mrad * scale, microscope.detector_outer_mrad * scale
    gamma = (1 + energy / 511.0) / (1 + 80.0 / 511.0)
    key, table = tuple(sorted(column)), _table()
    if key in table:
        amplitude, screening = table[key]
        sigma = amplitude * _law(screening, inner, outer)
    else:
        raised = 1.0 if len(key) == 1 else float(np.clip(1.17 - 0.006 * (inner - 60), 1.0, 1.25)) ** (len(key) - 1)
        sigma = raised * sum(_single(element, inner, outer) for element in key)
    return sigma * (gamma / scale) ** 2


def amplitudes(columns: Iterable[tuple[str, ...]], microscope: Microscope) -> npt.NDArray[np.float64]:
    """Return what is seen of each column in a lattice, in Å^2, shape (column,)."""
    return np.array([cross_section_A2(column, microscope) * _seen(column) for column in columns])


def _seen(column: tuple[str, ...]) -> float:
    """Share of the cross-section of a column that is seen in a lattice."""
    if not column or (key := tuple(sorted(column))) in _SEEN:
        return _SEEN[key] if column else 1.0
    single = {atomic_numbers[c[0]]: share for c, share in _SEEN.items() if len(c) == 1}
    z = sorted(single)
    return float(np.mean(np.interp([atomic_numbers[e] for e in column], z, [single[k] for k in z])))


def profile(q_per_nm: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Fourier transform of a column's own profile at spatial frequencies `q_per_nm`."""
    q2 = (q_per_nm**2).astype(np.float32)
    thermal, wide = (np.exp(np.float32(-2 * (np.pi * width) ** 2) * q2) for width in (THERMAL_NM, WIDE_NM))
    return np.asarray((1 - _WIDE_SHARE) * thermal + _WIDE_SHARE * wide, np.float32)
