"""Files as they appear: each analysed as soon as it is whole; tables first, pictures when no other file waits."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ..pipeline import Results
from ..recipes import Recipe
from .work import analyzed, complete, folders_for, images_in

log = logging.getLogger(__name__)

Hook = Callable[[dict[str, Any], Results], Any]
State = tuple[int, int]

_KEPT = 32
"""Results in memory whose pictures are still to be made."""


def watch(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe | Mapping[str, Mapping[str, Any]] | str | None = None,
    *,
    interval_s: float = 0.25,
    tables_first: bool = True,
    stop: threading.Event | None = None,
    hook: Hook | str | None = None,
) -> Iterator[dict[str, Any]]:
    """Analyse every image that appears in a folder, as soon as it has stopped growing.

    Parameters
    ----------
    folder, out : path
    recipe : Recipe, mapping or str, optional
    interval_s : float
        Time between two looks; a file that is the same in both is complete. One that is written with longer
        breaks is analysed again when it has grown.
    tables_first : bool
        Give each row as soon as the tables are there, and make class averages and figures while no other
        file waits; they are broken off when one comes. Those of the last 32 files are made, and `run_batch`
        makes what is left. False makes everything of a file before its row is given.
    stop : Event, optional
        Ends the watch when it is set.
    hook : callable or str, optional
        What to do with each new result, so that a microscope can act on it: ``hook(row, results)`` in this
        process; or ``"package.module:function"``, its name; or a command, run with the folder of the
        results as its last argument. A hook that fails is named in the row, and the watch goes on.

    Yields
    ------
    dict
        The row of `run_batch` for each file, with ``latency_s``: from the last writing to the file until
        its tables are there.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If `hook` names no function.
    """
    folder, out, text = Path(folder), Path(out), Recipe.make(recipe).to_toml()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to watch.")
    act = _as_function(hook)
    stop = stop or threading.Event()
    before: dict[Path, State] = {}
    seen: dict[Path, State] = {}
    places: dict[Path, Path] = {}
    later: deque[tuple[dict[str, Any], Results]] = deque(maxlen=_KEPT)

    def waits() -> bool:
        return stop.is_set() or any(seen.get(file) != state for file, state in _states(folder).items())

    while not stop.is_set():
        now = _states(folder)
        places = folders_for(now, out, places)
        for file, state in now.items():
            if before.get(file) == state != seen.get(file):
                seen[file] = state
                place = str(places[file])
                row, results = analyzed(str(file), place, text, pictures=not tables_first)
                row["latency_s"] = round(time.time() - state[1] / 1e9, 2)
                if results is not None and act is not None:
                    try:
                        act(row, results)
                    except Exception as error:
                        row["error"] = f"the hook failed: {' '.join(str(error).split()) or type(error).__name__}"
                yield row
                later = deque((one for one in later if one[0]["folder"] != place), _KEPT)
                if results is not None and tables_first:
                    later.append((row, replace(results, maps=None)))
        before = now
        stop.wait(interval_s)
        if later and not waits():
            _make_pictures(later, waits, interval_s)


class _Busy(Exception):
    """There is something more urgent."""


def _states(folder: Path) -> dict[Path, State]:
    """Size and time of each image."""
    found = {}
    for file in images_in([folder] if folder.is_dir() else []):
        with suppress(FileNotFoundError):  # gone again
            about = file.stat()
            found[file] = (about.st_size, about.st_mtime_ns)
    return found


def _make_pictures(later: deque[tuple[dict[str, Any], Results]], busy: Callable[[], bool], interval_s: float) -> None:
    """Averages and figures of the newest file; the file waits again where that is broken off."""
    row, results = later.pop()
    looked = time.monotonic()

    def progress(_done: int, _total: int) -> None:
        nonlocal looked
        if time.monotonic() - looked > interval_s:
            if busy():
                raise _Busy
            looked = time.monotonic()

    try:
        complete(row, results, progress)
    except _Busy:
        later.append((row, results))
    except Exception as error:
        log.warning("%s: no averages and figures: %s", row["file"], error)


def _as_function(hook: Hook | str | None) -> Hook | None:
    if not isinstance(hook, str):
        return hook
    module, colon, name = hook.partition(":")
    if colon and module.replace(".", "").isidentifier() and name.isidentifier():
        try:
            function: Hook = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"`hook` {hook!r} names no function: {error}.") from None
        return function
    command = hook.split()
    if not command:
        raise ValueError("`hook` must be a command or package.module:function, got nothing.")

    def call(row: dict[str, Any], results: Results) -> None:
        done = subprocess.run([*command, row["folder"]], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{hook} ended with {done.returncode}: {done.stderr.strip()[-300:]}")

    return call
