"""The members of one class on their way to their average: gathered, registered, screened, summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import median_abs_deviation

from ..crystals import Crystal
from ..micrograph import Micrograph
from .members import Ground
from .registration import CONVERGED, Patches, make_template, variance_of
from .screening import strain_of
from .surroundings import Surroundings

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

MARGIN_NM = 0.12
"""Averaged beyond the radius, so that its outermost columns are whole."""
_SMOOTH = 0.12  # blur of a single member's template against its noise, in distances between columns
_OUTLIER = 5.0  # robust standard deviations of the correlation


class Frames:
    """Frames of all images, the last one asked for kept at hand.

    Parameters
    ----------
    images : sequence of Micrograph
    """

    def __init__(self, images: Sequence[Micrograph]) -> None:
        self.images = images
        self.at = lru_cache(maxsize=1)(lambda number, frame: images[number].frame(frame))


@dataclass
class Stack:
    """Members of one species.

    Parameters
    ----------
    species : str
    frames : Frames
    grounds : list of Ground or None
    table : DataFrame
        Candidates: the columns of DEFECTS and micrograph.
    groups : list of (micrograph, frame, rows of `table`, Patches)
        Those that are not ruled out by where they lie.
    maps : ndarray, shape (n, 2, 2)
        From the crystal's frame to the image, nm to nm.
    reasons : ndarray of str, shape (n,)
        Why a candidate is not averaged; "" if it is.
    own : list of tuple of int
        Defects that each candidate is made of.
    gradients : (ndarray, ndarray)
        Of the displacement around each candidate, and their errors; see `screening`.
    crystal : Crystal or None
    pixel : float
        Of the average, in nm.
    radius : float
        Half the side of the registered patch, in nm.
    tick : callable
        Called after each pass over a frame.
    """

    species: str
    frames: Frames
    grounds: list[Ground | None]
    table: pd.DataFrame
    groups: list[tuple[int, int, Rows, Patches]]
    maps: Array
    reasons: npt.NDArray[np.object_]
    own: list[tuple[int, ...]]
    gradients: tuple[Array, Array]
    crystal: Crystal | None
    pixel: float
    radius: float
    tick: Callable[[], None] = lambda: None
    pose: Array = field(init=False)
    found: Array = field(init=False)
    units: dict[int, tuple[float, float, float]] = field(init=False)  # weight, gain, offset of each micrograph
    variance: dict[int, tuple[float, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.pose = np.tile([0.0, 0, 1, 0, 0], (len(self.table), 1))
        self.found = np.full((len(self.table), 5), np.nan)
        self.strain, self.strain_err, _ = strain_of(*self.gradients, self.accepted)
        counts = self.table.loc[self.accepted, "micrograph"].value_counts()
        self.reference = int(counts.index[0]) if len(counts) else 0
        self.units = {k: (float(k == self.reference), 1.0, 0.0) for k in range(len(self.frames.images))}
        self.variance = dict.fromkeys(range(len(self.frames.images)), (1.0, 0.0))

    @property
    def accepted(self) -> npt.NDArray[np.bool_]:
        """Which candidates are averaged."""
        return np.asarray(self.reasons == "", bool)

    @property
    def half(self) -> int:
        """Half the side of the average, in pixels."""
        return int(np.ceil((self.radius + MARGIN_NM) / self.pixel))

    @property
    def sublattice(self) -> str:
        """Sublattice of the central site; "" where the members have none."""
        names = self.table["sublattice"]
        known = self.crystal is not None and names.isin([s.name for s in self.crystal.sublattices]).all()
        if self.crystal is None or not len(names) or not known:
            return ""
        home = self.crystal.sublattice(str(names.iloc[0]))
        return next(s.name for s in self.crystal.sublattices if s.host == home.host)

    @property
    def parts(self) -> tuple[tuple[str, str, float, float], ...]:
        """The defects of a member in the class's frame: species, sublattice, y and x from its site in nm."""
        if not self.sublattice or self.crystal is None or not len(self.table):
            return ()
        if "parts" not in self.table:
            return ((self.species, self.sublattice, 0.0, 0.0),)
        return tuple(self.table["standing"].iloc[0])

    def register(
        self, rounds: int, rotation: bool, min_coverage: float, min_correlation: float | None,
        max_strain: float | None,
    ) -> None:  # fmt: skip
        """Fit all members to their own average, `rounds` times made anew, and screen them."""
        candidates = self.accepted
        half = int(np.floor(self.radius / self.pixel))
        apart = self.crystal.nearest_neighbor_nm if self.crystal else 0.2
        for turn in range(rounds):
            if not self.accepted.any():
                return
            total, weights, _ = np.moveaxis(self.sum()[0], -1, 0)
            n = max(int(self.accepted.sum()), 1)
            smooth = _SMOOTH / n**0.5 * apart / self.pixel
            template = make_template(_filled(total, weights), smooth)
            sums, before = np.zeros((len(self.table), 8)), self.pose[:, :2].copy()
            for number, frame, rows, patches in self.groups:
                pixels = self.frames.at(number, frame)
                here = template.with_variance(self.variance[number])
                pose = self.pose[rows]
                if turn == 0 and number != self.reference:  # intensities in other units: gain and offset first
                    pose = _with_gain(pose, patches.register(pixels, here, half, pose.copy(), steps=0)[1])
                found, sums[rows] = patches.register(pixels, here, half, pose, rotation=rotation)
                self.pose[rows], self.found[rows] = pose, found
                self.tick()
            self._screen(candidates, half, min_coverage, min_correlation, max_strain)
            own = 1 / (1.5**2 + 2 * np.pi * smooth**2)  # weight that the template gives back to a pixel of one member
            sums[:, 6:] *= n / (n - own)
            self._calibrate(sums, float(template.table[..., 0].min()))
            moved = np.linalg.norm(self.pose[:, :2] - before, axis=1)[self.accepted]
            if turn and len(moved) and np.median(moved) < max(CONVERGED, 0.5 * np.median(self.found[self.accepted, 2])):
                break

    def _screen(
        self, candidates: npt.NDArray[np.bool_], half: int, coverage: float, correlation: float | None,
        max_strain: float | None,
    ) -> None:  # fmt: skip
        """Give the reason to each member that does not belong."""
        self.strain, self.strain_err, outlier = strain_of(*self.gradients, candidates)
        pulled = outlier if max_strain is None else self.strain > max_strain
        value, seen = self.found[:, 0], self.found[:, 1]
        shift = np.linalg.norm(self.pose[:, :2], axis=1) * self.pixel
        limit = 0.3 * (self.crystal.nearest_neighbor_nm if self.crystal else 0.2)
        good = candidates & (seen >= coverage) & (shift < limit)
        low = np.full(len(value), -1.0 if correlation is None else correlation)
        for number in np.unique(self.table["micrograph"]):
            rows = (self.table["micrograph"] == number).to_numpy()
            if correlation is None and (good & rows).sum() >= 5:
                own = value[good & rows]
                low[rows] = np.median(own) - _OUTLIER * max(median_abs_deviation(own, scale="normal"), 0.002)
        tests = {
            "near the border or other defects": ~(seen >= coverage),
            "shifted too far": ~(shift < limit),
            "strain from elsewhere": pulled,
            "low correlation": ~(value >= low),
        }
        for k in np.flatnonzero(candidates):
            self.reasons[k] = next((reason for reason, bad in tests.items() if bad[k]), "")

    def _calibrate(self, sums: Array, lowest: float) -> None:
        """Noise, weight and units of each micrograph, and a common origin of the shifts."""
        use = self.accepted
        if not use.any():
            return
        self.pose[:, :2] -= self.pose[use, :2].mean(0)
        number = self.table["micrograph"].to_numpy()
        several = len(np.unique(number[use])) > 1
        for k in np.unique(number[use]):
            rows = use & (number == k)
            self.variance[int(k)] = variance_of(sums[rows], lowest)
            gain, offset = np.median(self.pose[rows, 2:4], axis=0) if several and k != self.reference else (1.0, 0.0)
            noise = float(sums[rows, 6].sum() / sums[rows, 0].sum()) / gain**2
            self.units[int(k)] = (1 / noise, float(gain), float(offset))
        scale = self.units[self.reference][0] if number[use].tolist().count(self.reference) else 1.0
        self.units = {
            k: (w / scale if number[use].tolist().count(k) else 0.0, a, b) for k, (w, a, b) in self.units.items()
        }

    def sum(self, part: Rows | None = None, operations: Array | None = None) -> Array:
        """Add the accepted members on the grid.

        Parameters
        ----------
        part : ndarray of int, shape (n,), optional
            Which sum each member belongs to.
        operations : ndarray, shape (m, 2, 2), optional
            Equivalent copies of each member to add.

        Returns
        -------
        ndarray, shape (part, side, side, 3)
            Weighted values, weights and numbers of members.
        """
        part = np.zeros(len(self.table), np.int64) if part is None else part
        operations = np.eye(2)[None] if operations is None else operations
        side = 2 * self.half + 1
        sums = np.zeros((int(part.max(initial=0)) + 1, side, side, 3))
        for number, frame, rows, patches in self.groups:
            pixels = self.frames.at(number, frame)
            weight = np.array([self.units[number]] * len(rows)).reshape(-1, 3)
            weight[~self.accepted[rows], 0] = 0
            for operation in operations:
                pose = self.pose[rows].copy()
                pose[:, :2] = pose[:, :2] @ operation.T
                pose[:, 4] *= np.linalg.det(operation)
                turned = Patches(
                    patches.centers,
                    operation @ patches.to_grid,
                    [o @ operation.T for o in patches.others],
                    patches.mask,
                )
                turned.add(pixels, self.half, pose, weight, part[rows], sums)
            self.tick()
        sums[..., 2] /= len(operations)
        return sums

    def bend(self, columns_nm: Array, operations: Array, around: Sequence[Surroundings | None]) -> Array:
        """How far neighbours, and what the lattice has wrong of the scan, move the columns of each member.

        Parameters
        ----------
        columns_nm : ndarray, shape (k, 2)
            Columns of the average.
        operations : ndarray, shape (m, 2, 2)
            Equivalent copies that are averaged.
        around : sequence of Surroundings or None
            Of each micrograph.

        Returns
        -------
        ndarray, shape (n, k, 2)
            In nm, in the average's frame, less the mean over the columns; 0 for members that are not averaged.
        """
        result = np.zeros((len(self.table), *columns_nm.shape))
        for number, image in enumerate(around):
            rows = self.averaged(number)
            if image is None or not len(rows):
                continue
            table, inverse = self.table.iloc[rows], np.linalg.inv(self.maps[rows])
            center = table[["y_nm", "x_nm"]].to_numpy(float)[:, None]
            own = np.array([(m, d) for m, k in enumerate(rows) for d in self.own[k]], np.int64).reshape(-1, 2)
            for operation in operations:
                seen = image.expected(table, columns_nm @ operation, own)
                bent = np.einsum("nab,nkb->nka", inverse, seen - center) @ operation.T - columns_nm
                bent -= np.nanmean(bent, axis=1, keepdims=True)
                result[rows] += np.nan_to_num(bent) / len(operations)
        return result

    def averaged(self, micrograph: int) -> Rows:
        """Rows of the members that are averaged from one micrograph."""
        return np.flatnonzero(self.accepted & (self.table["micrograph"] == micrograph).to_numpy())

    def members(self, part: Rows) -> pd.DataFrame:
        """Table of all candidates, with what became of them."""
        shift = self.pose[:, :2] * self.pixel
        shift[np.isnan(self.found[:, 0])] = np.nan
        moved = self.table[["y_nm", "x_nm"]].to_numpy() + np.einsum("nab,nb->na", self.maps, np.nan_to_num(shift))
        return self.table.drop(columns="standing", errors="ignore").assign(
            y_nm=moved[:, 0],
            x_nm=moved[:, 1],
            dy_pm=1000 * shift[:, 0],
            dx_pm=1000 * shift[:, 1],
            shift_err_pm=1000 * self.pixel * np.hypot(self.found[:, 2], self.found[:, 3]) / np.sqrt(2),
            rotation_deg=np.rad2deg(self.pose[:, 4]),
            correlation=self.found[:, 0],
            coverage=self.found[:, 1],
            strain=self.strain,
            strain_err=self.strain_err,
            half=np.where(self.accepted, part % 2, -1),
            accepted=self.accepted,
            reason=self.reasons,
        )


def _filled(total: Array, weights: Array) -> Array:
    """Weighted mean, with the mean of all where nothing was seen."""
    mean = total.sum() / max(weights.sum(), 1e-30)
    return np.asarray(np.where(weights > 1e-3 * weights.max(), total / np.maximum(weights, 1e-30), mean))


def _with_gain(pose: Array, sums: Array) -> Array:
    """Poses with gain and offset from a straight line of pixels against template."""
    n, t, tt, v, _, tv = sums.T[:6]
    pose[:, 2] = (tv - t * v / n) / (tt - t * t / n)
    pose[:, 3] = (v - pose[:, 2] * t) / n
    return pose
