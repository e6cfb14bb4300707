"""Read V1 files: name -> slices -> record of a slice -> array (docs/format.md, section 3).

Opening reads each file's list of tensors. The values of a slice are in the message under its key.
The only checksum is that of the block which holds the record.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy.typing as npt

from ckptparse.backend import OrphanSlice
from ckptparse.backend.places import Places, find_places
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.naming import encode_name, encode_slice_key
from ckptparse.bundle.payload import SlicedPayload
from ckptparse.elements import shaped
from ckptparse.errors import ClosedError, MalformedError, located
from ckptparse.files.context import Context
from ckptparse.files.storage import hold
from ckptparse.legacy.metadata import SliceList, read_metadata, strings_of
from ckptparse.legacy.record import decode_record
from ckptparse.limits import Budget, Limits, check_legacy, limit_error
from ckptparse.locks import make_lock
from ckptparse.slices import SliceGrid, TensorSlice
from ckptparse.table.reader import Table
from ckptparse.tensor import DEFAULT_OPTIONS, Kind, Payload, ReadOptions, Region, Tensor, kind_of

__all__ = ["LegacyReader", "LegacyTensor", "check_files"]


@dataclass(frozen=True, slots=True)
class LegacyTensor:
    """One tensor, as the lists of all files together say."""

    data_type: int
    shape: tuple[int, ...]
    slices: tuple[TensorSlice, ...]
    files: tuple[int, ...]
    """The number of the file that holds each slice."""

    @property
    def is_whole(self) -> bool:
        """Whether it has one slice, and this is all of it."""
        if len(self.slices) != 1:
            return False
        (piece,) = self.slices
        return all(
            extent.length is None or extent.length == size
            for extent, size in zip(piece.extents, self.shape, strict=True)
        )


class LegacyReader:
    """The open files of a V1 checkpoint.

    Attributes:
        files: Their paths.
        limits: Bounds on what they may ask for.
    """

    slices_are_read_whole = True
    """Any part of a slice takes all of it: each is one message."""

    def __init__(
        self,
        files: tuple[str, ...],
        tables: list[Table],
        tensors: Mapping[str, LegacyTensor],
        *,
        limits: Limits,
    ) -> None:
        self.files = files
        self.limits = limits
        self._tables = tables
        self._tensors = tensors
        self._payloads: dict[str, Payload] = {}
        self._lock = make_lock()
        self._others_checked = False
        self._closed = False

    @classmethod
    def open(cls, files: Sequence[str], context: Context) -> LegacyReader:
        """Open the files of one checkpoint and read their lists.

        Raises:
            CheckpointNotFoundError: A file is not there.
            DataLossError: A file is damaged, or two disagree about a tensor.
            UnsupportedError: A file excludes this reader.
            LimitError: A file asks for more than the limits allow, or there are more tensors than
                `Limits.small_tensors`, or slices than `Limits.single_entries`, for their size.
        """
        limits = context.limits
        check_files(len(files), limits)
        tables: list[Table] = []
        lists: list[list[SliceList]] = []
        with ExitStack() as stack:
            for path in files:
                source = stack.enter_context(closing(context.storage.open(path)))
                source = hold(source, most=source.piece)
                # No list of the keys is ever read, which would tell that two are the same.
                tables.append(Table.open(source, limits=limits, whole=True))
                with located(path=path):
                    lists.append(read_metadata(tables[-1], limits=limits))
            tensors = _merge(lists, files)
            _check_counts(tensors.values(), sum(table.source.size for table in tables), limits)
            stack.pop_all()
        return cls(tuple(files), tables, tensors, limits=limits)

    @property
    def format(self) -> Literal["v1"]:
        """Always `"v1"`."""
        return "v1"

    @property
    def num_shards(self) -> int:
        """The number of files."""
        return len(self.files)

    @property
    def byte_order(self) -> Literal["little"]:
        """Always little-endian: values are in messages, which have no other order."""
        return "little"

    def names(self) -> Sequence[str]:
        """Every tensor's name, sorted as stored."""
        return list(self.shapes())

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's name and shape, sorted by the name's bytes."""
        self.check_open()
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def find(self, name: str, options: ReadOptions) -> Tensor | None:
        """Return the lazy tensor of a name; None if there is none."""
        self.check_open()
        tensor = self._tensors.get(name)
        return None if tensor is None else self._make_tensor(name, tensor, options)

    def iter_tensors(self, options: ReadOptions, *, without: str | None = None) -> Iterator[Tensor]:
        """Iterate over every tensor, sorted by the name's bytes, but for one."""
        self.check_open()
        for name, tensor in self._tensors.items():
            if name != without:
                yield self._make_tensor(name, tensor, options)

    def places(self) -> Places:
        """Return where the records of every tensor lie."""
        return find_places(self.iter_tensors(DEFAULT_OPTIONS))

    def read_many(self, names: Sequence[str], options: ReadOptions) -> list[npt.NDArray[Any]]:
        """Read whole tensors, in the order of the names, all of which exist."""
        with self._lock:
            self._check_others()
        options = replace(options, budget=self.budget())
        tensors = (self.find(name, options) for name in names)
        return [tensor.read() for tensor in tensors if tensor is not None]

    def orphan_slices(self) -> list[OrphanSlice]:
        """Return none: a record that no list names has no shape and no dtype."""
        return []

    def data_sizes(self) -> Mapping[str, int]:
        """Return none: V1 has no data files."""
        return {}

    def budget(self) -> Budget:
        """Begin to count what one call takes of the files."""
        return Budget(self.limits, sum(table.source.size for table in self._tables))

    def slice_payloads(self, name: str, entry: BundleEntry) -> tuple[SliceGrid, list[Payload]]:
        """Find the slices of a tensor; their payloads are in the order of `entry.slices`."""
        tensor = self._tensors[name]
        grid = SliceGrid(entry.slices, entry.shape)
        shapes = (grid.stops - grid.starts).tolist()
        payloads: list[Payload] = [
            RecordPayload(self, Record(name, tensor.data_type, piece, tuple(shape), file))
            for piece, shape, file in zip(tensor.slices, shapes, tensor.files, strict=True)
        ]
        return grid, payloads

    def read_record(self, record: Record) -> bytes:
        """Read the bytes of a record.

        Raises:
            MalformedError: The file lists the slice, but has no record of it.
            DataLossError: A block is damaged: the one of the record, or one of no listed record.
        """
        key = encode_slice_key(encode_name(record.name), record.piece)
        # The blocks that a table keeps are shared by all threads.
        with self._lock:
            if self._closed:
                raise ClosedError("The checkpoint has been closed", path=self.files[record.file])
            self._check_others()
            data = self._tables[record.file].get(key)
        if data is None:
            raise MalformedError(
                f"Expected a record of slice [{record.piece}], which the file lists; found none",
                path=self.files[record.file],
            )
        return data

    def fingerprint(self) -> Hashable:
        """Return those of the files.

        Raises:
            ClosedError: They have been closed.
        """
        from ckptparse.files.fingerprint import fingerprint_of

        self.check_open()
        return tuple(fingerprint_of(table.source) for table in self._tables)

    def close(self) -> None:
        """Close the files, after any read that is going on."""
        with self._lock:
            self._closed = True
        for table in self._tables:
            table.source.close()

    def check_open(self) -> None:
        """Raise `ClosedError` once closed."""
        if self._closed:
            raise ClosedError("The checkpoint has been closed", path=self.files[0])

    def _check_others(self) -> None:
        """Check, before any value is given, the blocks that hold no listed record.

        TensorFlow writes none. Another record of a listed slice may lie there.
        """
        if self._others_checked:
            return
        # The list of the tensors lies in the first block.
        keys: list[list[bytes]] = [[b""] for _ in self._tables]
        if any(len(table.handles) > 1 for table in self._tables):
            for name, tensor in self._tensors.items():
                stored = encode_name(name)
                for piece, file in zip(tensor.slices, tensor.files, strict=True):
                    keys[file].append(encode_slice_key(stored, piece))
        for table, found in zip(self._tables, keys, strict=True):
            table.check_others(found)
        self._others_checked = True

    def _make_tensor(self, name: str, tensor: LegacyTensor, options: ReadOptions) -> Tensor:
        # All `Tensor` objects of a name share one payload, which remembers that it was verified.
        payload = self._payloads.get(name)
        if payload is None:
            payload = self._payloads.setdefault(name, self._make_payload(name, tensor))
        return Tensor(name, tensor.shape, tensor.data_type, payload, options)

    def _make_payload(self, name: str, tensor: LegacyTensor) -> Payload:
        if tensor.is_whole:
            (piece,), (file,) = tensor.slices, tensor.files
            return RecordPayload(self, Record(name, tensor.data_type, piece, tensor.shape, file))
        # As in a bundle, the entry of a sliced tensor has no place: its slices have.
        entry = BundleEntry.in_slices(tensor.data_type, tensor.shape, tensor.slices)
        return SlicedPayload(self, name, entry)


