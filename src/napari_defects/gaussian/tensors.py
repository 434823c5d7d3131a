"""What `windows`, `kernels` and `solvers` do in loops over columns, for all columns at once, by torch on any device.

Single precision, which every device has; sums over an image are finished in double precision. What would not fit into
memory for all columns goes in portions of them. Derivatives come in the order (amplitude, y, x, sigma).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from napari_defects.gaussian.columns import Columns, Profile
from napari_defects.gaussian.solvers import UNKNOWN

_MOST = 2**25  # numbers in a portion


class Tables(NamedTuple):
    """First row and line under each column, (column,); functions of y and of x, (column, row or line, term, 3)."""

    y: Tensor
    fy: Tensor
    x: Tensor
    fx: Tensor

    @property
    def rows(self) -> Tensor:
        """Rows under each column, (column, row)."""
        return self.y[:, None] + torch.arange(self.fy.shape[1], device=self.y.device)

    @property
    def lines(self) -> Tensor:
        """The same along x."""
        return self.x[:, None] + torch.arange(self.fx.shape[1], device=self.x.device)

    def part(self, some: slice) -> Tables:
        """Tables of some columns."""
        return Tables(*(values[some] for values in self))

    def under(self, image: Tensor) -> Tensor:
        """Pixels under each column, (column, row, line)."""
        return image[self.rows[:, :, None], self.lines[:, None, :]]

    def drawn(self, down: int, right: int) -> Tensor:
        """Products of functions of y and of x, (column, row, line)."""
        return self.fy[..., down] @ self.fx[..., right].mT

    def derivatives(self, size: int) -> Tensor:
        """Draw the derivatives of each column per unit of amplitude, (column, size, row, line)."""
        first = [self.drawn(0, 0), self.drawn(1, 0), self.drawn(0, 1)]
        return torch.stack(first + [self.drawn(2, 0) + self.drawn(0, 2)] * (size == 4), dim=1)


def portions(n: int, each: int) -> Iterator[slice]:
    """Cut n columns into portions, `each` numbers being needed for one."""
    size = max(1, _MOST // max(each, 1))
    return (slice(k, min(k + size, n)) for k in range(0, n, size))


def tabulate(
    columns: Columns, shape: tuple[int, ...], binning: int, pitch: int, reach: float, to: torch.device
) -> Tables:
    """Tabulate columns out to `reach` sigma on binned pixels, one every `pitch` pixels (`windows.tabulate`)."""
    made: list[Tensor] = []
    for axis, scale in enumerate((1.0, columns.aspect)):
        n, center, sigma = shape[axis], columns.yx[:, axis], columns.sigma / scale
        width = min(int(2 * reach * float(sigma.max()) / pitch) + 1, n)
        middle = center - (binning - 1) / 2
        low = np.maximum(0, np.ceil((middle - reach * sigma) / pitch))
        high = np.minimum(n - 1, np.floor((middle + reach * sigma) / pitch))
        start = np.maximum(0, np.minimum(low, n - width))  # on the host, in double precision
        numbers = np.stack([start * pitch - center, sigma, low - start, high - start])
        offset, wide, first, last = torch.as_tensor(numbers[..., None], dtype=torch.float32).to(to)
        place = torch.arange(width, device=to)
        inside = ((place >= first) & (place <= last))[..., None, None]
        parts = [_values((offset + place * pitch + s) / wide, columns.profile, axis) for s in range(binning)]
        unit = torch.stack([torch.ones_like(wide), 1 / wide, 1 / (wide * scale)], dim=-1)[:, :, None] / binning
        made += [
            torch.as_tensor(start.astype(np.int64)).to(to),
            torch.where(inside, sum(parts[1:], parts[0]) * unit, 0.0),
        ]
    return Tables(*made)


def _values(t: Tensor, profile: Profile, axis: int) -> Tensor:
    """Functions of y or of x at distances t, and minus their derivatives by t, once and times t, (*t, term, 3)."""
    if profile.terms.shape[1] == 0:
        bell = torch.exp(-0.5 * t * t)
        return torch.stack([bell, bell * t, bell * t * t], dim=-1)[..., None, :]
    terms = torch.as_tensor(profile.terms[axis].T, dtype=torch.float32).to(t.device)  # Catmull-Rom between the samples
    half = (len(terms) - 1) / 2
    place = (t / profile.step + half).clamp(1.0, 2 * half - 2)
    m = place.long()
    u = (place - m)[..., None]
    p0, p1, p2, p3 = (terms[m + k] for k in (-1, 0, 1, 2))
    c1, c2, c3 = p2 - p0, 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * (p1 - p2) + p3 - p0
    slope = -0.5 * (c1 + u * (2 * c2 + 3 * u * c3)) / profile.step
    return torch.stack([p1 + 0.5 * u * (c1 + u * (c2 + u * c3)), slope, slope * t[..., None]], dim=-1)


def render(image: Tensor, tables: Tables, height: Tensor, *, down: int = 0, right: int = 0) -> None:
    """Add the columns to `image`, or products of other functions of y and of x of them."""
    for some in portions(len(height), 3 * tables.fy.shape[1] * tables.fx.shape[1]):
        w = tables.part(some)
        values = (w.fy[..., down] * height[some, None, None]) @ w.fx[..., right].mT
        index = w.rows[:, :, None] * image.shape[1] + w.lines[:, None, :]
        image.view(-1).index_add_(0, index.reshape(-1), values.reshape(-1))


def misfit(counts: Tensor, model: Tensor, floor: float) -> tuple[float, Tensor]:
    """Poisson deviance, and the pull of each pixel, counts / model - 1; no small differences of large numbers."""
    k, m = counts.clamp(min=floor), model.clamp(min=floor)
    z = (k - m) / (k + m)
    log = torch.atanh(z.clamp(-1 + 1e-7, 1 - 1e-7))  # half the logarithm of k / m
    term = z * (k - m) + 2 * k * (log - z) + (k - counts) * (1 - 2 * log)
    return 2 * float(term.sum(dim=1).cpu().double().sum()), counts / m - 1


def project(image: Tensor, tables: Tables, amplitude: Tensor) -> Tensor:
    """Sum of `image` times each column's derivatives, (column, 4)."""
    n, made = len(amplitude), []
    for some in portions(n, 2 * tables.fy.shape[1] * tables.fx.shape[1]):
        w = tables.part(some)
        lines = w.under(image) @ w.fx.flatten(2)  # (column, row, term and function)
        made.append(_four(w.fy.flatten(1, 2).mT @ lines.reshape(len(w.y), -1, 3), 4))
    return torch.cat(made) * _unit(amplitude, 4)


