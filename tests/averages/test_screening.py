"""Strain from elsewhere: found, told, left out. Precision from parts, and what it takes."""

from __future__ import annotations

import numpy as np
import pytest

import napari_defects as nd
from napari_defects.simulation import Scan


@pytest.fixture(scope="module")
def still():
    micrograph, sites = nd.simulate(
        "WSe2", field_of_view_nm=14.0, pixel_size_nm=0.02, defects={"V_Se": 24}, dose_e_per_A2=1e5, seed=4
    )
    return micrograph, sites, micrograph.metadata["defects"]


def strained(sites, places: np.ndarray, strain: float):
    """Columns around some places pulled apart along x."""
    result = sites.copy()
    result.attrs = dict(sites.attrs)
    for y, x in places:
        dy, dx = sites["y_ideal_nm"] - y, sites["x_ideal_nm"] - x
        near = np.hypot(dy, dx) < 1.6
        result.loc[near, "x_nm"] += strain * dx[near]
    return result


def test_members_in_a_strained_place_are_left_out(still):
    micrograph, sites, defects = still
    usual = nd.average(micrograph, defects, sites=sites)["V_Se"].members
    good = usual[usual["accepted"]]
    pulled = good.iloc[[0, 1]]
    table = strained(sites, pulled[["y_nm", "x_nm"]].to_numpy(), 0.01)
    members = nd.average(micrograph, defects, sites=table, overlap=False)["V_Se"].members.set_index("defect")
    assert (members.loc[pulled["defect"], "reason"] == "strain from elsewhere").all()
    assert members.loc[pulled["defect"], "strain"].to_numpy() == pytest.approx(0.01, rel=0.3)
    assert members.loc[members["accepted"], "strain"].max() < 0.005
    strict = nd.average(micrograph, defects, sites=table, overlap=False, max_strain=0.5)["V_Se"].members
    assert "strain from elsewhere" not in set(strict["reason"])


def test_precision_draws_and_bootstraps_agree(still):
    micrograph, sites, defects = still
    found = nd.average(micrograph, defects, sites=sites)["V_Se"]
    whole = found.precision[found.precision["n"] == found.n].set_index("sublattice")
    errors = found.sites.groupby("sublattice")[["y_bootstrap_nm", "x_bootstrap_nm"]].apply(
        lambda e: 1000 * np.sqrt((e.to_numpy() ** 2).mean())
    )
    assert errors["W"] == pytest.approx(whole.loc["W", "precision_pm"], rel=0.15)
    draws = found.draws(500)
    w = (found.sites["sublattice"] == "W").to_numpy()
    assert draws[:, w].std() == pytest.approx(whole.loc["W", "precision_pm"], rel=0.15)
    needed = found.members_for(whole.loc["W", "precision_pm"] / 2).set_index("sublattice")
    assert needed.loc["W", "n"] == pytest.approx(4 * found.n, rel=1e-6)
    assert needed.loc["W", "n_bound"] < 1.3 * needed.loc["W", "n"]
    with pytest.raises(ValueError, match="precision_pm"):
        found.members_for(0)
    fit = nd.fit_eshelby(found.strain(), draws_pm=draws)
    assert 1e-3 < fit.oscillation.p_value <= 1
    with pytest.raises(ValueError, match="draws_pm"):
        nd.fit_eshelby(found.strain(), draws_pm=draws[:, :3])


def test_small_classes_are_not_better_than_their_bound(still):
    micrograph, sites, defects = still
    members = nd.average(micrograph, defects, sites=sites)["V_Se"].members
    alone = members.loc[members["accepted"], "defect"].to_numpy()
    ratios = []
    for k in range(0, min(len(alone) - 3, 16), 4):
        few = defects[defects["defect"].isin(alone[k : k + 4])]
        curve = nd.average(micrograph, few, sites=sites, overlap=False)["V_Se"].precision
        ratios += list((curve["precision_pm"] / curve["bound_pm"])[curve["n"] == 4])
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.08)


def test_frames_of_a_drifting_movie_are_brought_together():
    movie, sites = nd.simulate(
        "WSe2", field_of_view_nm=6.0, pixel_size_nm=0.022, defects={"V_Se": 4}, dose_e_per_A2=1e5, frames=3, seed=3,
        scan=Scan(drift_pm_per_line=(0.3, 0.5)),
    )  # fmt: skip
    found = nd.average(movie, movie.metadata["defects"], sites=sites, radius_nm=0.6)["V_Se"]
    members = found.members[found.members["accepted"]]
    assert set(members["frame"]) == {0, 1, 2}
    shift = members[["dy_pm", "dx_pm"]].to_numpy()
    assert np.abs(shift - np.median(shift, axis=0)).max() < 6