@dataclass(frozen=True, slots=True)
class Record:
    """Where the values of one slice are."""

    name: str
    data_type: int
    piece: TensorSlice
    shape: tuple[int, ...]
    """Of the slice."""
    file: int
    """The number of the file that holds it."""


class RecordPayload:
    """One slice, or a whole tensor. It is always read as a whole, since it is one message."""

    __slots__ = ("_reader", "_record", "_verified")

    location = None
    crc32c = None
    is_read_whole = True
    """For whoever takes it piece by piece: each would decode all of it."""

    def __init__(self, reader: LegacyReader, record: Record) -> None:
        self._reader = reader
        self._record = record
        self._verified = False

    @property
    def kind(self) -> Kind:
        """See `Tensor.kind`."""
        return kind_of(self._record.data_type)

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:
        """Read all of it; see `Payload`. Blocks are always verified."""
        record = self._record
        data = self._reader.read_record(record)
        with located(path=self._reader.files[record.file]):
            values = decode_record(
                data,
                record.data_type,
                math.prod(record.shape),
                limits=self._reader.limits,
                budget=options.budget or self._reader.budget(),
            )
            self._verified = True
            return shaped(values, record.shape)

    def read_region(self, region: Region) -> npt.NDArray[Any]:
        """Read all of it and take the part; see `Payload`."""
        whole = self.read(DEFAULT_OPTIONS)
        index = tuple(slice(wanted.start, wanted.stop, wanted.step) for wanted in region)
        part: npt.NDArray[Any] = whole[index].copy()
        return part

    def verify(self, options: ReadOptions) -> None:
        """Read the record, whose block has a checksum, once; see `Payload`."""
        if not self._verified:
            self.read(options)


