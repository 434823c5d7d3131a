"""How well a network names what is known to be there, class by class and dose by dose."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.ndimage import map_coordinates
from torch.nn import functional as F

from ..crystals import CRYSTALS
from .devices import fast_dtype
from .examples import Example
from .folding import folded
from .models import Network

READ_RADIUS_NM = 0.05
DOSE_EDGES = (0.0, 5e3, 1.5e4, 5e4, 2e5, 1e6, 3e6, np.inf)


def verdicts(network: Network, examples: list[Example], classes: tuple[str, ...], device: torch.device) -> pd.DataFrame:
    """Return what the network says at each known position: ``species``, ``verdict``, ``dose_e_per_A2``.

    The verdict is the class with the highest mean probability within 0.05 nm of the position.
    """
    dtype = fast_dtype(device)
    ready = folded(network).to(device, dtype)
    tables = []
    for example in examples:
        image = example.image.astype(np.float32)
        grain = network.granularity_px
        image = np.pad(image, [(0, -n % grain) for n in image.shape], mode="reflect")
        with torch.inference_mode():
            planes = torch.from_numpy(example.planes(image))[None]
            logits = ready(planes.to(device, dtype))[0].float()
            maps = F.softmax(logits, dim=0).cpu().numpy()
        positions = example.table[["y_nm", "x_nm"]].to_numpy(float)
        pixel_size_nm = example.pixel_size_nm * network.stem
        first_nm = example.pixel_size_nm * (network.stem - 1) / 2
        means = mean_around(maps, (positions - first_nm) / pixel_size_nm, READ_RADIUS_NM / pixel_size_nm)
        names = np.asarray(classes)[means.argmax(axis=1)]
        tables.append(
            pd.DataFrame(
                {"species": example.table["species"], "verdict": names, "dose_e_per_A2": example.dose_e_per_A2}
            )
        )
    return pd.concat(tables, ignore_index=True)


def mean_around(
    maps: npt.NDArray[Any], positions_px: npt.NDArray[np.float64], radius_px: float
) -> npt.NDArray[np.float64]:
    """Mean of each map over a disc around each position (y, x): shape (position, class)."""
    rings = np.array([(r, 2 * np.pi * k / 8) for r in (0.4, 0.8) for k in range(8)])
    offsets = np.concatenate([[(0.0, 0.0)], rings[:, :1] * np.stack([np.sin(rings[:, 1]), np.cos(rings[:, 1])], 1)])
    points = positions_px[:, None] + radius_px * offsets
    values = [map_coordinates(m.astype(np.float32), points.reshape(-1, 2).T, order=1, mode="nearest") for m in maps]
    return np.stack([v.reshape(points.shape[:2]).mean(axis=1) for v in values], axis=1)


def score(table: pd.DataFrame, classes: tuple[str, ...], crystal: str) -> tuple[float, list[dict[str, Any]]]:
    """Mean F1 over the classes, and precision, recall and F1 of each class in each range of dose.

    ``"defects"`` stands for all species that are no host columns, taken together.
    """
    hosts = {s.host for s in CRYSTALS[crystal].sublattices} if crystal in CRYSTALS else set()
    defects = [c for c in classes[1:] if c not in hosts]
    doses = table["dose_e_per_A2"].to_numpy(float)
    numbers = np.where(np.isfinite(doses), np.searchsorted(DOSE_EDGES, doses, side="right"), 0)
    rows = []
    for number in (-1, *np.unique(numbers)):
        part = table if number < 0 else table[numbers == number]
        known = part["dose_e_per_A2"].dropna()
        span = [float(f"{known.min():.3g}"), float(f"{known.max():.3g}")] if len(known) else []
        for name, members in [("defects", defects), *((c, [c]) for c in classes[1:])]:
            found = _f1(part, members)
            if found["n"]:
                rows.append({"dose_e_per_A2": span if number >= 0 else "all", "class": name, **found})
    overall = [row["f1"] for row in rows if row["dose_e_per_A2"] == "all" and row["class"] != "defects"]
    return float(np.mean(overall)) if overall else 0.0, rows


def _f1(table: pd.DataFrame, members: list[str]) -> dict[str, Any]:
    actual, said = table["species"].isin(members), table["verdict"].isin(members)
    right = int((actual & (table["species"] == table["verdict"])).sum())
    n, claimed = int(actual.sum()), int(said.sum())
    f1 = 2 * right / (n + claimed) if n + claimed else 0.0
    return {
        "n": n,
        "recall": round(right / n, 5) if n else 0.0,
        "precision": round(right / claimed, 5) if claimed else 0.0,
        "f1": round(f1, 5),
    }
