"""Relaxed supercells as tables of sites: beside a measurement, or to displace what is simulated."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage

from ..crystals import Crystal, get_crystal
from ..tables import SITES, Sites, check

Array = npt.NDArray[np.float64]

_COLUMN_NM = 0.06  # atoms of one column lie within this in projection
_TRUST = 0.3  # of the distance between columns: how far a column may be from its site


def structure_sites(structure: Any, crystal: str | Crystal) -> Sites:
    """Columns of a relaxed supercell in projection, as a SITES table in the crystal's own frame.

    Read the structure with ``ase.io.read`` (POSCAR, CIF, XYZ, LAMMPS data, ...). The supercell is the
    ruler: its in-plane vectors, divided by the number of cells, are the crystal's, so that a strain of
    the whole supercell does not count. Give the table to `displacements` or `strain`.

    Parameters
    ----------
    structure : ase.Atoms
        A supercell of the crystal with a defect, n x m cells, vacuum along its third vector.
    crystal : str or Crystal

    Returns
    -------
    Sites
        Without errors; an empty site has NaN position. In nm, a1 along x.

    Raises
    ------
    ValueError
        If the supercell is not one of this crystal.
    """
    crystal = get_crystal(crystal)
    cell = np.asarray(structure.cell.array, float)[:2, :2] / 10
    if abs(np.linalg.det(cell)) < 1e-6:
        raise ValueError("`structure` must have two in-plane cell vectors; set its cell to the supercell's.")
    if np.dot(*cell) > 0:
        cell = np.array([cell[0], cell[1] - cell[0]])  # from 60 to 120 degrees
    lengths = np.linalg.norm(cell, axis=1)
    counts = np.maximum(np.rint(lengths / [crystal.a_nm, crystal.b_nm]), 1).astype(int)
    fractions = np.asarray(structure.positions, float)[:, :2] / 10 @ np.linalg.inv(cell) * counts  # in unit cells
    columns, names = _columns(fractions, counts, np.asarray(structure.get_chemical_symbols()), crystal)
    best: tuple[float, pd.DataFrame] | None = None
    for turn in ([[1, 0], [0, 1]], [[0, 1], [1, 0]], [[-1, 0], [0, -1]], [[0, -1], [-1, 0]]):
        sizes = counts if turn[0][0] else counts[::-1]
        table, misfit = _assigned(columns @ np.array(turn, float), names, sizes, crystal)
        if best is None or misfit < best[0]:
            best = misfit, table
    assert best is not None
    if best[0] > _TRUST * crystal.nearest_neighbor_nm:
        raise ValueError(
            f"`structure` is no supercell of {crystal.name}: its columns are {1000 * best[0]:.0f} pm from the sites."
        )
    result = check(best[1], "sites")
    result.attrs["crystal"] = crystal.name
    return Sites(result)


def _columns(
    fractions: Array, counts: Array, symbols: npt.NDArray[np.str_], crystal: Crystal
) -> tuple[Array, npt.NDArray[np.object_]]:
    """Mean position, in unit cells, of the atoms above each other; and their elements, joined."""
    delta = fractions[:, None] - fractions[None]
    delta -= counts * np.rint(delta / counts)
    distance = np.linalg.norm(delta @ crystal.vectors_nm, axis=-1)
    pairs = np.triu_indices(len(fractions), 1)
    label = fcluster(linkage(distance[pairs], "average"), _COLUMN_NM, "distance") if len(pairs[0]) else np.array([1])
    places, names = [], []
    for one in np.unique(label):
        rows = np.flatnonzero(label == one)
        places.append(fractions[rows[0]] + delta[rows, rows[0]].mean(0))
        names.append("+".join(sorted(symbols[rows])))
    return np.array(places), np.array(names, object)


def _assigned(
    columns: Array, names: npt.NDArray[np.object_], counts: Array, crystal: Crystal
) -> tuple[pd.DataFrame, float]:
    """Table of all sites of the supercell with their columns, and the median distance between them in nm."""
    first = crystal.sublattices[0]
    host = np.array([first.element in name.split("+") for name in names])
    if not host.any():
        return pd.DataFrame(), np.inf
    phase = np.exp(2j * np.pi * (columns[host] - (first.u, first.v))).mean(0)
    columns = columns - np.angle(phase) / (2 * np.pi)
    grid = [(i, j, s.name, s.u, s.v) for i in range(counts[0]) for j in range(counts[1]) for s in crystal.sublattices]
    table = pd.DataFrame(grid, columns=["i", "j", "sublattice", "u", "v"])
    ideal = table[["i", "j"]].to_numpy(float) + table[["u", "v"]].to_numpy()
    delta = columns[None] - ideal[:, None]
    delta -= counts * np.rint(delta / counts)
    offset = delta @ crystal.vectors_nm
    distance = np.linalg.norm(offset, axis=-1)
    nearest = distance.argmin(1)
    rows = np.arange(len(table))
    own = distance[rows, nearest]
    table["elements"] = names[nearest]
    hosts = table["sublattice"].map({s.name: s.element for s in crystal.sublattices})
    wrong = np.mean([h not in e.split("+") for h, e in zip(hosts, table["elements"], strict=True)])
    empty = own > 0.6 * crystal.nearest_neighbor_nm
    table.loc[empty, "elements"] = ""
    place = ideal @ crystal.vectors_nm
    table[["y_ideal_nm", "x_ideal_nm"]] = place
    table[["y_nm", "x_nm"]] = np.where(empty[:, None], np.nan, place + offset[rows, nearest])
    for column in SITES:
        if column.name not in table.columns:
            table[column.name] = 0 if column.name == "frame" else np.nan
    table["score"] = (~empty).astype(float)
    misfit = float(np.median(own)) + (np.inf if wrong > 0.5 else float(wrong))
    return table.drop(columns=["u", "v"]), misfit
