"""The intensity of every site, occupied or not, relative to the host around it.

All columns are fitted together at known positions, which makes the fit linear: heights of Gaussians plus a
background, as stiff as the image lets it be. A vacancy gets a height as any column does, and overlapping neighbours
are no bias.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree

from ..gaussian import Heights
from ..micrograph import Micrograph
from ..noise import from_pixels
from .beyond import left_out, light_from_beyond

Array = npt.NDArray[np.float64]

STIFFNESSES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Of the background: the best is that with which the host scatters least."""

_STEADY_NM = 0.005  # scatter of columns about the lattice: noisier positions are drawn towards their site
_NEIGHBORS = 40
_SAID = ("height", "relative_height", "scatter", "counted", "beneath")


def measuring_points(sites: pd.DataFrame) -> Array:
    """Where to look at each site, shape (n, 2) in nm.

    The measured position as far as its error allows, the lattice's otherwise.
    """
    measured = sites[["y_nm", "x_nm"]].to_numpy(float)
    ideal = sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    ideal = np.where(np.isfinite(ideal), ideal, measured)
    error = sites[["y_err_nm", "x_err_nm"]].to_numpy(float)
    trust = _STEADY_NM**2 / (_STEADY_NM**2 + np.where(np.isfinite(error), error, np.inf) ** 2)
    return np.where(np.isfinite(measured), ideal + trust * (measured - ideal), ideal)


def relative_heights(micrograph: Micrograph, sites: pd.DataFrame) -> pd.DataFrame:
    """Measure every site of every frame.

    Parameters
    ----------
    micrograph : Micrograph
    sites : DataFrame
        SITES; rows without sublattice are fitted along, but get a NaN, as do columns cut in half by the border.

    Returns
    -------
    DataFrame
        `sites` with `height` (in the image's unit; the amplitude where there is an atom, the linear fit's where
        there is none), `relative_height` (by the linear fit, which treats full and empty sites alike; 1 for the host
        column of its sublattice in its neighbourhood), `scatter`: how much more than elsewhere the relative
        heights scatter in its neighbourhood, 1 or more; `counted`: the share of that scatter's square which is
        counting noise, 0 (all dirt) to 1; and `beneath`: the share of the counting noise of a host column's height
        that comes from what is beneath it (dirt, neighbours, electronics) and stays where it is gone.
    """
    others = _left_out(micrograph, sites)
    table = pd.concat([sites.reset_index(drop=True), others], ignore_index=True) if len(others) else sites
    measured = _measured(micrograph, table).iloc[: len(sites)].set_index(sites.index)
    return sites.assign(**{name: measured[name] for name in _SAID})


def _measured(micrograph: Micrograph, sites: pd.DataFrame) -> pd.DataFrame:
    """`relative_heights` of sites around which no column is left out."""
    scale = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    height, relative, scatter, counted, beneath = np.full((5, len(sites)), np.nan)
    points, sigma = measuring_points(sites), _widths(sites)[:, None] / scale
    amplitude, names = sites["amplitude"].to_numpy(float), sites["sublattice"].to_numpy(str)
    frames, placed = sites["frame"].to_numpy(np.int64), np.isfinite(points).all(1)
    for frame in np.unique(frames).tolist():
        rows = (frames == frame) & placed
        image, spikes = without_spikes(micrograph.frame(frame).astype(np.float64))
        beyond = light_from_beyond(image.shape, points[rows] / scale, sigma[rows], amplitude[rows], names[rows])
        noise = from_pixels(image, float(sigma[rows].mean()))
        at = Heights(noise.counts(image - beyond), points[rows] / scale, sigma[rows, 0], scale[1] / scale[0])
        tried = [at(stiffness) * noise.gain for stiffness in STIFFNESSES]
        trials = [_relative(of, points[rows], names[rows]) for of in tried]
        chosen = _steadiest(trials, names[rows])
        fitted, relative[rows] = tried[chosen], trials[chosen]
        spoiled = np.zeros(len(fitted), bool)
        if len(spikes):
            spoiled = cKDTree(spikes * scale).query(points[rows])[0] < 2.5 * (sigma[rows] * scale).max()
        height[rows] = np.where(np.isfinite(amplitude[rows]) & ~spoiled, amplitude[rows], fitted)
        scatter[rows] = _local_scatter(relative[rows], points[rows], names[rows])
        counted[rows] = _counted(relative[rows], scatter[rows], at.errors * noise.gain / fitted, names[rows])
        beneath[rows] = _beneath(image - noise.offset, points[rows] / scale, fitted, names[rows])
    cut = (points < 0).any(1) | (points > micrograph.extent_nm - scale).any(1)
    return sites.assign(
        height=height,
        relative_height=np.where(cut, np.nan, relative),
        scatter=scatter,
        counted=counted,
        beneath=beneath,
    )


