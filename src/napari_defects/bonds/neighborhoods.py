"""The atoms around a foreign one, where the dose is too low to see each of them alone.

The host lattice says where atoms should be, their common brightness says how bright, and a bright
foreign atom hides its neighbours in its tails. So around every foreign atom all of them are fitted
together, with the lattice as a prior: each host atom then is there, or is not.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import map_coordinates, maximum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.special import expit
from scipy.stats import median_abs_deviation
from threadpoolctl import threadpool_limits

from ..crystals import Crystal, get_crystal
from ..gaussian.threads import in_turn
from ..lattice.phasing import Field, Host, blurred, find_host, refine_host
from ..micrograph import Micrograph, Progress
from ..tables import Atoms, positions_nm
from .chemistry import assign_elements, foreign_odds
from .holes import CALIBRATED, sublattice_elements, sublattice_of
from .patches import BLOCKED_NM, INNER_NM, REACH_NM, PatchFit, Scene, fit_patch, make_scene
from .rules import VACANCY, BondRules, bond_rules

Floats = npt.NDArray[np.float64]

_APART_NM = 0.165  # a neighbour begins no nearer than this,
_SQUEEZED_NM = 0.125  # and is not there when that puts it so near to another foreign atom
_LOOSE_NM, _FIRM_NM = 0.03, 0.012  # prior scatter of neighbours, and of the atoms behind them
_SURELY_ABSENT = -6.0
_MOVED_NM = 0.05
_SPARSE = 0.1  # of the host's atoms seen; with fewer, brightness is taken from the lattice
_SLOW_NM = 0.25  # scale of what is no atom
_SURE = 0.97  # to call a peak of the noise-ridden image a foreign atom
_PEAK_NM = 0.1  # about a foreign atom, in which there is no brighter one
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
        ATOMS, with `element` or with brightness to tell it by; SITES of a host of several elements.
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
    return resolve_frames(micrograph, atoms, crystal=crystal, rules=rules, progress=progress, pristine=False)[0]


def resolve_frames(
    micrograph: Micrograph,
    atoms: pd.DataFrame,
    *,
    crystal: str | Crystal = "graphene",
    rules: BondRules | None = None,
    progress: Progress | None = None,
    pristine: bool = True,
) -> tuple[Atoms, dict[int, Host]]:
    """`resolve`, and the lattice of each frame: also of frames without a foreign atom, if `pristine`."""
    crystal = get_crystal(crystal)
    rules = rules or bond_rules(crystal)
    table = atoms if "element" in atoms else assign_elements(atoms, rules)
    frames = {int(n): table[table["frame"] == n] for n in sorted(table["frame"].unique().tolist())}
    known = [*rules.host, VACANCY]
    todo = [n for n, part in frames.items() if pristine or not part["element"].isin(known).all()]
    lattices: dict[int, Host] = {}

    def keep(number: int, found: _Frame | None) -> None:
        if found is not None:
            frames[number], lattices[number] = found.atoms, found.lattice

    like: _Frame | None = None
    while todo and like is None:
        number = todo.pop(0)
        like = _look(micrograph, number, frames[number], crystal, rules, None)
        keep(number, like)
    with threadpool_limits(1, user_api="blas"):
        jobs = in_turn(lambda n: _look(micrograph, n, frames[n], crystal, rules, like), todo)
        for done, (number, found) in enumerate(zip(todo, jobs, strict=True)):
            if progress is not None:
                progress(len(frames) - len(todo) + done, len(frames))
            keep(number, found)
    return Atoms(pd.concat(frames.values(), ignore_index=True) if frames else table), lattices


class _Frame(NamedTuple):
    """A frame that was fitted: its atoms, and what another one can begin with."""

    atoms: pd.DataFrame
    lattice: Host
    sigma_nm: float | None


def _look(
    micrograph: Micrograph, number: int, atoms: pd.DataFrame, crystal: Crystal, rules: BondRules, like: _Frame | None
) -> _Frame | None:
    """Fit the neighbourhoods of one frame; None where it has no lattice.

    All frames begin with the first, not each with the one before: so none depends on how many run at once.
    """
    field = Field.of(micrograph, number)
    lattice = _host(field, crystal, like and like.lattice)
    if lattice is None:
        return None
    lost = len(atoms) < _SPARSE * len(lattice.sites_within(field.extent_nm)[1])  # most of them in the noise
    if lost and rules.brightness:
        atoms = _with_bright(micrograph, number, atoms, lattice, rules, like and like.sigma_nm)
    foreign: pd.DataFrame = atoms.loc[~atoms["element"].isin([*rules.host, VACANCY])]
    if foreign.empty:
        return _Frame(atoms, lattice, None if like is None else like.sigma_nm)
    places = positions_nm(foreign)
    scene = make_scene(micrograph, lattice, places, number, like and like.sigma_nm)
    away = np.linalg.norm(positions_nm(atoms)[:, None] - places, axis=-1).min(1)
    parts, seen = [atoms.loc[~(away < INNER_NM)]], atoms.dropna(subset=["y_nm", "x_nm"])
    for group in _groups(places, 2 * INNER_NM):
        middle = places[group].mean(0)
        local = refine_host(field, lattice, around_nm=middle, avoid_nm=places)
        elements = sublattice_elements(local, middle, positions_nm(seen), seen["element"].tolist())
        parts.append(_neighborhood(scene, foreign.iloc[group], local, elements, rules))
    return _Frame(pd.concat(parts, ignore_index=True), lattice, scene.sigma_nm)


def _with_bright(
    micrograph: Micrograph, number: int, atoms: pd.DataFrame, lattice: Host, rules: BondRules, sigma_nm: float | None
) -> pd.DataFrame:
    """Add foreign atoms that are bright against what the sites have together, if not against the few atoms seen."""
    scene = make_scene(micrograph, lattice, np.full((1, 2), -np.inf), number, sigma_nm)
    pixel, sigma_nm = scene.pixel, scene.sigma_nm
    smooth = 2 * blurred(
        scene.image - blurred(scene.image, _SLOW_NM / pixel), sigma_nm / pixel
    )  # of an atom, its height
    sites = lattice.sites_within(pixel * (np.array(smooth.shape) - 1))[1]
    host = map_coordinates(smooth, (sites / pixel).T, order=1)
    middle = float(np.median(host))
    if not scene.height > 0:
        return atoms
    spread = np.full(1, median_abs_deviation(host, scale="normal") / scene.height)
    size = (2 * np.rint(_PEAK_NM / pixel).astype(int) + 1).tolist()
    peak = np.argwhere((maximum_filter(smooth, size) == smooth) & (smooth > middle))
    peak = peak[((peak * pixel > _PEAK_NM / 2) & ((np.array(smooth.shape) - 1 - peak) * pixel > _PEAK_NM / 2)).all(1)]
    ratio = 1 + (smooth[tuple(peak.T)] - middle) / scene.height
    odds = {name: foreign_odds(ratio, spread, *span) for name, span in rules.brightness.items()}
    total = 1 + sum(odds.values(), np.zeros(len(ratio)))
    rows = []
    for name, value in odds.items():
        sure = value / total
        found = sure > _SURE
        error = np.sqrt(2) * sigma_nm * spread / ratio[found]
        rows.append(pd.DataFrame({
            "frame": number, "y_nm": peak[found, 0] * pixel[0], "x_nm": peak[found, 1] * pixel[1], "y_err_nm": error,
            "x_err_nm": error, "sigma_nm": sigma_nm, "amplitude": scene.height * ratio[found],
            "amplitude_err": scene.height * spread[0], "background": 0.0, "score": sure[found], "element": name,
            "element_probability": sure[found],
        }))  # fmt: skip
    bright, host_like = pd.concat(rows, ignore_index=True), atoms["element"].isin([*rules.host, VACANCY])
    bright = bright[_apart(bright, atoms[~host_like])]
    kept = atoms[~host_like | _apart(atoms, bright)]
    return pd.concat([kept, bright], ignore_index=True) if len(bright) else atoms


def _apart(these: pd.DataFrame, others: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which of these atoms have none of the others at their place."""
    if not len(these) or not len(others):
        return np.ones(len(these), bool)
    return np.asarray(cKDTree(positions_nm(others)).query(positions_nm(these))[0]) > _PEAK_NM


