"""Decode the header, an entry and a shape of an index: the common form, and others by the bindings.

    header  08 num_shards  (10 01)  1a 02 08 producer
    entry   08 dtype  12 n shape[n]  (18 shard_id)  (20 offset)  (28 size)  35 crc32c[4]
    shape   (12 n  08 size)*

Every number is written in as few bytes as it needs, and fields in brackets are left out if they are
0, as protobuf writes them (docs/format.md, sections 2.2 and 2.3). The bindings are loaded only if
something has another form: that takes longer than to read a small checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from ckptparse.bundle.entry import (
    BundleEntry,
    BundleHeader,
    Endianness,
    check_rank,
    check_shards,
    shape_from_proto,
)
from ckptparse.coding.checksum import unmask_crc
from ckptparse.coding.varint import decode_varint
from ckptparse.errors import LimitError
from ckptparse.limits import Limits

__all__ = ["decode_entry", "decode_header", "decode_plain_shape", "decode_shape"]

_SHARD_BYTES = 1 << 16
"""Bytes of the files for each data file beyond `Limits.shards`."""
_INT32 = rb"[\x80-\xff]{0,3}[\x01-\x7f]"
"""A number above 0 and below 2^28: longer ones may be cut to 32 bits."""
_INT64 = rb"[\x80-\xff]{0,8}[\x01-\x7f]"
"""A number above 0 and below 2^63."""
_DIM = rb"\x12([\x00-\x0a])(?:\x08(%b))?" % _INT64
"""A dimension: how many bytes follow, and its size, which is left out if it is 0."""
_DIMS = rb"(?:\x12[\x00-\x0a](?:\x08%b)?)*" % _INT64
_HEADER = re.compile(rb"\x08(%b)(\x10\x01)?\x1a\x02\x08([\x01-\x7f])" % _INT32)
_ENTRY = re.compile(
    rb"\x08([\x00-\x7f])\x12([\x00-\x7f])(%b)(?:\x18(%b))?(?:\x20(%b))?(?:\x28(%b))?\x35(.{4})"
    % (_DIMS, _INT32, _INT64, _INT64),
    re.DOTALL,
)
_SHAPE = re.compile(_DIMS)
_SIZE = re.compile(_DIM)


def decode_header(
    value: bytes, *, limits: Limits, held: Callable[[], int] = lambda: 0
) -> BundleHeader:
    """Decode and check a header.

    Args:
        value: Its bytes.
        limits: `shards` bounds the data files, beyond one for each 64 KiB that is held.
        held: Bytes of the checkpoint's files; asked if the number of data files needs it.

    Raises:
        UnsupportedError: Its versions exclude this reader.
        MalformedError: It is no header, or one of its numbers is impossible.
        LimitError: More shards than that.
    """
    try:
        return _decode_header(value, limits)
    except LimitError as error:
        if error.limit != "shards":
            raise
        more = replace(limits, shards=limits.shards + held() // _SHARD_BYTES)
        if more == limits:
            raise
    return _decode_header(value, more)


def _decode_header(value: bytes, limits: Limits) -> BundleHeader:
    found = _HEADER.fullmatch(value)
    if found is None:
        return _parse_header(value, limits)
    shards, big, producer = found.groups()
    num_shards = _number(shards)
    check_shards(num_shards, limits=limits)
    endianness = Endianness.BIG if big else Endianness.LITTLE
    return BundleHeader(num_shards, endianness, producer[0], min_consumer=0)


def decode_entry(
    value: bytes,
    *,
    num_shards: int,
    limits: Limits,
    take_slices: Callable[[int], None] | None = None,
) -> BundleEntry:
    """Decode and check an entry.

    Args:
        value: Its bytes.
        num_shards: Data files of the bundle.
        limits: Bounds on what it may ask for.
        take_slices: Counts the slices, if it has any, before they are made; it may refuse them.

    Raises:
        MalformedError: It is no entry, or a field breaks the format's rules.
        LimitError: More dimensions, slices or strings than the limits allow.
    """
    found = _ENTRY.fullmatch(value)
    if found is None:
        return _parse_entry(value, num_shards, limits, take_slices)
    kind, length, dims, shard, offset, size, crc = found.groups()
    shape = _sizes(dims)
    if shape is None or len(dims) != length[0]:
        return _parse_entry(value, num_shards, limits, take_slices)
    check_rank(len(shape), limits=limits)
    entry = BundleEntry(
        kind[0],
        shape,
        _number(shard),
        _number(offset),
        _number(size),
        unmask_crc(int.from_bytes(crc, "little")),
    )
    entry.check(num_shards=num_shards, limits=limits)
    return entry


def decode_shape(data: bytes, *, limits: Limits) -> tuple[int, ...]:
    """Decode a serialized TensorShapeProto.

    Raises:
        MalformedError: It is no shape, or a dimension is negative.
        LimitError: More dimensions than `Limits.rank`.
    """
    shape = decode_plain_shape(data)
    if shape is None:
        return _parse_shape(data, limits)
    check_rank(len(shape), limits=limits)
    return shape


def decode_plain_shape(data: bytes) -> tuple[int, ...] | None:
    """Decode a serialized TensorShapeProto, of any rank; None if it has not the common form."""
    return _sizes(data) if _SHAPE.fullmatch(data) else None


def _sizes(dims: bytes) -> tuple[int, ...] | None:
    """Decode dimensions of the pattern; None if the length before one is not its own."""
    found = _SIZE.findall(dims)
    if any(length[0] != len(size) + bool(size) for length, size in found):
        return None
    return tuple([_number(size) for _, size in found])


def _number(varint: bytes | None) -> int:
    """Decode a number of the pattern; 0 if its field is left out."""
    return decode_varint(varint, 0, len(varint))[0] if varint else 0


def _parse_header(value: bytes, limits: Limits) -> BundleHeader:
    from ckptparse.proto.parsing import parse_message
    from ckptparse.proto.tensor_bundle_pb2 import BundleHeaderProto

    what = "the header of a tensor bundle"
    proto = parse_message(BundleHeaderProto, value, limits=limits, what=what)
    return BundleHeader.from_proto(proto, limits=limits)


def _parse_entry(
    value: bytes, num_shards: int, limits: Limits, take_slices: Callable[[int], None] | None
) -> BundleEntry:
    from ckptparse.proto.parsing import parse_message
    from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto

    what = "an entry of the index"
    proto = parse_message(BundleEntryProto, value, limits=limits, what=what)
    return BundleEntry.from_proto(
        proto, num_shards=num_shards, limits=limits, take_slices=take_slices
    )


def _parse_shape(data: bytes, limits: Limits) -> tuple[int, ...]:
    from ckptparse.proto.parsing import parse_message
    from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto

    proto = parse_message(TensorShapeProto, data, limits=limits, what="a shape")
    return shape_from_proto(proto, limits=limits)
