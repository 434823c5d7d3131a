from __future__ import annotations

import numpy as np
import pytest

import napari_defects as nd
from napari_defects.simulation import structure_sites

ase_build = pytest.importorskip("ase.build")


def supercell(n: int = 8, angle: float = 0.0, flip: bool = False):
    """WSe2 with one Se missing, its neighbours moved by C x / r^2 with C = -6e-4 nm^2; and where it was (Angstrom)."""
    atoms = ase_build.mx2("WSe2", kind="2H", a=3.282, thickness=3.36, size=(n, n, 1), vacuum=8)
    se = [k for k, s in enumerate(atoms.symbols) if s == "Se"]
    middle = atoms.cell.array[0] / 2 + atoms.cell.array[1] / 2
    gone = min(se, key=lambda k: np.hypot(*(atoms.positions[k] - middle)[:2]))
    center = atoms.positions[gone, :2].copy()
    delta = atoms.positions[:, :2] - center
    inverse = np.linalg.inv(atoms.cell.array[:2, :2])
    delta -= np.rint(delta @ inverse) @ atoms.cell.array[:2, :2]
    r2 = (delta**2).sum(1, keepdims=True)
    atoms.positions[:, :2] += np.where(r2 > 0.1, -0.06 * delta / np.maximum(r2, 0.1), 0)
    del atoms[gone]
    if flip:
        atoms.positions[:, 1] *= -1
        atoms.cell[:, 1] *= -1
    atoms.rotate(angle, "z", rotate_cell=True)
    return atoms


@pytest.mark.parametrize(("angle", "flip"), [(0, False), (25, False), (0, True), (-70, True)])
def test_a_relaxed_structure_goes_through_the_same_code(angle: float, flip: bool):
    sites = structure_sites(supercell(angle=angle, flip=flip), "WSe2")
    assert len(sites) == 2 * 64
    assert sites["y_nm"].notna().all()
    half = sites[sites["elements"] == "Se"]
    assert len(half) == 1
    center = half[["y_ideal_nm", "x_ideal_nm"]].to_numpy()[0]
    fit = nd.fit_eshelby(nd.strain(sites), center, exclude_nm=0.15, reach_nm=0.9, n_null=50)
    assert fit.c_nm2 == pytest.approx(-6e-4, rel=0.08)
    first = fit.residuals[fit.residuals["r_nm"] < 0.2]
    assert len(first) == 3
    assert first["radial_pm"].mean() == pytest.approx(-1000 * 6e-4 / 0.1895, rel=0.15)


def test_an_empty_column_is_a_row():
    atoms = supercell()
    metal = next(k for k, s in enumerate(atoms.symbols) if s == "W")
    del atoms[metal]
    sites = structure_sites(atoms, "WSe2")
    assert sites.loc[sites["y_nm"].isna(), "sublattice"].tolist() == ["W"]


def test_other_structures_are_refused():
    with pytest.raises(ValueError, match="no supercell"):
        structure_sites(ase_build.fcc111("W", (5, 5, 1), a=4.4, vacuum=5), "WSe2")
    atoms = supercell()
    atoms.cell[:] = 0
    with pytest.raises(ValueError, match="cell vectors"):
        structure_sites(atoms, "WSe2")
