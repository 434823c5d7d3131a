"""Average: the members of each species registered and averaged, shown large with their precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QFileDialog, QGridLayout, QHBoxLayout, QLabel, QPushButton, QWidget

from napari_defects.micrograph import Progress
from napari_defects.widgets._export import ExportFigure
from napari_defects.widgets._layers import KEY, LayerData, about, contrast, source_name
from napari_defects.widgets._members import Members
from napari_defects.widgets._picks import DEFECTS, IMAGE, SITES, Source
from napari_defects.widgets._plots import Plot, draw_precision
from napari_defects.widgets._rows import fly_to
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._viewer import made_from

GAP_NM = 0.6
LARGE_PX = 230


class Average(Panel):
    """Register and average the defects of each species."""

    title = "Average"
    help = "Registers and averages the defects of each species."
    inputs: ClassVar = {"image": IMAGE, "defects": DEFECTS, "sites": SITES}
    steps = ("averages.averaging.average",)
    main = ("radius_nm", "symmetrize", "clusters_nm")
    hide = ("sites",)
    follow = "Strain"

    @staticmethod
    def work(progress: Progress, image: Source, defects: Source, sites: Source, average: dict[str, Any]) -> Made:
        """Average every species; the averages lie to the right of the image."""
        from napari_defects.averages import average as run

        sites.value.attrs["crystal"] = sites.about.get("crystal")
        defects.value.attrs["crystal"] = sites.about.get("crystal")
        averages = run(
            image.value,
            defects.value,
            sites=sites.value,
            lattice=sites.about.get("lattice"),
            progress=progress,
            **average,
        )
        known = {
            "image": image.image,
            "crystal": sites.about.get("crystal"),
            "made": {"step": "Average", "average": average},
        }
        layers = [
            average_layer(result, average_place(image.value, number, result), known)
            for number, result in enumerate(averages.values())
        ]
        most = max(averages.values(), key=lambda a: a.n, default=None)
        some = f"{len(averages)} average{'s' * (len(averages) != 1)}"
        summary = f"{some}, {most.species} of {most.n}" if most else "no species has enough members"
        return Made(layers, summary, extra=(averages, average.get("species")))

    def build(self) -> None:
        """Put the gallery, the members and the precision of the one chosen below."""
        self.gallery = Gallery(self.viewer)
        self.gallery.chosen.connect(self.choose)
        self.large, self.words, self.members, self.plot = QLabel(), QLabel(), Members(self.viewer), Plot()
        self.large.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.words.setWordWrap(True)
        self.figure_button = ExportFigure(self, self.draw, lambda: f"precision of {self._average().species}")
        self.data_button = QPushButton("Export data")
        self.data_button.clicked.connect(lambda: self.export())
        row = QHBoxLayout()
        for button in (self.figure_button, self.data_button):
            row.addWidget(button)
        self.exports = QWidget()
        self.exports.setLayout(row)
        row.setContentsMargins(0, 0, 0, 0)
        for widget in (self.gallery, self.large, self.words, self.members, self.plot, self.exports):
            self.add(widget)
        self._chosen: Any = None
        self.choose(None)

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Show the averages."""
        drop_stale(self.viewer, self.subject.layer.name, *made.extra)
        self.show_chosen()

    def show_chosen(self) -> None:
        """Show the averages of the chosen image."""
        image = self.pickers["image"].value
        own = [] if image is None else averages_of(self.viewer, image.name)
        layers = sorted(own, key=lambda one: -about(one)["average"].n)
        self.gallery.show_layers(layers)
        self.choose(self._chosen if self._chosen in layers else next(iter(layers), None))

    def choose(self, layer: Any) -> None:
        """Show one average large, with its members and its precision."""
        self._chosen = layer
        for widget in (self.large, self.words, self.members, self.plot, self.exports):
            widget.setVisible(layer is not None)
        if layer is None:
            return
        average = about(layer)["average"]
        self.large.setPixmap(picture(layer.data, layer.contrast_limits, LARGE_PX))
        self.words.setText(f"<b>{average.species}</b>: {details(average)}")
        image = source_name(layer)
        self.members.show_members(next((one for one in self.viewer.layers if one.name == image), None), average.members)
        draw_precision(self.plot, average.precision)

    def _average(self) -> Any:
        if self._chosen is None:
            raise ValueError("There is no average yet: click Run first.")
        return about(self._chosen)["average"]

    def draw(self, ax: Any) -> Any:
        """Draw the precision of the average shown as a figure."""
        from napari_defects import figures

        return figures.precision(ax, self._average())

    def export(self, folder: Any = None) -> None:
        """Write columns, members and precision of the average shown as CSV; ask where to, if no `folder` is given."""
        from napari_defects.io import write_table

        try:
            average = self._average()
            folder = folder or QFileDialog.getExistingDirectory(self, "Export data to")
            if folder:
                name = average.species.replace(":", "_")
                tables = {"sites": average.strain(), "members": average.members, "precision": average.precision}
                for kind, table in tables.items():
                    write_table(table, Path(folder) / f"{name}_{kind}.csv")
                self.say(f"✓ Wrote {', '.join(f'{name}_{kind}.csv' for kind in tables)}.")
        except (ValueError, TypeError, OSError) as error:
            self.fail(error)


def averages_of(viewer: Any, image: str) -> list[Any]:
    """Layers of the averages of an image."""
    return [layer for layer in made_from(viewer, image) if "average" in about(layer)]


