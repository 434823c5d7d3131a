"""From the pixels of a still or a movie to the chemistry of its defects, and what it does over time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

from ..atoms import locate
from ..bonds import (
    BondRules,
    angle_table,
    assign_elements,
    bond_graph,
    bond_rules,
    bond_table,
    find_defects,
    ring_table,
    write_structure,
)
from ..bonds.neighborhoods import resolve_frames
from ..crystals import Crystal, get_crystal
from ..io import write_table
from ..lattice import assign_sites, fit_lattice
from ..lattice.phasing import Host
from ..micrograph import Maps, Micrograph, Progress
from ..saving import writing_folder
from ..tables import Atoms, Defects, Tracks
from .changes import dwell_times, transitions
from .drift import measure_drift
from .hops import find_hops, hop_rates
from .linking import track
from .rotors import rotors

_OWN = r"V[1-9]|SW|V_.*"  # defects of the host itself


@dataclass(frozen=True, eq=False)
class BondResults:
    """What `analyze_bonds` found."""

    crystal: Crystal
    atoms: Atoms
    graph: nx.Graph
    defects: Defects
    tracks: Tracks
    lattices: dict[int, Host]
    drift: pd.DataFrame
    frame_interval_s: float | None = None

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name; those of time only where there is more than one frame."""
        found: dict[str, pd.DataFrame] = {
            "atoms": self.atoms, "defects": self.defects, "bonds": bond_table(self.graph),
            "angles": angle_table(self.graph), "rings": ring_table(self.graph),
        }  # fmt: skip
        if self.atoms["frame"].nunique() > 1:
            interval = self.frame_interval_s
            found |= {
                "tracks": self.tracks, "transitions": transitions(self.tracks), "drift": self.drift,
                "dwell_times": dwell_times(self.tracks, frame_interval_s=interval),
                "rotors": rotors(self.atoms, self.tracks),
            }  # fmt: skip
            if self.lattices:
                hops = find_hops(self.tracks, next(iter(self.lattices.values())))
                found |= {"hops": hops, "hop_rates": hop_rates(self.tracks, hops, frame_interval_s=interval)}
        return found

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write every table as csv, the graph as graphml and json, the atoms as xyz and (first frame) cif.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        with writing_folder(Path(folder)) as new:
            for name, table in self.tables().items():
                write_table(table, new / f"{name}.csv")
            for suffix in ("graphml", "json"):
                write_structure(self.graph, new / f"graph.{suffix}")
            for suffix in ("xyz", "cif") if len(self.graph) else ():
                write_structure(self.graph, new / f"atoms.{suffix}")
        return Path(folder)


def analyze_bonds(
    micrograph: Micrograph,
    *,
    crystal: str | Crystal = "graphene",
    atoms: pd.DataFrame | None = None,
    maps: Maps | None = None,
    rules: BondRules | str | Path | None = None,
    min_probability: float = 0.5,
    max_step_nm: float = 0.5,
    memory_frames: int = 2,
    branching: bool = False,
    smooth_frames: float = 0.0,
    progress: Progress | None = None,
    on_step: Callable[[str, Any], None] | None = None,
) -> BondResults:
    """Bonds, defects and trajectories of a still or a movie.

    Every frame by itself, blank ones left out: atoms, elements (brightness and `maps`), the neighbourhoods
    of foreign atoms with the lattice as a prior, bonds, formulas. Then drift against the lattice, and
    trajectories in the crystal.

    Parameters
    ----------
    micrograph : Micrograph
    crystal : str or Crystal
        A host of single atoms, such as graphene or hBN.
    atoms : DataFrame, optional
        ATOMS, as corrected by hand; otherwise they are located.
    maps : Maps, optional
        Class maps that know elements or defects by name.
    rules : BondRules or path of a TOML file, optional
        Which atoms bond; the shipped rules of the crystal by default.
    min_probability : float
        Less certain defects are left out; in a movie, frames of less certain foreign atoms are `unsure`.
    max_step_nm : float
        Farthest a defect goes from one frame to the next; over a gap of n frames, n times as far.
    memory_frames : int
        Frames a defect may be missing before its trajectory ends.
    branching : bool
        Whether trajectories may merge and split.
    smooth_frames : float
        0 leaves every frame its own class; otherwise about how long a defect stays what it is.
    progress : callable, optional
        ``progress(done, total)``; to cancel, raise from it.
    on_step : callable, optional
        ``on_step(name, result)`` after atoms, defects and tracks.

    Returns
    -------
    BondResults

    Raises
    ------
    ValueError
        If the crystal has columns of more than one atom, or atoms of several elements and no lattice is found to tell
        them by; if the pixel size is not known, or an option is out of range.
    """
    crystal = get_crystal(crystal)
    if any(len(s.column) > 1 for s in crystal.sublattices):
        raise ValueError(
            f"`crystal` {crystal.name} has columns of several atoms, whose bonds cannot be seen from above; "
            "use classify(), or a host such as graphene or hBN."
        )
    told = on_step or (lambda _name, _result: None)
    seen = micrograph.seen_frames()
    if not isinstance(rules, BondRules):
        rules = bond_rules(crystal, rules)
    if atoms is None:
        part, own = micrograph, maps
        if len(seen) < micrograph.n_frames:
            part = replace(micrograph, data=np.asarray(micrograph.data)[seen])
            own = None if maps is None else replace(maps, data=np.asarray(maps.data)[:, seen])
        atoms = locate(part, maps=own, progress=_part(progress, 0.0, 0.6))
        atoms["frame"] = np.array(seen)[atoms["frame"]]
    told("atoms", atoms)
    elements = atoms if "element" in atoms else assign_elements(_sorted(atoms, crystal, rules), rules, maps=maps)
    resolved, lattices = resolve_frames(
        micrograph, elements, crystal=crystal, rules=rules, progress=_part(progress, 0.6, 0.9)
    )
    graph = bond_graph(resolved, crystal=crystal, rules=rules)
    defects = find_defects(graph, maps=maps, micrograph=micrograph, lattices=lattices, min_probability=0.0)
    sure = defects["probability"] >= min_probability
    if micrograph.is_movie:  # a foreign atom is there, whatever it bonds to
        sure |= ~defects["species"].str.fullmatch(_OWN)
    defects = Defects(defects[sure].reset_index(drop=True).assign(defect=range(int(sure.sum()))))
    told("defects", defects)
    drift = measure_drift(lattices, tuple(micrograph.extent_nm / 2))
    tracks = track(
        defects, max_step_nm=max_step_nm, memory_frames=memory_frames, branching=branching,
        drift=drift if len(drift) else None, min_probability=min_probability, smooth_frames=smooth_frames,
    )  # fmt: skip
    told("tracks", tracks)
    if progress is not None:
        progress(100, 100)
    return BondResults(crystal, resolved, graph, defects, tracks, lattices, drift, micrograph.frame_interval_s)


def _sorted(atoms: pd.DataFrame, crystal: Crystal, rules: BondRules) -> pd.DataFrame:
    """Atoms with their sublattice, where that says which element of the host they are."""
    if len(set(rules.host)) == 1 or "sublattice" in atoms:
        return atoms
    sites = assign_sites(Atoms(atoms), fit_lattice(Atoms(atoms), crystal))
    return sites.dropna(subset=["y_nm", "x_nm"]).reset_index(drop=True)


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    """Progress of a part of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(round(100 * (start + (end - start) * done / max(total, 1))), 100)
