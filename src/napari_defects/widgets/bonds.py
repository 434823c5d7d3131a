"""Bonds & tracks: the chemistry of each defect, and what becomes of it through the frames of a movie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from magicgui.widgets import ComboBox
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QPushButton

from napari_defects.crystals import CRYSTALS
from napari_defects.micrograph import Progress
from napari_defects.widgets._bond_layers import bond_layers
from napari_defects.widgets._corrections import how_many
from napari_defects.widgets._forms import Form
from napari_defects.widgets._layers import KEY, about, source_name
from napari_defects.widgets._picks import IMAGE, MAPS, Choice, Source
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._structure import Structure
from napari_defects.widgets._timeline import Timeline, quantities
from napari_defects.widgets._viewer import made_from, over_its_image
from napari_defects.widgets.classify import said_of

FILTERS = "XYZ (*.xyz);;CIF (*.cif);;GraphML (*.graphml);;JSON (*.json)"
HOSTS = tuple(name for name, crystal in CRYSTALS.items() if all(len(s.column) == 1 for s in crystal.sublattices))


class Bonds(Panel):
    """Find bonds, name defects by them, and follow them through a movie."""

    title = "Bonds and tracks"
    help = "Names defects by their bonds, and follows them through the frames of a movie."
    inputs: ClassVar = {
        "image": IMAGE,
        "maps": replace(MAPS, tooltip="Helps to tell elements; without, their brightness does."),
        "crystal": Choice("Crystal", lambda: HOSTS, "The host: a sheet of single atoms."),
    }
    steps = ("tracks.movies.analyze_bonds",)
    main = ("min_probability", "max_step_nm")
    hide = ("crystal", "maps", "atoms", "on_step")
    run_text = "Find bonds"

    @staticmethod
    def work(
        progress: Progress, image: Source, maps: Source | None, crystal: str, analyze_bonds: dict[str, Any]
    ) -> Made:
        """Bonds, defects and trajectories of the image."""
        from napari_defects.tracks import analyze_bonds as run

        chosen = None if maps is None else maps.value
        results = run(image.value, crystal=crystal, maps=chosen, progress=progress, **analyze_bonds)
        movie = image.value.is_movie
        layers = bond_layers(results, image.image, movie, made={"step": "Bonds", "analyze_bonds": analyze_bonds})
        return Made(layers, summary(results, movie), doubt(results, image.value))

    def build(self) -> None:
        """Put the choice of a defect, its timeline, its structure and the exports below."""
        self.defect = ComboBox(name="defect", label="defect", choices=[], nullable=True)
        self.quantity = ComboBox(name="quantity", label="over time", choices=[], nullable=True)
        self.view = Form([self.defect, self.quantity])
        self.timeline = Timeline(self.go)
        self.structure, self.words = Structure(), QLabel()
        self.words.setWordWrap(True)
        for widget in (self.view, self.timeline, self.structure, self.words):
            self.add(widget)
        self.save_button, self.export_button = QPushButton("Save structure…"), QPushButton("Export all…")
        self.save_button.setToolTip("This frame as xyz or cif, for density-functional theory; or the graph.")
        self.export_button.setToolTip("Every table, the graph and the structures, to a folder.")
        self.save_button.clicked.connect(lambda: self.save())
        self.export_button.clicked.connect(lambda: self.export())
        row = QHBoxLayout()
        row.addWidget(self.save_button)
        row.addWidget(self.export_button)
        self._layout.addLayout(row)
        self.layer: Any = None
        self._shown: Any = None
        self.defect.changed.connect(lambda _: self._chosen())
        self.quantity.changed.connect(lambda _: self._draw_timeline())
        moved, callbacks, clicked = self._moved, self.viewer.mouse_drag_callbacks, self._clicked
        self.viewer.dims.events.current_step.connect(moved)
        callbacks.append(clicked)
        self.destroyed.connect(lambda: callbacks.remove(clicked) if clicked in callbacks else None)
        self._watch(None)

    def _follow_first(self, layer: Any) -> None:
        """Take the crystal from what was made of the image; say so where it is none whose bonds are found."""
        super()._follow_first(layer)
        known = [about(one).get("crystal") for one in (layer, *made_from(self.viewer, layer.name))]
        crystal = next(filter(None, known), None)
        if crystal in HOSTS:
            self.pickers["crystal"].value = crystal
        elif crystal is not None:
            self.say(
                f"This image is of {crystal}; bonds are those of sheets of single atoms: {', '.join(HOSTS)}.", True
            )

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def results(self) -> Any:
        """What was found in the image chosen, as its layer of bonds carries it; None where there is nothing."""
        return about(self.layer).get("bonds") if self.layer is not None else None

    def _made(self, made: Made) -> None:
        super()._made(unless_corrected(self.viewer, made, self.subject.layer))

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Show the defects just found."""
        self.show_chosen()

    def show_chosen(self) -> None:
        """Show the bonds of the chosen image."""
        image = self.pickers["image"].value
        own = [one for one in self.viewer.layers if "bonds" in about(one) and image is not None]
        self._watch(next((one for one in own if source_name(one) == image.name), None))

    def _watch(self, layer: Any) -> None:
        if layer is not None and layer is self.layer and self.results is self._shown:
            return
        self.layer = layer
        self._shown = self.results
        results = self.results
        names = [] if results is None else defect_names(results)
        self.defect.choices = [(words, number) for number, words in names]
        for widget in (self.view, self.save_button, self.export_button, self.words):
            widget.setVisible(results is not None)
        if names:
            self.defect.value = names[0][0]
        self._chosen()

    def _chosen(self) -> None:
        """Another defect was chosen."""
        results, number = self.results, self.defect.value
        self.timeline.setVisible(False)
        self.structure.setVisible(False)
        self.words.setText("")
        if results is None or number is None:
            return
        from napari_defects.tracks import rotors

        self.track = results.tracks[results.tracks["track"] == number]
        movie = self.track["frame"].nunique() > 1
        offered = quantities(self.track, rotors(results.atoms, self.track)) if movie else {}
        before = self.quantity.value
        self.offered = offered
        with self.quantity.changed.blocked():
            self.quantity.choices = list(offered)
            self.quantity.value = before if before in offered else next(iter(offered), None)
        self.view.layout().setRowVisible(1, movie)
        self._draw_timeline()
        self._draw_structure()

    def _draw_timeline(self) -> None:
        if self.quantity.value is not None and self.offered:
            self.timeline.show_track(self.track, self.offered[self.quantity.value], self.quantity.value)
            self.timeline.at(self.frame)

    def _draw_structure(self) -> None:
        rows = self.track[self.track["frame"] == self.frame]
        if rows.empty:
            self.structure.setVisible(False)
            self.words.setText(f"not seen in frame {self.frame}")
            return
        row = rows.iloc[0]
        self.structure.show_defect(self.results.graph, [int(n) for n in row["atoms"].split()])
        self.words.setText(sentence_of(row))

    @property
    def frame(self) -> int:
        """Frame that the viewer shows."""
        if self.results is None or self.viewer.dims.ndim < 3:
            return int(self.track["frame"].iloc[0]) if self.results is not None else 0
        return int(self.viewer.dims.current_step[0])

    def go(self, frame: int) -> None:
        """Let the viewer show a frame."""
        self.viewer.dims.set_current_step(0, frame)

    def _moved(self, _event: Any = None) -> None:
        if self.results is not None and self.defect.value is not None:
            self.timeline.at(self.frame)
            self._draw_structure()

    def _clicked(self, _viewer: Any, event: Any) -> None:
        """Choose the defect under the mouse."""
        if self.results is None or event.button != 1:
            return
        place = self.layer.world_to_data(event.position)[-2:]
        here = self.results.tracks[self.results.tracks["frame"] == self.frame] if self._movie else self.results.tracks
        away = ((here["y_nm"] - place[0]) ** 2 + (here["x_nm"] - place[1]) ** 2) ** 0.5
        if len(away) and away.min() < 0.2:
            self.defect.value = int(here["track"].loc[away.idxmin()])

    @property
    def _movie(self) -> bool:
        return self.viewer.dims.ndim > 2 and bool(self.results.tracks["frame"].nunique() > 1)

    # -- what is written ----------------------------------------------------------------------------------------------

    def save(self, path: str | Path | None = None) -> None:
        """Write the structure of the frame shown, or the graph, to a file."""
        from napari_defects.bonds import write_structure

        path = path or QFileDialog.getSaveFileName(self, "Save structure", "structure.xyz", FILTERS)[0]
        if path:
            self._written(lambda: write_structure(self.results.graph, path, frame=self.frame))

    def export(self, folder: str | Path | None = None) -> None:
        """Write every table, the graph and the structures to a folder."""
        folder = folder or QFileDialog.getExistingDirectory(self, "Export to folder")
        if folder:
            self._written(lambda: self.results.write(folder))

    def _written(self, write: Any) -> None:
        try:
            self.say(f"✓ Wrote {write()}.")
        except (ValueError, OSError) as error:
            self.fail(error)


