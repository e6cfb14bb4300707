"""V1 files, whole or broken: every record carries its name, its slice and its values.

    list of tensors      name, shape, dtype, slices       under the empty key, in the first block
    record of a slice    name, slice, values              in a typed field

There is no checksum but that of the blocks, so a record is proved exactly when its block is. Shape
and dtype stand in the list alone: without it, values come flat, of the widest type that their field
can mean, and unverified.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.naming import decode_name, decode_slice_key, encode_name, encode_slice_key
from ckptparse.dtypes import DataType, numpy_dtype
from ckptparse.elements import allocate
from ckptparse.errors import CheckpointError, LimitError, MalformedError
from ckptparse.examination.case import Assessed, Part
from ckptparse.examination.check import Check
from ckptparse.examination.index_view import NamedTensor, Stored, name_foreign
from ckptparse.examination.report import FileReport, Report, Source, TensorReport
from ckptparse.examination.salvaged_table import ScannedEntry, ScannedTable, scan_table, scan_undone
from ckptparse.examination.summary import sort_problems, state_problems
from ckptparse.files.local import LocalSource
from ckptparse.inventory.survey import Survey
from ckptparse.legacy.metadata import SliceList, decode_metadata
from ckptparse.limits import Limits
from ckptparse.problems import Cause, Problem, Status
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.saved_tensor_slice_pb2 import SavedTensorSlices
from ckptparse.proto.wire import BYTES, find_submessage, iter_fields
from ckptparse.recovery.result import Loaded, RecoveredTensor, Recovery, describe
from ckptparse.slices import SliceGrid, TensorSlice
from ckptparse.table.block import Block
from ckptparse.table.format import decompress_block
from ckptparse.tensor import Region
from ckptparse.tensor_proto import decode_saved_values

__all__ = ["recover_legacy", "verify_legacy"]

_META_KEY = b""
_DATA, _VALUES = 2, 3
_KEPT = 4096
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
"""The fields of a TensorProto that hold values, and the widest type of each."""


@dataclass(frozen=True, slots=True)
class _Record:
    """One record of one file."""

    path: str
    entry: ScannedEntry

    def read(self, limits: Limits) -> bytes:
        """Read its bytes.

        Raises:
            CheckpointError: The file has changed since it was scanned.
        """
        place = self.entry.place
        if place is None or self.entry.value:
            return self.entry.value
        offset, size = place
        with LocalSource.open(self.path) as source:
            stored = source.read_at(offset, size + 1)
        contents = decompress_block(
            stored[:size], stored[size], limits=limits, path=self.path, offset=offset
        )
        value = Block.from_bytes(contents).find(self.entry.key, limits=limits)
        if value is None:
            raise MalformedError("The file has changed since it was looked at", path=self.path)
        return value


@dataclass(frozen=True, slots=True)
class _Piece:
    """A slice that a list names, its record, and what became of it."""

    region: Region | None
    shape: tuple[int, ...]
    record: _Record | None
    check: Check


@dataclass(slots=True)
class _Tensor:
    """A tensor: as the lists say, or, where those are lost, as its record shows."""

    name: str
    data_type: int
    shape: tuple[int, ...]
    slices: list[TensorSlice] = field(default_factory=list)
    pieces: list[_Piece] = field(default_factory=list)
    listed: bool = True
    proved: bool = True
    chance: float = 0.0
    layout: str | None = None


class _LegacyCase:
    """A V1 checkpoint under examination."""

    def __init__(self, survey: Survey, limits: Limits, *, correct: bool) -> None:
        self.survey = survey
        self.limits = limits
        self.correct = correct
        self.problems: list[Problem] = []
        self.files: dict[str, FileReport] = {}
        self.records: dict[bytes, _Record] = {}
        self.tensors: dict[str, _Tensor] = {}
        self.complete = True

    def examine(self) -> None:
        for path, present in ((one.path, one.present) for one in self.survey.legacy_files):
            if present:
                self._scan(path)
            else:
                self.complete = False
                self.files[path] = FileReport(path, "v1", None)
                self._report("v1.missing", path, "it is not there")
        for tensor in self.tensors.values():
            self._lay_out(tensor)
        self._check_records()
        self._take_unlisted()
        if self.survey.leftovers:
            names = ", ".join(os.path.basename(path) for path in self.survey.leftovers)
            self._report("leftover.temporary", self.survey.prefix, f"temporary files: {names}")
            if all(one.origin.is_leftover for one in self.survey.legacy_files):
                self._report(
                    "set.unfinished", self.survey.prefix, "the save ended before it was done"
                )

    def _report(self, code: str, where: str, message: str) -> None:
        self.problems.append(Problem.of(code, where, message))

    # -- files

    def _scan(self, path: str) -> None:
        try:
            with LocalSource.open(path) as source:
                table = scan_table(
                    source,
                    area="v1",
                    accept=_looks_right,
                    limits=self.limits,
                    correct=self.correct,
                    keep=_KEPT,
                )
        except LimitError as error:
            self._report("limit.reached", path, error.message)
            return
        except CheckpointError as error:
            self._report("file.unreadable", path, error.message)
            return
        if not table.proves:
            table = self._scan_undone(path) or table
        self.problems += name_foreign(table, "v1")
        self.complete &= table.complete
        role = "leftover" if path in self.survey.leftovers else "v1"
        self.files[path] = FileReport(path, role, table.size, tuple(table.ranges))
        self._take_list(path, table.entries)
        for entry in table.entries:
            known = self.records.get(entry.key)
            if entry.key != _META_KEY and (known is None or not known.entry.proved):
                self.records[entry.key] = _Record(path, entry)

    def _scan_undone(self, path: str) -> ScannedTable | None:
        table = scan_undone(
            path, area="v1", accept=_looks_right, limits=self.limits, correct=self.correct
        )
        if table is None:
            return None
        # What is read is no longer in the file: the values stay here.
        return replace(table, entries=[replace(entry, place=None) for entry in table.entries])

    def _take_list(self, path: str, entries: list[ScannedEntry]) -> None:
        first = entries[0] if entries else None
        if first is None or first.key != _META_KEY:
            self._report("v1.meta", path, "the list of its tensors is lost")
            return
        try:
            value = _Record(path, first).read(self.limits)
            lists = decode_metadata(value, limits=self.limits)
        except CheckpointError as error:
            self._report("v1.meta", path, error.message)
            return
        for found in lists:
            self._add_list(path, found, first)

    def _add_list(self, path: str, found: SliceList, entry: ScannedEntry) -> None:
        known = self.tensors.get(found.name)
        if known is None:
            known = self.tensors[found.name] = _Tensor(found.name, found.data_type, found.shape)
        if (known.data_type, known.shape) != (found.data_type, found.shape):
            self._report("v1.meta", path, f"its list disagrees about {found.name!r}")
            known.proved = False
            return
        known.slices += found.slices
        known.proved &= entry.proved
        known.chance = max(known.chance, entry.chance)

    # -- tensors

    def _lay_out(self, tensor: _Tensor) -> None:
        """Find the record of every slice that is listed."""
        try:
            gap = SliceGrid(tensor.slices, tensor.shape).find_missing(
                tuple(map(range, tensor.shape))
            )
        except CheckpointError as error:
            tensor.layout = error.message
            return
        for piece in tensor.slices:
            region = piece.resolve(tensor.shape)
            shape = tuple(map(len, region))
            key = encode_slice_key(encode_name(tensor.name), piece)
            whole = len(tensor.slices) == 1 and shape == tensor.shape
            record = self.records.get(key)
            check = Check(Status.MISSING, Cause.UNKNOWN, note="its record is lost")
            tensor.pieces.append(_Piece(None if whole else region, shape, record, check))
        if gap is not None:
            check = Check(Status.MISSING, Cause.SLICE, note=f"no slice is listed for {gap}")
            tensor.pieces.append(_Piece(None, (), None, check))

    def _check_records(self) -> None:
        """Decode every record, block by block, and judge it by its block's proof."""
        pieces = [
            (tensor, number)
            for tensor in self.tensors.values()
            for number, piece in enumerate(tensor.pieces)
            if piece.record is not None
        ]
        pieces.sort(key=lambda pair: _place_of(pair[0].pieces[pair[1]]))
        for tensor, number in pieces:
            piece = tensor.pieces[number]
            if piece.record is not None:
                check = self._check(tensor, piece, piece.record)
                tensor.pieces[number] = replace(piece, check=check)

    def _check(self, tensor: _Tensor, piece: _Piece, record: _Record) -> Check:
        count = math.prod(piece.shape)
        try:
            _decode(record.read(self.limits), tensor.data_type, count, self.limits)
        except CheckpointError as error:
            self._report("v1.record", tensor.name, error.message)
            return Check(Status.CORRUPT, Cause.ENTRY, note=error.message)
        whole = ((0, count),)
        if record.entry.proved and tensor.proved:
            return Check(Status.VERIFIED, None, whole)
        note = "the block that holds it is damaged"
        return Check(Status.UNVERIFIED, Cause.ENTRY, whole, note=note)

    def _take_unlisted(self) -> None:
        """Take records that no list names, flat, of the type that their field can mean."""
        listed = {
            encode_slice_key(encode_name(tensor.name), piece)
            for tensor in self.tensors.values()
            for piece in tensor.slices
        }
        for key, record in self.records.items():
            decoded = decode_slice_key(key) if key not in listed else None
            if decoded is None:
                continue
            name, piece = decode_name(decoded[0]), decoded[1]
            if self.complete:
                self._report("v1.record", name, f"slice [{piece}] is stored, and no list names it")
                continue
            self._add_unlisted(name, piece, record)

    def _add_unlisted(self, name: str, piece: TensorSlice, record: _Record) -> None:
        try:
            found = _guess(record.read(self.limits), self.limits)
        except CheckpointError:
            return
        if found is None:
            return
        data_type, count = found
        whole = not any(extent.length is not None for extent in piece.extents)
        if not whole or name in self.tensors:
            name = f"{name} [{piece}]"
        lengths = [extent.length for extent in piece.extents if extent.length is not None]
        shape: tuple[int, ...] = (count,) if piece.extents or count != 1 else ()
        if piece.extents and len(lengths) == len(piece.extents) and math.prod(lengths) == count:
            shape = tuple(lengths)
        note = "the list of tensors is lost: its type is the widest that its values can have"
        note += "" if not piece.extents or lengths else ", and its shape is not known"
        check = Check(Status.UNVERIFIED, Cause.ENTRY, ((0, count),), note=note)
        tensor = _Tensor(name, data_type, shape, listed=False)
        tensor.pieces.append(_Piece(None, shape, record, check))
        self.tensors[name] = tensor

    # -- results

    def report(self) -> Report:
        tensors = {
            name: self._describe(self.tensors[name])
            for name in sorted(self.tensors, key=encode_name)
        }
        problems = [*self.problems, *state_problems(self.survey.directory)]
        for tensor in tensors.values():
            if tensor.status is Status.MISSING:
                problems.append(Problem.of("tensor.missing", tensor.name, tensor.note))
            elif tensor.status is not Status.VERIFIED and tensor.method is None:
                problems.append(Problem.of("tensor.entry", tensor.name, tensor.note))
        return Report(self.survey.prefix, "v1", tensors, self.files, sort_problems(problems))

    def _describe(self, tensor: _Tensor) -> TensorReport:
        report = _sum_up(tensor)
        first = tensor.pieces[0] if tensor.pieces else None
        if len(tensor.pieces) == 1 and first and first.record and first.record.entry.place:
            offset, size = first.record.entry.place
            report = replace(report, source=Source(first.record.path, offset, size))
        chance = max(
            [tensor.chance, *(piece.record.entry.chance for piece in tensor.pieces if piece.record)]
        )
        if chance and report.status is Status.VERIFIED:
            return replace(
                report,
                status=Status.CORRECTED,
                cause=Cause.BITS,
                method="correcting one bit of the block",
                chance=chance,
                note="the block that holds it had one flipped bit",
            )
        return replace(report, chance=chance) if chance else report


