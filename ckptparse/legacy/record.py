"""The record of a slice in a V1 file: a message around its values (docs/format.md, section 3.3).

SavedTensorSlices   0a meta, unused here
                    12 SavedSlice   0a name   12 slice: only the key counts
                                    1a TensorProto, whose typed field holds the values
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, numpy_dtype
from ckptparse.errors import CheckpointError, LimitError, MalformedError
from ckptparse.limits import DEFAULT_LIMITS, Budget, Limits
from ckptparse.proto.saved_tensor_slice_pb2 import SavedTensorSlices
from ckptparse.proto.tensor_slice_pb2 import TensorSliceProto
from ckptparse.proto.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    MAX_NESTING,
    VARINT,
    Buffer,
    check_nesting,
    find_submessage,
    has_few_fields,
    read_varint,
)
from ckptparse.tensor_proto import decode_saved_values
from ckptparse.typed_fields import STRING_VAL, TYPED_FIELDS, end_of_strings, strip_tags

__all__ = ["check_record", "decode_record", "find_values"]

_DATA_TAG, _NAME_TAG, _SLICE_TAG, _VALUES_TAG = b"\x12\x0a\x12\x1a"
"""The tags of field 2 of SavedTensorSlices, and of fields 1, 2 and 3 of SavedSlice."""
_PACKED_TAGS = frozenset(number << 3 | BYTES for number in (5, 6, 7, 8, 9, 10, 11, 12, 13))
"""The tags of the fields of a TensorProto that hold values; none of them is a message."""
_FIXED = {
    int(kind): (TYPED_FIELDS[kind][0] << 3 | BYTES, numpy_dtype(kind).newbyteorder("<"))
    for kind in (
        DataType.DT_FLOAT,
        DataType.DT_DOUBLE,
        DataType.DT_COMPLEX64,
        DataType.DT_COMPLEX128,
    )
}
"""The kinds whose packed values are their bytes: the tag of their field, and the stored type."""
_NO_FIXED = -1, np.dtype(np.uint8)
_USUAL_NESTING = 3
"""Levels of a record as TensorFlow writes it: the slice's data, the slice, and its extents."""
_STRING_TAG = STRING_VAL << 3 | BYTES
_ODD_FREE, _ODD_PART, _ODD_BYTES = 16, 256, 64
"""Of a record of another form 16 fields are looked at, or 1/256 as many as `Limits.single_entries`
allows if that is more, and one for each 64 bytes."""

_DATA, _VALUES = 2, 3
"""Field numbers: SavedTensorSlices.data, SavedSlice.data, which is the TensorProto."""


def find_values(record: Buffer) -> Buffer:
    """Return the TensorProto in a record that holds its values."""
    return find_submessage(record, _DATA, _VALUES) or b""


def decode_record(
    record: Buffer,
    data_type: int,
    count: int,
    *,
    limits: Limits = DEFAULT_LIMITS,
    budget: Budget | None = None,
) -> npt.NDArray[Any]:
    """Decode the values of a record.

    What else the record says counts for nothing, but it must be a message, to its last field: one
    that is not is no record to TensorFlow. Nor may there be much of it.

    Args:
        record: The serialized SavedTensorSlices.
        data_type: The DataType number, from the file's list.
        count: The number of elements of the slice.
        limits: Bounds the strings, and the levels of messages.
        budget: What the values are taken from; None: one of this call alone.

    Returns:
        Shape (count,), in a new array: writable, native byte order.

    Raises:
        MalformedError: It is no message, or has another number of values.
        LimitError: It asks for more than the limits allow.
        UnsupportedError: V1 cannot hold that type, or ml_dtypes lacks it.
    """
    values = _usual_values(record, data_type) if limits.nesting >= _USUAL_NESTING else None
    if values is None:
        _check_odd(record, limits)
        proto = find_values(record)
        return decode_saved_values(proto, data_type, count, limits=limits, budget=budget)
    tag, dtype = _FIXED.get(data_type, _NO_FIXED)
    if values < len(record) and record[values] == tag:
        start, end = _enter(record, values, len(record), tag)
        if end - start == count * dtype.itemsize:
            if budget is not None:  # One of this call alone allows what the message holds.
                budget.take(end - start)
            stored = np.frombuffer(record, dtype, count, start)
            return stored.astype(dtype.newbyteorder("="))
    proto = memoryview(record)[values:]
    return decode_saved_values(proto, data_type, count, limits=limits, budget=budget)


