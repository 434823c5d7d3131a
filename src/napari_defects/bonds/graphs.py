"""The bonding graph: which atoms bond, and the lengths and angles of it.

Nodes are atoms with an element, edges are bonds no longer than the pair allows and no more than
the element can have (`chemistry.BondRules`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree
from scipy.special import ndtr

from .. import tables
from ..crystals import Crystal, get_crystal
from ..micrograph import Maps
from .chemistry import assign_elements
from .rules import VACANCY, BondRules, bond_rules

Floats = npt.NDArray[np.float64]

JITTER_PM = 10.0
"""Scatter of a bond length that the fit's errors do not tell: line jitter, drift, tilt."""


def bond_graph(
    atoms: pd.DataFrame,
    *,
    crystal: str | Crystal = "graphene",
    rules: BondRules | str | Path | None = None,
    maps: Maps | None = None,
) -> nx.Graph:
    """Connect atoms by bonds.

    Parameters
    ----------
    atoms : DataFrame
        ATOMS or SITES; a column `element` is taken as it is, otherwise `assign_elements` makes it.
    crystal : str or Crystal
        The host.
    rules : BondRules or path of a TOML file, optional
        The shipped rules of the crystal by default.
    maps : Maps, optional
        Helps to tell elements.

    Returns
    -------
    networkx.Graph
        Nodes are row numbers with `frame`, `y_nm`, `x_nm`, `y_err_nm`, `x_err_nm`, `element`,
        `site`, `probability` of the element, `bonding_probability`, that exactly these bonds are
        there given the limits and the errors, and `edge`: a host atom with fewer bonds than it can
        have, at the border of the image, of the flake or of a hole; edges have `length_pm` and `length_err_pm`.
        Frames are not connected.

    Raises
    ------
    ValueError
        If positions are missing.
    """
    if missing := [c for c in ("y_nm", "x_nm") if c not in atoms]:
        raise ValueError(f"`atoms` has no column {missing[0]!r}; run locate() first.")
    if not isinstance(rules, BondRules):
        rules = bond_rules(crystal, rules)
    if "element" not in atoms:
        atoms = assign_elements(atoms, rules, maps=maps)
    place = tables.positions_nm(atoms)
    if {"y_ideal_nm", "x_ideal_nm"} <= set(atoms):
        place = np.where(np.isfinite(place), place, atoms[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float))
    column = {name: atoms[name].to_numpy() if name in atoms else np.full(len(atoms), d) for name, d in _NODE.items()}
    variance = np.column_stack([column["y_err_nm"], column["x_err_nm"]]).astype(float) ** 2
    element, frame = column["element"].astype(str), column["frame"].astype(int)
    first, second = _near_pairs(place, frame, np.isfinite(place).all(1) & (element != VACANCY), rules.reach_nm)
    along = place[first] - place[second]
    length = np.linalg.norm(along, axis=1)
    error = 1e3 * np.sqrt((along**2 * (variance[first] + variance[second])).sum(1)) / length
    limit = np.array([rules.limit_pm(element[a], element[b]) for a, b in zip(first, second, strict=True)])
    within = ndtr((limit - 1e3 * length) / np.hypot(JITTER_PM, np.nan_to_num(error)))

    graph = nx.Graph(crystal=get_crystal(crystal).name, host=" ".join(rules.host))
    for k in range(len(atoms)):
        graph.add_node(
            k, frame=int(frame[k]), y_nm=float(place[k, 0]), x_nm=float(place[k, 1]), element=str(element[k]),
            y_err_nm=float(column["y_err_nm"][k]), x_err_nm=float(column["x_err_nm"][k]),
            site=str(column["sublattice"][k]), probability=float(column["element_probability"][k]),
        )  # fmt: skip

    def across(a: int, b: int) -> bool:
        """Whether an atom sits between: the far ends of two bonds do not bond, unless both are foreign."""
        return bool(set(graph[a]) & set(graph[b])) and bool({element[a], element[b]} & set(rules.host))

    free = [rules.largest_coordination.get(e, rules.default_coordination) for e in element]
    for k in np.argsort(length / limit.clip(1e-9)):  # shortest first, against the pair's own limit
        a, b = int(first[k]), int(second[k])
        if 1e3 * length[k] <= limit[k] and free[a] > 0 and free[b] > 0 and not across(a, b):
            free[a], free[b] = free[a] - 1, free[b] - 1
            graph.add_edge(a, b, length_pm=1e3 * float(length[k]), length_err_pm=float(error[k]))
    sure = np.ones(len(atoms))
    for a, b, p in zip(first.tolist(), second.tolist(), within, strict=True):
        if graph.has_edge(a, b) or (free[a] > 0 and free[b] > 0 and not across(a, b)):
            sure[[a, b]] *= p if graph.has_edge(a, b) else 1 - p
    nx.set_node_attributes(graph, dict(enumerate(sure.tolist())), "bonding_probability")
    nx.set_node_attributes(graph, {k: f > 0 and element[k] in rules.host for k, f in enumerate(free)}, "edge")
    return graph


