"""Rows of columns that are not sound, kept as columns too: what was found of each is a few numbers.

A checkpoint of which a hundred thousand tensors fail takes no longer than one of as many that are
whole: what would be an object for each of them is made when it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.coding.checksum import crc_of_zeros
from ckptparse.dtypes import item_size
from ckptparse.elements import distinct
from ckptparse.errors import PermissionDeniedError
from ckptparse.examination.check import (
    FEW_PAGES,
    LEAST_ZEROS,
    NO_SHARD,
    Check,
    cut_off,
    cut_off_note,
    mismatch,
    mismatch_note,
)
from ckptparse.examination.many_spans import ZeroRuns, checksums_of, find_zeros
from ckptparse.examination.outcome import Outcome, PatchedRange, Span
from ckptparse.examination.payload import Payload
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, Status

__all__ = ["STATES", "FailedRows", "examine_rows"]

IntColumn = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_GOOD, _WRONG, _CUT, _ABSENT, _FOREIGN = range(5)
"""Its checksum agrees; it does not; the file ends before it does; there is no file; the file is of
another kind."""
STATES = (Status.VERIFIED, Status.CORRUPT, Status.PARTIAL, Status.MISSING)
"""What rows that have failed may be."""
_STATE_OF_KIND = np.array([0, 1, 3, 3, 3], np.int8)
"""The place of each kind's status there, if there is nothing of what was cut off."""
_CAUSES = tuple(Cause)
_NUMBERS = {cause: number for number, cause in enumerate(_CAUSES)}


class Code(Protocol):
    """Tells the code of what is not verified."""

    def __call__(self, status: Status, cause: Cause | None, *, there: bool) -> str: ...


_UNSAID = -1
"""Stands for no cause, and for the sentence that the check itself has."""


