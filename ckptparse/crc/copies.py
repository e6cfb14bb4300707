"""Put damaged copies of the same bytes together so that the checksum agrees.

Copies are compared in sectors. If they differ in a sector, one of them has the true bytes, unless
all are damaged there. So each such place is an unknown. A checksum is linear over GF(2), so

    crc = crc(first copy)  xor  the sum, over the places, of what the chosen copy changes

gives 32 equations for the choices. A wrong choice fits by chance 1 in 2^32. Two copies that differ
in 22 places can be put together in 2^22 ways; a choice that fits is then wrong with the chance 1 in
1,024. With more places, copies that look right (not `Copy.doubted`), or that most others equal, are
chosen first, and the checksum confirms the whole.

Damage often covers several sectors side by side. So whole runs of sectors are tried as one unknown
first, then pages, then single sectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c
from ckptparse.crc.choices import find_choices
from ckptparse.crc.field import multiply, power_of_x

__all__ = ["SECTOR", "Copy", "Merged", "merge_copies"]

SECTOR = 512
"""Bytes of a sector: the least that a disk loses."""
_PAGE = 4096
"""Bytes of a page: file systems and downloads lose whole ones."""
_MOST_PLACES = 4096
"""Sectors at most in which copies may differ: 2 MiB. Copies that differ in more are of different
bytes, or too damaged for 32 equations."""
_PIECE = 1 << 22
"""Bytes that are compared at once, so that memory stays small."""
_CHECKSUMS = 2**32
"""Values of a checksum: a wrong choice fits with a chance of 1 in so many."""

Span = tuple[int, int]


class Copy(NamedTuple):
    """One copy of the bytes."""

    data: bytes | memoryview
    """As many bytes as every other copy has. Absent bytes may have any value."""
    absent: Sequence[Span] = ()
    """Ranges of bytes (start, stop) that it does not have: after its end, or in bad sectors."""
    doubted: Sequence[Span] = ()
    """Ranges that look wrong. They are taken only if no other copy fits."""


@dataclass(frozen=True, slots=True)
class Merged:
    """How copies are put together."""

    pieces: tuple[tuple[int, int, int], ...]
    """(start, stop, number of the copy), in order and without gaps."""
    chance: float
    """Chance that another choice is right: how many were tried, / 2^32; 0 if there was only one."""
    places: int
    """Sectors where the copies differ."""

    def build(self, copies: Sequence[Copy]) -> bytes:
        """Return the bytes."""
        return b"".join(copies[number].data[start:stop] for start, stop, number in self.pieces)


def merge_copies(copies: Sequence[Copy], crc: int, *, offset: int = 0) -> Merged | None:
    """Put damaged copies together so that the checksum agrees; None if no choice makes it agree.

    Args:
        copies: At least one, all of one size.
        crc: The unmasked checksum of the bytes.
        offset: Their offset in the file: sectors are counted from the file's start.
    """
    base = _Base.make(copies, offset)
    if base is None:
        return None
    differing = base.differing()
    if len(differing) > _MOST_PLACES:
        return None
    target = crc ^ crc32c(base.data)
    tried = 0
    for options in _iter_options(base, differing):
        ways = prod(map(len, options))
        # With half of all checksums tried, a wrong choice is as likely as the right one.
        if tried + ways > _CHECKSUMS // 2:
            continue
        tried += ways
        changes = [[option.change for option in place] for place in options]
        numbers = find_choices(changes, target)
        found = [[place[n] for n, place in zip(one, options, strict=True)] for one in numbers]
        if found:
            # If several fit, the one with the fewest doubted places.
            chosen = min(found, key=lambda choice: sum(option.doubted for option in choice))
            chance = max(tried / _CHECKSUMS if tried > 1 else 0.0, 1 - 1 / len(found))
            return Merged(base.pieces(chosen), chance, len(differing))
    return None


class _Option(NamedTuple):
    """A copy that may be chosen for a place, and what this changes the checksum by."""

    start: int
    stop: int
    number: int
    change: int
    doubted: bool
    votes: int


Options = Sequence[Sequence[_Option]]
"""For each place, the copies that may be chosen."""


class _Base:
    """The copies, divided into sectors, with the first copy that has each sector."""

    def __init__(
        self, copies: Sequence[Copy], offset: int, there: npt.NDArray[np.bool_], data: memoryview
    ) -> None:
        self._copies = copies
        self._lead = offset % SECTOR
        self._before = offset // SECTOR
        self._there = there
        self._first = there.argmax(axis=0)
        self.size = memoryview(copies[0].data).nbytes
        self.data = data
        self._options: dict[Span, tuple[_Option, ...]] = {}

    @classmethod
    def make(cls, copies: Sequence[Copy], offset: int) -> _Base | None:
        """Compare the copies; None if there is a sector that none of them has."""
        size, lead = memoryview(copies[0].data).nbytes, offset % SECTOR
        if not size:
            return None
        there = np.ones((len(copies), -(-(lead + size) // SECTOR)), np.bool_)
        for number, copy in enumerate(copies):
            for start, stop in copy.absent:
                there[number, (lead + start) // SECTOR : -(-(lead + stop) // SECTOR)] = False
        if not there.any(axis=0).all():
            return None
        base = cls(copies, offset, there, memoryview(copies[0].data).cast("B"))
        if not there[0].all():
            base.data = memoryview(base._joined())
        return base

    def span(self, first: int, last: int) -> Span:
        """Return the bytes of sectors `first` to `last`."""
        start = max(0, first * SECTOR - self._lead)
        return start, min(self.size, (last + 1) * SECTOR - self._lead)

    def differing(self) -> list[int]:
        """Return the sectors in which copies differ."""
        found = np.zeros(self._there.shape[1], np.bool_)
        for copy, there in zip(self._copies, self._there, strict=True):
            found |= self._unequal(memoryview(copy.data).cast("B")) & there
        numbers: list[int] = np.flatnonzero(found).tolist()
        return numbers

    def options(self, first: int, last: int) -> tuple[_Option, ...]:
        """Return the different contents of some sectors, each with the first copy that has them."""
        start, stop = span = self.span(first, last)
        if span not in self._options:
            groups: dict[bytes, list[int]] = {}
            for number, copy in enumerate(self._copies):
                if self._there[number, first : last + 1].all():
                    groups.setdefault(bytes(copy.data[start:stop]), []).append(number)
            scale = power_of_x(8 * (self.size - stop))
            before = crc32c(self.data[start:stop])
            self._options[span] = tuple(
                _Option(
                    start,
                    stop,
                    numbers[0],
                    multiply(crc32c(data) ^ before, scale),
                    all(_touches(self._copies[number].doubted, span) for number in numbers),
                    len(numbers),
                )
                for data, numbers in groups.items()
            )
        return self._options[span]

    def pieces(self, chosen: Sequence[_Option]) -> tuple[tuple[int, int, int], ...]:
        """Return which copy the bytes come from, with the chosen copies at the places."""
        numbers = self._first.copy()
        for option in chosen:
            first = (option.start + self._lead) // SECTOR
            numbers[first : -(-(option.stop + self._lead) // SECTOR)] = option.number
        turns = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        return tuple(
            (*self.span(low, high - 1), int(numbers[low]))
            for low, high in pairwise(turns)
            if high > low
        )

    def page(self, number: int) -> int:
        """Return the number of the page of the file that a sector lies in."""
        return (number + self._before) // (_PAGE // SECTOR)

    def _joined(self) -> bytes:
        pieces = self.pieces(())
        return b"".join(self._copies[number].data[start:stop] for start, stop, number in pieces)

    def _unequal(self, data: memoryview) -> npt.NDArray[np.bool_]:
        """Tell for each sector whether its bytes differ from those of the base."""
        found = np.zeros(self._there.shape[1], np.bool_)
        ahead = -self._lead % SECTOR
        whole = max(0, (self.size - ahead) // SECTOR)
        found[0] = data[:ahead] != self.data[:ahead]
        skip = int(ahead > 0)
        for first in range(0, whole, _PIECE // SECTOR):
            last = min(whole, first + _PIECE // SECTOR)
            here = slice(ahead + first * SECTOR, ahead + last * SECTOR)
            one, other = (np.frombuffer(view[here], np.uint64) for view in (data, self.data))
            rows = (one != other).reshape(-1, SECTOR // 8)
            found[skip + first : skip + last] = rows.any(axis=1)
        rest = slice(ahead + whole * SECTOR, self.size)
        if data[rest] != self.data[rest]:
            found[-1] = True
        return found


def _touches(spans: Iterable[Span], span: Span) -> bool:
    return any(low < span[1] and span[0] < high for low, high in spans)


def _iter_options(base: _Base, differing: Sequence[int]) -> Iterator[Options]:
    """Iterate over ways to divide the differing sectors into places, with the copies to choose.

    Those with the fewest choices come first.
    """
    seen: set[tuple[tuple[_Option, ...], ...]] = set()
    for restrict in (_likeliest, _undoubted, tuple):
        for spans in (_runs(differing), _pages(base, differing), [(n, n) for n in differing]):
            options = tuple(restrict(base.options(*span)) for span in spans)
            if all(options) and options not in seen:
                seen.add(options)
                yield options


def _undoubted(options: tuple[_Option, ...]) -> tuple[_Option, ...]:
    return tuple(option for option in options if not option.doubted) or options


def _likeliest(options: tuple[_Option, ...]) -> tuple[_Option, ...]:
    """Return the options that are not doubted and that most copies have."""
    good = _undoubted(options)
    most = max((option.votes for option in good), default=0)
    return tuple(option for option in good if option.votes == most)


def _runs(numbers: Sequence[int]) -> list[Span]:
    """Return the first and last number of each run of neighbours."""
    groups = groupby(enumerate(numbers), key=lambda item: item[1] - item[0])
    runs = [[number for _, number in group] for _, group in groups]
    return [(run[0], run[-1]) for run in runs]


def _pages(base: _Base, numbers: Sequence[int]) -> list[Span]:
    """Return the first and last number of those in the same page of the file."""
    pages = (list(page) for _, page in groupby(numbers, key=base.page))
    return [(page[0], page[-1]) for page in pages]
