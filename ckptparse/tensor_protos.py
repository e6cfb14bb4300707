"""Decode many small TensorProtos together, or a part of a large one, if they are written plainly.

A message alone takes some 30 microseconds, however few elements it has. Among others it takes a
few: the values of one kind are joined, decoded as one array, and taken apart again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, numpy_dtype
from ckptparse.errors import CheckpointError
from ckptparse.limits import Budget, Limits
from ckptparse.proto.wire import BYTES, VARINT, Buffer
from ckptparse.tensor import SAFE_RANK
from ckptparse.tensor_proto import ARRAY_SIZE, CONTENT, decode_tensor_header, find_plain_value
from ckptparse.typed_fields import SUB_BYTE_MASKS, TYPED_FIELDS, decode_scalars, finish_stored

__all__ = ["decode_part", "decode_together", "find_elements"]

_Array = npt.NDArray[Any]
_CHANGED = frozenset({DataType.DT_BOOL, *SUB_BYTE_MASKS})
"""Kinds whose stored bytes are not their elements."""
_MOST_FILLED = 1 << 16
"""Bytes of a tensor of values that repeat, which is decoded with others: a larger one is by itself,
and is told by `Limits.fill_bytes` if it is too large."""


def decode_part(data: Buffer, index: tuple[slice, ...], *, limits: Limits) -> _Array | None:
    """Decode a part of a serialized TensorProto, and no more, if its bytes are its elements.

    Args:
        data: The message.
        index: The part, a slice for each dimension.
        limits: `fill_bytes` bounds a value that repeats, as when all is decoded.

    Returns:
        The part, in a new array; None if all is to be decoded.

    Raises:
        LimitError: More repeated elements than the limits allow.
    """
    whole = find_elements(data, limits=limits)
    return None if whole is None else whole[index].copy()


def find_elements(data: Buffer, *, limits: Limits) -> _Array | None:
    """Return the elements of a serialized TensorProto as a view of it, if its bytes are they.

    Raises:
        LimitError: More repeated elements than the limits allow.
    """
    view = memoryview(data)
    field, first, last = find_plain_value(view) or (0, 0, 0)
    typed, wire = TYPED_FIELDS.get(view[1], (0, BYTES)) if field else (0, BYTES)
    if wire == BYTES or view[1] in _CHANGED or sys.byteorder == "big":
        return None
    if field != CONTENT and (field != typed or wire == VARINT):
        return None
    shape, dtype = decode_tensor_header(data, limits=limits).shape, numpy_dtype(view[1])
    stored, count = last - first, math.prod(shape)
    if stored == count * dtype.itemsize:
        return np.frombuffer(view[first:last], dtype).reshape(shape)
    if field != CONTENT and stored == dtype.itemsize:
        limits.check("fill_bytes", count * dtype.itemsize, "The number of bytes to fill")
        value: _Array = np.frombuffer(view[first:last], dtype)
        return np.broadcast_to(value.reshape(()), shape)
    return None


def decode_together(
    messages: Sequence[Buffer], shapes: Sequence[tuple[int, ...]], *, budget: Budget
) -> list[_Array | None]:
    """Decode serialized TensorProtos, as `decode_tensor_bytes` decodes one.

    Args:
        messages: The messages.
        shapes: The shape that each states.
        budget: What the elements are taken from.

    Returns:
        An array for each; None for what is to be decoded by itself, as it is not plain, is wrong,
        or has more values than its shape: strings, variants, large tensors of values that repeat.

    Raises:
        LimitError: All together take more than the budget has.
    """
    kinds: dict[tuple[int, bool], list[tuple[int, memoryview]]] = {}
    found: list[_Array | None] = [None] * len(messages)
    for number, message in enumerate(messages):
        field, data_type, raw = _find_numbers(memoryview(message), shapes[number])
        if len(raw):
            kinds.setdefault((data_type, field == CONTENT), []).append((number, raw))
        elif data_type and 0 in shapes[number]:
            found[number] = _make_empty(data_type, shapes[number], budget)
    most_filled = min(_MOST_FILLED, budget.limits.fill_bytes)
    for (data_type, is_content), members in kinds.items():
        try:
            decoded = _decode_kind(data_type, [raw for _, raw in members], is_content=is_content)
        except CheckpointError:
            continue
        for (number, _), values in zip(members, decoded, strict=True):
            shape = shapes[number]
            if values is not None:
                found[number] = _shape(values, shape, budget, 0 if is_content else most_filled)
    return found


def _shape(
    values: _Array, shape: tuple[int, ...], budget: Budget, most_filled: int
) -> _Array | None:
    """Give values their shape, in a new array of at most so many bytes if the last repeats."""
    count = math.prod(shape)
    if len(values) > count or (len(values) < count and count * values.itemsize > most_filled):
        return None
    budget.take(ARRAY_SIZE + count * values.itemsize)
    shaped: _Array = np.empty(shape, values.dtype)
    flat = shaped.reshape(-1)
    flat[: len(values)] = values
    flat[len(values) :] = values[-1]
    return shaped


def _find_numbers(data: memoryview, shape: tuple[int, ...]) -> tuple[int, int, memoryview]:
    """Find the values of a plain tensor of numbers.

    Returns:
        The number of their field; their DataType number, 0 for what is another tensor; their bytes.
    """
    field, first, last = find_plain_value(data) or (-1, 0, 0)
    if field >= 0 and len(shape) <= SAFE_RANK:
        typed, wire = TYPED_FIELDS.get(data[1], (0, BYTES))
        if wire != BYTES and (first == last or field in (typed, CONTENT)):
            return field, data[1], data[first:last]
    return field, 0, data[:0]


def _make_empty(data_type: int, shape: tuple[int, ...], budget: Budget) -> _Array | None:
    budget.take(ARRAY_SIZE)
    try:
        return np.empty(shape, numpy_dtype(data_type))
    except (CheckpointError, ValueError):
        return None  # numpy has no such shape, or no such type.


def _decode_kind(
    data_type: int, pieces: Sequence[memoryview], *, is_content: bool
) -> list[_Array | None]:
    """Decode values of one kind; None for those that are cut off.

    Args:
        data_type: Their DataType number.
        pieces: Their bytes, at least one of each.
        is_content: Whether they are of `tensor_content`; else of the typed field.
    """
    dtype = numpy_dtype(data_type)
    is_varint = not is_content and TYPED_FIELDS[data_type][1] == VARINT
    if is_varint:
        whole = [piece if piece[-1] < 0x80 else piece[:0] for piece in pieces]
    else:
        whole = [piece if len(piece) % dtype.itemsize == 0 else piece[:0] for piece in pieces]
    joined = b"".join(whole)
    if is_content:
        values = np.frombuffer(joined, np.uint8).copy().view(dtype)
        finish_stored(values, data_type)
    else:
        values, _ = decode_scalars(joined, data_type, dtype)
    ends = np.cumsum([len(piece) for piece in whole])
    if is_varint:
        lasts = np.frombuffer(joined, np.uint8) < 0x80
        ends = np.concatenate(([0], np.cumsum(lasts)))[ends]
    else:
        ends //= dtype.itemsize
    places = [0, *ends.tolist()]
    return [values[start:end] if end > start else None for start, end in pairwise(places)]
