"""What a person does to points with napari's own tools, kept: in the table, and for when they are found again."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pandas as pd

from napari_defects.tables import TABLES
from napari_defects.widgets._corrections import SITE
from napari_defects.widgets._layers import KEY, about
from napari_defects.widgets._points import table_of


class Keeper:
    """Keeps the table in ``features`` true to the points; sites that defects were taken from count as looked at."""

    def __init__(self, layer: Any):
        self._layer = weakref.ref(layer)

    def __call__(self, event: Any) -> None:
        layer, action = self._layer(), str(getattr(event, "action", ""))
        if layer is None or about(layer).get("table") not in TABLES or len(layer.features) != len(layer.data):
            return
        if action == "removing":
            gone = table_of(layer).index.isin(getattr(event, "data_indices", ()))
            _reject(layer, table_of(layer)[gone], table_of(layer)[~gone])
        elif action in ("added", "changed"):
            before, after = layer.features.reset_index(drop=True), table_of(layer)
            layer.features = after
            if action == "changed":
                _reject(layer, before, after)


def _reject(layer: Any, gone: pd.DataFrame, there: pd.DataFrame) -> None:
    """Keep rows as no defects, as Review does, but for those whose site is in the table, or kept already."""
    known = about(layer)
    if known["table"] != "defects" or gone.empty:
        return
    rejected = known.get("rejected")
    said = pd.concat([there, rejected])
    gone = gone[gone["i"].notna() & ~_sites(gone).isin(_sites(said))]
    if len(gone):
        first = max(gone["defect"].max(), said["defect"].max(), -1) + 1  # no number is given twice
        gone = gone.assign(defect=first + np.arange(len(gone)))
        known["rejected"] = pd.concat([rejected, gone], ignore_index=True)
        layer.metadata = {**layer.metadata, KEY: known}


def _sites(table: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(table[SITE])
