"""Read many dense tensors at once, with few buffers and few reads; every checksum is checked.

Neighbours in a data file form a *stretch*. Stretches share an *arena*: one buffer. The arrays are
views into it: they do not overlap, are aligned, and can be written. An array that lives longer than
the others keeps its arena alive, which is at most `ARENA_SIZE` bytes larger than the array.

    data file    |  a  |  b  | not wanted |  c  |d|   e    |
    arena        |  a  |  b  |.|  c  |d|.|   e    |            d leaves e unaligned: new stretch,
                                                               or a copy if e is small

Threads share the pieces of a stretch. A piece is checked while it is still in the processor's
cache. Reading and checking run without the interpreter's lock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.memory import Buffer, HugePages
from ckptparse.coding.checksum import combine_crc, crc32c
from ckptparse.files.storage import Source, expect
from ckptparse.parallel import PIECE_SIZE, run_all

__all__ = [
    "ARENA_SIZE",
    "SHARE_SIZE",
    "SMALL_STRETCH",
    "Arena",
    "Check",
    "DenseRows",
    "Stretch",
    "check_mapped",
    "plan_arenas",
    "plan_placed",
    "read_arenas",
    "view_of",
]

IntColumn = npt.NDArray[np.int64]
OpenShard = Callable[[int], AbstractContextManager[Source]]
"""Gives the open data file of a number."""

ARENA_SIZE = 16 << 20
"""Bytes of one arena; a larger tensor has one alone. An array that is kept keeps so much memory at
most beyond its own; smaller arenas are slower to make."""
SHARE_SIZE = 16 << 20
"""Bytes that one thread takes at once: some 5 ms of reading, many times what starting it costs."""
SMALL_STRETCH = 1 << 14
"""Up to so many bytes, copying to another place is faster than one more read."""
_AHEAD = 2
"""How many shares for each thread a disk is asked for before they are wanted: 64 MiB for two."""
_ALIGNMENT = 64
"""Stretches begin at multiples of this in an arena: a line of the processor's cache, and enough for
every numpy type."""
_NEGLIGIBLE_GAP = 4096
"""A gap below one page is read over: that costs less than a second read."""


@dataclass(frozen=True, slots=True)
class DenseRows:
    """The tensors to read, as columns sorted by shard and offset; none is empty.

    Attributes:
        numbers: Which of the caller's rows each one is.
        shard_ids, offsets, sizes: Where its bytes are.
        alignments: Its offset in memory must be a multiple of this.
    """

    numbers: npt.NDArray[np.intp]
    shard_ids: IntColumn
    offsets: IntColumn
    sizes: IntColumn
    alignments: IntColumn

    @classmethod
    def of(
        cls,
        numbers: npt.NDArray[np.intp],
        shard_ids: IntColumn,
        offsets: IntColumn,
        sizes: IntColumn,
        alignments: IntColumn,
    ) -> DenseRows:
        """Sort the columns."""
        order = np.lexsort((offsets, shard_ids))
        columns = (numbers, shard_ids, offsets, sizes, alignments)
        return cls(*(column[order] for column in columns))

    def take(self, places: npt.NDArray[np.intp]) -> DenseRows:
        """Return the rows at some places, which rise."""
        columns = (self.numbers, self.shard_ids, self.offsets, self.sizes, self.alignments)
        return DenseRows(*(column[places] for column in columns))

    def part(self, low: int, high: int) -> DenseRows:
        """Return rows `low` to `high`, as views."""
        columns = (self.numbers, self.shard_ids, self.offsets, self.sizes, self.alignments)
        return DenseRows(*(column[low:high] for column in columns))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tensors `low` to `high` of the sorted rows, as one run of a data file."""

    low: int
    high: int
    shard_id: int
    offset: int
    """In the data file."""
    size: int
    position: int
    """In the arena."""


@dataclass(slots=True)
class Arena:
    """Stretches that share a buffer."""

    size: int = 0
    stretches: list[Stretch] = field(default_factory=list)


class Check:
    """Collects the checksums of bytes that are read, and compares them with those stored.

    A tensor may come in several parts. Several threads use it at the same time, each for other rows
    or parts.
    """

    def __init__(self, wanted: IntColumn) -> None:
        """Set up for rows of these checksums."""
        self._wanted = wanted
        # -1 is no checksum: it stays if nothing was computed for a row.
        self._computed = np.full_like(wanted, -1)
        self._parts: list[tuple[int, int, int, int]] = []

    def put(self, row: int, crcs: Sequence[int]) -> None:
        """Take the checksums of rows from `row` on. For a row that comes in parts it is ignored."""
        self._computed[row : row + len(crcs)] = crcs

    def put_part(self, row: int, start: int, size: int, crc: int) -> None:
        """Take the checksum of `size` bytes of a row from its byte `start` on."""
        self._parts.append((row, start, size, crc))

    def find_failed(self) -> tuple[int, int] | None:
        """Return the first damaged row and its computed checksum; called when all are taken."""
        self._computed[[row for row, *_ in self._parts]] = 0
        for row, _, size, crc in sorted(self._parts):
            self._computed[row] = combine_crc(int(self._computed[row]), crc, size)
        failed = np.flatnonzero(self._computed != self._wanted).tolist()
        return (failed[0], int(self._computed[failed[0]])) if failed else None


