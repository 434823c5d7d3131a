"""What an analysis tells while it runs: layers and a line of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from napari_defects.docstrings import default_of
from napari_defects.widgets._corrections import Hand, how_many, kept, still
from napari_defects.widgets._layers import LayerData, map_layer, mask_layer
from napari_defects.widgets._picks import Source
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._steps import Made
from napari_defects.widgets.average import average_layer, average_place
from napari_defects.widgets.classify import summary
from napari_defects.widgets.localize import found
from napari_defects.widgets.segment import defect_classes
from napari_defects.widgets.strain import arrow_layer, strain_layer, strain_words

LINES = {
    "segment": ("Segment", ("predict",)),
    "localize": ("Localize", ("locate", "fit_lattice", "assign_sites")),
    "calibrate": (None, ("calibrate",)),
    "classify": ("Classify", ("classify",)),
    "average": ("Average", ("average",)),
    "strain": ("Strain", ("strain",)),
    "count": ("Count and export", ("count",)),
}
"""Lines of the list, with the widget each leads to and the steps it stands for."""


class Telling:
    """Turns what a step gave into layers and a line, in the worker."""

    def __init__(self, image: Source, recipe: Any, hand: Hand, report: Callable[[str, Made], None]):
        self.image, self.hand, self.report = image, hand, report
        self.known = {
            "image": image.image,
            "crystal": recipe.crystal,
            "made": {"step": "Analyze", "recipe": recipe.to_toml()},
        }
        self.movie, self.lattice = image.value.is_movie, None
        self.asked = recipe.keywords("average").get("species")

    def __call__(self, step: str, result: Any) -> Any:
        """Tell of a step; return the defects as corrected by hand, for the steps that follow."""
        if step == "locate":
            self.known["atom_columns"] = list(result.columns)  # to write the atoms as they were before they had sites
        tell = getattr(self, f"_{step}", None)
        if tell is not None:
            line = next(key for key, (_, steps) in LINES.items() if step in steps)
            self.report("calibrate" if step == "fit_lattice" else line, tell(result))
        hand = still(self.hand, self.lattice)
        return kept(result, *hand)[0] if step == "classify" and how_many(hand) else None

    def _predict(self, maps: Any) -> Made:
        name = self.image.image
        threshold = default_of("defects.classify", "min_probability")
        mask, keywords, kind = mask_layer(maps, f"mask · {name}", threshold, **self.known)
        shown = map_layer(maps, f"maps · {name}", defect_classes(maps)[0], **self.known)
        return Made([shown, (mask, {**keywords, "visible": False}, kind)], f"{len(maps.classes) - 1} classes")

    def _fit_lattice(self, lattice: Any) -> Made:
        self.lattice = lattice
        size = self.image.value.pixel_size_yx_nm
        right = size / lattice.scale
        off = abs(lattice.scale - 1)
        words = f"{np.sqrt(size.prod()):.4f} nm a pixel"
        doubt = f"lattice says {np.sqrt(right.prod()):.4f}, {off:.1%} off" if off > 0.01 else ""
        return Made([], words + ("" if doubt else ", as the lattice says"), doubt, tuple(right))

    def _assign_sites(self, sites: Any) -> Made:
        return Made([self._table(sites, "sites", "atoms")], found(sites))

    def _classify(self, defects: Any) -> Made:
        return Made([self._table(defects, "defects", "defects")], summary(defects), extra=defects)

    def _average(self, averages: Mapping[str, Any]) -> Made:
        layers = [
            average_layer(result, average_place(self.image.value, number, result), self.known)
            for number, result in enumerate(averages.values())
        ]
        return Made(layers, f"{len(averages)} species", extra=(averages, self.asked))

    def _strain(self, table: Any) -> Made:
        picture, keywords, kind = strain_layer(table, "dilation", self.image.image, self.known)
        arrows, more, vectors = arrow_layer(table, self.image.image, self.known)
        hidden = [(picture, {**keywords, "visible": False}, kind), (arrows, {**more, "visible": False}, vectors)]
        return Made([*hidden, self._table(table, "strain", "atoms")], strain_words(table))

    def _count(self, counts: Any) -> Made:
        return Made([], count_words(counts), extra=counts)

    def _table(self, table: Any, kind: str, name: str) -> LayerData:
        title = f"{name} · {self.image.image}"
        return table_layer(table, kind, title, movie=self.movie, lattice=self.lattice, **self.known)


def count_words(counts: Any, left_out: int = 0) -> str:
    """Say how many defects were counted, and how many were not."""
    return f"{int(counts['count'].sum()):,} defects" + (f", {left_out:,} left out" if left_out else "")
