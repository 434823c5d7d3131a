"""The candidates of a class, collected from all images: where they lie, and what is around them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.distance import cdist

from .members import Ground, neighbors_of, pristine_sites
from .registration import Patches
from .screening import gradients
from .stacks import MARGIN_NM, Frames, Stack

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

PRISTINE = "pristine:"
_AROUND_NM = 0.4  # beyond the patch, where strain from elsewhere is looked for


def gather(
    species: str, frames: Frames, tables: list[pd.DataFrame], grounds: list[Ground | None],
    pixel_nm: float, radius_nm: float, isolation_nm: float, clusters: list[pd.DataFrame], most: int | None = None,
) -> Stack:  # fmt: skip
    """Find the members of a species or class of `clusters`, the crystal's frame around each, and its neighbours.

    No more than `most` are taken, evenly from all images.
    """
    kind = species.removeprefix(PRISTINE)
    candidates = []
    for table, listed, ground in zip(tables, clusters, grounds, strict=True):
        if kind != species:
            if ground is None:
                raise ValueError("`sites` must be given to average pristine columns; run assign_sites() first.")
            candidates.append(pristine_sites(ground, table, kind, radius_nm))
        else:
            listed = listed if "@" in species else table
            candidates.append(listed[listed["species"] == species].reset_index(drop=True))
    drawn = _drawn([len(own) for own in candidates], most)
    rows: list[pd.DataFrame] = []
    groups: list[tuple[int, int, Rows, Patches]] = []
    maps, reasons, pulled = [], [], []
    owners: list[tuple[int, ...]] = []
    for number, (image, table, ground) in enumerate(zip(frames.images, tables, grounds, strict=True)):
        own, taken = candidates[number], drawn[number]
        center, to_image = own[["y_nm", "x_nm"]].to_numpy(float), np.tile(np.eye(2), (len(own), 1, 1))
        if ground is not None and len(own):
            center, to_image = ground.surroundings(own)
        ids = [tuple(p) for p in own["parts"]] if "parts" in own else [(int(d),) for d in own.get("defect", [])]
        ids = ids or [()] * len(own)
        mask = 0.6 * (ground.crystal.nearest_neighbor_nm if ground else 0.2)
        near = neighbors_of(center, own["frame"].to_numpy(), table, 1.5 * (radius_nm + MARGIN_NM))
        number_of, place = table["defect"].to_numpy(), table[["y_nm", "x_nm"]].to_numpy(float)
        near = [r if taken[k] else r[:0] for k, r in enumerate(near)]
        apart = [_others(number_of[r], place[r], ids[k], center[k], 0.5 * mask) for k, r in enumerate(near)]
        parts = [center[None, k] if len(one) < 2 else place[np.isin(number_of, one)] for k, one in enumerate(ids)]
        nearest = np.array([cdist(*pair).min(initial=np.inf) for pair in zip(parts, apart, strict=True)])
        lost = ~np.isfinite(center).all(1) | ~np.isfinite(to_image).all((1, 2))
        why = np.where(nearest < isolation_nm, "another defect nearby", "").astype(object)
        why[lost] = "off the lattice"
        why[~taken] = "enough others"
        step = image.pixel_size_yx_nm
        first = sum(len(r) for r in rows)
        for frame in np.unique(own["frame"]):
            here = np.flatnonzero((own["frame"] == frame).to_numpy() & (why == ""))
            inverse = np.linalg.inv(to_image[here])
            others = [(apart[k] - center[k]) @ inverse[n].T / pixel_nm for n, k in enumerate(here)]
            patches = Patches(center[here] / step, inverse * step / pixel_nm, others, mask / pixel_nm)
            groups.append((number, int(frame), first + here, patches))
        seen = own.assign(y_nm=np.where(taken, center[:, 0], np.nan), x_nm=center[:, 1])
        pulled.append(gradients(ground, seen, to_image, radius_nm + _AROUND_NM))
        rows.append(own.assign(micrograph=number, y_nm=center[:, 0], x_nm=center[:, 1], species=species))
        maps.append(to_image)
        reasons.append(why)
        owners += ids
    crystal = next((ground.crystal for ground in grounds if ground), None)
    return Stack(
        species=species,
        frames=frames,
        grounds=grounds,
        table=pd.concat(rows, ignore_index=True),
        groups=[group for group in groups if len(group[2])],
        maps=np.concatenate(maps),
        reasons=np.concatenate(reasons),
        own=owners,
        gradients=(np.concatenate([g for g, _ in pulled]), np.concatenate([e for _, e in pulled])),
        crystal=crystal,
        pixel=pixel_nm,
        radius=radius_nm,
    )


def _drawn(numbers: list[int], most: int | None) -> list[npt.NDArray[np.bool_]]:
    """Which candidates of each image to take so that there are no more than `most`, evenly spread."""
    total = sum(numbers)
    count = np.arange(total + 1) * (total if most is None else min(most, total)) // max(total, 1)
    return np.split(np.diff(count) > 0, np.cumsum(numbers)[:-1])


def _others(defect: Rows, place: Array, own: tuple[int, ...], center: Array, same_nm: float) -> Array:
    """Positions of those defects that are not a member's own."""
    apart = np.hypot(*(place - center).T) > same_nm
    for one in own:
        apart &= defect != one
    return np.asarray(place[apart])
