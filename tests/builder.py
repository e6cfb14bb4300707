"""Build tables and V2 bundles as bytes, right or deliberately wrong.

This module is the tests' second opinion: it never imports the package it tests, and it writes
every code by hand (varints, masked checksums, ordered keys, protobuf wire format), so that an
error shared by a reader and a writer of one house cannot hide. Section numbers are those of
docs/format.md.

Three floors, each usable alone:

* codes: `varint`, `masked_crc`, `field`, `slice_key` ...
* tables (section 1): `table(pairs)` for a right one; `entry`, `block`, `Stored`, `Footer` and
  `assemble` where a test needs control over every byte.
* bundles (section 2): `Bundle().add("w", array).write(prefix)`; every field of every entry can
  be replaced.

>>> bundle = Bundle()
>>> bundle.add("a", np.array([1, 2], np.float32))
>>> len(bundle.index())
121
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from itertools import pairwise
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import snappy

ml_dtypes: Any
try:
    import ml_dtypes
except ModuleNotFoundError:  # Some platforms have no wheel of it: then those kinds are left out.
    ml_dtypes = None

MAGIC = 0xDB4775248B80FB57
RAW, SNAPPY, ZSTD = 0, 1, 2
LITTLE, BIG = 0, 1

Pair = tuple[bytes, bytes]
Handle = tuple[int, int]
Extent = "tuple[int | None, int | None] | None"
Extents = Sequence[Any]

# ---- small codes


def varint(value: int, *, width: int = 0) -> bytes:
    """LEB128; `width` asks for a non-minimal form of that many bytes (81 00 for 1)."""
    out = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        if not value and len(out) + 1 >= width:
            return bytes(out + bytes([low]))
        out.append(low | 0x80)


def fixed32(value: int, *, big: bool = False) -> bytes:
    return struct.pack(">I" if big else "<I", value)


def fixed64(value: int, *, big: bool = False) -> bytes:
    return struct.pack(">Q" if big else "<Q", value)


def crc(data: bytes, value: int = 0) -> int:
    return int(crc32c.crc32c(data, value))


def mask(value: int) -> int:
    """Rotate right by 15 and add a constant, modulo 2**32 (section 1.4)."""
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def masked_crc(data: bytes) -> int:
    return mask(crc(data))


# ---- ordered keys, section 2.6


def ordered_number(value: int) -> bytes:
    """One byte that counts the significant big-endian bytes, then those."""
    body = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(body)]) + body


def ordered_signed(value: int) -> bytes:
    """Two's complement in the fewest of 1..10 bytes, with a unary length in the top bits."""
    length = next(n for n in range(1, 11) if -(1 << (7 * n - 1)) <= value < 1 << (7 * n - 1))
    body = value & ((1 << (8 * length)) - 1)
    header = ((1 << length) - 1) << (8 * length - length)
    return (body ^ header).to_bytes(length, "big")


def ordered_string(value: bytes) -> bytes:
    escapes = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}
    return b"".join(escapes.get(b, bytes([b])) for b in value) + b"\x00\x01"


def slice_key(name: str | bytes, extents: Extents) -> bytes:
    """The key of one slice; `None` or a missing length is the whole dimension, (0, -1)."""
    out = ordered_number(0) + ordered_string(as_bytes(name)) + ordered_number(len(extents))
    for extent in extents:
        start, length = extent or (0, -1)
        length = -1 if length is None else length
        out += ordered_signed(start or 0) + ordered_signed(length)
    return out


def as_bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


# ---- protobuf wire format


