"""Find the blocks of a table without its index, by their own checksums.

    block 0 | type crc | block 1 | type crc | ...

A raw block ends in its restart array. The first offset in it is 0, and their number comes last
(docs/format.md, section 1.5). So the end of a block is recognised by these bytes, and its checksum
proves it.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c
from ckptparse.crc.field import WideTable, multiply_table, power_of_x
from ckptparse.crc.registers import byte_registers
from ckptparse.files.storage import Source
from ckptparse.table.format import TRAILER_SIZE, Compression

__all__ = ["BlockFinder", "LikelyEnds", "fixed32", "iter_blocks", "likely_ends"]

Registers = npt.NDArray[np.uint32]

_WORD = 4
"""Bytes of a restart offset, and of their number, at a block's end: docs/format.md, section 1.4."""
_LEAST_BLOCK = 8
"""Bytes of the smallest block: no entry, one restart, and the number of restarts."""
_WINDOW = 1 << 19
"""Bytes in which the end of a block is first looked for; blocks of an index have 4 to 256 KiB."""
_CARVED = 1 << 24
"""Bytes that are searched for a block that starts anywhere: the search holds 16 bytes for each of
them in memory."""
_LEAST_WORK, _WORK_A_BYTE = 1 << 26, 24
"""What looking for the ends of blocks may take, in bytes that are read or checksummed."""
_CANDIDATE = 4096
"""What one end that is tried counts as: a microsecond. A byte in 256 of compressed blocks is tried,
so they need 18 of the 24 for each byte."""
_FILTER_BITS = 24
"""Bits by which values are told apart first: a table of 16 MiB, in which few of them are set."""
_VALUE_SHIFT = 32
"""Bits of a position, below those of a value."""
_DIGIT = 16
"""Positions are taken digit by digit to this base: each digit costs one multiplication."""
_FEW_STARTS = 4
"""If a byte in so many, or fewer, may begin a block, their positions are taken bit by bit: half of
24 bits cost a multiplication each, and all bytes take five or six."""
_ALL_ONES = 0xFFFFFFFF
_MASK_DELTA = 0xA282EAD8
_OFTEN = 16
"""If more than one byte in 16 is 1, these are not types of compressed blocks: compressed bytes look
random, so that 1 in 256 is 1. Such ends are not tried: each try costs a checksum. Nor are those of
raw blocks if there are as many in a stretch: blocks have some hundred bytes at least."""
_STRETCH_BITS = 16
"""Of 64 KiB."""


def fixed32(data: bytes, position: int) -> int:
    """Return the little-endian 32-bit number at a position."""
    return int(struct.unpack_from("<I", data, position)[0])


class LikelyEnds(NamedTuple):
    """Where the contents of blocks may end: positions of their type bytes, rising."""

    ends: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    """Where the restart array begins, before which the block does; -1 of compressed ones."""


