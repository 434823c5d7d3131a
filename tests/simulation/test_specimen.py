"""Flakes, defects and the relaxed structures of graphene."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects import get_crystal
from napari_defects.simulation import Surface
from napari_defects.simulation.graphene import CLUSTERS, KINDS, template
from napari_defects.simulation.placement import Placer, alloy, apply, check_defects
from napari_defects.simulation.relaxation import Relaxation, relax
from napari_defects.simulation.scan import Scan
from napari_defects.simulation.specimen import SECOND_GRAIN, Specimen, pristine


def flake(crystal: str, side_nm: float = 12.0, rotation_deg: float = 10.0) -> Specimen:
    rotation = Scan(rotation_deg=rotation_deg).rotation()
    return pristine(get_crystal(crystal), np.full(2, side_nm), rotation=rotation, shift_nm=np.array([0.1, -0.05]))


def add_defects(
    specimen: Specimen, defects: dict[str, float], half: np.ndarray, rng: np.random.Generator, clustering: float = 0.0
) -> Specimen:
    placer = Placer(specimen, half, rng, clustering)
    return apply(specimen, [d for species, amount in defects.items() for d in placer.add(species, amount)])


@pytest.mark.parametrize("crystal", ["WSe2", "graphene", "MoTe2"])
def test_perfect_crystal_has_its_density_and_neighbors(crystal: str) -> None:
    host, specimen = get_crystal(crystal), flake(crystal)
    assert len(specimen.column) * host.cell_area_nm2 / len(host.sublattices) == pytest.approx(144, rel=0.02)
    distance, other = cKDTree(specimen.ideal_nm).query(specimen.ideal_nm, 2)
    inner = np.abs(specimen.ideal_nm).max(1) < 5
    np.testing.assert_allclose(distance[inner, 1], host.nearest_neighbor_nm, rtol=1e-9)
    assert (specimen.sublattice[other[inner, 1]] != specimen.sublattice[inner]).all()
    back = (specimen.cell + host.fractions[specimen.sublattice]) @ host.vectors_nm @ specimen.rotations[0] + (
        0.1,
        -0.05,
    )
    np.testing.assert_allclose(back, specimen.ideal_nm, atol=1e-9)


def test_fractions_and_counts() -> None:
    specimen = flake("WSe2", 30)
    specimen = add_defects(specimen, {"V_Se": 0.05, "Te2_W": 0.1, "Se_W": 7}, np.full(2, 4.0), np.random.default_rng(0))
    assert (specimen.species == "V_Se").sum() / (specimen.sublattice == 1).sum() == pytest.approx(0.05, rel=0.1)
    assert (specimen.species == "Te2_W").sum() / (specimen.sublattice == 0).sum() == pytest.approx(0.1, rel=0.1)
    chosen = specimen.species == "Se_W"
    assert chosen.sum() == 7
    assert np.abs(specimen.ideal_nm[chosen]).max() < 4
    assert {specimen.columns[k] for k in specimen.column[chosen]} == {("Se",)}


def test_complexes_are_neighbors() -> None:
    specimen = flake("MoTe2")
    specimen = add_defects(specimen, {"V_Te+V_Mo": 5}, np.full(2, 5.0), np.random.default_rng(0))
    changed = specimen.species == "V_Te+V_Mo"
    assert changed.sum() == 10
    assert sorted(specimen.columns[k] for k in specimen.column[changed]) == [()] * 5 + [("Te",)] * 5


@pytest.mark.parametrize(
    ("crystal", "defects"),
    [("WSe2", {"V_Mo": 0.1}), ("WSe2", {"SW": 0.1}), ("WSe2", {"V_Se": -0.1}), ("WSe2", {"V_Se": 2.5}),
     ("WSe2", {"V_Se": float("nan")}), ("graphene", {"nonsense": 0.1}), ("WSe2", {"V_Se": True}),
     ("WSe2", {"darker_W": 0.1})],
)  # fmt: skip
def test_impossible_defects_are_refused(crystal: str, defects: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|belongs|has no site"):
        check_defects(get_crystal(crystal), defects)


def relaxed_atoms(kind: str, variant: int) -> np.ndarray:
    patch = template(kind, variant)
    removed = [atom for atom, element in patch.changes if not element]
    atoms = patch.pristine_nm + patch.displacement_nm
    return np.delete(atoms, removed, axis=0) - patch.center_nm


@pytest.mark.parametrize(
    ("kind", "rings"), [("V2", {5: 2, 8: 1}), ("SW", {5: 2, 7: 2}), ("Si1C4", {5: 2, 6: 4})], ids=str
)
def test_rings_around_a_relaxed_defect(kind: str, rings: dict[int, int]) -> None:
    """5-8-5 of the double vacancy, 55-77 of Stone and Wales."""
    import networkx as nx

    atoms = relaxed_atoms(kind, 0)
    atoms = atoms[np.linalg.norm(atoms, axis=1) < 0.75]
    graph = nx.Graph(list(cKDTree(atoms).query_pairs(0.20)))
    found = [len(cycle) for cycle in nx.minimum_cycle_basis(graph)]
    for size, number in rings.items():
        if size != 6:
            assert found.count(size) == number, found


@pytest.mark.parametrize("kind", KINDS)
def test_bonds_stay_bonds(kind: str) -> None:
    for variant in range(4):
        atoms = relaxed_atoms(kind, variant)
        inner = np.linalg.norm(atoms, axis=1) < 1.2
        distance = cKDTree(atoms).query(atoms[inner], 4)[0]
        assert distance[:, 1].min() > 0.12
        assert np.median(distance[:, 1:]) == pytest.approx(0.142, abs=0.001)


def test_silicon_bonds() -> None:
    for kind, number, low, high in (("Si1C3", 3, 0.145, 0.165), ("Si1C4", 4, 0.170, 0.192)):
        for variant in range(4):
            patch = template(kind, variant)
            silicon = next(atom for atom, element in patch.changes if element == "Si")
            atoms = relaxed_atoms(kind, variant)
            place = patch.pristine_nm[silicon] + patch.displacement_nm[silicon] - patch.center_nm
            nearest = np.sort(np.linalg.norm(atoms - place, axis=1))[1 : number + 2]
            assert low < nearest[0] < high
            assert nearest[number - 1] < high
            assert nearest[number] > 0.22


@pytest.mark.parametrize("kind", CLUSTERS)
def test_clusters_have_their_formula(kind: str) -> None:
    for variant in range(4):
        patch = template(kind, variant)
        atoms = patch.pristine_nm + patch.displacement_nm
        changed = dict(patch.changes)
        silicon = atoms[[k for k, element in changed.items() if element]]
        carbon = np.delete(atoms, list(changed), axis=0)
        distance = np.linalg.norm(silicon[:, None] - carbon, axis=-1)
        assert f"Si{len(silicon)}C{(distance < 0.2).any(0).sum()}" == kind
        assert not ((distance > 0.2) & (distance < 0.225)).any()
        apart = np.linalg.norm(silicon[:, None] - silicon, axis=-1)
        assert 0.12 < apart[apart > 0].min() <= apart.max() < 0.24
        if "3" in kind:
            assert np.ptp(apart[apart > 0]) < 1e-3


def test_the_two_states_of_a_rotor_are_60_degrees_apart() -> None:
    phase = []
    for state in (0, 1):
        patch = template("Si3C6", 1, state)
        silicon = (patch.pristine_nm + patch.displacement_nm)[[k for k, e in patch.changes if e]]
        np.testing.assert_allclose(patch.center_nm, silicon.mean(0), atol=1e-4)
        phase.append(np.angle(np.sum(((silicon - silicon.mean(0)) @ [1j, 1]) ** 3)))
    assert abs(np.exp(1j * phase[0]) + np.exp(1j * phase[1])) < 0.01


def test_graphene_defects_fit_both_sublattices_and_any_rotation() -> None:
    specimen = flake("graphene", 16, rotation_deg=77)
    specimen = add_defects(
        specimen, {"V2": 4, "SW": 4, "Si1C4": 4, "V1": 4, "Si1C3": 4}, np.full(2, 6.5), np.random.default_rng(1)
    )
    assert len(specimen.defects) == 20
    filled = specimen.column > 0
    assert (~filled).sum() == 4 * 2 + 4 + 4
    atoms = specimen.position_nm[filled]
    inner = np.abs(atoms).max(1) < 7.5
    nearest = cKDTree(atoms).query(atoms[inner], 2)[0][:, 1]
    assert nearest.min() > 0.12
    assert nearest.max() < 0.195
    assert len({int(specimen.sublattice[d.site]) for d in specimen.defects}) == 2


def test_relaxation_is_radial() -> None:
    specimen = flake("WSe2")
    specimen = add_defects(specimen, {"V_Se": 1}, np.full(2, 1.0), np.random.default_rng(0))
    relax(specimen, {"V_Se": Relaxation(amplitude_pm=5.0)})
    offset = specimen.ideal_nm - specimen.defects[0].center_nm
    moved = specimen.position_nm - specimen.ideal_nm
    distance = np.linalg.norm(offset, axis=1)
    near = (distance > 0.1) & (distance < 1.1)
    radial = (moved * offset).sum(1)[near] / distance[near]
    nearest = get_crystal("WSe2").nearest_neighbor_nm
    np.testing.assert_allclose(radial, 5e-3 * nearest / distance[near], rtol=1e-6)
    assert np.abs(moved[distance < 0.1]).max() == 0


def test_clusters_keep_together() -> None:
    pristine_flake, rng = flake("WSe2", 30), np.random.default_rng(0)
    together = []
    for clustering in (0.0, 0.7):
        specimen = add_defects(pristine_flake, {"Te_Se": 0.2}, np.full(2, 15.0), rng, clustering)
        tree = cKDTree(specimen.ideal_nm[specimen.species == "Te_Se"])
        together.append(tree.count_neighbors(tree, 0.4) / tree.n - 1)
    assert together[0] == pytest.approx(6 * 0.2, rel=0.1)
    assert together[1] > 1.5 * together[0]


def test_an_alloy_has_its_composition() -> None:
    assert alloy("WSe2", {"Te_Se": 0.3}) == pytest.approx({"Te_Se": 0.42, "Te2_Se": 0.09})
    assert alloy("MoS2", {"W_Mo": 0.25}) == {"W_Mo": 0.25}
    for bad in ({"V_Se": 0.1}, {"Te2_Se": 0.1}, {"Te_Se": 1.5}):
        with pytest.raises(ValueError, match="composition"):
            alloy("WSe2", bad)


def test_two_grains_meet_without_overlap() -> None:
    _, sites = nd.simulate("graphene", field_of_view_nm=10, surface=Surface(grain_deg=21), defects={"V2": 8, "SW": 8})
    second = sites["i"] > SECOND_GRAIN // 2
    assert 0.05 < second.mean() < 0.95
    places = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    assert cKDTree(places).query(places, 2)[0][:, 1].min() > 0.7 * 0.142
    for grain in (sites[~second], sites[second]):
        near = grain[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
        pairs = cKDTree(near).query_pairs(0.25, output_type="ndarray")
        angle = np.rad2deg(np.arctan2(*(near[pairs[:, 1]] - near[pairs[:, 0]]).T))
        length = np.linalg.norm(near[pairs[:, 1]] - near[pairs[:, 0]], axis=1)
        assert np.ptp((angle[length > 0.2] + 30 - np.median(angle[length > 0.2] % 60)) % 60) < 1