def field(number: int, value: int | bytes) -> bytes:
    """A field of wire type 0 (int, negatives as 64-bit two's complement) or 2 (bytes)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value & 0xFFFFFFFFFFFFFFFF)
    return varint(number << 3 | 2) + varint(len(value)) + value


def field32(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + fixed32(value)


def field64(number: int, value: int) -> bytes:
    return varint(number << 3 | 1) + fixed64(value)


OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def flat_object_graph(names: Iterable[str]) -> bytes:
    """A TrackableObjectGraph with one child a variable."""
    listed = list(names)
    children = (field(1, number) + field(2, name.encode()) for number, name in enumerate(listed, 1))
    nodes = field(1, b"".join(field(1, child) for child in children))
    for name in listed:
        attribute = field(1, b"VARIABLE_VALUE") + field(3, name.encode())
        nodes += field(1, field(2, attribute))
    return nodes


def shape_proto(dims: Sequence[int], *, unknown_rank: bool = False) -> bytes:
    """TensorShapeProto; a dimension of 0 is an empty Dim."""
    out = b"".join(field(2, field(1, d) if d else b"") for d in dims)
    return out + (field(3, 1) if unknown_rank else b"")


def slice_proto(extents: Extents) -> bytes:
    """TensorSliceProto; `None` gives an empty Extent, a start of 0 is left out."""
    out = b""
    for extent in extents:
        start, length = extent or (None, None)
        body = field(1, start) if start else b""
        out += field(1, body + (b"" if length is None else field(2, length)))
    return out


def version_proto(producer: int = 1, min_consumer: int = 0, bad: Sequence[int] = ()) -> bytes:
    out = field(1, producer) if producer else b""
    out += field(2, min_consumer) if min_consumer else b""
    return out + (field(3, b"".join(varint(b) for b in bad)) if bad else b"")


# ---- tables, section 1


def entry(
    suffix: bytes,
    value: bytes = b"",
    *,
    shared: int = 0,
    non_shared: int | None = None,
    value_length: int | None = None,
    widths: tuple[int, int, int] = (0, 0, 0),
) -> bytes:
    """One entry of a block; the three lengths may lie, or be coded wider than needed."""
    lengths = (
        shared,
        len(suffix) if non_shared is None else non_shared,
        len(value) if value_length is None else value_length,
    )
    return (
        b"".join(varint(n, width=w) for n, w in zip(lengths, widths, strict=True)) + suffix + value
    )


def shared_length(a: bytes, b: bytes) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:  # Long names are compared by halves: a loop over bytes takes a minute.
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low


def close_block(
    body: bytes, restarts: Sequence[int] = (0,), *, count: int | None = None, stray: bytes = b""
) -> bytes:
    """Append the restart array to entries; `stray` lies between the two, `count` may lie."""
    offsets = b"".join(fixed32(r) for r in restarts)
    return body + stray + offsets + fixed32(len(restarts) if count is None else count)


def block(
    pairs: Iterable[Pair],
    *,
    restart_interval: int = 16,
    restarts: Sequence[int] | None = None,
    count: int | None = None,
    stray: bytes = b"",
) -> bytes:
    """The contents of one block: entries in the given order (sorted or not), then restarts."""
    body, starts, previous = bytearray(), [0], b""
    for n, (key, value) in enumerate(pairs):
        shared = shared_length(previous, key) if n % restart_interval else 0
        if n and not n % restart_interval:
            starts.append(len(body))
        body += entry(key[shared:], value, shared=shared)
        previous = key
    return close_block(
        bytes(body), starts if restarts is None else restarts, count=count, stray=stray
    )


EMPTY_BLOCK = close_block(b"")


@dataclass
class Stored:
    """A block as it lies in the file: contents, type byte and checksum, each replaceable."""

    contents: bytes
    type: int = RAW
    crc: int | None = None
    """Masked checksum to write; None writes the right one."""
    stored: bytes | None = None
    """Bytes to write for the contents; None derives them from `contents` and `type`."""
    key: bytes | None = None
    """Key of this block in the index; None uses the last key that `pairs` gave."""

    def payload(self) -> bytes:
        if self.stored is not None:
            return self.stored
        return snappy.compress(self.contents) if self.type == SNAPPY else self.contents

    def to_bytes(self) -> bytes:
        payload = self.payload()
        kind = bytes([self.type])
        stored_crc = masked_crc(payload + kind) if self.crc is None else self.crc
        return payload + kind + fixed32(stored_crc)


@dataclass
class Footer:
    """The last 48 bytes."""

    metaindex: Handle
    index: Handle
    padding: bytes | None = None
    magic: int = MAGIC

    def to_bytes(self) -> bytes:
        handles = handle(*self.metaindex) + handle(*self.index)
        padding = bytes(40 - len(handles)) if self.padding is None else self.padding
        return handles + padding[: 40 - len(handles)] + fixed64(self.magic)


def handle(offset: int, size: int) -> bytes:
    return varint(offset) + varint(size)


@dataclass
class TableFile:
    """A table and the places of its parts."""

    data: bytes
    blocks: list[Handle]
    metaindex: Handle
    index: Handle

    def flip(self, offset: int, bit: int = 0) -> bytes:
        """The bytes with one bit turned over."""
        out = bytearray(self.data)
        out[offset] ^= 1 << bit
        return bytes(out)

    def replace(self, offset: int, data: bytes) -> bytes:
        return self.data[:offset] + data + self.data[offset + len(data) :]


def assemble(
    blocks: Sequence[Stored],
    *,
    handles: Sequence[bytes] | None = None,
    index: Stored | None = None,
    index_type: int = RAW,
    metaindex: Stored | None = None,
    footer: bytes | None = None,
    prefix: bytes = b"",
    gap: bytes = b"",
) -> TableFile:
    """A table of given blocks.

    `handles` replaces the values of the index block; `index` the whole index block; `footer`
    the last 48 bytes; `prefix` lies before the first block, `gap` between every two parts.
    """
    out, places = bytearray(prefix), []
    for stored in blocks:
        places.append((len(out), len(stored.payload())))
        out += stored.to_bytes() + gap
    metaindex = metaindex or Stored(EMPTY_BLOCK)
    meta_place = (len(out), len(metaindex.payload()))
    out += metaindex.to_bytes() + gap
    if index is None:
        values = [handle(*place) for place in places] if handles is None else list(handles)
        keys = [stored.key or b"" for stored in blocks]
        keys += [keys[-1] if keys else b""] * (len(values) - len(keys))
        index = Stored(block(zip(keys, values, strict=False), restart_interval=1), index_type)
    index_place = (len(out), len(index.payload()))
    out += index.to_bytes() + gap
    out += Footer(meta_place, index_place).to_bytes() if footer is None else footer
    return TableFile(bytes(out), places, meta_place, index_place)


def separator(a: bytes, b: bytes) -> bytes:
    """The shortest key from `a` up to, but not including, `b` (section 1.6)."""
    n = shared_length(a, b)
    if n < len(a) and n < len(b) and a[n] + 1 < b[n]:
        return a[:n] + bytes([a[n] + 1])
    return a


def successor(a: bytes) -> bytes:
    """A short key not below `a`."""
    for n, byte in enumerate(a):
        if byte != 0xFF:
            return a[:n] + bytes([byte + 1])
    return a


def split(
    pairs: Sequence[Pair], *, block_size: int = 262144, restart_interval: int = 16
) -> list[list[Pair]]:
    """Pairs of each data block, cut where TensorFlow's writer cuts (section 1.7)."""
    groups: list[list[Pair]] = []
    current: list[Pair] = []
    size, previous = 0, b""
    for key, value in pairs:
        if current and len(key) + len(value) >= 2 * block_size:
            groups.append(current)
            current, size = [], 0
        shared = shared_length(previous, key) if len(current) % restart_interval else 0
        current.append((key, value))
        size += len(entry(key[shared:], value, shared=shared))
        restarts = (len(current) + restart_interval - 1) // restart_interval
        if size + 4 * restarts + 4 >= block_size:
            groups.append(current)
            current, size = [], 0
        previous = key
    return [*groups, current] if current else groups


