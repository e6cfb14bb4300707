"""Find a tensor whose place is not known, by its size and checksum.

The register after every step of the bytes is computed once. A window of n bytes then has the
register `after(end) ^ after(start) · x^(8n)`, so each further tensor costs one multiplication and
one comparison a position. The registers are computed in lanes: the library's checksum gives the
register at the start of each lane, and numpy advances all lanes together, a word at a time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.field import WideTable, multiply_table, power_of_x

__all__ = ["Registers", "word_registers"]

_WORD = 4
_BATCH = 1 << 13
"""Registers that are advanced together: they and the tables fit the processor's cache."""
_SEGMENT = 1 << 20
_COARSE_STEP = 256
"""From this step on the library's checksum, called once a step, is as quick."""


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

        The expected number of windows that fit by chance is `positions(size)` / 2^32.
        """
        count = self.positions(size) if size else 0
        advance = WideTable(power_of_x(8 * size))
        wanted = np.uint32(crc ^ crc_of_zeros(size))
        found: list[int] = []
        for first in range(0, count, _BATCH):
            starts = self._after[first : min(first + _BATCH, count)]
            fits = self._ends(first, size, len(starts)) ^ advance.multiply(starts) == wanted
            found.extend((int(place) + first) * self.step for place in np.flatnonzero(fits))
        return found

    def positions(self, size: int) -> int:
        """Return how many windows of that size are tried."""
        return (self.size - size) // self.step + 1 if size <= self.size else 0

    def _ends(self, first: int, size: int, count: int) -> npt.NDArray[np.uint32]:
        """Return the registers at the ends of `count` windows, which need not be multiples."""
        whole, rest = divmod(size, self.step)
        ends = self._after[first + whole : first + whole + count]
        table = multiply_table(power_of_x(8))[0] if rest else ends
        for place in range(rest):
            at = (first + whole) * self.step + place
            byte = self._data[at : at + (count - 1) * self.step + 1 : self.step]
            ends = table[(ends ^ byte) & 0xFF] ^ ends >> 8
        return ends


def _coarse(data: memoryview, step: int) -> npt.NDArray[np.uint32]:
    after = np.empty(len(data) // step + 1, np.uint32)
    after[0] = crc = 0
    for place in range(1, len(after)):
        crc = crc32c(data[(place - 1) * step : place * step], crc)
        after[place] = crc
    after ^= np.uint32(0xFFFFFFFF)
    return after


def word_registers(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return the registers, started at all ones, after every 4 bytes."""
    words = data[: len(data) // _WORD * _WORD].view("<u4")
    after = np.empty(len(words) + 1, np.uint32)
    after[0] = 0xFFFFFFFF
    table = WideTable(power_of_x(8 * _WORD))
    for first in range(0, len(words), _SEGMENT):
        part = words[first : first + _SEGMENT]
        after[first + 1 : first + 1 + len(part)] = _segment(part, int(after[first]), table)
    return after


def _segment(
    words: npt.NDArray[np.uint32], register: int, table: WideTable
) -> npt.NDArray[np.uint32]:
    length = -(-len(words) // _BATCH)
    lanes = -(-len(words) // length)
    padded = np.zeros(lanes * length, np.uint32)
    padded[: len(words)] = words
    columns = np.ascontiguousarray(padded.reshape(lanes, length).T)
    registers = _lane_starts(padded, lanes, register)
    for column in range(length):
        registers = table.multiply(registers ^ columns[column])
        columns[column] = registers
    after: npt.NDArray[np.uint32] = columns.T.reshape(-1)[: len(words)]
    return after


def _lane_starts(
    words: npt.NDArray[np.uint32], lanes: int, register: int
) -> npt.NDArray[np.uint32]:
    view = words.data.cast("B")
    size = len(view) // lanes
    starts = np.empty(lanes, np.uint32)
    crc = register ^ 0xFFFFFFFF
    for lane in range(lanes):
        starts[lane] = crc
        crc = crc32c(view[lane * size : (lane + 1) * size], crc)
    starts ^= np.uint32(0xFFFFFFFF)
    return starts