def unless_corrected(viewer: Any, made: Made, image: Any = None) -> Made:
    """Leave defects that a person has corrected as they are; the panel has those found now."""
    keywords = over_its_image(viewer, made.layers[-1][1], image)
    name = keywords["name"]
    if not how_many(said_of(viewer, name, keywords["metadata"][KEY]["image"], None)):
        return made
    words = f"{name!r} was corrected by hand and stays as it is; delete it to have these defects in its place."
    return made._replace(layers=made.layers[:-1], doubt=f"{made.doubt}\n{words}".strip())


def defect_names(results: Any) -> list[tuple[int, str]]:
    """Trajectories and what to call them, the longest and surest first: those of foreign atoms before the host's."""
    host = {s.element for s in results.crystal.sublattices}
    rows = []
    for number, own in results.tracks.groupby("track"):
        species = own["species"].mode()[0]
        frames = f" · {own['frame'].nunique()} frames" if results.atoms["frame"].nunique() > 1 else ""
        foreign = bool(set(pd.Series(species).str.extractall(r"([A-Z][a-z]?)\d")[0]) - host - {"V"})
        rows.append(
            (
                not foreign,
                -own["frame"].nunique(),
                -own["probability"].mean(),
                int(number),
                f"{number} · {species}{frames}",
            )
        )
    return [(number, words) for *_, number, words in sorted(rows)]


