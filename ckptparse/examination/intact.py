"""The short way for a checkpoint that is whole: columns, and an object only for what is asked.

Most checkpoints that are verified are whole. So the strict reader's index is taken as columns, and
all bytes are compared with their checksums in the order of the file. A tensor's report is made when
somebody asks for it. If anything at all is not as a whole checkpoint has it, nothing is said here:
the long way looks at everything one by one, and says what is wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.entry import BundleEntry, count_elements
from ckptparse.bundle.index import BundleIndex, Listing
from ckptparse.coding.checksum import crc32c
from ckptparse.dtypes import dtype_name, is_numeric
from ckptparse.elements import distinct
from ckptparse.errors import CheckpointError, StorageError
from ckptparse.examination.around import fingerprint_problems, graph_problems, state_problems
from ckptparse.examination.check import check_payload
from ckptparse.examination.index_view import NO_CHECKSUM
from ckptparse.examination.outcome import CHECKSUM_CHANCE, ByteRange, EvidenceRecord, Outcome
from ckptparse.examination.payload import Payload
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.report import (
    FileRange,
    FileReport,
    Report,
    TensorReport,
    VerifiedTensors,
)
from ckptparse.examination.summary import sort_problems
from ckptparse.filenames import shard_path
from ckptparse.inventory.survey import IndexFile, Origin, Survey
from ckptparse.parallel import PIECE_SIZE
from ckptparse.problems import EvidenceRule, Problem, Status
from ckptparse.slices import SliceGrid
from ckptparse.tensor import Region

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["IntactTensors", "Rows", "find_intact", "own_places", "plan_rows"]

IntColumn = npt.NDArray[np.int64]

_TENSOR_BYTES = 350
"""What a tensor of a whole checkpoint takes in a report, measured: 290 bytes."""


@dataclass(frozen=True, slots=True)
class _Bundle:
    """A checkpoint whose index is whole.

    Attributes:
        index: The index.
        spans: The spans of its blocks and of its footer, which fill it.
        listing: Its entries.
        paths: Its data files by number.
        big_endian: Their byte order.
    """

    index: IndexFile
    spans: Sequence[tuple[int, int]]
    listing: Listing
    paths: Sequence[str]
    big_endian: bool

    @property
    def columns(self) -> EntryColumns:
        """The entries as columns."""
        return self.listing.columns

    def block(self, row: int) -> ByteRange:
        """Return where the block of the index lies that holds a row."""
        start, end = self.spans[bisect_right(self.listing.block_ends, row)]
        return ByteRange(self.index.path, start, end - start)

    def payload(self, row: int) -> Payload:
        """Describe one tensor's bytes as the long way does."""
        entry = self.columns.entry(row)
        return Payload(
            entry.data_type,
            entry.shape,
            DataFile(self.paths[entry.shard_id]),
            entry.offset,
            entry.size,
            None if entry.crc32c == NO_CHECKSUM else entry.crc32c,
            True,
            "",
            0.0,
            self.index.path,
            self.index.origin,
            entry.shard_id,
            self.big_endian,
        )


class Rows(NamedTuple):
    """A run of tensors that have bytes, in the order of these."""

    low: int
    high: int


def find_intact(
    survey: Survey, files: DataFiles, executor: Executor | None = None, rows: Rows | None = None
) -> Report | None:
    """Make the report of a checkpoint that is whole; None if it is not, or if it takes a look.

    Args:
        survey: The checkpoint's files.
        files: What opens them. Checksums that workers computed are remembered there.
        executor: Who computes checksums. None: this thread, or of what lies in a bucket a few.
        rows: Of which tensors the bytes are read, and those of others taken for right; None: all.
    """
    files.hold(survey.paths)
    try:
        bundle = _open(survey, files, held=files.held_bytes)
        if bundle is None:
            return None
        order = _Order.of(bundle.columns, len(bundle.paths))
        if rows is not None:
            _trust_others(bundle, order, rows, files)
        own = order.rows if rows is None else order.rows[rows.low : rows.high]
        if not _fill_their_files(bundle, order, files):
            return None
        if not _few_are_single(bundle.columns, own, files):
            return None
        if not _agree(bundle, own, files, executor):
            return None
    except StorageError:
        raise
    except CheckpointError:
        return None
    return _report(bundle, survey, files)


