"""The graph of one defect as a schematic, its lengths and angles written on it."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
from qtpy.QtGui import QFont
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_defects.bonds import angle_table, foreign_atoms

_COLORS = {"C": "#9a9a9a", "Si": "#e69f00", "N": "#56b4e9", "B": "#f2a7c3", "O": "#d55e00"}
_OTHER = "#8c6bb1"
_MANY = 6  # angles, more than which are not all written
_APART = 0.45  # of a bond: how far from its apex an angle is written


class Structure(QWidget):
    """Atoms, bonds with lengths and errors in pm, angles at foreign atoms; as it lies in the image."""

    def __init__(self) -> None:
        super().__init__()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self.plot: Any = None
        self.words: list[str] = []
        self.setVisible(False)

    def show_defect(self, graph: nx.Graph, nodes: list[int]) -> None:
        """Draw these atoms and, faintly, what they bond to."""
        import pyqtgraph as pg

        self._make()
        self.plot.clear()
        self.words = []
        core = set(nodes)
        foreign = [n for n in foreign_atoms(graph) if n in core]
        place = {n: np.array([graph.nodes[n]["x_nm"], graph.nodes[n]["y_nm"]]) for n in graph.nodes if n in core}
        angles = angle_table(graph, foreign)
        if len(angles) > _MANY:  # of a cluster: those to the host only
            inner = [{r.a, r.b} & set(foreign) for r in angles.itertuples()]
            angles = angles[[not one for one in inner]]
        for row in angles.itertuples():
            apex = place[row.apex]
            legs = [(place[n] - apex) / np.linalg.norm(place[n] - apex) for n in (row.a, row.b)]
            way = legs[0] + legs[1]
            if np.linalg.norm(way) < 0.2:  # straight: to one side
                way = np.array([-legs[0][1], legs[0][0]])
            reach = _APART * min(np.linalg.norm(place[n] - apex) for n in (row.a, row.b))
            self._write(f"{row.angle_deg:.0f}°", apex + reach * way / np.linalg.norm(way), "#ffd166")
        for a, b, bond in graph.edges(core, data=True):
            main = a in foreign or b in foreign
            ends = [np.array([graph.nodes[n]["x_nm"], graph.nodes[n]["y_nm"]]) for n in (a, b)]
            for k, n in enumerate((a, b)):  # bonds that lead out of the defect are cut short
                ends[k] = ends[k] if n in core else 0.6 * ends[1 - k] + 0.4 * ends[k]
            self.plot.plot(
                *np.transpose(ends), pen=pg.mkPen("#dddddd" if main else "#6a6a6a", width=2.5 if main else 1.2)
            )
            if main or (not foreign and {a, b} <= core):
                self._write(f"{bond['length_pm']:.0f}±{bond['length_err_pm']:.0f}", np.mean(ends, axis=0), "#ffffff")
        for n, at in place.items():
            element = graph.nodes[n]["element"]
            self.plot.plot([at[0]], [at[1]], pen=None, symbol="o", symbolSize=24 if n in foreign else 17,
                           symbolBrush=_COLORS.get(element, _OTHER), symbolPen=None)  # fmt: skip
            self._write(element, at, "#101010", plain=True)
        low, high = np.min(list(place.values()), axis=0), np.max(list(place.values()), axis=0)
        self.plot.setRange(xRange=(low[0], high[0]), yRange=(low[1], high[1]), padding=0.18)
        self.setVisible(True)

    def _write(self, text: str, at: Any, color: str, plain: bool = False) -> None:
        import pyqtgraph as pg

        item = pg.TextItem(text, color=color, anchor=(0.5, 0.5), fill=None if plain else pg.mkBrush(38, 41, 48, 190))
        font = QFont()
        font.setPointSize(8)
        item.setFont(font)
        item.setPos(*at)
        self.plot.addItem(item)
        self.words.append(text)

    def _make(self) -> None:
        import pyqtgraph as pg

        if self.plot is None:
            self.plot = pg.PlotWidget(background="#262930")
            self.plot.setFixedHeight(270)
            self.plot.setAspectLocked(True)
            self.plot.invertY(True)
            self.plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            self.plot.setMouseEnabled(False, False)
            self.plot.hideButtons()
            self.plot.setMenuEnabled(False)
            for side in ("left", "bottom"):
                self.plot.hideAxis(side)
            self._layout.addWidget(self.plot)
