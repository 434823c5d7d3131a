from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from ase import Atoms

import napari_defects as nd
from napari_defects import interop, tables
from napari_defects.io import write_micrograph
from napari_defects.learning.labels import label_sites


def test_positions_go_to_atomap_and_back(results):
    there = interop.to_positions(results.atoms, (0.02, 0.03))
    np.testing.assert_allclose(there, results.atoms[["x_nm", "y_nm"]] / [0.03, 0.02])
    back = interop.from_positions(there, (0.02, 0.03))
    np.testing.assert_allclose(tables.positions_nm(back), tables.positions_nm(results.atoms))
    assert back["y_err_nm"].isna().all()
    with pytest.raises(ValueError, match=r"shape \(column, 2\), got shape \(3,\)"):
        interop.from_positions([1, 2, 3], 0.02)


def test_empty_sites_are_no_positions(results):
    assert len(interop.to_positions(results.sites, 0.02)) == results.sites["y_nm"].notna().sum()


def test_tables_go_to_trackpy_and_back(results):
    atoms = tables.check(results.atoms, "atoms")
    theirs = interop.to_trackpy(atoms, 0.025)
    assert {"y", "x", "frame", "mass", "size"} <= set(theirs)
    assert theirs["x"].iloc[3] == pytest.approx(atoms["x_nm"].iloc[3] / 0.025)
    pd.testing.assert_frame_equal(interop.from_trackpy(theirs, 0.025)[atoms.columns], atoms)
    found = pd.DataFrame({"y": [1.0, 2.0], "x": [3.0, 4.0], "mass": [5.0, 6.0], "ecc": [0.1, 0.2], "particle": [7, 8]})
    ours = tables.check(interop.from_trackpy(found, 0.1), "atoms")
    assert ours["y_nm"].tolist() == pytest.approx([0.1, 0.2])
    assert ours["track"].tolist() == [7, 8]
    with pytest.raises(ValueError, match="no column y"):
        interop.from_trackpy(pd.DataFrame({"x": [1.0]}), 0.1)


def test_trackpy_links_our_table():
    trackpy = pytest.importorskip("trackpy")
    rows = [
        {"frame": f, "defect": 2 * f + k, "y_nm": 1.0 + k, "x_nm": 1.0 + 0.02 * f} for f in range(4) for k in range(2)
    ]
    table = interop.to_trackpy(pd.DataFrame(rows), 0.02)
    trackpy.quiet()
    linked = interop.from_trackpy(trackpy.link(table, search_range=5), 0.02)
    assert linked.groupby("track").size().tolist() == [4, 4]


def test_a_model_has_the_atoms_of_every_column(results):
    labels = label_sites(results.sites, results.defects, "WSe2")
    model = interop.to_ase(labels, "WSe2")
    species = labels["species"].value_counts()
    assert model.get_chemical_symbols().count("W") == species["W"]
    assert model.get_chemical_symbols().count("Se") == 2 * species["Se2"] + species["V_Se"]
    assert sorted(model.info["species"]) == sorted(results.defects["species"])
    columns = interop.from_ase(model)
    full = labels[labels["species"].isin(["W", "Se2", "V_Se"])]
    expected = full.sort_values(["y_nm", "x_nm"])[["y_nm", "x_nm"]].to_numpy()
    found = columns.sort_values(["y_nm", "x_nm"])[["y_nm", "x_nm"]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=0.011)
    with pytest.raises(ValueError, match="darker_W"):
        interop.to_ase(pd.DataFrame({"y_nm": [0.0], "x_nm": [0.0], "species": ["darker_W"]}), "WSe2")


@pytest.mark.parametrize("pixel_size_nm", [0.025, (0.02, 0.03)])
def test_ome_keeps_scale_and_time(tmp_path, noise_image, pixel_size_nm):
    movie = nd.Micrograph(np.stack([noise_image().data] * 3), pixel_size_nm, 0.5)
    back = nd.read_micrograph(write_micrograph(movie, tmp_path / "movie.ome.tif"))
    np.testing.assert_array_equal(back.data, movie.data)
    np.testing.assert_allclose(back.pixel_size_yx_nm, movie.pixel_size_yx_nm)
    assert back.frame_interval_s == 0.5


def test_atoms_above_each_other_are_one_column_wherever_they_are():
    rng = np.random.default_rng(0)
    place = np.stack(np.meshgrid(np.arange(8) * 0.3, np.arange(8) * 0.3, [0.17, -0.17]), -1).reshape(-1, 3)
    model = Atoms("S" * len(place), positions=10 * (place + rng.normal(0, 1e-3, place.shape)))
    assert len(interop.from_ase(model)) == 64


def test_what_is_left_of_a_pair_stays_at_its_height():
    table = pd.DataFrame({"frame": 0, "y_nm": 0.0, "x_nm": [0.0, 0.19], "species": ["V_Se", "W"]})
    model = interop.to_ase(table, "WSe2")
    assert model.get_distance(0, 1) == pytest.approx(10 * np.hypot(0.19, interop.LAYER_NM))
