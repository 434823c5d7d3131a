"""Line jitter: scan lines that lie beside where they should, found from the columns they cross.

A line that starts late shows all its columns shifted. One column alone cannot tell a shift of its
lines from its own place, but its lines must agree with each other, and each line crosses many
columns. What varies more slowly than a column is wide moves columns as a whole: where they form a
pattern, those of a line lie beside the middle of their like on both sides. What takes a sixth of
the frame or more stays with the columns: that is drift. How much one line keeps of the offset of
the one before is found along with the jitter's strength: what lasts moves columns more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import lapack
from scipy.optimize import Bounds, minimize
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from napari_defects.atoms.detection import repeats
from napari_defects.gaussian import Columns, Pixels, kernels
from napari_defects.gaussian.neighbors import Neighbors
from napari_defects.gaussian.windows import Array, Image

_REACH = 4.0
_SLOW = 2.0  # offsets that vary over more than this many widths of a column are left to the columns
_WAVE = 6.0  # half waves longer than this many widths may be drift
_SIGNIFICANT = 3.0  # sigma from which there is jitter
_VISIBLE = 0.05  # pixels: less may be what the fit left over, and does not tell how long it lasts
_LINES = 64  # taken at a time
_FEW = 500  # columns that need no sparse matrices
_AROUND = 10.0  # widths from a line beyond which columns do not feel it, even by way of their neighbours
_SURE = 1e-6  # of all information: what is less is none
_BLOCK = 256  # lines that are enough to see how long jitter lasts
_LONGEST = 3.0  # widths that it may: more is drift
_LEAST = 1e-4  # of the most that a line moves a column by: less is nothing
_DRIFT = 12  # half waves in a frame up to which the scan's displacement is drift, not jitter
_ALIKE = 6  # periods of the pattern along which columns are compared
_FEWEST = 100  # columns that are
_MOST_LINES = 4096  # a dense system of this size still fits in memory


@dataclass(frozen=True, eq=False)
class Jitter:
    """Offset of every scan line along x.

    Parameters
    ----------
    offset_px : ndarray, shape (line,)
        Best estimate; positive where the line shows its columns too far right.
    rms_px : float
        Strength of the jitter that explains the image; 0 for none.
    column_error_px : ndarray, shape (column,)
        1 sigma of what is left of it in the x of each column.
    """

    offset_px: Array
    rms_px: float
    column_error_px: Array


def estimate_jitter(counts: Array, columns: Columns) -> Jitter:
    """Estimate the offset of every line, the columns' places along x being unknown as well.

    Parameters
    ----------
    counts : ndarray, shape (y, x)
        Image in units in which the variance equals the mean.
    columns : Columns
        Fitted to it.

    Returns
    -------
    Jitter
        Strength and memory come from the image: the scores of all lines vary as their information S and, with
        jitter of covariance K, as S + S K S; those are taken that make the scores likeliest.
    """
    n_lines = counts.shape[0]
    nothing = Jitter(np.zeros(n_lines), 0.0, np.zeros(len(columns.yx)))
    if n_lines > _MOST_LINES or len(columns.yx) == 0:
        return nothing
    pixels = Pixels(counts, columns.nodes.shape, reach=_REACH)
    model = np.maximum(pixels.model(columns), np.float32(pixels.floor))
    inside = np.all((columns.yx > 0) & (columns.yx < np.subtract(counts.shape, 1)), axis=1)
    columns = columns.taken(inside)  # beyond the edge, places are not fitted freely
    p = pixels.windows(columns)
    slope = np.zeros_like(model)  # of the model as a line, or a column, moves right
    kernels.render(slope, p, columns.amplitude, right=1)
    pull = pixels.counts / model - 1
    score = np.sum(pull * slope, axis=1, dtype=np.float64)
    own = kernels.project(pull, p, columns.amplitude)[:, 2]  # nearly 0: the fit ended on coarser pixels
    shared = kernels.lines(slope / model, p, right=1) * columns.amplitude[:, None]  # (column, line of its window)
    width = np.arange(shared.shape[1])
    column, line = np.nonzero(width < p.ny[:, None])
    index = (shared[column, line], (column, p.y[column] + line))
    crossed = sparse.coo_array(index, shape=(len(columns.yx), n_lines)).tocsr()
    moved = _moved(_stiffness(pixels, columns, 1 / model), crossed, columns)
    alone = sparse.diags_array(np.sum(slope**2 / model, axis=1, dtype=np.float64))
    score, information = score - own @ moved, _dense(alone - crossed.T @ moved)
    information = (information + information.T) / 2
    sure, seen = _without_waves(information, score, int(n_lines / (_SLOW * columns.width)))
    strength = float((seen @ seen - np.trace(sure)) / np.sum(sure**2))
    if strength <= _SIGNIFICANT * np.sqrt(2 / np.sum(sure**2)):
        return nothing
    more, further = _along_pattern(columns, counts.shape, moved)
    rms, memory = float(np.sqrt(strength)), 0.0
    if rms > _VISIBLE:
        rms, memory = _likeliest(information + more, score + further, rms, columns.width)
    fast = sparse.eye_array(n_lines) - _slow(n_lines, _SLOW * columns.width)
    left = _inverse(fast.T @ information @ fast + more + _lasting(n_lines, rms, memory))
    offset = left @ (fast.T @ score + further)
    error = np.zeros(len(inside))
    error[inside] = np.sqrt(np.maximum(_quadratic(moved, left), 0))
    return Jitter(offset, rms, error)


def _likeliest(information: Array, score: Array, rms: float, width: float) -> tuple[float, float]:
    """Strength of the jitter, and the share of it that one line has from the one before, that explain the scores."""
    blocks = np.array_split(np.arange(len(score)), max(1, len(score) // _BLOCK))
    waves = int(len(blocks[0]) / (_WAVE * width))
    parts = [_without_waves(information[np.ix_(k, k)], score[k], waves) for k in blocks]

    def misfit(x: Array) -> float:
        strength, memory = rms * np.exp(x[0]), np.tanh(x[1])
        total = 0.0
        for own, pull in parts:
            n = len(pull)
            factor, wrong = lapack.dpotrf(own + _lasting(n, strength, memory), lower=1)
            if wrong:
                return np.inf
            seen = lapack.dtrtrs(factor, pull, lower=1)[0]
            spread = n * np.log(strength) + (n - 1) / 2 * np.log1p(-(memory**2))
            total += np.log(np.diag(factor)).sum() + spread - seen @ seen / 2
        return float(total)

    simplex = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.9]])
    bounds = Bounds([-1, 0], [2, np.arctanh(np.exp(-1 / (_LONGEST * width)))])
    options: Any = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 0.1}
    best = minimize(misfit, simplex[0], method="Nelder-Mead", bounds=bounds, options=options)
    return float(rms * np.exp(best.x[0])), float(np.tanh(best.x[1]))


def _lasting(n: int, rms: float, memory: float) -> Array:
    """Inverse covariance of n offsets of which each keeps `memory` of the one before."""
    inverse = np.diag(np.r_[1.0, np.full(n - 2, 1 + memory**2), 1.0]) - memory * (np.eye(n, k=1) + np.eye(n, k=-1))
    return np.asarray(inverse / (rms**2 * (1 - memory**2)))


def _along_pattern(columns: Columns, shape: tuple[int, ...], moved: sparse.csr_array | Array) -> tuple[Array, Array]:
    """Information about the offsets of lines, (line, line) and (line,), from the columns that they move as a whole."""
    beside, own = _beside(columns, shape)
    bins = max(1, int(0.5 * columns.width))  # lines that do the same to a column as a whole
    alike = np.arange(shape[0]) // bins
    together = sparse.csr_array((np.full(shape[0], 1 / bins), (np.arange(shape[0]), alike)))
    felt = beside @ (moved @ together)
    information, score = _dense(felt.T @ felt)[np.ix_(alike, alike)], (own @ felt)[alike]
    return _without_waves(information, score, _DRIFT)


def _without_waves(information: Array, score: Array, half_waves: int) -> tuple[Array, Array]:
    """Leave out what slow waves along the lines would do, of up to so many half waves; they may be anything."""
    n = len(score)
    waves = np.cos(np.outer(np.arange(n) + 0.5, np.arange(half_waves + 1)) * (np.pi / n))
    blurred = information @ waves
    least = max(_SURE * float(np.trace(information)), 1e-300)
    known = blurred @ np.linalg.inv(waves.T @ blurred + least * np.eye(half_waves + 1))
    return information - known @ blurred.T, score - known @ (waves.T @ score)


def _beside(columns: Columns, shape: tuple[int, ...]) -> tuple[sparse.csr_array, Array]:
    """How far columns lie right of the middle of their like on both sides, in units of what is usual.

    Returns
    -------
    csr_array, shape (column, column)
        Makes that of the columns' places.
    ndarray, shape (column,)
        What it is; 0 for columns without their like, and for those that do not fit, beside a defect say.
    """
    n, at = len(columns.yx), columns.isotropic
    limit = np.subtract(shape, 1) * (1.0, columns.aspect)
    shifts = repeats(at, limit, columns.width)
    shifts = shifts[(shifts[:, 0] > 0) | ((shifts[:, 0] == 0) & (shifts[:, 1] > 0))]
    shifts = shifts[np.argsort(np.linalg.norm(shifts, axis=1))][:_ALIKE]
    tree, pairs, total = cKDTree(at), [np.zeros((0, 2), np.int64)], np.zeros(n)
    for shift in shifts:
        (far, after), (off, before) = (
            (np.asarray(k) for k in tree.query(at + s, distance_upper_bound=columns.width)) for s in (shift, -shift)
        )
        both = np.flatnonzero(np.isfinite(far) & np.isfinite(off))
        pairs += [np.column_stack([both, after[both]]), np.column_stack([both, before[both]])]
        total[both] += 2
    i, j = np.concatenate(pairs).T
    own = np.flatnonzero(total)
    value, index = np.append(-1 / total[i], np.ones(len(own))), (np.append(i, own), np.append(j, own))
    middle = sparse.coo_array((value, index), shape=(n, n)).tocsr()
    off_x = middle @ columns.yx[:, 1]
    if len(own) < _FEWEST:
        return 0 * middle, 0 * off_x
    usual = 1.4826 * float(np.median(np.abs(off_x[own])))  # about 0
    fits = (np.abs(off_x) < 4 * usual) / usual
    return sparse.diags_array(fits) @ middle, fits * off_x


def _stiffness(pixels: Pixels, columns: Columns, weight: Array | Image) -> sparse.csr_array:
    """Information of the columns about each other's x."""
    near = Neighbors(columns)
    values, own = pixels.blocks(columns, near, weight)[:, 2, 2].astype(np.float64), near.pointer[:-1]
    values[own] = np.maximum(values[own], 1e-3 * np.median(values[own]))
    return sparse.csr_array((values, near.other, near.pointer), shape=(len(own), len(own)))


