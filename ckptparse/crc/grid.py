"""The CRC registers of a stream on the grid of blocks, and what is sought there.

As fast as the library's checksum: a call for each piece of a block. The checksums of the pieces are
chained afterwards, all blocks together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.field import (
    ONE,
    WideTable,
    multiply,
    multiply_each,
    multiply_table,
    power_of_x,
)
from ckptparse.crc.windows import (
    SHARE,
    Hits,
    LowBytes,
    Tests,
    Wanted,
    Words,
    iter_hits,
    make_tests,
    share_out,
)

__all__ = ["GridRegisters"]

_ALL_ONES = 0xFFFFFFFF


class GridRegisters:
    """The CRC registers of a stream at the same places of every block of it.

    The bytes themselves are not kept, only 4 bytes for each block and place. Windows may begin and
    end at any of the places. An incomplete last block has no places.

    Attributes:
        step: The size of a block in bytes: 512, 1,024, 2,048 or 4,096.
        places: Offsets within a block at which the register is kept; 0 is always one of them.
        size: How many bytes of whole blocks there were.
    """

    __slots__ = ("_columns", "_fresh", "_pieces", "_rest", "places", "size", "step")

    def __init__(self, step: int, places: Iterable[int] = ()) -> None:
        self.step = step
        self.places = tuple(sorted({0, *(place % step for place in places)}))
        edges = [*self.places[1:], step]
        self._pieces = tuple(zip(self.places, edges, strict=True))
        self._fresh: list[Words] = []
        self._columns = [_Column.empty() for _ in self.places]
        self._columns[0] = _Column.of(np.array([_ALL_ONES], np.uint32))
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
        shares = range(0, self.size // self.step, SHARE)

        def hits(first: int, tests: Tests) -> Hits:
            return self._hits(first, tests, place)

        for item, offset in share_out(hits, shares, make_tests(fitting)):
            found[item].append(offset)
        return {item: sorted(offsets) for item, offsets in found.items()}

    def _take(self, blocks: memoryview) -> None:
        rows = np.frombuffer(blocks, np.uint8).reshape(-1, self.step)
        crcs = np.empty((len(self._pieces), len(rows)), np.uint32)
        for number, (start, stop) in enumerate(self._pieces):
            # The rows of an array are made, and their checksums called, without a line of Python.
            crcs[number] = np.fromiter(map(crc32c, rows[:, start:stop]), np.uint32, len(rows))
        self._fresh.append(crcs)
        self.size += len(blocks)

    def _joined(self) -> list[_Column]:
        """Return the registers at each place of all blocks; place 0 has one more, at the end."""
        if self._fresh:
            last = int(self._columns[0].words[-1])
            crcs = np.concatenate(self._fresh, axis=1)
            self._fresh = []
            later = _registers_of_blocks(crcs, self._pieces, last)
            self._columns = [
                _Column.of(np.concatenate([known.words, words]))
                for known, words in zip(self._columns, later, strict=True)
            ]
        return self._columns

    def _column(self, place: int) -> int:
        if place not in self.places:
            raise ValueError(f"The registers at byte {place} of each block were not kept")
        return self.places.index(place)

    def _hits(self, first: int, tests: Tests, place: int) -> Hits:
        """Return the runs at the positions of one share."""
        columns, number = self._joined(), self.size // self.step
        starts = columns[self._column(place)].words[first : min(first + SHARE, number)]

        def ends(size: int) -> tuple[Words, LowBytes]:
            blocks, end_place = divmod(place + size, self.step)
            column = columns[self._column(end_place)]
            span = slice(first + blocks, first + blocks + len(starts))
            return column.words[span], column.low_bytes[span]

        hits = iter_hits(starts, tests, ends)
        return [(item, (first + row) * self.step + place) for item, row in hits]


class _Column(NamedTuple):
    """The registers at one place of all blocks."""

    words: Words
    low_bytes: LowBytes
    """Of the registers, side by side: they are compared first."""

    @classmethod
    def of(cls, words: Words) -> _Column:
        """Keep registers."""
        return cls(words, words.astype(np.uint8))

    @classmethod
    def empty(cls) -> _Column:
        """Keep none yet."""
        return cls.of(np.empty(0, np.uint32))


def _registers_of_blocks(
    crcs: Words, pieces: Sequence[tuple[int, int]], register: int
) -> list[Words]:
    """Return the registers at each place of blocks, from the checksums of the pieces between.

    Those at place 0 are the ones at the ends of the blocks. The first block begins with `register`.
    """
    inner = [np.zeros(crcs.shape[1], np.uint32)]
    for (start, stop), crc in zip(pieces, crcs, strict=True):
        moved = WideTable(power_of_x(8 * (stop - start))).multiply(inner[-1])
        inner.append(moved ^ crc ^ np.uint32(crc_of_zeros(stop - start)))
    ends = _chained(inner[-1], power_of_x(8 * pieces[-1][1]), register)
    starts = np.concatenate([np.array([register], np.uint32), ends[:-1]])
    later = [
        WideTable(power_of_x(8 * place)).multiply(starts) ^ alone
        for (place, _), alone in zip(pieces[1:], inner[1:], strict=False)
    ]
    return [ends, *later]


def _chained(values: Words, factor: int, register: int) -> Words:
    """Return r[0], r[1] ..., with r[n] = r[n - 1] · factor + values[n], beginning with `register`.

    Many lanes are computed together. A first pass tells where each lane begins.
    """
    length = int(len(values) ** 0.5) + 1
    lanes = -(-len(values) // length)
    padded = np.zeros(lanes * length, np.uint32)
    padded[: len(values)] = values
    columns = np.ascontiguousarray(padded.reshape(lanes, length).T)
    table, whole = multiply_table(factor), ONE
    totals = np.zeros(lanes, np.uint32)
    for column in columns:
        totals = multiply_each(totals, table) ^ column
        whole = multiply(whole, factor)
    starts = np.empty(lanes, np.uint32)
    for lane, total in enumerate(totals.tolist()):
        starts[lane] = register
        register = multiply(register, whole) ^ total
    for column in columns:
        starts = multiply_each(starts, table) ^ column
        column[:] = starts
    chained: Words = columns.T.reshape(-1)[: len(values)]
    return chained
