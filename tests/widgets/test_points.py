from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Points

import napari_defects as nd
from napari_defects import tables
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._viewer import upsert


@pytest.fixture
def sites(wse2: tuple[nd.Micrograph, Any]) -> pd.DataFrame:
    """True sites with error bars, as if they had been measured."""
    table = wse2[1].copy()
    table[["y_err_nm", "x_err_nm", "sigma_nm", "amplitude", "amplitude_err", "background"]] = 0.002
    table["score"] = 0.8
    return table


@pytest.fixture
def defects(wse2: tuple[nd.Micrograph, Any]) -> pd.DataFrame:
    return pd.DataFrame(wse2[0].metadata["defects"])


def shown(table: pd.DataFrame, kind: str, **known: Any) -> Points:
    return upsert(ViewerModel(), table_layer(table, kind, kind, **known))


def test_tables_survive_the_way_into_a_layer_and_back(sites: pd.DataFrame, defects: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(table_of(shown(sites, "sites")), tables.check(sites, "sites"), check_exact=True)
    pd.testing.assert_frame_equal(
        table_of(shown(defects, "defects")), tables.check(defects, "defects"), check_exact=True
    )


def test_an_empty_site_is_drawn_where_it_would_be_and_stays_empty(sites: pd.DataFrame) -> None:
    empty = sites["y_nm"].isna()
    assert empty.sum() == 3, "the double vacancies"
    layer = shown(sites, "sites")
    np.testing.assert_allclose(layer.data[empty], sites.loc[empty, ["y_ideal_nm", "x_ideal_nm"]])
    assert (layer.face_color[empty, 3] == 0).all()
    assert (table_of(layer)["y_nm"].isna() == empty).all()


def test_a_moved_atom_has_its_new_place_and_no_error_bar(sites: pd.DataFrame) -> None:
    layer = shown(sites, "sites")
    data = layer.data.copy()
    data[7] += (0.03, -0.02)
    layer.data = data
    table = table_of(layer)
    np.testing.assert_allclose(table.loc[7, ["y_nm", "x_nm"]].astype(float), data[7])
    assert np.isnan(table.loc[7, "y_err_nm"])
    assert table.loc[7, "i"] == sites.loc[7, "i"], "it stays the same site"
    others = table.index != 7
    pd.testing.assert_frame_equal(table[others], tables.check(sites, "sites")[others])


@pytest.mark.parametrize("selected", [None, 4])
def test_an_added_defect_is_a_real_row(defects: pd.DataFrame, selected: int | None) -> None:
    layer = shown(defects, "defects")
    if selected is not None:
        layer.selected_data = {selected}
    layer.add([[1.0, 2.0]])
    table = table_of(layer)
    row = table.iloc[-1]
    assert len(table) == len(defects) + 1
    assert (row["y_nm"], row["x_nm"], row["probability"], row["method"]) == (1.0, 2.0, 1.0, "manual")
    assert row["defect"] == defects["defect"].max() + 1
    assert row["species"] in set(defects["species"])
    if selected is not None:
        assert row["species"] == defects["species"].iloc[selected]
    pd.testing.assert_frame_equal(table.iloc[:-1], tables.check(defects, "defects"))
    assert layer.features["x_nm"].iloc[-1] == 2.0, "the features follow the points at once"


def test_a_second_click_on_one_place_adds_another_defect(defects: pd.DataFrame) -> None:
    layer = shown(defects, "defects")
    for _ in range(2):
        layer.add([[1.0, 2.0]])
    first = defects["defect"].max() + 1
    assert table_of(layer)["defect"].tolist()[-2:] == [first, first + 1]


@pytest.mark.parametrize("movie", [False, True])
def test_a_moved_defect_is_of_the_site_it_was_moved_to(wse2: Any, defects: pd.DataFrame, movie: bool) -> None:
    lattice = nd.fit_lattice(tables.check(wse2[1][wse2[1]["y_nm"].notna()], "atoms"), "WSe2")
    if movie:  # the second frame has drifted by a cell
        frames = (lattice, replace(lattice, origin_nm=lattice.origin_nm + lattice.a1_nm))
        lattice, defects = replace(lattice, frames=frames), defects.assign(frame=1)
    layer = shown(defects, "defects", movie=movie, lattice=lattice)
    data = layer.data.copy()
    data[3, -2:] = lattice.at(1).position(9, 4, "W")[0] + 0.02
    layer.data = data
    table = table_of(layer)
    assert table.loc[3, ["i", "j", "sublattice", "method"]].tolist() == [9, 4, "W", "manual"]
    assert table.loc[3, "defect"] == defects["defect"][3]
    pd.testing.assert_frame_equal(table.drop(index=3), tables.check(defects, "defects").drop(index=3))


def test_an_added_atom_finds_its_site(sites: pd.DataFrame) -> None:
    lattice = nd.fit_lattice(tables.check(sites[sites["y_nm"].notna()], "atoms"), "WSe2")
    sites = nd.assign_sites(tables.check(sites[sites["y_nm"].notna()], "atoms"), lattice)
    layer = shown(sites, "sites", lattice=lattice)
    gone = int(np.flatnonzero(sites["y_nm"].notna())[20])
    place = layer.data[gone].copy()
    layer.remove([gone])
    assert len(table_of(layer)) == len(sites) - 1
    layer.add([place + 0.004])
    row, lost = table_of(layer).iloc[-1], sites.iloc[gone]
    assert (row["i"], row["j"], row["sublattice"]) == (lost["i"], lost["j"], lost["sublattice"])
    assert row["y_ideal_nm"] == pytest.approx(lost["y_ideal_nm"])
    assert row["score"] == 1.0
    assert np.isnan(row["amplitude"])


def test_what_was_measured_on_one_point_is_not_of_its_copy(defects: pd.DataFrame) -> None:
    layer = shown(defects.assign(relative_height=0.8, by_intensity="V_Se", cluster=3), "defects")
    layer.add([[1.0, 2.0]])
    row = table_of(layer).iloc[-1]
    assert np.isnan(row["relative_height"])
    assert (row["by_intensity"], row["cluster"]) == ("", -1)


def test_deleted_points_leave_the_table(defects: pd.DataFrame) -> None:
    layer = shown(defects, "defects")
    layer.remove([0, 3])
    pd.testing.assert_frame_equal(table_of(layer), tables.check(defects.drop([0, 3]), "defects"))


def test_points_of_a_movie_keep_their_frames(defects: pd.DataFrame) -> None:
    table = defects.assign(frame=np.arange(len(defects)) % 4)
    layer = shown(table, "defects", movie=True)
    assert layer.ndim == 3
    layer.add([[2, 1.0, 2.0]])
    back = table_of(layer)
    assert back["frame"].tolist() == [*table["frame"], 2]


def test_points_drawn_by_hand_are_atoms_in_nm() -> None:
    layer = Points([[10, 20], [30, 40]], scale=(0.02, 0.02), translate=(1, 0), units=("nm", "nm"))
    table = table_of(layer)
    np.testing.assert_allclose(table[["y_nm", "x_nm"]], [[1.2, 0.4], [1.6, 0.8]])
    assert table["score"].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="pixels, not nm"):
        table_of(Points([[1, 2]]))


def test_an_empty_table_is_an_empty_layer() -> None:
    layer = shown(tables.empty("defects"), "defects")
    assert len(layer.data) == 0


def test_species_differ_in_colour_or_symbol(defects: pd.DataFrame) -> None:
    layer = shown(defects, "defects")
    looks = {s: (tuple(layer.border_color[k]), str(layer.symbol[k])) for k, s in enumerate(defects["species"])}
    assert len(set(looks.values())) == len(looks) == 3


def test_a_second_table_takes_the_place_of_the_first(defects: pd.DataFrame) -> None:
    viewer = ViewerModel()
    first = upsert(viewer, table_layer(defects, "defects", "d"))
    first.selected_data = {1, 2}
    fewer = defects.iloc[:5]
    assert upsert(viewer, table_layer(fewer, "defects", "d")) is first
    pd.testing.assert_frame_equal(table_of(first), tables.check(fewer, "defects"))
    upsert(viewer, table_layer(defects, "defects", "d"))
    pd.testing.assert_frame_equal(table_of(first), tables.check(defects, "defects"))
    assert len(viewer.layers) == 1
