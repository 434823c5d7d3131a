from __future__ import annotations

import logging
import os
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import napari_defects as nd
from napari_defects import pipeline, recipes, tables
from napari_defects.io import write_micrograph

RECIPE = {"fit_lattice": {"crystal": "WSe2"}, "predict": {"model": "none"}}


def test_every_table_is_there_and_valid(results):
    for kind in ("atoms", "sites", "defects", "strain", "counts"):
        tables.check(getattr(results, kind), kind)
    assert results.maps is None
    assert results.lattice.crystal.name == "WSe2"
    assert results.defects["species"].value_counts().to_dict() == dict(
        zip(results.counts["species"], results.counts["count"], strict=True)
    )
    assert set(results.averages) <= set(results.counts["species"])
    assert any(line.startswith("locate:") for line in results.log)


def test_the_steps_one_by_one_give_the_same(wse2, results):
    atoms = nd.locate(wse2)
    lattice = nd.fit_lattice(atoms, "WSe2")
    sites = nd.assign_sites(atoms, lattice)
    defects = nd.classify(wse2, sites, method="intensities")
    pd.testing.assert_frame_equal(sites, results.sites)
    pd.testing.assert_frame_equal(defects, results.defects)
    pd.testing.assert_frame_equal(nd.count(defects, sites), results.counts)


def test_progress_rises_and_cancels(wse2):
    seen = []

    def stop(done, total):
        seen.append(done / total)
        if done / total > 0.5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        nd.analyze(wse2, RECIPE, progress=stop)
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= 1


def test_write_gives_the_files_named_in_the_manual(results, tmp_path):
    folder = tmp_path / "out"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "stale.png").write_text("")
    (folder / "notes.txt").write_text("mine")
    results.write(folder)
    for kind in ("atoms", "sites", "defects", "counts", "strain"):
        pd.testing.assert_frame_equal(
            nd.read_table(folder / f"{kind}.csv", kind), getattr(results, kind), rtol=0, atol=0
        )
    for species, average in results.averages.items():
        image = nd.read_micrograph(folder / "averages" / f"{species}.tif")
        assert image.pixel_size_nm == pytest.approx(average.pixel_size_nm, rel=1e-5)
        assert np.array_equal(image.data, average.image)
        nd.read_table(folder / "averages" / f"{species}_sites.csv", "strain")
        assert len(nd.read_table(folder / "averages" / f"{species}_members.csv")) == len(average.members)
    assert {"overview.png", "strain.png", "counts.png"} <= set(os.listdir(folder / "figures"))
    assert not (folder / "figures" / "stale.png").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_the_recipe_written_runs_again_and_gives_the_same(results, wse2, tmp_path):
    text = (results.write(tmp_path / "out") / "recipe.toml").read_text()
    written = tomllib.loads(text)
    assert written["classify"] == {"method": "intensities", "min_probability": 0.5}
    assert written["predict"]["model"] == "none"
    assert written["input"]["pixel_size_nm"] == pytest.approx(0.025)
    assert written["versions"]["napari-defects"] == nd.__version__
    again = nd.analyze(wse2, nd.Recipe.read(tmp_path / "out" / "recipe.toml"))
    pd.testing.assert_frame_equal(again.defects, results.defects)
    pd.testing.assert_frame_equal(again.strain, results.strain)
    assert again.recipe.complete().to_toml() == text


def test_write_where_one_must_not(results, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", "/proc/out"):
        with pytest.raises(OSError, match="cannot be written"):
            results.write(place)


def test_without_a_crystal_there_are_only_atoms(wse2):
    found = nd.analyze(wse2)
    assert len(found.atoms) > 500
    assert found.lattice is None
    assert found.counts is None


def test_input_is_hashed(wse2, tmp_path):
    path = write_micrograph(wse2, tmp_path / "a.tif")
    found = pipeline.analyze_file(path, tmp_path / "out", {"predict": {"model": "none"}})
    assert found.recipe.keywords("input")["sha256"] == pipeline.sha256(path)
    assert (tmp_path / "out" / "atoms.csv").is_file()


def test_a_wrong_scale_is_said(wse2, results, caplog):
    run = pipeline.Run(nd.Recipe())
    off = SimpleNamespace(scale=1.024 * results.lattice.scale, crystal=nd.WSE2)
    with caplog.at_level(logging.WARNING, "napari_defects"):
        run.check_scale(wse2.with_pixel_size(0.0256), results.lattice)
        assert not run.log
        run.check_scale(wse2.with_pixel_size(0.0256), off)
    assert "% too large for WSe2, whose lattice says 0.025" in caplog.text
    assert "too large" in run.lines[0]


def test_the_lattice_can_calibrate(wse2):
    recipe = nd.Recipe(RECIPE | {"calibrate": {"crystal": "WSe2"}})
    assert pipeline.Run(recipe).prepared(nd.Micrograph(wse2.data)).pixel_size_nm == pytest.approx(0.025, rel=0.005)
    assert nd.Recipe.from_toml(recipe.complete().to_toml()).keywords("calibrate") == {"crystal": "WSe2"}
    assert "calibrate" not in nd.Recipe().complete().steps


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [
        (np.full((64, 64), np.nan), 0.02, "NaN"),
        (np.ones((64, 64)), 0.02, "constant"),
        (np.random.default_rng(0).random((16, 16)), 0.02, "at least 32"),
        (np.random.default_rng(0).random((64, 64)), None, "pixel_size_nm"),
    ],
)
def test_images_that_cannot_be_analysed(data, size, words):
    with pytest.raises(ValueError, match=words):
        nd.analyze(nd.Micrograph(data, size), "WSe2")


