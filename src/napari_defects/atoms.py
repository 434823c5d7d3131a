"""Columns of an image: found, fitted together, and given an honest error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter, gaussian_laplace, maximum_filter, percentile_filter, zoom
from scipy.spatial import cKDTree

from napari_defects import tables
from napari_defects.gaussian import Columns, column_misfit, fit_columns
from napari_defects.jitter import estimate_jitter, straighten
from napari_defects.micrograph import Maps, Micrograph, Progress
from napari_defects.noise import Noise, column_scale_px, from_pixels
from napari_defects.tables import Atoms

Array = npt.NDArray[np.float64]

_SMALLEST_NM = 0.025  # width of a column; the largest is five times that
_DIMMEST = 0.1  # of the bright columns around: half of a lone chalcogen, twice a doubly empty one


def locate(
    micrograph: Micrograph,
    *,
    column_sigma_nm: float | None = None,
    min_separation_nm: float | None = None,
    maps: Maps | None = None,
    progress: Progress | None = None,
) -> Atoms:
    """Find every column and fit all of them jointly.

    Candidates are maxima of the image at the scale of a column (and of `maps`, where given); what
    their joint fit leaves over is searched for dim columns beside bright ones, and all are fitted
    again: Poisson maximum likelihood with the noise found in the image itself.

    Parameters
    ----------
    micrograph : Micrograph
        Still or movie; any intensity unit.
    column_sigma_nm : float, optional
        Width (1 sigma) of a column to begin with; measured when None. It is refined by the fit.
    min_separation_nm : float, optional
        Columns nearer than this are one; about half the distance of neighbours when None.
    maps : Maps, optional
        Class probabilities on the pixels of `micrograph`: columns are looked for where a network
        sees one, and scored by it.
    progress : callable, optional
        ``progress(done, total)`` over frames.

    Returns
    -------
    Atoms
        One row per column, in all frames. Errors are 1 sigma of counting noise with all neighbours
        free; that of x holds what is left of the line jitter, which is taken out. `misfit`, an
        additional column, is the mean squared residual under a column in units of its noise.
        ``attrs`` has ``line_jitter_pm`` (rms) and ``electrons_per_px`` (mean), one number a frame.

    Raises
    ------
    ValueError
        If the pixel size is not known, an argument is out of range, or the maps do not fit.
    """
    pixel = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    for name, value in (("column_sigma_nm", column_sigma_nm), ("min_separation_nm", min_separation_nm)):
        if value is not None and not pixel.min() / 4 <= value <= micrograph.extent_nm.max() / 4:
            raise ValueError(f"`{name}` must be a length in nm on the scale of a column, got {value}; leave it None.")
    if maps is not None and tuple(maps.data.shape[-2:]) != micrograph.shape_yx:
        raise ValueError(
            f"`maps` are {maps.data.shape[-2]} x {maps.data.shape[-1]} px but the image is "
            f"{micrograph.shape_yx[0]} x {micrograph.shape_yx[1]}; predict them from this image."
        )
    found, notes = [], []
    for index in range(micrograph.n_frames):
        if progress is not None:
            progress(index, micrograph.n_frames)
        likely = None if maps is None else column_probability(maps, index)
        table, note = _locate(micrograph.frame(index), pixel, column_sigma_nm, min_separation_nm, likely, index)
        found.append(table)
        notes.append(note)
    if progress is not None:
        progress(micrograph.n_frames, micrograph.n_frames)
    atoms = tables.check(pd.concat([f for f in found if len(f)] or found[:1], ignore_index=True), "atoms")
    atoms.attrs.update({key: [note.get(key, 0.0) for note in notes] for key in ("line_jitter_pm", "electrons_per_px")})
    return Atoms(atoms)


def column_probability(maps: Maps, index: int = 0) -> Array:
    """Probability that a pixel belongs to a column, from class maps; empty sites are none."""
    full = [c for c in maps.classes[1:] if not _is_empty(c, maps.classes)]
    data = maps.frame(index)
    return np.asarray(sum(np.asarray(data[maps.classes.index(c)], np.float64) for c in full))


def _is_empty(name: str, classes: tuple[str, ...]) -> bool:
    """Whether a class marks a place without a column: V1, V2, SW, V_W, V2_Se, but not V_Se beside Se2."""
    if name in ("SW", "V1", "V2"):
        return True
    vacancy, _, site = name.partition("_")
    if vacancy not in ("V", "V2"):
        return False
    return (f"{site}2" in classes) == (vacancy == "V2")


def _locate(
    image: npt.NDArray[np.float32],
    pixel: Array,
    column_sigma_nm: float | None,
    min_separation_nm: float | None,
    likely: Array | None,
    index: int,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """`locate` for one frame."""
    scale = column_sigma_nm or column_scale_px(image, (pixel[0], pixel[1]), max(_SMALLEST_NM, 0.8 * pixel.max()))
    noise = from_pixels(image, scale / pixel.max())
    counts = noise.counts(image)
    sigma = scale / pixel[0]
    apart = (min_separation_nm / pixel[0]) if min_separation_nm else 1.8 * sigma
    aspect = float(pixel[1] / pixel[0])
    yx = _maxima(counts, sigma, aspect, apart, likely)
    if len(yx) == 0:
        return tables.empty("atoms"), {}
    columns = fit_columns(counts, _start(counts, yx, sigma, aspect), polish=False, steps=4, errors=False)
    for _ in range(2):
        columns = _pruned(columns, apart)
        more = _left_over(counts, columns, apart)
        if len(more) == 0:
            break
        columns = fit_columns(counts, _joined(columns, more), polish=False, steps=3, errors=False)
    columns = _pruned(fit_columns(counts, _pruned(columns, apart)), apart)
    jitter = estimate_jitter(counts, columns)
    if jitter.rms_px > 0:
        counts = straighten(counts, jitter.offset_px)
        columns = fit_columns(counts, columns, coarse=False)
    table = _table(columns, counts, noise, pixel, likely)
    table["x_err_nm"] = np.hypot(table["x_err_nm"], jitter.column_error_px[table.index] * pixel[1])
    table.insert(0, "frame", index)
    return table, {"line_jitter_pm": 1e3 * pixel[1] * jitter.rms_px, "electrons_per_px": noise.electrons_per_px}


def _maxima(counts: Array, sigma: float, aspect: float, apart: float, likely: Array | None) -> Array:
    """Candidates: maxima of the Laplacian at the scale of a column that stand out of the noise."""
    width = (0.8 * sigma, 0.8 * sigma / aspect)
    response = -gaussian_laplace(counts, width)
    # noise of the response: variance = mean of the counts, times the squared norm of the kernel
    norm = 1 / (2 * np.pi * width[0] ** 5 * width[1])
    sd = np.sqrt(np.maximum(gaussian_filter(counts, width), 0.02 * counts.mean()) * norm)
    z = response / sd
    size = tuple(max(3, 2 * int(0.7 * apart / a) + 1) for a in (1.0, aspect))
    peak = (response == maximum_filter(response, size=size)) & (z > 3.5)
    strong = gaussian_filter(maximum_filter(response, size=size), 4 * sigma)
    peak &= response > 0.2 * strong
    if likely is not None:
        smooth = gaussian_filter(likely, tuple(0.4 * w for w in width))
        peak &= (smooth > 0.2) | (z > 6)  # a dopant the network was never told about stays
        peak |= (smooth == maximum_filter(smooth, size=size)) & (smooth > 0.5)
    yx = np.argwhere(peak).astype(float)
    return _thinned(yx, (likely if likely is not None else z)[peak], apart, aspect)


def _thinned(yx: Array, rank: Array, apart: float, aspect: float) -> Array:
    """Positions, without those that have a better one nearer than `apart`."""
    if len(yx) == 0:
        return yx
    keep = np.ones(len(yx), bool)
    pairs = cKDTree(yx * (1.0, aspect)).query_pairs(apart, output_type="ndarray")
    worse = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    keep[worse] = False
    return yx[keep]


def _start(counts: Array, yx: Array, sigma: float, aspect: float) -> Columns:
    """First guess of all parameters at candidate positions."""
    smooth = gaussian_filter(counts, (0.5 * sigma, 0.5 * sigma / aspect))
    grid = tuple(max(3, 1 + round(n * a / (24 * sigma))) for n, a in zip(counts.shape, (1.0, aspect), strict=True))
    step = max(1, int(sigma / 1.2))
    low = percentile_filter(smooth[::step, ::step], 10, size=max(5, int(10 * sigma / step)))
    nodes = zoom(
        gaussian_filter(low, 6),
        [g / n for g, n in zip(grid, low.shape, strict=True)],
        order=1,
        mode="nearest",
        grid_mode=False,
    )
    columns = Columns(yx, np.ones(len(yx)), np.full(len(yx), sigma), np.zeros(len(yx), np.int64), nodes, aspect)
    at = np.rint(yx).astype(int)
    height = smooth[at[:, 0], at[:, 1]] - columns.background(counts.shape)
    return replace(columns, amplitude=np.maximum(height, 0.1 * np.median(np.abs(height)) + 1e-9))


def _bright(columns: Columns) -> Array:
    """Amplitude of the brighter columns around each column."""
    k = min(25, len(columns.yx))
    _, near = cKDTree(columns.yx).query(columns.yx, k=k)
    return np.asarray(np.percentile(columns.amplitude[near.reshape(-1, k)], 75, axis=1))


def _pruned(columns: Columns, apart: float) -> Columns:
    """Without columns that are too dim, too uncertain, or on top of a brighter one."""
    keep = columns.amplitude > _DIMMEST * _bright(columns)
    if len(columns.covariance):
        keep &= ~(columns.amplitude < 3 * columns.errors[:, 0])
    pairs = cKDTree(columns.yx * (1.0, columns.aspect)).query_pairs(apart, output_type="ndarray")
    a, b = columns.amplitude[pairs[:, 0]], columns.amplitude[pairs[:, 1]]
    keep[np.where(a < b, pairs[:, 0], pairs[:, 1])] = False
    return _taken(columns, keep)


def _taken(columns: Columns, keep: npt.NDArray[np.bool_]) -> Columns:
    names = ["yx", "amplitude", "sigma", "group"] + ["covariance"] * bool(len(columns.covariance))
    return replace(columns, **{name: getattr(columns, name)[keep] for name in names})


def _joined(columns: Columns, yx: Array) -> Columns:
    """With more columns at `yx`."""
    n = len(yx)
    return replace(
        columns,
        yx=np.concatenate([columns.yx, yx]),
        amplitude=np.concatenate([columns.amplitude, np.full(n, 0.3 * np.median(columns.amplitude))]),
        sigma=np.concatenate([columns.sigma, np.full(n, np.median(columns.sigma))]),
        group=np.concatenate([columns.group, np.zeros(n, np.int64)]),
    )


def _left_over(counts: Array, columns: Columns, apart: float) -> Array:
    """Positions of columns in what the fit leaves over: a matched filter, in units of its own noise."""
    model = np.maximum(columns.render(counts.shape, 4.0), 0.02 * counts.mean())
    sigma = float(np.median(columns.sigma))
    width = np.array([sigma, sigma / columns.aspect])
    area = 2 * np.pi * width[0] * width[1]
    score = area * gaussian_filter((counts - model) / model, width)
    information = area / 2 * gaussian_filter(1 / model, width / np.sqrt(2))
    amplitude, z = score / information, score / np.sqrt(information)
    size = tuple(max(3, 2 * int(0.7 * apart / a) + 1) for a in (1.0, columns.aspect))
    peak = (z == maximum_filter(z, size=size)) & (z > 3.6)
    yx = np.argwhere(peak).astype(float)
    if len(yx) == 0:
        return yx
    tree = cKDTree(columns.yx * (1.0, columns.aspect))
    distance, near = tree.query(yx * (1.0, columns.aspect))
    keep = (distance > 1.1 * apart) & (amplitude[peak] > 1.2 * _DIMMEST * _bright(columns)[near])
    return _thinned(yx[keep], z[peak][keep], apart, columns.aspect)


def _table(columns: Columns, counts: Array, noise: Noise, pixel: Array, likely: Array | None) -> pd.DataFrame:
    """Columns in nm and image units, those inside the image; indexed as `columns`."""
    error = columns.errors
    z = np.nan_to_num(columns.amplitude / error[:, 0])
    score = np.minimum(1, columns.amplitude / (0.25 * _bright(columns))) / (1 + np.exp(4 - z))
    if likely is not None:
        at = np.clip(np.rint(columns.yx).astype(int), 0, np.subtract(likely.shape, 1))
        score *= 0.5 + 0.5 * likely[at[:, 0], at[:, 1]]
    shift = (noise.read_noise / noise.gain) ** 2
    table = pd.DataFrame(
        {
            "y_nm": columns.yx[:, 0] * pixel[0],
            "x_nm": columns.yx[:, 1] * pixel[1],
            "y_err_nm": error[:, 1] * pixel[0],
            "x_err_nm": error[:, 2] * pixel[1],
            "sigma_nm": columns.sigma * pixel[0],
            "amplitude": columns.amplitude * noise.gain,
            "amplitude_err": error[:, 0] * noise.gain,
            "background": (columns.background(counts.shape) - shift) * noise.gain + noise.offset,
            "score": np.clip(score, 0, 1),
            "misfit": column_misfit(counts, columns),
        }
    )
    return table[np.all((columns.yx >= -0.5) & (columns.yx <= np.subtract(counts.shape, 0.5)), axis=1)]
