"""From a table of atoms back to the model of its image, and what follows from that: residual, bound, line offsets."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_defects import tables
from napari_defects.atoms.detection import continued, joined
from napari_defects.atoms.jitter import estimate_jitter
from napari_defects.atoms.localization import measured_shape
from napari_defects.gaussian import Columns, Pixels, background_grid, covariance, hat
from napari_defects.micrograph import Micrograph
from napari_defects.noise import Noise, column_scale_px, from_pixels
from napari_defects.tables import Atoms

Array = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """One frame in counts, and the columns of a table in it, in pixels and counts, with a background fitted anew.

    Those just outside the image, which no table has, come last.
    """

    counts: Array
    columns: Columns
    noise: Noise
    kept: npt.NDArray[np.bool_]
    pixel_nm: Array


def measured(micrograph: Micrograph, atoms: Atoms, frame: int = 0) -> Measured:
    """Columns of a frame as the table has them; `kept` marks its rows among those of `atoms`."""
    pixel, image = np.asarray(micrograph.pixel_size_yx_nm, np.float64), micrograph.frame(frame)
    whole = atoms[["y_nm", "x_nm", "sigma_nm", "amplitude"]].notna().all(axis=1)
    kept = ((atoms["frame"] == frame) & whole).to_numpy()
    own = atoms[kept]
    width = float(own["sigma_nm"].median() / pixel.max()) if len(own) else column_scale_px(image)
    noise = from_pixels(image, width)
    counts = noise.counts(image)
    grid = background_grid(image.shape, width * float(pixel.max() / pixel[0]), float(pixel[1] / pixel[0]))
    down, right = (hat(n, nodes) for n, nodes in zip(image.shape, grid, strict=True))
    columns = Columns(
        tables.positions_nm(own) / pixel,
        own["amplitude"].to_numpy(float) / noise.gain,
        own["sigma_nm"].to_numpy(float) / pixel[0],
        np.zeros(len(own), np.int64),
        np.zeros((down.shape[1], right.shape[1])),
        float(pixel[1] / pixel[0]),
    )
    beyond = continued(columns, image.shape, 1.8 * columns.width) if len(own) else columns
    beyond = beyond.taken(np.arange(len(beyond.yx)) >= len(own))
    columns = joined(columns, beyond.yx, beyond.amplitude)
    left = counts - columns.render(image.shape)
    y, x = (slice(m, n - m) for n in image.shape for m in [int(min(4 * width, n / 4))])  # others' tails reach the rim
    nodes = np.linalg.pinv(down[y]) @ left[y, x] @ np.linalg.pinv(right[x]).T
    columns = replace(columns, nodes=nodes)
    profile = measured_shape(counts, columns, atoms.attrs.get("column_shape", "round")) if len(own) else columns.profile
    return Measured(counts, replace(columns, profile=profile), noise, kept, pixel)


def residual(micrograph: Micrograph, atoms: Atoms) -> Micrograph:
    """Show what the columns do not explain, in units of the noise.

    Parameters
    ----------
    micrograph : Micrograph
    atoms : Atoms
        Located in it.

    Returns
    -------
    Micrograph
        (image - model) / noise, same shape and pixels as `micrograph`; the background is fitted anew.
    """
    atoms = Atoms(tables.check(atoms, "atoms"))
    result = np.empty(micrograph.data.shape, np.float32)
    for index in range(micrograph.n_frames):
        counts, columns, *_ = measured(micrograph, atoms, index)
        model = columns.render(counts.shape)
        level = np.maximum(model, 0.02 * float(np.mean(counts)))
        result[index if micrograph.is_movie else ...] = (counts - model) / np.sqrt(level)
    return replace(micrograph, data=result, metadata={**micrograph.metadata, "residual": "in units of the noise"})


def bound(micrograph: Micrograph, atoms: Atoms) -> Array:
    """Precision that counting allows at best for the columns of a table: the Cramér–Rao bound at their own counts.

    Parameters
    ----------
    micrograph : Micrograph
    atoms : Atoms
        Located in it.

    Returns
    -------
    ndarray, shape (atom, 2)
        1 sigma of y and x in nm, all neighbours being unknown; NaN for rows without a position.
    """
    atoms = Atoms(tables.check(atoms, "atoms"))
    result = np.full((len(atoms), 2), np.nan)
    for index in np.unique(atoms["frame"]).tolist():
        counts, columns, _, kept, pixel = measured(micrograph, atoms, index)
        if kept.any():
            error = replace(columns, covariance=covariance(Pixels(counts, columns.nodes.shape), columns)).errors
            result[kept] = error[: kept.sum(), 1:3] * pixel
    return result


def line_offsets(
    micrograph: Micrograph, atoms: Atoms, *, frame: int = 0, line_time_s: float | None = None
) -> pd.DataFrame:
    """Offset of every scan line, and their spectrum: mains hum and vibration stand out of it as lines.

    Parameters
    ----------
    micrograph : Micrograph
    atoms : Atoms
        Located in it.
    frame : int
        Frame of a movie.
    line_time_s : float, optional
        Time from one line to the next, flyback included; without it frequencies are in cycles per line alone.

    Returns
    -------
    DataFrame
        One row per line: `line`, `offset_pm` (positive where it shows its columns too far right). ``attrs["spectrum"]``
        is a second one: `per_line` (cycles per line), `frequency_Hz`, `amplitude_pm` of a sine of that frequency, and
        `above`, its power over that of the frequencies around (NaN where columns hide it). What varies more slowly
        than a column is high stays with the columns: drift is not in it. ``attrs["rms_pm"]`` is the strength of the
        jitter.

    Raises
    ------
    ValueError
        If `line_time_s` is not positive.
    """
    if line_time_s is not None and not line_time_s > 0:
        raise ValueError(f"`line_time_s` must be positive, got {line_time_s}; leave it None where it is not known.")
    counts, columns, *_, pixel = measured(micrograph, Atoms(tables.check(atoms, "atoms")), frame)
    jitter = estimate_jitter(counts, columns)
    offset = 1e3 * pixel[1] * jitter.offset_px
    window = np.hanning(len(offset))
    amplitude = 2 * np.abs(np.fft.rfft(offset * window)) / window.sum()
    power = amplitude**2
    around = np.array([np.median(power[max(0, k - 25) : k + 26]) for k in range(len(power))])
    per_line = np.fft.rfftfreq(len(offset))
    spectrum = pd.DataFrame(
        {
            "per_line": per_line,
            "frequency_Hz": per_line / line_time_s if line_time_s else np.full(len(per_line), np.nan),
            "amplitude_pm": amplitude,
            "above": np.where(per_line > 0.25 / columns.width, power / np.maximum(around, 1e-12), np.nan),
        }
    )
    lines = pd.DataFrame({"line": np.arange(len(offset)), "offset_pm": offset})
    lines.attrs.update(spectrum=spectrum, rms_pm=float(1e3 * pixel[1] * jitter.rms_px))
    return lines
