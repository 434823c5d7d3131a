"""Segment: class maps of a network, with a threshold that the defects follow while it moves."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from magicgui.widgets import ComboBox
from qtpy.QtCore import QTimer

from napari_defects.docstrings import declared, default_of
from napari_defects.micrograph import Maps, Progress
from napari_defects.widgets._belonging import check_belongs
from napari_defects.widgets._cache import remembered
from napari_defects.widgets._decision import LEAST, Decision
from napari_defects.widgets._forms import Form, fields_of, value_of
from napari_defects.widgets._layers import KEY, about, host_names, map_layer, mask_layer, source_name
from napari_defects.widgets._legend import Legend
from napari_defects.widgets._picks import CRYSTAL, IMAGE, MODEL, SITES, Source
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._settings import device as device
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._viewer import standing, upsert
from napari_defects.widgets._work import Job
from napari_defects.widgets.classify import Classify, corrected, defects_of, summary

EACH = "each class in a layer"


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
        from napari_defects.networks import load_model, model_for
        from napari_defects.networks import predict as run

        chosen = model_for(crystal) if model == "auto" else model
        if chosen is None:
            raise ValueError(
                f"No network knows {crystal}: train one, or go on without: Localize, then Classify by intensities."
            )
        network = load_model(chosen, crystal or None)
        maps = remembered(
            image.value,
            network.network.state_dict(),
            {**predict, "classes": network.classes, "pixel_size_nm": network.pixel_size_nm, "crystal": network.crystal},
            lambda: run(image.value, network, device=device(), progress=progress, **predict),
        )
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
        fields = fields_of(declared("defects.classify"))
        self.threshold, self.species = fields["min_probability"], fields["species"]
        self.threshold.min = LEAST
        self.threshold.tooltip = "Moves the mask at once, and the defects where there are atoms (Localize)."
        self.show_class = ComboBox(name="map", label="show map", choices=["none"])
        self.live = Form([self.threshold, self.species, self.show_class])
        self.add(self.live)
        self.legend = Legend()
        self.add(self.legend)
        self._timer = QTimer(self, interval=0, singleShot=True)  # once a turn of the event loop: no queue of old values
        self._timer.timeout.connect(self.decide)
        self._decision: Decision | None = None
        self._version: tuple[Any, ...] | None = None
        self._weighing: Job | None = None
        self.threshold.changed.connect(lambda: self._timer.start())
        self.species.native.editingFinished.connect(lambda: self._timer.start())
        self.show_class.changed.connect(self._show_map)

    def maps_layer(self) -> Any:
        """Return the maps of the chosen image, or None."""
        image = self.pickers["image"].value
        if image is None:
            return None
        return next((m for m in self.viewer.layers if "maps" in about(m) and source_name(m) == image.name), None)

    def sites_layer(self) -> Any:
        """Return the atoms of the chosen image that were measured last, or None."""
        image = self.pickers["image"].value
        fits = (
            s for s in reversed(self.viewer.layers) if SITES.fits(s) and source_name(s) == getattr(image, "name", 0)
        )
        return min(fits, key=lambda s: "truth" in about(s), default=None)

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Decide on the new maps."""
        self.show_chosen()
        self._timer.start()

    def show_chosen(self) -> None:
        """Show what can be done with the maps of the chosen image, and its defects."""
        layer = self.maps_layer()
        self.legend.follow(defects_of(self.viewer, self.pickers["image"].value))
        self.live.setVisible(layer is not None)
        if layer is not None:
            self.show_class.choices = ["none", *about(layer)["maps"].classes[1:], EACH]

    def _show_map(self, name: str) -> None:
        layer = self.maps_layer()
        if layer is None:
            return
        if name == EACH:
            known = about(layer)
            maps, image = known.pop("maps"), known.pop("image")
            for one in defect_classes(maps):
                upsert(self.viewer, map_layer(maps, f"{one} · {image}", one, image=image, **{**known, "class": one}))
        elif name and name != "none":
            layer.data = np.asarray(about(layer)["maps"][name], np.float32)
            layer.metadata["napari_defects"]["class"] = name
        layer.visible = bool(name) and name not in ("none", EACH)

    def decide(self) -> None:
        """Draw mask and defects at the threshold, from maps and candidates that are kept: nothing runs again."""
        layer, sites = self.maps_layer(), self.sites_layer()
        if layer is None:
            return
        try:
            for one in [layer] + [sites] * (sites is not None):
                check_belongs(one, source_name(layer), self.pickers["image"].value)
        except ValueError as error:
            self.say(str(error), doubt=True)
            return
        known = about(layer)
        maps, image = known.pop("maps"), known.pop("image")
        if self._decision is None or self._decision.maps is not maps:
            self._decision, self._version = Decision(maps), None
        self._show_mask(self._decision.mask(self.threshold.value), maps, image, known)
        if sites is None:
            self.say("The mask follows the threshold; with atoms (Localize) the defects do, too.")
        elif self._version != (version := self._version_of(sites)):
            self._version, self._decision.candidates = version, None
            self._weigh(sites, maps, image, known)
        elif self._decision.candidates is not None:
            self._show_defects(image)

    def _show_mask(self, mask: Any, maps: Maps, image: str, known: dict[str, Any]) -> None:
        name = f"mask · {image}"
        there = standing(self.viewer, name, image)
        known_classes = None if there is None else about(there).get("classes")
        if known_classes == maps.classes and there.data.shape == mask.shape:
            there.data = mask
        else:
            upsert(self.viewer, mask_layer(maps, name, self.threshold.value, image=image, **known))

    def _weigh(self, sites: Any, maps: Maps, image: str, known: dict[str, Any]) -> None:
        """Find all candidates, once for these maps and atoms."""
        if self._weighing is not None and self._weighing.running:
            self._weighing.cancel()
        chosen = self.pickers["image"].value
        arguments = {
            "image": Source(IMAGE.read(chosen), image, about(chosen)),
            "sites": Source(SITES.read(sites), image, about(sites)),
            "maps": Source(maps, image, known),
            "model": "auto",
            "classify": {"method": "maps", "species": value_of(self.species), "min_probability": LEAST},
        }
        version = self._version
        self._weighing = Job("Classify", Classify.work, arguments, self)
        self._weighing.done.connect(lambda made: self._weighed(made, version, chosen))
        self._weighing.failed.connect(self.fail)
        self._weighing.start()

    def _weighed(self, made: Made, version: tuple[Any, ...] | None, image: Any) -> None:
        if self._decision is not None and self._version == version and image in self.viewer.layers:
            self._decision.candidates = made.extra
            self._known = made.layers[0][1]["metadata"][KEY]
            self._show_defects(image.name)

    def _show_defects(self, image: str) -> None:
        assert self._decision is not None
        defects = self._decision.defects(self.threshold.value)
        known = {key: value for key, value in self._known.items() if key != "table"}
        keywords = {**self._known["made"]["classify"], "min_probability": self.threshold.value}
        known["made"] = {"step": "Classify", "classify": keywords, "model": "auto"}
        movie = self._decision.maps.data.ndim == 4
        layer = table_layer(defects, "defects", f"defects · {image}", movie=movie, **known)
        made = corrected(self.viewer, Made([layer], summary(defects), extra=defects))
        self.legend.follow(upsert(self.viewer, made.layers[0]))
        self.say(f"✓ {made.summary}\n{made.doubt}".strip(), doubt=bool(made.doubt))

    def _version_of(self, sites: Any) -> tuple[Any, ...]:
        """Return what changes when the candidates do: places and table of the atoms, the species there can be."""
        return id(sites.features), hash(np.ascontiguousarray(sites.data).tobytes()), value_of(self.species)


def defect_classes(maps: Maps) -> list[str]:
    """Classes that are neither background nor pristine columns; all but the background where there are none."""
    hosts = host_names()
    return [c for c in maps.classes if c not in hosts] or list(maps.classes[1:])
