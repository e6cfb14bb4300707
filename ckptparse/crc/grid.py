"""The CRC registers of a stream on the grid of blocks, and what is sought there.

A call of the library for each piece of a block. The checksums of the pieces are chained afterwards,
all blocks together. The calls hold the interpreter's lock; one thread reads while another makes
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.chains import chained
from ckptparse.crc.field import WideTable, multiply_each, multiply_table, power_of_x
from ckptparse.crc.threads import Spare, in_threads
from ckptparse.crc.windows import Column, Ends, Track, Wanted, Words, find_windows
from ckptparse.files.storage import ReadInto

__all__ = ["FileRegisters", "GridRegisters"]

_ALL_ONES = 0xFFFFFFFF
_FEW = 1 << 15
"""Registers for which it takes longer to make a table of 65,536 products than to do without."""
_WINDOW = 1 << 20
"""Bytes that a thread reads at once. They stay in the processor's cache; with fewer, threads wait
for each other between the calls."""
_SHARED = 1 << 24
"""Bytes from which on threads share the work: to start them takes as long as to check some MiB."""
_HELD = 1 << 23
"""Bytes of the largest file that is held in memory for the next place."""
_KEPT_BYTES = 1 << 26
"""Bytes of the registers of one file that are kept: places that were asked for are so again."""


class GridRegisters:
    """The CRC registers of a stream at the same places of every block of it.

    The bytes themselves are not kept, only 4 bytes for each block and place. Windows may begin and
    end at any of the places. An incomplete last block has no places.

    Attributes:
        step: The size of a block in bytes: 512, 1,024, 2,048 or 4,096.
        places: Offsets within a block at which the register is kept; 0 is always one of them.
        size: How many bytes of whole blocks there were.
    """

    __slots__ = (
        "_columns",
        "_fresh",
        "_pieces",
        "_rest",
        "_tracks",
        "_windows",
        "places",
        "size",
        "step",
    )

    def __init__(self, step: int, places: Iterable[int] = ()) -> None:
        self.step = step
        self.places = tuple(sorted({0, *(place % step for place in places)}))
        edges = [*self.places[1:], step]
        self._pieces = tuple(zip(self.places, edges, strict=True))
        self._fresh: list[Words] = []
        self._windows = Spare(partial(_Window, step, self._pieces))
        self._columns = [np.empty(0, np.uint32) for _ in self.places]
        self._columns[0] = np.array([_ALL_ONES], np.uint32)
        self._tracks: list[Track] = []
        self._rest = b""
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
        self._take(view[:whole])
        self._rest = bytes(view[whole:])

    def extend_from(self, read_into: ReadInto, start: int, stop: int) -> None:
        """Add the next bytes of the stream, which are read from a range of a file."""
        missing = min(-len(self._rest) % self.step, stop - start)
        first = bytearray(missing)
        read_into(start, memoryview(first))
        self.extend(memoryview(first))
        start += missing
        whole = (stop - start) // self.step * self.step
        self._fill(start, start + whole, read_into, shared=whole >= _SHARED)
        last = bytearray(stop - start - whole)
        read_into(start + whole, memoryview(last))
        self.extend(memoryview(last))

    def find_each(self, wanted: Iterable[Wanted], *, place: int = 0) -> dict[Wanted, list[int]]:
        """Return for each run of bytes the offsets where it is, at that place of a block.

        Raises:
            ValueError: The register at the start or the end of a run was not kept.
        """
        sought = list(wanted)
        for item in sought:
            if 0 < item.size <= self.size - place:
                self._column((place + item.size) % self.step)
        return _find_each(sought, place, (self.step, self.size), self.track)

    def track(self, place: int) -> Track:
        """Return the registers at a place; those at place 0 have one more, at the end.

        Raises:
            ValueError: They were not kept.
        """
        number = self._column(place)
        return self._joined()[number]

    def _take(self, blocks: memoryview) -> None:
        def copy(start: int, window: memoryview) -> None:
            window[:] = blocks[start : start + len(window)]

        self._fill(0, len(blocks), copy, shared=False)

    def _fill(self, start: int, stop: int, fill: ReadInto, *, shared: bool) -> None:
        """Add whole blocks, which `fill` puts into a window; of several threads, if `shared`."""
        blocks = (stop - start) // self.step
        if not blocks:
            return
        crcs = np.empty((blocks, len(self._pieces)), np.uint32)
        most = max(1, _WINDOW // self.step)

        def check(first: int) -> None:
            some = crcs[first : first + most]
            with self._windows.taken() as window:
                fill(start + first * self.step, window.memory[: len(some) * self.step])
                some[:] = window.checksums(len(some))

        windows = range(0, blocks, most)
        if shared:
            in_threads(check, windows)
        else:
            for first in windows:
                check(first)
        self._fresh.append(crcs.T)
        self.size += stop - start

    def _joined(self) -> list[Track]:
        """Return the registers at each place of all blocks."""
        if self._fresh:
            last = int(self._columns[0][-1])
            crcs = np.concatenate(self._fresh, axis=1)
            self._fresh = []
            later = _registers_of_blocks(crcs, self._pieces, last)
            self._columns = [
                np.concatenate([known, words])
                for known, words in zip(self._columns, later, strict=True)
            ]
            self._tracks = [
                Column(self.step, place, words)
                for place, words in zip(self.places, self._columns, strict=True)
            ]
        return self._tracks

    def _column(self, place: int) -> int:
        if place not in self.places:
            raise ValueError(f"The registers at byte {place} of each block were not kept")
        return self.places.index(place)


class FileRegisters:
    """The CRC registers of a file on the grid of blocks, at places that are asked for one by one.

    They take 6 bytes for each block and place. If all take more than 64 MiB, they are made anew.
    """

    __slots__ = ("_memory", "_most", "_read_into", "_size", "_step", "_tracks")

    def __init__(self, read_into: ReadInto, size: int, step: int) -> None:
        """Take what reads a file, its size, and that of a block."""
        self._read_into = read_into
        self._step = step
        self._size = size // step * step
        self._most = max(2, _KEPT_BYTES // (6 * (size // step + 1)))
        self._tracks: dict[int, Track] = {}
        self._memory: memoryview | None = None

    def lacks(self, places: Iterable[int]) -> int:
        """Return how often the file is read to find runs that begin or end at these places."""
        return len({0, *places} - self._tracks.keys())

    def find_each(self, wanted: Iterable[Wanted], *, place: int = 0) -> dict[Wanted, list[int]]:
        """Return for each run of bytes the offsets where it is, at that place of a block."""
        if len(self._tracks) > self._most:
            self._tracks = {}
        return _find_each(list(wanted), place, (self._step, self._size), self._track)

    def _track(self, place: int) -> Track:
        if place not in self._tracks:
            self._tracks[place] = self._advanced(place) if place else self._first()
        return self._tracks[place]

    def _first(self) -> Track:
        registers = GridRegisters(self._step)
        registers.extend_from(self._read_into, 0, self._size)
        return registers.track(0)

    def _advanced(self, place: int) -> Track:
        """Return the registers at a place from those at the starts of the blocks."""
        starts = self._track(0).values(np.arange(self._size // self._step))
        crcs = (starts ^ np.uint32(_ALL_ONES)).tolist()
        words = np.empty(len(crcs), np.uint32)
        most = len(crcs) if self._size <= _HELD else max(1, _WINDOW // self._step)
        held = self._memory
        window = memoryview(bytearray(most * self._step)) if held is None else held
        views = [window[at : at + place] for at in range(0, len(window), self._step)]
        for first in range(0, len(crcs), most):
            count = min(most, len(crcs) - first)
            if held is None:
                self._read_into(first * self._step, window[: count * self._step])
            found = map(crc32c, views[:count], crcs[first : first + count])
            words[first : first + count] = np.fromiter(found, np.uint32, count)
        if self._size <= _HELD:
            self._memory = window
        words ^= np.uint32(_ALL_ONES)
        return Column(self._step, place, words)


def _find_each(
    sought: Sequence[Wanted], place: int, sizes: tuple[int, int], track_at: Callable[[int], Track]
) -> dict[Wanted, list[int]]:
    """Return for each run of bytes the offsets where it is, at that place of a block.

    Args:
        sought: The runs.
        place: Where in a block they begin.
        sizes: Of a block, and of all whole blocks.
        track_at: Returns the registers at a place of every block.
    """
    step, held = sizes
    if held <= place or not sought:
        return {item: [] for item in sought}
    starts = track_at(place)

    def ends(size: int) -> Ends:
        whole, end_place = divmod(place + size, step)
        track = track_at(end_place) if size <= held - place else starts
        return Ends(track, whole, max(0, min(held // step, track.count - whole)))

    found = find_windows(starts, sought, ends)
    return {item: [step * at + place for at in rows] for item, rows in found.items()}


class _Window:
    """Memory that blocks are put into, with views of their pieces, made once.

    To make an object for each piece takes longer than to copy it.
    """

    __slots__ = ("_pieces", "_step", "_views", "memory")

    def __init__(self, step: int, pieces: Sequence[tuple[int, int]]) -> None:
        self.memory = memoryview(bytearray(max(1, _WINDOW // step) * step))
        self._step = step
        self._pieces = pieces
        self._views: list[memoryview] = []

    def checksums(self, blocks: int) -> Words:
        """Return the checksum of every piece of the first blocks, shape (blocks, pieces)."""
        known = len(self._views) // len(self._pieces)
        for at in range(known * self._step, blocks * self._step, self._step):
            self._views += [self.memory[at + start : at + stop] for start, stop in self._pieces]
        count = blocks * len(self._pieces)
        views = self._views if len(self._views) == count else self._views[:count]
        return np.fromiter(map(crc32c, views), np.uint32, count).reshape(-1, len(self._pieces))


def _registers_of_blocks(
    crcs: Words, pieces: Sequence[tuple[int, int]], register: int
) -> list[Words]:
    """Return the registers at each place of blocks, from the checksums of the pieces between.

    Those at place 0 are the ones at the ends of the blocks. The first block begins with `register`.
    """
    inner = [np.zeros(crcs.shape[1], np.uint32)]
    for (start, stop), crc in zip(pieces, crcs, strict=True):
        moved = _multiplied(inner[-1], power_of_x(8 * (stop - start)))
        inner.append(moved ^ crc ^ np.uint32(crc_of_zeros(stop - start)))
    ends = chained(inner[-1], power_of_x(8 * pieces[-1][1]), register)
    starts = np.concatenate([np.array([register], np.uint32), ends[:-1]])
    later = [
        _multiplied(starts, power_of_x(8 * place)) ^ alone
        for (place, _), alone in zip(pieces[1:], inner[1:], strict=False)
    ]
    return [ends, *later]


def _multiplied(registers: Words, factor: int) -> Words:
    """Multiply registers by a factor."""
    if len(registers) < _FEW:
        return multiply_each(registers, multiply_table(factor))
    return WideTable(multiply_table(factor)).multiply(registers)
