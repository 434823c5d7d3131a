"""Relaxed point defects of graphene, by springs between bonded neighbours.

Each defect is made by its topology in a periodic cell (atoms removed, bonds rewired) and relaxed in
the plane with Keating's energy: bonds keep their length and the angle between two bonds stays near
120 degrees. Silicon sits above the plane, so its bonds are shorter in projection.
P. N. Keating, Phys. Rev. 145, 637 (1966).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from ..crystals import GRAPHENE

Array = npt.NDArray[np.float64]
KINDS = ("Si1C3", "Si1C4", "V1", "V2", "SW")
_CELLS = 14
_BOND = GRAPHENE.a_nm / np.sqrt(3)
_STRETCH, _BEND = 1.0, 0.22


@dataclass(frozen=True)
class Template:
    """A relaxed defect, relative to the pristine site of its first atom (sublattice A).

    Attributes
    ----------
    pristine_nm, displacement_nm : ndarray, shape (atom, 2)
    changes : tuple of (atom, element)
        Atoms that are removed (element ``""``) or exchanged.
    center_nm : ndarray, shape (2,)
    """

    pristine_nm: Array
    displacement_nm: Array
    changes: tuple[tuple[int, str], ...]
    center_nm: Array
    radius_nm: float

    @cached_property
    def tree(self) -> cKDTree:
        """Index of the pristine positions."""
        return cKDTree(self.pristine_nm)


def _sheet() -> tuple[Array, Array, set[tuple[int, int]]]:
    """Atoms of the cell, its two edges and the bonds; atoms 2k and 2k + 1 are A and B of one cell."""
    vectors = GRAPHENE.vectors_nm
    cells = np.stack(np.meshgrid(*[np.arange(_CELLS)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
    atoms = ((cells + GRAPHENE.fractions) @ vectors).reshape(-1, 2)
    edges = vectors * _CELLS
    delta = _wrapped(atoms[:, None] - atoms[None], edges)
    pairs = np.argwhere(np.triu(np.linalg.norm(delta, axis=-1) < 1.2 * _BOND, 1))
    return atoms, edges, {(int(a), int(b)) for a, b in pairs}


def _wrapped(delta: Array, edges: Array) -> Array:
    fraction = delta @ np.linalg.inv(edges)
    return np.asarray((fraction - np.round(fraction)) @ edges)


def _neighbors(bonds: set[tuple[int, int]], atom: int) -> list[int]:
    return [b if a == atom else a for a, b in sorted(bonds) if atom in (a, b)]


@lru_cache(maxsize=32)
def template(kind: str, variant: int = 0) -> Template:
    """Relax the defect `kind`; variants 0 to 3 differ in how far it reconstructs."""
    atoms, edges, bonds = _sheet()
    first = 2 * (_CELLS // 2 * _CELLS + _CELLS // 2)
    partner = _neighbors(bonds, first)[0]
    delta = _wrapped(atoms - atoms[first], edges)
    lengths: dict[tuple[int, int], float] = {}
    start = delta.copy()
    changes: tuple[tuple[int, str], ...] = ()
    center = np.zeros(2)
    ring_a = [k for k in _neighbors(bonds, first) if k != partner]
    ring_b = [k for k in _neighbors(bonds, partner) if k != first]

    def side(k: int) -> float:
        axis = delta[partner] / np.linalg.norm(delta[partner])
        return float(delta[k] @ np.array([-axis[1], axis[0]]))

    ring_a, ring_b = sorted(ring_a, key=side), sorted(ring_b, key=side)
    removed: set[int] = set()
    if kind == "Si1C3":
        changes = ((first, "Si"),)
        for k in _neighbors(bonds, first):
            lengths[_key(first, k)] = (0.150, 0.155, 0.160, 0.165)[variant]
    elif kind == "V1":
        removed, changes = {first}, ((first, ""),)
        reconstruction = (None, 0.26, 0.22, 0.19)[variant]
        if reconstruction is not None:  # two of the three open atoms draw together: a pentagon and a nonagon
            bonds.add(_key(*ring_a))
            lengths[_key(*ring_a)] = reconstruction
    elif kind in ("V2", "Si1C4"):
        center = delta[partner] / 2
        if kind == "V2":
            removed, changes = {first, partner}, ((first, ""), (partner, ""))
            for pair in (ring_a, ring_b):  # two pentagons and an octagon
                bonds.add(_key(*pair))
                lengths[_key(*pair)] = (0.152, 0.155, 0.165, 0.175)[variant]
        else:
            removed, changes = {partner}, ((first, "Si"), (partner, ""))
            start[first] = center
            for k in ring_a + ring_b:
                bonds.add(_key(first, k))
                lengths[_key(first, k)] = (0.172, 0.178, 0.184, 0.190)[variant]
    elif kind == "SW":
        center = delta[partner] / 2
        axis = delta[partner] / 2
        normal = np.array([-axis[1], axis[0]])
        start[first], start[partner] = center - normal, center + normal
        # A keeps its low neighbour and takes B's low one; B has the high ones.
        bonds -= {_key(first, ring_a[1]), _key(partner, ring_b[0])}
        bonds |= {_key(first, ring_b[0]), _key(partner, ring_a[1])}
        lengths[_key(first, partner)] = (0.130, 0.132, 0.135, 0.138)[variant]
    else:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
    bonds = {bond for bond in bonds if not removed & set(bond)}
    relaxed = _relaxed(start, edges, bonds, lengths, soft=first if kind == "Si1C4" else None)
    displacement = _wrapped(relaxed - delta, edges)
    displacement[sorted(removed)] = 0.0
    still = np.linalg.norm(delta, axis=1) > 1.0
    displacement -= displacement[still].mean(axis=0)
    radius = 1.5
    taper = np.clip((radius - np.linalg.norm(delta, axis=1)) / 0.4, 0, 1)
    return Template(delta, displacement * taper[:, None], changes, center, radius)


def _key(a: int, b: int) -> tuple[int, int]:
    return (min(a, b), max(a, b))


def _relaxed(
    start: Array, edges: Array, bonds: set[tuple[int, int]], lengths: dict[tuple[int, int], float], soft: int | None
) -> Array:
    """Positions of least Keating energy; `soft` names an atom whose own angles cost nothing."""
    pairs = np.array(sorted(bonds))
    rest = np.array([lengths.get((int(a), int(b)), _BOND) for a, b in pairs])
    bonded: dict[int, list[int]] = {}
    for a, b in pairs.tolist():
        bonded.setdefault(a, []).append(b)
        bonded.setdefault(b, []).append(a)
    angles = np.array([(k, n[i], n[j]) for k, n in bonded.items() if k != soft
                       for i in range(len(n)) for j in range(i)])  # fmt: skip
    rest_of = {tuple(pair): length for pair, length in zip(pairs.tolist(), rest, strict=True)}
    product = np.array([rest_of[_key(k, i)] * rest_of[_key(k, j)] for k, i, j in angles.tolist()])

    def energy(flat: Array) -> tuple[float, Array]:
        x = flat.reshape(-1, 2)
        d = _wrapped(x[pairs[:, 1]] - x[pairs[:, 0]], edges)
        stretch = ((d**2).sum(1) - rest**2) / rest
        u = _wrapped(x[angles[:, 1]] - x[angles[:, 0]], edges)
        v = _wrapped(x[angles[:, 2]] - x[angles[:, 0]], edges)
        scale = np.sqrt(product)
        bend = ((u * v).sum(1) + product / 2) / scale
        gradient = np.zeros_like(x)
        pull = (2 * _STRETCH * stretch / rest * 2)[:, None] * d
        np.add.at(gradient, pairs[:, 1], pull)
        np.add.at(gradient, pairs[:, 0], -pull)
        twist = (2 * _BEND * bend / scale)[:, None]
        np.add.at(gradient, angles[:, 1], twist * v)
        np.add.at(gradient, angles[:, 2], twist * u)
        np.add.at(gradient, angles[:, 0], -twist * (u + v))
        return float(_STRETCH * (stretch**2).sum() + _BEND * (bend**2).sum()), gradient.ravel()

    found = minimize(energy, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-14})
    return np.asarray(found.x).reshape(-1, 2)
