"""What a class average is: its image, its members, its columns, and how precise they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..checks import check_range
from ..crystals import Crystal
from ..deformation import displacements, strain
from ..tables import Strain, check, empty

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

_LEAST_PARTS = 4  # of the members, to know their noise


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
        shift_err_pm, rotation_deg, correlation, coverage, strain and strain_err (of the lattice around
        it, beyond what is usual of its class), half (0 or 1; -1 if rejected), accepted, reason.
    half : (ndarray, ndarray)
        Averages of two halves of the members.
    sites : DataFrame
        SITES table of the average: positions relative to the defect's site, jointly fitted; their
        errors are those of the fit times what disjoint parts of the members say. Beside its columns:
        y_bootstrap_nm and x_bootstrap_nm (1 sigma, of the parts drawn anew), y_overlap_nm and
        x_overlap_nm (what neighbours and the scan added, and was taken off).
    precision : DataFrame
        n, sublattice, precision_pm (1 sigma per axis of an average of n, from disjoint subsets) and its
        error precision_err_pm, bound_pm (what the counts allow the fit).
    crystal : Crystal or None
    copies : int
        Equivalent copies of each member averaged: 6 with C3v symmetrization, else 1.
    scatter_pm : ndarray, shape (part, column, 2)
        By how much (y, x) of the columns in `sites` differ in averages of disjoint parts of the members.
    parts : tuple of (species, sublattice, y_nm, x_nm)
        The defects of which each member consists, from its site; more than one for a cluster.
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
    scatter_pm: Array = field(default_factory=lambda: np.zeros((0, 0, 2)), repr=False)
    parts: tuple[tuple[str, str, float, float], ...] = ()

    @property
    def extent_nm(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the image for matplotlib: x right, y down, the defect at 0."""
        half = self.image.shape[0] * self.pixel_size_nm / 2
        return (-half, half, half, -half)

    @property
    def has_draws(self) -> bool:
        """Whether there are members enough for `draws`."""
        return len(self.scatter_pm) >= _LEAST_PARTS

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
        bare = Strain(check(self.sites.reindex(columns=empty("strain").columns), "strain"))
        if not self.sites["i"].notna().any():
            return bare
        twin = None if reference is None else displacements(reference.sites, center_nm=(0, 0), exclude_nm=exclude_nm)
        table = displacements(self.sites, center_nm=(0, 0), exclude_nm=exclude_nm, reference=twin)
        table.attrs["copies"] = self.copies
        copied = self.copies > 1 and self.has_draws
        return strain(table, neighbors=neighbors, draws_pm=self.draws(500) if copied else None)

    def draws(self, n: int = 2000, *, seed: int = 0) -> Array:
        """Noise of the displacements as the members have it, for tests against chance.

        Parameters
        ----------
        n : int
        seed : int

        Returns
        -------
        ndarray, shape (n, column, 2)
            Of uy_pm and ux_pm of `sites`: the deviations of disjoint parts of the members, with random signs.
            Correlations between columns, and what members differ in beyond counting noise, are in it.
        """
        parts = len(self.scatter_pm)
        if not self.has_draws:
            raise ValueError(
                f"the average of {self.species} has {self.n} member(s), too few to know its noise; "
                f"{_LEAST_PARTS} are needed."
            )
        unsure = (parts - 1) / (parts - 3)  # what so many parts leave open of their variance
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (n, parts)) * np.sqrt(unsure / parts / (parts - 1))
        return np.asarray(np.einsum("np,pkb->nkb", signs, self.scatter_pm))

    def members_for(self, precision_pm: float = 0.3) -> pd.DataFrame:
        """How many members an average of this precision takes.

        Parameters
        ----------
        precision_pm : float
            1 sigma per axis.

        Returns
        -------
        DataFrame
            sublattice, n (by the measured precision), n_err, n_bound (by what the counts allow).
        """
        check_range("precision_pm", precision_pm, 0, above=True)
        whole = self.precision[self.precision["n"] == self.n]
        n = self.n * (whole["precision_pm"] / precision_pm) ** 2
        return pd.DataFrame(
            {
                "sublattice": whole["sublattice"], "n": n,
                "n_err": 2 * n * whole["precision_err_pm"] / whole["precision_pm"],
                "n_bound": self.n * (whole["bound_pm"] / precision_pm) ** 2,
            }
        ).reset_index(drop=True)  # fmt: skip
