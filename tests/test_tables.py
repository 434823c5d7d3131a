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


def test_check_refuses_wrong_content_and_wrong_types():
    row = dict.fromkeys([c.name for c in tables.ATOMS], 0.0)
    with pytest.raises(ValueError, match="y_nm"):
        tables.check(pd.DataFrame([row | {"y_nm": "left"}]), "atoms")
    with pytest.raises(ValueError, match="frame"):
        tables.check(pd.DataFrame([row | {"frame": np.nan}]), "atoms")
    with pytest.raises(TypeError, match="DataFrame"):
        tables.check(np.zeros((3, 3)), "atoms")