def _left_out(micrograph: Micrograph, sites: pd.DataFrame) -> pd.DataFrame:
    """Rows for columns around the sites that a cropped table has none for: they share the light."""
    scale = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    points, parts = measuring_points(sites), []
    frames, names = sites["frame"].to_numpy(np.int64), sites["sublattice"].to_numpy(str)
    for frame in np.unique(frames).tolist():
        rows = (frames == frame) & np.isfinite(points).all(1)
        place = left_out(micrograph.frame(frame).astype(np.float64), points[rows] / scale, names[rows]) * scale
        parts.append(pd.DataFrame({"frame": frame, "sublattice": "", "y_nm": place[:, 0], "x_nm": place[:, 1]}))
    return pd.concat(parts).reindex(columns=sites.columns) if parts else sites[:0]


def without_spikes(image: Array) -> tuple[Array, Array]:
    """Give pixels far beyond the range of nearly all others the median of those around them; and where they are."""
    low, high = np.quantile(image, (0.002, 0.998))
    spikes = (image > high + 2 * (high - low)) | (image < low - 2 * (high - low))
    if not spikes.any() or spikes.mean() > 0.01:
        return image, np.zeros((0, 2))
    result = image.copy()
    around = np.argwhere(spikes)[:, None] + np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x])
    at = np.clip(around, 0, np.array(image.shape) - 1)
    result[spikes] = np.median(image[at[..., 0], at[..., 1]], axis=1)
    return result, np.argwhere(spikes).astype(float)


