"""What the cells of an image have in common, so that each can be judged beside it.

Blur and contrast are those of the image, not of the cell: the median of its cells shows them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .patches import Image

ENOUGH, MOST_PX = 200, 2_000_000
"""Cells that tell what is typical; fewer where their pictures have more pixels than these in all."""


class Typical(NamedTuple):
    """The typical cell of an image.

    Attributes
    ----------
    picture : ndarray, shape (channel, side, side)
        Median of the pictures of cells.
    """

    picture: Image

    @classmethod
    def of(cls, pictures: Image) -> Typical:
        """Find what is typical of pictures (cell, channel, side, side) of one image."""
        return cls(np.median(pictures, 0).astype(np.float32))

    def beside(self, pictures: Image, inputs: int) -> Image:
        """Pictures as a network of so many `inputs` sees them: with the typical one, where it wants more channels."""
        if pictures.shape[1] == inputs:
            return pictures
        return np.concatenate([pictures, np.broadcast_to(self.picture, pictures.shape)], 1)


def some(n: int, side_px: int) -> slice:
    """Return which of `n` cells to look at: all, or `ENOUGH` spread over them."""
    return slice(None, None, max(1, n // min(ENOUGH, MOST_PX // side_px**2)))