def table(
    pairs: Iterable[Pair],
    *,
    block_size: int = 262144,
    restart_interval: int = 16,
    type: int = RAW,
    index_type: int = RAW,
    **rest: Any,
) -> TableFile:
    """A right table, byte for byte what TensorFlow's writer makes of the same pairs.

    Pairs are taken in the given order, so unsorted and duplicate keys can be had. `rest` goes
    to `assemble`.
    """
    groups = split(list(pairs), block_size=block_size, restart_interval=restart_interval)
    blocks = []
    for n, group in enumerate(groups):
        last = group[-1][0]
        key = separator(last, groups[n + 1][0][0]) if n + 1 < len(groups) else successor(last)
        blocks.append(Stored(block(group, restart_interval=restart_interval), type, key=key))
    return assemble(blocks, index_type=index_type, **rest)


# ---- DataType, section 4

FLOAT, DOUBLE, INT32, UINT8, INT16, INT8, STRING, COMPLEX64, INT64, BOOL = range(1, 11)
QINT8, QUINT8, QINT32, BFLOAT16, QINT16, QUINT16, UINT16, COMPLEX128, HALF = range(11, 20)
RESOURCE, VARIANT, UINT32, UINT64 = range(20, 24)
FLOAT8_E5M2, FLOAT8_E4M3FN, FLOAT8_E4M3FNUZ, FLOAT8_E4M3B11FNUZ, FLOAT8_E5M2FNUZ = range(24, 29)
INT4, UINT4, INT2, UINT2, FLOAT4_E2M1FN = range(29, 34)

NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    number: np.dtype(kind)
    for number, kind in {
        FLOAT: np.float32,
        DOUBLE: np.float64,
        INT32: np.int32,
        UINT8: np.uint8,
        INT16: np.int16,
        INT8: np.int8,
        COMPLEX64: np.complex64,
        INT64: np.int64,
        BOOL: np.bool_,
        QINT8: np.int8,
        QUINT8: np.uint8,
        QINT32: np.int32,
        BFLOAT16: getattr(ml_dtypes, "bfloat16", None),
        QINT16: np.int16,
        QUINT16: np.uint16,
        UINT16: np.uint16,
        COMPLEX128: np.complex128,
        HALF: np.float16,
        UINT32: np.uint32,
        UINT64: np.uint64,
        FLOAT8_E5M2: getattr(ml_dtypes, "float8_e5m2", None),
        FLOAT8_E4M3FN: getattr(ml_dtypes, "float8_e4m3fn", None),
        FLOAT8_E4M3FNUZ: getattr(ml_dtypes, "float8_e4m3fnuz", None),
        FLOAT8_E4M3B11FNUZ: getattr(ml_dtypes, "float8_e4m3b11fnuz", None),
        FLOAT8_E5M2FNUZ: getattr(ml_dtypes, "float8_e5m2fnuz", None),
        INT4: getattr(ml_dtypes, "int4", None),
        UINT4: getattr(ml_dtypes, "uint4", None),
        INT2: getattr(ml_dtypes, "int2", None),
        UINT2: getattr(ml_dtypes, "uint2", None),
        FLOAT4_E2M1FN: getattr(ml_dtypes, "float4_e2m1fn", None),
    }.items()
    if kind is not None  # Before ml_dtypes 0.5, it lacks the last three.
}
NUMERIC_TYPES = tuple(NUMPY_TYPES)
QUANTIZED_TYPES = (QINT8, QUINT8, QINT32, QINT16, QUINT16)
SUB_BYTE_MASKS = {
    number: mask
    for number, mask in {INT4: 0x0F, UINT4: 0x0F, INT2: 3, UINT2: 3, FLOAT4_E2M1FN: 0x0F}.items()
    if number in NUMPY_TYPES
}
TYPE_NUMBERS = {str(d): n for n, d in reversed(NUMPY_TYPES.items()) if n not in QUANTIZED_TYPES}


def number_of(array: np.ndarray[Any, Any]) -> int:
    """The DataType of an array; object arrays hold strings."""
    return STRING if array.dtype == object else TYPE_NUMBERS[str(array.dtype)]


