"""What many runs of bytes of one file have, found together: their checksums, and their zeros.

Runs may overlap as they like: each byte is read once. The checksum of a run follows from those up
to its start and up to its end, both from the same byte on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c
from ckptparse.crc.field import multiply_each, multiply_table, power_of_x
from ckptparse.elements import unique
from ckptparse.examination.outcome import Span
from ckptparse.examination.readers import PAGE, DataFile, DataFiles, checksum_of, find_holes
from ckptparse.parallel import PIECE_SIZE

__all__ = ["ZeroRuns", "checksums_of", "find_zeros"]

IntColumn = npt.NDArray[np.int64]

_FEW = 16
"""Runs that are looked at one by one: what many need together takes longer."""
_SMALL_RUNS, _SMALL_BYTES = 64, 1 << 12
"""So many runs are, too, if all of them have no more bytes."""
_NEAR = PAGE
"""Runs so near to each other are read as one: what is between them comes with the same read."""


def checksums_of(
    files: DataFiles, file: DataFile, starts: IntColumn, sizes: IntColumn
) -> IntColumn:
    """Return the CRCs of runs of bytes. The caller has made sure that they are there."""
    if _are_few(sizes):
        rows = zip(starts.tolist(), sizes.tolist(), strict=True)
        return np.array([checksum_of(files, file, start, size) for start, size in rows], np.int64)
    known = files.known if file.undo is None else {}
    found: IntColumn = np.full(len(starts), -1, np.int64)
    if len(known) >= len(starts):
        # Checksums that others have computed are known for each run.
        rows = zip(starts.tolist(), sizes.tolist(), strict=True)
        found[:] = [known.get((file.path, start, size), -1) for start, size in rows]
    missing = np.flatnonzero(found < 0)
    if len(missing):
        found[missing] = _compute(files, file, starts[missing], sizes[missing])
    return found


def _are_few(sizes: IntColumn) -> bool:
    return len(sizes) <= _FEW or (len(sizes) <= _SMALL_RUNS and sum(sizes.tolist()) <= _SMALL_BYTES)


def _compute(files: DataFiles, file: DataFile, starts: IntColumn, sizes: IntColumn) -> IntColumn:
    stops = starts + sizes
    order = np.argsort(starts, kind="stable")
    if (starts[order][1:] >= stops[order][:-1]).all():
        found: IntColumn = np.empty(len(starts), np.int64)
        found[order] = list(_apart(files, file, starts[order].tolist(), stops[order].tolist()))
        return found
    points = unique(np.concatenate((starts, stops)))
    prefixes = np.zeros(len(points), np.uint32)
    for low, high in zip(*_joined(starts, stops, _NEAR), strict=True):
        first, last = np.searchsorted(points, (low, high)).tolist()
        crcs = _prefixes(files, file, points[first : last + 1].tolist())
        prefixes[first : last + 1] = np.fromiter(crcs, np.uint32, last + 1 - first)
    before = _advanced(prefixes[np.searchsorted(points, starts)], sizes)
    return (prefixes[np.searchsorted(points, stops)] ^ before).astype(np.int64)


def _apart(files: DataFiles, file: DataFile, starts: list[int], stops: list[int]) -> Iterator[int]:
    """Iterate over the CRCs of runs that do not overlap, in the order of the file."""
    first = 0
    while first < len(starts):
        start = starts[first]
        last = bisect_right(stops, start + PIECE_SIZE, first)
        if last == first:
            yield checksum_of(files, file, start, stops[first] - start)
            first += 1
            continue
        data = files.read(file, start, stops[last - 1] - start)
        for low, high in zip(starts[first:last], stops[first:last], strict=True):
            yield crc32c(data[low - start : high - start])
        first = last


def _joined(starts: IntColumn, stops: IntColumn, near: int) -> tuple[list[int], list[int]]:
    """Return where runs begin and end that cover all of these, and nothing far from them."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(stops[order])
    cuts = np.flatnonzero(starts[1:] > ends[:-1] + near) + 1
    lows: list[int] = np.concatenate((starts[:1], starts[cuts])).tolist()
    highs: list[int] = np.concatenate((ends[cuts - 1], ends[-1:])).tolist()
    return lows, highs


