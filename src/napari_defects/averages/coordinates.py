"""Coordinates of the columns of an averaged patch, and how precise they are by its members' own word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage, sparse

from ..crystals import Crystal
from ..gaussian import Columns, fit_columns
from ..tables import Sites, check
from .members import layout

Array = npt.NDArray[np.float64]

_EMPTY = 0.06  # of the usual amplitude: a column as faint as this is none
_FLOOR_NM = 3e-5  # what is left of the columns' shape where there is no noise
_OWN = 0.2  # of the usual amplitude: a central column brighter than this has a width of its own
_KNOTS = 20
_GRID = 6  # terms of the background that is solved for with the shapes
_TAIL = 3.0  # reach of a column's tails, in distances between columns
_WIDTH = 0.33  # first guess of a column's sigma, in distances between columns


@dataclass(frozen=True)
class Ruler:
    """How the columns of an average are measured.

    Parameters
    ----------
    crystal : Crystal
    sublattice : str
        Of the central site.
    pixel_nm : float
    radius_nm : float
        Columns within it are reported.
    variance : (float, float)
        Variance of one member's pixel of value v: variance[0] + variance[1] * v.
    """

    crystal: Crystal
    sublattice: str
    pixel_nm: float
    radius_nm: float
    variance: tuple[float, float]

    def columns(self, side: int) -> pd.DataFrame:
        """Columns of the crystal that an average of `side` pixels shows, those just outside included."""
        half = (side - 1) / 2 * self.pixel_nm + 2.6 * _WIDTH * self.crystal.nearest_neighbor_nm
        rows = layout(self.crystal, self.sublattice, 1.5 * half)
        seen = (rows["y_nm"].abs() <= half) & (rows["x_nm"].abs() <= half)
        return rows[seen].reset_index(drop=True)

    def _scale(self, image: Array, samples: float) -> tuple[float, float]:
        """Offset and factor that turn an average into counts: (image + offset) * factor has variance = mean."""
        constant, slope = self.variance
        slope = max(slope, 0.02 * (constant + slope * float(image.mean())) / max(float(np.ptp(image)), 1e-30))
        return constant / slope, samples / slope

    def fit(self, image: Array, samples: float, start: Columns | None = None) -> Columns:
        """Fit all columns of an average jointly.

        Parameters
        ----------
        image : ndarray, shape (y, x)
            Odd side, the central site in the middle.
        samples : float
            Members' pixels per pixel of the average.
        start : Columns, optional
            Result for another average of the same class.

        Returns
        -------
        Columns
            In the image's own units, the covariance that of the counts.
        """
        image = np.asarray(image, np.float64)
        if start is None:
            start = self.fit(image, samples, self._start(image))
            center = int(np.hypot(*(start.yx - (len(image) - 1) / 2).T).argmin())
            if start.amplitude[center] < _OWN * np.median(start.amplitude[start.group == start.group[center]]):
                return start
            start.group[center] = start.group.max() + 1  # another occupant has another width
        offset, factor = self._scale(image, samples)
        columns = replace(start, amplitude=start.amplitude * factor, nodes=(start.nodes + offset) * factor)
        fitted = fit_columns(np.maximum((image + offset) * factor, 1e-9), columns)
        unit = np.array([1 / factor, 1, 1])
        return replace(
            fitted, amplitude=fitted.amplitude / factor, nodes=fitted.nodes / factor - offset,
            covariance=fitted.covariance[:, :3, :3] * unit[:, None] * unit,
        )  # fmt: skip

    def _start(self, image: Array) -> Columns:
        rows = self.columns(len(image))
        yx = rows[["y_nm", "x_nm"]].to_numpy() / self.pixel_nm + (len(image) - 1) / 2
        low = float(np.percentile(image, 2))
        at = np.clip(np.rint(yx).astype(int), 0, len(image) - 1)
        names = [s.name for s in self.crystal.sublattices]
        return Columns(
            yx,
            np.maximum(image[at[:, 0], at[:, 1]] - low, 0.02 * float(np.ptp(image))),
            np.full(len(yx), _WIDTH * self.crystal.nearest_neighbor_nm / self.pixel_nm),
            np.array([names.index(s) for s in rows["sublattice"]], np.int64),
            np.full((3, 3), low),
        )

    def shape(self, image: Array, columns: Columns) -> Shape:
        """Make ready to correct positions for the true shape of the columns.

        Real columns have tails; beside a vacancy its neighbour's are missing, and Gaussians then are off by
        half a picometre, field or not. Here each sublattice's columns are Gaussian plus a function of
        distance (hat functions), and shape, amplitudes, positions and background are solved for at once,
        by Gauss-Newton from the Gaussian fit; its last step is a linear map from an image to positions.
        """
        side, n = len(image), len(columns.yx)
        knots = np.linspace(0, _TAIL * self.crystal.nearest_neighbor_nm, _KNOTS + 1) / self.pixel_nm
        weight = 1 / np.maximum(self.variance[0] + self.variance[1] * image, 1e-3 * abs(float(image.mean()))).ravel()
        behind = replace(columns, amplitude=0 * columns.amplitude).render(image.shape)
        common = np.zeros((int(columns.group.max()) + 1) * _KNOTS + _GRID)
        for last in (False, True):
            own, shapes = self._derivatives(columns, common, knots, side)
            bare = np.zeros(3 * n)
            bare[::3] = columns.amplitude
            model = behind + (own @ bare + shapes[:, -_GRID:] @ common[-_GRID:]).reshape(image.shape)
            weighted = own.multiply(weight[:, None]).tocsr()
            cross = weighted.T @ shapes
            normal = np.block([[(weighted.T @ own).toarray(), cross], [cross.T, (shapes.T * weight) @ shapes]])
            scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-30))
            inverse = np.linalg.pinv(normal * scale[:, None] * scale, rcond=1e-8, hermitian=True)
            inverse = scale[:, None] * inverse * scale
            if last:
                break
            rest = (image - model).ravel()
            step = inverse @ np.concatenate([weighted.T @ rest, shapes.T @ (weight * rest)])
            moved = step[: 3 * n].reshape(n, 3)
            grown = np.clip(columns.amplitude + moved[:, 0], 0.5 * columns.amplitude, 2 * columns.amplitude)
            columns = replace(columns, amplitude=grown, yx=columns.yx + np.clip(moved[:, 1:], -0.2, 0.2))
            common = step[3 * n :]
        return Shape(columns, model, weighted, shapes.T * weight, np.asarray(inverse[: 3 * n], np.float64))

    def _derivatives(self, columns: Columns, common: Array, knots: Array, side: int) -> tuple[sparse.csr_array, Array]:
        """Give the derivatives by each column's amplitude, y and x, (pixel, 3 n), and by `common`: shapes, background.

        Those by amplitude are the columns themselves, with the shapes that `common` says.
        """
        groups, half = int(columns.group.max()) + 1, _KNOTS // 2
        shapes = np.zeros((side, side, groups, _KNOTS))
        pixel = np.arange(side * side).reshape(side, side)
        hosts = len(self.crystal.sublattices)
        rows, values = [], []
        reach, tails = int(knots[-1]) + 1, common[:-_GRID].reshape(groups, _KNOTS)
        for (y, x), a, sigma, group in zip(columns.yx, columns.amplitude, columns.sigma, columns.group, strict=True):
            low, high = (np.clip(np.rint([y, x]).astype(int) + d, 0, side) for d in (-reach, reach + 1))
            window = (slice(low[0], high[0]), slice(low[1], high[1]))
            dy, dx = np.meshgrid(np.arange(low[0], high[0]) - y, np.arange(low[1], high[1]) - x, indexing="ij")
            r = np.hypot(dy, dx)
            hats = np.maximum(1 - np.abs(r[..., None] - knots[:-1]) / knots[1], 0)
            tail = tails[min(group, hosts - 1)].copy()
            shapes[*window, min(group, hosts - 1)] += a * hats
            if group >= hosts:  # the central column differs from its host near its centre only
                shapes[*window, group, :half] += a * hats[..., :half]
                tail[:half] += tails[group, :half]
            peak = np.exp(-0.5 * (r / sigma) ** 2)
            slope = peak / sigma**2 + ((hats > 0) * np.sign(r[..., None] - knots[:-1])) @ tail / knots[1] / np.maximum(
                r, 1
            )
            rows.append(pixel[window].ravel())
            values.append(np.stack([peak + hats @ tail, a * slope * dy, a * slope * dx], -1).reshape(-1, 3))
        count = [len(r) for r in rows]
        index = 3 * np.repeat(np.arange(len(rows)), count)[:, None] + np.arange(3)
        place = np.repeat(np.concatenate(rows), 3), index.ravel()
        own = sparse.csr_array((np.concatenate(values).ravel(), place), shape=(side * side, 3 * len(rows)))
        ramp = np.linspace(-1, 1, side)
        grid = np.stack(
            np.broadcast_arrays(1.0, ramp[:, None], ramp, ramp[:, None] ** 2, ramp**2, ramp[:, None] * ramp), -1
        )
        return own, np.column_stack([shapes.reshape(side * side, -1), grid.reshape(side * side, -1)])

    def filled(self, columns: Columns, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Tell which of the fitted columns are there: the rows of an average whose centre is empty have none there."""
        usual = rows.assign(a=columns.amplitude).groupby("sublattice")["a"].transform("median").to_numpy()
        bright = columns.amplitude > np.maximum(_EMPTY * usual, 3 * columns.errors[:, 0])
        return np.asarray(bright, np.bool_)

    def sites(
        self, columns: Columns, seen: npt.NDArray[np.bool_], inflate: pd.Series, extra: Mapping[str, Array]
    ) -> Sites:
        """Tabulate fitted columns.

        Parameters
        ----------
        columns : Columns
        seen : ndarray of bool, shape (y, x)
            Which pixels of the average have members.
        inflate : Series
            For each sublattice what the errors of the fit are to be multiplied with.
        extra : mapping of str to ndarray
            More columns of the table.
        """
        side = len(seen)
        rows = self.columns(side)
        place = (columns.yx - (side - 1) / 2) * self.pixel_nm
        err = columns.errors * rows["sublattice"].map(inflate).to_numpy(float)[:, None]
        there = self.filled(columns, rows)
        blind = ndimage.distance_transform_edt(seen) if not seen.all() else np.full(seen.shape, np.inf)
        at = np.clip(np.rint(columns.yx).astype(int), 0, side - 1)
        there &= blind[at[:, 0], at[:, 1]] > 2 * columns.sigma
        table = rows.rename(columns={"y_nm": "y_ideal_nm", "x_nm": "x_ideal_nm"}).assign(
            frame=0,
            sigma_nm=np.sqrt(np.maximum(columns.sigma**2 - 1 / 6, 0)) * self.pixel_nm,  # less the grid's own blur
            amplitude=columns.amplitude,
            amplitude_err=err[:, 0],
            background=columns.background((side, side)),
            score=there.astype(float),
            **extra,
        )
        names = ["y_nm", "x_nm", "y_err_nm", "x_err_nm"]
        table[names] = np.where(
            there[:, None], np.column_stack([place, np.hypot(err[:, 1:3] * self.pixel_nm, _FLOOR_NM)]), np.nan
        )
        inside = np.hypot(table["y_ideal_nm"], table["x_ideal_nm"]) <= self.radius_nm
        result = check(table[inside], "sites")
        result.attrs["crystal"] = self.crystal.name
        return Sites(result)


@dataclass(frozen=True)
class Shape:
    """The linear map from the image of an average to the positions of its columns, about a Gaussian fit.

    Parameters
    ----------
    columns : Columns
        The Gaussian fit.
    model : ndarray, shape (y, x)
        Its image.
    own, shapes : ndarray, shape (pixel, 3 n), (m, pixel)
        Weighted derivatives by each column's amplitude, y and x, and by the columns' shapes and background.
    inverse : ndarray, shape (3 n, 3 n + m)
        Rows of the inverse of the normal equations.
    """

    columns: Columns
    model: Array
    own: sparse.csr_array
    shapes: Array
    inverse: Array

    def positions(self, image: Array) -> Array:
        """Positions (n, 2) of the columns in an image of the class, in pixels."""
        rest = (image - self.model).ravel()
        step = (self.inverse @ np.concatenate([self.own.T @ rest, self.shapes @ rest])).reshape(-1, 3)[:, 1:]
        return np.asarray(self.columns.yx + step)
