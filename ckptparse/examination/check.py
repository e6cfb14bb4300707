"""Check one stored payload against its file: its status, and which of its elements are there."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ckptparse.bundle.entry import count_elements
from ckptparse.bundle.strings import check_strings, most_lengths_bytes, split_variants
from ckptparse.coding.checksum import crc32c, unmask_crc
from ckptparse.coding.varint import decode_varints
from ckptparse.dtypes import DataType, item_size
from ckptparse.errors import ChecksumError, MalformedError
from ckptparse.examination.index_view import Stored
from ckptparse.examination.readers import DataFiles, checksum_of, find_holes
from ckptparse.examination.report import Span, merge_spans
from ckptparse.problems import Cause, Status

__all__ = [
    "Check",
    "check_stored",
    "elements_outside",
    "has_checksum",
    "is_counted",
    "string_spans",
]

_NO_CHECKSUM = unmask_crc(0)
"""What an entry without a checksum states: TensorFlow compares with it all the same."""
_CRC_SIZE = 4
_LEAST_ZEROS = 16


@dataclass(frozen=True, slots=True)
class Check:
    """What became of a check.

    Attributes:
        status: Of the payload, proof of its entry included.
        cause: What likely happened to it.
        ranges: The elements that are there.
        computed: The CRC of its bytes, where they are all there and not as stored.
        holes: Runs of zero pages, as bytes of the payload.
        note: A sentence, where there is something to say.
    """

    status: Status
    cause: Cause | None = None
    ranges: tuple[Span, ...] = ()
    computed: int | None = None
    holes: tuple[Span, ...] = ()
    note: str = ""


def is_counted(data_type: int) -> bool:
    """Tell whether elements of this kind have no fixed size: strings and variants."""
    return data_type in (DataType.DT_STRING, DataType.DT_VARIANT)


def has_checksum(stored: Stored) -> bool:
    """Tell whether the index states a checksum for a payload: without one, none proves anything."""
    return stored.entry.crc32c != _NO_CHECKSUM


def check_stored(files: DataFiles, stored: Stored) -> Check:
    """Check a payload that is not sliced."""
    entry = stored.entry
    size = files.size(stored.path)
    count = count_elements(entry.shape)
    if size is None:
        return Check(Status.MISSING, Cause.SHARD, note="its data file is missing")
    # What is empty lies nowhere, so no cut takes it away.
    if entry.size and entry.offset + entry.size > size:
        return _check_truncated(files, stored, max(0, size - entry.offset))
    if is_counted(entry.data_type):
        return _check_counted(files, stored, count)
    computed = checksum_of(files, stored.path, entry.offset, entry.size)
    if computed == entry.crc32c:
        return _good(stored, count)
    return _bad(files, stored, computed, count)


def _good(stored: Stored, count: int) -> Check:
    if stored.proved:
        return Check(Status.VERIFIED, None, ((0, count),))
    return Check(
        Status.UNVERIFIED,
        Cause.ENTRY,
        ((0, count),),
        note="its bytes have their checksum, but its name, type and shape come from a damaged "
        "part of the index",
    )


def _bad(files: DataFiles, stored: Stored, computed: int, count: int) -> Check:
    entry = stored.entry
    if not has_checksum(stored):
        return Check(
            Status.UNVERIFIED,
            Cause.NO_CHECKSUM,
            ((0, count),),
            computed,
            note="the index stores no checksum for it",
        )
    holes = find_holes(files, stored.path, entry.offset, entry.size)
    if not holes and not any(_nonzero(files, stored)):
        holes = ((0, entry.size),)
    cause = Cause.ZEROS if holes else Cause.UNKNOWN if stored.proved else Cause.ENTRY
    note = f"stored checksum {entry.crc32c}, computed {computed}"
    if holes:
        lost = sum(stop - start for start, stop in holes)
        note = f"{lost} of its {entry.size} bytes lie in runs of zeros; {note}"
    return Check(Status.CORRUPT, cause, (), computed, holes, note)


def _nonzero(files: DataFiles, stored: Stored) -> Sequence[bool]:
    """Tell of a short payload whether it holds anything but zeros; longer ones have pages.

    Of a few bytes it means nothing: small numbers are mostly zeros.
    """
    entry = stored.entry
    if not _LEAST_ZEROS <= entry.size <= 2 * 4096:
        return (True,)
    return (any(files.read(stored.path, entry.offset, entry.size)),)


def _check_counted(files: DataFiles, stored: Stored, count: int) -> Check:
    """Check strings or variants, whose checksum covers more than their bytes."""
    entry = stored.entry
    check = _check_strings if entry.data_type == DataType.DT_STRING else _check_variants
    try:
        check(files, stored, count)
    except ChecksumError as error:
        return _bad(files, stored, error.computed or 0, count)
    except MalformedError as error:
        computed = checksum_of(files, stored.path, entry.offset, entry.size)
        found = _bad(files, stored, computed, count)
        return Check(found.status, found.cause, (), None, found.holes, error.message)
    return _good(stored, count)


def _check_strings(files: DataFiles, stored: Stored, count: int) -> None:
    """Check the lengths, then the strings in pieces; raises as `decode_strings` does."""
    entry = stored.entry
    size = min(entry.size, most_lengths_bytes(count))
    head = bytes(files.read(stored.path, entry.offset, size))

    def stream(start: int, crc: int) -> int:
        offset, rest = entry.offset + start, entry.size - start
        return checksum_of(files, stored.path, offset, rest, crc=crc)

    order, crc = stored.big_endian, entry.crc32c
    check_strings(head, count, entry.size, big_endian=order, crc=crc, stream=stream)


def _check_variants(files: DataFiles, stored: Stored, count: int) -> None:
    """Check each element; raises as `split_variants` does."""
    entry = stored.entry
    data = bytes(files.read(stored.path, entry.offset, entry.size))
    split_variants(data, count, big_endian=stored.big_endian, crc=entry.crc32c)


def _check_truncated(files: DataFiles, stored: Stored, available: int) -> Check:
    entry = stored.entry
    width = item_size(entry.data_type)
    note = f"the data file ends {entry.size - available} bytes before the tensor does"
    if width is not None:
        present: tuple[Span, ...] = merge_spans([(0, available // width)])
    elif available and entry.data_type == DataType.DT_STRING:
        data = bytes(files.read(stored.path, entry.offset, available))
        spans = string_spans(data, count_elements(entry.shape), big_endian=stored.big_endian)
        whole = sum(stop <= available for _, stop in spans or ())
        present = merge_spans([(0, whole)])
    else:
        present = ()
    if present:
        return Check(Status.PARTIAL, Cause.TRUNCATED, present, note=note)
    return Check(Status.MISSING, Cause.TRUNCATED, note=note)


def string_spans(data: bytes, count: int, *, big_endian: bool) -> list[Span] | None:
    """Return where each string lies by the lengths, or None where their checksum fails.

    The data may end early: spans may lie beyond it.
    """
    if not count:
        return []
    try:
        lengths, position = decode_varints(np.frombuffer(data, np.uint8), count)
    except ValueError:
        return None
    order = ">" if big_endian else "<"
    if position + _CRC_SIZE > len(data) or int(lengths.max()) > 0xFFFFFFFF:
        return None
    (masked,) = struct.unpack_from(f"{order}I", data, position)
    if unmask_crc(masked) != crc32c(lengths.astype(f"{order}u4").tobytes()):
        return None
    ends = np.cumsum(lengths, dtype=np.uint64).astype(np.int64) + position + _CRC_SIZE
    starts = ends - lengths.astype(np.int64)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def elements_outside(holes: Sequence[Span], size: int, width: int) -> tuple[Span, ...]:
    """Return the elements of `width` bytes that no hole of a payload touches."""
    present: list[Span] = []
    position = 0
    for start, stop in merge_spans(holes):
        present.append((position, start // width))
        position = -(-stop // width)
    present.append((position, size // width))
    return merge_spans(present)
