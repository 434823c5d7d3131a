"""Labelled pictures of cells to learn from: simulated images cut where their cells truly are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..crystals import Crystal
from ..micrograph import Micrograph, Progress
from ..networks.preparation import prepare
from ..simulation import Conditions
from ..simulation.dataset import draw_scene
from ..simulation.truth import true_sites
from .kinds import Array, Indices, cells_of, frame_of, kinds_of, number_of
from .patches import CELL_SIZE, Image, cut, turns
from .typical import Typical, some

MOST_OF_AN_IMAGE = 128
_ERRORS = (0.03, 0.01, 0.015)  # at most: of sites in lattice constants, of scale, of rotation in rad


@dataclass(frozen=True)
class Examples:
    """Pictures (cell, inputs, side, side) in half precision, kinds, doses in e/Å^2, and which image they are of."""

    pictures: npt.NDArray[np.float16]
    kinds: Indices
    doses: Array
    images: Indices

    @classmethod
    def joined(cls, parts: Iterable[Examples]) -> Examples:
        """Put parts together."""
        columns = zip(*((p.pictures, p.kinds, p.doses, p.images) for p in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


def conditions_for(crystal: Crystal, given: Conditions | None = None) -> Conditions:
    """Conditions under which all six kinds of cells occur, most of them perfect."""
    start = given or replace(Conditions.for_crystal(crystal), defect_fraction=(0.03, 0.3), dose_e_per_A2=(3e3, 5e5))
    return replace(start, species=kinds_of(crystal)[1:], empty=0.0, grained=0.0)


def scenes(
    crystal: Crystal, n: int, seed: int, conditions: Conditions, shape: tuple[int, int] = (256, 256)
) -> Iterator[tuple[Micrograph, pd.DataFrame]]:
    """Yield simulated micrographs, each with the true table of its cells (`true_cells`)."""
    for index in range(n):
        micrograph, scene, _ = draw_scene(crystal, shape, conditions, seed, index)
        yield micrograph, true_cells(true_sites(scene), crystal)


def true_cells(sites: pd.DataFrame, crystal: Crystal) -> pd.DataFrame:
    """Cells of a table of true sites (with `elements`), and ``kind``: which of the six each is."""
    atoms = sites["elements"].astype(str).map(lambda names: len(names.split("+")) if names else 0).to_numpy()
    cells = cells_of(sites, crystal)
    metal, chalcogen = atoms[cells["row_M"].to_numpy()], atoms[cells["row_X"].to_numpy()]
    return cells.assign(kind=number_of(2 - np.minimum(chalcogen, 2), 1 - np.minimum(metal, 1)))


def simulated(
    crystal: Crystal,
    architecture: Mapping[str, Any],
    *,
    px_per_a: float,
    n_images: int,
    seed: int,
    conditions: Conditions | None = None,
    shape: tuple[int, int] = (256, 256),
    position_error: float = _ERRORS[0],
    progress: Progress | None = None,
) -> Examples:
    """Pictures of the cells of simulated images, cut as in use: a little off, a little turned.

    Parameters
    ----------
    crystal : Crystal
    architecture : mapping
        Of the network that will see them.
    px_per_a : float
        Pixels per lattice constant of the prepared image.
    n_images, seed
        Which images of the stream.
    conditions : Conditions, optional
    shape : (int, int)
    position_error : float
        Largest rms error of the sites, in lattice constants.
    progress : callable, optional
    """
    parts = []
    stream = scenes(crystal, n_images, seed, conditions_for(crystal, conditions), shape)
    for index, (micrograph, cells) in enumerate(stream):
        rng = np.random.default_rng([seed, index, 1])
        if len(cells) >= 12:
            parts.append(_of_one(micrograph, cells, crystal, architecture, px_per_a, position_error, index, rng))
        if progress is not None:
            progress(index + 1, n_images)
    return Examples.joined(parts)


def prepared(micrograph: Micrograph, frame_nm: Array, crystal: Crystal, px_per_a: float, index: int = 0) -> tuple[
    Image, float, Array
]:  # fmt: skip
    """Normalize an image at a fixed number of pixels per lattice constant, as its own lattice has it.

    Returns
    -------
    image : ndarray, shape (y, x)
    pixel_nm : float
    frame_px : ndarray, shape (2, 2)
        ``offset @ frame_px`` turns an offset in lattice constants in the crystal's frame into pixels of `image`.
    """
    pixel_nm = crystal.a_nm * float(np.sqrt(abs(np.linalg.det(frame_nm)))) / px_per_a
    return prepare(micrograph, pixel_nm, frame=index), pixel_nm, frame_nm * crystal.a_nm / pixel_nm


def sites_nm(cells: pd.DataFrame) -> Array:
    """Positions of the sites of cells, shape (cell, 2, 2): metal and chalcogen, (y, x)."""
    return cells[["y_M", "x_M", "y_X", "x_X"]].to_numpy(float).reshape(-1, 2, 2)


def _of_one(
    micrograph: Micrograph, cells: pd.DataFrame, crystal: Crystal, architecture: Mapping[str, Any], px_per_a: float,
    position_error: float, index: int, rng: np.random.Generator,
) -> Examples:  # fmt: skip
    image, pixel_nm, frame_px = prepared(micrograph, frame_of(cells, crystal), crystal, px_per_a)
    kinds, inputs = cells["kind"].to_numpy(), int(architecture["inputs"])
    chosen = rng.permutation(len(cells))
    others = chosen[some(len(chosen), int(architecture["side_px"]))]
    bad = chosen[kinds[chosen] > 0][: 3 * MOST_OF_AN_IMAGE // 4]
    chosen = np.concatenate([bad, chosen[kinds[chosen] == 0]])[:MOST_OF_AN_IMAGE]
    n = len(chosen)
    error = rng.uniform(0, position_error) * px_per_a
    sites_px = sites_nm(cells) / pixel_nm
    sites_px = sites_px + rng.normal(0, error, (len(cells), 1, 2)) + rng.normal(0, 0.3 * error, (len(cells), 2, 2))
    angle, scale = rng.uniform(-_ERRORS[2], _ERRORS[2], n), 1 + rng.uniform(-_ERRORS[1], _ERRORS[1], n)
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    frames = scale[:, None, None] * (turn @ frame_px)
    sizes = CELL_SIZE * (1 + rng.normal(0, 2 * error / px_per_a, (n, 2)))
    operations = turns() if architecture["kind"] == "patches" and inputs > 1 else [np.eye(2)]
    which = rng.integers(len(operations), size=n)
    pictures = np.empty((n, inputs, *[int(architecture["side_px"])] * 2), np.float16)
    for k, operation in enumerate(operations):
        typical = Typical.of(cut(image, sites_px[others], operation @ frame_px, architecture))
        own = which == k
        pictures[own] = typical.beside(
            cut(image, sites_px[chosen[own]], operation @ frames[own], architecture, sizes[own]), inputs
        )
    dose = float(micrograph.metadata.get("dose_e_per_A2", np.nan))
    return Examples(pictures, kinds[chosen], np.full(n, dose), np.full(n, index))
