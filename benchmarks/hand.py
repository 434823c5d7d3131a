"""How it feels in the hand: a large field in a real window. Prints a table.

    xvfb-run -a -s "-screen 0 1920x1200x24" python benchmarks/hand.py [--atoms 200000]

Measured in wall time, with software rendering under Xvfb; a graphics card is faster. A frame gap is the time between two turns of the window's event loop, that is, for how long the window would not answer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd


def import_ms(repeat: int = 5) -> float:
    """Return what the plugin adds to the start of napari: its manifest, read by npe2. Best of some."""
    code = (
        "import time, napari; from npe2 import PluginManager; import napari._qt.qt_main_window\n"
        "t = time.perf_counter(); from npe2 import PluginManifest; PluginManifest.from_distribution('napari-defects')\n"
        "import napari_defects; print(time.perf_counter() - t)"
    )
    return 1000 * min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(repeat))


def gaps_ms(qapp: object, action: Callable[[], object], seconds: float = 1.0) -> np.ndarray:
    """Return the time between turns of the event loop, while an action and what follows from it are worked off."""
    from qtpy.QtCore import QTimer

    turns: list[float] = []
    timer = QTimer(interval=0)
    timer.timeout.connect(lambda: turns.append(time.perf_counter()))
    timer.start()
    qapp.processEvents()
    turns.append(time.perf_counter())
    action()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        qapp.processEvents()
    timer.stop()
    return 1000 * np.diff(turns)


def field(n_atoms: int) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Return an image of 4096 pixels a side, its sites and defects."""
    from napari_defects import tables

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


def main(n_atoms: int) -> int:
    """Measure and print."""
    import napari
    from napari.qt import get_qapp

    from napari_defects.micrograph import Maps, Micrograph
    from napari_defects.widgets._layers import image_layer, map_layer, mask_layer
    from napari_defects.widgets._points import table_layer
    from napari_defects.widgets._viewer import upsert
    from napari_defects.widgets.classify import Classify
    from napari_defects.widgets.count import Count
    from napari_defects.widgets.segment import Segment

    rows: list[tuple[str, float, str]] = [("import of the plugin beyond napari", import_ms(), "< 300 ms")]
    viewer, qapp = napari.Viewer(show=True), get_qapp()
    viewer.window._qt_window.resize(1400, 860)
    pixels, sites, defects = field(n_atoms)
    gaps_ms(qapp, lambda: None, 1.0)

    def timed(name: str, action: Callable[[], object], limit: str = "", seconds: float = 1.0) -> None:
        gaps = gaps_ms(qapp, action, seconds)
        rows.append((name, float(gaps.max()), limit))

    timed("idle", lambda: None)
    known = {"image": "field", "crystal": "WSe2"}
    timed("layer: image 4096²", lambda: upsert(viewer, image_layer(Micrograph(pixels, 0.012), "field", crystal="WSe2")))
    timed(f"layer: {n_atoms:,} atoms", lambda: upsert(viewer, table_layer(sites, "sites", "atoms · field", **known)))
    timed(
        f"layer: {len(defects):,} defects",
        lambda: upsert(viewer, table_layer(defects, "defects", "defects · field", **known)),
    )
    widget = Classify(viewer)
    widget.refresh()
    viewer.window.add_dock_widget(widget)
    gaps_ms(qapp, lambda: None, 1.0)

    def pan() -> None:
        center = np.asarray(viewer.scene.camera.center)
        for _ in range(10):
            center = center + np.array([0, 0.2, 0.2])[-len(center) :]
            viewer.scene.camera.center = tuple(center)
            qapp.processEvents()

    timed("pan, everything shown (software GL)", pan)
    for species in ("V_Se", "Te_Se", "V_Se"):
        timed(f"toggle {species}, atoms shown", lambda s=species: widget.legend.toggle(s), "< 100 ms")
    viewer.layers["atoms · field"].visible = False
    gaps_ms(qapp, lambda: None, 1.0)
    for species in ("V_Se", "Te_Se", "V_Se", "Te_Se"):
        timed(f"toggle {species}, atoms hidden", lambda s=species: widget.legend.toggle(s), "< 100 ms")
    start = time.perf_counter()
    widget.legend.toggle("V_W")
    rows.append(("toggle: our part alone, without drawing", 1000 * (time.perf_counter() - start), "< 100 ms"))

    count = Count(viewer)
    start = time.perf_counter()
    count._again()
    rows.append(("count again after a correction", 1000 * (time.perf_counter() - start), ""))

    classes = ("background", "W", "Se2", "V_Se", "Te_Se", "V2_Se", "V_W")
    for side in (1024, 4096):
        data = np.random.default_rng(2).random((len(classes), side, side), np.float32)
        maps = Maps(data / data.sum(0), classes, 0.012)
        viewer.layers.clear()
        upsert(viewer, image_layer(Micrograph(pixels[:side, :side], 0.012), "field", crystal="WSe2"))
        upsert(viewer, map_layer(maps, "maps · field", "V_Se", image="field"))
        upsert(viewer, mask_layer(maps, "mask · field", 0.5, image="field"))
        segment = Segment(viewer)
        gaps_ms(qapp, lambda: None, 1.0)
        best = np.inf
        for value in (0.2, 0.3, 0.4, 0.25):
            segment.threshold.value = value
            segment._timer.stop()
            start = time.perf_counter()
            segment._follow_threshold()
            best = min(best, time.perf_counter() - start)
        rows.append((f"live threshold, mask of {side}²", 1000 * best, "< 50 ms"))
    viewer.close()
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    print(f"{'what':<48}{'ms':>9}   limit   (largest gap; {os.cpu_count()} cores, load {load:.1f} a core)")
    for name, value, limit in rows:
        print(f"{name:<48}{value:>9.0f}   {limit}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, default=200_000)
    sys.exit(main(parser.parse_args().atoms))
