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


def test_the_same_defect_in_many_frames_is_one_look():
    one, many = lattice_sites(), lattice_sites(frames=20)
    still, movie = nd.count(defects_at(one, [1]), one), nd.count(defects_at(many, range(1, len(many), 800)), many)
    assert movie["count"].item() == 20
    ends = ["fraction", "fraction_low", "fraction_high", "density_low_per_cm2", "density_high_per_cm2"]
    np.testing.assert_allclose(movie[ends], still[ends], rtol=1e-9)


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


def test_two_species_that_seek_each_other():
    sites = lattice_sites(30)
    se, rng = se_rows(sites), np.random.default_rng(3)
    first = rng.choice(se[:-1], 30, replace=False)
    rows = np.concatenate([first, first + 1])
    pairs = defects_at(sites, rows, ["V_Se"] * 30 + ["Te_Se"] * 30)
    between = statistics.pair_correlation(pairs, sites, species=("V_Se", "Te_Se"), bin_nm=0.3)
    near = between.iloc[(between["r_nm"] - CRYSTAL.a_nm).abs().argmin()]
    assert near["g"] > 1.5 * near["g_high"]
    assert between["pairs"].sum() <= 30 * 30
    apart = defects_at(sites, rng.choice(se, 60, replace=False), ["V_Se"] * 30 + ["Te_Se"] * 30)
    random = statistics.pair_correlation(apart, sites, species=("V_Se", "Te_Se"), bin_nm=0.3).dropna()
    assert np.mean((random["g"] >= random["g_low"]) & (random["g"] <= random["g_high"])) > 0.8
    with pytest.raises(ValueError, match="both species"):
        statistics.pair_correlation(pairs, sites, species=("V_Se", "V_W"))


def test_ripley_rises_for_clusters_alone():
    sites = lattice_sites(30, hole=True)
    se, rng = se_rows(sites), np.random.default_rng(4)
    at = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    near = [k for k in se if min(np.linalg.norm(at[k] - at[c]) for c in se[[50, 300]]) < 0.9]
    crowded = statistics.ripley_l(defects_at(sites, near), sites)
    assert (crowded["l_minus_r_nm"] > crowded["l_high_nm"])[crowded["r_nm"].between(0.4, 1.0)].all()
    thrown = statistics.ripley_l(defects_at(sites, rng.choice(se, 80, replace=False)), sites).dropna()
    assert np.mean(thrown["l_minus_r_nm"].between(thrown["l_low_nm"], thrown["l_high_nm"])) > 0.8
    assert thrown["pairs"].is_monotonic_increasing


