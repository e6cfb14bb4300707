"""Put stripes of a disk array (RAID 0) in the right order.

Such an array stores a file in stripes of one size, in turn on each disk. If the disks are read in
another order, every row of stripes is permuted in the same way. A payload that is found whole, at
its place within a stripe, says which stripe is where. A few of them give the size and the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Final, NamedTuple

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.field import multiply, power_of_x
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range

__all__ = ["SMALL_FILE", "Found", "Stripes", "find_stripes", "try_all", "try_stripes"]

_SIZES = tuple(1 << power for power in range(20, 11, -1))
"""Sizes of stripes, 1 MiB to 4 KiB: the usual ones are powers of two from 16 to 512 KiB."""
_MOST_DISKS = 12
"""Disks of an array at most. Each number of disks is one more pattern that payloads may fit by
coincidence."""
_LEAST_TRIED = 1 << 10
"""Fewest bytes of a payload that an order is tried on: a small one lies in one stripe, and many
orders make it right."""
_MOST_TRIED = 1 << 24
"""Bytes of the largest payload that an order is tried on; only orders that the first one allows
come to it."""
_MOST_FIRST = 1 << 22
"""Bytes of the payload that every order is tried on: with 9 sizes and up to 5 disks, 1,332."""
_MOST_TRIED_DISKS = 5
"""Disks at most, if every order is tried: six have 720 orders for each size, five have 120."""
SMALL_FILE: Final = 1 << 17
"""Bytes of the largest file of which every order is tried, also of an incomplete last row: it has
few tensors, and so few rows that a search by whole stripes may miss."""
_FEWEST_RIGHT = 2
"""Payloads that an order must make right: of 2,000 orders one does so to a single one by chance 1
in 2 million, and to two in 2^53."""
_ALL_ONES = 0xFFFFFFFF
_FEWEST = 4
"""Payloads that must agree on an order: a pattern of two or three can be a coincidence."""


class Found(NamedTuple):
    """A payload that was found."""

    expected: int
    """Offset at which the index places it."""
    offset: int
    """Offset at which it was found."""
    size: int


@dataclass(frozen=True, slots=True)
class Stripes:
    """How a file was put together.

    Attributes:
        size: Of a stripe, in bytes.
        order: For each stripe of a row in the right order, its number in the file as it is.
        agreeing: How many payloads agree.
        packed: Whether the stripes of an incomplete last row follow each other in that order, too;
            else it stays as it is.
    """

    size: int
    order: tuple[int, ...]
    agreeing: int
    packed: bool = False

    def leaves_rest(self, source: Source) -> bool:
        """Tell whether the last row of a file is incomplete."""
        return bool(source.size % (self.size * len(self.order)))

    def undo(self, source: Source) -> JoinedSource:
        """Return the file in the right order."""
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
        if not self.packed and offset < end:
            yield Range(source, offset, end - offset)
            return
        for start, there, count in self._last_row(source.size, whole):
            first, last = max(start, offset), min(start + count, end)
            if first < last:
                yield Range(source, there + first - start, last - first)

    def _last_row(self, size: int, whole: int) -> list[tuple[int, int, int]]:
        """Return of each stripe of the last row where it belongs, where it lies, and its size."""
        found, there = [], whole
        for disk in sorted(range(len(self.order)), key=self.order.__getitem__):
            start = whole + disk * self.size
            count = min(self.size, size - start)
            if count > 0:
                found.append((start, there, count))
                there += count
        return sorted(found)


def find_stripes(found: Sequence[Found]) -> Stripes | None:
    """Find the order in which stripes were put together; None if there is none that fits.

    Args:
        found: Whole payloads: where each belongs, and where it was found.
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
    """Find the order by trying all, for up to five disks; None if none makes the payloads right.

    Args:
        source: The file.
        payloads: Offset, size and unmasked checksum of payloads that are damaged in the file.
    """
    by_size = sorted(payloads, key=lambda one: one[1])
    fitting = [one for one in by_size if _LEAST_TRIED <= one[1] <= _MOST_TRIED]
    # A small payload excludes most orders quickly; a large one covers many stripes.
    if len(fitting) < 2 or fitting[0][1] > _MOST_FIRST:
        return None
    sample = [fitting[0], *fitting[-2:]]
    for size in _SIZES:
        for disks in range(2, min(_MOST_TRIED_DISKS, source.size // size) + 1):
            terms, whole = _terms_of(source, size, disks, sample[0])
            for order in permutations(range(disks)):
                if _sum_of(terms, order) != whole or order == tuple(range(disks)):
                    continue
                stripes = Stripes(size, order, len(sample))
                if _all_fit(source, stripes, sample[1:]):
                    return stripes
    return None


def try_all(source: Source, payloads: Sequence[tuple[int, int, int]]) -> Stripes | None:
    """Find the order of a small file by trying all, with each kind of last row; None if none fits.

    Args:
        source: The file; of a larger one None is returned.
        payloads: Offset, size and unmasked checksum of payloads that belong into it, whole or not,
            and that hardly others equal.
    """
    if source.size > SMALL_FILE:
        return None
    told = sorted(payloads, key=lambda one: one[1])
    wrong = [one for one in told if crc32c(source.read_at(*one[:2])) != one[2]]
    most, best = sum(size for _, size, _ in told) - sum(size for _, size, _ in wrong), None
    if len(wrong) < _FEWEST_RIGHT:
        return None
    for size in (one for one in _SIZES if one < source.size):
        for disks in range(2, min(_MOST_TRIED_DISKS, -(-source.size // size)) + 1):
            for order, packed in product(permutations(range(disks)), (False, True)):
                stripes = Stripes(size, order, 0, packed)
                # A large one covers many stripes.
                if not any(_all_fit(source, stripes, [one]) for one in wrong[-2:]):
                    continue
                right = [one for one in told if _all_fit(source, stripes, [one])]
                count = sum(size for _, size, _ in right)
                if count > most and len(set(right).intersection(wrong)) >= _FEWEST_RIGHT:
                    most, best = count, replace(stripes, agreeing=len(right))
    return best


def _terms_of(
    source: Source, size: int, disks: int, payload: tuple[int, int, int]
) -> tuple[list[list[int]], int]:
    """Return what a payload's stripes add to its checksum, and what they add up to if it is right.

    A checksum is a sum over the stripes, so each is read once for all orders.

    Returns:
        For each disk, and each one that may be in its place: what its stripes add then.
    """
    start, count, crc = payload
    terms = [[0] * disks for _ in range(disks)]
    whole = crc ^ crc_of_zeros(count)
    position, end = start, start + count
    rows = source.size // (size * disks)
    while position < end:
        row = position // (size * disks)
        if row >= rows:
            # An incomplete last row stays as it is.
            return terms, whole ^ _register(source.read_at(position, end - position))
        first = row * size * disks
        stop = min(end, first + size * disks)
        data = memoryview(source.read_at(first, size * disks))
        while position < stop:
            disk, within = divmod(position - first, size)
            part = min(size - within, stop - position)
            power = power_of_x(8 * (end - position - part))
            for other in range(disks):
                there = other * size + within
                register = _register(data[there : there + part])
                terms[disk][other] ^= multiply(register, power)
            position += part
    return terms, whole


def _register(data: bytes | memoryview) -> int:
    """Return the register after some bytes, started at zero."""
    return crc32c(data, _ALL_ONES) ^ _ALL_ONES


def _sum_of(terms: Sequence[Sequence[int]], order: Sequence[int]) -> int:
    found = 0
    for mine, other in zip(terms, order, strict=True):
        found ^= mine[other]
    return found


def _all_fit(source: Source, stripes: Stripes, payloads: Sequence[tuple[int, int, int]]) -> bool:
    return all(
        crc32c(stripes.read_at(source, offset, size)) == crc for offset, size, crc in payloads
    )


def _fit(found: Sequence[Found], size: int, disks: int) -> Stripes | None:
    """Return the order that all payloads agree on; every disk but one must have a payload."""
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
    """Iterate over stripes that hold a whole payload: their right numbers, and those they have."""
    for one in found:
        if one.expected % size + one.size <= size:
            if one.expected % size != one.offset % size:
                # No order of stripes puts it there.
                yield 0, -1
            else:
                yield one.expected // size, one.offset // size
