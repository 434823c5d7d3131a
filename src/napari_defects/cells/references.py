"""What each kind of cell should look like: simulated without noise, and the intensity along metal–chalcogen lines."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..crystals import get_crystal
from ..simulation import Detector, Microscope, simulate
from .collection import PX_PER_A, SIDE_PX, crops
from .examples import true_cells
from .kinds import PERFECT, Array, kinds_of
from .patches import middle_to_sites, sample

_SIDE_NM, _PIXEL_NM = 4.5, 0.02
_BEYOND = 0.75  # of the profile on both sides, in bond lengths
_WIDTH = 0.12  # half the width that is averaged over, in lattice constants


@lru_cache(maxsize=8)
def references(crystal: str, microscope: Microscope = Microscope()) -> dict[str, npt.NDArray[np.float32]]:  # noqa: B008
    """Pictures (70, 70) of the six kinds of cells of a crystal, as a `Collection` keeps them.

    Parameters
    ----------
    crystal : str
        Formula of an MX2.
    microscope : Microscope
    """
    host = get_crystal(crystal)
    result = {}
    for number, name in enumerate(kinds_of(host)):
        at = [] if name == PERFECT else [(name, _SIDE_NM / 2, _SIDE_NM / 2)]
        seed = 0
        while True:
            micrograph, sites = simulate(
                host, field_of_view_nm=_SIDE_NM, pixel_size_nm=_PIXEL_NM, at=at, microscope=microscope,
                detector=Detector(read_noise_e=0.0), shot_noise=False, seed=seed,
            )  # fmt: skip
            cells = true_cells(sites, host)
            middle = np.hypot(*(cells[["y_M", "x_M"]].to_numpy() - _SIDE_NM / 2).T)
            right = cells.assign(off=middle)[cells["kind"].to_numpy() == number].sort_values("off")
            if len(right) and right["off"].iloc[0] < 1.0:  # a complex may have fallen into two cells
                break
            seed += 1
        _, i, j = right.index[0]
        result[name] = crops(micrograph, sites, host, np.array([[i, j]]))[0, 0]
    return result


def profile(picture: npt.NDArray[np.floating], crystal: str, n: int = 81) -> tuple[Array, Array]:
    """Intensity along the line from metal to chalcogen, averaged over its width.

    Parameters
    ----------
    picture : ndarray, shape (70, 70)
        As a `Collection` keeps them.
    crystal : str
    n : int
        Points.

    Returns
    -------
    distance_nm, intensity : ndarray, shape (n,)
        Distance from the metal's site, towards the chalcogen's.
    """
    host = get_crystal(crystal)
    metal, chalcogen = middle_to_sites(host)
    along = chalcogen - metal
    across = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    steps = np.linspace(-_BEYOND, 1 + _BEYOND, n)
    lines = metal + steps[:, None] * along + np.linspace(-_WIDTH, _WIDTH, 7)[:, None, None] * across
    values = sample(np.asarray(picture, np.float32), SIDE_PX / 2 - 0.5 + lines * PX_PER_A).mean(0)
    return steps * float(np.linalg.norm(along)) * host.a_nm, np.asarray(values, np.float64)
