import networkx as nx
import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects.bonds import classify_bonds, find_defects
from napari_defects.bonds.chemistry import assign_elements
from napari_defects.bonds.graphs import angle_table, bond_graph, bond_table
from napari_defects.bonds.rings import clusters, rings
from napari_defects.bonds.rules import BondRules, bond_rules
from napari_defects.crystals import GRAPHENE, HBN
from napari_defects.micrograph import Maps

BOND = 0.246 / 3**0.5


def honeycomb(cells=14, frame=0):
    """Graphene with its atoms in the middle bond rows of the table `middle`, bond along x."""
    i, j, s = (a.ravel() for a in np.mgrid[:cells, :cells, :2])
    place = np.column_stack([i, j]) @ GRAPHENE.vectors_nm + GRAPHENE.fractions[s] @ GRAPHENE.vectors_nm
    place = place[:, ::-1].copy()  # one of the bonds along x
    table = pd.DataFrame({"frame": frame, "y_nm": place[:, 0], "x_nm": place[:, 1]})
    table["y_err_nm"] = table["x_err_nm"] = 0.003
    table["amplitude"], table["amplitude_err"], table["score"] = 1.0, 0.05, 1.0
    return table


def pair(table):
    """Rows of the bond along x nearest to the middle, and its centre."""
    place = table[["y_nm", "x_nm"]].to_numpy()
    a = int(np.argmin(np.linalg.norm(place - place.mean(0), axis=1)))
    near = np.flatnonzero(np.abs(np.linalg.norm(place - place[a], axis=1) - BOND) < 1e-6)
    b = int(near[np.argmin(np.abs(place[near, 0] - place[a, 0]))])
    return a, b, (place[a] + place[b]) / 2


def relaxed(table, center, push_nm=0.025):
    """Atoms pushed outward around a large foreign atom, less with distance."""
    away = table[["y_nm", "x_nm"]].to_numpy() - center
    distance = np.linalg.norm(away, axis=1).clip(BOND / 2)
    table[["y_nm", "x_nm"]] += away * (push_nm * BOND / distance**2)[:, None]
    return table


def with_defect(kind, **kwargs):
    table = honeycomb(**kwargs)
    a, b, middle = pair(table)
    if kind == "SW":
        table.loc[[a, b], "y_nm"] = middle[0] + np.array([-0.5, 0.5]) * BOND
        table.loc[[a, b], "x_nm"] = middle[1]
        return table, middle
    if kind in ("V2", "5-8-5"):
        if kind == "5-8-5":  # the four atoms left pair up left and right of the hole
            near = np.linalg.norm(table[["y_nm", "x_nm"]] - middle, axis=1)
            rim = table.index[(near < 0.2) & (near > 0.08)]
            table.loc[rim, "y_nm"] = middle[0] + 0.66 * (table.loc[rim, "y_nm"] - middle[0])
        return table.drop(index=[a, b]).reset_index(drop=True), middle
    place = table.loc[a, ["y_nm", "x_nm"]].to_numpy(float)
    if kind == "V1":
        return table.drop(index=a).reset_index(drop=True), place
    if kind == "Si1C3":
        table.loc[a, "amplitude"] = 4.5
        return relaxed(table, place), place
    table.loc[a, ["y_nm", "x_nm", "amplitude"]] = *middle, 4.5
    return table.drop(index=b).reset_index(drop=True), middle


@pytest.mark.parametrize("kind", ["V1", "V2", "5-8-5", "SW", "Si1C3", "Si1C4"])
def test_each_defect_of_graphene_has_its_name_and_place(kind):
    table, center = with_defect(kind)
    found = classify_bonds(table)
    assert found["species"].tolist() == [{"5-8-5": "V2"}.get(kind, kind)]
    assert np.hypot(*(found[["y_nm", "x_nm"]].to_numpy()[0] - center)) < 0.01
    assert found["probability"].item() > 0.7
    assert found["method"].item() == "bonds"


