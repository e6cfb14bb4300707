"""Decode a TensorProto: a tensor as a message (docs/format.md, sections 3.3 and 6.7).

    08 01                 dtype: float
    12 04 12 02 08 02     tensor_shape: [2]
    22 08 00 00 80 3f ..  tensor_content: the elements, little-endian, all of them
    2a 04 00 00 80 3f     or float_val: 1.0, which then repeats until the shape is full

Each DataType has one typed field. Values in another field are ignored.

    float_val 5      float        int64_val 10     int64       half_val 13     half, bfloat16
    double_val 6     double       bool_val 11      bool        variant_val 15  variant
    int_val 7        integers     dcomplex_val 12  complex128  uint32_val 16   uint32
    string_val 8     string       scomplex_val 9   complex64   uint64_val 17   uint64
                                                               float8_val 18   float8, float4

The bytes are decoded from the wire, and not through protobuf's Python objects: these make every
float a Python float, which loses the payload of a signalling NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, describe_data_type, numpy_dtype
from ckptparse.elements import shaped
from ckptparse.errors import LimitError, MalformedError, UnsupportedError, located
from ckptparse.limits import DEFAULT_LIMITS, Budget, Limits
from ckptparse.proto import tensor_pb2, tensor_shape_pb2
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.wire import (
    BYTES,
    MAX_NESTING,
    VARINT,
    Buffer,
    find_last_content,
    iter_fields,
    read_varint,
)
from ckptparse.typed_fields import (
    PIECE_SIZE,
    TYPED_FIELDS,
    VARIANT_VAL,
    collect_pieces,
    collect_scalars,
    collect_strings,
    count_strings,
    decode_scalars,
    finish_stored,
    iter_runs,
    scalars_size,
    split_content,
)

__all__ = [
    "ARRAY_SIZE",
    "CONTENT",
    "TensorHeader",
    "Variant",
    "check_tensor_bytes",
    "decode_saved_values",
    "decode_tensor_bytes",
    "decode_tensor_header",
    "decode_tensor_proto",
    "decode_variant",
    "decode_variants",
    "find_plain_value",
]

_DTYPE, _SHAPE, CONTENT = 1, 2, 4
_DTYPE_TAG, _SHAPE_TAG = _DTYPE << 3 | VARINT, _SHAPE << 3 | BYTES
_PLAIN_HEAD = 4
"""Bytes of a dtype, and of a shape's tag and length."""
_LONG = 0x80
"""From here on a varint takes more than one byte."""
_TYPE_NAME, _METADATA, _TENSORS = 1, 2, 3

_ELEMENTS_MAX = (1 << 63) - 1
"""Elements of a tensor at most: TensorFlow counts them in a signed 64-bit number."""
_POINTER_SIZE = 8
"""Bytes that an array of objects takes for each; those that fill it are one object."""
_SHORT_SHAPE = 64
"""Bytes of a shape that is remembered: about ten dimensions."""
ARRAY_SIZE = 256
"""Bytes of an array besides its elements, rounded up."""
_VARIANT_SIZE, _INNER_SIZE = 1 << 13, 1 << 15
"""What a variant, and a tensor in it, count as in bytes besides their own: much more than they
take, so that a small file has not so many that they take long."""


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """One element of a variant tensor: a value of a registered C++ type, as this type stored it."""

    type_name: str = ""
    """The registered name ("tensorflow::TensorList"); empty for an element without a value."""
    metadata: bytes = b""
    """Bytes whose meaning only the type knows."""
    tensors: tuple[npt.NDArray[Any], ...] = ()
    """Its tensors."""


_NO_VARIANT = Variant()
"""What every message of no bytes is."""


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """The dtype and shape of a TensorProto."""

    data_type: int
    """The DataType number as stored. It is not checked before the elements are decoded."""
    shape: tuple[int, ...]


