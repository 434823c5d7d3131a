"""Strain: the symmetric part of the displacement's gradient, found at each column by a local affine fit.

The fit is over neighbours of the same sublattice. Errors are those of the positions, propagated: with
sd sigma per axis and six neighbours at distance a, sigma / (sqrt(3) a) for exx.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..checks import check_range, check_type
from ..crystals import CRYSTALS, Crystal
from ..lattice import Lattice
from ..tables import Strain, check
from .shifts import DISPLACEMENT, check_lattice, displacements

Array = npt.NDArray[np.float64]

# exx, eyy, exy, dilation, rotation from the gradient (duy/dy, duy/dx, dux/dy, dux/dx)
_COMPONENTS = {
    "eyy": (1, 0, 0, 0), "exx": (0, 0, 0, 1), "exy": (0, 0.5, 0.5, 0),
    "dilation": (1, 0, 0, 1), "rotation_rad": (0, 0.5, -0.5, 0),
}  # fmt: skip


def strain(
    sites: pd.DataFrame,
    lattice: Lattice | None = None,
    *,
    neighbors: int = 6,
    frame_deg: float = 0.0,
    draws_pm: Array | None = None,
) -> Strain:
    """Strain at every column, with its error.

    Parameters
    ----------
    sites : DataFrame
        SITES table; or the table of `displacements`, whose displacements are kept if `lattice` is None.
    lattice : Lattice, optional
        Reference; None takes the sites' own ideal positions.
    neighbors : int
        Nearest neighbours of the same sublattice to fit over: 6, 12, 18; or 3 for the nearest of the
        other one. More are more precise and blur: for six, sd(exx) is sigma / (sqrt(3) a), for 18
        sigma / (sqrt(24) a), but a field like 1/r is then underestimated by 10 % at 3 a.
    frame_deg : float
        Direction of the x axis of the strain, from the image's x towards its y (down), as
        ``Lattice.rotation_deg``: x is then along zigzag. Displacements stay in the image's frame.
    draws_pm : ndarray, shape (m, row, 2), optional
        Noise of uy_pm and ux_pm of each row, from `ClassAverage.draws`, for the errors of the strain where columns
        are not independent; None takes them for independent, or, in a symmetrized average, for as equal as they
        can be.

    Returns
    -------
    Strain
        Strains are NaN where less than two thirds of the neighbours are there. A column that is
        itself missing has a strain, from its neighbours.

    Raises
    ------
    ValueError
        If columns are missing, `neighbors` is not a closed shell or `draws_pm` is of another shape.
    """
    check_type("sites", sites, pd.DataFrame, "make one with assign_sites()")
    check_lattice(lattice)
    check_range("neighbors", neighbors, 3, whole=True)
    check_range("frame_deg", frame_deg)
    if draws_pm is not None and np.shape(draws_pm)[1:] != (len(sites), 2):
        raise ValueError(f"`draws_pm` must be of shape (m, {len(sites)}, 2), got {np.shape(draws_pm)}.")
    known = lattice is None and set(DISPLACEMENT) <= set(sites.columns)
    table = check(sites, "strain") if known else displacements(sites, lattice)
    crystal = lattice.crystal if lattice else CRYSTALS.get(str(sites.attrs.get("crystal")))
    table = Strain(table.copy())
    table.attrs = dict(sites.attrs) | ({"crystal": crystal.name} if crystal else {})
    if not table["i"].notna().any():
        return table
    stencils = _stencils(table, crystal, neighbors)
    for _, group in table.groupby(["frame"]):
        _fill(table, group, stencils, neighbors, frame_deg, draws_pm)
    return table


def _stencils(table: pd.DataFrame, crystal: Crystal | None, neighbors: int) -> dict[str, list[tuple[str, int, int]]]:
    """For each sublattice the neighbours to fit over: (sublattice, di, dj)."""
    vectors, origins = cell(table)
    if crystal is not None:
        vectors = crystal.vectors_nm
        origins = {s.name: np.array([s.u, s.v]) @ vectors for s in crystal.sublattices}
    span = range(-4, 5)
    result = {}
    for name in origins:
        others = [o for o in origins if (o == name) != (neighbors <= 3)]
        steps = [(o, di, dj) for o in others for di in span for dj in span if (o, di, dj) != (name, 0, 0)]
        length = np.array([np.linalg.norm(np.array(s[1:]) @ vectors + origins[s[0]] - origins[name]) for s in steps])
        order = np.argsort(length, kind="stable")
        if not 3 <= neighbors < len(order) or length[order[neighbors]] < 1.02 * length[order[neighbors - 1]]:
            raise ValueError(
                f"`neighbors` must close a shell (6, 12, 18, or 3 for the other sublattice), got {neighbors}."
            )
        result[name] = [steps[k] for k in order[:neighbors]]
    return result


def cell(sites: pd.DataFrame) -> tuple[Array, dict[str, Array]]:
    """Lattice vectors, rows (y, x) in nm, and origin of each sublattice, from the sites' ideal positions."""
    rows = sites[sites["i"].notna() & sites["j"].notna() & sites["y_ideal_nm"].notna()]
    names = list(dict.fromkeys(rows["sublattice"]))
    indices = rows[["i", "j"]].to_numpy(float)
    member = np.column_stack([rows["sublattice"] == name for name in names]).astype(float)
    ideal = rows[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    solution = np.linalg.lstsq(np.column_stack([indices, member]), ideal, rcond=None)[0]
    return solution[:2], dict(zip(names, solution[2:], strict=True))


def _fill(
    table: pd.DataFrame,
    group: pd.DataFrame,
    stencils: dict[str, list[tuple[str, int, int]]],
    neighbors: int,
    frame_deg: float,
    draws_pm: Array | None,
) -> None:
    """Write the strain of one frame's columns into `table`."""
    rows = group[group["i"].notna() & group["j"].notna()]
    cells = rows[["i", "j"]].to_numpy(np.int64)
    low = cells.min(0) - 5
    shape = tuple(cells.max(0) - low + 6)
    names = {name: k for k, name in enumerate(stencils)}
    kind = rows["sublattice"].map(names).to_numpy(np.int64)
    lookup = np.full((len(names), *shape), -1)
    lookup[kind, cells[:, 0] - low[0], cells[:, 1] - low[1]] = np.arange(len(rows))
    place = rows[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
    u, err = (rows[DISPLACEMENT[k : k + 2]].to_numpy() / 1000 for k in (0, 2))
    measured = np.asarray(np.isfinite(u).all(1))
    if known := bool(np.isfinite(err).any()):
        measured &= np.isfinite(err).all(1)  # a failed fit; in a table without any errors they are not known (theory)
    steps = np.array([[(names[n], di, dj) for n, di, dj in stencils[name]] for name in names])[kind]  # (row, k, 3)
    found = lookup[steps[..., 0], *np.moveaxis(cells[:, None] - low + steps[..., 1:], -1, 0)]
    found = np.column_stack([np.arange(len(rows)), found])  # the column itself comes first
    present = (found >= 0) & measured[found]
    offset = (place[found] - place[:, None]) * present[..., None]
    weight = _gradient_weights(offset, present)  # (row, 2, k): gradient = weight . u
    weight[present[:, 1:].sum(1) < 2 * neighbors / 3] = np.nan
    safe_u, variance = np.nan_to_num(u)[found], (np.nan_to_num(err) if known else err)[found] ** 2
    gradient = np.einsum("rak,rkb->rba", weight, safe_u)  # (row, component of u, direction)
    covariance = np.einsum("rak,rck,rkb->rbac", weight, weight, variance)  # of the gradient, diagonal in b
    if draws_pm is not None:
        noise = np.nan_to_num(draws_pm[:, table.index.get_indexer(rows.index)] / 1000)
        drawn = np.einsum("rak,mrkb->mrba", weight, noise[:, found])
    c, s = np.cos(np.deg2rad(frame_deg)), np.sin(np.deg2rad(frame_deg))
    turn = np.kron(*[np.array([[c, -s], [s, c]])] * 2)  # acts on the gradient, flattened
    for name, form in _COMPONENTS.items():
        vector = (np.array(form) @ turn).reshape(2, 2)
        values = np.einsum("ba,rba->r", vector, gradient)
        errors = np.sqrt(np.einsum("ba,bc,rbac->r", vector, vector, covariance))
        if draws_pm is not None:
            errors = np.einsum("ba,mrba->mr", vector, drawn).std(0)
        elif copies := table.attrs.get("copies"):
            errors *= np.sqrt(min(copies, neighbors))
        table.loc[rows.index, name] = values
        table.loc[rows.index, f"{name.removesuffix('_rad')}_err{'_rad' * name.endswith('_rad')}"] = errors


def _gradient_weights(offset: Array, present: npt.NDArray[np.bool_]) -> Array:
    """Weights that turn displacements at `offset` (row, k, 2) into their least-squares gradient (row, 2, k)."""
    count = np.maximum(present.sum(1), 1)[:, None, None]
    centered = (offset - offset.sum(1, keepdims=True) / count) * present[..., None]
    normal = np.einsum("rka,rkc->rac", centered, centered)
    flat = np.asarray(np.linalg.det(normal)) <= 1e-3 * np.trace(normal, axis1=1, axis2=2) ** 2 / 4
    normal[flat] = np.eye(2)
    weight = np.einsum("rac,rkc->rak", np.linalg.inv(normal), centered)
    weight[flat] = np.nan
    return np.asarray(weight)
