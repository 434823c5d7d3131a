"""simulate and training_pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import napari_defects as nd
from napari_defects import tables
from napari_defects.simulation import PRESETS, Conditions, Surface, training_pairs, training_species

CLEAN = {"detector": nd.Detector(read_noise_e=0), "shot_noise": False}


def peak_offsets_pm(micrograph: nd.Micrograph, positions_nm: np.ndarray) -> np.ndarray:
    """Distance from given positions to the local maxima of an image, by a quadratic fit of the logarithm."""
    image = np.log(np.asarray(micrograph.data, float))
    pixel = micrograph.pixel_size_yx_nm
    y, x = np.mgrid[-1:2, -1:2]
    design = np.stack([np.ones(9), y.ravel(), x.ravel(), y.ravel() ** 2, x.ravel() ** 2, (x * y).ravel()], 1)
    result = []
    for place in positions_nm / pixel:
        row, column = np.rint(place).astype(int)
        if min(row, column) < 8 or row > image.shape[0] - 9 or column > image.shape[1] - 9:
            continue
        c = np.linalg.lstsq(design, image[row - 1 : row + 2, column - 1 : column + 2].ravel(), rcond=None)[0]
        peak = -np.linalg.solve([[2 * c[3], c[5]], [c[5], 2 * c[4]]], c[1:3])
        result.append((np.array([row, column]) + peak - place) * pixel * 1e3)
    return np.array(result)


@pytest.mark.parametrize(
    ("scan", "limit_pm"),
    [(nd.Scan(rotation_deg=33), 0.03), (nd.Scan(rotation_deg=33, drift_pm_per_line=(0.8, -1.1)), 0.05),
     (nd.Scan(rotation_deg=33, drift_pm_per_line=(0.8, -1.1), wander_pm=40, flyback_pm=60), 0.3)],
)  # fmt: skip
def test_truth_is_where_the_columns_are_seen(scan: nd.Scan, limit_pm: float) -> None:
    micrograph, sites = nd.simulate(
        "WSe2", field_of_view_nm=(5, 6), pixel_size_nm=(0.0115, 0.0125), scan=scan, seed=3, **CLEAN
    )
    offset = peak_offsets_pm(micrograph, tables.positions_nm(sites))
    assert len(offset) > 500
    assert np.abs(offset.mean(0)).max() < 0.03
    assert np.sqrt((offset**2).mean(0)).max() < limit_pm


def test_sites_and_defects() -> None:
    defects = {"V_Se": 0.1, "V2_Se": 0.05, "Te_Se": 0.05, "V_W": 6}
    micrograph, sites = nd.simulate("WSe2", defects=defects, seed=1)
    tables.check(sites, "sites")
    assert micrograph.shape_yx == (500, 500)
    assert sites.attrs["crystal"] == "WSe2"
    truth = tables.check(micrograph.metadata["defects"], "defects")
    assert set(truth["species"]) == set(defects)
    assert (truth["method"] == "truth").all()
    assert (truth["species"] == "V_W").sum() == 6
    changed = sites[~sites["species"].isin(["W", "Se2"])]
    assert len(changed) == len(truth)
    empty = sites["species"].isin(["V2_Se", "V_W"])
    assert sites.loc[empty, "y_nm"].isna().all()
    assert sites.loc[~empty, "y_nm"].notna().all()
    assert sites["y_ideal_nm"].notna().all()
    assert set(sites.loc[sites["species"] == "Te_Se", "elements"]) == {"Se+Te"}
    key = ["i", "j", "sublattice"]
    merged = truth.merge(sites, on=key, suffixes=("", "_site"))
    assert len(merged) == len(truth)
    assert (merged["species"] == merged["species_site"]).all()
    np.testing.assert_allclose(merged["y_nm"], merged["y_nm_site"].fillna(merged["y_ideal_nm"]))
    assert micrograph.metadata["simulation"]["defects"] == defects


def test_graphene_defects_at_their_centers() -> None:
    wanted = {"Si1C3": 2, "Si1C4": 2, "V1": 2, "V2": 2, "SW": 2}
    micrograph, sites = nd.simulate("graphene", field_of_view_nm=8, defects=wanted, seed=2)
    assert micrograph.metadata["defects"]["species"].value_counts().to_dict() == wanted
    assert (sites["elements"] == "Si").sum() == 4
    assert set(sites["species"]) <= {"C", *wanted}


def test_seeds_and_dose() -> None:
    first, again, other = (nd.simulate("MoS2", field_of_view_nm=3, seed=s)[0].data for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    low, high = (nd.simulate("MoS2", field_of_view_nm=3, dose_e_per_A2=d)[0].data.mean() for d in (1e5, 4e5))
    assert high / low == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("crystal", sorted(nd.CRYSTALS))
def test_every_crystal(crystal: str) -> None:
    micrograph, sites = nd.simulate(crystal, field_of_view_nm=2.5, surface=Surface(contamination=0.5, holes=1))
    assert np.isfinite(micrograph.frame()).all()
    assert set(sites["species"]) <= {s.host for s in nd.get_crystal(crystal).sublattices}


@pytest.mark.parametrize(
    "bad",
    [{"field_of_view_nm": 0.1}, {"field_of_view_nm": np.nan}, {"pixel_size_nm": 20}, {"dose_e_per_A2": 0},
     {"defects": {"V_Mo": 0.1}}, {"field_of_view_nm": 1e5}],
    ids=str,
)  # fmt: skip
def test_bad_requests_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"`\w+|has no site"):
        nd.simulate("WSe2", **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="crystal"):
        nd.simulate("unobtainium")


def test_pairs_are_reproducible_and_labelled() -> None:
    pairs = list(training_pairs("WSe2", n=30, shape=(128, 128), seed=4))
    again = next(itertools.islice(training_pairs("WSe2", shape=(128, 128), seed=4), 7, None))
    np.testing.assert_array_equal(pairs[7][0].data, again[0].data)
    assert pairs[7][1].equals(again[1])
    species = set().union(*(set(table["species"]) for _, table in pairs))
    assert species == {"W", "Se2", *training_species("WSe2")}
    for micrograph, table in pairs:
        assert micrograph.data.shape == (128, 128)
        assert list(table.columns) == ["frame", "y_nm", "x_nm", "species", "elements"]
        assert np.isfinite(micrograph.data).all()
        assert table[["y_nm", "x_nm"]].notna().all().all()
        assert (tables.positions_nm(table) < micrograph.extent_nm).all()


def test_workers_draw_the_same_pairs() -> None:
    here = list(training_pairs("MoTe2", n=3, shape=(64, 64), seed=9))
    there = list(training_pairs("MoTe2", n=3, shape=(64, 64), seed=9, workers=1))
    for (a, s), (b, t) in zip(here, there, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
        assert s.equals(t)


def test_graphene_pairs_hold_every_class() -> None:
    conditions = Conditions.for_crystal("graphene")
    found = [table for _, table in training_pairs("graphene", n=25, shape=(160, 160), conditions=conditions)]
    assert set().union(*(set(t["species"]) for t in found)) == {"C", "Si", "V1", "V2", "SW"}


def test_bad_streams_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="shape"):
        training_pairs("WSe2", shape=(8, 8))
    with pytest.raises(ValueError, match="workers"):
        training_pairs("WSe2", workers=-1)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_simulate(name: str) -> None:
    side = 128 * PRESETS[name]["pixel_size_nm"]
    crystal = "graphene" if "Ziatdinov" in name else "WSe2"
    assert nd.simulate(crystal, field_of_view_nm=side, **PRESETS[name])[0].data.shape == (128, 128)