def test_noise_has_no_lattice(noise_image):
    with pytest.raises(ValueError, match=r"lattice|atom|column"):
        nd.analyze(noise_image((128, 128)), RECIPE)


def test_what_is_not_a_micrograph():
    with pytest.raises(TypeError, match="read_micrograph"):
        nd.analyze(np.zeros((64, 64)), "WSe2")
    with pytest.raises(TypeError, match="recipe"):
        nd.analyze(nd.Micrograph(np.zeros((64, 64))), 3)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"clasify": {}}, "unknown step 'clasify' in the recipe; did you mean 'classify'"),
        ({"classify": {"min_probabilty": 0.7}}, r"unknown classify keyword .* did you mean 'min_probability'"),
        ({"locate": {"maps": 1}}, "unknown locate keyword 'maps'"),
        ({"classify": {"model": "x"}}, "unknown classify keyword 'model'"),
        ({"classify": 3}, "must be a table"),
        ({"classify": {"min_probability": "high"}}, r"`classify.min_probability` must be a number, got 'high'"),
        ({"fit_lattice": {"crystal": "WSe2"}, "classify": {"species": "V_S"}}, "V_S|'S'"),
        (
            {"fit_lattice": {"crystal": "WSe2"}, "classify": {"species": ["V_Se", "Xx_Se"]}},
            "'Xx', which is no chemical",
        ),
    ],
)
def test_recipes_refuse_what_they_do_not_know(steps, words):
    with pytest.raises(ValueError, match=words):
        nd.Recipe(steps)


def test_unknown_crystal_and_model(wse2):
    with pytest.raises(ValueError, match="crystal"):
        nd.analyze(wse2, "Kryptonite")
    with pytest.raises((ValueError, FileNotFoundError), match="nonesuch"):
        nd.analyze(wse2, {"predict": {"model": "nonesuch"}})


def test_recipe_to_toml_and_back():
    recipe = nd.Recipe({"fit_lattice": {"crystal": "MoS2"}, "average": {"radius_nm": 0.8, "species": ("V_S",)}})
    again = nd.Recipe.from_toml(recipe.to_toml())
    assert again.crystal == "MoS2"
    assert again.keywords("average") == {"radius_nm": 0.8, "species": ["V_S"]}
    complete = recipe.complete().to_toml()
    assert nd.Recipe.from_toml(complete).complete().to_toml() == complete
    assert recipe.updated({"average": {"radius_nm": None, "seed": 3}}).keywords("average")["radius_nm"] == 0.8


def test_broken_recipe_files(tmp_path):
    (tmp_path / "a.toml").write_text("[locate\n")
    with pytest.raises(ValueError, match=r"a\.toml: the recipe is not valid TOML"):
        nd.Recipe.read(tmp_path / "a.toml")
    with pytest.raises(FileNotFoundError, match="no recipe"):
        nd.Recipe.read(tmp_path / "b.toml")


def test_defaults_are_those_of_the_signatures():
    assert recipes.defaults("classify") == {"method": "maps", "species": None, "min_probability": 0.5}
    assert recipes.defaults("fit_lattice") == {"crystal": None, "brightest": None}
    assert recipes.defaults("read_micrograph") == {"pixel_size_nm": None, "channel": None}
    for step in recipes.STEPS:
        assert not {"micrograph", "atoms", "sites", "progress"} & set(recipes.defaults(step))


def test_a_network_that_gives_no_verdicts_is_not_named_silently(
    wse2: nd.Micrograph, caplog: pytest.LogCaptureFixture
) -> None:
    other = {"fit_lattice": {"crystal": "WSe2"}, "predict": {"model": "graphene-si"}}
    results = nd.analyze(wse2, other, averages=False)
    assert set(results.defects["method"]) == {"intensities"}
    assert "graphene-si knows no column of WSe2: verdicts are by intensity" in caplog.text
    with pytest.raises(ValueError, match="`maps` know no column of WSe2"):
        nd.analyze(wse2, other | {"classify": {"method": "maps"}}, averages=False)
    with pytest.raises(ValueError, match=r"`predict\.model` is none; name a network"):
        nd.analyze(wse2, other | {"predict": {"model": "none"}, "classify": {"method": "maps"}}, averages=False)


def test_a_recipe_says_what_it_cannot_be():
    with pytest.raises(ValueError, match=r"`recipe` must be .*'no.toml'; Recipe\.read\(\) reads a file"):
        nd.Recipe.make("no.toml")
    with pytest.raises(TypeError, match=r"Recipe\.read\(\) reads a file"):
        nd.Recipe.make(Path("no.toml"))
    with pytest.raises(ValueError, match=r"`classify\.method` must be one of maps"):
        nd.Recipe({"classify": {"method": "mapps"}})
    assert "track" not in nd.Recipe().complete().steps


def test_every_column_of_an_analysis_is_in_tables(wse2: nd.Micrograph) -> None:
    results = nd.analyze(wse2, {"fit_lattice": {"crystal": "WSe2"}, "average": {"rounds": 1}})
    for kind in ("atoms", "sites", "defects", "counts"):
        known = {c.name for c in (*nd.tables.TABLES[kind], *nd.tables.EXTRAS.get(kind, ()))}
        known |= {c.name for c in nd.tables.ATOMS} if kind == "defects" else set()
        assert set(getattr(results, kind)) <= known, kind
    for one in results.averages.values():
        extra = {kind: {c.name for c in nd.tables.EXTRAS[kind]} for kind in ("columns", "members", "precision")}
        assert set(one.sites) <= {c.name for c in nd.tables.SITES} | extra["columns"]
        assert (
            set(one.members) <= {c.name for c in (*nd.tables.DEFECTS, *nd.tables.EXTRAS["defects"])} | extra["members"]
        )
        assert set(one.precision) == extra["precision"]
