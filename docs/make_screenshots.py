"""Take the pictures of the documentation: one afternoon, in a real napari window.

    xvfb-run -a -s "-screen 0 1920x1200x24" python docs/make_screenshots.py [FOLDER]

Every picture is what a user sees after the clicks before it; nothing is drawn by hand.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.qt import get_qapp
from PIL import Image

from napari_defects.widgets._layers import about

SIZE = (1400, 860)
log = logging.getLogger("screenshots")


class Afternoon:
    """A napari window, the widgets in it, and a camera."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.viewer = napari.Viewer(show=True)
        self.viewer.window._qt_window.resize(*SIZE)
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
        while widget.job is not None and widget.job.running:
            self.wait(0.05)
        self.wait(0.3)
        log.info("%s: %s", type(widget).__name__, widget.status.text())

    def zoom(self, center_nm: tuple[float, float], width_nm: float) -> None:
        """Look at a part of the image."""
        camera = self.viewer.scene.camera
        camera.center = center_nm
        camera.zoom = min(self.viewer.canvas.size) / width_nm

    def only(self, *kinds: str) -> None:
        """Show the layers whose names begin so, and the image."""
        for layer in self.viewer.layers:
            layer.visible = layer.name.startswith(kinds) or "·" not in layer.name


def main(folder: Path) -> None:
    """Take all pictures."""
    day = Afternoon(folder)
    viewer = day.viewer
    viewer.open_sample("napari-defects", "wse2_te")
    for layer in list(viewer.layers)[1:]:
        viewer.layers.remove(layer)
    viewer.reset_view()
    day.open("Analyze")
    day.take("raw")

    day.run(day.open("Localize"))
    day.zoom((4.0, 4.0), 4.5)
    day.take("atoms")

    viewer.reset_view()
    segment = day.open("Segment")
    day.run(segment)
    while "defects · WSe2 with Te" not in viewer.layers:
        day.wait(0.1)
    day.only("mask", "defects")
    day.zoom((6.0, 6.0), 7.0)
    day.take("segment")

    day.only("defects")
    day.run(day.open("Classify"))
    day.only("defects")
    viewer.reset_view()
    day.take("defects")

    average = day.open("Average")
    day.run(average)
    averages = [layer for layer in viewer.layers if "average" in about(layer)]
    best = max(averages, key=lambda layer: about(layer)["average"].n)
    day.only("average")
    average.gallery.fly(best)
    day.take("average")

    strain = day.open("Strain")
    strain.pickers["sites"].value = best
    day.run(strain)
    day.only("average", "strain", "displacement")
    day.take("strain")

    day.only("defects")
    viewer.reset_view()
    day.run(day.open("Count and export"))
    day.take("count")

    analyze = day.open("Analyze")
    day.run(analyze)
    day.only("defects")
    low, high = np.asarray(viewer.layers[0].extent.world)
    day.zoom(tuple((low + high) / 2), 1.05 * float((high - low).max()))
    day.take("analyze")

    viewer.layers.clear()
    simulate = day.open("Simulate", crystal="MoTe2")
    day.run(simulate)
    day.wait(2.0)
    day.take("simulate")
    viewer.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
