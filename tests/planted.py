"""Sites of a crystal with a planted displacement field, for tests of deformation, eshelby and averages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from napari_defects import WSE2, Crystal, tables


def sites_of(
    crystal: Crystal = WSE2,
    reach_nm: float = 2.0,
    *,
    field_pm: Callable[[np.ndarray], np.ndarray] | None = None,
    sigma_pm: float = 0.0,
    center: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """SITES within `reach_nm` of a site of sublattice `center`, which is empty, displaced by `field_pm(offsets)`."""
    span = np.arange(-int(reach_nm / crystal.a_nm) - 3, int(reach_nm / crystal.a_nm) + 4)
    rows = pd.DataFrame(
        [(i, j, s.name, s.u, s.v) for i in span for j in span for s in crystal.sublattices],
        columns=["i", "j", "sublattice", "u", "v"],
    )
    ideal = (rows[["i", "j"]].to_numpy() + rows[["u", "v"]].to_numpy()) @ crystal.vectors_nm
    if center is not None:
        site = crystal.sublattice(center)
        ideal -= np.array([site.u, site.v]) @ crystal.vectors_nm
    near = np.linalg.norm(ideal, axis=1) <= reach_nm
    rows, ideal = rows[near].reset_index(drop=True), ideal[near]
    u = np.zeros_like(ideal) if field_pm is None else field_pm(ideal)
    u = u + np.random.default_rng(seed).normal(0, 1, u.shape) * sigma_pm
    measured = ideal + u / 1000
    if center is not None:
        measured[(rows["i"] == 0) & (rows["j"] == 0) & (rows["sublattice"] == center)] = np.nan
    table = pd.DataFrame({c.name: np.nan for c in tables.SITES}, index=rows.index)
    table[["i", "j", "sublattice"]] = rows[["i", "j", "sublattice"]]
    table[["y_nm", "x_nm"]], table[["y_ideal_nm", "x_ideal_nm"]] = measured, ideal
    table[["y_err_nm", "x_err_nm"]] = sigma_pm / 1000 if sigma_pm else np.nan
    result = tables.check(table.assign(frame=0), "sites")
    result.attrs["crystal"] = crystal.name
    return result
