"""Strain: how far columns are from where the lattice wants them, and the strain this makes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from magicgui.widgets import CheckBox, ComboBox, FloatSlider

from napari_defects.micrograph import Progress
from napari_defects.widgets._export import ExportFigure
from napari_defects.widgets._forms import Form
from napari_defects.widgets._layers import KEY, LayerData, about, source_name, units_of
from napari_defects.widgets._picks import COLUMNS, Source
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._profiles import Field, Profiles
from napari_defects.widgets._rows import fly_to
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._viewer import standing, upsert

COMPONENTS = {
    "dilation": "dilation", "ε xx": "exx", "ε yy": "eyy", "ε xy": "exy", "rotation": "rotation_rad",
    "u x": "ux_pm", "u y": "uy_pm",
}  # fmt: skip
ARROW_NM = 0.15
"""Length at which most displacements are drawn to begin with."""


class StrainMap(Panel):
    """Map the strain, and draw the displacements as arrows that can be magnified."""

    title = "Strain"
    help = "Maps strain and displacement of the columns against the lattice."
    inputs: ClassVar = {"sites": COLUMNS}
    steps = ("deformation.gradients.strain", "eshelby.fits.fit_eshelby")
    main = ("neighbors", "frame_deg")
    hide = ("lattice", "center_nm", "reference", "draws_pm", "seed")
    follow = "Count and export"

    @staticmethod
    def work(progress: Progress, sites: Source, strain: dict[str, Any], fit_eshelby: dict[str, Any]) -> Made:
        """Strain of all columns against the lattice they were assigned to; around a defect the inclusion, too."""
        from napari_defects import deformation

        progress(0, 1)
        columns = sites.value[[c for c in sites.value.columns if c not in _own_columns()]]
        average = sites.about.get("average")
        columns.attrs |= {"crystal": sites.about.get("crystal"), "copies": getattr(average, "copies", 1)}
        lattice = sites.about.get("lattice")
        draws = average.draws() if average is not None and average.has_draws else None
        if (center := sites.about.get("center_nm")) is not None:
            columns, lattice = deformation.displacements(columns, center_nm=center), None
        copied = draws if columns.attrs["copies"] > 1 else None
        table = deformation.strain(columns, lattice, draws_pm=copied, **strain)
        known: dict[str, Any] = {k: sites.about[k] for k in ("crystal", "lattice", "place_nm") if k in sites.about}
        known |= {"image": sites.image, "made": {"step": "Strain", "strain": strain}}
        name = field_name(sites.image, average)
        layers = [strain_layer(table, "dilation", name, known), arrow_layer(table, name, known)]
        if average is None:
            movie = bool((table["frame"] > 0).any())
            layers.append(table_layer(table, "strain", f"atoms · {sites.image}", movie=movie, **known))
        if average is not None and center is not None:
            from napari_defects.eshelby import fit_eshelby as fit

            found = fit(table, draws_pm=draws, **fit_eshelby)
            y, x = known.get("place_nm", (0.0, 0.0))
            layers[0][1]["metadata"][KEY]["field"] = Field(
                name, table, found, (float(y), float(x)), strain["neighbors"]
            )
        return Made(layers, strain_words(table), extra=average)

    def build(self) -> None:
        """Put the choice of the component, the significance and the magnification below."""
        choices = [(f"{words} ({_unit(column)})", words) for words, column in COMPONENTS.items()]
        self.component = ComboBox(
            name="component", label="show", choices=choices, tooltip="What the map and its colour bar show."
        )
        self.significant = CheckBox(
            name="significant",
            text="significant (2 σ) only",
            label="",
            tooltip="Leave out what is less than twice its error.",
        )
        self.magnify = FloatSlider(
            name="magnify",
            value=20,
            min=1,
            max=500,
            step=1,
            label="arrows ×",
            tooltip="Magnification of the displacements.",
        )
        self.view = Form([self.component, self.magnify, self.significant])
        self.add(self.view)
        self.map_button = ExportFigure(self, self.draw_map, lambda: f"strain of {self._name()}", aspect=0.9)
        self.map_button.setText("Export map")
        self.add(self.map_button)
        self.profiles = Profiles(self)
        self.add(self.profiles)
        self._map: Any = None
        self.component.changed.connect(self._redraw)
        self.significant.changed.connect(self._redraw)
        self.magnify.changed.connect(self._magnify)
        self.view.setVisible(False)
        self.map_button.setVisible(False)

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Let the map be as the controls say, and its scale be on the canvas."""
        layers[0].visible = True
        drawn = (about(layers[0])["strain"], False)
        if layers[0] is self._map and drawn != (self.component_name, self.significant.value):
            self._redraw()
        self._map = None
        self.show_chosen()
        if made.extra is not None:  # an average, which lies beside the image
            fly_to(self.viewer, layers[0])
            drop_when_remade(self.viewer, made.extra, layers)

    def show_chosen(self) -> None:
        """Let the controls show how the map of the chosen columns is drawn."""
        layer = self._layer("strain")
        for widget in (self.view, self.map_button):
            widget.setVisible(layer is not None)
        if layer is self._map:
            return
        self._map = layer
        if layer is None:
            self.say("")
        for other in self.viewer.layers if layer is not None else ():
            if "strain" in about(other):  # a colour bar has no name: only that of this map is shown
                other.colorbar.visible = other is layer and other.visible
        known = {} if layer is None else about(layer)
        arrows, field = self._layer("displacement"), known.get("field")
        with self.magnify.changed.blocked(), self.component.changed.blocked(), self.significant.changed.blocked():
            self.magnify.value = self.magnify.value if arrows is None else arrows.length
            self.component.value = {v: k for k, v in COMPONENTS.items()}[known.get("strain", "dilation")]
            self.significant.value = known.get("significant", False)
        if field is not None:
            place = tuple(np.add(field.place_nm, known.get("corner_nm", 0.0)))
            field = field._replace(place_nm=place, name=self._name())
        self.profiles.show_field(field, self.pickers["sites"].value)

    def _name(self) -> str:
        """Name of the map of the chosen columns."""
        chosen = self.pickers["sites"].value
        return "" if chosen is None else field_name(source_name(chosen), about(chosen).get("average"))

    def _layer(self, kind: str) -> Any:
        chosen = self.pickers["sites"].value
        return standing(self.viewer, f"{kind} · {self._name()}", None if chosen is None else source_name(chosen))

    @property
    def component_name(self) -> str:
        """Column of the STRAIN table that is shown."""
        return COMPONENTS[self.component.value]

    @property
    def component_unit(self) -> tuple[float, str]:
        """Factor and unit in which the component is shown."""
        unit = _unit(self.component_name)
        return (100.0 if unit == "%" else 1.0), unit

    def draw_map(self, ax: Any) -> Any:
        """Draw the map shown as a figure, with the displacements over it."""
        from napari_defects import figures

        if self._map is None:
            raise ValueError("There is no strain yet: click Run first.")
        significance = 2.0 if self.significant.value else 0.01
        return figures.strain_map(ax, about(self._map)["strain_table"], self.component_name, significance=significance)

    def _redraw(self) -> None:
        layer = self._layer("strain")
        if layer is None:
            return
        known = about(layer) | {"significant": self.significant.value}
        table, component = known.pop("strain_table"), self.component_name
        shown = table
        if self.significant.value:
            certain = np.abs(table[component]) > 2 * table[error_name(component)]
            shown = table.assign(**{component: table[component].where(certain)})
        data, keywords, kind = strain_layer(shown, component, self._name(), known)
        keywords["metadata"][KEY]["strain_table"] = table
        upsert(self.viewer, (data, keywords, kind))
        self.profiles.draw()

    def _magnify(self, factor: float) -> None:
        if (arrows := self._layer("displacement")) is not None:
            arrows.length = factor