def _open(survey: Survey, files: DataFiles, *, held: int | None = None) -> _Bundle | None:
    if not survey.has_index or survey.leftovers or len(survey.indexes) != 1:
        return None
    (index,) = survey.indexes
    if index.origin is not Origin.FINAL or index.data_paths is not None:
        return None
    if index.laid is not None and not index.tied:
        # Its blocks are whole, but may be of several saves.
        return None
    with closing(BundleIndex.open(index.path, files.context)) as opened:
        # Tensors that together fill the data files have no more bytes than these.
        listing = opened.listing(most_bytes=None if held is None else held - opened.size)
        header, spans = opened.header, opened.tiles()
    files.budget.take(_TENSOR_BYTES * len(listing.columns))
    shards = header.num_shards
    if spans is None or listing.orphans or not _slices_fit(listing):
        return None
    paths = [shard_path(survey.prefix, number, shards) for number in range(shards)]
    if not set(survey.data_files.values()) <= set(paths):
        return None
    return _Bundle(index, spans, listing, paths, bool(header.endianness))


def _slices_fit(listing: Listing) -> bool:
    """Whether all slices that tensors list are stored, and together are these tensors.

    Raises:
        CheckpointError: They overlap, or do not lie within their tensor.
    """
    columns = listing.columns
    if columns.others and listing.rows.get(OBJECT_GRAPH_KEY) in columns.others:
        return False
    for row, entry in columns.others.items():
        rows = listing.parts[row]
        if min(rows) < 0 or columns.sizes[row] or not is_numeric(entry.data_type):
            return False
        if not columns.others.keys().isdisjoint(rows):
            return False
        grid = SliceGrid(entry.slices, entry.shape)
        lengths = map(tuple, (grid.stops - grid.starts).tolist())
        if any(columns.shapes[one] != said for one, said in zip(rows, lengths, strict=True)):
            return False
        if (columns.data_types[rows] != entry.data_type).any():
            return False
        if grid.find_missing(tuple(map(range, entry.shape))) is not None:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Order:
    """The rows of all tensors that have bytes, in the order of these bytes.

    Attributes:
        rows: Shape (n,).
        bounds: Where the rows of each shard begin in `rows`, and where the last ones end.
    """

    rows: IntColumn
    bounds: IntColumn

    @classmethod
    def of(cls, columns: EntryColumns, shards: int) -> _Order:
        """Sort the rows."""
        rows = np.flatnonzero(columns.sizes)
        rows = rows[np.lexsort((columns.offsets[rows], columns.shard_ids[rows]))]
        return cls(rows, np.searchsorted(columns.shard_ids[rows], np.arange(shards + 1)))


def _fill_their_files(bundle: _Bundle, order: _Order, files: DataFiles) -> bool:
    """Whether the tensors lie end to end, from the first byte of each data file to its last."""
    columns = bundle.columns
    starts = columns.offsets[order.rows]
    ends = starts + columns.sizes[order.rows]
    joined = starts[1:] == ends[:-1]
    # The first tensor of a data file follows none in it. Files without tensors may come before.
    firsts = order.bounds[1:-1]
    joined[firsts[(firsts > 0) & (firsts < len(starts))] - 1] = True
    if not joined.all():
        return False
    empty = set(distinct(columns.shard_ids[columns.sizes == 0]))
    for shard, path in enumerate(bundle.paths):
        size = files.size(DataFile(path))
        first, last = order.bounds[shard], order.bounds[shard + 1]
        if first == last:
            # A data file that no tensor is in may hold anything: nobody reads it.
            if size is None or (size and shard in empty):
                return False
        elif starts[first] or ends[last - 1] != size:
            return False
    return True


def _agree(bundle: _Bundle, rows: IntColumn, files: DataFiles, executor: Executor | None) -> bool:
    """Whether the bytes of tensors have the checksums that the index states.

    Args:
        bundle: The checkpoint.
        rows: Tensors with bytes, in the order of these.
        files: What opens its files.
        executor: As for `find_intact`.
    """
    columns = bundle.columns
    plain = _are_numeric(columns)
    # A tensor in slices has no bytes of its own, and its entry no checksum.
    plain[list(columns.others)] = False
    # The checksum of no bytes is 0.
    if columns.crcs[plain & (columns.sizes == 0)].any():
        return False
    total = int(columns.sizes.sum())
    own = int(columns.sizes[rows].sum())
    files.begin(own, sweep=own == total)
    counted = set(np.flatnonzero(~plain & (columns.sizes == 0)).tolist())
    empty = sorted(counted.difference(columns.others))
    if executor is not None or files.is_remote:
        if not _workers_agree(bundle, rows[plain[rows]], files, executor):
            return False
        others = [*rows[~plain[rows]].tolist(), *empty]
    else:
        short = (plain & (columns.sizes <= PIECE_SIZE))[rows]
        for piece in _pieces(columns, rows[short]):
            if not _piece_agrees(bundle, piece, files):
                return False
        others = [*rows[~short].tolist(), *empty]
    for row in others:
        if check_payload(files, bundle.payload(row)).status is not Status.VERIFIED:
            return False
    files.finish()
    return True