def plan_arenas(rows: DenseRows, *, gap: int = _NEGLIGIBLE_GAP) -> list[Arena]:
    """Place the tensors in arenas; those at most `gap` bytes apart are read together."""
    arenas: list[Arena] = []
    for low, high in _iter_stretches(rows, gap):
        offset = int(rows.offsets[low])
        size = int(rows.offsets[high - 1] + rows.sizes[high - 1]) - offset
        # If the widest element is aligned, so are those of the other large tensors.
        widest = low + _find_widest(rows, low, high)
        phase = (offset - int(rows.offsets[widest])) % int(rows.alignments[widest])
        start = -(-arenas[-1].size // _ALIGNMENT) * _ALIGNMENT + phase if arenas else phase
        if not arenas or start + size > ARENA_SIZE:
            arenas.append(Arena())
            start = phase
        shard_id = int(rows.shard_ids[low])
        arenas[-1].stretches.append(Stretch(low, high, shard_id, offset, size, start))
        arenas[-1].size = start + size
    return arenas


def plan_placed(rows: DenseRows, positions: IntColumn) -> Arena:
    """Place tensors at given positions of one arena, in the order of the rows."""
    ends = positions + rows.sizes
    cuts = (
        (rows.offsets[1:] != rows.offsets[:-1] + rows.sizes[:-1])
        | (positions[1:] != ends[:-1])
        | (np.diff(rows.shard_ids) != 0)
    )
    bounds = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(ends)]
    arena = Arena(int(ends.max()))
    for low, high in pairwise(bounds):
        offset = int(rows.offsets[low])
        size = int(ends[high - 1] - positions[low])
        shard_id, position = int(rows.shard_ids[low]), int(positions[low])
        arena.stretches.append(Stretch(low, high, shard_id, offset, size, position))
    return arena


def _iter_stretches(rows: DenseRows, gap: int) -> Iterator[tuple[int, int]]:
    """Cut the rows at a gap, an overlap, another shard, another alignment, and by size."""
    ends = rows.offsets + rows.sizes
    gaps = rows.offsets[1:] - ends[:-1]
    cuts = (gaps < 0) | (gaps > gap) | (np.diff(rows.shard_ids) != 0)
    if (rows.offsets % rows.alignments).any():
        cuts |= _find_misalignments(rows)
    bounds = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(ends)]
    for first, high in pairwise(bounds):
        low = first
        while low < high:
            limit = int(rows.offsets[low]) + ARENA_SIZE
            fitting = low + int(np.searchsorted(ends[low:high], limit, side="right"))
            top = max(low + 1, fitting)
            yield low, top
            low = top


def _find_widest(rows: DenseRows, low: int, high: int) -> int:
    """Return which large tensor of a stretch has the widest elements; of small ones if all are."""
    widths = rows.alignments[low:high] * (rows.sizes[low:high] > SMALL_STRETCH)
    return int((widths if widths.any() else rows.alignments[low:high]).argmax())


def _find_misalignments(rows: DenseRows) -> npt.NDArray[np.bool_]:
    """Tell before which rows to cut: no shift aligns both them and the large ones before.

    Small ones are copied to an aligned place.
    """
    cuts = np.zeros(len(rows.offsets), np.bool_)
    modulus = residue = 1
    large = np.flatnonzero(rows.sizes > SMALL_STRETCH)
    for row, offset, alignment in zip(
        large.tolist(), rows.offsets[large].tolist(), rows.alignments[large].tolist(), strict=True
    ):
        common = min(modulus, alignment)
        if offset % common != residue % common:
            cuts[row] = True
            modulus = 1
        # The widest alignment so far counts; of two that are the same the rests are the same.
        modulus, residue = max((modulus, residue), (alignment, offset % alignment))
    return cuts[1:]


def read_arenas(
    rows: DenseRows,
    arenas: Sequence[Arena],
    open_shard: OpenShard,
    *,
    check: Check | None,
    threads: int,
    share: int = SHARE_SIZE,
) -> list[npt.NDArray[np.uint8]]:
    """Read every arena.

    Args:
        rows: The tensors.
        arenas: Their layout.
        open_shard: Opens data files.
        check: Takes the checksum of every tensor, by row; None computes none.
        threads: How many threads work at once.
        share: Bytes that one thread takes at once.

    Returns:
        A buffer for each arena.
    """
    huge_pages = HugePages()
    sources = [_Source(Buffer(arena.size), huge_pages, open_shard) for arena in arenas]
    shares = [
        _Share(rows, stretch, view_of(source.buffer.array, stretch), start, share, check, source)
        for arena, source in zip(arenas, sources, strict=True)
        for stretch in arena.stretches
        for start in range(0, stretch.size, share)
    ]
    _run(shares, threads, open_shard)
    return [source.buffer.array for source in sources]


