"""Bond graphs as other programs read them: GraphML or JSON for graphs, XYZ or CIF for density-functional theory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ase
import ase.io
import networkx as nx
import numpy as np

from ..saving import writing
from .rules import VACANCY

_GRAPHS, _STRUCTURES = (".graphml", ".json"), (".xyz", ".cif")


def to_ase(graph: nx.Graph, *, frame: int = 0, vacuum_nm: float = 1.0) -> ase.Atoms:
    """Atoms of one frame as an ASE structure, flat at z = 0.

    Parameters
    ----------
    graph : networkx.Graph
        From `bonds.bond_graph`.
    frame : int
    vacuum_nm : float
        Around the atoms in every direction; the cell is not periodic, as the image is cut out of a sheet.

    Returns
    -------
    ase.Atoms
        In angstrom with y up (the image's y runs down), tags = node numbers.

    Raises
    ------
    ValueError
        If the frame has no atoms.
    """
    nodes = [n for n, d in graph.nodes(data=True) if d["frame"] == frame and d["element"] != VACANCY]
    if not nodes:
        raise ValueError(f"`frame` {frame} has no atoms in this graph.")
    data = [graph.nodes[n] for n in nodes]
    place = 10 * np.array([(d["x_nm"], -d["y_nm"], 0.0) for d in data])
    atoms = ase.Atoms([d["element"] for d in data], positions=place, tags=nodes)
    atoms.center(vacuum=10 * vacuum_nm)
    return atoms


def write_structure(graph: nx.Graph, path: str | os.PathLike[str], *, frame: int | None = None) -> Path:
    """Write a graph (.graphml, .json) or its atoms (.xyz, .cif); all of it or nothing.

    Parameters
    ----------
    graph : networkx.Graph
    path : str or Path
        Its suffix says what to write.
    frame : int, optional
        That frame only; otherwise all: of an xyz one structure after the other, of a cif the first.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the suffix is another one, or the frame has no atoms.
    OSError
        If the file cannot be written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in _GRAPHS + _STRUCTURES:
        raise ValueError(
            f"a graph must be a graphml or json file, a structure an xyz or cif file, got {target.name!r}."
        )
    frames = sorted({d for _, d in graph.nodes(data="frame")} if frame is None else {frame})
    if frame is not None:
        graph = graph.subgraph([n for n, d in graph.nodes(data="frame") if d == frame])
    with writing(target) as temporary:
        if suffix == ".graphml":
            nx.write_graphml(graph, temporary)
        elif suffix == ".json":
            temporary.write_text(json.dumps(nx.node_link_data(graph, edges="edges"), indent=1), encoding="utf-8")
        else:
            if not frames:
                raise ValueError("the graph has no atoms.")
            structures = [to_ase(graph, frame=n) for n in (frames if suffix == ".xyz" else frames[:1])]
            ase.io.write(temporary, structures, format="cif" if suffix == ".cif" else "extxyz")
    return target
