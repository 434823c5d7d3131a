"""Rings of a planar bond graph, and the clusters of them that are not hexagons.

Neighbours are sorted by angle around each atom; always turning the same way walks every face of
the planar graph once, in time linear in its bonds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import networkx as nx
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ring = tuple[int, ...]


def rings(graph: nx.Graph) -> list[Ring]:
    """Inner faces of a planar graph, each as its nodes in turn.

    Parameters
    ----------
    graph : networkx.Graph
        Nodes with `y_nm`, `x_nm`, as `bonds.bond_graph` makes them.

    Returns
    -------
    list of tuple of int
        Nodes around each ring. The open outside is left out, and what hangs into a ring by one
        bond is not part of it.
    """
    core = nx.k_core(graph, 2)
    following: dict[tuple[int, int], int] = {}
    for node in core:
        y, x = core.nodes[node]["y_nm"], core.nodes[node]["x_nm"]
        around = sorted(core[node], key=lambda m: np.arctan2(core.nodes[m]["y_nm"] - y, core.nodes[m]["x_nm"] - x))
        for k, neighbor in enumerate(around):
            following[neighbor, node] = around[k - 1]
    faces: list[Ring] = []
    while following:
        edge = start = next(iter(following))
        face: list[int] = []
        while True:
            face.append(edge[1])
            edge = (edge[1], following.pop(edge))
            if edge == start:
                break
        if signed_area_nm2(graph, tuple(face)) > 0:
            faces.append(tuple(face))
    return faces


def signed_area_nm2(graph: nx.Graph, ring: Ring) -> float:
    """Area of a ring, positive for the inner faces that `rings` walks."""
    y, x = (np.array([graph.nodes[n][key] for n in ring]) for key in ("y_nm", "x_nm"))
    return float(0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def center_nm(graph: nx.Graph, ring: Ring) -> Floats:
    """Centroid (y, x) of the area of a ring."""
    points = np.array([(graph.nodes[n]["y_nm"], graph.nodes[n]["x_nm"]) for n in ring])
    origin = points.mean(0)
    y, x = (points - origin).T
    cross = x * np.roll(y, -1) - y * np.roll(x, -1)
    weights = np.column_stack([y + np.roll(y, -1), x + np.roll(x, -1)])
    return np.asarray(origin + (weights * cross[:, None]).sum(0) / (3 * cross.sum()))


@dataclass(frozen=True)
class Cluster:
    """Neighbouring rings that are not hexagons.

    Parameters
    ----------
    rings : tuple of Ring
    sizes : tuple of int
        Their sizes in ascending order.
    atoms : frozenset of int
    center_nm : (float, float)
        Centre of their common area, (y, x).
    missing : int
        Atoms that the honeycomb within the same outline would have more.
    """

    rings: tuple[Ring, ...]
    sizes: tuple[int, ...]
    atoms: frozenset[int]
    center_nm: tuple[float, float]
    missing: int


def clusters(graph: nx.Graph, faces: list[Ring], *, hexagon_nm2: float) -> list[Cluster]:
    """Join faces that are not hexagons where they share a bond.

    Parameters
    ----------
    graph : networkx.Graph
    faces : list of Ring
        From `rings`.
    hexagon_nm2 : float
        Area of the pristine ring. An outline of L bonds around h hexagons holds 1 + 2h - L/2
        atoms (Euler); what is fewer is missing.
    """
    owners: dict[frozenset[int], list[int]] = {}
    for k, face in enumerate(faces):
        if len(face) != 6:
            for pair in _bonds(face):
                owners.setdefault(pair, []).append(k)
    joined = nx.Graph()
    joined.add_nodes_from(k for k, face in enumerate(faces) if len(face) != 6)
    joined.add_edges_from(pair for pair in owners.values() if len(pair) == 2)
    result = []
    for members in nx.connected_components(joined):
        group = [faces[k] for k in sorted(members)]
        uses = Counter(pair for face in group for pair in _bonds(face))
        outline = [pair for pair, n in uses.items() if n == 1]
        atoms = frozenset().union(*group)
        inner = len(atoms) - len(frozenset().union(*outline))
        areas = np.array([signed_area_nm2(graph, face) for face in group])
        y, x = areas @ np.array([center_nm(graph, face) for face in group]) / areas.sum()
        expected = 1 + 2 * round(areas.sum() / hexagon_nm2) - len(outline) / 2
        sizes = tuple(sorted(len(face) for face in group))
        result.append(Cluster(tuple(group), sizes, atoms, (float(y), float(x)), round(expected - inner)))
    return result


def _bonds(face: Ring) -> list[frozenset[int]]:
    return [frozenset(pair) for pair in zip(face, face[1:] + face[:1], strict=True)]
