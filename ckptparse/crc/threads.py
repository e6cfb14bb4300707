"""Work shared among threads, for arrays: numpy works without the interpreter's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

from ckptparse.locks import has_lock
from ckptparse.parallel import most_threads, run_all

__all__ = ["Spare", "in_threads", "threads_at_work"]

_Share = TypeVar("_Share")
_Done = TypeVar("_Done")
_Memory = TypeVar("_Memory")


class Spare(Generic[_Memory]):
    """Memory that threads use again, as many as are at work: to get it anew takes as long."""

    __slots__ = ("_free", "_make")

    def __init__(self, make: Callable[[], _Memory]) -> None:
        self._make = make
        self._free: deque[_Memory] = deque()

    @contextmanager
    def taken(self) -> Iterator[_Memory]:
        """Take one, and give it back at the end."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = self._make()
        yield memory
        self._free.append(memory)


def in_threads(
    work: Callable[[_Share], _Done], shares: Sequence[_Share], *, short: bool = False
) -> list[_Done]:
    """Do the work for every share, in several threads if that can be faster.

    Args:
        work: Does it for one share.
        shares: All of it.
        short: Whether the calls of numpy are so short (some 10 µs) that threads would wait for
            the interpreter's lock as long as they work.

    Returns:
        What came of each share, in their order.
    """
    if len(shares) == 1:
        return [work(shares[0])]
    done: dict[int, _Done] = {}

    def do(number: int) -> None:
        done[number] = work(shares[number])

    run_all([partial(do, number) for number in range(len(shares))], threads_at_work(short=short))
    return [done[number] for number in range(len(shares))]


def threads_at_work(*, short: bool) -> int:
    """Return how many threads `in_threads` has at most, by whether the calls of numpy are short."""
    return 1 if short and has_lock() else most_threads()
