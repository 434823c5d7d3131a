"""How the specimen drifts: the lattice of every frame against that of the first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..lattice import Lattice
from ..lattice.phasing import Host
from ..tables import positions_nm

Floats = npt.NDArray[np.float64]


def measure_drift(lattices: Lattice | Mapping[int, Host], center_nm: tuple[float, float] | None = None) -> pd.DataFrame:
    """Drift of the specimen, frame by frame.

    A lattice looks the same one cell further, so of all drifts that it allows the one is taken that goes on
    as the frames before: drift that jumps by half a cell or more between two frames is not seen.

    Parameters
    ----------
    lattices : Lattice or mapping of int to Host
        Of a movie: from `fit_lattice`, or one per frame.
    center_nm : (float, float), optional
        Where (y, x) the drift is taken; matters where frames are turned or scaled against each other.

    Returns
    -------
    DataFrame
        `frame`, `dy_nm`, `dx_nm`, `dy_err_nm`, `dx_err_nm`: against the first frame, all 0 in that.
    """
    rows: list[tuple[float, ...]] = []
    middle = np.zeros(2) if center_nm is None else np.asarray(center_nm, float)
    if isinstance(lattices, Lattice):
        frames = dict(enumerate(lattices.frames or (lattices,)))
        found = {n: (one.origin_nm, one.vectors_nm, _error_nm(one, middle)) for n, one in frames.items()}
    else:
        found = {int(n): (h.origin_nm, h.vectors_nm, 1e-3 * h.residual_pm) for n, h in sorted(lattices.items())}
    for number, (origin, vectors, error) in found.items():
        if not rows:
            first, own = np.linalg.solve(vectors.T, middle - origin), error
            shift, speed = np.zeros(2), np.zeros(2)
        else:
            passed = number - rows[-1][0]
            before = np.array(rows[-1][1:3])
            offset = origin + first @ vectors - middle  # of the same place in the cell
            awaited = before + passed * speed
            shift = offset + np.rint(np.linalg.solve(vectors.T, awaited - offset)) @ vectors
            speed = 0.5 * speed + 0.5 * (shift - before) / passed
        rows.append((number, *shift, *[float(np.hypot(error, own)) if rows else 0.0] * 2))
    table = pd.DataFrame(rows, columns=["frame", "dy_nm", "dx_nm", "dy_err_nm", "dx_err_nm"])
    return table.astype({"frame": "int64"})


def _error_nm(lattice: Lattice, place: Floats) -> float:
    """1 sigma per axis of where a lattice of many atoms is."""
    i, j = np.linalg.solve(lattice.vectors_nm.T, place - lattice.origin_nm)
    error = float(lattice.position_err(i, j, lattice.crystal.sublattices[0].name)[0])
    return error if np.isfinite(error) else 1e-3 * lattice.residual_pm


def without_drift(table: pd.DataFrame, drift: pd.DataFrame | None) -> Floats:
    """Positions (y, x) in the crystal as it lay in the first frame; between known frames drift is interpolated."""
    place = positions_nm(table)
    if drift is None or drift.empty:
        return place
    frame = table["frame"].to_numpy(float)
    moved = [np.interp(frame, drift["frame"], drift[name]) for name in ("dy_nm", "dx_nm")]
    return np.asarray(place - np.column_stack(moved))
