"""Experiment, elastic inclusion and theory side by side: along a line drawn in napari, or over the distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from magicgui.widgets import ComboBox
from napari.layers import Shapes
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QGridLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_defects.widgets._export import ExportFigure
from napari_defects.widgets._forms import Form
from napari_defects.widgets._layers import KEY, about, source_name, units_of
from napari_defects.widgets._plots import COLORS, Plot

WIDTH_NM = 0.25
"""Columns this near, in all, belong to a line."""
LINE = "line profile"
THEORY_FILES = "Structures (POSCAR* CONTCAR* *.vasp *.cif *.xyz *.lmp *.data *.traj);;All files (*)"


class Field(NamedTuple):
    """What is measured around a defect: its STRAIN table, the inclusion fitted to it, where it lies on the canvas."""

    name: str
    table: pd.DataFrame
    fit: Any
    place_nm: tuple[float, float]
    neighbors: int


class Theory(NamedTuple):
    """STRAIN table of a relaxed structure, the file it is of, and from how many neighbours it was taken."""

    path: str
    neighbors: int
    table: pd.DataFrame

    @property
    def words(self) -> str:
        """What a legend calls it."""
        name = Path(self.path).name
        return f"theory {name if len(name) < 30 else name[:28] + '…'}"


class Profiles(QWidget):
    """Eshelby panel and profile plot of one field.

    Parameters
    ----------
    panel : Panel
        The widget it belongs to.
    """

    def __init__(self, panel: Any):
        super().__init__()
        self.panel, self.viewer = panel, panel.viewer
        self.field: Field | None = None
        self.columns: Any = None
        self.words, self.plot = QLabel(), Plot()
        self.words.setWordWrap(True)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.along = ComboBox(name="along", label="profile", choices=("by distance", "along the line"))
        self.along.changed.connect(self.draw)
        self.line_button, self.theory_button = QPushButton("Draw a line"), QPushButton("Theory file…")
        self.line_button.clicked.connect(lambda: self.add_line())
        self.theory_button.clicked.connect(lambda: self.open_theory())
        self.theory_button.setToolTip("A relaxed structure (POSCAR, CIF, XYZ, LAMMPS data); or drop it on this panel.")
        self.figure_button = ExportFigure(panel, self.draw_figure, lambda: f"profile of {self._field().name}")
        self.data_button = QPushButton("Export data")
        self.data_button.setToolTip("Every number shown here as CSV.")
        self.data_button.clicked.connect(lambda: self.export())
        grid, layout = QGridLayout(), QVBoxLayout(self)
        buttons = (self.line_button, self.theory_button, self.figure_button, self.data_button)
        for place, button in enumerate(buttons):
            grid.addWidget(button, *divmod(place, 2))
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.words, Form([self.along]), self.plot):
            layout.addWidget(widget)
        layout.addLayout(grid)
        self.setAcceptDrops(True)
        self.setVisible(False)

    def show_field(self, field: Field | None, columns: Any = None) -> None:
        """Show the field in the columns of a layer; None hides the panel."""
        self.field, self.columns = field, columns
        self.setVisible(field is not None)
        if field is not None:
            self.words.setText(eshelby_words(field.fit))
            self.draw()
            if self.theory is not None and self.theory.neighbors != field.neighbors:
                self.open_theory(self.theory.path)

    @property
    def theory(self) -> Theory | None:
        """What the layer of the columns has been compared with."""
        return None if self.columns is None else about(self.columns).get("theory")

    def add_line(self) -> None:
        """Put a line across the defect into a Shapes layer, to be moved by hand."""
        field = self._field()
        name = f"{LINE} · {field.name}"
        layer = next((one for one in self._line_layers() if one.name == name), None)
        if layer is None:
            half = 0.8 * float(np.nanmax(np.abs(field.table[["y_ideal_nm", "x_ideal_nm"]])))
            ends = np.array([[0, -half], [0, half]]) + field.place_nm
            layer = self.viewer.add_shapes(
                [ends], shape_type="line", name=name, edge_width=0.03, edge_color="#2fbf8f", units=units_of(2),
                metadata={KEY: {"line": True, "image": source_name(self.columns)}},
            )  # fmt: skip
            layer.events.set_data.connect(lambda _event: self.draw())
        self.viewer.layers.selection.active = layer
        layer.mode = "direct"
        self.along.value = "along the line"
        self.draw()

    def _line_layers(self) -> list[Any]:
        """Layers with a line that are the user's own or of this field, the newest last."""
        shapes = [one for one in self.viewer.layers if isinstance(one, Shapes) and "line" in one.shape_type]
        return [one for one in shapes if "line" not in about(one) or one.name == f"{LINE} · {self._field().name}"]

    def ends_nm(self) -> tuple[Any, Any]:
        """Start and end of the line, from the defect; ValueError where none is drawn."""
        layers = self._line_layers()
        if not layers:
            raise ValueError(f"There is no line on {self._field().name}: click Draw a line.")
        layer = layers[-1]
        chosen = [k for k, kind in enumerate(layer.shape_type) if kind in ("line", "path")]
        points = np.asarray(layer.data[chosen[-1]], float)[:, -2:]
        world = points * np.asarray(layer.scale[-2:]) + np.asarray(layer.translate[-2:])
        place = np.asarray(self._field().place_nm)
        return world[0] - place, world[-1] - place

    def open_theory(self, path: str | Path | None = None) -> None:
        """Read a relaxed structure; ask which, if no `path` is given."""
        if path is None:
            path, _ = QFileDialog.getOpenFileName(self, "Theory", "", THEORY_FILES)
        if path:
            columns, crystal = self.columns, self._field().table.attrs.get("crystal")
            arguments = {"path": str(path), "crystal": crystal, "neighbors": self._field().neighbors}

            def done(theory: Theory) -> None:
                columns.metadata = {**columns.metadata, KEY: {**about(columns), "theory": theory}}
                self.panel.say(f"✓ {Path(theory.path).name}: {len(theory.table)} columns")
                self.draw()

            self.panel.start(read_theory, arguments, done, f"Theory {Path(path).name}")

    def dragEnterEvent(self, event: Any) -> None:
        """Take files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Read the first file dropped."""
        event.acceptProposedAction()
        self.open_theory(event.mimeData().urls()[0].toLocalFile())

    def profiles(self) -> tuple[Any, dict[str, Any]]:
        """Measured profile along the line, and those of the inclusion and of theory; LineProfile each."""
        from napari_defects.deformation import line_profile

        field, ends = self._field(), self.ends_nm()
        component = self.panel.component_name
        elastic = field.fit.as_strain(field.table, neighbors=field.neighbors)
        models = {"elastic": line_profile(elastic, component, *ends, width_nm=WIDTH_NM)}
        if self.theory is not None:
            models["theory"] = line_profile(self.theory.table, component, *ends, width_nm=WIDTH_NM)
        return line_profile(field.table, component, *ends, width_nm=WIDTH_NM), models

    def radial(self) -> dict[str, pd.DataFrame]:
        """Radial displacement by shells: measured, and of theory."""
        from napari_defects.deformation import radial_profile

        result = {"experiment": radial_profile(self._field().table)}
        if self.theory is not None:
            reach = float(result["experiment"]["r_nm"].max()) + 0.01
            result["theory"] = radial_profile(self.theory.table, reach_nm=reach)
        return result

    def draw(self, _event: Any = None) -> None:
        """Draw the profile chosen."""
        if self.field is None:
            return
        if self.along.value == "along the line":
            try:
                self._draw_line()
            except ValueError as error:
                self.plot.excuse(str(error))
        else:
            self._draw_radial()

    def _draw_line(self) -> None:
        measured, models = self.profiles()
        if not np.isfinite(measured.value).any():
            raise ValueError(f"No column of {self._field().name} lies along the line: move it there, or draw another.")
        factor, unit = self.panel.component_unit
        self.plot.begin("along the line (nm)", f"{self.panel.component.value} ({unit})")
        for (name, model), color in zip(models.items(), COLORS[1:], strict=False):
            words = self.theory.words if self.theory and name == "theory" else name
            self.plot.line(model.distance_nm, factor * model.value, color, words, dashed=name == "theory")
        self.plot.points(
            measured.distance_nm, factor * measured.value, factor * measured.err, COLORS[0], "experiment ± 1 σ"
        )

    def _draw_radial(self) -> None:
        shells, fit = self.radial(), self._field().fit
        measured = shells["experiment"]
        self.plot.begin("distance from the defect (nm)", "radial, ± 1 σ (pm)")
        r = np.linspace(float(measured["r_nm"].min()), float(measured["r_nm"].max()), 120)
        self.plot.line(r, 1000 * fit.c_nm2 / r, COLORS[1], "elastic")
        if self.theory is not None:
            theory = shells["theory"]
            self.plot.line(theory["r_nm"], theory["radial_pm"], COLORS[2], self.theory.words, dashed=True)
        for (name, group), color in zip(measured.groupby("sublattice"), (COLORS[0], COLORS[3]), strict=False):
            self.plot.points(group["r_nm"], group["radial_pm"], group["radial_err_pm"], color, str(name))

    def draw_figure(self, ax: Any) -> Any:
        """Draw what the plot shows as a figure."""
        from napari_defects import figures

        if self.along.value == "along the line":
            measured, models = self.profiles()
            return figures.line_profile(ax, measured, **models)
        figures.radial_profile(ax, self._field().fit)
        if "theory" in (shells := self.radial()):
            ax.plot(shells["theory"]["r_nm"], shells["theory"]["radial_pm"], "--", color="#009e73", label="theory")
            ax.legend(frameon=False, fontsize=7)
        return ax

    def export(self, folder: str | Path | None = None) -> None:
        """Write every number shown as CSV; ask where to, if no `folder` is given."""
        from napari_defects.io import write_table

        try:
            folder = folder or QFileDialog.getExistingDirectory(self, "Export data to")
            if not folder:
                return
            tables = {"strain": self._field().table, "eshelby": self._field().fit.to_frame()}
            tables |= {f"radial_{name}": table for name, table in self.radial().items()}
            if self._line_layers():
                measured, models = self.profiles()
                lines = {"experiment": measured, **models}
                parts = [line.to_frame().assign(source=name, component=line.component) for name, line in lines.items()]
                tables["line"] = pd.concat(parts, ignore_index=True)
            stem = self._field().name.replace(" · ", "_").replace(":", "_").replace(" ", "_")
            for kind, table in tables.items():
                write_table(table, Path(folder) / f"{stem}_{kind}.csv")
            self.panel.say(f"✓ Wrote {len(tables)} tables: {', '.join(tables)}.")
        except (ValueError, TypeError, OSError) as error:
            self.panel.fail(error)

    def _field(self) -> Field:
        if self.field is None:
            raise ValueError("There is no field of a defect yet: run Strain on a class average.")
        return self.field


