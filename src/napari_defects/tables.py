"""The columns of every table: name, dtype, unit and meaning, each written once.

Tables are plain pandas DataFrames. They only grow on their way: atoms, sites, defects, tracks.
Columns beyond those named here are kept and passed on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, NewType

import numpy as np
import pandas as pd

from .checks import check_choice, check_type
from .crystals import CRYSTALS, Crystal, get_crystal

Atoms = NewType("Atoms", pd.DataFrame)
Sites = NewType("Sites", pd.DataFrame)
Defects = NewType("Defects", pd.DataFrame)
Strain = NewType("Strain", pd.DataFrame)
Tracks = NewType("Tracks", pd.DataFrame)
Counts = NewType("Counts", pd.DataFrame)
Cells = NewType("Cells", pd.DataFrame)


class Column(NamedTuple):
    """Definition of one column."""

    name: str
    dtype: str
    unit: str
    meaning: str


def _columns(*rows: str) -> tuple[Column, ...]:
    return tuple(Column(*(part.strip() for part in row.split("|"))) for row in rows)


_FRAME = _columns("frame | int64 | | frame of the movie; 0 for a still")
_PLACE = _columns(
    "i | Int64 | | cell index along a1",
    "j | Int64 | | cell index along a2",
    "sublattice | str | | name of the sublattice in the crystal",
)

_PLACES = ("y_nm", "x_nm", "y_ideal_nm", "x_ideal_nm")

ATOMS = _FRAME + _columns(
    "y_nm | float64 | nm | position down the image, from the centre of pixel (0, 0)",
    "x_nm | float64 | nm | position along the fast-scan direction",
    "y_err_nm | float64 | nm | 1 sigma of y_nm; NaN where the fit failed",
    "x_err_nm | float64 | nm | 1 sigma of x_nm; NaN where the fit failed",
    "sigma_nm | float64 | nm | width (1 sigma) of the fitted column",
    "amplitude | float64 | image | peak height above the background",
    "amplitude_err | float64 | image | 1 sigma of amplitude",
    "background | float64 | image | fitted background under the column",
    "score | float64 | | confidence that this is a column, 0 to 1",
)
SITES = ATOMS + _PLACE + _columns(
    "y_ideal_nm | float64 | nm | where the lattice expects the column",
    "x_ideal_nm | float64 | nm | where the lattice expects the column",
)  # fmt: skip
DEFECTS = _FRAME + _columns(
    "defect | int64 | | number of the defect in this table",
    "y_nm | float64 | nm | position of the defect",
    "x_nm | float64 | nm | position of the defect",
) + _PLACE + _columns(
    "species | str | | occupant_site, e.g. V_Se; or a bonding class, e.g. Si1C3",
    "probability | float64 | | probability that the species is right, 0 to 1",
    "method | str | | maps, cells, bonds, intensities, manual or truth",
)  # fmt: skip
STRAIN = SITES + _columns(
    "uy_pm | float64 | pm | displacement from the reference lattice, down",
    "ux_pm | float64 | pm | displacement from the reference lattice, right",
    "uy_err_pm | float64 | pm | 1 sigma of uy_pm",
    "ux_err_pm | float64 | pm | 1 sigma of ux_pm",
    "eyy | float64 | | normal strain along y",
    "exx | float64 | | normal strain along x",
    "exy | float64 | | shear strain (duy/dx + dux/dy) / 2",
    "dilation | float64 | | exx + eyy",
    "rotation_rad | float64 | rad | (duy/dx - dux/dy) / 2",
    "eyy_err | float64 | | 1 sigma of eyy",
    "exx_err | float64 | | 1 sigma of exx",
    "exy_err | float64 | | 1 sigma of exy",
    "dilation_err | float64 | | 1 sigma of dilation",
    "rotation_err_rad | float64 | rad | 1 sigma of rotation_rad",
)
CELLS = _FRAME + _columns(
    "cell | int64 | | number of the unit cell in this table",
    "y_nm | float64 | nm | position of its middle, between metal and chalcogen",
    "x_nm | float64 | nm | position of its middle, between metal and chalcogen",
    "height_nm | float64 | nm | height of its rectangle, across the zigzag direction",
    "width_nm | float64 | nm | width of its rectangle, along the zigzag direction",
    "rotation_deg | float64 | degree | rotation of the rectangle, from x towards y (down)",
    "i | Int64 | | cell index along a1",
    "j | Int64 | | cell index along a2",
    "species | str | | perfect, or what is missing, e.g. V_Te or V_Te+V_Mo",
    "probability | float64 | | probability that the species is right, 0 to 1",
    "score | float64 | | confidence that there is a cell, 0 to 1",
    "method | str | | lattice, boxes or manual",
)  # fmt: skip
TRACKS = DEFECTS + _columns("track | int64 | | number of the trajectory")
COUNTS = _columns(
    "species | str | | what was counted",
    "count | int64 | | how many",
    "sites | int64 | | how many sites could have been one",
    "fraction | float64 | | count / sites",
    "fraction_low | float64 | | lower end of the Wilson interval",
    "fraction_high | float64 | | upper end of the Wilson interval",
    "density_per_cm2 | float64 | cm^-2 | count / area looked at",
    "density_low_per_cm2 | float64 | cm^-2 | lower end of the Poisson interval",
    "density_high_per_cm2 | float64 | cm^-2 | upper end of the Poisson interval",
)
NOVELTIES = SITES + _columns(
    "relative_height | float64 | | height of the column over that of the host around it",
    "relative_height_err | float64 | | 1 sigma of relative_height, from the scatter of the pristine columns",
    "shape | float64 | | how unusual the shape of the column is, rms in units of the pristine columns' scatter",
    "said | str | | class with the highest probability at the site; the host without a model",
    "uncertainty | float64 | | 1 minus that probability",
    "novelty | float64 | | 1 minus the share of chance among sites as unusual as this; 0 where a known class fits",
    "cluster | int64 | | group of novel sites that look alike; -1 for none",
)

TABLES: dict[str, tuple[Column, ...]] = {
    "atoms": ATOMS, "sites": SITES, "defects": DEFECTS, "strain": STRAIN, "tracks": TRACKS, "counts": COUNTS,
    "cells": CELLS,
    "novelties": NOVELTIES,
}  # fmt: skip

_FITTED = _columns("misfit | float64 | | mean squared residual under the column in units of its noise")
_BONDED = _columns(
    "atoms | str | | rows of its atoms in the table of atoms",
    "bond_pm | float64 | pm | mean length of a foreign atom's bonds",
    "bond_err_pm | float64 | pm | 1 sigma of bond_pm",
    "angle_off_deg | float64 | degree | rms of how far the angles between them are off 360/n",
    "angle_off_err_deg | float64 | degree | 1 sigma of angle_off_deg",
    "cut | bool | | a bond may lead beyond the border, which halves the probability",
    "border_nm | float64 | nm | distance to the nearest border of what is seen",
)
_EXPECTED = _columns("ideal_err_nm | float64 | nm | 1 sigma per axis of where the lattice expects the column")

EXTRAS: dict[str, tuple[Column, ...]] = {
    "atoms": _FITTED + _columns(
        "element | str | | chemical element, where bonds were analysed",
        "element_probability | float64 | | how sure that is",
    ),
    "sites": _FITTED + _EXPECTED,
    "defects": _FITTED + _EXPECTED + _columns(
        "height | float64 | image | height of the column: its amplitude, or a linear fit's where there is no atom",
        "relative_height | float64 | | height over that of the host column around it, by the linear fit",
        "scatter | float64 | | how much more than elsewhere relative heights scatter around it, 1 or more",
        "counted | float64 | | share of that scatter's square which is counting noise, 0 to 1",
        "beneath | float64 | | share of a host column's counting noise that stays where the column is gone",
        "proportion | float64 | | of the confidence that there is a defect, what falls to this species",
        "by_intensity | str | | verdict without a network",
    ) + _BONDED,
    "tracks": _BONDED + _columns(
        "unsure | bool | | taken during a change, cut by the border, or improbable: no change is read from it",
        "gone | bool | | the trajectory ends here, in sight, while the movie goes on",
        "y_crystal_nm | float64 | nm | y_nm without drift",
        "x_crystal_nm | float64 | nm | x_nm without drift",
    ),
    "counts": _columns(
        "images | int64 | | how many images were pooled",
        "dispersion | float64 | | chi squared per degree of freedom between images; 1 is chance",
        "dispersion_p | float64 | | its p-value",
        "corrected | float64 | | number less what is invented and mistaken, and with what is missed",
        "corrected_low | float64 | | lower end of its interval",
        "corrected_high | float64 | | upper end of its interval",
        "corrected_fraction | float64 | | corrected / sites",
        "corrected_fraction_low | float64 | | lower end of its interval",
        "corrected_fraction_high | float64 | | upper end of its interval",
    ),
    "columns": _columns(
        "y_bootstrap_nm | float64 | nm | 1 sigma of y_nm, of the parts drawn anew",
        "x_bootstrap_nm | float64 | nm | 1 sigma of x_nm, of the parts drawn anew",
        "y_overlap_nm | float64 | nm | what neighbours and the scan added to y_nm, and was taken off",
        "x_overlap_nm | float64 | nm | what neighbours and the scan added to x_nm, and was taken off",
    ),
    "members": _columns(
        "micrograph | int64 | | which of the images",
        "image | str | | its name, in a dataset",
        "dy_pm | float64 | pm | shift from the lattice, down in the crystal's frame",
        "dx_pm | float64 | pm | shift from the lattice, along a1",
        "shift_err_pm | float64 | pm | 1 sigma of it, per axis",
        "rotation_deg | float64 | degree | turned beyond what the lattice says",
        "correlation | float64 | | with the template",
        "coverage | float64 | | part of the patch in the image and not under masks",
        "strain | float64 | | of the lattice around it, beyond what is usual of its class",
        "strain_err | float64 | | 1 sigma of strain",
        "half | int64 | | half set, 0 or 1; -1 where it was left out",
        "accepted | bool | | whether it was averaged",
        "reason | str | | why not",
    ),
    "precision": _columns(
        "n | int64 | | members of an average",
        "sublattice | str | | name of the sublattice in the crystal",
        "precision_pm | float64 | pm | 1 sigma per axis of its columns, from disjoint subsets",
        "precision_err_pm | float64 | pm | 1 sigma of precision_pm",
        "bound_pm | float64 | pm | what the counts allow the fit",
    ),
}  # fmt: skip
"""Columns that some tables have beside their own; and those of the files of a class average."""

_MADE_BY = {
    "atoms": "locate", "sites": "assign_sites", "defects": "classify", "strain": "strain", "tracks": "track",
    "counts": "count", "cells": "detect_cells", "novelties": "discover",
}  # fmt: skip


def crystal_of(sites: pd.DataFrame) -> Crystal:
    """Crystal of a table of sites: as it says, or, as in one read from a file, that with sublattices of these names.

    Raises
    ------
    TypeError
        If `sites` is not a DataFrame.
    ValueError
        If there is none, or it has other sublattices than the sites.
    """
    check_type("sites", sites, pd.DataFrame, "make one with assign_sites()")
    names = set(check(sites, "sites", ["sublattice"])["sublattice"]) - {""}
    if said := sites.attrs.get("crystal"):
        crystal = get_crystal(said)
        if odd := sorted(names - {s.name for s in crystal.sublattices}):
            raise ValueError(f"`sites` say that they are of {crystal.name}, but have sublattices {', '.join(odd)}.")
        return crystal
    for crystal in CRYSTALS.values():
        if names and names <= {s.name for s in crystal.sublattices}:
            return crystal
    raise ValueError("`sites` do not say which crystal they are of; set sites.attrs['crystal'], e.g. to 'WSe2'.")


def check(table: pd.DataFrame, kind: str, only: Collection[str] = ()) -> pd.DataFrame:
    """Return a copy of `table` with the columns of `kind` in order and typed; others follow.

    Parameters
    ----------
    table : DataFrame
    kind : {"atoms", "sites", "defects", "strain", "tracks", "counts", "cells", "novelties"}
    only : collection of str
        The columns needed, where a table was read in part; all of `kind` by default.

    Raises
    ------
    TypeError
        If `table` is not a DataFrame.
    ValueError
        If columns are missing, there twice, or hold something else than they should.
    """
    check_choice("kind", kind, TABLES)
    check_type(kind, table, pd.DataFrame, f"make one with {_MADE_BY[kind]}()")
    columns = [c for c in TABLES[kind] if not only or c.name in only]
    names = [c.name for c in columns]
    if missing := [name for name in names if name not in table.columns]:
        raise ValueError(
            f"not a table of {kind}: column(s) {', '.join(missing)} missing; run {_MADE_BY[kind]}() first."
        )
    if twice := table.columns[table.columns.duplicated()].tolist():
        raise ValueError(f"not a table of {kind}: column(s) {', '.join(map(str, twice))} are there twice; drop one.")
    result = table[names + [c for c in table.columns if c not in names]].reset_index(drop=True)
    result.attrs = dict(table.attrs)
    for column in columns:
        try:
            result[column.name] = _typed(result[column.name], column)
        except (TypeError, ValueError) as error:
            raise ValueError(f"column {column.name!r} of the {kind} table must be {column.dtype}: {error}") from None
    return result


def _typed(values: pd.Series, column: Column) -> pd.Series:
    """Values of a column in its dtype; ValueError for what would not be the same any more."""
    if column.dtype == "str":
        return values.astype(object).where(values.notna(), "").astype(str)
    if column.dtype == "int64" and (off := values.astype("float64") % 1 != 0).any():
        raise ValueError(f"{values[off].iloc[0]} is no whole number")
    typed: pd.Series = values.astype(column.dtype)  # type: ignore[call-overload]
    if column.name in _PLACES and np.isinf(typed).any():
        raise ValueError("some are infinite; NaN says that a place is not known")
    return typed


def check_sites(sites: pd.DataFrame, only: Collection[str] = ()) -> pd.DataFrame:
    """Return checked SITES, each of which is there once."""
    sites = check(sites, "sites", only)
    if sites[sites["i"].notna()].duplicated(["frame", "i", "j", "sublattice"]).any():
        raise ValueError("`sites` list a site twice; give each once, as assign_sites() does.")
    return sites


def empty(kind: str) -> pd.DataFrame:
    """Return a table of `kind` without rows."""
    check_choice("kind", kind, TABLES)
    return check(pd.DataFrame({c.name: [] for c in TABLES[kind]}), kind)


def positions_nm(table: pd.DataFrame) -> np.ndarray:
    """Measured positions (y, x) in nm, shape (row, 2)."""
    return np.column_stack([table[name].to_numpy(float) for name in ("y_nm", "x_nm")])
