"""A dataset to read: one HTML file with counts, statistics, averages, images, failures and how it was made."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure
from PIL import Image

from .. import figures
from ..crystals import species_label
from ..io import read_micrograph, read_table, spreadsheet_safe
from ..recipes import Recipe
from ..saving import writing
from ..statistics import pair_correlation
from .datasets import Dataset

ENOUGH = 20
"""A species with fewer defects has no pair correlation in the report."""

THUMBNAIL_PX = 360


@dataclass
class _Picture:
    name: str
    caption: str
    png: str
    csv: str = ""


@dataclass
class _Section:
    title: str
    text: str = ""
    table: str | None = None
    figures: list[_Picture] = field(default_factory=list)


def write_report(dataset: Dataset) -> Path:
    """Write ``report.html`` into a dataset: self-contained, every figure with its numbers as CSV.

    Returns
    -------
    Path
    """
    summary = dataset.summary
    done = summary[summary["status"].isin(["done", "kept"])]
    failed = summary[summary["status"] == "failed"]
    area = float(pd.to_numeric(done["area_nm2"]).sum())
    columns, defects = (int(pd.to_numeric(done[name]).sum()) for name in ("columns", "defects"))
    sections = [*_counted(dataset), *_arranged(dataset), *_averaged(dataset)]
    page = Environment(autoescape=True).from_string(files(__package__).joinpath("report.html").read_text("utf-8"))
    html = page.render(
        title=f"Defects of {dataset.folder.resolve().name}",
        lead=f"{len(done)} images, {columns:,} columns, {defects:,} defects on {area:,.0f} nm².",
        failed=failed.to_dict("records"), n_files=len(summary), sections=sections,
        images=list(_images(dataset, done)), how=_how(dataset), sources=list(_sources(dataset)),
    )  # fmt: skip
    path = dataset.folder / "report.html"
    with writing(path) as temporary:
        temporary.write_text(html, "utf-8")
    return path


def _counted(dataset: Dataset) -> Iterator[_Section]:
    pages = dataset.table("counts")
    if pages.empty:
        return
    counts = dataset.counts()
    shown = pd.DataFrame({
        "species": [species_label(s) for s in counts["species"]],
        "count": counts["count"],
        "of sites": counts["sites"],
        "% of sites": [f"{100 * f:.3g}" for f in counts["fraction"]],
        "95 % interval": [f"{100 * a:.3g} – {100 * b:.3g}" for a, b in
                          zip(counts["fraction_low"], counts["fraction_high"], strict=True)],
        "cm⁻²": [f"{d:.3g}" for d in counts["density_per_cm2"]],
        "dispersion": [f"{d:.2f}" for d in counts["dispersion"]],
        "p": [f"{p:.2g}" for p in counts["dispersion_p"]],
    })  # fmt: skip
    text = (
        "All images pooled. Dispersion compares the images with each other: 1 is what chance alone gives, p its "
        "p-value; where it is above 1, the intervals are as much wider."
    )
    drawn = [_drawn("counts", "Density of each species, with its interval.", figures.counts, counts, csv=counts,
                    size=(120, 25 + 8 * len(counts)))]  # fmt: skip
    for species in counts["species"][:3]:
        caption = f"{species_label(species)} in each image; grey is where chance puts an image."
        one = pages[pages["species"] == species]
        drawn.append(_drawn(f"spread_{species}", caption, figures.spread_over_images, one, species, csv=one,
                            size=(80, 60)))  # fmt: skip
    yield _Section("Counts", text, shown.to_html(index=False, border=0, escape=True), drawn)


def _arranged(dataset: Dataset) -> Iterator[_Section]:
    found = dataset.table("defects", columns=["species"])
    common = found["species"].value_counts()
    drawn = []
    for species in common[common >= ENOUGH].index[:3]:
        tables = ((table for _, table in dataset.each(name)) for name in ("defects", "sites"))
        try:
            g = pair_correlation(*tables, species=species, n_simulations=99)
        except ValueError:
            continue
        caption = f"{species_label(species)}: pairs by distance, relative to chance on the same sites."
        drawn.append(_drawn(f"pairs_{species}", caption, figures.pair_correlation, g, species, csv=g, size=(80, 60)))
    if drawn:
        yield _Section("Arrangement", "Grey is the envelope (95 %) of defects that do not interact.", None, drawn)


def _averaged(dataset: Dataset) -> Iterator[_Section]:
    drawn = []
    for file in sorted((dataset.folder / "averages").glob("*.tif")):
        pixels = read_micrograph(file)
        sites = read_table(file.with_name(f"{file.stem}_sites.csv"))
        members = read_table(file.with_name(f"{file.stem}_members.csv"))
        figure, ax = figures.new(80, 85)
        half = (np.array(pixels.data.shape) - 1) / 2 * pixels.pixel_size_yx_nm + pixels.pixel_size_yx_nm / 2
        ax.imshow(pixels.data, cmap="gray", extent=(-half[1], half[1], half[0], -half[0]), interpolation="bicubic")
        ax.set(xticks=[], yticks=[])
        figures.displacements(ax, sites)
        n = int((members["reason"].fillna("") == "").sum()) if "reason" in members else len(members)
        caption = f"{species_label(file.stem)}: average of {n}, with displacements enlarged."
        drawn.append(_Picture(f"average_{file.stem}", caption, _png(figure), _csv(sites)))
    if drawn:
        yield _Section("Class averages", "Members from all images, registered onto each other.", None, drawn)


def _images(dataset: Dataset, done: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in done.to_dict("records"):
        folder = dataset.folder / Path(str(row["folder"])).name
        picture = folder / "figures" / "overview.png"
        text = f"{int(row['columns']):,} columns"
        if pd.notna(row["defects"]):
            text += f", {int(row['defects']):,} defects"
        yield {"name": row["file"], "text": text, "png": _thumbnail(picture) if picture.is_file() else ""}


def _how(dataset: Dataset) -> str:
    for image in dataset.images:
        recipe = Recipe.read(dataset.folder / image / "recipe.toml")
        versions = ", ".join(f"{name} {number}" for name, number in recipe.keywords("versions").items())
        model = recipe.keywords("predict").get("model", "none")
        return f"Crystal {recipe.crystal or 'not given'}, network {model}. Versions: {versions}."
    return "No image was analysed."


def _sources(dataset: Dataset) -> Iterator[tuple[str, str]]:
    for image in dataset.images[:1]:
        yield "Recipe as run on the first image", (dataset.folder / image / "recipe.toml").read_text("utf-8")
        name = str(Recipe.read(dataset.folder / image / "recipe.toml").keywords("predict").get("model", "none"))
        card = files("napari_defects.networks").joinpath("weights", f"{name}.md")
        if name.replace("-", "").isalnum() and card.is_file():
            yield f"Card of the network {name}", card.read_text("utf-8")


def _drawn(name: str, caption: str, draw: Callable[..., Any], *args: Any, csv: pd.DataFrame,
           size: tuple[float, float]) -> _Picture:  # fmt: skip
    figure, ax = figures.new(*size)
    draw(ax, *args)
    return _Picture(name, caption, _png(figure), _csv(csv))


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", pad_inches=0.05)
    return base64.b64encode(buffer.getvalue()).decode()


def _csv(table: pd.DataFrame) -> str:
    return base64.b64encode(spreadsheet_safe(table).to_csv(index=False).encode()).decode()


def _thumbnail(path: Path) -> str:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
