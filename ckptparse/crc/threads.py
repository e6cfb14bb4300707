"""Work shared among threads of our own, for arrays: numpy works without the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

__all__ = ["MOST_THREADS", "in_threads"]

MOST_THREADS = 8
"""Threads at most: more wait for memory, not for the processor."""

_Share = TypeVar("_Share")
_Done = TypeVar("_Done")


def in_threads(work: Callable[[_Share], _Done], shares: Sequence[_Share]) -> Iterator[_Done]:
    """Do the work for every share, in several threads if that can be faster; in their order."""
    threads = min(len(shares), os.cpu_count() or 1, MOST_THREADS)
    if threads < 2:
        yield from map(work, shares)
        return
    # Imported only now: it brings logging with it, which takes longer than a small search.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, shares)
