"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Image = Annotated[
    Path, typer.Argument(metavar="IMAGE", help="dm3, dm4, emd, ser, mrc, hspy, tif, npy, png, jpg, mp4, avi, gif")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="file to write")]
OutTable = Annotated[Path, typer.Option("--out", "-o", help="table to write: .csv, .parquet or .xlsx")]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="folder to write into")]
Crystal = Annotated[str | None, typer.Option("--crystal", help="formula, as WSe2 or graphene")]
ModelName = Annotated[
    str | None, typer.Option("--model", help="network or its file, or none  [default: the crystal's]")
]
PixelSize = Annotated[float | None, typer.Option("--pixel-size-nm", help="instead of what the file says")]
Calibrate = Annotated[bool, typer.Option("--calibrate", help="take the pixel size from the lattice")]
Channel = Annotated[str | None, typer.Option("--channel", help="name or number of the image in the file")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="keywords of the steps, as TOML")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STEP.KEY=VALUE", help="a keyword of a step, as count.confidence=0.9"),
]
SitesFile = Annotated[Path | None, typer.Option("--sites", help="table of sites")]
SeenSites = Annotated[Path, typer.Option("--sites", help="as written by analyze, or by classify --write-sites")]
AtomsFile = Annotated[Path | None, typer.Option("--atoms", help="table of atoms")]
WriteSites = Annotated[Path | None, typer.Option("--write-sites", help="write the table of sites, too")]
DefectsFile = Annotated[Path, typer.Option("--defects", help="table of defects")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps")]
Seed = Annotated[int | None, typer.Option("--seed", help="of all that is drawn")]
