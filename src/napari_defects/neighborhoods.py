"""The atoms around a foreign one, where the dose is too low to see each of them alone.

The host lattice says where atoms should be, their common brightness says how bright, and a bright
foreign atom hides its neighbours in its tails. So around every foreign atom all of them are fitted
together, with the lattice as a prior: each host atom then is there, or is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter, map_coordinates, uniform_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.special import expit

from . import noise
from .chemistry import VACANCY, BondRules, assign_elements, bond_rules
from .crystals import Crystal, get_crystal
from .micrograph import Micrograph, Progress
from .phasing import Field, Host, find_host, refine_host
from .tables import Atoms, positions_nm

Floats = npt.NDArray[np.float64]

REACH_NM = 0.5
"""Radius of the piece of image fitted around a foreign atom."""
_INNER_NM = 0.36  # atoms within are replaced
_BLOCKED_NM = 0.085  # a site so near to a foreign atom is taken by it
_APART_NM = 0.165  # a neighbour begins no nearer than this,
_SQUEEZED_NM = 0.125  # and is not there when that puts it so near to another foreign atom
_LOOSE_NM, _FIRM_NM = 0.03, 0.012  # prior scatter of neighbours, and of the atoms behind them
_FINE_NM, _SLOW_NM = 0.02, 0.25  # pixels for the common fit, and the scale of what is no atom
_ROUNDED = 1 / 6  # variance, in pixels, of putting atoms on pixels and of averaging over them
_SCALES = (0.88, 1.14)  # of the lattice in a calibrated image
_SURELY_ABSENT = -6.0
_MOVED_NM = 0.05
_ABSENT, _TAKEN = -2.2, 0.0  # log odds to be kept: of a site beside a foreign atom, of one that has to move for it


def resolve(
    micrograph: Micrograph,
    atoms: pd.DataFrame,
    *,
    crystal: str | Crystal = "graphene",
    rules: BondRules | None = None,
    progress: Progress | None = None,
) -> Atoms:
    """Fit the neighbourhood of every foreign atom, with the host lattice as a prior.

    Parameters
    ----------
    micrograph : Micrograph
    atoms : DataFrame
        ATOMS, with `element` or with brightness to tell it by.
    crystal : str or Crystal
        A host of single atoms.
    rules : BondRules, optional
    progress : callable, optional
        ``progress(done, total)`` over frames.

    Returns
    -------
    Atoms
        With `element` and `element_probability`; the host atoms within 0.36 nm of a foreign one
        are those of the joint fit. Frames without a lattice are left as they are.
    """
    crystal = get_crystal(crystal)
    rules = rules or bond_rules(crystal)
    table = atoms if "element" in atoms else assign_elements(atoms, rules)
    parts: list[pd.DataFrame] = []
    lattice: Host | None = None
    sigma_nm: float | None = None  # that of the frame before
    for number in sorted(table["frame"].unique().tolist()):
        part = table[table["frame"] == number]
        if progress is not None:
            progress(number, micrograph.n_frames)
        if not part["element"].isin([*rules.host, VACANCY]).all():
            field = Field.of(micrograph, number)
            lattice = _host(field, crystal, lattice)
            if lattice is not None:
                part, sigma_nm = _resolve_frame(micrograph, field, lattice, part, rules, sigma_nm)
        parts.append(part)
    return Atoms(pd.concat(parts, ignore_index=True) if parts else table)


def hole_odds(
    micrograph: Micrograph, frame: int, center_nm: tuple[float, float], rim_nm: Floats, hexagons_nm: list[Floats]
) -> float:
    """Odds that a place is as dark as the middle of a hexagon, against as bright as an atom.

    Parameters
    ----------
    micrograph : Micrograph
    frame : int
    center_nm : (float, float)
        The place, (y, x).
    rim_nm : array, shape (n, 2)
        Atoms around it.
    hexagons_nm : list of arrays, shape (2,)
        Middles of hexagons, for how dark that is and how it scatters; without three of them the odds are even.
    """
    if len(hexagons_nm) < 3:
        return 1.0
    pixel = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    near = np.array(hexagons_nm)[cKDTree(np.array(hexagons_nm)).query(center_nm, k=min(12, len(hexagons_nm)))[1]]
    low = np.floor(np.minimum(near.min(0), rim_nm.min(0)) / pixel - 0.2 / pixel).astype(int).clip(0)
    high = np.ceil(np.maximum(near.max(0), rim_nm.max(0)) / pixel + 0.2 / pixel).astype(int)
    piece = micrograph.frame(frame)[low[0] : high[0], low[1] : high[1]].astype(float)
    smooth = gaussian_filter(piece, _FINE_NM * 2 / pixel)
    here, rim, dark = (
        map_coordinates(smooth, (np.atleast_2d(p) / pixel - low).T, order=1) for p in (center_nm, rim_nm, near)
    )
    height = max(float(np.median(rim) - np.median(dark)), 1e-12)
    spread = max(1.4826 * float(np.median(np.abs(dark - np.median(dark)))) / height, 0.2)
    filled = float(here[0] - np.median(dark)) / height
    return float(np.exp(np.clip((1 - 2 * filled) / (2 * spread**2), -6, 6)))


def _host(field: Field, crystal: Crystal, before: Host | None) -> Host | None:
    """Host of a frame, like that of the frame before or looked for anew."""
    for near in (before, None) if before is not None else (None,):
        try:
            return find_host(field, crystal, scales=_SCALES, near=near)
        except ValueError:
            continue
    return None


def _resolve_frame(
    micrograph: Micrograph, field: Field, lattice: Host, atoms: pd.DataFrame, rules: BondRules, sigma_nm: float | None
) -> tuple[pd.DataFrame, float]:
    foreign: pd.DataFrame = atoms.loc[~atoms["element"].isin([*rules.host, VACANCY])]
    places = positions_nm(foreign)
    scene = _scene(micrograph, lattice, places, int(atoms["frame"].iloc[0]), sigma_nm)
    away = np.linalg.norm(positions_nm(atoms)[:, None] - places, axis=-1).min(1)
    parts = [atoms.loc[~(away < _INNER_NM)]]
    for group in _groups(places, 2 * _INNER_NM):
        local = refine_host(field, lattice, around_nm=places[group].mean(0), avoid_nm=places)
        parts.append(_neighborhood(scene, foreign.iloc[group], local, rules))
    return pd.concat(parts, ignore_index=True), scene.sigma_nm


@dataclass(frozen=True, eq=False)
class _Scene:
    """A frame and what all of its host atoms have in common."""

    image: Floats
    variance: Floats
    pixel: Floats
    sigma_nm: float
    height: float


def _scene(micrograph: Micrograph, lattice: Host, foreign: Floats, frame: int, near_nm: float | None) -> _Scene:
    """Width and height of the host's atoms, from all of them at once; foreign ones left out."""
    image, pixel = micrograph.frame(frame).astype(float), np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    known = noise.estimate(micrograph, frame=frame)
    step = max(1, int(_FINE_NM / pixel.max()))
    size = pixel * step
    cut = image[: image.shape[0] // step * step, : image.shape[1] // step * step]
    small = cut.reshape(cut.shape[0] // step, step, -1, step).mean((1, 3))
    margin = int(np.ceil(0.3 / size.min()))
    sites = lattice.sites_within(size * small.shape, margin_nm=0.2)[1]
    sites = sites[np.linalg.norm(sites[:, None] - foreign, axis=-1).min(1) > _BLOCKED_NM]
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
    return _Scene(image, np.asarray(variance, np.float64), pixel, best[1], best[2])


def _groups(points: Floats, apart_nm: float) -> list[npt.NDArray[np.int64]]:
    """Rows of points that hang together."""
    pairs = cKDTree(points).query_pairs(apart_nm, output_type="ndarray")
    matrix = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(points), len(points)))
    labels = connected_components(matrix, directed=False)[1]
    return [np.flatnonzero(labels == k) for k in np.unique(labels)]


