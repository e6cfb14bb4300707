"""Find runs of bytes at unknown places of a buffer, by their sizes and checksums.

The register after every step of the bytes is computed once (`crc.registers`; `crc.grid` for images,
block by block). Then the register of a window of n bytes is `after(end) ^ after(start) · x^(8n)`.
So one more size costs one multiplication and one comparison for each position (`crc.windows`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

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
from ckptparse.crc.planes import Planes
from ckptparse.crc.registers import byte_registers, coarse_registers
from ckptparse.crc.windows import Ends, Wanted, Words, find_windows

__all__ = ["Registers", "find_splits"]

_WORD = 4
_COARSE_STEP = 256
"""From this step on, one call of the library's checksum for each step is as fast as numpy."""
_FEW_STEPS = 64
"""Up to so many registers are computed one by one; for more, all at once takes less time."""
_ALL_ONES = 0xFFFFFFFF


class Registers:
    """The CRC registers of some bytes after every `step` of them.

    Attributes:
        step: 4 bytes, or a multiple of 256: windows start at multiples of it.
        size: How many bytes there are.
    """

    __slots__ = ("_data", "_planes", "_words", "size", "step")

    def __init__(self, data: bytes | memoryview, *, step: int = _WORD) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self.size = len(data)
        self.step = step
        self._words: Words | None = None
        if step < _COARSE_STEP:
            self._planes = Planes.of_data(self._data)
        else:
            self._words = coarse_registers(data, step)
            self._planes = Planes.of_words(self._words)

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
        found = find_windows(self._planes, wanted, self._ends)
        return {item: [self.step * at for at in places] for item, places in found.items()}

    def positions(self, size: int) -> int:
        """Return how many windows of that size are tried."""
        return (self.size - size) // self.step + 1 if size <= self.size else 0

    def _ends(self, size: int) -> Ends:
        """Return where the registers at the ends of windows are, also between two steps."""
        whole, rest = divmod(size, self.step)
        count = self.positions(size)
        if not rest or not count:
            return Ends(self._planes, whole, count)
        if self._words is None:
            return Ends(self._planes, whole, count, rest, partial(self._advance, rest=rest))
        places = np.arange(whole, whole + count)
        words = self._advance(places, self._words[whole : whole + count], rest=rest)
        return Ends(Planes.of_words(words, room=len(self._words)), 0, count)

    def _advance(self, positions: npt.NDArray[np.int64], registers: Words, *, rest: int) -> Words:
        """Return the registers some bytes after positions."""
        table = multiply_table(power_of_x(8))[0]
        for place in range(rest):
            byte = self._data[positions * self.step + place]
            registers = table[(registers ^ byte) & 0xFF] ^ registers >> 8
        return registers


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
