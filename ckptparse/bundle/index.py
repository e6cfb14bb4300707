"""Read the index of a bundle: key -> entry, singly or all at once (docs/format.md, section 2.2).

    PREFIX.index   a table:   ""             BundleHeaderProto
                              NAME           BundleEntryProto of a tensor
                              00 NAME .. ..  BundleEntryProto of one slice of a tensor

Opening reads the footer, the index block and the header. Looking up one name reads one block. A
listing reads all blocks, once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.decoding import decode_entry, decode_header, decode_shape
from ckptparse.bundle.entry import BundleEntry, BundleHeader
from ckptparse.bundle.naming import (
    decode_name,
    decode_names,
    decode_slice_key,
    encode_name,
    encode_slice_key,
    encode_slice_keys,
    known_ones,
    weight_of_slices,
)
from ckptparse.errors import (
    CheckpointError,
    ClosedError,
    DataLossError,
    LimitError,
    MalformedError,
    UnsupportedError,
    located,
)
from ckptparse.filenames import INDEX_SUFFIX, shard_path
from ckptparse.files.context import Context
from ckptparse.files.storage import Storage, hold, look_again
from ckptparse.limits import Budget, Limits, Singles, limit_error
from ckptparse.locks import make_lock
from ckptparse.slices import TensorSlice
from ckptparse.table.columns import TableColumns
from ckptparse.table.reader import Table

if TYPE_CHECKING:
    from ckptparse.bundle.together import EntryDecoder
    from ckptparse.files.fingerprint import Fingerprint

__all__ = ["BundleIndex", "Listing", "held_bytes"]

_T = TypeVar("_T")

_ENTRY_BYTES, _KEY_TIMES = 350, 2
"""What an entry takes in memory beside its name, measured: 310 bytes; and how many times its key a
name takes, as `verify` counts them."""
_FREE_BYTES = 1 << 20
"""What a list takes that is not counted: whoever allows less for values means these alone."""
HEADER_KEY = b""
_MOST_PIECES = 8
"""A remote index of at most so many pieces is read whole: each piece would be a request."""
_FEW_NAMES = 64
"""Up to so many names are looked up singly, and so many entries are decoded singly. For more,
decoding all of them together takes less time."""


@dataclass(frozen=True)
class Listing:
    """The whole index: tensors, their slices, and orphans.

    Attributes:
        names: Of every tensor, in the order of the index.
        numbers: The row of each of them in `columns`.
        columns: All entries, also those of slices.
        codes: Their DataTypes again, which give Python's integers.
        slice_rows: Key of each slice that a tensor lists -> its row.
        parts: Row of a tensor in slices -> rows of its slices, in order; -1 if one has no entry.
        orphans: Name, slice and row of each slice that no tensor lists.
        block_ends: For each data block of the table the first row beyond it.
    """

    names: Sequence[str]
    numbers: Sequence[int]
    columns: EntryColumns
    codes: Sequence[int]
    slice_rows: Mapping[bytes, int]
    parts: Mapping[int, Sequence[int]]
    orphans: Sequence[tuple[str, TensorSlice, int]]
    block_ends: Sequence[int]

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Name of each tensor -> its row in `columns`; made when it is needed."""
        return dict(zip(self.names, self.numbers, strict=True))

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name of each tensor -> its shape; made when it is needed."""
        return dict(zip(self.names, self.of_tensors(self.columns.shapes), strict=True))

    def find_number(self, name: str) -> int | None:
        """Return which of `names` one is, without `rows`; None if it is none of them."""
        # They are in the order of their bytes, which is not that of their characters.
        key = encode_name(name)
        number = bisect_left(self.names, key, key=encode_name)
        return number if number < len(self.names) and self.names[number] == name else None

    def of_tensors(self, column: Sequence[_T]) -> Sequence[_T]:
        """Return the values of a column for each of `names`."""
        numbers = self.numbers
        if isinstance(numbers, range):
            # A copy is one more list that the garbage collector goes through.
            all_of_them = len(numbers) == len(column)
            return column if all_of_them else column[numbers.start : numbers.stop]
        return [column[row] for row in numbers]


class BundleIndex:
    """An open index.

    Attributes:
        header: Its first entry.
        limits: Bounds on what it may ask for.
        is_replaced: Tells whether another index has taken its place since it was opened.
    """

    def __init__(
        self,
        table: Table,
        header: BundleHeader,
        *,
        limits: Limits,
        is_replaced: Callable[[], bool],
        held: Callable[[], int],
        known_names: Sequence[str] = (),
    ) -> None:
        """Take an open table.

        Args:
            table: The table.
            header: Its first entry.
            limits: Bounds on what it may ask for.
            is_replaced: Tells whether another index has taken its place.
            held: Bytes of the checkpoint's files; asked if something is near its limit.
            known_names: Names that a listing takes over if they are its own.
        """
        self._singles = Singles(limits, held)
        self._held = held
        self._known_names = known_names
        self.header = header
        self.limits = limits
        self.is_replaced = is_replaced
        self._table = table
        self._lock = make_lock()
        self._listing: Listing | None = None
        self._failure: CheckpointError | None = None
        self._closed = False

    @classmethod
    def open(cls, path: str, context: Context) -> BundleIndex:
        """Open an index and read its header.

        Raises:
            CheckpointNotFoundError: There is no index.
            DataLossError: It is damaged.
            UnsupportedError: It excludes this reader.
            LimitError: It is larger than the limits allow.
        """
        limits, storage = context.limits, context.storage

        before = storage.stat(path)
        source = storage.open(path)
        try:
            limits.check("index_bytes", source.size, "The size of the index", path=source.path)
            # Each block would be a request of its own.
            source = hold(source, most=_MOST_PIECES * source.piece)
            table = Table.open(source, limits=limits)
            with located(path=source.path):
                header = _read_header(table, limits, lambda: held_bytes(path, storage, 0))
        except BaseException:
            source.close()
            raise

        def is_replaced() -> bool:
            return look_again(storage, path) != before

        def held() -> int:
            return held_bytes(path, storage, header.num_shards)

        return cls(
            table,
            header,
            limits=limits,
            is_replaced=is_replaced,
            held=held,
            known_names=context.known_names,
        )

    @property
    def path(self) -> str:
        """Path of the index."""
        return self._table.source.path

    @property
    def size(self) -> int:
        """Size of the index in bytes."""
        return self._table.source.size

    @property
    def known_listing(self) -> Listing | None:
        """The listing, if it was read already; else None."""
        return self._listing

    def listing(self, *, most_bytes: int | None = None) -> Listing:
        """Read the whole index, once.

        Args:
            most_bytes: What all tensors may have together; None: any number.

        Raises:
            DataLossError: Any part of it is damaged, or tensors have more bytes. A listing is never
                shorter without an error.
        """
        with self._lock:
            if self._failure is not None and not self._closed:
                raise copy(self._failure)
            if self._listing is None:
                try:
                    self._listing = self._read_listing(most_bytes)
                except (DataLossError, LimitError, UnsupportedError) as error:
                    # Whoever asks again is told the same, and need not wait for it.
                    self._failure = copy(error)
                    raise
            return self._listing

    def tiles(self) -> list[tuple[int, int]] | None:
        """Return the spans of its blocks, if they fill it as usual; see `Table.tiles`."""
        return self._table.tiles()

    def find_entry(self, name: str) -> BundleEntry | None:
        """Return the entry of a tensor, or None if there is none of that name."""
        try:
            key = encode_name(name)
        except UnicodeEncodeError:  # A lone surrogate that stands for no byte.
            return None
        # What reads as the key of a slice is one, whether a tensor lists it or not.
        if key.startswith(b"\x00") and decode_slice_key(key) is not None:
            return None
        listing = self._listing
        if listing is None:
            return self._find(key)
        row = listing.rows.get(name)
        return None if row is None else listing.columns.entry(row)

    def find_slice(self, name: str, tensor_slice: TensorSlice) -> BundleEntry | None:
        """Return the entry of one slice of a tensor, or None if there is none."""
        key = encode_slice_key(encode_name(name), tensor_slice)
        if self._listing is None:
            return self._find(key)
        row = self._listing.slice_rows.get(key)
        return None if row is None else self._listing.columns.entry(row)

    def columns_of(self, names: Sequence[str]) -> EntryColumns:
        """Return the entries of some tensors, in their order, all of which exist."""
        if self._listing is None and len(names) <= _FEW_NAMES:
            with located(path=self.path):
                found = [self.find_entry(name) for name in names]
            return EntryColumns.of_entries([entry for entry in found if entry is not None])
        listing = self.listing()
        if len(names) == len(listing.columns) and names == listing.names:
            return listing.columns
        rows = [listing.rows[name] for name in names]
        columns = listing.columns.take(rows)
        if listing.columns.others:
            others = listing.columns.others
            columns.others.update(
                (number, others[row]) for number, row in enumerate(rows) if row in others
            )
        return columns

    def fingerprint(self) -> Fingerprint:
        """Take the fingerprint of the file, as it was opened.

        Raises:
            ClosedError: It has been closed.
        """
        from ckptparse.files.fingerprint import fingerprint_of

        return fingerprint_of(self._table.source)

    def check_open(self) -> None:
        """Raise `ClosedError` once closed."""
        if self._closed:
            raise ClosedError("The checkpoint has been closed", path=self.path)

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        self._table.source.close()

    def _find(self, key: bytes) -> BundleEntry | None:
        if key == HEADER_KEY:
            return None
        value = self._table.get(key)
        return None if value is None else self._decode_entry(key, value)

    def _decode_entry(
        self, key: bytes, value: bytes, take_slices: Callable[[int], None] | None = None
    ) -> BundleEntry:
        with located(path=self.path, tensor=decode_name(key)):
            return decode_entry(
                value,
                num_shards=self.header.num_shards,
                limits=self.limits,
                take_slices=take_slices,
            )

    def _decode_listed(self, key: bytes, value: bytes) -> BundleEntry:
        def take(count: int) -> None:
            self._take_slices(weight_of_slices(key, count))

        return self._decode_entry(key, value, take)

    def _take_slices(self, count: int) -> None:
        """Count slices that a tensor lists, or that none does.

        Raises:
            LimitError: There are more than may be looked at one by one.
        """
        if not self._singles.take(count):
            what = "The number of slices that the index lists and holds"
            found = self._singles.taken
            raise limit_error(self.limits, "single_entries", found, what, path=self.path)

    def _read_listing(self, most_bytes: int | None) -> Listing:
        self._singles.return_to(0)
        budget = Budget(self.limits, self._held)
        tables: list[TableColumns] = []
        parts: list[EntryColumns] = []
        size = taken = 0
        for table in self._table.iter_columns():
            taken += _ENTRY_BYTES * len(table) + _KEY_TIMES * len(table.keys)
            if taken > _FREE_BYTES:
                budget.check(taken)
            # The first entry of all is the header.
            skipped = 0 if tables else min(1, len(table))
            parts.append(self._decode_entries(table, skipped))
            # Memory that is let go serves the next blocks: new memory costs a third of their time.
            tables.append(table.without_values())
            size += int(parts[-1].sizes.sum())
            if most_bytes is not None and size > most_bytes:
                raise MalformedError(
                    f"Expected tensors of up to {most_bytes} bytes together, found {size} or more",
                    path=self.path,
                )
        keys, columns = _Keys(tables, self._known_names), EntryColumns.concatenate(parts)
        return _sort_out(keys, columns, self._take_slices)

    def _decode_entries(self, table: TableColumns, skipped: int) -> EntryColumns:
        """Decode the entries of a table, without the first `skipped` ones."""
        rows = range(skipped, len(table))
        if len(rows) > _FEW_NAMES:
            return self._decoder.decode(table, skipped)
        return EntryColumns.of_entries(
            [self._decode_listed(table.key(row), table.value(row)) for row in rows]
        )

    @cached_property
    def _decoder(self) -> EntryDecoder:
        from ckptparse.bundle.together import EntryDecoder

        return EntryDecoder(
            num_shards=self.header.num_shards,
            limits=self.limits,
            decode_entry=self._decode_listed,
            decode_shape=partial(decode_shape, limits=self.limits),
            held=self._held,
        )


def _sort_out(keys: _Keys, columns: EntryColumns, take: Callable[[int], None]) -> Listing:
    """Sort entries into tensors, their slices, and orphan slices, which `take` counts."""
    slice_keys = {
        row: encode_slice_keys(keys[row], entry.slices) for row, entry in columns.others.items()
    }
    listed = set(chain.from_iterable(slice_keys.values()))
    slice_rows: dict[bytes, int] = {}
    orphans: list[tuple[str, TensorSlice, int]] = []
    row = 0
    names: list[str] = []
    numbers: list[int] = []
    # Keys of slices begin with 00, so they come first. A tensor's name may begin with 00 too.
    while row < len(keys) and (key := keys[row]).startswith(b"\x00"):
        if key in listed:
            slice_rows[key] = row
        elif (decoded := decode_slice_key(key)) is not None:
            take(1)
            orphans.append((decode_name(decoded[0]), decoded[1], row))
        else:
            names.append(decode_name(key))
            numbers.append(row)
        row += 1
    others = range(row, len(keys))
    block_ends = keys.block_ends()
    names += keys.pop_names(row)
    parts = {row: [slice_rows.get(key, -1) for key in found] for row, found in slice_keys.items()}
    return Listing(
        names,
        [*numbers, *others] if numbers else others,
        columns,
        # Unlike a list, it takes none of the garbage collector's time. They are below 2^31.
        array("i", columns.data_types.astype(np.intc).tobytes()),
        slice_rows,
        parts,
        orphans,
        block_ends,
    )


class _Keys:
    """The keys of all entries but the header, by row."""

    def __init__(self, tables: list[TableColumns], known_names: Sequence[str]) -> None:
        self._tables = tables
        self._known_names = known_names
        self._ends: list[int] = np.cumsum([len(table) for table in tables]).tolist()

    def __len__(self) -> int:
        return self._ends[-1] - 1

    def __getitem__(self, row: int) -> bytes:
        number = bisect_right(self._ends, row + 1)
        table = self._tables[number]
        return table.key(row + 1 - (self._ends[number] - len(table)))

    def block_ends(self) -> list[int]:
        """Return for each data block the first row beyond it."""
        starts = [-1, *(end - 1 for end in self._ends[:-1])]
        pairs = zip(starts, self._tables, strict=True)
        return [start + end for start, table in pairs for end in table.block_ends]

    def pop_names(self, first: int) -> list[str]:
        """Decode the names of the rows from `first` on; each key is let go: they may be long."""
        found: list[str] = []
        skipped = first + 1
        self._tables.reverse()
        while self._tables:
            table = self._tables.pop()
            left_out = min(skipped, len(table))
            found += known_ones(decode_names(table, left_out), self._known_names)
            skipped -= left_out
        return found


def held_bytes(path: str, storage: Storage, num_shards: int) -> int:
    """Return the size of an index and its data files.

    Of a storage that lists no directories, of so many data files; 0 of them if they are not known.
    """
    directory, name = storage.split(path)
    prefix, stem = path.removesuffix(INDEX_SUFFIX), name.removesuffix(INDEX_SUFFIX)
    try:
        if not getattr(storage, "lists", True):
            shards = (shard_path(prefix, number, num_shards) for number in range(num_shards))
            stats = map(storage.stat, (path, *shards))
            return sum(stat.size for stat in stats if stat is not None)
        listed = storage.list(directory)
    except CheckpointError:
        return 0
    data = stem + ".data-"
    return sum(listed[one].size for one in listed if one == name or one.startswith(data))


def _read_header(table: Table, limits: Limits, held: Callable[[], int]) -> BundleHeader:
    first = table.first()
    if first is None or first[0] != HEADER_KEY:
        raise MalformedError(
            f"Expected the header of a tensor bundle under the empty key, found "
            f"{'an empty table' if first is None else f'key {first[0]!r} first'}"
        )
    return decode_header(first[1], limits=limits, held=held)
