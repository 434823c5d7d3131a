from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from napari_defects import tables


def test_tables_only_grow():
    names = {kind: {c.name for c in columns} for kind, columns in tables.TABLES.items()}
    assert names["atoms"] < names["sites"] < names["strain"]
    assert names["defects"] < names["tracks"]


@pytest.mark.parametrize("kind", tables.TABLES)
def test_every_column_is_defined_once_and_measured_ones_have_units(kind):
    columns = tables.TABLES[kind]
    assert len({c.name for c in columns}) == len(columns)
    for column in columns:
        assert column.meaning
        if column.name.endswith(("_nm", "_pm", "_rad")):
            assert column.unit == column.name.rsplit("_", 1)[1]


@pytest.mark.parametrize("kind", tables.TABLES)
def test_empty_has_the_dtypes(kind):
    table = tables.empty(kind)
    assert len(table) == 0
    assert list(table.columns) == [c.name for c in tables.TABLES[kind]]
    for column in tables.TABLES[kind]:
        if column.dtype != "str":
            assert str(table[column.name].dtype) == column.dtype


def test_check_orders_types_and_keeps_the_rest():
    shuffled = tables.empty("atoms").assign(extra="x")
    shuffled = pd.concat([shuffled, pd.DataFrame([dict.fromkeys(shuffled.columns, 1) | {"extra": "mine"}])])
    checked = tables.check(shuffled[shuffled.columns[::-1]], "atoms")
    assert list(checked.columns)[-1] == "extra"
    assert checked["frame"].dtype == np.int64
    assert checked["extra"].item() == "mine"
    assert "extra" in shuffled


def test_check_fills_missing_text_and_keeps_missing_indices():
    row = dict.fromkeys([c.name for c in tables.DEFECTS], 0) | {
        "i": None,
        "j": None,
        "sublattice": None,
        "species": "SW",
    }
    checked = tables.check(pd.DataFrame([row]), "defects")
    assert checked["sublattice"].item() == ""
    assert checked["i"].isna().item()


def test_check_names_what_is_missing_and_the_step_to_run():
    with pytest.raises(ValueError, match=r"y_err_nm.*locate\(\)"):
        tables.check(tables.empty("atoms").drop(columns="y_err_nm"), "atoms")
    with pytest.raises(ValueError, match=r"y_ideal_nm.*assign_sites\(\)"):
        tables.check(tables.empty("atoms"), "sites")


def test_extra_columns_are_defined_once_with_their_units():
    for kind, columns in tables.EXTRAS.items():
        own = [c.name for c in (*tables.TABLES.get(kind, ()), *columns)]
        assert len(set(own)) == len(own)
        for column in columns:
            assert column.meaning
            if column.name.endswith(("_nm", "_pm")):
                assert column.unit == column.name[-2:]


def test_check_keeps_attributes_and_takes_other_dtypes_and_indices():
    atoms = pd.DataFrame({c.name: [1, 2] for c in tables.ATOMS}).astype({"y_nm": "double[pyarrow]", "x_nm": object})
    atoms.loc[1, "y_nm"] = None
    atoms.index, atoms.attrs = pd.Index([7, 7], name="frame"), {"crystal": "WSe2"}
    checked = tables.check(atoms, "atoms")
    assert checked.attrs == {"crystal": "WSe2"}
    assert checked[["y_nm", "x_nm"]].dtypes.eq(float).all()
    assert checked.index.tolist() == [0, 1]
    assert list(tables.check(atoms[["frame", "y_nm"]], "atoms", ["y_nm"])) == ["y_nm", "frame"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"frame": 0.7}, "'frame'.*0.7 is no whole number"), ({"y_nm": np.inf}, "'y_nm'.*infinite")],
)
def test_check_changes_no_values(change, message):
    with pytest.raises(ValueError, match=message):
        tables.check(pd.DataFrame({c.name: [1, 2] for c in tables.ATOMS}).assign(**change), "atoms")


def test_check_names_unknown_kinds_twins_and_the_step_that_makes_cells():
    atoms = tables.empty("atoms")
    with pytest.raises(TypeError, match=r"detect_cells\(\)"):
        tables.check([1], "cells")
    for call in (tables.empty, lambda kind: tables.check(atoms, kind)):
        with pytest.raises(ValueError, match="`kind` must be one of atoms"):
            call("atom")
    with pytest.raises(ValueError, match="y_nm are there twice"):
        tables.check(pd.concat([atoms, atoms[["y_nm"]]], axis=1), "atoms")


def test_check_refuses_wrong_content_and_wrong_types():
    row = dict.fromkeys([c.name for c in tables.ATOMS], 0.0)
    with pytest.raises(ValueError, match="y_nm"):
        tables.check(pd.DataFrame([row | {"y_nm": "left"}]), "atoms")
    with pytest.raises(ValueError, match="frame"):
        tables.check(pd.DataFrame([row | {"frame": np.nan}]), "atoms")
    with pytest.raises(TypeError, match="DataFrame"):
        tables.check(np.zeros((3, 3)), "atoms")
