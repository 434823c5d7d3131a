"""Pairs and triples of defects as classes of their own, each turned until equal ones look equal.

A cluster is a group of two or three defects of which each is within reach of another. It is named by its
kinds and the distances between them in nm: ``V_Se+V_Se@0.33``, ``V_Se+V_Se+V_Se@0.33-0.33-0.57``; a letter
follows where the crystal has several arrangements of the same distances, as there are of three Se around a W
and around a hollow.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..checks import check_range
from ..crystals import Crystal
from ..lattice import Lattice
from ..tables import check, check_sites
from .members import Ground, layout, sign, site_at, symmetry

Array = npt.NDArray[np.float64]

LARGEST = 3
_COLUMNS = ["frame", "defect", "y_nm", "x_nm", "i", "j", "sublattice", "species", "probability", "method"]


class Part(NamedTuple):
    """One defect of a cluster: species, the number of its sublattice, and its cell from that of the anchor."""

    species: str
    sublattice: int
    i: int
    j: int


def find_clusters(
    defects: pd.DataFrame,
    *,
    sites: pd.DataFrame | None = None,
    lattice: Lattice | None = None,
    reach_nm: float = 0.7,
) -> pd.DataFrame:
    """Group defects into pairs and triples, by kind and arrangement.

    Parameters
    ----------
    defects : DataFrame
        DEFECTS table. Those on no site of the lattice are left out.
    sites : DataFrame, optional
        SITES table; for the crystal, where `lattice` is not given.
    lattice : Lattice, optional
    reach_nm : float
        Defects whose sites are not farther apart are of one cluster.

    Returns
    -------
    DataFrame
        DEFECTS table, one row a cluster: `species` is its class, the place is that of its anchor. Beside
        them: parts (tuple of the numbers in `defect`, the anchor first), turn (operation of the crystal,
        see `members.symmetry`, that takes it to its class), standing (species, sublattice, y_nm, x_nm of
        each part in the frame of the class), separation_nm (largest distance).

    Raises
    ------
    ValueError
        If neither `sites` nor `lattice` says what the crystal is, or `reach_nm` is not positive.
    """
    check_range("reach_nm", reach_nm, 0, above=True)
    ground = Ground.of(lattice, None if sites is None else check_sites(sites))
    if ground is None:
        raise ValueError("`sites` or `lattice` must be given to tell clusters apart; run assign_sites() first.")
    return clusters_on(ground.crystal, check(defects, "defects"), reach_nm)


def clusters_on(crystal: Crystal, defects: pd.DataFrame, reach_nm: float) -> pd.DataFrame:
    """Clusters of a checked DEFECTS table; see `find_clusters`."""
    names = [s.name for s in crystal.sublattices]
    known = defects["i"].notna() & defects["j"].notna() & defects["sublattice"].isin(names)
    table = defects[known].drop_duplicates(["frame", "i", "j", "sublattice"]).reset_index(drop=True)
    numbers = np.array([names.index(s) for s in table["sublattice"]], int)
    cells = table[["i", "j"]].to_numpy(int)
    place = (cells + crystal.fractions[numbers]) @ crystal.vectors_nm
    lifted = np.column_stack([place, table["frame"].to_numpy(float) * 1e6])
    pairs = cKDTree(lifted).query_pairs(reach_nm + 1e-6, output_type="ndarray") if len(table) else np.zeros((0, 2), int)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(table),) * 2)
    groups = defaultdict(list)
    for row, label in enumerate(connected_components(graph, directed=False)[1]):
        groups[label].append(row)
    rows = []
    for group in groups.values():
        if not 1 < len(group) <= LARGEST:
            continue
        parts = [Part(table["species"][k], int(numbers[k]), int(cells[k, 0]), int(cells[k, 1])) for k in group]
        key, order, turn = canonical(crystal, parts)
        anchor = table.iloc[group[order[0]]]
        rows.append(
            anchor[_COLUMNS].to_dict()
            | {
                "species": class_name(crystal, key),
                "probability": table["probability"].iloc[group].min(),
                "parts": tuple(int(table["defect"][group[k]]) for k in order),
                "turn": turn,
                "standing": tuple(
                    (part.species, crystal.sublattices[part.sublattice].name, float(y), float(x))
                    for part, (y, x) in zip(key, places(crystal, key), strict=True)
                ),
                "separation_nm": max(_distances(crystal, key)),
            }
        )
    found = pd.DataFrame(rows, columns=[*_COLUMNS, "parts", "turn", "standing", "separation_nm"])
    return check(found.astype({"turn": "int64", "separation_nm": float}), "defects")


def canonical(crystal: Crystal, parts: Iterable[Part]) -> tuple[tuple[Part, ...], list[int], int]:
    """Turn a cluster into the standing of its class.

    Returns
    -------
    key : tuple of Part
        The anchor first, at (0, 0); the same for all equal clusters.
    order : list of int
        Which of `parts` each is.
    turn : int
        Operation of `symmetry` of the anchor's site that was used.
    """
    parts = list(parts)
    best = None
    for anchor, home in enumerate(parts):
        name = crystal.sublattices[home.sublattice].name
        first = home_of(crystal, name)
        offsets = places(crystal, parts, anchor)
        for turn, operation in enumerate(operations(crystal, name)):
            moved = site_at(crystal, first, offsets @ (operation * sign(crystal, name)).T)
            standing = sorted(
                (k != anchor, Part(part.species, *(int(v[k]) for v in moved)), k) for k, part in enumerate(parts)
            )
            key = tuple(part for _, part, _ in standing)
            if best is None or key < best[0]:
                best = key, [k for _, _, k in standing], turn
    assert best is not None
    return best


def places(crystal: Crystal, parts: Sequence[Part], anchor: int = 0) -> Array:
    """Offsets (y, x) of the parts from one of them, in nm in the crystal's frame, shape (n, 2)."""
    cells = np.array([(p.i, p.j) for p in parts]) + crystal.fractions[[p.sublattice for p in parts]]
    return np.asarray((cells - cells[anchor]) @ crystal.vectors_nm)


