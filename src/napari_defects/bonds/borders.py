"""What the border of an image cuts off: atoms beyond it that may be bonded to one within."""

from __future__ import annotations

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..micrograph import Micrograph
from .graphs import place_nm

Floats = npt.NDArray[np.float64]

_UNSEEN_NM = 0.05  # an atom so near to the border is not sure to be found
_FREE_DEG = 75.0  # from every other bond, where there is room for one more


def view_nm(graph: nx.Graph, micrograph: Micrograph | None) -> dict[int, Floats]:
    """Lowest and highest (y, x) seen in each frame, shape (2, 2): of the image, else of the outermost atoms."""
    places: dict[int, list[tuple[float, float]]] = {}
    for _, node in graph.nodes(data=True):
        places.setdefault(node["frame"], []).append((node["y_nm"], node["x_nm"]))
    if micrograph is not None:
        return dict.fromkeys(places, np.array([np.zeros(2), micrograph.extent_nm]))
    return {frame: np.array([np.nanmin(p, axis=0), np.nanmax(p, axis=0)]) for frame, p in places.items()}


def cut_off(graph: nx.Graph, node: int, view: Floats) -> bool:
    """Whether an atom has room for one more bond on the side of the border, to an atom beyond it."""
    center = place_nm(graph, node)
    bonds = np.array([place_nm(graph, other) - center for other in graph[node]]).reshape(-1, 2)
    length = np.linalg.norm(bonds, axis=1)
    turn = np.deg2rad(np.arange(0, 360, 5))
    way = np.column_stack([np.sin(turn), np.cos(turn)])
    free = (way @ (bonds / length[:, None]).T < np.cos(np.deg2rad(_FREE_DEG))).all(1)
    end = center + way[free] * (length.mean() if len(length) else 0.0)
    return bool(((end < view[0] + _UNSEEN_NM) | (end > view[1] - _UNSEEN_NM)).any())