def verify_legacy(survey: Survey, *, limits: Limits) -> Report:
    """Check a V1 checkpoint."""
    case = _LegacyCase(survey, limits, correct=False)
    case.examine()
    return case.report()


def recover_legacy(survey: Survey, *, limits: Limits) -> Recovery:
    """Get back what a V1 checkpoint still gives."""
    case = _LegacyCase(survey, limits, correct=True)
    case.examine()
    report = case.report()
    tensors: dict[str, RecoveredTensor] = {}
    for name, tensor in case.tensors.items():
        try:
            dtype = numpy_dtype(tensor.data_type)
        except CheckpointError:
            continue
        load = _Loader(tensor, limits)
        tensors[name] = describe(report.tensors[name], tensor.data_type, dtype, load)
    return Recovery(report, tensors)


def _place_of(piece: _Piece) -> tuple[str, int]:
    record = piece.record
    return (record.path, (record.entry.place or (0, 0))[0]) if record else ("", 0)


def _sum_up(tensor: _Tensor) -> TensorReport:
    """Judge a tensor by its slices, as those of a bundle are judged."""
    slices = tuple(tensor.slices) if tensor.listed else ()
    sliced = any(piece.region is not None for piece in tensor.pieces)
    entry = BundleEntry(tensor.data_type, tensor.shape, 0, 0, 0, 0, slices if sliced else ())
    stored = Stored(entry, "", False, tensor.proved, 0.0, "", False)
    named = NamedTensor(tensor.name, stored)
    parts = [Part(None, piece.check, piece.region) for piece in tensor.pieces]
    return Assessed(named, parts, tensor.layout).report()