def _few_are_single(columns: EntryColumns, rows: IntColumn, files: DataFiles) -> bool:
    """Whether no more strings and variants are among these rows than `read` takes of strings."""
    single = np.count_nonzero(~_are_numeric(columns)[rows])
    return int(single) <= files.context.limits.most_small(files.held_bytes)


def _trust_others(bundle: _Bundle, order: _Order, rows: Rows, files: DataFiles) -> None:
    """Take the checksums that the index states for those of tensors that are not to be read."""
    columns = bundle.columns
    others = np.concatenate((order.rows[: rows.low], order.rows[rows.high :]))
    for row in others[_are_numeric(columns)[others]].tolist():
        path = bundle.paths[int(columns.shard_ids[row])]
        place = path, int(columns.offsets[row]), int(columns.sizes[row])
        files.known[place] = int(columns.crcs[row])


def plan_rows(survey: Survey, files: DataFiles, size: int) -> list[tuple[Rows, int]]:
    """Cut the tensors into runs of about so many bytes, each of which has one at least.

    Returns:
        Each run, and how many bytes it has. None at all if the index is not whole.
    """
    found = _open_order(survey, files)
    if found is None:
        return []
    bundle, order = found
    ends = np.cumsum(bundle.columns.sizes[order.rows])
    planned: list[tuple[Rows, int]] = []
    low = before = 0
    while low < len(ends):
        high = max(low + 1, int(np.searchsorted(ends, before + size, side="right")))
        planned.append((Rows(low, high), int(ends[high - 1]) - before))
        low, before = high, int(ends[high - 1])
    return planned or [(Rows(0, 0), 0)]


def own_places(
    survey: Survey, files: DataFiles, rows: Rows, *, empty: bool
) -> tuple[set[str], dict[str, list[tuple[int, int]]]] | None:
    """Return the names of some tensors, and where their bytes lie in each data file.

    Args:
        survey: The checkpoint's files.
        files: What opens them.
        rows: Which tensors.
        empty: Whether those without bytes are among them.

    Returns:
        None if the index is not whole.
    """
    found = _open_order(survey, files)
    if found is None:
        return None
    bundle, order = found
    columns, names = bundle.columns, bundle.listing.names
    own = order.rows[rows.low : rows.high].tolist()
    spans: dict[str, list[tuple[int, int]]] = {}
    for row in own:
        start = int(columns.offsets[row])
        place = spans.setdefault(bundle.paths[int(columns.shard_ids[row])], [])
        place.append((start, start + int(columns.sizes[row])))
    without = np.flatnonzero(columns.sizes == 0).tolist() if empty else []
    return {names[row] for row in (*own, *without)}, spans


def _open_order(survey: Survey, files: DataFiles) -> tuple[_Bundle, _Order] | None:
    try:
        bundle = _open(survey, files)
    except StorageError:
        raise
    except CheckpointError:
        return None
    # With slices, rows are not tensors: those are not divided among workers.
    if bundle is None or bundle.columns.others:
        return None
    return bundle, _Order.of(bundle.columns, len(bundle.paths))


def _workers_agree(
    bundle: _Bundle, rows: IntColumn, files: DataFiles, executor: Executor | None
) -> bool:
    """Let workers compute checksums; they are remembered for the long way if one is wrong."""
    from ckptparse.examination.spread import Places, spread_checksums

    columns = bundle.columns
    places = Places(
        bundle.paths, columns.shard_ids[rows], columns.offsets[rows], columns.sizes[rows]
    )
    crcs = spread_checksums(places, files, executor)
    if (crcs == columns.crcs[rows]).all():
        return True
    numbers = zip(rows.tolist(), crcs.tolist(), strict=True)
    for row, crc in numbers:
        if crc >= 0:
            path = bundle.paths[int(columns.shard_ids[row])]
            files.known[path, int(columns.offsets[row]), int(columns.sizes[row])] = crc
    return False


def _are_numeric(columns: EntryColumns) -> npt.NDArray[np.bool_]:
    kinds, where = np.unique(columns.data_types, return_inverse=True)
    numeric = np.array([is_numeric(kind) for kind in kinds.tolist()], np.bool_)
    return numeric[where.reshape(-1)]


def _pieces(columns: EntryColumns, rows: IntColumn) -> Iterator[IntColumn]:
    """Cut rows, in the order of their bytes, into runs that are read at once."""
    shards, starts = columns.shard_ids[rows], columns.offsets[rows]
    ends = starts + columns.sizes[rows]
    first = 0
    while first < len(rows):
        stop = first + int(np.searchsorted(shards[first:], shards[first], side="right"))
        stop = first + int(np.searchsorted(ends[first:stop], starts[first] + PIECE_SIZE, "right"))
        yield rows[first:stop]
        first = stop


