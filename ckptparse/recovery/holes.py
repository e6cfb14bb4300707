"""Find lost sectors in tensors whose checksums are not known, and no zeros that these hold rightly.

Rows that were never trained, pruned blocks and fresh slots are runs of zeros, too, and without a
checksum nothing says that a tensor is damaged. A run of zeros is a hole only if its borders say so:

    a lost sector      begins and ends at multiples of 512 bytes of the file, or of 4,096
    a tensor's zeros   begin and end with rows, or with equal parts of a row (gates, heads), or at
                       any element

The largest part of the tensor is taken that may begin or end there. Parts of so many bytes begin at
a multiple of 512 by chance in that many of 512 places. If the chances of both borders together,
and once more for each run of zeros that begins or ends elsewhere in the same tensor, are at most 1
in 2,000, the run is a hole. What begins or ends with a tensor is none. So of tensors whose rows are
multiples of 512 bytes, and begin at one, no holes are told from rows.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import mul

import numpy as np

from ckptparse.dtypes import item_size
from ckptparse.examination.outcome import Span
from ckptparse.examination.payload import Payload
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import EvidenceRule
from ckptparse.recovery.statistics import SECTOR

__all__ = ["Holes"]

_PAGE = 4096
"""Bytes of a page: what a download or a file system loses."""
_MOST_CHANCE = 1 / 2000
"""That a run of zeros begins and ends so by chance. It may look like sectors or like pages, so all
together it is at most 1 in 1,000."""
_PARTS = (2, 3, 4, 6, 8, 12, 16)
"""Equal parts of a row that may be zeros: a recurrent layer has 3 or 4 gates, and joined layers of
attention 3 parts with up to 16 heads."""
_PIECE = 1 << 20
"""Bytes that are looked at together."""


@dataclass(frozen=True, slots=True)
class _Border:
    """Where a run of zeros begins or ends."""

    owner: int | None
    """Which payload it lies in; None at the border of one, or outside of all."""
    chance: float
    """That zeros of this payload begin or end there."""


class Holes:
    """The lost sectors of data files, by what lies there without a checksum."""

    def __init__(self, files: DataFiles, payloads: Iterable[Payload | None]) -> None:
        """Take all payloads; those that have a checksum are left out."""
        self._files = files
        self._payloads: dict[DataFile, list[Payload]] = defaultdict(list)
        for payload in payloads:
            if payload is not None and payload.crc32c is None and payload.size:
                self._payloads[payload.file].append(payload)
        self._found: dict[DataFile, list[Span]] = {}

    def of(self, payload: Payload) -> list[Span]:
        """Return the bytes of a payload that lie in holes."""
        holes = self._found.get(payload.file)
        if holes is None:
            self._found[payload.file] = holes = self._find(payload.file)
        start, stop = payload.offset, payload.end
        found = []
        for number in range(max(0, bisect_right(holes, (start,)) - 1), len(holes)):
            low, high = holes[number]
            if low >= stop:
                break
            if high > start:
                found.append((max(low, start) - start, min(high, stop) - start))
        return found

    def _find(self, file: DataFile) -> list[Span]:
        payloads = sorted(self._payloads.get(file, ()), key=lambda one: one.offset)
        if not payloads:
            return []
        owners = _Owners(payloads)
        last = min(max(one.end for one in payloads), self._files.size(file) or 0)
        first = payloads[0].offset // SECTOR * SECTOR
        runs = [self._widen(file, run) for run in self._sectors(file, first, last)]
        borders = [(owners.border(start), owners.border(stop, ends=True)) for start, stop in runs]
        # What is no sector tells how many runs of zeros a tensor has by itself.
        common = Counter[int | None](
            border.owner
            for border in chain.from_iterable(borders)
            if border.owner is not None and border.chance == 1.0
        )
        return [
            run
            for run, (low, high) in zip(runs, borders, strict=True)
            if low.chance * high.chance * (1 + max(common[low.owner], common[high.owner]))
            <= _MOST_CHANCE
        ]

    def _sectors(self, file: DataFile, first: int, last: int) -> list[Span]:
        """Return the runs of whole sectors that hold only zeros."""
        empty = np.zeros(max(0, last - first) // SECTOR + 2, np.int8)
        done = 1
        for start in range(first, last, _PIECE):
            size = min(_PIECE, last - start) // SECTOR * SECTOR
            words = np.frombuffer(self._files.read(file, start, size), np.uint64)
            sectors = words.reshape(-1, SECTOR // 8)
            empty[done : done + len(sectors)] = ~sectors.any(axis=1)
            done += len(sectors)
        edges = np.flatnonzero(np.diff(empty))
        places = (first + SECTOR * edges).tolist()
        return list(zip(places[::2], places[1::2], strict=True))

    def _widen(self, file: DataFile, run: Span) -> Span:
        """Return a run with the zeros before and behind it, which are less than a sector each."""
        start, stop = run
        low, high = max(0, start - SECTOR), min(stop + SECTOR, self._files.size(file) or 0)
        before = bytes(self._files.read(file, low, start - low)).rstrip(b"\0")
        behind = bytes(self._files.read(file, stop, high - stop))
        return low + len(before), high - len(behind.lstrip(b"\0"))


class _Owners:
    """Which payload a byte belongs to."""

    def __init__(self, payloads: Sequence[Payload]) -> None:
        self._payloads = payloads
        self._starts = [one.offset for one in payloads]

    def border(self, place: int, *, ends: bool = False) -> _Border:
        """Judge the border of a run of zeros; `ends` tells that the run ends there."""
        number = bisect_right(self._starts, place) - 1
        payload = self._payloads[number] if number >= 0 else None
        if payload is None or not payload.offset < place < payload.end:
            return _Border(None, 1.0)
        if place % SECTOR:
            return _Border(number, 1.0)
        width = item_size(payload.data_type) or 1
        inside = place - payload.offset
        # A border may cut an element of which the other bytes are zeros, too.
        elements = inside // width if ends else -(-inside // width)
        part = width * _largest_part(payload, elements)
        return _Border(number, min(1.0, part / (SECTOR if place % _PAGE else _PAGE)))


def _largest_part(payload: Payload, place: int) -> int:
    """Return the elements of the largest part of a tensor that may begin or end at an element."""
    count = math.prod(payload.shape) if item_size(payload.data_type) else payload.size
    if any(record.rule is EvidenceRule.GUESSED_SIZES for record in payload.grounds):
        # Its dimensions are not known.
        return math.gcd(place, count)
    rows = list(accumulate(reversed(payload.shape), mul)) or [1]
    fitting = [size for size in rows if place % size == 0]
    fitting += [
        rows[0] // number
        for number in _PARTS
        if rows[0] % number == 0 and place % (rows[0] // number) == 0
    ]
    return max(fitting, default=1)
