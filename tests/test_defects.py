"""Defects by intensity, by maps and by bonds: every column one verdict, and the right one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

import napari_defects as nd
from napari_defects.crystals import get_crystal
from napari_defects.defects import classify
from napari_defects.intensities import photometry, verdicts
from napari_defects.lattice import contrast
from napari_defects.simulation.detector import Surface

CLASSES = ("background", "W", "Se2", "V_Se", "V2_Se", "Te_Se", "Te2_Se", "V_W", "Se_W", "Te2_W")
AMOUNTS = {"V_Se": 0.04, "V2_Se": 0.02, "Te_Se": 0.06, "Te2_Se": 0.02, "V_W": 0.01, "Se_W": 0.02, "Te2_W": 0.02}
Case = tuple[nd.Micrograph, pd.DataFrame, pd.DataFrame]


def case(**keywords: object) -> Case:
    """Image, its sites, and the true defects in it."""
    image, _ = nd.simulate("WSe2", **keywords)  # type: ignore[arg-type]
    atoms = nd.locate(image)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))
    return image, sites, image.metadata["defects"]


@pytest.fixture(scope="module")
def mixed() -> Case:
    return case(field_of_view_nm=7.0, pixel_size_nm=0.02, defects=AMOUNTS, dose_e_per_A2=2e4, seed=4)


@pytest.fixture(scope="module")
def pristine() -> Case:
    dirt = Surface(contamination=0.4, gradient=0.5, holes=1, hole_radius_nm=1.0)
    return case(field_of_view_nm=8.0, pixel_size_nm=0.025, dose_e_per_A2=2e4, surface=dirt, seed=6)


def undecided(image: nd.Micrograph, classes: tuple[str, ...] = CLASSES) -> nd.Maps:
    """Maps that know the names of the classes and nothing else."""
    return nd.Maps(np.full((len(classes), *image.shape_yx), 1 / len(classes), np.float32), classes, 0.02)


def compared(found: pd.DataFrame, truth: pd.DataFrame, image: nd.Micrograph, radius_nm: float = 0.1) -> pd.DataFrame:
    """Found and true species side by side, "-" where there is none; the border of 0.25 nm left out."""
    inside = [
        table[((table[["y_nm", "x_nm"]] > 0.25) & (table[["y_nm", "x_nm"]] < image.extent_nm - 0.25)).all(axis=1)]
        for table in (found, truth)
    ]
    there, here = (table[["y_nm", "x_nm"]].to_numpy().reshape(-1, 2) for table in (truth, found))
    rows = []
    for table, others, key in ((inside[0], truth, "found"), (inside[1], found, "truth")):
        points = table[["y_nm", "x_nm"]].to_numpy()
        distance, which = cKDTree(there if key == "found" else here).query(points) if len(others) else ([9] * 999, [0])
        for n, species in enumerate(table["species"]):
            other = others["species"].iloc[int(which[n])] if distance[n] < radius_nm else "-"
            rows.append((species, other) if key == "found" else (other, species))
    return pd.DataFrame(rows, columns=["found", "truth"])


def test_named_species_by_maps_that_know_only_names(mixed: Case) -> None:
    image, sites, truth = mixed
    found = classify(image, sites, maps=undecided(image))
    pairs = compared(found, truth, image)
    assert len(truth) > 60
    assert (pairs["found"] == pairs["truth"]).mean() > 0.98
    assert not found.duplicated(["frame", "i", "j", "sublattice"]).any()
    assert found["probability"].between(0.5, 1).all()
    assert set(found["method"]) == {"maps"}


def test_maps_decide_between_columns_of_the_same_intensity(mixed: Case) -> None:
    image, sites, _ = mixed
    maps = undecided(image)
    column = sites[(sites["sublattice"] == "Se") & sites["y_nm"].notna()].iloc[60]
    y, x = (round(float(column[k]) / 0.02) for k in ("y_nm", "x_nm"))
    maps.data[:, y - 4 : y + 5, x - 4 : x + 5] = 0.001
    maps.data[CLASSES.index("Te2_Se"), y - 4 : y + 5, x - 4 : x + 5] = 0.99
    before = photometry.relative_heights(image, sites).loc[column.name, "relative_height"]
    at = (sites["i"] == column["i"]) & (sites["j"] == column["j"]) & (sites["sublattice"] == "Se")
    assert at.sum() == 1
    found = classify(image, sites, maps=maps, min_probability=0)
    row = found[(found["i"] == column["i"]) & (found["j"] == column["j"]) & (found["sublattice"] == "Se")]
    assert len(row) == 1
    assert row["relative_height"].iloc[0] == pytest.approx(before, rel=1e-6)


def test_intensities_name_vacancies_and_leave_the_rest_darker_or_brighter(mixed: Case) -> None:
    image, sites, truth = mixed
    found = classify(image, sites, method="intensities")
    expected = {"Te_Se": "brighter_Se", "Te2_Se": "brighter_Se", "Se_W": "darker_W", "Te2_W": "brighter_W"}
    pairs = compared(found, truth.assign(species=truth["species"].replace(expected)), image)
    assert (pairs["found"] == pairs["truth"]).mean() > 0.9
    vacancies = pairs[pairs["truth"].isin(["V_Se", "V2_Se", "V_W"])]
    assert (vacancies["found"] == vacancies["truth"]).mean() == 1
    assert set(found["method"]) == {"intensities"}


def test_a_perfect_crystal_has_no_defects_under_dirt_and_beside_a_hole(pristine: Case) -> None:
    image, sites, _ = pristine
    assert 1250 < sites["i"].notna().sum() < 1370  # 1410 without the hole
    for keywords in ({"method": "intensities"}, {"maps": undecided(image)}):
        assert len(classify(image, sites, **keywords)) <= 1  # type: ignore[arg-type]


@pytest.mark.parametrize("with_maps", [True, False])
def test_only_what_can_be_there_is_named(mixed: Case, with_maps: bool) -> None:
    image, sites, truth = mixed
    options = {"maps": undecided(image)} if with_maps else {"method": "intensities"}
    found = classify(image, sites, species="V_Se, V2_Se, V_W", **options)  # type: ignore[arg-type]
    expected = {"Te_Se": "brighter_Se", "Te2_Se": "brighter_Se", "Se_W": "darker_W", "Te2_W": "brighter_W"}
    pairs = compared(found, truth.assign(species=truth["species"].replace(expected)), image)
    assert (pairs["found"] == pairs["truth"]).mean() > 0.9
    named = classify(image, sites, species=["V_Se", "V2_Se", "V_W", "Te_Se", "Te2_Se", "Se_W"], **options)  # type: ignore[arg-type]
    pairs = compared(named, truth.assign(species=truth["species"].replace({"Te2_W": "brighter_W"})), image)
    assert (pairs["found"] == pairs["truth"]).mean() > 0.95


def test_what_the_model_does_not_know_is_told_by_its_atomic_number(mixed: Case) -> None:
    """Se on W, kept from a network that is sure of it under another name."""
    image, sites, truth = mixed
    classes = ("background", "W", "Se2", "V_Se", "V2_Se", "V_W", "darker_W", "brighter_Se")
    maps = undecided(image, classes)
    found = classify(image, sites, maps=maps, species=("V_Se", "V2_Se", "V_W", "Se_W", "Te_Se", "Te2_Se"))
    pairs = compared(found, truth.assign(species=truth["species"].replace({"Te2_W": "brighter_W"})), image)
    assert (pairs["found"] == pairs["truth"]).mean() > 0.9


def test_species_that_cannot_be_are_refused_by_name(mixed: Case) -> None:
    image, sites, _ = mixed
    for wrong in ("V_Se+V_W", "darker_W", "tellurium"):
        with pytest.raises(ValueError, match=re.escape(f"got {wrong!r}")):
            classify(image, sites, method="intensities", species=wrong)
    with pytest.raises(ValueError, match="no site 'S'"):
        classify(image, sites, method="intensities", species="V_S")
    with pytest.raises(ValueError, match="`species` goes with the methods maps and intensities"):
        classify(image, sites, method="bonds", species="V_Se")


@pytest.mark.parametrize(("counted", "called"), [(0.2, False), (1.0, True)])
def test_dirt_makes_columns_brighter_than_counting_does(counted: float, called: bool) -> None:
    """Three columns far above the host, which the maps rather take for it."""
    rng = np.random.default_rng(0)
    relative = np.append(rng.normal(1, 0.1, 300), (1.42, 1.44, 1.46))
    known = [
        verdicts.Choice("Mo", 1.0, 0.0),
        verdicts.Choice("Te_Mo", 1.36, 0.08),
        verdicts.Choice("V_Mo", -0.05, 0.05),
    ]
    evidence = np.tile([0.98, 0.01, 0.01], (303, 1))
    evidence[300:] = 0.74, 0.25, 0.01
    said = verdicts.posterior(verdicts.Measured(relative, counted=counted), known, evidence)
    assert ((said.probability[300:, 1] > 0.5) == called).all()
    assert (said.probability[:300].argmax(1) == 0).mean() > 0.99
    gone = relative - 1.0 * (np.arange(303) >= 300)  # as many empty ones: no dirt makes these
    evidence[300:] = 0.74, 0.01, 0.25
    said = verdicts.posterior(verdicts.Measured(gone - 0.42, counted=counted), known, evidence)
    assert (said.probability[300:, 2] > 0.5).all()


def test_min_probability_is_obeyed(mixed: Case) -> None:
    image, sites, _ = mixed
    counts = [len(classify(image, sites, method="intensities", min_probability=p)) for p in (0.01, 0.5, 0.95)]
    assert counts[0] > counts[1] > counts[2] > 0


def test_ratios_follow_the_detector() -> None:
    """Twice the slope in Z between the hosts moves every substitution, and no vacancy of one kind of atom."""
    crystal = get_crystal("WSe2")
    w, se = (contrast.peak(s.column) for s in crystal.sublattices)
    assert contrast.contrast_exponent({"W": w, "Se": se}, crystal) == pytest.approx(0, abs=1e-9)
    steep = contrast.contrast_exponent({"W": w, "Se": se * (34 / 74) ** 0.3}, crystal)
    assert 0.15 < steep < 0.3
    flat, sloped = (verdicts.choices(crystal.sublattices[0], ["V_W", "Se_W"], crystal, e) for e in (0, steep))
    assert sloped[2].ratio < flat[2].ratio < 0.4
    assert flat[1].ratio == sloped[1].ratio < 0.1
    # multislice, 80 kV, 60-200 mrad (physics of the field): Te_Se 1.43, V_Se 0.46, Te2_Se 1.9 of Se2
    names = ["V_Se", "V2_Se", "Te_Se", "Te2_Se"]
    found = {c.name: c.ratio for c in verdicts.choices(crystal.sublattices[1], names, crystal)}
    for name, ratio in {"V_Se": 0.46, "Te_Se": 1.43, "Te2_Se": 1.9}.items():
        assert found[name] == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("scatter", [0.3, 0.45, 0.6])
def test_columns_lost_in_the_noise_are_no_vacancies(scatter: float) -> None:
    """S2 in WS2 at 1e4 e/A^2 scatters by 0.6: a height of 0 is no more than two sigma off."""
    rng = np.random.default_rng(3)
    known = [verdicts.Choice("S2", 1, 0), verdicts.Choice("V_S", 0.45, 0.05), verdicts.Choice("V2_S", -0.05, 0.045)]
    relative = rng.normal(1, scatter, 650)
    found = verdicts.posterior(verdicts.Measured(relative, beneath=0.9), known).probability
    assert (found.argmax(1) > 0).mean() < 0.01


def test_posterior_is_calibrated() -> None:
    """Of the verdicts given with a probability, that share is right."""
    rng = np.random.default_rng(0)
    crystal = get_crystal("WSe2")
    known = verdicts.choices(crystal.sublattices[1], CLASSES[3:7], crystal)
    number = rng.choice(len(known), 20000, p=[0.86, 0.04, 0.01, 0.07, 0.02])
    mean = np.array([c.ratio for c in known])[number]
    heights = mean + rng.normal(0, 0.12, len(number)) * np.sqrt(0.2 + 0.8 * mean)
    probability, names, _ = verdicts.posterior(verdicts.Measured(heights), known)
    assert names[-2:] == ["darker", "brighter"]
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-9)
    best = probability.argmax(1)
    sure = probability.max(1)
    for low, high in ((0.5, 0.8), (0.8, 0.95), (0.95, 1.01)):
        own = (sure >= low) & (sure < high)
        assert (best[own] == number[own]).mean() == pytest.approx(sure[own].mean(), abs=0.06)
    assert (best == number).mean() > 0.96


def test_something_unknown_is_not_forced_into_a_class() -> None:
    rng = np.random.default_rng(1)
    crystal = get_crystal("WSe2")
    known = verdicts.choices(crystal.sublattices[0], ["V_W", "Se_W", "Te2_W"], crystal)
    heights = np.concatenate([rng.normal(1, 0.04, 1500), rng.normal(0.6, 0.02, 40), rng.normal(2.4, 0.05, 10)])
    probability, names, _ = verdicts.posterior(verdicts.Measured(heights), known)
    verdict = np.array(names)[probability.argmax(1)]
    assert (verdict[:1500] == "W").mean() > 0.999
    assert (verdict[1500:1540] == "darker").mean() > 0.95
    assert (verdict[1540:] == "brighter").all()


@pytest.mark.parametrize(("vacancies", "dopants"), [(12, 0), (6, 60), (0, 60)])
def test_a_vacancy_is_an_empty_site(vacancies, dopants) -> None:
    """What is nearly empty is empty where nothing else is there, and a dopant where its like are."""
    rng = np.random.default_rng(4)
    known = verdicts.choices(get_crystal("WSe2").sublattices[0], ["V_W"], get_crystal("WSe2"))
    heights = np.concatenate(
        [rng.normal(1, 0.05, 700), rng.normal(-0.03, 0.03, vacancies), rng.normal(0.3, 0.09, dopants), [0.14]]
    )
    probability, names, _ = verdicts.posterior(verdicts.Measured(heights), known)
    said = np.array(names)[probability.argmax(1)]
    assert (said[:700] == "W").mean() > 0.995
    assert (said[700 : 700 + vacancies] == "V_W").all()
    assert (said[700 + vacancies : -1] == "darker").sum() >= dopants - 1
    assert said[-1] == "darker" or not dopants


@pytest.mark.parametrize(
    ("ratio", "spread", "reason"), [(0.32, 0.12, "they scatter by"), (0.5, 0.02, "they are at 0.5"), (0.32, 0.04, "")]
)
def test_a_population_that_does_not_fit_its_name_loses_it(ratio, spread, reason, caplog):
    """What the maps call Se_W is believed of columns that are alike and about as bright as Se_W can be."""
    rng = np.random.default_rng(2)
    known = verdicts.choices(get_crystal("WSe2").sublattices[0], ["V_W", "Se_W", "Te2_W"], get_crystal("WSe2"))
    heights = np.concatenate([rng.normal(1, 0.06, 2000), rng.normal(ratio, spread, 60)])
    evidence = np.full((len(heights), 4), 0.01)
    evidence[:2000, 0], evidence[2000:, 2] = 0.97, 0.97
    probability, names, _ = verdicts.decide(verdicts.Measured(heights), known, ["V_W"], evidence)
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-9)
    said = np.array(names)[probability.argmax(1)]
    assert (said[:2000] == "W").mean() > 0.999
    assert (said[2000:] == ("darker" if reason else "Se_W")).mean() > 0.8
    assert reason in caplog.text
    assert bool(caplog.text) == bool(reason)


def test_intensity_has_its_own_word_beside_the_maps() -> None:
    image, sites, truth = case(
        field_of_view_nm=6.0, pixel_size_nm=0.02, defects={"As_W": 0.04, "V_Se": 0.03}, dose_e_per_A2=8.7e4, seed=8
    )
    found = classify(image, sites)  # the network knows Se_W, which is as bright as As_W
    dopants, vacancies = found[found["sublattice"] == "W"], found[found["sublattice"] == "Se"]
    assert len(dopants) == pytest.approx((truth["sublattice"] == "W").sum(), rel=0.1)
    assert (dopants["by_intensity"] == "darker_W").mean() > 0.9
    assert (vacancies["by_intensity"] == "V_Se").mean() > 0.9


def test_what_a_network_was_taught_is_what_it_says() -> None:
    """A taught dopant need not be as bright as its element would be."""
    image, sites, truth = case(
        field_of_view_nm=5.0, pixel_size_nm=0.02, defects={"As_W": 0.05}, dose_e_per_A2=8.7e4, seed=8
    )
    classes = ("background", "W", "Se2", "V_W", "Ti_W")
    y, x = np.mgrid[: image.shape_yx[0], : image.shape_yx[1]] * 0.02
    near = cKDTree(truth[["y_nm", "x_nm"]]).query(np.stack([y, x], -1))[0] < 0.08
    data = np.where(near, np.array([0.01, 0.02, 0.01, 0.01, 0.95])[:, None, None], 0.2).astype(np.float32)
    data[1:3] += np.where(near, 0, 0.25)
    data[3:] -= np.where(near, 0, 0.19)[None]
    found = classify(image, sites, maps=nd.Maps(data, classes, 0.02, taught=("Ti_W",)))
    pairs = compared(found, truth, image)
    assert len(pairs) > 10
    assert set(pairs["found"]) == {"Ti_W"}
    assert set(pairs["truth"]) == {"As_W"}


def test_bad_arguments_are_refused_by_name(mixed: Case) -> None:
    image, sites, _ = mixed
    with pytest.raises(ValueError, match="`method` must be one of maps, cells, intensities, bonds"):
        classify(image, sites, method="guess")
    with pytest.raises(ValueError, match="min_probability"):
        classify(image, sites, method="intensities", min_probability=2)
    with pytest.raises(ValueError, match=r"assign_sites\(\)"):
        classify(image, sites.drop(columns=["sublattice"]), method="intensities")
    unnamed = sites.copy()
    unnamed.attrs = {}
    assert len(classify(image, unnamed, method="intensities")) > 0
    with pytest.raises(ValueError, match="which crystal"):
        classify(image, unnamed.assign(sublattice="X"), method="intensities")
    with pytest.raises(ValueError, match="of the image's shape"):
        classify(image, sites, maps=nd.Maps(np.zeros((2, 40, 40)), ("background", "W"), 0.02))
    with pytest.raises(ValueError, match="know no column of WSe2"):
        classify(image, sites, maps=undecided(image, ("background", "Mo", "S2")))


def test_real_dopant_the_network_was_never_told_about(shared: Path) -> None:
    folder = shared / "data" / "wse2_ti"
    image = nd.calibrate(nd.read_micrograph(folder / "1028_ADF2_25.dm4"), "WSe2")
    atoms = nd.locate(image)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))
    labels = pd.read_csv(folder / "labels_25.csv")
    pixel, side = image.pixel_size_nm, image.extent_nm
    labels[["y_nm", "x_nm"]] = labels[["y_px", "x_px"]] * pixel

    def inner(table: pd.DataFrame) -> pd.DataFrame:
        at = table[["y_nm", "x_nm"]]
        return table[((at > 1) & (at < side - 1)).all(axis=1)]

    placed, labels = sites.dropna(subset=["y_nm"]), inner(labels)
    distance, which = cKDTree(placed[["y_nm", "x_nm"]]).query(labels[["y_nm", "x_nm"]])
    assert (distance < 0.08).mean() > 0.98
    truth = labels["label"].replace({"Ti_W": "W", "Se2": "Se", "V_Se": "Se"}).to_numpy()[distance < 0.08]
    assert (placed["sublattice"].to_numpy()[which[distance < 0.08]] == truth).mean() > 0.99

    found = inner(classify(image, sites, method="intensities"))
    dopants = found.loc[found["sublattice"] == "W", ["y_nm", "x_nm"]]
    labelled = labels.loc[labels["label"] == "Ti_W", ["y_nm", "x_nm"]]
    recall = (cKDTree(dopants).query(labelled)[0] < 0.1).mean()
    precision = (cKDTree(labelled).query(dopants)[0] < 0.1).mean()
    assert 2 * recall * precision / (recall + precision) > 0.88


def test_contrast_of_no_single_layer_names_only_empty_sites(caplog: pytest.LogCaptureFixture) -> None:
    """Where Se2 is twice as bright as in one layer, as in two, no column has the intensity a species should have."""
    image, sites, truth = case(field_of_view_nm=8, defects={"V_W": 5, "Se_W": 9}, seed=3, dose_e_per_A2=3e5)
    sites.loc[sites["sublattice"] == "Se", ["amplitude", "amplitude_err"]] *= 2
    with caplog.at_level("WARNING"):
        found = classify(image, sites, method="intensities")
    assert "is it one layer" in caplog.text
    off, nearest = cKDTree(truth[["y_nm", "x_nm"]]).query(found[["y_nm", "x_nm"]])
    assert len(found) >= 13  # one is cut by the border
    assert off.max() < 0.05
    assert found["species"].replace("darker_W", "Se_W").tolist() == truth["species"].iloc[nearest].tolist()


def test_sites_must_be_those_of_the_whole_image(mixed: Case) -> None:
    image, sites = mixed[:2]
    for wrong, words in (
        (pd.concat([sites, sites]), "list a site twice"),
        (sites[sites["sublattice"] == "Se"], "have none on W; give all"),
        (sites.assign(frame=1), "of frame 1, but the image has 1"),
        (sites.assign(frame=-1), "of frame -1, but the image has 1"),
    ):
        wrong.attrs["crystal"] = "WSe2"
        with pytest.raises(ValueError, match=words):
            classify(image, wrong, method="intensities")


def test_a_cropped_table_gives_the_same_verdicts(mixed: Case) -> None:
    image, sites = mixed[:2]
    whole = classify(image, sites, method="intensities")
    middle = np.asarray(image.extent_nm) / 2

    def within(table: pd.DataFrame, names: list[str]) -> pd.Series:
        return (np.abs(table[names].to_numpy(float) - middle) < 0.3 * middle.min()).all(axis=1)

    part = sites[within(sites, ["y_ideal_nm", "x_ideal_nm"])]
    part.attrs["crystal"] = "WSe2"
    found = classify(image, part, method="intensities")
    places = ["i", "j", "sublattice"]
    expected = whole.merge(part[places], on=places)
    assert len(expected) >= 3
    assert found[places].values.tolist() == expected[places].values.tolist()
    assert found["species"].tolist() == expected["species"].tolist()


@pytest.mark.parametrize("fill", [0.0, None])
def test_no_verdict_where_the_scan_was_broken_off(fill: float | None) -> None:
    image, _ = nd.simulate("WSe2", field_of_view_nm=6, pixel_size_nm=0.02, dose_e_per_A2=5e4, seed=3)
    pixels = image.data.astype(float)
    pixels[-60:] = pixels.mean() if fill is None else fill
    broken = nd.Micrograph(pixels, 0.02)
    atoms = nd.locate(broken)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))
    assert not len(classify(broken, sites, method="intensities"))
