"""Where one image's columns are expected: a reference lattice that has not seen the defects, and the fields of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree
from scipy.stats import median_abs_deviation

from ..lattice.distortion import Distortion, fit_distortion, robust_fit
from .members import Ground
from .overlaps import Field, Sources

Array = npt.NDArray[np.float64]

_FEWEST = 60  # columns that a lattice is fitted to
_ENOUGH = 15_000  # of them, drawn from more
_ASTRAY_NM = 0.03  # residual of a frame that is not one lattice
_FAR_NM = 1.2  # beyond the averaged patch, where C of the far field is looked for
_CLIP = 5.0


@dataclass(frozen=True)
class Reference:
    """An affine lattice with the scan's smooth distortion, as `fit_lattice` has them."""

    affine: Array
    distortion: Distortion | None

    @classmethod
    def fit(cls, cells: Array, points_nm: Array) -> Reference:
        """Fit to positions (n, 2) of cells (n, 2), fractional coordinates included."""
        design = np.column_stack([np.ones(len(cells)), cells])
        affine, _ = robust_fit(design, points_nm)
        return cls(affine, fit_distortion(design @ affine, points_nm - design @ affine)[0])

    def __call__(self, cells: Array) -> Array:
        """Where the lattice has cells (n, 2), in nm."""
        place = np.column_stack([np.ones(len(cells)), cells]) @ self.affine
        return np.asarray(place if self.distortion is None else place + self.distortion(place))


@dataclass
class Surroundings:
    """One image: its lattice, its defects, and their fields as far as they are known.

    Parameters
    ----------
    ground : Ground
    sources : Sources
    fields : mapping of str to Field
        By species; empty before anything is known, and then the lattice is believed as it is.
    """

    ground: Ground
    sources: Sources
    fields: Mapping[str, Field]
    references: dict[int, Reference] = field(init=False, default_factory=dict)
    rests: dict[int, tuple[Array, Array]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Fit the reference lattice of each frame to its columns less the fields of all defects.

        Frames without measured columns, or of more than one grain, have none: their ideal positions stay.
        """
        sites = self.ground.sites
        if sites is None or not self.fields:
            return
        numbers = sites["sublattice"].map({s.name: k for k, s in enumerate(self.ground.crystal.sublattices)})
        use = sites["i"].notna() & sites["y_nm"].notna() & numbers.notna()
        for key, rows in sites[use].groupby("frame"):
            if len(rows) < _FEWEST:
                continue
            if len(rows) > _ENOUGH:
                rows = rows.sample(_ENOUGH, random_state=0)
            frame, number = int(str(key)), numbers[rows.index].to_numpy(int)
            cells = rows[["i", "j"]].to_numpy(float) + self.ground.crystal.fractions[number]
            ideal, seen = rows[["y_ideal_nm", "x_ideal_nm"]].to_numpy(), rows[["y_nm", "x_nm"]].to_numpy()
            free = seen - self.sources.sum(ideal, np.full(len(rows), frame), self.fields)
            reference = Reference.fit(cells, free)
            rest = free - reference(cells)
            if float(np.median(np.linalg.norm(rest, axis=1))) < _ASTRAY_NM:
                for k in np.unique(number):
                    rest[number == k] -= np.median(rest[number == k], axis=0)
                self.references[frame], self.rests[frame] = reference, (ideal, rest)

    def expected(self, members: pd.DataFrame, columns_nm: Array, own: npt.NDArray[np.int64]) -> Array:
        """Where columns (k, 2) of the class's frame are around each member, but for its own field: (n, k, 2) in nm.

        `own` (m, 2) says which defects are whose: (member, defect).
        """
        frame, i, j, names = self.ground.cells(members, columns_nm)
        seen = self.ground.positions(frame, i, j, names)
        fractions = {s.name: (s.u, s.v) for s in self.ground.crystal.sublattices}
        for one, reference in self.references.items():
            here = frame == one
            shift = np.array([fractions[s] for s in names[here]]).reshape(-1, 2)
            seen[here] = reference(np.column_stack([i[here], j[here]]) + shift)
        if not self.fields:
            return seen
        member = np.repeat(np.arange(len(members)), len(columns_nm))
        flat = self.sources.sum(seen.reshape(-1, 2), frame.ravel(), self.fields, member, own)
        return np.asarray(seen + flat.reshape(seen.shape))

    def far(self, members: pd.DataFrame, maps: Array, own: Field, radius_nm: float) -> tuple[float, float]:
        """Return sums of which C of the field beyond `radius_nm` is the ratio, from the columns measured there."""
        above, below = 0.0, 0.0
        for frame, (ideal, rest) in self.rests.items():
            rows = np.flatnonzero((members["frame"] == frame).to_numpy())
            if not len(rows):
                continue
            centers = members[["y_nm", "x_nm"]].to_numpy(float)[rows]
            reach = radius_nm + _FAR_NM
            pairs = cKDTree(centers).sparse_distance_matrix(cKDTree(ideal), reach, output_type="ndarray")
            pairs = pairs[pairs["v"] > radius_nm]
            k, column = rows[pairs["i"]], pairs["j"]
            inverse = np.linalg.inv(maps)[k]
            offset = np.einsum("nab,nb->na", inverse, ideal[column] - centers[pairs["i"]])
            left = np.einsum("nab,nb->na", inverse, rest[column])
            if not len(left):
                continue
            keep = np.abs(left).max(1) < _CLIP * median_abs_deviation(left, axis=None, scale="normal")
            shape = offset / (offset**2).sum(1, keepdims=True)
            above += float((shape * (left + own(offset)))[keep].sum())
            below += float((shape**2)[keep].sum())
        return above, below
