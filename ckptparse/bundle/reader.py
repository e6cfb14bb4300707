"""A bundle, read: name -> entry -> bytes of a shard -> array (docs/format.md, section 2).

Opening reads the footer, the index block and the header. One name reads one block of the index; a
listing reads all of them, once. Data files are opened when first needed.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns, EntryDecoder
from ckptparse.bundle.entry import BundleEntry, BundleHeader, Endianness, shape_from_proto
from ckptparse.bundle.many import DenseReader, check_sharing
from ckptparse.bundle.naming import (
    INDEX_SUFFIX,
    decode_name,
    decode_slice_key,
    encode_name,
    encode_slice_key,
    encode_slice_keys,
    shard_path,
)
from ckptparse.bundle.payload import BrokenPayload, DensePayload, SlicedPayload, StringPayload
from ckptparse.bundle.slices import SliceGrid, TensorSlice
from ckptparse.dtypes import DataType, describe_data_type, is_numeric, item_size
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    MalformedError,
    MissingShardError,
    TruncatedError,
    located,
)
from ckptparse.files.local import LOCAL, LocalSource
from ckptparse.files.pool import SourcePool
from ckptparse.files.storage import Source
from ckptparse.limits import Limits
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto
from ckptparse.table.reader import Table
from ckptparse.tensor import Payload, ReadOptions, Tensor

__all__ = ["BundleReader", "Listing"]

HEADER_KEY = b""
_DAMAGED = "ckptparse.recover tells what can be got back"
_FEW_NAMES = 64
_FEW_SLICES = 64
"""Up to so many are looked up one by one; for more the whole index is cheaper."""
_VERY_FEW_SLICES = 8
_SMALL_TENSOR = 1 << 18
"""Up to so many slices of a tensor of so many bytes are read one by one: 0.02 ms each."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The whole index, sorted out.

    Attributes:
        rows: Name of each tensor -> its row in `columns`, sorted as the index is.
        columns: The entries, of slices too.
        codes: Their DataTypes once more, as Python's integers.
        slice_rows: Key of each slice that a tensor lists -> its row.
        parts: Row of a tensor in slices -> the rows of its slices in their order, -1 for none.
        orphans: Name, slice and row of each slice that no tensor lists.
    """

    rows: Mapping[str, int]
    columns: EntryColumns
    codes: Sequence[int]
    slice_rows: Mapping[bytes, int]
    parts: Mapping[int, Sequence[int]]
    orphans: Sequence[tuple[str, TensorSlice, int]]


class BundleReader:
    """An open bundle.

    Attributes:
        prefix: The path without `.index`.
        header: Its first entry.
        limits: Bounds on what it may ask for.
        explain_file: Says of a data file that is too short what it is instead; None says nothing.
    """

    format: ClassVar[Literal["v2"]] = "v2"

    def __init__(self, prefix: str, table: Table, header: BundleHeader, *, limits: Limits) -> None:
        self.prefix = prefix
        self.header = header
        self.limits = limits
        self._table = table
        self._pool = SourcePool(LOCAL)
        self.explain_file: Callable[[str], str | None] | None = None
        self._lock = threading.Lock()
        self._listing: Listing | None = None

    @classmethod
    def open(cls, prefix: str, *, limits: Limits) -> BundleReader:
        """Open the index of a prefix and read its header.

        Raises:
            CheckpointNotFoundError: There is no index.
            DataLossError: It is damaged.
            UnsupportedError: It excludes this reader.
            LimitError: It is larger than the limits allow.
        """
        source = LocalSource.open(prefix + INDEX_SUFFIX)
        try:
            limits.check("index_bytes", source.size, "The size of the index", path=source.path)
            table = Table.open(source, limits=limits)
            with located(path=source.path):
                header = _read_header(table, limits)
        except BaseException:
            source.close()
            raise
        return cls(prefix, table, header, limits=limits)

    @property
    def big_endian(self) -> bool:
        """Whether the data files are big-endian."""
        return self.header.endianness == Endianness.BIG

    @property
    def index_path(self) -> str:
        """Path of the index."""
        return self._table.source.path

    def shard_path(self, shard_id: int) -> str:
        """Path of a data file."""
        return shard_path(self.prefix, shard_id, self.header.num_shards)

    def listing(self) -> Listing:
        """Read the whole index, once.

        Raises:
            DataLossError: Any of it is damaged: never a listing that is silently shorter.
        """
        with self._lock:
            if self._listing is None:
                self._listing = self._read_listing()
            return self._listing

    def find_entry(self, name: str) -> BundleEntry | None:
        """Return the entry of a tensor, or None where there is none of that name."""
        try:
            key = encode_name(name)
        except UnicodeEncodeError:  # A lone surrogate that stands for no byte.
            return None
        if self._listing is None and not key.startswith(b"\x00"):
            return self._find(key)
        listing = self.listing()
        row = listing.rows.get(name)
        return None if row is None else listing.columns.entry(row)

    def find_slice(self, name: str, tensor_slice: TensorSlice) -> BundleEntry | None:
        """Return the entry of one slice of a tensor, or None where there is none."""
        key = encode_slice_key(encode_name(name), tensor_slice)
        if self._listing is None:
            return self._find(key)
        row = self._listing.slice_rows.get(key)
        return None if row is None else self._listing.columns.entry(row)

    def make_tensor(self, name: str, entry: BundleEntry, options: ReadOptions) -> Tensor:
        """Make the lazy tensor of an entry."""
        payload = self.make_payload(name, entry)
        return Tensor(name, entry.shape, entry.data_type, payload, options)

    def make_payload(self, name: str, entry: BundleEntry) -> Payload:
        """Choose how the values of an entry are read."""
        if entry.slices:
            return SlicedPayload(self, name, entry, path=self.index_path)
        if entry.data_type in (DataType.DT_STRING, DataType.DT_VARIANT):
            return StringPayload(self, entry)
        return DensePayload(self, entry)

    def slice_payloads(self, name: str, entry: BundleEntry) -> tuple[SliceGrid, list[Payload]]:
        """Find the slices of a tensor; their payloads stand in the order of `entry.slices`.

        A slice that has no entry, or one that disagrees with the tensor, raises `MalformedError`
        when it is read.

        Raises:
            MalformedError: A slice does not fit the tensor, or overlaps another.
        """
        if len(entry.slices) > _FEW_SLICES:
            self.listing()
        grid = SliceGrid(entry.slices, entry.shape)
        payloads = [
            self._slice_payload(name, entry, piece, tuple(shape))
            for piece, shape in zip(entry.slices, (grid.stops - grid.starts).tolist(), strict=True)
        ]
        return grid, payloads

    def read_slices(
        self, name: str, entry: BundleEntry, options: ReadOptions
    ) -> npt.NDArray[Any] | None:
        """Put a tensor together from many slices at once.

        None where they are too few and small to be worth it, or one is not plainly right.
        """
        width = item_size(entry.data_type)
        if width is None or (
            len(entry.slices) <= _VERY_FEW_SLICES
            and math.prod(entry.shape) * width <= _SMALL_TENSOR
        ):
            return None
        columns = self._slice_columns(name, entry)
        if columns is None:
            return None
        with located(path=self.index_path):
            grid = SliceGrid(entry.slices, entry.shape)
            lengths = list(map(tuple, (grid.stops - grid.starts).tolist()))
            if (
                (columns.data_types != entry.data_type).any()
                or columns.shapes != lengths
                or grid.find_missing(tuple(map(range, entry.shape))) is not None
            ):
                return None

        def name_of(row: int) -> str:
            return f"{name} {entry.slices[row]}"

        options = replace(options, mmap=False)  # What is copied to its place needs no map.
        return DenseReader(self, columns, name_of, options).assemble(grid)

    def _slice_columns(self, name: str, entry: BundleEntry) -> EntryColumns | None:
        """Return the entries of a tensor's slices; None where one is missing."""
        if len(entry.slices) <= _FEW_SLICES:
            found = [self.find_slice(name, piece) for piece in entry.slices]
            entries = [piece for piece in found if piece is not None and not piece.slices]
            whole = len(entries) == len(entry.slices)
            return EntryColumns.of_entries(entries) if whole else None
        listing = self.listing()
        rows = listing.parts[listing.rows[name]]
        if -1 in rows or not listing.columns.others.keys().isdisjoint(rows):
            return None
        return listing.columns.take(rows)

    def read_dense(self, entry: BundleEntry, options: ReadOptions) -> npt.NDArray[Any]:
        """Read the whole of a large tensor by several threads, or map it."""
        columns = EntryColumns.of_entries([entry])
        return DenseReader(self, columns, lambda _: None, options).read()[0]

    @contextmanager
    def shard(self, shard_id: int) -> Iterator[Source]:
        """Give an open data file for as long as the context lasts.

        Raises:
            MissingShardError: It is not there.
        """
        path = self.shard_path(shard_id)
        try:
            context = self._pool.borrow(path)
            source = context.__enter__()
        except CheckpointNotFoundError:
            raise MissingShardError(
                f"Data file {shard_id} of {self.header.num_shards} is missing",
                path=path,
                hint="ckptparse.recover tells what the other files still give",
            ) from None
        try:
            yield source
        except TruncatedError as error:
            if self.explain_file is not None and error.hint is None:
                error.hint = self.explain_file(path) or _DAMAGED
            raise
        finally:
            context.__exit__(None, None, None)

    def map_shard(self, shard_id: int) -> mmap.mmap | None:
        """Map a data file copy-on-write; None where no more can be mapped.

        Raises:
            MissingShardError: It is not there.
        """
        with self.shard(shard_id) as source:
            return self._pool.map(source)

    # What follows is the face that `ckptparse.checkpoint` asks of every format.

    @property
    def num_shards(self) -> int:
        """The number of data files."""
        return self.header.num_shards

    @property
    def byte_order(self) -> Literal["little", "big"]:
        """Of the data files."""
        return "big" if self.big_endian else "little"

    @property
    def files(self) -> tuple[str, ...]:
        """The index, then every data file, whether or not it is there."""
        return (self.index_path, *map(self.shard_path, range(self.num_shards)))

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's name and shape, in the order of the index."""
        listing = self.listing()
        return {name: listing.columns.shapes[row] for name, row in listing.rows.items()}

    def find(self, name: str, options: ReadOptions) -> Tensor | None:
        """Return the lazy tensor of a name, or None where there is none."""
        listing = self._listing
        if listing is not None:
            row = listing.rows.get(name)
            if row is None:
                return None
            shape, code = listing.columns.shapes[row], listing.codes[row]
            return Tensor(name, shape, code, None, options, find_payload=self._listed_payload)
        with located(path=self.index_path):
            entry = self.find_entry(name)
        return None if entry is None else self.make_tensor(name, entry, options)

    def find_all(self, options: ReadOptions) -> dict[str, Tensor]:
        """Return every tensor, in the order of the index."""
        listing, find_payload = self.listing(), self._listed_payload
        shapes, codes = listing.columns.shapes, listing.codes
        return {
            name: Tensor(name, shapes[row], codes[row], None, options, find_payload=find_payload)
            for name, row in listing.rows.items()
        }

    def _listed_payload(self, name: str) -> Payload:
        listing = self.listing()
        return self.make_payload(name, listing.columns.entry(listing.rows[name]))

    def read_many(self, names: Sequence[str], options: ReadOptions) -> list[npt.NDArray[Any]]:
        """Read whole tensors, in the order of the names, all of which exist."""
        columns = self._columns_of(names)
        codes = columns.data_types.tolist()
        numeric = set(filter(is_numeric, set(codes)))
        if numeric.issuperset(codes) and not columns.others:
            return DenseReader(self, columns, names.__getitem__, options).read()
        dense = [
            row for row, code in enumerate(codes) if code in numeric and row not in columns.others
        ]
        reader = DenseReader(self, columns.take(dense), lambda row: names[dense[row]], options)
        arrays = dict(zip(dense, reader.read(), strict=True))
        taken = sum(array.nbytes for array in arrays.values())
        held: int | None = None
        for row, name in enumerate(names):
            if row not in arrays:
                tensor = self.make_tensor(name, columns.entry(row), options)
                arrays[row] = tensor.read()
                taken += tensor.nbytes
                if taken > self.limits.decompressed_bytes:
                    held = self._held() if held is None else held
                    check_sharing(self.limits, taken, held)
        return [arrays[row] for row in range(len(names))]

    def _held(self) -> int:
        """Return the size of all data files that are there."""
        paths = filter(os.path.exists, self.files[1:])
        return sum(map(os.path.getsize, paths))

    def _columns_of(self, names: Sequence[str]) -> EntryColumns:
        """Return the entries of some tensors, in their order."""
        if self._listing is None and len(names) <= _FEW_NAMES:
            with located(path=self.index_path):
                found = [self.find_entry(name) for name in names]
            return EntryColumns.of_entries([entry for entry in found if entry is not None])
        listing = self.listing()
        rows = [listing.rows[name] for name in names]
        columns = listing.columns.take(rows)
        if listing.columns.others:
            others = listing.columns.others
            columns.others.update(
                (number, others[row]) for number, row in enumerate(rows) if row in others
            )
        return columns

    def orphan_slices(self, options: ReadOptions) -> list[tuple[str, TensorSlice, Tensor]]:
        """Return the slices that no tensor lists."""
        listing = self.listing()
        return [
            (name, piece, self._make_orphan(name, piece, listing.columns.entry(row), options))
            for name, piece, row in listing.orphans
        ]

    def _make_orphan(
        self, name: str, piece: TensorSlice, entry: BundleEntry, options: ReadOptions
    ) -> Tensor:
        if not entry.slices:
            return self.make_tensor(name, entry, options)
        error = MalformedError(
            f"Slice {piece} is stored in slices itself", path=self.index_path, tensor=name
        )
        return Tensor(name, entry.shape, entry.data_type, BrokenPayload(error), options)

    def close(self) -> None:
        """Close the index and the data files."""
        self._table.source.close()
        self._pool.close()

    def _slice_payload(
        self, name: str, whole: BundleEntry, piece: TensorSlice, shape: tuple[int, ...]
    ) -> Payload:
        try:
            return self.make_payload(name, self._slice_entry(name, whole, piece, shape))
        except CheckpointError as error:
            return BrokenPayload(error)

    def _slice_entry(
        self, name: str, whole: BundleEntry, piece: TensorSlice, shape: tuple[int, ...]
    ) -> BundleEntry:
        entry = self.find_slice(name, piece)
        if entry is None:
            raise MalformedError(
                f"Slice {piece} of the tensor is missing: the index lists it and has no entry "
                "for it",
                path=self.index_path,
                tensor=name,
            )
        if entry.data_type != whole.data_type or entry.shape != shape or entry.slices:
            raise MalformedError(
                f"Slice {piece} disagrees with its tensor: expected "
                f"{describe_data_type(whole.data_type)} of shape {shape}, found "
                f"{describe_data_type(entry.data_type)} of shape {entry.shape}"
                f"{' in slices' if entry.slices else ''}",
                path=self.index_path,
                tensor=name,
            )
        return entry

    def _find(self, key: bytes) -> BundleEntry | None:
        if key == HEADER_KEY:
            return None
        value = self._table.get(key)
        return None if value is None else self._decode_entry(key, value)

    def _decode_entry(self, key: bytes, value: bytes) -> BundleEntry:
        with located(path=self.index_path, tensor=decode_name(key)):
            proto = parse_message(
                BundleEntryProto, value, limits=self.limits, what="an entry of the index"
            )
            return BundleEntry.from_proto(
                proto, num_shards=self.header.num_shards, limits=self.limits
            )

    def _decode_shape(self, data: bytes) -> tuple[int, ...]:
        proto = parse_message(TensorShapeProto, data, limits=self.limits, what="a shape")
        return shape_from_proto(proto, limits=self.limits)

    def _read_listing(self) -> Listing:
        decoder = EntryDecoder(
            num_shards=self.header.num_shards,
            limits=self.limits,
            decode_entry=self._decode_entry,
            decode_shape=self._decode_shape,
        )
        keys: list[bytes] = []
        parts: list[EntryColumns] = []
        for block in self._table.iter_blocks():
            skipped = 1 if block.keys and not keys and block.keys[0] == HEADER_KEY else 0
            own = block.keys[skipped:]
            parts.append(
                decoder.decode(block.contents, own, block.starts[skipped:], block.ends[skipped:])
            )
            keys.extend(own)
        return _sort_out(keys, EntryColumns.concatenate(parts))


