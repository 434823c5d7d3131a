"""How columns are looked at: candidates while a threshold moves, colours by a measured number, errors and bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_defects.widgets._layers import KEY, LayerData, units_of
from napari_defects.widgets._picks import Source
from napari_defects.widgets._plots import COLORS, Plot
from napari_defects.widgets._points import ATOM_NM, sublattice_colors, table_of
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets._work import Job

COLOR_BY = ("sublattice", "intensity", "error", "misfit")


class Preview:
    """Candidates of one frame, found once and drawn for every threshold; gone when the columns themselves are there."""

    def __init__(self, panel: Any):
        self.viewer, self.say, self._panel = panel.viewer, panel.say, panel
        self._key: tuple[Any, ...] | None = None
        self._found: Any = None
        self._job: Job | None = None
        self._wanted = 0.0

    def show(self, image: Source, layer: Any, threshold: float, **scale: float | None) -> None:
        """Draw the candidates above a threshold; what that needs is worked out in a thread the first time."""
        from napari_defects.atoms import candidates

        frame = int(self.viewer.dims.current_step[0]) if image.value.is_movie else 0
        key = (id(layer.data), frame, *scale.values())
        self._wanted = threshold
        if key == self._key and self._found is not None:
            self._draw(image)
        elif key != self._key:
            self._key, self._found = key, None

            def find(progress: Any) -> Any:
                return candidates(image.value, frame=frame, **scale)

            def keep(found: Any) -> None:
                if key == self._key:
                    self._found = found
                    self._draw(image)

            self._job = Job("Candidates", find, {}, self._panel)
            self._job.done.connect(keep)
            self._job.failed.connect(lambda error: self.say(str(error)))
            self._job.start()

    def _draw(self, image: Source) -> None:
        places = self._found.above(self._wanted)
        upsert(self.viewer, candidate_layer(places, image.image))
        self.say(f"{len(places):,} candidates above {self._wanted:g} σ")

    def remove(self, image: str) -> None:
        """Take the candidates away."""
        name = _name(image)
        if name in self.viewer.layers:
            self.viewer.layers.remove(name)


def _name(image: str) -> str:
    return f"candidates · {image}"


def candidate_layer(places: npt.NDArray[np.float64], image: str) -> LayerData:
    """Small rings, in nm."""
    keywords = {
        "name": _name(image), "units": units_of(2), "ndim": 2, "size": 1.4 * ATOM_NM, "face_color": "transparent",
        "border_color": "#ffd166", "border_width": 0.15, "metadata": {KEY: {"image": image}},
    }  # fmt: skip
    return places, keywords, "points"


def paint(layer: Any, by: str) -> None:
    """Colour the columns of a layer by sublattice, or from dark to bright by something measured."""
    table = table_of(layer)
    if by == "sublattice" or not len(table):
        face = sublattice_colors(table)
    else:
        from matplotlib import colormaps

        values = shown_values(table, by)
        low, high = np.nanpercentile(values, (2, 98)) if np.isfinite(values).any() else (0.0, 1.0)
        share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
        face = np.asarray(colormaps["viridis"](np.nan_to_num(share)))
    face[~np.isfinite(table["y_nm"].to_numpy(float)), 3] = 0.0
    layer.face_color = face


def shown_values(table: Any, by: str) -> npt.NDArray[np.float64]:
    """Return one number a row: intensity, error in pm, or misfit."""
    if by == "intensity":
        return np.asarray(table["amplitude"], float)
    if by == "misfit" and "misfit" in table:
        return np.asarray(table["misfit"], float)
    return error_pm(table)


def error_pm(table: Any) -> npt.NDArray[np.float64]:
    """Error of a position per axis, in pm."""
    return np.asarray(1e3 * np.hypot(table["y_err_nm"].to_numpy(float), table["x_err_nm"].to_numpy(float)) / np.sqrt(2))


def draw_errors(plot: Plot, table: Any, bound_pm: npt.NDArray[np.float64]) -> None:
    """Histogram of errors per sublattice, and as a dashed line what counting allows at best."""
    error = error_pm(table)
    plot.begin("error per axis (pm)", "columns")
    good = np.isfinite(error)
    if not good.any():
        plot.setVisible(False)
        return
    edges = np.linspace(0, float(np.percentile(error[good], 99)) * 1.1, 41)
    names = table["sublattice"].astype(str) if "sublattice" in table else np.full(len(table), "columns")
    for n, name in enumerate(sorted({str(s) for s in names if str(s)})):
        own = good & (np.asarray(names) == name)
        color, count = COLORS[n % len(COLORS)], np.histogram(error[own], edges)[0]
        plot.line(np.repeat(edges, 2)[1:-1], np.repeat(count, 2), color, name)
        if np.isfinite(bound_pm[own]).any():
            middle = float(np.nanmedian(bound_pm[own]))
            plot.line([middle, middle], [0, max(int(count.max()), 1)], color, "bound" if n == 0 else None, dashed=True)
