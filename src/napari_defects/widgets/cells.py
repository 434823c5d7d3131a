"""Cells: every unit cell coloured by what it lacks; look at one, correct it, and collect what was corrected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from magicgui.widgets import FileEdit
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel, QScrollArea, QTableWidgetItem

from napari_defects.micrograph import Micrograph, Progress
from napari_defects.widgets._cell_view import PINK, CellPanel, CellView
from napari_defects.widgets._cells import cell_color, cells_layer, cells_of_layer, features, outline, palette
from napari_defects.widgets._counts import CountsTable
from napari_defects.widgets._layers import about, micrograph_of, source_name, units_of
from napari_defects.widgets._picks import CRYSTAL, IMAGE, SITES, Choice, Source
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._steps import Made, Panel

LATTICE = "along the lattice"
_AROUND_NM = 2.4  # of a cell, to normalize its picture
_OUTLINE = "cell looked at"


def _shipped(task: str) -> list[str]:
    from napari_defects.networks import list_models

    return [str(model["name"]) for model in list_models(task)]


class Cells(Panel):
    """Find and name the unit cells of an MX2 crystal."""

    title = "Cells"
    help = "Names every unit cell of an MX₂ crystal by the atoms it lacks. Click a cell to look at it."
    inputs: ClassVar = {
        "image": IMAGE,
        "sites": replace(SITES, optional=True, tooltip="From Localize; found anew where there are none."),
        "crystal": CRYSTAL,
        "model": Choice("Model", lambda: ["auto", *_shipped("cells")], "Names the cells."),
        "boxes": Choice("Cells", lambda: [LATTICE, *_shipped("boxes")], "Along the lattice, or by a box detector."),
    }
    steps = ("cells.detection.detect_cells",)
    main = ("min_score",)
    hide = ("model", "sites", "crystal", "boxes", "device")
    run_text = "Find cells"

    @staticmethod
    def work(
        progress: Progress, image: Source, sites: Source | None, crystal: str, model: str, boxes: str,
        detect_cells: dict[str, Any],
    ) -> Made:  # fmt: skip
        """Detect the cells; on sites that are found on the way where there are none."""
        from napari_defects.atoms import locate
        from napari_defects.cells import detect_cells as run
        from napari_defects.lattice import assign_sites, fit_lattice
        from napari_defects.widgets.segment import device

        layers = []
        if sites is None:
            atoms = locate(image.value, progress=progress)
            lattice: Any = fit_lattice(atoms, crystal)
            table = assign_sites(atoms, lattice)
        else:
            lattice, table = sites.about.get("lattice"), sites.value
        table.attrs["crystal"] = crystal
        made = {"step": "Cells", "detect_cells": detect_cells, "model": model, "boxes": boxes}
        known = {"image": image.image, "crystal": crystal, "made": made}
        if sites is None:
            layers.append(table_layer(table, "sites", f"atoms · {image.image}", movie=image.value.is_movie,
                                      lattice=lattice, **known))  # fmt: skip
        cells = run(
            image.value, None if model == "auto" else model, sites=table, crystal=crystal,
            boxes=None if boxes == LATTICE else boxes, device=device(), progress=progress, **detect_cells,
        )  # fmt: skip
        name = f"cells · {image.image}"
        layers.append(cells_layer(cells, name, image.value.extent_nm, image.value.n_frames, **known))
        bad = int((cells["species"] != "perfect").sum())
        return Made(layers, f"{len(cells):,} cells, {bad:,} with vacancies")

    def build(self) -> None:
        """Put the counts, the cell and the collection below."""
        self.table = CountsTable()
        self.table.setToolTip("Kinds of cells, of all cells, and per area.")
        self.table.setHorizontalHeaderItem(2, QTableWidgetItem("% of cells"))
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.panel = CellPanel(self.correct)
        self.folder = FileEdit(mode="d", value=Path.home() / "labelled-cells", label="collection")
        self.folder.tooltip = "Cells that you name are added here: pictures and a table, to train with."
        self.collecting = QLabel("Collection of labelled cells")
        for widget in (self.table, self.words, self.panel, self.collecting, self.folder.native):
            self.add(widget)
        self.layer: Any = None
        self.chosen: int | None = None
        self._scroll = QTimer(self)
        self._scroll.setSingleShot(True)
        self._scroll.timeout.connect(lambda: self.findChild(QScrollArea).ensureWidgetVisible(self.panel))
        callbacks, clicked = self.viewer.mouse_drag_callbacks, self._clicked
        callbacks.append(clicked)
        self.destroyed.connect(lambda: callbacks.remove(clicked) if clicked in callbacks else None)
        self._watch(None)

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Watch the new cells."""
        self._watch(layers[-1])

    def refresh(self, _event: Any = None) -> None:
        """Offer the layers there are now, and watch the newest cells."""
        super().refresh()
        if self.layer not in self.viewer.layers:
            cells = [layer for layer in self.viewer.layers if about(layer).get("table") == "cells"]
            self._watch(cells[-1] if cells else None)

    def counts(self) -> pd.DataFrame:
        """Return counts and densities of the kinds, as the cells stand; per area of all cells."""
        from napari_defects.statistics import count

        cells = cells_of_layer(self.layer)
        bad = cells[cells["species"] != "perfect"].rename(columns={"cell": "defect"}).assign(sublattice="")
        return count(bad, _as_sites(cells))

    def look(self, row: int) -> None:
        """Show a cell."""
        try:
            view, words = view_of(self.viewer, self.layer, row)
        except (ValueError, KeyError) as error:
            self.fail(error)
            return
        self.chosen = row
        self.words.setText(words)
        self.panel.look(view)
        self._mark()
        self._scroll.start(0)

    def correct(self, species: str) -> None:
        """Name the chosen cell; the table follows, and the cell joins the collection."""
        if self.chosen is None or self.layer not in self.viewer.layers:
            return
        cells = cells_of_layer(self.layer)
        called = str(cells.loc[self.chosen, "species"])
        for name, value in (("species", species), ("probability", 1.0), ("method", "manual")):
            cells.loc[self.chosen, name] = value  # type: ignore[index]
        try:
            self._collect(cells, called)
        except (ValueError, OSError) as error:
            self.fail(error)
        self.layer.features = features(cells)
        self.layer.colormap = palette(cells)
        self._count()
        self.look(self.chosen)

    def _collect(self, cells: pd.DataFrame, called: str) -> None:
        from napari_defects.cells import Collection

        collection, row = Collection(self.folder.value), cells.loc[self.chosen]
        picture = picture_of(self.viewer, self.layer, row)
        place = {name: [row[name]] for name in ("species", "frame", "y_nm", "x_nm")}
        more = {"called": [called], "crystal": [cells.attrs["crystal"]], "source": [source_name(self.layer)]}
        collection.add(picture[None], pd.DataFrame({**place, **more}))
        self.collecting.setText(f"Collection of labelled cells: {len(collection):,}")

    def _mark(self) -> None:
        """Outline the chosen cell in the image; nothing where none is chosen."""
        layers = self.viewer.layers
        mark = next((layer for layer in layers if layer.name == _OUTLINE), None)
        if self.chosen is None:
            if mark is not None:
                layers.remove(mark)
            return
        cell: Any = cells_of_layer(self.layer).loc[self.chosen]
        corners = outline(cell)
        if self.layer.ndim == 3:
            corners = np.column_stack([np.full(4, float(cell["frame"])), corners])
        if mark is not None and mark.ndim == self.layer.ndim:
            mark.data, mark.translate = [corners], self.layer.translate
            return
        active = layers.selection.active
        self.viewer.add_shapes(
            [corners], name=_OUTLINE, face_color="transparent", edge_color=PINK, edge_width=0.03,
            translate=self.layer.translate, units=units_of(self.layer.ndim),
        )  # fmt: skip
        layers.selection.active = active

    def _watch(self, layer: Any) -> None:
        self.layer, self.chosen = layer, None
        self._mark()
        self.panel.setVisible(False)
        self.words.setText("")
        for widget in (self.collecting, self.folder.native, self.table):
            widget.setVisible(layer is not None)
        if layer is not None:
            self._count()

    def _count(self) -> None:
        self.table.show_counts(self.counts())

    def _clicked(self, viewer: Any, event: Any) -> Any:
        """Look at the cell under a click that is no drag."""
        layer = self.layer
        if layer is None or layer not in viewer.layers or not layer.visible:
            return
        still = True
        yield
        while event.type == "mouse_move":
            still = False
            yield
        if not still:
            return
        value = layer.get_value(event.position, world=True)
        if isinstance(value, (int, np.integer)) and value > 0:
            self.look(int(value) - 1)