def products(weight: Tensor, tables: Tables, amplitude: Tensor, other: Tensor, size: int) -> Tensor:
    """Weighted products of the derivatives of each column and of its neighbours, (column, neighbour, size, size).

    `other`, (column, neighbour), is -1 where there is none: products are 0.
    """
    (high, rank), wide, made = tables.fy.shape[1:3], tables.fx.shape[1], []
    near, unit, k = other.clamp(min=0), _unit(amplitude, size), other.shape[1]
    beyond = tables._replace(fy=pad(tables.fy, (0, 0, 0, 0, 0, 1)), fx=pad(tables.fx, (0, 0, 0, 0, 0, 1)))
    for some in portions(len(other), 3 * size * high * wide + 6 * k * rank * (high + wide + size * high)):
        w, j = tables.part(some), near[some]
        heavy = w.derivatives(size) * w.under(weight)[:, None]
        fy = _shifted(beyond.fy, w.rows[:, None, :] - tables.y[j][..., None], j)
        fx = _shifted(beyond.fx, w.lines[:, None, :] - tables.x[j][..., None], j)
        lines = heavy.flatten(1, 2) @ fx.transpose(1, 2).flatten(2)  # (column, size and row, neighbour, term, function)
        lines = lines.reshape(len(j), size, high, k, rank, 3).permute(0, 3, 2, 4, 1, 5)
        both = fy.flatten(2, 3).mT @ lines.reshape(len(j), k, high * rank, size * 3)
        block = _four(both.reshape(len(j), k, 3, size, 3).transpose(2, 3), size)
        made.append(block * unit[some][:, None, :, None] * unit[j][:, :, None, :] * (other[some] >= 0)[..., None, None])
    return torch.cat(made)


