"""Localize: every atomic column with its error, on the lattice of the crystal."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from napari_defects.micrograph import Progress
from napari_defects.widgets._picks import CRYSTAL, IMAGE, MAPS, Source
from napari_defects.widgets._points import table_layer
from napari_defects.widgets._steps import Made, Panel


class Localize(Panel):
    """Find all columns, measure their positions and give each its place in the lattice."""

    title = "Localize"
    help = "Measures every atomic column and finds its place in the lattice."
    inputs: ClassVar = {"image": IMAGE, "crystal": CRYSTAL, "maps": MAPS}
    steps = ("atoms.locate", "lattice.assign_sites")
    main = ("column_sigma_nm", "min_separation_nm", "max_offset_nm")
    hide = ("maps",)
    follow = "Classify"

    @staticmethod
    def work(
        progress: Progress,
        image: Source,
        crystal: str,
        maps: Source | None,
        locate: dict[str, Any],
        assign_sites: dict[str, Any],
    ) -> Made:
        """Locate, fit the lattice, assign the sites."""
        from napari_defects import lattice as lattices
        from napari_defects.atoms import locate as find

        atoms = find(image.value, maps=maps.value if maps else None, progress=progress, **locate)
        made = {"step": "Localize", "locate": locate, "assign_sites": assign_sites}
        known = {"image": image.image, "crystal": crystal, "made": made}
        name, movie = f"atoms · {image.image}", image.value.is_movie
        try:
            lattice = lattices.fit_lattice(atoms, crystal)
            sites = lattices.assign_sites(atoms, lattice, **assign_sites)
        except ValueError as error:
            layer = table_layer(atoms, "atoms", name, movie=movie, **known)
            return Made([layer], found(atoms), f"No lattice: {error}")
        layer = table_layer(sites, "sites", name, movie=movie, lattice=lattice, **known)
        return Made([layer], found(sites), extra={"lattice": lattice, "sites": sites, "atoms": atoms})


def found(table: Any) -> str:
    """Say how many columns there are, how many sites are empty, and how precise the positions are."""
    real = table[np.isfinite(table["y_nm"])]
    error = np.nanmedian(np.hypot(real["y_err_nm"], real["x_err_nm"]) / np.sqrt(2)) * 1e3 if len(real) else np.nan
    empty = f", {len(table) - len(real)} empty sites" if len(table) > len(real) else ""
    return f"{len(real):,} columns{empty}, precision {error:.1f} pm"