def drop_when_remade(viewer: Any, average: Any, made: list[Any]) -> None:
    """Take away what was made of an average as soon as its layer has another one."""
    columns = next((one for one in viewer.layers if about(one).get("average") is average), None)

    def look(_event: Any = None) -> None:
        if columns is None or about(columns).get("average") is not average:
            for layer in [one for one in made if one in viewer.layers]:
                viewer.layers.remove(layer)

    if columns is not None:
        columns.events.metadata.connect(look)
    look()


def field_name(image: str, average: Any) -> str:
    """Name of what is measured on the columns of an image, or of a class average of it."""
    return image if average is None else f"average {average.species} · {image}"


def strain_layer(table: pd.DataFrame, component: str, name: str, known: dict[str, Any]) -> LayerData:
    """Return a component of the strain between the columns, in colours centred at zero; it carries the table."""
    from napari_defects.deformation import strain_image

    places = table[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float)
    low, high = np.nanmin(places, axis=0), np.nanmax(places, axis=0)
    pixel = float(np.clip((high - low).max() / 256, 0.005, 0.05))
    rows, columns = (int(n) for n in np.ceil((high - low) / pixel) + 1)
    frames = range(int(table["frame"].max()) + 1)
    stack = [
        strain_image(table, component, (rows, columns), pixel, origin_nm=(low[0], low[1]), frame=f) for f in frames
    ]
    picture = np.stack(stack) if len(stack) > 1 else stack[0]
    if not component.endswith(("_pm", "_rad")):
        picture = np.asarray(100 * picture)
    limit = float(np.nanpercentile(np.abs(picture), 98)) if np.isfinite(picture).any() else 1.0
    lead = 1 if len(stack) > 1 else 0
    keywords = {
        "name": f"strain · {name}",
        "colormap": "RdBu_r",
        "contrast_limits": (-limit or -1.0, limit or 1.0),
        "interpolation2d": "linear",
        "opacity": 0.8,
        "scale": (*(1.0,) * lead, pixel, pixel),
        "translate": (*(0.0,) * lead, *(low + np.asarray(known.get("place_nm", (0.0, 0.0))))),
        "units": units_of(lead + 2),
        "metadata": {KEY: {**known, "strain": component, "unit": _unit(component), "strain_table": table}},
    }
    return picture, keywords, "image"


