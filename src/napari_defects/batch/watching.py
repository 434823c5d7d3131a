"""Files as they appear: each analysed as soon as it is whole."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..pipeline import Results
from ..recipes import Recipe
from .work import analyzed, folders_for, images_in

Hook = Callable[[dict[str, Any], Results], Any]


def watch(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe | Mapping[str, Mapping[str, Any]] | str | None = None,
    *,
    interval_s: float = 2.0,
    stop: threading.Event | None = None,
    hook: Hook | str | None = None,
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
    hook : callable or str, optional
        What to do with each new result, so that a microscope can act on it: ``hook(row, results)`` in this
        process; or ``"package.module:function"``, its name; or a command, run with the folder of the
        results as its last argument. A hook that fails is named in the row, and the watch goes on.

    Yields
    ------
    dict
        The row of `run_batch` for each file, with ``latency_s``: from the last writing to the file until
        its results are there.

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
    before: dict[Path, tuple[int, int]] = {}
    seen: dict[Path, tuple[int, int]] = {}
    while not stop.is_set():
        now = {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in images_in([folder])}
        for file, state in now.items():
            if before.get(file) == state != seen.get(file):
                seen[file] = state
                row, results = analyzed(str(file), str(folders_for(list(now), out)[file]), text)
                row["latency_s"] = round(time.time() - state[1] / 1e9, 2)
                if results is not None and act is not None:
                    try:
                        act(row, results)
                    except Exception as error:
                        row["error"] = f"the hook failed: {' '.join(str(error).split()) or type(error).__name__}"
                yield row
        before = now
        stop.wait(interval_s)


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
