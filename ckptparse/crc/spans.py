"""The checksums of runs of many sizes from one place on, by the registers at their ends.

What a register becomes over n bytes is a linear map, plus what the bytes themselves add. The map
depends on n only. For many sizes it is kept as what each four bits of a register become: of one
place, eight rows of that are added up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ckptparse.crc.field import ONE, multiply_each, multiply_table, power_of_x, times_x
from ckptparse.crc.prefixes import Prefixes

__all__ = ["SpanChecksums"]

IntColumn = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

_ALL_ONES = 0xFFFFFFFF
_BITS, _DIGITS = 4, 8
"""Bits that are looked up together, and how often in a register."""


class SpanChecksums:
    """Checksums of runs of some sizes.

    Attributes:
        sizes: The sizes, which rise.
    """

    def __init__(self, prefixes: Prefixes, sizes: IntColumn) -> None:
        """Take the registers of a file, and sizes; 512 bytes of memory are taken for each."""
        self.sizes = sizes
        self._prefixes = prefixes
        self._tables = np.zeros((_DIGITS, 1 << _BITS, len(sizes)), np.uint32)
        image = _powers(sizes)
        # The highest bit of a register is 1, and each bit below it is x times the one above.
        for bit in reversed(range(_DIGITS * _BITS)):
            table, place = self._tables[bit // _BITS], bit % _BITS
            for value in range(1 << _BITS):
                if value >> place & 1:
                    table[value] ^= image
            image = times_x(image)

    def behind(self, start: int, count: int) -> Words:
        """Return the CRCs of the runs of the first `count` sizes that begin at a place."""
        found: Words = self._prefixes.at(start + self.sizes[:count]) ^ np.uint32(_ALL_ONES)
        register = self._prefixes.one(start) ^ _ALL_ONES
        for table in self._tables:
            found ^= table[register & 0xF, :count]
            register >>= _BITS
        return found

    def between(self, starts: IntColumn, stops: IntColumn) -> Words:
        """Return the CRCs of runs, one of each of the first sizes, wherever they are."""
        found: Words = self._prefixes.at(stops) ^ np.uint32(_ALL_ONES)
        registers = self._prefixes.at(starts) ^ np.uint32(_ALL_ONES)
        numbers = np.arange(len(starts))
        for table in self._tables:
            rows = (registers & 0xF) * np.intp(len(self.sizes))
            found ^= np.take(table.reshape(-1), rows + numbers, mode="clip")
            registers >>= np.uint32(_BITS)
        return found


def _powers(sizes: IntColumn) -> Words:
    """Return x to the power of eight times each size."""
    powers = np.full(len(sizes), ONE, np.uint32)
    for bit in range(int(sizes.max(initial=0)).bit_length()):
        mine = np.flatnonzero(sizes >> bit & 1)
        if len(mine):
            powers[mine] = multiply_each(powers[mine], multiply_table(power_of_x(8 << bit)))
    return powers
