"""Simulation beside experiment: both pictures, their histograms, power spectra and profiles along a drawn line."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtWidgets import QVBoxLayout, QWidget
from scipy.ndimage import map_coordinates

from napari_defects.crystals import species_color
from napari_defects.widgets._ink import InkedAxes
from napari_defects.widgets._plots import COLORS

Array = npt.NDArray[np.float64]


class Comparison(QWidget):
    """Two pictures with a common line over them, and three plots that follow."""

    def __init__(self) -> None:
        import pyqtgraph as pg

        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.graphics = pg.GraphicsLayoutWidget()
        self.graphics.setBackground(None)
        layout.addWidget(self.graphics)
        self.setMinimumHeight(230)
        self.pictures: list[Any] = []
        self.boxes: list[Any] = []
        for column, title in enumerate(("experiment", "simulation")):
            plot = self.graphics.addPlot(row=0, col=column, title=title)
            plot.setAspectLocked(True)
            plot.invertY(True)
            plot.hideAxis("left")
            plot.setLabel("bottom", "nm")
            self.pictures.append(pg.ImageItem(axisOrder="row-major"))
            plot.addItem(self.pictures[-1])
            self.boxes.append(plot)
        self.truth = pg.ScatterPlotItem(size=9, brush=None)
        self.boxes[1].addItem(self.truth)
        self.plots: dict[str, Any] = {}
        for column, (name, label) in enumerate(
            (("histogram", "intensity"), ("power spectrum", "1/nm"), ("profile", "nm along the line")), start=2
        ):
            plot = self.graphics.addPlot(row=0, col=column, title=name)
            plot.setLabel("bottom", label)
            plot.getAxis("bottom").enableAutoSIPrefix(False)
            plot.setLogMode(False, name == "power spectrum")
            self.plots[name] = plot
        InkedAxes(self.graphics, *self.boxes, *self.plots.values())
        pen = pg.mkPen(COLORS[1], width=2)
        self.line = pg.LineSegmentROI([[0.5, 0.5], [2.5, 0.5]], pen=pen)
        self.boxes[0].addItem(self.line)
        self.echo = self.boxes[1].plot(pen=pen)
        self.line.sigRegionChanged.connect(self._profile)
        self.images: list[Array | None] = [None, None]
        self.pixel_nm: list[Array] = [np.ones(2), np.ones(2)]
        self.curves: dict[str, list[tuple[Array, Array]]] = {}
        self._extent = np.zeros(2)

    def show_pair(
        self,
        experiment: npt.NDArray[Any] | None,
        experiment_nm: npt.NDArray[Any],
        simulation: npt.NDArray[Any],
        simulation_nm: npt.NDArray[Any],
        truth: Any = None,
    ) -> None:
        """Show an experiment (or none), a simulation, and the defects that are in it."""
        for k, (image, pixel) in enumerate(((experiment, experiment_nm), (simulation, simulation_nm))):
            self.images[k] = None if image is None else np.asarray(image, float)
            self.pixel_nm[k] = np.asarray(pixel, float)
            if image is not None:
                height, width = np.array(image.shape) * self.pixel_nm[k]
                self.pictures[k].setImage(self.images[k], levels=tuple(np.percentile(image, [0.5, 99.7])))
                self.pictures[k].setRect(0, 0, width, height)
        extent = np.array(simulation.shape) * self.pixel_nm[1]
        if not np.allclose(extent, self._extent, rtol=0.2):
            self._extent = extent
            for box in self.boxes:
                box.setRange(xRange=(0, extent[1]), yRange=(0, extent[0]), padding=0.02)
        spots = [] if truth is None else [
            {"pos": (row.x_nm, row.y_nm), "pen": species_color(row.species)} for row in truth.itertuples()
        ]  # fmt: skip
        self.truth.setData(spots)
        self._draw("histogram", [histogram(i) for i in self._present()])
        self._draw("power spectrum", [power(i, p) for i, p in zip(self._present(), self._pixels(), strict=True)])
        self._profile()

    def _present(self) -> list[Array]:
        return [image for image in self.images if image is not None]

    def _pixels(self) -> list[Array]:
        return [p for p, image in zip(self.pixel_nm, self.images, strict=True) if image is not None]

    def _profile(self) -> None:
        ends = np.array([[p.y(), p.x()] for p in (self.line.mapToParent(h.pos()) for h in self.line.getHandles())])
        self.echo.setData(ends[:, 1], ends[:, 0])
        self._draw("profile", [profile(i, p, ends) for i, p in zip(self._present(), self._pixels(), strict=True)])

    def _draw(self, name: str, curves: list[tuple[Array, Array]]) -> None:
        self.curves[name] = curves
        plot = self.plots[name]
        plot.clear()
        for (x, y), color in zip(curves, COLORS[2 - len(curves) :], strict=False):
            plot.plot(x, y, pen=color)


def histogram(image: Array, bins: int = 80) -> tuple[Array, Array]:
    """Intensities and how often they occur."""
    share, edges = np.histogram(image, bins, range=tuple(np.percentile(image, [0.05, 99.95])), density=True)
    return (edges[1:] + edges[:-1]) / 2, share


def power(image: Array, pixel_nm: Array) -> tuple[Array, Array]:
    """Spatial frequency in 1/nm and the power there, averaged over rings."""
    window = np.multiply.outer(*map(np.hanning, image.shape))
    total = np.abs(np.fft.rfft2((image - image.mean()) / image.std() * window)) ** 2
    frequency = np.hypot(
        np.fft.fftfreq(image.shape[0], pixel_nm[0])[:, None], np.fft.rfftfreq(image.shape[1], pixel_nm[1])
    )
    ring = (frequency * max(np.array(image.shape) * pixel_nm)).astype(int)
    mean = np.bincount(ring.ravel(), total.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    last = int(0.5 / pixel_nm.max() * max(np.array(image.shape) * pixel_nm))
    return np.arange(1, last) / max(np.array(image.shape) * pixel_nm), mean[1:last]


def profile(image: Array, pixel_nm: Array, ends_nm: Array, width_nm: float = 0.05) -> tuple[Array, Array]:
    """Intensity along a line from one end to the other, averaged over `width_nm` across it."""
    length = float(np.linalg.norm(ends_nm[1] - ends_nm[0]))
    along = np.linspace(0, 1, max(2, int(2 * length / pixel_nm.min())))
    normal = np.array([ends_nm[0, 1] - ends_nm[1, 1], ends_nm[1, 0] - ends_nm[0, 0]]) / max(length, 1e-9)
    places = ends_nm[0] + along[:, None] * (ends_nm[1] - ends_nm[0])
    across = np.linspace(-0.5, 0.5, 5)[:, None, None] * width_nm * normal
    values = map_coordinates(image, np.moveaxis((places + across) / pixel_nm, -1, 0), order=1, mode="nearest")
    return along * length, np.asarray(values.mean(axis=0))
