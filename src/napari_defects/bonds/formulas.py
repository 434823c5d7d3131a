"""What the bonds make of a defect: its formula, its place, its probability.

A connected piece of the bonding graph around foreign atoms is a defect, named by its formula
(``Si1C3``, ``Si1C4``, ``Si2C6``). The host's own defects show in the rings: hexagons everywhere
but around a missing or a rotated pair of atoms. With the image, a vacancy is where sites are dark.
After Ziatdinov et al., ACS Nano 11, 12742 (2017).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import numpy.typing as npt
import pandas as pd
from ase.data import atomic_masses, atomic_numbers
from scipy.spatial import cKDTree

from .. import tables
from ..crystals import Crystal, get_crystal
from ..lattice.phasing import Host
from ..micrograph import Maps, Micrograph, Progress
from ..tables import Defects
from .borders import cut_off, view_nm
from .chemistry import assign_elements, map_odds
from .graphs import angle_table, bond_graph, foreign_atoms, place_nm
from .holes import Ground, Hole
from .neighborhoods import resolve_frames
from .rings import Cluster, Ring, centers_nm, clusters, rings
from .rules import VACANCY, bond_rules

Floats = npt.NDArray[np.float64]

SHAPES = {(12,): "V1", (5, 9): "V1", (14,): "V2", (5, 10): "V2", (5, 5, 8): "V2", (5, 5, 7, 7): "SW"}
"""Rings around the host's own defects, relaxed or not."""
CUT_SHAPES = {(5, 5, 7): "SW", (5, 7, 7): "SW"}
"""The same where the border of the image has cut one ring open."""
_BENT_DEG = 22.0  # rms deviation from 120 degrees; 42 in half of a double vacancy, below 10 on a site of the host


