import numpy as np
import pandas as pd
import pytest

from napari_defects.bonds import classify_bonds, find_defects
from napari_defects.bonds.chemistry import assign_elements
from napari_defects.bonds.graphs import bond_graph, bond_table
from napari_defects.bonds.holes import Ground, sublattice_elements
from napari_defects.bonds.kernels import normal_equations
from napari_defects.bonds.neighborhoods import resolve, resolve_frames
from napari_defects.bonds.rules import BondRules, bond_rules
from napari_defects.crystals import GRAPHENE, HBN
from napari_defects.lattice.phasing import Host
from napari_defects.micrograph import Micrograph
from napari_defects.noise import Noise

PIXEL, SIDE, SIGMA = 0.012, 176, 0.055


def scene(kind, *, tall=6.0, seed=0):
    """Image and true atoms of graphene with silicon of three or four bonds, or a vacancy; `tall` counts an atom.

    In a "hole" eight atoms are missing.
    """
    host = Host(GRAPHENE, np.array([0.05, 0.08]), GRAPHENE.vectors_nm @ np.array([[0.95, 0.3], [-0.3, 0.95]]) / 0.99624)
    place = host.sites_within(np.array([SIDE, SIDE]) * PIXEL, margin_nm=0.2)[1]
    middle = np.full(2, SIDE * PIXEL / 2)
    a, b, *more = np.argsort(np.linalg.norm(place - middle, axis=1))[:8]
    silicon = {"Si1C3": place[a], "Si1C4": (place[a] + place[b]) / 2}.get(kind)
    gone = {"none": [], "Si1C4": [a, b], "hole": [a, b, *more]}.get(kind, [a])
    atoms = np.delete(place, gone, axis=0)
    if silicon is not None:
        away = atoms - silicon
        push = {"Si1C3": 0.028, "Si1C4": 0.0}[kind]
        atoms = np.vstack([atoms + away * (push * 0.142 / (away**2).sum(1))[:, None], silicon])
    height = np.full(len(atoms), tall)
    if silicon is not None:
        height[-1] = 5 * tall
    y, x = np.indices((SIDE, SIDE)) * PIXEL
    image = np.full((SIDE, SIDE), 3.0)
    for (ay, ax), h in zip(atoms, height, strict=True):
        image += h * np.exp(-0.5 * ((y - ay) ** 2 + (x - ax) ** 2) / SIGMA**2)
    micrograph = Micrograph(np.random.default_rng(seed).poisson(image).astype(np.float32), PIXEL)
    table = pd.DataFrame({"frame": 0, "y_nm": atoms[:, 0], "x_nm": atoms[:, 1], "amplitude": height, "score": 1.0})
    inside = ((atoms > 0) & (atoms < SIDE * PIXEL)).all(1)
    return micrograph, table[inside].reset_index(drop=True), middle


def thinned(table, center, seed):
    """As `locate` finds them at low dose: 60 % of the host, scattered, none beside the silicon."""
    rng = np.random.default_rng(seed)
    table = table.assign(y_err_nm=0.03, x_err_nm=0.03, amplitude_err=0.3 * table["amplitude"].median())
    away = np.linalg.norm(table[["y_nm", "x_nm"]] - center, axis=1)
    keep = ((rng.random(len(table)) < 0.6) & (away > 0.25)) | (table["amplitude"] > 2 * table["amplitude"].median())
    table = table[keep].reset_index(drop=True)
    table[["y_nm", "x_nm"]] += rng.normal(0, 0.02, (len(table), 2))
    return table


@pytest.mark.parametrize("kind", ["Si1C3", "Si1C4"])
def test_three_bonds_are_told_from_four_where_single_atoms_are_lost(kind):
    right = 0
    for seed in range(6):
        micrograph, table, center = scene(kind, tall=1.5, seed=seed)
        found = classify_bonds(thinned(table, center, seed), micrograph=micrograph, min_probability=0)
        right += kind in found["species"].tolist()
    assert right >= 5


@pytest.mark.parametrize(("kind", "length"), [("Si1C3", 170.0), ("Si1C4", 188.0)])
def test_lengths_have_the_error_they_claim(kind, length):
    lengths, claimed = [], []
    for seed in range(6):
        micrograph, table, center = scene(kind, tall=12.0, seed=seed)
        atoms = resolve(micrograph, assign_elements(thinned(table, center, seed), bond_rules()))
        bonds = bond_table(bond_graph(atoms)).query("bond == 'C-Si'")
        lengths += bonds["length_pm"].tolist()
        claimed += bonds["length_err_pm"].tolist()
    assert np.mean(lengths) == pytest.approx(length, abs=5)
    assert np.std(lengths) == pytest.approx(np.median(claimed), rel=0.5)