def _shifted(table: Tensor, place: Tensor, j: Tensor) -> Tensor:
    """Functions of columns j at places of their windows, 0 beyond; the last place of `table` is such a 0."""
    last = table.shape[1] - 1
    return table[j[..., None], torch.where((place >= 0) & (place < last), place, last)]


def overlaps(
    weight: Tensor, hat_y: Tensor, hat_x: Tensor, node: Tensor, tables: Tables, amplitude: Tensor, size: int
) -> Tensor:
    """Weighted products of each column's derivatives with 3 x 3 background nodes, (column, size, 3, 3)."""
    three, made = torch.arange(3, device=node.device), []
    for some in portions(len(node), 3 * size * tables.fy.shape[1] * tables.fx.shape[1]):
        w, at = tables.part(some), node[some, :, None] + three
        heavy = w.derivatives(size) * w.under(weight)[:, None]
        down = hat_y[at[:, 0, :, None], w.rows[:, None, :]]
        right = hat_x[at[:, 1, :, None], w.lines[:, None, :]]
        made.append(down[:, None] @ (heavy @ right[:, None].mT))
    return torch.cat(made) * _unit(amplitude, size)[..., None, None]


def _four(both: Tensor, size: int) -> Tensor:
    """Gather sums by derivative, (..., size), from those by function of y and of x, (..., 3, 3)."""
    first = [both[..., 0, 0], both[..., 1, 0], both[..., 0, 1]]
    return torch.stack(first + [both[..., 2, 0] + both[..., 0, 2]] * (size == 4), dim=-1)


def _unit(amplitude: Tensor, size: int) -> Tensor:
    """Return what multiplies derivatives per unit of amplitude, (column, size)."""
    return torch.stack([torch.ones_like(amplitude)] + [amplitude] * (size - 1), dim=1)


def inverted(matrix: Tensor) -> Tensor:
    """Inverses of small positive matrices, (..., size, size), by Gauss and Jordan; no pivot stops it."""
    m = matrix.clone()
    for c in range(m.shape[-1]):
        pivot = 1 / m[..., c, c].clamp(min=1e-30)
        column = m[..., :, c].clone()
        column[..., c] = 0.0
        m[..., :, c] = 0.0
        m[..., c, c] = 1.0
        m[..., c, :] *= pivot[..., None]
        m -= column[..., :, None] * m[..., c, None, :]
    return m


def covariances(blocks: Tensor, other: Tensor, rings: Tensor) -> Tensor:
    """Covariance of each column with those around it, (column, size, size); NaN where undetermined.

    `blocks` (column, neighbour, size, size) are of the neighbours `other`; `rings`, (column, n), has the columns whose
    joint information counts, the column itself last; both are -1 where there is none (`solvers.covariances`).
    """
    (size, ring), made = (blocks.shape[-1], rings.shape[1]), []
    n, exact = ring * size, torch.float32 if blocks.device.type == "mps" else torch.float64
    for some in portions(len(rings), 6 * n * n + 2 * ring * ring * other.shape[1]):
        around = rings[some]
        row = around.clamp(min=0)
        hit = (other[row][:, :, None, :] == around[:, None, :, None]) & (around >= 0)[:, :, None, None]
        hit &= (around >= 0)[:, None, :, None]
        at = hit.to(torch.int32).argmax(dim=-1)
        m = blocks[row[:, :, None], at] * hit.any(dim=-1)[..., None, None]
        m = m.transpose(2, 3).reshape(-1, n, n).to(exact)
        m = (m + m.mT) / 2
        least, known = UNKNOWN * m.diagonal(dim1=1, dim2=2), torch.ones(len(m), dtype=torch.bool, device=m.device)
        for c in range(n):
            if c == n - size:
                result = inverted(m[:, c:, c:])
            pivot, column = m[:, c, c].clone(), m[:, c + 1 :, c]
            if c >= n - size:
                known &= pivot > least[:, c]
            share = torch.where(pivot > least[:, c], 1 / pivot, 0.0)  # what is not known of a neighbour stays as it is
            m[:, c + 1 :, c + 1 :] -= (column * share[:, None])[:, :, None] * column[:, None, :]
        made.append(torch.where(known[:, None, None], result, torch.nan))
    return torch.cat(made)