def likely_ends(data: bytes) -> LikelyEnds:
    """Return the positions at which a block's contents may end.

    A raw block ends in a restart array: offsets, the first of them 0, and then their number. Of a
    compressed block only the type byte is known.
    """
    last = len(data) - TRAILER_SIZE
    if last < _LEAST_BLOCK:
        return LikelyEnds(*np.empty((2, 0), np.int64))
    kinds = np.frombuffer(data, np.uint8)[: last + 1]
    words = _words_of(data)
    # Few bytes of weights, and none of zeros, have a number of restarts before them. None, less
    # one, is the largest number.
    counts = words[_LEAST_BLOCK - _WORD : last + 1 - _WORD]
    likely = counts - np.uint32(1) < np.uint32(last // _WORD)
    likely &= kinds[_LEAST_BLOCK:] == Compression.NONE
    raw = np.flatnonzero(likely) + _LEAST_BLOCK
    firsts = raw - _WORD - _WORD * words[raw - _WORD].astype(np.int64)
    good = firsts >= 0
    raw, firsts = raw[good], firsts[good]
    good = words[firsts] == 0
    raw, firsts = raw[good], firsts[good]
    stretches = raw >> _STRETCH_BITS
    good = (np.bincount(stretches) <= (1 << _STRETCH_BITS) // _OFTEN)[stretches]
    raw, firsts = raw[good], firsts[good]
    snappy = np.flatnonzero(kinds == Compression.SNAPPY)
    # Compressed bytes are random: one in 256 is 1.
    tried = snappy[snappy >= 1] if len(snappy) <= 64 + last // _OFTEN else snappy[:0]
    ends = np.concatenate((raw, tried))
    order = np.argsort(ends, kind="stable")
    none = np.full(len(tried), -1, np.int64)
    return LikelyEnds(ends[order], np.concatenate((firsts, none))[order])


class BlockFinder:
    """Finds the proved blocks of a table, at a cost that is bounded for all of them together."""

    def __init__(self, source: Source, *, longest: int | None) -> None:
        """Take the table.

        Args:
            source: The file.
            longest: Bytes of a block at most; None if only the file bounds them.
        """
        self._source = source
        self._longest = source.size if longest is None else longest
        self._window = _Window(0, b"", LikelyEnds(*np.empty((2, 0), np.int64)))
        self._carved = 0
        self._starts: list[int] = []
        self._coming: Iterator[tuple[int, int]] = iter(())
        self._ends: dict[int, int] = {}
        self._work = _LEAST_WORK + _WORK_A_BYTE * source.size

    def end_at(self, position: int) -> int | None:
        """Return where the contents end of the proved block that starts there; None of none.

        Every end that looks like one is tried. If the work has used up what it may take, raw blocks
        are found all at once.
        """
        end = self._tried_end(position)
        if end is None and self._work <= 0 and self.start_after(position) == position:
            return self._ends[position]
        return end

    def _tried_end(self, position: int) -> int | None:
        stop = min(self._source.size, position + self._longest)
        size = _LEAST_BLOCK + TRAILER_SIZE
        seen = position
        crc = 0
        while self._work > 0:
            window = self._look_at(position, min(position + size, stop))
            for end, stored in window.ends_from(position, seen):
                crc = crc32c(window.view[seen - window.start : end + 1 - window.start], crc)
                self._work -= _CANDIDATE + end + 1 - seen
                seen = end + 1
                if crc == stored:
                    return end
                if self._work <= 0:
                    return None
            if window.stop >= stop:
                return None
            size = max(_WINDOW, 2 * (window.stop - position))
        return None

    def start_after(self, position: int) -> int | None:
        """Return where the next proved block starts anywhere behind, within 16 MiB; or None."""
        if not self._advance(position) and self._carved < self._source.size:
            self._carved = min(self._source.size, position + _CARVED)
            data = self._source.read_at(position, self._carved - position)
            found = iter_blocks(data)
            self._starts = []
            self._coming = ((position + start, position + end) for start, end in found)
            self._advance(position)
        place = bisect_left(self._starts, position)
        return self._starts[place] if place < len(self._starts) else None

    def _advance(self, position: int) -> bool:
        """Take blocks up to one that starts at a position or behind; tell whether there is one."""
        while not self._starts or position > self._starts[-1]:
            start, end = next(self._coming, (-1, -1))
            if start < 0:
                return False
            self._starts.append(start)
            self._ends[start] = end
        return True

    def _look_at(self, position: int, stop: int) -> _Window:
        """Return a window that goes on to `stop` at least: the last one, if that does."""
        window = self._window
        if not (window.start <= position and window.stop >= stop):
            whole = min(self._source.size, max(stop, position + _WINDOW))
            data = self._source.read_at(position, whole - position)
            self._work -= len(data)
            window = self._window = _Window(position, data, likely_ends(data))
        return window


class _Window:
    """A part of a table, with the likely ends of blocks in it."""

    def __init__(self, start: int, data: bytes, likely: LikelyEnds) -> None:
        self.start = start
        self.stop = start + len(data)
        self.view = memoryview(data)
        self._ends: list[int] = likely.ends.tolist()
        self._firsts: list[int] = likely.firsts.tolist()
        self._stored: list[int] = []
        if self._ends:
            self._stored = _unmasked(_words_of(data)[likely.ends + 1]).tolist()

    def ends_from(self, position: int, seen: int) -> Iterator[tuple[int, int]]:
        """Iterate over the likely ends, not seen yet, of a block that starts at a position.

        Each with the checksum that the block has if it ends there.
        """
        least = max(position + 1, seen) - self.start
        start = position - self.start
        for number in range(bisect_left(self._ends, least), len(self._ends)):
            first = self._firsts[number]
            if first < 0 or first >= start:
                yield self.start + self._ends[number], self._stored[number]


def _words_of(data: bytes) -> npt.NDArray[np.uint32]:
    """Return the little-endian 32-bit number at each byte but the last three, without copying."""
    words: npt.NDArray[np.uint32] = np.ndarray((len(data) - _WORD + 1,), "<u4", data, strides=(1,))
    return words


def iter_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Iterate over where the proved raw blocks in some data begin and their contents end, in order.

    R[i] is the register after i bytes, F is all ones. The bytes [s, e) have the checksum `crc` if
    and only if (F ^ R[s]) · x^-8s = (crc ^ F ^ R[e]) · x^-8e. So each end needs one search for an
    equal value.
    """
    ends, firsts = likely_ends(data)
    ends = ends[firsts >= 0]
    if not len(ends):
        return
    registers = byte_registers(data) ^ np.uint32(_ALL_ONES)
    wanted = _unmasked(_words_of(data)[ends + 1]) ^ registers[ends + 1]
    wanted = _turn_some_back(wanted, ends + 1)
    # The first entry of a block shares nothing, so that a block begins with the number 0. Its
    # first byte is 0, or 80 if the number is longer than it need be.
    starts = np.flatnonzero(np.frombuffer(data, np.uint8) & 0x7F == 0)
    if len(starts) * _FEW_STARTS < len(data):
        keys = _keys_of(_turn_some_back(registers[starts], starts), wanted, starts)
    else:
        keys = _keys_of(_turn_back(registers), wanted)
    # The first place of each value: the ends without one, nearly all of a disk's, are passed over.
    values = wanted.astype(np.uint64) << np.uint64(_VALUE_SHIFT)
    lasts = values | (ends - _LEAST_BLOCK).astype(np.uint64)
    some = np.searchsorted(keys, values) < np.searchsorted(keys, lasts, side="right")
    position = 0
    listed = keys.tolist()
    for end, value, last in zip(
        *(column[some].tolist() for column in (ends, values, lasts)), strict=True
    ):
        number = bisect_left(listed, value | position)
        if number < len(listed) and listed[number] <= last:
            yield listed[number] - value, end
            position = end + TRAILER_SIZE


def _keys_of(
    values: Registers, wanted: Registers, positions: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.uint64]:
    """Return values that may be wanted, each with its position below it in one number, rising.

    Those that lie at other places than one after another have `positions`.
    """
    some = np.zeros(1 << _FILTER_BITS, np.bool_)
    low = np.uint32((1 << _FILTER_BITS) - 1)
    some[wanted & low] = True
    likely = np.flatnonzero(some[values & low])
    keys: npt.NDArray[np.uint64] = values[likely].astype(np.uint64)
    found = likely if positions is None else positions[likely]
    keys = keys << np.uint64(_VALUE_SHIFT) | found.astype(np.uint64)
    keys.sort()
    return keys


def _unmasked(words: npt.NDArray[np.integer[Any]]) -> Registers:
    """Undo the masking of checksums, as `unmask_crc` does of one."""
    rotated = (words.astype(np.int64) - _MASK_DELTA) & _ALL_ONES
    return ((rotated >> 17 | rotated << 15) & _ALL_ONES).astype(np.uint32)


def _turn_back(values: Registers) -> Registers:
    """Multiply the value at each position by x to the -8 times that position, digit by digit."""
    length = 1
    while length < len(values):
        group = _DIGIT * length
        whole = len(values) // group * group
        groups = values[:whole].reshape(-1, _DIGIT, length)
        for digit in range(1, _DIGIT):
            table = WideTable(multiply_table(power_of_x(-8 * length * digit)))
            if whole:
                groups[:, digit] = table.multiply(groups[:, digit])
            rest = values[whole + digit * length : whole + (digit + 1) * length]
            rest[:] = table.multiply(rest)
        length = group
    return values


def _turn_some_back(values: Registers, positions: npt.NDArray[np.int64]) -> Registers:
    """Multiply values by x to the -8 times the position of each, bit by bit of these."""
    bit = 1
    while bit <= (positions[-1] if len(positions) else 0):
        some = np.flatnonzero(positions & bit)
        table = WideTable(multiply_table(power_of_x(-8 * bit)))
        values[some] = table.multiply(values[some])
        bit *= 2
    return values
