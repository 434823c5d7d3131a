"""Movies with their true tracks."""

from __future__ import annotations

import numpy as np
import pytest

import napari_defects as nd
from napari_defects.simulation import Motion


def movie(crystal: str = "WSe2", **options: object) -> tuple[nd.Micrograph, object]:
    return nd.simulate(crystal, field_of_view_nm=5, pixel_size_nm=0.03, **options)  # type: ignore[arg-type]


def test_a_still_crystal_stays() -> None:
    micrograph, sites = movie(defects={"V_Se": 5}, frames=4, frame_interval_s=0.5, shot_noise=False)
    assert micrograph.data.shape == (4, 167, 167)
    assert micrograph.frame_interval_s == 0.5
    truth = micrograph.metadata["defects"]
    assert (truth.groupby("track")["frame"].nunique() == 4).all()
    assert truth["defect"].is_unique
    assert (truth.groupby("track")[["y_nm", "x_nm"]].std() < 1e-9).all().all()
    assert sites["frame"].nunique() == 4


def test_drift_goes_on_from_frame_to_frame() -> None:
    drift = nd.Scan(drift_pm_per_line=(0.3, -0.2))
    micrograph, _ = movie(defects={"V_Se": 0.05}, frames=3, scan=drift, detector=nd.Detector(read_noise_e=0))
    truth = micrograph.metadata["defects"].set_index(["track", "frame"])
    places = truth[["y_nm", "x_nm"]]
    step = (places.xs(1, level="frame") - places.xs(0, level="frame")).dropna()
    np.testing.assert_allclose(step.mean(), [-0.167 * 0.3, 0.167 * 0.2], rtol=0.03)


def test_a_hop_is_one_neighbor_far() -> None:
    micrograph, _ = movie(defects={"V_Se": 12}, frames=12, motion={"V_Se": Motion(hop=0.5)}, seed=3)
    truth = micrograph.metadata["defects"].sort_values(["track", "frame"])
    same = truth["track"].diff() == 0
    step = np.hypot(truth["y_nm"].diff(), truth["x_nm"].diff())[same & (truth["frame"].diff() == 1)]
    moved = step > 0.05
    assert 0.35 < moved.mean() < 0.65
    np.testing.assert_allclose(step[moved], 0.3282, rtol=1e-3)
    assert not truth.duplicated(["frame", "i", "j", "sublattice"]).any()


def test_switches_vanishing_and_new_ones() -> None:
    motion = {"V_Se": Motion(switch=0.3, becomes="V2_Se", vanish=0.1, appear=1.0)}
    truth = movie(defects={"V_Se": 10}, frames=8, motion=motion, seed=1)[0].metadata["defects"]
    assert set(truth["species"]) == {"V_Se", "V2_Se"}
    first, last = (set(truth.loc[truth["frame"] == k, "track"]) for k in (0, 7))
    assert first - last
    assert last - first
    became = truth[truth["species"] == "V2_Se"].groupby("track")["frame"].min()
    was = truth[truth["species"] == "V_Se"].groupby("track")["frame"].max()
    assert (became > was.reindex(became.index).fillna(-1)).all()


def test_silicon_walks_through_graphene() -> None:
    micrograph, sites = movie("graphene", at=[("Si1C3", 2.5, 2.5)], frames=6, motion={"Si1C3": Motion(hop=1.0)})
    truth = micrograph.metadata["defects"]
    assert len(truth) == 6
    step = np.hypot(truth["y_nm"].diff(), truth["x_nm"].diff())[1:]
    np.testing.assert_allclose(step, 0.142, atol=0.003)
    assert (sites["elements"] == "Si").sum() == 6


@pytest.mark.parametrize(("kind", "atoms"), [("Si3C6", 3), ("Si4C6", 4)])
def test_a_rotor_turns_at_known_frames(kind: str, atoms: int) -> None:
    motion = {kind: Motion(turn_at=(2, 5))}
    micrograph, sites = movie("graphene", at=[(kind, 2.5, 2.5)], frames=7, motion=motion, seed=4)
    truth = micrograph.metadata["defects"]
    assert list(truth["species"]) == [kind] * 7
    assert truth[["y_nm", "x_nm"]].std().max() < 1e-3
    silicon = sites[sites["elements"] == "Si"]
    assert (silicon.groupby("frame").size() == atoms).all()
    offset = silicon[["y_nm", "x_nm"]].to_numpy().reshape(7, atoms, 2) - truth[["y_nm", "x_nm"]].to_numpy()[:, None]
    order = (offset @ np.array([-1j, 1])) ** 3
    angle = np.angle(order.sum(1))
    turned = np.cos(np.diff(angle)) < 0
    assert np.flatnonzero(turned).tolist() == [1, 4]


def test_defects_at_given_places() -> None:
    places = [("V_Se", 1.0, 1.5), ("Te2_W", 3.0, 3.2)]
    truth = movie(at=places)[0].metadata["defects"]
    assert list(truth["species"]) == ["V_Se", "Te2_W"]
    assert (np.hypot(truth["y_nm"] - [1.0, 3.0], truth["x_nm"] - [1.5, 3.2]) < 0.2).all()


@pytest.mark.parametrize(
    "make",
    [lambda: Motion(hop=2), lambda: Motion(appear=-1), lambda: Motion(switch=0.1), lambda: movie(frames=0),
     lambda: movie(clustering=2.0), lambda: movie(at=[("V_Mo", 1, 1)]), lambda: movie(motion={"SW": Motion()})],
)  # fmt: skip
def test_nonsense_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"must|belongs|has no site"):
        make()  # type: ignore[operator]
