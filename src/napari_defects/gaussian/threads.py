"""Compiled loops, and whole frames, on all cores.

A loop is cut into consecutive parts of its range, each in a thread of its own. The loops release the interpreter's
lock. Every element is worked out by itself, so that results do not depend on how many threads there are.
NUMBA_NUM_THREADS says how many, or `limit`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

from numba import config
from threadpoolctl import threadpool_limits

Given = TypeVar("Given")
Made = TypeVar("Made")

_limit = 0
_SMALL = 256  # fewer elements than this are not worth a thread


def limit(threads: int) -> None:
    """Use no more than so many threads from now on; 0 for as many as NUMBA_NUM_THREADS says."""
    global _limit
    _limit = threads


def _count() -> int:
    most = max(int(config.NUMBA_NUM_THREADS), 1)
    return min(_limit, most) if _limit > 0 else most


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(int(config.NUMBA_NUM_THREADS), 1), thread_name_prefix="napari-defects")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a forked process


def spread(loop: Callable[..., Any], n: int, *arguments: Any) -> None:
    """Call ``loop(first, last, *arguments)`` on parts of range(n)."""
    threads = min(_count(), n // _SMALL)
    if threads <= 1:
        loop(0, n, *arguments)
        return
    parts = 2 * threads
    edges = [n * k // parts for k in range(parts + 1)]
    tasks = [_pool().submit(loop, a, b, *arguments) for a, b in pairwise(edges)]
    for task in tasks:
        task.result()


def in_turn(function: Callable[[Given], Made], items: Iterable[Given]) -> Generator[Made, None, None]:
    """Results for `items`, several being worked on at once; whoever stops taking them stops the work."""
    threads = _count()
    if threads == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="napari-defects-frames")
    with threadpool_limits(1, "blas"):  # its threads would wait for each other
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)
