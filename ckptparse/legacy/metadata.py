"""Decode and check the list of tensors of one V1 file (docs/format.md, section 3.2).

The value under the empty key is a SavedTensorSlices with only field 1:

    0a .. SavedTensorSliceMeta
       0a .. SavedSliceMeta, a tensor    0a name   12 shape   18 DataType   22 slice, repeated
       12 .. VersionDef                  08 01

A tensor without slices is left out, as TensorFlow does. The message is read from the wire, since a
name may be any bytes, and protobuf refuses a whole message if one name in it is not UTF-8.
"""

from __future__ import annotations

from dataclasses import dataclass

from ckptparse.bundle.entry import check_versions, count_elements, shape_from_proto
from ckptparse.bundle.naming import decode_name
from ckptparse.errors import MalformedError, located
from ckptparse.limits import Limits
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto
from ckptparse.proto.tensor_slice_pb2 import TensorSliceProto
from ckptparse.proto.versions_pb2 import VersionDef
from ckptparse.proto.wire import BYTES, VARINT, Buffer, find_submessage, iter_fields, read_varint
from ckptparse.slices import TensorSlice
from ckptparse.table.reader import Table

__all__ = ["SliceList", "decode_metadata", "read_metadata"]

META_KEY = b""
_META = 1
"""Field number in SavedTensorSlices."""
_TENSOR, _VERSIONS = 1, 2
"""Field numbers in SavedTensorSliceMeta."""
_NAME, _SHAPE, _TYPE, _SLICE = 1, 2, 3, 4
"""Field numbers in SavedSliceMeta."""


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
    return decode_metadata(value, limits=limits)


def decode_metadata(value: bytes, *, limits: Limits) -> list[SliceList]:
    """Check the bytes of a V1 file's list; raises as `read_metadata` does."""
    lists: list[SliceList] = []
    versions = b""
    meta = find_submessage(value, _META) or b""
    for number, wire, start, end in iter_fields(meta):
        if wire == BYTES and number == _TENSOR:
            limits.check("entries", len(lists) + 1, "The number of tensors")
            lists.append(_decode_list(meta[start:end], limits))
        elif wire == BYTES and number == _VERSIONS:
            # A message that comes twice is merged: its parts, joined, parse to the same.
            versions += bytes(meta[start:end])
    check_versions(parse_message(VersionDef, versions, limits=limits))
    return [found for found in lists if found.slices]


def _decode_list(data: Buffer, limits: Limits) -> SliceList:
    """Decode a SavedSliceMeta."""
    name = b""
    data_type = 0
    shape = b""
    slices: list[Buffer] = []
    for number, wire, start, end in iter_fields(data):
        if number == _TYPE and wire == VARINT:
            data_type = read_varint(data, start, end)[0]
        elif wire == BYTES and number == _NAME:
            name = bytes(data[start:end])
        elif wire == BYTES and number == _SHAPE:
            shape += bytes(data[start:end])
        elif wire == BYTES and number == _SLICE:
            slices.append(data[start:end])
    with located(tensor=decode_name(name)):
        limits.check("slices", len(slices), "The number of slices of a tensor")
        return SliceList(decode_name(name), data_type, *_decode_slices(shape, slices, limits))


def _decode_slices(
    shape_data: bytes, slices_data: list[Buffer], limits: Limits
) -> tuple[tuple[int, ...], tuple[TensorSlice, ...]]:
    """Decode a shape, and the slices, which must lie within it."""
    shape = shape_from_proto(
        parse_message(TensorShapeProto, shape_data, limits=limits), limits=limits
    )
    count_elements(shape)
    slices = tuple(
        TensorSlice.from_proto(parse_message(TensorSliceProto, piece, limits=limits))
        for piece in slices_data
    )
    for piece in slices:
        piece.resolve(shape)
    return shape, slices