def _slow(n: int, width: float) -> sparse.csr_array:
    """Matrix of a Gaussian average along n lines, mirrored at the ends."""
    reach = int(4 * width + 0.5)
    offset = np.arange(-reach, reach + 1)
    bell = np.exp(-0.5 * (offset / width) ** 2)
    line = (np.arange(n)[:, None] + offset) % (2 * n)
    there = np.minimum(line, 2 * n - 1 - line)
    row, share = np.repeat(np.arange(n), len(bell)), np.tile(bell / bell.sum(), n)
    return sparse.coo_array((share, (row, there.ravel())), shape=(n, n)).tocsr()


def _inverse(matrix: Array) -> Array:
    """Inverse of a symmetric positive definite matrix."""
    factor, wrong = lapack.dpotrf(matrix, lower=1)
    if wrong:
        return np.asarray(np.linalg.inv(matrix))
    lower = lapack.dpotri(factor, lower=1)[0]
    return np.asarray(np.tril(lower) + np.tril(lower, -1).T)


def _dense(matrix: Any) -> Array:
    return np.asarray(matrix if isinstance(matrix, np.ndarray) else matrix.toarray())


def _moved(stiffness: sparse.csr_array, crossed: sparse.csr_array, columns: Columns) -> sparse.csr_array | Array:
    """How far each line takes the columns along, shape (column, line): some lines at a time, with the columns near.

    Of few columns all at once.
    """
    if len(columns.yx) <= _FEW:
        return np.linalg.solve(stiffness.toarray(), crossed.toarray())
    y, around, parts = columns.yx[:, 0], _AROUND * float(columns.sigma.max()), []
    for first in range(0, crossed.shape[1], _LINES):
        some = crossed[:, first : first + _LINES]
        near = np.flatnonzero((y > first - around) & (y < first + _LINES + around))
        own = stiffness[near][:, near].tocsc()
        solved = splu(own).solve(some[near].toarray()) if len(near) else np.zeros((0, some.shape[1]))
        row, line = np.nonzero(np.abs(solved) > _LEAST * np.abs(solved).max(initial=0.0))
        parts.append(sparse.coo_array((solved[row, line], (near[row], line)), shape=some.shape))
    return sparse.csr_array(sparse.hstack(parts))


