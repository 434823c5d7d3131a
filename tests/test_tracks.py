import numpy as np
import pandas as pd
import pytest

from napari_defects import tables
from napari_defects.tracks import dwell_times, dwells, rotor, track, transition_matrix, transitions


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
    assert list(tracks.columns) == [*(c.name for c in tables.TRACKS), "unsure"]


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
    assert never["dwell_low"].item() == pytest.approx(9 / 3.689, rel=1e-3)


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
    two = table[~((table["frame"] == 4) & (table.index % 3 == 0))]
    assert rotor(two).loc[4, "unsure"]


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
