"""The measured field of a cluster against the sum of the fields of its single defects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2 as chi2_distribution

from ..deformation import displacements
from .classes import ClassAverage
from .members import sign
from .overlaps import Field

Array = npt.NDArray[np.float64]

_OWN_NM = 0.06


@dataclass(frozen=True)
class Superposition:
    """How a cluster's field compares with the sum of those of its parts.

    Parameters
    ----------
    table : DataFrame
        Columns around the cluster: i, j, sublattice, y_ideal_nm, x_ideal_nm, uy_pm, ux_pm and their errors
        (measured), uy_sum_pm, ux_sum_pm and sum_err_pm (of the single defects).
    factor, factor_err : float
        By what the sum is to be multiplied to fit best: 1 where fields just add.
    chi2 : float
        Of measured minus sum.
    dof : int
    p_value : float
        Chance of so large a chi-square if the fields just add.
    """

    table: pd.DataFrame = field(repr=False)
    factor: float
    factor_err: float
    chi2: float
    dof: int
    p_value: float


def superpose(cluster: ClassAverage, singles: Mapping[str, ClassAverage]) -> Superposition:
    """Compare the field of a cluster with the superposition of single defects.

    Parameters
    ----------
    cluster : ClassAverage
        Of a class of `find_clusters`, from `average` with ``clusters_nm``.
    singles : mapping of str to ClassAverage
        Averages of the single defects, by species; the result of the same `average` will do.

    Returns
    -------
    Superposition

    Raises
    ------
    ValueError
        If `cluster` is a single defect, or the average of one of its parts is missing.
    """
    if len(cluster.parts) < 2 or cluster.crystal is None:
        raise ValueError(f"`cluster` must be a pair or triple, got {cluster.species}; average with clusters_nm=0.7.")
    if missing := sorted({part[0] for part in cluster.parts} - set(singles)):
        raise ValueError(f"`singles` has no average of {', '.join(missing)}; average the single defects, too.")
    table = displacements(cluster.sites, fit="none")
    x = table[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    measured = table[["uy_pm", "ux_pm"]].to_numpy(float)
    total, variance = np.zeros_like(x), 0.0
    own = np.zeros(len(x), bool)
    for species, sublattice, *place in cluster.parts:
        single = singles[species]
        home = single.parts[0][1]
        turn = sign(cluster.crystal, sublattice)
        offset = x - np.array(place)
        total += 1000 * turn * Field.of(single.sites, cluster.crystal, home)(turn * offset)
        variance += float(np.nanmedian(1e6 * single.sites[["y_err_nm", "x_err_nm"]] ** 2))
        own |= np.linalg.norm(offset, axis=1) < _OWN_NM
    err = np.hypot(table[["uy_err_pm", "ux_err_pm"]].to_numpy(float), np.sqrt(variance))
    use = np.isfinite(measured).all(1) & np.isfinite(err).all(1) & ~own
    if use.sum() < 6:
        raise ValueError(f"only {int(use.sum())} columns of {cluster.species} were measured; average more of them.")
    table, measured, total, err = table[use].reset_index(drop=True), measured[use], total[use], err[use]
    names = table["sublattice"].to_numpy()
    shifts = np.stack([np.where((names == s)[:, None], axis, 0.0) for s in np.unique(names) for axis in np.eye(2)], -1)

    def fitted(design: Array, values: Array) -> tuple[Array, Array, Array]:
        a, b = (design / err[..., None]).reshape(values.size, -1), (values / err).ravel()
        solution = np.linalg.lstsq(a, b, rcond=None)[0]
        return solution, np.linalg.pinv(a.T @ a), b - a @ solution

    offsets, _, rest = fitted(shifts, measured - total)
    scaled, covariance, _ = fitted(np.concatenate([total[..., None], shifts], -1), measured)
    chi2, dof = float((rest**2).sum()), rest.size - shifts.shape[-1]
    result = table[["i", "j", "sublattice", "y_ideal_nm", "x_ideal_nm"]].copy()
    result[["uy_pm", "ux_pm"]] = measured - shifts @ offsets
    result[["uy_err_pm", "ux_err_pm"]] = table[["uy_err_pm", "ux_err_pm"]]
    result[["uy_sum_pm", "ux_sum_pm"]] = total
    result["sum_err_pm"] = np.sqrt(variance)
    return Superposition(
        table=result,
        factor=float(scaled[0]),
        factor_err=float(np.sqrt(covariance[0, 0])),
        chi2=chi2,
        dof=dof,
        p_value=float(chi2_distribution.sf(chi2, dof)),
    )
