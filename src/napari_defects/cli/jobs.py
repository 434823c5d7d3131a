"""Whole jobs: an image made, an image analysed, many images analysed."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import (
    Calibrate,
    Channel,
    Crystal,
    Image,
    ModelName,
    Out,
    OutFolder,
    PixelSize,
    RecipeFile,
    Seed,
    Settings,
)
from ._running import counted, number, pair, parsed, progress_bar, read_recipe


def simulate(
    crystal: Annotated[str, typer.Argument(metavar="CRYSTAL", help="formula, as WSe2 or graphene")],
    out: Out,
    defect: Annotated[
        list[str] | None,
        typer.Option(metavar="SPECIES=AMOUNT", help="share of its sites, or a count; one for each species"),
    ] = None,
    field_of_view_nm: Annotated[float | None, typer.Option()] = None,
    pixel_size_nm: Annotated[float | None, typer.Option()] = None,
    dose_e_per_A2: Annotated[float | None, typer.Option("--dose-e-per-A2")] = None,
    preset: Annotated[str | None, typer.Option(help='conditions of published work, as "Lee 2020"')] = None,
    engine: Annotated[str | None, typer.Option(help="fast or multislice")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PART.KEY=VALUE", help="of microscope, aberrations, scan, detector or surface"),
    ] = None,
    seed: Seed = None,
) -> None:
    """Simulate an image, with its truth beside it. That is in OUT_sites.csv and OUT_defects.csv."""
    from ..checks import check_choice
    from ..io import write_micrograph, write_table
    from ..simulation import PRESETS
    from ..simulation import simulate as run

    if preset is not None:
        check_choice("preset", preset, PRESETS)
    amounts = {species: number(text) for species, text in (pair(d, "SPECIES=AMOUNT") for d in defect or ())}
    given = {
        "field_of_view_nm": field_of_view_nm, "pixel_size_nm": pixel_size_nm, "dose_e_per_A2": dose_e_per_A2,
        "engine": engine, "seed": seed,
    }  # fmt: skip
    keywords: dict[str, Any] = {**PRESETS.get(preset or "", {}), **{k: v for k, v in given.items() if v is not None}}
    micrograph, sites = run(crystal, defects=amounts or None, **bench(keywords, set_))
    write_micrograph(micrograph, out)
    write_table(sites, out.with_name(f"{out.stem}_sites.csv"))
    write_table(micrograph.metadata["defects"], out.with_name(f"{out.stem}_defects.csv"))


def bench(keywords: dict[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """Keywords of `simulate` with single fields of its parts changed."""
    from ..simulation import Aberrations, Detector, Microscope, Scan, Surface

    parts: dict[str, Any] = {"microscope": Microscope(), "scan": Scan(), "detector": Detector(), "surface": Surface()}
    parts |= {name: keywords[name] for name in parts if name in keywords}
    parts["aberrations"] = parts["microscope"].aberrations
    for name, key, value in parsed(settings, "PART.KEY=VALUE"):
        if name not in parts:
            raise ValueError(f"--set knows the parts {', '.join(parts)}, got {name!r}.")
        if key not in (known := [field.name for field in fields(parts[name])]):
            raise ValueError(f"--set {name}.{key}: a {name} has {', '.join(known)}.")
        parts[name] = replace(parts[name], **{key: tuple(value) if isinstance(value, list) else value})
    aberrations: Aberrations = parts.pop("aberrations")
    return {**keywords, **parts, "microscope": replace(parts["microscope"], aberrations=aberrations)}


def analyze(
    image: Image, out: OutFolder, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    calibrate: Calibrate = False, channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
) -> None:  # fmt: skip
    """Run all steps on an image. Tables, class averages, strain, counts and figures."""
    from ..pipeline import analyze_file

    with progress_bar("analyze") as progress:
        steps = read_recipe(recipe, set_, crystal, model, pixel_size_nm, channel, calibrate)
        results = analyze_file(image, out, steps, progress=progress)
    if results.counts is None:
        typer.echo("no defects were looked for: give --crystal, as WSe2 or graphene")
    else:
        typer.echo(counted(results.counts))
    typer.echo(f"{len(results.atoms)} columns; all results are in {out}")


def batch(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="files, or folders of them")],
    out: OutFolder, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    calibrate: Calibrate = False, channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
    workers: Annotated[int | None, typer.Option(help="processes; 0 for none beside this one")] = None,
    scheduler: Annotated[str | None, typer.Option(help="address of a dask scheduler")] = None,
    averages: Annotated[bool, typer.Option(help="average the defects of all images, too")] = True,
) -> None:  # fmt: skip
    """Run all steps on many images. In parallel; a run that was broken off goes on where it stopped."""
    from ..batch import run_batch

    with progress_bar("batch") as progress:
        steps = read_recipe(recipe, set_, crystal, model, pixel_size_nm, channel, calibrate)
        summary = run_batch(
            images, out, steps, workers=workers, scheduler=scheduler, averages=averages, progress=progress
        )
    failed = summary[summary["status"] == "failed"]
    typer.echo(f"{len(summary) - len(failed)} of {len(summary)} images are in {out}; see report.html")
    if len(failed):
        raise typer.Exit(1)


def average_dataset(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="folder that batch has written")],
    max_members: Annotated[int | None, typer.Option(help="of a species, evenly from the images")] = None,
    max_images: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Average the defects of all images of a dataset. By species, into DATASET/averages and the report."""
    from ..batch import Dataset
    from ..batch import average_dataset as run
    from ..batch.report import write_report

    with progress_bar("average") as progress:
        options = {} if max_images is None else {"max_images": max_images}
        averages = run(Dataset(dataset), max_members=max_members, progress=progress, **options)
    write_report(Dataset(dataset))
    for species, one in averages.items():
        typer.echo(f"{species:<14}{one.n:>6} members")
    typer.echo(f"averages are in {dataset / 'averages'}" if averages else "nothing was averaged")


