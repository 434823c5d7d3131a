import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects import tables
from napari_defects.crystals import GRAPHENE
from napari_defects.lattice.phasing import Host
from napari_defects.tracks import (
    dwell_times,
    dwells,
    find_hops,
    hop_rates,
    measure_drift,
    rotor,
    rotors,
    track,
    transition_matrix,
    transitions,
)


def defects(frames, places, species="Si1C3"):
    n = len(frames)
    table = pd.DataFrame({c.name: [np.nan] * n for c in tables.DEFECTS})
    table["frame"], table["defect"] = frames, range(n)
    table[["y_nm", "x_nm"]] = np.asarray(places, float)
    table["i"] = table["j"] = pd.NA
    table["species"], table["probability"], table["method"], table["sublattice"] = species, 1.0, "truth", ""
    return table


def walk(frames, *, seed=0, start=(2.0, 2.0), step=0.142):
    """A silicon that hops to a neighbouring site in random frames."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, len(frames))
    hops = rng.random(len(frames)) < 0.3
    steps = step * hops[:, None] * np.column_stack([np.sin(angle), np.cos(angle)])
    return np.asarray(start) + np.cumsum(steps, axis=0) + rng.normal(0, 0.01, steps.shape)


def test_a_walk_through_missing_frames_is_one_track_and_nothing_is_invented():
    frames = [f for f in range(2, 53) if f not in (18, 28, 29, 46)]
    table = defects(frames, walk(frames))
    tracks = track(table)
    assert tracks["track"].unique().tolist() == [0]
    assert tracks["frame"].tolist() == frames
    assert list(tracks.columns) == [*(c.name for c in tables.TRACKS), "unsure", "gone"]


def test_two_walkers_keep_their_numbers_and_rows_keep_their_order():
    frames = np.repeat(np.arange(40), 2)
    places = np.empty((80, 2))
    places[0::2], places[1::2] = walk(range(40), seed=1), walk(range(40), seed=2, start=(2.0, 4.5))
    shuffled = defects(frames, places).sample(frac=1, random_state=0)
    tracks = track(shuffled)
    assert tracks["defect"].tolist() == shuffled["defect"].tolist()
    assert tracks.groupby(tracks["defect"] % 2)["track"].nunique().tolist() == [1, 1]
    assert tracks["track"].nunique() == 2


def test_memory_is_the_number_of_frames_that_may_be_missing():
    for missing, memory, expected in [(2, 2, 1), (3, 2, 2), (1, 0, 2), (1, 1, 1)]:
        frames = [0, 1, 2, 3 + missing, 4 + missing]
        tracks = track(defects(frames, np.ones((5, 2))), memory_frames=memory)
        assert tracks["track"].nunique() == expected, (missing, memory)


def test_a_jump_beyond_the_step_begins_a_new_track():
    places = np.array([[1.0, 1.0], [1.0, 1.4], [1.0, 2.0]])
    assert track(defects([0, 1, 2], places))["track"].tolist() == [0, 0, 1]
    assert track(defects([0, 1, 2], places), max_step_nm=0.7)["track"].tolist() == [0, 0, 0]
    assert track(defects([0, 1, 3], places))["track"].tolist() == [0, 0, 0]  # two frames for the second step


def test_stills_and_empty_tables_pass():
    assert track(defects([0, 0], [[1, 1], [2, 2]]))["track"].tolist() == [0, 1]
    assert track(tables.empty("defects")).empty
    assert transitions(track(tables.empty("defects"))).empty


def test_switches_are_found_in_their_frame_or_in_their_gap():
    frames = [0, 1, 2, 3, 6, 7, 8]
    species = ["Si1C3"] * 3 + ["Si1C4"] + ["Si1C3"] * 3
    tracks = track(defects(frames, np.ones((7, 2)), species))
    changes = transitions(tracks)
    assert changes[["frame", "frame_before", "gap_frames"]].to_numpy().tolist() == [[3, 2, 0], [6, 3, 2]]
    assert changes["species_to"].tolist() == ["Si1C4", "Si1C3"]
    matrix = transition_matrix(tracks)
    assert matrix.loc["Si1C3", "Si1C4"] == 1
    assert matrix.loc["Si1C4", "Si1C3"] == 1
    assert matrix.to_numpy().sum() == 6
    stay = dwells(tracks)
    assert stay["frames"].tolist() == [3, 3, 3]
    assert stay["left"].tolist() == [True, True, False]
    assert stay["complete"].tolist() == [False, True, False]


def test_dwell_times_cover_the_true_rate():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(40):
        state = np.cumsum(rng.random(400) < np.where(np.arange(400) >= 0, 0.05, 0)) % 2
        tracks = defects(range(400), np.ones((400, 2)), np.array(["Si1C3", "Si1C4"])[state]).assign(track=0)
        times = dwell_times(tracks, frame_interval_s=0.5).set_index("species")
        inside += int(times.loc["Si1C3", "dwell_low"] < 10.0 < times.loc["Si1C3", "dwell_high"])
    assert inside >= 35
    never = dwell_times(defects(range(9), np.ones((9, 2))).assign(track=0))
    assert np.isinf(never["dwell"].item())
    assert never["dwell_low"].item() == pytest.approx(8 / 3.689, rel=1e-3), "after the ninth nothing was seen"


def test_a_defect_that_is_gone_while_the_movie_goes_on_has_departed():
    table = defects([0, 1, 2, 3, 4], np.ones((5, 2)))
    assert not track(table)["gone"].any(), "perhaps the movie ends here"
    table.attrs["last_frame"] = 6
    assert not track(table)["gone"].any(), "two frames it may be missing"
    table.attrs["last_frame"] = 7
    tracks = track(table)
    assert tracks.index[tracks["gone"]].tolist() == [4]
    assert dwells(tracks)[["left", "complete"]].to_numpy().tolist() == [[True, False]]
    assert dwell_times(tracks)[["departures", "dwell"]].to_numpy().tolist() == [[1, 5.0]]
    out = track(table.assign(border_nm=[1.0, 1.0, 0.8, 0.5, 0.2]))
    assert not out["gone"].any(), "it left the view"


def test_the_mean_life_of_what_vanishes_is_found():
    rng = np.random.default_rng(2)
    life = np.minimum(rng.geometric(0.2, 60), 40)  # frames, of a movie of 40
    table = defects(
        np.concatenate([np.arange(n) for n in life]), np.repeat([[1.0, 3.0 * k] for k in range(60)], life, axis=0)
    )
    table.attrs["last_frame"] = 39
    times = dwell_times(track(table)).iloc[0]
    assert times["dwell_low"] < 5 < times["dwell_high"] < 8


def test_frames_in_which_a_defect_is_cut_by_the_border_are_unsure():
    species = ["Si1C4", "Si1C4", "Si1C3+V1", "Si1C3+V1"]
    tracks = track(defects(range(4), np.ones((4, 2)), species).assign(cut=[False, False, True, True]))
    assert tracks["unsure"].tolist() == [False, False, True, True]
    assert transitions(tracks).empty


def test_dwell_times_of_short_tracks_are_not_too_long():
    rng, lives = np.random.default_rng(5), []
    for k in range(400):
        state = np.cumsum(np.append(0, rng.random(2) < 0.2)) % 2
        lives.append(defects(range(3), np.ones((3, 2)), np.array(["Si1C3", "Si1C4"])[state]).assign(track=k))
    dwell = dwell_times(pd.concat(lives, ignore_index=True)).set_index("species").loc["Si1C3"]
    assert dwell["dwell_low"] < 5 < dwell["dwell_high"]


def triangles(angles, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for frame, angle in enumerate(angles):
        for k in range(3):
            turn = np.deg2rad(angle + 120 * k)
            place = np.array([-np.sin(turn), np.cos(turn)]) * 0.15 + rng.normal(0, noise, 2)
            rows.append((frame, 2 + place[0], 3 + place[1], noise, noise))
    return pd.DataFrame(rows, columns=["frame", "y_nm", "x_nm", "y_err_nm", "x_err_nm"])


@pytest.mark.parametrize("offset", [0, 17, 31, 55, 89])
def test_a_rotor_switches_by_60_degrees_in_the_known_frames(offset):
    state = np.zeros(72, int)
    for frame in (10, 11, 30, 55):
        state[frame:] ^= 1
    found = rotor(triangles(offset + 60 * state))
    assert found.index[found["switch"]].tolist() == [10, 11, 30, 55]
    assert not found["unsure"].any()
    folded = (found["angle_deg"] - offset - 60 * state + 60) % 120 - 60
    assert np.std(folded) == pytest.approx(found["angle_err_deg"].mean(), rel=0.3)
    assert abs(folded.mean()) < 1


def test_a_frame_during_the_turn_is_flagged_not_forced():
    table = triangles([5.0] * 10 + [65.0] * 10, noise=0.005)
    during = table["frame"] == 10
    table.loc[during, ["y_nm", "x_nm"]] = [[1.9, 3.0], [2.1, 3.02], [2.0, 2.97]]
    turned = rotor(table)
    assert turned.index[turned["unsure"]].tolist() == [10]
    assert turned.index[turned["switch"]].tolist() == [11]
    halfway = rotor(triangles([5.0] * 10 + [35.0] + [65.0] * 10, noise=0.005))
    assert halfway.index[halfway["unsure"]].tolist() == [10]
    assert halfway.index[halfway["switch"]].tolist() == [11]
    bent = triangles([5.0] * 10 + [65.0] * 10, noise=0.005)
    bent.loc[bent.index[bent["frame"] == 4][0], "y_nm"] += 0.12
    assert rotor(bent).loc[4, "distortion"] > 0.15
    assert rotor(bent).loc[4, "unsure"]
    two = table[~((table["frame"] == 4) & (table.index % 3 == 0))]
    assert rotor(two).loc[4, "unsure"]


# -- drift, hops, smoothing ------------------------------------------------------------------------------------------


def drifting(steps, start=(0.05, 0.08)):
    """Lattices of graphene that have drifted by so much, each told by another of its equal cells."""
    rng = np.random.default_rng(0)
    vectors = GRAPHENE.vectors_nm
    cells = rng.integers(-3, 4, (len(steps), 2))
    return {n: Host(GRAPHENE, np.array(start) + d + c @ vectors, vectors, 2.0) for n, d, c in
            zip(range(len(steps)), steps, cells, strict=True)}  # fmt: skip


def test_drift_is_followed_through_equal_cells_and_taken_out():
    path = np.cumsum(np.tile([0.05, -0.03], (20, 1)), axis=0) - [0.05, -0.03]
    path[10:] += np.cumsum(np.tile([0.1, 0.0], (10, 1)), axis=0)  # faster: more than a cell in all
    lattices = drifting(path)
    del lattices[7]
    drift = measure_drift(lattices)
    assert drift[["dy_nm", "dx_nm"]].to_numpy() == pytest.approx(np.delete(path, 7, axis=0), abs=1e-9)
    assert drift["dy_err_nm"][1:].to_numpy() == pytest.approx(0.002 * np.sqrt(2))
    table = defects(range(20), np.array([1.0, 1.0]) + path)
    assert track(table, max_step_nm=0.1)["track"].nunique() > 1
    still = track(table, max_step_nm=0.1, drift=drift)
    assert still["track"].nunique() == 1
    assert still[["y_crystal_nm", "x_crystal_nm"]].std().max() < 0.02  # frame 7 is interpolated
    assert still[["y_nm", "x_nm"]].equals(table[["y_nm", "x_nm"]])


def hopping(n=400, chance=0.1, noise=0.02, seed=1):
    """A silicon on the sites of graphene, hopping along bonds; positions, and the frames of its hops."""
    rng = np.random.default_rng(seed)
    lattice = Host(GRAPHENE, np.zeros(2), GRAPHENE.vectors_nm)
    sites = lattice.sites_within(np.array([20.0, 20.0]))[1]
    here = int(np.argmin(np.linalg.norm(sites - 10, axis=1)))
    places, frames = [], []
    for frame in range(n):
        if frame and rng.random() < chance:
            near = np.flatnonzero(np.abs(np.linalg.norm(sites - sites[here], axis=1) - 0.142) < 0.01)
            here = int(rng.choice(near))
            frames.append(frame)
        places.append(sites[here])
    return np.array(places) + rng.normal(0, noise, (n, 2)), frames, lattice


def test_hops_are_found_counted_and_make_a_diffusion_coefficient():
    places, known, lattice = hopping()
    tracks = track(defects(range(400), places))
    hops = find_hops(tracks, lattice)
    assert hops["frame"].tolist() == known
    assert (hops["bonds"] == 1).all()
    assert hops["step_nm"].mean() == pytest.approx(0.142, abs=0.01)
    rates = hop_rates(tracks, hops, frame_interval_s=0.5).iloc[0]
    assert rates["rate_low"] < 0.2 < rates["rate_high"]
    assert rates["rate"] == pytest.approx(len(known) / 199.5)
    assert rates["diffusion_nm2"] == pytest.approx(rates["rate"] * 0.142**2 / 4, rel=0.1)
    quiet = track(defects(range(100), np.full((100, 2), 5.0) + np.random.default_rng(0).normal(0, 0.02, (100, 2))))
    none = hop_rates(quiet, find_hops(quiet, lattice)).iloc[0]
    assert (none["hops"], none["rate"], none["rate_low"]) == (0, 0, 0)
    assert none["rate_high"] == pytest.approx(3.689 / 99, rel=1e-3)
    assert find_hops(track(tables.empty("defects")), lattice).empty


def test_a_long_jump_is_so_many_bonds_and_the_time_of_a_gap_counts():
    lattice = Host(GRAPHENE, np.zeros(2), GRAPHENE.vectors_nm)
    sites = lattice.sites_within(np.array([8.0, 8.0]))[1]
    a = int(np.argmin(np.linalg.norm(sites - 4, axis=1)))
    b = int(np.flatnonzero(np.abs(np.linalg.norm(sites - sites[a], axis=1) - 0.246) < 1e-3)[0])
    tracks = track(defects([0, 1, 4, 5], sites[[a, a, b, b]]))
    hop = find_hops(tracks, lattice)
    assert hop[["frame", "frame_before", "gap_frames", "bonds"]].to_numpy().tolist() == [[4, 1, 2, 2]]


def test_the_smoother_is_off_by_default_and_overrules_only_doubtful_frames():
    species = ["Si1C3"] * 10 + ["Si1C4"] * 10
    species[4] = species[15] = "Si1C2"
    species[12] = "Si1C3"
    table = defects(range(20), np.ones((20, 2)), species)
    table["probability"] = [0.9] * 20
    table.loc[[4, 15], "probability"] = 0.6
    raw = track(table)
    assert raw["species"].tolist() == species
    smooth = track(table, smooth_frames=10)
    assert smooth["species"].tolist() == ["Si1C3"] * 10 + ["Si1C4"] * 10
    assert smooth["species_seen"].tolist() == species
    table.loc[12, "probability"] = 0.999
    table.loc[13, ["species", "probability"]] = ["Si1C3", 0.999]
    sure = track(table, smooth_frames=3)
    assert sure["species"].tolist()[12:14] == ["Si1C3", "Si1C3"], "two sure frames are believed"
    with pytest.raises(ValueError, match="`smooth_frames` must be above 1"):
        track(table, smooth_frames=0.5)


def test_a_frame_between_two_classes_that_is_neither_is_unsure_and_no_change_of_its_own():
    species = ["Si1C3"] * 4 + ["Si1C2"] + ["Si1C4"] * 4
    tracks = track(defects(range(9), np.ones((9, 2)), species))
    assert tracks.index[tracks["unsure"]].tolist() == [4]
    change = transitions(tracks)
    assert change[["frame", "frame_before", "gap_frames"]].to_numpy().tolist() == [[5, 3, 1]]
    assert change["species_to"].tolist() == ["Si1C4"]
    assert dwells(tracks)["frames"].tolist() == [5, 4]
    doubtful = defects(range(3), np.ones((3, 2))).assign(probability=[1.0, 0.3, 1.0])
    assert track(doubtful)["unsure"].tolist() == [False, True, False]


def test_two_that_merge_and_one_that_splits_are_told_by_their_parents():
    frames = [0, 0, 1, 1, 2, 3, 4, 4, 5, 5]
    x = [1.0, 1.8, 1.1, 1.7, 1.4, 1.4, 1.2, 1.6, 1.0, 1.8]
    table = defects(frames, np.column_stack([np.ones(10), x]))
    assert "parents" not in track(table).attrs
    tracks = track(table, branching=True)
    assert tracks["track"].nunique() == 5
    parents = tracks.attrs["parents"]
    middle = int(tracks["track"][tracks["frame"] == 2].item())
    assert sorted(parents[middle]) == [0, 1]
    assert sorted(child for child, own in parents.items() if own == [middle]) == [3, 4]


def test_rotors_are_found_among_the_defects_of_a_movie():
    atoms = triangles([0, 0, 0, 60, 60, 0])
    atoms["element"] = "Si"
    carbon = atoms.assign(element="C", y_nm=atoms["y_nm"] + 0.1)
    table = defects(list(range(6)) * 2, [[2, 3]] * 6 + [[9, 9]] * 6, ["Si3C6"] * 6 + ["Si1C3"] * 6)
    table.loc[2, "species"] = "Si2C5"
    tracks = track(table)
    found = rotors(pd.concat([atoms, carbon], ignore_index=True), tracks)
    assert found["track"].unique().tolist() == [0]
    assert found["frame"][found["switch"]].tolist() == [3, 5]
    assert found["angle_deg"].diff().abs().max() == pytest.approx(60, abs=8), "no fold where the rotor lies"
    fourth = pd.DataFrame(
        {"frame": range(6), "y_nm": 2.0, "x_nm": 3.0, "y_err_nm": 0.01, "x_err_nm": 0.01, "element": "Si"}
    )
    four = rotors(pd.concat([atoms, fourth], ignore_index=True), tracks.assign(species="Si4C6"))
    assert four["frame"][four["switch"]].tolist() == [3, 5]
    assert rotors(atoms, tracks[tracks["species"] == "Si1C3"]).empty


def test_words_for_wrong_input():
    with pytest.raises(ValueError, match=r"not a table of defects.*run classify"):
        track(pd.DataFrame({"frame": [0]}))
    with pytest.raises(ValueError, match="`max_step_nm` must be positive"):
        track(tables.empty("defects"), max_step_nm=0)
    with pytest.raises(ValueError, match="`memory_frames` must be"):
        track(tables.empty("defects"), memory_frames=-1)
    with pytest.raises(ValueError, match="no position; drop"):
        track(defects([0, 1], [[np.nan, 1], [1, 1]]))
    with pytest.raises(ValueError, match="`triangles` has no column 'y_nm'"):
        rotor(pd.DataFrame({"frame": [0]}))
    with pytest.raises(ValueError, match="`confidence` must be"):
        dwell_times(tables.empty("tracks"), confidence=95)
    one = track(defects([0], [[1, 1]]))
    assert dwell_times(one)[["dwell", "dwell_low", "dwell_high"]].to_numpy().tolist() == [[np.inf, 0, np.inf]]
    for use in (dwell_times, lambda t, **k: hop_rates(t, t, **k)):
        with pytest.raises(ValueError, match="`frame_interval_s` must be positive, got -1"):
            use(one, frame_interval_s=-1)
    with pytest.raises(ValueError, match="`atoms` has no column 'frame'"):
        rotors(pd.DataFrame(), pd.DataFrame())
    with pytest.raises(ValueError, match=r"not a table of tracks.*run track"):
        rotors(pd.DataFrame(columns=["frame", "y_nm", "x_nm", "element"]), pd.DataFrame())


def test_the_error_of_drift_is_that_of_the_lattice_not_of_an_atom():
    rng = np.random.default_rng(0)
    _, sites = nd.simulate("WSe2", field_of_view_nm=6, seed=1)
    sites = sites.dropna(subset=["y_nm"])
    shaken = [sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy() + rng.normal(0, 0.005, (len(sites), 2)) for _ in range(8)]
    still = pd.concat([sites.assign(frame=n, y_nm=p[:, 0], x_nm=p[:, 1]) for n, p in enumerate(shaken)])
    drift = measure_drift(nd.fit_lattice(still.assign(y_err_nm=0.005, x_err_nm=0.005), "WSe2"), (3.0, 3.0))[1:]
    assert drift[["dy_err_nm", "dx_err_nm"]].to_numpy().max() < 0.002
    assert np.abs(drift[["dy_nm", "dx_nm"]].to_numpy() / drift[["dy_err_nm", "dx_err_nm"]].to_numpy()).max() < 4
