"""CRC registers in bit planes: 32 of them are tested, or advanced, by one operation on words.

A plane holds one bit of every register; 32 registers share a word of it. They belong to lanes: a
lane is `rows` registers that follow each other, and `width` words hold 32 lanes for each width.

    position = (bit · width + column) · rows + row        plane[row, column] >> bit & 1

So the register some positions further on lies some rows down and some columns on, and in a higher
bit if that goes beyond the last column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.chains import chained
from ckptparse.crc.field import multiply_table, power_of_x
from ckptparse.crc.threads import in_threads

__all__ = ["GROUPS", "LANES", "Planes", "Rectangle", "Segment", "fill_sums", "rows_of_factor"]

Words = npt.NDArray[np.uint32]

LANES = 32
"""Registers in a word of a plane, as many as a register has bits."""
GROUPS = 8
"""Planes are added in groups of four: the sums of four planes are 16, and each is used often."""
_WORD = 4
_TOGETHER = 16
"""Rows of data that are turned into planes together: 64 bytes of each lane, a line of the cache."""
_COLUMNS = 512
"""Columns that a thread advances: with the sums of their planes, 384 KiB stay in the cache."""
_LEAST_WIDTH = 16
_SQUARE = 64
"""Registers for each in the square of the rows: a row more costs a step, and a lane more costs a
call of the library's checksum. So both together cost least."""
_WHOLE = 1 << 13
"""Columns of a plane that are turned together if there is one row only."""
_FEW = 1 << 13
"""So many registers are kept as they are, too, once they are asked for."""
_ALL_ONES = 0xFFFFFFFF


class Rectangle(NamedTuple):
    """Some rows and columns of planes."""

    top: int
    bottom: int
    left: int
    right: int


class Segment(NamedTuple):
    """A part of a rectangle, and where the registers some positions further on are."""

    here: tuple[slice, slice]
    """Rows and columns within the rectangle."""
    there: tuple[slice, slice]
    """Rows and columns of the planes."""
    shift: int
    """How many bits higher; those that are shifted out do not exist."""