def _decode(record: bytes, data_type: int, count: int, limits: Limits) -> npt.NDArray[Any]:
    values = find_submessage(record, _DATA, _VALUES) or b""
    return decode_saved_values(values, data_type, count, limits=limits)


def _guess(record: bytes, limits: Limits) -> tuple[int, int] | None:
    """Return the type that the field of the values can mean, and how many there are."""
    values = find_submessage(record, _DATA, _VALUES)
    fields = {number for number, _, _, _ in iter_fields(values)} if values else set()
    for number in sorted(fields & set(_FIELDS)):
        data_type = _FIELDS[number]
        for count in _possible_counts(values or b"", number):
            try:
                decode_saved_values(values or b"", data_type, count, limits=limits)
            except CheckpointError:
                continue
            return data_type, count
    return None


def _possible_counts(values: Any, number: int) -> Iterator[int]:
    """Count the values in a typed field of a TensorProto."""
    pieces = [
        (wire, bytes(values[first:last]))
        for found, wire, first, last in iter_fields(values)
        if found == number
    ]
    if number == 8:
        yield len(pieces)
        return
    packed = b"".join(data for wire, data in pieces if wire == BYTES)
    width = {5: 4, 6: 8, 9: 8, 12: 16}.get(number)
    if width is not None:
        yield len(packed) // width
    else:
        yield int((np.frombuffer(packed, np.uint8) < 0x80).sum())
    yield len(pieces)


