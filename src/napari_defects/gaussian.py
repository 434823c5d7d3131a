"""Joint maximum-likelihood fit of overlapping columns, its covariance and the bound it can reach.

Model of a pixel: background + sum over columns of A exp(-(u^2 + v^2) / 2 sigma^2), counts Poisson.
Everything here is in pixels and counts (variance = mean); the background is bilinear between the
nodes of a coarse grid. Neighbours overlap, so all columns are fitted at once: Fisher scoring on the
sparse normal equations, a step being kept only when the deviance falls. After a first pass on binned
pixels a polish at full resolution removes the bias of binning.

Per column four derivatives are kept, in the order (amplitude, y, x, sigma).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, cg
from scipy.spatial import cKDTree

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_COUPLED = 4.8  # columns nearer than this many sigma share a block of the normal equations
_LOCAL = 13  # columns whose joint covariance is inverted for the errors of the one in the middle


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _profile(center: float, scale: float, sigma: float, reach: float, n: int) -> Any:
    """First pixel, offsets and Gaussian along one axis."""
    radius = reach * sigma / scale
    first = max(0, int(np.ceil(center - radius)))
    last = min(n - 1, int(np.floor(center + radius)))
    offset = (np.arange(first, last + 1) - center) * scale
    return first, offset, np.exp(-0.5 * (offset / sigma) ** 2)


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _render(image: Array, yx: Array, amplitude: Array, sigma: Array, scale: Array, reach: float) -> None:
    """Add the columns to `image`."""
    for k in range(len(yx)):
        y0, _, gy = _profile(yx[k, 0], scale[0], sigma[k], reach, image.shape[0])
        x0, _, gx = _profile(yx[k, 1], scale[1], sigma[k], reach, image.shape[1])
        for a in range(len(gy)):
            row = amplitude[k] * gy[a]
            for b in range(len(gx)):
                image[y0 + a, x0 + b] += row * gx[b]


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _project(image: Array, yx: Array, amplitude: Array, sigma: Array, scale: Array, reach: float) -> Array:
    """Sum of `image` times each column's four derivatives, shape (column, 4)."""
    out = np.zeros((len(yx), 4))
    for k in range(len(yx)):
        y0, u, gy = _profile(yx[k, 0], scale[0], sigma[k], reach, image.shape[0])
        x0, v, gx = _profile(yx[k, 1], scale[1], sigma[k], reach, image.shape[1])
        for a in range(len(gy)):
            s0 = s1 = s2 = 0.0
            for b in range(len(gx)):
                p = image[y0 + a, x0 + b] * gx[b]
                s0 += p
                s1 += p * v[b]
                s2 += p * v[b] * v[b]
            out[k, 0] += gy[a] * s0
            out[k, 1] += gy[a] * u[a] * s0
            out[k, 2] += gy[a] * s1
            out[k, 3] += gy[a] * (u[a] * u[a] * s0 + s2)
        slope = amplitude[k] / sigma[k] ** 2
        out[k, 1] *= slope * scale[0]
        out[k, 2] *= slope * scale[1]
        out[k, 3] *= slope / sigma[k]
    return out


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _blocks(
    weight: Array, pairs: Index, yx: Array, amplitude: Array, sigma: Array, scale: Array, reach: float
) -> Array:
    """Weighted products of the derivatives of pairs of columns, shape (pair, 4, 4)."""
    out = np.zeros((len(pairs), 4, 4))
    left, right, both = np.empty(4), np.empty(4), np.empty((4, 4))
    for n in range(len(pairs)):
        i, j = pairs[n]
        yi, ui, gyi = _profile(yx[i, 0], scale[0], sigma[i], reach, weight.shape[0])
        xi, vi, gxi = _profile(yx[i, 1], scale[1], sigma[i], reach, weight.shape[1])
        yj, uj, gyj = _profile(yx[j, 0], scale[0], sigma[j], reach, weight.shape[0])
        xj, vj, gxj = _profile(yx[j, 1], scale[1], sigma[j], reach, weight.shape[1])
        both[:] = 0.0
        for y in range(max(yi, yj), min(yi + len(gyi), yj + len(gyj))):
            a, b = y - yi, y - yj
            for x in range(max(xi, xj), min(xi + len(gxi), xj + len(gxj))):
                c, d = x - xi, x - xj
                p = weight[y, x] * gyi[a] * gxi[c] * gyj[b] * gxj[d]
                left[0], left[1], left[2], left[3] = p, p * ui[a], p * vi[c], p * (ui[a] ** 2 + vi[c] ** 2)
                right[0], right[1], right[2], right[3] = 1.0, uj[b], vj[d], uj[b] ** 2 + vj[d] ** 2
                for q in range(4):
                    for r in range(4):
                        both[q, r] += left[q] * right[r]
        si, sj = amplitude[i] / sigma[i] ** 2, amplitude[j] / sigma[j] ** 2
        left[0], left[1], left[2], left[3] = 1.0, si * scale[0], si * scale[1], si / sigma[i]
        right[0], right[1], right[2], right[3] = 1.0, sj * scale[0], sj * scale[1], sj / sigma[j]
        for q in range(4):
            for r in range(4):
                out[n, q, r] = both[q, r] * left[q] * right[r]
    return out


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _cross(
    weight: Array, hat_y: Array, hat_x: Array, first: Index,
    yx: Array, amplitude: Array, sigma: Array, scale: Array, reach: float,
) -> Array:  # fmt: skip
    """Weighted products of each column's derivatives with 3 x 3 background nodes from `first`, (column, 4, 3, 3)."""
    out = np.zeros((len(yx), 4, 3, 3))
    sums = np.empty((3, 3))
    for k in range(len(yx)):
        y0, u, gy = _profile(yx[k, 0], scale[0], sigma[k], reach, weight.shape[0])
        x0, v, gx = _profile(yx[k, 1], scale[1], sigma[k], reach, weight.shape[1])
        for a in range(len(gy)):
            sums[:] = 0.0
            for b in range(len(gx)):
                p = weight[y0 + a, x0 + b] * gx[b]
                for m in range(3):
                    q = p * hat_x[x0 + b, first[k, 1] + m]
                    sums[0, m] += q
                    sums[1, m] += q * v[b]
                    sums[2, m] += q * v[b] * v[b]
            for m in range(3):
                h = gy[a] * hat_y[y0 + a, first[k, 0] + m]
                for r in range(3):
                    out[k, 0, m, r] += h * sums[0, r]
                    out[k, 1, m, r] += h * u[a] * sums[0, r]
                    out[k, 2, m, r] += h * sums[1, r]
                    out[k, 3, m, r] += h * (u[a] * u[a] * sums[0, r] + sums[2, r])
        slope = amplitude[k] / sigma[k] ** 2
        out[k, 1] *= slope * scale[0]
        out[k, 2] *= slope * scale[1]
        out[k, 3] *= slope / sigma[k]
    return out


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of one image, in pixels and counts.

    Parameters
    ----------
    yx : ndarray, shape (column, 2)
        Positions.
    amplitude : ndarray, shape (column,)
        Peak heights above the background.
    sigma : ndarray, shape (column,)
        Widths (1 sigma), in pixels along y.
    group : ndarray of int, shape (column,)
        Columns of one group share their width.
    nodes : ndarray, shape (node y, node x)
        Background at the nodes of a regular grid spanning the image corner to corner.
    aspect : float
        Pixel size along x over that along y.
    covariance : ndarray, shape (column, 3, 3) or (column, 4, 4)
        Of (amplitude, y, x[, sigma]), neighbours free; empty before the fit.
    deviance : float
        2 sum(m - n + n log n/m) at the solution.
    """

    yx: Array
    amplitude: Array
    sigma: Array
    group: Index
    nodes: Array
    aspect: float = 1.0
    covariance: Array = field(default_factory=lambda: np.zeros((0, 3, 3)))
    deviance: float = np.inf

    @property
    def errors(self) -> Array:
        """1 sigma of (amplitude, y, x[, sigma]), shape (column, 3 or 4)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2)))

    def background(self, shape: tuple[int, int]) -> Array:
        """Background under each column, for an image of `shape`."""
        by, bx = (
            np.clip(self.yx[:, a] * (self.nodes.shape[a] - 1) / (shape[a] - 1), 0, self.nodes.shape[a] - 1.001)
            for a in (0, 1)
        )
        iy, ix = by.astype(int), bx.astype(int)
        fy, fx = by - iy, bx - ix
        upper = self.nodes[iy, ix] * (1 - fx) + self.nodes[iy, ix + 1] * fx
        lower = self.nodes[iy + 1, ix] * (1 - fx) + self.nodes[iy + 1, ix + 1] * fx
        return np.asarray(upper * (1 - fy) + lower * fy)

    def render(self, shape: tuple[int, int], reach: float = 5.0) -> Array:
        """Model image."""
        return _Pixels(np.zeros(shape), self.nodes.shape, reach=reach).model(self)


