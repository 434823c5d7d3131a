"""What fits no class: columns that the known ones do not explain, sorted into groups that look alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..checks import check_range
from ..crystals import Crystal, is_species, site_of
from ..intensities.photometry import relative_heights
from ..micrograph import Maps, Micrograph, check_micrograph
from ..tables import Sites, check, crystal_of
from .strangers import NEIGHBORS, Cluster, View

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Discovery:
    """What was found that fits no class.

    Parameters
    ----------
    sites : DataFrame
        NOVELTIES: every site that could be judged.
    clusters : tuple of Cluster
        The largest first, numbered from 0.
    crystal : Crystal
    """

    sites: pd.DataFrame
    clusters: tuple[Cluster, ...]
    crystal: Crystal

    def members(self, number: int) -> pd.DataFrame:
        """Rows of the sites in one cluster, the most novel first.

        Raises
        ------
        ValueError
            If there is no such cluster.
        """
        if not 0 <= number < len(self.clusters):
            there = f"0 to {len(self.clusters) - 1}" if self.clusters else "none, as nothing novel was found"
            raise ValueError(f"`number` must be that of a cluster ({there}), got {number}.")
        return self.sites[self.sites["cluster"] == number].sort_values("novelty", ascending=False, kind="stable")

    def named(self, names: Mapping[int, str]) -> pd.DataFrame:
        """Members of the clusters that have a name, with it as their `species`.

        Parameters
        ----------
        names : mapping of int to str
            Cluster to species, ``{0: "Ti_W"}``; two clusters may have one name.

        Raises
        ------
        ValueError
            If there is no such cluster, or a name is not that of a species on its site.
        """
        if not names:
            raise ValueError("`names` is empty: name at least one cluster, e.g. {0: 'Ti_W'}.")
        parts = []
        for number, species in names.items():
            own = self.members(number)
            element = self.crystal.sublattice(self.clusters[number].sublattice).element
            if not is_species(species) or site_of(species) != element:
                raise ValueError(f"`names` must be species on the site {element}, as Ti_{element}, got {species!r}.")
            parts.append(own.assign(species=species))
        return pd.concat(parts, ignore_index=True)


def discover(
    micrograph: Micrograph,
    sites: Sites,
    *,
    model: Any = None,
    maps: Maps | None = None,
    false_share: float = 0.05,
    min_members: int = 5,
) -> Discovery:
    """Find columns that fit no known class, and sort them into clusters that look alike.

    Known are the pristine columns, and the species that the model knows: a site is explained where the model is sure of
    a species and the column is as high as that species is. Classes that only say ``darker_W`` or ``brighter_Se``
    explain nothing. Without a model, only the host's columns and its vacancies are known.

    Parameters
    ----------
    micrograph : Micrograph
    sites : Sites
        From `assign_sites`.
    model : Model, str or path, optional
        Whose classes are known.
    maps : Maps, optional
        From `predict`, where the model has already been run.
    false_share : float
        Of the sites called novel, about so many may be chance (false discovery rate).
    min_members : int
        Smaller groups are no cluster.

    Returns
    -------
    Discovery

    Raises
    ------
    ValueError
        If an argument is out of range, or the sites are too few to tell what is usual.

    Notes
    -----
    The null is the scatter of the pristine columns, widened where a neighbourhood scatters more (dirt); shares of
    false discoveries after Benjamini and Hochberg, J. R. Stat. Soc. B 57, 289 (1995). ``novelty`` is one minus it.
    """
    check_micrograph(micrograph)
    check_range("false_share", false_share, 0, 1, above=True, below=True)
    check_range("min_members", min_members, 2, whole=True)
    crystal = crystal_of(sites)
    if maps is None and model is not None:
        from ..networks import predict

        maps = predict(micrograph, model)
    table = relative_heights(micrograph, Sites(check(sites, "sites")))
    table = table[table["relative_height"].notna() & table["y_ideal_nm"].notna()].reset_index(drop=True)
    parts, clusters = [], []
    for sublattice in crystal.sublattices:
        if (table["sublattice"] == sublattice.name).sum() > NEIGHBORS:
            view = View(micrograph, table, sublattice, crystal, maps)
            parts.append(view.judged(false_share, min_members))
            clusters += view.clusters(parts[-1])
    if not parts:
        raise ValueError(
            f"`sites` are too few: more than {NEIGHBORS} of a sublattice are needed to tell what is usual."
        )
    clusters.sort(key=lambda pair: -pair[1].n)
    numbers = {key: k for k, (key, _) in enumerate(clusters)}
    judged = pd.concat(parts, ignore_index=True)
    keys = zip(judged["sublattice"], judged["cluster"], strict=True)
    judged["cluster"] = [numbers.get(key, -1) for key in keys]
    found = tuple(_renumbered(cluster, k) for k, (_, cluster) in enumerate(clusters))
    return Discovery(check(judged, "novelties"), found, crystal)


def _renumbered(cluster: Cluster, number: int) -> Cluster:
    from dataclasses import replace

    return replace(cluster, number=number)
