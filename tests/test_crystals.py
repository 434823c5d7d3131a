from __future__ import annotations

import numpy as np
import pytest

from napari_defects import CRYSTALS, crystals, get_crystal


@pytest.mark.parametrize("name", sorted(CRYSTALS))
def test_every_crystal_is_a_honeycomb(name):
    crystal = CRYSTALS[name]
    assert crystal.cell_area_nm2 == pytest.approx(crystal.a_nm**2 * np.sqrt(3) / 2)
    assert crystal.nearest_neighbor_nm == pytest.approx(crystal.a_nm / np.sqrt(3))
    assert 0 < crystal.poisson_ratio < 0.5
    assert np.linalg.norm(crystal.vectors_nm, axis=1) == pytest.approx([crystal.a_nm, crystal.b_nm])


def test_wse2_has_the_area_of_its_cell():
    assert CRYSTALS["WSe2"].cell_area_nm2 == pytest.approx(0.0933, abs=2e-4)


def test_get_crystal_by_any_case():
    assert get_crystal(" wse2 ") is CRYSTALS["WSe2"]
    assert get_crystal(CRYSTALS["MoS2"]) is CRYSTALS["MoS2"]


@pytest.mark.parametrize("name", ["Unobtainium", "", None, 3])
def test_unknown_crystal_lists_the_known(name):
    with pytest.raises(ValueError, match=r"WSe2.*graphene"):
        get_crystal(name)


@pytest.mark.parametrize(
    ("species", "expected"),
    [
        ("V_Se", {"Se": ("Se",)}),
        ("V2_Se", {"Se": ()}),
        ("Te_Se", {"Se": ("Se", "Te")}),
        ("Te2_Se", {"Se": ("Te", "Te")}),
        ("V_W", {"W": ()}),
        ("Se_W", {"W": ("Se",)}),
        ("Te2_W", {"W": ("Te", "Te")}),
        ("V_Se+V_W", {"Se": ("Se",), "W": ()}),
        ("Se2", {"Se": ("Se", "Se")}),
        ("W", {"W": ("W",)}),
    ],
)
def test_occupants(species, expected):
    assert crystals.occupants(species, "WSe2") == expected


@pytest.mark.parametrize("species", ["V_", "nonsense", "", "V_Mo", "V1_Se", "v_se", "Si1C3", "V3_Se"])
def test_occupants_refuses_what_is_not_of_this_crystal(species):
    with pytest.raises(ValueError, match="Se"):
        crystals.occupants(species, "WSe2")


@pytest.mark.parametrize("species", ["V_Se", "Te2_W", "V_Te+V_Mo", "Si1C3", "Si2C5", "V1", "V2", "SW", "darker_W"])
def test_is_species(species):
    assert crystals.is_species(species)


@pytest.mark.parametrize("species", ["", "Se-V", "V_", "hello", "=V_Se", "vacancy"])
def test_is_not_species(species):
    assert not crystals.is_species(species)


@pytest.mark.parametrize(
    ("species", "site"), [("V_Se", "Se"), ("Te2_W", "W"), ("darker_Mo", "Mo"), ("Si1C3", None), ("SW", None)]
)
def test_site_of(species, site):
    assert crystals.site_of(species) == site


def test_labels_are_those_of_the_papers():
    species = ["V_Se", "V2_Se", "Te_Se", "Te2_Se", "V_W", "Se_W", "Te2_W", "Ti_W"]
    assert [crystals.species_label(s) for s in species] == ["SV", "DV", "SeTe", "2Te", "VW", "SeW", "2TeW", "Ti_W"]


def test_colors_differ_within_a_crystal():
    species = [
        "V_Se",
        "V2_Se",
        "Te_Se",
        "Te2_Se",
        "V_W",
        "Se_W",
        "Te2_W",
        "darker_W",
        "brighter_W",
        "darker_Se",
        "brighter_Se",
    ]
    assert len({crystals.species_color(s) for s in species}) == len(species)
    assert crystals.species_color("V_S") == crystals.species_color("V_Te")
    assert crystals.species_color("unheard of") == "#999999"


def test_sublattice_by_name_or_element():
    assert CRYSTALS["graphene"].sublattice("C").name == "A"
    assert CRYSTALS["hBN"].sublattice("N").host == "N"
    assert CRYSTALS["WSe2"].sublattice("Se").host == "Se2"
    with pytest.raises(ValueError, match="W, Se"):
        CRYSTALS["WSe2"].sublattice("Te")


def test_names_come_as_a_list_or_with_commas():
    wse2 = CRYSTALS["WSe2"]
    assert crystals.species_names("V_Se, Te2_Se", wse2) == ("V_Se", "Te2_Se")
    named = (
        "Si1C3",
        "V1",
        "SW",
        "darker_W",
        "V_W+V_Se+V_Se",
        "Mo@Mo",
        "V_Se+V_Se@0.33",
        "V_Se+V_Se+V_Se@0.33-0.33-0.57a",
    )
    assert crystals.species_names(named) == named
    assert crystals.species_names(["odd one"], wse2, known={"odd one"}) == ("odd one",)
    for wrong, message in (("V_Q", "no site 'Q'"), ("dark", "must be names such as V_Se"), ("darker_Q", "no site 'Q'")):
        with pytest.raises(ValueError, match=message):
            crystals.species_names(wrong, wse2)


def test_a_cell_has_each_of_its_columns_once():
    assert crystals.occupants("V_Se+V_W", "WSe2") == {"Se": ("Se",), "W": ()}
    with pytest.raises(ValueError, match="changes the Se of one cell twice"):
        crystals.occupants("V_Se+V_Se", "WSe2")