def same(got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> bool:
    """Whether two arrays are equal bit for bit (NaN payloads too), in the bits that count."""
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        return False
    if got.dtype == object:
        return bool(got.ravel().tolist() == wanted.ravel().tolist())
    # Old releases of ml_dtypes carry the sign of an int4 into its high bits.
    mask = SUB_BYTE_MASKS.get(number_of(got), 0xFF)
    first, second = (np.frombuffer(array.tobytes(), np.uint8) & mask for array in (got, wanted))
    return bool(np.array_equal(first, second))


def component_size(number: int) -> int:
    """Bytes that swap together: a complex number is two components."""
    size = NUMPY_TYPES[number].itemsize
    return size // 2 if number in (COMPLEX64, COMPLEX128) else size


# ---- payloads, section 2.4


def dense_payload(array: np.ndarray[Any, Any], number: int, *, big: bool = False) -> bytes:
    """Row-major elements; sub-byte kinds one per byte with zero high bits."""
    data = np.ascontiguousarray(array).tobytes()
    if number in SUB_BYTE_MASKS:
        return bytes(b & SUB_BYTE_MASKS[number] for b in data)
    width = component_size(number)
    if not big or width == 1:
        return data
    return bytes(np.frombuffer(data, np.dtype(f"u{width}")).byteswap().tobytes())


def string_payload(
    values: Sequence[bytes],
    *,
    big: bool = False,
    lengths: Sequence[int] | None = None,
    lengths_crc: int | None = None,
    widths: int = 0,
) -> tuple[bytes, int]:
    """Bytes and masked checksum of a string tensor; the lengths and their checksum may lie."""
    lengths = [len(v) for v in values] if lengths is None else list(lengths)
    wide = [fixed32(n, big=big) if n <= 0xFFFFFFFF else fixed64(n, big=big) for n in lengths]
    running = crc(b"".join(wide))
    check = fixed32(mask(running) if lengths_crc is None else lengths_crc, big=big)
    body = b"".join(values)
    running = crc(body, crc(check, running))
    return b"".join(varint(n, width=widths) for n in lengths) + check + body, mask(running)


def variant_proto(type_name: str, metadata: bytes = b"", tensors: Sequence[bytes] = ()) -> bytes:
    """VariantTensorDataProto."""
    out = field(1, type_name.encode()) if type_name else b""
    out += field(2, metadata) if metadata else b""
    return out + b"".join(field(3, t) for t in tensors)


def tensor_proto(number: int, dims: Sequence[int], *fields: bytes) -> bytes:
    return field(1, number) + field(2, shape_proto(dims)) + b"".join(fields)


def variant_payload(
    elements: Sequence[bytes], *, bad_crc: int | None = None, lengths: Sequence[int] | None = None
) -> tuple[bytes, int]:
    """Bytes and masked checksum; element `bad_crc` gets a wrong stored checksum."""
    out, running = bytearray(), 0
    for n, element in enumerate(elements):
        length = len(element) if lengths is None else lengths[n]
        running = crc(element, crc(fixed64(length), running))
        check = fixed32(mask(running) ^ (1 if n == bad_crc else 0))
        running = crc(check, running)
        out += varint(length) + element + check
    return bytes(out), mask(running)


# ---- bundles, section 2


@dataclass
class Entry:
    """BundleEntryProto; `None` leaves a field out, and zeros are left out as proto3 does."""

    dtype: int = FLOAT
    shape: Sequence[int] | None = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int | None = None
    """Masked, as stored; None leaves the field out."""
    slices: Sequence[Extents] = ()
    unknown_rank: bool = False
    extra: bytes = b""
    """Appended as it is: unknown fields, duplicates, rubbish."""

    def to_bytes(self) -> bytes:
        out = field(1, self.dtype) if self.dtype else b""
        if self.shape is not None:
            out += field(2, shape_proto(self.shape, unknown_rank=self.unknown_rank))
        for number, value in ((3, self.shard), (4, self.offset), (5, self.size)):
            out += field(number, value) if value else b""
        out += b"" if self.crc is None else field32(6, self.crc)
        return out + b"".join(field(7, slice_proto(s)) for s in self.slices) + self.extra

    def but(self, **changes: Any) -> Entry:
        return dataclasses.replace(self, **changes)


@dataclass
class Header:
    """BundleHeaderProto; `num_shards=None` counts the shards."""

    num_shards: int | None = None
    endianness: int = LITTLE
    version: bytes | None = dataclass_field(default_factory=version_proto)
    extra: bytes = b""

    def to_bytes(self, counted: int) -> bytes:
        shards = counted if self.num_shards is None else self.num_shards
        out = (field(1, shards) if shards else b"") + (
            field(2, self.endianness) if self.endianness else b""
        )
        return out + (b"" if self.version is None else field(3, self.version)) + self.extra


def region(extents: Extents, shape: Sequence[int]) -> tuple[slice, ...]:
    """numpy's slices of a slice specification."""
    out = []
    for extent, dim in zip(extents, shape, strict=True):
        start, length = extent or (0, None)
        start = start or 0
        out.append(slice(start, dim if length is None else start + length))
    return tuple(out)


class Bundle:
    """A V2 checkpoint under construction: entries by key, payload bytes by shard.

    `entries` and `shards` are plain dictionaries and `header` an attribute (None: no header at
    all): tests change them as they like before `index()` or `write()`.
    """

    def __init__(
        self, *, header: Header | bytes | None = None, big: bool = False, alignment: int = 1
    ) -> None:
        self.header: Header | bytes | None = header or Header(endianness=BIG if big else LITTLE)
        self.big = big
        self.alignment = alignment
        self.entries: dict[bytes, Entry | bytes] = {}
        self.shards: dict[int, bytearray] = {0: bytearray()}

    # -- payloads

    def put(self, payload: bytes, *, shard: int = 0, offset: int | None = None) -> int:
        """Store payload bytes, at `offset` if given (overlap, gap), and return their offset."""
        data = self.shards.setdefault(shard, bytearray())
        offset = len(data) if offset is None else offset
        data.extend(bytes(max(0, offset + len(payload) - len(data))))
        data[offset : offset + len(payload)] = payload
        data.extend(bytes(-len(data) % self.alignment))
        return offset

    def put_entry(
        self,
        key: str | bytes,
        payload: bytes,
        payload_crc: int,
        *,
        dtype: int,
        shape: Sequence[int] | None,
        shard: int = 0,
        at: int | None = None,
        **changes: Any,
    ) -> Entry:
        """Store a payload and the entry that points at it; `changes` replace entry fields."""
        offset = self.put(payload, shard=shard, offset=at)
        made = Entry(dtype, shape, shard, offset, len(payload), payload_crc).but(**changes)
        self.entries[as_bytes(key)] = made
        return made

    # -- tensors

    def add(
        self,
        name: str | bytes,
        value: Any,
        *,
        dtype: int | None = None,
        shard: int = 0,
        at: int | None = None,
        **changes: Any,
    ) -> None:
        """Add a tensor; an object array or bytes is a string tensor."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value, as_object(value))
        number = number_of(array) if dtype is None else dtype
        if array.dtype == object:
            payload, check = string_payload(array.ravel().tolist(), big=self.big)
        else:
            payload = dense_payload(array, number, big=self.big)
            check = masked_crc(payload)
        options = {"dtype": number, "shape": array.shape, **changes}
        self.put_entry(name, payload, check, shard=shard, at=at, **options)

    def add_strings(
        self, name: str | bytes, values: Sequence[bytes], shape: Sequence[int], **rest: Any
    ) -> None:
        """Add a string tensor with control over its lengths (`string_payload`)."""
        control = {k: rest.pop(k) for k in ("lengths", "lengths_crc", "widths") if k in rest}
        payload, check = string_payload(values, big=self.big, **control)
        self.put_entry(name, payload, check, dtype=STRING, shape=shape, **rest)

    def add_variants(
        self, name: str | bytes, elements: Sequence[bytes], shape: Sequence[int], **rest: Any
    ) -> None:
        """Add a variant tensor of serialized VariantTensorDataProto."""
        control = {k: rest.pop(k) for k in ("bad_crc", "lengths") if k in rest}
        payload, check = variant_payload(elements, **control)
        self.put_entry(name, payload, check, dtype=VARIANT, shape=shape, **rest)

    def add_sliced(
        self,
        name: str | bytes,
        array: np.ndarray[Any, Any],
        slices: Sequence[Extents],
        *,
        dtype: int | None = None,
        shards: Sequence[int] | None = None,
        missing: Sequence[int] = (),
        **changes: Any,
    ) -> None:
        """Add a partitioned tensor: slices first (the n-th in `shards[n]`), then their owner.

        The slices numbered in `missing` are listed but not stored.
        """
        number = number_of(array) if dtype is None else dtype
        for n, extents in enumerate(slices):
            if n not in missing:
                part = np.array(array[region(extents, array.shape)], array.dtype)
                shard = shards[n] if shards else 0
                self.add(slice_key(name, extents), part, dtype=number, shard=shard)
        owner = Entry(number, array.shape, slices=tuple(slices))
        self.entries[as_bytes(name)] = owner.but(**changes)

    def change(self, key: str | bytes, **changes: Any) -> None:
        """Replace fields of an entry already there."""
        made = self.entries[as_bytes(key)]
        assert isinstance(made, Entry)
        self.entries[as_bytes(key)] = made.but(**changes)

    def reseal(self, key: str | bytes) -> None:
        """Set an entry's checksum to that of the bytes it points at (numeric payloads only)."""
        made = self.entries[as_bytes(key)]
        assert isinstance(made, Entry)
        data = self.shards[made.shard][made.offset : made.offset + made.size]
        self.change(key, crc=masked_crc(bytes(data)))

    # -- files

    def pairs(self) -> list[Pair]:
        """The sorted pairs of the index, header first (left out when `header` is None)."""
        out = [
            (key, made if isinstance(made, bytes) else made.to_bytes())
            for key, made in sorted(self.entries.items())
        ]
        if isinstance(self.header, Header):
            return [(b"", self.header.to_bytes(self.count())), *out]
        return out if self.header is None else [(b"", self.header), *out]

    def count(self) -> int:
        return max(self.shards) + 1

    def table(self, **options: Any) -> TableFile:
        return table(self.pairs(), **options)

    def index(self, **options: Any) -> bytes:
        return self.table(**options).data

    def files(self, stem: str, **options: Any) -> Mapping[str, bytes]:
        """File name to bytes, for a prefix of that basename."""
        count = self.count()
        if isinstance(self.header, Header) and self.header.num_shards is not None:
            count = self.header.num_shards
        out = {f"{stem}.index": self.index(**options)}
        for shard, data in self.shards.items():
            out[f"{stem}.data-{shard:05d}-of-{count:05d}"] = bytes(data)
        return out

    def write(self, prefix: str | os.PathLike[str], **options: Any) -> str:
        """Write the files and return the prefix as a string."""
        # Not Path.parent: a prefix of empty basename ends in a slash, which Path would drop.
        folder, stem = os.path.split(os.fspath(prefix))
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, data in self.files(stem, **options).items():
            (Path(folder) / name).write_bytes(data)
        return os.fspath(prefix)


def as_object(value: Any) -> Any:
    """The dtype to build an array of a plain Python value with: bytes must not become `S5`."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return object if isinstance(value, bytes) else None


def split_rows(rows: int, parts: int, rank: int, *, explicit: bool = True) -> list[list[Any]]:
    """Extents that cut dimension 0 into near-equal parts; other dimensions are whole."""
    edges = [rows * n // parts for n in range(parts + 1)]
    return [[(a, b - a)] + [None] * (rank - 1) for a, b in pairwise(edges)]
