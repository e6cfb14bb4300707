"""The CRC register before any byte of a file: blocks of the file, each at once, when asked for.

With the registers at both ends of a run of bytes, its checksum takes one operation, however long it
is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c
from ckptparse.crc.field import multiply_table, power_of_x
from ckptparse.crc.registers import word_registers
from ckptparse.files.storage import Source

__all__ = ["Prefixes"]

IntColumn = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

_SHIFT = 22
_BLOCK = 1 << _SHIFT
"""Bytes of a block: the registers of smaller ones take longer, for each byte."""
_MOST_HELD = 16
"""Blocks that are kept, with their registers: 128 MiB."""
_FEW = 8
"""Places in a block that is not kept for which only the bytes before them are read."""
_FILLED = 16
"""To compute the registers of a byte takes as long as the checksum of so many."""
_WORD = 4
_ALL_ONES = 0xFFFFFFFF


class Prefixes:
    """Registers, started at all ones, before the bytes of a file.

    Attributes:
        work: Bytes that were read for them; of a block of which all registers were computed, 16
            times its bytes.
    """

    def __init__(self, source: Source) -> None:
        """Take an open file; nothing is read yet."""
        self.work = 0
        self._source = source
        self._starts = [_ALL_ONES]
        """The registers before the first blocks."""
        self._held: dict[int, tuple[npt.NDArray[np.uint8], Words]] = {}
        self._step = multiply_table(power_of_x(8))[0]

    def one(self, place: int) -> int:
        """Return the register before a byte; those near it are asked for next."""
        return int(self._in_block(place >> _SHIFT, np.array([place], np.int64), few=0)[0])

    def at(self, places: IntColumn) -> Words:
        """Return the registers before some bytes, or behind the last one."""
        first, last = int(places.min()) >> _SHIFT, int(places.max()) >> _SHIFT
        if first == last:
            return self._in_block(first, places, few=_FEW)
        blocks = places >> _SHIFT
        found = np.empty(len(places), np.uint32)
        for block in range(first, last + 1):
            mine = np.flatnonzero(blocks == block)
            if len(mine):
                found[mine] = self._in_block(block, places[mine], few=_FEW)
        return found

    def _in_block(self, block: int, places: IntColumn, *, few: int) -> Words:
        held = self._held.get(block)
        if held is None:
            if len(places) <= few:
                ends = [self._one_by_one(block, place) for place in places.tolist()]
                return np.array(ends, np.uint32)
            held = self._fill(block)
        data, registers = held
        offsets = places - block * _BLOCK
        found: Words = registers[offsets >> 2]
        rest = offsets & _WORD - 1
        for behind in range(int(rest.max())):
            mine = np.flatnonzero(rest > behind)
            before = found[mine]
            value = data[offsets[mine] - rest[mine] + behind]
            found[mine] = self._step[(before ^ value) & 0xFF] ^ before >> 8
        return found

    def _one_by_one(self, block: int, place: int) -> int:
        start = block * _BLOCK
        return self._advanced(self._start_of(block), start, place - start)

    def _start_of(self, block: int) -> int:
        while len(self._starts) <= block:
            last = len(self._starts) - 1
            self._starts.append(self._advanced(self._starts[last], last * _BLOCK, _BLOCK))
        return self._starts[block]

    def _advanced(self, register: int, start: int, size: int) -> int:
        self.work += size
        data = self._source.read_at(start, size) if size else b""
        return crc32c(data, register ^ _ALL_ONES) ^ _ALL_ONES

    def _fill(self, block: int) -> tuple[npt.NDArray[np.uint8], Words]:
        start = block * _BLOCK
        register = self._start_of(block)
        size = min(_BLOCK, self._source.size - start)
        data = np.frombuffer(self._source.read_at(start, size) if size else b"", np.uint8)
        registers = word_registers(data, register)
        self.work += _FILLED * size
        if len(self._held) >= _MOST_HELD:
            del self._held[next(iter(self._held))]
        self._held[block] = data, registers
        return data, registers
