"""discover() and learn(): a dopant nobody named, found, named and taught."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects.learning.discovery import discover
from napari_defects.learning.lessons import dopant_heights, labelled_sites, learn, lesson_crops, stand_ins
from napari_defects.learning.mixtures import fit_mixture

CLASSES = ("background", "W", "Se2", "V_Se", "V_W", "darker_W", "brighter_W", "darker_Se", "brighter_Se")


@pytest.fixture(scope="module")
def doped():
    """WSe2 with V_Se and two dopants, one darker and one brighter than any column, with its sites."""
    image, truth = nd.simulate(
        "WSe2", field_of_view_nm=9.0, pixel_size_nm=0.025, defects={"V_Se": 0.03, "Ge_W": 0.04, "Te_Se": 0.03},
        dose_e_per_A2=6e4, seed=3,
    )  # fmt: skip
    atoms = nd.locate(image)
    sites = nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2"))
    return image, sites, truth


def species_at(members: pd.DataFrame, truth: pd.DataFrame) -> pd.Series:
    places = truth[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    at = members[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    nearest = np.linalg.norm(at[:, None] - places, axis=2).argmin(1)
    return truth["species"].iloc[nearest].reset_index(drop=True)


@pytest.fixture(scope="module")
def found(doped):
    return discover(doped[0], doped[1])


def test_two_dopants_are_two_clusters(doped, found):
    truth = doped[2]
    assert [c.likeness for c in found.clusters][:2] in (["darker_W", "brighter_Se"], ["brighter_Se", "darker_W"])
    inside = truth[truth["x_ideal_nm"].between(0.4, 8.6) & truth["y_ideal_nm"].between(0.4, 8.6)]
    for name, likeness in (("Ge_W", "darker_W"), ("Te_Se", "brighter_Se")):
        cluster = next(c for c in found.clusters if c.likeness == likeness)
        true = species_at(found.members(cluster.number), truth)
        assert (true == name).mean() > 0.95
        assert (true == name).sum() >= 0.9 * (inside["species"] == name).sum()
    assert sum(c.n for c in found.clusters[2:]) == 0
    dark = next(c for c in found.clusters if c.likeness == "darker_W")
    assert dark.relative_height == pytest.approx(0.32, abs=0.06)
    assert dark.patch[12, 12] < 0.6 * dark.host[12, 12]
    assert dark.host[12, 12] == pytest.approx(1.0, abs=0.02)


def test_vacancies_are_known_and_the_host_is_not_novel(found, doped):
    true = species_at(found.sites, doped[2])
    novelty = found.sites["novelty"].to_numpy()
    assert novelty[(true == "V_Se").to_numpy()].mean() < 0.1
    assert (novelty[true.isin(["W", "Se2"]).to_numpy()] > 0.95).mean() < 0.01


def test_what_the_model_is_sure_of_is_known(doped):
    """Maps that name Ge_W leave only Te_Se to be discovered."""
    image, sites, truth = doped
    classes = ("background", "W", "Se2", "V_Se", "Ge_W")
    y, x = (np.arange(n) * 0.025 for n in image.shape_yx)
    data = np.zeros((len(classes), *image.shape_yx), np.float32)
    for row in truth.itertuples():
        name = row.species if row.species in classes else "Se2"
        near = (y[:, None] - row.y_ideal_nm) ** 2 + (x - row.x_ideal_nm) ** 2 < 0.08**2
        data[classes.index(name), near] = 0.99
    data[0] = 1 - data.sum(0)
    found = discover(image, sites, maps=nd.Maps(data, classes, 0.025))
    assert [c.likeness for c in found.clusters] == ["brighter_Se"]
    generic = nd.Maps(data, ("background", "W", "Se2", "V_Se", "darker_W"), 0.025)
    assert {c.likeness for c in discover(image, sites, maps=generic).clusters} == {"darker_W", "brighter_Se"}


def test_noise_alone_is_no_discovery():
    image, _ = nd.simulate("WSe2", field_of_view_nm=8.0, pixel_size_nm=0.025, dose_e_per_A2=1e4, seed=8)
    atoms = nd.locate(image)
    found = discover(image, nd.assign_sites(atoms, nd.fit_lattice(atoms, "WSe2")))
    assert sum(c.n for c in found.clusters) <= 0.01 * len(found.sites)


def test_the_gallery_shows_every_cluster_beside_the_host(found):
    figure, ax = nd.figures.new(80, 60)
    nd.figures.clusters(ax, found)
    assert len(ax.images) == 2 * len(found.clusters)
    assert any(str(found.clusters[0].n) in text.get_text() for text in ax.texts)
    figure.canvas.draw()


def test_names_are_checked(found):
    dark = next(c.number for c in found.clusters if c.likeness == "darker_W")
    assert set(found.named({dark: "Ti_W"})["species"]) == {"Ti_W"}
    for names, message in (
        ({}, "`names` is empty"), ({99: "Ti_W"}, "`number` must be that of a cluster"),
        ({dark: "Ti_Se"}, "`names` must be species on the site W"), ({dark: "titanium"}, "`names` must be species"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            found.named(names)


def test_bad_arguments_end_in_one_sentence(doped):
    image, sites, _ = doped
    with pytest.raises(ValueError, match="`false_share` must be"):
        discover(image, sites, false_share=0.0)
    with pytest.raises(ValueError, match="`min_members` must be"):
        discover(image, sites, min_members=1)
    few = sites.head(40)
    few.attrs.update(sites.attrs)
    with pytest.raises(ValueError, match="`sites` are too few"):
        discover(image, few)


def test_lessons_name_every_site_and_draw_what_is_as_bright(doped, found, tiny_model):
    image, sites, truth = doped
    dark = next(c for c in found.clusters if c.likeness == "darker_W")
    named = labelled_sites(sites, found.named({dark.number: "Ti_W"}), nd.WSE2)
    assert (named["label"] == "Ti_W").sum() == dark.n
    pairs = lesson_crops(image, named, tiny_model)
    assert len(pairs) == 4
    labels = pd.concat([table for _, table in pairs])
    assert (labels["species"] == "Ti_W").sum() == dark.n
    assert 0.97 < len(labels) / len(truth) <= 1.03
    for micrograph, table in pairs:
        assert table[["y_nm", "x_nm"]].max().max() < micrograph.extent_nm.max() + 0.02
    ((name, (stands_in,)),) = stand_ins(image, named, CLASSES, nd.WSE2).items()
    assert name == "Ti_W"
    heights = dopant_heights(nd.WSE2.sublattice("W"), nd.WSE2)
    assert heights[stands_in] == pytest.approx(dark.relative_height, abs=0.02)


def test_labels_that_cannot_be_taught_are_refused(doped, found):
    image, sites, _ = doped
    with pytest.raises(ValueError, match="`labels` lack species"):
        labelled_sites(sites, found.sites[["y_nm", "x_nm"]], nd.WSE2)
    with pytest.raises(ValueError, match="`labels` name no site"):
        labelled_sites(sites, pd.DataFrame({"y_nm": [99.0], "x_nm": [99.0], "species": ["Ti_W"]}), nd.WSE2)
    named = labelled_sites(
        sites, found.named({0: f"Ti_{found.clusters[0].sublattice}"}).assign(species="Ti_Mo"), nd.WSE2
    )
    with pytest.raises(ValueError, match=r"must be called as Ti_\w+ is, got 'Ti_Mo'"):
        stand_ins(image, named, CLASSES, nd.WSE2)


def test_a_new_class_is_learned(doped, found, tiny_model, monkeypatch):
    monkeypatch.setattr("napari_defects.learning.tuning.SHAPE_PX", (128, 128))
    monkeypatch.setattr("napari_defects.learning.tuning._HELD_BACK", 6)
    image, sites, _ = doped
    dark = next(c.number for c in found.clusters if c.likeness == "darker_W")
    labels = found.named({dark: "Ti_W"})
    model = learn(image, sites, labels, tiny_model, minutes=9, steps=250, learning_rate=2e-2, workers=0)
    assert model.classes == (*tiny_model.classes, "Ti_W")
    rows = {row["class"]: row for row in next(iter(model.card["tests"].values()))}
    assert rows["Ti_W"]["recall before"] == 0
    assert rows["Ti_W"]["f1 after"] > 0.5
    assert any("Ti_W" in note for note in model.card["notes"])
    assert model.card["taught"] == ["Ti_W"]
    other, _ = nd.simulate(
        "WSe2", field_of_view_nm=6.0, pixel_size_nm=0.025, defects={"Ge_W": 0.05}, dose_e_per_A2=6e4, seed=9
    )
    maps = nd.predict(other, model)
    defects = other.metadata["defects"]
    at = np.rint(defects[["y_nm", "x_nm"]].to_numpy(float) / 0.025).astype(int).clip(0, maps.data.shape[1] - 1)
    assert (maps.data[:, at[:, 0], at[:, 1]].argmax(0) == maps.classes.index("Ti_W")).mean() > 0.6


@pytest.fixture(scope="module")
def tiny_model():
    """A network that has learned lattice, vacancy and brighter or darker from a few images."""
    from napari_defects.networks import Training, train
    from napari_defects.simulation import Conditions, training_pairs

    conditions = Conditions(
        species=("V_Se", "V_W"), foreign=0.8, pixel_size_nm=(0.024, 0.026), dose_e_per_A2=(5e4, 8e4)
    )
    options = Training(
        crystal="WSe2", pixel_size_nm=0.025, steps=60, batch=4, crop_px=64, channels=8, levels=2, held_back=2,
        validate_every=60, average=0.9, images=20, learning_rate=1e-2,
    )  # fmt: skip
    pairs = training_pairs("WSe2", n=20, shape=(96, 96), conditions=conditions)
    return train(pairs, classes=CLASSES, options=options)


def test_mixture_finds_as_many_components_as_there_are():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(m, 1.0, n) for m, n in ((-9, 80), (-5, 100), (4, 20))])[:, None]
    kind = fit_mixture(points, noise=1.0)
    assert kind.max() == 2
    assert [len(set(kind[part])) == 1 for part in (slice(0, 80), slice(180, 200))] == [True, True] or (
        np.mean(kind[:80] == np.bincount(kind[:80]).argmax()) > 0.9
    )
    assert (fit_mixture(rng.normal(0, 1, (60, 2)), noise=1.0) == 0).all()
    assert fit_mixture(np.zeros((1, 1)), noise=1.0).tolist() == [0]