def _piece_agrees(bundle: _Bundle, rows: IntColumn, files: DataFiles) -> bool:
    columns = bundle.columns
    starts = columns.offsets[rows]
    ends = starts + columns.sizes[rows]
    file = DataFile(bundle.paths[int(columns.shard_ids[rows[0]])])
    first = int(starts[0])
    data = files.read(file, first, int(ends[-1]) - first)
    spans = zip((starts - first).tolist(), (ends - first).tolist(), strict=True)
    stated: list[int] = columns.crcs[rows].tolist()
    return [crc32c(data[low:high]) for low, high in spans] == stated


def _report(bundle: _Bundle, survey: Survey, files: DataFiles) -> Report:
    index = bundle.index.path
    ranges = tuple(FileRange(start, stop, "verified") for start, stop in bundle.spans)
    reports = {index: FileReport(index, "index", bundle.spans[-1][1], ranges)}
    used = set(distinct(bundle.columns.shard_ids[bundle.columns.sizes > 0]))
    for shard, path in enumerate(bundle.paths):
        size = files.size(DataFile(path))
        kind = "verified" if shard in used else "unreferenced"
        reports[path] = FileReport(path, "shard", size, _whole(size or 0, kind))
    problems: list[Problem] = []
    graph = (
        bundle.listing.rows.get(OBJECT_GRAPH_KEY)
        if OBJECT_GRAPH_KEY in bundle.listing.names
        else None
    )
    tensors = IntactTensors(bundle)
    if graph is not None:
        names, payload = bundle.listing.rows.keys(), bundle.payload(graph)
        problems += graph_problems(survey.prefix, files, payload, names, complete=True)
    problems += state_problems(survey, files.context)
    problems += fingerprint_problems(survey, files.context, index, reports)
    return Report(
        survey.prefix,
        survey.format,
        tensors,
        reports,
        sort_problems(problems),
        None if graph is None else tensors.report(OBJECT_GRAPH_KEY, graph),
        limits=files.context.limits,
    )


def _whole(size: int, kind: str) -> tuple[FileRange, ...]:
    return (FileRange(0, size, kind),) if size else ()


class IntactTensors(VerifiedTensors):
    """Reports that are made when they are asked for."""

    def __init__(self, bundle: _Bundle) -> None:
        self._bundle = bundle

    def __getitem__(self, name: str) -> TensorReport:
        if name == OBJECT_GRAPH_KEY:
            raise KeyError(name)
        return self.report(name, self._bundle.listing.rows[name])

    def __contains__(self, name: object) -> bool:
        return name != OBJECT_GRAPH_KEY and name in self._bundle.listing.rows

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._bundle.listing.names if name != OBJECT_GRAPH_KEY)

    def __len__(self) -> int:
        names = self._bundle.listing.names
        return len(names) - (OBJECT_GRAPH_KEY in names)

    @property
    def data_types(self) -> set[int]:
        """The DataType numbers that occur."""
        return set(self._bundle.listing.codes)

    def data_type(self, name: str) -> int:
        """Return the DataType number of a tensor, of the object graph too."""
        return int(self._bundle.columns.data_types[self._bundle.listing.rows[name]])

    def parts(self, name: str) -> list[tuple[Region | None, Payload]]:
        """Return where the bytes of a tensor lie: which part of it, and its bytes.

        None is all of it. The object graph is a tensor here, too.
        """
        listing = self._bundle.listing
        row = listing.rows[name]
        entry = listing.columns.others.get(row)
        if entry is None:
            return [(None, self._bundle.payload(row))]
        return [
            (piece.resolve(entry.shape), self._bundle.payload(part))
            for piece, part in zip(entry.slices, listing.parts[row], strict=True)
        ]

    def report(self, name: str, row: int) -> TensorReport:
        """Make the report of one row."""
        listing = self._bundle.listing
        entry = listing.columns.others.get(row)
        if entry is None:
            entry = listing.columns.entry(row)
            outcome = self._outcome(row, entry)
        else:
            found = ((part, self._bundle.columns.entry(part)) for part in listing.parts[row])
            records = (one for pair in found for one in self._outcome(*pair).evidence)
            whole = ((0, count_elements(entry.shape)),)
            grounds = tuple(dict.fromkeys(records))
            outcome = Outcome(Status.VERIFIED, ranges=whole, grounds=grounds)
        return TensorReport(outcome, name, dtype_name(entry.data_type), entry.shape)

    def _outcome(self, row: int, entry: BundleEntry) -> Outcome:
        """Say of the bytes of one row that they are verified."""
        path = self._bundle.paths[entry.shard_id]
        source = ByteRange(path, entry.offset, entry.size) if entry.size else None
        whole = ((0, count_elements(entry.shape)),)
        grounds = (EvidenceRecord.at(EvidenceRule.ENTRY, self._bundle.block(row), CHECKSUM_CHANCE),)
        return Outcome(Status.VERIFIED, source=source, ranges=whole, grounds=grounds)
