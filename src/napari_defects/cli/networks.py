"""Networks: to train and to list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import Out, Seed
from ._running import progress_bar


def train(
    name: Annotated[str, typer.Argument(help="recipe of a network, as wse2-te, mote2-cells or mote2-boxes")],
    out: Out,
    steps: Annotated[int | None, typer.Option(help="other than the recipe's")] = None,
    minutes: Annotated[float | None, typer.Option(help="end after this time at the latest")] = None,
    workers: Annotated[int | None, typer.Option(help="processes that simulate")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="save the state here, and go on from it")] = None,
    labelled: Annotated[Path | None, typer.Option(help="of cells: a folder of cells labelled by hand")] = None,
    seed: Seed = None,
) -> None:
    """Train a network on simulated images and write it with its card."""
    from ..cells import recipe_of
    from ..networks import train_recipe

    if recipe_of(name) is not None:
        _train_cells(name, out, steps, minutes, workers, labelled, device, checkpoint, seed)
        return
    if labelled is not None:
        raise ValueError("`--labelled` cells teach networks for cells, as mote2-cells.")
    given = {"steps": steps, "minutes": minutes, "workers": workers, "device": device, "checkpoint": checkpoint}
    keywords: dict[str, Any] = {key: value for key, value in (given | {"seed": seed}).items() if value is not None}
    with progress_bar("train") as progress:
        train_recipe(name, out=out, progress=progress, **keywords)


def _train_cells(
    name: str, out: Path, steps: int | None, minutes: float | None, workers: int | None, labelled: Path | None,
    device: str | None, checkpoint: Path | None, seed: int | None,
) -> None:  # fmt: skip
    from ..cells import train_cells

    if workers is not None:
        raise ValueError("`--workers` does not apply to networks for cells: their images are simulated first.")
    with progress_bar("train") as progress:
        train_cells(
            name, out=out, seed=seed or 0, steps=steps, minutes=minutes, labelled=labelled, device=device,
            checkpoint=checkpoint, progress=progress,
        )  # fmt: skip


def models() -> None:
    """List the networks that are shipped."""
    from ..networks import list_models

    for model in list_models(None):
        classes = " ".join(model["classes"])
        typer.echo(f"{model['name']:<14} {model['crystal']:<10} {model['pixel_size_nm']:.4g} nm/px  {classes}")
