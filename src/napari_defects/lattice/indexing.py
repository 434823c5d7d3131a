"""Kernels beneath the lattice: vectors from neighbours, indices along a tree, columns on sublattices.

Arrays only; positions are (n, 2) as (y, x) in any one unit, bases have a1 and a2 as rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import csgraph, csr_array
from scipy.spatial import cKDTree

from ..crystals import Crystal
from .contrast import contrast_misfit

Array = npt.NDArray[np.float64]

TOLERANCE = 0.25
"""How far a difference between neighbours may be from a lattice vector, in units of the bond length."""

_ANISOTROPY = 1.4
_PRIOR_SCALE, _PRIOR_SHEAR = 0.3, 0.3
_SAMPLE = 4000
_DIFFERENCES = 15_000  # on which guesses are judged


def find_basis(points: Array, crystal: Crystal) -> tuple[Array, float]:
    """Lattice vectors from the differences between neighbouring atoms.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
    crystal : Crystal

    Returns
    -------
    basis : ndarray, shape (2, 2)
    score : float
        About 1 for a perfect lattice, below 0.3 for random points.
    """
    tree = cKDTree(points)
    spacing = float(np.median(np.asarray(tree.query(points, k=2)[0])[:, 1]))
    sample = points[np.linspace(0, len(points) - 1, min(_SAMPLE, len(points))).astype(int)]
    near = cKDTree(sample).sparse_distance_matrix(tree, 2.6 * spacing, output_type="coo_matrix")
    off = near.data > 0.3 * spacing
    differences = points[near.col[off]] - sample[near.row[off]]
    thin = 1 + len(differences) // _DIFFERENCES
    best, score, most = np.eye(2), 0.0, 0.0
    for basis in _candidates(_peaks(differences, spacing), crystal):
        match = _match(basis, differences[::thin], len(sample) / thin, 2.6 * spacing, crystal)
        if match * _likely_shape(basis, crystal) > most:
            best, score, most = basis, match, match * _likely_shape(basis, crystal)
    return (refine_basis(best, differences, crystal) if score > 0 else best), score


def vector_set(basis: Array, crystal: Crystal, reach: float) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """All differences between two sites shorter than `reach`.

    Returns
    -------
    vectors : ndarray, shape (n, 2)
        In the unit of `basis`.
    cells : ndarray, shape (n, 2)
        The same as multiples of a1 and a2.
    weight : ndarray, shape (n,)
        How many sublattices have that neighbour.
    """
    f = crystal.fractions
    shifts = np.array([(m, n) for m in range(-4, 5) for n in range(-4, 5)], float)
    cells = (f[None, :, None] - f[:, None, None] + shifts).reshape(-1, 2)
    cells, weight = np.unique(cells.round(6), axis=0, return_counts=True)
    length = np.linalg.norm(cells @ basis, axis=1)
    keep = (length < reach) & (length > 1e-6 * reach)
    return cells[keep] @ basis, cells[keep], weight[keep].astype(np.int64)


def bond_length(basis: Array, crystal: Crystal) -> float:
    """Distance between neighbouring columns in a lattice of this size."""
    area = abs(np.linalg.det(basis)) / crystal.cell_area_nm2
    return crystal.nearest_neighbor_nm * float(np.sqrt(area))


def refine_basis(basis: Array, differences: Array, crystal: Crystal) -> Array:
    """Least squares of `differences` on the lattice vectors they are closest to."""
    for _ in range(3):
        vectors, cells, _ = vector_set(basis, crystal, 1.5 * float(np.linalg.norm(basis, axis=1).max()))
        distance, which = (np.asarray(k) for k in cKDTree(vectors).query(differences))
        good = distance < TOLERANCE * bond_length(basis, crystal)
        basis = np.linalg.lstsq(cells[which[good]], differences[good], rcond=None)[0]
    return np.asarray(basis)


def index_along_tree(points: Array, basis: Array, crystal: Crystal) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Coordinates of the atoms in multiples of a1 and a2, relative to one of them.

    Every pair of neighbours whose difference is close to a lattice vector is an edge; the coordinates add up along
    the spanning tree of the best edges, so that a slow distortion is followed wherever it leads.

    Returns
    -------
    cells : ndarray, shape (n, 2)
        Exact sums of lattice vectors and of differences between sublattices.
    connected : ndarray of bool, shape (n,)
        Which atoms belong to the largest connected lattice.
    """
    bond = bond_length(basis, crystal)
    reach = 1.15 * float(np.linalg.norm(basis, axis=1).max())
    vectors, steps, _ = vector_set(basis, crystal, reach + bond)
    pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
    difference = points[pairs[:, 1]] - points[pairs[:, 0]]
    residual, which = (np.asarray(k) for k in cKDTree(vectors).query(difference))
    good = residual < TOLERANCE * bond
    pairs, which = pairs[good], which[good]
    cost = residual[good] + 0.02 * np.linalg.norm(difference[good], axis=1)
    n = len(points)
    tree = csgraph.minimum_spanning_tree(csr_array((cost + 1e-9, (pairs[:, 0], pairs[:, 1])), shape=(n, n)))
    _, label = csgraph.connected_components(tree, directed=False)
    connected = label == np.bincount(label).argmax()

    step_of = csr_array((which + 1, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    root = int(np.flatnonzero(connected)[0])
    order, parent = csgraph.breadth_first_order(tree, root, directed=False)
    child, parent = order[1:], parent[order[1:]]
    forward = np.asarray(step_of[np.minimum(parent, child), np.maximum(parent, child)]).ravel()
    step = steps[forward - 1] * np.where(parent < child, 1, -1)[:, None]
    cells = np.zeros((n, 2))
    for c, p, d in zip(child.tolist(), parent.tolist(), step, strict=True):
        cells[c] = cells[p] + d
    return cells, connected


class Orientation(NamedTuple):
    """One of the ways in which a lattice of columns can lie on a crystal's sublattices.

    Attributes
    ----------
    misfit : (bool, float, float)
        Whether another sublattice is brightest than the one said, chi-square of the contrast between them, and how far
        the basis is turned from the standard one; the least is the likeliest.
    basis : ndarray, shape (2, 2)
    cells : ndarray, shape (n, 2)
        Coordinates of the atoms, NaN off all sublattices.
    number : ndarray, shape (n,)
        Sublattice of the atoms, or -1.
    """

    misfit: tuple[bool, float, float]
    basis: Array
    cells: Array
    number: npt.NDArray[np.int64]


def orient(
    basis: Array,
    cells: Array,
    amplitude: Array,
    crystal: Crystal,
    reference: Array | None = None,
    brightest: str | None = None,
) -> tuple[Orientation, float]:
    """Turn basis and coordinates so that every set of columns lies on its own sublattice.

    Among the rotations of the lattice onto itself and the shifts that put a set of columns on a sublattice: those
    that give most atoms a site, of these the one whose intensities are in the expected ratio (or of which the
    sublattice `brightest` is the brightest), of these the one turned least against the crystal's own orientation.
    Where there is a `reference` basis (the previous frame's), only the one turned least against that.

    Returns
    -------
    Orientation
    odds : float
        How much likelier these intensities are than with the sublattices exchanged.
    """
    standard = crystal.vectors_nm if reference is None else reference
    names = [s.name for s in crystal.sublattices]
    sets = np.unique(np.mod(cells.round(4), 1), axis=0)
    ways = []
    for turn in _rotations(crystal):
        turned, coordinates = turn @ basis, cells @ np.linalg.inv(turn)
        phases = np.unique(np.mod((sets @ np.linalg.inv(turn)).round(4), 1), axis=0)
        shifts = np.unique(np.mod((crystal.fractions[:, None] - phases).reshape(-1, 2).round(4), 1), axis=0)
        away = round(float(np.linalg.norm(turned - standard)), 9)
        for shift in shifts:
            number = _sublattice_of(coordinates + shift, crystal)
            medians = [np.median(amplitude[number == n]) if (number == n).any() else 0 for n in range(len(names))]
            heights = dict(zip(names, np.maximum(medians, 0.2 * max(*medians, 1e-12)), strict=True))
            other = brightest is not None and max(names, key=heights.__getitem__) != brightest
            misfit = other, round(contrast_misfit(heights, crystal), 6), away
            ways.append(Orientation(misfit, turned, coordinates + shift, number))
    most = max(np.count_nonzero(way.number >= 0) for way in ways)
    likely = [way for way in ways if np.count_nonzero(way.number >= 0) >= 0.95 * most]
    if reference is not None:
        nearest = min(way.misfit[2] for way in likely)
        likely = [way for way in likely if way.misfit[2] == nearest]
    best = min(likely, key=lambda way: way.misfit)
    kind = np.array(["+".join(s.column) for s in crystal.sublattices])
    others = [w.misfit[1] for w in likely if (kind[w.number] != kind[best.number]).mean() > 0.5]
    odds = float(np.exp(min((min(others, default=np.inf) - best.misfit[1]) / 2, 700.0)))
    return best._replace(cells=np.where(best.number[:, None] >= 0, best.cells, np.nan)), odds


def _peaks(differences: Array, spacing: float) -> Array:
    """Most frequent differences, shape (n, 2)."""
    bin_size, reach = 0.06 * spacing, 2.6 * spacing
    edges = np.arange(-reach, reach + bin_size, bin_size)
    counts = np.histogram2d(differences[:, 0], differences[:, 1], bins=(edges, edges))[0]
    counts = ndimage.gaussian_filter(counts, 1.5)
    top = (ndimage.maximum_filter(counts, 7) == counts) & (counts > 0.15 * counts.max())
    y, x = np.nonzero(top)
    strongest = np.argsort(-counts[y, x], kind="stable")[:40]
    centers = (edges[:-1] + edges[1:]) / 2
    return np.column_stack([centers[y[strongest]], centers[x[strongest]]])


def _candidates(peaks: Array, crystal: Crystal) -> list[Array]:
    """Pairs of peaks that could be the crystal's vectors, rotated, scaled and moderately sheared."""
    undo = np.linalg.inv(crystal.vectors_nm)
    result = []
    for a1 in peaks:
        for a2 in peaks:
            stretch = np.linalg.svd(undo @ np.array([a1, a2]), compute_uv=False)
            handed = np.linalg.det(np.array([a1, a2])) * np.linalg.det(crystal.vectors_nm) > 0
            if handed and stretch[1] > 0.4 and stretch[0] < min(2.5, _ANISOTROPY * stretch[1]):
                result.append(np.array([a1, a2]))
    return result


def _match(basis: Array, differences: Array, n: float, reach: float, crystal: Crystal) -> float:
    """Part of the differences on the lattice, times (root of the) part of the lattice's differences that are there."""
    vectors, _, weight = vector_set(basis, crystal, reach)
    if not len(vectors):
        return 0.0
    distance = np.asarray(cKDTree(vectors).query(differences)[0])
    near = distance < 0.7 * TOLERANCE * bond_length(basis, crystal)
    expected = n * weight.sum() / len(crystal.sublattices)
    return float(near.mean() * np.sqrt(min(near.sum() / expected, 1.0)))


def _likely_shape(basis: Array, crystal: Crystal) -> float:
    """Prior of a lattice of this size and shear."""
    stretch = np.linalg.svd(np.linalg.inv(crystal.vectors_nm) @ basis, compute_uv=False)
    size, shear = 0.5 * np.log(stretch[0] * stretch[1]), np.log(stretch[0] / stretch[1])
    return max(float(np.exp(-0.5 * (size / _PRIOR_SCALE) ** 2 - 0.5 * (shear / _PRIOR_SHEAR) ** 2)), 0.05)


def _rotations(crystal: Crystal) -> list[Array]:
    """Integer matrices that turn the lattice onto itself."""
    metric = crystal.vectors_nm @ crystal.vectors_nm.T
    entries = np.stack(np.meshgrid(*[(-1, 0, 1)] * 4, indexing="ij"), -1).reshape(-1, 2, 2).astype(float)
    return [t for t in entries if np.linalg.det(t) > 0.5 and np.allclose(t @ metric @ t.T, metric, rtol=1e-3)]


def _sublattice_of(coordinates: Array, crystal: Crystal) -> npt.NDArray[np.int64]:
    """Sublattice of each coordinate pair, -1 where it is none."""
    away = coordinates[:, None] - crystal.fractions
    away = np.abs(away - np.round(away)).max(-1)
    return np.where(away.min(1) < 1e-2, away.argmin(1), -1)
