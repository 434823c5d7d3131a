"""How bright the columns of the sublattices should be beside each other, and how far an image is from that.

Cross-sections make one expect a contrast between the sublattices. The detector's angles are not known, which lets
intensity grow with the atomic number more or less steeply; and tables have errors of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers

from ..crystals import Crystal
from ..simulation.probe import Microscope
from ..simulation.scattering import amplitudes

Array = npt.NDArray[np.float64]

_EXPONENT_ERROR, _CONTRAST_ERROR = 0.15, 0.08


def peak(column: tuple[str, ...], exponent: float = 0.0) -> float:
    """Height of a column's image, up to a factor; `exponent` is added to that of the atomic number."""
    return float(amplitudes((column,), Microscope()).sum() * np.exp(exponent * _log_z(column)))


def contrast_exponent(heights: Mapping[str, float], crystal: Crystal) -> float:
    """How much steeper than tabulated intensity grows with atomic number, from the hosts' typical heights.

    Parameters
    ----------
    heights : mapping
        Sublattice name to the typical height of its columns.
    crystal : Crystal

    Returns
    -------
    float
        To be added to the exponent of Z; drawn to zero where the hosts are too similar to tell.
    """
    return _fitted(heights, crystal)[0]


def contrast_misfit(heights: Mapping[str, float], crystal: Crystal) -> float:
    """Chi-square of the contrast between the sublattices, of one degree of freedom less than there are of them."""
    return _fitted(heights, crystal)[1]


def _fitted(heights: Mapping[str, float], crystal: Crystal) -> tuple[float, float]:
    """Exponent and chi-square."""
    seen = [s for s in crystal.sublattices if heights.get(s.name, 0.0) > 0]
    if len(seen) < 2:
        return 0.0, 0.0
    excess = np.log([heights[s.name] / peak(s.column) for s in seen])
    z = np.array([_log_z(s.column) for s in seen])
    excess, z = excess - excess.mean(), z - z.mean()
    error = 0.5 * _CONTRAST_ERROR**2  # of each, for the difference of two
    exponent = float(z @ excess / (z @ z + error / _EXPONENT_ERROR**2))
    return exponent, float(((excess - exponent * z) ** 2).sum() / error + (exponent / _EXPONENT_ERROR) ** 2)


def _log_z(column: tuple[str, ...]) -> float:
    return float(np.log(np.mean([atomic_numbers[element] for element in column])))