def arrow_layer(table: pd.DataFrame, name: str, known: dict[str, Any]) -> LayerData:
    """Displacements as arrows from where the lattice expects the columns, magnified to be seen."""
    rows = table[np.isfinite(table[["uy_pm", "ux_pm", "y_ideal_nm"]]).all(axis=1)]
    start, step = rows[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float), rows[["uy_pm", "ux_pm"]].to_numpy(float) / 1000
    lead = int((table["frame"] > 0).any())
    if lead:
        frames = rows["frame"].to_numpy(float)
        start, step = np.column_stack([frames, start]), np.column_stack([0 * frames, step])
    typical = float(np.percentile(np.linalg.norm(step, axis=1), 90)) if len(step) else 0.0
    keywords = {
        "name": f"displacement · {name}",
        "length": round(min(max(ARROW_NM / typical, 1.0), 500.0)) if typical else 20.0,
        "visible": "place_nm" in known,
        "edge_width": 0.02,
        "edge_color": "#161616",
        "vector_style": "arrow",
        "opacity": 1.0,
        "translate": (*(0.0,) * lead, *known.get("place_nm", (0.0, 0.0))),
        "units": units_of(lead + 2),
        "metadata": {KEY: {**known, "vectors": "displacement"}},
    }
    return np.stack([start, step], axis=1), keywords, "vectors"


def strain_words(table: pd.DataFrame) -> str:
    """Say how much the dilation varies, and how much of this is error."""
    spread, error = 100 * np.nanstd(table["dilation"]), 100 * np.nanmedian(table["dilation_err"])
    return f"dilation varies by {spread:.2f} %, error {error:.2f} % (1 σ)"


def error_name(component: str) -> str:
    """Column that holds the error of a component."""
    stem, _, unit = component.rpartition("_")
    return f"{stem}_err_{unit}" if stem else f"{component}_err"


def _unit(component: str) -> str:
    return "pm" if component.endswith("_pm") else "rad" if component.endswith("_rad") else "%"


def _own_columns() -> set[str]:
    from napari_defects.tables import SITES, STRAIN

    return {c.name for c in STRAIN} - {c.name for c in SITES}