def _neighborhood(scene: _Scene, members: pd.DataFrame, lattice: Host, rules: BondRules) -> pd.DataFrame:
    """Foreign atoms and the host atoms found beside them, as rows of ATOMS."""
    centers = positions_nm(members)
    extent = scene.pixel * (np.array(scene.image.shape) - 1)
    sites = lattice.sites_within(extent, margin_nm=0.1)[1]
    away = np.linalg.norm(sites[:, None] - centers, axis=-1)
    sites = sites[(away.min(1) < REACH_NM + 0.12) & (away.min(1) > _BLOCKED_NM)]
    prior, loose = _pushed(sites, centers)
    room = np.linalg.norm(prior[:, None] - centers, axis=-1).min(1) > _SQUEEZED_NM
    moved = np.linalg.norm(prior - sites, axis=1)[room] > _MOVED_NM
    prior, loose = prior[room], loose[room]
    heights = members["amplitude"].to_numpy(float)
    fit = _fit(scene, centers, heights, prior, loose)
    n = len(centers)
    gain = _presence(fit, n, scene.height)
    beside = np.linalg.norm(prior[:, None] - centers, axis=-1).min(1) < _INNER_NM
    absent = beside & (gain < np.where(moved, _TAKEN, _ABSENT))
    for k, element in enumerate(members["element"]):  # rather a dim atom than too few bonds
        reach = 1e-3 * rules.limit_pm(element, rules.host[0])
        bonded = np.linalg.norm(fit.yx[n:] - fit.yx[k], axis=1) < reach
        others = np.linalg.norm(np.delete(fit.yx[:n], k, axis=0) - fit.yx[k], axis=1)
        short = rules.smallest_coordination.get(element, 0) - int((bonded & ~absent).sum())
        short -= int((others < 1e-3 * rules.limit_pm(element, element)).sum())
        spare = np.flatnonzero(bonded & absent & (gain > _SURELY_ABSENT))
        absent[spare[np.argsort(-gain[spare])[: max(short, 0)]]] = False
    if absent.any():
        prior, loose, beside, gain = prior[~absent], loose[~absent], beside[~absent], gain[~absent]
        fit = _fit(scene, centers, heights, prior, loose)
    keep = np.concatenate([np.ones(n, bool), beside])
    host = rules.host[0]
    return pd.DataFrame({
        "frame": int(members["frame"].iloc[0]), "y_nm": fit.yx[:, 0], "x_nm": fit.yx[:, 1],
        "y_err_nm": fit.error[:, 0], "x_err_nm": fit.error[:, 1], "sigma_nm": scene.sigma_nm,
        "amplitude": fit.height, "amplitude_err": fit.error[:, 2], "background": fit.background, "score": 1.0,
        "element": [*members["element"], *[host] * len(prior)],
        "element_probability": [*members["element_probability"], *expit(gain)],
    })[keep]  # fmt: skip


