"""A scene, and the tables that tell what is in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from .. import tables
from .graphene import CLUSTERS, KINDS
from .specimen import Array, Specimen


@dataclass(frozen=True)
class Scene:
    """A specimen as the scan sees it.

    Attributes
    ----------
    specimen : Specimen
    seen_px, ideal_px : ndarray, shape (column, 2)
        Where each column, and the lattice's place for it, is seen.
    defect_px : ndarray, shape (defect, 2)
        Where the centres of the defects are seen.
    expected_e : ndarray, shape (y, x)
        Electrons that each pixel expects on the detector.
    """

    specimen: Specimen
    seen_px: Array
    ideal_px: Array
    defect_px: Array
    expected_e: npt.NDArray[np.float32]
    pixel_nm: tuple[float, float]
    frame: int = 0

    def within(self, position_px: Array) -> npt.NDArray[np.bool_]:
        """Whether places (n, 2) lie on the image."""
        inside = (position_px >= -0.5) & (position_px < np.asarray(self.expected_e.shape) - 0.5)
        return np.asarray(inside.all(axis=1))

    @property
    def shown_px(self) -> Array:
        """Where each column is seen, or would be if it is empty."""
        return np.where(self.specimen.column[:, None] > 0, self.seen_px, self.ideal_px)

    @property
    def elements(self) -> npt.NDArray[np.object_]:
        """Occupants of each column: ``Se+Te``."""
        names = np.array(["+".join(column) for column in self.specimen.columns], object)
        return np.asarray(names[self.specimen.column])

    @property
    def sublattices(self) -> npt.NDArray[np.object_]:
        """Name of the sublattice of each column."""
        names = np.array([*(s.name for s in self.specimen.crystal.sublattices), ""], object)
        return np.asarray(names[self.specimen.sublattice])


def true_sites(scene: Scene) -> pd.DataFrame:
    """SITES of the columns within the image, with `species` and `elements`."""
    specimen, pixel = scene.specimen, np.asarray(scene.pixel_nm)
    inside = scene.within(scene.shown_px)
    seen = np.where(specimen.column[:, None] > 0, scene.seen_px * pixel, np.nan)[inside]
    ideal = (scene.ideal_px * pixel)[inside]
    unknown = dict.fromkeys(("y_err_nm", "x_err_nm", "sigma_nm", "amplitude", "amplitude_err", "background"), np.nan)
    table = pd.DataFrame(
        {
            "frame": scene.frame, "y_nm": seen[:, 0], "x_nm": seen[:, 1], **unknown, "score": 1.0,
            "i": specimen.cell[inside, 0], "j": specimen.cell[inside, 1], "sublattice": scene.sublattices[inside],
            "y_ideal_nm": ideal[:, 0], "x_ideal_nm": ideal[:, 1],
            "species": specimen.species[inside], "elements": scene.elements[inside],
        }
    )  # fmt: skip
    return tables.check(table, "sites")


def true_defects(scene: Scene) -> pd.DataFrame:
    """DEFECTS within the image, method ``truth``, with their `track`."""
    specimen, pixel = scene.specimen, np.asarray(scene.pixel_nm)
    inside = np.flatnonzero(scene.within(scene.defect_px))
    found = [specimen.defects[k] for k in inside]
    site = np.array([d.site for d in found], int)
    # A defect of one filled column is where that column is seen; others are where their centre is.
    wide = ("V2", "SW", "Si1C4", *CLUSTERS)
    one = np.array(["+" not in d.species and d.species not in wide for d in found], bool)
    own = one & (specimen.column[site] > 0)
    position = np.where(own[:, None], scene.seen_px[site], scene.defect_px[inside]) * pixel
    table = pd.DataFrame(
        {
            "frame": np.full(len(found), scene.frame), "defect": np.arange(len(found)),
            "y_nm": position[:, 0], "x_nm": position[:, 1],
            "i": specimen.cell[site, 0], "j": specimen.cell[site, 1], "sublattice": scene.sublattices[site],
            "species": np.array([d.species for d in found], object), "probability": 1.0, "method": "truth",
            "track": np.array([d.track for d in found], int),
        }
    )  # fmt: skip
    return tables.check(table, "defects")


def labels(scene: Scene) -> pd.DataFrame:
    """List what a network is to find in a scene: frame, y_nm, x_nm, species, elements."""
    specimen = scene.specimen
    graph = np.isin(specimen.species.astype(str), KINDS)
    used = (specimen.column > 0) | ~graph  # of graphene's empty sites the centre of the defect speaks
    centers = [k for k, d in enumerate(specimen.defects) if d.species in ("V1", "V2", "SW")]
    position = np.concatenate([scene.shown_px[used], scene.defect_px[centers]])
    names = np.where(graph, scene.elements, specimen.species)[used].tolist()
    names += [specimen.defects[k].species for k in centers]
    contents = scene.elements[used].tolist() + [""] * len(centers)
    inside = scene.within(position)
    place = (position * np.asarray(scene.pixel_nm))[inside]
    table = {"frame": 0, "y_nm": place[:, 0], "x_nm": place[:, 1]}
    table |= {k: np.array(v, object)[inside] for k, v in (("species", names), ("elements", contents))}
    return pd.DataFrame(table)
