"""Find where the stretches of files end in an image: at bytes that are unlike weights.

A file system puts its own tables between the stretches of a file, and other files. A tensor that
goes on beyond such a gap goes on behind it, or behind another gap. All such ways are tried, the
nearest first; its checksum says which is right.

    tensors  | bitmap, inodes | tensors, going on  | another file
             gap                                   gap
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import combine_crc, crc32c
from ckptparse.files.storage import Source
from ckptparse.recovery.imaging.pieces import Piece, Placement
from ckptparse.recovery.statistics import SECTOR, judge_elements

__all__ = ["MOST_WAYS", "Gap", "Stretches"]

_WINDOW = 1 << 22
"""Bytes that are judged at once."""
_REACH = 1 << 27
"""Bytes before and behind a place that are judged: 2 s, at the speed of statistics."""
_MOST_KEPT = 16
"""Windows that are kept in memory."""
_EDGES = 4
"""Blocks of zeros at the edge of a gap that may belong to the tensor instead, each tried."""
_SHORT = 2
"""Blocks of a gap that may be an odd part of the tensor itself."""
_MOST_JUMPS = 8
"""Gaps within one tensor."""
_MOST_PASSED = 64
"""Gaps that one stretch may have and that are none."""
_MOST_COST = 4
"""Steps of one way that are not the next ones."""
_MOST_OTHERS = 48
"""Gaps behind which a tensor may go on, besides the nearest."""
MOST_WAYS = 1 << 12
"""Ways that are tried from one end of a tensor, in a second: one of them fits by chance 1 in a
million."""
_MOST_STEPS = 1 << 13
"""Steps of ways from one end of a tensor, also of those that lead nowhere: 0.2 s."""
_FREE_STEPS = 1 << 15
_BYTES_A_STEP = 1 << 11
"""Steps in one image, and for how many of its bytes there may be one more: 100 MB take 2 s."""
Way = tuple[tuple[int, int], ...]
"""Runs of bytes of an image (start, stop) that make up a payload."""

_SPARSE = 8
"""A block of which less than this part is not zero may be a table of the file system."""
_TREE = bytes.fromhex("0af3")
"""How ext4 begins a block that says where a file lies: a few numbers, then zeros."""

_LIKE, _ZERO, _SPARSELY, _UNLIKE = range(4)


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of blocks that are zeros or unlike weights.

    Attributes:
        start: Where it begins in the image.
        stop: Where it ends.
        first: Its first block that is not zeros.
        last: The end of its last block that is not zeros.
    """

    start: int
    stop: int
    first: int
    last: int
    weak: bool
    """Whether it is hardly more than zeros: it often belongs to the tensor itself."""

    def is_short(self, block: int) -> bool:
        """Tell whether it may be an odd part of a tensor, and no gap."""
        return self.stop - self.start <= _SHORT * block

    def edges(self, block: int) -> tuple[list[int], list[int]]:
        """Return where it may begin, and where it may end: zeros may belong to the tensors."""
        starts = range(self.first, self.start - 1, -block)[:_EDGES]
        stops = range(self.stop, self.last - 1, -block)[:_EDGES]
        return list(starts), list(stops)