class Planes:
    """Registers at consecutive positions, in bit planes.

    Attributes:
        bits: Shape (32, rows, width): the lowest bit of every register first.
        count: How many registers there are; those that fill the last lanes say nothing.
        rows: Positions of a lane.
        width: Words for all lanes of a row.
    """

    __slots__ = ("_registers", "bits", "count", "rows", "width")

    def __init__(self, bits: Words, count: int) -> None:
        self._registers: Words | None = None
        self.bits = bits
        self.count = count
        _, self.rows, self.width = bits.shape

    @classmethod
    def of_words(cls, words: Words, *, room: int = 0) -> Planes:
        """Take registers: lanes of one register, so that neighbours are in neighbouring words.

        Args:
            words: The registers.
            room: Planes with the same room are laid out alike.
        """
        count = len(words)
        width = max(1, -(-max(count, room) // LANES))
        bits = np.empty((LANES, 1, width), np.uint32)

        def fill(left: int) -> None:
            right = min(width, left + _WHOLE)
            block = np.zeros((1, LANES, right - left), np.uint32)
            for lane in range(LANES):
                part = words[lane * width + left : lane * width + right]
                block[0, lane, : len(part)] = part
            _turn(block)
            bits[:, 0, left:right] = block[0]

        list(in_threads(fill, range(0, width, _WHOLE)))
        return cls(bits, count)

    @classmethod
    def of_data(cls, data: npt.NDArray[np.uint8]) -> Planes:
        """Compute the registers, started at all ones, before and after every 4 bytes.

        The library's checksum gives those at the start of each lane. Then all lanes are advanced
        together, one word at a time.
        """
        words = data[: len(data) // _WORD * _WORD].view("<u4")
        count = len(words) + 1
        rows = int((count / _SQUARE) ** 0.5) | 1
        width = max(_LEAST_WIDTH, -(-count // (LANES * rows)))
        lanes = _Lanes.of(words, rows)
        starts = cls.of_lanes(lanes.starts(), width)
        bits = np.empty((LANES, rows, width), np.uint32)

        def fill(left: int) -> None:
            right = min(width, left + _COLUMNS)
            state = np.ascontiguousarray(starts[:, left:right])
            _advance(lanes, state, bits, left)

        list(in_threads(fill, range(0, width, _COLUMNS)))
        return cls(bits, count)

    @staticmethod
    def of_lanes(registers: Words, width: int) -> Words:
        """Return the planes of one register for each lane, shape (32, width)."""
        block = np.zeros(LANES * width, np.uint32)
        block[: len(registers)] = registers[: len(block)]
        turned = block.reshape(1, LANES, width)
        _turn(turned)
        return turned.reshape(LANES, width)

    def rectangles(self, size: int) -> list[Rectangle]:
        """Cut the planes into parts of about so many words."""
        height, breadth = max(1, size // self.width), min(self.width, size)
        return [
            Rectangle(top, min(top + height, self.rows), left, min(left + breadth, self.width))
            for top in range(0, self.rows, height)
            for left in range(0, self.width, breadth)
        ]

    def segments(self, part: Rectangle, offset: int) -> Iterator[Segment]:
        """Iterate over where the registers `offset` positions on from those of a part are."""
        lane, down = divmod(offset, self.rows)
        for top, bottom, further in _cut(part.top, part.bottom, self.rows - down):
            bit, on = divmod(lane + further, self.width)
            for left, right, higher in _cut(part.left, part.right, self.width - on):
                first_row = top + down - further * self.rows
                first_column = left + on - higher * self.width
                yield Segment(
                    (
                        slice(top - part.top, bottom - part.top),
                        slice(left - part.left, right - part.left),
                    ),
                    (
                        slice(first_row, first_row + bottom - top),
                        slice(first_column, first_column + right - left),
                    ),
                    bit + higher,
                )

    def positions(self, part: Rectangle, words: Words) -> npt.NDArray[np.int64]:
        """Return the positions of the bits that are set in words of a part, in any order."""
        places = np.flatnonzero(words != 0)
        flags = np.unpackbits(words.ravel()[places].astype("<u4").view(np.uint8), bitorder="little")
        number, bit = np.divmod(np.flatnonzero(flags), LANES)
        row, column = np.divmod(places[number], part.right - part.left)
        column += part.left
        found: npt.NDArray[np.int64] = (bit * self.width + column) * self.rows + row + part.top
        return found

    def values(self, positions: npt.NDArray[np.int64]) -> Words:
        """Return the registers at some positions."""
        if self.count <= _FEW:
            if self._registers is None:
                self._registers = self._gather(np.arange(self.count))
            return self._registers[positions]
        return self._gather(positions)

    def _gather(self, positions: npt.NDArray[np.int64]) -> Words:
        lane, row = np.divmod(positions, self.rows)
        bit, column = np.divmod(lane, self.width)
        words = self.bits[:, row, column] >> bit.astype(np.uint32) & np.uint32(1)
        words <<= np.arange(LANES, dtype=np.uint32)[:, None]
        found: Words = np.bitwise_or.reduce(words, axis=0)
        return found


def rows_of_factor(table: Words) -> Words:
    """Return for each bit of a product which bits of a register are added to give it.

    Args:
        table: The factor's `multiply_table`.
    """
    images = table[:, 1 << np.arange(8)].reshape(LANES)
    flags = np.unpackbits(images.astype("<u4").view(np.uint8), bitorder="little")
    turned = np.packbits(flags.reshape(LANES, LANES).T.ravel(), bitorder="little")
    return turned.view("<u4").astype(np.uint32)


def fill_sums(planes: Words, sums: Words) -> None:
    """Add the planes of each group of four in all ways.

    Args:
        planes: Shape (32, ...).
        sums: Shape (8, 16, ...). The number of a sum has a bit for each plane of the group.
    """
    four = planes.reshape(GROUPS, 4, *planes.shape[1:])
    sums[:, 0] = 0
    for bit in range(4):
        np.bitwise_xor(
            sums[:, : 1 << bit], four[:, bit : bit + 1], out=sums[:, 1 << bit : 2 << bit]
        )


def _cut(start: int, stop: int, border: int) -> Iterator[tuple[int, int, int]]:
    """Cut a range at a border; the number tells on which side a part is."""
    if start < border:
        yield start, min(stop, border), 0
    if stop > border:
        yield max(start, border), stop, 1


def _turn(block: Words) -> None:
    """Turn 32 registers into 32 planes, or back, in place; shape (n, 32, width).

    Bit i of word j changes places with bit j of word i: first 16 bits at a time, at last one.
    """
    count, _, width = block.shape
    half = np.empty(count * LANES // 2 * width, np.uint32)
    mask = 0xFFFF
    distance = LANES // 2
    while distance:
        pairs = block.reshape(count, LANES // (2 * distance), 2, distance, width)
        low, high = pairs[:, :, 0], pairs[:, :, 1]
        change = half.reshape(low.shape)
        np.right_shift(low, distance, out=change)
        change ^= high
        change &= np.uint32(mask)
        high ^= change
        np.left_shift(change, distance, out=change)
        low ^= change
        distance //= 2
        mask ^= mask << distance & _ALL_ONES


class _Lanes(NamedTuple):
    """Words of data in lanes; the last lane may be short, and there may be lanes with none."""

    whole: Words
    """Shape (n, rows)."""
    rest: Words

    @classmethod
    def of(cls, words: Words, rows: int) -> _Lanes:
        """Cut words into lanes."""
        whole = len(words) // rows
        return cls(words[: whole * rows].reshape(whole, rows), words[whole * rows :])

    def starts(self) -> Words:
        """Return the registers before each lane that has words, and after the last whole one."""
        size = _WORD * self.whole.shape[1]
        lanes = self.whole.view(np.uint8)
        crcs = np.fromiter(map(crc32c, lanes), np.uint32, len(lanes))
        crcs ^= np.uint32(crc_of_zeros(size))
        ends = chained(crcs, power_of_x(8 * size), _ALL_ONES)
        return np.concatenate([np.array([_ALL_ONES], np.uint32), ends])

    def fill(self, block: Words, left: int, width: int, top: int) -> None:
        """Put some rows of the lanes of some columns into a block of shape (rows, 32, columns)."""
        count, _, columns = block.shape
        rest = self.rest[top : top + count]
        for bit in range(LANES):
            first = bit * width + left
            part = self.whole[first : first + columns, top : top + count]
            block[:, bit, : len(part)] = part.T
            block[:, bit, len(part) :] = 0
            if first <= len(self.whole) < first + columns:
                block[: len(rest), bit, len(part)] = rest


def _advance(lanes: _Lanes, state: Words, bits: Words, left: int) -> None:
    """Advance the registers of some columns over their lanes, and keep them before every word.

    Args:
        lanes: The data.
        state: The registers at the starts; shape (32, columns).
        bits: Where all are kept; shape (32, rows, width).
        left: The first of the columns.
    """
    _, rows, width = bits.shape
    columns = state.shape[1]
    block = np.empty((min(rows, _TOGETHER), LANES, columns), np.uint32)
    step = _Step(power_of_x(8 * _WORD), columns)
    for top in range(0, rows, _TOGETHER):
        some = block[: rows - top]
        lanes.fill(some, left, width, top)
        _turn(some)
        for row, data in enumerate(some, top):
            bits[:, row, left : left + columns] = state
            state ^= data
            step.multiply(state)


class _Step:
    """Multiplies registers in planes by a factor."""

    __slots__ = ("_numbers", "_part", "_sums")

    def __init__(self, factor: int, columns: int) -> None:
        added = rows_of_factor(multiply_table(factor))
        self._numbers = [(added >> 4 * group & 15).astype(np.intp) for group in range(GROUPS)]
        self._sums = np.empty((GROUPS, 16, columns), np.uint32)
        self._part = np.empty((LANES, columns), np.uint32)

    def multiply(self, planes: Words) -> None:
        """Multiply all registers; shape (32, columns)."""
        fill_sums(planes, self._sums)
        numbered: Sequence[tuple[npt.NDArray[np.intp], Words]] = list(
            zip(self._numbers, self._sums, strict=True)
        )
        for place, (numbers, sums) in enumerate(numbered):
            np.take(sums, numbers, axis=0, out=self._part if place else planes, mode="clip")
            if place:
                planes ^= self._part
