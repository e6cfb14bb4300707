"""Check one stored payload against its file: its status, and which of its elements are present."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.bundle.strings import check_strings, most_lengths_bytes, split_variants
from ckptparse.coding.checksum import crc32c, unmask_crc
from ckptparse.coding.varint import decode_varint, decode_varints
from ckptparse.dtypes import item_size
from ckptparse.errors import CheckpointError, ChecksumError, MalformedError, PermissionDeniedError
from ckptparse.examination.index_view import NO_CHECKSUM
from ckptparse.examination.outcome import (
    CHECKSUM_CHANCE,
    EvidenceRecord,
    Outcome,
    Span,
    merge_spans,
)
from ckptparse.examination.payload import Form, Payload, Record
from ckptparse.examination.readers import DataFiles, checksum_of, find_holes
from ckptparse.examination.salvaged import read_salvaged
from ckptparse.inventory.survey import Origin
from ckptparse.problems import Cause, EvidenceRule, Status

__all__ = [
    "FEW_PAGES",
    "LEAST_ZEROS",
    "NO_SHARD",
    "Check",
    "check_payload",
    "cut_off",
    "cut_off_note",
    "fits",
    "is_there",
    "mismatch",
    "mismatch_note",
    "object_spans",
    "read_record",
    "string_spans",
]

_CRC_SIZE = 4
_LENGTH_BYTES = 16
"""What the length of a string takes while it is checked: its number, and one more on the way."""
_VARIANT_BYTES = 48
"""What a variant takes while it is checked: Python's object around its bytes."""
LEAST_ZEROS = 16
"""Fewest bytes of zeros that say something: a small counter of 8 bytes is mostly zeros too."""
FEW_PAGES = 2 * 4096
"""A longer payload holds at least one whole page of the file, and pages are looked at one by one. A
shorter one may hold none, so it is looked at as a whole."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found.

    Attributes:
        outcome: Of the payload; it also says whether the entry is proved.
        computed: The CRC of its bytes, if all are there and the stored checksum is another.
        holes: Runs of zero pages, in bytes of the payload.
        code: The problem code, if this failure has a code of its own.
    """

    outcome: Outcome
    computed: int | None = None
    holes: tuple[Span, ...] = ()
    code: str | None = None

    @property
    def status(self) -> Status:
        """Status of the outcome."""
        return self.outcome.status

    @property
    def cause(self) -> Cause | None:
        """Cause of the outcome."""
        return self.outcome.cause

    def because(self, cause: Cause | None, note: str | None = None) -> Check:
        """Return the same check with another cause, and perhaps another sentence."""
        if note is None:
            note = self.outcome.note
        return replace(self, outcome=replace(self.outcome, cause=cause, note=note))


def is_there(files: DataFiles, payload: Payload) -> bool:
    """Tell whether the file has all bytes of a payload."""
    size = files.size(payload.file)
    return size is not None and payload.offset >= 0 and payload.end <= size


def fits(files: DataFiles, payload: Payload) -> bool:
    """Tell whether the bytes at a payload's place have its checksum. Its entry is not judged."""
    if payload.crc32c is None or not is_there(files, payload):
        return False
    if payload.form in (Form.STRINGS, Form.VARIANTS):
        try:
            _check_counted(files, payload)
        except (ChecksumError, MalformedError):
            return False
        return True
    return checksum_of(files, payload.file, payload.offset, payload.size) == payload.crc32c


def check_payload(files: DataFiles, payload: Payload) -> Check:
    """Check a payload against its file."""
    if payload.record is not None and (payload.record.sound or payload.record.value is not None):
        return _check_record(files, payload, payload.record)
    size = files.size(payload.file)
    if size is None:
        failure = files.failure(payload.file)
        if isinstance(failure, PermissionDeniedError):
            # A file that may not be read is neither missing nor damaged.
            raise failure
        return NO_SHARD
    # An empty tensor has no bytes, so it is whole even if the file ends before its offset.
    if payload.size and payload.end > size:
        return _check_truncated(files, payload, max(0, size - payload.offset))
    if payload.form in (Form.STRINGS, Form.VARIANTS):
        try:
            _check_counted(files, payload)
        except ChecksumError as error:
            return _bad(files, payload, error.computed or 0)
        except MalformedError as error:
            return _undecodable(files, payload, error)
        return _good(payload)
    computed = checksum_of(files, payload.file, payload.offset, payload.size)
    stated = NO_CHECKSUM if payload.crc32c is None else payload.crc32c
    return _good(payload) if computed == stated else _bad(files, payload, computed)


NO_SHARD = Check(Outcome(Status.MISSING, Cause.SHARD, note="its data file is missing"))
"""Of every payload of a data file that is not there."""