def _prefixes(files: DataFiles, file: DataFile, points: list[int]) -> Iterator[int]:
    """Iterate over the CRCs of what lies before each of some offsets, from the first of them on."""
    crc = first = 0
    yield crc
    while first < len(points) - 1:
        start = points[first]
        stop = bisect_right(points, start + PIECE_SIZE, first) - 1
        if stop == first:
            stop = first + 1
            crc = checksum_of(files, file, start, points[stop] - start, crc=crc)
            yield crc
        else:
            data = files.read(file, start, points[stop] - start)
            for low, high in pairwise(points[first : stop + 1]):
                crc = crc32c(data[low - start : high - start], crc)
                yield crc
        first = stop


def _advanced(crcs: npt.NDArray[np.uint32], sizes: IntColumn) -> npt.NDArray[np.uint32]:
    """Return what each CRC becomes if as many zero bytes follow: a power of x times it."""
    advanced: npt.NDArray[np.uint32] = crcs.copy()
    for bit in range(int(sizes.max(initial=0)).bit_length()):
        mine = np.flatnonzero(sizes >> bit & 1)
        if len(mine):
            advanced[mine] = multiply_each(advanced[mine], multiply_table(power_of_x(8 << bit)))
    return advanced


@dataclass(frozen=True, slots=True)
class ZeroRuns:
    """Pages of zeros of a file, those beside each other as one.

    Attributes:
        starts: Where each run begins, in bytes; they ascend.
        stops: Where it ends.
    """

    starts: IntColumn
    stops: IntColumn

    def count(self, starts: IntColumn, stops: IntColumn) -> IntColumn:
        """Return how many bytes of other runs lie in these."""
        return self._before(stops) - self._before(starts)

    def _before(self, points: IntColumn) -> IntColumn:
        """Return how many bytes of these lie before each of some offsets."""
        if not len(self.starts):
            return np.zeros(len(points), np.int64)
        sizes = self.stops - self.starts
        before = np.cumsum(sizes) - sizes
        number = np.searchsorted(self.starts, points, side="right") - 1
        inside = np.minimum(points, self.stops[number]) - self.starts[number]
        found: IntColumn = np.where(number < 0, 0, before[number] + inside)
        return found

    def within(self, start: int, stop: int) -> tuple[Span, ...]:
        """Return what of these lies in one run, as spans within it."""
        first = int(np.searchsorted(self.stops, start, side="right"))
        last = int(np.searchsorted(self.starts, stop, side="left"))
        spans = zip(self.starts[first:last].tolist(), self.stops[first:last].tolist(), strict=True)
        return tuple((max(0, low - start), min(high, stop) - start) for low, high in spans)


_NO_ZEROS = ZeroRuns(np.empty(0, np.int64), np.empty(0, np.int64))


def find_zeros(files: DataFiles, file: DataFile, starts: IntColumn, stops: IntColumn) -> ZeroRuns:
    """Return the pages of zeros that touch runs of bytes, as `find_holes` finds those of one."""
    size = files.size(file) or 0
    if len(starts) and size <= PAGE and bytes(files.read(file, 0, size)).strip(b"\0"):
        # The only page has others.
        return _NO_ZEROS
    if len(starts) <= _FEW:
        spans = zip(starts.tolist(), stops.tolist(), strict=True)
        if not any(find_holes(files, file, start, stop - start) for start, stop in spans):
            return _NO_ZEROS
    lows, highs = starts // PAGE * PAGE, np.minimum(-(-stops // PAGE) * PAGE, size)
    found: list[IntColumn] = [np.empty((0, 2), np.int64)]
    if len(lows):
        for low, high in zip(*_joined(lows, highs, 0), strict=True):
            for start in range(low, high, PIECE_SIZE):
                data = files.read(file, start, min(PIECE_SIZE, high - start))
                found.append(_zero_pages(np.frombuffer(data, np.uint8), start))
    pages = np.concatenate(found)
    cuts = np.flatnonzero(pages[1:, 0] != pages[:-1, 1]) + 1
    return ZeroRuns(
        np.concatenate((pages[:1, 0], pages[cuts, 0])),
        np.concatenate((pages[cuts - 1, 1], pages[-1:, 1])),
    )


def _zero_pages(data: npt.NDArray[np.uint8], start: int) -> IntColumn:
    """Return the first byte and the end of each page of zeros; the last page may be shorter."""
    whole = len(data) // PAGE * PAGE
    empty = np.flatnonzero((data[:whole].reshape(-1, PAGE) == 0).all(axis=1))
    lows = start + PAGE * empty.astype(np.int64)
    pages = np.stack((lows, lows + PAGE), axis=1)
    if whole < len(data) and not data[whole:].any():
        last = np.array([[start + whole, start + len(data)]], np.int64)
        pages = np.concatenate((pages, last))
    return pages