@dataclass(slots=True)
class _Decoding:
    """One call: its limits, and how much of them all nested tensors have used."""

    limits: Limits
    budget: Budget
    fill_left: int
    fills: bool = True
    """Whether the elements that repeat are written."""

    @classmethod
    def of(
        cls, limits: Limits, budget: Budget | None, held: int, *, fills: bool = True
    ) -> _Decoding:
        """Begin a call; without a budget it has its own, beyond a message of so many bytes."""
        return cls(limits, budget or Budget(limits, held), limits.fill_bytes, fills)

    def spend_fill(self, size: int) -> None:
        """Count the bytes of an array that has more elements than are stored."""
        spent = self.limits.fill_bytes - self.fill_left
        self.limits.check("fill_bytes", spent + size, "The number of bytes to fill")
        self.fill_left -= size

    def check_depth(self, depth: int) -> None:
        """Check that messages are not nested deeper than allowed."""
        allowed = min(self.limits.nesting, MAX_NESTING)
        if depth > allowed:
            raise LimitError(
                f"Expected messages nested at most {allowed} deep, found more", limit="nesting"
            )


def decode_tensor_bytes(
    data: Buffer,
    *,
    limits: Limits = DEFAULT_LIMITS,
    budget: Budget | None = None,
    path: str | None = None,
    tensor: str | None = None,
) -> npt.NDArray[Any]:
    """Decode a serialized TensorProto.

    If `tensor_content` is not empty, it is used. Else the typed field of the dtype is used. If it
    has too many values, the rest is dropped; if too few, the last one repeats; if none, all are
    zeros or empty strings. Missing variants are `Variant()`. Integers wrap to the width of the
    dtype. Any non-zero byte of a bool is true.

    Args:
        data: The message, such as `wire.find_submessage` finds in a larger one.
        limits: Bounds on the rank, on strings, on nested variants, and on repeated elements.
        budget: What the elements are taken from; None: one of this call alone.
        path: The file the bytes are from, for errors.
        tensor: The tensor's name, for errors.

    Returns:
        The elements, in a new array: writable, C order, native byte order. Strings are an object
        array of `bytes`, variants one of `Variant`.

    Raises:
        MalformedError: The bytes are no TensorProto, or `tensor_content` has the wrong size.
        LimitError: More repeated elements, strings, dimensions or nesting than the limits allow.
        UnsupportedError: numpy or ml_dtypes has no such array.
    """
    with located(path=path, tensor=tensor):
        limits.check("message_bytes", len(data), "The size of a TensorProto")
        return _decode_tensor(_view(data), _Decoding.of(limits, budget, len(data)), depth=0)


def check_tensor_bytes(
    data: Buffer, *, limits: Limits = DEFAULT_LIMITS, budget: Budget | None = None
) -> None:
    """Raise what `decode_tensor_bytes` raises. Elements that repeat are not written.

    They can take a million times the bytes of the message.
    """
    limits.check("message_bytes", len(data), "The size of a TensorProto")
    _decode_tensor(_view(data), _Decoding.of(limits, budget, len(data), fills=False), depth=0)


def decode_tensor_proto(
    proto: tensor_pb2.TensorProto,
    *,
    limits: Limits = DEFAULT_LIMITS,
    path: str | None = None,
    tensor: str | None = None,
) -> npt.NDArray[Any]:
    """Decode a TensorProto that is parsed already.

    All else is as in `decode_tensor_bytes`. Use that one if the bytes are available: protobuf's
    pure Python runtime loses the payload of every NaN in a typed field.
    """
    return decode_tensor_bytes(proto.SerializeToString(), limits=limits, path=path, tensor=tensor)


def decode_tensor_header(
    data: Buffer,
    *,
    limits: Limits = DEFAULT_LIMITS,
    path: str | None = None,
    tensor: str | None = None,
) -> TensorHeader:
    """Decode dtype and shape of a serialized TensorProto, and none of its elements.

    Raises:
        MalformedError: The bytes are no TensorProto, or the shape has a negative dimension or
            too many elements.
        LimitError: More dimensions than the limits allow.
    """
    with located(path=path, tensor=tensor):
        limits.check("message_bytes", len(data), "The size of a TensorProto")
        return _decode_header(_view(data), limits)[0]


def decode_variant(
    data: Buffer,
    *,
    limits: Limits = DEFAULT_LIMITS,
    path: str | None = None,
    tensor: str | None = None,
) -> Variant:
    """Decode a serialized VariantTensorDataProto; errors are those of `decode_tensor_bytes`."""
    with located(path=path, tensor=tensor):
        return _decode_message(data, _Decoding.of(limits, None, len(data)))


