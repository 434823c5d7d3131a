"""Localize: every atomic column with its error, on the lattice of the crystal."""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton

from napari_defects.micrograph import Progress
from napari_defects.tables import Atoms
from napari_defects.widgets._columns import COLOR_BY, Preview, draw_errors, error_pm, paint
from napari_defects.widgets._layers import image_layer
from napari_defects.widgets._picks import CRYSTAL, IMAGE, MAPS, Source
from napari_defects.widgets._plots import Plot
from napari_defects.widgets._points import table_layer, table_of
from napari_defects.widgets._settings import accelerator
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._viewer import standing, upsert


class Localize(Panel):
    """Find all columns, measure their positions and give each its place in the lattice."""

    title = "Localize"
    help = "Measures every atomic column and finds its place in the lattice. Candidates follow the threshold at once."
    inputs: ClassVar = {"image": IMAGE, "crystal": CRYSTAL, "maps": MAPS}
    steps = ("atoms.locate", "lattice.fit_lattice", "lattice.assign_sites")
    main = ("threshold", "column_sigma_nm", "min_separation_nm", "max_offset_nm")
    hide = ("maps", "device")
    follow = "Classify"

    @staticmethod
    def work(
        progress: Progress,
        image: Source,
        crystal: str,
        maps: Source | None,
        locate: dict[str, Any],
        fit_lattice: dict[str, Any],
        assign_sites: dict[str, Any],
    ) -> Made:
        """Locate, fit the lattice, assign the sites."""
        from napari_defects import lattice as lattices
        from napari_defects.atoms import bound
        from napari_defects.atoms import locate as find

        likely = maps.value if maps else None
        atoms = find(image.value, maps=likely, device=accelerator(), progress=progress, **locate)
        made = {"step": "Localize", "locate": locate, "fit_lattice": fit_lattice, "assign_sites": assign_sites}
        known: dict[str, Any] = {
            "image": image.image,
            "crystal": crystal,
            "made": made,
            "atom_columns": list(atoms.columns),
        }
        name, movie = f"atoms · {image.image}", image.value.is_movie
        sites: Any
        try:
            lattice = lattices.fit_lattice(atoms, crystal, **fit_lattice)
            sites, doubt = lattices.assign_sites(atoms, lattice, **assign_sites), ""
        except ValueError as error:
            lattice, sites, doubt = None, atoms, f"No lattice: {error}"
        limit = 1e3 * np.hypot(*bound(image.value, sites).T) / np.sqrt(2)
        kind = "atoms" if lattice is None else "sites"
        known |= {} if lattice is None else {"lattice": lattice}
        layer = table_layer(sites, kind, name, movie=movie, **known)
        extra = {"lattice": lattice, "sites": sites, "atoms": atoms, "bound_pm": limit, "image": image.image}
        return Made([layer], found(sites, limit), doubt, extra)

    def build(self) -> None:
        """Put colours, the residual and the histogram below."""
        self.preview = Preview(self)
        self.color_by, self.residual_button = QComboBox(), QPushButton("Show residual")
        self.color_by.addItems(COLOR_BY)
        self.color_by.setToolTip("What the colour of a column says; dark is little, bright is much.")
        self.color_by.currentTextChanged.connect(lambda _by: self.paint())
        self.residual_button.setToolTip("What the columns leave unexplained, in units of the noise, as a layer.")
        self.residual_button.clicked.connect(lambda: self.show_residual())
        row = QHBoxLayout()
        for widget in (QLabel("Colour by"), self.color_by, self.residual_button):
            row.addWidget(widget)
        self._layout.addLayout(row)
        self.plot = Plot()
        self.add(self.plot)
        self._errors: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()  # by layer: its sites, their bound
        self._drawn: Any = None
        for name in ("threshold", "column_sigma_nm", "min_separation_nm"):
            self.fields["locate", name].changed.connect(lambda _value: self.look())

    def look(self) -> None:
        """Show what the threshold finds, before anything is fitted."""
        if self.working:
            return
        try:
            image, values = self.gather()["image"], self.parameters["locate"]
            image.value.pixel_size_yx_nm  # noqa: B018 - says what to do where it is not known
        except (ValueError, TypeError, KeyError) as error:
            self.say(str(error), doubt=True)
            return
        scale = {name: values[name] for name in ("column_sigma_nm", "min_separation_nm")}
        self.preview.show(image, self.pickers["image"].value, values["threshold"], **scale)

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Take the candidates away; colours and histogram of what was measured."""
        self.preview.remove(made.extra["image"])
        self._errors[layers[0]], self._drawn = (made.extra["sites"], made.extra["bound_pm"]), None
        self.show_chosen()
        paint(layers[0], self.color_by.currentText())

    def show_chosen(self) -> None:
        """Show the errors of the columns of the chosen image."""
        layer = self._columns()
        if layer not in self._errors:
            self.plot.setVisible(False)
        elif layer is not self._drawn:
            draw_errors(self.plot, *self._errors[layer])
        self._drawn = layer

    def _columns(self) -> Any:
        layer = self.pickers["image"].value
        name = "" if layer is None else f"atoms · {layer.name}"
        return standing(self.viewer, name, "" if layer is None else layer.name)

    def paint(self) -> None:
        """Colour the columns as chosen."""
        if (layer := self._columns()) is not None:
            paint(layer, self.color_by.currentText())

    def show_residual(self) -> None:
        """Add what the columns leave unexplained as a layer."""
        from napari_defects.atoms import residual

        layer = self._columns()
        if layer is None:
            self.fail(ValueError("There are no columns of this image yet: press Run first."))
            return
        image, atoms = self.gather()["image"], table_of(layer, "atoms")

        def work(progress: Progress) -> Made:
            left = residual(image.value, Atoms(atoms))
            data, keywords, kind = image_layer(left, f"residual · {image.image}", image=image.image)
            keywords |= {"colormap": "PiYG", "contrast_limits": (-5.0, 5.0), "opacity": 0.8}
            spread = float(np.std(left.data))
            return Made([(data, keywords, kind)], f"Residual: {spread:.2f} σ of the noise; 1 where the model is right")

        self.start(work, {}, self._added, "Residual")

    def _added(self, made: Made) -> None:
        for layer in made.layers:
            upsert(self.viewer, layer, self.subject.layer)
        self.say(f"✓ {made.summary}")


def found(table: Any, bound_pm: Any = None) -> str:
    """Say how many columns there are, how many sites are empty, and how precise the positions are."""
    real = table[np.isfinite(table["y_nm"])]
    error = np.nanmedian(error_pm(real)) if len(real) else np.nan
    empty = f", {len(table) - len(real)} empty sites" if len(table) > len(real) else ""
    limit = "" if bound_pm is None or not np.isfinite(bound_pm).any() else f", bound {np.nanmedian(bound_pm):.1f} pm"
    return f"{len(real):,} columns{empty}, precision {error:.1f} pm{limit}"