def summary(results: Any, movie: bool) -> str:
    """Sum up what was found."""
    counts = results.defects["species"].value_counts()
    if not movie:
        return ", ".join(f"{n} {species}" for species, n in counts.items()) or "no defects found"
    from napari_defects.tracks import transitions

    changes = len(transitions(results.tracks))
    long = int((results.tracks.groupby("track")["frame"].nunique() > 1).sum())
    frames, many = results.atoms["frame"].nunique(), "y" if long == 1 else "ies"
    return f"{long} trajector{many} in {frames} frames, {changes} change{'' if changes == 1 else 's'} of class"


def doubt(results: Any, micrograph: Any) -> str:
    """Say what to be careful with."""
    words = []
    if micrograph.metadata.get("lossy"):
        words.append("The file is compressed with losses: lengths and heights are those of what the compression left.")
    lost = results.atoms["frame"].nunique() - len(results.lattices)
    if lost:
        words.append(f"No lattice in {lost} frame(s): atoms there are as located.")
    return " ".join(words)


def sentence_of(row: pd.Series) -> str:
    """Say what a row of TRACKS knows of its defect."""
    words = f"<b>{row['species']}</b>, probability {row['probability']:.2f}"
    if pd.notna(row["bond_pm"]):
        words += f"<br>mean bond {row['bond_pm']:.1f} ± {row['bond_err_pm']:.1f} pm"
    if pd.notna(row["angle_off_deg"]):
        words += f"; angles {row['angle_off_deg']:.1f} ± {row['angle_off_err_deg']:.1f}° off 360°/n"
    cut = pd.notna(row.get("cut")) and row["cut"]
    why = "cut by the border" if cut else "perhaps taken during a change"
    return words + (f"<br>unsure: {why}" if row["unsure"] else "")
