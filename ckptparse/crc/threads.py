"""Work shared among threads of our own, for arrays: numpy works without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ckptparse.parallel import most_threads

__all__ = ["in_threads"]

_Share = TypeVar("_Share")
_Done = TypeVar("_Done")


def in_threads(work: Callable[[_Share], _Done], shares: Sequence[_Share]) -> Iterator[_Done]:
    """Do the work for every share, in several threads if that can be faster; in their order."""
    threads = min(len(shares), most_threads())
    if threads < 2:
        yield from map(work, shares)
        return
    # Imported only now: it brings logging with it, which takes longer than a small search.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, shares)
