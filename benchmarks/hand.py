"""How it feels in the hand: a large field in a real window. Prints a table.

    xvfb-run -a -s "-screen 0 1920x1200x24" python benchmarks/hand.py [--atoms 200000]

Software rendering under Xvfb unless there is a screen; a graphics card is faster. A frame gap is the time between two
turns of the window's event loop: for so long the window does not answer. Beside the wall time stands the time that all
threads worked in the gap, those that draw included: what a machine with nothing else to do takes at most, and what
counts where it is busy with something else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import napari
import numpy as np
import pandas as pd
from napari.qt import get_qapp
from qtpy.QtCore import QTimer

from napari_defects import tables
from napari_defects.micrograph import Maps, Micrograph
from napari_defects.widgets._decision import Decision
from napari_defects.widgets._layers import image_layer, mask_layer
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets.count import Count


class Row(NamedTuple):
    """Something measured: wall time and work of all threads, ms."""

    name: str
    wall: float
    work: float
    limit: str = ""


def import_row(repeat: int = 3) -> Row:
    """Measure what the plugin adds to the start of napari: its manifest, read by npe2. Best of some."""
    code = (
        "import time, napari; from npe2 import PluginManifest; import napari._qt.qt_main_window\n"
        "t, c = time.perf_counter(), time.process_time(); PluginManifest.from_distribution('napari-defects')\n"
        "import napari_defects; print(time.perf_counter() - t, time.process_time() - c)"
    )
    best = min(subprocess.check_output([sys.executable, "-c", code], text=True).split()[::-1] for _ in range(repeat))
    return Row("import of the plugin beyond napari", 1e3 * float(best[1]), 1e3 * float(best[0]), "< 300 ms")


def gaps(qapp: object, name: str, action: Callable[[], object], limit: str = "", seconds: float = 1.0) -> Row:
    """Measure the longest turn of the event loop, while an action and what follows from it are worked off."""
    turns: list[tuple[float, float]] = []
    timer = QTimer(interval=0)
    timer.timeout.connect(lambda: turns.append((time.perf_counter(), time.process_time())))
    timer.start()
    qapp.processEvents()
    turns.append((time.perf_counter(), time.process_time()))
    action()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        qapp.processEvents()
    timer.stop()
    wall, work = (1000 * float(gap) for gap in np.diff(turns, axis=0).max(axis=0))
    return Row(name, wall, work, limit)


def alone(name: str, action: Callable[[], object], limit: str = "", repeat: int = 3) -> Row:
    """Measure a call itself, best of some."""
    best = []
    for _ in range(repeat):
        start = time.perf_counter(), time.process_time()
        action()
        best.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, work = np.min(best, axis=0)
    return Row(name, 1000 * float(wall), 1000 * float(work), limit)


def field(n_atoms: int) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Return an image of 4096 pixels a side, its sites and defects."""
    pixels = np.random.default_rng(0).normal(100, 10, (4096, 4096)).astype(np.float32)
    size = 4096 * 0.012
    rng = np.random.default_rng(1)
    places = rng.uniform(0, size, (n_atoms, 2))
    sites = pd.DataFrame({c.name: 0.0 for c in tables.SITES}, index=range(n_atoms)).assign(
        frame=0, y_nm=places[:, 0], x_nm=places[:, 1], y_ideal_nm=places[:, 0], x_ideal_nm=places[:, 1],
        i=np.arange(n_atoms), j=0, sublattice=np.where(np.arange(n_atoms) % 2, "W", "Se"), score=1.0,
    )  # fmt: skip
    some = sites.iloc[:: max(1, n_atoms // 20_000)].reset_index(drop=True)
    species = np.array(["V_Se", "Te_Se", "V2_Se", "V_W", "Se_W", "Te2_Se", "Te2_W"])
    defects = some[["frame", "y_nm", "x_nm", "i", "j", "sublattice"]].assign(
        defect=np.arange(len(some)), species=species[rng.integers(0, 7, len(some))], probability=0.9, method="maps"
    )
    return pixels, tables.check(sites, "sites"), tables.check(defects, "defects")


def shift(camera: object) -> None:
    """Move the view by a twentieth of its width."""
    z, y, x = camera.center
    camera.center = (z, y, x + 40 / camera.zoom)


def main(n_atoms: int) -> int:
    """Measure and print."""
    viewer, qapp = napari.Viewer(show=True), get_qapp()
    viewer.window._qt_window.resize(1400, 860)
    pixels, sites, defects = field(n_atoms)
    gaps(qapp, "warm", lambda: None)
    rows = [import_row(), gaps(qapp, "nothing", lambda: None)]
    known = {"image": "field", "crystal": "WSe2"}
    image = image_layer(Micrograph(pixels, 0.012), "field", crystal="WSe2")
    made = {
        "image 4096²": image,
        f"{n_atoms:,} atoms": table_layer(sites, "sites", "atoms · field", **known),
        f"{len(defects):,} defects": table_layer(defects, "defects", "defects · field", **known),
    }
    for name, layer in made.items():
        rows.append(gaps(qapp, f"new layer: {name}", lambda layer=layer: upsert(viewer, layer)))
    _, classify = viewer.window.add_plugin_dock_widget("napari-defects", "Classify")
    legend = classify.legend
    viewer.layers["atoms · field"].visible = False
    gaps(qapp, "settle", lambda: None)
    for species in ("V_Se", "Te_Se", "V_Se"):
        rows.append(gaps(qapp, f"toggle {species}, atoms hidden", lambda s=species: legend.toggle(s), "< 100 ms"))
    viewer.layers["atoms · field"].visible = True
    viewer.reset_view()
    gaps(qapp, "settle", lambda: None)
    camera = viewer.scene.camera
    for words in ("all atoms in view", "a tenth in view", "a hundredth in view"):
        rows.append(gaps(qapp, f"move the view, {words}", lambda: shift(camera), "< 100 ms"))
        rows.append(gaps(qapp, f"toggle V_Se, {words}", lambda: legend.toggle("V_Se"), "< 100 ms"))
        camera.zoom *= np.sqrt(10)
        gaps(qapp, "settle", lambda: None)
    atoms = viewer.layers["atoms · field"]
    rows.append(gaps(qapp, "an atom added by hand", lambda: atoms.add([[20.0, 20.0]])))
    rows.append(alone("toggle, our part alone", lambda: legend.toggle("V_W"), "< 100 ms"))
    count = Count(viewer)
    rows.append(alone("count again after a correction", count._again))
    viewer.layers.clear()
    upsert(viewer, image)
    data = np.random.default_rng(2).random((4, 4096, 4096), np.float32)
    maps = Maps(data / data.sum(0), ("background", "W", "Se2", "V_Se"), 0.012)
    decision = Decision(maps)
    upsert(viewer, mask_layer(maps, "mask · field", 0.5, image="field"))
    values = iter((0.2, 0.3, 0.4, 0.35))
    rows.append(alone("live threshold: mask of 4096², decided again", lambda: decision.mask(next(values)), "< 50 ms"))
    small = Decision(Maps(maps.data[:, :1024, :1024], maps.classes, 0.012))
    values = iter((0.2, 0.3, 0.4, 0.35))
    rows.append(alone("live threshold: mask of 1024², decided again", lambda: small.mask(next(values)), "< 50 ms"))
    viewer.close()
    print(f"{'what':<48}{'wall ms':>9}{'work ms':>9}   limit   ({os.cpu_count()} cores, load {os.getloadavg()[0]:.0f})")
    for row in rows:
        print(f"{row.name:<48}{row.wall:>9.0f}{row.work:>9.0f}   {row.limit}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, default=200_000)
    sys.exit(main(parser.parse_args().atoms))
