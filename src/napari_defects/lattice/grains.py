"""More than one lattice in an image: grains, found one after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ..checks import check_range
from ..crystals import Crystal
from ..tables import Atoms, check, positions_nm
from .fitting import fit_lattice
from .indexing import TOLERANCE, bond_length
from .model import Lattice

_AROUND = 12  # neighbours that decide together which grain an atom belongs to
_SHARE = 0.6
_SMALLEST = 0.1  # of all atoms in a grain worth a lattice of its own


def fit_grains(atoms: Atoms, crystal: str | Crystal, *, most: int = 2) -> list[tuple[Lattice, Atoms]]:
    """Fit a lattice to each grain of an image.

    Parameters
    ----------
    atoms : Atoms
        Of one frame, from `locate`.
    crystal : str or Crystal
    most : int
        Grains looked for at most.

    Returns
    -------
    list of (Lattice, Atoms)
        The largest grain first, each with its own atoms; atoms between the grains belong to none. Cells are counted
        in each grain by itself.

    Raises
    ------
    ValueError
        If no lattice is found at all, or `most` is not positive.
    """
    check_range("most", most, 1, whole=True)
    rest, grains = Atoms(check(atoms, "atoms")), []
    for number in range(most):
        try:
            lattice = fit_lattice(rest, crystal)
            own = members(rest, lattice)
            lattice = fit_lattice(Atoms(rest[own]), crystal)
        except ValueError:
            if number == 0:
                raise
            break
        own = members(rest, lattice)
        if own.sum() < _SMALLEST * len(atoms):
            break
        grains.append((lattice, Atoms(rest[own].reset_index(drop=True))))
        rest = Atoms(rest[~own].reset_index(drop=True))
        if len(rest) < _SMALLEST * len(atoms):
            break
    return sorted(grains, key=lambda grain: -len(grain[1]))


def members(atoms: Atoms, lattice: Lattice) -> npt.NDArray[np.bool_]:
    """Which atoms lie on a lattice together with most of those around them."""
    points = positions_nm(atoms)
    off = np.linalg.norm(points - lattice.position(*lattice.index(points)), axis=1)
    on = off < 0.6 * TOLERANCE * bond_length(lattice.vectors_nm, lattice.crystal)
    near = np.asarray(cKDTree(points).query(points, k=min(_AROUND, len(points)))[1]).reshape(len(points), -1)
    return np.asarray(on[near].mean(axis=1) > _SHARE)
