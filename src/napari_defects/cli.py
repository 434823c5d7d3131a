"""The command line: the same verbs as the library, on files.

Defaults are those of the steps: an option that is not given is not passed on. Every keyword of every
step can be set by a recipe or by ``--set step.keyword=value``.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from .micrograph import Micrograph, Progress
    from .recipes import Recipe

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices are tiny: threads would only wait for each other

Command = TypeVar("Command", bound=Callable[..., Any])

app = typer.Typer(
    help="Point defects in atomic-resolution STEM images of 2D materials.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip

Image = Annotated[Path, typer.Argument(metavar="IMAGE", help="dm3, dm4, emd, ser, mrc, hspy, tif, npy, png, jpg, mp4")]
Out = Annotated[Path, typer.Option("--out", "-o", help="where to write")]
Crystal = Annotated[str | None, typer.Option("--crystal", help="formula, as WSe2 or graphene")]
ModelName = Annotated[str | None, typer.Option("--model", help="network or its file; 'none' for none")]
PixelSize = Annotated[float | None, typer.Option("--pixel-size-nm", help="instead of what the file says")]
Calibrate = Annotated[bool, typer.Option("--calibrate", help="take the pixel size from the lattice")]
Channel = Annotated[str | None, typer.Option("--channel", help="name or number of the image in the file")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="keywords of the steps, as TOML")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="STEP.KEY=VALUE", help="one keyword of a step")]
SitesFile = Annotated[Path | None, typer.Option("--sites", help="table of sites")]
SeenSites = Annotated[Path, typer.Option("--sites", help="as written by analyze, or by classify --write-sites")]
AtomsFile = Annotated[Path | None, typer.Option("--atoms", help="table of atoms")]
WriteSites = Annotated[Path | None, typer.Option("--write-sites", help="write the table of sites, too")]
DefectsFile = Annotated[Path, typer.Option("--defects", help="table of defects")]
Seed = Annotated[int | None, typer.Option("--seed")]


def main() -> None:
    """Run the command line."""
    app()


def command(function: Command) -> Command:
    """Register a verb whose errors end in one line on stderr and exit code 2."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
            logging.getLogger(__name__).debug("", exc_info=True)
            typer.echo(f"napari-defects: error: {' '.join(str(error).split()) or type(error).__name__}", err=True)
            raise typer.Exit(2) from None

    app.command()(guarded)
    return function


@app.callback(invoke_without_command=True)
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="tell what is being done")] = False,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    if version:
        from . import __version__

        typer.echo(__version__)
        raise typer.Exit
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("napari-defects: %(message)s"))
    log = logging.getLogger("napari_defects")
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)


@command
def simulate(
    crystal: Annotated[str, typer.Argument(help="formula, as WSe2 or graphene")],
    out: Out,
    defect: Annotated[
        list[str] | None, typer.Option(metavar="SPECIES=AMOUNT", help="share of its sites, or a count")
    ] = None,
    field_of_view_nm: Annotated[float | None, typer.Option()] = None,
    pixel_size_nm: PixelSize = None,
    dose: Annotated[float | None, typer.Option("--dose-e-per-A2")] = None,
    seed: Seed = None,
) -> None:
    """Simulate an image: OUT.tif, with its truth in OUT_sites.csv and OUT_defects.csv."""
    from .io import write_micrograph, write_table
    from .simulation import simulate as run

    amounts = {species: _number(text) for species, text in (_pair(d, "SPECIES=AMOUNT") for d in defect or ())}
    given = {"field_of_view_nm": field_of_view_nm, "pixel_size_nm": pixel_size_nm, "dose_e_per_A2": dose, "seed": seed}
    keywords: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    micrograph, sites = run(crystal, defects=amounts or None, **keywords)
    write_micrograph(micrograph, out)
    write_table(sites, out.with_name(f"{out.stem}_sites.csv"))
    write_table(micrograph.metadata["defects"], out.with_name(f"{out.stem}_defects.csv"))


@command
def train(
    name: Annotated[str, typer.Argument(help="recipe of a network, as wse2-te")],
    out: Out,
    steps: Annotated[int | None, typer.Option(help="other than the recipe's")] = None,
    minutes: Annotated[float | None, typer.Option(help="end after this time at the latest")] = None,
    workers: Annotated[int | None, typer.Option(help="processes that simulate")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="save the state here, and go on from it")] = None,
    seed: Seed = None,
) -> None:
    """Train a network on simulated images and write it with its card."""
    from .networks import train_recipe

    given = {"steps": steps, "minutes": minutes, "workers": workers, "device": device, "checkpoint": checkpoint}
    keywords: dict[str, Any] = {key: value for key, value in (given | {"seed": seed}).items() if value is not None}
    with _bar("train") as progress:
        train_recipe(name, out=out, progress=progress, **keywords)


