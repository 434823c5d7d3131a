"""Segment: class maps of a network, with a threshold that the defects follow while it moves."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from magicgui.widgets import ComboBox
from qtpy.QtCore import QTimer

from napari_defects.micrograph import Maps, Progress
from napari_defects.widgets._forms import Form, declared, default_of, fields_of
from napari_defects.widgets._layers import about, host_names, map_layer, mask_layer, source_name
from napari_defects.widgets._legend import Legend
from napari_defects.widgets._picks import CRYSTAL, IMAGE, MODEL, SITES, Source
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._viewer import upsert
from napari_defects.widgets._work import Job
from napari_defects.widgets.classify import Classify


class Segment(Panel):
    """Predict class maps; then look at them, and choose the threshold with the defects in view."""

    title = "Segment"
    help = "Predicts what every pixel belongs to, with the network for the crystal."
    inputs: ClassVar = {"image": IMAGE, "crystal": CRYSTAL, "model": MODEL}
    steps = ("networks.inference.predict",)
    hide = ("device",)
    follow = "Localize"

    @staticmethod
    def work(progress: Progress, image: Source, crystal: str, model: str, predict: dict[str, Any]) -> Made:
        """Predict the maps."""
        from napari_defects.networks import model_for
        from napari_defects.networks import predict as run

        chosen = model_for(crystal) if model == "auto" else model
        if chosen is None:
            raise ValueError(
                f"No network knows {crystal}: train one, or go on without: Localize, then Classify by intensities."
            )
        maps = run(image.value, chosen, device=device(), progress=progress, **predict)
        known = {
            "image": image.image,
            "crystal": crystal,
            "made": {"step": "Segment", "predict": predict, "model": chosen},
        }
        threshold = default_of("defects.classify", "min_probability")
        mask = mask_layer(maps, f"mask · {image.image}", threshold, **known)
        layer = map_layer(maps, f"maps · {image.image}", defect_classes(maps)[0], **known)
        return Made([layer, mask], f"{len(maps.classes) - 1} classes by {chosen}", extra=maps)

    def build(self) -> None:
        """Put threshold, class on show and legend below."""
        self.threshold = fields_of(declared("defects.classify"))["min_probability"]
        self.threshold.tooltip = "Moves the mask at once, and the defects where there are atoms (Localize)."
        self.show_class = ComboBox(name="map", label="show map", choices=["none"])
        self.live = Form([self.threshold, self.show_class])
        self.add(self.live)
        self.legend = Legend()
        self.add(self.legend)
        self._timer = QTimer(self, interval=60, singleShot=True)
        self._timer.timeout.connect(self._follow_threshold)
        self._classifying: Job | None = None
        self.threshold.changed.connect(lambda: self._timer.start())
        self.show_class.changed.connect(self._show_map)

    def maps_layer(self) -> Any:
        """Return the maps of the chosen image, or None."""
        image = self.pickers["image"].value
        if image is None:
            return None
        return next((m for m in self.viewer.layers if "maps" in about(m) and source_name(m) == image.name), None)

    def refresh(self, _event: Any = None) -> None:
        """Offer the layers there are now."""
        super().refresh()
        self._look()

    def _first_chosen(self, layer: Any) -> None:
        super()._first_chosen(layer)
        self._look()

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Show what can be done with the maps."""
        self._look()
        self._timer.start()

    def _look(self) -> None:
        layer = self.maps_layer()
        self.live.setVisible(layer is not None)
        if layer is not None:
            self.show_class.choices = ["none", *about(layer)["maps"].classes[1:]]

    def _show_map(self, name: str) -> None:
        layer = self.maps_layer()
        if layer is None:
            return
        if name and name != "none":
            layer.data = np.asarray(about(layer)["maps"][name], np.float32)
            layer.metadata["napari_defects"]["class"] = name
        layer.visible = bool(name) and name != "none"

    def _follow_threshold(self) -> None:
        layer = self.maps_layer()
        if layer is None:
            return
        known = about(layer)
        maps, image = known.pop("maps"), known.pop("image")
        upsert(self.viewer, mask_layer(maps, f"mask · {image}", self.threshold.value, image=image, **known))
        sites = next((s for s in reversed(self.viewer.layers) if SITES.fits(s) and source_name(s) == image), None)
        if sites is None:
            self.say("The mask follows the threshold; with atoms (Localize) the defects do, too.")
            return
        if self._classifying is not None and self._classifying.running:
            self._classifying.cancel()
        keywords = {"method": "maps", "min_probability": self.threshold.value}
        chosen = self.pickers["image"].value
        arguments = {
            "image": Source(IMAGE.read(chosen), image, about(chosen)),
            "sites": Source(SITES.read(sites), image, about(sites)),
            "maps": Source(maps, image, known),
            "model": "auto",
            "classify": keywords,
        }
        self._classifying = Job("Classify", Classify.work, arguments)
        self._classifying.done.connect(self._classified)
        self._classifying.failed.connect(self.fail)
        self._classifying.start()

    def _classified(self, made: Made) -> None:
        layers = [upsert(self.viewer, layer) for layer in made.layers]
        self.legend.follow(layers[0])
        self.say(f"✓ {made.summary}")


def defect_classes(maps: Maps) -> list[str]:
    """Classes that are neither background nor pristine columns; all but the background where there are none."""
    hosts = host_names()
    return [c for c in maps.classes if c not in hosts] or list(maps.classes[1:])


def device() -> str | None:
    """Return the device of napari's plugin settings; None for the best there is."""
    try:
        from napari.settings import get_plugin_settings

        chosen = str(get_plugin_settings("napari-defects").compute.device)
    except Exception:  # no napari window, or settings of an older napari
        return None
    return None if chosen == "auto" else chosen
