"""Crystals from files and the distorted phases."""

from __future__ import annotations

from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest

import napari_defects as nd
from napari_defects.simulation import one_t_prime, read_crystal


@pytest.mark.parametrize("suffix", ["cif", "vasp", "xyz"])
def test_a_file_gives_the_crystal_that_we_know(tmp_path: Path, suffix: str) -> None:
    atoms = ase.build.mx2("WSe2", kind="2H", a=3.282, thickness=3.34, vacuum=10)
    path = tmp_path / ("POSCAR" if suffix == "vasp" else f"layer.{suffix}")
    ase.io.write(path, atoms, format={"xyz": "extxyz"}.get(suffix, suffix))
    crystal, known = read_crystal(path), nd.get_crystal("WSe2")
    assert crystal.name == "WSe2"
    assert crystal.a_nm == pytest.approx(0.3282, rel=1e-4)
    assert {s.host for s in crystal.sublattices} == {"W", "Se2"}
    assert crystal.nearest_neighbor_nm == pytest.approx(known.nearest_neighbor_nm, rel=1e-3)
    _, sites = nd.simulate(crystal, field_of_view_nm=3, defects={"V_Se": 3})
    assert set(sites["species"]) == {"W", "Se2", "V_Se"}


def test_octahedral_layers_have_three_columns() -> None:
    crystal = read_crystal(ase.build.mx2("TaS2", kind="1T", a=3.36, thickness=3.1, vacuum=10))
    assert [s.name for s in crystal.sublattices] == ["Ta", "S1", "S2"]


def test_one_t_prime_has_zigzag_chains() -> None:
    crystal = one_t_prime("W", "Te")
    places = {s.name: np.array([s.u * crystal.a_nm, s.v * crystal.b_nm]) for s in crystal.sublattices}
    assert list(places) == ["W1", "W2", "Te1", "Te2", "Te3", "Te4"]
    assert np.linalg.norm(places["W1"] - places["W2"]) == pytest.approx(0.284, abs=0.002)
    micrograph, sites = nd.simulate(crystal, field_of_view_nm=4, defects={"V_Te": 2}, shot_noise=False)
    assert len(sites) / 16 * crystal.cell_area_nm2 == pytest.approx(6, rel=0.05)
    assert len(micrograph.metadata["defects"]) == 2


def test_what_is_no_crystal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source"):
        read_crystal(tmp_path / "nothing.cif")
    (tmp_path / "bad.cif").write_text("hello")
    with pytest.raises(ValueError, match="source"):
        read_crystal(tmp_path / "bad.cif")
    with pytest.raises(ValueError, match="cell"):
        read_crystal(ase.build.molecule("H2O"))
