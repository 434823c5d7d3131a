"""How a defect displaces the columns around it: by a formula, or as relaxed coordinates from a file have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..crystals import Crystal, get_crystal
from .crystal_files import read_atoms
from .specimen import Array, Defect, Specimen
from .supercells import structure_sites

_TOGETHER = 1000  # defects whose pairs with columns are held at a time


@dataclass(frozen=True)
class Relaxation:
    """Static displacement of the columns around a defect, along the line from it.

    ``u(r) = amplitude (r0 / r) exp(-(r - r0) / decay) cos(2 pi (r - r0) / wavelength)``, with r0 the
    distance of the nearest columns: the far field of an inclusion where `decay_nm` and `wavelength_nm`
    are infinite, an oscillating one otherwise.

    Parameters
    ----------
    amplitude_pm : float
        Displacement of the nearest columns; outwards is positive.
    wavelength_nm, decay_nm : float
    reach_nm : float
        Columns farther away stay where they are.
    """

    amplitude_pm: float
    wavelength_nm: float = np.inf
    decay_nm: float = np.inf
    reach_nm: float = 5.0

    def __call__(self, distance_nm: Array, nearest_nm: float) -> Array:
        """Radial displacement in nm."""
        beyond = distance_nm - nearest_nm
        fall = nearest_nm / np.maximum(distance_nm, 0.5 * nearest_nm) * np.exp(-np.maximum(beyond, 0) / self.decay_nm)
        return 1e-3 * self.amplitude_pm * fall * np.cos(2 * np.pi * beyond / self.wavelength_nm)


@dataclass(frozen=True)
class Displacements:
    """Displacement of each column around a defect, from `read_relaxation`.

    Attributes
    ----------
    offset_nm, displacement_nm : ndarray, shape (column, 2)
        Ideal place (y, x) relative to the defect's centre, and what is added to it, in the crystal's frame.
    sublattice : str
        Where the defect sits. Around the other sublattice of graphene everything is turned by 180 degrees.
    source : str
        Where it comes from.
    """

    offset_nm: Array
    displacement_nm: Array
    sublattice: str
    source: str = ""


def read_relaxation(source: Any, crystal: str | Crystal) -> Displacements:
    """Take the displacements around a defect from relaxed coordinates.

    Parameters
    ----------
    source : path or ase.Atoms
        A supercell of the crystal with one defect, in any format that ASE reads; of a trajectory the last frame.
    crystal : str or Crystal

    Returns
    -------
    Displacements
        To be given as ``relaxation={"V_Se": ...}`` to `simulate`, which takes the path too.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If ASE cannot read it, or it is no supercell of the crystal with a defect.
    """
    crystal = get_crystal(crystal)
    sites = structure_sites(read_atoms(source), crystal)
    hosts = {s.name: "+".join(sorted(s.column)) for s in crystal.sublattices}
    odd = (sites["elements"] != sites["sublattice"].map(hosts)).to_numpy()
    if not odd.any():
        raise ValueError(f"`source` must hold a defect, got a perfect supercell of {crystal.name}.")
    ideal = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    moved = sites[["y_nm", "x_nm"]].to_numpy(float) - ideal
    cells = sites[["i", "j"]].to_numpy(float) @ np.eye(2)
    edges = crystal.vectors_nm * (cells.max(axis=0) + 1)[:, None]
    first = ideal[odd][0]
    offset = _nearest_image(ideal - first, edges)
    offset = _nearest_image(offset - offset[odd].mean(axis=0), edges)
    known = np.isfinite(moved).all(axis=1)
    far = known & (np.linalg.norm(offset, axis=1) > 0.35 * np.linalg.norm(edges, axis=1).min())
    moved = moved - (moved[far].mean(axis=0) if far.any() else 0.0)
    name = str(source) if isinstance(source, (str, Path)) else source.get_chemical_formula()
    return Displacements(offset[known], moved[known], str(sites["sublattice"][odd].iloc[0]), name)


def _nearest_image(offset_nm: Array, edges_nm: Array) -> Array:
    fraction = offset_nm @ np.linalg.inv(edges_nm)
    return np.asarray((fraction - np.round(fraction)) @ edges_nm)


def relax(specimen: Specimen, relaxation: Mapping[str, Relaxation | Displacements]) -> None:
    """Displace the columns around each defect whose species has a relaxation."""
    if not len(specimen.column) or not relaxation:
        return
    tree, nearest = cKDTree(specimen.ideal_nm), specimen.crystal.nearest_neighbor_nm
    for species, field_of in relaxation.items():
        defects = [d for d in specimen.defects if d.species == species]
        if isinstance(field_of, Displacements):
            for defect in defects:
                _displace(specimen, tree, defect, field_of)
            continue
        for first in range(0, len(defects), _TOGETHER):
            centers = np.array([d.center_nm for d in defects[first : first + _TOGETHER]])
            pairs = cKDTree(centers).sparse_distance_matrix(tree, field_of.reach_nm, output_type="ndarray")
            pairs = pairs[pairs["v"] > 1e-3]
            size = field_of(pairs["v"], nearest) / pairs["v"]
            away = size[:, None] * (specimen.ideal_nm[pairs["j"]] - centers[pairs["i"]])
            for axis in (0, 1):
                specimen.position_nm[:, axis] += np.bincount(pairs["j"], away[:, axis], len(specimen.position_nm))


def _displace(specimen: Specimen, tree: cKDTree, defect: Defect, around: Displacements) -> None:
    """Add the displacements of a file to the columns around one defect."""
    frame = specimen.rotations[specimen.grain[defect.site]]
    names = [s.name for s in specimen.crystal.sublattices]
    host = specimen.sublattice[defect.site]
    if host < len(names) and names[host] != around.sublattice:
        frame = -frame
    distance, column = tree.query(defect.center_nm + around.offset_nm @ frame)
    fits = distance < 0.2 * specimen.crystal.nearest_neighbor_nm
    np.add.at(specimen.position_nm, np.asarray(column)[fits], (around.displacement_nm @ frame)[fits])
