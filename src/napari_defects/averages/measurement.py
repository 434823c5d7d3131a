"""From a registered stack to coordinates: sums of disjoint parts of the members, and what their scatter says.

The members are dealt out to as many parts as there may be. The map from an average's image to the positions of
its columns is linear about the whole average's fit, so each part's positions cost next to nothing; from their
scatter follow the precision of averages of any number of members, errors and bootstraps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from ..tables import EXTRAS, Sites, empty
from .coordinates import Ruler
from .members import symmetry
from .overlaps import Field, Sources
from .stacks import Stack
from .surroundings import Surroundings

Array = npt.NDArray[np.float64]

PARTS = 64
"""Most disjoint parts of the members."""
PRECISION = [column.name for column in EXTRAS["precision"]]
_SHUFFLES = 16


@dataclass
class Measurement:
    """Sums of a stack's parts, and the columns of its average.

    Parameters
    ----------
    stack : Stack
        Registered.
    symmetrize : bool
    seed : int
        Of how members are dealt out.
    """

    stack: Stack
    symmetrize: bool
    seed: int
    far_c_nm2: float | None = field(init=False, default=None)
    bend: Array = field(init=False)  # (candidate, column, 2) in nm: what is not the defect's own field
    apart: Array | None = field(init=False, default=None)  # (column, column) of those inside, from `take_apart`

    def __post_init__(self) -> None:
        stack = self.stack
        self.operations = np.eye(2)[None]
        if self.symmetrize:
            if stack.crystal is None or not stack.sublattice:
                raise ValueError(f"`symmetrize` needs members on lattice sites, which {stack.species} has not.")
            if any(len(own) > 1 for own in stack.own):
                raise ValueError("`symmetrize` is for single defects, whose site has the symmetry.")
            self.operations = symmetry(stack.crystal, stack.sublattice)
        n = int(stack.accepted.sum())
        self.n, self.parts = n, max(1, min(PARTS, n - n % 2))
        self.part = np.zeros(len(stack.table), np.int64)
        self.part[stack.accepted] = np.random.default_rng(self.seed).permutation(n) % self.parts
        self.sums = stack.sum(self.part, self.operations)
        self.image = self.image_of(slice(None))
        self.seen = np.isfinite(self.image)
        self.ruler: Ruler | None = None
        if stack.crystal is not None and stack.sublattice:
            self._measure(
                Ruler(stack.crystal, stack.sublattice, stack.pixel, stack.radius, stack.variance[stack.reference])
            )

    def image_of(self, parts: slice) -> Array:
        """Average of some parts; NaN where nothing was seen."""
        total, weights, _ = np.moveaxis(self.sums[parts].sum(0), -1, 0)
        return np.asarray(np.where(weights > 0, total / np.where(weights > 0, weights, 1), np.nan))

    def _measure(self, ruler: Ruler) -> None:
        """Fit the columns, and each part's."""
        filled = np.where(self.seen, self.image, np.nanmean(self.image))
        self.ruler, self.rows = ruler, ruler.columns(len(filled))
        self.columns = ruler.fit(filled, float(np.median(self.sums[..., 1].sum(0))))
        shape = ruler.shape(filled, self.columns)
        self.place = self._nm(shape.positions(filled))
        alone = [self.image_of(slice(k, k + 1)) for k in range(self.parts)]
        places = [self._nm(shape.positions(np.where(np.isfinite(one), one, filled))) for one in alone]
        self.scatter = np.array(places) - self.place
        place = self.rows[["y_nm", "x_nm"]].to_numpy()
        self.inside = np.hypot(*place.T) <= ruler.radius_nm
        self.filled = ruler.filled(self.columns, self.rows)
        self.bend = np.zeros((len(self.stack.table), len(place), 2))

    def _nm(self, yx: Array) -> Array:
        return np.asarray((yx - (len(self.image) - 1) / 2) * self.stack.pixel)

    def separate(self, around: Sequence[Surroundings | None]) -> None:
        """Take off what neighbours and lattice add to the members' columns."""
        self.bend = self.stack.bend(self.rows[["y_nm", "x_nm"]].to_numpy(), self.operations, around)

    @property
    def weight(self) -> Array:
        """Share of each candidate in the average."""
        units = np.array([self.stack.units[k][0] for k in self.stack.table["micrograph"]])
        weight = np.where(self.stack.accepted, units, 0.0)
        return np.asarray(weight / weight.sum())

    @property
    def offset(self) -> Array:
        """Mean of `bend` over the members, (column, 2) in nm."""
        return np.asarray(np.einsum("n,nkb->kb", self.weight, self.bend))

    @property
    def deviations(self) -> Array:
        """By how much each part's columns differ from the average's, (part, column, 2) in nm; 0 where there is none.

        Once the neighbours are taken apart, with the noise that this adds.
        """
        weight = np.zeros((self.parts, len(self.part)))
        weight[self.part, np.arange(len(self.part))] = self.weight
        bent = np.einsum("pn,nkb->pkb", weight / weight.sum(1, keepdims=True), self.bend) - self.offset
        free = self.scatter - bent
        shift = free[:, self.inside & self.filled].mean(1, keepdims=True)
        free = np.where(self.filled[:, None], free - shift, 0.0)
        if self.apart is not None:
            free[:, self.inside] = np.einsum("kl,plb->pkb", self.apart, free[:, self.inside])
        return free

    def take_apart(self, sources: Sequence[Sources]) -> None:
        """Find what separating the neighbours' fields does to the noise of the columns.

        What the neighbours add is the field itself at other places, so that taking it off multiplies the noise
        of the columns, too, by the inverse of 1 + (part of the members that have a neighbour just there).
        """
        place = self.rows[["y_nm", "x_nm"]].to_numpy()[self.inside]
        tree, mixing, stack = cKDTree(place), np.eye(len(place)), self.stack
        for number, image in enumerate(sources):
            rows, kin = stack.averaged(number), image.species == stack.species
            if not len(rows) or not kin.any():
                continue
            centers = stack.table[["y_nm", "x_nm"]].to_numpy(float)[rows]
            reach = 2 * float(np.hypot(*place.T).max())
            pairs = cKDTree(centers).sparse_distance_matrix(
                cKDTree(image.centers_nm[kin]), reach, output_type="ndarray"
            )
            member, source = rows[pairs["i"]], np.flatnonzero(kin)[pairs["j"]]
            other = (pairs["v"] > 0.05) & (image.frame[source] == stack.table["frame"].to_numpy()[member])
            offset = np.einsum(
                "nab,nb->na", np.linalg.inv(stack.maps[member]), image.centers_nm[source] - centers[pairs["i"]]
            )[other]
            steps, which = np.unique(np.rint(offset / 0.02).astype(int), axis=0, return_inverse=True)
            weight = np.bincount(which.ravel(), self.weight[member][other])
            for step, share in zip(steps * 0.02, weight, strict=True):
                away, column = (np.asarray(v) for v in tree.query(place - step))
                near = away < 0.04
                mixing[np.flatnonzero(near), column[near]] += share
        self.apart = np.asarray(np.linalg.inv(mixing), np.float64)

    def precision(self) -> pd.DataFrame:
        """Precision of averages of n members, and of all, from how disjoint groups of parts differ."""
        if self.ruler is None or self.parts < 2:
            return pd.DataFrame(columns=PRECISION)
        errors = self.columns.errors[:, 1:3] * self.stack.pixel
        known = self.inside & self.filled & (errors.max(1) < 0.02)
        deviations, rng = self.deviations, np.random.default_rng(self.seed)
        sizes = [self.parts, *(s for s in (2**k for k in range(8, -1, -1)) if 2 * s <= self.parts)]
        rows = []
        for size in sizes:
            groups = self.parts // size if size < self.parts else self.parts
            each = size if size < self.parts else 1
            variance = []
            for _ in range(_SHUFFLES):
                mixed = deviations[rng.permutation(self.parts)][: groups * each]
                variance.append(mixed.reshape(groups, each, *mixed.shape[1:]).mean(1).var(0, ddof=1))
            spread = np.mean(variance, axis=0) * each / size  # of an average of `size` parts
            for s in self.ruler.crystal.sublattices:
                here = known & (self.rows["sublattice"] == s.name).to_numpy()
                if not here.any():
                    continue
                lost = 1 - 1 / known.sum()  # the mean over the columns was taken off
                value = float(np.sqrt(spread[here].mean() / lost))
                bound = float(np.sqrt((errors[here] ** 2).mean() * self.parts / size))
                freedom = 2 * here.sum() * (self.parts - 1)
                rows.append([max(round(self.n * size / self.parts), 1), s.name, 1000 * value,
                             1000 * value / np.sqrt(2 * freedom), 1000 * bound])  # fmt: skip
        return pd.DataFrame(rows, columns=PRECISION)

    def bootstrap(self, n: int) -> Array:
        """Positions of all columns in `n` averages of parts drawn with replacement, less the average's; in nm."""
        rng, parts = np.random.default_rng(self.seed), self.parts
        weight = rng.multinomial(parts, np.full(parts, 1 / parts), n) / parts
        return np.asarray(np.einsum("np,pkb->nkb", weight, self.deviations) * np.sqrt(parts / max(parts - 1, 1)))

    def sites(self, precision: pd.DataFrame) -> Sites:
        """SITES table of the average; the errors of its fit are multiplied by what the parts say."""
        if self.ruler is None:
            return Sites(empty("sites"))
        whole = precision[precision["n"] == self.n].set_index("sublattice")
        ratio = (whole["precision_pm"] / whole["bound_pm"]).astype(float)
        inflate = pd.Series({s.name: ratio.get(s.name, 1.0) for s in self.ruler.crystal.sublattices})
        free = (self.place - self.offset) / self.stack.pixel + (len(self.image) - 1) / 2
        errors = self.bootstrap(400).std(0) if self.parts > 1 else np.full(self.place.shape, np.nan)
        extra = {"y_bootstrap_nm": errors[:, 0], "x_bootstrap_nm": errors[:, 1]}
        extra |= {"y_overlap_nm": self.offset[:, 0], "x_overlap_nm": self.offset[:, 1]}
        return self.ruler.sites(replace(self.columns, yx=free), self.seen, inflate, extra)

    def field(self, around: Sequence[Surroundings | None]) -> Field | None:
        """Displacement around the defect, as it is known now; far from it, as the images' own columns show it."""
        if self.ruler is None:
            return None
        near = Field.of(self.sites(self.precision()), self.ruler.crystal, self.ruler.sublattice, self.far_c_nm2)
        sums = np.zeros(2)
        for number, image in enumerate(around):
            rows = self.stack.averaged(number)
            if image is not None and len(rows):
                maps = self.stack.maps[rows]
                sums += image.far(self.stack.table.iloc[rows], maps, near, self.ruler.radius_nm)
        if sums[1] > 0:
            self.far_c_nm2 = float(sums[0] / sums[1])
            near = replace(near, c_nm2=self.far_c_nm2)
        return near