def test_pristine_graphene_has_only_hexagons_and_no_defect():
    graph = bond_graph(honeycomb())
    assert {len(ring) for ring in rings(graph)} == {6}
    assert len(rings(graph)) == 13 * 13  # cells with all their corners
    edge = {n for n, flag in graph.nodes(data="edge") if flag}
    assert edge == {n for n, degree in graph.degree if degree < 3}
    assert 0 < len(edge) < 4 * 14
    assert find_defects(graph).empty


@pytest.mark.parametrize(("kind", "sizes"), [("V1", (12,)), ("V2", (14,)), ("5-8-5", (5, 5, 8)), ("SW", (5, 5, 7, 7))])
def test_ring_statistics(kind, sizes):
    graph = bond_graph(with_defect(kind)[0])
    (cluster,) = clusters(graph, rings(graph), hexagon_nm2=GRAPHENE.cell_area_nm2)
    assert cluster.sizes == sizes
    assert cluster.missing == {"V1": 1, "SW": 0}.get(kind, 2)
    hole = sum(flag for n, flag in graph.nodes(data="edge") if n in cluster.atoms)
    assert hole == {"V1": 3, "V2": 4}.get(kind, 0), "the atoms that lack a bond"


def test_frames_are_not_connected_and_keep_their_number():
    movie = pd.concat([with_defect("Si1C3", frame=f)[0] for f in (3, 7)], ignore_index=True)
    graph = bond_graph(movie)
    assert all(graph.nodes[a]["frame"] == graph.nodes[b]["frame"] for a, b in graph.edges)
    assert classify_bonds(movie)["frame"].tolist() == [3, 7]


def silicon(graph):
    bonds = bond_table(graph).sort_values(["a", "b"])
    return bonds[bonds["bond"] == "C-Si"]


def test_errors_of_lengths_and_angles_are_those_of_repeated_measurements():
    table, _ = with_defect("Si1C4", cells=6)
    rng = np.random.default_rng(0)
    lengths, angles = [], []
    for _ in range(150):
        shaken = table.copy()
        shaken[["y_nm", "x_nm"]] += rng.normal(0, 0.003, (len(table), 2))
        graph = bond_graph(shaken)
        lengths.append(silicon(graph)["length_pm"].to_numpy())
        angles.append(angle_table(graph).sort_values(["a", "b"])["angle_deg"].to_numpy())
    graph = bond_graph(table)
    assert np.std(lengths, axis=0) == pytest.approx(silicon(graph)["length_err_pm"].to_numpy(), rel=0.2)
    expected = angle_table(graph).sort_values(["a", "b"])
    assert len(expected) == 4
    assert expected["angle_deg"].sum() == pytest.approx(360)
    assert np.std(angles, axis=0) == pytest.approx(expected["angle_err_deg"].to_numpy(), rel=0.2)


def test_two_silicons_that_bond_are_one_defect():
    table = honeycomb()
    a, b, middle = pair(table)
    table.loc[[a, b], "amplitude"] = 4.5
    table = relaxed(table, middle, 0.015)
    assert classify_bonds(table)["species"].tolist() == ["Si2C4"]


def test_a_three_fold_silicon_whose_angles_are_bent_sits_in_a_vacancy():
    table, center = with_defect("Si1C4")
    rim = np.linalg.norm(table[["y_nm", "x_nm"]] - center, axis=1)
    table = table.drop(index=table.index[(rim > 0.1) & (rim < 0.22)][0]).reset_index(drop=True)
    found = classify_bonds(table)
    assert "Si1C3+V1" in found["species"].tolist()
    bent = found.set_index("species").loc["Si1C3+V1"]
    assert bent["angle_off_deg"] == pytest.approx(42, abs=8)
    assert 0 < bent["angle_off_err_deg"] < 3
    assert classify_bonds(with_defect("Si1C3")[0])["angle_off_deg"].item() < 1