def check_record(record: Buffer, limits: Limits) -> None:
    """Check that a record is a message, and none that takes long to look at; see `decode_record`.

    Raises:
        MalformedError: It is no message.
        LimitError: It has more levels of messages, or more fields, than the limits allow.
    """
    if limits.nesting < _USUAL_NESTING or _usual_values(record) is None:
        _check_odd(record, limits)


def _check_odd(record: Buffer, limits: Limits) -> None:
    """Check a record that is not as TensorFlow writes it, as `check_record` does."""
    most = max(_ODD_FREE, limits.single_entries // _ODD_PART) + len(record) // _ODD_BYTES
    if not has_few_fields(record, SavedTensorSlices, most):
        raise LimitError(
            f"The number of fields of a record of {len(record)} bytes that is not as TensorFlow "
            f"writes it is more than {most}: 1/{_ODD_PART} of Limits.single_entries "
            f"({limits.single_entries}), and one for each {_ODD_BYTES} bytes",
            limit="single_entries",
        )
    # Names are not looked at: TensorFlow writes and reads such that are not UTF-8.
    check_nesting(record, SavedTensorSlices, allowed=min(limits.nesting, MAX_NESTING))


def _usual_values(record: Buffer, data_type: int | None = None) -> int | None:
    """Return where the values of a record as TensorFlow writes it begin, if it is one.

        12 n  0a n name  12 n slice  1a n  TAG n values          and nothing else

    The values have one packed field, or such of one tag (strings), so that `check_nesting` has
    nothing to refuse. They are strings if and only if `data_type` says so, unless it is None.
    """
    end = len(record)
    at, stop = _enter(record, 0, end, _DATA_TAG)
    if stop != end:
        return None
    _, at = _enter(record, at, end, _NAME_TAG)
    at, stop = _enter(record, at, end, _SLICE_TAG)
    values, last = _enter(record, stop, end, _VALUES_TAG)
    if last != end or not _is_usual_slice(bytes(record[at:stop])):
        return None
    if values == end:
        return values
    is_strings = record[values] == _STRING_TAG
    if data_type is not None and is_strings is not (data_type == DataType.DT_STRING):
        return None
    _, last = _enter(record, values, end, record[values])
    if last == end and record[values] in _PACKED_TAGS:
        return values
    return values if _is_run(record, values) else None


def _is_run(record: Buffer, position: int) -> bool:
    """Tell whether all from here on are strings, or values that are not packed, of one tag."""
    tag = record[position]
    if tag == _STRING_TAG:
        return end_of_strings(record, position) == len(record)
    values = memoryview(record)[position:]
    if tag & 7 not in (VARINT, FIXED32, FIXED64) or tag ^ tag & 7 | BYTES not in _PACKED_TAGS:
        return False
    return strip_tags(values, 0, tag)[0] == len(values)


def _enter(data: Buffer, at: int, end: int, tag: int) -> tuple[int, int]:
    """Return where the content of a field at `at` starts and ends; -1 if it is no such field."""
    if not 0 <= at < end - 1 or data[at] != tag:
        return -1, -1
    length = data[at + 1]
    if length < 0x80:
        start = at + 2
    else:
        try:
            length, start = read_varint(data, at + 1, end)
        except MalformedError:
            return -1, -1
    return (start, start + length) if start + length <= end else (-1, -1)


@lru_cache(1 << 10)
def _is_usual_slice(data: bytes) -> bool:
    """Tell whether bytes are a TensorSliceProto with no level of messages but its extents."""
    try:
        check_nesting(data, TensorSliceProto, allowed=1)
    except CheckpointError:
        return False
    return True
