"""Labelled images of one's own as pairs for `train`: crops with what is where, alone or among simulated ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from ..micrograph import Micrograph

Pair = tuple[Micrograph, pd.DataFrame]


def mask_labels(
    mask: npt.NDArray[Any], names: Mapping[int, str], pixel_size_nm: float | Sequence[float]
) -> pd.DataFrame:
    """Name the painted spots of a mask: each connected spot of one label is one column at its centre.

    Parameters
    ----------
    mask : ndarray of int, shape (y, x)
        Labels; 0 is nothing.
    names : mapping of int to str
        Species of each label.
    pixel_size_nm : float or (float, float)

    Returns
    -------
    DataFrame
        y_nm, x_nm, species.

    Raises
    ------
    ValueError
        If a label has no name.
    """
    mask = np.asarray(mask)
    if unnamed := sorted({int(v) for v in np.unique(mask)} - {0, *names}):
        raise ValueError(f"`names` must name every label of the mask, label {unnamed[0]} has none; add it.")
    tables = []
    for label in sorted(set(names) - {0}):
        spots, n = ndimage.label(mask == label)
        centers = np.reshape(ndimage.center_of_mass(spots > 0, spots, range(1, n + 1)), (-1, 2))
        y_nm, x_nm = (centers * np.broadcast_to(np.asarray(pixel_size_nm, float), (2,))).T
        tables.append(pd.DataFrame({"y_nm": y_nm, "x_nm": x_nm, "species": names[label]}))
    return pd.concat(tables, ignore_index=True)


def crops(micrograph: Micrograph, labels: pd.DataFrame, *, side_nm: float = 5.0, frame: int = 0) -> list[Pair]:
    """Cut a labelled image into pairs for `train`.

    Parameters
    ----------
    micrograph : Micrograph
    labels : DataFrame
        y_nm, x_nm and species of everything that is in the image: what is not labelled counts as background.
    side_nm : float
        About the side of a crop.
    frame : int
        Frame of a movie; of `labels`, too, where they have the column.

    Returns
    -------
    list of (Micrograph, DataFrame)
        Those that hold a label.

    Raises
    ------
    ValueError
        If columns are missing or nothing is labelled.
    """
    if missing := [name for name in ("y_nm", "x_nm", "species") if name not in labels]:
        raise ValueError(f"`labels` lack {', '.join(missing)}; they need y_nm, x_nm and species.")
    labels = labels[labels["frame"] == frame] if "frame" in labels else labels
    pixels, size = micrograph.frame(frame), micrograph.pixel_size_yx_nm
    counts = np.maximum(1, np.round(np.array(pixels.shape) * size / side_nm)).astype(int)
    places = labels[["y_nm", "x_nm"]].to_numpy(float)
    pairs = []
    for k in np.ndindex(*counts):
        low, high = (np.array(pixels.shape) * (np.array(k) + end) // counts for end in (0, 1))
        inside = ((places >= (low - 0.5) * size) & (places < (high - 0.5) * size)).all(1)
        if inside.any():
            y_nm, x_nm = (places[inside] - low * size).T
            crop = Micrograph(pixels[low[0] : high[0], low[1] : high[1]], micrograph.pixel_size_nm)
            pairs.append((crop, labels[inside].assign(y_nm=y_nm, x_nm=x_nm)))
    if not pairs:
        raise ValueError("`labels` name nothing within the image; are they in nm?")
    return pairs


def mixed(simulated: Iterable[Pair], own: Sequence[Pair], *, share: float, first: int, seed: int = 0) -> Iterator[Pair]:
    """Interleave labelled crops with simulated pairs.

    Parameters
    ----------
    simulated : iterable of pairs
        May be endless.
    own : sequence of pairs
        Used again and again, in random order.
    share : float
        Of the pairs that are one's own, 0 to 1 (exclusive).
    first : int
        So many simulated pairs come first: those that the training holds back.
    seed : int

    Yields
    ------
    Pair
    """
    rng = np.random.default_rng(seed)
    stream = iter(simulated)
    yield from islice(stream, first)
    again = cycle(own)
    for pair in stream:
        while own and rng.random() < share:
            yield next(again)
        yield pair
