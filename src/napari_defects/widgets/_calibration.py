"""The size of a pixel, asked for in place, and only where it is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from magicgui.widgets import ComboBox, FloatSpinBox
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QWidget

from napari_defects.crystals import CRYSTALS
from napari_defects.micrograph import PIXEL_SIZE_RANGE_NM, Micrograph
from napari_defects.widgets._ink import DOUBT, Ink
from napari_defects.widgets._layers import about, micrograph_of, scale_nm, set_scale_nm


class Calibration(QWidget):
    """Two ways to calibrate an image without a scale: type it, or measure it on the lattice.

    Parameters
    ----------
    panel : Panel
        Where it sits; the panel's worker does the measuring.
    """

    def __init__(self, panel: Any):
        super().__init__()
        self._panel, self._layer = panel, None
        self.size = FloatSpinBox(value=0.02, min=0.0005, max=0.5, step=0.001)
        self.size.native.setDecimals(5)
        self.size.native.setSuffix(" nm")
        self.crystal = ComboBox(choices=list(CRYSTALS))
        self.set_button, self.measure_button = QPushButton("Set"), QPushButton("Measure")
        self.set_button.clicked.connect(lambda: self.apply(self.size.value))
        self.measure_button.clicked.connect(lambda: self.measure())
        self.words = Ink(color=DOUBT)
        self.words.setWordWrap(True)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.words, 0, 0, 1, 3)
        for row, (text, box, button) in enumerate(
            (("pixel size", self.size, self.set_button), ("or measure", self.crystal, self.measure_button)), start=1
        ):
            grid.addWidget(QLabel(text), row, 0)
            grid.addWidget(box.native, row, 1)
            grid.addWidget(button, row, 2)
        grid.setColumnStretch(1, 1)
        self.setVisible(False)

    def look(self, layer: Any) -> None:
        """Show up if `layer` needs a pixel size."""
        self._layer = layer
        size = None if layer is None else scale_nm(layer)
        low, high = PIXEL_SIZE_RANGE_NM
        fine = layer is None or getattr(layer, "rgb", False)
        if not fine and size is None:
            self.words.setText(f"{layer.name} has no pixel size: give it, or take it from the lattice.")
        elif not fine and size is not None and not np.all((size >= low) & (size <= high)):
            self.words.setText(f"A pixel of {size[0]:.3g} nm cannot be atomic resolution: give the right size.")
        else:
            fine = True
        crystal = about(layer).get("crystal") if layer is not None else None
        if crystal in self.crystal.choices:
            self.crystal.value = crystal
        self.setVisible(not fine)

    def apply(self, pixel_size_nm: float | tuple[float, float]) -> None:
        """Calibrate the layer."""
        set_scale_nm(self._layer, pixel_size_nm)
        self._panel.viewer.canvas.overlays.scale_bar.visible = True
        self._panel.viewer.reset_view()
        self.look(self._layer)

    def measure(self) -> None:
        """Measure the pixel on the lattice, in the panel's worker."""
        try:
            micrograph = micrograph_of(self._layer)
        except (ValueError, TypeError) as error:
            self._panel.fail(error)
            return
        layer, crystal = self._layer, self.crystal.value

        def done(pixel_size_nm: Any) -> None:
            self._layer = layer
            self.apply(pixel_size_nm)
            size = ", ".join(f"{s * 1000:.2f}" for s in np.atleast_1d(pixel_size_nm))
            self._panel.say(f"✓ The lattice of {crystal} says {size} pm a pixel.")

        self._panel.start(_measure, {"micrograph": micrograph, "crystal": crystal}, done, "Measure the pixel size")


def _measure(progress: Any, micrograph: Micrograph, crystal: str) -> Any:
    from napari_defects.lattice import calibrate

    progress(0, 0)
    return calibrate(micrograph, crystal).pixel_size_nm
