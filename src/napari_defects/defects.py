"""Defects: what is wrong with which site, by class maps, by intensity, or by bonds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .bonds import classify_bonds
from .bonds.blobs import BLOBS, blobs_of
from .bonds.chemistry import sample_maps
from .checks import check_choice, check_range
from .crystals import Crystal, Sublattice, is_species, site_of, species_names
from .intensities import verdicts
from .intensities.photometry import measuring_points, relative_heights
from .intensities.showing import in_sight
from .intensities.surroundings import within_lattice
from .lattice.contrast import contrast_exponent, contrast_misfit
from .micrograph import Maps, Micrograph, Progress, check_micrograph
from .tables import DEFECTS, SITES, Defects, Sites, check, check_sites, crystal_of, empty

log = logging.getLogger(__name__)
METHODS = ("maps", "cells", "intensities", "bonds")

_CERTAIN = 0.9999  # no verdict is surer: what goes wrong more rarely is not in the model
VERDICT_RADIUS_NM = 0.05
"""Maps are averaged over this radius around a site."""

_NAMES = [c.name for c in DEFECTS]
_UNLIKE = 16.0  # chi-square of a contrast between sublattices that no detector gives


def classify(
    micrograph: Micrograph,
    sites: Sites,
    *,
    method: str = "maps",
    maps: Maps | None = None,
    model: Any = None,
    species: str | Sequence[str] | None = None,
    min_probability: float = 0.5,
    progress: Progress | None = None,
) -> Defects:
    """Find and name the defects among the sites of a crystal.

    Parameters
    ----------
    micrograph : Micrograph
        The image the sites were found in.
    sites : Sites
        From `assign_sites`, all of them: what is around a site is needed to judge it.
    method : {"maps", "cells", "intensities", "bonds"}
        - ``maps``: class maps of a network and the intensity of the column together. A column whose intensity is
          wrong for its site and for every class of the model becomes ``darker_W``, ``brighter_Se``, ....
        - ``cells``: every unit cell of an MX2 crystal by the atoms it lacks, see `detect_cells`; both vacancies of one
          cell make one defect, ``V_Te+V_Mo``.
        - ``intensities``: without a network; vacancies by their expected intensity, all else darker or brighter.
        - ``bonds``: by the bonding graph; for columns of single atoms such as graphene's.
    maps : Maps, optional
        From `predict`; otherwise `model` is run.
    model : Model or str, optional
        By default the shipped model of the crystal, for maps or for cells.
    species : str or sequence of str, optional
        What can be there at all, as ``"V_Se, V2_Se, Ti_W"``; everything that the model knows, or vacancies without one,
        when None. Any other column that is wrong becomes darker or brighter. What the model does not know is told by
        the intensity that its atomic number makes one expect.
    min_probability : float
        Leave out what is less certain.
    progress : callable, optional
        ``progress(done, total)``, passed on to `predict`.

    Returns
    -------
    Defects
        At most one row per site. Columns added: `height`, `relative_height` (1 for the host around it), `proportion`
        (of the confidence that there is a defect, what falls to this species) and
        `by_intensity` (the verdict without a network: a dopant it was never told about is called after the known
        species it resembles, but is darker or brighter here), or what the bonds say of a foreign atom.

    Raises
    ------
    ValueError
        If an argument is out of range, or if there is no model for the crystal.
    """
    check_micrograph(micrograph)
    check_choice("method", method, METHODS)
    check_range("min_probability", min_probability, 0, 1)
    crystal = crystal_of(sites)
    known = possible_species(species, crystal, method)
    sites = Sites(check_sites(sites))
    _check_sites(sites, crystal, micrograph.n_frames)
    if method == "cells":
        from .cells import defects_among, detect_cells

        cells = detect_cells(micrograph, model, sites=sites, crystal=crystal, progress=progress)
        return _table(defects_among(cells, sites, min_probability))
    if method == "maps" and maps is None:
        maps = _predict(micrograph, crystal, model, progress)
    if maps is not None:
        _check_maps(maps, micrograph, crystal)
    blobs = method == "maps" and maps is not None and set(BLOBS) & set(maps.classes)
    if blobs and known is not None:
        raise ValueError("`species` cannot be chosen where bonds name the defects; select rows of the result instead.")
    if blobs or method == "bonds":
        found = classify_bonds(
            sites, crystal=crystal, maps=maps, min_probability=min_probability, micrograph=micrograph, progress=progress
        )
        if maps and blobs:
            found = _with_blobs(found, maps, micrograph.n_frames, min_probability)
        return _table(found[in_sight(micrograph, found)])
    measured = relative_heights(micrograph, sites)
    inside = within_lattice(sites, crystal, np.asarray(micrograph.extent_nm, np.float64))
    measured["relative_height"] = measured["relative_height"].where(inside & in_sight(micrograph, _places(sites)))
    return _by_sites(measured, crystal, maps if method == "maps" else None, known, method, min_probability)


def possible_species(species: str | Sequence[str] | None, crystal: Crystal, method: str) -> tuple[str, ...] | None:
    """Species that can be there, checked against the crystal; None for all that is known."""
    if species is None:
        return None
    if method not in ("maps", "intensities"):
        raise ValueError(f"`species` goes with the methods maps and intensities, got method={method!r}; leave it out.")
    names = species_names(species, crystal)
    for name in names:
        if not is_species(name) or "+" in name or name.startswith(verdicts.OUTLIERS):
            raise ValueError(f"`species` must be names of one site each, as V_Se or Te2_Se, got {name!r}.")
    return names


def _check_sites(sites: pd.DataFrame, crystal: Crystal, n_frames: int) -> None:
    """Refuse sites that are not those of the whole image: each is measured beside all its neighbours."""
    on = sites[sites["i"].notna()]
    if len(strange := sites.loc[~sites["frame"].between(0, n_frames - 1), "frame"]):
        raise ValueError(f"`sites` are of frame {strange.iloc[0]}, but the image has {n_frames} frame(s), from 0.")
    if missing := [s.name for s in crystal.sublattices if len(on) and not (on["sublattice"] == s.name).any()]:
        raise ValueError(f"`sites` have none on {' and '.join(missing)}; give all, and select rows of the result.")


def _places(sites: pd.DataFrame) -> pd.DataFrame:
    """Where to look at each site."""
    y, x = measuring_points(sites).T
    return pd.DataFrame({"frame": sites["frame"].to_numpy(), "y_nm": y, "x_nm": x})


def _by_sites(
    sites: pd.DataFrame, crystal: Crystal, maps: Maps | None, known: tuple[str, ...] | None, method: str, least: float
) -> Defects:
    """One verdict per site, sublattice by sublattice."""
    parts, sites = [], sites[sites["relative_height"].notna()]
    if sites.empty:
        return Defects(empty("defects"))
    typical = {str(name): float(height) for name, height in sites.groupby("sublattice")["height"].median().items()}
    exponent: float | None = contrast_exponent(typical, crystal)
    if contrast_misfit(typical, crystal) > _UNLIKE * (len(typical) - 1):
        log.warning(
            "the sublattices of this image (%s) are not as bright beside each other as those of one layer of %s: "
            "columns are called empty, darker or brighter, not by species; is it one layer, and dark field?",
            ", ".join(f"{name} {height:.3g}" for name, height in typical.items()), crystal.name,
        )  # fmt: skip
        maps, exponent = None, None
    for sublattice in crystal.sublattices:
        own = sites[sites["sublattice"] == sublattice.name]
        if own.empty:
            continue
        probability, names = _posterior(own, sublattice, crystal, exponent, maps, known)
        alone, plain = probability, names
        if maps is not None:
            alone, plain = _posterior(own, sublattice, crystal, exponent, None, known)
        best = 1 + probability[:, 1:].argmax(1)
        certainty = np.minimum(probability[np.arange(len(own)), best], _CERTAIN)
        proportion = probability[np.arange(len(own)), best] / np.maximum(probability[:, 1:].sum(1), 1e-300)
        own = own.assign(
            species=names[best], probability=certainty, proportion=proportion, by_intensity=plain[alone.argmax(1)]
        )
        parts.append(own[certainty >= max(least, 1e-9)])
    if not parts:
        return Defects(empty("defects"))
    found = pd.concat(parts)
    place = measuring_points(found)
    return _table(found.assign(y_nm=place[:, 0], x_nm=place[:, 1], method=method))


def _posterior(
    sites: pd.DataFrame,
    sublattice: Sublattice,
    crystal: Crystal,
    exponent: float | None,
    maps: Maps | None,
    possible: tuple[str, ...] | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.object_]]:
    """Probability of each species at the sites of one sublattice, host first, and their names.

    Without an `exponent` no column has an expected intensity: only an empty site has a name.
    """
    element = sublattice.element
    vacancies = _vacancies(element, len(sublattice.column))[-1 if exponent is None else 0 :]
    classes = [] if maps is None else [name for name in maps.classes if site_of(name) == element]
    species = (classes if maps is not None else vacancies) if possible is None else [*possible]
    if exponent is None:
        species = [name for name in species if name in vacancies]
    species = [name for name in species if site_of(name) == element and not name.startswith(verdicts.OUTLIERS)]
    taught = () if maps is None else tuple(name for name in species if name in maps.taught)
    known = verdicts.choices(sublattice, [s for s in species if s not in taught], crystal, exponent or 0.0)
    evidence = None
    if maps is not None:
        other = [] if possible is None else [name for name in classes if name not in species]
        evidence = _evidence(sites, maps, known, verdicts.left_out(sublattice, other, crystal, exponent or 0.0))
    columns = ("relative_height", "scatter", "beneath", "counted")
    heights = verdicts.Measured(*(sites[name].to_numpy(float) for name in columns))
    found = verdicts.decide(heights, known, vacancies, evidence)
    full = [f"{name}_{element}" if name in verdicts.OUTLIERS else name for name in found.names]
    if maps is None or not taught:
        return found.probability, np.array(full, object)
    said = _said(sites, maps, taught)
    rest = found.probability * (1 - said.sum(1, keepdims=True))
    return np.column_stack([rest, said]), np.array([*full, *taught], object)


def _evidence(
    sites: pd.DataFrame, maps: Maps, known: list[verdicts.Choice], other: list[verdicts.Choice]
) -> npt.NDArray[np.float64]:
    """Probabilities of the classes possible at these sites, from the maps around them.

    For what the network does not know, those `other` classes speak that are as dark or as bright beside the host.
    """
    at = _places(sites)
    named = [c.name for c in [*known, *other] if c.name in maps.classes]
    seen = {name: sample_maps(at, maps, [name], radius_nm=VERDICT_RADIUS_NM) + 2e-4 for name in named}
    alike = [[c.name] if c.name in seen else [o.name for o in other if (o.ratio < 1) == (c.ratio < 1)] for c in known]
    own = [sum((seen[name] for name in names), np.zeros(len(at))) for names in alike]
    return np.asarray(np.column_stack(own) / np.sum(list(seen.values()), axis=0)[:, None])


def _said(sites: pd.DataFrame, maps: Maps, names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Probability of each class in the network's own words: nobody can calculate the height of what it was taught."""
    at = _places(sites)
    every = sample_maps(at, maps, list(maps.classes[1:]), radius_nm=VERDICT_RADIUS_NM) + 2e-4
    own = [sample_maps(at, maps, [name], radius_nm=VERDICT_RADIUS_NM) / every for name in names]
    return np.asarray(np.column_stack(own))