def _host(field: Field, crystal: Crystal, like: Host | None) -> Host | None:
    """Host of a frame, like that of another or looked for anew."""
    for near in (like, None) if like is not None else (None,):
        with suppress(ValueError):
            return find_host(field, crystal, scales=CALIBRATED, near=near)
    return None


def _groups(points: Floats, apart_nm: float) -> list[npt.NDArray[np.int64]]:
    """Rows of points that hang together."""
    pairs = cKDTree(points).query_pairs(apart_nm, output_type="ndarray")
    matrix = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(points), len(points)))
    labels = connected_components(matrix, directed=False)[1]
    return [np.flatnonzero(labels == k) for k in np.unique(labels)]


def _neighborhood(
    scene: Scene, members: pd.DataFrame, lattice: Host, elements: tuple[str, ...], rules: BondRules
) -> pd.DataFrame:
    """Foreign atoms and the host atoms found beside them, as rows of ATOMS; `elements` of the host's sublattices."""
    centers = positions_nm(members)
    extent = scene.pixel * (np.array(scene.image.shape) - 1)
    cells, sites = lattice.sites_within(extent, margin_nm=0.1)
    away = np.linalg.norm(sites[:, None] - centers, axis=-1).min(1)
    around = (away < REACH_NM + 0.12) & (away > BLOCKED_NM)
    sites, host = sites[around], np.array(elements, object)[sublattice_of(lattice, cells[around])]
    prior, loose = _pushed(sites, centers)
    room = np.linalg.norm(prior[:, None] - centers, axis=-1).min(1) > _SQUEEZED_NM
    moved = np.linalg.norm(prior - sites, axis=1)[room] > _MOVED_NM
    prior, loose, host = prior[room], loose[room], host[room]
    heights = members["amplitude"].to_numpy(float)
    fit = fit_patch(scene, centers, heights, prior, loose)
    n = len(centers)
    gain = _presence(fit, n, scene.height)
    beside = np.linalg.norm(prior[:, None] - centers, axis=-1).min(1) < INNER_NM
    absent = beside & (gain < np.where(moved, _TAKEN, _ABSENT))
    for k, element in enumerate(members["element"]):  # rather a dim atom than too few bonds
        reach = 1e-3 * np.array([rules.limit_pm(element, other) for other in host])
        bonded = np.linalg.norm(fit.yx[n:] - fit.yx[k], axis=1) < reach
        others = np.linalg.norm(np.delete(fit.yx[:n], k, axis=0) - fit.yx[k], axis=1)
        short = rules.smallest_coordination.get(element, 0) - int((bonded & ~absent).sum())
        short -= int((others < 1e-3 * rules.limit_pm(element, element)).sum())
        spare = np.flatnonzero(bonded & absent & (gain > _SURELY_ABSENT))
        absent[spare[np.argsort(-gain[spare])[: max(short, 0)]]] = False
    if absent.any():
        prior, loose, host = prior[~absent], loose[~absent], host[~absent]
        beside, gain = beside[~absent], gain[~absent]
        fit = fit_patch(scene, centers, heights, prior, loose)
    keep = np.concatenate([np.ones(n, bool), beside])
    return pd.DataFrame({
        "frame": int(members["frame"].iloc[0]), "y_nm": fit.yx[:, 0], "x_nm": fit.yx[:, 1],
        "y_err_nm": fit.error[:, 0], "x_err_nm": fit.error[:, 1], "sigma_nm": scene.sigma_nm,
        "amplitude": fit.height, "amplitude_err": fit.error[:, 2], "background": fit.background, "score": 1.0,
        "element": [*members["element"], *host],
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
    return prior, np.where(distance.min(1) < INNER_NM, _LOOSE_NM, _FIRM_NM)


def _presence(fit: PatchFit, n: int, height: float) -> Floats:
    """Log odds that each host atom is there against that it is not, before any prior."""
    found, error = fit.height[n:], fit.error[n:, 2]
    return np.asarray((found**2 - (found - height) ** 2) / (2 * (error**2 + (0.15 * height) ** 2)))