def decode_variants(
    messages: Sequence[Buffer],
    *,
    limits: Limits = DEFAULT_LIMITS,
    budget: Budget | None = None,
    path: str | None = None,
    tensor: str | None = None,
) -> list[Variant]:
    """Decode the elements of one variant tensor. The limit for filled bytes is for all together.

    Errors are those of `decode_tensor_bytes`.
    """
    decoding = _Decoding.of(limits, budget, sum(map(len, messages)))
    with located(path=path, tensor=tensor):
        return [_decode_message(message, decoding) for message in messages]


def _decode_message(data: Buffer, decoding: _Decoding) -> Variant:
    decoding.limits.check("message_bytes", len(data), "The size of a VariantTensorDataProto")
    return _decode_variant(_view(data), decoding, depth=0)


def decode_saved_values(
    data: Buffer,
    data_type: int,
    count: int,
    *,
    limits: Limits = DEFAULT_LIMITS,
    budget: Budget | None = None,
    path: str | None = None,
    tensor: str | None = None,
) -> npt.NDArray[Any]:
    """Decode the values of a V1 checkpoint's TensorProto (docs/format.md, section 3.4).

    Only the typed field of `data_type` is used. It must hold exactly `count` values: none repeats.
    The message's own dtype, shape and content are ignored.

    Args:
        data: The serialized TensorProto: `wire.find_submessage(record, 2, 3)`.
        data_type: The DataType number, from the file's metadata.
        count: The number of elements of the slice.
        limits: Bounds the number of strings.
        budget: What the values are taken from; None: one of this call alone.
        path: The file the bytes are from, for errors.
        tensor: The tensor's name, for errors.

    Returns:
        Shape (count,), in a new array: writable, native byte order.

    Raises:
        MalformedError: The bytes are no TensorProto, or hold another number of values.
        LimitError: More strings than the limits allow.
        UnsupportedError: V1 cannot hold that type, or ml_dtypes lacks it.
    """
    with located(path=path, tensor=tensor):
        dtype = numpy_dtype(data_type)
        if data_type == DataType.DT_VARIANT:
            raise UnsupportedError("Expected a type that V1 checkpoints hold, found DT_VARIANT")
        if data_type == DataType.DT_STRING:
            limits.check("strings", count, "The number of strings")
            budget = budget or Budget(limits, len(data))
            if 2 * count > len(data) and (found := count_strings(_view(data)))[1] == len(data):
                # There are fewer, of two bytes and more each: none needs to be taken.
                _check_count(found[0], count, data_type)
            strings = collect_strings(_view(data), count + 1, budget)
            _check_count(len(strings), count, data_type)
            budget.take(count * _POINTER_SIZE)
            return _fill_objects(np.empty(count, object), strings, b"")
        raw = collect_scalars(_view(data), data_type)
        (budget or Budget(limits, len(data))).take(scalars_size(raw, data_type, dtype))
        values, is_whole = decode_scalars(raw, data_type, dtype)
        _check_count(len(values), count, data_type)
        if not is_whole:
            raise MalformedError(
                f"Expected {count} complex numbers of two parts each, found an odd number of parts"
            )
        return values if values.flags.writeable else values.copy()


def _view(data: Buffer) -> memoryview:
    """Return a read-only view, so that no array made from it can write to it."""
    return memoryview(data).toreadonly()


def _check_count(found: int, count: int, data_type: int) -> None:
    if found != count:
        raise MalformedError(
            f"Expected {count} values of {describe_data_type(data_type)} in field "
            f"{TYPED_FIELDS[data_type][0]} of the TensorProto, found {found}"
        )


def _decode_tensor(data: memoryview, decoding: _Decoding, *, depth: int) -> npt.NDArray[Any]:
    decoding.check_depth(depth)
    header, content = _decode_header(data, decoding.limits)
    dtype = numpy_dtype(header.data_type)
    if header.data_type == DataType.DT_STRING:
        return _decode_strings(data, header, content, decoding)
    if header.data_type == DataType.DT_VARIANT:
        return _decode_variants(data, header, content, decoding, depth=depth)
    decoding.budget.take(ARRAY_SIZE)
    if len(content):
        decoding.budget.take(len(content))
        return _decode_content(content, header, dtype)
    raw = collect_scalars(data, header.data_type)
    if TYPED_FIELDS[header.data_type][1] == VARINT:
        decoding.budget.take(scalars_size(raw, header.data_type, dtype))
    values, _ = decode_scalars(raw, header.data_type, dtype)
    return _fit(values, header.shape, decoding)