class Stretches:
    """The gaps of an image, as far as they were asked for."""

    def __init__(self, image: Source, block: int) -> None:
        self._image = image
        self.block = block
        self._states: dict[tuple[int, int, int], npt.NDArray[np.uint8]] = {}
        self._checksums = _Checksums(image, block)
        self._tried: set[tuple[int, int, bool]] = set()
        self._left = _FREE_STEPS + image.size // _BYTES_A_STEP

    def room(self, piece: Piece, position: int, *, forward: bool) -> int:
        """Return how many bytes from a place on, or before it, are in the same stretch."""
        gaps = self._gaps(piece, position)
        if gaps is None:
            return 0
        near = _nearest([gap for gap in gaps if not gap.weak], position, forward=forward)
        if forward:
            return (near.start if near else self._image.size) - position
        return position - (near.stop if near else 0)

    def find(self, piece: Piece, position: int, *, forward: bool) -> list[Placement]:
        """Find a payload that begins at a place of the image, or ends there, and has gaps."""
        if (piece.offset, position, forward) in self._tried:
            return []
        self._tried.add((piece.offset, position, forward))
        gaps = self._gaps(piece, position)
        if not gaps or not 0 <= position <= self._image.size:
            return []
        steps = _Steps(min(_MOST_STEPS, self._left))
        walker = _Walker(gaps, self.block, self._image.size, forward, steps)
        try:
            return self._find(piece, islice(walker.ways(position, piece.size), MOST_WAYS))
        finally:
            self._left -= steps.taken

    def _find(self, piece: Piece, ways: Iterable[Way]) -> list[Placement]:
        """Return the first way of which the bytes have the checksum."""
        known: dict[tuple[int, int], int] = {}
        for way in ways:
            crc = 0
            for run in way:
                if run not in known:
                    known[run] = self._checksums.of(*run)
                crc = combine_crc(crc, known[run], run[1] - run[0])
            if crc == piece.crc:
                return _placed(piece, way)
        return []

    def _gaps(self, piece: Piece, position: int) -> list[Gap] | None:
        """Return the gaps around a place; None if nothing is known of such elements."""
        if not piece.data_type:
            return None
        low = max(0, position - _REACH) // _WINDOW
        high = -(-min(self._image.size, position + _REACH) // _WINDOW)
        states = [self._judged(piece, window) for window in range(low, high)]
        known = np.concatenate(states) if states else np.empty(0, np.uint8)
        if not (known == _LIKE).any():
            return None
        return list(_gaps_in(known, low * _WINDOW, self.block))

    def _judged(self, piece: Piece, window: int) -> npt.NDArray[np.uint8]:
        shift = (piece.offset + piece.lead) % 16
        key = (piece.data_type, shift, window)
        if key not in self._states:
            start = window * _WINDOW
            # Elements go over the borders of blocks as they do in the data file.
            stop = min(self._image.size, start + _WINDOW + shift)
            data = self._image.read_at(start, max(0, stop - start))
            count = -(-(min(stop, start + _WINDOW) - start) // self.block)
            self._states[key] = _states_of(data, piece, shift, self.block)[:count]
        return self._states[key]


class _Checksums:
    """Checksums of runs of an image, from those of its blocks."""

    def __init__(self, image: Source, block: int) -> None:
        self._image = image
        self._block = block
        self._prefixes: dict[int, tuple[bytes, list[int]]] = {}

    def of(self, start: int, stop: int) -> int:
        """Return the CRC-32C of some bytes."""
        crc = 0
        while start < stop:
            window = start // _WINDOW
            end = min(stop, (window + 1) * _WINDOW)
            before, upto = (self._prefix(window, edge - window * _WINDOW) for edge in (start, end))
            part = upto ^ combine_crc(before, 0, end - start)
            crc = combine_crc(crc, part, end - start)
            start = end
        return crc

    def _prefix(self, window: int, count: int) -> int:
        """Return the checksum of the first bytes of a window."""
        if window not in self._prefixes:
            start = window * _WINDOW
            data = self._image.read_at(start, min(_WINDOW, self._image.size - start))
            sums = [0]
            for offset in range(0, len(data), self._block):
                sums.append(crc32c(data[offset : offset + self._block], sums[-1]))
            if len(self._prefixes) >= _MOST_KEPT:
                self._prefixes.pop(next(iter(self._prefixes)))
            self._prefixes[window] = data, sums
        data, sums = self._prefixes[window]
        number, rest = divmod(count, self._block)
        return crc32c(data[count - rest : count], sums[number]) if rest else sums[number]


def _states_of(data: bytes, piece: Piece, shift: int, block: int) -> npt.NDArray[np.uint8]:
    raw = np.frombuffer(data, np.uint8)
    padded = np.zeros(-(-len(raw) // block) * block, np.uint8)
    padded[: len(raw)] = raw
    filled = np.count_nonzero(padded.reshape(-1, block), axis=1)
    unlike = np.zeros(len(padded), np.bool_)
    width = piece.width
    body = memoryview(data)[shift:]
    body = body[: len(body) // width * width]
    judged = judge_elements(body, piece.data_type, offset=shift)
    for start, stop in judged.suspect if judged.judged else [(0, len(body) // width)]:
        unlike[shift + start * width : shift + stop * width] = True
    odd = unlike.reshape(-1, block).sum(axis=1) >= min(SECTOR, block) - 16
    sparse = filled < block // _SPARSE
    tree = sparse & (padded[::block] == _TREE[0]) & (padded[1::block] == _TREE[1])
    states = np.where(odd | tree, _UNLIKE, _LIKE).astype(np.uint8)
    states[~odd & ~tree & sparse] = _SPARSELY
    states[filled == 0] = _ZERO
    return states


def _gaps_in(states: npt.NDArray[np.uint8], base: int, block: int) -> Iterator[Gap]:
    """Iterate over runs of blocks that are zeros or unlike weights; not those of zeros alone."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], states != _LIKE, [0])).astype(np.int8)))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        odd = np.flatnonzero(states[start:stop] > _ZERO)
        if len(odd):
            first, last = start + int(odd[0]), start + int(odd[-1]) + 1
            weak = stop - start <= _SHORT and not (states[start:stop] == _UNLIKE).any()
            edges_of = [base + number * block for number in (start, stop, first, last)]
            yield Gap(edges_of[0], edges_of[1], edges_of[2], edges_of[3], weak)


def _nearest(gaps: Sequence[Gap], position: int, *, forward: bool) -> Gap | None:
    """Return the first gap that begins behind a place, or the last that ends before it."""
    if forward:
        number = bisect_right(gaps, position, key=lambda gap: gap.last)
        return gaps[number] if number < len(gaps) else None
    number = bisect_left(gaps, position, key=lambda gap: gap.first)
    return gaps[number - 1] if number else None


@dataclass(slots=True)
class _Steps:
    """Counts steps, and how many there may be."""

    most: int
    taken: int = 0

    def take(self) -> bool:
        """Take one; False if there are no more."""
        self.taken += self.taken < self.most
        return self.taken < self.most


@dataclass(frozen=True, slots=True)
class _Walker:
    """Goes from the known end of a payload to the other, through gaps.

    The way that is tried first goes on behind each gap. Whatever differs from that costs one: a
    block of zeros at the edge of a gap that belongs to the payload, a gap that is passed over as an
    odd part of the payload, another stretch than the next one.
    """

    gaps: Sequence[Gap]
    block: int
    size: int
    """Of the image."""
    forward: bool
    steps: _Steps

    def ways(self, position: int, size: int) -> Iterator[Way]:
        """Iterate over runs of bytes that a payload may consist of, in order, cheapest first."""
        for cost in range(_MOST_COST + 1):
            for way in self._walk(position, size, cost, _MOST_JUMPS):
                yield way if self.forward else way[::-1]

    def _walk(self, position: int, size: int, cost: int, jumps: int) -> Iterator[Way]:
        if not self.steps.take():
            return
        sign = 1 if self.forward else -1
        ahead = self._ahead(position)
        if self._passed(ahead, position + sign * size) == cost:
            yield (_span(position, position + sign * size),)
        paid = 0
        for gap in ahead if jumps else ():
            used = paid + gap.weak
            paid += not gap.weak
            near, far = self._edges(gap)
            for kept, edge in enumerate(near[: max(0, cost - used + 1)]):
                room = (edge - position) * sign
                if not 0 < room < size:
                    continue
                left = cost - used - kept
                for price, landing in self._landings(gap, far, left):
                    for rest in self._walk(landing, size - room, left - price, jumps - 1):
                        yield (_span(position, edge), *rest)

    def _ahead(self, position: int) -> list[Gap]:
        """Return the nearest gap; if it may be no gap, the next ones too."""
        near = _nearest(self.gaps, position, forward=self.forward)
        found: list[Gap] = []
        passed = 0
        while near is not None and passed <= _MOST_COST and len(found) < _MOST_PASSED:
            found.append(near)
            passed += not near.weak
            place = self._number(near) + (1 if self.forward else -1)
            known = 0 <= place < len(self.gaps) and near.is_short(self.block)
            near = self.gaps[place] if known else None
        return found

    def _passed(self, ahead: Sequence[Gap], end: int) -> int:
        """Return how many gaps are passed over on the way to the end; -1 if that cannot be."""
        passed = 0
        for gap in ahead:
            reached = end > gap.first if self.forward else end < gap.last
            if reached and not gap.is_short(self.block):
                return -1
            passed += reached and not gap.weak
        return passed if 0 <= end <= self.size else -1

    def _landings(self, gap: Gap, far: Sequence[int], cost: int) -> Iterator[tuple[int, int]]:
        """Iterate over where a payload may go on, and what that costs."""
        yield from enumerate(far[: cost + 1])
        if cost:
            place = self._number(gap)
            low = max(0, place - _MOST_OTHERS // 2)
            others = [*self.gaps[low:place], *self.gaps[place + 1 :]]
            for other in others[:_MOST_OTHERS]:
                yield 1, other.stop if self.forward else other.first

    def _edges(self, gap: Gap) -> tuple[list[int], list[int]]:
        starts, stops = gap.edges(self.block)
        return (starts, stops) if self.forward else (stops, starts)

    def _number(self, gap: Gap) -> int:
        return bisect_left(self.gaps, gap.start, key=lambda one: one.start)


def _span(position: int, edge: int) -> tuple[int, int]:
    return (position, edge) if position < edge else (edge, position)


def _placed(piece: Piece, way: Sequence[tuple[int, int]]) -> list[Placement]:
    found, offset = [], piece.offset
    for start, stop in way:
        found.append(Placement(offset, stop - start, start))
        offset += stop - start
    return found