@lru_cache(maxsize=64)
def operations(crystal: Crystal, sublattice: str) -> Array:
    """Operations of a site's symmetry; the identity alone where it is not three-fold."""
    try:
        return symmetry(crystal, sublattice)
    except ValueError:
        return np.eye(2)[None]


def home_of(crystal: Crystal, sublattice: str) -> str:
    """First sublattice of the same host column, onto which equivalent ones are turned."""
    return next(s.name for s in crystal.sublattices if s.host == crystal.sublattice(sublattice).host)


@lru_cache(maxsize=256)
def class_name(crystal: Crystal, key: tuple[Part, ...]) -> str:
    """Name of a class of clusters: kinds, distances, and a letter where these leave a choice."""
    distances = _distances(crystal, key)
    kinds = "+".join(sorted(part.species for part in key))
    name = f"{kinds}@{'-'.join(f'{d:.2f}' for d in distances)}"
    alike = sorted(_arrangements(crystal, key, distances))
    return name if len(alike) < 2 else name + "abcdefgh"[alike.index(key)]


def _distances(crystal: Crystal, parts: Sequence[Part]) -> list[float]:
    """Distances between the parts in nm, in order."""
    return sorted(round(float(np.linalg.norm(a - b)), 4) for a, b in itertools.combinations(places(crystal, parts), 2))


def _arrangements(crystal: Crystal, key: tuple[Part, ...], distances: list[float]) -> set[tuple[Part, ...]]:
    """All classes of the same kinds and distances, `key` among them."""
    names = [s.name for s in crystal.sublattices]
    around = layout(crystal, names[key[0].sublattice], distances[-1] + 0.01)
    r = np.linalg.norm(around[["y_nm", "x_nm"]].to_numpy(), axis=1)
    around = around[np.abs(r[:, None] - distances).min(1) < 1e-3]
    hosts = [home_of(crystal, s) for s in names]
    choices = [
        [
            Part(part.species, names.index(row.sublattice), int(row.i), int(row.j))
            for row in around.itertuples()
            if home_of(crystal, row.sublattice) == hosts[part.sublattice]
        ]
        for part in key[1:]
    ]
    result = {key}
    for chosen in itertools.product(*choices):
        if np.allclose(_distances(crystal, (key[0], *chosen)), distances, atol=1e-3):
            result.add(canonical(crystal, (key[0], *chosen))[0])
    return result
