"""Where the defects are: pairs, neighbours, clusters, order and density, as a plot, a table and a layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from magicgui.widgets import ComboBox, FloatSpinBox
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from napari_defects.micrograph import Micrograph, Progress
from napari_defects.widgets._forms import Form
from napari_defects.widgets._layers import KEY
from napari_defects.widgets._plots import COLORS, Plot
from napari_defects.widgets._viewer import upsert

ALL = "all"
LIMIT_PX = 170


class Found(NamedTuple):
    """What a way of looking gives: a table, one line of words, and a map where it is one."""

    table: pd.DataFrame
    words: str
    map: Micrograph | None = None


def _pairs(defects: pd.DataFrame, sites: pd.DataFrame, species: str, other: str, reach_nm: float) -> Found:
    from napari_defects.statistics import pair_correlation

    table = pair_correlation(defects, sites, species=_both(species, other), max_distance_nm=reach_nm)
    far = table[(table["g"] > table["g_high"]) | (table["g"] < table["g_low"])]
    return Found(table, f"{len(far)} of {len(table)} distances are outside of what chance gives (95 %).")


def _ripley(defects: pd.DataFrame, sites: pd.DataFrame, species: str, other: str, reach_nm: float) -> Found:
    from napari_defects.statistics import ripley_l

    table = ripley_l(defects, sites, species=_both(species, other), max_distance_nm=reach_nm)
    return Found(table, "Above the envelope: more pairs within r than chance puts there.")


def _neighbors(defects: pd.DataFrame, sites: pd.DataFrame, species: str, other: str, reach_nm: float) -> Found:
    from napari_defects.statistics import nearest_neighbors

    near = nearest_neighbors(defects).dropna(subset=["neighbor_nm"])
    near = near[(species == ALL) | (near["species"] == species)]
    near = near[(other == ALL) | (near["neighbor_species"] == other)]
    if near.empty:
        raise ValueError("No defect of these species has a neighbour.")
    edges = np.arange(0, reach_nm + 0.05, 0.1)
    number, _ = np.histogram(near["neighbor_nm"], edges)
    table = pd.DataFrame({"r_nm": (edges[1:] + edges[:-1]) / 2, "defects": number})
    most = near["neighbor_species"].value_counts()
    return Found(table, f"Median {near['neighbor_nm'].median():.2f} nm; nearest is most often {most.index[0]} "
                        f"({most.iloc[0]:,} of {len(near):,}).")  # fmt: skip


def _clusters(defects: pd.DataFrame, sites: pd.DataFrame, species: str, other: str, reach_nm: float) -> Found:
    from napari_defects.statistics import clusters

    chosen = defects if species == ALL else defects[defects["species"].isin([species, other])]
    size = clusters(chosen, max_distance_nm=reach_nm).query("cluster >= 0").groupby("cluster").size()
    number = size.value_counts().sort_index()
    table = pd.DataFrame({"size": number.index, "clusters": number.to_numpy()})
    return Found(table, f"{int((size > 1).sum()):,} clusters of two or more, the largest of {int(size.max())}.")


def _order(defects: pd.DataFrame, sites: pd.DataFrame, species: str, other: str, reach_nm: float) -> Found:
    from napari_defects.statistics import short_range_order

    there = defects[defects["species"].isin([species, other])] if species != ALL else defects
    names = there["sublattice"].value_counts()
    if names.empty:
        raise ValueError("No defect is on a sublattice.")
    table = short_range_order(defects, sites, sublattice=str(names.index[0]))
    if species != ALL:
        chosen = {species} if other == ALL else {species, other}
        table = table[[chosen <= {a, b} for a, b in zip(table["center"], table["neighbor"], strict=True)]]
    return Found(table.reset_index(drop=True), f"Warren–Cowley α on {names.index[0]}: below 0 where they attract.")


def _density(defects: pd.DataFrame, sites: pd.DataFrame, species: str, other: str, reach_nm: float) -> Found:
    from napari_defects.statistics import density_map

    if species == ALL:
        raise ValueError("Choose one species for a density map.")
    made = density_map(defects, sites, species=species, smoothing_nm=reach_nm)
    values = np.asarray(made.data)[np.isfinite(made.data)]
    table = pd.DataFrame({"quantile": [0.05, 0.5, 0.95], "fraction": np.quantile(values, [0.05, 0.5, 0.95])})
    return Found(table, f"Local fraction of {species}, over {reach_nm:g} nm.", made)


WAYS: dict[str, tuple[Callable[..., Found], float]] = {
    "pair correlation": (_pairs, 3.0), "Ripley's L": (_ripley, 3.0), "nearest neighbours": (_neighbors, 3.0),
    "clusters": (_clusters, 0.5), "short-range order": (_order, 3.0), "density map": (_density, 2.0),
}  # fmt: skip
"""Ways of looking, and how far each looks in nm if nothing else is said."""


class Arrangement(QWidget):
    """Choose what to look at; see it as a plot and a table.

    Parameters
    ----------
    panel : Panel
        Its worker does the work.
    gather : callable
        Gives the defects and the sites looked at, and the name of their image.
    """

    def __init__(self, panel: Any, gather: Callable[[], tuple[pd.DataFrame, pd.DataFrame, str]]):
        super().__init__()
        self._panel, self._gather, self._found = panel, gather, pd.DataFrame()
        self.way = ComboBox(name="way", label="Arrangement", choices=list(WAYS))
        self.species = ComboBox(name="species", label="of", choices=[ALL])
        self.other = ComboBox(name="other", label="and", choices=[ALL])
        self.reach = FloatSpinBox(name="reach_nm", label="within (nm)", value=3.0, min=0.1, max=100.0, step=0.1)
        self.way.changed.connect(self._turn)
        self.plot, self.table = Plot(), QTableWidget(0, 0)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().setVisible(False)
        self.table.setFixedHeight(LIMIT_PX)
        self.table.setVisible(False)
        self.show_button, self.save_button = QPushButton("Show"), QPushButton("Save table…")
        self.show_button.clicked.connect(lambda: self.run())
        self.save_button.clicked.connect(lambda: self.save())
        self.save_button.setEnabled(False)
        buttons = QHBoxLayout()
        for button in (self.show_button, self.save_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(Form([self.way, self.species, self.other, self.reach]))
        layout.addLayout(buttons)
        layout.addWidget(self.plot)
        layout.addWidget(self.table)

    def offer(self, species: list[str]) -> None:
        """Offer these species."""
        for box in (self.species, self.other):
            if list(box.choices) != [ALL, *species]:
                box.choices = [ALL, *species]

    def run(self) -> None:
        """Look, in a worker."""
        try:
            defects, sites, image = self._gather()
        except (ValueError, TypeError, KeyError) as error:
            self._panel.fail(error)
            return
        chosen = {"way": self.way.value, "species": self.species.value, "other": self.other.value}
        arguments = {"defects": defects, "sites": sites, "reach_nm": self.reach.value, **chosen}
        self._panel.start(look, arguments, lambda found: self.take(found, chosen, image), self.way.value)

    def take(self, found: Found, chosen: dict[str, str], image: str) -> None:
        """Show what was found."""
        self._found = found.table
        _fill(self.table, found.table)
        self.save_button.setEnabled(True)
        draw(self.plot, chosen["way"], found.table)
        if found.map is not None:
            upsert(self._panel.viewer, _map_layer(found.map, chosen["species"], image))
        self._panel.say(f"✓ {found.words}")

    def save(self, path: str | Path | None = None) -> None:
        """Write the table shown."""
        from napari_defects.io import write_table

        path = path or QFileDialog.getSaveFileName(self, "Save table", "arrangement.csv", "*.csv *.xlsx *.parquet")[0]
        if path:
            try:
                self._panel.say(f"✓ Wrote {write_table(self._found, path).name}.")
            except (ValueError, OSError) as error:
                self._panel.fail(error)

    def _turn(self, way: str) -> None:
        self.reach.value = WAYS[way][1]


def look(
    progress: Progress, defects: pd.DataFrame, sites: pd.DataFrame, way: str, species: str, other: str, reach_nm: float
) -> Found:
    """Look at defects on their sites in one of the `WAYS`."""
    progress(0, 1)
    return WAYS[way][0](defects, sites, species, other, reach_nm)


def draw(plot: Plot, way: str, table: pd.DataFrame) -> None:
    """Draw the table that a way of looking gives."""
    plot.setVisible(way != "density map" and len(table) > 0)
    if not plot.isVisibleTo(plot.parentWidget()):
        return
    if way in ("pair correlation", "Ripley's L"):
        value, low, high = table.columns[-3:]
        there = table.dropna(subset=[value])
        plot.begin("distance (nm)", "g(r)" if value == "g" else "L(r) − r (nm)")
        for edge, words in ((low, "chance, 95 %"), (high, None)):
            plot.line(there["r_nm"], there[edge], "#999999", words, dashed=True)
        plot.line(there["r_nm"], there[value], COLORS[0])
        plot.points(
            there["r_nm"], there[value], 0 * there[value], COLORS[0], value.removesuffix("_nm").replace("_", " ")
        )
    elif way == "short-range order":
        plot.begin("distance (nm)", "Warren–Cowley α")
        for ((a, b), rows), color in zip(table.groupby(["center", "neighbor"]), COLORS, strict=False):
            plot.points(rows["r_nm"], rows["alpha"], rows["alpha_err"], color, f"{a}–{b}")
    else:
        x, y = table.columns
        plot.begin("distance (nm)" if x == "r_nm" else "defects in a cluster", str(y))
        plot.points(table[x], table[y], np.sqrt(table[y]), COLORS[0], str(y))


def _both(species: str, other: str) -> str | tuple[str, str] | None:
    if species == ALL:
        return None if other == ALL else other
    return species if other in (ALL, species) else (species, other)


def _fill(widget: QTableWidget, table: pd.DataFrame) -> None:
    widget.setColumnCount(len(table.columns))
    widget.setRowCount(len(table))
    widget.setHorizontalHeaderLabels([str(name) for name in table.columns])
    for row, values in enumerate(table.itertuples(index=False)):
        for column, value in enumerate(values):
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            widget.setItem(row, column, QTableWidgetItem("–" if text == "nan" else text))
    widget.resizeColumnsToContents()
    widget.setVisible(True)


def _map_layer(made: Micrograph, species: str, image: str) -> Any:
    keywords = {
        "name": f"density {species} · {image}", "scale": tuple(made.pixel_size_yx_nm), "units": ("nm", "nm"),
        "colormap": "inferno", "opacity": 0.6, "blending": "translucent", "metadata": {KEY: {"image": image}},
    }  # fmt: skip
    return np.asarray(made.data), keywords, "image"
