"""A defect at a glance: its crop beside the best examples of what it could be, and the profiles through them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget
from scipy.ndimage import map_coordinates
from scipy.spatial import KDTree

from napari_defects.crystals import species_color
from napari_defects.tables import positions_nm
from napari_defects.widgets._ink import Ink, InkedAxes
from napari_defects.widgets._points import places_nm
from napari_defects.widgets.average import picture

Array = npt.NDArray[np.float64]

RADIUS_NM, STEP_NM = 0.45, 0.015
MEMBERS = 12
"""A reference is the mean of so many of the surest."""
CLEAR_NM = 0.4
"""A host as an example is so far from any defect."""
HALF_BAND_NM = 0.045
"""Profiles are averaged over this distance to both sides of their line."""


class View(NamedTuple):
    """Name, crop (row, column) and profile of one of the things to compare."""

    name: str
    crop: Array
    profile: Array


def crop(frame: Array, size_nm: Array, place_nm: Array, radius_nm: float = RADIUS_NM) -> Array:
    """Cut a square around a place, in steps of `STEP_NM`, its middle exactly there; NaN beyond the image."""
    half = round(radius_nm / STEP_NM)
    steps = np.arange(-half, half + 1) * STEP_NM
    y, x = (place_nm[:, None, None] + np.stack(np.meshgrid(steps, steps, indexing="ij"))) / size_nm[:, None, None]
    return np.asarray(map_coordinates(frame, [y, x], output=float, order=1, mode="constant", cval=np.nan))


def profile(patch: Array, angle_rad: float) -> Array:
    """Mean intensity along a line through the middle of a crop, at `angle_rad` from x towards y (down)."""
    half = patch.shape[0] // 2
    along = np.arange(-half, half + 1, dtype=float)
    across = np.arange(-round(HALF_BAND_NM / STEP_NM), round(HALF_BAND_NM / STEP_NM) + 1)[:, None]
    y = half + along * np.sin(angle_rad) + across * np.cos(angle_rad)
    x = half + along * np.cos(angle_rad) - across * np.sin(angle_rad)
    return np.asarray(map_coordinates(patch, [y, x], order=1, mode="nearest").mean(axis=0), float)


def examples(defects: pd.DataFrame, sites: pd.DataFrame | None, row: pd.Series) -> dict[str, Array]:
    """Places (y, x) of the surest of each class that `row` could be, its own first; without itself.

    Classes are compared on the same sublattice only, where one is known; hosts are sites far from any defect.
    """
    here = defects[(defects["frame"] == row["frame"]) & (defects["defect"] != row["defect"])]
    if row["sublattice"]:
        here = here[here["sublattice"] == row["sublattice"]]
    counts = here["species"].value_counts()
    names = sorted(counts.index, key=lambda name: (name != row["species"], -int(counts[name])))
    found: dict[str, Array] = {}
    for name in names:
        surest = here[here["species"] == name].nlargest(MEMBERS, "probability")
        found[str(name)] = positions_nm(surest)
    same = (
        None if sites is None else sites[(sites["frame"] == row["frame"]) & (sites["sublattice"] == row["sublattice"])]
    )
    if same is not None and len(same):
        places = places_nm(same)
        around = np.asarray(KDTree(places).query(row[["y_nm", "x_nm"]].to_numpy(float), k=min(200, len(places)))[1])
        others = positions_nm(defects[defects["frame"] == row["frame"]])
        clear = KDTree(others).query(places[np.atleast_1d(around)])[0] > CLEAR_NM
        hosts = places[np.atleast_1d(around)[clear]][:MEMBERS]
        if len(hosts):
            found = {**dict(list(found.items())[:1]), "host": hosts, **dict(list(found.items())[1:])}
    return found


def views(frame: Array, size_nm: Array, row: pd.Series, known: dict[str, Array], angle_rad: float) -> list[View]:
    """Return the defect itself and the mean of the examples of each class."""
    place = row[["y_nm", "x_nm"]].to_numpy(float)
    patches = {"this": crop(frame, size_nm, place)}
    for name, places in known.items():
        patches[name] = _mean(np.stack([crop(frame, size_nm, p) for p in places]))
    return [View(name, patch, profile(patch, angle_rad)) for name, patch in patches.items()]


def _mean(patches: Array) -> Array:
    """Mean of the patches (patch, row, column), each where it has something; NaN where none has."""
    there = np.isfinite(patches)
    number = there.sum(axis=0)
    return np.where(number > 0, np.where(there, patches, 0).sum(axis=0) / np.maximum(number, 1), np.nan)


def line_angle(lattice: Any, sublattice: str) -> float:
    """Direction from a column to its nearest neighbour of another kind, as the lattice has it; 0 where unknown."""
    names = [s.name for s in lattice.crystal.sublattices] if lattice is not None else []
    if len(names) < 2 or sublattice not in names:
        return 0.0
    here = names.index(sublattice)
    start = np.asarray(lattice.position(0, 0, here), float).ravel()
    steps = [
        np.asarray(lattice.position(i, j, other), float).ravel() - start
        for other in range(len(names))
        if other != here
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    dy, dx = min(steps, key=lambda step: (round(float(np.hypot(*step)), 3), abs(step[0])))
    return float(np.arctan2(dy, dx))


class Glimpse(QWidget):
    """Crops side by side, with the line of the profiles; the profiles below."""

    COLUMNS, SIDE_PX = 4, 74

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(3)
        self._cells = [(QLabel(), Ink()) for _ in range(self.COLUMNS)]
        for column, (image, words) in enumerate(self._cells):
            image.setFixedSize(self.SIDE_PX, self.SIDE_PX)
            words.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            self._grid.addWidget(image, 0, column, Qt.AlignmentFlag.AlignHCenter)
            self._grid.addWidget(words, 1, column)
        self.plot: Any = None

    def show_views(self, shown: list[View], angle_rad: float, limits: tuple[float, float]) -> None:
        """Show the first of them: the defect, then the classes."""
        shown = shown[: self.COLUMNS]
        for number, (image, words) in enumerate(self._cells):
            if number < len(shown):
                view = shown[number]
                image.setPixmap(_with_line(picture(view.crop, limits, self.SIDE_PX), angle_rad, number == 0))
                words.setText(f"<b>{view.name}</b>" if number == 0 else view.name)
                words.set_color(_color(view.name))
            else:
                image.clear()
                words.clear()
        self._draw(shown)

    def _draw(self, shown: list[View]) -> None:
        import pyqtgraph as pg

        if self.plot is None:
            self.plot = pg.PlotWidget(background=None)
            self.plot.setFixedHeight(130)
            self.plot.setMouseEnabled(False, False)
            self.plot.hideButtons()
            self.plot.setMenuEnabled(False)
            self.plot.getAxis("bottom").enableAutoSIPrefix(False)
            self.plot.setLabel("bottom", "along the line (nm)")
            self.plot.getAxis("left").setStyle(showValues=False)
            self.plot.getAxis("left").setWidth(8)
            self._grid.addWidget(self.plot, 2, 0, 1, self.COLUMNS)
            InkedAxes(self.plot)
        self.plot.clear()
        for view in reversed(shown):
            x = (np.arange(len(view.profile)) - len(view.profile) // 2) * STEP_NM
            style = Qt.PenStyle.SolidLine if view.name != "host" else Qt.PenStyle.DashLine
            pen = pg.mkPen(_color(view.name), width=3 if view.name == "this" else 1.5, style=style)
            self.plot.plot(x, view.profile, pen=pen)


def _color(name: str) -> str:
    return {"this": "#ff5d8f", "host": "#9a9a9a"}.get(name) or species_color(name)


def _with_line(pixmap: QPixmap, angle_rad: float, strong: bool) -> QPixmap:
    painter, half = QPainter(pixmap), pixmap.width() / 2
    color = QColor(_color("this") if strong else "#ffffff")
    color.setAlphaF(0.8 if strong else 0.35)
    painter.setPen(QPen(color, 1))
    dx, dy = half * np.cos(angle_rad), half * np.sin(angle_rad)
    for sign in (-1, 1):  # the middle stays free
        painter.drawLine(
            round(half + 0.42 * sign * dx),
            round(half + 0.42 * sign * dy),
            round(half + sign * dx),
            round(half + sign * dy),
        )
    painter.end()
    return pixmap
