"""Fit a lattice to atoms, without seeds or clicks.

The differences between neighbouring atoms cluster at the lattice's own vectors; every atom is then indexed along the
tree of its best bonds, as a phase is unwrapped, which follows drift across the whole image; least squares with outlier
rejection gives vectors and origin, and what remains is split into a smooth function of the slow-scan time, one of the
fast-scan position, and a low-order polynomial. Which column set is which is decided by occupation and intensity.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree
from scipy.stats import median_abs_deviation

from ..crystals import Crystal, column_name, get_crystal
from ..tables import Atoms, check, positions_nm
from .distortion import fit_distortion, robust_fit
from .indexing import TOLERANCE, bond_length, find_basis, index_along_tree, orient
from .model import Array, Indices, Lattice, fitted_terms
from .occupancy import empty_sites, occupancy

log = logging.getLogger(__name__)

_MIN_ATOMS = 12
_LEAST_SCORE = 0.06  # of a basis worth a try, and
_SURE_SCORE = 0.3  # of one beyond doubt; one in between is a lattice blurred by noise, if
_SHARE_ON = 0.5  # and a bit of the atoms lie on it (chance puts 0.18 of 1500 random ones on their best, 0.45 of 40),
_UNEXPLAINED = 3.0  # times as far away, at most, as their errors say
_LEAST_FILLED = 0.45  # of the sites around an atom: a lattice finer by the square root of 3 has a third
_SURE_ODDS = 100.0
_OFF = 0.2  # of the atoms off the lattice: worth a word
_AVOID = 2.5  # bond lengths around a defect that are left out of the fit


def fit_lattice(atoms: Atoms, crystal: str | Crystal, *, brightest: str | None = None) -> Lattice:
    """Fit the lattice of a crystal, and the smooth distortion of the scan, to atoms.

    Parameters
    ----------
    atoms : Atoms
        From `locate`. Atoms off the lattice and missing columns do no harm.
    crystal : str or Crystal
        Scale and shear against it are free, rotation too.
    brightest : str, optional
        Name of the sublattice whose columns are brightest in this image, as ``"Se"``. By default the one that should
        be at high angles; where two are nearly as bright as each other, a warning says that you had better tell.

    Returns
    -------
    Lattice
        With `frames` where the atoms are those of a movie; its indices then go on from frame to frame.

    Raises
    ------
    ValueError
        If there are too few atoms, if they lie on no lattice of this crystal, or if it has no such sublattice.
    """
    crystal = get_crystal(crystal)
    if brightest is not None:
        brightest = crystal.sublattice(brightest).name
    atoms = Atoms(check(atoms, "atoms"))
    lattices: list[Lattice] = []
    lost = 0
    for frame, table in by_frame(atoms):
        previous = lattices[-1] if lattices else None
        try:
            lattice = _fit_frame(table, crystal, previous, brightest)
        except ValueError:
            if previous is None:
                raise
            lattice, lost = previous, lost + 1
        missing = frame - len(lattices)  # frames without atoms keep their neighbour's lattice
        lattices += [previous or lattice] * missing + [lattice]
    if not lattices:
        raise ValueError(f"no lattice of {crystal.name} found: the table of atoms is empty; is the image in focus?")
    if lost:
        log.warning("no lattice in %d of %d frames; the one before was kept there.", lost, len(lattices))
    first = lattices[0]
    if abs(first.scale - 1) > 0.15:
        log.warning(
            "the lattice is %.2f times as large as that of %s; is the pixel size right? calibrate() measures it.",
            first.scale,
            crystal.name,
        )
    return first if len(lattices) == 1 else replace(first, frames=tuple(lattices))


def by_frame(table: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    """Tables of the frames, in order."""
    return [
        (n, table[table["frame"] == n].reset_index(drop=True))
        for n in np.unique(table["frame"].to_numpy(np.int64)).tolist()
    ]


def _fit_frame(table: pd.DataFrame, crystal: Crystal, previous: Lattice | None, brightest: str | None) -> Lattice:
    table = table[np.isfinite(positions_nm(table)).all(1)]
    points = positions_nm(table)
    if len(points) < _MIN_ATOMS:
        raise ValueError(
            f"no lattice of {crystal.name} found: {len(points)} atoms are too few, at least {_MIN_ATOMS} are needed; "
            "lower the detection threshold or use a larger image."
        )
    basis, score = find_basis(points, crystal)
    if score < _LEAST_SCORE:
        raise _lost(crystal, points, "the distances between neighbours fit none")
    cells, connected = index_along_tree(points, basis, crystal)
    if connected.sum() < max(_MIN_ATOMS, 0.3 * len(points)):
        raise _lost(crystal, points, f"no more than {connected.mean():.0%} hang together")
    points, cells = points[connected], cells[connected]
    amplitude = table["amplitude"].to_numpy(float)[connected]
    reference = None if previous is None else previous.vectors_nm
    chosen, odds = orient(basis, cells, amplitude, crystal, reference, brightest)
    lattice = _least_squares(points, chosen.cells, crystal, np.ones(len(points), bool))
    points, amplitude = positions_nm(table), table["amplitude"].to_numpy(float)
    for _ in range(2):
        sites = np.column_stack(lattice.index(points))
        off = np.linalg.norm(points - lattice.position(*sites.T), axis=1)
        on = off < TOLERANCE * bond_length(lattice.vectors_nm, crystal)
        cells = sites[:, :2] + crystal.fractions[sites[:, 2]]
        calm = _undisturbed(lattice, points[on], sites[on], amplitude[on])
        lattice = _least_squares(points[on], cells[on], crystal, calm)
    if (filled := occupancy(sites[on], crystal)) < _LEAST_FILLED:
        raise _lost(crystal, points, f"of the sites around an atom on the best one no more than {filled:.0%} hold one")
    error = 1e3 * float(table[["y_err_nm", "x_err_nm"]].astype(float).median().mean())  # NaN where there are none
    few, far = on.mean() < _SHARE_ON + len(points) ** -0.5, lattice.residual_pm > _UNEXPLAINED * error
    if score < _SURE_SCORE and (few or far):
        why = f"{on.mean():.0%} lie on the best one, {lattice.residual_pm:.0f} pm off it where {error:.0f} are expected"
        raise _lost(crystal, points, why)
    if previous is None and brightest is None and odds < _SURE_ODDS:
        log.warning(
            "which columns are %s is not certain (odds of %.2g to 1 by their brightness); if you know which are the "
            "brightest here, say so with `brightest` (%s).",
            " and which ".join(column_name(s.column) for s in crystal.sublattices), odds,
            " or ".join(s.name for s in crystal.sublattices),
        )  # fmt: skip
    if previous is None and on.mean() < 1 - _OFF:
        log.warning(
            "%.0f %% of the atoms are not on this lattice of %s; if there is another grain, fit_grains() fits both.",
            100 * (1 - on.mean()), crystal.name,
        )  # fmt: skip
    return _with_origin(lattice, cells[on], previous)


def _lost(crystal: Crystal, points: Array, why: str) -> ValueError:
    return ValueError(
        f"no lattice of {crystal.name} found in {len(points)} atoms: {why}; are crystal and pixel size right "
        "(calibrate() measures it), and is the image at atomic resolution?"
    )


def _least_squares(points: Array, cells: Array, crystal: Crystal, use: npt.NDArray[np.bool_]) -> Lattice:
    """Affine lattice and smooth distortion from indexed atoms, outliers rejected."""
    use = use & np.isfinite(cells).all(1)
    points, cells = points[use], cells[use]
    design = np.column_stack([np.ones(len(cells)), cells])
    affine, _ = robust_fit(design, points)
    distortion, residual = fit_distortion(design @ affine, points - design @ affine)
    kept = np.abs(residual) < 4 * median_abs_deviation(residual, axis=None, scale="normal")
    rms = 1e3 * float(np.sqrt(np.mean(residual[kept.all(1)] ** 2))) if kept.all(1).any() else 0.0
    terms = fitted_terms(design @ affine, distortion)[kept.all(axis=1)]
    normal = terms.T @ terms + 1e-4 * np.eye(terms.shape[1])
    return Lattice(
        crystal, affine[0], affine[1], affine[2], distortion, rms, spread=np.asarray(np.linalg.inv(normal), float)
    )


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