def _pushed(sites: Floats, centers: Floats) -> tuple[Floats, Floats]:
    """Where to expect the atom of each site, and how loosely: none overlaps a foreign atom."""
    offset = sites[:, None] - centers
    distance = np.linalg.norm(offset, axis=-1)
    nearest = distance.argmin(1)
    rows = np.arange(len(sites))
    short = np.clip(_APART_NM - distance[rows, nearest], 0, None)
    prior = sites + offset[rows, nearest] * (short / distance[rows, nearest])[:, None]
    return prior, np.where(distance.min(1) < _INNER_NM, _LOOSE_NM, _FIRM_NM)


def _presence(fit: _Fit, n: int, height: float) -> Floats:
    """Log odds that each host atom is there against that it is not, before any prior."""
    found, error = fit.height[n:], fit.error[n:, 2]
    return np.asarray((found**2 - (found - height) ** 2) / (2 * (error**2 + (0.15 * height) ** 2)))


@dataclass(frozen=True, eq=False)
class _Fit:
    """Positions, heights and 1 sigma of (y, x, height); foreign atoms first."""

    yx: Floats
    height: Floats
    error: Floats
    background: float


def _fit(scene: _Scene, centers: Floats, heights: Floats, prior: Floats, loose: Floats, steps: int = 12) -> _Fit:
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
    near = np.linalg.norm(prior[:, None] - centers, axis=-1).min(1) < _INNER_NM
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
    return _Fit(yx, tall, errors, float(p[-3]))
