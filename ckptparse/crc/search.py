"""Find runs of bytes at unknown places of a buffer, by their sizes and checksums.

The mark of the register after every step of the bytes is computed once (`crc.marks`; `crc.grid`
computes registers of images, block by block). Then one more size costs three operations for each
position (`crc.windows`). Of the windows that may be what is sought, the registers are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial

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
from ckptparse.crc.marks import SHARE, Marker
from ckptparse.crc.registers import (
    coarse_registers,
    one_further,
    registers_at,
    word_registers,
)
from ckptparse.crc.sequences import Marks, Sequences, sequences_of
from ckptparse.crc.threads import Spare, in_threads, threads_at_work
from ckptparse.crc.windows import Column, Ends, Positions, Track, Wanted, Words, find_windows

__all__ = ["Registers", "find_splits"]

_WORD = 4
_COARSE_STEP = 256
"""From this step on, one call of the library's checksum for each step is as fast as numpy."""
_FEW_STEPS = 64
"""Up to so many registers are computed one by one; for more, all at once takes less time."""
_FEW_SPLITS = 2
"""Up to so many splits, it takes less time to put the run together for each."""
_PART = 1 << 13
"""Bytes of which the tables of products are kept, 1 MiB: they stay in the processor's cache."""
_FEW_BYTES = 8
"""Up to so many bytes behind each step, all registers are advanced together, byte by byte; for more
it takes less time to call the library for each."""
_SPARSE = 32
"""If more than one register in so many is asked for, it takes less time to compute all."""
_ALL_ONES = 0xFFFFFFFF


class Registers:
    """Where the CRC registers of some bytes are known: after every `step` of them.

    Attributes:
        step: 4 bytes, or a multiple of 256: windows start at multiples of it.
        size: How many bytes there are.
    """

    __slots__ = ("_data", "_tracks", "size", "step")

    def __init__(self, data: bytes | memoryview, *, step: int = _WORD) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self.size = len(data)
        self.step = step
        self._tracks: dict[int, Track] = {}

    def find(self, size: int, crc: int) -> list[int]:
        """Return the offsets, multiples of the step, of all windows of that size and checksum.

        On average `positions(size)` / 2^32 windows fit by chance.
        """
        return self.find_each([Wanted(size, crc)])[Wanted(size, crc)]

    def find_each(self, wanted: Iterable[Wanted]) -> dict[Wanted, list[int]]:
        """Return for each run of bytes the offsets, multiples of the step, where it is.

        Sizes larger than the buffer cost nothing. Checksums of one size are sought together.
        """
        found = find_windows(self._track(0), wanted, self._ends)
        return {item: [self.step * at for at in places] for item, places in found.items()}

    def positions(self, size: int) -> int:
        """Return how many windows of that size are tried."""
        return (self.size - size) // self.step + 1 if size <= self.size else 0

    def _ends(self, size: int) -> Ends:
        """Return where the registers at the ends of windows are, also between two steps."""
        whole, rest = divmod(size, self.step)
        count = self.positions(size)
        if not rest or not count:
            return Ends(self._track(0), whole, count)
        if self.step < _COARSE_STEP:
            return Ends(self._track(rest), whole, count)
        return Ends(self._advanced(whole, count, rest), whole, count)

    def _track(self, rest: int) -> Track:
        """Return the registers some bytes after each step."""
        if rest not in self._tracks:
            if self.step < _COARSE_STEP:
                before = self._track(0) if rest else None
                self._tracks[rest] = _DataTrack(self._data, rest, before)
            else:
                words = coarse_registers(self._data.data, self.step)
                self._tracks[rest] = Column(self.step, 0, words)
        return self._tracks[rest]

    def _advanced(self, first: int, count: int, rest: int) -> Column:
        """Return the registers some bytes after steps, of those that are kept; before, zeros."""
        words = self._track(0).values(np.arange(first, first + count))
        if rest > _FEW_BYTES:
            starts = range(self.step * first, self.step * (first + count), self.step)
            view = self._data.data
            ends = (
                crc32c(view[start : start + rest], crc)
                for start, crc in zip(starts, (words ^ np.uint32(_ALL_ONES)).tolist(), strict=True)
            )
            words = np.fromiter(ends, np.uint32, count) ^ np.uint32(_ALL_ONES)
        else:
            table = multiply_table(power_of_x(8))[0]
            for byte in range(self.step * first, self.step * first + rest):
                data = self._data[byte :: self.step][:count]
                words = table[(words ^ data) & 0xFF] ^ words >> 8
        return Column(self.step, rest, np.concatenate([np.zeros(first, np.uint32), words]))


