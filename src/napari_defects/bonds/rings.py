"""Rings of a planar bond graph, and the clusters of them that are not hexagons.

Neighbours are sorted by angle around each atom; always turning the same way walks every face of
the planar graph once, in time linear in its bonds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import numpy.typing as npt
import pandas as pd

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
    nodes = list(graph)
    number = {node: k for k, node in enumerate(nodes)}
    pairs = np.array([(number[a], number[b]) for a, b in graph.edges], int).reshape(-1, 2)
    place = _places(graph, nodes)
    start, end = np.concatenate([pairs, pairs[:, ::-1]]).T
    while len(loose := np.flatnonzero(np.bincount(start) == 1)):  # nothing that hangs by one bond
        keep = ~np.isin(start, loose) & ~np.isin(end, loose)
        start, end = start[keep], end[keep]
    along = place[end] - place[start]
    order = np.lexsort((np.arctan2(along[:, 0], along[:, 1]), start))
    start, end = start[order], end[order]
    first = np.searchsorted(start, start)
    last = np.searchsorted(start, start, side="right") - 1
    before = np.where(np.arange(len(start)) == first, last, np.arange(len(start)) - 1)
    size = len(place)
    where = np.argsort(start * size + end)
    back = where[np.searchsorted((start * size + end)[where], end * size + start)]
    following = before[back].tolist()
    ends, faces, seen = end.tolist(), [], [False] * len(start)
    for edge in range(len(seen)):
        face: list[int] = []
        while not seen[edge]:
            seen[edge] = True
            face.append(nodes[ends[edge]])
            edge = following[edge]
        if face:
            faces.append(tuple(face))
    return [face for face, area in zip(faces, areas_nm2(graph, faces), strict=True) if area > 0]


def areas_nm2(graph: nx.Graph, faces: Sequence[Ring]) -> Floats:
    """Area of each face, positive for the inner ones that `rings` walks."""
    return _moments(graph, faces)[0]


def centers_nm(graph: nx.Graph, faces: Sequence[Ring]) -> Floats:
    """Centroid (y, x) of the area of each face, shape (face, 2)."""
    return _moments(graph, faces)[1]


def _moments(graph: nx.Graph, faces: Sequence[Ring]) -> tuple[Floats, Floats]:
    """Area and centroid of each face, faces of one size at a time."""
    area, center = np.zeros(len(faces)), np.zeros((len(faces), 2))
    sizes = np.array([len(face) for face in faces])
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        points = _places(graph, [n for k in rows.tolist() for n in faces[k]]).reshape(len(rows), size, 2)
        origin = points.mean(1)
        here = points - origin[:, None]
        there = np.roll(here, -1, axis=1)
        cross = here[..., 1] * there[..., 0] - here[..., 0] * there[..., 1]
        area[rows] = cross.sum(1) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            center[rows] = origin + ((here + there) * cross[..., None]).sum(1) / (6 * area[rows])[:, None]
    return area, center


def _places(graph: nx.Graph, nodes: Iterable[int]) -> Floats:
    known = graph.nodes
    return np.array([(known[n]["y_nm"], known[n]["x_nm"]) for n in nodes]).reshape(-1, 2)


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
        areas = areas_nm2(graph, group)
        y, x = areas @ centers_nm(graph, group) / areas.sum()
        expected = 1 + 2 * round(areas.sum() / hexagon_nm2) - len(outline) / 2
        sizes = tuple(sorted(len(face) for face in group))
        result.append(Cluster(tuple(group), sizes, atoms, (float(y), float(x)), round(expected - inner)))
    return result


def _bonds(face: Ring) -> list[frozenset[int]]:
    return [frozenset(pair) for pair in zip(face, face[1:] + face[:1], strict=True)]


def ring_table(graph: nx.Graph) -> pd.DataFrame:
    """Rings as a table: `frame`, `size`, `y_nm`, `x_nm` of its middle, `area_nm2`, `atoms` (node numbers in turn)."""
    faces = rings(graph)
    middle = centers_nm(graph, faces)
    return pd.DataFrame({
        "frame": [graph.nodes[face[0]]["frame"] for face in faces], "size": [len(face) for face in faces],
        "y_nm": middle[:, 0], "x_nm": middle[:, 1], "area_nm2": areas_nm2(graph, faces),
        "atoms": [" ".join(map(str, face)) for face in faces],
    })  # fmt: skip
