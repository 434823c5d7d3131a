"""One verdict per site: which of the species that can be there explains its intensity.

Relative heights of one sublattice (1 for the host column) are a mixture: the host, the species one knows, each
near the ratio its cross-section makes one expect, and columns darker or brighter than anything known. Ratios
are corrected on the image itself, widths follow the host's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .crystals import Crystal, Sublattice, occupants
from .photometry import center_and_width
from .simulation.probe import Microscope
from .simulation.scattering import cross_section_A2

Array = npt.NDArray[np.float64]

OUTLIERS = ("darker", "brighter")
_EMPTY = 0.04  # height of an empty column: what the tails of the neighbours add
_RATIO_ERROR = 0.10  # of an expected ratio, relative to its distance from the host's
_LEAST_WIDTH = 0.02  # of the host, relative
_SPECIES_WIDTH = 0.04  # what surroundings and a wrong width of the column add to the scatter of a species
_OUTLIER_FREQUENCY = 0.002  # of columns darker, and of columns brighter, than anything known
_PRIOR_SITES = (50.0, 0.5)  # host and each species: what is believed before any site is seen


@dataclass(frozen=True)
class Choice:
    """A name for a column and the relative height expected of it."""

    name: str
    ratio: float
    error: float


def choices(sublattice: Sublattice, species: Sequence[str], crystal: Crystal) -> list[Choice]:
    """Host first, then the species that leave something else on this sublattice."""
    host = cross_section_A2(sublattice.column, Microscope())
    result = [Choice(sublattice.host, 1.0, 0.0)]
    for name in species:
        column = occupants(name, crystal).get(sublattice.name)
        if column is None or column == sublattice.column:
            continue
        ratio = cross_section_A2(column, Microscope()) / host if column else _EMPTY
        result.append(Choice(name, ratio, _RATIO_ERROR * abs(ratio - 1) if column else _EMPTY))
    return result


def posterior(relative: Array, known: Sequence[Choice], evidence: Array | None = None) -> tuple[Array, list[str]]:
    """Probability of every choice at every site of one sublattice.

    Parameters
    ----------
    relative : ndarray, shape (n,)
        Heights relative to the host.
    known : sequence of Choice
        The host first.
    evidence : ndarray, shape (n, choice), optional
        What else speaks for each choice, as probabilities. Without it, each choice is as frequent as the
        heights of the whole sublattice say.

    Returns
    -------
    probability : ndarray, shape (n, choice + 2)
    names : list of str
        Of the columns; the last two are ``darker`` and ``brighter``.
    """
    ratio = np.array([c.ratio for c in known])
    spread = np.array([max(c.error, 1e-6) for c in known])
    near = relative[np.abs(relative - 1) < 0.5]
    host_width = center_and_width(near)[1] if len(near) >= 10 else 0.1
    host_width = max(float(np.nan_to_num(host_width, nan=0.1)), _LEAST_WIDTH)
    prior = np.array([_PRIOR_SITES[0]] + [_PRIOR_SITES[1]] * (len(known) - 1))
    frequency, mean = prior / prior.sum(), ratio.copy()
    for _ in range(30):
        width = host_width * (0.7 + 0.3 * np.clip(mean, 0, 3))
        width[1:] = np.hypot(width[1:], _SPECIES_WIDTH)
        density = np.exp(-0.5 * ((relative[:, None] - mean) / width) ** 2) / width / np.sqrt(2 * np.pi) * frequency
        if evidence is not None:
            density = density * evidence * len(known)
        weight = np.column_stack([density, _OUTLIER_FREQUENCY * _outlier_density(relative)])
        probability = weight / np.maximum(weight.sum(1, keepdims=True), 1e-300)
        own = probability[:, : len(known)]
        frequency = (own.sum(0) + prior) / (own.sum() + prior.sum())
        pull = (ratio / spread**2 + (own * relative[:, None]).sum(0) / width**2) / (
            1 / spread**2 + own.sum(0) / width**2
        )
        pull = np.clip(pull, ratio - 2 * spread, ratio + 2 * spread)
        settled = np.allclose(pull[1:], mean[1:], atol=1e-4)
        mean[1:] = pull[1:]
        if settled:
            break
    return probability, [c.name for c in known] + list(OUTLIERS)


def _outlier_density(relative: Array) -> Array:
    """Flat densities of columns darker and brighter than the host."""
    dark = np.where(relative < 1, 1.0, 0.0)
    bright = np.where(relative > 1, 0.5 * np.exp(-0.5 * np.maximum(relative - 1, 0)), 0.0)
    return np.column_stack([dark, bright])
