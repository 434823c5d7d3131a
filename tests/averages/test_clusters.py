"""Pairs and triples: their classes, their averages, and the sum of single fields."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import sites_of

import napari_defects as nd
from napari_defects import figures
from napari_defects.averages.members import symmetry
from napari_defects.crystals import WSE2
from napari_defects.simulation import Relaxation

SITES = sites_of(reach_nm=1.0)


def defects_at(*cells: tuple[int, int, str], species: dict[str, str] | None = None) -> pd.DataFrame:
    """DEFECTS on these sites (i, j, sublattice)."""
    kinds = {"Se": "V_Se", "W": "V_W"} | (species or {})
    rows = [
        {"frame": 0, "defect": k, "i": i, "j": j, "sublattice": s, "species": kinds[s], "probability": 1.0,
         "method": "truth"}
        for k, (i, j, s) in enumerate(cells)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    place = table[["i", "j"]].to_numpy() + [(WSE2.sublattice(s).u, WSE2.sublattice(s).v) for s in table["sublattice"]]
    return table.assign(**dict(zip(["y_nm", "x_nm"], (place @ WSE2.vectors_nm).T, strict=True)))


def classes(*cells: tuple[int, int, str]) -> list[str]:
    return nd.find_clusters(defects_at(*cells), sites=SITES)["species"].tolist()


def test_equal_pairs_are_one_class_whatever_their_direction():
    neighbors = [(1, 0), (0, 1), (-1, -1), (-1, 0), (0, -1), (1, 1)]
    near = [(i, j) for i, j in neighbors if np.hypot(*(np.array([i, j]) @ WSE2.vectors_nm)) < 0.34]
    assert len(near) == 6
    assert {tuple(classes((0, 0, "Se"), (i, j, "Se"))) for i, j in near} == {("V_Se+V_Se@0.33",)}
    assert classes((0, 0, "Se"), (2, 0, "Se")) == ["V_Se+V_Se@0.66"]
    assert classes((0, 0, "Se"), (4, 0, "Se")) == []


def test_triangles_around_a_metal_and_around_a_hollow_differ():
    up = classes((0, 0, "Se"), (1, 0, "Se"), (1, 1, "Se"))
    down = classes((0, 0, "Se"), (0, 1, "Se"), (1, 1, "Se"))
    assert [name[:-1] for name in up + down] == ["V_Se+V_Se+V_Se@0.33-0.33-0.33"] * 2
    assert up != down
    assert len(classes((0, 0, "Se"), (1, 0, "Se"), (2, 0, "Se"), (3, 0, "Se"))) == 0, "larger ones are no class"


def test_parts_stand_alike_in_every_member():
    shell = SITES[(SITES["sublattice"] == "W")]
    bonds = shell[
        np.hypot(*(shell[["y_ideal_nm", "x_ideal_nm"]] - (WSE2.fractions[1] @ WSE2.vectors_nm)).T.to_numpy()) < 0.2
    ]
    assert len(bonds) == 3
    found = [
        nd.find_clusters(defects_at((0, 0, "Se"), (int(r.i), int(r.j), "W")), sites=SITES).iloc[0]
        for r in bonds.itertuples()
    ]
    assert {row["species"] for row in found} == {"V_Se+V_W@0.19"}
    assert len({row["standing"] for row in found}) == 1
    turns = {int(row["turn"]) for row in found}
    assert len(turns) == 3
    assert max(turns) < len(symmetry(WSE2, "Se"))


def test_refused():
    with pytest.raises(ValueError, match="assign_sites"):
        nd.find_clusters(defects_at((0, 0, "Se")))
    with pytest.raises(ValueError, match="reach_nm"):
        nd.find_clusters(defects_at((0, 0, "Se")), sites=SITES, reach_nm=0)


@pytest.fixture(scope="module")
def pairs():
    """Pairs of pulling vacancies in three directions and single ones, far apart."""
    a1, a2 = WSE2.vectors_nm
    at, rng = [], np.random.default_rng(0)
    for k, (y, x) in enumerate([(y, x) for y in np.arange(2, 17, 3.2) for x in np.arange(2, 17, 3.2)]):
        at.append(("V_Se", float(y), float(x)))
        if k % 2:
            step = [a1, a2, -a1 - a2][rng.integers(3)] * rng.choice([-1, 1])
            at.append(("V_Se", float(y + step[0]), float(x + step[1])))
    micrograph, sites = nd.simulate(
        "WSe2", field_of_view_nm=18.0, pixel_size_nm=0.02, at=at, dose_e_per_A2=4e5, seed=1,
        relaxation={"V_Se": Relaxation(-6.0)},
    )  # fmt: skip
    return nd.average(micrograph, micrograph.metadata["defects"], sites=sites, clusters_nm=0.4, radius_nm=0.8)


def test_pairs_are_averaged_in_one_standing_and_their_fields_add(pairs):
    pair, single = pairs["V_Se+V_Se@0.33"], pairs["V_Se"]
    assert pair.n >= 8
    assert single.n >= 10
    half = len(pair.image) // 2
    y, x = (round(v / pair.pixel_size_nm) for v in pair.parts[1][2:])
    dim = pair.image[half, half], pair.image[half + y, half + x]
    assert max(dim) < 0.7 * pair.image.max()
    assert dim[0] == pytest.approx(dim[1], rel=0.1)
    found = nd.superpose(pair, pairs)
    assert found.factor == pytest.approx(1, abs=0.1)
    assert found.p_value > 1e-4
    _, ax = figures.new()
    assert "× sum" in figures.superposition(ax, pair, found).get_title()
    inner = found.table[np.hypot(found.table["y_ideal_nm"], found.table["x_ideal_nm"]) < 0.5]
    assert np.abs(inner[["uy_pm", "ux_pm"]].to_numpy() - inner[["uy_sum_pm", "ux_sum_pm"]].to_numpy()).max() < 1.5


def test_superposition_needs_a_cluster_and_its_parts(pairs):
    with pytest.raises(ValueError, match="clusters_nm"):
        nd.superpose(pairs["V_Se"], pairs)
    with pytest.raises(ValueError, match="no average of V_Se"):
        nd.superpose(pairs["V_Se+V_Se@0.33"], {})
