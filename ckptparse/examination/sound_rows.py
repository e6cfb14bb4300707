"""Rows of an index whose bytes have their checksums: nothing is wrong with these.

They are compared in the order of the file, and never overlap anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c
from ckptparse.elements import distinct
from ckptparse.examination.outcome import PatchedRange, Span
from ckptparse.examination.payload import Payload
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.readers import DataFile, DataFiles, checksum_of
from ckptparse.parallel import PIECE_SIZE

__all__ = ["SoundRows", "find_sound"]

IntColumn = npt.NDArray[np.int64]
_LEAST_SHARING = 2
_BEYOND = (1 << 63) - 1


@dataclass(frozen=True)
class SoundRows:
    """The rows that were found sound.

    Attributes:
        plain: What the index says of them.
        names: Their names, each with its row.
    """

    plain: PlainRows
    names: Mapping[str, int]

    @cached_property
    def numbers(self) -> IntColumn:
        """Every row."""
        return np.fromiter(self.names.values(), np.int64, len(self.names))

    @cached_property
    def _by_path(self) -> dict[str, IntColumn]:
        numbers, columns = self.numbers, self.plain.columns
        shards = columns.shard_ids[numbers]
        order = np.argsort(shards, kind="stable")
        kinds = distinct(shards)
        cuts = [*np.searchsorted(shards[order], kinds).tolist(), len(order)]
        found: dict[str, list[IntColumn]] = {}
        for shard, (low, high) in zip(kinds, pairwise(cuts), strict=True):
            found.setdefault(self.plain.paths[shard], []).append(numbers[order[low:high]])
        return {path: np.concatenate(parts) for path, parts in found.items()}

    @property
    def patches(self) -> tuple[PatchedRange, ...]:
        """What was corrected in the blocks of the index that hold rows."""
        return self.plain.patches_of(self.numbers)

    @property
    def paths(self) -> Iterable[str]:
        """The data files that they lie in."""
        return self._by_path.keys()

    def first_name(self, path: str) -> str:
        """Return the first tensor of a data file, in the order of the index."""
        return self._by_row[int(self._by_path[path][0])]

    def name_of(self, row: int) -> str:
        """Return the name of a row."""
        return self._by_row[row]

    @cached_property
    def _by_row(self) -> dict[int, str]:
        return {row: name for name, row in self.names.items()}

    def rows_of(self, path: str) -> IntColumn:
        """Return the rows of a data file, in the order of the index."""
        return self._by_path.get(path, self.numbers[:0])

    def end_of(self, path: str) -> int:
        """Return where the last of a data file ends."""
        rows, columns = self.rows_of(path), self.plain.columns
        return max((columns.offsets[rows] + columns.sizes[rows]).tolist(), default=0)

    def size_of(self, path: str) -> int:
        """Return how many bytes those of a data file have."""
        return int(self.plain.columns.sizes[self.rows_of(path)].sum())

    def spans_of(self, path: str) -> tuple[IntColumn, IntColumn]:
        """Return where the rows of a data file that have bytes begin and end, in their order."""
        rows, columns = self.rows_of(path), self.plain.columns
        rows = rows[columns.sizes[rows] > 0]
        starts = columns.offsets[rows]
        order = np.argsort(starts, kind="stable")
        return starts[order], (starts + columns.sizes[rows])[order]

    def payloads_of(self, path: str) -> Iterator[Payload]:
        """Iterate over the payloads of a data file, in the order of the index."""
        return map(self.plain.payload, self.rows_of(path).tolist())


def find_sound(
    files: DataFiles,
    plain: PlainRows,
    rows: IntColumn,
    others: Sequence[Payload],
    orphans: Sequence[Payload],
) -> IntColumn:
    """Return the rows that lie within their file, over nothing else, and have their checksums.

    Args:
        files: What opens the data files.
        plain: What the index says.
        rows: Those that are to be checked.
        others: The payloads of its other tensors.
        orphans: Those of slices that no tensor lists.
    """
    columns = plain.columns
    spans: dict[str, list[Span]] = {}
    for one in (*others, *orphans):
        if one.size:
            spans.setdefault(one.file.path, []).append((one.offset, one.end))
    found: list[IntColumn] = [rows[:0]]
    shards = columns.shard_ids[rows]
    order = np.lexsort((columns.offsets[rows], shards))
    kinds = distinct(shards)
    cuts = [*np.searchsorted(shards[order], kinds).tolist(), len(order)]
    parts = {
        plain.paths[shard]: rows[order[low:high]]
        for shard, (low, high) in zip(kinds, pairwise(cuts), strict=True)
    }
    known = {one.file.path: one.file for one in others}
    # In the order in which all of them are read: the report lists its inputs as they were opened.
    for path in sorted({*parts, *known}):
        # The object that others have: then they are found by it without a comparison.
        file = known.get(path) or DataFile(path)
        size = files.size(file)
        mine = parts.get(path)
        if size is None or mine is None:
            continue
        # The checksum of no bytes is 0.
        found.append(mine[(columns.sizes[mine] == 0) & (columns.crcs[mine] == 0)])
        alone = _alone(plain, mine[columns.sizes[mine] > 0], size, spans.get(path, ()))
        found += _agreeing(files, plain, file, alone)
    return np.concatenate(found)


def _alone(plain: PlainRows, rows: IntColumn, size: int, others: Sequence[Span]) -> IntColumn:
    """Return the rows, out of those of a file in order, that lie in it and over nothing else."""
    columns = plain.columns
    starts, sizes = columns.offsets[rows], columns.sizes[rows]
    there = (starts >= 0) & (starts <= size - sizes)
    if len(rows) < _LEAST_SHARING and not others:
        return rows[there]
    ends = np.where(there, starts, 0) + np.where(there, sizes, 0)
    ends[~there] = _BEYOND
    more = [(low, min(high, _BEYOND)) for low, high in others if low < size]
    numbers = np.concatenate((np.arange(len(rows)), np.full(len(more), -1)))
    starts = np.concatenate((starts, np.array([low for low, _ in more], np.int64)))
    ends = np.concatenate((ends, np.array([high for _, high in more], np.int64)))
    order = np.argsort(starts, kind="stable")
    starts, ends, numbers = starts[order], ends[order], numbers[order]
    alone = np.ones(len(starts), np.bool_)
    alone[1:] &= starts[1:] >= np.maximum.accumulate(ends)[:-1]
    alone[:-1] &= starts[1:] >= ends[:-1]
    kept = numbers[alone & (numbers >= 0)]
    found: IntColumn = rows[kept[there[kept]]]
    return found


def _agreeing(
    files: DataFiles, plain: PlainRows, file: DataFile, rows: IntColumn
) -> Iterator[IntColumn]:
    """Iterate over the rows, out of those of a file in order, whose bytes have their checksum."""
    columns = plain.columns
    starts = columns.offsets[rows]
    ends = starts + columns.sizes[rows]
    first = 0
    while first < len(rows):
        start = int(starts[first])
        stop = int(np.searchsorted(ends, start + PIECE_SIZE, side="right"))
        # Checksums that others have computed are known for each tensor.
        if stop <= first or files.known:
            size = int(ends[first]) - start
            if checksum_of(files, file, start, size) == columns.crcs[rows[first]]:
                yield rows[first : first + 1]
            first += 1
            continue
        piece = rows[first:stop]
        data = files.read(file, start, int(ends[stop - 1]) - start)
        lows, highs = (starts[first:stop] - start).tolist(), (ends[first:stop] - start).tolist()
        crcs = [crc32c(data[low:high]) for low, high in zip(lows, highs, strict=True)]
        yield piece[np.array(crcs, np.int64) == columns.crcs[piece]]
        first = stop