def _sort_out(keys: list[bytes], columns: EntryColumns) -> Listing:
    """Tell tensors, their slices and orphan slices apart."""
    slice_keys = {
        row: encode_slice_keys(keys[row], entry.slices) for row, entry in columns.others.items()
    }
    listed = set(chain.from_iterable(slice_keys.values()))
    slice_rows: dict[bytes, int] = {}
    orphans: list[tuple[str, TensorSlice, int]] = []
    row = 0
    tensors: list[tuple[str, int]] = []
    while row < len(keys) and keys[row].startswith(b"\x00"):
        key = keys[row]
        if key in listed:
            slice_rows[key] = row
        elif (decoded := decode_slice_key(key)) is not None:
            orphans.append((decode_name(decoded[0]), decoded[1], row))
        else:
            tensors.append((decode_name(key), row))
        row += 1
    rows = dict(tensors)
    rows.update(zip(_decode_names(keys[row:]), range(row, len(keys)), strict=True))
    parts = {row: [slice_rows.get(key, -1) for key in found] for row, found in slice_keys.items()}
    return Listing(rows, columns, columns.data_types.tolist(), slice_rows, parts, orphans)


def _decode_names(keys: Sequence[bytes]) -> list[str]:
    """Decode all at once, where no name holds the zero that is put between them."""
    names = decode_name(b"\x00".join(keys)).split("\x00") if keys else []
    return names if len(names) == len(keys) else list(map(decode_name, keys))


def _read_header(table: Table, limits: Limits) -> BundleHeader:
    first = table.first()
    if first is None or first[0] != HEADER_KEY:
        raise MalformedError(
            f"Expected the header of a tensor bundle under the empty key, found "
            f"{'an empty table' if first is None else f'key {first[0]!r} first'}"
        )
    proto = parse_message(
        BundleHeaderProto, first[1], limits=limits, what="the header of a tensor bundle"
    )
    return BundleHeader.from_proto(proto, limits=limits)