def drop_stale(viewer: Any, image: str, averages: Mapping[str, Any], asked: Sequence[str] | None) -> None:
    """Take away the averages, and what was made of them, that were asked for (None: all) and are no more."""
    found = {average.species for average in averages.values()}
    for layer in averages_of(viewer, image):
        species = about(layer)["average"].species
        if species not in found and (asked is None or species in asked):
            for one in [other for other in viewer.layers if other.name.endswith(layer.name)]:
                viewer.layers.remove(one)


def average_layer(average: Any, corner_nm: Any, known: dict[str, Any]) -> LayerData:
    """Return the layer of a class average, its top left corner at `corner_nm`; its columns are in the metadata."""
    image = np.asarray(average.image, np.float32)
    size = np.broadcast_to(np.asarray(average.pixel_size_nm, float), (2,))
    middle = np.asarray(corner_nm) + size * (np.asarray(image.shape) - 1) / 2
    keywords = {
        "name": f"average {average.species} · {known['image']}",
        "scale": tuple(size),
        "translate": tuple(corner_nm),
        "units": ("nm", "nm"),
        "colormap": "gray",
        "contrast_limits": contrast(image, 0.5, 99.9),
        "interpolation2d": "cubic",
        "metadata": {KEY: {"average": average, **known, "place_nm": tuple(middle), "center_nm": (0.0, 0.0)}},
    }
    return image, keywords, "image"


def average_place(micrograph: Any, number: int, average: Any) -> Any:
    """Return the top left corner of the average of this number: in columns to the right of the image."""
    height, width = micrograph.extent_nm
    size = (
        np.broadcast_to(np.asarray(average.pixel_size_nm, float), (2,)) * np.asarray(average.image.shape) + GAP_NM / 2
    )
    column, row = divmod(number, max(1, int(height // size[0])))
    return np.array([row * size[0], width + GAP_NM + column * size[1]])


class Gallery(QWidget):
    """Class averages side by side with members and precision; a click flies there."""

    COLUMNS, SIDE_PX = 3, 98
    chosen = Signal(object)

    def __init__(self, viewer: Any):
        super().__init__()
        self.viewer = viewer
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(4)
        self._grid.setVerticalSpacing(1)

    def show_layers(self, layers: list[Any]) -> None:
        """Show these layers of averages."""
        while (item := self._grid.takeAt(0)) is not None:
            item.widget().hide()  # it is deleted later, and would be seen until then
            item.widget().deleteLater()
        for number, layer in enumerate(layers):
            cell, words = QLabel(), QLabel(caption(about(layer)["average"]))
            cell.setPixmap(picture(layer.data, layer.contrast_limits, self.SIDE_PX))
            cell.setFixedSize(self.SIDE_PX + 2, self.SIDE_PX + 2)  # however little room the panel has when it opens
            cell.mousePressEvent = lambda _event, layer=layer: self.take(layer)
            words.setWordWrap(True)
            words.setFixedWidth(self.SIDE_PX + 2)
            words.setAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop)
            for label in (cell, words):
                label.setToolTip(f"{details(about(layer)['average'])}<br>Click the picture to see it on the canvas.")
            row, column = divmod(number, self.COLUMNS)
            self._grid.addWidget(cell, 2 * row, column, Qt.AlignmentFlag.AlignHCenter)
            self._grid.addWidget(words, 2 * row + 1, column)
        self.setVisible(bool(layers))

    def take(self, layer: Any) -> None:
        """Choose an average, and fly there."""
        self.chosen.emit(layer)
        self.fly(layer)

    def fly(self, layer: Any) -> None:
        """Move the view to an average."""
        fly_to(self.viewer, layer)


def caption(average: Any) -> str:
    """Say species and members, and the precision, in two short lines."""
    worst = _precision(average)["precision_pm"].max()
    precision = f"± {worst:.1f} pm" if np.isfinite(worst) else "too few to tell"
    name = average.species.replace("+", "+\u200b").replace("@", "@\u200b").replace("-", "-\u200b")  # may break there
    return f"<b>{name}</b> ({average.n})<br>{precision}"


def details(average: Any, wanted_pm: float = 0.3) -> str:
    """Say how many members there are, why others were left out, the precision, and how many more it takes."""
    left_out = average.members.loc[~average.members["accepted"].astype(bool), "reason"].value_counts()
    lines = [f"{average.n} member{'s' * (average.n != 1)}"] + [
        f"{number} left out: {reason}" for reason, number in left_out.items()
    ]
    rows = _precision(average)
    if len(rows):
        lines.append(
            ", ".join(f"{row.precision_pm:.2f} pm ({row.sublattice})" for row in rows.itertuples()) + " by half-sets"
        )
        more = int(np.ceil(average.members_for(wanted_pm)["n"].max())) - average.n
        lines[-1] += f"; would be {wanted_pm:g} with {more} more" if more > 0 else ""
    return "<br>".join(lines)


def _precision(average: Any) -> Any:
    """Rows of the precision table at the largest number of members."""
    return average.precision.dropna(subset="precision_pm").sort_values("n").groupby("sublattice").tail(1)


def picture(image: Any, limits: tuple[float, float], side_px: int) -> QPixmap:
    """Return a grey picture of an array."""
    low, high = limits
    grey = (255 * np.clip((np.nan_to_num(np.asarray(image, float), nan=low) - low) / (high - low or 1), 0, 1)).astype(
        np.uint8
    )
    grey = np.ascontiguousarray(grey)
    pixels = QImage(grey.data, grey.shape[1], grey.shape[0], grey.strides[0], QImage.Format.Format_Grayscale8)
    mode = Qt.TransformationMode.SmoothTransformation
    return QPixmap.fromImage(pixels.copy()).scaled(side_px, side_px, Qt.AspectRatioMode.KeepAspectRatio, mode)