def center_and_width(values: Array) -> tuple[float, float]:
    """Mode and 1 sigma of the main population among `values`."""
    values = np.sort(values[np.isfinite(values)])
    if len(values) < 3:
        return (float(np.median(values)) if len(values) else float("nan")), float("nan")
    half = max(2, (len(values) + 1) // 2)
    start = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
    center = float(np.median(values[start : start + half]))
    width = float("nan")
    for _ in range(3):
        width = max(1.4826 * float(np.median(np.abs(values - center))), 1e-12)
        values = values[np.abs(values - center) < 3 * width]
        center = float(np.median(values))
    return center, width


def _relative(height: Array, points: Array, sublattice: npt.NDArray[np.str_]) -> Array:
    """Heights over their sublattice's mode, and over what the neighbourhood (of all sublattices) makes of it."""
    relative, reference = np.full(len(height), np.nan), np.full(len(height), np.nan)
    for name in np.unique(sublattice[sublattice != ""]):
        own = sublattice == name
        reference[own] = center_and_width(height[own])[0]
        relative[own] = height[own] / reference[own]
    on = np.flatnonzero(np.isfinite(relative))
    if len(on) < 3:
        return relative
    near = np.asarray(cKDTree(points[on]).query(points[on], k=min(_NEIGHBORS, len(on)))[1])
    local = np.maximum(np.median(relative[on][near], axis=1), 0.1)
    relative[on] /= local
    relative[on] -= _crosstalk(relative[on], reference[on], points[on], sublattice[on])
    return relative


def _steadiest(trials: list[Array], sublattice: npt.NDArray[np.str_]) -> int:
    """Which of several measurements the same columns of the host scatter least in."""
    widths = np.zeros(len(trials))
    for name in np.unique(sublattice[sublattice != ""]):
        seen = np.array(trials)[:, sublattice == name] - 1
        host = (np.abs(seen) < 4 * np.array([[center_and_width(1 + of)[1]] for of in seen])).all(0)
        widths += np.std(seen[:, host], axis=1) if host.sum() > 2 else 0.0
    return int(np.argmin(widths))


def _beneath(
    signal: npt.NDArray[np.floating], points_px: Array, heights: Array, sublattice: npt.NDArray[np.str_]
) -> Array:
    """Share of the variance of the hosts' heights that is there without them.

    Of a Gaussian h G on a level b, fitted alone with each pixel's weight, the variance is 1 / sum(G^2 / (b + h G)).
    """
    level = ndimage.map_coordinates(signal, points_px.T, order=1, mode="nearest")
    result = np.full(len(heights), np.nan)
    for name in np.unique(sublattice[sublattice != ""]):
        own = sublattice == name
        height, seen = float(np.median(heights[own])), float(np.median(level[own]))
        t = float(np.clip(height / max(seen - height, 1e-300), 0.1, 50))
        result[own] = 2 * (1 / t - np.log1p(t) / t**2)
    return result


def _local_scatter(relative: Array, points: Array, sublattice: npt.NDArray[np.str_]) -> Array:
    """Scatter of the heights around each site over that of its whole sublattice, at least 1: large under dirt."""
    deviation = np.full(len(relative), np.nan)
    for name in np.unique(sublattice[sublattice != ""]):
        own = sublattice == name
        deviation[own] = np.abs(relative[own] - 1) / max(float(np.nanmedian(np.abs(relative[own] - 1))), 1e-9)
    on = np.flatnonzero(np.isfinite(deviation))
    result = np.ones(len(relative))
    if len(on) > _NEIGHBORS:
        near = np.asarray(cKDTree(points[on]).query(points[on], k=_NEIGHBORS)[1])
        ratio = np.median(deviation[on][near], axis=1)
        result[on] = np.where(ratio < 1.5, 1.0, np.minimum(ratio, 2 * ratio - 2))  # up to half as much again is chance
    return result


def _counted(relative: Array, scatter: Array, error: Array, sublattice: npt.NDArray[np.str_]) -> Array:
    """Share of counting noise in the variance of the heights around each site; `error` is relative to each height."""
    result = np.ones(len(relative))
    for name in np.unique(sublattice[sublattice != ""]):
        own = sublattice == name
        host = own & (np.abs(relative - 1) < 0.5)
        if host.sum() > 2:
            width = scatter[own] * max(center_and_width(relative[host])[1], 1e-9)
            result[own] = np.minimum((float(np.median(error[host])) / width) ** 2, 1)
    return result


def _crosstalk(relative: Array, reference: Array, points: Array, sublattice: npt.NDArray[np.str_]) -> Array:
    """Light from unusual neighbours, by the tails of the probe; learned from the host columns."""
    tree = cKDTree(points)
    bond = float(np.median(np.asarray(tree.query(points, k=2)[0])[:, 1]))
    pairs = tree.query_pairs(2.05 * bond, output_type="ndarray")
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    close = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1) < 1.35 * bond
    excess = (relative[pairs[:, 1]] - 1) * reference[pairs[:, 1]] / reference[pairs[:, 0]]
    shells = np.column_stack([np.bincount(pairs[k, 0], excess[k], len(points)) for k in (close, ~close)])
    added = np.zeros(len(points))
    for name in np.unique(sublattice):
        own = sublattice == name
        host = own & (np.abs(relative - 1) < 4 * center_and_width(relative[own])[1])
        if host.sum() > 30:
            design, target = shells[host], relative[host] - 1
            penalty = 0.1 * np.eye(2)  # few unusual neighbours teach nothing
            added[own] = shells[own] @ np.linalg.solve(design.T @ design + penalty, design.T @ target)
    return added


def _widths(table: pd.DataFrame) -> Array:
    """Width of each column in nm: the median of its sublattice."""
    sigma = table["sigma_nm"].astype(float)
    own = sigma.groupby(table["sublattice"].astype(str)).transform("median")
    return own.fillna(sigma.median()).fillna(0.07).to_numpy(float)
