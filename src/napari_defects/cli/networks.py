"""Networks: to train and to list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import Calibrate, Crystal, Out, PixelSize, Seed
from ._running import pair, progress_bar


def train(
    out: Out,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="recipe, as wse2-te or mote2-cells; not with --match")
    ] = None,
    match: Annotated[Path | None, typer.Option(metavar="IMAGE", help="fine-tune to this image's microscope")] = None,
    start: Annotated[str | None, typer.Option(help="network or its file to begin from")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="folder of labelled images, with --match; or of labelled cells")
    ] = None,
    detector_mrad: Annotated[
        tuple[float, float] | None, typer.Option(metavar="INNER OUTER", help="angles of the detector, with --match")
    ] = None,
    convergence_mrad: Annotated[float | None, typer.Option(help="of the probe, with --match")] = None,
    energy_kev: Annotated[float | None, typer.Option(help="of the electrons, with --match")] = None,
    brightest: Annotated[str | None, typer.Option(help="brightest sublattice, as Se, with --match")] = None,
    crystal: Crystal = None,
    steps: Annotated[int | None, typer.Option(help="other than the recipe's")] = None,
    minutes: Annotated[float | None, typer.Option(help="end after this time at the latest")] = None,
    workers: Annotated[int | None, typer.Option(help="processes that simulate")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="save the state here, and go on from it")] = None,
    seed: Seed = None,
) -> None:
    """Train a network, or fine-tune one to an image. On simulated images; it is written with its card."""
    given = {"steps": steps, "minutes": minutes, "workers": workers, "device": device, "checkpoint": checkpoint}
    keywords: dict[str, Any] = {key: value for key, value in (given | {"seed": seed}).items() if value is not None}
    inner, outer = detector_mrad or (None, None)
    angles = {"energy_keV": energy_kev, "convergence_mrad": convergence_mrad,
                  "detector_inner_mrad": inner, "detector_outer_mrad": outer}  # fmt: skip
    instrument: dict[str, Any] = {key: value for key, value in angles.items() if value is not None}
    if match is not None:
        keywords |= {"brightest": brightest} if brightest else {}
        if instrument:
            from ..simulation import Microscope

            keywords["microscope"] = Microscope(**instrument)
        _fine_tune(match, start or name, out, labels, crystal, keywords)
        return
    if instrument or brightest:
        raise ValueError("--detector-mrad, --convergence-mrad, --energy-kev and --brightest go with --match IMAGE.")
    if name is None:
        raise ValueError("give a recipe, as wse2-te, or --match IMAGE with --start NETWORK.")
    if _train_cells(name, out, labels, start, keywords):
        return
    if labels is not None:
        raise ValueError("--labels goes with --match IMAGE: the conditions of that image are simulated beside them.")
    from ..networks import train_recipe

    with progress_bar("train") as progress:
        train_recipe(name, out=out, start=start, progress=progress, **keywords)


def _train_cells(name: str, out: Path, labels: Path | None, start: str | None, keywords: dict[str, Any]) -> bool:
    """Train a network for cells or boxes; False where the recipe is none of those."""
    from ..cells import recipe_of, train_cells

    if recipe_of(name) is None:
        return False
    if "workers" in keywords or start is not None:
        raise ValueError(f"--workers and --start do not apply to {name}: its images are simulated first.")
    with progress_bar("train") as progress:
        train_cells(name, out=out, labels=labels, progress=progress, **keywords)
    return True


def _fine_tune(
    image: Path, start: str | None, out: Path, labels: Path | None, crystal: str | None, keywords: dict[str, Any]
) -> None:
    """Write a network fine-tuned to an image, with its card; and print what that changed."""
    from ..io import read_micrograph
    from ..learning.annotations import crops
    from ..learning.labels import read_labels
    from ..learning.tuning import fine_tune
    from ..networks.cards import keep, place_for

    if start is None:
        raise ValueError("--match needs --start NETWORK: what is to be fine-tuned, as wse2-te.")
    place_for(out)
    pairs = [crop for pair in read_labels(labels) for crop in crops(*pair)] if labels is not None else []
    with progress_bar(f"fine-tune to {image.name}") as progress:
        model = fine_tune(read_micrograph(image), start, crystal=crystal, pairs=pairs, progress=progress, **keywords)
    keep(model, out)
    for title, rows in model.card["tests"].items():
        typer.echo(f"{title}\n{'class':<14}{'n':>7}{'F1 before':>11}{'after':>8}")
        for row in rows:
            typer.echo(f"{row['class']:<14}{row['n']:>7}{row['f1 before']:>11.3f}{row['f1 after']:>8.3f}")


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="network or its file; 'none' for intensities alone")],
    truth: Annotated[
        list[Path], typer.Argument(metavar="TRUTH", help="labelled images: folders, or images each with its table")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="write all scores as .json, or the classes as .csv")
    ] = None,
    crystal: Crystal = None,
    pixel_size_nm: PixelSize = None,
    calibrate: Calibrate = False,
    radius_nm: Annotated[float | None, typer.Option(help="how far off a defect may be found")] = None,
    border_nm: Annotated[float | None, typer.Option(help="nothing counts so near to the border")] = None,
    thin: Annotated[float | None, typer.Option(help="share of the electrons to keep: a lower dose")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", metavar="LABEL=SPECIES", help="what a label means")] = None,
    seed: Seed = None,
) -> None:
    """Score a network on labelled images. Print recall, precision, F1 and confusion."""
    from ..evaluation.evaluating import evaluate as run
    from ..evaluation.labelled import read_labelled
    from ..io import write_table
    from ..networks import load_model

    network = None if model == "none" else load_model(model)
    known = crystal or (network.crystal if network is not None else "")
    if not known:
        raise ValueError("give --crystal, as WSe2 or graphene.")
    names = dict(pair(text, "LABEL=SPECIES") for text in map_ or ())
    labelled = read_labelled(truth, pixel_size_nm=pixel_size_nm, crystal=known if calibrate else None, names=names)
    given = {"radius_nm": radius_nm, "border_nm": border_nm, "keep_electrons": thin, "seed": seed}
    keywords: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    with progress_bar("evaluate") as progress:
        result = run(labelled, network, crystal=known, progress=progress, **keywords)
    if out is not None and out.suffix == ".json":
        out.write_text(result.to_json(), encoding="utf-8")
    elif out is not None:
        write_table(result.classes, out)
    shown = result.classes[["class", "truth", "said", "recall", "precision", "f1"]]
    typer.echo(shown.to_string(index=False, float_format="{:.4f}".format, na_rep="-"))
    typer.echo(f"\n{result.confusion.to_string()}")


def models() -> None:
    """List the networks that are shipped."""
    from ..networks import list_models

    for model in list_models(None):
        classes = " ".join(model["classes"])
        typer.echo(f"{model['name']:<18} {model['crystal'] or 'any':<8} {model['pixel_size_nm']:.4g} nm/px  {classes}")
