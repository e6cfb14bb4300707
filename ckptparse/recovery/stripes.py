"""Stripes of an array of disks that were put together in the wrong order.

A file on such an array lies in stripes of one size, in turn on each disk. Put together in another
order, every row of stripes is permuted alike. Payloads that are found whole, each at its place
within a stripe, say which stripe lies where: a few of them give size and order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from ckptparse.coding.checksum import crc32c
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range

__all__ = ["Found", "Stripes", "find_stripes", "try_stripes"]

_SIZES = tuple(1 << power for power in range(20, 11, -1))
_MOST_DISKS = 12
_LEAST_TRIED = 1 << 10
_MOST_TRIED = 1 << 24
_MOST_FIRST = 1 << 22
"""Bytes of the payload that every order is tried on: 1,332 of them."""
_MOST_TRIED_DISKS = 5
_FEWEST = 4
"""Payloads that must agree: of fewer, chance would find an order."""


class Found(NamedTuple):
    """A payload that was found."""

    expected: int
    """Offset at which it belongs."""
    offset: int
    """Offset at which it lies."""
    size: int


@dataclass(frozen=True, slots=True)
class Stripes:
    """How a file was put together.

    Attributes:
        size: Of a stripe, in bytes.
        order: For each disk of a row as it should be, its number as it is.
        agreeing: How many payloads lie where this says.
    """

    size: int
    order: tuple[int, ...]
    agreeing: int

    def undo(self, source: Source) -> JoinedSource:
        """Return the file in the right order; a last row that is not whole stays as it is."""
        return JoinedSource(source.path, list(self._iter_ranges(source, 0, source.size)))

    def read_at(self, source: Source, offset: int, size: int) -> bytes:
        """Return bytes of the file in the right order."""
        ranges = self._iter_ranges(source, offset, size)
        return b"".join(source.read_at(part.offset, part.size) for part in ranges)

    def _iter_ranges(self, source: Source, offset: int, size: int) -> Iterator[Range]:
        disks = len(self.order)
        whole = source.size // (self.size * disks) * self.size * disks
        end = offset + size
        while offset < min(end, whole):
            stripe, within = divmod(offset, self.size)
            row, disk = divmod(stripe, disks)
            count = min(self.size - within, end - offset)
            there = (row * disks + self.order[disk]) * self.size + within
            yield Range(source, there, count)
            offset += count
        if offset < end:
            yield Range(source, offset, end - offset)


def find_stripes(found: Sequence[Found]) -> Stripes | None:
    """Find the order in which stripes were put together; None if nothing was moved so.

    Args:
        found: Payloads with where they belong and where they lie, whole.
    """
    if all(one.expected == one.offset for one in found):
        return None
    best: Stripes | None = None
    for size in _SIZES:
        for disks in range(2, _MOST_DISKS + 1):
            candidate = _fit(found, size, disks)
            if candidate is not None and (best is None or candidate.agreeing > best.agreeing):
                best = candidate
    return best


def try_stripes(source: Source, payloads: Sequence[tuple[int, int, int]]) -> Stripes | None:
    """Find the order by trying them all, for up to five disks; None if none makes payloads right.

    Args:
        source: The file.
        payloads: Offset, size and unmasked checksum of payloads that are not right where they are.
    """
    by_size = sorted(payloads, key=lambda one: one[1])
    fitting = [one for one in by_size if _LEAST_TRIED <= one[1] <= _MOST_TRIED]
    # A small one rules most orders out quickly; a large one lies in many stripes.
    if len(fitting) < 2 or fitting[0][1] > _MOST_FIRST:
        return None
    sample = [fitting[0], *fitting[-2:]]
    for size in _SIZES:
        for disks in range(2, min(_MOST_TRIED_DISKS, source.size // size) + 1):
            for order in permutations(range(disks)):
                stripes = Stripes(size, order, len(sample))
                if order != tuple(range(disks)) and _all_fit(source, stripes, sample):
                    return stripes
    return None


def _all_fit(source: Source, stripes: Stripes, payloads: Sequence[tuple[int, int, int]]) -> bool:
    return all(
        crc32c(stripes.read_at(source, offset, size)) == crc for offset, size, crc in payloads
    )


def _fit(found: Sequence[Found], size: int, disks: int) -> Stripes | None:
    """Return the order that all payloads agree on, if each disk has one at least but the last."""
    order: dict[int, int] = {}
    agreeing = 0
    for wanted, there in _iter_stripes(found, size):
        if wanted // disks != there // disks:
            return None
        if order.setdefault(wanted % disks, there % disks) != there % disks:
            return None
        agreeing += 1
    left = set(range(disks)) - set(order.values())
    if agreeing < max(_FEWEST, disks) or len(order) < disks - 1 or len(left) != disks - len(order):
        return None
    whole = tuple(order[number] if number in order else left.pop() for number in range(disks))
    return Stripes(size, whole, agreeing) if whole != tuple(range(disks)) else None


def _iter_stripes(found: Sequence[Found], size: int) -> Iterator[tuple[int, int]]:
    """Iterate over stripes that hold a whole payload: their numbers as they should be, and are."""
    for one in found:
        if one.expected % size + one.size <= size:
            if one.expected % size != one.offset % size:
                # It cannot lie there, whatever the order.
                yield 0, -1
            else:
                yield one.expected // size, one.offset // size