def test_clusters_are_chains_of_neighbors():
    sites = lattice_sites(12, frames=2)
    se = se_rows(sites[sites["frame"] == 0])
    rows = [se[0], se[1], se[2], se[60], se[0] + len(sites) // 2]
    table = statistics.clusters(defects_at(sites, rows), max_distance_nm=0.4)
    assert table["cluster_size"].tolist() == [3, 3, 3, 1, 1]
    assert table["cluster"].nunique() == 3
    with pytest.raises(ValueError, match="max_distance_nm"):
        statistics.clusters(table, max_distance_nm=0)


def test_short_range_order_knows_attraction_avoidance_and_chance():
    sites = lattice_sites(30)
    se, rng = se_rows(sites), np.random.default_rng(5)
    j = sites["j"].to_numpy()[se]
    stripes = statistics.short_range_order(defects_at(sites, se[j % 2 == 0], "Te_Se"), sites, sublattice="Se")
    like = stripes[(stripes["center"] == "Te_Se") & (stripes["neighbor"] == "Te_Se")].set_index("shell")
    assert like["r_nm"].tolist() == pytest.approx([CRYSTAL.a_nm * f for f in (1, 3**0.5, 2)], rel=1e-6)
    # in stripes two of six first neighbours are alike, two of six second ones, all six third ones: alpha = 1 - p / c
    assert like["alpha"].tolist() == pytest.approx([1 / 3, 1 / 3, -1], abs=0.05)
    assert (like["p_value"] < 1e-6).all()
    chance = [
        statistics.short_range_order(
            defects_at(sites, rng.choice(se, 200, replace=False), "Te_Se"), sites, sublattice="Se", seed=seed
        )
        for seed in range(4)
    ]
    z = pd.concat(chance).query("center == neighbor")
    assert np.mean(np.abs(z["alpha"] / z["alpha_err"]) < 2) > 0.8
    with pytest.raises(ValueError, match="sublattice"):
        statistics.short_range_order(chance_of(sites), sites, sublattice="Te")
    with pytest.raises(ValueError, match="two kinds"):
        statistics.short_range_order(tables.empty("defects"), sites, sublattice="Se")


def chance_of(sites):
    return defects_at(sites, se_rows(sites)[:5], "Te_Se")


def test_density_map_is_a_fraction_of_the_sites():
    sites = lattice_sites(40)
    for name in ("y_nm", "y_ideal_nm", "x_nm", "x_ideal_nm"):
        sites[name] -= sites[name].min()
    se = se_rows(sites)
    x = sites["x_ideal_nm"].to_numpy()[se]
    rows = se[(x < np.median(x)) & (np.random.default_rng(6).random(len(se)) < 0.3)]
    density = statistics.density_map(defects_at(sites, rows), sites, species="V_Se", smoothing_nm=1.0)
    at = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy()[se]
    y, x = np.round(at / density.pixel_size_nm).astype(int).T
    left = at[:, 1] < np.quantile(at[:, 1], 0.3)
    assert np.mean(density.data[y[left], x[left]]) == pytest.approx(0.3, abs=0.05)
    assert np.mean(density.data[y[~left], x[~left]][at[~left, 1] > np.quantile(at[:, 1], 0.75)]) < 0.01
    with pytest.raises(ValueError, match="no site"):
        statistics.density_map(tables.empty("defects"), sites.assign(sublattice=""), species="V_Se")


ONE_TABLE = nd.count(defects_at(lattice_sites(2), [0], "V_W"), lattice_sites(2))


def counted(number, sites=2000):
    return ONE_TABLE.assign(count=number, sites=sites, fraction=number / sites)


def test_pairs_of_many_images_are_those_of_each_together():
    sites = lattice_sites()
    tables_of = [defects_at(sites, rows) for rows in ([0, 1, 2, 40], [5, 6])]
    alone = [statistics.pair_correlation(one, sites, n_simulations=5) for one in tables_of]
    both = statistics.pair_correlation(iter(tables_of), iter([sites, sites]), n_simulations=5)
    np.testing.assert_array_equal(both["pairs"], alone[0]["pairs"] + alone[1]["pairs"])
    with pytest.raises(ValueError, match="at least two"):
        statistics.ripley_l([], [])


def test_pooled_counts_and_what_images_differ_by():
    rng = np.random.default_rng(7)
    alike = [counted(int(n)) for n in rng.binomial(2000, 0.01, 40)]
    pooled = statistics.pool(alike)
    row = pooled.iloc[0]
    assert row["sites"] == 40 * 2000
    assert row["fraction_low"] < 0.01 < row["fraction_high"]
    assert row["dispersion_p"] > 0.01
    assert row["dispersion"] == pytest.approx(1, abs=0.5)
    assert pooled.attrs["area_nm2"] == pytest.approx(sum(one.attrs["area_nm2"] for one in alike))
    unlike = statistics.pool([counted(int(n)) for n in rng.binomial(2000, rng.gamma(2, 0.005, 40))]).iloc[0]
    assert unlike["dispersion"] > 3
    assert unlike["dispersion_p"] < 1e-6
    assert unlike["fraction_high"] - unlike["fraction_low"] > 1.5 * (row["fraction_high"] - row["fraction_low"])
    with pytest.raises(ValueError, match="at least one"):
        statistics.pool([])


def test_a_species_an_image_does_not_list_is_absent_there():
    with_it, without = counted(20), nd.count(tables.empty("defects"), lattice_sites(2))
    pooled = statistics.pool([with_it, without])
    assert pooled["count"].tolist() == [20]
    assert pooled["sites"].item() == 4000


def test_unfolding_brings_back_the_truth_and_covers_it():
    species = ["V_Se", "Te_Se", "V_W"]
    rates = np.array([[0.90, 0.06, 0, 0.04], [0.05, 0.93, 0, 0.02], [0, 0, 0.97, 0.03], [2e-3, 1e-3, 1e-4, 0.9969]])
    truth, rng = np.array([400, 1500, 20]), np.random.default_rng(8)
    covered, raw = [], []
    for _ in range(30):
        known = np.array([rng.multinomial(n, p) for n, p in zip((2000, 4000, 500, 60000), rates, strict=True)])
        confusion = pd.DataFrame(known, index=[*species, "(none)"], columns=[*species, "(missed)"])
        confusion.iloc[-1, -1] = 0  # as evaluate() gives it
        mine = np.array([*rng.poisson(truth), 0])
        mine[-1] = 40000 - mine.sum()
        found = sum(rng.multinomial(n, p) for n, p in zip(mine, rates, strict=True))[:3]
        counts = tables.check(
            tables.empty("counts").reindex(range(3)).assign(species=species, count=found, sites=[20000, 20000, 20000]),
            "counts",
        )
        result = statistics.unfold(counts, confusion, host_sites=60000, n_draws=300)
        covered += ((result["corrected_low"] <= truth) & (result["corrected_high"] >= truth)).tolist()
        raw.append(found)
    assert np.mean(covered) > 0.85
    assert np.abs(np.mean(raw, 0) / truth - 1).max() > 0.05
    assert result["corrected"].to_numpy() == pytest.approx(truth, rel=0.4)
    with pytest.raises(ValueError, match="no row for V_W"):
        statistics.unfold(counts, confusion.drop("V_W"), host_sites=1)
    with pytest.raises(ValueError, match="evaluate"):
        statistics.unfold(counts, confusion.drop("(none)"), host_sites=1)
    with pytest.raises(ValueError, match="host_sites"):
        statistics.unfold(counts, confusion, host_sites=0)


def test_without_an_area_there_is_no_density(caplog):
    with_it, without = counted(20), nd.count(tables.empty("defects"), lattice_sites(2))
    without.attrs = {}  # as read from a file
    pooled = statistics.pool([with_it, without])
    assert pooled["count"].tolist() == [20]
    assert pooled["density_per_cm2"].isna().all()
    assert "area of 1 of 2 images is not known" in caplog.text


def test_invented_ones_are_as_many_as_there_are_sites():
    confusion = pd.DataFrame(
        [[100, 0, 0], [0, 100, 0], [40, 0, 0]], ["V_Se", "V_W", "(none)"], ["V_Se", "V_W", "(missed)"]
    )
    found = tables.empty("counts").reindex(range(1)).assign(species="V_Se", count=140, sites=10000)
    found = tables.check(found, "counts")
    keywords = {"host_sites": 20000, "n_draws": 50}
    assert statistics.unfold(found, confusion, sites=20000, **keywords)["corrected"].item() == pytest.approx(
        100, rel=0.01
    )
    found.attrs["sites"] = 20000
    assert statistics.unfold(found, confusion, **keywords)["corrected"].item() == pytest.approx(100, rel=0.01)
    confusion.loc["V_Se", "V_Se"] = 0
    with pytest.raises(ValueError, match="no true V_Se"):
        statistics.unfold(found, confusion, **keywords)


def test_tables_from_files_are_counted_on_the_same_sites(tmp_path):
    image, sites = nd.simulate("graphene", field_of_view_nm=4, defects={"N_C": 4}, seed=0)
    defects = nd.io.read_table(nd.io.write_table(image.metadata["defects"], tmp_path / "d.csv"), "defects")
    again = nd.io.read_table(nd.io.write_table(sites, tmp_path / "s.csv"), "sites")
    columns = ["species", "count", "sites", "density_per_cm2"]
    pd.testing.assert_frame_equal(nd.count(defects, again)[columns], nd.count(defects, sites)[columns])


@pytest.mark.parametrize(("images", "least"), [(2, 0.87), (3, 0.93), (5, 0.93)])
def test_intervals_of_few_images_that_differ_hold_the_truth(images, least, monkeypatch):
    monkeypatch.setattr(statistics.pooling.tables, "check", lambda table, _: table)  # thousands of times the same
    rng, names, right = np.random.default_rng(5), [c.name for c in tables.COUNTS], []
    for _ in range(400):
        found = rng.binomial(400, np.clip(rng.normal(0.03, 0.012, images), 0, 1))
        pages = [pd.DataFrame([("V_Se", k, 400, *[np.nan] * 6)], columns=names) for k in found]
        for page in pages:
            page.attrs["area_nm2"] = 40.0
        row = statistics.pool(pages).iloc[0]
        right.append(row["fraction_low"] <= 0.03 <= row["fraction_high"])
    assert np.mean(right) > least - 0.02


def test_species_are_named_with_commas_and_have_a_place_in_the_crystal():
    sites = lattice_sites()
    counts = nd.count(defects_at(sites, [0]), sites, species="V_W, Si1C3, darker_Se")
    assert set(counts["species"]) == {"V_Se", "V_W", "Si1C3", "darker_Se"}
    for wrong in ("V_Q", "dark"):
        with pytest.raises(ValueError, match=r"no site 'Q'|must be names"):
            nd.count(defects_at(sites, [0]), sites, species=wrong)


def test_sites_of_another_crystal_than_they_say_are_refused():
    sites = lattice_sites()
    found = defects_at(sites, [0])
    sites.attrs["crystal"] = "MoS2"
    with pytest.raises(ValueError, match="say that they are of MoS2, but have sublattices Se, W"):
        nd.count(found, sites)