class _DataTrack(Track):
    """Registers of data after every 4 bytes, or some bytes after these."""

    __slots__ = ("_asked", "_before", "_data", "_registers")

    def __init__(self, data: npt.NDArray[np.uint8], place: int, before: Track | None) -> None:
        """Take data and a place; for places but the first, also the registers at the first one."""
        super().__init__(_WORD, place, (len(data) - place) // _WORD + 1)
        self._data = data
        self._before = before
        self._asked = 0
        self._registers: Words | None = None

    def values(self, positions: Positions) -> Words:
        """Return the registers at some positions; all are computed if many are asked for."""
        self._asked += len(positions)
        if self._registers is None and self._asked * _SPARSE > self.count:
            self._registers = self._all()
        if self._registers is not None:
            return self._registers[positions]
        places, inverse = np.unique(positions, return_inverse=True)
        return registers_at(self._data.data, (_WORD * places + self.place).tolist())[inverse]

    def _all(self) -> Words:
        if self._before is None:
            return word_registers(self._data)
        registers = self._before.values(np.arange(self.count))
        for byte in range(self.place):
            registers = one_further(registers, self._data[byte::_WORD])
        return registers

    def _fill(self, marks: Marks) -> None:
        words = self._data[: len(self._data) // _WORD * _WORD].view("<u4")
        spare = Spare(partial(_Adder, sequences_of(_WORD), words, marks))
        if self._before is None:
            self._fill_sums(words, spare)
            return
        before = self._before.marks()

        def add_bytes(first: int) -> None:
            with spare.taken() as adder:
                adder.add_bytes(first, self.place, before)

        in_threads(add_bytes, range(0, len(words), SHARE), short=True)
        if self.count > len(words):
            # The last word has just these bytes, if it has any.
            last = self.count - 1
            register = int(self.values(np.array([last]))[0])
            power = power_of_x(-8 * (_WORD * last + self.place))
            marks[last] = sequences_of(_WORD).mark(multiply(register, power))

    def _fill_sums(self, words: Words, spare: Spare[_Adder]) -> None:
        """Compute the marks from the first to the last; each thread goes on with what it found."""
        most = SHARE * (len(words) // (SHARE * threads_at_work(short=True)) + 1)
        runs = [range(first, min(first + most, len(words))) for first in range(0, len(words), most)]
        ends = [_WORD * run.start for run in runs]

        def add(share: tuple[range, int]) -> None:
            with spare.taken() as adder:
                adder.add_words(*share)

        registers = registers_at(self._data.data, ends).tolist()
        in_threads(add, list(zip(runs, registers, strict=True)), short=True)


class _Adder:
    """Computes the marks of registers of data: each word is added to all registers after it."""

    __slots__ = ("_added", "_marker", "_marks", "_sequences", "_words")

    def __init__(self, sequences: Sequences, words: Words, marks: Marks) -> None:
        self._sequences = sequences
        self._marker = Marker(sequences)
        self._words = words
        self._marks = marks
        self._added = np.empty(SHARE, np.uint16)

    def add_words(self, run: range, register: int) -> None:
        """Compute the marks from a register on, up to that after the last word of a run."""
        back = power_of_x(-8 * _WORD * run.start)
        self._marks[run.start] = self._sequences.mark(multiply(register, back))
        for first in run[::SHARE]:
            after = self._marks[first + 1 : min(first + SHARE, run.stop) + 1]
            some = self._words[first : first + len(after)]
            self._marker.fill_sums(some, first, after, int(self._marks[first]))

    def add_bytes(self, first: int, count: int, before: Marks) -> None:
        """Compute the marks some bytes after each word, from those before it."""
        some = slice(first, min(first + SHARE, len(self._words), len(self._marks)))
        low = np.uint32((1 << 8 * count) - 1)
        added = self._added[: some.stop - first]
        self._marker.fill(self._words[some] & low, first, added)
        np.bitwise_xor(added, before[some], out=self._marks[some])


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
    if len(splits) <= _FEW_SPLITS:
        one, other = memoryview(head), memoryview(tail)[max(0, before - size) :]
        ahead = max(0, size - before)  # So many bytes of the run lie before the tail.
        return [at for at in splits if crc32c(other[at - ahead :], crc32c(one[:at])) == crc]
    # Bytes before the tail count as zeros: they leave a register of zero as it is.
    differences = np.frombuffer(head, np.uint8, highest).copy()
    differences[lowest:] ^= np.frombuffer(tail, np.uint8, highest - lowest, max(0, before - size))
    whole = crc32c(memoryview(tail)[before - (size - lowest) :]) ^ crc_of_zeros(size - lowest)
    wanted = multiply(crc ^ crc_of_zeros(size) ^ whole, power_of_x(-8 * size))
    if step == 1 and len(splits) > _FEW_STEPS:
        return [at for at in _iter_ends(differences, wanted) if at >= start]
    registers = registers_at(differences.data, splits, start=0)
    powers = powers_of_x(8 * step, len(splits))
    fits = registers == multiply_each(
        powers, multiply_table(multiply(wanted, power_of_x(8 * start)))
    )
    return [start + int(place) * step for place in np.flatnonzero(fits)]


def _iter_ends(data: npt.NDArray[np.uint8], wanted: int) -> Iterator[int]:
    """Iterate over the numbers of bytes, s, of which the register from zero is `wanted` · x^(8s).

    Taken back by x^(8s), a register is the sum of the bytes, each times a power that its place
    tells.
    """
    tables = _products()
    places = np.arange(0, 16 * _PART, 16, dtype=np.int32)
    if not wanted:
        yield 0
    for first in range(0, len(data), _PART):
        part = data[first : first + _PART]
        sums = tables[0][places[: len(part)] + (part & 15)]
        sums ^= tables[1][places[: len(part)] + (part >> 4)]
        np.bitwise_xor.accumulate(sums, out=sums)
        for at in np.flatnonzero(sums == np.uint32(wanted)).tolist():
            yield first + at + 1
        wanted = multiply(wanted ^ int(sums[-1]), power_of_x(8 * _PART))


@cache
def _products() -> tuple[Words, Words]:
    """Return the low and the high halves of bytes, each times x^-8i for the i-th byte of a part."""
    powers = powers_of_x(-8, _PART)
    products = []
    for shift in (0, 4):
        # Bit 7 of a byte is x^24, and the bits below it are higher powers.
        bits = [
            multiply_each(powers, multiply_table(power_of_x(31 - shift - bit))) for bit in range(4)
        ]
        table = np.zeros((_PART, 16), np.uint32)
        for bit, product in enumerate(bits):
            table[:, 1 << bit : 2 << bit] = table[:, : 1 << bit] ^ product[:, None]
        products.append(table.reshape(-1))
    return products[0], products[1]
