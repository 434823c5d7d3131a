import json

import ase.io
import networkx as nx
import numpy as np
import pandas as pd
import pytest

from napari_defects.bonds import bond_graph
from napari_defects.bonds.structures import to_ase, write_structure


@pytest.fixture
def graph():
    turn = np.deg2rad([0, 120, 240])
    one = pd.DataFrame({"y_nm": [0, *0.17 * np.sin(turn)], "x_nm": [0, *0.17 * np.cos(turn)]})
    one["element"] = ["Si", "C", "C", "C"]
    return bond_graph(pd.concat([one.assign(frame=f) for f in (0, 3)], ignore_index=True))


@pytest.mark.parametrize("suffix", ["graphml", "json"])
def test_graphs_come_back_as_they_were(graph, tmp_path, suffix):
    path = write_structure(graph, tmp_path / f"graph.{suffix}")
    if suffix == "json":
        back = nx.node_link_graph(json.loads(path.read_text()), edges="edges")
    else:
        back = nx.read_graphml(path, node_type=int)
    assert nx.utils.graphs_equal(nx.Graph(back.edges), nx.Graph(graph.edges))
    assert back.nodes[4]["element"] == "Si"
    assert back.nodes[4]["frame"] == 3
    assert back.edges[0, 1]["length_pm"] == pytest.approx(170)


@pytest.mark.parametrize("suffix", ["xyz", "cif"])
def test_structures_keep_lengths_and_handedness(graph, tmp_path, suffix):
    atoms = ase.io.read(write_structure(graph, tmp_path / f"atoms.{suffix}", frame=3))
    assert atoms.get_chemical_formula() == "C3Si"
    assert atoms.get_distance(0, 1) == pytest.approx(1.70, abs=1e-3)
    assert atoms.positions[2, 1] < atoms.positions[0, 1]  # down the image is down in the structure
    assert to_ase(graph).get_tags().tolist() == [0, 1, 2, 3]


def test_words_for_wrong_input(graph, tmp_path):
    with pytest.raises(ValueError, match=r"an xyz or cif file, got 'graph\.pdb'"):
        write_structure(graph, tmp_path / "graph.pdb")
    with pytest.raises(ValueError, match="`frame` 1 has no atoms"):
        write_structure(graph, tmp_path / "atoms.xyz", frame=1)
    assert not list(tmp_path.iterdir())