def _quadratic(moved: sparse.csr_array | Array, left: Any) -> Array:
    """Diagonal of moved left moved', shape (column,): some columns at a time, with the lines near."""
    if isinstance(moved, np.ndarray):
        return np.asarray(np.sum((moved @ left) * moved, axis=1))
    result = np.zeros(moved.shape[0])
    order = np.argsort(np.add.reduceat(moved.indices, moved.indptr[:-1]) / np.diff(moved.indptr))
    for some in np.array_split(order, max(1, len(order) // 500)):
        rows = moved[some]
        first, last = rows.indices.min(), rows.indices.max() + 1
        taken = rows[:, first:last].toarray()
        result[some] = np.sum((taken @ left[first:last, first:last]) * taken, axis=1)
    return result


def straighten(image: Array, offset_px: Array) -> Array:
    """Move every line of `image` left by its offset; noise stays what it was.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    offset_px : ndarray, shape (y,)

    Returns
    -------
    ndarray, shape (y, x)
        Shifted in Fourier space, mirrored beyond the ends.
    """
    n = image.shape[1]
    pad = int(min(n - 1, 8 + np.ceil(2 * np.abs(offset_px).max())))
    wide = np.pad(image, ((0, 0), (pad, pad)), mode="reflect")
    phase = np.exp(2j * np.pi * np.fft.rfftfreq(wide.shape[1]) * offset_px[:, None])
    return np.asarray(np.fft.irfft(np.fft.rfft(wide, axis=1) * phase, n=wide.shape[1], axis=1)[:, pad : pad + n])
