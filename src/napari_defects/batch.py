"""Many images: analysed in parallel, each in its own folder, with one summary and joined tables.

OUT/NAME/...                         what `analyze` writes; complete as soon as it is there
OUT/summary.csv                      one row an image: done or failed, why, how many
OUT/tables/defects/image=NAME/*.parquet   a partitioned dataset of every table
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from .formats import READERS
from .io import read_table, write_table
from .micrograph import Progress
from .pipeline import analyze_file, sha256
from .recipes import Recipe

logger = logging.getLogger(__name__)

TABLES = ("atoms", "sites", "defects", "counts", "strain")
_SUMMARY = ("file", "folder", "status", "error", "seconds", "columns", "defects")


def run_batch(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    recipe: Recipe | Mapping[str, Mapping[str, Any]] | str | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Analyse many files.

    Files whose folder is there already, made from the same content by the same recipe, are not analysed
    again; so a run that was broken off goes on where it stopped.

    Parameters
    ----------
    paths : iterable of path
        Files, or folders of which every image is taken.
    out : path
        Folder of the results.
    recipe : Recipe, mapping or str, optional
        As for `analyze`.
    workers : int, optional
        Processes on this machine; 0 analyses one after the other in this one. None takes one for every
        two cores.
    scheduler : str, optional
        Address of a running dask scheduler, as ``tcp://host:8786``, instead of processes here.
    progress : callable, optional
        ``progress(done, total)``, per file.

    Returns
    -------
    DataFrame
        file, folder, status ("done", "kept" or "failed"), error, seconds, columns, defects.

    Raises
    ------
    ValueError
        If there is no image.
    """
    recipe = Recipe.make(recipe)
    files = _images(paths)
    if not files:
        raise ValueError(f"there is no image to analyse; known suffixes are {', '.join(READERS)}.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    folders = _folders(files, out)
    jobs = [(str(file.resolve()), str(folder.resolve()), recipe.to_toml()) for file, folder in folders.items()]
    rows: list[dict[str, Any]] = []
    for row in _inline(jobs) if workers == 0 else _distributed(jobs, workers, scheduler):
        rows.append(row)
        if row["status"] == "failed":
            logger.warning("%s: %s", row["file"], row["error"])
        if progress is not None:
            progress(len(rows), len(jobs))
    rows.sort(key=lambda row: str(row["file"]))
    summary = pd.DataFrame({name: [row[name] for row in rows] for name in _SUMMARY})
    write_table(summary, out / "summary.csv")
    join_tables(out, [Path(row["folder"]) for row in rows if row["status"] != "failed"])
    return summary


def watch(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe | Mapping[str, Mapping[str, Any]] | str | None = None,
    *,
    interval_s: float = 2.0,
    stop: threading.Event | None = None,
) -> Iterator[dict[str, Any]]:
    """Analyse every image that appears in a folder, as soon as it has stopped growing.

    Parameters
    ----------
    folder, out : path
    recipe : Recipe, mapping or str, optional
    interval_s : float
        Time between two looks; a file that is the same in both is complete.
    stop : Event, optional
        Ends the watch when it is set.

    Yields
    ------
    dict
        The row of `run_batch` for each file.
    """
    folder, out, text = Path(folder), Path(out), Recipe.make(recipe).to_toml()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to watch.")
    stop = stop or threading.Event()
    before: dict[Path, tuple[int, int]] = {}
    seen: dict[Path, tuple[int, int]] = {}
    while not stop.is_set():
        now = {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in _images([folder])}
        for file, state in now.items():
            if before.get(file) == state != seen.get(file):
                seen[file] = state
                yield _analyze_one(str(file), str(_folders(list(now), out)[file]), text)
        before = now
        stop.wait(interval_s)


def join_tables(out: str | os.PathLike[str], folders: Iterable[Path]) -> Path:
    """Write the tables of many results as partitioned parquet datasets under ``OUT/tables``."""
    place = Path(out) / "tables"
    new = place.with_name(".tables")
    shutil.rmtree(new, ignore_errors=True)
    for folder in folders:
        for name in TABLES:
            if (folder / f"{name}.csv").is_file():
                write_table(
                    read_table(folder / f"{name}.csv", name), new / name / f"image={folder.name}" / "part.parquet"
                )
    shutil.rmtree(place, ignore_errors=True)
    if new.is_dir():
        os.replace(new, place)
    return place


def _images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in READERS) if path.is_dir() else [path]
        files |= dict.fromkeys(p for p in inside if not p.name.startswith("."))
    return list(files)


