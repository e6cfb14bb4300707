"""Test windows of bytes for their sizes and checksums, by the registers at their starts and ends.

The register after a window of n bytes is `before · x^(8n) ^ own`. That is linear: each bit of it is
the sum of one bit of `own` and some bits of `before`. A few bits are tested first, for 32 positions
by each operation on words (`crc.planes`). Of the few windows that pass, all bits are tested.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc_of_zeros
from ckptparse.crc.field import multiply, multiply_each, multiply_table, power_of_x
from ckptparse.crc.planes import GROUPS, LANES, Planes, Rectangle, fill_sums, rows_of_factor
from ckptparse.crc.threads import in_threads

__all__ = ["Ends", "Wanted", "Words", "find_windows"]

Words = npt.NDArray[np.uint32]
Positions = npt.NDArray[np.int64]

_TESTED = 11
"""Bits of a register that are tested first: 1 in 2,048 windows passes by chance. The test of all
bits then costs about as much as one more bit would."""
_TILE = 1 << 13
"""Words of a plane that are tested at once: 262,144 positions. With fewer, numpy's calls cost more
than their work; with more, the sums of planes leave the processor's cache."""
_LEAST_TILE = 1 << 12
"""Words of a plane that are worth a thread."""
_MOST_TILES = 8
"""Tiles that a thread takes at a time: what passes in them is looked at together."""
_FEW = 1 << 13
"""Up to so many windows, all bits are tested at once: that takes a few calls."""
_LOOKED_AT = 1 << 16
"""Windows that are looked at together at most: where all bytes are zeros, every one may pass."""


class Wanted(NamedTuple):
    """A run of bytes that is sought."""

    size: int
    crc: int
    """The unmasked CRC-32C of the bytes."""


class Ends(NamedTuple):
    """Where the registers at the ends of windows of one size are.

    Attributes:
        planes: Registers, laid out as those at the starts are.
        offset: The end is so many positions after the start,
        rest: and so many bytes after that position: 0 to 3.
        windows: How many windows there are, the first at position 0.
        advance: For `rest`: takes positions and their registers, returns those at the ends.
    """

    planes: Planes
    offset: int
    windows: int
    rest: int = 0
    advance: Callable[[Positions, Words], Words] | None = None


