"""Take the pictures of the documentation: one afternoon, in a real napari window.

    xvfb-run -a -s "-screen 0 1920x1200x24" python docs/make_screenshots.py [FOLDER]

Every picture is what a user sees after the clicks before it; nothing is drawn by hand.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.qt import get_qapp
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QMenu

from napari_defects.io import write_micrograph
from napari_defects.simulation import Scan, simulate
from napari_defects.widgets._layers import about

SIZE = (1400, 860)
log = logging.getLogger("screenshots")


class Afternoon:
    """A napari window, the widgets in it, and a camera."""

    def __init__(self, folder: Path, viewer: Any = None):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.viewer = napari.Viewer(show=True) if viewer is None else viewer
        self.viewer.window._qt_window.resize(*SIZE)
        self.viewer.theme = "dark"
        self.clicks: list[str] = []
        self.wait(0.5)

    def wait(self, seconds: float) -> None:
        """Let the window live for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            get_qapp().processEvents()
            time.sleep(0.01)

    def take(self, name: str) -> None:
        """Save a picture of the whole window."""
        self.wait(0.5)
        path = self.folder / f"{name}.png"
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        picture = Image.open(path).convert("RGB")
        picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
        picture.save(path, optimize=True)
        log.info("%s", path)

    def drop(self, path: Path) -> None:
        """Drop a file on the window."""
        self.clicks.append(f"drop {path.name}")
        self.viewer.open(str(path), plugin="napari-defects")

    def click(self, button: QAbstractButton) -> None:
        """Click a button with the mouse; it must be on show and enabled."""
        if not (button.isVisible() and button.isEnabled()):
            raise LookupError(f"{button.text()!r} cannot be clicked")
        self.clicks.append(button.text())
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def choose(self, menu: QMenu, word: str) -> None:
        """Click an entry of a menu that is open."""
        action = next(a for a in menu.actions() if a.text().startswith(word) and a.isEnabled())
        self.clicks.append(action.text())
        action.trigger()

    def click_menu(self, *words: str) -> None:
        """Click through the menus of the window, as in ``("Plugins", "napari-defects", "Analyze")``; one choice."""
        self.clicks.append(" → ".join(words))
        actions = self.viewer.window._qt_window.menuBar().actions()
        for word in words:
            found = [a for a in actions if a.text().replace("&", "").startswith(word)]
            if not found:
                raise LookupError(f"no {word!r} among {[a.text() for a in actions]}")
            menu = found[0].menu()
            if menu is None:
                found[0].trigger()
                break
            menu.aboutToShow.emit()
            actions = menu.actions()
        self.wait(0.3)

    def open(self, title: str, **fields: Any) -> Any:
        """Open a widget, in front, alone."""
        for name in list(self.viewer.window.dock_widgets):
            if "napari-defects" in name and not name.startswith(title):
                self.viewer.window.remove_dock_widget(self.viewer.window.dock_widgets[name])
        _, widget = self.viewer.window.add_plugin_dock_widget("napari-defects", title, tabify=True)
        widget.fill(fields)
        self.wait(0.3)
        return widget

    def run(self, widget: Any) -> None:
        """Click Run, and wait until it is done."""
        widget.run()
        self.until_done(widget)

    def until_done(self, widget: Any) -> None:
        """Wait until the work of a widget is done."""
        while widget.job is not None and widget.job.running:
            self.wait(0.05)
        self.wait(0.3)
        log.info("%s: %s", type(widget).__name__, widget.status.text())

    def zoom(self, center_nm: tuple[float, float], width_nm: float) -> None:
        """Look at a part of the image."""
        camera = self.viewer.scene.camera
        camera.center = center_nm
        camera.zoom = min(self.viewer.canvas.size) / width_nm

    def overview(self) -> None:
        """Look at the whole image, and not at what lies beside it."""
        low, high = np.asarray(self.viewer.layers[0].extent.world)[:, -2:]
        self.zoom(tuple((low + high) / 2), 1.05 * float((high - low).max()))

    def only(self, *kinds: str) -> None:
        """Show the layers whose names begin so, and the image."""
        for layer in self.viewer.layers:
            layer.visible = layer.name.startswith(kinds) or "·" not in layer.name


def scan(path: Path, field_of_view_nm: float = 12.0, seed: int = 1) -> Path:
    """Write the image of the afternoon: WSe2 with tellurium, with drift and jitter, as a file with a scale."""
    defects = {"Te_Se": 0.06, "Te2_Se": 0.01, "V_Se": 0.05, "V2_Se": 0.01, "V_W": 0.005, "Se_W": 0.005}
    conditions = {"scan": Scan(rotation_deg=17.0, wander_pm=15.0, jitter_pm=3.0), "dose_e_per_A2": 3e4}
    micrograph, _ = simulate("WSe2", field_of_view_nm=field_of_view_nm, defects=defects, seed=seed, **conditions)
    return write_micrograph(micrograph, path)