def _folders(files: list[Path], out: Path) -> dict[Path, Path]:
    """Folder of each file: its stem; with the suffix, then a number, where that is taken by another."""
    taken: dict[str, Path] = {}
    for file in sorted(files):
        names = [file.stem, file.name.replace(".", "_"), *(f"{file.stem}_{k}" for k in range(2, len(files) + 2))]
        taken[next(name for name in names if name not in taken)] = file
    return {file: out / name for name, file in taken.items()}


def _inline(jobs: list[tuple[str, str, str]]) -> Iterator[dict[str, Any]]:
    return (_analyze_one(*job) for job in jobs)


def _distributed(
    jobs: list[tuple[str, str, str]], workers: int | None, scheduler: str | None
) -> Iterator[dict[str, Any]]:
    from dask.distributed import Client, LocalCluster, as_completed

    def client() -> Any:
        if scheduler is not None:
            return Client(scheduler, timeout=10)
        n = workers or max(1, (os.cpu_count() or 2) // 2)
        quiet = {"dashboard_address": None, "silence_logs": logging.ERROR}
        return Client(LocalCluster(n_workers=min(n, len(jobs)), threads_per_worker=1, processes=True, **quiet))

    with _closing(client()) as running:
        futures = {running.submit(_analyze_one, *job, pure=False): job for job in jobs}
        for future in as_completed(futures):
            if future.status == "finished":
                yield future.result()
            else:
                file, folder, _ = futures[future]
                yield _row(file, folder, "failed", error=f"its process ended: {future.exception()}")


@contextmanager
def _closing(client: Any) -> Iterator[Any]:
    try:
        yield client
    finally:
        cluster = client.cluster
        client.close()
        if cluster is not None:
            cluster.close()


def _row(file: str, folder: str, status: str, **known: Any) -> dict[str, Any]:
    return dict.fromkeys(_SUMMARY) | {"file": Path(file).name, "folder": folder, "status": status} | known


def _analyze_one(file: str, folder: str, recipe_toml: str) -> dict[str, Any]:
    """Analyse one file into a folder that appears complete or not at all; never raises."""
    start = time.perf_counter()
    place = Path(folder)
    unfinished = place.with_name(f".{place.name}-unfinished")
    try:
        recipe = Recipe.from_toml(recipe_toml)
        if _is_done(file, place, recipe):
            return _row(file, folder, "kept")
        shutil.rmtree(unfinished, ignore_errors=True)
        results = analyze_file(file, unfinished, recipe)
        (unfinished / "request.toml").write_text(recipe_toml, "utf-8")
        shutil.rmtree(place, ignore_errors=True)
        os.replace(unfinished, place)
    except Exception as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        return _row(file, folder, "failed", error=" ".join(str(error).split()) or type(error).__name__)
    n_defects = None if results.defects is None else len(results.defects)
    seconds = round(time.perf_counter() - start, 1)
    return _row(file, folder, "done", seconds=seconds, columns=len(results.atoms), defects=n_defects)


def _is_done(file: str, folder: Path, recipe: Recipe) -> bool:
    """Whether `folder` was made from this content by this recipe."""
    try:
        done = Recipe.read(folder / "recipe.toml").keywords("input").get("sha256")
        return Recipe.read(folder / "request.toml") == recipe and done == sha256(file)
    except (OSError, ValueError):
        return False
