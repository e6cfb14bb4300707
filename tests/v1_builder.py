"""Build V1 checkpoint files as bytes, right or deliberately wrong (section 3 of docs/format.md).

As `builder`, of which it uses codes and tables, this never imports the package it tests.

>>> file = LegacyFile()
>>> file.add("w", np.array([1, 2], np.float32))
>>> file.write(path)
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builder
import numpy as np
from builder import field, shape_proto, slice_key, slice_proto, varint, version_proto

INT_KINDS = (builder.INT32, builder.INT16, builder.INT8, builder.UINT8, builder.UINT16)
FIELDS = {
    builder.FLOAT: 5,
    builder.DOUBLE: 6,
    **dict.fromkeys((*INT_KINDS, builder.QINT8, builder.QUINT8, builder.QINT32), 7),
    builder.STRING: 8,
    builder.COMPLEX64: 9,
    builder.INT64: 10,
    builder.BOOL: 11,
    builder.COMPLEX128: 12,
    builder.HALF: 13,
}
"""The field of TensorProto that holds the values of each DataType that V1 can store."""


def packed(array: np.ndarray[Any, Any], number: int) -> bytes:
    """The values of an array as the content of a packed field."""
    flat = array.reshape(-1)
    if number == builder.HALF:
        return b"".join(varint(int(bits)) for bits in flat.view(np.uint16))
    if flat.dtype.kind in "iub":
        # A negative number is extended to 64 bits: ten bytes.
        return b"".join(varint(int(value) & 0xFFFFFFFFFFFFFFFF) for value in flat)
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False).tobytes()


def values_proto(array: np.ndarray[Any, Any], number: int) -> bytes:
    """TensorProto with nothing but the typed field."""
    if number == builder.STRING:
        return b"".join(field(8, bytes(value)) for value in array.reshape(-1))
    content = packed(array, number)
    return field(FIELDS[number], content) if content else b""


@dataclass
class Slice:
    """One record: where it lies in its tensor, and the TensorProto of its values."""

    extents: Sequence[Any]
    values: bytes
    key: bytes | None = None
    """None writes the right key."""
    stored: bool = True
    """Whether there is a record."""


@dataclass
class Listed:
    """One tensor of the list, its slices, and what is written of it."""

    name: bytes
    shape: Sequence[int]
    data_type: int | None
    slices: list[Slice]
    unknown_rank: bool = False

    def meta(self) -> bytes:
        shape = shape_proto(self.shape, unknown_rank=self.unknown_rank)
        return (
            field(1, self.name)
            + field(2, shape)
            + (field(3, self.data_type) if self.data_type is not None else b"")
            + b"".join(field(4, slice_proto(piece.extents)) for piece in self.slices)
        )


@dataclass
class LegacyFile:
    """One V1 file; every part can be replaced before it is written."""

    tensors: list[Listed] = dataclasses.field(default_factory=list)
    version: bytes = dataclasses.field(default_factory=version_proto)
    meta: bytes | None = None
    """The value under the empty key; None writes the right one."""
    has_meta: bool = True

    def add(self, name: str | bytes, array: Any, number: int | None = None) -> Listed:
        """Add a whole tensor."""
        array = np.asarray(array)
        listed = self.declare(name, array.shape, number or builder.number_of(array))
        self.add_slice(listed, [None] * array.ndim, array)
        return listed

    def declare(self, name: str | bytes, shape: Sequence[int], number: int | None) -> Listed:
        """List a tensor without slices."""
        self.tensors.append(Listed(builder.as_bytes(name), shape, number, []))
        return self.tensors[-1]

    def add_slice(self, listed: Listed, extents: Sequence[Any], array: Any) -> Slice:
        """Add a slice: one extent `(start, length)` or None a dimension, and its values."""
        values = values_proto(np.asarray(array), listed.data_type or builder.FLOAT)
        listed.slices.append(Slice(extents, values))
        return listed.slices[-1]

    def meta_value(self) -> bytes:
        if self.meta is not None:
            return self.meta
        lists = b"".join(field(1, tensor.meta()) for tensor in self.tensors)
        return field(1, lists + field(2, self.version))

    def pairs(self) -> list[tuple[bytes, bytes]]:
        records = [
            (piece.key or slice_key(tensor.name, piece.extents), record(tensor.name, piece))
            for tensor in self.tensors
            for piece in tensor.slices
            if piece.stored
        ]
        return [*([(b"", self.meta_value())] if self.has_meta else []), *sorted(records)]

    def data(self, **options: Any) -> bytes:
        """The bytes of the file; options go to `builder.table`."""
        return bytes(builder.table(self.pairs(), **options).data)

    def write(self, path: str | Path, **options: Any) -> Path:
        Path(path).write_bytes(self.data(**options))
        return Path(path)


def record(name: bytes, piece: Slice) -> bytes:
    """SavedTensorSlices with the data of one slice."""
    saved = field(1, name) + field(2, slice_proto(piece.extents)) + field(3, piece.values)
    return field(2, saved)


def nan_with_payload(bits: int) -> np.ndarray[Any, Any]:
    """A float32 of these bits, as an array: a scalar might lose them."""
    return np.frombuffer(struct.pack("<I", bits), np.float32)
