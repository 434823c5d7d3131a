"""Unit cells: to find and name them, and to see what noise does to it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ._options import Calibrate, Channel, Crystal, Image, ModelName, OutTable, PixelSize, SitesFile
from ._running import progress_bar, read_recipe, running


def cells(
    image: Image, out: OutTable, crystal: Crystal = None, model: ModelName = None,
    boxes: Annotated[str | None, typer.Option(help="find cells by this box detector, not along the lattice")] = None,
    direct: Annotated[bool, typer.Option("--direct", help="with --boxes: unit cells, not hexagons")] = False,
    sites: SitesFile = None, pixel_size_nm: PixelSize = None, calibrate: Calibrate = False, channel: Channel = None,
) -> None:  # fmt: skip
    """Write what each unit cell of an MX2 crystal lacks."""
    from ..cells import detect_cells
    from ..io import read_table, write_table
    from ..tables import Sites

    steps = read_recipe(None, None, crystal, None, pixel_size_nm, channel, calibrate)
    table = None if sites is None else Sites(read_table(sites, "sites"))
    with running(image, steps) as (run, micrograph):
        write_table(
            detect_cells(
                micrograph, model, sites=table, crystal=steps.crystal, boxes=boxes, direct=direct, progress=run.progress
            ),
            out,
        )


def noise_sweep(
    image: Annotated[list[str] | None, typer.Argument(metavar="IMAGE", help="whose noise to estimate")] = None,
    crystal: Annotated[str, typer.Option("--crystal", help="an MX2, as MoTe2")] = "MoTe2",
    doses: Annotated[str, typer.Option("--lambdas", help="doses to train at, e/A^2")] = "1e3,1e4,1e5,1e6",
    read: Annotated[str, typer.Option("--mus", help="read noises to train at, over the shot noise")] = "0,1.5",
    images: Annotated[int, typer.Option(help="simulated images of each training")] = 60,
    steps: Annotated[int, typer.Option(help="batches of each training")] = 300,
    seed: Annotated[int, typer.Option("--seed", help="of all that is drawn")] = 0,
) -> None:
    """Train at ranges of noise, test on others. Print the accuracy of each."""
    from ..cells import NoiseRange, estimated_range, noise_sweep, sweep_tests
    from ..io import read_micrograph

    ranges: list[Any] = [
        NoiseRange(f"lambda {dose:.0e}, mu {mu:g}", (dose, 3 * dose), mu)
        for dose in _numbers(doses, "--lambdas") for mu in _numbers(read, "--mus")
    ]  # fmt: skip
    tests, estimated = sweep_tests(crystal, seed=seed)
    ranges += estimated
    ranges += [estimated_range(read_micrograph(path), crystal, f"estimated from {path}") for path in image or ()]
    with progress_bar("noise sweep") as progress:
        table = noise_sweep(crystal, ranges, tests, images=images, steps=steps, seed=seed, progress=progress)
    wide = table.pivot(index="trained", columns="test", values="accuracy").loc[list(dict.fromkeys(table["trained"]))]
    typer.echo(wide.round(4).to_string())


def _numbers(text: str, option: str) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"`{option}` must be numbers with commas between, got {text!r}.") from None
    if min(values) < 0:
        raise ValueError(f"`{option}` must not be negative, got {text!r}.")
    return values
