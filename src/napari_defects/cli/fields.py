"""The field of displacements around the defect of a class average, beside the elastic inclusion and theory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._options import OutFolder


def eshelby(
    averages: Annotated[Path, typer.Argument(metavar="FOLDER", help="class averages, as average wrote them")],
    out: OutFolder,
    species: Annotated[str | None, typer.Option(help="of several, which")] = None,
    theory: Annotated[Path | None, typer.Option(help="relaxed structure: POSCAR, CIF, XYZ, LAMMPS data")] = None,
    eigenstrain: Annotated[str, typer.Option(help="dilatation or general")] = "dilatation",
    line: Annotated[
        tuple[float, float, float, float] | None, typer.Option(metavar="Y X Y X", help="ends of a profile, nm")
    ] = None,
    component: Annotated[str, typer.Option(help="of the profile: exx, eyy, exy, dilation …")] = "dilation",
) -> None:
    """Write the strain of a class average beside theory.

    Tables: strain, elastic inclusion with its test for oscillation, residuals and profiles.
    """
    import pandas as pd

    from ..averages.files import read_averages
    from ..deformation import line_profile, radial_profile, structure_strain
    from ..eshelby import fit_eshelby
    from ..io import write_table
    from ..saving import writing_folder

    found = read_averages(averages)
    names = ", ".join(found) or "none"
    if species is None and len(found) != 1:
        raise ValueError(f"--species must say which average to take; there are {names}.")
    if species is not None and species not in found:
        raise ValueError(f"there is no average of {species!r} in {averages}; there are {names}.")
    average = found[species or next(iter(found))]
    strain = average.strain()
    draws = average.draws() if average.has_draws else None
    fit = fit_eshelby(strain, draws_pm=draws, eigenstrain=eigenstrain)  # type: ignore[arg-type]
    fields = {"experiment": strain, "elastic": fit.as_strain(strain)}
    if theory is not None:
        fields["theory"] = structure_strain(theory, average.crystal or "")
    tables = {"strain": strain, "eshelby": fit.to_frame(), "residuals": fit.residuals}
    tables |= {f"radial_{name}": radial_profile(field) for name, field in fields.items()}
    if line is not None:
        parts = [
            line_profile(field, component, line[:2], line[2:]).to_frame().assign(source=name, component=component)
            for name, field in fields.items()
        ]
        tables["line"] = pd.concat(parts, ignore_index=True)
    with writing_folder(out) as folder:
        for name, table in tables.items():
            write_table(table, folder / f"{name}.csv")
