"""One verdict per site: which of the species that can be there explains its intensity.

Relative heights of one sublattice (1 for the host column) are a mixture: the host, and the species one knows,
each near the ratio its cross-section makes one expect. The detector's angles are not known, but the contrast
between the host's own columns tells how steeply intensity grows with the atomic number; what is left is corrected
on the species' own members. A column that fits none of them, however heavy their tails, is darker or brighter.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.special import logsumexp
from scipy.stats import norm
from scipy.stats import t as student

from ..crystals import Crystal, Sublattice, occupants
from ..lattice.contrast import peak
from .photometry import center_and_width

Array = npt.NDArray[np.float64]

log = logging.getLogger(__name__)
OUTLIERS = ("darker", "brighter")
_EMPTY = (-0.05, 0.045)  # height of an empty column and its error: what the tails of the neighbours leave
_RATIO_ERROR = (0.05, 0.035)  # of an expected ratio: relative, and absolute
_LEAST_WIDTH, _SPECIES_WIDTH = 0.02, 0.03  # scatter of host and species that is no noise
_DIRTY_WIDTH = 0.05  # the same where maps speak too: they see through dirt
_TAIL = 4  # degrees of freedom of the known populations, where something unknown is weighed against them
_UNKNOWN = 0.01  # how many columns are darker (or brighter) than all known
_KIN_WIDTH = 0.06  # how alike the columns of one unknown kind are
_TRUST = 0.9  # of the evidence of intensity, and
_SHARED = 0.3  # of that of class maps, which is the counting noise that intensity has seen, too
_CONFIDENCE = 0.7  # power that makes the probabilities of both together as sure as they are right
_MOST, _MOST_IN_DIRT = 4.0, 2.0  # sigma that intensity can speak against a choice where maps speak, too
_MOST_ABOVE = 2.5  # for what is brighter than a choice, where little of the scatter is counting: dirt adds light
_NEAR, _WIDTHS = 0.5, 2.0  # of 1, or sigma where that is more: heights that say how much the host scatters
_RARITY = 1.2  # how much less than the host, in the logarithm, maps expect a defect before they see it
_MEAN_ERROR = 0.756  # of a scatter from the mean deviation of n values, times sqrt(n)
_VOID = 0.03  # what is darker than this and a bit is no column
_LEAST_MEMBERS = 10  # for judging a species by its columns
_TOO_WIDE, _TOO_FAR = 1e-6, 1e-4  # how improbable their scatter and their mean may be
_SLACK = 1.15  # of their expected scatter
_PRIOR_SITES = (50.0, 0.5)  # host and each species: what is believed before any site is seen


class Verdicts(NamedTuple):
    """What `posterior` says of the sites of one sublattice.

    Attributes
    ----------
    probability : ndarray, shape (n, choice + 2)
    names : list of str
        Of the columns; the last two are ``darker`` and ``brighter``.
    width : ndarray, shape (n, choice)
        Scatter of the relative height expected of each site, were it that choice.
    """

    probability: Array
    names: list[str]
    width: Array


@dataclass(frozen=True)
class Choice:
    """A name for a column and the relative height expected of it."""

    name: str
    ratio: float
    error: float


def choices(sublattice: Sublattice, species: Sequence[str], crystal: Crystal, exponent: float = 0.0) -> list[Choice]:
    """Host first, then the species that leave something else on this sublattice.

    Parameters
    ----------
    sublattice : Sublattice
    species : sequence of str
    crystal : Crystal
    exponent : float
        From `contrast_exponent`.
    """
    result = [Choice(sublattice.host, 1.0, 0.0)]
    for name in species:
        column = occupants(name, crystal).get(sublattice.name)
        if column is None or column == sublattice.column:
            continue
        if column:
            ratio = peak(column, exponent) / peak(sublattice.column, exponent)
            result.append(Choice(name, ratio, float(np.hypot(_RATIO_ERROR[0] * ratio, _RATIO_ERROR[1]))))
        else:
            result.append(Choice(name, *_EMPTY))
    return result


def left_out(sublattice: Sublattice, classes: Sequence[str], crystal: Crystal, exponent: float) -> list[Choice]:
    """Classes of a network that are not among the choices: as `choices`, and what is darker or brighter by a half."""
    known = [name for name in classes if not name.startswith(OUTLIERS)]
    outliers = [Choice(name, 0.5 if name.startswith("darker") else 1.5, 0.0) for name in classes if name not in known]
    return choices(sublattice, known, crystal, exponent)[1:] + outliers


class Measured(NamedTuple):
    """Heights of the sites of one sublattice, as `photometry.relative_heights` measures them.

    Attributes
    ----------
    relative : ndarray, shape (n,)
        Relative to the host.
    scatter : ndarray, shape (n,), or float
        Factor by which they scatter more around this site than in the whole sublattice.
    beneath : ndarray, shape (n,), or float
        Share of the variance of a host column's height that stays where the column is gone.
    counted : ndarray, shape (n,), or float
        Share of their variance that is counting noise.
    """

    relative: Array
    scatter: Array | float = 1.0
    beneath: Array | float = 0.2
    counted: Array | float = 1.0


def posterior(heights: Measured, known: Sequence[Choice], evidence: Array | None = None) -> Verdicts:
    """Probability of every choice at every site of one sublattice.

    Parameters
    ----------
    heights : Measured
    known : sequence of Choice
        The host first.
    evidence : ndarray, shape (n, choice), optional
        What else speaks for each choice, as probabilities. It looks at the same pixels: of either's evidence a part
        is left out, and what populations there are is asked of the heights without it and with it.
    """
    alone, population = _settled(heights, known, None, None)
    if evidence is None:
        return alone
    other = _settled(heights, known, evidence, None)[1]
    return _settled(heights, known, evidence, population.cautious(other))[0]


class _Population(NamedTuple):
    """Mean relative height of each choice, and its share of the columns."""

    mean: Array
    frequency: Array

    def cautious(self, other: _Population) -> _Population:
        """Means between those of the two, and of each species no more than both see.

        Heights alone find some of a species in the noise of the host where there is none; with evidence that has the
        same noise, its members are the brighter ones, too few and too bright.
        """
        species = np.minimum(self.frequency, other.frequency)[1:]
        return _Population((self.mean + other.mean) / 2, np.append(1 - species.sum(), species))


def _settled(
    heights: Measured, known: Sequence[Choice], evidence: Array | None, population: _Population | None
) -> tuple[Verdicts, _Population]:
    """`posterior` given a population, or that which explains these heights."""
    relative = heights.relative
    scatter, stays, shared = (np.broadcast_to(x, relative.shape)[:, None] for x in heights[1:])
    ratio, spread = np.array([c.ratio for c in known]), np.array([c.error for c in known])
    host_width = max(_host_width(relative), _LEAST_WIDTH)
    prior = np.array([_PRIOR_SITES[0]] + [_PRIOR_SITES[1]] * (len(known) - 1))
    mean, frequency = population or _Population(ratio, prior / prior.sum())
    doubt, log_evidence = np.zeros((len(relative), 1)), np.zeros((len(relative), len(known)))
    trust, most = 1.0, np.full_like(doubt, np.inf)
    bright = most
    if evidence is not None:
        trust = _TRUST
        most = _MOST_IN_DIRT + (_MOST - _MOST_IN_DIRT) / scatter
        bright = _MOST_ABOVE + (_MOST - _MOST_ABOVE) * shared**2 / scatter
        share, host = 1 - _SHARED * shared, evidence[:, :1]
        log_evidence[:, 1:] = share * (np.log(evidence[:, 1:] / host) + _RARITY)
        doubt = np.minimum(0, share * (np.log(np.maximum(1 - host, 1e-9) / host) + _RARITY))
    noise, empty = host_width * scatter, ratio <= 0
    for _ in range(30):
        counted = noise * np.sqrt(stays + (1 - stays) * np.clip(mean, 0, 4))
        width = counted.copy()
        width[:, 1:] = np.hypot(counted[:, 1:], _SPECIES_WIDTH if evidence is None else _DIRTY_WIDTH)
        offset = (relative[:, None] - mean) / width
        weight = log_evidence + np.log(frequency)
        misfit = 0.5 * np.minimum(np.abs(offset), np.where(offset > 0, bright, most)) ** 2
        among = weight - trust * (misfit + np.log(width))
        among = np.exp(among - logsumexp(among, axis=1, keepdims=True))
        tails = np.where(empty, norm.logpdf(offset), student.logpdf(offset, _TAIL))  # what is empty does not vary
        familiar = np.exp(weight - np.log(width) + tails)
        strange = _UNKNOWN * _outlier_density(relative) * np.exp(doubt)
        novel = strange / (strange.sum(1) + familiar.sum(1))[:, None]
        kin = _density_of_others(relative, np.where(novel[:, 0] > 0.5, novel[:, 0], 0.0), float(noise.min()))
        own = among * (1 - novel.sum(1, keepdims=True))
        wrong = familiar[:, empty].sum(1) + strange[:, 0] + kin
        nothing = np.where(empty, familiar, 0.0) / np.maximum(wrong, 1e-300)[:, None]
        either = own[:, empty].sum(1) + novel[:, 0]  # nothing there, or something dark: as the other dark ones are
        own = np.where(empty, either[:, None] * nothing, own)
        novel[:, 0] = either * (1 - nothing.sum(1))
        if population is not None:
            break
        frequency = (own.sum(0) + prior) / (own.sum() + prior.sum())
        precision = 1 / np.maximum(spread, 1e-6) ** 2
        worth = own / width**2
        pull = (ratio * precision + (worth * relative[:, None]).sum(0)) / (precision + worth.sum(0))
        pull = np.clip(pull, ratio - spread, ratio + spread)
        settled, mean = np.allclose(pull, mean, atol=1e-4), pull
        if settled:
            break
    probability = np.column_stack([own, novel])
    if evidence is not None:
        probability = probability**_CONFIDENCE
        probability /= probability.sum(1, keepdims=True)
    names = [c.name for c in known] + list(OUTLIERS)
    verdicts = Verdicts(probability, names, np.hypot(counted, _SPECIES_WIDTH))
    return verdicts, _Population(mean, frequency)


def decide(heights: Measured, known: Sequence[Choice], vacancies: Sequence[str], evidence: Array | None) -> Verdicts:
    """`posterior`, but where a whole population does not fit its name, only host, vacancies, darker and brighter."""
    found = posterior(heights, known, evidence)
    wrong = misnamed(heights.relative, known, found)
    if not wrong:
        return found
    own = np.isin(np.array(found.names, object)[found.probability.argmax(1)], list(wrong))
    why = "; ".join(f"as {name}, {reason}" for name, reason in wrong.items())
    log.warning("%s columns are called after none of the known species: %s.", np.count_nonzero(own), why)
    kept = [c for c in known if c is known[0] or (c.name in vacancies and c.name not in wrong)]
    plain = posterior(heights, kept)
    found.probability[own] = 0
    for k, name in enumerate(plain.names):
        found.probability[own, found.names.index(name)] = plain.probability[own, k]
    return found


def misnamed(relative: Array, known: Sequence[Choice], verdicts: Verdicts) -> dict[str, str]:
    """Species whose columns are, as a population, not what that species would be.

    A dopant that nobody named falls to whichever known species is nearest to it. One column cannot tell; many can:
    their mean lies outside what the cross-sections allow, or they scatter more than one species does.

    Parameters
    ----------
    relative : ndarray, shape (n,)
    known : sequence of Choice
    verdicts : Verdicts
        From `posterior`.

    Returns
    -------
    dict
        Species to what is wrong with its columns, in words.
    """
    best, found = verdicts.probability.argmax(1), {}
    for k, choice in enumerate(known[1:], start=1):
        own = best == k
        n, heights, width = int(own.sum()), relative[own], _SLACK * verdicts.width[own, k]
        if n < _LEAST_MEMBERS or choice.ratio <= 0:  # nothing is nothing, however its neighbours' tails scatter
            continue
        center = float(np.median(heights))
        scatter = float(np.minimum(np.abs(heights - center) / width, 3).mean()) / np.sqrt(2 / np.pi)
        off = abs(center - choice.ratio) / np.hypot(choice.error, float((width**-2).sum() ** -0.5))
        if norm.sf((scatter - 1) * np.sqrt(n) / _MEAN_ERROR) < _TOO_WIDE:
            wide = scatter * np.mean(width)
            found[choice.name] = f"they scatter by {wide:.2f}, one species would by {np.mean(width):.2f}"
        elif 2 * norm.sf(off) < _TOO_FAR:
            found[choice.name] = f"they are at {center:.2f} of the host, it would be at {choice.ratio:.2f}"
    return found


def _host_width(relative: Array) -> float:
    """1 sigma of the host's heights about 1, from `_NEAR` or as wide a neighbourhood as they fill."""
    width = _NEAR / _WIDTHS
    for _ in range(10):
        near = relative[np.abs(relative - 1) < max(_NEAR, _WIDTHS * width)]
        if len(near) < 10:
            return 0.1
        width = float(center_and_width(near)[1])
    return width


def _outlier_density(relative: Array) -> Array:
    """Densities of columns darker and brighter than the host; where there is next to nothing, there is no column."""
    dark = np.where(relative < 1, np.clip((relative - _VOID) / 0.15, 0, 1), 0.0)
    bright = np.where(relative > 1, 0.5 * np.exp(-0.5 * np.maximum(relative - 1, 0)), 0.0)
    return np.column_stack([dark, bright])


def _density_of_others(relative: Array, weight: Array, noise: float) -> Array:
    """Share of the other columns (each by its weight) per unit of relative height, at every column."""
    step, width = 0.01, float(np.hypot(_KIN_WIDTH, noise))
    place = np.clip(np.rint((relative + 1) / step), 0, 599).astype(int)
    counts = gaussian_filter1d(np.bincount(place, weight, 600), width / step)[place] / step
    return np.asarray(np.maximum(counts - weight / (np.sqrt(2 * np.pi) * width), 0) / len(relative))
