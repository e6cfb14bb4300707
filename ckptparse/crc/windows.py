"""Test windows of bytes for their sizes and checksums, by the registers at their starts and ends.

The register after a window of n bytes is `before · x^(8n) ^ own`. Taken back to position 0 (see
`crc.marks`), that is `before ^ own · b^end`. Of all windows, 16 bits of that are tested; of the few
that pass, all bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc_of_zeros
from ckptparse.crc.field import multiply, multiply_each, multiply_table, power_of_x
from ckptparse.crc.marks import SHARE, Marker
from ckptparse.crc.sequences import MOST, Marks, Sequences, Words, sequences_of
from ckptparse.crc.threads import Spare, in_threads

__all__ = ["Column", "Ends", "Positions", "Track", "Wanted", "Words", "find_windows"]

Positions = npt.NDArray[np.int64]

_FEW = 1 << 15
"""Up to so many windows, all bits of all are tested: that takes less time than to make marks."""
_MOST_CHECKSUMS = 256
"""For more checksums of one size, all bits of all its windows are tested, once for all of them."""
_TILE = 1 << 20
"""Windows for which the marks of the powers of b are computed at once."""
_TESTED = 1 << 16
"""Windows that are tested at once: with more, the marks leave the processor's cache."""
_LOOKED_AT = 1 << 16
"""Windows that are looked at together at most: where all bytes are zeros, every one may pass."""

_RARE = 16
"""Up to so many windows that fit are found one by one. By chance, it is one."""


class Wanted(NamedTuple):
    """A run of bytes that is sought."""

    size: int
    crc: int
    """The unmasked CRC-32C of the bytes."""


class Track(ABC):
    """Registers at the same place of every step.

    Attributes:
        step: Bytes from one position to the next.
        place: Bytes from a position to its register: fewer than a step.
        count: How many registers there are.
    """

    __slots__ = ("_marks", "count", "place", "step")

    def __init__(self, step: int, place: int, count: int) -> None:
        self.step = step
        self.place = place
        self.count = count
        self._marks: Marks | None = None

    @property
    def back(self) -> int:
        """What takes a register back from its place to the position."""
        return power_of_x(-8 * self.place)

    def marks(self) -> Marks:
        """Return the marks of all registers, made at the first call."""
        if self._marks is None:
            self._marks = np.empty(self.count, np.uint16)
            self._fill(self._marks)
        return self._marks

    @abstractmethod
    def values(self, positions: Positions) -> Words:
        """Return the registers at some positions."""

    @abstractmethod
    def _fill(self, marks: Marks) -> None:
        """Compute the marks of all registers."""


class Ends(NamedTuple):
    """Where the registers at the ends of windows of one size are.

    Attributes:
        track: The registers.
        offset: The end is so many positions after the start.
        windows: How many windows there are, the first at position 0.
    """

    track: Track
    offset: int
    windows: int


class Column(Track):
    """Registers that are kept in an array."""

    __slots__ = ("_words",)

    def __init__(self, step: int, place: int, words: Words) -> None:
        super().__init__(step, place, len(words))
        self._words = words

    def values(self, positions: Positions) -> Words:
        """Return the registers at some positions."""
        return self._words[positions]

    def _fill(self, marks: Marks) -> None:
        spare = Spare(partial(Marker, sequences_of(self.step)))

        def fill(first: int) -> None:
            some = slice(first, first + SHARE)
            with spare.taken() as marker:
                marker.fill(self._words[some], first, marks[some], factor=self.back)

        in_threads(fill, range(0, self.count, SHARE), short=True)


def find_windows(
    starts: Track, wanted: Iterable[Wanted], ends: Callable[[int], Ends]
) -> dict[Wanted, list[int]]:
    """Return for each run of bytes the positions of all windows that have its size and checksum.

    Checksums of one size are sought together, by several threads if the interpreter has no lock.

    Args:
        starts: The registers where windows start.
        wanted: The runs.
        ends: Returns for a size where the windows end.
    """
    found: dict[Wanted, list[int]] = {item: [] for item in wanted}
    grouped: dict[int, list[Wanted]] = defaultdict(list)
    for item in found:
        grouped[item.size].append(item)
    known = ((size, items, ends(size)) for size, items in grouped.items() if size)
    sizes = [_Size(size, items, there) for size, items, there in known if there.windows > 0]
    few = sum(size.ends.windows for size in sizes) <= _FEW
    marked = [size for size in sizes if not few and size.checksums <= _MOST_CHECKSUMS]
    likely = _likely(starts, marked) if marked else {}
    for item, position in _confirmed(starts, sizes, likely):
        found[item].append(position)
    return found


class _Size:
    """Windows of one size, and the checksums that are sought of it."""

    __slots__ = ("_registers", "_wanted", "ends", "size")

    def __init__(self, size: int, wanted: Iterable[Wanted], ends: Ends) -> None:
        self.size = size
        self.ends = ends
        zeros = crc_of_zeros(size)
        self._wanted = {item.crc ^ zeros: item for item in wanted}
        self._registers = np.array(list(self._wanted), np.uint32)

    @property
    def checksums(self) -> int:
        """How many checksums are sought."""
        return len(self._wanted)

    def terms(self, sequences: Sequences) -> list[tuple[int, ...]]:
        """Return for each checksum what marks at position 0 and at the window's end differ by."""
        to_position = power_of_x(-8 * sequences.step * self.ends.offset)
        back = multiply(self.ends.track.back, to_position)
        return [sequences.terms(multiply(own, back)) for own in self._wanted]

    def hits(self, positions: Positions, first: Words, last: Words) -> Iterator[tuple[Wanted, int]]:
        """Iterate over the runs that are at some positions, by the registers there."""
        own = multiply_each(first, multiply_table(power_of_x(8 * self.size))) ^ last
        one = len(self._registers) == 1
        fits = own == self._registers[0] if one else np.isin(own, self._registers)
        if not fits.any():
            return
        for register, position in zip(own[fits].tolist(), positions[fits].tolist(), strict=True):
            yield self._wanted[register], position


