"""Read what the files of a V1 checkpoint say of tensors: records, each with its block's proof.

    list of tensors      name, shape, dtype, slices       under the empty key, in the first block
    record of a slice    name, slice, values              in a typed field

Only blocks have a checksum, so a record is proved if and only if its block is. Only the list says
shape and dtype. Without it, values come flat and unverified, in the widest type that their field
can hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ckptparse.bundle.naming import decode_name, decode_slice_key, encode_name, encode_slice_key
from ckptparse.coding.checksum import unmask_crc
from ckptparse.dtypes import DataType, dtype_name
from ckptparse.errors import CheckpointError, LimitError, PermissionDeniedError
from ckptparse.examination.carving import fixed32
from ckptparse.examination.index_view import IndexView, name_foreign, report_left
from ckptparse.examination.payload import ListedTensor, Payload, Record
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.examination.record_rows import DAMAGED_RECORD, RowMaker
from ckptparse.examination.report import FileReport
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.examination.salvaged import (
    LEGACY_CODES,
    SalvagedBlock,
    SalvagedEntry,
    SalvagedTable,
    read_salvaged,
)
from ckptparse.examination.salvaged_table import salvage_table
from ckptparse.examination.tied_blocks import OTHER_SAVE, find_untied, place_of
from ckptparse.inventory.survey import LegacyFile, Origin, Survey
from ckptparse.legacy.metadata import SliceList, decode_metadata, strings_of
from ckptparse.legacy.reader import check_files
from ckptparse.legacy.record import check_record, find_values
from ckptparse.limits import Limits, check_legacy
from ckptparse.problems import Problem, Severity
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.saved_tensor_slice_pb2 import SavedTensorSlices
from ckptparse.proto.wire import BYTES, iter_fields
from ckptparse.slices import TensorSlice
from ckptparse.table.format import TRAILER_SIZE
from ckptparse.tensor_proto import decode_saved_values
from ckptparse.text import shape_text
from ckptparse.typed_fields import count_strings

__all__ = ["read_legacy_view"]

_META_KEY = b""
_KEPT = 4096
"""Bytes of a value at most that is kept in memory once it was read. Reading a small value again
costs more than keeping it; large ones are read again, so that memory stays small."""
# Several types share a field: int_val (7) holds all integers up to int32 (section 3.3).
_FIELDS = {
    5: DataType.DT_FLOAT,
    6: DataType.DT_DOUBLE,
    7: DataType.DT_INT32,
    8: DataType.DT_STRING,
    9: DataType.DT_COMPLEX64,
    10: DataType.DT_INT64,
    11: DataType.DT_BOOL,
    12: DataType.DT_COMPLEX128,
    13: DataType.DT_HALF,
}
"""The fields of a TensorProto that hold values, each with the widest type that it can hold."""
_WIDTHS = {5: 4, 6: 8, 9: 8, 12: 16}
"""Bytes of one packed value of these fields; those of the others are varints."""
_STRING_FIELD = 8
_SHOWN = 48
"""Bytes of a key that are shown."""
_UNLISTED = "the list of tensors is lost, so its dtype is a guess: the widest its values can have"


def read_legacy_view(survey: Survey, files: DataFiles, *, correct: bool = False) -> IndexView:
    """Read what all files of a V1 checkpoint together still say.

    Args:
        survey: The checkpoint.
        files: What opens its files.
        correct: Whether to correct a block if one flipped bit explains its checksum.
    """
    origins = {one.origin for one in survey.legacy_files} or {Origin.FINAL}
    origin = origins.pop() if len(origins) == 1 else Origin.FINAL
    reader = _Reader(IndexView(survey.prefix, origin, complete=True), files, correct=correct)
    count = sum(one.present for one in survey.legacy_files)
    try:
        check_files(count, files.context.limits)
    except LimitError as error:
        # As the strict reader, which opens none of them.
        reader.refuse(survey.prefix, error)
    else:
        for one in survey.legacy_files:
            reader.take_file(one)
    reader.finish()
    return reader.view


@dataclass(frozen=True, slots=True)
class _Found:
    """A record, and the file it lies in."""

    file: DataFile
    entry: SalvagedEntry
    untied: bool = False
    """Whether its block may be of another save."""


@dataclass(slots=True)
class _Listed:
    """What the lists of all files say of one tensor."""

    data_type: int
    shape: tuple[int, ...]
    slices: list[tuple[TensorSlice, SalvagedTable]] = field(default_factory=list)
    proved: bool = True
    chance: float = 0.0


class _Reader:
    """Reads the files of one checkpoint and puts together what they say."""

    def __init__(self, view: IndexView, files: DataFiles, *, correct: bool) -> None:
        self.view = view
        self.files = files
        self.limits: Limits = files.context.limits
        self.correct = correct
        self.found: dict[bytes, _Found] = {}
        self.listed: dict[str, _Listed] = {}
        self.rows = RowMaker()
        self.crcs: dict[tuple[DataFile, int], int | None] = {}
        self.numbers: dict[str, int] = {}
        self.too_many = False
        """Whether there are more tensors than the strict reader takes of files of this size."""
        self.most = files.singles.most
        """Slices that are looked at one by one: those of tensors that cannot be rows."""
        self.most_records = self.limits.most_legacy(files.held_bytes) + self.most + 1
        """Each tensor has one record or more, and the list of them is an entry too."""

    # -- files

    def take_file(self, one: LegacyFile) -> None:
        """Read one file of the set."""
        path = one.path
        if not one.present:
            self.view.complete = False
            self.view.files[path] = FileReport(path, "v1", None)
            self.view.report("v1.missing", path, "the file is not there")
            return
        table = self._salvage(path)
        if table is None:
            self.view.complete = False
            return
        self.view.problems += name_foreign(table, LEGACY_CODES, self.files.context)
        self.view.complete &= table.complete
        role = "leftover" if one.origin.is_leftover else "v1"
        self.view.files[path] = FileReport(path, role, table.size, tuple(table.ranges))
        entries = table.entries
        self._take_list(table, entries[0] if entries else None)
        untied = frozenset() if one.laid is None else find_untied(table, one.laid, one.untied)
        for entry in entries:
            known = self.found.get(entry.key)
            if entry.key != _META_KEY and (known is None or not known.entry.proved):
                loose = entry.proved and place_of(entry) in untied
                self.found[entry.key] = _Found(table.file, entry, loose)

    def _salvage(self, path: str) -> SalvagedTable | None:
        try:
            return salvage_table(
                self.files,
                path,
                LEGACY_CODES,
                accept=self._looks_right,
                correct=self.correct,
                keep=_KEPT,
                resumed=self.most,
                most=self.most_records,
            )
        except LimitError as error:
            self.refuse(path, error)
        except PermissionDeniedError:
            raise
        except CheckpointError as error:
            self.view.report("file.unreadable", path, error.message)
        return None

    def _looks_right(self, key: bytes, value: bytes) -> bool:
        """Tell whether a record that no checksum covers names the same slice as its key."""
        try:
            if key == _META_KEY:
                held = self.files.held_bytes
                return bool(decode_metadata(value, limits=self.limits, held=held))
            decoded = decode_slice_key(key)
            if decoded is None:
                return False
            proto = parse_message(SavedTensorSlices, value)
            piece = TensorSlice.from_proto(proto.data.slice)
        except CheckpointError:
            return False
        return (encode_name(proto.data.name), piece) == decoded and not proto.HasField("meta")

    def refuse(self, path: str, error: LimitError) -> None:
        """Report that a file asks for more than is allowed."""
        self.view.report("limit.reached", path, error.message)
        self.view.complete = False
        self.too_many |= error.limit in ("small_tensors", "strings")

    def _check_whole(self) -> None:
        """Refuse as many tensors in one piece as the strict reader refuses."""
        held = self.files.held_bytes
        listed = self.listed.values()
        strings = strings_of(((one.data_type, one.shape) for one in listed), held)
        most = self.limits.most_legacy(held)
        if len(listed) <= most and strings <= self.limits.most_strings(held):
            return
        whole = sum(
            len(one.slices) == 1 and _is_whole(one.slices[0][0], one.shape) for one in listed
        )
        try:
            check_legacy(self.limits, whole, strings, held)
        except LimitError as error:
            self.refuse(self.view.path, error)

    def _take_list(self, table: SalvagedTable, first: SalvagedEntry | None) -> None:
        path = table.file.path
        if first is None or first.key != _META_KEY:
            message = "expected the list of tensors in the first entry, found none"
            self.view.report("v1.meta", path, message)
            return
        try:
            data = self._read(table.file, first)
            lists = decode_metadata(data, limits=self.limits, held=table.size)
        except CheckpointError as error:
            if isinstance(error, LimitError) and error.limit in ("small_tensors", "single_entries"):
                self.refuse(path, error)
                self.too_many = True
                return
            self.view.report("v1.meta", path, error.message)
            return
        for found in lists:
            self._add_list(table, found, first)

    def _read(self, file: DataFile, entry: SalvagedEntry) -> bytes:
        if entry.value is not None or entry.block is None:
            return entry.value or b""
        block = entry.block
        return read_salvaged(self.files, file, block.offset, block.size, entry.key)

    def _add_list(self, table: SalvagedTable, found: SliceList, entry: SalvagedEntry) -> None:
        known = self.listed.setdefault(found.name, _Listed(found.data_type, found.shape))
        if (known.data_type, known.shape) != (found.data_type, found.shape):
            message = (
                f"its list says {_kind_of(found.data_type, found.shape)} of {found.name!r}, and "
                f"another says {_kind_of(known.data_type, known.shape)}"
            )
            self.view.report("v1.meta", table.file.path, message)
            known.proved = False
            return
        known.slices += [(piece, table) for piece in found.slices]
        known.proved &= entry.proved
        known.chance = max(known.chance, entry.chance)

    # -- tensors

    def finish(self) -> None:
        """Find the record of every listed slice; then take the records that no list names."""
        self._check_whole()
        if self.too_many:
            # None of them is looked at, as none is read.
            self.listed.clear()
            self.found.clear()
        taken: set[bytes] = set()
        rows: dict[str, int] = {}
        held: dict[str, ListedTensor] = {}
        order: list[str] = []
        looked = 0
        for name, listed in self.listed.items():
            stored = encode_name(name)
            keys = [encode_slice_key(stored, piece) for piece, _ in listed.slices]
            taken.update(keys)
            alone = len(keys) == 1 and _is_whole(listed.slices[0][0], listed.shape)
            row = self._row(listed, keys[0]) if alone else None
            if row is not None:
                rows[name] = row
                order.append(name)
                continue
            looked += len(keys)
            if looked > self.most:
                continue
            order.append(name)
            slices = [
                (piece, self._payload(listed, piece, key, table))
                for (piece, table), key in zip(listed.slices, keys, strict=True)
            ]
            held[name] = self._listed(name, listed, slices, alone=alone)
        paths = {number: path for path, number in self.numbers.items()}
        made = self.rows.finish(self.view.path, self.view.origin, paths)
        self.view.rows = made
        self.view.tensors = RowMapping.arranged(made.listed, order, rows, held)
        others = [(key, found) for key, found in self.found.items() if key not in taken]
        for key, found in others[: self.most]:
            self._take_unlisted(key, found)
        left = len(self.listed) - len(order) + max(0, len(others) - self.most)
        if left:
            report_left(self.view, left, self.limits)

    def _row(self, listed: _Listed, key: bytes) -> int | None:
        """Take a tensor in one piece as a row; None if anything of it is not as it was written."""
        found = self.found.get(key)
        if found is None or not listed.proved or listed.chance or found.file.undo is not None:
            return None
        if found.untied:
            return None
        entry = found.entry
        if not entry.proved or entry.chance or entry.patches or entry.value is None:
            return None
        crc = self._stored_crc(found.file, entry.block)
        if entry.block is None or crc is None:
            return None
        number = self.numbers.setdefault(found.file.path, len(self.numbers))
        return self.rows.add(listed.data_type, listed.shape, number, crc, entry)

    def _listed(
        self,
        name: str,
        listed: _Listed,
        slices: list[tuple[TensorSlice, Payload | None]],
        *,
        alone: bool,
    ) -> ListedTensor:
        return ListedTensor(
            name,
            listed.data_type,
            listed.shape,
            listed.proved,
            DAMAGED_RECORD,
            listed.chance,
            slices[0][1] if alone else None,
            () if alone else tuple(slices),
        )

    def _payload(
        self, listed: _Listed, piece: TensorSlice, key: bytes, table: SalvagedTable
    ) -> Payload | None:
        shape = tuple(map(len, piece.resolve(listed.shape)))
        found = self.found.get(key)
        if found is None:
            block = table.block_of(key)
            if block is None or block.proved:
                # The block is whole and does not hold it: there never was such a record.
                return None
            found = _Found(table.file, SalvagedEntry(key, None, proved=False, block=block))
        proved = listed.proved
        return self._make(found, listed.data_type, shape, proved=proved, chance=listed.chance)

    def _make(
        self,
        found: _Found,
        data_type: int,
        shape: tuple[int, ...],
        *,
        proved: bool,
        chance: float,
        doubt: str = DAMAGED_RECORD,
    ) -> Payload:
        entry, block = found.entry, found.entry.block
        return Payload(
            data_type,
            shape,
            found.file,
            block.offset if block else 0,
            block.size + 1 if block else 0,
            self._stored_crc(found.file, block),
            proved and not found.untied,
            OTHER_SAVE if found.untied else doubt,
            max(chance, entry.chance),
            found.file.path,
            self.view.origin,
            block=block.offset if block else None,
            record=Record(entry.key, entry.value, sound=entry.proved),
            grounds=entry.grounds,
            patches=entry.patches,
        )

    def _stored_crc(self, file: DataFile, block: SalvagedBlock | None) -> int | None:
        """Return the checksum in a block's trailer; None if the file ends before it."""
        if block is None or not block.framed:
            return None
        key = file, block.offset
        if key not in self.crcs:
            self.crcs[key] = self._read_crc(file, block)
        return self.crcs[key]

    def _read_crc(self, file: DataFile, block: SalvagedBlock) -> int | None:
        size = self.files.size(file) or 0
        if block.end > size:
            return None
        # The trailer: one byte for the compression, then the checksum (section 1.4).
        trailer = bytes(self.files.read(file, block.end - TRAILER_SIZE, TRAILER_SIZE))
        return unmask_crc(fixed32(trailer, 1))

    # -- records that no list names

    def _take_unlisted(self, key: bytes, found: _Found) -> None:
        """Take a record as flat values, in the type that its field can hold."""
        decoded = decode_slice_key(key)
        if decoded is None:
            message = f"an entry is stored whose key is that of no slice: {key[:_SHOWN]!r}"
            self.view.problems.append(
                Problem.of("v1.record", found.file.path, message, severity=Severity.WARNING)
            )
            return
        name, piece = decode_name(decoded[0]), decoded[1]
        if self.view.complete:
            message = f"slice [{piece}] is stored, but no list of tensors names it"
            self.view.problems.append(
                # No reader ever gives it, as no reader gives a slice of a bundle that none lists.
                Problem.of("v1.record", name, message, severity=Severity.WARNING)
            )
            return
        try:
            guessed = _guess(self._read(found.file, found.entry), self.limits)
        except LimitError as error:
            self.view.report("limit.reached", found.file.path, error.message)
            return
        except CheckpointError:
            return
        if guessed is not None:
            self._add_unlisted(name, piece, found, *guessed)

    def _add_unlisted(
        self, name: str, piece: TensorSlice, found: _Found, data_type: int, count: int
    ) -> None:
        lengths = [extent.length for extent in piece.extents if extent.length is not None]
        if lengths or name in self.view.tensors:
            name = f"{name} [{piece}]"
        shape: tuple[int, ...] = (count,) if piece.extents or count != 1 else ()
        if piece.extents and len(lengths) == len(piece.extents) and math.prod(lengths) == count:
            shape = tuple(lengths)
        doubt = _UNLISTED
        doubt += "" if not piece.extents or lengths else ", and its shape is not known"
        payload = self._make(found, data_type, shape, proved=False, chance=0.0, doubt=doubt)
        self.view.tensors[name] = ListedTensor(name, data_type, shape, False, doubt, 0.0, payload)


