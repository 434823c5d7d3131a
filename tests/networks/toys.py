"""A toy crystal: Gaussian columns on a square lattice, some missing, some bright."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from napari_defects.micrograph import Micrograph

CLASSES = ("background", "W", "V_W", "Te_W")
HEIGHTS = {"W": 1.0, "V_W": 0.0, "Te_W": 2.0}
SPACING_NM = 0.4


def toy(
    seed: int, *, side_px: int = 128, pixel_size_nm: float | tuple[float, float] = 0.02, counts: float = 30
) -> tuple[Micrograph, pd.DataFrame]:
    """One image with its table; `counts` at the peak of a W column."""
    rng = np.random.default_rng(seed)
    step = np.broadcast_to(pixel_size_nm, 2)
    extent = side_px * step
    start = rng.uniform(0.1, 0.3, 2)
    y, x = (
        grid.ravel()
        for grid in np.meshgrid(
            *(np.arange(s, e - 0.1, SPACING_NM) for s, e in zip(start, extent, strict=True)), indexing="ij"
        )
    )
    species = rng.choice(list(HEIGHTS), size=y.size, p=(0.7, 0.15, 0.15))
    rows, columns = (np.arange(side_px) * s for s in step)
    along_y = np.exp(-((rows[:, None] - y) ** 2) / (2 * 0.07**2))
    along_x = np.exp(-((columns[:, None] - x) ** 2) / (2 * 0.07**2))
    clean = (along_y * [HEIGHTS[s] for s in species]) @ along_x.T
    data = rng.poisson(counts * (clean + 0.1)).astype(np.float32)
    table = pd.DataFrame({"frame": 0, "y_nm": y, "x_nm": x, "species": species})
    return Micrograph(data, pixel_size_nm, metadata={"dose_e_per_A2": 1e5}), table


def toys(n: int, *, first: int = 0) -> Iterator[tuple[Micrograph, pd.DataFrame]]:
    return (toy(first + k) for k in range(n))
