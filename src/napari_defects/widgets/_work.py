"""Work outside the window's thread, with progress that shows and a cancel that works at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_defects.widgets._settings import keep_llvm_single, limit_threads

log = logging.getLogger(__name__)


class Cancelled(Exception):
    """Raised from the progress callback of a cancelled job, to leave the step."""


class Job(QObject):
    """One call of a function in a worker thread.

    The function is given ``progress``; its result arrives at `done`, an exception at `failed`, both in the window's
    thread. A cancelled job delivers neither, even where its function never looks at its progress; nor what it
    would still ``report`` on its way, if that is among the arguments.

    Parameters
    ----------
    title : str
        What napari's activity dock calls it.
    function : callable
        Called as ``function(progress=..., **arguments)``.
    arguments : dict
    owner : QObject, optional
        Whom the result is for: when it is gone, the job is cancelled.
    """

    progressed = Signal(int, int)
    done = Signal(object)
    failed = Signal(object)
    ended = Signal()

    def __init__(
        self, title: str, function: Callable[..., Any], arguments: dict[str, Any], owner: QObject | None = None
    ):
        super().__init__()
        if owner is not None:
            owner.destroyed.connect(self.cancel)
        self.cancelled, self.running, self.started = False, False, time.perf_counter()
        self.seconds = 0.0
        if (report := arguments.get("report")) is not None:
            arguments = {**arguments, "report": lambda *made: None if self.cancelled else report(*made)}
        self._title, self._function, self._arguments, self._last = title, function, arguments, 0.0
        self.progressed.connect(self._show)

    def start(self) -> None:
        """Begin; returns at once."""
        from napari.qt.threading import create_worker

        self.running, self.started = True, time.perf_counter()
        self._worker = create_worker(
            _with_threads,
            self._function,
            progress=self.progress,
            **self._arguments,
            _start_thread=False,
            _ignore_errors=True,
            _progress={"desc": self._title},
        )
        self._worker.pbar.gui = True  # else it also writes to the terminal
        self._worker.returned.connect(self._returned)
        self._worker.errored.connect(self._errored)
        _running.add(self)
        self._worker.start()

    def progress(self, done: int, total: int) -> None:
        """Return the callback for the step; in its thread."""
        if self.cancelled:
            raise Cancelled
        now = time.perf_counter()
        if now - self._last > 0.05 or done >= total:
            self._last = now
            self.progressed.emit(int(done), int(total))

    def cancel(self) -> None:
        """Stop at the next progress, and forget the result in any case."""
        if self.running and not self.cancelled:
            self.cancelled = True
            self.ended.emit()

    def _show(self, done: int, total: int) -> None:
        bar = getattr(self._worker, "pbar", None)
        if bar is not None and self.running:
            bar.total = total
            bar.update(done - bar.n)

    def _returned(self, result: Any) -> None:
        self._end(self.done, result)

    def _errored(self, error: Exception) -> None:
        if not isinstance(error, (Cancelled, ValueError, TypeError, OSError)):
            log.error("%s failed", self._title, exc_info=error)
        self._end(self.failed, error)

    def _end(self, signal: Any, value: Any) -> None:
        self.running, self.seconds = False, time.perf_counter() - self.started
        _running.discard(self)
        if not self.cancelled:
            self.ended.emit()
            signal.emit(value)


_running: set[Job] = set()


def _with_threads(function: Callable[..., Any], **arguments: Any) -> Any:
    """Call a function on as many threads as the settings say."""
    keep_llvm_single()
    limit_threads()
    return function(**arguments)


def sentence(error: BaseException) -> str:
    """Say what to tell the user of an error: its own sentence, or its kind where it was not expected."""
    text = " ".join(str(error).split()).replace("`", "")
    if isinstance(error, KeyError):
        text = text.strip("'\"")
    if isinstance(error, (ValueError, TypeError, OSError)) and text:
        return text if "_" in text.split()[0] else text[0].upper() + text[1:]
    return f"Something unexpected happened ({type(error).__name__}: {text}); the log has the details."
