"""Test windows of bytes for their sizes and checksums, by the registers at their starts and ends.

The register after a window of n bytes is `before · x^(8n) ^ own`: one multiplication and one
comparison for each position and size. First only some bits of it are computed, by tables of
65,536 entries; the few windows that pass are tested again.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc_of_zeros
from ckptparse.crc.field import multiply, multiply_each, multiply_table, power_of_x

__all__ = [
    "MOST_THREADS",
    "SHARE",
    "FourTests",
    "Hits",
    "LowBytes",
    "OneTest",
    "Tests",
    "Wanted",
    "Words",
    "halves",
    "in_threads",
    "iter_hits",
    "make_tests",
    "share_out",
]

SHARE = 1 << 17
"""Positions that a thread takes at a time, so that it uses the tables of a size many times."""
MOST_THREADS = 8
"""Threads at most: more wait for memory, not for the processor."""
_ROUND = 1 << 14
"""Positions that are tested at once: their arrays stay in the processor's cache."""

_Share = TypeVar("_Share")
_Done = TypeVar("_Done")
_Unsigned = TypeVar("_Unsigned", bound=np.unsignedinteger)
Words = npt.NDArray[np.uint32]
LowBytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]


class Wanted(NamedTuple):
    """A run of bytes that is sought."""

    size: int
    crc: int
    """The unmasked CRC-32C of the bytes."""


Hits = list[tuple[Wanted, int]]
Ends = Callable[[int], tuple[Words, LowBytes]]
"""The registers at the ends of windows of a size, and their low bytes; fewer than there are starts
if the last windows would go beyond the end."""


class OneTest:
    """Tests whether windows of one size have one of some checksums: 16 bits first, then all."""

    __slots__ = ("_high", "_low", "_power", "_some", "_wanted", "size")

    def __init__(self, size: int, crcs: Collection[int]) -> None:
        self.size = size
        self._power = power_of_x(8 * size)
        zeros = crc_of_zeros(size)
        self._wanted = {crc ^ zeros: Wanted(size, crc) for crc in crcs}
        self._low, self._high = halves(multiply_table(self._power).astype(np.uint16))
        self._some = np.zeros(1 << 16, np.bool_)
        self._some[[register & 0xFFFF for register in self._wanted]] = True

    def hits(self, low: Places, high: Places, ends: Ends) -> Iterator[tuple[Wanted, int]]:
        """Iterate over the runs that fit, and their places."""
        last, _ = ends(self.size)
        for begin in range(0, len(last), _ROUND):
            here = last[begin : begin + _ROUND]
            span = slice(begin, begin + len(here))
            values = np.take(self._low, low[span], mode="clip")
            values ^= np.take(self._high, high[span], mode="clip")
            values ^= here.astype(np.uint16)
            for place in (np.flatnonzero(self._some[values]) + begin).tolist():
                start = int(low[place]) | int(high[place]) << 16
                item = self._wanted.get(multiply(start, self._power) ^ int(last[place]))
                if item is not None:
                    yield item, place


class _Slot(NamedTuple):
    """One of four sizes that are tested together."""

    item: Wanted
    table: Words
    """`multiply_table` of x^(8 · size)."""
    register: int
    """The difference that the registers at start and end must have."""

    def confirm(self, low: Places, high: Places, ends: Words) -> npt.NDArray[np.bool_]:
        """Tell for each window whether it fits."""
        starts = (low | high << 16).astype(np.uint32)
        fits: npt.NDArray[np.bool_] = multiply_each(starts, self.table) ^ ends == self.register
        return fits


class FourTests:
    """Tests four sizes with one checksum each together: 8 bits of each first, then all."""

    __slots__ = ("_high", "_low", "_slots")

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._slots: list[_Slot] = []
        low, high = np.zeros((2, 1 << 16, 4), np.uint8)
        for number, item in enumerate(wanted):
            table = multiply_table(power_of_x(8 * item.size))
            register = item.crc ^ crc_of_zeros(item.size)
            self._slots.append(_Slot(item, table, register))
            low[:, number], high[:, number] = halves(table.astype(np.uint8))
            low[:, number] ^= np.uint8(register & 0xFF)
        self._low, self._high = (table.view(np.uint32).reshape(-1) for table in (low, high))

    def hits(self, low: Places, high: Places, ends: Ends) -> Iterator[tuple[Wanted, int]]:
        """Iterate over the runs that fit, and their places."""
        lasts = [ends(slot.item.size) for slot in self._slots]
        likely: list[list[Places]] = [[] for _ in lasts]
        count = max(len(words) for words, _ in lasts)
        packed = np.empty((min(count, _ROUND), 4), np.uint8)
        values, other = packed.view(np.uint32).reshape(-1), np.empty(len(packed), np.uint32)
        for begin in range(0, count, _ROUND):
            stop = min(begin + _ROUND, count)
            here = values[: stop - begin]
            np.take(self._low, low[begin:stop], out=here, mode="clip")
            np.take(self._high, high[begin:stop], out=other[: stop - begin], mode="clip")
            here ^= other[: stop - begin]
            for number, (_, low_bytes) in enumerate(lasts):
                part = low_bytes[begin:stop]
                likely[number].append(np.flatnonzero(packed[: len(part), number] == part) + begin)
        for slot, found, (words, _) in zip(self._slots, likely, lasts, strict=True):
            at = np.concatenate(found) if found else np.empty(0, np.intp)
            for place in at[slot.confirm(low[at], high[at], words[at])].tolist():
                yield slot.item, place


Tests = Sequence[OneTest | FourTests]


def halves(table: npt.NDArray[_Unsigned]) -> tuple[npt.NDArray[_Unsigned], ...]:
    """Return the products of a factor with every low half and with every high half of a word.

    Args:
        table: The factor's `multiply_table`, or only some low bits of it.
    """
    return tuple((table[n + 1][:, None] ^ table[n]).reshape(-1) for n in (0, 2))


def make_tests(wanted: Iterable[Wanted]) -> list[OneTest | FourTests]:
    """Group what is sought: sizes with one checksum in fours, the others one by one."""
    sizes: dict[int, list[Wanted]] = defaultdict(list)
    for item in wanted:
        sizes[item.size].append(item)
    alone = sorted(items[0] for items in sizes.values() if len(items) == 1)
    several = [items for items in sizes.values() if len(items) > 1]
    tests: list[OneTest | FourTests] = []
    tests += [FourTests(alone[n : n + 4]) for n in range(0, len(alone), 4)]
    tests += [OneTest(items[0].size, [item.crc for item in items]) for items in several]
    return tests


def iter_hits(starts: Words, tests: Tests, ends: Ends) -> Iterator[tuple[Wanted, int]]:
    """Iterate over the windows that fit, from the registers at their starts."""
    low, high = (starts & 0xFFFF).astype(np.intp), (starts >> 16).astype(np.intp)
    for test in tests:
        yield from test.hits(low, high, ends)


def share_out(
    work: Callable[[int, Tests], Hits],
    shares: range,
    tests: Tests,
) -> Iterator[tuple[Wanted, int]]:
    """Do the work for every share, in several threads if there are several shares."""
    if not tests:
        return
    for hits in in_threads(lambda first: work(first, tests), shares):
        yield from hits


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
