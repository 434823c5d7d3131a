"""The decision on maps that are already there: mask and defects at any threshold, without running anything again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_defects.crystals import species_color
from napari_defects.micrograph import Maps
from napari_defects.widgets._layers import host_names

LEAST = 0.01
"""No threshold is lower: what is less probable is not kept."""


@dataclass
class Decision:
    """Winners of the maps, and every candidate for a defect with its probability.

    Parameters
    ----------
    maps : Maps
    candidates : DataFrame, optional
        DEFECTS at the threshold `LEAST`; None until they are known.
    """

    maps: Maps
    candidates: pd.DataFrame | None = None
    _winner: npt.NDArray[np.uint8] = field(init=False)
    _surety: npt.NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        data = np.asarray(self.maps.data)
        self._winner = data.argmax(axis=0).astype(np.uint8)
        self._surety = np.take_along_axis(data, self._winner[None].astype(np.intp), axis=0)[0]
        hosts = host_names()
        shown = np.array([name not in hosts for name in self.maps.classes])
        self._winner[~shown[self._winner]] = 0

    def mask(self, threshold: float) -> npt.NDArray[np.uint8]:
        """Defect classes whose probability reaches the threshold; 0 elsewhere."""
        return np.where(self._surety >= threshold, self._winner, np.uint8(0))

    def defects(self, threshold: float) -> pd.DataFrame:
        """Candidates that reach the threshold."""
        assert self.candidates is not None
        chosen = self.candidates[self.candidates["probability"].to_numpy(float) >= threshold]
        return chosen.assign(defect=np.arange(len(chosen))).reset_index(drop=True)

    @property
    def colors(self) -> dict[str, str]:
        """Colour of each defect class of the maps."""
        hosts = host_names()
        return {name: species_color(name) for name in self.maps.classes if name not in hosts}
