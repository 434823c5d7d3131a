"""Complexes, adatoms, lines, and displacements from a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.simulation import read_relaxation


def made(crystal: str, **options: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    micrograph, sites = nd.simulate(crystal, field_of_view_nm=6, pixel_size_nm=0.04, **options)  # type: ignore[arg-type]
    return micrograph.metadata["defects"], sites


def test_a_metal_goes_with_its_three_neighbors() -> None:
    species = "V_Mo+V_S+V_S+V_S"
    defects, sites = made("MoS2", defects={species: 4})
    assert len(defects) == 4
    own = sites[sites["species"] == species]
    assert sorted(own["elements"].value_counts().to_dict().items()) == [("", 4), ("S", 12)]
    place = own[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    metal = (own["elements"] == "").to_numpy()
    near = cKDTree(place[~metal]).query_ball_point(place[metal], 0.19)
    assert [len(k) for k in near] == [3] * 4


def test_adatoms_sit_on_columns_and_between_them() -> None:
    defects, sites = made("MoS2", defects={"Mo@Mo": 3, "S@S": 2, "Mo@hollow": 5}, scan=nd.Scan(rotation_deg=25))
    assert defects["species"].value_counts().to_dict() == {"Mo@hollow": 5, "Mo@Mo": 3, "S@S": 2}
    assert set(sites.loc[sites["species"] == "Mo@Mo", "elements"]) == {"Mo+Mo"}
    assert set(sites.loc[sites["species"] == "S@S", "elements"]) == {"S+S+S"}
    between = sites[sites["species"] == "Mo@hollow"]
    host = sites.drop(between.index)[["y_nm", "x_nm"]].to_numpy()
    distance = cKDTree(host).query(between[["y_nm", "x_nm"]].to_numpy(), 6)[0]
    inner = defects[defects["species"] == "Mo@hollow"]
    np.testing.assert_allclose(np.sort(inner["y_nm"]), np.sort(between["y_nm"]))
    np.testing.assert_allclose(distance[:, 0], 0.3160 / np.sqrt(3), rtol=1e-3)
    assert (between["sublattice"] == "").all()


def test_vacancies_in_lines() -> None:
    defects, _ = made("MoS2", defects={"V_S": 12}, lines={"V_S": 4}, seed=2)
    place = defects[["y_nm", "x_nm"]].to_numpy()
    assert len(place) <= 12  # some of them may lie beyond the image
    distance = np.linalg.norm(place[:, None] - place, axis=-1)
    label = connected_components(distance < 0.32)[1]
    rows = [place[label == k] for k in np.unique(label)]
    assert len(rows) == 3
    for row in rows:
        ends = np.linalg.norm(row[:, None] - row, axis=-1).max()
        assert ends == pytest.approx(0.3160 * (len(row) - 1), rel=1e-3)


def relaxed_vacancy(path: Path, pull_nm: float = 0.01) -> Path:
    """Write a 6 x 6 supercell of WSe2 with a Se2 vacancy whose three W move away from it."""
    crystal = nd.get_crystal("WSe2")
    vectors = crystal.vectors_nm[:, ::-1]  # (x, y)
    atoms = Atoms(cell=[*(60 * np.pad(vectors, ((0, 0), (0, 1)))), [0, 0, 20]], pbc=True)
    gone = (np.array([3, 3]) + crystal.fractions[1]) @ vectors
    for i in range(6):
        for j in range(6):
            for s in crystal.sublattices:
                place = np.array([i + s.u, j + s.v]) @ vectors
                away = place - gone
                distance = np.linalg.norm(away)
                if distance < 0.01:
                    continue
                if distance < 0.2:
                    place = place + pull_nm * away / distance
                for k, element in enumerate(s.column):
                    height = 1.68 * (2 * k - 1) if len(s.column) > 1 else 0.0
                    atoms += Atoms(element, [[*(10 * place), 10 + height]])
    atoms.write(path)
    return path


@pytest.mark.parametrize("rotation_deg", [0.0, 37.0])
def test_displacements_from_a_file(tmp_path: Path, rotation_deg: float) -> None:
    path = relaxed_vacancy(tmp_path / "vacancy.xyz")
    defects, sites = made(
        "WSe2", at=[("V2_Se", 3, 3)], relaxation={"V2_Se": path}, scan=nd.Scan(rotation_deg=rotation_deg)
    )
    moved = sites[["y_nm", "x_nm"]].to_numpy() - sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    center = defects[["y_nm", "x_nm"]].to_numpy()[0]
    away = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy() - center
    distance = np.linalg.norm(away, axis=1)
    near = (distance > 0.05) & (distance < 0.25)
    assert near.sum() == 3
    np.testing.assert_allclose((moved * away / distance[:, None]).sum(1)[near], 0.01, atol=2e-4)
    assert np.nanmax(np.abs(moved[~near])) < 2e-4


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found nothing"):
        read_relaxation(tmp_path / "none.xyz", "WSe2")
    path = relaxed_vacancy(tmp_path / "vacancy.xyz")
    with pytest.raises(ValueError, match="supercell"):
        read_relaxation(path, "graphene")


@pytest.mark.parametrize(
    "options", [{"defects": {"Mo@W": 1}}, {"defects": {"@Mo": 1}}, {"lines": {"V_S": 0}}, {"lines": {"V_Te": 3}}]
)
def test_nonsense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|has no site"):
        made("MoS2", **options)


def test_defects_without_room_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    nd.simulate("graphene", field_of_view_nm=3.0, pixel_size_nm=0.03, defects={"V2": 2}, seed=1)
    assert not caplog.records
    _, sites = nd.simulate("graphene", field_of_view_nm=3.0, pixel_size_nm=0.03, defects={"V2": 40}, seed=1)
    assert len(sites)
    assert re.search(r"only \d+ of 40 V2 found room", caplog.text)


def test_defects_at_places_outside_the_field_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    nd.simulate("WSe2", field_of_view_nm=3, pixel_size_nm=0.05, at=[("V_Se", 100, 1), ("V_Se", 1, 1)])
    assert "only 1 of 2 V_Se found room" in caplog.text
    with pytest.raises(ValueError, match="`dose_e_per_A2` must be above 0 and at most 1e"):
        nd.simulate("WSe2", dose_e_per_A2=1e15)
