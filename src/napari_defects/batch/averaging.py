"""Class averages over a whole dataset: members from many images, each read only while it is needed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..averages import ClassAverage, average
from ..averages.files import read_averages, write_averages
from ..io import read_micrograph, read_table
from ..micrograph import Micrograph, Progress
from ..recipes import Recipe
from ..tables import Defects, Sites
from .datasets import Dataset, partition

log = logging.getLogger(__name__)

MAX_MEMBERS = 1000
"""Of a species; the error of a column falls to some hundredths of a picometre with so many."""
_SITES = ["frame", "i", "j", "sublattice", "y_nm", "x_nm", "y_ideal_nm", "x_ideal_nm"]


def average_dataset(
    dataset: Dataset, *, max_members: int | None = None, max_images: int = 256, progress: Progress | None = None
) -> dict[str, ClassAverage]:
    """Average the defects of all images by species, into ``DATASET/averages``.

    Members lie in the lattice's own frame, at the pixels of the finest image. Images are read one at a time,
    so that memory does not grow with the dataset, and the result depends on images and recipe alone. What is
    there already, made from the same, is kept.

    Parameters
    ----------
    dataset : Dataset
    max_members : int, optional
        Most members of a species, evenly from the images taken; None for what the recipe says, else 1000.
    max_images : int
        Most images to take members from: those with the rarest species first.
    progress : callable, optional
        ``progress(done, total)``; to cancel, raise from it.

    Returns
    -------
    dict of str to ClassAverage
        Empty where there is no crystal, no defect, or the recipe names no species to average.

    Raises
    ------
    ValueError
        If the images are not of one crystal.
    OSError
        If the folder cannot be written to.
    """
    place, recipe = dataset.folder / "averages", _recipe(dataset)
    if recipe is None or recipe.crystal is None or recipe.keywords("average").get("species") == []:
        shutil.rmtree(place, ignore_errors=True)
        return {}
    keywords = {"max_members": MAX_MEMBERS} | recipe.keywords("average")
    if max_members is not None:
        keywords["max_members"] = max_members
    images = _chosen(dataset, keywords, max_images)
    request = {"keywords": keywords, "images": {image: _identity(dataset.folder / image) for image in images}}
    if _made_from(place) == request:
        return read_averages(place)
    opened = {image: one for image in images if (one := _opened(dataset, image)) is not None}
    found: dict[str, ClassAverage] = {}
    if opened:
        defects = [Defects(read_table(dataset.folder / image / "defects.csv", "defects")) for image in opened]
        sites = [_sites(dataset, image, recipe.crystal) for image in opened]
        found = average(list(opened.values()), defects, sites=sites, progress=progress, **keywords)
    names = np.array(list(opened), object)
    for result in found.values():
        result.members.insert(0, "image", names[result.members["micrograph"]])
    unfinished = place.with_name(".averages-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    write_averages(found, unfinished)
    (unfinished / "request.json").write_text(json.dumps(request), "utf-8")
    shutil.rmtree(place, ignore_errors=True)
    os.replace(unfinished, place)
    return found


def _recipe(dataset: Dataset) -> Recipe | None:
    """Return the recipe of the first image; all have the same but for what they were made of."""
    return next((Recipe.read(dataset.folder / image / "recipe.toml") for image in dataset.images), None)


def _chosen(dataset: Dataset, keywords: dict[str, Any], max_images: int) -> list[str]:
    """Images with members enough: drawn at random for the rarest species first."""
    numbers = dataset.table("defects", columns=["species"]).groupby(["species", "image"]).size()
    wanted = keywords.get("species") or numbers.index.unique("species")
    order = np.random.default_rng(0).permutation(sorted(dataset.images)).tolist()
    chosen: dict[str, None] = {}
    per_species = {name: numbers.xs(name).to_dict() for name in wanted if name in numbers.index.unique("species")}
    for own in sorted(per_species.values(), key=lambda one: sum(one.values())):
        members = sum(own.get(image, 0) for image in chosen)
        for image in order:
            if members >= keywords["max_members"] or len(chosen) >= max_images:
                break
            if image in own and image not in chosen:
                chosen[image] = None
                members += own[image]
    return sorted(chosen)


def _identity(folder: Path) -> str:
    """Hash of what an image's results were made of."""
    content = str(Recipe.read(folder / "recipe.toml").keywords("input").get("sha256"))
    return hashlib.sha256((content + (folder / "request.toml").read_text("utf-8")).encode()).hexdigest()


def _made_from(place: Path) -> dict[str, Any] | None:
    try:
        request: dict[str, Any] = json.loads((place / "request.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return request


def _opened(dataset: Dataset, image: str) -> Micrograph | None:
    """Image whose pixels are read when they are asked for; None where its file is gone."""
    from dask import array, delayed

    row = dataset.summary[dataset.summary["folder"].map(lambda folder: Path(str(folder)).name) == image].iloc[0]
    path, recipe = Path(str(row["path"])), Recipe.read(dataset.folder / image / "recipe.toml")
    if not path.is_file():
        log.warning("%s is gone: its defects are in no average.", path)
        return None
    about = recipe.keywords("input")

    def pixels() -> Any:
        data = read_micrograph(path, **recipe.keywords("read_micrograph")).data
        return np.asarray(data).astype(np.float32, copy=False)

    size = about["pixel_size_nm"]
    lazy = array.from_delayed(delayed(pixels)(), tuple(about["shape"]), np.float32)
    return Micrograph(lazy, tuple(size) if isinstance(size, list) else size)


def _sites(dataset: Dataset, image: str, crystal: str) -> Sites:
    sites = pd.read_parquet(partition(dataset.folder, "sites", image), columns=_SITES)
    sites.attrs = {"crystal": crystal}
    return Sites(sites)
