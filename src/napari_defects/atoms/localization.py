"""Columns of an image: found, fitted together, and given an honest error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_defects import tables
from napari_defects.atoms import detection
from napari_defects.atoms.blocks import Block, blocks
from napari_defects.atoms.jitter import estimate_jitter, straighten
from napari_defects.atoms.tremor import tremor_error
from napari_defects.checks import check_choice, check_range
from napari_defects.gaussian import (
    Columns,
    Profile,
    column_misfit,
    fit_columns,
    in_turn,
    local_excess,
    measure_ellipse,
    measure_profile,
)
from napari_defects.micrograph import Maps, Micrograph, Progress, check_micrograph
from napari_defects.noise import Noise, column_scale_px, from_pixels
from napari_defects.tables import Atoms

Array = npt.NDArray[np.float64]

Shape = Literal["round", "elliptical", "measured"]

_SMALLEST_NM = 0.025  # width of a column; the largest is five times that
_USUAL_NM = 0.055  # width of a column at atomic resolution
_FINE_PX = 6.0  # jitter differs from line to line: lines are fitted one by one


def locate(
    micrograph: Micrograph,
    *,
    column_sigma_nm: float | None = None,
    min_separation_nm: float | None = None,
    threshold: float = 3.5,
    shape: Shape = "round",
    maps: Maps | None = None,
    device: str | None = None,
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
    threshold : float
        How far a candidate must stand out of the noise, in sigma of it. The fit has the last word.
    shape : {'round', 'elliptical', 'measured'}
        Shape of all columns: a Gaussian, one of the ellipse that fits best (astigmatism), or the shape that the
        columns of the image itself show, tails and all.
    maps : Maps, optional
        Class probabilities on the pixels of `micrograph`: columns are looked for where a network
        sees one, and scored by it.
    device : str, optional
        'cuda', 'mps' or 'cpu': where torch does the joint fit, to the same result within a small part of its
        errors; loops compiled for the processor do it when None.
    progress : callable, optional
        ``progress(done, total)`` over frames, and over the blocks of which large ones are made.

    Returns
    -------
    Atoms
        One row per column, in all frames. Errors are 1 sigma with all neighbours free: of counting
        noise, more where dirt or the columns' shape leave more than that unexplained, and of how the
        beam trembled; that of x holds what is left of the line jitter, which is taken out. `misfit`, an
        additional column, is the mean squared residual under a column in units of its noise. ``attrs``
        has ``line_jitter_pm`` and ``tremor_pm`` (rms) and ``electrons_per_px`` (mean), one number a
        frame, and ``column_shape``. Images of more than 3072 pixels a side are fitted in overlapping
        blocks, so that memory does not grow.

    Raises
    ------
    ValueError
        If the pixel size is not known, an argument is out of range, the maps do not fit, or the device is not there.
    """
    check_micrograph(micrograph)
    pixel = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    for name, value in (("column_sigma_nm", column_sigma_nm), ("min_separation_nm", min_separation_nm)):
        if value is not None:
            check_range(name, value, pixel.min() / 4, float(micrograph.extent_nm.max()) / 4, hint="leave it None")
    check_choice("shape", shape, get_args(Shape))
    check_range("threshold", threshold, 0, 100, above=True, hint="in sigma of the noise; 3.5 suits most images")
    if maps is not None and tuple(maps.data.shape[-2:]) != micrograph.shape_yx:
        raise ValueError(
            f"`maps` are {maps.data.shape[-2]} x {maps.data.shape[-1]} px but the image is "
            f"{micrograph.shape_yx[0]} x {micrograph.shape_yx[1]}; predict them from this image."
        )

    fit = _fit_on(device)
    jobs = list(product(range(micrograph.n_frames), blocks(micrograph.shape_yx)))

    def one(job: tuple[int, Block]) -> tuple[pd.DataFrame, dict[str, float]]:
        index, block = job
        likely = None if maps is None else column_probability(maps, index)[block.pixels]
        scene = Scene.of(micrograph.frame(index)[block.pixels], pixel, column_sigma_nm, min_separation_nm)
        table, note = _locate(scene, pixel, threshold, likely, shape, fit)
        return block.placed(table, pixel).assign(frame=index), note

    found: list[pd.DataFrame] = []
    notes: list[dict[str, float]] = []
    with closing(in_turn(one, jobs)) as results:
        for table, note in results:
            if progress is not None:
                progress(len(found), len(jobs))
            found.append(table)
            notes.append(note)
    if progress is not None:
        progress(len(jobs), len(jobs))
    atoms = tables.check(pd.concat([f for f in found if len(f)] or found[:1], ignore_index=True), "atoms")
    atoms = atoms.sort_values(["frame", "y_nm", "x_nm"], kind="stable", ignore_index=True)  # down the image
    of_frames = np.array_split(np.array(notes, object), micrograph.n_frames)
    for key in ("line_jitter_pm", "tremor_pm", "electrons_per_px"):
        atoms.attrs[key] = [float(np.mean([note.get(key, 0.0) for note in some])) for some in of_frames]
    atoms.attrs["column_shape"] = shape
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