def hat(n: int, nodes: int, binning: int = 1) -> Array:
    """Linear interpolation from `nodes` spanning `n` pixels to those pixels, shape (n // binning, nodes)."""
    at = np.linspace(0, nodes - 1, n)
    full = np.clip(1 - np.abs(at[:, None] - np.arange(nodes)), 0, None)
    return np.asarray(full[: n // binning * binning].reshape(-1, binning, nodes).mean(axis=1))


class _Pixels:
    """Counts on (binned) pixels, and what the fit needs of them."""

    def __init__(self, counts: Array, grid: tuple[int, ...], *, binning: int = 1, reach: float = 4.0) -> None:
        ny, nx = (n // binning for n in counts.shape)
        cut = counts[: ny * binning, : nx * binning]
        self.counts = cut.reshape(ny, binning, nx, binning).mean(axis=(1, 3)) if binning > 1 else cut
        self.shape, self.binning, self.reach = counts.shape, binning, reach
        self.hats = tuple(hat(n, g, binning) for n, g in zip(counts.shape, grid, strict=True))
        self.floor = max(1e-3 * float(np.mean(np.abs(counts))), 1e-12)

    def arguments(self, columns: Columns) -> tuple[Array, Array, Array, Array, float]:
        b = self.binning
        sigma = np.sqrt(columns.sigma**2 + (b * b - 1) / 12 * (1 + columns.aspect**2) / 2) / b
        loss = (columns.sigma / (sigma * b)) ** 2  # binning lowers the peak and keeps the volume
        yx = (columns.yx - (b - 1) / 2) / b
        return yx, columns.amplitude * loss, sigma, np.array([1.0, columns.aspect]), self.reach

    def model(self, columns: Columns) -> Array:
        image: Array = np.ascontiguousarray(self.hats[0] @ columns.nodes @ self.hats[1].T)
        _render(image, *self.arguments(columns))
        return image

    def deviance(self, model: Array) -> float:
        n, m = self.counts, np.maximum(model, self.floor)
        terms = m - n + n * np.log(np.maximum(n, self.floor) / m)
        return float(2 * self.binning**2 * terms.sum())

    def units(self, columns: Columns) -> Array:
        """Return derivatives of the binned parameters to the full-resolution ones."""
        b = self.binning
        _, amplitude, sigma, _, _ = self.arguments(columns)
        one = np.full(len(sigma), 1 / b)
        return np.stack([amplitude / columns.amplitude, one, one, columns.sigma / (sigma * b) / b], axis=1)

    def gradient(self, columns: Columns, model: Array) -> tuple[Array, Array]:
        """Score by column (column, 4) and by node."""
        pull = self.binning**2 * (self.counts / np.maximum(model, self.floor) - 1)
        return (
            _project(pull, *self.arguments(columns)) * self.units(columns),
            self.hats[0].T @ pull @ self.hats[1],
        )

    def information(self, columns: Columns) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
        """Fisher information: columns (4n x 4n), columns x nodes, nodes x nodes."""
        weight = self.binning**2 / np.maximum(self.model(columns), self.floor)
        arguments, units, n = self.arguments(columns), self.units(columns), len(columns.yx)
        near = neighbor_pairs(columns, 2 * self.reach)
        pairs = np.concatenate([np.repeat(np.arange(n), 2).reshape(-1, 2), near])
        blocks = _blocks(weight, pairs, *arguments) * units[pairs[:, 0], :, None] * units[pairs[:, 1], None, :]
        order = np.concatenate([pairs, near[:, ::-1]])
        values = np.concatenate([blocks, blocks[n:].transpose(0, 2, 1)])
        row = order[:, 0, None, None] * 4 + np.arange(4)[:, None] + np.zeros((1, 4), int)
        col = order[:, 1, None, None] * 4 + np.arange(4) + np.zeros((4, 1), int)
        main = sparse.coo_array((values.ravel(), (row.ravel(), col.ravel())), shape=(4 * n, 4 * n)).tocsr()

        grid = columns.nodes.shape
        at = [arguments[0][:, a] / (len(self.hats[a]) - 1) * (grid[a] - 1) for a in (0, 1)]
        first = np.stack([np.clip(np.rint(at[a]).astype(int) - 1, 0, grid[a] - 3) for a in (0, 1)], axis=1)
        side = _cross(weight, *self.hats, first, *arguments) * units[:, :, None, None]
        node = ((first[:, 0, None] + np.arange(3)) * grid[1])[:, :, None] + (first[:, 1, None] + np.arange(3))[:, None]
        row = np.arange(4 * n).reshape(n, 4, 1, 1) + np.zeros((3, 3), int)
        col = np.broadcast_to(node[:, None], side.shape)
        size = grid[0] * grid[1]
        cross = sparse.coo_array((side.ravel(), (row.ravel(), col.ravel())), shape=(4 * n, size)).tocsr()
        basis = sparse.kron(sparse.csr_array(self.hats[0]), sparse.csr_array(self.hats[1]), format="csr")
        return main, cross, sparse.csr_array(basis.T @ sparse.diags_array(weight.ravel()) @ basis)


def neighbor_pairs(columns: Columns, within: float) -> Index:
    """Pairs of columns nearer than `within` sigma, shape (pair, 2)."""
    scaled = columns.yx * (1.0, columns.aspect)
    pairs = cKDTree(scaled).query_pairs(within * float(np.median(columns.sigma)), output_type="ndarray")
    return np.asarray(pairs, np.int64).reshape(-1, 2)


def _tie(columns: Columns) -> sparse.csr_array:
    """Free parameters (3 per column, then one width per group) to 4 per column."""
    n, groups = len(columns.yx), int(columns.group.max()) + 1
    own = (np.arange(n)[:, None] * 4 + np.arange(3)).ravel()
    rows = np.concatenate([own, np.arange(n) * 4 + 3])
    cols = np.concatenate([np.arange(3 * n), 3 * n + columns.group])
    return sparse.coo_array((np.ones(4 * n), (rows, cols)), shape=(4 * n, 3 * n + groups)).tocsr()


def _solve(matrix: sparse.csr_array, score: Array, n: int) -> Array:
    """Solve the normal equations by conjugate gradients; the first 3n unknowns are columns.

    The preconditioner keeps the 3 x 3 block of each column, with the coupling to its neighbours
    lumped onto the diagonal, and everything shared (widths, background) exactly.
    """
    root = 1 / np.sqrt(matrix.diagonal())
    scaled = sparse.csr_array(matrix.multiply(root[:, None]).multiply(root))
    own = scaled[: 3 * n, : 3 * n].tocoo()
    same = own.row // 3 == own.col // 3
    blocks = np.zeros((n, 3, 3))
    blocks[own.row[same] // 3, own.row[same] % 3, own.col[same] % 3] = own.data[same]
    lumped = np.bincount(own.row[~same], np.abs(own.data[~same]), minlength=3 * n).reshape(n, 3)
    blocks[:, range(3), range(3)] += lumped
    inverse = sparse.bsr_array((np.linalg.inv(blocks), np.arange(n), np.arange(n + 1)), shape=(3 * n, 3 * n)).tocsr()
    side, shared = scaled[: 3 * n, 3 * n :], scaled[3 * n :, 3 * n :].toarray()
    spread = sparse.csr_array(inverse @ side)
    values, vectors = eigh(shared - (side.T @ spread).toarray())
    shared_inverse = vectors / np.maximum(values, 1e-4) @ vectors.T

    def precondition(v: Array) -> Array:
        head = inverse @ v[: 3 * n]
        tail = shared_inverse @ (v[3 * n :] - side.T @ head)
        return np.concatenate([head - spread @ tail, tail])

    operator = LinearOperator(matrix.shape, matvec=precondition, dtype=np.float64)
    solution, _ = cg(scaled, root * score, rtol=1e-3, maxiter=100, M=operator)
    return np.asarray(root * solution)


def _assemble(coarse: _Pixels, columns: Columns) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Assemble the normal matrix of all free parameters, and the untied one of the columns."""
    main, cross, nodes = coarse.information(columns)
    tie = _tie(columns)
    side = tie.T @ cross
    return sparse.csr_array(sparse.block_array([[tie.T @ main @ tie, side], [side.T, nodes]])), main


def _moved(columns: Columns, step: Array, shape: tuple[int, ...]) -> Columns:
    """Columns after a step, no parameter going further than the model can be trusted."""
    n, groups = len(columns.yx), int(columns.group.max()) + 1
    own = step[: 3 * n].reshape(n, 3)
    limit = 0.4 * columns.sigma[:, None] / (1.0, columns.aspect)
    reach = 4 * limit  # a column may lie a little outside the image
    wide = np.clip(step[3 * n : 3 * n + groups][columns.group], -0.2 * columns.sigma, 0.2 * columns.sigma)
    return replace(
        columns,
        amplitude=columns.amplitude + np.maximum(own[:, 0], -0.6 * columns.amplitude),
        yx=np.clip(columns.yx + np.clip(own[:, 1:], -limit, limit), -reach, np.subtract(shape, 1) + reach),
        sigma=columns.sigma + wide,
        nodes=columns.nodes + step[3 * n + groups :].reshape(columns.nodes.shape),
    )


def _iterate(pixels: _Pixels, coarse: _Pixels, columns: Columns, steps: int, tolerance: float) -> Columns:
    """Fisher scoring with damping: only steps that lower the deviance are taken."""
    n, damping = len(columns.yx), 1e-6
    model = pixels.model(columns)
    columns = replace(columns, deviance=pixels.deviance(model))
    tie, matrix = _tie(columns), None
    trust = np.zeros(tie.shape[1] + columns.nodes.size)
    for _ in range(steps):
        if matrix is None:
            matrix, _ = _assemble(coarse, columns)
        own, nodes = pixels.gradient(columns, model)
        range_ = np.stack([0.3 * columns.amplitude, 0.3 * columns.sigma, 0.3 * columns.sigma], axis=1)
        out = (columns.yx < -range_[:, 1:]) | (columns.yx > np.subtract(pixels.shape, 1) + range_[:, 1:])
        range_[out.any(axis=1), 1:] *= 1e-3  # only tails of these are seen: where they are stays as it was
        trust[: 3 * n] = (1 / range_**2).ravel()
        score = np.concatenate([tie.T @ own.ravel(), nodes.ravel()])
        for _ in range(6):
            step = _solve(sparse.csr_array(matrix + sparse.diags_array(damping * matrix.diagonal() + trust)), score, n)
            trial = _moved(columns, step, pixels.shape)
            trial_model = pixels.model(trial)
            deviance = pixels.deviance(trial_model)
            if deviance < columns.deviance:
                break
            damping = max(damping, 1e-3) * 10
        else:
            break
        gain = (columns.deviance - deviance) / (3 * n)  # squared step in units of its error, per parameter
        columns, model, damping = replace(trial, deviance=deviance), trial_model, damping / 10
        if gain < tolerance:
            break
        if gain > 1.0:
            matrix = None
    return columns


def local_covariance(main: sparse.csr_array, columns: Columns, size: int) -> Array:
    """Covariance of the first `size` parameters of each column, those of its neighbours being free.

    The information of a column and its nearest `_LOCAL` - 1 neighbours is inverted; what lies
    beyond them is taken as known, which changes the errors by less than a per cent.
    """
    n, count = len(columns.yx), min(_LOCAL, len(columns.yx))
    _, near = cKDTree(columns.yx * (1.0, columns.aspect)).query(
        columns.yx * (1.0, columns.aspect), k=count, distance_upper_bound=2 * _COUPLED * float(np.median(columns.sigma))
    )
    near = np.asarray(near).reshape(n, count)
    bsr = main.tobsr((4, 4))
    blocks, keys = bsr.data, np.repeat(np.arange(n), np.diff(bsr.indptr)) * (n + 1) + bsr.indices
    order = np.argsort(keys)
    keys, blocks = keys[order], blocks[order]
    result = np.full((n, size, size), np.nan)
    for start in range(0, n, 512):
        ring = near[start : start + 512]
        wanted = ring[:, :, None] * (n + 1) + ring[:, None, :]
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = (keys[place] == wanted) & (ring < n)[:, :, None]
        full = np.where(found[..., None, None], blocks[place], 0.0)[..., :size, :size]
        dense = full.transpose(0, 1, 3, 2, 4).reshape(len(ring), count * size, count * size)
        diagonal = np.einsum("nii->ni", dense)
        diagonal[diagonal <= 0] = 1.0
        scale = 1 / np.sqrt(diagonal)
        with np.errstate(all="ignore"):
            try:
                inverse = np.linalg.inv(dense * scale[:, :, None] * scale[:, None, :])
            except np.linalg.LinAlgError:
                inverse = np.linalg.pinv(dense * scale[:, :, None] * scale[:, None, :])
        result[start : start + 512] = (inverse * scale[:, :, None] * scale[:, None, :])[:, :size, :size]
    variance = np.diagonal(result, axis1=1, axis2=2)
    result[(variance <= 0).any(axis=1)] = np.nan
    return result


def fit_columns(counts: Array, start: Columns, *, steps: int = 12, polish: bool = True) -> Columns:
    """Fit all columns of an image at once.

    Parameters
    ----------
    counts : ndarray, shape (y, x)
        Image in units in which the variance equals the mean.
    start : Columns
        Where to begin: positions good to about sigma, any reasonable rest. ``group`` says which
        columns share a width; a group of one frees it.
    steps : int
        Most steps of each pass.
    polish : bool
        Whether the pass at full resolution follows the one on binned pixels.

    Returns
    -------
    Columns
        With `covariance` (4 x 4 where every column has its own width) and `deviance`.
    """
    if len(start.yx) == 0:
        return start
    counts = np.ascontiguousarray(counts, np.float64)
    width, grid = float(np.median(start.sigma)), start.nodes.shape
    coarse = _Pixels(counts, grid, binning=max(1, int(width / 1.3)), reach=4.0)
    first = _Pixels(counts, grid, binning=max(1, int(width / 2.2)))
    columns = _iterate(first, coarse, start, steps, 1e-2)
    if polish:
        columns = _iterate(_Pixels(counts, grid, reach=5.0), coarse, columns, steps, 1e-3)
    free = len(np.unique(columns.group)) == len(columns.group) > 1
    main = first.information(columns)[0]
    return replace(columns, covariance=local_covariance(main, columns, 4 if free else 3))


def cramer_rao(
    positions_nm: Array,
    amplitudes: Array,
    sigma_nm: float | Array,
    *,
    pixel_size_nm: float,
    background: float = 0.0,
    shape: tuple[int, int] | None = None,
    free_sigma: bool = False,
) -> Array:
    """Precision no unbiased fit of overlapping columns can surpass.

    Parameters
    ----------
    positions_nm : ndarray, shape (column, 2)
        Positions (y, x), pixel (0, 0) at the origin.
    amplitudes : ndarray, shape (column,)
        Peak heights in electrons per pixel, above the background.
    sigma_nm : float or ndarray
        Width (1 sigma) of the columns.
    pixel_size_nm : float
        Side of a pixel.
    background : float
        Electrons per pixel between the columns, read noise squared included.
    shape : (int, int), optional
        Image height and width in pixels; large enough to hold all columns when None.
    free_sigma : bool
        Whether every column has its own unknown width.

    Returns
    -------
    ndarray, shape (column, 3)
        1 sigma of y (nm), x (nm) and amplitude (electrons) for each column, neighbours unknown too.

    Raises
    ------
    ValueError
        If sizes do not agree or something that must be positive is not.
    """
    yx = np.asarray(positions_nm, np.float64).reshape(-1, 2) / pixel_size_nm
    n = len(yx)
    amplitude = np.broadcast_to(np.asarray(amplitudes, np.float64), (n,))
    sigma = np.broadcast_to(np.asarray(sigma_nm, np.float64) / pixel_size_nm, (n,))
    for name, values in (("amplitudes", amplitude), ("sigma_nm", sigma)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"`{name}` must be positive, got {float(np.min(values)):g}; leave empty sites out.")
    if background < 0:
        raise ValueError(f"`background` must not be negative, got {background:g}.")
    if shape is None:
        reach = 4 * float(sigma.max())
        corner = yx.min(axis=0) - reach
        yx, shape = yx - corner, tuple(int(v) for v in np.ceil(yx.max(axis=0) - corner + reach) + 1)
    group = np.arange(n) if free_sigma else np.zeros(n, np.int64)
    columns = Columns(yx, amplitude.copy(), sigma.copy(), group, np.full((3, 3), float(background)))
    fine = _Pixels(np.zeros(shape), (3, 3), binning=max(1, int(float(np.median(sigma)) / 2.2)))
    fine.floor = 1e-12
    main = fine.information(columns)[0]
    error = replace(columns, covariance=local_covariance(main, columns, 4 if free_sigma else 3)).errors
    return np.stack([error[:, 1] * pixel_size_nm, error[:, 2] * pixel_size_nm, error[:, 0]], axis=1)
