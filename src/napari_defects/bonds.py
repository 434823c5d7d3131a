"""The bonding graph: which atoms bond, what that makes of a defect, and its lengths and angles.

Nodes are atoms with an element, edges are bonds no longer than the pair allows and no more than
the element can have (`chemistry.BondRules`). A connected piece around foreign atoms is a defect,
named by its formula (``Si1C3``, ``Si1C4``, ``Si2C6``). The host's own defects show in the rings:
hexagons everywhere but around a missing or a rotated pair of atoms.
After Ziatdinov et al., ACS Nano 11, 12742 (2017).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import pandas as pd
from ase.data import atomic_masses, atomic_numbers
from scipy.spatial import cKDTree
from scipy.special import ndtr

from . import tables
from .chemistry import VACANCY, BondRules, assign_elements, bond_rules, map_odds
from .crystals import Crystal, get_crystal
from .micrograph import Maps, Micrograph, Progress
from .neighborhoods import resolve
from .rings import Cluster, clusters, rings
from .tables import Defects

Floats = npt.NDArray[np.float64]

SHAPES = {(12,): "V1", (5, 9): "V1", (14,): "V2", (5, 10): "V2", (5, 5, 8): "V2", (5, 5, 7, 7): "SW"}
"""Rings around the host's own defects, relaxed or not."""
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
        `site`, `probability` of the element and `bonding_probability`, that exactly these bonds
        are there given the limits and the errors; edges have `length_pm` and `length_err_pm`.
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
        center = _place(graph, apex)
        around = sorted(graph[apex], key=lambda n: float(np.arctan2(*(_place(graph, n) - center))))
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


def find_defects(graph: nx.Graph, *, maps: Maps | None = None, min_probability: float = 0.5) -> Defects:
    """Name the defects of a bond graph.

    Parameters
    ----------
    graph : networkx.Graph
        From `bond_graph`.
    maps : Maps, optional
        Class maps that know ``V1``, ``V2`` or ``SW`` weigh the rings' verdict.
    min_probability : float
        Less certain ones are left out.

    Returns
    -------
    Defects
        `species` is the formula of the foreign atoms and the host atoms bonded to them, at their
        centre of mass; or ``V1``, ``V2``, ``SW``; or ``V_Se`` for an empty site. Further columns:
        `atoms` (node numbers), `bond_pm`, `bond_err_pm` (mean foreign bond and its 1 sigma),
        `angle_off_deg` (rms deviation of the angles from 360/n).

    Raises
    ------
    ValueError
        If `min_probability` is not within 0 to 1.
    """
    if not 0 <= min_probability <= 1:
        raise ValueError(f"`min_probability` must be within 0 to 1, got {min_probability}.")
    rows = _foreign_defects(graph) + _host_defects(graph, maps)
    found = pd.DataFrame(rows, columns=[c.name for c in tables.DEFECTS] + ["atoms", *_MEASURED])
    found = found[found["probability"] >= min_probability].sort_values(["frame", "y_nm"], kind="stable")
    found["defect"] = np.arange(len(found))
    return Defects(tables.check(found, "defects"))


def classify_bonds(
    atoms_or_sites: pd.DataFrame,
    *,
    crystal: str | Crystal = "graphene",
    maps: Maps | None = None,
    min_probability: float = 0.5,
    micrograph: Micrograph | None = None,
    progress: Progress | None = None,
) -> Defects:
    """Find and name defects by their bonds: elements, neighbourhoods, `bond_graph`, `find_defects`.

    Parameters
    ----------
    atoms_or_sites : DataFrame
        ATOMS or SITES; with SITES, defects carry the lattice indices of the nearest site.
    crystal : str or Crystal
    maps : Maps, optional
    min_probability : float
    micrograph : Micrograph, optional
        The neighbourhood of each foreign atom is then fitted again with the host lattice as a
        prior, which tells three bonds from four where single atoms are lost in the noise.
    progress : callable, optional
        ``progress(done, total)`` over frames.
    """
    rules = bond_rules(crystal)
    atoms = atoms_or_sites if "element" in atoms_or_sites else assign_elements(atoms_or_sites, rules, maps=maps)
    if micrograph is not None and all(len(s.column) == 1 for s in get_crystal(crystal).sublattices):
        atoms = resolve(micrograph, atoms, crystal=crystal, rules=rules, progress=progress)
    graph = bond_graph(atoms, crystal=crystal, rules=rules)
    found = find_defects(graph, maps=maps, min_probability=min_probability)
    if not {"i", "j", "sublattice", "y_ideal_nm", "x_ideal_nm"} <= set(atoms_or_sites) or found.empty:
        return found
    for frame, rows in found.groupby("frame").groups.items():
        sites = atoms_or_sites[atoms_or_sites["frame"] == frame].dropna(subset=["y_ideal_nm", "x_ideal_nm"])
        if len(sites):
            tree = cKDTree(sites[["y_ideal_nm", "x_ideal_nm"]].to_numpy(float))
            nearest = tree.query(tables.positions_nm(found.loc[rows]))[1]
            for name in ("i", "j", "sublattice"):
                found.loc[rows, name] = sites[name].to_numpy()[nearest]
    return Defects(tables.check(found, "defects"))


