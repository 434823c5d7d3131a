from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects import statistics, tables

CRYSTAL = nd.WSE2


def lattice_sites(cells=20, frames=1, hole=False):
    """SITES of a perfect WSe2 sheet, `cells` x `cells` in each frame."""
    i, j = (a.ravel() for a in np.mgrid[:cells, :cells])
    parts = []
    for frame in range(frames):
        for s in CRYSTAL.sublattices:
            yx = np.column_stack([i + s.u, j + s.v]) @ CRYSTAL.vectors_nm
            part = pd.DataFrame({"frame": frame, "i": i, "j": j, "sublattice": s.name})
            part[["y_nm", "x_nm"]] = part[["y_ideal_nm", "x_ideal_nm"]] = yx
            parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    if hole:
        yx = table[["y_ideal_nm", "x_ideal_nm"]]
        table = table[np.linalg.norm(yx - yx.mean(), axis=1) > 1.5]
    table = table.reindex(columns=[c.name for c in tables.SITES]).fillna(
        {c.name: 0.0 for c in tables.ATOMS if c.name not in ("y_nm", "x_nm", "frame")}
    )
    table = tables.check(table, "sites")
    table.attrs["crystal"] = "WSe2"
    return table


def defects_at(sites, rows, species="V_Se"):
    """DEFECTS of one species (or several) at rows of `sites`."""
    chosen = sites.iloc[rows].reset_index(drop=True)
    return tables.check(
        chosen.assign(species=species, probability=1.0, method="truth", defect=range(len(chosen))), "defects"
    )


def se_rows(sites):
    return np.flatnonzero((sites["sublattice"] == "Se").to_numpy())


def test_count_numbers_sites_and_density():
    sites = lattice_sites()
    rows = np.append(se_rows(sites)[:12], np.flatnonzero((sites["sublattice"] == "W").to_numpy())[:3])
    counts = nd.count(defects_at(sites, rows, ["V_Se"] * 12 + ["V_W"] * 3), sites)
    assert counts["species"].tolist() == ["V_Se", "V_W"]
    assert counts["count"].tolist() == [12, 3]
    assert counts["sites"].tolist() == [400, 400]
    assert counts["fraction"].tolist() == [0.03, 0.0075]
    area = 400 * CRYSTAL.cell_area_nm2
    assert counts.attrs["area_nm2"] == pytest.approx(area)
    assert counts["density_per_cm2"][0] == pytest.approx(12 / area * 1e14)
    assert (counts["density_low_per_cm2"] < counts["density_per_cm2"]).all()
    tables.check(counts, "counts")


def test_density_of_a_published_count_has_the_unit_of_an_areal_one():
    """147 vacancies in 3037 cells of 0.107 nm2 are 4.5e13 cm^-2."""
    sites = lattice_sites(cells=56)[: 2 * 3037]
    counts = nd.count(defects_at(sites, range(147)), sites, area_nm2=3037 * 0.107)
    assert counts["density_per_cm2"].item() == pytest.approx(4.52e13, rel=2e-3)


def test_area_is_that_of_the_cells_without_a_crystal_and_without_holes():
    sites, holed = lattice_sites(), lattice_sites(hole=True)
    for table in (sites, holed):
        table.attrs = {}
    full = nd.count(tables.empty("defects"), sites).attrs["area_nm2"]
    assert full == pytest.approx(400 * CRYSTAL.cell_area_nm2, rel=1e-9)
    assert full - nd.count(tables.empty("defects"), holed).attrs["area_nm2"] == pytest.approx(np.pi * 1.5**2, rel=0.05)


def test_atoms_off_the_lattice_are_no_sites():
    sites = lattice_sites()
    stray = sites.iloc[:5].assign(i=pd.NA, j=pd.NA, sublattice="", y_ideal_nm=np.nan, x_ideal_nm=np.nan)
    both = pd.concat([sites, stray], ignore_index=True)
    for attrs in ({}, {"crystal": "WSe2"}):
        both.attrs = sites.attrs = attrs
        defects = defects_at(sites, [1, 2])
        pd.testing.assert_frame_equal(nd.count(defects, both), nd.count(defects, sites))


def test_frames_of_a_movie_are_pooled():
    one, two = lattice_sites(), lattice_sites(frames=2)
    assert nd.count(tables.empty("defects"), two).attrs["area_nm2"] == pytest.approx(
        2 * nd.count(tables.empty("defects"), one).attrs["area_nm2"]
    )
    assert nd.count(defects_at(two, [1, 801]), two)["sites"].item() == 800


