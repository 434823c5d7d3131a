"""From the pixels of a movie to what its defects do: missing frames, frames taken during a turn, folders, files."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import napari_defects as nd
from napari_defects.cli import app
from napari_defects.simulation import Motion


@pytest.fixture(scope="module")
def rotor():
    """Three silicon atoms that turn by 60 degrees between frames 2 and 3; frame 1 is blank."""
    micrograph, _ = nd.simulate(
        "graphene", field_of_view_nm=2.0, pixel_size_nm=0.0145, at=[("Si3C6", 1.0, 1.0)],
        microscope=nd.Microscope(60.0, 31.0, 86.0, 200.0, 0.08), dose_e_per_A2=6e5, frames=5,
        motion={"Si3C6": Motion(turn_at=(3,))}, seed=3,
    )  # fmt: skip
    data = micrograph.data.copy()
    data[1] = np.nan
    return nd.Micrograph(data, micrograph.pixel_size_nm, frame_interval_s=2.0)


@pytest.fixture(scope="module")
def results(rotor):
    return nd.analyze_bonds(rotor)


def test_a_movie_with_a_missing_frame_is_one_trajectory(results):
    tracks = results.tracks[results.tracks["species"].str.startswith("Si")]
    assert tracks["frame"].tolist() == [0, 2, 3, 4]
    assert tracks["track"].nunique() == 1
    assert set(tracks["species"]) == {"Si3C6"}
    tables = results.tables()
    turning = tables["rotors"]
    assert turning["frame"][turning["switch"]].tolist() == [3]
    assert not turning["unsure"].any()
    assert tables["hops"].empty, "a turn is no hop"
    assert results.drift[["dy_nm", "dx_nm"]].abs().max().max() < 0.005
    assert set(tables["dwell_times"]["unit"]) == {"s"}


def test_a_frame_taken_during_the_turn_is_flagged_and_the_switch_comes_after(rotor, results):
    middle = round(results.tracks["y_nm"].median() / 0.0145)
    middle += 3  # rows: not through the middle, where an atom would be cut in two
    half = np.concatenate([rotor.data[2][:middle], rotor.data[3][middle:]])
    movie = nd.Micrograph(np.stack([rotor.data[0], rotor.data[2], half, rotor.data[3], rotor.data[4]]), 0.0145)
    turning = nd.analyze_bonds(movie).tables()["rotors"]
    assert turning["frame"][turning["unsure"]].tolist() == [2]
    assert turning["frame"][turning["switch"]].tolist() == [3]


def test_everything_is_written(results, tmp_path):
    folder = results.write(tmp_path / "out")
    table = pd.read_csv(folder / "tracks.csv")
    assert (table["species"] == "Si3C6").sum() == 4
    assert nx.read_graphml(folder / "graph.graphml").number_of_edges() == results.graph.number_of_edges()
    assert (folder / "atoms.xyz").read_text().count("Properties=") == 4
    for kind in ("atoms", "defects", "tracks"):
        known = {c.name for c in (*nd.tables.TABLES[kind], *nd.tables.EXTRAS[kind])}
        assert set(pd.read_csv(folder / f"{kind}.csv")) <= known, kind
    for name in ("bonds", "angles", "rings", "defects", "transitions", "rotors", "drift", "hops", "hop_rates"):
        assert (folder / f"{name}.csv").is_file(), name


def test_the_command_line_takes_a_folder_with_a_missing_frame(rotor, tmp_path):
    folder = tmp_path / "movie"
    folder.mkdir()
    for number, frame in ((8, 0), (10, 2)):
        nd.io.write_micrograph(nd.Micrograph(rotor.data[frame], 0.0145), folder / f"frame_{number}.tif")
    micrograph = nd.read_micrograph(folder)
    assert np.isnan(micrograph.data).all(axis=(1, 2)).tolist() == [False, True, False]
    assert micrograph.metadata["first_frame"] == 8
    done = CliRunner().invoke(app, ["bonds", str(folder), "-o", str(tmp_path / "out"), "--calibrate"])
    assert done.exit_code == 0, done.output
    assert "Si3C6" in done.output
    assert pd.read_csv(tmp_path / "out" / "tracks.csv")["frame"].unique().tolist() == [0, 2]


def test_folders_are_read_in_natural_order_and_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        nd.read_micrograph(tmp_path)
    for number in (1, 2, 10):
        np.save(tmp_path / f"{number}.npy", np.full((40, 40), number, np.float32))
    assert nd.read_micrograph(tmp_path).data[:, 0, 0].tolist() == [1, 2, 10], "far too few for numbers"
    np.save(tmp_path / "11.npy", np.zeros((40, 41), np.float32))
    with pytest.raises(ValueError, match=r"11\.npy in .* is no frame of 40 x 40 px"):
        nd.read_micrograph(tmp_path)
    (tmp_path / "picture.png").touch()
    with pytest.raises(ValueError, match="files of 2 kinds"):
        nd.read_micrograph(tmp_path)


def test_both_elements_of_hbn_and_which_one_is_missing():
    micrograph, _ = nd.simulate(
        "hBN", field_of_view_nm=3.0, pixel_size_nm=0.0125, at=[("V_B", 1.0, 1.0), ("V_N", 2.0, 2.0)],
        microscope=nd.Microscope(60.0, 31.0, 86.0, 200.0, 0.08), dose_e_per_A2=3e6, seed=0,
    )  # fmt: skip
    results = nd.analyze_bonds(micrograph, crystal="hBN")
    assert results.atoms["element"].value_counts().min() > 0.45 * len(results.atoms)
    assert results.defects["species"].tolist() == ["V_B", "V_N"]
    graphene, _ = nd.simulate("graphene", field_of_view_nm=2.0, pixel_size_nm=0.0145, dose_e_per_A2=1e4, seed=0)
    with pytest.raises(ValueError, match="no lattice of hBN found"):
        nd.analyze_bonds(graphene, crystal="hBN")


def test_vacancies_and_no_others_are_found_where_atoms_are_lost_in_the_noise():
    scan = {
        "field_of_view_nm": 4.0,
        "pixel_size_nm": 0.0156,
        "microscope": nd.Microscope(60.0, 31.0, 86.0, 200.0, 0.08),
    }
    pristine, _ = nd.simulate("graphene", **scan, dose_e_per_A2=2e5, scan=nd.Scan(rotation_deg=10.0), seed=2)
    assert nd.analyze_bonds(pristine).defects.empty, "a V4 with a probability of 1.0 once"
    at = [("V1", 1.2, 1.3), ("V2", 2.8, 2.7)]
    pitted, _ = nd.simulate("graphene", **scan, dose_e_per_A2=3e5, scan=nd.Scan(rotation_deg=14.0), at=at, seed=2)
    assert sorted(nd.analyze_bonds(pitted).defects["species"]) == ["V1", "V2"], "hardly a ring closes"


def test_a_rotated_bond_leaves_two_sites_but_no_vacancy():
    at = [("SW", 1.0, 1.0)]
    turned, _ = nd.simulate(
        "graphene", field_of_view_nm=2.4, pixel_size_nm=0.0156, dose_e_per_A2=2e6, at=at, seed=1,
        microscope=nd.Microscope(60.0, 31.0, 86.0, 200.0, 0.08),
    )  # fmt: skip
    assert nd.analyze_bonds(turned).defects["species"].tolist() == ["SW"]


def test_words_for_wrong_input(rotor):
    with pytest.raises(ValueError, match="columns of several atoms"):
        nd.analyze_bonds(rotor, crystal="WSe2")
    with pytest.raises(ValueError, match="every frame is blank"):
        nd.analyze_bonds(nd.Micrograph(np.zeros((2, 64, 64), np.float32), 0.02))
