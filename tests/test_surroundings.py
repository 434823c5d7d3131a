"""No verdict beyond an edge, or in another grain."""

from __future__ import annotations

import numpy as np
import pandas as pd

from napari_defects.crystals import get_crystal
from napari_defects.intensities.surroundings import expected_neighbors, within_lattice

CRYSTAL = get_crystal("WSe2")


def lattice(keep: object = None) -> pd.DataFrame:
    """Sites of a perfect crystal in 6 nm, without those that `keep` (y, x) leaves out."""
    cells = np.stack(np.meshgrid(*[np.arange(-30, 31)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
    points = (cells + CRYSTAL.fractions) @ CRYSTAL.vectors_nm
    names = np.broadcast_to([s.name for s in CRYSTAL.sublattices], points.shape[:2]).ravel()
    points = points.reshape(-1, 2)
    inside = np.all((points > 0) & (points < 6), axis=1)
    if keep is not None:
        inside &= keep(points)  # type: ignore[operator]
    y, x = points[inside].T
    return pd.DataFrame(
        {"frame": 0, "y_nm": y, "x_nm": x, "sublattice": names[inside], "y_ideal_nm": y, "x_ideal_nm": x}
    )


def test_neighbors_of_a_honeycomb():
    assert expected_neighbors(CRYSTAL, 0.36).to_dict() == {"W": 10, "Se": 10}


def test_a_vacancy_inside_is_judged_and_the_rim_of_a_hole_is_not():
    sites = lattice(lambda p: np.linalg.norm(p - 3, axis=1) > 0.8)
    away = np.linalg.norm(sites[["y_ideal_nm", "x_ideal_nm"]] - 3, axis=1)
    rim, inside = int(np.argmin(away)), int(np.argmin(np.abs(away - 1.9)))
    sites.loc[[rim, inside], ["y_nm", "x_nm"]] = np.nan
    judged = within_lattice(sites, CRYSTAL, np.array([6.0, 6.0]))
    assert judged[inside]
    assert not judged[rim]
    assert judged.sum() == len(sites) - 1


def test_no_verdict_among_columns_of_another_lattice():
    sites = lattice()
    other = lattice(lambda p: p[:, 1] > 3).assign(sublattice="", y_ideal_nm=np.nan, x_ideal_nm=np.nan)
    other[["y_nm", "x_nm"]] += 0.07
    judged = within_lattice(pd.concat([sites, other], ignore_index=True), CRYSTAL, np.array([6.0, 6.0]))[: len(sites)]
    assert judged[sites["x_nm"] < 2.6].all()
    beyond = (sites["x_nm"] > 3.4) & sites[["y_nm", "x_nm"]].apply(lambda v: v.between(0.4, 5.6)).all(axis=1)
    assert not judged[beyond].any()