def test_bonds_per_element_are_limited():
    table, _ = with_defect("Si1C4")
    graph = bond_graph(table)
    assert max(d for n, d in graph.degree if graph.nodes[n]["element"] == "C") == 3
    crowded = pd.concat([honeycomb(), pd.DataFrame({"frame": [0], "y_nm": [2.0], "x_nm": [1.5]})], ignore_index=True)
    crowded["element"] = "C"
    assert max(d for _, d in bond_graph(crowded).degree) == 3


def test_elements_follow_brightness_and_maps_break_ties():
    table = honeycomb()
    a, b = pair(table)[0], 120  # far from each other
    table.loc[[a, b], "amplitude"] = 4.0, 1.9
    table["amplitude_err"] = 0.2
    alone = assign_elements(table, bond_rules())
    assert alone.loc[a, "element"] == "Si"
    assert alone.loc[a, "element_probability"] > 0.95
    assert (alone["element"] == "Si").sum() == 1
    data = np.zeros((3, 400, 400), np.float32)
    data[1] = 1.0
    y, x = np.rint(table.loc[b, ["y_nm", "x_nm"]].to_numpy(float) / 0.02).astype(int)
    data[:, y - 4 : y + 5, x - 4 : x + 5] = np.array([0, 0, 1.0])[:, None, None]
    helped = assign_elements(table, bond_rules(), maps=Maps(data, ("background", "C", "Si"), 0.02))
    assert helped.loc[b, "element"] == "Si"
    assert helped.loc[a, "element_probability"] < alone.loc[a, "element_probability"]


