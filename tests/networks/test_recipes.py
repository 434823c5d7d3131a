from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from napari_defects.crystals import CRYSTALS, get_crystal
from napari_defects.networks import RECIPES, list_models, load_model, model_for, predict, train_recipe
from napari_defects.networks.examples import Examples
from napari_defects.networks.family import generic, hint, members, specific
from napari_defects.networks.validation import mean_around, verdicts
from napari_defects.networks.zoo import WEIGHTS
from napari_defects.simulation import simulate, training_pairs

CPU = torch.device("cpu")
QUICK = {"steps": 2, "batch": 2, "crop_px": 64, "images": 2, "held_back": 2, "validate_every": 2, "channels": 4}


def defects_f1(model, species, **conditions):
    """Class-aware micro-F1 of the defects at known sites of a simulated image."""
    micrograph, sites = simulate(get_crystal(model.crystal), defects=species, seed=11, **conditions)
    hosts = {s.host for s in get_crystal(model.crystal).sublattices}
    maps = predict(micrograph, model)
    known = sites["y_nm"].fillna(sites["y_ideal_nm"]), sites["x_nm"].fillna(sites["x_ideal_nm"])
    positions = np.stack(known, axis=1) / micrograph.pixel_size_yx_nm
    inside = np.all((positions > 10) & (positions < np.array(micrograph.shape_yx) - 11), axis=1)
    means = mean_around(maps.data, positions[inside], 0.05 / micrograph.pixel_size_yx_nm.max())
    said, actual = np.asarray(maps.classes)[means.argmax(axis=1)], sites["species"].to_numpy()[inside]
    right = np.sum((said == actual) & ~np.isin(actual, list(hosts)))
    return 2 * right / (np.sum(~np.isin(actual, list(hosts))) + np.sum(~np.isin(said, list(hosts))))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_trains_and_writes_its_card(name, tmp_path, monkeypatch):
    recipe = RECIPES[name]
    quick = replace(recipe, options=replace(recipe.options, **QUICK), shape=(96, 96))
    monkeypatch.setitem(RECIPES, name, quick)
    model = train_recipe(name, out=tmp_path / "mine", workers=0, seed=5)
    assert model.crystal == recipe.options.crystal
    assert load_model(tmp_path / "mine.safetensors").sha256 == model.sha256
    text = (tmp_path / "mine.md").read_text()
    for word in (recipe.options.crystal, *(f"`{c}`" for c in recipe.classes), "seed 5", f"train {name}", model.sha256):
        assert word in text


def test_recipes_name_host_columns_as_the_crystal_does():
    for recipe in (r for r in RECIPES.values() if r.options.crystal in CRYSTALS):
        hosts = [s.host for s in CRYSTALS[recipe.options.crystal].sublattices]
        assert recipe.classes[: 1 + len(set(hosts))] == ("background", *dict.fromkeys(hosts))


def test_unknown_recipe_and_folder(tmp_path):
    with pytest.raises(ValueError, match="`name` must be one of wse2-te"):
        train_recipe("gold", out=tmp_path / "x")
    with pytest.raises(ValueError, match="`out` must lie in a folder that exists"):
        train_recipe("wse2-te", out=tmp_path / "missing" / "x")


def test_every_recipe_is_shipped_with_its_card():
    rows = {row["name"]: row for row in list_models()}
    assert set(rows) == set(RECIPES)
    for name, row in rows.items():
        assert (row["crystal"], row["classes"]) == (RECIPES[name].options.crystal, RECIPES[name].classes)
        assert row["crystal"] not in CRYSTALS or model_for(row["crystal"]) == name
        assert load_model(name).sha256 == row["sha256"]
        assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 3e6
        card = (WEIGHTS / f"{name}.md").read_text()
        assert row["sha256"] in card
        assert f"train {name} --seed" in card
    assert model_for("hBN") is None


def test_a_family_names_its_classes_generically():
    assert [specific(c, "MoTe2") for c in ("M", "X2", "V2_X", "X2_M", "darker_M")] == [
        "Mo", "Te2", "V2_Te", "Te2_Mo", "darker_Mo",
    ]  # fmt: skip
    classes = RECIPES["mx2"].classes
    for species, name in {"Se_W": "X_M", "Te_Se": "brighter_X", "V_Se": "V_X", "Mo_W": "darker_M", "W": "M"}.items():
        assert generic(species, "WSe2", classes) == name
    assert hint("MoTe2") > 0.8 > -0.8 > hint("WS2")
    pairs = RECIPES["mx2"].pairs(n=14, seed=3)
    tables = {micrograph.metadata["crystal"]: table for micrograph, table in pairs}
    assert set(tables) == set(members())
    assert set(pd.concat(tables.values())["species"]) <= set(classes)
    _, table = next(RECIPES["atoms"].pairs(n=1, seed=1))
    assert set(table["species"]) == {"atom"}


def test_a_model_of_a_family_wants_to_know_the_crystal(tmp_path, monkeypatch):
    recipe = RECIPES["mx2"]
    quick = replace(recipe, options=replace(recipe.options, **QUICK), shape=(96, 96))
    monkeypatch.setitem(RECIPES, "mx2", quick)
    path = tmp_path / "mine.safetensors"
    train_recipe("mx2", out=path, workers=0)
    micrograph, _ = simulate("MoTe2", field_of_view_nm=2.0)
    maps = predict(micrograph, f"{path}:MoTe2")
    assert maps.classes[:3] == ("background", "Mo", "Te2")
    assert np.abs(maps.data.astype(float) - predict(micrograph, f"{path}:WS2").data).max() > 0
    assert load_model(path, "MoTe2").classes == maps.classes
    with pytest.raises(ValueError, match="say which, as in 'mx2:MoTe2'"):
        predict(micrograph, str(path))
    with pytest.raises(ValueError, match="cannot be made one for graphene"):
        load_model(f"{path}:graphene")
    with pytest.raises(ValueError, match="`crystal` must be one of"):
        load_model(f"{path}:gold")


@pytest.mark.parametrize(("dose", "least"), [(8.7e4, 0.98), (2e4, 0.95), (6e3, 0.8)])
def test_shipped_tungsten_diselenide_model_names_defects(dose, least):
    species = {"V_Se": 0.04, "V2_Se": 0.02, "Te_Se": 0.1, "Te2_Se": 0.02, "V_W": 0.02, "Se_W": 0.02, "Te2_W": 0.02}
    assert defects_f1(load_model("wse2-te"), species, field_of_view_nm=8.0, dose_e_per_A2=dose) >= least


def test_shipped_graphene_model_names_defects():
    model, recipe = load_model("graphene-si"), RECIPES["graphene-si"]
    good = replace(
        recipe.conditions, dose_e_per_A2=(1.5e6, 4e6), pixel_size_nm=(0.01, 0.016), source_fwhm_nm=(0.05, 0.08),
        dirty=0.0, patched=0.0, holed=0.0, edged=0.0, spiked=0.0, defect_fraction=(0.03, 0.05),
    )  # fmt: skip
    options = replace(recipe.options, held_back=20, images=1)
    pairs = training_pairs("graphene", conditions=good, seed=78)
    table = verdicts(model.network, Examples(pairs, model.classes, options, 0).held_back, model.classes, CPU)
    right = (table["species"] == table["verdict"]).groupby(table["species"]).mean()
    assert right["Si"] == 1
    assert right["C"] > 0.99
    assert right[["V1", "V2", "SW"]].min() > 0.85