def test_a_vacancy_is_dark_and_an_atom_that_was_missed_is_not():
    micrograph, table, center = scene("V1", tall=8.0)
    graph = bond_graph(table.assign(element="C"))
    assert find_defects(graph, micrograph=micrograph)["species"].tolist() == ["V1"]
    whole, full, _ = scene("none", tall=8.0)
    table = full.drop(index=np.linalg.norm(full[["y_nm", "x_nm"]] - center + 0.4, axis=1).argmin())
    graph = bond_graph(table.assign(element="C"))
    assert "V1" in find_defects(graph)["species"].tolist()
    assert "V1" not in find_defects(graph, micrograph=whole)["species"].tolist()


def test_a_vacancy_beside_an_atom_that_was_missed_is_one_vacancy_and_two_missed_are_none():
    micrograph, table, center = scene("V1", tall=8.0)
    near = np.linalg.norm(table[["y_nm", "x_nm"]] - center, axis=1).argsort()
    found = find_defects(bond_graph(table.drop(index=near[0]).assign(element="C")), micrograph=micrograph)
    assert found["species"].tolist() == ["V1"]
    assert np.linalg.norm(found[["y_nm", "x_nm"]].to_numpy() - table_hole(center)) < 0.02
    whole, full, _ = scene("none", tall=8.0)
    near = np.linalg.norm(full[["y_nm", "x_nm"]] - center, axis=1).argsort()
    graph = bond_graph(full.drop(index=near[:2]).assign(element="C"))
    assert find_defects(graph)["species"].tolist() == ["V2"]
    assert find_defects(graph, micrograph=whole, min_probability=0).empty


def test_a_vacancy_is_seen_where_so_many_atoms_are_lost_that_no_ring_closes():
    for kind, expected in (("V1", ["V1"]), ("none", [])):
        micrograph, table, center = scene(kind, tall=8.0)
        lost = np.random.default_rng(1).random(len(table)) < 0.5
        graph = bond_graph(table[~lost].reset_index(drop=True).assign(element="C"))
        assert find_defects(graph).empty
        found = find_defects(graph, micrograph=micrograph)
        assert found["species"].tolist() == expected
    micrograph, table, center = scene("V1", tall=8.0)
    found = find_defects(bond_graph(table.assign(element="C")), micrograph=micrograph)
    assert np.linalg.norm(found[["y_nm", "x_nm"]].to_numpy() - table_hole(center)) < 0.02


def test_a_hole_is_no_vacancy_nor_are_sites_at_the_border():
    micrograph, table, center = scene("hole", tall=8.0)
    assert find_defects(bond_graph(table.assign(element="C")), micrograph=micrograph).empty
    micrograph, table, center = scene("V1", tall=8.0)
    for beyond, expected in ((0.4, ["V1"]), (0.15, [])):
        side = int((table_hole(center)[0] + beyond) / PIXEL)
        cut = Micrograph(micrograph.data[:side], PIXEL)
        graph = bond_graph(table[table["y_nm"] < side * PIXEL].reset_index(drop=True).assign(element="C"))
        assert find_defects(graph, micrograph=cut)["species"].tolist() == expected


def table_hole(center):
    """Where the vacancy of `scene` is."""
    full = scene("none")[1][["y_nm", "x_nm"]].to_numpy()
    return full[np.linalg.norm(full - center, axis=1).argmin()]


def test_without_a_lattice_the_rings_alone_tell():
    noise = Micrograph(np.random.default_rng(0).poisson(9, (SIDE, SIDE)).astype(np.float32), PIXEL)
    assert Ground.of(noise, 0, GRAPHENE, {}, np.zeros((1, 2)), ["C"]) is None
    graph = bond_graph(scene("V1")[1].assign(element="C"))
    assert find_defects(graph, micrograph=noise)["species"].tolist() == ["V1"]


