"""The six kinds of unit cells of an MX2 crystal: which atoms are missing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..crystals import Crystal, get_crystal

PERFECT = "perfect"
Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Pair(NamedTuple):
    """The two columns of a unit cell: names of the sublattices of the metal and of the chalcogen."""

    metal: str
    chalcogen: str


def pair_of(crystal: str | Crystal) -> Pair:
    """Metal and chalcogen of a crystal.

    Raises
    ------
    ValueError
        If its cell is not one column of one atom and one of two.
    """
    crystal = get_crystal(crystal)
    by_size = {len(s.column): s.name for s in crystal.sublattices}
    if sorted(len(s.column) for s in crystal.sublattices) != [1, 2]:
        raise ValueError(
            f"`crystal` must be an MX2 such as MoTe2 for cells, got {crystal.name}; use method='maps' or 'bonds'."
        )
    return Pair(by_size[1], by_size[2])


def kinds_of(crystal: str | Crystal) -> tuple[str, ...]:
    """Names of the six kinds, in the order of their numbers: `perfect`, V_X, V2_X, V_M, V_X+V_M, V2_X+V_M."""
    metal, chalcogen = pair_of(crystal)
    halves = ("", f"V_{chalcogen}", f"V2_{chalcogen}")
    return (PERFECT, *halves[1:], f"V_{metal}", *(f"{x}+V_{metal}" for x in halves[1:]))


def number_of(missing_chalcogens: Indices, missing_metals: Indices) -> Indices:
    """Numbers of kinds from how many atoms are missing."""
    return np.asarray(missing_chalcogens + 3 * missing_metals, np.int64)


def cells_of(sites: pd.DataFrame, crystal: Crystal) -> pd.DataFrame:
    """Pair the sites of each unit cell of which both columns are in a table.

    Parameters
    ----------
    sites : DataFrame
        SITES, of a still or of many frames.
    crystal : Crystal

    Returns
    -------
    DataFrame
        Indexed by frame, i, j: positions of the sites ``y_M``, ``x_M``, ``y_X``, ``x_X`` in nm as the lattice has them,
        and the rows ``row_M``, ``row_X`` of `sites` they come from.
    """
    metal, chalcogen = pair_of(crystal)
    placed = sites.assign(row=np.arange(len(sites)))[sites["i"].notna()]
    halves = []
    for letter, name in (("M", metal), ("X", chalcogen)):
        own = placed[placed["sublattice"] == name].drop_duplicates(["frame", "i", "j"])
        own = own.rename(columns={"y_ideal_nm": f"y_{letter}", "x_ideal_nm": f"x_{letter}", "row": f"row_{letter}"})
        own = own.astype({"i": "int64", "j": "int64"}).set_index(["frame", "i", "j"])
        halves.append(own[[f"y_{letter}", f"x_{letter}", f"row_{letter}"]])
    return halves[0].join(halves[1], how="inner")


def frame_of(cells: pd.DataFrame, crystal: Crystal) -> Array:
    """Matrix L of a frame: ``offset @ L`` turns an offset (y, x) of the crystal's own frame into one of the image.

    Parameters
    ----------
    cells : DataFrame
        From `cells_of`, of one frame.
    crystal : Crystal

    Raises
    ------
    ValueError
        If there are too few cells to tell.
    """
    if len(cells) < 4:
        raise ValueError(f"only {len(cells)} complete unit cell(s) of {crystal.name}: no lattice to cut them along.")
    index = cells.index.to_frame(index=False)[["i", "j"]].to_numpy(float)
    places = 0.5 * (cells[["y_M", "x_M"]].to_numpy() + cells[["y_X", "x_X"]].to_numpy())
    design = np.column_stack([index, np.ones(len(index))])
    vectors, _, rank, _ = np.linalg.lstsq(design, places, rcond=None)
    if rank < 3:
        raise ValueError(f"the unit cells of {crystal.name} lie on one line: no lattice to cut them along.")
    return np.asarray(np.linalg.solve(crystal.vectors_nm, vectors[:2]))