@dataclass
class FailedRows:
    """What was found of rows, each of them by its number here: they are in the index's order.

    Attributes:
        plain: What the index says of them.
        names: Their names.
        rows: Which they are, ascending.
        kinds: What became of each.
        computed: The checksum of its bytes, if it is wrong.
        available: How many of its bytes the file has, if it ends before they do.
        zeros: How many of its bytes lie in runs of zeros, if its checksum is wrong.
        runs: The runs of zeros, by path.
        causes: The cause of each, as a number.
        notes: Which sentence of `said` is about it.
        said: Sentences that were found later than the check.
        held_at: By place: which of them are there, if it was asked.
    """

    plain: PlainRows
    names: Sequence[str]
    rows: IntColumn
    kinds: npt.NDArray[np.int8]
    computed: IntColumn
    available: IntColumn
    zeros: IntColumn
    runs: dict[str, ZeroRuns]
    causes: npt.NDArray[np.int8]
    notes: IntColumn
    said: list[str] = field(default_factory=list)
    held_at: dict[tuple[DataFile, int, bool], npt.NDArray[np.int8]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, row: int) -> bool:
        return row in self.numbers

    def take(self, mask: Mask) -> FailedRows:
        """Return some of them."""
        return FailedRows(
            self.plain,
            [self.names[number] for number in np.flatnonzero(mask).tolist()],
            self.rows[mask],
            self.kinds[mask],
            self.computed[mask],
            self.available[mask],
            self.zeros[mask],
            self.runs,
            self.causes[mask],
            self.notes[mask],
            self.said,
        )

    # -- as columns

    @cached_property
    def numbers(self) -> dict[int, int]:
        """The number of each row."""
        return {row: number for number, row in enumerate(self.rows.tolist())}

    @property
    def good(self) -> Mask:
        """Which of them have their checksum, and share their bytes with others."""
        found: Mask = self.kinds == _GOOD
        return found

    @property
    def wrong(self) -> Mask:
        """Of which of them all bytes are there, and have another checksum."""
        found: Mask = self.kinds == _WRONG
        return found

    @cached_property
    def sizes(self) -> IntColumn:
        """Size of each in bytes."""
        return self.plain.columns.sizes[self.rows]

    @cached_property
    def starts(self) -> IntColumn:
        """Offset of each in its data file."""
        return self.plain.columns.offsets[self.rows]

    @cached_property
    def crcs(self) -> IntColumn:
        """The stored checksum of each."""
        return self.plain.columns.crcs[self.rows]

    @cached_property
    def data_types(self) -> IntColumn:
        """DataType number of each."""
        return self.plain.columns.data_types[self.rows]

    @cached_property
    def _by_path(self) -> dict[str, IntColumn]:
        return _by_path(self.plain, self.rows)

    @property
    def paths(self) -> list[str]:
        """The data files that they belong into, in the order in which the index names them."""
        return sorted(self._by_path, key=lambda path: int(self._by_path[path][0]))

    def first_name(self, path: str) -> str:
        """Return the first tensor of a data file, in the order of the index."""
        return self.names[int(self._by_path[path][0])]

    def of_path(self, path: str) -> IntColumn:
        """Return the numbers of those of a data file, in the order of the index."""
        return self._by_path.get(path, np.empty(0, np.int64))

    def rows_of(self, path: str) -> IntColumn:
        """Return the rows of a data file, in the order of the index."""
        return self.rows[self.of_path(path)]

    def in_block(self, offset: int) -> IntColumn:
        """Return the numbers of those that a block of the index describes, by its offset."""
        stops = np.array([block.stop for block in self.plain.blocks], np.int64)
        places = [n for n, block in enumerate(self.plain.blocks) if block.offset == offset]
        return np.flatnonzero(np.isin(np.searchsorted(stops, self.rows, side="right"), places))

    def lost_in(self, path: str) -> IntColumn:
        """Return the numbers of those of a data file that have bytes and are lost, by offset."""
        mine = self.of_path(path)
        mine = mine[(self.kinds[mine] != _GOOD) & (self.sizes[mine] > 0)]
        found: IntColumn = mine[np.argsort(self.starts[mine], kind="stable")]
        return found

    def has_cause(self, *causes: Cause) -> Mask:
        """Tell which of them have one of some causes."""
        return np.isin(self.causes, [_NUMBERS[cause] for cause in causes])

    @property
    def open(self) -> Mask:
        """Of which of them all bytes are there and nothing tells what happened, or only zeros."""
        return self.wrong & self.has_cause(Cause.UNKNOWN, Cause.ZEROS)

    @cached_property
    def present(self) -> Mask:
        """Which of them have elements before the end of their data file."""
        widths = {kind: item_size(kind) or 1 for kind in distinct(self.data_types)}
        found = np.zeros(len(self), np.bool_)
        for kind, width in widths.items():
            found |= (self.data_types == kind) & (self.available >= width)
        return found

    def states_of(self, numbers: IntColumn) -> npt.NDArray[np.int8]:
        """Return the status of each of some of them, as its place in `STATES`."""
        kinds = self.kinds[numbers]
        found = _STATE_OF_KIND[kinds]
        found[(kinds == _CUT) & self.present[numbers]] = STATES.index(Status.PARTIAL)
        return found

    def statuses(self) -> Counter[Status]:
        """Count how many have each status."""
        states = self.states_of(np.arange(len(self)))
        counts = np.bincount(states, minlength=len(STATES)).tolist()
        return Counter(
            {state: number for state, number in zip(STATES, counts, strict=True) if number}
        )

    def codes_of(self, numbers: IntColumn, code: Code) -> list[str]:
        """Return the code of the problem of each of some of them, that have failed."""
        columns = self.kinds[numbers], self.causes[numbers], self.states_of(numbers)
        known: dict[tuple[int, int, int], str] = {}
        for key in (found := list(zip(*(column.tolist() for column in columns), strict=True))):
            if key not in known:
                kind, cause, state = key
                known[key] = code(STATES[state], _CAUSES[cause], there=kind == _WRONG)
        return [known[key] for key in found]

    def end_of(self, path: str) -> int:
        """Return where the last of a data file ends."""
        mine = self.of_path(path)
        # A sum beyond 63 bits needs Python's numbers.
        ends = zip(self.starts[mine].tolist(), self.sizes[mine].tolist(), strict=True)
        return max((start + size for start, size in ends), default=0)

    def size_of(self, path: str) -> int:
        """Return how many bytes those of a data file have."""
        return sum(self.sizes[self.of_path(path)].tolist())

    @property
    def patches(self) -> tuple[PatchedRange, ...]:
        """What was corrected in the blocks of the index that hold them."""
        return self.plain.patches_of(self.rows)

    # -- one by one

    def payload(self, number: int) -> Payload:
        """Describe the bytes of one of them."""
        return self.plain.payload(int(self.rows[number]))

    def number(self, row: int) -> int | None:
        """Return the number of a row; None if it is none of them."""
        return self.numbers.get(row)

    def check(self, number: int, payload: Payload) -> Check:
        """Say of one of them what checking its payload found."""
        kind = int(self.kinds[number])
        cause = int(self.causes[number])
        note = self.said[self.notes[number]] if self.notes[number] != _UNSAID else None
        if kind == _GOOD:
            return Check(Outcome(Status.VERIFIED, ranges=((0, count_elements(payload.shape)),)))
        if kind == _FOREIGN:
            return Check(Outcome(Status.MISSING, _CAUSES[cause], note=note or ""))
        if kind == _WRONG:
            found = mismatch(payload, int(self.computed[number]), self.holes(number))
        elif kind == _CUT:
            available = int(self.available[number])
            width = item_size(payload.data_type) or 1
            found = cut_off(payload, available, ((0, available // width),))
        else:
            found = NO_SHARD
        if note is None and found.cause is _CAUSES[cause]:
            return found
        return found.because(_CAUSES[cause], note)

    def holes(self, number: int) -> tuple[Span, ...]:
        """Return the runs of zeros within one of them."""
        if not self.zeros[number]:
            return ()
        start, size = int(self.starts[number]), int(self.sizes[number])
        path = self.plain.paths[int(self.plain.columns.shard_ids[self.rows[number]])]
        # A short one may hold nothing but zeros, without a page of them.
        return self.runs[path].within(start, start + size) or ((0, size),)

    def notes_of(self, numbers: IntColumn) -> Iterator[str]:
        """Iterate over the sentences of some of them."""
        columns = (self.notes, self.crcs, self.computed, self.zeros, self.sizes, self.available)
        told = (column[numbers].tolist() for column in columns)
        rows = zip(self.kinds[numbers].tolist(), *told, strict=True)
        for kind, note, crc, computed, zeros, size, available in rows:
            if note != _UNSAID:
                yield self.said[note]
            elif kind == _WRONG:
                yield mismatch_note(crc, computed, zeros, size)
            elif kind == _CUT:
                yield cut_off_note(size, available)
            else:
                yield NO_SHARD.outcome.note if kind == _ABSENT else ""

    # -- what is found later

    def blame(self, numbers: IntColumn, cause: Cause | None, note: str | None = None) -> None:
        """Give some of them another cause, and perhaps another sentence; None leaves the cause."""
        if cause is not None:
            self.causes[numbers] = _NUMBERS[cause]
        if note is not None:
            self.notes[numbers] = len(self.said)
            self.said.append(note)

    def call_foreign(self, numbers: IntColumn, note: str) -> None:
        """Say that none of the bytes of a data file belong to some of them."""
        self.kinds[numbers] = _FOREIGN
        self.blame(numbers, Cause.FOREIGN, note)


def examine_rows(
    files: DataFiles, plain: PlainRows, rows: IntColumn, names: Sequence[str]
) -> FailedRows:
    """Check rows, which ascend, as `check_payload` checks a payload.

    Raises:
        PermissionDeniedError: A data file may not be read.
    """
    count = len(rows)
    found = FailedRows(
        plain,
        names,
        rows,
        np.full(count, _ABSENT, np.int8),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        {},
        np.full(count, _NUMBERS[Cause.SHARD], np.int8),
        np.full(count, _UNSAID, np.int64),
    )
    for path, numbers in sorted(_by_path(plain, rows).items()):
        file = DataFile(path)
        size = files.size(file)
        if size is not None:
            _examine(files, found, file, numbers, size)
        elif isinstance(files.failure(file), PermissionDeniedError):
            # A file that may not be read is neither missing nor damaged.
            raise files.failure(file) or PermissionDeniedError(path)
    return found


def _by_path(plain: PlainRows, rows: IntColumn) -> dict[str, IntColumn]:
    shards = plain.columns.shard_ids[rows]
    order = np.argsort(shards, kind="stable")
    kinds = distinct(shards)
    cuts = [*np.searchsorted(shards[order], kinds).tolist(), len(order)]
    found: dict[str, list[IntColumn]] = {}
    for shard, (low, high) in zip(kinds, pairwise(cuts), strict=True):
        found.setdefault(plain.paths[shard], []).append(order[low:high])
    return {path: np.sort(np.concatenate(parts)) for path, parts in found.items()}


def _examine(
    files: DataFiles, found: FailedRows, file: DataFile, numbers: IntColumn, size: int
) -> None:
    """Check the rows of one data file that is there."""
    starts, sizes = found.starts[numbers], found.sizes[numbers]
    cut = (sizes > 0) & (starts > size - sizes)
    mine = numbers[cut]
    found.kinds[mine], found.causes[mine] = _CUT, _NUMBERS[Cause.TRUNCATED]
    found.available[mine] = np.maximum(0, size - starts[cut])
    there = numbers[~cut]
    # The checksum of no bytes is 0, wherever they are.
    filled = there[found.sizes[there] > 0]
    found.computed[filled] = checksums_of(files, file, found.starts[filled], found.sizes[filled])
    good = found.computed[there] == found.crcs[there]
    found.kinds[there[good]], found.causes[there[good]] = _GOOD, _UNSAID
    wrong = there[~good]
    found.kinds[wrong], found.causes[wrong] = _WRONG, _NUMBERS[Cause.UNKNOWN]
    _find_zeros(files, found, file, wrong[found.sizes[wrong] > 0])


def _find_zeros(files: DataFiles, found: FailedRows, file: DataFile, wrong: IntColumn) -> None:
    """Count the zeros of rows whose checksum is wrong, on whole pages or from end to end."""
    starts, sizes = found.starts[wrong], found.sizes[wrong]
    runs = found.runs[file.path] = find_zeros(files, file, starts, starts + sizes)
    zeros = runs.count(starts, starts + sizes)
    short = np.flatnonzero((zeros == 0) & (sizes >= LEAST_ZEROS) & (sizes <= FEW_PAGES))
    expected = {size: crc_of_zeros(size) for size in distinct(sizes[short])}
    crcs: Sequence[int] = found.computed[wrong[short]].tolist()
    for number, crc in zip(short.tolist(), crcs, strict=True):
        size = int(sizes[number])
        if crc == expected[size] and not any(files.read(file, int(starts[number]), size)):
            zeros[number] = size
    found.zeros[wrong] = zeros
    found.causes[wrong[zeros > 0]] = _NUMBERS[Cause.ZEROS]