def test_rules_come_from_a_file_the_user_edits(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text('[graphene]\nhost = ["C"]\nlongest_bond_pm = { C-C = 100 }\n')
    assert bond_graph(honeycomb(), rules=path).number_of_edges() == 0
    for text, words in [
        ("[graphene]\nlongest = 3\n", r"`longest` in \[graphene\] is no bond rule"),
        ("[graphene\n", "must be a TOML file"),
        ('[grafene]\nhost = ["C"]\n', r"must have a section \[graphene\], it has \[grafene\]"),
        ('[graphene]\nlongest_bond_pm = { C-C = "x" }\n', r"`longest_bond_pm` in \[graphene\] .*lengths in pm.*'x'"),
        ("[graphene]\nlargest_coordination = { C = -1 }\n", "numbers of bonds.*-1"),
        ("[graphene]\nbrightness = { Si = 3 }\n", r"`brightness` .* as \{ Si = \[1.8, 15.0\] \}, got"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            bond_rules("graphene", path)
    with pytest.raises(ValueError, match=r"nofile\.toml cannot be read: No such file"):
        bond_rules("graphene", tmp_path / "nofile.toml")


def test_a_foreign_atom_and_an_empty_site_in_a_compound():
    from napari_defects.crystals import WSE2

    i, j, s = (a.ravel() for a in np.mgrid[:8, :8, :2])
    place = np.column_stack([i, j]) @ WSE2.vectors_nm + WSE2.fractions[s] @ WSE2.vectors_nm
    sites = pd.DataFrame({"frame": 0, "y_nm": place[:, 0], "x_nm": place[:, 1], "i": i, "j": j})
    sites["sublattice"] = np.where(s == 0, "W", "Se")
    sites["y_ideal_nm"], sites["x_ideal_nm"] = place.T
    sites["element"] = sites["sublattice"]
    w, se = 2 * (8 * 3 + 3), 2 * (8 * 5 + 5) + 1
    sites.loc[w, "element"] = "Ti"
    graph = bond_graph(sites, crystal="WSe2")
    assert graph.degree(w) == 3
    found = find_defects(graph)
    assert found["species"].tolist() == ["Ti1Se3"]
    sites = sites.drop(columns="element")
    sites.loc[se, ["y_nm", "x_nm"]] = np.nan
    found = classify_bonds(sites, crystal="WSe2")
    assert found["species"].tolist() == ["V2_Se"]
    assert found[["i", "j", "sublattice"]].to_numpy().tolist() == [[5, 5, "Se"]]


def test_words_for_wrong_input():
    with pytest.raises(ValueError, match=r"no column 'y_nm'; run locate"):
        bond_graph(pd.DataFrame({"x_nm": [1.0]}))
    with pytest.raises(ValueError, match="`min_probability` must be within 0 to 1"):
        classify_bonds(honeycomb(), min_probability=2)
    assert BondRules(("C",), {}, {}).limit_pm("C", "V") == 0
    assert isinstance(bond_graph(honeycomb().iloc[:0]), nx.Graph)


def boron_nitride(gone=()):
    """SITES of hBN without the atoms at these rows."""
    i, j, s = (a.ravel() for a in np.mgrid[:10, :10, :2])
    place = np.column_stack([i, j]) @ HBN.vectors_nm + HBN.fractions[s] @ HBN.vectors_nm
    sites = pd.DataFrame({"frame": 0, "y_nm": place[:, 0], "x_nm": place[:, 1], "i": i, "j": j})
    sites["sublattice"] = np.array(["B", "N"])[s]
    sites["y_ideal_nm"], sites["x_ideal_nm"] = place.T
    sites.loc[list(gone), ["y_nm", "x_nm"]] = np.nan
    return sites


@pytest.mark.parametrize(("gone", "name"), [((108,), "V_B"), ((109,), "V_N"), ((108, 109), "V_B+V_N")])
def test_vacancies_of_a_host_of_two_elements_say_which_is_missing(gone, name):
    assert classify_bonds(boron_nitride(gone), crystal="hBN")["species"].tolist() == [name]


def test_atoms_of_a_host_of_two_elements_need_a_sublattice():
    with pytest.raises(ValueError, match=r"`sublattice` to tell B from N; run fit_lattice"):
        bond_graph(honeycomb(), crystal="hBN")


def test_a_foreign_atom_with_room_for_a_bond_beyond_the_border_is_cut():
    table, center = with_defect("Si1C4")
    whole = classify_bonds(table)
    assert not whole["cut"].item()
    assert whole["border_nm"].item() == pytest.approx(np.min(center - table[["y_nm", "x_nm"]].min()), abs=0.02)
    beyond = classify_bonds(table[table["y_nm"] > center[0] - 0.08].reset_index(drop=True), min_probability=0)
    half = beyond[beyond["species"].str.startswith("Si")]
    assert half["species"].item() != "Si1C4"
    assert half["cut"].item()
    assert half["probability"].item() <= 0.5
    kept = with_defect("Si1C3")[0]
    y = np.sort(kept.loc[kept["amplitude"] > 2, "y_nm"].item() - kept["y_nm"].to_numpy())
    above = y[(y > 0.05) & (y < 0.2)].max()
    low = kept.loc[kept["amplitude"] > 2, "y_nm"].item() - above - 0.01
    three = classify_bonds(kept[kept["y_nm"] > low].reset_index(drop=True))
    assert three.loc[three["species"] == "Si1C3", "cut"].tolist() == [False], "all three bonds are in view"


def test_columns_off_the_lattice_are_no_element_of_their_own():
    image, sites = nd.simulate("WSe2", field_of_view_nm=4, defects={"V2_Se": 3}, seed=2)
    stray = sites.dropna(subset=["y_nm"]).iloc[[5]].assign(y_nm=1.1, x_nm=1.3, sublattice="", i=pd.NA, j=pd.NA)
    dirty = pd.concat([sites, stray], ignore_index=True)
    dirty.attrs["crystal"] = "WSe2"
    found = nd.classify(image, dirty, method="bonds")
    assert set(found["species"]) <= {"V2_Se"}