def test_atoms_beside_a_foreign_one_are_of_the_element_of_their_sublattice():
    micrograph, table, _ = scene("Si1C3", tall=12.0)
    host = Host(HBN, np.array([0.05, 0.08]), GRAPHENE.vectors_nm @ np.array([[0.95, 0.3], [-0.3, 0.95]]) / 0.99624)
    sites = host.sites_within(np.array([SIDE, SIDE]) * PIXEL)
    nearest = np.linalg.norm(table[["y_nm", "x_nm"]].to_numpy()[:, None] - sites[1], axis=-1).argmin(1)
    odd = np.abs(sites[0][nearest] % 1 - HBN.fractions[0]).sum(1) > 0.1
    table["element"] = np.where(table["amplitude"] > 20, "Si", np.where(odd, "B", "N"))  # the other way round
    names = sublattice_elements(host, np.ones(2), table[["y_nm", "x_nm"]].to_numpy(), table["element"].tolist())
    assert names == ("N", "B")
    rules = BondRules(("B", "N"), {}, {"B": 3, "N": 3, "Si": 4})
    resolved = resolve(micrograph, table.assign(element_probability=1.0), crystal="hBN", rules=rules)
    place = resolved[["y_nm", "x_nm"]].to_numpy()
    away = np.linalg.norm(place - place[resolved["element"] == "Si"], axis=1)
    first, second = (resolved["element"][(away > low) & (away < high)] for low, high in ((0.1, 0.2), (0.2, 0.27)))
    assert len(first) == 3
    assert {frozenset(first), frozenset(second)} == {frozenset("B"), frozenset("N")}


def test_what_has_no_lattice_or_no_foreign_atom_stays_as_it_is():
    micrograph, table, _ = scene("V1")
    same = resolve(micrograph, table.assign(element="C", element_probability=1.0))
    assert same[["y_nm", "x_nm"]].equals(table[["y_nm", "x_nm"]])
    noise = Micrograph(np.random.default_rng(0).poisson(9, (SIDE, SIDE)).astype(np.float32), PIXEL)
    _, table, _ = scene("Si1C3")
    kept = resolve(noise, assign_elements(table, bond_rules()))
    assert len(kept) == len(table)


def test_silicon_is_told_by_the_lattice_where_hardly_an_atom_is_seen():
    micrograph, atoms, _ = scene("Si1C3", tall=2.0, seed=2)
    few = atoms.iloc[[3, 20, 41, 60]].assign(amplitude=7.0, amplitude_err=2.0)  # the noise was kind to them
    for seen in (few, pd.concat([few, atoms.iloc[[-1]].assign(amplitude_err=2.0)])):
        resolved, hosts = resolve_frames(micrograph, seen, rules=bond_rules("graphene"))
        assert set(hosts) == {0}
        silicon = resolved[resolved["element"] == "Si"]
        assert len(silicon) == 1
        np.testing.assert_allclose(silicon[["y_nm", "x_nm"]], [atoms.iloc[-1][["y_nm", "x_nm"]]], atol=0.02)
        defects = find_defects(bond_graph(resolved), min_probability=0)
        assert "Si1C3" in set(defects["species"])


def test_black_pixels_of_a_film_have_a_variance(monkeypatch):
    micrograph, table, _ = scene("Si1C3", tall=6.0)
    exact = Noise(gain=1.0, offset=5.0, read_noise=0.0, correlation_px=0.0, electrons_per_px=1.0)
    monkeypatch.setattr("napari_defects.noise.estimate", lambda *_, **__: exact)
    resolved = resolve(micrograph, assign_elements(table, bond_rules()))
    assert np.isfinite(resolved["y_err_nm"].dropna()).all()
    assert (resolved["element"] == "Si").sum() == 1


def test_the_equations_are_those_of_the_model():
    rng = np.random.default_rng(0)
    place, yx = rng.uniform(0, 1, (60, 2)), rng.uniform(0.2, 0.8, (3, 2))
    tall, width, owner = np.array([1.0, 2.0, 0.5, 0.3]), np.array([0.1, 0.1, 0.1, 0.2]), np.array([0, 1, 2, 1])
    plane, level = np.column_stack([np.ones(60), place - 0.5]), np.array([0.2, 0.1, -0.1])
    data, weight = rng.normal(0.5, 1, 60), rng.uniform(0.5, 2, 60)

    def model(p):
        off = place[:, None] - p[:6].reshape(3, 2)[owner]
        bump = np.exp(-0.5 * (off**2).sum(-1) / (width * np.exp(p[10])) ** 2)
        return bump @ p[6:10] + plane @ p[11:]

    p = np.concatenate([yx.ravel(), tall, [0.0], level])
    jacobian = np.column_stack([(model(p + d) - model(p - d)) / 2e-6 for d in 1e-6 * np.eye(len(p))])
    normal, force = np.empty((14, 14)), np.empty(14)
    chi2 = normal_equations(place, data, weight, plane, yx, tall, width, owner, level, normal, force)
    rest = data - model(p)
    assert chi2 == pytest.approx((weight * rest**2).sum(), rel=1e-4)
    np.testing.assert_allclose(normal, (jacobian.T * weight) @ jacobian, rtol=2e-3, atol=2e-2)
    np.testing.assert_allclose(force, (jacobian.T * weight) @ rest, rtol=2e-3, atol=2e-2)
