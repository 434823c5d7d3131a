"""Where the members of a class lie: their centre, and the crystal's own frame around each.

Every member is seen in the frame of the unrotated crystal (a1 along x, nm), by the affine map that
takes the crystal's columns around it to where the lattice has them in the image. Rotation, scale,
shear and the scan's distortion, of whatever image it comes from, are thereby gone; grains turned by
60 degrees have lattices turned by 60 degrees. Where both sublattices are the same element, a member
on the second is turned by 180 degrees onto the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from ..crystals import Crystal, Sublattice
from ..deformation import cell
from ..lattice import Lattice
from ..tables import crystal_of

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_REACH = 2.6  # of the local affine map, in lattice constants


@dataclass(frozen=True)
class Ground:
    """The lattice of one image, whether it comes as such or as the ideal positions of its sites.

    Parameters
    ----------
    crystal : Crystal
    lattice : Lattice, optional
    sites : DataFrame, optional
        SITES table; used where there is no lattice.
    """

    crystal: Crystal
    lattice: Lattice | None = None
    sites: pd.DataFrame | None = None

    @classmethod
    def of(cls, lattice: Lattice | None, sites: pd.DataFrame | None) -> Ground | None:
        """Return the ground of an image, None where neither lattice nor sites are known."""
        if lattice is not None:
            return cls(lattice.crystal, lattice, sites)
        if sites is None or not sites["i"].notna().any():
            return None
        try:
            return cls(crystal_of(sites), None, sites)
        except ValueError:
            return cls(_unknown_crystal(sites), None, sites)

    def positions(self, frame: Ints, i: Ints, j: Ints, sublattice: npt.NDArray[np.object_]) -> Array:
        """Where sites are expected, shape (..., 2) in nm; NaN where there is none."""
        shape = np.shape(i)
        frame, i, j = (np.ravel(v) for v in (frame, i, j))
        sublattice = np.asarray(sublattice, object).ravel()
        result = np.full((len(i), 2), np.nan)
        if self.lattice is not None:
            for one in np.unique(frame):
                rows = frame == one
                result[rows] = self.lattice.at(int(one)).position(i[rows], j[rows], sublattice[rows])
        elif self.sites is not None:
            known = self.sites[self.sites["i"].notna()].drop_duplicates(["frame", "i", "j", "sublattice"])
            keys = pd.MultiIndex.from_frame(known[["frame", "i", "j", "sublattice"]])
            found = keys.get_indexer(pd.MultiIndex.from_arrays([frame, i, j, sublattice]))
            ideal = known[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
            result[found >= 0] = ideal[found[found >= 0]]
        return result.reshape(*shape, 2)

    def nearest(self, frame: int, points_nm: Array) -> pd.DataFrame:
        """Site (i, j, sublattice) nearest to each position."""
        if self.lattice is not None:
            i, j, number = self.lattice.at(frame).index(points_nm)
            names = np.array([s.name for s in self.crystal.sublattices], object)
            return pd.DataFrame({"i": i, "j": j, "sublattice": names[number]})
        assert self.sites is not None
        rows = self.sites[(self.sites["frame"] == frame) & self.sites["i"].notna()]
        _, index = cKDTree(rows[["y_ideal_nm", "x_ideal_nm"]].to_numpy()).query(points_nm)
        return rows.iloc[np.asarray(index)][["i", "j", "sublattice"]].reset_index(drop=True)

    def surroundings(self, defects: pd.DataFrame) -> tuple[Array, Array]:
        """Centre (n, 2) and map (n, 2, 2) from the class's frame to the image, both in nm; NaN off the lattice."""
        anchor, free = self._anchored(defects)
        centers, maps = np.full((len(anchor), 2), np.nan), np.full((len(anchor), 2, 2), np.nan)
        for name, group in anchor.groupby("sublattice"):
            around = layout(self.crystal, str(name), _REACH * self.crystal.a_nm)
            seen = self.positions(*self._cells(group, around))
            design = np.column_stack([np.ones(len(around)), around[["y_nm", "x_nm"]]])
            weight = np.asarray(np.isfinite(seen).all(-1), float)
            normal = np.einsum("nk,ka,kb->nab", weight, design, design)
            spread = np.prod(np.var(design[:, 1:], axis=0)) * len(around) ** 3
            bad = np.flatnonzero(np.linalg.det(normal) < 1e-6 * spread)  # too few columns for an affine map
            normal[bad] = np.eye(3)
            right = np.einsum("ka,nkb->nab", design, np.nan_to_num(seen) * weight[..., None])
            solution = np.linalg.solve(normal, right)  # (n, 3, 2): centre, then the map's columns
            solution[bad] = np.nan
            centers[group.index] = solution[:, 0]
            maps[group.index] = np.swapaxes(solution[:, 1:], 1, 2)
        given = defects[["y_nm", "x_nm"]].to_numpy(float)
        centers[free] = given[free]
        return centers, maps @ np.swapaxes(self._turns(defects, anchor), 1, 2)

    def cells(self, defects: pd.DataFrame, columns_nm: Array) -> tuple[Ints, Ints, Ints, npt.NDArray[np.object_]]:
        """Sites that members have at `columns_nm` (k, 2) of the class's frame: frame, i, j, sublattice, each (n, k)."""
        anchor, _ = self._anchored(defects)
        turns = self._turns(defects, anchor)
        kinds, which = np.unique(turns.round(6).reshape(len(turns), 4), axis=0, return_inverse=True)
        result: list[npt.NDArray[Any]] = [np.zeros((len(anchor), len(columns_nm)), d) for d in (int, int, int, object)]
        for name in anchor["sublattice"].unique():
            around = layout(self.crystal, str(name), float(np.linalg.norm(columns_nm, axis=1).max()) + 0.1)
            for kind, turn in enumerate(kinds.reshape(-1, 2, 2)):
                rows = np.flatnonzero((anchor["sublattice"] == name).to_numpy() & (which.ravel() == kind))
                index = np.asarray(cKDTree(around[["y_nm", "x_nm"]].to_numpy() @ turn.T).query(columns_nm)[1])
                for values, found in zip(result, self._cells(anchor.iloc[rows], around.iloc[index]), strict=True):
                    values[rows] = found
        return result[0], result[1], result[2], result[3]

    def _turns(self, defects: pd.DataFrame, anchor: pd.DataFrame) -> Array:
        """From the crystal's frame around each site to that of its class, (n, 2, 2)."""
        result = np.tile(np.eye(2), (len(anchor), 1, 1))
        for name, group in anchor.groupby("sublattice"):
            result[group.index] *= sign(self.crystal, str(name))
            if "turn" in defects and (turn := defects["turn"].to_numpy()[group.index]).any():
                result[group.index] = symmetry(self.crystal, str(name))[turn] @ result[group.index]
        return result

    def _anchored(self, defects: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray[np.bool_]]:
        """Site of each defect, and which of them are on none: these have the nearest."""
        anchor = defects[["frame", "i", "j", "sublattice"]].reset_index(drop=True)
        known = anchor["sublattice"].isin([s.name for s in self.crystal.sublattices])
        free = (anchor["i"].isna() | anchor["j"].isna() | ~known).to_numpy(bool)
        for frame in np.unique(anchor.loc[free, "frame"]):
            rows = np.flatnonzero(free & (anchor["frame"] == frame))
            given = defects[["y_nm", "x_nm"]].to_numpy(float)[rows]
            anchor.loc[rows, ["i", "j", "sublattice"]] = self.nearest(int(frame), given).to_numpy()
        return anchor, free

    def _cells(self, anchor: pd.DataFrame, around: pd.DataFrame) -> tuple[Ints, Ints, Ints, npt.NDArray[np.object_]]:
        """Sites `around` each anchor: frame, i, j, sublattice, each of shape (n, k)."""
        n, k = len(anchor), len(around)
        i, j = (np.add.outer(anchor[c].to_numpy(np.int64), around[c].to_numpy(np.int64)) for c in ("i", "j"))
        frame = np.broadcast_to(anchor["frame"].to_numpy()[:, None], (n, k))
        return frame, i, j, np.broadcast_to(around["sublattice"].to_numpy(object), (n, k))


