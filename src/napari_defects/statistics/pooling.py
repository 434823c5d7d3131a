"""Counts of many images together: pooled, with what they differ by; corrected for what is missed and invented."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import nnls
from scipy.stats import chi2, norm, t

from .. import tables
from ..checks import check_range
from ..crystals import site_of
from ..tables import Counts
from .counting import INVENTED, MISSED, PER_CM2, poisson_interval, wilson_interval

Array = npt.NDArray[np.float64]

log = logging.getLogger(__name__)


def pool(counts: Iterable[pd.DataFrame], *, confidence: float = 0.95) -> Counts:
    """Add the counts of many images, and tell whether these differ by more than chance.

    Parameters
    ----------
    counts : iterable of DataFrame
        COUNTS, one for each image. A species that an image does not list is absent there, and its area
        (``attrs["area_nm2"]``, else from the densities) counts. Where that of an image is not known, as of one
        without defects read from a file, no density is given, and it counts as as large as the others are.
    confidence : float
        Of the intervals. Where images differ by more than chance, they are as much wider: a quasi-binomial
        estimate, in which n sites of overdispersion φ are worth n/φ, and less by as much as Student's t of few images
        is wider than a normal distribution.

    Returns
    -------
    DataFrame
        COUNTS + ``images``, ``dispersion`` (φ, chi squared per degree of freedom between the images; 1 is
        chance) and ``dispersion_p``; ``attrs["area_nm2"]``.

    Raises
    ------
    ValueError
        If there is no table.

    References
    ----------
    McCullagh and Nelder, Generalized Linear Models, 2nd ed., section 4.5 (1989).
    """
    counts = list(counts)
    images = [tables.check(one, "counts") for one in counts]
    if not images:
        raise ValueError("`counts` must have at least one table; make them with count().")
    area = np.array([_area(one) for one in counts])
    if np.isnan(area).any():
        log.warning(
            "the area of %d of %d images is not known, so no density is given; set attrs['area_nm2'] of their counts.",
            int(np.isnan(area).sum()), len(area),
        )  # fmt: skip
    total = float(area.sum())
    together = pd.concat([one.assign(image=k) for k, one in enumerate(images)], ignore_index=True)
    rows = []
    for species, group in together.groupby("species", sort=False):
        sites = _sites_everywhere(group, area)
        number = np.zeros(len(images))
        number[group["image"]] = group["count"]
        n, of = int(number.sum()), round(float(sites.sum()))
        phi, p_value = _dispersion(number, sites)
        worth = phi * _wider(int((sites > 0).sum()), confidence) if phi > 1 else 1.0
        low, high = wilson_interval(n / worth, of / worth, confidence)
        density = np.array([n / worth, *poisson_interval(n / worth, confidence)]) * worth / total * PER_CM2
        rows.append((species, n, of, n / of if of else np.nan, low, high, *density, len(images), phi, p_value))
    names = [c.name for c in tables.COUNTS] + ["images", "dispersion", "dispersion_p"]
    rows.sort(key=lambda row: (-row[1], row[0]))
    pooled = tables.check(pd.DataFrame(rows, columns=names), "counts")
    pooled.attrs = {"area_nm2": total, "confidence": confidence}
    if all("sites" in one.attrs for one in counts):
        pooled.attrs["sites"] = sum(int(one.attrs["sites"]) for one in counts)
    return Counts(pooled)


def unfold(
    counts: pd.DataFrame,
    confusion: pd.DataFrame,
    *,
    host_sites: int,
    sites: int | None = None,
    confidence: float = 0.95,
    n_draws: int = 2000,
    seed: int = 0,
) -> Counts:
    """Correct counts for what the analysis misses, invents and mistakes.

    Parameters
    ----------
    counts : DataFrame
        COUNTS.
    confusion : DataFrame
        Numbers from images of known truth made under the same conditions, as `evaluate` gives them: a row for
        each true species and ``"(none)"`` for what was invented; a column for each species said and
        ``"(missed)"``.
    host_sites : int
        Sites of those images on which there was no defect: the rate of invention is relative to them.
    sites : int, optional
        All sites of the images counted. By default as `count` and `pool` leave them in ``counts.attrs["sites"]``;
        without that those of the sublattices that `counts` lists a species of.
    confidence : float
    n_draws : int
        Draws of the rates (Dirichlet) and of the counts (gamma) behind the intervals: the uncertainty of
        the correction is in them, and grows when `confusion` has seen few.
    seed : int

    Returns
    -------
    DataFrame
        COUNTS + ``corrected``, ``corrected_low``, ``corrected_high`` (numbers) and
        ``corrected_fraction``, ``corrected_fraction_low``, ``corrected_fraction_high``.

    Raises
    ------
    ValueError
        If a species counted is not in `confusion` or was never true there, or that has no row ``"(none)"`` or column
        ``"(missed)"``.
    """
    counts = tables.check(counts, "counts")
    for what, name, names in (("row", INVENTED, confusion.index), ("column", MISSED, confusion.columns)):
        if name not in names:
            raise ValueError(f"`confusion` has no {what} {name!r}; make it with evaluate().")
    species = [name for name in confusion.index if name != INVENTED]
    if unknown := sorted(set(counts["species"]) - set(species)):
        raise ValueError(f"`confusion` has no row for {', '.join(unknown)}; evaluate images with these species, too.")
    check_range("host_sites", host_sites, 0, above=True, hint="count the sites of the labelled images")
    table = np.array(confusion.reindex(index=[*species, INVENTED], columns=[*species, MISSED], fill_value=0), float)
    table[-1, -1] = host_sites
    never = [name for name, row in zip(species, table, strict=False) if not row.sum()]
    if unknown := sorted(set(counts.loc[counts["count"] > 0, "species"]) & set(never)):
        raise ValueError(f"`confusion` has no true {', '.join(unknown)}; evaluate images with these species, too.")
    found = counts.set_index("species").reindex(species)
    number = found["count"].fillna(0).to_numpy(float)
    listed = counts.groupby(counts["species"].map(lambda name: site_of(name) or ""))["sites"].max().sum()
    hosts = float(sites or counts.attrs.get("sites") or listed)
    rng = np.random.default_rng(seed)
    best = _solved(_rates(table), number, hosts)
    draws = np.array([
        _solved(np.array([rng.dirichlet(row + 1.0 / len(row)) for row in table]), rng.gamma(number + 0.5), hosts)
        for _ in range(n_draws)
    ])  # fmt: skip
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    corrected = pd.DataFrame(
        {"corrected": best, "corrected_low": np.minimum(low, best), "corrected_high": np.maximum(high, best)},
        index=pd.Index(species, name="species"),
    )
    result = counts.merge(corrected, how="left", on="species")
    for name in ("", "_low", "_high"):
        result[f"corrected_fraction{name}"] = result[f"corrected{name}"] / result["sites"]
    result.attrs = dict(counts.attrs)
    return Counts(tables.check(result, "counts"))


def _rates(table: Array) -> Array:
    return np.asarray(table / np.maximum(table.sum(1, keepdims=True), 1.0))


def _solved(rates: Array, number: Array, hosts: float) -> Array:
    """Find the true numbers, none negative, behind the numbers found: found = trueᵀ rates + false ones on the host."""
    false = hosts * rates[-1, :-1]
    weight = 1 / np.sqrt(np.maximum(number, 1.0))
    return np.asarray(nnls(rates[:-1, :-1].T * weight[:, None], np.maximum(number - false, 0.0) * weight)[0])


def _wider(images: int, confidence: float) -> float:
    """Square of how much wider an interval is whose width itself comes from few images."""
    tail = 0.5 + confidence / 2
    return float((t.ppf(tail, images - 1) / norm.ppf(tail)) ** 2)


def _area(counts: pd.DataFrame) -> float:
    """Area looked at, from the table's attributes, else from its upper densities."""
    if "area_nm2" in counts.attrs:
        return float(counts.attrs["area_nm2"])
    row = counts[(counts["count"] > 0) & (counts["density_per_cm2"] > 0)].head(1)
    return float((row["count"] / row["density_per_cm2"] * PER_CM2).iloc[0]) if len(row) else float("nan")


def _sites_everywhere(group: pd.DataFrame, area: Array) -> Array:
    """Sites in each image: as listed; where a species is not listed, in proportion to the area."""
    sites = np.full(len(area), np.nan)
    sites[group["image"]] = group["sites"]
    known = np.isfinite(sites) & (area > 0)
    per_area = float(sites[known].sum() / area[known].sum()) if known.any() else 0.0
    return np.where(np.isfinite(sites), sites, per_area * np.where(np.isnan(area), np.nanmean(area), area))


def _dispersion(number: Array, sites: Array) -> tuple[float, float]:
    """Chi squared per degree of freedom of the images' counts around the common fraction, and its p-value."""
    here = sites > 0
    total, degrees = float(sites[here].sum()), int(here.sum()) - 1
    p = float(number[here].sum()) / total if total else 0.0
    if degrees < 1 or not 0 < p < 1:
        return float("nan"), float("nan")
    chi = float(np.sum((number[here] - p * sites[here]) ** 2 / (p * (1 - p) * sites[here])))
    return chi / degrees, float(chi2.sf(chi, degrees))
