"""The candidates of a class, collected from all images: where they lie, and what is around them."""

from __future__ import annotations

from dataclasses import dataclass

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

    No more than `most` of those that fit are taken, evenly from all images.
    """
    reach = 1.5 * (radius_nm + MARGIN_NM)
    everyone: list[_Candidates] = []
    for table, listed, ground in zip(tables, clusters, grounds, strict=True):
        if species.startswith(PRISTINE):
            assert ground is not None  # average() has seen to it
            own = pristine_sites(ground, table, species.removeprefix(PRISTINE), radius_nm)
        else:
            listed = listed if "@" in species else table
            own = listed[listed["species"] == species].reset_index(drop=True)
        everyone.append(_Candidates.among(own, table, ground, reach, isolation_nm))
    groups: list[tuple[int, int, Rows, Patches]] = []
    rows: list[pd.DataFrame] = []
    pulled = []
    for number, (here, taken) in enumerate(zip(everyone, _drawn([e.why == "" for e in everyone], most), strict=True)):
        here.why[(here.why == "") & ~taken] = "enough others"
        step, first = frames.images[number].pixel_size_yx_nm, sum(len(r) for r in rows)
        for frame in np.unique(here.own["frame"]):
            chosen = np.flatnonzero((here.own["frame"] == frame).to_numpy() & taken)
            inverse = np.linalg.inv(here.maps[chosen])
            others = [(here.apart[k] - here.center[k]) @ inverse[n].T / pixel_nm for n, k in enumerate(chosen)]
            to_grid = inverse * step / pixel_nm
            patches = Patches(here.center[chosen] / step, to_grid, others, here.mask_nm / pixel_nm)
            groups.append((number, int(frame), first + chosen, patches))
        y_nm, x_nm = here.center.T
        seen = here.own.assign(y_nm=np.where(here.why == "enough others", np.nan, y_nm), x_nm=x_nm)
        pulled.append(gradients(grounds[number], seen, here.maps, radius_nm + _AROUND_NM))
        rows.append(here.own.assign(micrograph=number, y_nm=y_nm, x_nm=x_nm, species=species))
    crystal = next((ground.crystal for ground in grounds if ground), None)
    return Stack(
        species=species,
        frames=frames,
        grounds=grounds,
        table=pd.concat(rows, ignore_index=True),
        groups=[group for group in groups if len(group[2])],
        maps=np.concatenate([e.maps for e in everyone]),
        reasons=np.concatenate([e.why for e in everyone]),
        own=[one for e in everyone for one in e.ids],
        gradients=(np.concatenate([g for g, _ in pulled]), np.concatenate([e for _, e in pulled])),
        crystal=crystal,
        pixel=pixel_nm,
        radius=radius_nm,
    )


@dataclass
class _Candidates:
    """Those of one image: where they lie, what else is near, and whom that rules out."""

    own: pd.DataFrame
    center: Array
    maps: Array
    ids: list[tuple[int, ...]]
    apart: list[Array]
    mask_nm: float
    why: npt.NDArray[np.object_]

    @classmethod
    def among(
        cls, own: pd.DataFrame, table: pd.DataFrame, ground: Ground | None, reach_nm: float, isolation_nm: float
    ) -> _Candidates:
        """See what of a table lies within `reach_nm` of each."""
        center, maps = own[["y_nm", "x_nm"]].to_numpy(float), np.tile(np.eye(2), (len(own), 1, 1))
        if ground is not None and len(own):
            center, maps = ground.surroundings(own)
        ids: list[tuple[int, ...]]
        ids = [tuple(p) for p in own["parts"]] if "parts" in own else [(int(d),) for d in own.get("defect", [])]
        ids = ids or [()] * len(own)
        mask = 0.6 * (ground.crystal.nearest_neighbor_nm if ground else 0.2)
        number_of, place = table["defect"].to_numpy(), table[["y_nm", "x_nm"]].to_numpy(float)
        near = neighbors_of(center, own["frame"].to_numpy(), table, reach_nm)
        apart = [_others(number_of[r], place[r], ids[k], center[k], 0.5 * mask) for k, r in enumerate(near)]
        parts = [center[None, k] if len(one) < 2 else place[np.isin(number_of, one)] for k, one in enumerate(ids)]
        nearest = np.array([cdist(*pair).min(initial=np.inf) for pair in zip(parts, apart, strict=True)])
        why = np.where(nearest < isolation_nm, "another defect nearby", "").astype(object)
        why[~np.isfinite(center).all(1) | ~np.isfinite(maps).all((1, 2))] = "off the lattice"
        return cls(own, center, maps, ids, apart, mask, why)


def _drawn(fit: list[npt.NDArray[np.bool_]], most: int | None) -> list[npt.NDArray[np.bool_]]:
    """Which of those of each image that fit to take so that there are no more than `most`, evenly spread."""
    one = np.concatenate(fit)
    total = int(one.sum())
    count = np.cumsum(one) * (total if most is None else min(most, total)) // max(total, 1)
    return np.split(np.diff(count, prepend=0) > 0, np.cumsum([len(f) for f in fit])[:-1])


def _others(defect: Rows, place: Array, own: tuple[int, ...], center: Array, same_nm: float) -> Array:
    """Positions of those defects that are not a member's own."""
    apart = np.hypot(*(place - center).T) > same_nm
    for one in own:
        apart &= defect != one
    return np.asarray(place[apart])
