"""What a widget can be given: layers that fit, crystals, models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from napari.layers import Image, Points

from napari_defects.crystals import CRYSTALS
from napari_defects.micrograph import Micrograph
from napari_defects.widgets._layers import about, micrograph_of
from napari_defects.widgets._points import table_of


class Source(NamedTuple):
    """A layer as a step takes it: the value, the name of the image it came from, and what the layer says of itself."""

    value: Any
    image: str
    about: dict[str, Any]


@dataclass(frozen=True)
class Pick:
    """A choice of a layer.

    Parameters
    ----------
    label : str
    fits : callable
        Whether a layer can be chosen.
    read : callable
        The layer's micrograph or table.
    missing : str
        What to tell where there is none.
    optional : bool
        Whether the step can do without.
    """

    label: str
    fits: Callable[[Any], bool]
    read: Callable[[Any], Any]
    missing: str
    optional: bool = False
    tooltip: str = ""

    def lacking(self, image: str | None) -> str:
        """Say that there is none, of this image."""
        return self.missing if image is None else self.missing.replace(" yet:", f" of {image!r} yet:")


@dataclass(frozen=True)
class Choice:
    """A choice of a word: a crystal, a model."""

    label: str
    options: Callable[[], Sequence[str]]
    tooltip: str = ""


def _is_image(layer: Any) -> bool:
    return isinstance(layer, Image) and not {"image", "maps", "average", "strain"} & set(about(layer))


def _calibrated(layer: Any) -> Micrograph:
    micrograph = micrograph_of(layer)
    if (np.asarray(layer.scale[-2:]) < 0).any():
        raise ValueError(
            f"{layer.name!r} is mirrored: its scale is negative. Make that positive, and flip the pixels instead:"
            " layer.data = layer.data[..., ::-1, :] in napari's console, or [..., ::-1] for the other axis."
        )
    if micrograph.pixel_size_nm is None:
        raise ValueError(f"{layer.name!r} has no pixel size: give it above, or take it from the lattice.")
    return micrograph


def _table(*kinds: str) -> Callable[[Any], bool]:
    return lambda layer: isinstance(layer, Points) and about(layer).get("table") in kinds


def _models() -> list[str]:
    from napari_defects.networks import list_models

    return ["auto", *(str(m["name"]) for m in list_models()), *_own_models]


_own_models: list[str] = []


def remember_model(path: str) -> None:
    """Offer a model file of the user's own, until napari is closed."""
    if path not in _own_models:
        _own_models.append(path)


IMAGE = Pick(
    "Image", _is_image, _calibrated, "There is no image: drop a file on napari, or open one from File, Open Sample."
)
SITES = Pick("Atoms", _table("sites", "strain"), table_of, "There are no atoms on a lattice yet: run Localize first.")
COLUMNS = Pick(
    "Atoms",
    lambda layer: SITES.fits(layer) or "average" in about(layer),
    lambda layer: about(layer)["average"].sites if "average" in about(layer) else table_of(layer),
    SITES.missing,
    tooltip="The atoms of an image, or a class average.",
)
DEFECTS = Pick("Defects", _table("defects", "tracks"), table_of, "There are no defects yet: run Classify first.")
MAPS = Pick(
    "Maps",
    lambda layer: "maps" in about(layer),
    lambda layer: about(layer)["maps"],
    "Run Segment first.",
    optional=True,
)
CRYSTAL = Choice("Crystal", lambda: tuple(CRYSTALS), "The material; its lattice constant is the ruler.")
MODEL = Choice("Model", _models, "The network; auto takes the one trained for the crystal, at its own pixel size.")
