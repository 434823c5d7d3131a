"""Large images in overlapping blocks: each column belongs to the block it lies in, as if there were none."""

from __future__ import annotations

from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

_LARGEST = 3072  # pixels along a side that are taken at once
_SIDE = 2048  # of the blocks of larger images
_OVERLAP = 128  # pixels beyond a block's own that are fitted as well


class Block(NamedTuple):
    """Pixels to be fitted, and of these the first and the end of those whose columns are the block's own."""

    pixels: tuple[slice, slice]
    first: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]

    def placed(self, table: pd.DataFrame, pixel_nm: npt.NDArray[np.float64]) -> pd.DataFrame:
        """Columns of the block alone, from its corner to the image's."""
        corner = np.array([s.start for s in self.pixels])
        at = table[["y_nm", "x_nm"]].to_numpy(float) + corner * pixel_nm
        own = np.flatnonzero(((at >= self.first * pixel_nm) & (at < self.end * pixel_nm)).all(axis=1))
        return table.assign(y_nm=at[:, 0], x_nm=at[:, 1]).iloc[own]


def blocks(shape: tuple[int, int]) -> list[Block]:
    """Blocks of an image; one, where it is not large."""
    along = [_pieces(n) for n in shape]
    return [Block((y, x), *np.array([y_own, x_own]).T) for (y, y_own), (x, x_own) in product(*along)]


def _pieces(n: int) -> list[tuple[slice, tuple[float, float]]]:
    """Along one axis: the pixels of each block, and where its own begin and end."""
    count = 1 if n <= _LARGEST else -(-n // _SIDE)
    edges = [n * k // count for k in range(count + 1)]
    own = [(-np.inf if a == 0 else a, np.inf if b == n else b) for a, b in pairwise(edges)]
    return [
        (slice(max(0, a - _OVERLAP), min(n, b + _OVERLAP)), o) for (a, b), o in zip(pairwise(edges), own, strict=True)
    ]