def _decode_header(data: memoryview, limits: Limits) -> tuple[TensorHeader, memoryview]:
    """Return dtype and shape, and the bytes of `tensor_content`."""
    plain = find_plain_value(data)
    if plain is not None:
        number, first, last = plain
        shape = _decode_shape(bytes(data[_PLAIN_HEAD : _PLAIN_HEAD + data[3]]), limits)
        content = data[first:last] if number == CONTENT else data[:0]
        return TensorHeader(data[1], shape), content
    data_type = 0
    shapes: list[memoryview] = []
    content = data[:0]
    for number, wire, piece in iter_runs(data):
        if number == _DTYPE and wire == VARINT:
            data_type = _to_int32(_read_last(piece))
        elif number == _SHAPE and wire == BYTES:
            shapes.append(piece)
        elif number == CONTENT and wire == BYTES:
            content = piece
    # If a submessage comes twice, protobuf merges both; their bytes joined mean the same.
    return TensorHeader(data_type, _decode_shape(b"".join(shapes), limits)), content


def find_plain_value(data: memoryview) -> tuple[int, int, int] | None:
    """Find the value of a tensor that is written as every writer does: dtype, shape, value.

    Returns:
        The number of the value's field and where its content lies, which goes up to the end; 0 if
        there is no value. None if the tensor is written in another way.
    """
    end = len(data)
    if end < _PLAIN_HEAD or data[0] != _DTYPE_TAG or data[2] != _SHAPE_TAG:
        return None
    if data[1] >= _LONG or data[3] >= _LONG:
        return None
    position = _PLAIN_HEAD + data[3]
    if position >= end - 1:
        return (0, end, end) if position == end else None
    tag = data[position]
    if tag >= _LONG or tag & 7 != BYTES or tag >> 3 <= _SHAPE:
        return None
    first = find_last_content(data, position + 1, end)
    return None if first is None else (tag >> 3, first, end)


def _read_last(varints: memoryview) -> int:
    """Return the last of some varints."""
    value = position = 0
    while position < len(varints):
        value, position = read_varint(varints, position, len(varints))
    return value


def _to_int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _decode_shape(data: bytes, limits: Limits) -> tuple[int, ...]:
    """Decode a TensorShapeProto; `unknown_rank` is ignored, as TensorFlow does."""
    # Groups take a byte or more at each level: short ones cannot be nested too deep.
    if len(data) <= min(_SHORT_SHAPE, limits.nesting, limits.rank):
        return _short_shape(data)
    return _parse_shape(data, limits)


@lru_cache(maxsize=1024)
def _short_shape(data: bytes) -> tuple[int, ...]:
    """Decode a shape of few bytes, within all limits: models have few different ones."""
    return _parse_shape(data, DEFAULT_LIMITS)


def _parse_shape(data: bytes, limits: Limits) -> tuple[int, ...]:
    proto = parse_message(tensor_shape_pb2.TensorShapeProto, data, limits=limits)
    limits.check("rank", len(proto.dim), "The number of dimensions of a tensor")
    shape = tuple([dim.size for dim in proto.dim])
    product = 1
    for size in shape:
        product *= size
        if size < 0 or product > _ELEMENTS_MAX:
            raise MalformedError(
                f"Expected dimensions of 0 or more and at most 2**63 - 1 elements, found {shape}"
            )
    return shape