@command
def predict(
    image: Image, out: Out, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Write the probability of each class at each pixel as an OME-TIFF with one channel a class."""
    import numpy as np

    from .io import write_stack

    with _run(image, _recipe(recipe, set_, crystal, model, pixel_size_nm, channel)) as (run, micrograph):
        maps = run.predicted(micrograph)
    if maps is None:
        raise ValueError("no network is known for this image; give --model or --crystal (see `napari-defects models`).")
    write_stack(np.asarray(maps.data, np.float32), maps.classes, maps.pixel_size_nm, out)


@command
def locate(
    image: Image, out: Out, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Write the table of atoms."""
    from .io import write_table

    with _run(image, _recipe(recipe, set_, crystal, model, pixel_size_nm, channel)) as (run, micrograph):
        atoms = run("locate", micrograph, maps=run.predicted(micrograph))
    write_table(atoms, out)


@command
def classify(
    image: Image, out: Out, crystal: Crystal = None, model: ModelName = None, atoms: AtomsFile = None,
    sites: SitesFile = None, write_sites: WriteSites = None, pixel_size_nm: PixelSize = None,
    calibrate: Calibrate = False, channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Write the table of defects; from sites, from atoms, or from the image alone."""
    from .io import read_table, write_table

    steps = _recipe(recipe, set_, crystal, model, pixel_size_nm, channel, calibrate)
    if steps.crystal is None:
        raise ValueError("sites need a crystal; give --crystal, as WSe2 or graphene.")
    with _run(image, steps) as (run, micrograph):
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


@command
def average(
    image: Image, out: Out, defects: DefectsFile, sites: SitesFile = None, pixel_size_nm: PixelSize = None,
    channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Write the average of each species into a folder: SPECIES.tif, SPECIES_sites.csv, SPECIES_members.csv."""
    from .io import read_table, writing_folder
    from .pipeline import write_averages

    table, known = read_table(defects, "defects"), None if sites is None else read_table(sites, "sites")
    with _run(image, _recipe(recipe, set_, None, None, pixel_size_nm, channel)) as (run, micrograph):
        averages = run("average", micrograph, table, sites=known)
    with writing_folder(out) as folder:
        write_averages(averages, folder)


@command
def strain(out: Out, sites: SeenSites, recipe: RecipeFile = None, set_: Settings = None) -> None:
    """Write displacements and strain of sites."""
    from .io import read_table, write_table
    from .pipeline import Run

    write_table(Run(_recipe(recipe, set_))("strain", read_table(sites, "sites"), None), out)


@command
def track(
    out: Out, defects: DefectsFile, max_step_nm: Annotated[float | None, typer.Option()] = None,
    memory_frames: Annotated[int | None, typer.Option()] = None,
) -> None:  # fmt: skip
    """Write the defects of a movie with the trajectories they belong to."""
    from .io import read_table, write_table
    from .tracks import track as run

    given = {"max_step_nm": max_step_nm, "memory_frames": memory_frames}
    keywords: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    write_table(run(read_table(defects, "defects"), **keywords), out)


@command
def count(
    out: Out, defects: DefectsFile, sites: SeenSites, crystal: Crystal = None, recipe: RecipeFile = None,
    set_: Settings = None,
) -> None:  # fmt: skip
    """Write how many of each species there are, of how many sites, on which area."""
    from .crystals import get_crystal
    from .io import read_table, write_table
    from .pipeline import Run

    table = read_table(sites, "sites")
    if crystal is not None:
        table.attrs["crystal"] = get_crystal(crystal).name
    write_table(Run(_recipe(recipe, set_))("count", read_table(defects, "defects"), table), out)


@command
def analyze(
    image: Image, out: Out, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    calibrate: Calibrate = False, channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Run all steps: tables, class averages, strain, counts and figures into the folder OUT."""
    from .pipeline import analyze_file

    with _bar("analyze") as progress:
        steps = _recipe(recipe, set_, crystal, model, pixel_size_nm, channel, calibrate)
        results = analyze_file(image, out, steps, progress=progress)
    if results.counts is not None:
        typer.echo(_counted(results.counts))
    typer.echo(f"{len(results.atoms)} columns; tables, averages and figures are in {out}")


@command
def batch(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="files, or folders of them")],
    out: Out, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    calibrate: Calibrate = False, channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
    workers: Annotated[int | None, typer.Option(help="processes; 0 for none beside this one")] = None,
    scheduler: Annotated[str | None, typer.Option(help="address of a dask scheduler")] = None,
) -> None:  # fmt: skip
    """Analyse many images in parallel; a run that was broken off goes on where it stopped."""
    from .batch import run_batch

    with _bar("batch") as progress:
        steps = _recipe(recipe, set_, crystal, model, pixel_size_nm, channel, calibrate)
        summary = run_batch(images, out, steps, workers=workers, scheduler=scheduler, progress=progress)
    failed = summary[summary["status"] == "failed"]
    typer.echo(f"{len(summary) - len(failed)} of {len(summary)} images are in {out}; see summary.csv")
    if len(failed):
        raise typer.Exit(1)


@command
def watch(
    folder: Annotated[Path, typer.Argument(help="folder into which the microscope writes")],
    out: Out, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    calibrate: Calibrate = False, channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Analyse each image that appears in a folder, until interrupted."""
    from .batch import watch as run

    for row in run(folder, out, _recipe(recipe, set_, crystal, model, pixel_size_nm, channel, calibrate)):
        typer.echo(f"{row['file']}: {row['status']} {row['error'] or ''}".rstrip())


@command
def models() -> None:
    """List the networks that are shipped."""
    from .networks import list_models

    for model in list_models():
        classes = " ".join(model["classes"])
        typer.echo(f"{model['name']:<14} {model['crystal']:<10} {model['pixel_size_nm']} nm/px  {classes}")


@command
def demo(out: Out = Path("demo-out")) -> None:
    """Analyse a simulated WSe2 monolayer with seven kinds of defects, and say which pictures to look at."""
    from .io import write_micrograph
    from .pipeline import analyze_file
    from .recipes import Recipe
    from .simulation import Relaxation
    from .simulation import simulate as run

    species = ("V_Se", "V2_Se", "Te_Se", "Te2_Se", "V_W", "Se_W", "Te2_W")
    amounts = dict(zip(species, (0.02, 0.006, 0.03, 0.005, 0.006, 0.006, 0.005), strict=True))
    inwards = {"V_Se": Relaxation(-8.0, decay_nm=0.6)}
    options: dict[str, Any] = {"field_of_view_nm": 12.0, "pixel_size_nm": 0.02, "relaxation": inwards, "seed": 7}
    micrograph, _ = run("WSe2", defects=amounts, **options)
    with _bar("demo") as progress:
        image = write_micrograph(micrograph, out / "sample.tif")
        results = analyze_file(image, out, Recipe.of("WSe2"), progress=progress)
    if results.counts is not None:
        typer.echo(_counted(results.counts))
    typer.echo("Look at these pictures:")
    for name in ("overview", "average_V_Se", "strain", "counts"):
        if (out / "figures" / f"{name}.png").is_file():
            typer.echo(f"  {out / 'figures' / name}.png")


def _recipe(
    file: Path | None = None, settings: list[str] | None = None, crystal: str | None = None, model: str | None = None,
    pixel_size_nm: float | None = None, channel: str | None = None, calibrate: bool = False,
) -> Recipe:  # fmt: skip
    """Recipe file, then options, then --set; the later wins."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from .recipes import Recipe

    recipe = Recipe() if file is None else Recipe.read(file)
    recipe = recipe.updated({
        "read_micrograph": {"pixel_size_nm": pixel_size_nm, "channel": channel},
        "fit_lattice": {"crystal": crystal}, "predict": {"model": model},
        "calibrate": {"crystal": (crystal or recipe.crystal or "") if calibrate else None},
    })  # fmt: skip
    for setting in settings or ():
        name, text = _pair(setting, "STEP.KEY=VALUE")
        step, dot, key = name.partition(".")
        if not dot:
            raise ValueError(f"--set needs STEP.KEY=VALUE, got {setting!r}.")
        try:
            value = tomlkit.parse(f"value = {text}").unwrap()["value"]
        except TOMLKitError:
            value = text
        recipe = recipe.updated({step: {key: value}})
    return recipe


@contextmanager
def _run(image: Path, recipe: Recipe) -> Iterator[tuple[Any, Micrograph]]:
    """Give the steps, with a progress bar, and the image they run on."""
    from .io import read_micrograph
    from .pipeline import Run

    with _bar(image.name) as progress:
        run = Run(recipe, progress)
        yield run, run.prepared(read_micrograph(image, **recipe.keywords("read_micrograph")))


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    """Progress bar on a terminal, for what takes longer than a second."""
    from tqdm import tqdm

    with tqdm(
        desc=label, delay=1, leave=False, disable=None, file=sys.stderr, bar_format="{l_bar}{bar}| {elapsed}"
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _counted(counts: Any) -> str:
    lines = (f"{row.species:<14}{row.count:>6}  {row.density_per_cm2:.2e} cm^-2" for row in counts.itertuples())
    return "\n".join(lines) or "no defects"


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise ValueError(f"expected {form}, got {text!r}.")
    return name.strip(), value.strip()


def _number(text: str) -> float:
    """Parse a count as int, a share as float."""
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise ValueError(f"the amount of a defect must be a number, got {text!r}.") from None