def _kind_of(data_type: int, shape: tuple[int, ...]) -> str:
    return f"{dtype_name(data_type)} {shape_text(shape)}"


def _is_whole(piece: TensorSlice, shape: tuple[int, ...]) -> bool:
    lengths = [extent.length for extent in piece.extents]
    return all(one is None or one == size for one, size in zip(lengths, shape, strict=True))


def _guess(record: bytes, limits: Limits) -> tuple[int, int] | None:
    """Return the widest type that the field of the values can hold, and how many there are."""
    check_record(record, limits)
    values = memoryview(find_values(record))
    strings, end = count_strings(values)
    if strings and end == len(values):
        check_legacy(limits, 0, strings, len(record))
        return DataType.DT_STRING, strings
    fields = {number for number, _, _, _ in iter_fields(values)} if values else set()
    for number in sorted(fields & set(_FIELDS)):
        data_type = _FIELDS[number]
        for count in _possible_counts(values, number):
            try:
                decode_saved_values(values, data_type, count, limits=limits)
            except CheckpointError:
                continue
            return data_type, count
    return None


def _possible_counts(values: Any, number: int) -> Iterable[int]:
    """Count the values in a typed field of a TensorProto."""
    pieces = [
        (wire, bytes(values[first:last]))
        for found, wire, first, last in iter_fields(values)
        if found == number
    ]
    return _counts_of(pieces, number)


def _counts_of(pieces: list[tuple[int, bytes]], number: int) -> Iterator[int]:
    if number == _STRING_FIELD:
        yield len(pieces)
        return
    packed = b"".join(data for wire, data in pieces if wire == BYTES)
    width = _WIDTHS.get(number)
    if width is not None:
        yield len(packed) // width
    else:
        # Only the last byte of a varint is below 0x80, so these bytes count the values.
        yield int((np.frombuffer(packed, np.uint8) < 0x80).sum())
    # Not packed: one field for each value. Every reader of protobuf takes both.
    yield len(pieces)
