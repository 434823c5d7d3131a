"""Atoms on the sites of a lattice, and the sites that are empty."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from ..checks import check_range, check_type
from ..tables import Atoms, Sites, check, positions_nm
from .fitting import by_frame
from .model import Array, Indices, Lattice
from .occupancy import empty_sites

_LEFT = 0.7  # bond lengths within which an atom off the lattice accounts for an empty site,
_WHOLE = 0.5  # if it is so bright beside those on such sites: fainter ones are dirt


def assign_sites(atoms: Atoms, lattice: Lattice, *, max_offset_nm: float = 0.08) -> Sites:
    """Give every atom its lattice site, and every empty site of the crystal a row.

    Parameters
    ----------
    atoms : Atoms
        From `locate`.
    lattice : Lattice
        From `fit_lattice`.
    max_offset_nm : float
        Largest distance between an atom and its site, in a crystal of nominal size (multiplied by `lattice.scale`).

    Returns
    -------
    Sites
        One row per site: occupied ones carry their atom, empty ones have NaN position and amplitude. Only sites
        with most of their neighbours present count as empty; holes and the outside of the flake have none. Atoms
        off the lattice follow at the end with `i`, `j` missing and sublattice ``""``. An additional column,
        `ideal_err_nm`, is the 1 sigma per axis of where the lattice expects the site. ``attrs["crystal"]`` is the
        crystal's name.

    Raises
    ------
    ValueError
        If `max_offset_nm` is not positive, or if a column is missing.
    """
    check_range("max_offset_nm", max_offset_nm, 0, above=True)
    check_type("lattice", lattice, Lattice, "fit one with fit_lattice(atoms, crystal)")
    atoms = Atoms(check(atoms, "atoms"))
    parts = [_assign_frame(table, lattice.at(n), max_offset_nm * lattice.at(n).scale) for n, table in by_frame(atoms)]
    if not parts:
        parts = [_assign_frame(atoms, lattice, max_offset_nm)]
    sites = check(pd.concat([p for p in parts if len(p)] or parts, ignore_index=True), "sites")
    sites.attrs["crystal"] = lattice.crystal.name
    return Sites(sites)


def _assign_frame(table: pd.DataFrame, lattice: Lattice, max_offset_nm: float) -> pd.DataFrame:
    names = np.array([s.name for s in lattice.crystal.sublattices], object)
    points = positions_nm(table)
    i, j, s = lattice.index(np.nan_to_num(points))
    ideal = lattice.position(i, j, s)
    offset = np.linalg.norm(points - ideal, axis=1)
    order = np.argsort(offset, kind="stable")
    first = ~pd.DataFrame({"i": i[order], "j": j[order], "s": s[order]}).duplicated().to_numpy()
    taken = np.zeros(len(table), bool)
    taken[order] = first & (offset[order] <= max_offset_nm)

    table = table.assign(
        i=pd.array(i, "Int64"),
        j=pd.array(j, "Int64"),
        sublattice=names[s],
        y_ideal_nm=ideal[:, 0],
        x_ideal_nm=ideal[:, 1],
    )
    table.loc[~taken, ["i", "j"]] = pd.NA
    table.loc[~taken, "sublattice"] = ""
    table.loc[~taken, ["y_ideal_nm", "x_ideal_nm"]] = np.nan
    if not taken.any():
        return table
    ei, ej, es = empty_sites(lattice.position, lattice.crystal, lattice.scale, np.column_stack([i, j, s])[taken])
    where = lattice.position(ei, ej, es)
    alone = _alone(where, es, points, table["amplitude"].to_numpy(float), np.where(taken, s, -1), lattice)
    ei, ej, es, where = ei[alone], ej[alone], es[alone], where[alone]
    empty = pd.DataFrame(
        {
            "frame": np.full(len(ei), table["frame"].iloc[0], np.int64),
            "i": pd.array(ei, "Int64"),
            "j": pd.array(ej, "Int64"),
            "sublattice": names[es],
            "y_ideal_nm": where[:, 0],
            "x_ideal_nm": where[:, 1],
        }
    )
    on = pd.concat([table[taken], empty]) if len(empty) else table[taken]
    on = on.assign(ideal_err_nm=lattice.position_err(on["i"].to_numpy(int), on["j"].to_numpy(int), on["sublattice"]))
    return pd.concat([on.sort_values(["i", "j", "sublattice"]), table[~taken]])


def _alone(
    where: Array, sublattice: Indices, points: Array, amplitude: Array, taken: Indices, lattice: Lattice
) -> npt.NDArray[np.bool_]:
    """Whether no atom is near an empty site that has merely left it, as at a grain boundary.

    `sublattice` is that of each empty site, `taken` that of each atom, -1 for those off the lattice.
    """
    alone, reach = np.ones(len(where), bool), _LEFT * lattice.crystal.nearest_neighbor_nm * lattice.scale
    for own in np.unique(sublattice).tolist():
        usual = np.median(amplitude[taken == own]) if (taken == own).any() else 0.0
        left = points[(taken < 0) & ~(amplitude < _WHOLE * usual)]
        if len(left):
            here = sublattice == own
            alone[here] = np.asarray(cKDTree(left).query(where[here])[0]) > reach
    return alone