def sign(crystal: Crystal, sublattice: str) -> float:
    """-1 for a site that is turned by 180 degrees onto an earlier one of the same element, else 1."""
    first = next(s for s in crystal.sublattices if s.host == crystal.sublattice(sublattice).host)
    return 1.0 if first.name == sublattice else -1.0


@lru_cache(maxsize=128)
def layout(crystal: Crystal, sublattice: str, reach_nm: float) -> pd.DataFrame:
    """Columns of the crystal around a site: i, j, sublattice, y_nm, x_nm relative to it."""
    span = np.arange(-int(reach_nm / crystal.a_nm * 1.2) - 2, int(reach_nm / crystal.a_nm * 1.2) + 3)
    home = crystal.sublattice(sublattice)
    rows = pd.DataFrame(
        [(i, j, s.name, i + s.u - home.u, j + s.v - home.v) for i in span for j in span for s in crystal.sublattices],
        columns=["i", "j", "sublattice", "u", "v"],
    )
    rows[["y_nm", "x_nm"]] = rows[["u", "v"]].to_numpy() @ crystal.vectors_nm
    near = np.hypot(rows["y_nm"], rows["x_nm"]) <= reach_nm
    return rows.loc[near, ["i", "j", "sublattice", "y_nm", "x_nm"]].reset_index(drop=True)


