"""A piece of a frame in which all atoms are fitted together, with the host lattice as a prior."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn, fftfreq, idctn, irfft2, next_fast_len, rfft2, rfftfreq
from scipy.ndimage import gaussian_filter, uniform_filter

from .. import noise
from ..lattice.phasing import Host
from ..micrograph import Micrograph
from .kernels import normal_equations

Floats = npt.NDArray[np.float64]

REACH_NM = 0.5
"""Radius of the piece of image fitted around a foreign atom."""
INNER_NM = 0.36
"""Host atoms within this distance of a foreign one are its neighbours."""
BLOCKED_NM = 0.085
"""A site so near to a foreign atom is taken by it."""
_FINE_NM, _SLOW_NM = 0.02, 0.25  # pixels for the common fit, and the scale of what is no atom
_NARROW_NM, _USUAL_NM, _WIDE_NM, _STEP_NM = 0.035, 0.06, 0.105, 0.005  # width of an atom
_FAR_NM = 0.4  # from foreign atoms; nearer, their tails are seen
_LEAST_VARIANCE = 1e-2  # of the mean one: a black pixel of a film is not exact
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
    """Width and height of the host's atoms, from all of them at once; foreign ones left out.

    `near_nm` is about their width, where that is known.
    """
    image, pixel = micrograph.frame(frame).astype(float), np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    known = noise.estimate(micrograph, frame=frame)
    variance = known.variance(gaussian_filter(image, 0.03 / pixel))
    variance = np.maximum(variance, _LEAST_VARIANCE * np.mean(variance))
    step = max(1, int(_FINE_NM / pixel.max()))
    cut = image[: image.shape[0] // step * step, : image.shape[1] // step * step]
    small = cut.reshape(cut.shape[0] // step, step, -1, step).mean((1, 3))
    extent = pixel * step * small.shape
    sites = lattice.sites_within(extent, margin_nm=0.2)[1]
    sites = sites[np.linalg.norm(sites[:, None] - foreign, axis=-1).min(1) > BLOCKED_NM]
    far = np.ones(small.shape, bool)
    y, x = (pixel[a] * step * np.arange(n) for a, n in enumerate(small.shape))
    for place in foreign:
        far &= np.hypot(y[:, None] - place[0], x - place[1]) > _FAR_NM
    sigma, height = _common_shape(small, pixel * step, sites - pixel * (step - 1) / 2, far, near_nm or _USUAL_NM)
    return Scene(image, np.asarray(variance, np.float64), pixel, sigma, height)


def _common_shape(
    image: Floats, pixel: Floats, sites: Floats, used: npt.NDArray[np.bool_], near_nm: float
) -> tuple[float, float]:
    """Which width (nm), and what height, of equal atoms on all sites comes nearest to an image without slow changes."""
    margin = int(np.ceil(0.3 / pixel.min()))
    shape = [next_fast_len(n + 2 * margin, real=True) for n in image.shape]
    at = np.rint(sites / pixel).astype(int) + margin
    at = at[((at >= 0) & (at < np.array(image.shape) + 2 * margin)).all(1)]
    comb = np.zeros(shape)
    comb[at[:, 0], at[:, 1]] = 2 * np.pi
    spectrum = rfft2(comb)
    waves = [2 * np.pi * np.asarray(f) for f in (fftfreq(shape[0]), rfftfreq(shape[1]))]
    flat = image - idctn(
        dctn(image) * _passed([np.pi * np.arange(n) / n for n in image.shape], _SLOW_NM / pixel)
    )  # as an image mirrored at its borders
    sharp = 1 - _passed(waves, _SLOW_NM / pixel)

    @cache
    def misfit(step: int) -> tuple[float, float]:
        blur = np.sqrt((step * _STEP_NM / pixel) ** 2 + _ROUNDED)
        model = blur.prod() * irfft2(spectrum * _passed(waves, blur) * sharp, shape)
        model = model[margin : margin + image.shape[0], margin : margin + image.shape[1]]
        height = float((model * flat)[used].sum() / (model**2)[used].sum())
        return float(((flat - height * model)[used] ** 2).mean()), height

    step = round(near_nm / _STEP_NM)
    while (better := min((step - 1, step, step + 1), key=misfit)) != step and _NARROW_NM < better * _STEP_NM < _WIDE_NM:
        step = better
    return step * _STEP_NM, misfit(step)[1]


def _passed(waves: list[Floats], sigma_px: Floats) -> Floats:
    """Share of every wave that a Gaussian blur lets pass."""
    return np.asarray(np.multiply.outer(*(np.exp(-0.5 * (w * s) ** 2) for w, s in zip(waves, sigma_px, strict=True))))


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
    area = area[np.linalg.norm((area * scene.pixel)[:, None] - centers, axis=-1).min(1) < REACH_NM]
    blurred = uniform_filter(scene.image, step)
    data, weight = blurred[tuple(area.T)], 1 / (scene.variance[tuple(area.T)] / step**2)
    place = (area - 0.5 * (step % 2 == 0)) * scene.pixel  # the middle of an even window
    n, m = len(centers), len(prior)
    plane = np.column_stack([np.ones(len(place)), place - place.mean(0)])
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

    def equations(p: Floats) -> tuple[float, Floats, Floats, float]:
        """Return what is to be least, J^T W J and J^T W (data - model) with the prior, and chi squared."""
        normal, force = np.empty((len(p), len(p))), np.empty(len(p))
        yx, wide = p[: 2 * (n + m)].reshape(-1, 2), shape * np.exp(p[-4])
        chi2 = normal_equations(place, data, weight, plane, yx, p[2 * (n + m) : -4], wide, owner, p[-3:], normal, force)
        return chi2 + float((((p - mean) / spread) ** 2).sum()), normal, force - (p - mean) / spread**2, chi2

    p, damping = mean.copy(), 1e-2
    now, normal, force, chi2 = equations(p)
    for _ in range(steps):
        held = normal + np.diag(1 / spread**2)
        trial = p + np.linalg.solve(held + damping * np.diag(held.diagonal()), force)
        tried = equations(trial)
        if tried[0] < now:
            done = now - tried[0] < 0.01
            p, (now, normal, force, chi2), damping = trial, tried, damping / 5
            if done:
                break
        else:
            damping *= 10
    excess = max(1.0, chi2 / len(place))  # what the model does not know
    error = np.sqrt(np.linalg.inv(normal / excess + np.diag(1 / spread**2)).diagonal())
    yx, tall = p[: 2 * (n + m)].reshape(-1, 2), p[2 * (n + m) : 3 * (n + m)]
    errors = np.column_stack([error[: 2 * (n + m)].reshape(-1, 2), error[2 * (n + m) : 3 * (n + m)]])
    return PatchFit(yx, tall, errors, float(p[-3]))
