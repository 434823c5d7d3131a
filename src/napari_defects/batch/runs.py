"""Many files through one recipe, on the processes of a dask cluster."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ..checks import check_range
from ..formats import READERS
from ..io import write_table
from ..micrograph import Progress
from ..recipes import Recipe
from ..saving import one_sentence
from .averaging import average_dataset
from .datasets import Dataset, drop_partitions
from .work import SUMMARY, analyze_one, folders_for, images_in, row_of

log = logging.getLogger(__name__)

Job = tuple[str, str, str]

_WORKER_BYTES = 3 * 2**30
_SETTINGS = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": str(2**30),
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": str(2**25),
    "distributed.worker.profile.enabled": False,
}
"""Of dask: workers keep free memory for their next arrays and are not sampled; an image takes a third longer else."""


def run_batch(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    recipe: Recipe | Mapping[str, Mapping[str, Any]] | str | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    averages: bool = True,
    report: bool = True,
    on_file: Callable[[dict[str, Any]], None] | None = None,
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
        Processes on this machine, each on one core; 0 analyses one after the other in this one. None takes
        as many as there are cores, and 3 GiB for each.
    scheduler : str, optional
        Address of a running dask scheduler, as ``tcp://host:8786``, instead of processes here.
    averages : bool
        Average the defects of all images by species, see `average_dataset`.
    report : bool
        Write ``report.html``, too.
    on_file : callable, optional
        ``on_file(row)`` with the row of each file as soon as it is there.
    progress : callable, optional
        ``progress(done, total)``, per file, and with all of them done while averages are made; to cancel,
        raise from it.

    Returns
    -------
    DataFrame
        file, folder, status ("done", "kept" or "failed"), error, seconds, columns, defects, area_nm2, path.

    Raises
    ------
    ValueError
        If there is no image, or `workers` is negative or beside a `scheduler`.
    OSError
        If there is no such file or folder, `out` cannot be written to, or there is no scheduler at that address.
    """
    if workers is not None:
        check_range("workers", workers, 0, whole=True)
        if scheduler is not None:
            raise ValueError("`workers` are those that the scheduler has; leave out `workers` or `scheduler`.")
    recipe = Recipe.make(recipe)
    files = images_in(paths)
    if not files:
        raise ValueError(f"there is no image to analyse; known suffixes are {', '.join(READERS)}.")
    out = Path(out)
    with one_sentence(out):
        out.mkdir(parents=True, exist_ok=True)
    folders = folders_for(files, out)
    jobs = [(str(file.resolve()), str(folder.resolve()), recipe.to_toml()) for file, folder in folders.items()]
    rows: list[dict[str, Any]] = []
    for row in map(analyze_one, *zip(*jobs, strict=True)) if workers == 0 else _distributed(jobs, workers, scheduler):
        rows.append(row)
        if row["status"] == "failed":
            log.warning("%s: %s", row["file"], row["error"])
        if on_file is not None:
            on_file(row)
        if progress is not None:
            progress(len(rows), len(jobs))
    return finish(rows, out, averages=averages, report=report, progress=progress)


def finish(
    rows: list[dict[str, Any]], out: Path, *, averages: bool, report: bool, progress: Progress | None = None
) -> pd.DataFrame:
    """Write the summary, the pooled counts, averages and the report."""
    rows = sorted(rows, key=lambda row: str(row["file"]))
    summary = pd.DataFrame({name: [row[name] for row in rows] for name in SUMMARY})
    write_table(summary, out / "summary.csv")
    dataset = Dataset(out)
    drop_partitions(out, dataset.images)
    if next(dataset.each("counts"), None) is not None:
        write_table(dataset.counts(), out / "counts.csv")
    if averages:
        try:
            done = len(rows)
            average_dataset(dataset, progress=None if progress is None else lambda *_: progress(done, done))
        except ValueError as error:
            log.warning("no averages over all images: %s", error)
    if report:
        from .report import write_report

        write_report(dataset)
    return summary


def _distributed(jobs: list[Job], workers: int | None, scheduler: str | None) -> Iterator[dict[str, Any]]:
    from dask.distributed import as_completed

    with _client(len(jobs), workers, scheduler) as client:
        futures = {client.submit(analyze_one, *job, pure=False): job for job in jobs}
        for future in as_completed(futures):
            file, folder, _ = futures[future]
            try:
                yield future.result()
            except (OSError, CancelledError):
                lost = "the connection to the scheduler was lost; run it again to go on"
                yield row_of(file, folder, "failed", error=lost)
            except Exception as error:  # of the process itself: `analyze_one` raises none
                yield row_of(file, folder, "failed", error=f"its process ended: {error}")


def _refuse_unguarded_script() -> None:
    """Start no processes from a script that each of them would run from its top, windows and all."""
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if script.is_file() and "__main__" not in script.read_text(encoding="utf-8", errors="ignore"):
        raise ValueError(
            f"every process would run {script.name} again: put what it does under "
            'if __name__ == "__main__": there, start napari itself, or use 0 processes.'
        )


@contextmanager
def _client(n_jobs: int, workers: int | None, scheduler: str | None) -> Iterator[Any]:
    import dask
    from dask.distributed import Client, LocalCluster
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    if scheduler is not None:
        with Client(scheduler, timeout=10) as client:
            yield client
        return
    _refuse_unguarded_script()
    n = min(workers or max(1, min(CPU_COUNT, MEMORY_LIMIT // _WORKER_BYTES)), n_jobs)
    options: dict[str, Any] = {"dashboard_address": ":0", "silence_logs": logging.ERROR, "processes": True}
    options |= {"threads_per_worker": 1, "env": {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}}
    with dask.config.set(_SETTINGS), LocalCluster(n_workers=n, **options) as cluster, Client(cluster) as client:
        yield client