def find_windows(
    starts: Planes, wanted: Iterable[Wanted], ends: Callable[[int], Ends]
) -> dict[Wanted, list[int]]:
    """Return for each run of bytes the positions of all windows that have its size and checksum.

    Checksums of one size are sought together, and several threads share large work.

    Args:
        starts: The registers at the positions where windows start.
        wanted: The runs.
        ends: Returns for a size where the windows end.
    """
    found: dict[Wanted, list[int]] = {item: [] for item in wanted}
    grouped: dict[int, list[Wanted]] = defaultdict(list)
    for item in found:
        grouped[item.size].append(item)
    known = ((size, items, ends(size)) for size, items in grouped.items() if size)
    sizes = [_Size(size, items, there) for size, items, there in known if there.windows > 0]
    if not sizes:
        return found
    if starts.count <= _FEW:
        everywhere = np.arange(starts.count)
        for one in sizes:
            for item, position in one.hits(starts, everywhere):
                found[item].append(position)
        return found
    # At least two shares, so that two threads have work.
    parts = starts.rectangles(min(_TILE, max(_LEAST_TILE, starts.rows * starts.width // 2)))
    size = min(_MOST_TILES, -(-len(parts) // 2))
    shares = [parts[first : first + size] for first in range(0, len(parts), size)]
    for hits in in_threads(lambda share: _search(starts, sizes, share), shares):
        for item, position in hits:
            found[item].append(position)
    return {item: sorted(positions) for item, positions in found.items()}


class _Bit(NamedTuple):
    """A bit that is tested: its plane at the end, and what is added to it from the start."""

    plane: int
    sums: tuple[tuple[int, int], ...]
    """Groups of planes, and which sum of each."""


class _Size:
    """Tests whether windows of one size have one of some checksums."""

    __slots__ = ("_bits", "_ends", "_registers", "_table", "_targets", "_wanted")

    def __init__(self, size: int, wanted: Iterable[Wanted], ends: Ends) -> None:
        self._ends = ends
        zeros = crc_of_zeros(size)
        self._wanted = {item.crc ^ zeros: item for item in wanted}
        self._registers = np.array(list(self._wanted), np.uint32)
        self._table = table = multiply_table(power_of_x(8 * size))
        # Taken back by `rest` bytes, the register at the end is the one at the position before,
        # with these bytes added to its lowest bits: the others are known.
        self._targets = list(self._wanted)
        if ends.rest:
            back = power_of_x(-8 * ends.rest)
            self._targets = [multiply(register, back) for register in self._wanted]
            table = multiply_table(power_of_x(8 * (size - ends.rest)))
        self._bits = _choose_bits(table, 8 * ends.rest)

    def passing(self, part: Rectangle, sums: Words, tests: Words) -> Iterator[Words]:
        """Iterate over words with a bit for each window of a part that may fit."""
        segments = list(self._ends.planes.segments(part, self._ends.offset))
        for test, bit in zip(tests, self._bits, strict=False):
            plane = self._ends.planes.bits[bit.plane]
            for here, there, shift in segments:
                if shift < LANES:
                    np.right_shift(plane[there], shift, out=test[here])
                else:
                    test[here] = 0
            for group, number in bit.sums:
                np.bitwise_xor(test, sums[group, number], out=test)
        yield from self._narrow(tests, self._targets, 0, None)

    def _narrow(
        self, tests: Words, targets: Sequence[int], level: int, kept: Words | None
    ) -> Iterator[Words]:
        """Iterate over the windows that have the bits of one of the targets, from a level on."""
        if level == len(self._bits):
            if kept is not None:
                yield kept
            return
        for value in (0, 1):
            some = [one for one in targets if one >> self._bits[level].plane & 1 == value]
            if some:
                agree = tests[level] if value else ~tests[level]
                both = agree if kept is None else agree & kept
                yield from self._narrow(tests, some, level + 1, both)

    def hits(self, starts: Planes, positions: Positions) -> Iterator[tuple[Wanted, int]]:
        """Iterate over the runs that are at one of some positions: all bits agree."""
        planes, offset, windows, _, advance = self._ends
        positions = positions[positions < windows]
        for first in range(0, len(positions), _LOOKED_AT):
            some = positions[first : first + _LOOKED_AT]
            last = planes.values(some + offset)
            if advance is not None:
                last = advance(some + offset, last)
            own = multiply_each(starts.values(some), self._table) ^ last
            fits = np.isin(own, self._registers)
            for register, position in zip(own[fits].tolist(), some[fits].tolist(), strict=True):
                yield self._wanted[register], position


def _choose_bits(table: Words, first: int) -> list[_Bit]:
    """Choose bits to test, from one on: those to which the fewest sums are added.

    Args:
        table: The `multiply_table` of the power of x that takes a start to the end.
        first: The lowest bit that may be tested.
    """
    numbers = rows_of_factor(table)[first:, None] >> 4 * np.arange(GROUPS, dtype=np.uint32) & 15
    order = np.argsort(np.count_nonzero(numbers, axis=1), kind="stable")[:_TESTED]
    rows = zip(order.tolist(), numbers[order].tolist(), strict=True)
    return [
        _Bit(first + plane, tuple((group, one) for group, one in enumerate(row) if one))
        for plane, row in rows
    ]


def _search(
    starts: Planes, sizes: Sequence[_Size], parts: Sequence[Rectangle]
) -> list[tuple[Wanted, int]]:
    """Return the runs that begin in some parts, and their positions."""
    likely: list[list[Positions]] = [[] for _ in sizes]
    sums = tests = np.empty((0, 0, 0, 0), np.uint32)
    for part in parts:
        shape = part.bottom - part.top, part.right - part.left
        # Memory that is used again need not be made ready again.
        if sums.shape[2:] != shape:
            sums = np.empty((GROUPS, 16, *shape), np.uint32)
            tests = np.empty((_TESTED, *shape), np.uint32)
        fill_sums(starts.bits[:, part.top : part.bottom, part.left : part.right], sums)
        for size, found in zip(sizes, likely, strict=True):
            found += [starts.positions(part, words) for words in size.passing(part, sums, tests)]
    return [
        hit
        for size, found in zip(sizes, likely, strict=True)
        for hit in size.hits(starts, np.concatenate(found))
    ]