def find_defects(
    graph: nx.Graph,
    *,
    maps: Maps | None = None,
    micrograph: Micrograph | None = None,
    lattices: Mapping[int, Host] | None = None,
    min_probability: float = 0.5,
) -> Defects:
    """Name the defects of a bond graph.

    Parameters
    ----------
    graph : networkx.Graph
        From `bond_graph`.
    maps : Maps, optional
        Class maps that know ``V1``, ``V2`` or ``SW`` weigh the rings' verdict.
    micrograph : Micrograph, optional
        Tells a vacancy from an atom that was not found: the one is dark.
    lattices : mapping of int to Host, optional
        Of the frames of `micrograph`; looked for there where not given.
    min_probability : float
        Less certain ones are left out.

    Returns
    -------
    Defects
        `species` is the formula of the foreign atoms and the host atoms bonded to them, at their
        centre of mass; or ``V1``, ``V2``, ``SW``; or ``V_Se`` for an empty site. A three-fold foreign
        atom whose angles are far from 120 degrees beside a ring that is no hexagon sits in a vacancy:
        ``Si1C3+V1``. Further columns: `atoms` (node numbers), `bond_pm`, `bond_err_pm` (mean foreign
        bond and its 1 sigma), `angle_off_deg`, `angle_off_err_deg` (rms deviation of the angles from
        360/n, and its 1 sigma), `border_nm` (to the nearest border of what is seen), `cut` (a bond may lead
        beyond it, which halves the probability). ``attrs["last_frame"]`` is the last frame with atoms.

    Raises
    ------
    ValueError
        If `min_probability` is not within 0 to 1.
    """
    if not 0 <= min_probability <= 1:
        raise ValueError(f"`min_probability` must be within 0 to 1, got {min_probability}.")
    faces = rings(graph)
    view = view_nm(graph, micrograph)
    rows = _foreign_defects(graph, faces, view) + _host_defects(graph, faces, maps, micrograph, lattices or {})
    found = pd.DataFrame(rows, columns=[c.name for c in tables.DEFECTS] + ["atoms", *_MEASURED, "cut"])
    box = np.array([view[n] for n in found["frame"]]).reshape(-1, 2, 2)
    sides = np.abs(tables.positions_nm(found)[:, None] - box)
    found["border_nm"] = sides.min((1, 2))
    found["cut"] = found["cut"].astype(bool)
    found = found[found["probability"] >= min_probability].sort_values(["frame", "y_nm"], kind="stable")
    found["defect"] = np.arange(len(found))
    found.attrs["last_frame"] = max(view, default=0)
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
        prior, which tells three bonds from four where single atoms are lost in the noise; and
        vacancies must be dark.
    progress : callable, optional
        ``progress(done, total)`` over frames.
    """
    rules = bond_rules(crystal)
    atoms = atoms_or_sites if "element" in atoms_or_sites else assign_elements(atoms_or_sites, rules, maps=maps)
    lattices: dict[int, Host] = {}
    if micrograph is not None and all(len(s.column) == 1 for s in get_crystal(crystal).sublattices):
        atoms, lattices = resolve_frames(
            micrograph, atoms, crystal=crystal, rules=rules, progress=progress, pristine=False
        )
    graph = bond_graph(atoms, crystal=crystal, rules=rules)
    found = find_defects(graph, maps=maps, micrograph=micrograph, lattices=lattices, min_probability=min_probability)
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


_MEASURED = ("bond_pm", "bond_err_pm", "angle_off_deg", "angle_off_err_deg")


def _row(
    graph: nx.Graph, nodes: Any, center: Any, species: str, probability: float, *, cut: bool = False, **measured: float
) -> dict[str, Any]:
    nodes = sorted(nodes)
    return {
        "frame": graph.nodes[nodes[0]]["frame"], "defect": 0, "y_nm": center[0], "x_nm": center[1], "i": pd.NA,
        "j": pd.NA, "sublattice": "", "species": species, "probability": float(np.clip(probability, 0, 1)),
        "method": "bonds", "atoms": " ".join(map(str, nodes)), **dict.fromkeys(_MEASURED, np.nan), **measured,
        "cut": cut,
    }  # fmt: skip


def _foreign_defects(graph: nx.Graph, faces: list[Ring], view: dict[int, Floats]) -> list[dict[str, Any]]:
    """Name each connected piece of foreign atoms and what they bond to."""
    foreign = set(foreign_atoms(graph))
    odd = {n for face in faces if len(face) != 6 for n in face} & foreign
    pieces = nx.Graph(graph.edges(foreign))
    pieces.add_nodes_from(foreign)
    rows = []
    for nodes in nx.connected_components(pieces):
        inner = [n for n in sorted(nodes) if n in foreign]
        mass = np.array([atomic_masses[atomic_numbers[graph.nodes[n]["element"]]] for n in nodes])
        center = mass @ np.array([place_nm(graph, n) for n in nodes]) / mass.sum()
        count = Counter(graph.nodes[n]["element"] for n in nodes)
        order = sorted(count, key=lambda e: (e in graph.graph["host"].split(), e))
        formula = "".join(f"{e}{count[e]}" for e in order)
        bonds = np.array([(b["length_pm"], b["length_err_pm"]) for *_, b in graph.edges(inner, data=True)]).reshape(
            -1, 2
        )
        angles = angle_table(graph, inner)
        off = angles["angle_deg"] - 360 / angles["apex"].map(dict(graph.degree(inner)))
        bent, error = (float(np.sqrt((v**2).mean())) for v in (off, angles["angle_err_deg"]))
        if len(inner) == 1 and graph.degree(inner[0]) == 3 and inner[0] in odd and bent - 2 * error > _BENT_DEG:
            formula += "+V1"
        sure = np.prod([graph.nodes[n]["probability"] * graph.nodes[n]["bonding_probability"] for n in inner])
        cut = any(cut_off(graph, n, view[graph.nodes[n]["frame"]]) for n in inner)
        rows.append(_row(
            graph, nodes, center, formula, float(sure) * (0.5 if cut else 1.0), cut=cut,
            bond_pm=bonds[:, 0].mean() if len(bonds) else np.nan,
            bond_err_pm=np.sqrt((bonds[:, 1] ** 2).sum()) / max(len(bonds), 1),
            angle_off_deg=bent, angle_off_err_deg=error,
        ))  # fmt: skip
    return rows


def _vacancies(graph: nx.Graph) -> list[dict[str, Any]]:
    """Empty sites of a table of sites, named by the host column they lack."""
    rows = []
    for node, element in graph.nodes(data="element"):
        if element == VACANCY:
            column = get_crystal(graph.graph["crystal"]).sublattice(graph.nodes[node]["site"]).column
            number = len(column) if len(column) > 1 else ""
            rows.append(_row(graph, [node], place_nm(graph, node), f"V{number}_{column[0]}", 1.0))
    return rows


def _host_defects(
    graph: nx.Graph, faces: list[Ring], maps: Maps | None, micrograph: Micrograph | None, lattices: Mapping[int, Host]
) -> list[dict[str, Any]]:
    """Vacancies and rotated bonds: by the rings where columns are single atoms, else by empty sites."""
    crystal = get_crystal(graph.graph["crystal"])
    if any(len(s.column) > 1 for s in crystal.sublattices):
        return _vacancies(graph)
    foreign = set(foreign_atoms(graph))
    nodes: dict[int, list[int]] = {}
    for node, known in graph.nodes(data=True):
        if known["element"] != VACANCY:
            nodes.setdefault(known["frame"], []).append(node)
    shapes: dict[int, list[Shape]] = {frame: [] for frame in nodes}
    for cluster in clusters(graph, faces, hexagon_nm2=crystal.cell_area_nm2):
        if not cluster.atoms & foreign and (shape := _shape(graph, cluster)) is not None:
            shapes[graph.nodes[min(cluster.atoms)]["frame"]].append(shape)
    rows = []
    for frame, own in nodes.items():
        places, found, ground = np.array([place_nm(graph, n) for n in own]), shapes[frame], None
        if micrograph is not None:
            elements = [graph.nodes[n]["element"] for n in own]
            ground = Ground.of(micrograph, frame, crystal, lattices, places, elements)
        if ground is not None:  # a rotated bond leaves two sites, but nothing is missing
            found = [shape for shape in found if shape.species == "SW"]
            apart = [place_nm(graph, n) for n in own if n in foreign] + [shape.center_nm for shape in found]
            found += [_empty(graph, hole, own, places) for hole in ground.holes(apart)]
        for species, atoms, center, odds in found:
            row = _row(graph, atoms, center, species, 0.0)
            odds *= map_odds(pd.DataFrame([row]), maps, species)[0]
            certain = float(np.mean([graph.nodes[n]["probability"] for n in atoms]))
            rows.append(row | {"probability": certain * odds / (1 + odds)})
    return rows


class Shape(NamedTuple):
    """A defect of the host: its species, the atoms around, its place (y, x), and its odds."""

    species: str
    atoms: Collection[int]
    center_nm: Any
    odds: float


def _empty(graph: nx.Graph, hole: Hole, nodes: Sequence[int], places_nm: Floats) -> Shape:
    """Name empty sites, among atoms (`nodes`) at these places."""
    near = np.unique(cKDTree(places_nm).query(hole.places_nm, min(3, len(nodes)))[1])
    species = _vacancy(hole.elements, graph.graph["host"].split())
    return Shape(species, [nodes[k] for k in near], hole.places_nm.mean(0), hole.odds)


def _shape(graph: nx.Graph, cluster: Cluster) -> Shape | None:
    """Name a cluster of odd rings by their sizes where known, else by how many atoms it lacks."""
    other = f"V{cluster.missing}" if 0 < cluster.missing < 5 and len(cluster.rings) < 7 else None
    species = (SHAPES | CUT_SHAPES).get(cluster.sizes, other)
    if species is None:
        return None
    odds = 9.0 if cluster.sizes in SHAPES else 2.5 if cluster.sizes in CUT_SHAPES else 1.5
    if species == "SW":
        return Shape(species, cluster.atoms, _center(graph, cluster), odds)
    lacking = _lacking(graph, cluster, int(species[1]))
    return Shape(_vacancy(lacking, graph.graph["host"].split()), cluster.atoms, cluster.center_nm, odds)


def _vacancy(elements: Sequence[str], host: list[str]) -> str:
    """``V2``, or ``V_B+V_N`` in a host of more than one element."""
    return f"V{len(elements)}" if len(host) == 1 else "+".join(f"V_{e}" for e in sorted(elements))


def _lacking(graph: nx.Graph, cluster: Cluster, n: int) -> list[str]:
    """Elements of `n` missing atoms: each leaves three atoms of the other element without a bond."""
    host: list[str] = graph.graph["host"].split()
    first, *other = host
    open_ends = Counter(graph.nodes[a]["element"] for a in cluster.atoms if graph.nodes[a]["edge"])
    more = open_ends[other[0]] - open_ends[first] if other else 3 * n
    number = int(np.clip(round((n + more / 3) / 2), 0, n))
    return [first] * number + other[:1] * (n - number)


def _center(graph: nx.Graph, cluster: Cluster) -> Any:
    """Centre of a Stone-Wales defect: that of two equal rings, also where another is cut off."""
    size = 5 if cluster.sizes.count(5) == 2 else 7
    return centers_nm(graph, [ring for ring in cluster.rings if len(ring) == size]).mean(0)
