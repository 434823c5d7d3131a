"""Tremor: a beam that shakes within its lines shifts each piece of a line that crosses a column.

A column averages the shifts of its pieces, and what is left moves it. How strong they are is seen from how much the
pieces of one column disagree beyond their counting noise, once what all columns show at the same height (their shape)
is taken off.
"""

from __future__ import annotations

import numpy as np

from napari_defects.gaussian import Columns, Pixels
from napari_defects.gaussian.windows import Array, Image, Index

_REACH = 4.0
_NEAR = 2.5  # widths from a column's middle to where its pieces say something
_EDGE = 4.0  # widths from the border from where columns are whole
_SIGNIFICANT = 3.0  # sigma from which there is tremor
_COLUMNS = 2000  # taken at a time


def tremor_error(counts: Array, columns: Columns) -> tuple[Array, Array]:
    """Estimate how far tremor has moved columns.

    Parameters
    ----------
    counts : ndarray, shape (y, x)
        Image in units in which the variance equals the mean, without line jitter.
    columns : Columns
        Fitted to it.

    Returns
    -------
    error : ndarray, shape (column, 2)
        1 sigma in y and x, in pixels; 0 where none is seen.
    rms : ndarray, shape (2,)
        Strength of the tremor in y and x, in pixels.
    """
    pixels = Pixels(counts, columns.nodes.shape, reach=_REACH)
    model = np.maximum(pixels.model(columns), np.float32(pixels.floor))
    pull = pixels.counts / model - np.float32(1)
    group = np.arange(len(columns.yx)) // _COLUMNS
    parts = [_pieces(pixels, columns.taken(group == k), pull, model) for k in range(group.max() + 1)]
    score, information = (np.concatenate([part[k] for part in parts], axis=1) for k in (0, 1))
    height = np.concatenate([part[2] for part in parts])
    border = np.minimum(columns.yx, np.subtract(counts.shape, 1) - columns.yx).min(axis=1)
    whole = border > _EDGE * columns.width
    error, rms = np.zeros((len(columns.yx), 2)), np.zeros(2)
    for axis in (0, 1):
        s, own = score[axis], information[axis]
        total = np.maximum(own.sum(axis=1, keepdims=True), 1e-300)
        if whole.sum() > 1:
            rms[axis] = _strength(s[whole], own[whole], height[whole])
        error[:, axis] = rms[axis] * np.sqrt(np.sum(own**2, axis=1)) / total[:, 0]
    return error, rms


def _pieces(pixels: Pixels, columns: Columns, pull: Array | Image, model: Image) -> tuple[Array, Array, Index]:
    """Score and information of a shift, in y and x, of every piece (column, line), and how high it lies."""
    w = pixels.windows(columns)
    line, across = w.y[:, None] + np.arange(w.fy.shape[3]), w.x[:, None] + np.arange(w.fx.shape[3])
    height = np.rint(line - columns.yx[:, :1]).astype(np.int64)
    near = (np.arange(w.fy.shape[3]) < w.ny[:, None]) & (np.abs(height) <= _NEAR * columns.width)
    place = np.minimum(line, len(model) - 1)[:, :, None], np.minimum(across, model.shape[1] - 1)[:, None]
    there, spread = pull[place], 1 / model[place]
    score, information = np.zeros((2, 2, *line.shape))
    for axis, (down, right) in enumerate(((1, 0), (0, 1))):
        slope = np.einsum("krl,krx->klx", w.fy[:, :, down], w.fx[:, :, right]) * columns.amplitude[:, None, None]
        score[axis] = np.where(near, np.sum(slope * there, axis=2), 0)
        information[axis] = np.where(near, np.sum(slope**2 * spread, axis=2), 0)
    return score, information, height


def _strength(score: Array, information: Array, height: Index) -> float:
    """Rms of the shifts that makes the pieces of columns disagree as they do; 0 if it is not significant."""
    kind = height - height.min()
    alike = np.bincount(kind.ravel(), (score * information).ravel())
    shape = alike / np.maximum(np.bincount(kind.ravel(), (information**2).ravel()), 1e-300)
    total = np.maximum(information.sum(axis=1, keepdims=True), 1e-300)
    share = information / total
    score = score - shape[kind] * information
    score = score - share * score.sum(axis=1, keepdims=True)  # a common shift is the column's place
    excess = np.sum(score**2 - information * (1 - share), axis=1)
    gain = np.sum(information**2 * (1 - 2 * share + np.sum(share**2, axis=1, keepdims=True)), axis=1)
    if not excess.sum() > _SIGNIFICANT * np.sqrt(np.sum(excess**2)):
        return 0.0
    return float(np.sqrt(excess.sum() / gain.sum()))
