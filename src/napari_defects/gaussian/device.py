"""Pixels and normal equations on a device that torch computes on, so that a fit runs there.

Image, tables and information stay on the device; columns, vectors of them and scalars go to and fro.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from napari_defects.gaussian import tensors
from napari_defects.gaussian.columns import Columns, hat
from napari_defects.gaussian.equations import MOST, NormalEquations
from napari_defects.gaussian.neighbors import Neighbors
from napari_defects.gaussian.pixels import Pixels
from napari_defects.gaussian.shared import Shared
from napari_defects.gaussian.windows import Array, Index


class DevicePixels(Pixels):
    """`Pixels` on a device; images, and information about columns, are tensors there.

    Parameters
    ----------
    counts : ndarray, shape (y, x)
    grid : (int, int)
    binning : int
    reach : float, optional
        All as for `Pixels`.
    device : torch.device or str
    """

    counts: Any
    hats: Any

    def __init__(
        self, counts: Array, grid: tuple[int, ...], *, binning: int = 1, reach: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.device = torch.device(device)
        self.counts = avg_pool2d(self._sent(counts)[None, None], binning)[0, 0]
        self.shape, self.binning, self.reach = counts.shape, binning, reach
        self.hats = [self._sent(hat(n, g, binning).T) for n, g in zip(counts.shape, grid, strict=True)]
        self.floor = max(1e-3 * float(self.counts.abs().mean()), 1e-12)
        self._drawn = self._seen = None

    def _sent(self, values: npt.ArrayLike) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32)).to(self.device)

    def windows(self, columns: Columns) -> Any:
        """Tables of all columns on these pixels; kept until other columns come."""
        return super().windows(columns)

    def model(self, columns: Columns) -> Any:
        """Model on these pixels; kept until other columns come."""
        return super().model(columns)

    def _tables(self, columns: Columns) -> Any:
        return self._tabulated(columns, self.counts.shape, self.binning)

    def _tabulated(self, columns: Columns, shape: tuple[int, ...], pitch: int) -> tensors.Tables:
        reach = min(self.reach or np.inf, columns.profile.reach)
        return tensors.tabulate(columns, shape, self.binning, pitch, reach, self.device)

    def _image(self, columns: Columns) -> Any:
        image = (self.hats[0].T @ self._sent(columns.nodes) @ self.hats[1]).contiguous()
        tensors.render(image, self.windows(columns), self._sent(columns.amplitude))
        return image

    def compare(self, columns: Columns) -> tuple[float, Any]:
        """Deviance, and the image of counts / model - 1."""
        deviance, pull = tensors.misfit(self.counts, self.model(columns), self.floor)
        return self.binning**2 * deviance, pull

    def score(self, columns: Columns, pull: Any) -> tuple[Array, Array]:
        """Slope of the likelihood by column, shape (column, 4), and by node."""
        area = self.binning**2
        own = tensors.project(pull, self.windows(columns), self._sent(columns.amplitude))
        return area * fetched(own), area * fetched(self._gathered(pull))

    def _gathered(self, image: Any) -> Any:
        return self.hats[0] @ image @ self.hats[1].T

    def worse(self, before: Columns, after: Columns) -> npt.NDArray[np.bool_]:
        """Columns under which the deviance is larger after a step than before it."""
        new, old = (self.model(c).clamp(min=self.floor) for c in (after, before))
        change = new - old - self.counts * torch.log(new / old)
        under = tensors.project(change, self.windows(before), self._sent(before.amplitude))
        return np.asarray(fetched(under[:, 0]) > 0)

    def weight(self, columns: Columns) -> Any:
        """Information of each pixel: 1 / variance."""
        return self.binning**2 / self.model(columns).clamp(min=self.floor)

    def others(self, near: Neighbors) -> Tensor:
        """Neighbours of each column, itself first, shape (column, neighbour); -1 where there are no more."""
        count = np.diff(near.pointer)
        place = np.arange(int(count.max())) < count[:, None]
        other = np.full(place.shape, -1)
        other[place] = near.other
        return torch.as_tensor(other).to(self.device)

    def blocks(self, columns: Columns, near: Neighbors, weight: Any) -> Any:
        """Fisher information of columns that overlap, shape (column, neighbour, 3 or 4, 3 or 4), as `others` are."""
        size, amplitude = 4 if columns.free_sigma else 3, self._sent(columns.amplitude)
        return tensors.products(weight, self.windows(columns), amplitude, self.others(near), size)

    def sparse_blocks(self, columns: Columns, near: Neighbors) -> Any:
        """`blocks` from as few of the pixels as such smooth functions need, each for those around it."""
        size, skip = 4 if columns.free_sigma else 3, self.skip(columns)
        down, right = (self._sent(share) for share in self.shares(skip))
        weight = self.weight(columns)[::skip, ::skip] * down[:, None] * right
        drawn = self._tabulated(columns, weight.shape, skip * self.binning)
        return tensors.products(weight, drawn, self._sent(columns.amplitude), self.others(near), size)

    def covariances(self, columns: Columns, near: Neighbors, rings: Index) -> Array:
        """Covariance of each column with those of its ring, shape (column, 3 or 4, 3 or 4)."""
        blocks, beyond = self.sparse_blocks(columns, near), torch.as_tensor(columns.outside(self.shape))
        own, high = blocks[:, 0], beyond.to(self.device)
        for c in (1, 2):
            own[:, c, c] = torch.where(high, 1e6, own[:, c, c])
        return fetched(tensors.covariances(blocks, self.others(near), torch.as_tensor(rings).to(self.device)))

    def background_blocks(self, columns: Columns, weight: Any) -> tuple[Any, Index, Array]:
        """Fisher information of columns with nodes (column, 3 or 4, 9), those nodes (column, 9), and of nodes."""
        size, (first, node) = 4 if columns.free_sigma else 3, self.around(columns)
        at, amplitude = torch.as_tensor(first).to(self.device), self._sent(columns.amplitude)
        side = tensors.overlaps(weight, self.hats[0], self.hats[1], at, self.windows(columns), amplitude, size)
        return side.flatten(2), node, self._nodes(weight)

    def width_blocks(self, columns: Columns, weight: Any, groups: int) -> tuple[Any, Array, Array]:
        """Fisher information of columns with widths of groups (column, 4, group), of widths, and of them with nodes."""
        drawn, amplitude = self.windows(columns), self._sent(columns.amplitude)
        images = torch.zeros((groups, *self.counts.shape), device=self.device)
        for group, image in enumerate(images):
            height = self._sent(np.where(columns.group == group, columns.amplitude, 0.0))
            tensors.render(image, drawn, height, down=2)
            tensors.render(image, drawn, height, right=2)
        heavy = images * weight
        own = [tensors.project(image, drawn, amplitude) for image in heavy]
        lines = torch.einsum("ayx,byx->yab", heavy, images)
        nodes = len(self.hats[0]) * len(self.hats[1])
        return (
            torch.stack(own, dim=2) if own else torch.zeros((len(columns.yx), 4, 0), device=self.device),
            fetched(lines).sum(axis=0),
            fetched(self._gathered(heavy)).reshape(groups, nodes),
        )

    def _nodes(self, weight: Any) -> Array:
        """Fisher information of the nodes, each with itself and those after it in a row, (offset, node)."""
        down, right = self.hats
        ny, nx = len(down), len(right)
        band = np.zeros((nx + 2, ny, nx))
        for dx in (0, 1):
            half = weight @ (right[: nx - dx] * right[dx:]).T
            for dy in (0, 1):
                value = fetched((down[: ny - dy] * down[dy:]) @ half)
                band[dy * nx + dx, : ny - dy, : nx - dx] = value
                if dy:
                    band[nx - dx, : ny - 1, dx:] = value
        return band.reshape(nx + 2, ny * nx)


class DeviceEquations(NormalEquations):
    """`NormalEquations` solved on the device of the pixels they come from."""

    side: Any

    def _lay(self, pixels: Pixels, columns: Columns, near: Neighbors) -> Array:
        assert isinstance(pixels, DevicePixels)
        weight, size = pixels.weight(columns), self.size
        blocks = pixels.blocks(columns, near, weight)
        (n, k), self.device = blocks.shape[:2], pixels.device
        self.near_ones = pixels.others(near).clamp(min=0)
        self.rows = blocks.transpose(1, 2).reshape(n, size, k * size)  # one product of a matrix and a vector a column
        self.own = blocks[:, 0].clone()
        self.side, node, band = pixels.background_blocks(columns, weight)
        self.node = torch.as_tensor(node).to(self.device)
        wide, widths, joint = pixels.width_blocks(columns, weight, self.groups)
        self.wide = wide[:, :size].reshape(n * size, self.groups)
        self.shared = Shared(widths, joint, band)
        self.widths, self.joint, self.root = (self._sent(v) for v in (widths, joint, self.shared.root))
        self.grid = ny, nx = len(pixels.hats[0]), len(pixels.hats[1])
        steps = [d for d in self.shared.used.tolist() if d]
        at = np.arange(ny * nx)[:, None] + np.array([0, *steps, *(-d for d in steps)])
        upper = np.stack([band[d] for d in (0, *steps)], axis=1)
        lower = [np.concatenate([np.zeros(d), band[d, :-d]])[:, None] for d in steps]
        self.stencil = self._sent(np.concatenate([upper, *lower], axis=1))
        self.around = torch.as_tensor(np.clip(at, 0, ny * nx - 1)).to(self.device)
        self.waves = [_waves(h) for h in pixels.hats]
        return fetched(self.own.diagonal(dim1=1, dim2=2))

    def _sent(self, values: npt.ArrayLike) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32)).to(self.device)

    def _parts(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.extra.numel()
        return v[:first], v[first : first + self.groups], v[first + self.groups :]

    def _multiply(self, v: Tensor) -> Tensor:
        """Information times a vector of all unknowns."""
        (n, size), (own, widths, nodes) = self.extra.shape, self._parts(v)
        each = own.view(n, size, 1)
        out = self.rows @ each[self.near_ones].flatten(1)[..., None] + self.extra[..., None] * each
        out += self.side @ nodes[self.node][..., None] + (self.wide @ widths).view(n, size, 1)
        wider = self.wide.T @ own + self.widths @ widths + self.joint @ nodes
        base = (self.stencil * nodes[self.around]).sum(dim=1) + self.joint.T @ widths
        base.index_add_(0, self.node.flatten(), (each.mT @ self.side).flatten())
        return torch.cat([out.flatten(), wider, base])

    def _alone(self, v: Tensor) -> Tensor:
        """Solve for every column by itself, nearly for the nodes, as if all under them were even, and for widths."""
        (n, size), (own, widths, nodes) = self.extra.shape, self._parts(v)
        (down, _), (right, _) = self.waves
        flat = down.T @ (self.root * nodes).view(self.grid) @ right
        base = self.root * (down @ (flat / self.strength) @ right.T).flatten()
        wider = self.corner @ (widths - self.reach.T @ nodes)
        return torch.cat([(self.inverse @ own.view(n, size, 1)).flatten(), wider, base - self.reach @ wider])

    def solve(self, score: Array, damping: Array, trust: Array) -> Array:
        """Solve for a step; `damping`, per column and relative, and `trust`, (column, 3 or 4), add to the diagonal."""
        self.extra = self._sent(trust + damping[:, None] * self.stiffness)
        self.inverse = tensors.inverted(self.own + torch.diag_embed(self.extra))
        least = float(damping.min())
        common = self.shared.common(least)
        self.reach, self.corner = self._sent(common.reach), self._sent(common.corner)
        self.strength = self.waves[0][1][:, None] * self.waves[1][1] + least
        right = self._sent(score)
        return fetched(self._conjugate(right))

    def _conjugate(self, right: Tensor) -> Tensor:
        """Conjugate gradients, to a relative tolerance in the norm of the preconditioner, which `_alone` is."""
        solution, residual = torch.zeros_like(right), right.clone()
        direction = turned = self._alone(residual)
        energy = torch.dot(residual, turned)
        goal = self.exact**2 * float(energy)
        for _ in range(MOST):
            if not float(energy) > goal:
                break
            product = self._multiply(direction)
            curvature = torch.dot(direction, product)
            length = torch.where(curvature > 0, energy / curvature, 0.0)
            solution += length * direction
            residual -= length * product
            turned = self._alone(residual)
            before, energy = energy, torch.dot(residual, turned)
            direction = turned + energy / before * direction
        return solution


def _waves(hats: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors, (node, wave), and strengths, (wave,), of how functions between nodes overlap with their neighbours."""
    both = fetched(hats @ hats.T)
    strength, vectors = np.linalg.eigh(both / np.sqrt(np.outer(np.diag(both), np.diag(both))))
    down, up = (torch.as_tensor(v.astype(np.float32)).to(hats.device) for v in (vectors, strength))
    return down, up


def fetched(values: Tensor) -> Array:
    """Bring values to the host, in double precision."""
    return np.asarray(values.cpu().double().numpy())