def _looks_right(key: bytes, value: bytes) -> bool:
    """Tell whether a record that no checksum covers says the same as its key."""
    everything = Limits()
    try:
        if key == _META_KEY:
            return bool(decode_metadata(value, limits=everything))
        decoded = decode_slice_key(key)
        if decoded is None:
            return False
        proto = parse_message(SavedTensorSlices, value)
        piece = TensorSlice.from_proto(proto.data.slice)
    except CheckpointError:
        return False
    return (encode_name(proto.data.name), piece) == decoded and not proto.HasField("meta")


class _Loader:
    """Reads the values of a V1 tensor."""

    __slots__ = ("_limits", "_tensor")

    def __init__(self, tensor: _Tensor, limits: Limits) -> None:
        self._tensor = tensor
        self._limits = limits

    def __call__(self) -> Loaded:
        tensor = self._tensor
        if len(tensor.pieces) == 1 and tensor.pieces[0].region is None:
            return self._read(tensor.pieces[0]), None
        dtype = numpy_dtype(tensor.data_type)
        array = allocate(tensor.shape, dtype)
        array.fill(b"" if dtype.kind == "O" else 0)
        missing = np.ones(tensor.shape, np.bool_)
        for piece in tensor.pieces:
            if piece.region is not None and piece.check.ranges:
                index = tuple(slice(part.start, part.stop) for part in piece.region)
                array[index] = self._read(piece)
                missing[index] = False
        return array, missing if missing.any() else None

    def _read(self, piece: _Piece) -> npt.NDArray[Any]:
        if piece.record is None:
            raise MalformedError("Nothing was got back of it")
        data = piece.record.read(self._limits)
        count = math.prod(piece.shape)
        values = _decode(data, self._tensor.data_type, count, self._limits)
        shaped: npt.NDArray[Any] = values.reshape(piece.shape)
        return shaped
