"""The pixel size, measured on the lattice."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ..crystals import Crystal, get_crystal
from ..micrograph import Micrograph, check_micrograph
from .phasing import measure_pixel, some
from .reciprocal import PEAK_POWER, find_period

log = logging.getLogger(__name__)


def calibrate(micrograph: Micrograph, crystal: str | Crystal) -> Micrograph:
    """Measure the pixel size on the lattice in the image's power spectrum.

    Parameters
    ----------
    micrograph : Micrograph
        Its own pixel size may be missing or wrong; only the ratio of its two sides is kept. Blank frames of
        a movie are left out.
    crystal : str or Crystal

    Returns
    -------
    Micrograph
        The same pixels with the pixel size that gives the crystal's unit cell its area. What was stated before
        is kept as ``metadata["stated_pixel_size_nm"]``.

    Raises
    ------
    ValueError
        If every frame is blank, or the power spectrum shows no lattice of the crystal's shape.
    """
    check_micrograph(micrograph)
    crystal = get_crystal(crystal)
    stated = micrograph.pixel_size_nm
    sides = np.ones(2) if stated is None else micrograph.pixel_size_yx_nm
    if all(len(s.column) == 1 for s in crystal.sublattices):  # dim atoms: all reflections together, with their phases
        ratio = measure_pixel(micrograph, crystal) / float(np.sqrt(sides.prod()))
    else:
        frames = some(micrograph.seen_frames(), 16)
        images = [micrograph.frame(n).astype(float) for n in frames]
        vectors_px = find_period(images, crystal, np.asarray(sides, np.float64))
        if vectors_px is None:
            raise ValueError(
                f"no lattice of {crystal.name} found: no peaks of its shape above {PEAK_POWER:g} times the noise in "
                "the power spectrum; is it the right image and crystal, in focus, at atomic resolution?"
            )
        ratio = float(np.sqrt(crystal.cell_area_nm2 / abs(np.linalg.det(vectors_px * sides))))
    measured = ratio * sides
    if stated is not None and abs(ratio - 1) > 0.01:
        log.info("pixel size %s nm in the file, %.5g nm by the lattice of %s", stated, measured[1], crystal.name)
    square = stated is None or isinstance(stated, float)
    calibrated = micrograph.with_pixel_size(float(measured[0]) if square else (float(measured[0]), float(measured[1])))
    return replace(calibrated, metadata={**micrograph.metadata, "stated_pixel_size_nm": stated})
