"""Find runs of bytes at unknown places, by their sizes and checksums.

The register after every step of the bytes is computed once. Then the register of a window of n
bytes is `after(end) ^ after(start) · x^(8n)`. So one more size costs one multiplication and one
comparison for each position. One more checksum of the same size costs nothing.

    Registers        at every 4 bytes of a buffer, or at every block of it. They are computed in
                     lanes: the library's checksum gives the register at the start of each lane,
                     and numpy advances all lanes together, one word at a time.
    GridRegisters    of a stream, at chosen places of every block. As fast as the library's
                     checksum; 4 bytes are kept for each block and place.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.field import (
    multiply,
    multiply_each,
    multiply_table,
    power_of_x,
    powers_of_x,
)

__all__ = ["GridRegisters", "Registers", "Wanted", "byte_registers", "find_splits"]

_WORD = 4
_BATCH = 1 << 13
"""Registers that are advanced together: they and the tables fit into the processor's cache."""
_SEGMENT = 1 << 20
"""Words that a thread advances: 4 MiB, of which two segments give two threads work."""
_COARSE_STEP = 256
"""From this step on, one call of the library's checksum for each step is as fast as numpy."""
_SHARE = 1 << 17
"""Positions that a thread takes at a time, so that it uses the tables of a size many times."""
_ROUND = 1 << 14
"""Positions that are tested at once: their arrays stay in the processor's cache."""
_MOST_THREADS = 8
"""Threads at most: more wait for memory, not for the processor."""
_FEW_STEPS = 64
_ALL_ONES = 0xFFFFFFFF

Words = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]


class Wanted(NamedTuple):
    """A run of bytes that is sought."""

    size: int
    crc: int
    """The unmasked CRC-32C of the bytes."""


Hits = list[tuple[Wanted, int]]
Ends = Callable[[int], Words]
"""The registers at the ends of windows of a size."""


class Registers:
    """The CRC registers of some bytes after every `step` of them.

    Attributes:
        step: 4 bytes, or a multiple of 256: windows start at multiples of it.
        size: How many bytes there are.
    """

    __slots__ = ("_after", "_data", "size", "step")

    def __init__(self, data: bytes | memoryview, *, step: int = _WORD) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self.size = len(data)
        self.step = step
        fine = step < _COARSE_STEP
        self._after = word_registers(self._data) if fine else _coarse(memoryview(data), step)

    def find(self, size: int, crc: int) -> list[int]:
        """Return the offsets, multiples of the step, of all windows of that size and checksum.

        On average `positions(size)` / 2^32 windows fit by chance.
        """
        return self.find_each([Wanted(size, crc)])[Wanted(size, crc)]

    def find_each(self, wanted: Iterable[Wanted]) -> dict[Wanted, list[int]]:
        """Return for each run of bytes the offsets, multiples of the step, where it is.

        Sizes larger than the buffer cost nothing. Checksums of one size are sought together, and
        several threads share large work.
        """
        found: dict[Wanted, list[int]] = {item: [] for item in wanted}
        fitting = [item for item in found if item.size and self.positions(item.size)]
        most = max((self.positions(item.size) for item in fitting), default=0)
        tests = _make_tests(fitting)
        for item, offset in _share_out(self._hits, range(0, most, _SHARE), tests):
            found[item].append(offset)
        return {item: sorted(offsets) for item, offsets in found.items()}

    @property
    def after(self) -> Words:
        """The registers themselves, started at all ones: after 0 bytes, after `step` bytes, ..."""
        return self._after

    def moved(self) -> Registers:
        """Return the registers of the bytes from the second on: quicker than to compute them."""
        made = object.__new__(Registers)
        made._data, made.size, made.step = self._data[1:], self.size - 1, self.step
        made._after = _one_further(self._after, self._data[:: self.step])
        return made

    def positions(self, size: int) -> int:
        """Return how many windows of that size are tried."""
        return (self.size - size) // self.step + 1 if size <= self.size else 0

    def _hits(self, first: int, tests: Sequence[_Test | _FourTests]) -> Hits:
        """Return the runs at the positions of one share."""
        starts = self._after[first : first + _SHARE]

        def ends(begin: int, stop: int, size: int) -> Words:
            last = min(first + stop, self.positions(size))
            return self._ends(first + begin, size, max(0, last - first - begin))

        hits = _iter_hits(starts, tests, ends)
        return [(item, (first + place) * self.step) for item, place in hits]

    def _ends(self, first: int, size: int, count: int) -> Words:
        """Return the registers at the ends of `count` windows, also between two steps."""
        whole, rest = divmod(size, self.step)
        ends = self._after[first + whole : first + whole + count]
        table = multiply_table(power_of_x(8))[0] if rest else ends
        for place in range(rest):
            at = (first + whole) * self.step + place
            byte = self._data[at : at + (count - 1) * self.step + 1 : self.step]
            ends = table[(ends ^ byte) & 0xFF] ^ ends >> 8
        return ends


