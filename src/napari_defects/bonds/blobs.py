"""Defects that are no column: maxima of the class maps of vacancies and rotated bonds in graphene."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from ..micrograph import Maps

BLOBS = ("V1", "V2", "SW")
_BLOB_NM = 0.03  # small against the discs that networks draw, so that a sure one keeps its probability
_SEPARATION_NM = 0.35


def blobs_of(maps: Maps, frame: int) -> list[dict[str, Any]]:
    """Maxima of the smoothed maps of each class, the strongest within reach of each other."""
    step = np.broadcast_to(np.asarray(maps.pixel_size_nm, float), (2,))
    found = []
    for name in (c for c in BLOBS if c in maps.classes):
        plane = np.asarray(maps.frame(frame)[maps.classes.index(name)], np.float32)
        smooth = ndimage.gaussian_filter(plane, _BLOB_NM / step)
        size = np.maximum(3, 2 * np.rint(0.5 * _SEPARATION_NM / step).astype(int) + 1)
        top = (ndimage.maximum_filter(smooth, size=tuple(size)) == smooth) & (smooth > 0.1)
        for y, x in np.argwhere(top):
            found.append(
                {"y_nm": y * step[0], "x_nm": x * step[1], "species": name, "probability": float(smooth[y, x])}
            )
    found.sort(key=lambda blob: -float(blob["probability"]))
    kept: list[dict[str, Any]] = []
    for blob in found:
        if all(np.hypot(blob["y_nm"] - k["y_nm"], blob["x_nm"] - k["x_nm"]) > _SEPARATION_NM for k in kept):
            kept.append(blob)
    return kept