_NODE: dict[str, Any] = {
    "frame": 0, "y_err_nm": np.nan, "x_err_nm": np.nan, "element": "", "element_probability": 1.0, "sublattice": "",
}  # fmt: skip


def _near_pairs(place: Floats, frame: Any, usable: Any, reach_nm: float) -> tuple[Any, Any]:
    """Rows of the same frame within reach of each other."""
    pairs = [np.zeros((0, 2), int)]
    for number in np.unique(frame[usable]):
        rows = np.flatnonzero((frame == number) & usable)
        pairs.append(rows[cKDTree(place[rows]).query_pairs(reach_nm, output_type="ndarray")])
    first, second = np.concatenate(pairs).T
    return first, second


def bond_table(graph: nx.Graph) -> pd.DataFrame:
    """Bonds as a table: `frame`, `bond` (``C-Si``), `a`, `b`, `length_pm`, `length_err_pm`, both ends in nm."""
    rows = []
    for a, b, bond in graph.edges(data=True):
        one, two = graph.nodes[a], graph.nodes[b]
        rows.append({
            "frame": one["frame"], "bond": "-".join(sorted((one["element"], two["element"]))), "a": a, "b": b,
            **bond, "y0_nm": one["y_nm"], "x0_nm": one["x_nm"], "y1_nm": two["y_nm"], "x1_nm": two["x_nm"],
        })  # fmt: skip
    columns = ["frame", "bond", "a", "b", "length_pm", "length_err_pm", "y0_nm", "x0_nm", "y1_nm", "x1_nm"]
    return pd.DataFrame(rows, columns=columns)


def angle_table(graph: nx.Graph, nodes: list[int] | None = None) -> pd.DataFrame:
    """Angles between bonds that follow each other around an atom.

    Parameters
    ----------
    graph : networkx.Graph
    nodes : list of int, optional
        Atoms at the apex; every foreign atom by default.

    Returns
    -------
    DataFrame
        `frame`, `angle` (``C-Si-C``), `a`, `apex`, `b`, `angle_deg`, `angle_err_deg`; the error is
        propagated from the coordinates of the three atoms.
    """
    rows = []
    for apex in foreign_atoms(graph) if nodes is None else nodes:
        center = place_nm(graph, apex)
        around = sorted(graph[apex], key=lambda n: float(np.arctan2(*(place_nm(graph, n) - center))))
        pairs = list(zip(around, around[1:] + around[:1], strict=True)) if len(around) > 2 else [tuple(around)]
        for a, b in pairs if len(around) > 1 else ():
            angle, error = _angle_deg(graph, a, apex, b)
            name = "-".join(graph.nodes[n]["element"] for n in (a, apex, b))
            rows.append((graph.nodes[apex]["frame"], name, a, apex, b, angle, error))
    columns = ["frame", "angle", "a", "apex", "b", "angle_deg", "angle_err_deg"]
    return pd.DataFrame(rows, columns=columns)


def foreign_atoms(graph: nx.Graph) -> list[int]:
    """Nodes that are neither host nor vacancy."""
    host = {*graph.graph["host"].split(), VACANCY}
    return [n for n, element in graph.nodes(data="element") if element not in host]


def place_nm(graph: nx.Graph, node: int) -> Floats:
    """Position (y, x) of a node."""
    return np.array([graph.nodes[node]["y_nm"], graph.nodes[node]["x_nm"]])


def _variance(graph: nx.Graph, node: int) -> Floats:
    return np.array([graph.nodes[node]["y_err_nm"], graph.nodes[node]["x_err_nm"]]) ** 2


def _angle_deg(graph: nx.Graph, a: int, apex: int, b: int) -> tuple[float, float]:
    """Angle at `apex` and its 1 sigma."""
    one, two = (place_nm(graph, n) - place_nm(graph, apex) for n in (a, b))
    angle = np.arctan2(one[1] * two[0] - one[0] * two[1], one @ two)
    gradient_a, gradient_b = (np.array([v[1], -v[0]]) / (v @ v) for v in (-one, two))  # of the direction (y, x)
    gradient = {a: gradient_a, b: gradient_b, apex: -gradient_a - gradient_b}
    variance = sum(g**2 @ _variance(graph, n) for n, g in gradient.items())
    return float(np.rad2deg(abs(angle))), float(np.rad2deg(np.sqrt(variance)))
