"""Discover: what fits no class, as a gallery of look-alikes that wait for a name."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QLineEdit, QPushButton, QWidget

from napari_defects.micrograph import Progress
from napari_defects.widgets._frame import open_widget
from napari_defects.widgets._ink import FAINT, Ink
from napari_defects.widgets._layers import about
from napari_defects.widgets._picks import IMAGE, MAPS, SITES, Source
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._rows import go_to
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.average import picture
from napari_defects.widgets.train import LABELLED

PATCH_PX = 72
_CONTRAST = (-0.1, 1.5)  # from between the columns to half as bright again as the host


class Discover(Panel):
    """Find columns that fit no class, name the groups, and hand them to the training."""

    title = "Discover"
    help = "Finds columns that fit no class and groups those that look alike. Name a group to teach it."
    inputs: ClassVar = {"image": IMAGE, "sites": SITES, "maps": MAPS}
    steps = ("learning.discovery.discover",)
    main = ("false_share", "min_members")
    hide = ("model",)
    follow = "Train"

    @staticmethod
    def work(progress: Progress, image: Source, sites: Source, maps: Source | None, discover: dict[str, Any]) -> Made:
        """Discover, and show the clusters as points."""
        from napari_defects.learning.discovery import discover as run
        from napari_defects.tables import crystal_of

        progress(0, 1)
        table = sites.value
        table.attrs["crystal"] = sites.about.get("crystal", "")
        found = run(image.value, table, maps=maps.value if maps else None, **discover)
        progress(1, 1)
        n, groups = sum(c.n for c in found.clusters), len(found.clusters)
        said = f"{n} columns in {groups} group{'s' * (groups != 1)}" if n else "Nothing that chance would not explain."
        known = {"crystal": crystal_of(table).name, "lattice": sites.about.get("lattice"), "image": image.image}
        known["made"] = {"step": "Discover", "discover": discover}
        name, movie = f"discovered · {image.image}", image.value.is_movie
        layer = table_layer(points_of(found, {}), "novelties", name, movie=movie, **known)
        return Made([layer] if n else [], said, extra=found)

    def build(self) -> None:
        """Put the gallery and the way to the training below."""
        self.gallery = Gallery(self.show_cluster, self.named)
        self.add(self.gallery)
        self.teach = QPushButton("Add to training ▸")
        self.teach.setToolTip("Makes the named groups labels, and opens Train with them.")
        self.teach.clicked.connect(lambda: self.add_to_training())
        self.teach.setVisible(False)
        self.add(self.teach)
        self.found: Any = None
        self.layer: Any = None

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Fill the gallery."""
        self.found, self.layer = made.extra, layers[0] if layers else None
        self.gallery.show_clusters(self.found.clusters)
        self.teach.setVisible(bool(self.found.clusters))

    def show_cluster(self, number: int) -> None:
        """Go to the next member of a cluster."""
        if self.layer not in self.viewer.layers:
            return
        own = self.layer.features
        own = own[own["cluster"] == number].reset_index(drop=True)
        self._turn = getattr(self, "_turn", -1) + 1
        go_to(self.viewer, self.layer, own.iloc[self._turn % len(own)])

    def named(self) -> None:
        """Let the points in the image have the names that are written in the gallery."""
        try:
            table = points_of(self.found, self.gallery.names())
        except ValueError as error:
            self.say(str(error).replace("`", ""), doubt=True)
            return
        self.say("")
        if self.layer in self.viewer.layers:
            known = {key: value for key, value in about(self.layer).items() if key != "table"}
            movie = self.layer.ndim == 3
            upsert(self.viewer, table_layer(table, "novelties", self.layer.name, movie=movie, **known))

    def add_to_training(self) -> Any:
        """Make labels of the named clusters, and open Train with them."""
        names = self.gallery.names()
        try:
            table = points_of(self.found, names)
            if not names:
                raise ValueError("Give a group a name first, as Ti_W: the element and the site it is on.")
        except ValueError as error:
            self.fail(error)
            return None
        known = {key: value for key, value in about(self.layer).items() if key != "table"} if self.layer else {}
        image = known.get("image", "")
        labels = table[table["cluster"].isin(names)].reset_index(drop=True)
        movie = self.layer is not None and self.layer.ndim == 3
        made = table_layer(labels, "novelties", f"labels · {image}", movie=movie, **known, labels=True)
        layer = upsert(self.viewer, made)
        self.say(f"✓ {len(labels):,} columns to learn from, in Train.")
        train = open_widget(self.viewer, "Train", {"learn": LABELLED, **self.choices})
        if train is not None:
            train.look_at(image)
            train.pickers["labels"].value = layer
        return layer


