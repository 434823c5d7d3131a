"""How dark a place is: a vacancy, or an atom that was not found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from ..micrograph import Micrograph

Floats = npt.NDArray[np.float64]

_SMOOTH_NM = 0.04


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
    smooth = gaussian_filter(piece, _SMOOTH_NM / pixel)
    here, rim, dark = (
        map_coordinates(smooth, (np.atleast_2d(p) / pixel - low).T, order=1) for p in (center_nm, rim_nm, near)
    )
    height = max(float(np.median(rim) - np.median(dark)), 1e-12)
    spread = max(1.4826 * float(np.median(np.abs(dark - np.median(dark)))) / height, 0.2)
    filled = float(here[0] - np.median(dark)) / height
    return float(np.exp(np.clip((1 - 2 * filled) / (2 * spread**2), -6, 6)))
