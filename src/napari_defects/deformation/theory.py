"""Relaxed structures beside the measurement, by the same displacement and strain code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..crystals import Crystal, get_crystal
from ..simulation.supercells import structure_sites
from ..tables import Strain
from .gradients import strain
from .shifts import displacements


def structure_strain(structure: Any, crystal: str | Crystal, *, exclude_nm: float = 0.5, neighbors: int = 6) -> Strain:
    """Displacement and strain around the defect of a relaxed supercell, by the code that measures images.

    Parameters
    ----------
    structure : ase.Atoms or path
        A supercell with one defect; a path is read with ``ase.io.read`` (POSCAR, CIF, XYZ, LAMMPS data).
    crystal : str or Crystal
    exclude_nm : float
        Columns closer to the defect than this do not define where the lattice is.
    neighbors : int
        As in `strain`.

    Returns
    -------
    Strain
        Positions from the defect, a1 along x, the supercell cut such that the defect is in its middle.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If the file holds no structure, or the supercell is not one of this crystal, or has no defect.
    """
    crystal = get_crystal(crystal)
    if isinstance(structure, str | os.PathLike):
        structure = _read(Path(structure))
    sites = structure_sites(structure, crystal)
    hosts = {s.name: "+".join(sorted(s.column)) for s in crystal.sublattices}
    odd = (sites["elements"] != sites["sublattice"].map(hosts)).to_numpy()
    if not odd.any():
        raise ValueError(
            f"`structure` is pristine {crystal.name}: all its columns are host columns; give one with a defect."
        )
    ideal, cells = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(), sites[["i", "j"]].to_numpy(int)
    u, counts = sites[["y_nm", "x_nm"]].to_numpy() - ideal, cells.max(0) + 1
    fractions = ideal @ np.linalg.inv(crystal.vectors_nm)
    near = fractions[odd] - counts * np.rint((fractions[odd] - fractions[odd][0]) / counts)
    turns = counts * np.rint((fractions - near.mean(0)) / counts).astype(int)
    ideal = (fractions - turns - near.mean(0)) @ crystal.vectors_nm
    moved = sites.assign(i=cells[:, 0] - turns[:, 0], j=cells[:, 1] - turns[:, 1])
    moved[["y_ideal_nm", "x_ideal_nm"]], moved[["y_nm", "x_nm"]] = ideal, ideal + u
    moved.attrs["crystal"] = crystal.name
    return strain(displacements(moved, center_nm=(0, 0), exclude_nm=exclude_nm), neighbors=neighbors)


def _read(path: Path) -> Any:
    """Structure of a file, or one sentence why there is none."""
    from ase.io import read

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        return read(path, format={".lmp": "lammps-data", ".data": "lammps-data"}.get(path.suffix.lower()))
    except Exception as error:  # ase's readers raise whatever they like
        reason = str(error).strip(" .") or type(error).__name__  # some of them come without a word
        raise ValueError(f"`structure` {path.name} is no POSCAR, CIF, XYZ or LAMMPS data: {reason}.") from None
