"""Classify: which columns are not what the crystal says."""

from __future__ import annotations

from typing import Any, ClassVar

from napari_defects.micrograph import Progress
from napari_defects.widgets._corrections import Hand, by_hand, how_many, kept, still
from napari_defects.widgets._layers import KEY, about, source_name
from napari_defects.widgets._legend import Legend
from napari_defects.widgets._picks import DEFECTS, IMAGE, MAPS, MODEL, SITES, Source
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._steps import Made, Panel
from napari_defects.widgets._viewer import over_its_image, standing


class Classify(Panel):
    """Give every deviating site its species."""

    title = "Classify"
    help = "Names the sites that are not what the crystal says."
    inputs: ClassVar = {"image": IMAGE, "sites": SITES, "maps": MAPS, "model": MODEL}
    steps = ("defects.classify",)
    main = ("method", "species", "min_probability")
    hide = ("maps", "model")
    follow = "Average"

    @staticmethod
    def work(
        progress: Progress, image: Source, sites: Source, maps: Source | None, model: str, classify: dict[str, Any]
    ) -> Made:
        """Classify the sites by maps of a network, or without."""
        from napari_defects.defects import classify as name_sites
        from napari_defects.tables import crystal_of

        table, doubt = sites.value, ""
        table.attrs["crystal"] = sites.about.get("crystal", "")
        crystal = crystal_of(table).name
        if classify["method"] == "maps" and maps is None:
            from napari_defects.networks import model_for

            if model == "auto" and (model := model_for(crystal) or "") == "":
                classify = {**classify, "method": "intensities"}
                doubt = f"No network knows {crystal}: classified by intensities."
        defects = name_sites(
            image.value, table, maps=maps.value if maps else None, model=model or None, progress=progress, **classify
        )
        known = {"image": image.image, "crystal": crystal, "lattice": sites.about.get("lattice")}
        made = {"step": "Classify", "classify": classify, "model": model}
        layer = table_layer(
            defects, "defects", f"defects · {image.image}", movie=image.value.is_movie, made=made, **known
        )
        return Made([layer], summary(defects), doubt, defects)

    def build(self) -> None:
        """Put the legend below."""
        self.legend = Legend()
        self.add(self.legend)

    def _made(self, made: Made) -> None:
        super()._made(corrected(self.viewer, made, self.subject.layer))

    def shown(self, made: Made, layers: list[Any]) -> None:
        """Let the legend follow the new defects."""
        self.legend.follow(layers[0])

    def show_chosen(self) -> None:
        """Show the species of the chosen image."""
        self.legend.follow(defects_of(self.viewer, self.pickers["image"].value))


def defects_of(viewer: Any, image: Any) -> Any:
    """Return the layer of defects found last in an image, or None."""
    name = getattr(image, "name", None)
    own = [layer for layer in reversed(viewer.layers) if DEFECTS.fits(layer) and source_name(layer) == name]
    return min(own, key=lambda layer: "truth" in about(layer), default=None)


def said_of(viewer: Any, name: str, image: str | None, pixel_size_nm: Any) -> Hand:
    """Return what a person has said in the layer of defects of this name, where it is for pixels of this size."""
    there = standing(viewer, name, image)
    return by_hand(there if there is not None and DEFECTS.fits(there) else None, None, pixel_size_nm)


def corrected(viewer: Any, made: Made, image: Any = None) -> Made:
    """Give defects found anew what a person has said of the same sites in the layer they take the place of."""
    ((_, keywords, _),) = made.layers
    keywords = over_its_image(viewer, keywords, image)
    name, known = keywords["name"], dict(keywords["metadata"][KEY])
    said = said_of(viewer, name, known.get("image"), known.get("pixel_size_nm"))
    n = how_many(hand := still(said, known.get("lattice")))
    if lost := how_many(said) - n:
        words = f"{lost} set by hand not kept: they are on no site of this lattice as they say."
        made = made._replace(doubt=f"{made.doubt}\n{words}".strip())
    if not n:
        return made
    defects, gone = kept(made.extra, *hand)
    layer = table_layer(defects, known.pop("table"), name, movie=keywords["ndim"] > 2, **known, rejected=gone)
    return made._replace(layers=[layer], summary=f"{summary(defects)}, {n} set by hand kept", extra=defects)


def summary(defects: Any) -> str:
    """Say how many defects there are, of how many species."""
    kinds = defects["species"].nunique()
    return f"{len(defects):,} defects of {kinds} species" if kinds else "no defects"
