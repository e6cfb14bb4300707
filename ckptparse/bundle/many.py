"""Read many dense tensors of a bundle at once, as arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.arena import (
    SHARE_SIZE,
    SMALL_STRETCH,
    Arena,
    Check,
    DenseRows,
    Stretch,
    check_mapped,
    plan_arenas,
    plan_placed,
    read_arenas,
    view_of,
)
from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.shards import Manner, ShardFiles
from ckptparse.bundle.sharing import Sharing, compute_crcs, find_sharing
from ckptparse.dtypes import numpy_dtype
from ckptparse.elements import allocate, distinct, finish_elements, needs_finishing
from ckptparse.errors import UnsupportedError, located
from ckptparse.files.storage import check_range, known_size
from ckptparse.limits import Limits, check_small
from ckptparse.parallel import PIECE_SIZE, pick_threads, run_all
from ckptparse.slices import SliceGrid
from ckptparse.tensor import ReadOptions, check_rank

__all__ = ["DenseReader", "check_sharing", "read_dense"]

Array = npt.NDArray[Any]

_BATCH_SIZE = 32 << 20
"""Bytes of slices that are read at once and then copied: memory beside the whole array."""
_LOCAL = Manner(PIECE_SIZE, 4096, None)
_UNKNOWN = int(np.iinfo(np.int64).max)
"""The size of a data file that nobody has asked for yet: nothing is beyond its end."""


class _Failed(NamedTuple):
    """A tensor that is damaged; the one that is stored first is the least."""

    shard_id: int
    offset: int
    row: int
    computed: int


@dataclass(frozen=True, slots=True)
class DenseReader:
    """Dense tensors to read together.

    Attributes:
        shards: The data files that they are in.
        columns: Their entries, all dense.
        name_of: Row -> name, for errors.
        options: How to read them.
    """

    shards: ShardFiles
    columns: EntryColumns
    name_of: Callable[[int], str | None]
    options: ReadOptions

    def read(self) -> list[Array]:
        """Read them into arenas, or map them.

        Raises:
            ChecksumError: A tensor is damaged; of several, the one stored first.
            TruncatedError, MissingShardError: A data file is too short, or missing.
            UnsupportedError: numpy and ml_dtypes do not have a type, or so many dimensions; or
                there is not enough memory.
        """
        return self._make(*self._plan())

    def _make(self, dtypes: dict[int, np.dtype[Any]], rows: DenseRows) -> list[Array]:
        maker = _ArrayMaker(self, dtypes)
        if self.options.mmap:
            rows = self._map(rows, maker)
        self._read(rows, maker)
        return maker.finish()

    def _read(self, rows: DenseRows, maker: _ArrayMaker) -> None:
        """Read rows into arenas."""
        sharing = find_sharing(rows)
        if sharing is None:
            self._raise_failed(self._read_apart(rows, maker))
            return
        # Of the others, which are few, all are read before it is said which is damaged.
        failed = [
            self._read_apart(rows.take(sharing.apart), maker),
            self._read_shared(rows.take(sharing.shared), sharing, maker),
        ]
        self._raise_failed(min((one for one in failed if one), default=None))

    def _read_apart(self, rows: DenseRows, maker: _ArrayMaker) -> _Failed | None:
        """Read rows that share no bytes; return the first that is damaged."""
        check = self._make_check(rows)
        arenas = plan_arenas(rows, gap=self._manner(rows).gap)
        buffers = self._read_arenas(rows, arenas, check)
        for arena, buffer in zip(arenas, buffers, strict=True):
            for stretch in arena.stretches:
                shift = stretch.position - stretch.offset
                maker.make(rows.part(stretch.low, stretch.high), buffer, shift)
        return self._find_failed(check, rows)

    def _read_shared(self, rows: DenseRows, sharing: Sharing, maker: _ArrayMaker) -> _Failed | None:
        """Read runs of rows that share bytes, and copy each; return the first that is damaged."""
        check = self._make_check(rows)
        runs, bounds = sharing.runs, sharing.bounds
        arenas = plan_arenas(runs, gap=self._manner(rows).gap)
        buffers = self._read_arenas(runs, arenas, None)
        for arena, buffer in zip(arenas, buffers, strict=True):
            for stretch in arena.stretches:
                low, high = int(bounds[stretch.low]), int(bounds[stretch.high])
                part = rows.part(low, high)
                if check is not None:
                    check.put(low, compute_crcs(part, view_of(buffer, stretch), stretch.offset))
                maker.make(part, buffer, stretch.position - stretch.offset, copy=True)
        return self._find_failed(check, rows)

    def assemble(self, grid: SliceGrid) -> Array:
        """Read slices of one tensor, which together are all of it, into one array.

        Raises:
            The same as `read`.
        """
        dtypes, rows = self._plan()
        ((code, dtype),) = dtypes.items()
        arena = self._place(rows, grid, dtype)
        if arena is not None:
            check = self._make_check(rows)
            (buffer,) = self._read_arenas(rows, [arena], check)
            self._raise_failed(self._find_failed(check, rows))
            array: Array = np.ndarray(grid.shape, dtype, buffer)
            finish_elements(array, code, big_endian=self.shards.big_endian)
            return array
        array = allocate(grid.shape, dtype)
        batches = list(_batches(self.columns.sizes))
        for numbers in batches:
            alone = len(batches) == 1
            parts = self._make(dtypes, rows) if alone else self._take(numbers).read()
            starts, stops = grid.starts[numbers].tolist(), grid.stops[numbers].tolist()
            for low, high, part in zip(starts, stops, parts, strict=True):
                array[tuple(map(slice, low, high))] = part
        return array

    def _place(self, rows: DenseRows, grid: SliceGrid, dtype: np.dtype[Any]) -> Arena | None:
        """Place slices where they belong in the array; None if copying them there is better."""
        # Together they are all of the tensor: if each ends with a row, each begins with one.
        by_rows = (grid.stops[:, 1:] == grid.shape[1:]).all()
        if not by_rows or int(rows.sizes.sum()) < SMALL_STRETCH:
            return None
        positions = grid.starts[:, 0] * math.prod(grid.shape[1:]) * dtype.itemsize
        arena = plan_placed(rows, positions[rows.numbers])
        return arena if len(arena.stretches) * SMALL_STRETCH <= arena.size else None

    def _take(self, numbers: range) -> DenseReader:
        """Return the reader of some of the rows."""

        def name_of(row: int) -> str | None:
            return self.name_of(numbers[row])

        options = replace(self.options, budget=None)  # All of them have been counted.
        return DenseReader(self.shards, self.columns.take(numbers), name_of, options)

    def _map(self, rows: DenseRows, maker: _ArrayMaker) -> DenseRows:
        """Map data files copy-on-write, as many as possible; return the rows of the others.

        The arrays are views if alignment allows it.
        """
        maps: dict[int, npt.NDArray[np.uint8]] = {}
        end = len(rows.sizes)
        for shard in sorted(set(rows.shard_ids.tolist())):
            mapped = self.shards.map(shard)
            if mapped is None:
                end = int(np.searchsorted(rows.shard_ids, shard))
                break
            maps[shard] = np.frombuffer(mapped, np.uint8)
        rows, rest = rows.part(0, end), rows.part(end, len(rows.sizes))
        check = self._make_check(rows)
        if check is not None:
            self._check_maps(rows, maps, check)
            self._raise_failed(self._find_failed(check, rows))
        for shard, whole in maps.items():
            low, high = np.searchsorted(rows.shard_ids, (shard, shard + 1)).tolist()
            maker.make(rows.part(low, high), whole, 0)
        maker.copy_shared(rows)
        return rest

    def _check_maps(
        self, rows: DenseRows, maps: Mapping[int, npt.NDArray[np.uint8]], check: Check
    ) -> None:
        def view(stretch: Stretch) -> memoryview:
            mapped = memoryview(maps[stretch.shard_id])  # type: ignore[arg-type] # numpy < 2.1
            return mapped[stretch.offset : stretch.offset + stretch.size]

        stretches = [stretch for arena in plan_arenas(rows) for stretch in arena.stretches]
        check_small(
            self.shards.context.limits,
            len(stretches),
            lambda: self.shards.held,
            what="runs of bytes that are checked where they are mapped",
        )
        threads = self._pick_threads(rows, _LOCAL)
        check_mapped(rows, stretches, view, self.shards.open, check=check, threads=threads)

    def _read_arenas(
        self, rows: DenseRows, arenas: Sequence[Arena], check: Check | None
    ) -> list[npt.NDArray[np.uint8]]:
        manner = self._manner(rows)
        try:
            return read_arenas(
                rows,
                arenas,
                self.shards.open,
                check=check,
                threads=self._pick_threads(rows, manner),
                share=SHARE_SIZE if manner.concurrency is None else manner.piece,
            )
        except MemoryError as error:
            raise UnsupportedError(
                f"There is not enough memory for {int(rows.sizes.sum())} bytes of tensors",
                hint="Pass mmap=True, or read fewer at once",
            ) from error

    def _plan(self) -> tuple[dict[int, np.dtype[Any]], DenseRows]:
        """Look up the types, check every range against its data file, and sort the rows."""
        columns = self.columns
        dtypes: dict[int, np.dtype[Any]] = {}
        for code in distinct(columns.data_types):
            with self._located(int((columns.data_types == code).argmax())):
                dtypes[code] = numpy_dtype(code)
        ranks = list(map(len, columns.shapes))
        if ranks:
            row = ranks.index(max(ranks))
            with self._located(row):
                check_rank(ranks[row])
        self._check_ranges()
        widths = np.ones(256, np.int64)
        for code, dtype in dtypes.items():
            widths[code] = dtype.alignment
        some = np.flatnonzero(columns.sizes > 0)
        return dtypes, DenseRows.of(
            some,
            columns.shard_ids[some],
            columns.offsets[some],
            columns.sizes[some],
            widths[columns.data_types[some]],
        )

    def _located(self, row: int) -> AbstractContextManager[None]:
        shard = int(self.columns.shard_ids[row])
        return located(tensor=self.name_of(row), path=self.shards.path(shard))

    def _check_ranges(self) -> None:
        columns = self.columns
        shards = distinct(columns.shard_ids)
        sizes = self._sizes_of(shards)
        ends = np.array(sizes, np.int64)
        ends = ends[np.searchsorted(shards, columns.shard_ids)] if shards else ends
        # Offset plus size may not fit into 64 bits, so they are compared one after the other. An
        # empty tensor has no bytes, so its offset may be anything.
        beyond = (columns.sizes > ends - columns.offsets) & (columns.sizes > 0)
        for row in np.flatnonzero(beyond).tolist():
            with (
                located(tensor=self.name_of(row)),
                self.shards.open(int(columns.shard_ids[row])) as source,
            ):
                check_range(source, int(columns.offsets[row]), int(columns.sizes[row]))
        taken = float(columns.sizes.sum(dtype=np.float64))
        held = sum(size for size in sizes if size != _UNKNOWN)
        check_sharing(self.shards.context.limits, taken, held)
        if self.options.budget is not None:
            self.options.budget.take(int(taken))

    def _sizes_of(self, shards: Sequence[int]) -> list[int]:
        """Return the sizes of data files; `_UNKNOWN` if no request is needed before they are read.

        The first read tells them then. Until that, their tensors may take no more memory than those
        which take more than their files have.
        """
        sizes = list(map(self._known_size, shards))
        unknown = [number for number, size in enumerate(sizes) if size == _UNKNOWN]
        if not unknown:
            return sizes
        wanted = np.isin(self.columns.shard_ids, [shards[number] for number in unknown])
        taken = float(self.columns.sizes[wanted].sum(dtype=np.float64))
        if taken > self.shards.context.limits.shared_bytes:
            self._ask_for_sizes(shards, unknown, sizes)
        return sizes

    def _known_size(self, shard: int) -> int:
        with self.shards.open(shard) as source:
            size = known_size(source)
        return _UNKNOWN if size is None else size

    def _ask_for_sizes(self, shards: Sequence[int], numbers: list[int], sizes: list[int]) -> None:
        def ask(number: int) -> None:
            with self.shards.open(shards[number]) as source:
                sizes[number] = source.size

        manner = self.shards.manner(shards[numbers[0]])
        run_all([partial(ask, number) for number in numbers], manner.concurrency or 1)

    def _make_check(self, rows: DenseRows) -> Check | None:
        if not self.options.verify:
            return None
        columns = self.columns
        for row in np.flatnonzero((columns.sizes == 0) & (columns.crcs != 0)).tolist():
            self._raise_mismatch(row, 0)
        return Check(columns.crcs[rows.numbers])

    @staticmethod
    def _find_failed(check: Check | None, rows: DenseRows) -> _Failed | None:
        failed = None if check is None else check.find_failed()
        if failed is None:
            return None
        row, computed = failed
        where = int(rows.shard_ids[row]), int(rows.offsets[row])
        return _Failed(*where, int(rows.numbers[row]), computed)

    def _raise_failed(self, failed: _Failed | None) -> None:
        if failed is not None:
            self._raise_mismatch(failed.row, failed.computed)

    def _raise_mismatch(self, row: int, computed: int) -> None:
        with located(tensor=self.name_of(row)):
            self.shards.check_crc(self.columns.entry(row), computed)

    def _manner(self, rows: DenseRows) -> Manner:
        """Return how the files of the rows are best read: it is the same for a whole storage."""
        shards = rows.shard_ids[:1].tolist()
        return self.shards.manner(shards[0]) if shards else _LOCAL

    def _pick_threads(self, rows: DenseRows, manner: Manner) -> int:
        if manner.concurrency is not None:
            # Threads wait for answers here, so the number of processors does not matter.
            return self.options.threads or manner.concurrency
        return pick_threads(self.options.threads, int(rows.sizes.sum()), share=SHARE_SIZE)


def read_dense(shards: ShardFiles, entry: BundleEntry, options: ReadOptions) -> Array:
    """Read a large tensor with several threads, or map it."""
    return DenseReader(shards, EntryColumns.of_entries([entry]), lambda _: None, options).read()[0]


def _batches(sizes: npt.NDArray[np.int64]) -> Iterator[range]:
    """Divide slices into groups of few bytes, which are in memory beside the whole array."""
    ends = np.cumsum(sizes)
    low = 0
    while low < len(ends):
        before = int(ends[low] - sizes[low])
        high = int(np.searchsorted(ends, before + _BATCH_SIZE, side="right"))
        yield range(low, max(low + 1, high))
        low = max(low + 1, high)


def check_sharing(limits: Limits, taken: float, held: int) -> None:
    """Refuse tensors that become large arrays by sharing the bytes of small files.

    Args:
        limits: `shared_bytes` bounds what tensors take beyond the data files.
        taken: Bytes of all the tensors.
        held: Bytes of the data files.

    Raises:
        LimitError: They take more than that.
    """
    limits.check(
        "shared_bytes",
        max(0, int(taken) - held),
        "What tensors take beyond the size of the data files, by sharing their bytes,",
    )


class _ArrayMaker:
    """Makes the arrays of a reader's tensors, over buffers with their bytes."""

    def __init__(self, reader: DenseReader, dtypes: dict[int, np.dtype[Any]]) -> None:
        self._columns = reader.columns
        self._big_endian = reader.shards.big_endian
        self._dtypes = dtypes
        self._arrays: list[Any] = [None] * len(reader.columns)

    def make(
        self,
        rows: DenseRows,
        buffer: npt.NDArray[np.uint8],
        shift: int,
        *,
        copy: bool = False,
    ) -> None:
        """Make the arrays of rows whose bytes are in the buffer at their offset + shift.

        They are views; those that are not aligned there, or all of them, are copies.
        """
        arrays, shapes, numbers = self._arrays, self._columns.shapes, rows.numbers.tolist()
        codes = self._columns.data_types[rows.numbers].tolist()
        positions = rows.offsets + shift
        # Without a loop of Python's own, which takes a third of the time.
        ndarray: Callable[..., npt.NDArray[Any]] = np.ndarray
        made = map(
            ndarray,
            map(shapes.__getitem__, numbers),
            map(self._dtypes.__getitem__, codes),
            repeat(buffer),
            positions.tolist(),
        )
        if numbers and (np.diff(rows.numbers) == 1).all():
            arrays[numbers[0] : numbers[-1] + 1] = made
        else:
            for number, array in zip(numbers, made, strict=True):
                arrays[number] = array
        self._copy(rows.numbers if copy else rows.numbers[positions % rows.alignments != 0])

    def copy_shared(self, rows: DenseRows) -> None:
        """Copy arrays that would share bytes with another one."""
        shared = np.zeros(len(rows.offsets), np.bool_)
        shards = [0, *(np.flatnonzero(np.diff(rows.shard_ids)) + 1).tolist(), len(rows.offsets)]
        for low, high in pairwise(shards):
            ends = np.maximum.accumulate(rows.offsets[low:high] + rows.sizes[low:high])
            shared[low + 1 : high] |= rows.offsets[low + 1 : high] < ends[:-1]
        self._copy(rows.numbers[shared])

    def _copy(self, numbers: npt.NDArray[np.intp]) -> None:
        for number in numbers.tolist():
            self._arrays[number] = self._arrays[number].copy()

    def finish(self) -> list[Array]:
        """Add the empty arrays, turn stored bytes into elements, and return all."""
        columns, arrays = self._columns, self._arrays
        for row in np.flatnonzero(columns.sizes == 0).tolist():
            dtype = self._dtypes[int(columns.data_types[row])]
            arrays[row] = allocate(columns.shapes[row], dtype)
        for code in self._dtypes:
            if needs_finishing(code, big_endian=self._big_endian):
                for row in np.flatnonzero(columns.data_types == code).tolist():
                    finish_elements(arrays[row], code, big_endian=self._big_endian)
        return arrays