def read_theory(progress: Any, path: str, crystal: str, neighbors: int) -> Theory:
    """Strain around the defect of a structure file, in a worker."""
    from napari_defects.deformation import structure_strain

    progress(0, 1)
    return Theory(path, neighbors, structure_strain(path, crystal, neighbors=neighbors))


def eshelby_words(fit: Any) -> str:
    """Say what the inclusion is, how well it fits, and what it cannot explain."""
    wave = fit.oscillation
    lines = [f"<b>Eshelby</b>: C = {1e3 * fit.c_nm2:.3f} ± {1e3 * fit.c_err_nm2:.3f} · 10⁻³ nm²"]
    if np.isfinite(fit.radius_nm):
        lines[0] += f", R = {fit.radius_nm:.2f} ± {fit.radius_err_nm:.2f} nm"
    lines.append(f"χ² = {fit.chi2:.0f} for {fit.dof} (p = {fit.p_value:.2g})")
    lines.append(f"oscillation: p = {wave.p_value:.2g}")
    if wave.p_value < 0.05:
        lines[-1] += f", wavelength {wave.wavelength_nm:.2f} ± {wave.wavelength_err_nm:.2f} nm"
        lines[-1] += f", decay {wave.decay_nm:.2f} nm, {wave.amplitude_pm:.1f} ± {wave.amplitude_err_pm:.1f} pm"
    return "<br>".join(lines)