def play(day: Afternoon, path: Path, out: Path, **parameters: Any) -> None:
    """Play the afternoon: a file, Analyze, three corrections by hand, counts, an average, its strain, what goes out."""
    viewer, name = day.viewer, path.stem
    analyze = to_tables(day, path, out / "at once", **parameters)
    out.mkdir(parents=True, exist_ok=True)
    analyze.save_recipe(str(out / "recipe.toml"))
    (out / "script.py").write_text(analyze.python(), encoding="utf-8")

    review = day.open("Review")
    review.run()
    review.accept()
    review.judge(review.classes.names[1])
    review.reject()
    day.take("review")
    review.save(out / "corrections.csv")
    review.teach(out / "labelled")

    day.overview()
    count = day.open("Count and export")
    day.run(count)
    count.paint()
    mask = viewer.layers[f"left out · {name}"]
    side = mask.data.shape[0]
    y, x = np.indices(mask.data.shape)
    mask.data_setitem(np.nonzero((y - side) ** 2 + (x - side) ** 2 < (0.4 * side) ** 2), 1)
    mask.mode = "pan_zoom"
    day.wait(0.5)
    count.table.setCurrentCell(0, 0)
    day.take("count")
    count.export(out / "tables")
    count.figure_button.export(85.0, out / "counts.pdf")

    average = day.open("Average")
    average.refresh()
    averages = [layer for layer in viewer.layers if "average" in about(layer)]
    best = max(averages, key=lambda layer: about(layer)["average"].n)
    day.only("average")
    average.gallery.fly(best)
    day.take("average")

    strain = day.open("Strain")
    strain.pickers["sites"].value = best
    day.run(strain)
    day.only("average", "strain · average", "displacement · average")
    day.take("strain")
    viewer.screenshot(str(out / "strain.png"), canvas_only=True, flash=False)


def to_tables(day: Afternoon, path: Path, out: Path, **parameters: Any) -> Any:
    """Go from a file to its tables on disk by the fewest clicks, which the afternoon counts; return Analyze."""
    day.drop(path)
    day.click_menu("Plugins", "napari-defects", "Analyze")
    analyze = day.viewer.window.dock_widgets["Analyze (napari-defects)"]
    analyze.fill({"crystal": "WSe2", **parameters})
    day.take("raw")
    day.click(analyze.run_button)
    day.until_done(analyze)
    day.only("defects")
    day.overview()
    day.take("analyze")
    export = analyze.export_button
    export.folder = lambda: day.clicks.append("the dialog's Choose") or str(out)
    day.clicks.append(export.text())  # its menu would wait for the mouse
    day.choose(export.menu(), "All tables as csv")
    return analyze


def steps(day: Afternoon) -> None:
    """Take the pictures of the single steps."""
    viewer = day.viewer
    viewer.layers.clear()
    viewer.open_sample("napari-defects", "wse2_te")
    for layer in list(viewer.layers)[1:]:
        viewer.layers.remove(layer)
    viewer.reset_view()
    day.run(day.open("Localize"))
    day.zoom((4.0, 4.0), 4.5)
    day.take("atoms")

    viewer.reset_view()
    day.run(day.open("Segment"))
    while "defects · WSe2 with Te" not in viewer.layers:
        day.wait(0.1)
    day.only("mask", "defects")
    day.zoom((6.0, 6.0), 7.0)
    day.take("segment")

    day.only("defects")
    day.run(day.open("Classify"))
    day.only("defects")
    day.overview()
    day.take("defects")

    viewer.layers.clear()
    day.run(day.open("Simulate", crystal="MoTe2"))
    day.wait(2.0)
    day.take("simulate")


def bonds(day: Afternoon) -> None:
    """Take the picture of a rotor of three silicon atoms, its bonds and its timeline."""
    from napari_defects import Microscope, simulate
    from napari_defects.simulation import Motion
    from napari_defects.widgets._layers import image_layer
    from napari_defects.widgets._viewer import upsert

    viewer = day.viewer
    viewer.layers.clear()
    movie, _ = simulate(
        "graphene", field_of_view_nm=2.4, pixel_size_nm=0.0125, at=[("Si3C6", 1.2, 1.2)], dose_e_per_A2=8e5, frames=10,
        microscope=Microscope(60.0, 31.0, 86.0, 200.0, 0.08), motion={"Si3C6": Motion(turn_at=(3, 5, 8))}, seed=3,
    )  # fmt: skip
    upsert(viewer, image_layer(movie, "silicon in graphene", crystal="graphene"))
    day.run(day.open("Bonds and tracks"))
    viewer.dims.set_current_step(0, 5)
    day.zoom((1.2, 1.2), 2.2)
    day.take("bonds")


def main(folder: Path) -> None:
    """Take all pictures."""
    day = Afternoon(folder)
    with tempfile.TemporaryDirectory() as place:
        play(day, scan(Path(place) / "WSe2_scan.tif"), Path(place) / "out")
    steps(day)
    bonds(day)
    day.viewer.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
