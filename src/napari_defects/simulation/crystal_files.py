"""Crystals from files of atoms, through ASE, and the distorted phases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from ..crystals import Crystal, Sublattice

# Fractional (y, z) of one layer of WTe2, alternately at x = 0 and 1/2: B. E. Brown, Acta Cryst. 20, 268 (1966).
_ONE_T_PRIME = (
    ("M", 0.0, 0.60062), ("M", 0.5, 0.96020),
    ("X", 0.0, 0.85761), ("X", 0.0, 0.20722), ("X", 0.5, 0.35369), ("X", 0.5, 0.70155),
)  # fmt: skip


def read_crystal(source: Any, *, name: str | None = None, tolerance_nm: float = 0.02) -> Crystal:
    """Make a crystal, seen along its c axis, from a file of atoms.

    Parameters
    ----------
    source : path or ase.Atoms
        CIF, POSCAR, extended XYZ, or whatever else ASE reads; one cell of the layer.
    name : str, optional
        The formula when None.
    tolerance_nm : float
        Atoms nearer to each other than this in projection share a column.

    Returns
    -------
    Crystal
        Sublattices are named after their element, numbered where there are several.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If ASE cannot read it, or it has no cell.
    """
    atoms = read_atoms(source)
    if np.linalg.matrix_rank(np.array(atoms.cell)[:2]) < 2:
        raise ValueError("`source` must have a unit cell; an XYZ file needs its Lattice, or give a CIF or POSCAR.")
    a, b = atoms.cell.lengths()[:2] / 10
    gamma = float(atoms.cell.angles()[2])
    angle = np.deg2rad(gamma)
    vectors = np.array([[a, 0.0], [b * np.cos(angle), b * np.sin(angle)]])
    places = atoms.get_scaled_positions(wrap=True)[:, :2]
    delta = places[:, None] - places[None]
    near = np.linalg.norm((delta - np.round(delta)) @ vectors, axis=-1) < tolerance_nm
    groups = connected_components(near)[1]
    columns = []
    for group in range(groups.max() + 1):
        members = np.flatnonzero(groups == group)
        around = places[members] - places[members[0]]
        u, v = (places[members[0]] + (around - np.round(around)).mean(axis=0)) % 1.0
        elements = tuple(sorted(atoms[int(k)].symbol for k in members))
        columns.append((elements, float(u), float(v)))
    return Crystal(name or atoms.get_chemical_formula("metal", empirical=True), a, b, gamma, _sublattices(columns))


def read_atoms(source: Any) -> Any:
    """Return ``ase.Atoms`` from a file, the last of several, or as they come."""
    import ase.io

    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise FileNotFoundError(f"`source` must be a file of atoms, found nothing at {str(source)!r}.")
        try:
            source = ase.io.read(str(source))
        except Exception as error:  # whatever a reader of ASE raises
            raise ValueError(f"`source` {str(source)!r} is no file of atoms that ASE reads: {error}") from None
    return source[-1] if isinstance(source, list) else source


def one_t_prime(metal: str, chalcogen: str, a_nm: float = 0.3477, b_nm: float = 0.6249) -> Crystal:
    """Return the distorted octahedral phase 1T' of a dichalcogenide; the defaults are those of WTe2.

    Parameters
    ----------
    metal, chalcogen : str
    a_nm, b_nm : float
        Along the zigzag chains of metal, and across them.
    """
    elements = {"M": metal, "X": chalcogen}
    columns: list[tuple[tuple[str, ...], float, float]] = [((elements[kind],), u, v) for kind, u, v in _ONE_T_PRIME]
    return Crystal(f"1T'-{metal}{chalcogen}2", a_nm, b_nm, 90.0, _sublattices(columns))


def _sublattices(columns: list[tuple[tuple[str, ...], float, float]]) -> tuple[Sublattice, ...]:
    """Name columns (elements, u, v) after their first element, numbered where it occurs again."""
    count = Counter(elements[0] for elements, _, _ in columns)
    seen: Counter[str] = Counter()
    result = []
    for elements, u, v in columns:
        seen[elements[0]] += 1
        number = str(seen[elements[0]]) if count[elements[0]] > 1 else ""
        result.append(Sublattice(elements[0] + number, u, v, elements))
    return tuple(result)