class GridRegisters:
    """The CRC registers of a stream at the same places of every block of it.

    The bytes themselves are not kept, only 4 bytes for each block and place. Windows may begin and
    end at any of the places. An incomplete last block has no places.

    Attributes:
        step: The size of a block in bytes: 512, 1,024, 2,048 or 4,096.
        places: Offsets within a block at which the register is kept; 0 is always one of them.
        size: How many bytes of whole blocks there were.
    """

    __slots__ = ("_after", "_crc", "_format", "_last", "_rest", "places", "size", "step")

    def __init__(self, step: int, places: Iterable[int] = ()) -> None:
        self.step = step
        self.places = tuple(sorted({0, *(place % step for place in places)}))
        edges = [*self.places[1:], step]
        pieces = (stop - start for start, stop in zip(self.places, edges, strict=True))
        self._format = struct.Struct("".join(f"{piece}s" for piece in pieces))
        self._after: list[Words] = []
        self._rest = b""
        self._crc = 0
        self._last = 0
        self.size = 0

    def extend(self, data: bytes | memoryview) -> None:
        """Add the next bytes of the stream."""
        view = memoryview(data)
        if self._rest:
            missing = self.step - len(self._rest)
            self._rest += view[:missing]
            view = view[missing:]
            if len(self._rest) < self.step:
                return
            self._take(memoryview(self._rest))
            self._rest = b""
        whole = len(view) // self.step * self.step
        if whole:
            self._take(view[:whole])
        self._rest = bytes(view[whole:])

    def find_each(self, wanted: Iterable[Wanted], *, place: int = 0) -> dict[Wanted, list[int]]:
        """Return for each run of bytes the offsets where it is, at that place of a block.

        Raises:
            ValueError: The register at the start or the end of a run was not kept.
        """
        found: dict[Wanted, list[int]] = {item: [] for item in wanted}
        fitting = [item for item in found if 0 < item.size <= self.size - place]
        for item in fitting:
            self._column((place + item.size) % self.step)
        shares = range(0, self.size // self.step, _SHARE)

        def hits(first: int, tests: Sequence[_Test | _FourTests]) -> Hits:
            return self._hits(first, tests, place)

        for item, offset in _share_out(hits, shares, _make_tests(fitting)):
            found[item].append(offset)
        return {item: sorted(offsets) for item, offsets in found.items()}

    def _take(self, blocks: memoryview) -> None:
        pieces = chain.from_iterable(self._format.iter_unpack(blocks))
        crcs = accumulate(pieces, _continued, initial=self._crc)
        count = len(blocks) // self.step
        after = np.fromiter(crcs, np.uint32, count * len(self.places) + 1)
        self._crc = int(after[-1])
        # The register at place 0 of a block is the one at the end of the block before.
        after ^= np.uint32(_ALL_ONES)
        self._after.append(after[:-1].reshape(count, len(self.places)))
        self.size += len(blocks)

    def _joined(self) -> Words:
        """Return the registers, a row for each block, and one more for the end of the last."""
        if len(self._after) != 1 or self._last != self.size:
            end = np.zeros((1, len(self.places)), np.uint32)
            end[0, 0] = self._crc ^ _ALL_ONES
            known = (
                self._after[0][:-1] if self._last else np.empty((0, len(self.places)), np.uint32)
            )
            later = self._after[1:] if self._last else self._after
            self._after = [np.concatenate([known, *later, end])]
            self._last = self.size
        return self._after[0]

    def _column(self, place: int) -> int:
        if place not in self.places:
            raise ValueError(f"The registers at byte {place} of each block were not kept")
        return self.places.index(place)

    def _hits(self, first: int, tests: Sequence[_Test | _FourTests], place: int) -> Hits:
        """Return the runs at the positions of one share."""
        after = self._joined()
        starts = after[first : min(first + _SHARE, len(after) - 1), self._column(place)]

        def ends(begin: int, stop: int, size: int) -> Words:
            blocks, end_place = divmod(place + size, self.step)
            # The last row is the end of the last block: of it only place 0 is known.
            last = min(first + stop + blocks, len(after) - (end_place != 0))
            return after[first + begin + blocks : last, self._column(end_place)]

        hits = _iter_hits(starts, tests, ends)
        return [(item, (first + row) * self.step + place) for item, row in hits]


class _Test:
    """Tests whether windows of one size have one of some checksums: 16 bits first, then all."""

    __slots__ = ("_high", "_low", "_power", "_some", "_wanted", "size")

    def __init__(self, size: int, crcs: Collection[int]) -> None:
        self.size = size
        self._power = power_of_x(8 * size)
        zeros = crc_of_zeros(size)
        self._wanted = {crc ^ zeros: Wanted(size, crc) for crc in crcs}
        self._low, self._high = (half.astype(np.uint16) for half in _halves(self._power))
        self._some = np.zeros(1 << 16, np.bool_)
        self._some[[register & 0xFFFF for register in self._wanted]] = True

    def hits(self, low: Places, high: Places, ends: Ends) -> Iterator[tuple[Wanted, int]]:
        """Iterate over the runs that fit, and their places."""
        last = ends(self.size)
        values = np.empty(len(last), np.uint16)
        other = np.empty(len(last), np.uint16)
        np.take(self._low, low[: len(last)], out=values, mode="clip")
        np.take(self._high, high[: len(last)], out=other, mode="clip")
        values ^= other
        values ^= last.astype(np.uint16)
        for place in np.flatnonzero(self._some[values]).tolist():
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


class _FourTests:
    """Tests four sizes with one checksum each together: 8 bits of each first, then all."""

    __slots__ = ("_high", "_low", "_slots")

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._slots: list[_Slot] = []
        low, high = np.zeros((2, 1 << 16, 4), np.uint8)
        for number, item in enumerate(wanted):
            power = power_of_x(8 * item.size)
            register = item.crc ^ crc_of_zeros(item.size)
            self._slots.append(_Slot(item, multiply_table(power), register))
            low[:, number], high[:, number] = (half.astype(np.uint8) for half in _halves(power))
            low[:, number] ^= np.uint8(register & 0xFF)
        self._low, self._high = (table.view(np.uint32).reshape(-1) for table in (low, high))

    def hits(self, low: Places, high: Places, ends: Ends) -> Iterator[tuple[Wanted, int]]:
        """Iterate over the runs that fit, and their places."""
        lasts = [ends(slot.item.size) for slot in self._slots]
        count = max(map(len, lasts))
        packed = np.empty((count, 4), np.uint8)
        values, other = packed.view(np.uint32).reshape(-1), np.empty(count, np.uint32)
        np.take(self._low, low[:count], out=values, mode="clip")
        np.take(self._high, high[:count], out=other, mode="clip")
        values ^= other
        fitting = np.zeros((count, 4), np.uint8)
        for number, last in enumerate(lasts):
            np.copyto(fitting[: len(last), number], last, casting="unsafe")
        places, numbers = np.divmod(np.flatnonzero(packed == fitting), 4)
        for number, (slot, last) in enumerate(zip(self._slots, lasts, strict=True)):
            likely = places[(numbers == number) & (places < len(last))]
            for place in likely[slot.confirm(low[likely], high[likely], last[likely])].tolist():
                yield slot.item, place


def _halves(factor: int) -> tuple[Words, Words]:
    """Return the products of a factor with every low half and with every high half of a word."""
    table = multiply_table(factor)
    low, high = ((table[n + 1][:, None] ^ table[n]).reshape(-1) for n in (0, 2))
    return low, high


def _make_tests(wanted: Iterable[Wanted]) -> list[_Test | _FourTests]:
    """Group what is sought: sizes with one checksum in fours, the others one by one."""
    sizes: dict[int, list[Wanted]] = defaultdict(list)
    for item in wanted:
        sizes[item.size].append(item)
    alone = sorted(items[0] for items in sizes.values() if len(items) == 1)
    several = [items for items in sizes.values() if len(items) > 1]
    tests: list[_Test | _FourTests] = []
    tests += [_FourTests(alone[n : n + 4]) for n in range(0, len(alone), 4)]
    tests += [_Test(items[0].size, [item.crc for item in items]) for items in several]
    return tests


def _iter_hits(
    starts: Words, tests: Sequence[_Test | _FourTests], ends: Callable[[int, int, int], Words]
) -> Iterator[tuple[Wanted, int]]:
    """Iterate over the windows that fit, from the registers at their starts.

    `ends(begin, stop, size)` gives the registers at the ends of windows. It gives fewer if the last
    windows would go beyond the end.
    """
    low, high = (starts & 0xFFFF).astype(np.intp), (starts >> 16).astype(np.intp)
    for test in tests:
        for begin in range(0, len(starts), _ROUND):
            stop = min(begin + _ROUND, len(starts))
            here = partial(ends, begin, stop)
            for item, place in test.hits(low[begin:stop], high[begin:stop], here):
                yield item, begin + place


def _share_out(
    work: Callable[[int, Sequence[_Test | _FourTests]], Hits],
    shares: range,
    tests: Sequence[_Test | _FourTests],
) -> Iterator[tuple[Wanted, int]]:
    """Do the work for every share, in several threads if there are several shares."""
    if not tests:
        return
    threads = min(len(shares), os.cpu_count() or 1, _MOST_THREADS)
    if threads < 2:
        for first in shares:
            yield from work(first, tests)
        return
    with ThreadPoolExecutor(threads) as pool:
        for hits in pool.map(lambda first: work(first, tests), shares):
            yield from hits


def find_splits(
    head: bytes | memoryview,
    tail: bytes | memoryview,
    crc: int,
    size: int,
    *,
    step: int,
    first: int,
) -> list[int]:
    """Find where a run of bytes changes from one fragment to another.

    Every place is tried in one pass. For fragments a and b and a split after s of n bytes, the
    run's register is the one of b alone plus x^(8(n - s)) times the difference of a and b after s.

    Args:
        head: Bytes that begin where the run begins; at most `size` of them.
        tail: Bytes that end where the run ends; at most `size` of them.
        crc: The unmasked checksum of the run.
        size: How many bytes the run has.
        step: The size of a block: fragments meet at its borders.
        first: Offset within the run of the first border.

    Returns:
        For each split that fits, how many of the run's bytes come from `head`. By chance as many
        fit as there are borders, / 2^32.
    """
    before = memoryview(tail).nbytes
    lowest, highest = max(0, size - before), min(size, memoryview(head).nbytes)
    start = first + max(0, -(-(lowest - first) // step)) * step
    splits = range(start, highest + 1, step)
    if not splits:
        return []
    heads = _registers_at(memoryview(head), splits)
    # Bytes before the tail count as zeros: they leave a register of zero as it is.
    tails = _registers_at(memoryview(tail), range(start - lowest, highest + 1 - lowest, step))
    whole = crc32c(memoryview(tail)[before - (size - lowest) :]) ^ crc_of_zeros(size - lowest)
    difference = crc ^ crc_of_zeros(size) ^ whole
    powers = powers_of_x(8 * step, len(splits))
    scale = multiply_table(multiply(difference, power_of_x(-8 * (size - start))))
    fits = heads ^ tails == multiply_each(powers, scale)
    return [start + int(place) * step for place in np.flatnonzero(fits)]


def byte_registers(data: bytes | memoryview) -> Words:
    """Return the registers, started at all ones, before the first byte and after every byte."""
    after = np.empty(len(data) + 1, np.uint32)
    registers = Registers(data)
    for byte in range(_WORD):
        here = after[byte::_WORD]
        here[:] = registers.after[: len(here)]
        registers = registers.moved()
    return after


def _registers_at(data: memoryview, ends: range) -> Words:
    """Return the registers, started at zero, after each of some numbers of bytes."""
    if ends.step == 1 and len(ends) > _FEW_STEPS:
        last = ends[-1]
        # One that started at all ones differs by what these have become.
        ones = multiply_each(powers_of_x(8, last + 1), multiply_table(_ALL_ONES))
        return (byte_registers(data[:last]) ^ ones)[ends.start :]
    registers = np.empty(len(ends), np.uint32)
    crc, before = _ALL_ONES, 0
    for number, end in enumerate(ends):
        # The library takes and gives checksums: registers with all bits inverted.
        crc = crc32c(data[before:end], crc)
        registers[number] = crc ^ _ALL_ONES
        before = end
    return registers


def _continued(crc: int, data: bytes | memoryview) -> int:
    return crc32c(data, crc)


def _coarse(data: memoryview, step: int) -> Words:
    whole = len(data) // step * step
    pieces = (data[start : start + step] for start in range(0, whole, step))
    after = np.fromiter(accumulate(pieces, _continued, initial=0), np.uint32, whole // step + 1)
    after ^= np.uint32(_ALL_ONES)
    return after


def word_registers(data: npt.NDArray[np.uint8]) -> Words:
    """Return the registers, started at all ones, after every 4 bytes."""
    words = data[: len(data) // _WORD * _WORD].view("<u4")
    after = np.empty(len(words) + 1, np.uint32)
    after[0] = register = _ALL_ONES
    starts = []
    for first in range(0, len(words), _SEGMENT):
        starts.append((first, register))
        register = crc32c(words[first : first + _SEGMENT].data.cast("B"), register ^ _ALL_ONES)
        register ^= _ALL_ONES
    tables = _halves(power_of_x(8 * _WORD))

    def fill(start: tuple[int, int]) -> None:
        first, register = start
        part = words[first : first + _SEGMENT]
        after[first + 1 : first + 1 + len(part)] = _segment(part, register, tables)

    if len(starts) > 1:
        with ThreadPoolExecutor(min(len(starts), os.cpu_count() or 1, _MOST_THREADS)) as pool:
            list(pool.map(fill, starts))
    elif starts:
        fill(starts[0])
    return after


def _one_further(before: Words, data: npt.NDArray[np.uint8]) -> Words:
    """Return the registers one byte after others; there may be one more of these than bytes."""
    after = np.empty(min(len(before), len(data)), np.uint32)
    table = multiply_table(power_of_x(8))[0]

    def fill(first: int) -> None:
        part = before[first : min(first + _SHARE, len(after))]
        place = (part ^ data[first : first + len(part)]).astype(np.uint8)
        np.take(table, place, out=after[first : first + len(part)], mode="clip")
        after[first : first + len(part)] ^= part >> 8

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        list(pool.map(fill, range(0, len(after), _SHARE)))
    return after


def _segment(words: Words, register: int, tables: tuple[Words, Words]) -> Words:
    length = -(-len(words) // _BATCH)
    lanes = -(-len(words) // length)
    padded = np.zeros(lanes * length, np.uint32)
    padded[: len(words)] = words
    columns = np.ascontiguousarray(padded.reshape(lanes, length).T)
    registers = _lane_starts(padded, lanes, register)
    place, other = np.empty(lanes, np.intp), np.empty(lanes, np.uint32)
    for column in columns:
        registers ^= column
        np.bitwise_and(registers, 0xFFFF, out=place, casting="unsafe")
        np.take(tables[0], place, out=other, mode="clip")
        np.right_shift(registers, 16, out=place, casting="unsafe")
        np.take(tables[1], place, out=registers, mode="clip")
        registers ^= other
        column[:] = registers
    after: Words = columns.T.reshape(-1)[: len(words)]
    return after


def _lane_starts(words: Words, lanes: int, register: int) -> Words:
    view = words.data.cast("B")
    size = len(view) // lanes
    starts = np.empty(lanes, np.uint32)
    crc = register ^ _ALL_ONES
    for lane in range(lanes):
        starts[lane] = crc
        crc = crc32c(view[lane * size : (lane + 1) * size], crc)
    starts ^= np.uint32(_ALL_ONES)
    return starts
