"""What the columns do not explain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_defects import tables
from napari_defects.gaussian import Columns, hat
from napari_defects.micrograph import Micrograph
from napari_defects.noise import column_scale_px, from_pixels
from napari_defects.tables import Atoms


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
    pixel = np.asarray(micrograph.pixel_size_yx_nm, np.float64)
    result = np.empty(micrograph.data.shape, np.float32)
    for index in range(micrograph.n_frames):
        image = micrograph.frame(index)
        own = atoms[(atoms["frame"] == index) & atoms[["y_nm", "x_nm", "sigma_nm", "amplitude"]].notna().all(axis=1)]
        width = float(own["sigma_nm"].median() / pixel.max()) if len(own) else column_scale_px(image)
        noise = from_pixels(image, width)
        counts = noise.counts(image)
        grid = tuple(max(3, 1 + round(n / (24 * width))) for n in image.shape)
        columns = Columns(
            tables.positions_nm(own) / pixel,
            own["amplitude"].to_numpy(float) / noise.gain,
            own["sigma_nm"].to_numpy(float) / pixel[0],
            np.zeros(len(own), np.int64),
            np.zeros(grid),
            float(pixel[1] / pixel[0]),
        )
        drawn = columns.render(image.shape) if len(own) else np.zeros(image.shape)
        down, right = (hat(n, g) for n, g in zip(image.shape, grid, strict=True))
        model = drawn + down @ np.linalg.pinv(down) @ (counts - drawn) @ np.linalg.pinv(right).T @ right.T
        level = np.maximum(model, 0.02 * float(np.mean(counts)))
        result[index if micrograph.is_movie else ...] = (counts - model) / np.sqrt(level)
    return replace(micrograph, data=result, metadata={**micrograph.metadata, "residual": "in units of the noise"})