def site_at(
    crystal: Crystal, home: str, offsets_nm: Array
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Site nearest to each offset (n, 2) from a site of sublattice `home`: number of its sublattice, i, j."""
    shifts = crystal.fractions - crystal.fractions[[s.name for s in crystal.sublattices].index(home)]
    cells = offsets_nm[:, None] @ np.linalg.inv(crystal.vectors_nm) - shifts  # (n, sublattice, 2)
    corners = np.floor(cells)[:, :, None] + np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
    distance = np.linalg.norm((corners - cells[:, :, None]) @ crystal.vectors_nm, axis=-1).reshape(
        len(cells), 4 * len(shifts)
    )
    best = distance.argmin(1)
    found = corners.reshape(len(cells), 4 * len(shifts), 2)[np.arange(len(cells)), best].astype(np.int64)
    return (best // 4).astype(np.int64), found[:, 0], found[:, 1]


@lru_cache(maxsize=64)
def symmetry(crystal: Crystal, sublattice: str) -> Array:
    """Operations (y, x) of C3v about a site: three turns and three mirrors, shape (6, 2, 2).

    Raises
    ------
    ValueError
        If the site does not have that symmetry.
    """
    around = layout(crystal, sublattice, 2.2 * crystal.a_nm)
    points = around[["y_nm", "x_nm"]].to_numpy()
    names = pd.factorize(around["sublattice"])[0].astype(float)
    bond = points[(around["sublattice"] != sublattice).to_numpy()]
    bond = min(bond, key=lambda p: float(np.hypot(*p)))
    n = bond / np.linalg.norm(bond)
    mirror = 2 * np.outer(n, n) - np.eye(2)
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((np.cos(t), np.sin(t)) for t in 2 * np.pi / 3 * np.arange(3))]
    operations = np.array([*turns, *(mirror @ t for t in turns)])
    tree = cKDTree(np.column_stack([points, names]))
    inner = np.hypot(*points.T) < 1.9 * crystal.a_nm
    for operation in operations:
        moved = np.column_stack([points[inner] @ operation.T, names[inner]])
        if np.max(tree.query(moved)[0]) > 0.02 * crystal.a_nm:
            raise ValueError(
                f"`symmetrize` needs a site of three-fold symmetry; {crystal.name} has none at {sublattice}."
            )
    return operations


def neighbors_of(points_nm: Array, frames: Array, everything: pd.DataFrame, reach_nm: float) -> list[Ints]:
    """Rows of `everything`, other defects, of the same frame within `reach_nm` of each point."""
    result = [np.zeros(0, np.int64) for _ in points_nm]
    places = everything[["y_nm", "x_nm"]].to_numpy(float)
    for frame, rows in _by(frames):
        others = np.flatnonzero((everything["frame"] == frame).to_numpy() & np.isfinite(places).all(1))
        inside = np.isfinite(points_nm[rows]).all(1)
        if len(others):
            near = cKDTree(places[others]).query_ball_point(points_nm[rows[inside]], reach_nm)
            for k, found in zip(rows[inside], near, strict=True):
                result[k] = others[found]
    return result


def pristine_sites(ground: Ground, defects: pd.DataFrame, sublattice: str, distance_nm: float) -> pd.DataFrame:
    """Occupied sites of a sublattice with no defect within `distance_nm`, in the columns of DEFECTS."""
    if ground.sites is None:
        raise ValueError("`sites` must be given to average pristine columns; pass the table of assign_sites().")
    rows = ground.sites[
        (ground.sites["sublattice"] == sublattice) & ground.sites["y_nm"].notna() & ground.sites["i"].notna()
    ]
    place = rows[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    near = neighbors_of(place, rows["frame"].to_numpy(), defects, distance_nm)
    rows = rows[np.array([len(n) == 0 for n in near], bool)]
    columns = {"frame": rows["frame"], "y_nm": rows["y_ideal_nm"], "x_nm": rows["x_ideal_nm"]}
    return pd.DataFrame(columns | {k: rows[k] for k in ("i", "j", "sublattice")}).reset_index(drop=True)


def _by(values: Array) -> Iterator[tuple[Any, npt.NDArray[np.int64]]]:
    for value in np.unique(values):
        yield value, np.flatnonzero(values == value)


def _unknown_crystal(sites: pd.DataFrame) -> Crystal:
    """Return a crystal with the lattice of the sites' ideal positions, when its name is not known."""
    vectors, origins = cell(sites)
    lengths = np.linalg.norm(vectors, axis=1)
    (y1, x1), (y2, x2) = vectors
    gamma = np.rad2deg(np.arctan2(x1 * y2 - y1 * x2, y1 * y2 + x1 * x2))
    first = next(iter(origins.values()))
    fractions = {name: (origin - first) @ np.linalg.inv(vectors) for name, origin in origins.items()}
    return Crystal(
        "", float(lengths[0]), float(lengths[1]), float(gamma),
        tuple(Sublattice(name, float(f[0]), float(f[1]), (name,)) for name, f in fractions.items()),
    )  # fmt: skip