def test_species_that_are_absent_get_an_upper_limit():
    sites = lattice_sites()
    counts = nd.count(tables.empty("defects"), sites, species=["V_W"])
    assert counts["count"].item() == 0
    assert counts["fraction_high"].item() == pytest.approx(0.00951, abs=1e-4)
    assert counts["density_high_per_cm2"].item() == pytest.approx(3.689 / counts.attrs["area_nm2"] * 1e14, rel=1e-3)
    assert len(nd.count(tables.empty("defects"), sites)) == 0


def test_bonding_classes_could_be_anywhere():
    sites = lattice_sites()
    assert nd.count(defects_at(sites, [0], "Si1C3"), sites)["sites"].item() == len(sites)


@pytest.mark.parametrize(
    ("number", "total", "low", "high"), [(5, 10, 0.2366, 0.7634), (0, 20, 0, 0.1611), (20, 20, 0.8389, 1)]
)
def test_wilson_interval(number, total, low, high):
    assert statistics.wilson_interval(number, total) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("number", "low", "high"), [(0, 0, 3.6889), (1, 0.0253, 5.5716), (10, 4.7954, 18.3904)])
def test_poisson_interval(number, low, high):
    assert statistics.poisson_interval(number) == pytest.approx((low, high), abs=1e-4)


def test_poisson_interval_covers():
    drawn = np.random.default_rng(1).poisson(6.3, 2000)
    covered = [low <= 6.3 <= high for low, high in map(statistics.poisson_interval, drawn)]
    assert 0.94 < np.mean(covered) < 0.99


@pytest.mark.parametrize("confidence", [0, 1, 95, -1, np.nan])
def test_confidence_is_checked(confidence):
    with pytest.raises(ValueError, match="confidence"):
        nd.count(tables.empty("defects"), lattice_sites(3), confidence=confidence)


def test_tables_are_checked():
    with pytest.raises(ValueError, match="classify"):
        nd.count(tables.empty("atoms"), lattice_sites(3))
    with pytest.raises(ValueError, match="assign_sites"):
        nd.count(tables.empty("defects"), tables.empty("atoms"))
    with pytest.raises(ValueError, match="area_nm2"):
        nd.count(tables.empty("defects"), lattice_sites(3), area_nm2=0)


def test_random_defects_lie_in_the_envelope_even_around_a_hole():
    sites = lattice_sites(30, hole=True)
    inside = []
    for seed in range(4):
        rows = np.random.default_rng(seed).choice(se_rows(sites), 60, replace=False)
        table = statistics.pair_correlation(defects_at(sites, rows), sites, bin_nm=0.3)
        busy = table[table["g"].notna()]
        inside += ((busy["g"] >= busy["g_low"]) & (busy["g"] <= busy["g_high"])).tolist()
        assert np.average(busy["g"], weights=busy["r_nm"]) == pytest.approx(1, abs=0.1)
    assert np.mean(inside) > 0.85
    every = statistics.pair_correlation(defects_at(sites, rows), sites, bin_nm=3.0)
    assert table["pairs"].sum() == every["pairs"].item()


def test_clustered_defects_rise_above_it():
    sites = lattice_sites(30)
    se = se_rows(sites)
    seeds = np.random.default_rng(2).choice(se, 20, replace=False)
    rows = np.unique(np.concatenate([seeds, np.minimum(seeds + 1, se[-1])]))  # each with a neighbour along j
    table = statistics.pair_correlation(defects_at(sites, rows), sites)
    at_neighbor = table.iloc[(table["r_nm"] - CRYSTAL.a_nm).abs().argmin()]
    assert at_neighbor["g"] > 2 * at_neighbor["g_high"]


def test_pair_correlation_needs_pairs():
    sites = lattice_sites(5)
    with pytest.raises(ValueError, match="at least two"):
        statistics.pair_correlation(defects_at(sites, [1]), sites)
    with pytest.raises(ValueError, match="bin_nm"):
        statistics.pair_correlation(defects_at(sites, [1, 2]), sites, bin_nm=5)


def test_nearest_neighbors():
    sites = lattice_sites(10)
    se = se_rows(sites)
    table = statistics.nearest_neighbors(defects_at(sites, [se[0], se[1], se[55]], ["V_Se", "Te_Se", "V_Se"]))
    assert table["neighbor_nm"][0] == pytest.approx(CRYSTAL.a_nm)
    assert table["neighbor"].tolist()[:2] == [1, 0]
    assert table["neighbor_species"].tolist()[:2] == ["Te_Se", "V_Se"]
    same = statistics.nearest_neighbors(
        defects_at(sites, [se[0], se[1], se[55]], ["V_Se", "Te_Se", "V_Se"]), same_species=True
    )
    assert same["neighbor"][0] == 2
    assert np.isnan(same["neighbor_nm"][1])