def check_mapped(
    rows: DenseRows,
    stretches: Sequence[Stretch],
    view: Callable[[Stretch], memoryview],
    open_shard: OpenShard,
    *,
    check: Check,
    threads: int,
) -> None:
    """Compute the checksums of tensors that are mapped; `view` gives the bytes of a stretch."""
    shares = [
        _Share(rows, stretch, view(stretch), start, SHARE_SIZE, check, None)
        for stretch in stretches
        for start in range(0, stretch.size, SHARE_SIZE)
    ]
    _run(shares, threads, open_shard)


def _run(shares: Sequence[_Share], threads: int, open_shard: OpenShard) -> None:
    """Run every share, and ask the disk for those that come some places later."""
    ahead = _AHEAD * threads

    def job(number: int) -> Callable[[], None]:
        def run() -> None:
            for later in shares[number + ahead : number + ahead + 1]:
                later.expect(open_shard)
            shares[number].run()

        return run

    for share in shares[threads:ahead]:
        share.expect(open_shard)
    run_all([job(number) for number in range(len(shares))], threads)


def view_of(buffer: npt.NDArray[np.uint8], stretch: Stretch) -> memoryview:
    """Return a stretch's bytes in its arena's buffer."""
    return memoryview(buffer)[stretch.position : stretch.position + stretch.size]  # type: ignore[arg-type] # numpy < 2.1


@dataclass(frozen=True, slots=True)
class _Source:
    """How the bytes of an arena are read into memory."""

    buffer: Buffer
    huge_pages: HugePages
    open_shard: OpenShard


@dataclass(frozen=True, slots=True)
class _Share:
    """Up to `most` bytes of a stretch, from `start` on: the work of one thread."""

    rows: DenseRows
    stretch: Stretch
    buffer: memoryview
    start: int
    most: int
    check: Check | None
    source: _Source | None
    """None if the bytes are in memory already."""

    @property
    def stop(self) -> int:
        """Where it ends in the stretch."""
        return min(self.start + self.most, self.stretch.size)

    def expect(self, open_shard: OpenShard) -> None:
        """Have its bytes fetched, if they are worth asking for."""
        size = self.stop - self.start
        if size >= PIECE_SIZE:
            with open_shard(self.stretch.shard_id) as file:
                expect(file, self.stretch.offset + self.start, size)

    def run(self) -> None:
        """Read and check, piece by piece."""
        checker = None if self.check is None else _Checker(self, self.check)
        if self.source is not None:
            self._read(self.source, checker)
        elif checker is not None:
            checker.advance(self.stop)

    def _read(self, source: _Source, checker: _Checker | None) -> None:
        stretch = self.stretch
        low, high = stretch.position + self.start, stretch.position + self.stop
        source.buffer.prepare(low, high, source.huge_pages)
        with source.open_shard(stretch.shard_id) as file:
            for start in range(self.start, self.stop, file.piece):
                end = min(start + file.piece, self.stop)
                file.read_into(stretch.offset + start, self.buffer[start:end])
                if checker is not None:
                    checker.advance(end)


class _Checker:
    """Computes the checksums of a share's tensors while its bytes are read."""

    __slots__ = ("_buffer", "_check", "_done", "_ends", "_parts", "_row", "_running", "_starts")

    def __init__(self, share: _Share, check: Check) -> None:
        rows, stretch = share.rows, share.stretch
        starts = rows.offsets[stretch.low : stretch.high] - stretch.offset
        ends = starts + rows.sizes[stretch.low : stretch.high]
        first = int(np.searchsorted(ends, share.start, side="right"))
        starts = starts[first : np.searchsorted(starts, share.stop)]
        ends = ends[first : first + len(starts)]
        self._buffer = share.buffer
        self._check = check
        self._row = stretch.low + first
        lows, highs = np.maximum(starts, share.start), np.minimum(ends, share.stop)
        self._starts: list[int] = lows.tolist()
        self._ends: list[int] = highs.tolist()
        # Only the first and the last tensor can reach beyond the share. Of these: where in the
        # tensor the share begins, and how many of its bytes it has.
        begins, sizes = lows - starts, highs - lows
        self._parts = {
            number: (int(begins[number]), int(sizes[number]))
            for number in {0, len(starts) - 1}
            if len(starts) and sizes[number] < ends[number] - starts[number]
        }
        self._done = self._running = 0

    def advance(self, ready: int) -> None:
        """Go on up to `ready`: all bytes before it have been read."""
        buffer, starts, ends, low = self._buffer, self._starts, self._ends, self._done
        high = bisect_right(ends, ready, low)
        if low < high:
            crcs = [crc32c(buffer[starts[low] : ends[low]], self._running)]
            rest = zip(starts[low + 1 : high], ends[low + 1 : high], strict=True)
            crcs += [crc32c(buffer[start:end]) for start, end in rest]
            self._put(low, crcs)
            self._done, self._running = high, 0
        if high < len(starts):
            self._running = crc32c(buffer[starts[high] : ready], self._running)
            starts[high] = max(starts[high], ready)

    def _put(self, low: int, crcs: list[int]) -> None:
        self._check.put(self._row + low, crcs)
        for number, (begin, size) in self._parts.items():
            if low <= number < low + len(crcs):
                self._check.put_part(self._row + number, begin, size, crcs[number - low])
