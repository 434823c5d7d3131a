"""One file of many: analysed into a folder that appears complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from ..formats import READERS
from ..micrograph import Progress
from ..pipeline import Results, analyze_file, sha256
from ..recipes import Recipe
from ..saving import writing
from .datasets import TABLES, write_partitions

SUMMARY = ("file", "folder", "status", "error", "seconds", "columns", "defects", "area_nm2", "path")
"""Columns of the summary."""
_OWN = {"tables", "averages"}
"""Folders of the dataset itself."""
_MEASURED = ("seconds", "columns", "defects", "area_nm2")


def images_in(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the files named, and the images of the folders named, each once."""
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}.")
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in READERS) if path.is_dir() else [path]
        files |= dict.fromkeys(p for p in inside if not p.name.startswith("."))
    return list(files)


def folders_for(files: Iterable[Path], out: Path, had: Mapping[Path, Path] | None = None) -> dict[Path, Path]:
    """Folder of each file: the one it `had`, or its stem; with the suffix, then a number, where that is taken."""
    places = dict(had or {})
    taken = {place.name for place in places.values()} | _OWN
    for file in sorted(set(files) - set(places)):
        names = chain((file.stem, file.name.replace(".", "_")), (f"{file.stem}_{k}" for k in count(2)))
        places[file] = out / next(name for name in names if name not in taken)
        taken.add(places[file].name)
    return places


def analyze_one(file: str, folder: str, recipe_toml: str) -> dict[str, Any]:
    """Analyse one file; the row of the summary. Whatever goes wrong is in the row: nothing is raised."""
    return analyzed(file, folder, recipe_toml)[0]


def analyzed(
    file: str, folder: str, recipe_toml: str, *, pictures: bool = True
) -> tuple[dict[str, Any], Results | None]:
    """As `analyze_one`, with the results where they have just been made; averages and figures can come later."""
    start, place = time.perf_counter(), Path(folder)
    unfinished = place.with_name(f".{place.name}-unfinished")
    try:
        recipe = Recipe.from_toml(recipe_toml)
        if (known := _known(file, place, recipe, pictures)) is not None:
            write_partitions(place)
            return row_of(file, folder, "kept", **known), None
        shutil.rmtree(unfinished, ignore_errors=True)
        results = analyze_file(file, unfinished, recipe, pictures=pictures)
        known = {
            "seconds": round(time.perf_counter() - start, 1),
            "columns": len(results.atoms),
            "defects": None if results.defects is None else len(results.defects),
            "area_nm2": None if results.counts is None else results.counts.attrs["area_nm2"],
        }
        (unfinished / "request.toml").write_text(recipe_toml, "utf-8")
        _write_result(unfinished, known, pictures)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(unfinished, place)
        write_partitions(place, {name: getattr(results, name) for name in TABLES})
        return row_of(file, folder, "done", **known), results
    except Exception as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        return row_of(file, folder, "failed", error=" ".join(str(error).split()) or type(error).__name__), None


def complete(row: Mapping[str, Any], results: Results, progress: Progress) -> None:
    """Add the averages and figures that were left for later."""
    place = Path(row["folder"])
    results.averaged(progress).write(place)
    _write_result(place, {name: row[name] for name in _MEASURED}, True)


def row_of(file: str, folder: str, status: str, **known: Any) -> dict[str, Any]:
    """Row of the summary."""
    return dict.fromkeys(SUMMARY) | {"file": Path(file).name, "folder": folder, "status": status, "path": file} | known


def _known(file: str, folder: Path, recipe: Recipe, pictures: bool) -> dict[str, Any] | None:
    """Return what is known of a folder that was made from this content by this recipe."""
    try:
        done = Recipe.read(folder / "recipe.toml").keywords("input").get("sha256")
        if Recipe.read(folder / "request.toml") != recipe or done != sha256(file):
            return None
        result = json.loads((folder / "result.json").read_text("utf-8"))
        return {name: result[name] for name in _MEASURED} if result["pictures"] or not pictures else None
    except (OSError, ValueError, KeyError):
        return None


def _write_result(folder: Path, known: Mapping[str, Any], pictures: bool) -> None:
    with writing(folder / "result.json") as temporary:
        temporary.write_text(json.dumps({**known, "pictures": pictures}), "utf-8")