class Gallery(QWidget):
    """One row a cluster: the mean image, the host's beside it, what is known, and a field for the name."""

    def __init__(self, clicked: Any, renamed: Any):
        super().__init__()
        self._clicked, self._renamed = clicked, renamed
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 4, 0, 4)
        self._grid.setHorizontalSpacing(6)
        self._grid.setColumnStretch(2, 1)
        self.fields: dict[int, QLineEdit] = {}
        self.setVisible(False)

    def show_clusters(self, clusters: tuple[Any, ...]) -> None:
        """Show these clusters."""
        while (item := self._grid.takeAt(0)) is not None:
            item.widget().deleteLater()
        self.fields = {}
        for column, words in enumerate(("these", "host")):
            head = Ink(words, FAINT)
            head.setAlignment(Qt.AlignmentFlag.AlignCenter)
            self._grid.addWidget(head, 0, column)
        for cluster in clusters:
            self._add(cluster, 2 * cluster.number + 1)
        self.setVisible(bool(clusters))

    def _add(self, cluster: Any, row: int) -> None:
        for column, patch in enumerate((cluster.patch, cluster.host)):
            image = _Picture(lambda number=cluster.number: self._clicked(number))
            image.setPixmap(picture(np.asarray(patch), _CONTRAST, PATCH_PX))
            image.setToolTip("Click to see the next of them in the image.")
            self._grid.addWidget(image, row, column, 2, 1)
        height = f"{cluster.relative_height:.3f} ± {cluster.relative_height_err:.3f} of its height"
        words = QLabel(f"<b>{cluster.n}</b> on {cluster.sublattice}<br>{'odd shape, ' * cluster.odd_shape}{height}")
        words.setWordWrap(True)
        self._grid.addWidget(words, row, 2)
        name = QLineEdit()
        name.setPlaceholderText(f"name, as Ti_{cluster.likeness.partition('_')[2]}")
        name.setToolTip(f"Until it has a name: {cluster.likeness}")
        name.editingFinished.connect(lambda: self._renamed())
        self._grid.addWidget(name, row + 1, 2)
        self.fields[cluster.number] = name

    def names(self) -> dict[int, str]:
        """Names that were given, by cluster."""
        return {number: field.text().strip() for number, field in self.fields.items() if field.text().strip()}


class _Picture(QLabel):
    """A picture that can be clicked."""

    def __init__(self, clicked: Any):
        super().__init__()
        self._clicked = clicked

    def mousePressEvent(self, event: Any) -> None:
        self._clicked()


def points_of(found: Any, names: dict[int, str]) -> pd.DataFrame:
    """Table of the members of all clusters as DEFECTS: under their name, or as darker or brighter than their site."""
    if names:
        found.named(names)  # says what is wrong with a name
    species = {c.number: names.get(c.number, c.likeness) for c in found.clusters}
    own: pd.DataFrame = found.sites[found.sites["cluster"] >= 0].sort_values(
        ["cluster", "novelty"], ascending=[True, False]
    )
    return own.assign(
        defect=range(len(own)), species=own["cluster"].map(species), probability=own["novelty"], method="manual"
    ).reset_index(drop=True)