def _merge(lists: Sequence[Sequence[SliceList]], files: Sequence[str]) -> dict[str, LegacyTensor]:
    """Put the lists of the files together, sorted by name.

    Raises:
        MalformedError: Two lists disagree about the dtype or shape of a tensor.
    """
    parts: dict[str, list[tuple[SliceList, int]]] = {}
    for file, found in enumerate(lists):
        for part in found:
            known = parts.setdefault(part.name, [])
            if known:
                _check_agreement(known[0][0], part, files[known[0][1]], files[file])
            known.append((part, file))
    return {name: _join(parts[name]) for name in sorted(parts, key=encode_name)}


def check_files(count: int, limits: Limits) -> None:
    """Make sure that a checkpoint may have so many files: each is a table, and takes 250 µs.

    Raises:
        LimitError: They are more than a quarter of `Limits.shards`.
    """
    limits.check("shards", 4 * count, "Four times the number of files")


def _check_counts(tensors: Collection[LegacyTensor], size: int, limits: Limits) -> None:
    """Check that there are not too many tensors, nor slices, for files of a size.

    Raises:
        LimitError: There are.
    """
    most = limits.most_singles(size)
    slices = sum(len(tensor.slices) for tensor in tensors)
    strings = strings_of(((one.data_type, one.shape) for one in tensors), size)
    if (
        len(tensors) <= limits.most_legacy(size)
        and slices <= most
        and strings <= limits.most_strings(size)
    ):
        return
    parts = [len(tensor.slices) for tensor in tensors if not tensor.is_whole]
    check_legacy(limits, len(tensors) - len(parts), strings, size)
    if sum(parts) > most:
        what = "The number of slices in V1 files"
        raise limit_error(limits, "single_entries", sum(parts), what)


def _check_agreement(known: SliceList, found: SliceList, known_path: str, path: str) -> None:
    if (known.shape, known.data_type) != (found.shape, found.data_type):
        raise MalformedError(
            f"Lists of V1 files disagree: expected DataType {known.data_type} of shape "
            f"{known.shape}, as {known_path} says, found DataType {found.data_type} of shape "
            f"{found.shape}",
            path=path,
            tensor=found.name,
        )


def _join(parts: Sequence[tuple[SliceList, int]]) -> LegacyTensor:
    if len(parts) == 1:
        ((part, file),) = parts
        return LegacyTensor(part.data_type, part.shape, part.slices, (file,) * len(part.slices))
    pieces = [(piece, file) for part, file in parts for piece in part.slices]
    return LegacyTensor(
        parts[0][0].data_type,
        parts[0][0].shape,
        tuple(piece for piece, _ in pieces),
        tuple(file for _, file in pieces),
    )
