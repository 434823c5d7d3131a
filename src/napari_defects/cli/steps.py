"""The steps, one by one: from an image or a table to the next table."""

from __future__ import annotations

from typing import Annotated

import typer

from ._options import (
    AtomsFile,
    Calibrate,
    Channel,
    Crystal,
    DefectsFile,
    Device,
    Image,
    ModelName,
    Out,
    OutFolder,
    OutTable,
    PixelSize,
    RecipeFile,
    SeenSites,
    Settings,
    SitesFile,
    WriteSites,
)
from ._running import read_recipe, running


def predict(
    image: Image, out: Out, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Write the probability of each class at each pixel.

    An OME-TIFF, one channel a class; with --set predict.views=8 the last is the spread over turned and mirrored views.
    """
    import numpy as np

    from ..io import write_stack

    with running(image, read_recipe(recipe, set_, crystal, model, pixel_size_nm, channel)) as (run, micrograph):
        maps = run.predicted(micrograph)
    if maps is None:
        raise ValueError("no network is known for this image; give --model or --crystal (see `napari-defects models`).")
    planes, names = np.asarray(maps.data, np.float32), maps.classes
    if maps.spread is not None:
        planes, names = np.concatenate([planes, maps.spread[None].astype(np.float32)]), (*names, "spread")
    write_stack(planes, names, maps.pixel_size_nm, out)


def locate(
    image: Image, out: OutTable, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    channel: Channel = None, device: Device = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Write the table of atoms."""
    from ..io import write_table

    steps = read_recipe(recipe, set_, crystal, model, pixel_size_nm, channel)
    with running(image, steps.updated({"locate": {"device": device}})) as (run, micrograph):
        atoms = run("locate", micrograph, maps=run.predicted(micrograph))
    write_table(atoms, out)


def classify(
    image: Image, out: OutTable, crystal: Crystal = None, model: ModelName = None, atoms: AtomsFile = None,
    sites: SitesFile = None, write_sites: WriteSites = None, pixel_size_nm: PixelSize = None,
    calibrate: Calibrate = False, channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Write the table of defects. From sites, from atoms, or from the image alone."""
    from ..io import read_table, write_table

    steps = read_recipe(recipe, set_, crystal, model, pixel_size_nm, channel, calibrate)
    if steps.crystal is None:
        raise ValueError("sites need a crystal; give --crystal, as WSe2 or graphene.")
    with running(image, steps) as (run, micrograph):
        maps = run.predicted(micrograph)
        if sites is not None:
            table = read_table(sites, "sites")
            table.attrs["crystal"] = steps.crystal
        else:
            columns = run("locate", micrograph, maps=maps) if atoms is None else read_table(atoms, "atoms")
            lattice = run("fit_lattice", columns, steps.crystal)
            run.check_scale(micrograph, lattice)
            table = run("assign_sites", columns, lattice)
        defects = run.classified(micrograph, table, maps)
    if write_sites is not None:
        write_table(table, write_sites)
    write_table(defects, out)


def average(
    image: Image, out: OutFolder, defects: DefectsFile, sites: SitesFile = None, pixel_size_nm: PixelSize = None,
    channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Write the average of the defects of each species.

    SPECIES.tif, and tables of its sites (with strain), columns as fitted, members and precision.
    """
    from ..averages.files import write_averages
    from ..io import read_table
    from ..saving import writing_folder

    table, known = read_table(defects, "defects"), None if sites is None else read_table(sites, "sites")
    with running(image, read_recipe(recipe, set_, None, None, pixel_size_nm, channel)) as (run, micrograph):
        averages = run("average", micrograph, table, sites=known)
    with writing_folder(out) as folder:
        write_averages(averages, folder)


def strain(out: OutTable, sites: SeenSites, recipe: RecipeFile = None, set_: Settings = None) -> None:
    """Write displacements and strain of sites."""
    from ..io import read_table, write_table
    from ..pipeline import Run

    write_table(Run(read_recipe(recipe, set_))("strain", read_table(sites, "sites"), None), out)


def track(
    out: OutTable, defects: DefectsFile, max_step_nm: Annotated[float | None, typer.Option()] = None,
    memory_frames: Annotated[
        int | None, typer.Option(help="frames a defect may be missing before its trajectory ends")
    ] = None,
    recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Link the defects of a movie into trajectories."""
    from ..io import read_table, write_table
    from ..pipeline import Run

    given = {"track": {"max_step_nm": max_step_nm, "memory_frames": memory_frames}}
    write_table(Run(read_recipe(recipe, set_).updated(given))("track", read_table(defects, "defects")), out)


def count(
    out: OutTable, defects: DefectsFile, sites: SeenSites, crystal: Crystal = None, recipe: RecipeFile = None,
    set_: Settings = None,
) -> None:  # fmt: skip
    """Count the defects of each species. How many there are, of how many sites, on which area."""
    from ..crystals import get_crystal
    from ..io import read_table, write_table
    from ..pipeline import Run

    table = read_table(sites, "sites")
    if crystal is not None:
        table.attrs["crystal"] = get_crystal(crystal).name
    write_table(Run(read_recipe(recipe, set_))("count", read_table(defects, "defects"), table), out)
