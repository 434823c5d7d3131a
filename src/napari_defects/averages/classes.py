"""Class averages: all defects of one kind on top of each other, until a vacancy is seen to pull on its crystal.

Members are brought into the crystal's own frame (members.py), registered to their iterated average
without ever being resampled (registration.py), screened, and added on one grid. The columns of the
average are fitted jointly; two halves of the members, averaged and measured apart, say how precise
that is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..crystals import Crystal
from ..deformation import displacements, strain
from ..gaussian import Columns
from ..lattice import Lattice
from ..micrograph import Micrograph, Progress
from ..tables import Defects, Sites, Strain, check, empty
from .coordinates import Ruler
from .gathering import gather
from .members import Ground, symmetry
from .stacks import Stack

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)
_PARTS = 16  # most disjoint subsets for the precision curve
_POOLED = 3  # levels of that curve that scale the errors
_PRECISION = ["n", "sublattice", "precision_pm", "bound_pm"]


@dataclass(frozen=True, eq=False)
class ClassAverage:
    """The average of all defects of one species, in the crystal's own frame (a1 along x).

    Parameters
    ----------
    species : str
    image : ndarray of float32, shape (y, x)
        Average; odd sides, the defect's site at the central pixel.
    pixel_size_nm : float
    counts : ndarray of float32, shape (y, x)
        Number of members that were seen at each pixel.
    n : int
        Number of members averaged.
    members : DataFrame
        All candidates: micrograph, frame, defect, y_nm, x_nm (as registered, in their image),
        species, i, j, sublattice, dy_pm, dx_pm (shift from the lattice, in the crystal's frame),
        shift_err_pm, rotation_deg, correlation, coverage, half (0 or 1; -1 if rejected), accepted,
        reason.
    half : (ndarray, ndarray)
        Averages of two halves of the members.
    sites : DataFrame
        SITES table of the average: positions relative to the defect's site, jointly fitted; their
        errors are those of the fit times what the halves say.
    precision : DataFrame
        n, sublattice, precision_pm (1 sigma per axis of an average of n, from disjoint subsets),
        bound_pm (what the counts allow the fit).
    crystal : Crystal or None
    copies : int
        Equivalent copies of each member averaged: 6 with C3v symmetrization, else 1.
    """

    species: str
    image: Image
    pixel_size_nm: float
    counts: Image = field(repr=False)
    n: int
    members: pd.DataFrame = field(repr=False)
    half: tuple[Image, Image] = field(repr=False)
    sites: pd.DataFrame = field(repr=False)
    precision: pd.DataFrame = field(repr=False)
    crystal: Crystal | None = None
    copies: int = 1

    @property
    def extent_nm(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the image for matplotlib: x right, y down, the defect at 0."""
        half = self.image.shape[0] * self.pixel_size_nm / 2
        return (-half, half, half, -half)

    def strain(self, *, reference: ClassAverage | None = None, exclude_nm: float = 0.5, neighbors: int = 6) -> Strain:
        """Displacement and strain of the average's columns against the crystal's lattice.

        Parameters
        ----------
        reference : ClassAverage, optional
            Pristine average, or that of the same defect simulated without a field: what a fit
            measures there is bias, and is taken off.
        exclude_nm : float
            Columns closer than this do not define where the lattice is.
        neighbors : int
            As in `deformation.strain`.

        Returns
        -------
        Strain
        """
        twin = None if reference is None else displacements(reference.sites, center_nm=(0, 0), exclude_nm=exclude_nm)
        if not self.sites["i"].notna().any():
            return Strain(check(self.sites.reindex(columns=empty("strain").columns), "strain"))
        table = displacements(self.sites, center_nm=(0, 0), exclude_nm=exclude_nm, reference=twin)
        table.attrs["copies"] = self.copies
        return strain(table, neighbors=neighbors)


def average(
    micrographs: Micrograph | Sequence[Micrograph],
    defects: Defects | Sequence[Defects],
    *,
    radius_nm: float = 1.0,
    sites: Sites | Sequence[Sites] | None = None,
    lattice: Lattice | Sequence[Lattice] | None = None,
    species: Sequence[str] | None = None,
    symmetrize: bool = False,
    rotation: bool = False,
    isolation_nm: float = 0.45,
    min_coverage: float = 0.7,
    min_correlation: float | None = None,
    pixel_size_nm: float | None = None,
    rounds: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, ClassAverage]:
    """Register and average the defects of each species.

    Parameters
    ----------
    micrographs : Micrograph or sequence of Micrograph
        Members may come from many images, of any rotation, pixel size and intensity scale.
    defects : DataFrame or sequence of DataFrame
        DEFECTS table of each micrograph.
    radius_nm : float
        Half the side of the patches that are registered; columns within it are measured.
    sites : DataFrame or sequence of DataFrame, optional
        SITES tables; where `lattice` is not given the lattice is that of their ideal positions.
    lattice : Lattice or sequence of Lattice, optional
        Lattices of the micrographs. With neither, members are taken as they lie in the image.
    species : sequence of str, optional
        What to average; None for every species found. ``"pristine:W"`` averages W columns far from
        any defect and needs `sites`.
    symmetrize : bool
        Average the six equivalent copies (C3v) of every member: a gain of up to sqrt(6) in precision,
        if the field sought has that symmetry.
    rotation : bool
        Let each member turn, beyond what the lattice says.
    isolation_nm : float
        Members with another defect closer than this are rejected; farther ones are masked.
    min_coverage : float
        Part of a patch that must lie in the image and not under masks.
    min_correlation : float, optional
        With the template; None takes out outliers only.
    pixel_size_nm : float, optional
        Of the averages; None for that of the finest image.
    rounds : int
        Most times that the template is made anew; two are enough when the lattice is good.
    seed : int
        For the division into halves.
    progress : callable, optional
        ``progress(done, total)``.

    Returns
    -------
    dict of str to ClassAverage
        Without those species of which no member was accepted.

    Raises
    ------
    ValueError
        If the numbers of micrographs and tables differ, or pixel sizes are not known.
    """
    if not radius_nm >= 0.25:
        raise ValueError(f"`radius_nm` must be at least 0.25 nm, a column and its neighbours, got {radius_nm}.")
    images = [micrographs] if isinstance(micrographs, Micrograph) else list(micrographs)
    tables = [check(t, "defects") for t in _as_list(defects, len(images), "defects")]
    site_tables = _as_list(sites, len(images), "sites") if sites is not None else [None] * len(images)
    lattices = _as_list(lattice, len(images), "lattice") if lattice is not None else [None] * len(images)
    grounds = [Ground.of(*pair) for pair in zip(lattices, site_tables, strict=True)]
    if len(crystals := {ground.crystal.name for ground in grounds if ground}) > 1:
        raise ValueError(f"`micrographs` must be of one crystal to be averaged, got {', '.join(sorted(crystals))}.")
    pixel = pixel_size_nm or min(float(image.pixel_size_yx_nm.min()) for image in images)
    names = list(species) if species is not None else sorted({s for t in tables for s in t["species"]})
    stacks = [gather(name, images, tables, grounds, pixel, radius_nm, isolation_nm) for name in names]
    total = sum(len(stack.groups) for stack in stacks) * (2 * rounds + 1)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    result = {}
    for stack in stacks:
        stack.tick = tick
        stack.register(rounds, rotation, min_coverage, min_correlation)
        if stack.accepted.any():
            result[stack.species] = _finish(stack, symmetrize, seed)
        else:
            _log.warning(
                "no %s was averaged: %s.", stack.species, ", ".join(sorted(set(stack.reasons))) or "there is none"
            )
    if progress is not None and done < total:
        progress(total, total)
    return result


def _finish(stack: Stack, symmetrize: bool, seed: int) -> ClassAverage:
    """Average, halves and coordinates of a registered stack."""
    n = int(stack.accepted.sum())
    parts = 1 << int(np.log2(np.clip(n // 2, 1, _PARTS)))
    part = np.full(len(stack.table), 0)
    part[stack.accepted] = np.random.default_rng(seed).permutation(n) % max(parts, 1 + (n > 1))
    parts = int(part.max()) + 1
    operations = None
    if symmetrize:
        if stack.crystal is None or not stack.sublattice:
            raise ValueError(f"`symmetrize` needs members on lattice sites, which {stack.species} has not.")
        operations = symmetry(stack.crystal, stack.sublattice)
    sums = stack.sum(part, operations)

    def image_of(select: slice) -> Array:
        total, weights, _ = np.moveaxis(sums[select].sum(0), -1, 0)
        return np.asarray(np.where(weights > 0, total / np.where(weights > 0, weights, 1), np.nan))

    full = image_of(slice(None))
    sites, precision = Sites(empty("sites")), pd.DataFrame(columns=_PRECISION)
    seen = np.isfinite(full)
    if stack.crystal is not None and stack.sublattice:
        ruler = Ruler(stack.crystal, stack.sublattice, stack.pixel, stack.radius, stack.variance[stack.reference])
        samples = float(np.median(sums[..., 1].sum(0)))
        filled = np.where(seen, full, np.nanmean(full))
        columns = ruler.fit(filled, samples)
        precision = _precision(ruler, columns, image_of, n, parts, samples)
        ratio = (precision["precision_pm"] / precision["bound_pm"]) ** 2
        pooled = {
            s.name: ratio[(precision["n"] < n) & (precision["sublattice"] == s.name)].iloc[:_POOLED].mean()
            for s in stack.crystal.sublattices
        }
        inflate = pd.Series(pooled, dtype=float).fillna(1.0) ** 0.5
        shaped = ruler.reshape(filled, columns)
        warp = stack.warp(ruler.columns(len(full))[["y_nm", "x_nm"]].to_numpy(), operations)
        sites = ruler.sites(replace(shaped, yx=shaped.yx - warp / stack.pixel), seen, inflate)
    middle = max(len(sums) // 2, 1)
    return ClassAverage(
        species=stack.species,
        image=full.astype(np.float32),
        pixel_size_nm=stack.pixel,
        counts=sums[..., 2].sum(0).astype(np.float32),
        n=n,
        members=stack.members(np.where(part < middle, 0, 1)),
        half=(image_of(slice(0, middle)).astype(np.float32), image_of(slice(middle, None)).astype(np.float32)),
        sites=sites,
        precision=precision,
        crystal=stack.crystal,
        copies=1 if operations is None else len(operations),
    )


def _precision(
    ruler: Ruler, columns: Columns, image_of: Callable[[slice], Array], n: int, parts: int, samples: float
) -> pd.DataFrame:
    """Precision from disjoint halves, quarters, ...: each halving is compared with its own other half."""
    curve, size = [], parts
    while size > 1:
        size //= 2
        pair = [image_of(slice(k, k + size)) for k in (0, size)]
        if not all(np.isfinite(image).all() for image in pair):
            break
        one, other = (ruler.fit(image, samples * size / parts, columns) for image in pair)
        level = ruler.spread(one, other, columns, len(pair[0]))
        level["bound_pm"] *= np.sqrt(parts / size)
        curve.append(level.assign(n=max(round(n * size / parts), 1)))
    if not curve:
        return pd.DataFrame(columns=_PRECISION)
    whole = curve[0].assign(n=n, **(curve[0][["precision_pm", "bound_pm"]] / np.sqrt(2)))
    return pd.concat([whole, *curve], ignore_index=True)[_PRECISION]


def _as_list(value: Any, n: int, name: str) -> list[Any]:
    """One table or lattice, or a sequence of them, as a list of `n`."""
    values = [value] if isinstance(value, pd.DataFrame | Lattice) else list(value)
    if len(values) != n:
        raise ValueError(f"`{name}` must be one per micrograph: {n}, got {len(values)}.")
    return values
