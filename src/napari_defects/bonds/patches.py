"""A piece of a frame in which all atoms are fitted together, with the host lattice as a prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.spatial import cKDTree

from .. import noise
from ..lattice.phasing import Host
from ..micrograph import Micrograph

Floats = npt.NDArray[np.float64]

REACH_NM = 0.5
"""Radius of the piece of image fitted around a foreign atom."""
INNER_NM = 0.36
"""Host atoms within this distance of a foreign one are its neighbours."""
BLOCKED_NM = 0.085
"""A site so near to a foreign atom is taken by it."""
_FINE_NM, _SLOW_NM = 0.02, 0.25  # pixels for the common fit, and the scale of what is no atom
_ROUNDED = 1 / 6  # variance, in pixels, of putting atoms on pixels and of averaging over them


@dataclass(frozen=True, eq=False)
class Scene:
    """A frame and what all of its host atoms have in common."""

    image: Floats
    variance: Floats
    pixel: Floats
    sigma_nm: float
    height: float


def make_scene(micrograph: Micrograph, lattice: Host, foreign: Floats, frame: int, near_nm: float | None) -> Scene:
    """Width and height of the host's atoms, from all of them at once; foreign ones left out."""
    image, pixel = micrograph.frame(frame).astype(float), np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    known = noise.estimate(micrograph, frame=frame)
    step = max(1, int(_FINE_NM / pixel.max()))
    size = pixel * step
    cut = image[: image.shape[0] // step * step, : image.shape[1] // step * step]
    small = cut.reshape(cut.shape[0] // step, step, -1, step).mean((1, 3))
    margin = int(np.ceil(0.3 / size.min()))
    sites = lattice.sites_within(size * small.shape, margin_nm=0.2)[1]
    sites = sites[np.linalg.norm(sites[:, None] - foreign, axis=-1).min(1) > BLOCKED_NM]
    comb = np.zeros([n + 2 * margin for n in small.shape])
    at = np.rint((sites - pixel * (step - 1) / 2) / size).astype(int) + margin
    at = at[((at >= 0) & (at < comb.shape)).all(1)]
    comb[at[:, 0], at[:, 1]] = 1 / size.prod()
    grid = np.moveaxis(np.indices(small.shape), 0, -1) * size
    far = np.linalg.norm(grid[..., None, :] - foreign, axis=-1).min(-1) > 0.4
    flat = small - gaussian_filter(small, _SLOW_NM / size)
    best = (np.inf, _FINE_NM, 1.0)
    for sigma in np.arange(0.04, 0.105, 0.005) if near_nm is None else near_nm + np.array([-0.005, 0, 0.005]):
        blur = np.sqrt(sigma**2 + _ROUNDED * size**2)
        model = gaussian_filter(comb, sigma / size) - gaussian_filter(comb, np.hypot(sigma, _SLOW_NM) / size)
        model = 2 * np.pi * blur.prod() * model[margin:-margin, margin:-margin]
        height = float((model * flat)[far].sum() / (model**2)[far].sum())
        best = min(best, (float(((flat - height * model)[far] ** 2).mean()), float(sigma), height))
    variance = known.variance(gaussian_filter(image, 0.03 / pixel))
    return Scene(image, np.asarray(variance, np.float64), pixel, best[1], best[2])


@dataclass(frozen=True, eq=False)
class PatchFit:
    """Positions, heights and 1 sigma of (y, x, height); foreign atoms first."""

    yx: Floats
    height: Floats
    error: Floats
    background: float


def fit_patch(
    scene: Scene, centers: Floats, heights: Floats, prior: Floats, loose: Floats, steps: int = 12
) -> PatchFit:
    """Maximum posterior of all atoms of a patch: Gauss-Newton, a step being kept only when it helps.

    Foreign atoms are free and have a second, twice as wide Gaussian, as their tails reach their
    neighbours; host atoms are held at their places by `loose` and to a common height.
    """
    step = max(1, round(scene.sigma_nm / 2.2 / scene.pixel.max()))
    area = np.moveaxis(np.indices(scene.image.shape), 0, -1)[step // 2 :: step, step // 2 :: step].reshape(-1, 2)
    area = area[cKDTree(centers).query(area * scene.pixel)[0] < REACH_NM]
    blurred = uniform_filter(scene.image, step)
    data, weight = blurred[tuple(area.T)], 1 / (scene.variance[tuple(area.T)] / step**2)
    place = (area - 0.5 * (step % 2 == 0)) * scene.pixel  # the middle of an even window
    middle = place - place.mean(0)
    n, m = len(centers), len(prior)
    base = np.column_stack([np.ones(len(place)), middle])
    near = np.linalg.norm(prior[:, None] - centers, axis=-1).min(1) < INNER_NM
    start = np.concatenate([centers.ravel(), prior.ravel()])
    mean = np.concatenate([start, heights, np.full(m, scene.height), np.zeros(n), [0.0, np.median(data)], np.zeros(2)])
    spread = np.concatenate([
        np.full(2 * n, 0.05), np.repeat(loose, 2), np.full(n, 3 * heights.max()),
        np.where(near, 1.0, 0.15) * scene.height, np.full(n, 0.3 * heights.max()), [0.03],
        np.full(3, 1e3 * np.ptp(data)),
    ])  # fmt: skip
    width = np.hypot(scene.sigma_nm, step * scene.pixel.mean() / 12**0.5)
    shape = np.repeat([width, 2 * width], [n + m, n])
    owner = np.concatenate([np.arange(n + m), np.arange(n)])

    def model(p: Floats) -> tuple[Floats, Floats]:
        yx, tall, wide = p[: 2 * (n + m)].reshape(-1, 2), p[2 * (n + m) : -4], shape * np.exp(p[-4])
        offset = place[:, None] - yx[owner]
        far = (offset**2).sum(-1) / wide**2
        bump = np.exp(-0.5 * far)
        pull = offset * (bump * tall / wide**2)[..., None]
        pull[:, :n] += pull[:, n + m :]
        widen = (far * bump) @ tall
        jacobian = np.concatenate([pull[:, : n + m].reshape(len(place), -1), bump, widen[:, None], base], axis=1)
        return bump @ tall + base @ p[-3:], jacobian

    def cost(p: Floats, value: Floats) -> float:
        return float((weight * (data - value) ** 2).sum() + (((p - mean) / spread) ** 2).sum())

    p, damping = mean.copy(), 1e-2
    value, jacobian = model(p)
    now = cost(p, value)
    for _ in range(steps):
        normal = (jacobian * weight[:, None]).T @ jacobian + np.diag(1 / spread**2)
        force = (jacobian * weight[:, None]).T @ (data - value) - (p - mean) / spread**2
        trial = p + np.linalg.solve(normal + damping * np.diag(normal.diagonal()), force)
        tried, slopes = model(trial)
        then = cost(trial, tried)
        if then < now:
            done = now - then < 0.01
            p, value, jacobian, now, damping = trial, tried, slopes, then, damping / 5
            if done:
                break
        else:
            damping *= 10
    excess = max(1.0, float((weight * (data - value) ** 2).mean()))  # what the model does not know
    normal = (jacobian * weight[:, None]).T @ jacobian / excess + np.diag(1 / spread**2)
    error = np.sqrt(np.linalg.inv(normal).diagonal())
    yx, tall = p[: 2 * (n + m)].reshape(-1, 2), p[2 * (n + m) : 3 * (n + m)]
    errors = np.column_stack([error[: 2 * (n + m)].reshape(-1, 2), error[2 * (n + m) : 3 * (n + m)]])
    return PatchFit(yx, tall, errors, float(p[-3]))
