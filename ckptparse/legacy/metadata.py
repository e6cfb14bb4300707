"""Decode and check the list of tensors of one V1 file (docs/format.md, section 3.2).

The value under the empty key is a SavedTensorSlices with only field 1:

    0a .. SavedTensorSliceMeta
       0a .. SavedSliceMeta, a tensor    0a name   12 shape   18 DataType   22 slice, repeated
       12 .. VersionDef                  08 01

A tensor without slices is left out, as TensorFlow does. The message is read from the wire, since a
name may be any bytes, and protobuf refuses a whole message if one name in it is not UTF-8.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ckptparse.bundle.entry import check_rank, check_versions, count_elements, shape_from_proto
from ckptparse.bundle.naming import decode_name, weight_of_slices
from ckptparse.dtypes import DataType
from ckptparse.errors import MalformedError, located
from ckptparse.limits import Limits, limit_error
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto
from ckptparse.proto.tensor_slice_pb2 import TensorSliceProto
from ckptparse.proto.versions_pb2 import VersionDef
from ckptparse.proto.wire import BYTES, GROUP, VARINT, iter_fields, read_varint
from ckptparse.slices import TensorSlice
from ckptparse.table.reader import Table

__all__ = ["SliceList", "decode_metadata", "most_listed", "read_metadata", "strings_of"]

META_KEY = b""
_META = 1
"""Field number in SavedTensorSlices."""
_TENSOR, _VERSIONS = 1, 2
"""Field numbers in SavedTensorSliceMeta."""
_NAME, _SHAPE, _TYPE, _SLICE = 1, 2, 3, 4
"""Field numbers in SavedSliceMeta."""
_NAME_TAG = _NAME << 3 | BYTES
_FIELDS = 8
"""Fields of a list for each tensor or slice that it may name, of all levels: real ones have 5."""
_DIMENSIONS = 8
"""Of so many dimensions a slice counts as one more: each is an object, in several passes."""
_FEW = 4
"""What follows the name is kept if it has so many slices at most: nearly every tensor has one."""


_Rest: TypeAlias = "tuple[int, tuple[int, ...], tuple[TensorSlice, ...]]"
"""What follows the name of a tensor in a list: type, shape and slices."""


@dataclass(frozen=True, slots=True)
class SliceList:
    """The slices of one tensor in one file, as its list says."""

    name: str
    data_type: int
    """DataType number; not checked before values are read."""
    shape: tuple[int, ...]
    """Of the whole tensor."""
    slices: tuple[TensorSlice, ...]
    """Those in this file."""


def read_metadata(table: Table, *, limits: Limits) -> list[SliceList]:
    """Read and check the list of a V1 file, in the order of the file.

    It may name as many tensors as a file of its size may have, whole or in slices.

    Raises:
        MalformedError: The list is missing, or breaks the format's rules.
        UnsupportedError: Its versions exclude this reader.
        LimitError: More tensors, dimensions or slices than the limits allow.
    """
    value = table.get(META_KEY)
    if value is None:
        raise MalformedError(
            "Expected the list of a V1 file's tensors under the empty key, found no such key"
        )
    return decode_metadata(value, limits=limits, held=table.source.size)


def decode_metadata(value: bytes, *, limits: Limits, held: int | None = None) -> list[SliceList]:
    """Check the bytes of a V1 file's list; raises as `read_metadata` does.

    Args:
        value: The bytes.
        limits: Bounds on what they may ask for.
        held: The size of the file; None: it may name any number of tensors that is allowed.
    """
    most = limits.entries if held is None else most_listed(limits, held)
    lists: list[SliceList] = []
    versions: list[bytes] = []
    slices = limits.slices if held is None else limits.most_singles(held)
    decoder = _ListDecoder(limits, _FIELDS * most + _FIELDS, slices)
    meta = b"".join(
        value[start:end]
        for number, wire, start, end in decoder.iter_fields(value)
        if number == _META and wire == BYTES
    )
    for number, wire, start, end in decoder.iter_fields(meta):
        if wire == BYTES and number == _TENSOR:
            if len(lists) >= limits.entries:
                limits.check("entries", len(lists) + 1, "The number of tensors")
            if len(lists) >= most:
                what = "The number of tensors that a list names"
                raise limit_error(limits, "small_tensors", len(lists) + 1, what)
            lists.append(decoder.decode(meta[start:end]))
        elif wire == BYTES and number == _VERSIONS:
            versions.append(meta[start:end])
    check_versions(parse_message(VersionDef, b"".join(versions), limits=limits))
    return [found for found in lists if found.slices]


def most_listed(limits: Limits, held: int) -> int:
    """Return how many tensors V1 files of so many bytes may have, whole or in slices."""
    return limits.most_legacy(held) + limits.most_singles(held)


def strings_of(tensors: Iterable[tuple[int, tuple[int, ...]]], held: int) -> int:
    """Return how many strings tensors of those types and shapes have.

    Of files of `held` bytes a tensor of more than one for each two bytes cannot be decoded.
    """
    counts = (math.prod(shape) for data_type, shape in tensors if data_type == DataType.DT_STRING)
    return sum(count for count in counts if 2 * count <= held)


class _ListDecoder:
    """Decodes SavedSliceMeta messages; what many have in common is decoded once."""

    def __init__(self, limits: Limits, most: int, slices: int) -> None:
        """Begin a list of so many fields at most, of all levels, and so many slices."""
        self._limits = limits
        self._most = most
        self._left = most
        self._most_slices = slices
        self._slices = 0
        self._shapes: dict[bytes, tuple[int, ...]] = {}
        self._pieces: dict[bytes, TensorSlice] = {}
        self._rests: dict[bytes, _Rest] = {}

    def iter_fields(self, data: bytes) -> Iterator[tuple[int, int, int, int]]:
        """Iterate over the fields of a message of the list, and count them.

        Raises:
            LimitError: The list has more of them than so many tensors and slices have.
        """
        for found in iter_fields(data):
            # What is in a group was walked, too: a field takes two bytes at least.
            self._left -= 1 + ((found[3] - found[2]) // 2 if found[1] == GROUP else 0)
            if self._left < 0:
                what = "The number of fields of a list of tensors, 8 for each that is allowed,"
                found_now = self._most - self._left
                raise limit_error(self._limits, "small_tensors", found_now, what)
            yield found

    def decode(self, data: bytes) -> SliceList:
        """Decode one message."""
        # The name comes first, and its length is one byte below 0x80, but for odd writers.
        end = 2 + data[1] if len(data) > 1 and data[0] == _NAME_TAG and data[1] < 0x80 else 0
        rest = self._rests.get(data[end:]) if end else None
        if rest is not None:
            self._count(len(rest[2]), len(rest[1]))
            return SliceList(decode_name(data[2:end]), *rest)
        names, data_type, shape, pieces = self._take_apart(data)
        name = decode_name(names[-1] if names else b"")
        with located(tensor=name):
            self._limits.check("slices", len(pieces), "The number of slices of a tensor")
            rest = data_type, *self._decode_slices(shape, pieces, names[-1] if names else b"")
        # A message that is cut off within its name has no rest either: nothing is kept for it.
        if 0 < end < len(data) and len(names) == 1 and len(pieces) <= _FEW:
            self._rests[data[end:]] = rest
        return SliceList(name, *rest)

    def _decode_slices(
        self, data: bytes, pieces: Sequence[bytes], name: bytes
    ) -> tuple[tuple[int, ...], tuple[TensorSlice, ...]]:
        """Decode a shape, and the slices, which must lie within it."""
        shape = self._shapes.get(data)
        if shape is None:
            shape = shape_from_proto(
                parse_message(TensorShapeProto, data, limits=self._limits), limits=self._limits
            )
            count_elements(shape)
            self._shapes[data] = shape
        self._count(len(pieces), len(shape), weight_of_slices(name, len(pieces)) - len(pieces))
        slices = tuple(map(self._decode_slice, pieces))
        for piece in slices:
            piece.resolve(shape)
        return shape, slices

    def _count(self, slices: int, rank: int, more: int = 0) -> None:
        """Count the slices of a tensor: those of many dimensions as more, and no whole one.

        Args:
            slices: How many it has.
            rank: Of the tensor.
            more: What they count beyond that, if their name is long.

        Raises:
            LimitError: There are more than a file of that size may have.
        """
        self._slices += slices * (rank // _DIMENSIONS) + (slices + more if slices > 1 else 0)
        if self._slices > self._most_slices:
            what = f"The number of slices in V1 files, one more for each {_DIMENSIONS} dimensions,"
            raise limit_error(self._limits, "single_entries", self._slices, what)

    def _decode_slice(self, data: bytes) -> TensorSlice:
        piece = self._pieces.get(data)
        if piece is None:
            proto = parse_message(TensorSliceProto, data, limits=self._limits)
            check_rank(len(proto.extent), limits=self._limits)
            piece = self._pieces[data] = TensorSlice.from_proto(proto)
        return piece

    def _take_apart(self, data: bytes) -> tuple[list[bytes], int, bytes, list[bytes]]:
        """Return every name of a SavedSliceMeta, its type, its shape and its slices."""
        names: list[bytes] = []
        data_type = 0
        shape: list[bytes] = []
        slices: list[bytes] = []
        for number, wire, start, end in self.iter_fields(data):
            if number == _TYPE and wire == VARINT:
                data_type = _enum_of(read_varint(data, start, end)[0])
            elif wire == BYTES and number == _NAME:
                names.append(data[start:end])
            elif wire == BYTES and number == _SHAPE:
                # If a message comes twice, its parts, joined, parse to what both say.
                shape.append(data[start:end])
            elif wire == BYTES and number == _SLICE:
                slices.append(data[start:end])
        return names, data_type, b"".join(shape), slices


def _enum_of(number: int) -> int:
    """Return what a varint says as an enum: its lowest 32 bits, signed."""
    return (number & 0xFFFFFFFF ^ 1 << 31) - (1 << 31)
