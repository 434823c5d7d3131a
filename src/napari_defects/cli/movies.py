"""Bonds: from a still or a movie to the chemistry of its defects, and what it does over time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import Calibrate, Channel, Crystal, OutFolder, PixelSize
from ._running import progress_bar

Frames = Annotated[Path, typer.Argument(metavar="IMAGE", help="an image, a movie, or a folder with its frames")]
Maps = Annotated[
    str | None, typer.Option("--model", help="network whose maps are a help, or its file  [default: none]")
]
Rules = Annotated[Path | None, typer.Option("--rules", help="which atoms bond, as TOML")]


def bonds(
    image: Frames, out: OutFolder, crystal: Crystal = None, model: Maps = None, rules: Rules = None,
    min_probability: Annotated[float | None, typer.Option()] = None,
    max_step_nm: Annotated[float | None, typer.Option()] = None,
    memory_frames: Annotated[int | None, typer.Option()] = None,
    smooth_frames: Annotated[float | None, typer.Option(help="0: every frame its own class")] = None,
    branching: Annotated[bool, typer.Option("--branching", help="trajectories may merge and split")] = False,
    pixel_size_nm: PixelSize = None, calibrate: Calibrate = False, channel: Channel = None,
) -> None:  # fmt: skip
    """Write bonds, defects, and what they do over time.

    Tables: bonds, angles, rings, defects, trajectories, hops, rotors; the graph; and structures.
    """
    from ..io import read_micrograph
    from ..lattice import calibrate as measure
    from ..networks import predict
    from ..tracks import analyze_bonds

    micrograph = read_micrograph(image, pixel_size_nm=pixel_size_nm, channel=channel)
    host = crystal or "graphene"
    if calibrate:
        micrograph = measure(micrograph, host)
    given = {
        "rules": rules, "min_probability": min_probability, "max_step_nm": max_step_nm,
        "memory_frames": memory_frames, "smooth_frames": smooth_frames, "branching": branching or None,
    }  # fmt: skip
    keywords: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    with progress_bar(image.name) as progress:
        maps = None if model in (None, "none") else predict(micrograph, model, progress=progress)
        results = analyze_bonds(micrograph, crystal=host, maps=maps, progress=progress, **keywords)
    results.write(out)
    counts = results.defects["species"].value_counts()
    typer.echo("\n".join(f"{species:<14}{n:>6}" for species, n in counts.items()) or "no defects")