_MEASURED = ("bond_pm", "bond_err_pm", "angle_off_deg")


def _row(
    graph: nx.Graph, nodes: Any, center: Any, species: str, probability: float, **measured: float
) -> dict[str, Any]:
    nodes = sorted(nodes)
    return {
        "frame": graph.nodes[nodes[0]]["frame"], "defect": 0, "y_nm": center[0], "x_nm": center[1], "i": pd.NA,
        "j": pd.NA, "sublattice": "", "species": species, "probability": float(np.clip(probability, 0, 1)),
        "method": "bonds", "atoms": " ".join(map(str, nodes)), **dict.fromkeys(_MEASURED, np.nan), **measured,
    }  # fmt: skip


def _foreign_defects(graph: nx.Graph) -> list[dict[str, Any]]:
    """Name each connected piece of foreign atoms and what they bond to."""
    foreign = foreign_atoms(graph)
    pieces = nx.Graph(graph.edges(foreign))
    pieces.add_nodes_from(foreign)
    rows = []
    for nodes in nx.connected_components(pieces):
        inner = [n for n in nodes if n in set(foreign)]
        mass = np.array([atomic_masses[atomic_numbers[graph.nodes[n]["element"]]] for n in nodes])
        center = mass @ np.array([_place(graph, n) for n in nodes]) / mass.sum()
        count = Counter(graph.nodes[n]["element"] for n in nodes)
        order = sorted(count, key=lambda e: (e in graph.graph["host"].split(), e))
        bonds = np.array([(b["length_pm"], b["length_err_pm"]) for *_, b in graph.edges(inner, data=True)]).reshape(
            -1, 2
        )
        angles = angle_table(graph, inner)
        off = angles["angle_deg"] - 360 / angles.groupby("apex")["a"].transform("size")
        rows.append(_row(
            graph, nodes, center, "".join(f"{e}{count[e]}" for e in order),
            float(np.prod([graph.nodes[n]["probability"] * graph.nodes[n]["bonding_probability"] for n in inner])),
            bond_pm=bonds[:, 0].mean() if len(bonds) else np.nan,
            bond_err_pm=np.sqrt((bonds[:, 1] ** 2).sum()) / max(len(bonds), 1),
            angle_off_deg=float(np.sqrt((off**2).mean())),
        ))  # fmt: skip
    return rows


def _vacancies(graph: nx.Graph) -> list[dict[str, Any]]:
    """Empty sites of a table of sites, named by the host column they lack."""
    rows = []
    for node, element in graph.nodes(data="element"):
        if element == VACANCY:
            column = get_crystal(graph.graph["crystal"]).sublattice(graph.nodes[node]["site"]).column
            number = len(column) if len(column) > 1 else ""
            rows.append(_row(graph, [node], _place(graph, node), f"V{number}_{column[0]}", 1.0))
    return rows


def _host_defects(graph: nx.Graph, maps: Maps | None) -> list[dict[str, Any]]:
    """Vacancies and rotated bonds: by the rings where columns are single atoms, else by empty sites."""
    crystal = get_crystal(graph.graph["crystal"])
    if any(len(s.column) > 1 for s in crystal.sublattices):
        return _vacancies(graph)
    foreign = set(foreign_atoms(graph))
    rows = []
    for cluster in clusters(graph, rings(graph), hexagon_nm2=crystal.cell_area_nm2):
        if not cluster.atoms & foreign and (species := _shape(cluster)):
            certain = float(np.mean([graph.nodes[n]["probability"] for n in cluster.atoms]))
            row = _row(graph, cluster.atoms, cluster.center_nm, species, 0.0)
            odds = (9.0 if cluster.sizes in SHAPES else 1.5) * map_odds(pd.DataFrame([row]), maps, species)[0]
            rows.append(row | {"probability": certain * odds / (1 + odds)})
    return rows


def _shape(cluster: Cluster) -> str | None:
    """Name of a cluster of odd rings: by its sizes where known, else by how many atoms it lacks."""
    other = f"V{cluster.missing}" if 0 < cluster.missing < 5 and len(cluster.rings) < 7 else None
    return SHAPES.get(cluster.sizes, other)


def _place(graph: nx.Graph, node: int) -> Floats:
    return np.array([graph.nodes[node]["y_nm"], graph.nodes[node]["x_nm"]])


def _variance(graph: nx.Graph, node: int) -> Floats:
    return np.array([graph.nodes[node]["y_err_nm"], graph.nodes[node]["x_err_nm"]]) ** 2


def _angle_deg(graph: nx.Graph, a: int, apex: int, b: int) -> tuple[float, float]:
    """Angle at `apex` and its 1 sigma."""
    one, two = (_place(graph, n) - _place(graph, apex) for n in (a, b))
    angle = np.arctan2(one[1] * two[0] - one[0] * two[1], one @ two)
    gradient_a, gradient_b = (np.array([v[1], -v[0]]) / (v @ v) for v in (-one, two))  # of the direction (y, x)
    gradient = {a: gradient_a, b: gradient_b, apex: -gradient_a - gradient_b}
    variance = sum(g**2 @ _variance(graph, n) for n, g in gradient.items())
    return float(np.rad2deg(abs(angle))), float(np.rad2deg(np.sqrt(variance)))
