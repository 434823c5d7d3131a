"""Many marks drawn into the pixels of a picture at once: discs, squares and diamonds with their borders."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.floating[Any]]
Colors = npt.NDArray[np.uint32]
Pixels = npt.NDArray[np.uint8]
SYMBOLS = ("disc", "square", "diamond")
"""What is painted; all others are painted as discs."""
_LEVELS = 4  # of transparency at the rim of a mark


class Marks(NamedTuple):
    """Points and how each is drawn; all arrays are as long as `places`."""

    places: Floats
    """``(n, 2)``, (x, y)."""
    size: Floats
    border: Floats
    """Width of the border, in the unit of `size`, half of it outside."""
    border_color: Colors
    face_color: Colors
    symbol: npt.NDArray[np.integer[Any]]
    """Places in a list of names."""

    def some(self, rows: Any) -> Marks:
        """Return the marks of some rows."""
        return Marks(*(values[rows] for values in self))


def packed(rgba: Floats, n: int) -> Colors:
    """Return `n` colours as one number each, in the byte order of RGBA pixels."""
    whole = np.ascontiguousarray(np.broadcast_to(np.rint(255 * np.asarray(rgba)), (n, 4)), np.uint8)
    return whole.view(np.uint32).reshape(-1)


def unpacked(colors: Colors) -> Floats:
    """Return colours as ``(n, 4)`` from 0 to 1."""
    return np.ascontiguousarray(colors).view(np.uint8).reshape(-1, 4) / 255.0


def paint(marks: Marks, shape: tuple[int, int], names: tuple[str, ...] = SYMBOLS) -> Pixels:
    """Return a transparent picture, RGBA, with the marks on it.

    Parameters
    ----------
    marks : Marks
        In pixels; pixel (0, 0) reaches from 0 to 1.
    shape : tuple of int
        Height and width.
    names : tuple of str
        Symbols that ``marks.symbol`` counts.
    """
    side = np.maximum(np.rint(marks.size), 1).astype(np.int64)
    border = np.rint(8 * marks.border).astype(np.int64)
    codes, keys = pd.factorize((side << 32) + (border << 8) + marks.symbol)
    pad = int((side + border // 8).max(initial=0)) + 3
    picture = np.zeros((shape[0] + 2 * pad, shape[1] + 2 * pad), np.uint32)
    for code in range(len(keys)):
        group = marks if len(keys) == 1 else marks.some(codes == code)
        key = int(keys[code])
        _paint_alike(picture, group, pad, names[key & 0xFF], key >> 32, (key >> 8 & 0xFFFFFF) / 8)
    inner = np.ascontiguousarray(picture[pad : pad + shape[0], pad : pad + shape[1]])
    return inner.view(np.uint8).reshape(*shape, 4)


def _paint_alike(picture: Colors, marks: Marks, pad: int, symbol: str, side: int, border: float) -> None:
    """Paint marks of one symbol and size: pixel by pixel of the stamp, all marks at once, the palest pixels first."""
    stamp = stamps(symbol, side, border)
    reach = len(stamp["face"])
    corner = np.rint(marks.places - reach / 2.0).astype(np.int64) + pad
    fits = (corner >= 0).all(axis=1) & (corner + reach <= np.array(picture.shape[::-1])).all(axis=1)
    flat, start = picture.reshape(-1), corner[:, 1] * picture.shape[1] + corner[:, 0]
    for part, colors in (("face", marks.face_color), ("border", marks.border_color)):
        seen = fits & (colors >> 24 > 0)
        levels = np.ceil(_LEVELS * stamp[part]).astype(int)
        if not levels.any() or not seen.any():
            continue
        where, color = start[seen], colors[seen]
        for level in range(1, _LEVELS + 1):
            faded = (color & 0xFFFFFF) | ((color >> 24) * level // _LEVELS << 24).astype(np.uint32)
            for dy, dx in zip(*np.nonzero(levels == level), strict=True):
                flat[where + int(dy * picture.shape[1] + dx)] = faded


def stamps(symbol: str, side: int, border: float) -> dict[str, Floats]:
    """Return how much of each pixel the face and the border of one mark cover, from 0 to 1, as two squares."""
    half, beyond = side / 2.0, int(np.ceil(border / 2.0))
    away = np.abs(np.arange(side + 2 * beyond) - beyond + 0.5 - half)
    y, x = away[:, None], away[None, :]
    if symbol == "square":
        outside = np.maximum(y, x) - half
    elif symbol == "diamond":
        outside = (y + x - half) / np.sqrt(2.0)
    else:
        outside = np.hypot(y, x) - half
    edge = np.clip(max(border, 1.0) / 2.0 + 0.5 - np.abs(outside), 0, 1) * min(border, 1.0)  # finer than a pixel: paler
    return {"face": np.clip(0.5 - outside, 0, 1), "border": edge}
