"""Corrections by hand: which defect to look at next, what a verdict does to the table, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from napari_defects.crystals import CRYSTALS, get_crystal
from napari_defects.tables import check
from napari_defects.widgets._layers import about
from napari_defects.widgets._points import nearest_sites, table_of

BY_HAND = "manual"
"""Method of a row that a person has looked at."""

FOUND = ("found_species", "found_probability", "found_method")
"""What a row said before the first verdict by hand."""

SITE = ["frame", "i", "j", "sublattice"]
"""What tells one site from the others."""


def doubt(table: pd.DataFrame) -> pd.Series:
    """How doubtful each row is, 0 to 1.5: unsure, or called a host by its intensity; 0 for those seen by hand."""
    doubtful = (1 - table["probability"].astype(float)).fillna(1.0)
    if "by_intensity" in table:
        says = table["by_intensity"].fillna("").astype(str)
        doubtful += 0.5 * ((says != "") & ~says.str.contains("_"))
    return doubtful.where(table["method"] != BY_HAND, 0.0)


def in_order(table: pd.DataFrame, species: str | None = None) -> list[int]:
    """Numbers (column ``defect``) of the rows nobody has looked at, the most doubtful first."""
    rows = table[table["method"] != BY_HAND]
    if species is not None:
        rows = rows[rows["species"] == species]
    order = doubt(rows).sort_values(ascending=False, kind="stable").index
    return [int(n) for n in rows.loc[order, "defect"]]


def judged(table: pd.DataFrame, defect: int, species: str) -> pd.DataFrame:
    """Return the table with the word of a person for one defect; what was found before is kept beside it."""
    table = check(table, "defects")
    for name, source in zip(FOUND, ("species", "probability", "method"), strict=True):
        if name not in table:
            table[name] = table[source].where(table["method"] != BY_HAND)
    row = table["defect"] == defect
    first = row & (table["method"] != BY_HAND)
    for name, source in zip(FOUND, ("species", "probability", "method"), strict=True):
        table.loc[first, name] = table.loc[first, source]
    for name, value in (("species", species), ("probability", 1.0), ("method", BY_HAND)):
        table.loc[row, name] = value
    return table


def taken_back(
    table: pd.DataFrame, rejected: pd.DataFrame | None, before: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return table and rejected rows without the verdict on one row, given as it was; all else stays as it is now."""
    number = int(before["defect"].iloc[0])
    if rejected is not None and number in set(rejected["defect"]):
        rest = dropped(rejected, number)
        table = pd.concat([table, before]).sort_values("defect", kind="stable", ignore_index=True)
        return table, rest if len(rest) else None
    for name in ("species", "probability", "method"):
        table.loc[table["defect"] == number, name] = before[name].iloc[0]
    return table, rejected


Hand = tuple[pd.DataFrame | None, pd.DataFrame | None]
"""Rows that a person has set, and those rejected."""


def by_hand(layer: Any, lattice: Any = None, pixel_size_nm: Any = None) -> Hand:
    """Rows of a layer that a person has set, and those rejected, whose sites are still the same on a lattice.

    Where the pixels of the image have another size by now, the rows are where they were in pixels.
    """
    if layer is None:
        return None, None
    table, known = table_of(layer), about(layer)
    then = known.get("pixel_size_nm")
    ratio = np.ones(2) if then is None or pixel_size_nm is None else np.divide(pixel_size_nm, then)
    rejected = known.get("rejected")
    rows = _scaled(table[table["method"] == BY_HAND], ratio)
    return still((rows, None if rejected is None else _scaled(rejected, ratio)), lattice)


def _scaled(table: pd.DataFrame, ratio: Any) -> pd.DataFrame:
    lengths = [name for name in map(str, table.columns) if name.endswith("_nm") and name[:2] in ("y_", "x_")]
    return table.assign(**{name: table[name] * ratio[int(name[0] == "x")] for name in lengths})


def still(hand: Hand, lattice: Any) -> Hand:
    """Return the rows set by hand that are on the site they say; those that say none, too."""
    rows, rejected = (None if table is None else _still(table, lattice) for table in hand)
    return rows, rejected


def how_many(hand: Hand) -> int:
    """How many rows were set by hand."""
    return sum(len(rows) for rows in hand if rows is not None)


def _still(table: pd.DataFrame, lattice: Any) -> pd.DataFrame:
    if lattice is None or not len(table):
        return table
    names = ["i", "j", "sublattice"]
    same = (table[names] == nearest_sites(table, lattice)[names]).all(axis=1)
    return table[same.fillna(False) | table["i"].isna()]


def kept(
    table: pd.DataFrame, manual: pd.DataFrame | None = None, rejected: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return defects found anew, and the rejected: rows set by hand stay, nothing else is on any of their sites."""
    hand, attrs = [rows for rows in (manual, rejected) if rows is not None and len(rows)], dict(table.attrs)
    if hand:
        taken = pd.MultiIndex.from_frame(pd.concat([rows[SITE] for rows in hand]).dropna())
        table = table[~pd.MultiIndex.from_frame(table[SITE]).isin(taken)]
    if manual is not None and len(manual):
        table = pd.concat([table, manual])
    table = table.reset_index(drop=True).assign(defect=np.arange(len(table)))
    table.attrs = attrs
    return table, None if rejected is None else rejected.assign(defect=len(table) + np.arange(len(rejected)))


def dropped(table: pd.DataFrame, defect: int) -> pd.DataFrame:
    """Return the table without one defect."""
    return table[table["defect"] != defect].reset_index(drop=True)


def corrections(table: pd.DataFrame, rejected: pd.DataFrame | None = None) -> pd.DataFrame:
    """Rows that a person has looked at, and those that were no defects, with the column ``verdict``."""
    seen = table[table["method"] == BY_HAND].copy()
    found = seen[FOUND[0]].fillna("") if FOUND[0] in seen else pd.Series("", index=seen.index)
    seen["verdict"] = [
        "added" if not f else "accepted" if f == s else "renamed" for f, s in zip(found, seen["species"], strict=True)
    ]
    if rejected is None or not len(rejected):
        return seen.reset_index(drop=True)
    return pd.concat([seen, rejected.assign(verdict="no defect")], ignore_index=True)


def classes_for(table: pd.DataFrame, crystal: str | None, most: int = 9) -> list[str]:
    """Species to choose from: those there are, the most frequent first, then the vacancies of the crystal."""
    names = [str(name) for name in table["species"].value_counts().index if name]
    if crystal in CRYSTALS:
        for sublattice in get_crystal(str(crystal)).sublattices:
            names += [f"V{n if n > 1 else ''}_{sublattice.element}" for n in range(1, len(sublattice.column) + 1)]
    return list(dict.fromkeys(names))[:most]