class Scene(NamedTuple):
    """A frame in counts, and the scale of its columns in pixels along y: all that detection needs."""

    counts: Array
    noise: Noise
    sigma: float
    aspect: float
    apart: float

    @classmethod
    def of(
        cls, image: npt.NDArray[Any], pixel: Array, column_sigma_nm: float | None, min_separation_nm: float | None
    ) -> Scene:
        """Measure noise and the width of a column where it is not given."""
        smallest = max(_SMALLEST_NM, 0.8 * pixel.max())
        scale = column_sigma_nm or column_scale_px(image, (pixel[0], pixel[1]), smallest, _USUAL_NM)
        noise = from_pixels(image, scale / pixel.max())
        sigma = float(scale / pixel[0])
        apart = float(min_separation_nm / pixel[0]) if min_separation_nm else 1.8 * sigma
        return cls(noise.counts(image), noise, sigma, float(pixel[1] / pixel[0]), apart)


class Candidates(NamedTuple):
    """Places that may be columns, before any fit: quick to look through while a threshold is chosen."""

    peaks: detection.Peaks
    scene: Scene
    pixel_nm: Array

    def above(self, threshold: float) -> Array:
        """Positions (y, x) in nm of those that stand out of the noise by `threshold` sigma, shape (n, 2)."""
        return self.peaks.above(threshold, self.scene.apart, self.scene.aspect) * self.pixel_nm


def candidates(
    micrograph: Micrograph,
    *,
    frame: int = 0,
    column_sigma_nm: float | None = None,
    min_separation_nm: float | None = None,
) -> Candidates:
    """Find what `locate` begins with in one frame, for all thresholds at once.

    Parameters
    ----------
    micrograph : Micrograph
    frame : int
    column_sigma_nm, min_separation_nm : float, optional
        As in `locate`.
    """
    pixel = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    scene = Scene.of(micrograph.frame(frame), pixel, column_sigma_nm, min_separation_nm)
    return Candidates(detection.maxima(scene.counts, scene.sigma, scene.aspect, scene.apart), scene, pixel)


def _fit_on(device: str | None) -> Callable[..., Columns]:
    """Return `fit_columns` on a device; torch is loaded only where one is asked for."""
    if device is None:
        return fit_columns
    from napari_defects.networks.devices import pick_device

    return partial(fit_columns, device=pick_device(device))


def _locate(
    scene: Scene, pixel: Array, threshold: float, likely: Array | None, shape: Shape, fit: Callable[..., Columns]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """`locate` for one block of a frame, in nm from its corner."""
    counts, noise, sigma, aspect, apart = scene
    yx = detection.maxima(counts, sigma, aspect, apart, likely).above(threshold, apart, aspect)
    if len(yx) == 0:
        return tables.empty("atoms"), {}
    columns = fit(counts, detection.first_guess(counts, yx, sigma, aspect), polish=False, steps=4, errors=False)
    for _ in range(2):
        columns = detection.pruned(columns, apart)
        more = detection.left_over(counts, columns, apart)
        if len(more) == 0:
            break
        columns = fit(counts, detection.joined(columns, more), polish=False, steps=3, errors=False)
    columns = detection.pruned(fit(counts, detection.pruned(columns, apart), fine_px=_FINE_PX), apart)
    if likely is not None:
        columns = detection.believed(columns, likely)
    if len(columns.yx) == 0:
        return tables.empty("atoms"), {}
    jitter = estimate_jitter(counts, columns)
    if jitter.rms_px > 0:
        counts = straighten(counts, jitter.offset_px)
    fitted = fit(counts, detection.continued(columns, counts.shape, apart), coarse=False, fine_px=_FINE_PX)
    for _ in range(2 if shape != "round" else 0):
        profile = measured_shape(counts, fitted, shape)
        fitted = fit(counts, replace(fitted, profile=profile), coarse=False, fine_px=_FINE_PX)
    columns = fitted.taken(np.arange(len(fitted.yx)) < len(columns.yx))
    table = _table(columns, counts, noise, pixel, likely)
    moved, tremor = tremor_error(counts, columns)
    moved[:, 1] = np.hypot(moved[:, 1], jitter.column_error_px)
    for axis, name in enumerate(("y_err_nm", "x_err_nm")):
        table[name] = np.hypot(table[name], moved[table.index, axis] * pixel[axis])
    return table, {
        "line_jitter_pm": 1e3 * pixel[1] * jitter.rms_px,
        "tremor_pm": 1e3 * float(np.hypot(*(tremor * pixel))) / np.sqrt(2),
        "electrons_per_px": noise.electrons_per_px,
    }


def measured_shape(counts: Array, columns: Columns, shape: Shape) -> Profile:
    """Profile of fitted columns, as the `shape` of `locate` has it."""
    if shape == "measured":
        return measure_profile(counts, columns)
    return measure_ellipse(counts, columns)[0] if shape == "elliptical" else columns.profile


def _table(columns: Columns, counts: Array, noise: Noise, pixel: Array, likely: Array | None) -> pd.DataFrame:
    """Columns in nm and image units, those inside the image; indexed as `columns`."""
    error = columns.errors * local_excess(counts, columns)[:, None]
    z = np.nan_to_num(columns.amplitude / error[:, 0])
    score = np.minimum(1, columns.amplitude / (0.25 * detection.bright(columns))) / (1 + np.exp(4 - z))
    if likely is not None:
        score *= 0.5 + 0.5 * detection.sampled(likely, columns.yx)
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