def _decode_content(
    content: memoryview, header: TensorHeader, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    size = math.prod(header.shape) * dtype.itemsize
    if len(content) != size:
        raise MalformedError(
            f"Expected tensor_content of {size} bytes for {describe_data_type(header.data_type)} "
            f"of shape {header.shape}, found {len(content)}"
        )
    result = _allocate(header.shape, dtype)
    raw = result.reshape(-1).view(np.uint8)
    raw[:] = np.frombuffer(content, np.uint8)
    finish_stored(result, header.data_type)
    return result


def _fit(values: npt.NDArray[Any], shape: tuple[int, ...], decoding: _Decoding) -> npt.NDArray[Any]:
    """Give stored values a shape: drop those too many; repeat the last if there are too few.

    Values are copied as arrays, never one as a scalar: that could change a signalling NaN.
    """
    count = math.prod(shape)
    stored = min(len(values), count)
    if count == len(values) and values.flags.writeable:
        return shaped(values, shape)
    if stored < count:
        decoding.spend_fill(count * values.dtype.itemsize)
    decoding.budget.take(count * values.dtype.itemsize)
    result = _allocate(shape, values.dtype)
    flat = result.reshape(-1)
    flat[:stored] = values[:stored]
    if stored < count and decoding.fills:
        flat[stored:] = values[-1:] if stored else np.zeros(1, values.dtype)
    return result


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise UnsupportedError(
            f"numpy {np.__version__} cannot make an array of {dtype} and shape {shape}: {error}"
        ) from error


def _decode_strings(
    data: memoryview, header: TensorHeader, content: memoryview, decoding: _Decoding
) -> npt.NDArray[Any]:
    count = _begin_objects(header, decoding)
    if len(content):
        # Of fewer bytes than strings it is said below that they cannot be their lengths.
        decoding.budget.take(min(count, len(content)) * PIECE_SIZE + len(content))
        strings = split_content(bytes(content), count)
    else:
        strings = collect_strings(data, count, decoding.budget)
        _fill_up(len(strings), count, decoding)
    decoding.budget.take(count * _POINTER_SIZE)
    if not decoding.fills:
        # Memory of numbers is not touched until they are written; that of objects is.
        return _allocate(header.shape, np.dtype(np.uint64))
    result = _allocate(header.shape, np.dtype(object))
    _fill_objects(result.reshape(-1), strings, strings[-1] if strings else b"")
    return result


def _decode_variants(
    data: memoryview,
    header: TensorHeader,
    content: memoryview,
    decoding: _Decoding,
    *,
    depth: int,
) -> npt.NDArray[Any]:
    count = _begin_objects(header, decoding)
    if len(content):
        decoding.budget.take(min(count, len(content)) * PIECE_SIZE)
        pieces = split_content(content, count)
    else:
        pieces = collect_pieces(data, VARIANT_VAL, count, decoding.budget)
        _fill_up(len(pieces), count, decoding)
    decoding.budget.take(count * _POINTER_SIZE)
    result = _allocate(header.shape, np.dtype(object))
    variants = [_decode_variant(piece, decoding, depth=depth + 1) for piece in pieces]
    # The last variant does not repeat, unlike a string.
    _fill_objects(result.reshape(-1), variants, _NO_VARIANT)
    return result


def _decode_variant(data: memoryview, decoding: _Decoding, *, depth: int) -> Variant:
    decoding.check_depth(depth)
    if not len(data):
        return _NO_VARIANT
    decoding.budget.take(_VARIANT_SIZE + len(data))
    name = metadata = data[:0]
    tensors: list[npt.NDArray[Any]] = []
    for number, wire, first, last in iter_fields(data):
        if wire != BYTES:
            continue
        if number == _TYPE_NAME:
            name = data[first:last]
        elif number == _METADATA:
            metadata = data[first:last]
        elif number == _TENSORS:
            decoding.budget.take(_INNER_SIZE)
            tensors.append(_decode_tensor(data[first:last], decoding, depth=depth + 1))
    try:
        return Variant(str(name, "utf-8"), bytes(metadata), tuple(tensors))
    except UnicodeDecodeError as error:
        raise MalformedError(f"Expected a variant's type name, found no UTF-8: {error}") from error


def _begin_objects(header: TensorHeader, decoding: _Decoding) -> int:
    """Return how many elements a string or variant tensor has."""
    count = math.prod(header.shape)
    decoding.limits.check("strings", count, "The number of elements of a string tensor")
    return count


def _fill_up(stored: int, count: int, decoding: _Decoding) -> None:
    """Account for the elements that repeat, or are empty, if fewer are stored."""
    if stored < count:
        decoding.spend_fill(count * _POINTER_SIZE)


def _fill_objects(
    flat: npt.NDArray[Any], values: Sequence[bytes | Variant], rest: bytes | Variant
) -> npt.NDArray[Any]:
    flat[: len(values)] = values
    flat[len(values) :] = rest
    return flat
