"""The candidates of a class, collected from all images: where they lie, and what is around them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..micrograph import Micrograph
from .members import Ground, neighbors_of, pristine_sites
from .registration import Patches
from .stacks import MARGIN_NM, Stack

Rows = npt.NDArray[np.int64]

PRISTINE = "pristine:"


def gather(
    species: str, images: list[Micrograph], tables: list[pd.DataFrame], grounds: list[Ground | None],
    pixel_nm: float, radius_nm: float, isolation_nm: float,
) -> Stack:  # fmt: skip
    """Find the members of a species, the crystal's frame around each, and its neighbours."""
    kind = species.removeprefix(PRISTINE)
    rows: list[pd.DataFrame] = []
    groups: list[tuple[int, int, Rows, Patches]] = []
    maps, reasons = [], []
    for number, (image, table, ground) in enumerate(zip(images, tables, grounds, strict=True)):
        if kind != species:
            if ground is None:
                raise ValueError("`sites` must be given to average pristine columns; run assign_sites() first.")
            own = pristine_sites(ground, table, kind, radius_nm)
        else:
            own = table[table["species"] == species].reset_index(drop=True)
        center, to_image = own[["y_nm", "x_nm"]].to_numpy(float), np.tile(np.eye(2), (len(own), 1, 1))
        if ground is not None and len(own):
            center, to_image = ground.surroundings(own)
        mask = 0.6 * (ground.crystal.nearest_neighbor_nm if ground else 0.2)
        apart = neighbors_of(center, own["frame"].to_numpy(), table, 1.5 * (radius_nm + MARGIN_NM))
        apart = [near[np.linalg.norm(near - c, axis=1) > 0.5 * mask] for near, c in zip(apart, center, strict=True)]
        nearest = np.array(
            [np.linalg.norm(near - c, axis=1).min(initial=np.inf) for near, c in zip(apart, center, strict=True)]
        )
        lost = ~np.isfinite(center).all(1) | ~np.isfinite(to_image).all((1, 2))
        why = np.where(nearest < isolation_nm, "another defect nearby", "").astype(object)
        why[lost] = "off the lattice"
        step = image.pixel_size_yx_nm
        first = sum(len(r) for r in rows)
        for frame in np.unique(own["frame"]):
            here = np.flatnonzero((own["frame"] == frame).to_numpy() & (why == ""))
            inverse = np.linalg.inv(to_image[here])
            others = [(apart[k] - center[k]) @ inverse[n].T / pixel_nm for n, k in enumerate(here)]
            patches = Patches(center[here] / step, inverse * step / pixel_nm, others, mask / pixel_nm)
            groups.append((number, int(frame), first + here, patches))
        rows.append(own.assign(micrograph=number, y_nm=center[:, 0], x_nm=center[:, 1], species=species))
        maps.append(to_image)
        reasons.append(why)
    crystal = next((ground.crystal for ground in grounds if ground), None)
    return Stack(
        species=species,
        images=images,
        grounds=grounds,
        table=pd.concat(rows, ignore_index=True),
        groups=[group for group in groups if len(group[2])],
        maps=np.concatenate(maps),
        reasons=np.concatenate(reasons),
        crystal=crystal,
        pixel=pixel_nm,
        radius=radius_nm,
    )
