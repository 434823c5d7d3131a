"""The lattice beneath the atoms: two vectors, an origin, and the smooth distortion of the scan.

A lattice is found without seeds or clicks: the differences between neighbouring atoms cluster at the
lattice's own vectors; every atom is then indexed along the tree of its best bonds, as a phase is unwrapped,
which follows drift across the whole image; least squares with outlier rejection gives vectors and origin, and
what remains is split into a smooth function of the slow-scan time, one of the fast-scan position, and a
low-order polynomial. Which column set is which is decided by occupation and intensity.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from .crystals import Crystal, get_crystal
from .distortion import Distortion, fit_distortion, robust_fit
from .indexing import TOLERANCE, bond_length, find_basis, index_along_tree, orient
from .micrograph import Micrograph
from .occupancy import empty_sites
from .phasing import measure_pixel
from .reciprocal import find_period
from .tables import Atoms, Sites, check, positions_nm

_log = logging.getLogger(__name__)

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_MIN_ATOMS = 12
_MIN_SCORE = 0.3
_LEFT = 0.7  # bond lengths within which an atom off the lattice accounts for an empty site
_AVOID = 2.5  # bond lengths around a defect that are left out of the fit


@dataclass(frozen=True, eq=False)
class Lattice:
    """A crystal's lattice as it lies in an image.

    Parameters
    ----------
    crystal : Crystal
    origin_nm, a1_nm, a2_nm : ndarray, shape (2,)
        Origin of cell (0, 0) and lattice vectors, each (y, x) in nm.
    distortion : Distortion, optional
        Smooth displacement by the scan, added to the affine lattice.
    residual_pm : float
        Root mean square distance per axis between atoms and lattice, outliers left out.
    frames : tuple of Lattice
        One lattice per frame of a movie; empty for a still.
    """

    crystal: Crystal
    origin_nm: Array
    a1_nm: Array
    a2_nm: Array
    distortion: Distortion | None = None
    residual_pm: float = float("nan")
    frames: tuple[Lattice, ...] = ()

    def at(self, frame: int) -> Lattice:
        """Lattice of one frame; a still's is the same for all."""
        return self.frames[min(int(frame), len(self.frames) - 1)] if self.frames else self

    @property
    def vectors_nm(self) -> Array:
        """Lattice vectors as rows (a1, a2), each (y, x)."""
        return np.array([self.a1_nm, self.a2_nm], float)

    @property
    def _deformation(self) -> tuple[Array, Array, Array]:
        """SVD of the linear map from the crystal's own vectors to these, as it acts on columns (y, x)."""
        left, stretch, right = np.linalg.svd(np.linalg.solve(self.crystal.vectors_nm, self.vectors_nm).T)
        return left, stretch, right

    @property
    def scale(self) -> float:
        """Length in the image over length in the crystal; 1.03 where the pixel size is stated 3 % too large."""
        return float(np.sqrt(np.prod(self._deformation[1])))

    @property
    def shear(self) -> float:
        """How much longer the lattice is along its most stretched direction than across it, minus one."""
        stretch = self._deformation[1]
        return float(stretch[0] / stretch[1] - 1)

    @property
    def rotation_deg(self) -> float:
        """Rotation from the crystal's own orientation (a1 along x), from x towards y (down)."""
        left, _, right = self._deformation
        turn = left @ right
        return float(np.rad2deg(np.arctan2(turn[0, 1], turn[1, 1])))

    def position(self, i: Any, j: Any, sublattice: Any) -> Array:
        """Where the image shows a site.

        Parameters
        ----------
        i, j : array_like of int
            Cell indices.
        sublattice : array_like of int or str
            Index or name of the sublattice.

        Returns
        -------
        ndarray, shape (n, 2)
            (y, x) in nm, the scan distortion included.
        """
        cells = np.column_stack([np.atleast_1d(np.asarray(k, float)) for k in (i, j)])
        affine = self.origin_nm + (cells + self.crystal.fractions[self._numbers(sublattice)]) @ self.vectors_nm
        return affine if self.distortion is None else affine + self.distortion(affine)

    def index(self, points_nm: Any) -> tuple[Indices, Indices, Indices]:
        """Find the site nearest to each position.

        Parameters
        ----------
        points_nm : array_like, shape (n, 2)
            (y, x) in nm.

        Returns
        -------
        i, j, sublattice : ndarrays of int, shape (n,)
        """
        cells = (self._undistorted(np.atleast_2d(np.asarray(points_nm, float))) - self.origin_nm) @ np.linalg.inv(
            self.vectors_nm
        )
        corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
        fractions = self.crystal.fractions
        found = np.floor(cells[:, None] - fractions)[:, :, None] + corners  # (n, sublattice, corner, 2)
        distance = np.linalg.norm((found + fractions[:, None] - cells[:, None, None]) @ self.vectors_nm, axis=-1)
        best = distance.reshape(len(cells), -1).argmin(1)
        ij = found.reshape(len(cells), -1, 2)[np.arange(len(cells)), best].astype(np.int64)
        return ij[:, 0], ij[:, 1], (best // 4).astype(np.int64)

    def _undistorted(self, points_nm: Array) -> Array:
        affine = points_nm
        if self.distortion is not None:
            for _ in range(6):
                affine = points_nm - self.distortion(affine)
        return affine

    def _numbers(self, sublattice: Any) -> Indices:
        names = np.atleast_1d(np.asarray(sublattice))
        if names.dtype.kind in "iu":
            return names.astype(np.int64)
        order = {s.name: n for n, s in enumerate(self.crystal.sublattices)}
        unknown = sorted({str(n) for n in names} - set(order))
        if unknown:
            raise ValueError(f"`sublattice` must be one of {', '.join(order)}, got {', '.join(unknown)}.")
        return np.array([order[str(n)] for n in names], np.int64)


def fit_lattice(atoms: Atoms, crystal: str | Crystal) -> Lattice:
    """Fit the lattice of a crystal, and the smooth distortion of the scan, to atoms.

    Parameters
    ----------
    atoms : Atoms
        From `locate`. Atoms off the lattice and missing columns do no harm.
    crystal : str or Crystal
        Scale and shear against it are free, rotation too.

    Returns
    -------
    Lattice
        With `frames` where the atoms are those of a movie; its indices then go on from frame to frame.

    Raises
    ------
    ValueError
        If there are too few atoms, or if they lie on no lattice of this crystal.
    """
    crystal = get_crystal(crystal)
    atoms = Atoms(check(atoms, "atoms"))
    lattices: list[Lattice] = []
    lost = 0
    for frame, table in _by_frame(atoms):
        previous = lattices[-1] if lattices else None
        try:
            lattice = _fit_frame(table, crystal, previous)
        except ValueError:
            if previous is None:
                raise
            lattice, lost = previous, lost + 1
        missing = frame - len(lattices)  # frames without atoms keep their neighbour's lattice
        lattices += [previous or lattice] * missing + [lattice]
    if not lattices:
        raise ValueError(f"no lattice of {crystal.name} found: the table of atoms is empty; is the image in focus?")
    if lost:
        _log.warning("no lattice in %d of %d frames; the one before was kept there.", lost, len(lattices))
    first = lattices[0]
    if abs(first.scale - 1) > 0.15:
        _log.warning(
            "the lattice is %.2f times as large as that of %s; is the pixel size right? calibrate() measures it.",
            first.scale,
            crystal.name,
        )
    return first if len(lattices) == 1 else replace(first, frames=tuple(lattices))


def calibrate(micrograph: Micrograph, crystal: str | Crystal) -> Micrograph:
    """Measure the pixel size on the lattice in the image's power spectrum.

    Parameters
    ----------
    micrograph : Micrograph
        Its own pixel size may be missing or wrong; only the ratio of its two sides is kept.
    crystal : str or Crystal

    Returns
    -------
    Micrograph
        The same pixels with the pixel size that gives the crystal's unit cell its area. What was stated before
        is kept as ``metadata["stated_pixel_size_nm"]``.

    Raises
    ------
    ValueError
        If the power spectrum shows no lattice of the crystal's shape.
    """
    crystal = get_crystal(crystal)
    stated = micrograph.pixel_size_nm
    sides = np.ones(2) if stated is None else micrograph.pixel_size_yx_nm
    if all(len(s.column) == 1 for s in crystal.sublattices):  # dim atoms: all reflections together, with their phases
        ratio = measure_pixel(micrograph, crystal) / float(np.sqrt(sides.prod()))
    else:
        frames = np.unique(np.linspace(0, micrograph.n_frames - 1, 16).astype(int)).tolist()
        vectors_px = find_period([micrograph.frame(n).astype(float) for n in frames], crystal)
        if vectors_px is None:
            raise ValueError(
                f"no lattice of {crystal.name} found: no peaks of its shape stand out in the power spectrum; "
                "is it the right image and crystal?"
            )
        ratio = float(np.sqrt(crystal.cell_area_nm2 / abs(np.linalg.det(vectors_px * sides))))
    measured = ratio * sides
    if stated is not None and abs(ratio - 1) > 0.01:
        _log.info("pixel size %s nm in the file, %.5g nm by the lattice of %s", stated, measured[1], crystal.name)
    square = stated is None or isinstance(stated, float)
    calibrated = micrograph.with_pixel_size(float(measured[0]) if square else (float(measured[0]), float(measured[1])))
    return replace(calibrated, metadata={**micrograph.metadata, "stated_pixel_size_nm": stated})


def assign_sites(atoms: Atoms, lattice: Lattice, *, max_offset_nm: float = 0.08) -> Sites:
    """Give every atom its lattice site, and every empty site of the crystal a row.

    Parameters
    ----------
    atoms : Atoms
        From `locate`.
    lattice : Lattice
        From `fit_lattice`.
    max_offset_nm : float
        Largest distance between an atom and its site, in a crystal of nominal size (multiplied by `lattice.scale`).

    Returns
    -------
    Sites
        One row per site: occupied ones carry their atom, empty ones have NaN position and amplitude. Only sites
        with most of their neighbours present count as empty; holes and the outside of the flake have none. Atoms
        off the lattice follow at the end with `i`, `j` missing and sublattice ``""``. ``attrs["crystal"]`` is the
        crystal's name.

    Raises
    ------
    ValueError
        If `max_offset_nm` is not positive, or if a column is missing.
    """
    if not max_offset_nm > 0:
        raise ValueError(f"`max_offset_nm` must be positive, got {max_offset_nm}.")
    atoms = Atoms(check(atoms, "atoms"))
    parts = [_assign_frame(table, lattice.at(n), max_offset_nm * lattice.at(n).scale) for n, table in _by_frame(atoms)]
    if not parts:
        parts = [_assign_frame(atoms, lattice, max_offset_nm)]
    sites = check(pd.concat([p for p in parts if len(p)] or parts, ignore_index=True), "sites")
    sites.attrs["crystal"] = lattice.crystal.name
    return Sites(sites)


def _by_frame(table: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    return [
        (n, table[table["frame"] == n].reset_index(drop=True))
        for n in np.unique(table["frame"].to_numpy(np.int64)).tolist()
    ]


# --- fitting ----------------------------------------------------------------------------------------------------


def _fit_frame(table: pd.DataFrame, crystal: Crystal, previous: Lattice | None) -> Lattice:
    table = table[np.isfinite(positions_nm(table)).all(1)]
    points = positions_nm(table)
    if len(points) < _MIN_ATOMS:
        raise ValueError(
            f"no lattice of {crystal.name} found: {len(points)} atoms are too few, at least {_MIN_ATOMS} are needed; "
            "lower the detection threshold or use a larger image."
        )
    basis, score = find_basis(points, crystal)
    cells, connected = index_along_tree(points, basis, crystal) if score > _MIN_SCORE else (points, np.zeros(1, bool))
    if connected.sum() < max(_MIN_ATOMS, 0.3 * len(points)):
        raise ValueError(
            f"no lattice of {crystal.name} found in {len(points)} atoms (score {max(score, 0):.2f}, "
            f"{_MIN_SCORE} needed); are crystal and pixel size right, and is the image at atomic resolution?"
        )
    points, cells = points[connected], cells[connected]
    amplitude = table["amplitude"].to_numpy(float)[connected]
    basis, cells = orient(basis, cells, amplitude, crystal, None if previous is None else previous.vectors_nm)
    lattice = _least_squares(points, cells, crystal, np.ones(len(points), bool))
    points, amplitude = positions_nm(table), table["amplitude"].to_numpy(float)
    for _ in range(2):
        sites = np.column_stack(lattice.index(points))
        off = np.linalg.norm(points - lattice.position(*sites.T), axis=1)
        on = off < TOLERANCE * bond_length(lattice.vectors_nm, crystal)
        cells = sites[:, :2] + crystal.fractions[sites[:, 2]]
        calm = _undisturbed(lattice, points[on], sites[on], amplitude[on])
        lattice = _least_squares(points[on], cells[on], crystal, calm)
    return _with_origin(lattice, cells[on], previous)


def _least_squares(points: Array, cells: Array, crystal: Crystal, use: npt.NDArray[np.bool_]) -> Lattice:
    """Affine lattice and smooth distortion from indexed atoms, outliers rejected."""
    use = use & np.isfinite(cells).all(1)
    points, cells = points[use], cells[use]
    design = np.column_stack([np.ones(len(cells)), cells])
    affine, _ = robust_fit(design, points)
    distortion, residual = fit_distortion(design @ affine, points - design @ affine)
    kept = np.abs(residual) < 4 * 1.4826 * np.median(np.abs(residual))
    rms = 1e3 * float(np.sqrt(np.mean(residual[kept.all(1)] ** 2))) if kept.all(1).any() else 0.0
    return Lattice(crystal, affine[0], affine[1], affine[2], distortion, rms)


def _undisturbed(lattice: Lattice, points: Array, sites: Indices, amplitude: Array) -> npt.NDArray[np.bool_]:
    """Which atoms are far from empty sites and from columns of unusual intensity; all, if hardly any are."""
    odd = [lattice.position(*empty_sites(lattice.position, lattice.crystal, lattice.scale, sites))]
    for number in range(len(lattice.crystal.sublattices)):
        own = sites[:, 2] == number
        middle = np.median(amplitude[own]) if own.any() else 0.0
        deviation = np.abs(amplitude - middle)
        odd.append(points[own & (deviation > 6 * np.median(deviation[own]))] if own.any() else points[:0])
    radius = _AVOID * lattice.crystal.nearest_neighbor_nm * lattice.scale
    centers = np.concatenate(odd)
    if not len(centers):
        return np.ones(len(points), bool)
    calm = np.asarray(cKDTree(centers).query(points)[0]) > radius
    return calm if calm.mean() > 0.5 else np.ones(len(points), bool)


def _with_origin(lattice: Lattice, cells: Array, previous: Lattice | None) -> Lattice:
    """Count cells from the smallest index, or on from the previous frame."""
    if previous is None:
        shift = np.floor(cells.min(0))
    else:
        shift = np.round((previous.origin_nm - lattice.origin_nm) @ np.linalg.inv(lattice.vectors_nm))
    return replace(lattice, origin_nm=lattice.origin_nm + shift @ lattice.vectors_nm)


# --- assignment ------------------------------------------------------------------------------------------------


def _assign_frame(table: pd.DataFrame, lattice: Lattice, max_offset_nm: float) -> pd.DataFrame:
    names = np.array([s.name for s in lattice.crystal.sublattices], object)
    points = positions_nm(table)
    i, j, s = lattice.index(np.nan_to_num(points))
    ideal = lattice.position(i, j, s)
    offset = np.linalg.norm(points - ideal, axis=1)
    order = np.argsort(offset, kind="stable")
    first = ~pd.DataFrame({"i": i[order], "j": j[order], "s": s[order]}).duplicated().to_numpy()
    taken = np.zeros(len(table), bool)
    taken[order] = first & (offset[order] <= max_offset_nm)

    table = table.assign(
        i=pd.array(i, "Int64"),
        j=pd.array(j, "Int64"),
        sublattice=names[s],
        y_ideal_nm=ideal[:, 0],
        x_ideal_nm=ideal[:, 1],
    )
    table.loc[~taken, ["i", "j"]] = pd.NA
    table.loc[~taken, "sublattice"] = ""
    table.loc[~taken, ["y_ideal_nm", "x_ideal_nm"]] = np.nan
    if not taken.any():
        return table
    ei, ej, es = empty_sites(lattice.position, lattice.crystal, lattice.scale, np.column_stack([i, j, s])[taken])
    where = lattice.position(ei, ej, es)
    if not taken.all():  # no vacancy where an atom is that has merely left its site, as at a grain boundary
        bond = lattice.crystal.nearest_neighbor_nm * lattice.scale
        alone = np.asarray(cKDTree(points[~taken]).query(where)[0]) > _LEFT * bond
        ei, ej, es, where = ei[alone], ej[alone], es[alone], where[alone]
    empty = pd.DataFrame(
        {
            "frame": np.full(len(ei), table["frame"].iloc[0], np.int64),
            "i": pd.array(ei, "Int64"),
            "j": pd.array(ej, "Int64"),
            "sublattice": names[es],
            "y_ideal_nm": where[:, 0],
            "x_ideal_nm": where[:, 1],
        }
    )
    on = pd.concat([table[taken], empty]) if len(empty) else table[taken]
    return pd.concat([on.sort_values(["i", "j", "sublattice"]), table[~taken]])
