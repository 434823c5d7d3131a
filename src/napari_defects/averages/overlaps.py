"""Fields of neighbouring defects, and of the reference lattice that saw them, taken apart by superposition.

Around a member every other defect pulls too, and the lattice that its image is measured against was fitted to
columns that all defects had moved. Where defects are many this is no small thing: neighbours closer than the
isolation radius being left out, those outside pull the average's columns by a part n pi r^2 of its own field
(18 % at 3 % of the sites). The displacements superpose: with the field of each class, as measured, put around
each of its defects, the sum is known at every column; a lattice fitted to the positions less this sum has not
seen it; and what neighbours and lattice add to each member's columns is taken off. That changes the fields,
and a few rounds later nothing changes any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from ..crystals import Crystal
from ..deformation import displacements
from .members import site_at

if TYPE_CHECKING:
    from .stacks import Stack

Array = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

REACH_NM = 4.0
"""Beyond this a field is smooth enough for the lattice to follow it."""
_CORE_NM = 0.15
_MANY = 1 << 32  # more than any number of a defect


@dataclass(frozen=True)
class Field:
    """Displacement around a defect, in the frame of its class: measured columns, and C x / r^2 beyond them.

    Parameters
    ----------
    crystal : Crystal
    home : str
        Sublattice of the defect's site.
    near_nm : ndarray, shape (sublattice, 2 m + 1, 2 m + 1, 2)
        By sublattice and cell from the defect's; NaN where it was not measured.
    c_nm2 : float
    """

    crystal: Crystal
    home: str
    near_nm: Array
    c_nm2: float

    @classmethod
    def of(cls, sites: pd.DataFrame, crystal: Crystal, home: str, c_nm2: float | None = None) -> Field:
        """Return the field that the SITES table of a class average shows; beyond it, C as given or as it is there."""
        r = np.hypot(sites["y_ideal_nm"], sites["x_ideal_nm"])
        table = displacements(sites, center_nm=(0, 0), exclude_nm=min(0.5, 0.6 * float(r.max())))
        x = table[["y_ideal_nm", "x_ideal_nm"]].to_numpy()
        u, err = (table[list(c)].to_numpy() / 1000 for c in (("uy_pm", "ux_pm"), ("uy_err_pm", "ux_err_pm")))
        r2 = (x**2).sum(1)
        known = np.isfinite(u).all(1) & np.isfinite(err).all(1) & (r2 > _CORE_NM**2)
        number, i, j = site_at(crystal, home, x[known])
        reach = int(max(np.abs(i).max(initial=0), np.abs(j).max(initial=0)))
        near = np.full((len(crystal.sublattices), 2 * reach + 1, 2 * reach + 1, 2), np.nan)
        near[number, i + reach, j + reach] = u[known]
        shape, weight = x[known] / r2[known, None], 1 / np.maximum(err[known], 1e-6) ** 2
        c = float((weight * shape * u[known]).sum() / max((weight * shape**2).sum(), 1e-30))
        return cls(crystal, home, near, c if c_nm2 is None else c_nm2)

    def __call__(self, offsets_nm: Array) -> Array:
        """Displacement in nm of columns at offsets (n, 2) from the defect; 0 on its own site."""
        r2 = (offsets_nm**2).sum(1)
        result = self.c_nm2 * offsets_nm / np.maximum(r2, _CORE_NM**2)[:, None]
        result[r2 < _CORE_NM**2] = 0
        reach = self.near_nm.shape[1] // 2
        close = np.flatnonzero((r2 >= _CORE_NM**2) & (r2 < (self.crystal.a_nm * (reach + 1)) ** 2))
        number, i, j = site_at(self.crystal, self.home, offsets_nm[close])
        inside = (np.abs(i) <= reach) & (np.abs(j) <= reach)
        measured = self.near_nm[number[inside], i[inside] + reach, j[inside] + reach]
        known = np.isfinite(measured).all(1)
        result[close[inside][known]] = measured[known]
        return np.asarray(result)


@dataclass
class Sources:
    """All defects of one image that have a field.

    Parameters
    ----------
    frame, defect : ndarray of int, shape (n,)
    centers_nm : ndarray, shape (n, 2)
    maps : ndarray, shape (n, 2, 2)
        From the frame of the class to the image.
    species : ndarray of str, shape (n,)
    """

    frame: npt.NDArray[np.int64]
    defect: npt.NDArray[np.int64]
    centers_nm: Array
    maps: Array
    species: Objects

    @classmethod
    def of(cls, stacks: Sequence[Stack], micrograph: int) -> Sources:
        """Return the defects of these classes in one image, averaged or not."""
        tables = [s.table[(s.table["micrograph"] == micrograph).to_numpy()] for s in stacks]
        maps = [s.maps[(s.table["micrograph"] == micrograph).to_numpy()] for s in stacks]
        table = pd.concat(tables) if tables else pd.DataFrame(columns=["frame", "defect", "y_nm", "x_nm", "species"])
        places = table[["y_nm", "x_nm"]].to_numpy(float)
        turned = np.concatenate(maps) if maps else np.zeros((0, 2, 2))
        use = np.isfinite(places).all(1) & np.isfinite(turned).all((1, 2))
        frame, defect = (table[c].to_numpy(np.int64)[use] for c in ("frame", "defect"))
        return cls(frame, defect, places[use], turned[use], table["species"].to_numpy(object)[use])

    def sum(
        self, points_nm: Array, frame: npt.NDArray[np.int64], fields: Mapping[str, Field],
        member: npt.NDArray[np.int64] | None = None, own: npt.NDArray[np.int64] | None = None,
    ) -> Array:  # fmt: skip
        """Displacement in nm that all defects together give to points (n, 2).

        `member` says which member each point is of, and `own` (m, 2) which defects are whose: (member, defect).
        """
        total, inverse = np.zeros_like(points_nm), np.linalg.inv(self.maps)
        for one in np.unique(frame):
            rows = np.flatnonzero((frame == one) & np.isfinite(points_nm).all(1))
            for species, field in fields.items():
                here = np.flatnonzero((self.frame == one) & (self.species == species))
                if not len(here) or not len(rows):
                    continue
                tree = cKDTree(points_nm[rows])
                pairs = cKDTree(self.centers_nm[here]).sparse_distance_matrix(tree, REACH_NM, output_type="ndarray")
                source, point = here[pairs["i"]], rows[pairs["j"]]
                if member is not None and own is not None:
                    others = ~np.isin(member[point] * _MANY + self.defect[source], own @ [_MANY, 1])
                    source, point = source[others], point[others]
                offset = np.einsum("nab,nb->na", inverse[source], points_nm[point] - self.centers_nm[source])
                pull = np.einsum("nab,nb->na", self.maps[source], field(offset))
                for axis in (0, 1):
                    total[:, axis] += np.bincount(point, pull[:, axis], len(total))
        return total