def _vacancies(element: str, n: int) -> list[str]:
    return [f"V{k if k > 1 else ''}_{element}" for k in range(1, n + 1)]


def _with_blobs(bonded: Defects, maps: Maps, n_frames: int, least: float) -> Defects:
    """Foreign atoms by their bonds; vacancies and rotated bonds, which have no site, straight from the maps."""
    foreign = bonded[~bonded["species"].isin(BLOBS)]
    rows = [{"frame": n, **blob} for n in range(n_frames) for blob in blobs_of(maps, n) if blob["probability"] >= least]
    parts = [part for part in (foreign, pd.DataFrame(rows)) if len(part)]
    return _table(pd.concat(parts).assign(method="maps")) if parts else Defects(empty("defects"))


def _table(found: pd.DataFrame) -> Defects:
    """Leave out what belongs to atoms and sites, and sort down the image."""
    others = {c.name for c in SITES}
    found = found.reindex(columns=_NAMES + [c for c in found if c not in _NAMES and c not in others])
    found = found.sort_values(["frame", "y_nm", "x_nm"], kind="stable")
    return Defects(check(found.assign(defect=np.arange(len(found))), "defects"))


def _predict(micrograph: Micrograph, crystal: Crystal, model: Any, progress: Progress | None) -> Maps:
    from .networks import Model, load_model, model_for, predict

    model = model or model_for(crystal)
    if model is None:
        raise ValueError(
            f"`model` must be given: none is shipped for {crystal.name}; use method='intensities', or train() one."
        )
    if not isinstance(model, Model):
        model = load_model(model, crystal)
    return predict(micrograph, model, progress=progress)


def _check_maps(maps: Maps, micrograph: Micrograph, crystal: Crystal) -> None:
    shape = tuple(maps.data.shape[-2:])
    if shape != micrograph.shape_yx:
        raise ValueError(
            f"`maps` must be of the image's shape {micrograph.shape_yx}, got {shape}; predict() them again."
        )
    if not knows(maps, crystal):
        raise ValueError(
            f"`maps` know no column of {crystal.name}, only {', '.join(maps.classes)}; "
            "use a model of this crystal, or method='intensities'."
        )


def knows(maps: Maps, crystal: Crystal) -> bool:
    """Whether the maps tell the columns of a crystal apart, and not just that there are some."""
    hosts = {s.host for s in crystal.sublattices} | {s.element for s in crystal.sublattices}
    return bool(hosts & set(maps.classes))