def _good(payload: Payload) -> Check:
    whole = ((0, count_elements(payload.shape)),)
    if payload.proved:
        return Check(Outcome(Status.VERIFIED, ranges=whole))
    agrees = EvidenceRecord.at(EvidenceRule.CHECKSUM, payload.place, CHECKSUM_CHANCE)
    return Check(
        Outcome(Status.UNVERIFIED, Cause.ENTRY, ranges=whole, note=payload.doubt, grounds=(agrees,))
    )


def _bad(files: DataFiles, payload: Payload, computed: int) -> Check:
    if payload.crc32c is None:
        count = count_elements(payload.shape)
        there: tuple[Span, ...] = ((0, count),)
        if payload.form in (Form.STRINGS, Form.VARIANTS):
            there = _present_before(files, payload, payload.size)
        rebuilt = payload.origin is Origin.REBUILT
        note = payload.doubt if rebuilt else "the index stores no checksum for it"
        grounds = _here(EvidenceRule.PLACE, payload)
        if count and not there:
            note = f"{note}; its bytes hold no whole element"
        status = Status.CORRUPT if count and not there else Status.UNVERIFIED
        outcome = Outcome(status, Cause.NO_CHECKSUM, ranges=there, note=note, grounds=grounds)
        return Check(outcome, computed)
    holes = find_holes(files, payload.file, payload.offset, payload.size)
    if not holes and _is_all_zeros(files, payload):
        holes = ((0, payload.size),)
    return mismatch(payload, computed, holes)


def mismatch(payload: Payload, computed: int, holes: tuple[Span, ...]) -> Check:
    """Judge a payload whose bytes are all there and have another checksum than the stored one."""
    cause = Cause.ZEROS if holes else Cause.UNKNOWN if payload.proved else Cause.ENTRY
    lost = sum(stop - start for start, stop in holes)
    note = mismatch_note(payload.crc32c, computed, lost, payload.size)
    grounds = _here(EvidenceRule.MISMATCH, payload)
    return Check(Outcome(Status.CORRUPT, cause, note=note, grounds=grounds), computed, holes)


def mismatch_note(stored: int | None, computed: int, zeros: int, size: int) -> str:
    """Say that a checksum disagrees, and how many of how many bytes lie in runs of zeros."""
    note = f"stored checksum {stored}, computed {computed}"
    return f"{zeros} of its {size} bytes lie in runs of zeros; {note}" if zeros else note


def _here(rule: EvidenceRule, payload: Payload) -> tuple[EvidenceRecord, ...]:
    file = payload.file
    return (EvidenceRecord(rule, file.path, payload.offset, payload.size, None, file.inside),)


def _is_all_zeros(files: DataFiles, payload: Payload) -> bool:
    """Tell whether a short payload holds nothing but zeros. Pages show it of a longer one.

    In a few bytes zeros say nothing: small numbers are mostly zeros.
    """
    if not LEAST_ZEROS <= payload.size <= FEW_PAGES:
        return False
    return not any(files.read(payload.file, payload.offset, payload.size))


def _undecodable(files: DataFiles, payload: Payload, error: MalformedError) -> Check:
    """Judge strings whose lengths do not fit their bytes: their checksum cannot be computed."""
    computed = checksum_of(files, payload.file, payload.offset, payload.size)
    found = _bad(files, payload, computed)
    outcome = replace(found.outcome, ranges=(), note=error.message)
    return Check(outcome, None, found.holes)


def _check_record(files: DataFiles, payload: Payload, record: Record) -> Check:
    """Check a record of a V1 file. Its block has been checked already; its values must decode."""
    try:
        read_record(files, payload, record)
    except CheckpointError as error:
        outcome = Outcome(Status.CORRUPT, Cause.ENTRY, note=error.message)
        return Check(outcome, code="v1.record")
    if record.sound:
        return _good(payload)
    found = _good(replace(payload, proved=False))
    if payload.crc32c is None or not is_there(files, payload):
        return found
    computed = checksum_of(files, payload.file, payload.offset, payload.size)
    return replace(found, computed=computed)


def read_record(files: DataFiles, payload: Payload, record: Record) -> npt.NDArray[Any]:
    """Decode a record of a V1 file, of a block that is damaged perhaps; raises as `decode_record`.

    Returns:
        Its values, in one dimension.
    """
    from ckptparse.legacy.record import decode_record

    value = record.value
    if value is None:
        size = payload.size - 1
        value = read_salvaged(files, payload.file, payload.offset, size, record.key)
    count = count_elements(payload.shape)
    return decode_record(value, payload.data_type, count, limits=files.context.limits)


def _check_counted(files: DataFiles, payload: Payload) -> None:
    """Check strings or variants. Their checksum is computed over more than their bytes.

    Raises:
        ChecksumError: A checksum disagrees.
        MalformedError: The lengths do not fit the bytes.
    """
    count = count_elements(payload.shape)
    check = _check_strings if payload.form is Form.STRINGS else _check_variants
    check(files, payload, count, NO_CHECKSUM if payload.crc32c is None else payload.crc32c)


