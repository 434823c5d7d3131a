"""Find the unit cells of an image and say what each lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from ..atoms import locate
from ..checks import check_range
from ..crystals import Crystal, get_crystal
from ..intensities.photometry import measuring_points
from ..lattice import assign_sites, fit_lattice
from ..micrograph import Micrograph, Progress, check_micrograph
from ..networks import Model, load_model, model_for
from ..networks.devices import pick_device
from ..tables import Cells, Sites, check, empty
from .boxes import find_cells
from .examples import prepared, sites_nm
from .hexagons import ALPHA, BETA
from .kinds import PERFECT, Array, cells_of, frame_of, kinds_of, pair_of
from .patches import CELL_SIZE, Image, cut, middle_to_sites
from .training import logits_of, tempered
from .typical import Typical, some

_CERTAIN = 0.9999  # no verdict is surer: what goes wrong more rarely is not in the model
_CHUNK = 4096
Cutter = Callable[[slice], Image]
_PRIOR_CELLS = 20.0  # what is believed of the shares of the kinds before any cell is seen


def detect_cells(
    micrograph: Micrograph,
    model: Model | str | Path | None = None,
    *,
    sites: Sites | None = None,
    crystal: str | Crystal | None = None,
    boxes: Model | str | Path | None = None,
    direct: bool = False,
    alpha: float = ALPHA,
    beta: float = BETA,
    min_score: float = 0.5,
    device: str | None = None,
    progress: Progress | None = None,
) -> Cells:
    """Find the unit cells of an MX2 crystal, and name what each lacks.

    Cells are cut along the fitted lattice, at any rotation. With `boxes` they are found as 2DIP-Net does: the image is
    turned to the lattice, Faster R-CNN finds hexagonal cells, and two unit cells are cut from each.

    Parameters
    ----------
    micrograph : Micrograph
    model : Model, str or path, optional
        Names the cells; by default the shipped one of the crystal.
    sites : Sites, optional
        From `assign_sites`; otherwise atoms are located and the lattice is fitted.
    crystal : str or Crystal, optional
        By default that of `sites` or of the model.
    boxes : Model, str or path, optional
        Finds the cells by boxes instead of along the lattice.
    direct : bool
        With `boxes`: take boxes around unit cells instead of hexagons.
    alpha, beta : float
        With `boxes`: width and height of a unit cell over those of its hexagon.
    min_score : float
        With `boxes`: leave out boxes that are less sure.
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"mps"``; by itself the best that is there.
    progress : callable, optional
        ``progress(done, total)``.

    Returns
    -------
    Cells
        One row per cell, perfect ones included. Columns added: the probability of each of the six kinds, ``p_perfect``,
        ``p_V_Te``, .... They are calibrated for how the image's cells scatter, and for the shares of kinds it suggests.

    Raises
    ------
    ValueError
        If there is no model for the crystal, or it is no MX2, or no lattice is found.

    References
    ----------
    Yang et al., Materials Horizons (2024), 2DIP-Net.
    """
    check_micrograph(micrograph)
    check_range("min_score", min_score, 0, 1)
    known = None if sites is None else sites.attrs.get("crystal")
    model, crystal = _model_and_crystal(model, crystal or known)
    finder = None if boxes is None else _of_task(boxes, "boxes")
    if finder is not None and finder.crystal not in ("", crystal.name):
        raise ValueError(f"`boxes` is a model for {finder.crystal}, not for {crystal.name}; train one for it.")
    if sites is None:
        atoms = locate(micrograph)
        sites = assign_sites(atoms, fit_lattice(atoms, crystal))
    sites = Sites(check(sites, "sites"))
    parts = []
    for frame, cells in cells_of(sites, crystal).groupby("frame"):
        frame_nm = frame_of(cells, crystal)
        if finder is None:
            table, cutter = _along_lattice(micrograph, model, crystal, cells, frame_nm, int(str(frame)))
        else:
            options: dict[str, Any] = {"direct": direct, "alpha": alpha, "beta": beta, "min_score": min_score}
            options |= {"device": device, "index": int(str(frame)), "progress": progress}
            table, cutter = _by_boxes(micrograph, model, crystal, cells, frame_nm, finder, options)
        logits = _logits(model, cutter, device, len(table), progress)
        parts.append(_named(table.assign(frame=int(str(frame))), logits, model))
    cells_table = pd.concat(parts, ignore_index=True) if parts else empty("cells")
    found = check(cells_table.assign(cell=np.arange(len(cells_table))), "cells")
    found.attrs["crystal"] = crystal.name
    return Cells(found)


def defects_among(cells: pd.DataFrame, sites: pd.DataFrame, min_probability: float) -> pd.DataFrame:
    """Rows of DEFECTS of the cells that lack something; positions are those of the sites concerned.

    Parameters
    ----------
    cells : DataFrame
        CELLS.
    sites : DataFrame
        SITES they were cut from.
    min_probability : float
    """
    bad = cells[(cells["species"] != PERFECT) & (cells["probability"] >= min_probability) & cells["i"].notna()]
    crystal = get_crystal(cells.attrs["crystal"])
    metal, chalcogen = pair_of(crystal)
    at = cells_of(sites, crystal).reindex(pd.MultiIndex.from_frame(bad[["frame", "i", "j"]].astype("int64")))
    places = np.vstack([measuring_points(sites), np.full((1, 2), np.nan)])
    rows = [places[at[f"row_{letter}"].fillna(-1).to_numpy(int)] for letter in "MX"]
    species = bad["species"].to_numpy(str)
    of_metal, both = np.char.endswith(species, f"V_{metal}"), np.char.find(species, "+") >= 0
    place = np.where(both[:, None], 0.5 * (rows[0] + rows[1]), np.where(of_metal[:, None], rows[0], rows[1]))
    return bad.assign(
        y_nm=place[:, 0],
        x_nm=place[:, 1],
        sublattice=np.where(of_metal & ~both, metal, chalcogen),
        method="cells",
    ).drop(columns=["cell", "height_nm", "width_nm", "rotation_deg", "score"])


def _model_and_crystal(model: Model | str | Path | None, crystal: str | Crystal | None) -> tuple[Model, Crystal]:
    if model is None:
        if crystal is None:
            raise ValueError("`crystal` must be given where there is neither a model nor sites that say it.")
        crystal = get_crystal(crystal)
        pair_of(crystal)
        model = model_for(crystal, "cells")
        if model is None:
            raise ValueError(
                f"`model` must be given: none for cells is shipped for {crystal.name}; train one with"
                f" `napari-defects train {crystal.name.lower()}-cells`, or use method='intensities'."
            )
    model = _of_task(model, "cells")
    crystal = get_crystal(crystal or model.crystal)
    if model.classes != kinds_of(crystal):
        raise ValueError(f"`model` names cells of {model.crystal}, not of {crystal.name}; give one trained for it.")
    return model, crystal


def _of_task(model: Model | str | Path, task: str) -> Model:
    loaded = model if isinstance(model, Model) else load_model(model)
    if loaded.task != task:
        raise ValueError(f"`{'model' if task == 'cells' else task}` must be one for {task}, got one for {loaded.task}.")
    return loaded


def _along_lattice(
    micrograph: Micrograph, model: Model, crystal: Crystal, cells: pd.DataFrame, frame_nm: Array, frame: int
) -> tuple[pd.DataFrame, Cutter]:
    """Cells where the lattice has them, and what cuts their pictures."""
    px_per_a = crystal.a_nm / model.pixel_size_nm
    image, pixel_nm, frame_px = prepared(micrograph, frame_nm, crystal, px_per_a, frame)
    places = sites_nm(cells)
    table = _table(places.mean(1), crystal, frame_nm).assign(score=1.0, method="lattice")
    table[["i", "j"]] = cells.index.to_frame(index=False)[["i", "j"]].astype("Int64")

    def pictures(which: slice) -> Image:
        return cut(image, places[which] / pixel_nm, frame_px, model.network.architecture)

    return table, pictures


def _by_boxes(
    micrograph: Micrograph, model: Model, crystal: Crystal, cells: pd.DataFrame, frame_nm: Array, finder: Model,
    options: dict[str, Any],
) -> tuple[pd.DataFrame, Cutter]:  # fmt: skip
    """Cells from boxes, the surest of each place, and what cuts their pictures."""
    found = find_cells(micrograph, finder, crystal, frame_nm, **options)
    places, lattice = found.places_nm(), sites_nm(cells).mean(1)
    distance, nearest = cKDTree(lattice).query(places) if len(places) else (np.zeros(0), np.zeros(0, int))
    ij = cells.index.to_frame(index=False)[["i", "j"]].to_numpy(np.int64)[nearest]
    near = distance < 0.5 * crystal.a_nm * np.sqrt(abs(np.linalg.det(frame_nm)))
    order = np.argsort(-found.scores, kind="stable")
    order = order[near[order]]
    first = ~pd.DataFrame(ij[order]).duplicated().to_numpy()
    kept = np.sort(order[first])
    table = _table(places[kept], crystal, frame_nm).assign(score=found.scores[kept], method="boxes")
    table[["i", "j"]] = pd.DataFrame(ij[kept], columns=["i", "j"]).astype("Int64")
    boxes, px_per_a = found.boxes[kept], crystal.a_nm / finder.pixel_size_nm
    middles = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    places_px = middles[:, None] + middle_to_sites(crystal) * px_per_a
    sizes = (boxes[:, 2:] - boxes[:, :2]) / px_per_a

    def pictures(which: slice) -> Image:
        return cut(found.image, places_px[which], np.eye(2) * px_per_a, model.network.architecture, sizes[which])

    return table, pictures


def _table(places: Array, crystal: Crystal, frame_nm: Array) -> pd.DataFrame:
    """Places and rectangles of cells."""
    scale = float(np.sqrt(abs(np.linalg.det(frame_nm))))
    height, width = crystal.a_nm * scale * CELL_SIZE
    along = np.array([0.0, 1.0]) @ frame_nm
    rotation = float(np.rad2deg(np.arctan2(along[0], along[1])))
    size = {"height_nm": height, "width_nm": width, "rotation_deg": rotation}
    return pd.DataFrame({"y_nm": places[:, 0], "x_nm": places[:, 1]}).assign(**size)


def _logits(model: Model, cutter: Cutter, device: str | None, n: int, progress: Progress | None) -> Array:
    """Logits (cell, class), chunk by chunk; each cell is seen beside what is typical of them all."""
    if not n:
        return np.zeros((0, len(model.classes)))
    network, parts = model.network.to(pick_device(device)), []
    typical = Typical.of(cutter(some(n, network.architecture["side_px"])))
    for start in range(0, n, _CHUNK):
        pictures = typical.beside(cutter(slice(start, start + _CHUNK)), network.architecture["inputs"])
        parts.append(logits_of(network, pictures))
        if progress is not None:
            progress(min(start + _CHUNK, n), n)
    return tempered(np.concatenate(parts), model.card)


def _named(table: pd.DataFrame, logits: Array, model: Model) -> pd.DataFrame:
    """Cells with the probability of each kind, and the likeliest."""
    probability = calibrated(logits, np.asarray(model.card.get("shares", [1.0] * len(model.classes)), float))
    best = probability.argmax(1) if len(table) else np.zeros(0, int)
    certainty = np.minimum(probability[np.arange(len(table)), best], _CERTAIN)
    table = table.assign(species=np.array(model.classes, object)[best], probability=certainty)
    return table.assign(**{f"p_{name}": probability[:, k] for k, name in enumerate(model.classes)})


def calibrated(logits: Array, shares: Array, rounds: int = 30) -> Array:
    """Probabilities under the shares of the kinds that the cells themselves suggest.

    The logits belong to the `shares` of the training; expectation maximization finds those of the image (Saerens et
    al., Neural Comput. 14, 21 (2002)), drawn towards the training's by a few cells' worth.
    """
    shares = shares / shares.sum()
    prior = shares
    shifted = logits - logits.max(1, keepdims=True) if len(logits) else logits
    probability = np.exp(shifted)
    for _ in range(rounds if len(logits) else 0):
        probability = np.exp(shifted) * (prior / shares)
        probability /= probability.sum(1, keepdims=True)
        prior = (probability.sum(0) + _PRIOR_CELLS * shares) / (len(logits) + _PRIOR_CELLS)
    return probability