def _likely(starts: Track, sizes: Sequence[_Size]) -> dict[_Size, Positions]:
    """Return for each size the positions of the windows whose marks fit, each once."""
    sequences = sequences_of(starts.step)
    before = starts.marks()
    tests = [
        _Test(size.ends, before, size.ends.track.marks(), size.terms(sequences)) for size in sizes
    ]
    most = max(size.ends.windows for size in sizes)
    spare = Spare(_Tile)

    def search(low: int) -> list[list[Positions]]:
        found: list[list[Positions]] = [[] for _ in tests]
        with spare.taken() as tile:
            sequences.fill(low, tile.expected[: MOST - _TILE + most - low])
            for first in range(0, _TILE, _TESTED):
                for places, test in zip(found, tests, strict=True):
                    places.extend(tile.fitting(low, first, test))
        return found

    shares = in_threads(search, range(0, most, _TILE), short=True)
    return {
        size: _joined([part for share in shares for part in share[number]], size.checksums)
        for number, size in enumerate(sizes)
    }


def _joined(parts: Sequence[Positions], checksums: int) -> Positions:
    """Return all positions, each once: windows of one size may fit several checksums."""
    found = np.concatenate([np.empty(0, np.int64), *parts])
    if checksums > 1:
        found.sort()
        found = found[np.append(True, found[1:] != found[:-1])[: len(found)]]
    return found


class _Test(NamedTuple):
    """What windows of one size are tested by."""

    ends: Ends
    before: Marks
    after: Marks
    targets: list[tuple[int, ...]]
    """For each checksum: which powers of b, times that of a window's position, its two marks differ
    by."""


class _Tile:
    """Memory for the test of some windows. Memory that is used again need not be made ready.

    Attributes:
        expected: The marks of the powers of b, from that of the first window's position on.
    """

    __slots__ = ("_bytes", "_difference", "_fits", "_other", "expected")

    def __init__(self) -> None:
        self.expected = np.empty(MOST, np.uint16)
        self._difference = np.empty(_TESTED, np.uint16)
        self._other = np.empty(_TESTED, np.uint16)
        self._bytes = bytearray(_TESTED)
        self._fits = np.frombuffer(self._bytes, np.bool_)

    def fitting(self, low: int, first: int, test: _Test) -> Iterator[Positions]:
        """Iterate over the positions whose windows fit one of the targets.

        Args:
            low: The position that `expected` begins with.
            first: How many positions after it the first window is.
            test: What the windows are tested by.
        """
        start = low + first
        count = min(_TESTED, test.ends.windows - start)
        if count <= 0:
            return
        end = start + test.ends.offset
        difference, fits = self._difference[:count], self._fits[:count]
        # If there is one target, the difference itself may be changed: it is in the cache.
        other = difference if len(test.targets) == 1 else self._other[:count]
        before, after = test.before[start : start + count], test.after[end : end + count]
        np.bitwise_xor(before, after, out=difference)
        for terms in test.targets:
            pieces = [self.expected[first + term : first + term + count] for term in terms]
            left = difference
            for piece in pieces[:-1]:
                np.bitwise_xor(left, piece, out=other)
                left = other
            np.equal(left, pieces[-1] if pieces else 0, out=fits)
            places = _true_places(self._bytes, count)
            if len(places):
                yield places + start


def _true_places(fits: bytearray, count: int) -> Positions:
    """Return the places of ones among so many zeros and ones."""
    found: list[int] = []
    place = fits.find(1, 0, count)
    while place >= 0:
        if len(found) == _RARE:
            return np.flatnonzero(np.frombuffer(fits, np.bool_, count))
        found.append(place)
        place = fits.find(1, place + 1, count)
    return np.array(found, np.int64)


def _confirmed(
    starts: Track, sizes: Sequence[_Size], likely: Mapping[_Size, Positions]
) -> Iterator[tuple[Wanted, int]]:
    """Iterate over the runs that are at likely positions, or at any one: all bits agree."""
    waiting: list[tuple[_Size, Positions]] = []
    total = 0
    for size in sizes:
        known = likely.get(size)
        count = size.ends.windows if known is None else len(known)
        for first in range(0, count, _LOOKED_AT):
            last = min(first + _LOOKED_AT, count)
            some = np.arange(first, last) if known is None else known[first:last]
            waiting.append((size, some))
            total += len(some)
            if total >= _LOOKED_AT:
                yield from _looked_at(starts, waiting)
                waiting, total = [], 0
    yield from _looked_at(starts, waiting)


def _looked_at(
    starts: Track, waiting: Sequence[tuple[_Size, Positions]]
) -> Iterator[tuple[Wanted, int]]:
    """Iterate over the runs that are at positions; each track is asked once."""
    asked: dict[Track, list[Positions]] = defaultdict(list)
    for size, positions in waiting:
        asked[starts].append(positions)
        asked[size.ends.track].append(positions + size.ends.offset)
    answers = {}
    for track, parts in asked.items():
        values = track.values(np.concatenate(parts))
        answers[track] = iter(np.split(values, np.cumsum([len(part) for part in parts])[:-1]))
    for size, positions in waiting:
        first = next(answers[starts])
        yield from size.hits(positions, first, next(answers[size.ends.track]))
