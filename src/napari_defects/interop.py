"""Tables to and from other programs: HyperSpy and atomap, ASE, trackpy.

Nothing here imports those programs: what they take and give are arrays, tables and plain objects.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from . import tables
from .crystals import Crystal, get_crystal, occupants
from .tables import Atoms

Array = npt.NDArray[np.float64]

TRACKPY = {"y_nm": "y", "x_nm": "x", "amplitude": "mass", "sigma_nm": "size", "track": "particle", "score": "signal"}
"""Our columns and trackpy's; positions are in pixels there."""
LAYER_NM = 0.17
"""Height of a chalcogen above and below the metal, for models of columns in three dimensions."""


def to_positions(table: pd.DataFrame, pixel_size_nm: float | tuple[float, float], *, frame: int = 0) -> Array:
    """Return positions as atomap and HyperSpy markers take them: (x, y) in pixels, shape (column, 2).

    ``atomap.api.Sublattice(nd.interop.to_positions(atoms, 0.02), image)`` goes on where we end.
    """
    size = np.broadcast_to(np.asarray(pixel_size_nm, float), (2,))
    here = table[(table["frame"] == frame) & table["y_nm"].notna() & table["x_nm"].notna()]
    return np.asarray((tables.positions_nm(here) / size)[:, ::-1])


def from_positions(positions: Any, pixel_size_nm: float | tuple[float, float], *, frame: int = 0) -> Atoms:
    """Return ATOMS from positions (x, y) in pixels: atomap's ``sublattice.atom_positions``, HyperSpy's peaks.

    Errors and heights are not known, and NaN.

    Raises
    ------
    ValueError
        If `positions` is not (column, 2).
    """
    places = np.asarray(positions, float)
    if places.ndim != 2 or places.shape[1] != 2:
        raise ValueError(f"`positions` must be (x, y) in pixels, shape (column, 2), got shape {places.shape}.")
    size = np.broadcast_to(np.asarray(pixel_size_nm, float), (2,))
    return _atoms(places[:, 1] * size[0], places[:, 0] * size[1], np.full(len(places), frame))


def to_trackpy(table: pd.DataFrame, pixel_size_nm: float) -> pd.DataFrame:
    """Return a table with trackpy's columns: ``y``, ``x`` in pixels, ``frame``, ``mass``, ``size``, ``particle``.

    Other columns go along unchanged; `from_trackpy` turns it back.
    """
    result = table.rename(columns=TRACKPY)
    for name in ("y", "x", "size"):
        if name in result:
            result[name] = result[name].astype(float) / pixel_size_nm
    return result


def from_trackpy(table: pd.DataFrame, pixel_size_nm: float) -> pd.DataFrame:
    """Return a table of ours from trackpy's: of `to_trackpy`, or of ``trackpy.locate`` and ``trackpy.link``.

    Raises
    ------
    ValueError
        If ``y`` or ``x`` is missing.
    """
    if missing := [name for name in ("y", "x") if name not in table]:
        raise ValueError(f"`table` has no column {missing[0]}; it must be a table of trackpy's.")
    result = table.rename(columns={theirs: ours for ours, theirs in TRACKPY.items()})
    for name in ("y_nm", "x_nm", "sigma_nm"):
        if name in result:
            result[name] = result[name].astype(float) * pixel_size_nm
    known = {c.name for c in tables.ATOMS}
    whole = _atoms(
        result["y_nm"].to_numpy(float), result["x_nm"].to_numpy(float), result.get("frame", pd.Series(0, result.index))
    )
    for name in map(str, result):
        whole[name] = result[name].to_numpy()
    order = [c.name for c in tables.ATOMS] + [c for c in result if c not in known]
    return whole[order]


def to_ase(labels: pd.DataFrame, crystal: str | Crystal, *, frame: int = 0) -> Any:
    """Return an ``ase.Atoms`` model of what was found: x to the right, y up, the columns' atoms above each other.

    Parameters
    ----------
    labels : DataFrame
        From `napari_defects.labels.label_sites`, or a table with y_nm, x_nm and species.
    crystal : str or Crystal
        What the species are of.
    frame : int

    Returns
    -------
    ase.Atoms
        In angstrom; ``info["species"]`` names the defects, in the order of their columns.

    Raises
    ------
    ValueError
        If a species says nothing of the atoms (``darker_W``).
    """
    from ase import Atoms as Model

    crystal = get_crystal(crystal)
    here = labels[labels.get("frame", pd.Series(0, labels.index)) == frame].dropna(subset=["y_nm", "x_nm"])
    symbols: list[str] = []
    places: list[tuple[float, float, float]] = []
    for y_nm, x_nm, species in here[["y_nm", "x_nm", "species"]].itertuples(index=False):
        ((name, column),) = list(occupants(str(species), crystal).items())[:1]
        host = next((len(s.column) for s in crystal.sublattices if s.name == name), len(column))
        height = LAYER_NM * (max(host, len(column)) - 1)  # what is left of a pair stays where it was
        for number, symbol in enumerate(column):
            symbols.append(symbol)
            places.append((10 * x_nm, -10 * y_nm, 10 * (height - 2 * LAYER_NM * number)))
    model = Model(symbols, positions=np.array(places).reshape(-1, 3))
    hosts = {s.host for s in crystal.sublattices}
    model.info["species"] = [s for s in here["species"] if s not in hosts]
    return model


def from_ase(model: Any, *, tolerance_nm: float = 0.02) -> Atoms:
    """Return ATOMS of a model, seen along z: atoms above each other are one column.

    Parameters
    ----------
    model : ase.Atoms
    tolerance_nm : float
        Atoms nearer than this in projection are one column.
    """
    places = np.asarray(model.get_positions(), float)[:, :2] / 10
    i, j = cKDTree(places).query_pairs(tolerance_nm, output_type="ndarray").T
    near = coo_array((np.ones(len(i)), (i, j)), shape=(len(places),) * 2)
    keys = connected_components(near, directed=False)[1]
    x, y = (np.bincount(keys, places[:, axis]) / np.bincount(keys) for axis in (0, 1))
    order = np.lexsort((x, -y))
    return _atoms(-y[order], x[order], np.zeros(len(order), int))


def _atoms(y_nm: Array, x_nm: Array, frame: Any) -> Atoms:
    table = pd.DataFrame({c.name: np.nan for c in tables.ATOMS}, index=range(len(y_nm)))
    table["y_nm"], table["x_nm"], table["frame"] = y_nm, x_nm, np.asarray(frame)
    return Atoms(tables.check(table, "atoms"))