def view_of(viewer: Any, layer: Any, row: int) -> tuple[CellView, str]:
    """Return what there is to see of a cell, and a line about it."""
    from napari_defects.cells import profile, references
    from napari_defects.cells.collection import seen
    from napari_defects.cells.kinds import PERFECT
    from napari_defects.networks import list_models, model_for

    cells = cells_of_layer(layer)
    crystal, cell = cells.attrs["crystal"], cells.loc[row]
    pictures = picture_of(viewer, layer, cell)
    name = about(layer)["made"]["model"]
    name = model_for(crystal, "cells") if name == "auto" else name
    kinds = {str(model["name"]): model["architecture"] for model in list_models("cells")}
    architecture = kinds.get(str(name), {"kind": "patches", "inputs": 2, "side_px": 20})
    channels = seen(pictures, crystal, architecture)
    distance, own = profile(pictures[0], crystal)
    expected = {kind: profile(image, crystal)[1] for kind, image in references(crystal).items()}
    scale, offset = np.polyfit(expected[PERFECT], profile(pictures[1], crystal)[1], 1)  # the typical cell is perfect
    lines = {kind: scale * line + offset for kind, line in expected.items()}
    sure = {kind: float(cells[f"p_{kind}"].iloc[row]) for kind in expected}
    place = f"cell ({cell['i']}, {cell['j']})" if pd.notna(cell["i"]) else "cell"
    color = cell_color(str(cell["species"]))
    how = "named by you" if cell["method"] == "manual" else f"{100 * cell['probability']:.1f} % sure"
    words = f"{place}: <b style='color:{color}'>{cell['species']}</b>, {how}"
    return CellView(pictures, channels, distance, own, lines, sure, str(cell["species"])), words