def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="folder into which the microscope writes")],
    out: OutFolder, crystal: Crystal = None, model: ModelName = None, pixel_size_nm: PixelSize = None,
    calibrate: Calibrate = False, channel: Channel = None, recipe: RecipeFile = None, set_: Settings = None,
    hook: Annotated[
        str | None, typer.Option(help="command that gets the folder of each result, or package.module:function")
    ] = None,
) -> None:  # fmt: skip
    """Run all steps on each image that comes into a folder. Until interrupted."""
    from ..batch import watch as run

    steps = read_recipe(recipe, set_, crystal, model, pixel_size_nm, channel, calibrate)
    for row in run(folder, out, steps, hook=hook):
        found = "" if row["defects"] is None else f", {row['defects']} defects, {row['latency_s']:.1f} s after writing"
        typer.echo(f"{row['file']}: {row['status']}{found} {row['error'] or ''}".rstrip())


def demo(out: OutFolder = Path("demo-out")) -> None:
    """Simulate an image with defects, and analyse it. Say which pictures to look at."""
    from ..io import write_micrograph
    from ..pipeline import analyze_file
    from ..recipes import Recipe
    from ..simulation import Relaxation
    from ..simulation import simulate as run

    species = ("V_Se", "V2_Se", "Te_Se", "Te2_Se", "V_W", "Se_W", "Te2_W")
    amounts = dict(zip(species, (0.02, 0.006, 0.03, 0.005, 0.006, 0.006, 0.005), strict=True))
    inwards = {"V_Se": Relaxation(-8.0, decay_nm=0.6)}
    options: dict[str, Any] = {"field_of_view_nm": 12.0, "pixel_size_nm": 0.02, "relaxation": inwards, "seed": 7}
    micrograph, _ = run("WSe2", defects=amounts, **options)
    with progress_bar("demo") as progress:
        image = write_micrograph(micrograph, out / "sample.tif")
        results = analyze_file(image, out, Recipe.of("WSe2"), progress=progress)
    if results.counts is not None:
        typer.echo(counted(results.counts))
    typer.echo("Look at these pictures:")
    for name in ("overview", "average_V_Se", "strain", "counts"):
        if (out / "figures" / f"{name}.png").is_file():
            typer.echo(f"  {out / 'figures' / name}.png")
