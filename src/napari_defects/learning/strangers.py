"""The sites of one sublattice: which are unlike all that is known, and which of these are alike.

A column is described by its height and by its own shape, both in units of how the pristine columns of its sublattice
scatter around it. What lies farther from all that is known than chance allows is novel. Novel columns are a mixture of
a few kinds: Gaussians in height, as many as the Bayesian information criterion asks for; those of an unusual shape
(dirt, an atom beside its site) are sorted apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from scipy.stats import chi2, median_abs_deviation

from ..crystals import Crystal, Sublattice, site_of
from ..intensities.photometry import center_and_width
from ..intensities.verdicts import OUTLIERS, choices
from ..micrograph import Maps, Micrograph
from .mixtures import fit_mixture

Array = npt.NDArray[np.float64]

_SHAPES = 3  # components of a column's shape that are looked at
_SHAPE_REACH = 0.58  # of the distance to the nearest column: the neighbours are out of sight
_SECOND_SHELL = 1.8  # as many bonds away as columns' tails matter
NEIGHBORS = 60
_CONFIDENT = 0.9  # what the model must be to explain a column
_FITS = 3.0  # a column may be so many sigma from the height of a known class
_PATCH_PX = 25


@dataclass(frozen=True, eq=False)
class Cluster:
    """Columns of one sublattice that look alike, and like nothing known.

    Parameters
    ----------
    number : int
        As in the column `cluster` of the table.
    sublattice : str
        Name of the sublattice.
    n : int
        Members.
    relative_height, relative_height_err : float
        Mean height of the column, 1 for the host's, and its standard error.
    odd_shape : bool
        Whether it was set apart for its shape, not its height.
    patch, host : ndarray, shape (y, x)
        Mean image around the members, and around pristine columns: 0 between the columns, 1 on the host's.
    patch_nm : float
        Side of the patches.
    likeness : str
        What can be said without knowing better: ``darker_W``, ``brighter_Se``.
    """

    number: int
    sublattice: str
    n: int
    relative_height: float
    relative_height_err: float
    odd_shape: bool
    patch: Array
    host: Array
    patch_nm: float
    likeness: str


class View:
    """The sites of one sublattice: heights and shapes in units of the pristine columns' scatter."""

    def __init__(
        self, micrograph: Micrograph, table: pd.DataFrame, sublattice: Sublattice, crystal: Crystal, maps: Maps | None
    ) -> None:
        self.micrograph, self.sublattice, self.crystal = micrograph, sublattice, crystal
        self.sites = sites = table[table["sublattice"] == sublattice.name]
        self.place = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
        at = _apart(sites)
        self.near = np.asarray(cKDTree(at).query(at, k=NEIGHBORS + 1)[1])[:, 1:]
        self.relative = sites["relative_height"].to_numpy(float)
        self.center, self.width = center_and_width(self.relative)
        self.width = max(self.width, 0.02)
        self.height = (self.relative - self.center) / self.width / sites["scatter"].to_numpy(float)
        self.shape = self._shapes(table)
        self.explained, self.word, self.unsure = self._known(maps)

    def _shapes(self, table: pd.DataFrame) -> Array:
        """Components of what heights, its own and its neighbours', leave unexplained of each column's image."""
        radius = _SHAPE_REACH * self.crystal.nearest_neighbor_nm
        grid = np.linspace(-radius, radius, 11)
        offsets = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
        seen = self._sampled(offsets[np.hypot(*offsets.T) <= radius])
        usual = np.median(seen[self.near], axis=1)
        rest = (seen - usual) / np.ptp(usual, axis=1)[:, None]
        excess = self._excess(table)
        penalty = np.eye(excess.shape[1])
        rest -= excess @ np.linalg.solve(excess.T @ excess + penalty, excess.T @ rest)
        rest -= np.median(rest, axis=0)
        limit = 4 * median_abs_deviation(rest, axis=0, scale="normal")
        score = rest @ np.linalg.svd(np.clip(rest, -limit, limit), full_matrices=False)[2][:_SHAPES].T
        score /= median_abs_deviation(score, axis=0, scale="normal")
        local = np.median((score**2).sum(1)[self.near], axis=1) / chi2.median(score.shape[1])
        score /= np.sqrt(np.maximum(local, 1))[:, None]
        return np.asarray(score)

    @property
    def within(self) -> npt.NDArray[np.bool_]:
        """Whether all neighbours of a site are in the image: without them neither height nor shape can be judged."""
        margin = _SECOND_SHELL * self.crystal.nearest_neighbor_nm
        far = self.micrograph.extent_nm - self.micrograph.pixel_size_yx_nm - margin
        return np.asarray(np.all((self.place > margin) & (self.place < far), axis=1), bool)

    def _excess(self, table: pd.DataFrame) -> Array:
        """Height beyond the host's of each column and of its neighbours in each direction, where it is not noise."""
        relative = table["relative_height"].to_numpy(float) - 1
        width = table["sublattice"].map({s: center_and_width(h)[1] for s, h in self._heights(table)}).to_numpy(float)
        relative = np.where(np.abs(relative) > 3 * width, relative, 0.0)
        everyone, own = _apart(table), _apart(self.sites)
        tree = cKDTree(everyone)
        middle = own[np.abs(own - np.median(own, axis=0)).sum(1).argmin()]
        bond = self.crystal.nearest_neighbor_nm
        around = everyone[tree.query_ball_point(middle, _SECOND_SHELL * bond)] - middle
        columns = []
        for vector in around:
            distance, index = tree.query(own + vector, distance_upper_bound=0.3 * bond)
            columns.append(np.where(np.isfinite(distance), np.append(relative, 0.0)[index], 0.0))
        return np.stack(columns, axis=1)

    @staticmethod
    def _heights(table: pd.DataFrame) -> list[tuple[str, Array]]:
        return [(str(s), t["relative_height"].to_numpy(float)) for s, t in table.groupby("sublattice")]

    def _frames(self) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """Each frame with the rows that are on it."""
        frame = self.sites["frame"].to_numpy(np.int64)
        return [(int(k), np.flatnonzero(frame == k)) for k in np.unique(frame)]

    def _sampled(self, offsets: Array) -> Array:
        """Image at `offsets` (in nm) from every site, shape (n, offset)."""
        size, values = self.micrograph.pixel_size_yx_nm, np.empty((len(self.place), len(offsets)))
        for frame, rows in self._frames():
            at = (self.place[rows][:, None] + offsets) / size
            pixels = self.micrograph.frame(frame)
            drawn = map_coordinates(pixels, at.reshape(-1, 2).T, order=1, mode="nearest")
            values[rows] = drawn.reshape(len(rows), -1)
        return values

    def _known(self, maps: Maps | None) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.object_], Array]:
        """Whether each site is of a known species that it is as high as; the model's word; and how unsure it is."""
        host, element = self.sublattice.host, self.sublattice.element
        n = len(self.sublattice.column)
        if maps is None:
            names = [f"V{k if k > 1 else ''}_{element}" for k in range(1, n + 1)]
            word, sure = np.full(len(self.sites), "", object), np.ones(len(self.sites))
        else:
            names = [c for c in maps.classes if site_of(c) == element and not c.startswith(OUTLIERS)]
            word, sure = self._words(maps)
        explained = np.zeros(len(self.sites), bool)
        for known in choices(self.sublattice, names, self.crystal)[1:]:
            spread = np.hypot(self.width * np.sqrt(0.2 + 0.8 * max(known.ratio, 0)), known.error)
            fits = np.abs(self.relative - known.ratio) < _FITS * spread
            explained |= fits if maps is None else fits & (word == known.name) & (sure > _CONFIDENT)
        return explained, np.where(word == "", host, word), 1 - sure

    def _words(self, maps: Maps) -> tuple[npt.NDArray[np.object_], Array]:
        """Return the model's most probable class at each site, and its probability."""
        from ..networks.validation import READ_RADIUS_NM, mean_around

        size = self.micrograph.pixel_size_yx_nm
        word, sure = np.empty(len(self.sites), object), np.empty(len(self.sites))
        for frame, rows in self._frames():
            means = mean_around(maps.frame(frame), self.place[rows] / size, READ_RADIUS_NM / float(size.mean()))
            word[rows], sure[rows] = np.asarray(maps.classes, object)[means.argmax(1)], means.max(1)
        return word, sure

    def judged(self, false_share: float, min_members: int) -> pd.DataFrame:
        """Novelty and (preliminary) cluster of each site."""
        by_height = _false_share(chi2.sf(self.height**2, 1))
        by_shape = _false_share(chi2.sf((self.shape**2).sum(1), self.shape.shape[1]))
        novelty = 1 - np.minimum(by_height, by_shape)
        novelty[self.explained | ~self.within] = 0.0
        new = novelty > 1 - false_share
        odd = new & (by_height > false_share)
        cluster = np.full(len(novelty), -1)
        for group, features in ((new & ~odd, self.height[:, None]), (odd, np.column_stack([self.height, self.shape]))):
            if group.sum() >= min_members:
                kind = fit_mixture(features[group], noise=1.0)
                size = np.bincount(kind)
                cluster[group] = np.where(size[kind] >= min_members, kind + cluster.max() + 1, -1)
        self.odd = odd
        return self.sites.assign(
            y_nm=self.place[:, 0], x_nm=self.place[:, 1], relative_height_err=self.width * self.sites["scatter"],
            shape=np.sqrt((self.shape**2).mean(1)), said=self.word, uncertainty=self.unsure, novelty=novelty,
            cluster=cluster,
        )  # fmt: skip

    def clusters(self, judged: pd.DataFrame) -> list[tuple[tuple[str, int], Cluster]]:
        """Clusters of this sublattice, with the key they have in the preliminary table."""
        side = 4 * self.crystal.nearest_neighbor_nm
        grid = np.linspace(-side / 2, side / 2, _PATCH_PX)
        offsets = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
        number = judged["cluster"].to_numpy(int)
        seen = self._sampled(offsets)
        host = np.median(seen[(number < 0) & (np.abs(self.height) < 2)], axis=0)
        low, high = host.min(), host[len(host) // 2]
        found = []
        for k in sorted(set(number) - {-1}):
            own = number == k
            height = float(self.relative[own].mean())
            found.append(((self.sublattice.name, k), Cluster(
                number=-1, sublattice=self.sublattice.name, n=int(own.sum()), relative_height=height,
                relative_height_err=float(self.relative[own].std(ddof=1) / np.sqrt(own.sum())),
                odd_shape=bool(self.odd[own].mean() > 0.5),
                patch=((seen[own].mean(0) - low) / (high - low)).reshape(_PATCH_PX, -1),
                host=((host - low) / (high - low)).reshape(_PATCH_PX, -1), patch_nm=side,
                likeness=f"{OUTLIERS[int(height > 1)]}_{self.sublattice.element}",
            )))  # fmt: skip
        return found


def _apart(table: pd.DataFrame) -> Array:
    """Lattice places (y, x) with the frame as a third coordinate that keeps frames apart, shape (n, 3)."""
    return np.column_stack([1e3 * table["frame"].to_numpy(float), table[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)])


def _false_share(p: Array) -> Array:
    """Share of chance among all sites at least as unusual as each."""
    order = np.argsort(p)
    q = p[order] * len(p) / np.arange(1, len(p) + 1)
    share = np.empty(len(p))
    share[order] = np.minimum(np.minimum.accumulate(q[::-1])[::-1], 1.0)
    return share
