"""The record of a slice in a V1 file: a message around its values (docs/format.md, section 3.3).

SavedTensorSlices   0a meta, unused here
                    12 SavedSlice   0a name   12 slice: only the key counts
                                    1a TensorProto, whose typed field holds the values
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ckptparse.limits import DEFAULT_LIMITS, Budget, Limits
from ckptparse.proto.saved_tensor_slice_pb2 import SavedTensorSlices
from ckptparse.proto.wire import MAX_NESTING, Buffer, check_nesting, find_submessage
from ckptparse.tensor_proto import decode_saved_values

__all__ = ["decode_record", "find_values"]

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
    that is not is no record to TensorFlow.

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
    # Names are not looked at: TensorFlow writes and reads such that are not UTF-8.
    check_nesting(record, SavedTensorSlices, allowed=min(limits.nesting, MAX_NESTING))
    return decode_saved_values(find_values(record), data_type, count, limits=limits, budget=budget)