def _check_strings(files: DataFiles, payload: Payload, count: int, crc: int) -> None:
    """Check the lengths, then the strings in pieces; raises as `decode_strings` does."""
    size = min(payload.size, most_lengths_bytes(count))
    files.budget.check(size + _LENGTH_BYTES * count)
    head = bytes(files.read(payload.file, payload.offset, size))

    def stream(start: int, crc: int) -> int:
        offset, rest = payload.offset + start, payload.size - start
        return checksum_of(files, payload.file, offset, rest, crc=crc)

    check_strings(head, count, payload.size, big_endian=payload.big_endian, crc=crc, stream=stream)


def _check_variants(files: DataFiles, payload: Payload, count: int, crc: int) -> None:
    """Check each element; raises as `split_variants` does."""
    files.budget.check(2 * payload.size + _VARIANT_BYTES * count)
    data = bytes(files.read(payload.file, payload.offset, payload.size))
    split_variants(data, count, big_endian=payload.big_endian, crc=crc)


def _check_truncated(files: DataFiles, payload: Payload, available: int) -> Check:
    return cut_off(payload, available, _present_before(files, payload, available))


def cut_off(payload: Payload, available: int, present: Sequence[Span]) -> Check:
    """Judge a payload of which a file has the first bytes only, and so some elements."""
    note = cut_off_note(payload.size, available)
    ranges = merge_spans(present)
    if not ranges:
        return Check(Outcome(Status.MISSING, Cause.TRUNCATED, note=note))
    grounds = _here(EvidenceRule.CUT_OFF, payload)
    return Check(
        Outcome(Status.PARTIAL, Cause.TRUNCATED, ranges=ranges, note=note, grounds=grounds)
    )


def cut_off_note(size: int, available: int) -> str:
    """Say that a data file ends within a payload."""
    return f"the tensor has {size} bytes, and the data file ends after {available} of them"


def _present_before(files: DataFiles, payload: Payload, available: int) -> tuple[Span, ...]:
    """Return the elements that lie whole within the first bytes of a payload."""
    width = item_size(payload.data_type)
    if payload.form is Form.PLAIN and width is not None:
        return merge_spans([(0, available // width)])
    if payload.form not in (Form.STRINGS, Form.VARIANTS) or not available:
        return ()
    data = bytes(files.read(payload.file, payload.offset, available))
    spans = object_spans(payload, data)
    return merge_spans([(0, sum(stop <= available for _, stop in spans or ()))])


def object_spans(payload: Payload, data: bytes) -> list[Span] | None:
    """Return where each string lies, or each of the first variants, as the lengths say.

    None if the lengths of strings do not have their checksum. Variants have one each, and those
    from the first damaged one on are left out.
    """
    count, order = count_elements(payload.shape), payload.big_endian
    find = _variant_spans if payload.form is Form.VARIANTS else string_spans
    return find(data, count, big_endian=order)


def _variant_spans(data: bytes, count: int, *, big_endian: bool) -> list[Span]:
    """Return where the first variants lie, up to one that lacks its checksum."""
    order = ">" if big_endian else "<"
    found: list[Span] = []
    running = position = 0
    while len(found) < count:
        try:
            length, start = decode_varint(data, position, len(data))
        except ValueError:
            break
        end = start + length
        stored = data[end : end + _CRC_SIZE]
        # Each length counts as 8 bytes, and the stored checksum itself (docs/format.md, 2.4).
        running = crc32c(data[start:end], crc32c(struct.pack(f"{order}Q", length), running))
        if len(stored) < _CRC_SIZE or unmask_crc(*struct.unpack(f"{order}I", stored)) != running:
            break
        running = crc32c(stored, running)
        position = end + _CRC_SIZE
        found.append((start, end))
    return found


def string_spans(data: bytes, count: int, *, big_endian: bool) -> list[Span] | None:
    """Return where each string lies, from the lengths; None if their checksum disagrees.

    The data may end early. Then spans may lie beyond its end.
    """
    if not count:
        return []
    try:
        lengths, position = decode_varints(np.frombuffer(data, np.uint8), count)
    except ValueError:
        return None
    order = ">" if big_endian else "<"
    # A length above 32 bits counts as 8 bytes in the checksum (section 2.4); nothing writes one.
    if position + _CRC_SIZE > len(data) or int(lengths.max()) > 0xFFFFFFFF:
        return None
    (masked,) = struct.unpack_from(f"{order}I", data, position)
    if unmask_crc(masked) != crc32c(lengths.astype(f"{order}u4").tobytes()):
        return None
    ends = np.cumsum(lengths, dtype=np.uint64).astype(np.int64) + position + _CRC_SIZE
    starts = ends - lengths.astype(np.int64)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