def picture_of(viewer: Any, layer: Any, cell: Any) -> Any:
    """Return the pictures of a cell and of the typical one around it, as a collection keeps them."""
    from napari_defects.cells import crops

    source = next((other for other in viewer.layers if other.name == source_name(layer)), None)
    if source is None:
        raise ValueError(f"The image {source_name(layer)!r} of these cells is gone; open it again.")
    micrograph, frame = micrograph_of(source), int(cell["frame"])
    size = micrograph.pixel_size_yx_nm
    middle = cell[["y_nm", "x_nm"]].to_numpy(float)
    low = np.clip(np.floor((middle - _AROUND_NM) / size).astype(int), 0, None)
    high = np.ceil((middle + _AROUND_NM) / size).astype(int) + 1
    part = micrograph.frame(frame)[low[0] : high[0], low[1] : high[1]]
    near = cells_of_layer(layer)
    near = near[near["i"].notna() & (near["frame"] == frame)]
    near = near[(np.abs(near[["y_nm", "x_nm"]].to_numpy(float) - middle) < _AROUND_NM).all(1)]
    sites = _as_sites(near).assign(frame=0)
    sites[["y_ideal_nm", "x_ideal_nm"]] -= low * size
    pixel = micrograph.pixel_size_nm
    which = np.array([[cell["i"], cell["j"]]], int)
    return crops(Micrograph(part, pixel), sites, near.attrs["crystal"], which)[0]


def _as_sites(cells: pd.DataFrame) -> pd.DataFrame:
    """SITES at which the columns of cells belong."""
    from napari_defects.cells.kinds import pair_of
    from napari_defects.cells.patches import middle_to_sites
    from napari_defects.crystals import get_crystal
    from napari_defects.tables import SITES as COLUMNS

    crystal = get_crystal(cells.attrs["crystal"])
    angle = np.deg2rad(cells["rotation_deg"].to_numpy(float))
    scale = cells["width_nm"].to_numpy(float)
    parts = []
    for name, (down, right) in zip(pair_of(crystal), middle_to_sites(crystal), strict=True):
        y = cells["y_nm"] + scale * (np.cos(angle) * down + np.sin(angle) * right)
        x = cells["x_nm"] + scale * (np.cos(angle) * right - np.sin(angle) * down)
        parts.append(cells[["frame", "i", "j"]].assign(sublattice=name, y_ideal_nm=y, x_ideal_nm=x))
    sites = pd.concat(parts, ignore_index=True).reindex(columns=[c.name for c in COLUMNS])
    sites.attrs["crystal"] = crystal.name
    return sites
