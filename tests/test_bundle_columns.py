"""Entries decoded by the block are those that the bindings decode one by one, damage and all."""

from __future__ import annotations

from typing import Any

import builder as b
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.entry import BundleEntry, shape_from_proto
from ckptparse.bundle.together import EntryDecoder
from ckptparse.errors import CheckpointError
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto
from ckptparse.table.columns import TableColumns

SHARDS = 3

pytestmark = pytest.mark.proto


def by_bindings(value: bytes, limits: Limits = DEFAULT_LIMITS) -> BundleEntry:
    proto = parse_message(BundleEntryProto, value, limits=limits)
    return BundleEntry.from_proto(proto, num_shards=SHARDS, limits=limits)


def by_columns(values: list[bytes], limits: Limits = DEFAULT_LIMITS) -> EntryColumns:
    decoder = EntryDecoder(
        num_shards=SHARDS,
        limits=limits,
        decode_entry=lambda _, value: by_bindings(value, limits),
        decode_shape=lambda data: shape_from_proto(
            parse_message(TensorShapeProto, data, limits=limits), limits=limits
        ),
    )
    contents = b"".join(b"key" + value for value in values)
    ends = np.cumsum([3 + len(value) for value in values], dtype=np.int64)
    starts = ends - np.array([len(value) for value in values], np.int64)
    key_ends = np.arange(len(values), dtype=np.int64) * 4 + 3
    keys = b"key\x00" * len(values)
    return decoder.decode(TableColumns(contents, keys, key_ends, starts, ends, [len(values)]), 0)


def outcome(call: Any, *arguments: Any) -> Any:
    """What a call gives, or the class of the error it raises."""
    try:
        return call(*arguments)
    except CheckpointError as error:
        return type(error)


def check_same(values: list[bytes], limits: Limits = DEFAULT_LIMITS) -> None:
    """Hold that the columns give each good entry and refuse each bad one as the bindings do."""
    single = [outcome(by_bindings, value, limits) for value in values]
    good = [n for n, found in enumerate(single) if isinstance(found, BundleEntry)]
    columns = by_columns([values[n] for n in good], limits)
    assert len(columns) == len(good)
    assert [columns.entry(row) for row in range(len(good))] == [single[n] for n in good]
    for n, found in enumerate(single):
        if n not in good:
            among = [values[g] for g in good[:2]]
            assert outcome(by_columns, [*among, values[n], *among], limits) is found


def right_entry(number: int, shape: list[int], **where: Any) -> b.Entry:
    count = 1
    for size in shape:
        count *= size
    width = b.NUMPY_TYPES[number].itemsize if number in b.NUMPY_TYPES else 1
    return b.Entry(number, shape, size=count * width, **where)


RIGHT = st.builds(
    right_entry,
    number=st.sampled_from([*b.NUMERIC_TYPES, b.STRING, b.VARIANT]),
    shape=st.lists(st.integers(0, 300), max_size=4),
    shard=st.integers(0, SHARDS - 1),
    offset=st.integers(0, 127) | st.integers(0, 2**63 - 1),
    crc=st.none() | st.integers(0, 2**32 - 1),
).map(b.Entry.to_bytes)
ANY = st.builds(
    b.Entry,
    dtype=st.integers(-1, 140) | st.integers(-(2**31), 2**31 - 1),
    shape=st.none() | st.lists(st.integers(-1, 5) | st.integers(-(2**63), 2**63 - 1), max_size=4),
    shard=st.integers(-1, 4) | st.integers(-(2**31), 2**31 - 1),
    offset=st.integers(-1, 100) | st.integers(-(2**63), 2**63 - 1),
    size=st.integers(-1, 100) | st.integers(-(2**63), 2**63 - 1),
    crc=st.none() | st.integers(0, 2**32 - 1),
    slices=st.lists(st.lists(st.none() | st.just((0, 1)), max_size=2), max_size=1),
    unknown_rank=st.booleans(),
    extra=st.sampled_from([b"", b.field(99, 1), b.field(4, 1), b.field32(6, 5), b"\x0d", b"\x00"]),
).map(b.Entry.to_bytes)


@settings(max_examples=300, deadline=None)
@given(st.lists(RIGHT, max_size=8))
def test_right_entries_decode_alike(values: list[bytes]) -> None:
    check_same(values)


@settings(max_examples=400, deadline=None)
@given(st.lists(RIGHT | ANY, max_size=6))
def test_entries_of_any_fields_decode_alike(values: list[bytes]) -> None:
    check_same(values)


@settings(max_examples=600, deadline=None)
@given(RIGHT, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3), st.data())
def test_entries_with_damaged_bytes_decode_alike(
    value: bytes, edits: list[tuple[int, int]], data: st.DataObject
) -> None:
    damaged = bytearray(value)
    for place, byte in edits:
        damaged[place % len(damaged)] = byte
    size = data.draw(st.integers(0, len(damaged)))
    check_same([bytes(damaged), bytes(damaged[:size]), bytes(damaged[size:])])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_bytes_decode_alike(values: list[bytes]) -> None:
    check_same(values)


def test_every_single_bit_flip_of_an_entry_decodes_alike() -> None:
    value = right_entry(b.FLOAT, [2, 300], shard=1, offset=70_000, crc=0x12345678).to_bytes()
    flipped = []
    for place in range(len(value) * 8):
        out = bytearray(value)
        out[place // 8] ^= 1 << place % 8
        flipped.append(bytes(out))
    check_same(flipped)


@pytest.mark.parametrize("width", range(1, 11))
@pytest.mark.parametrize("field", [0x08, 0x18, 0x20, 0x28])
def test_numbers_coded_wider_than_needed_decode_alike(field: int, width: int) -> None:
    parts = {
        0x08: b.varint(b.FLOAT), 0x12: b.varint(4) + b"\x12\x02\x08\x02",
        0x18: b.varint(1), 0x20: b.varint(9), 0x28: b.varint(8), 0x35: b"\1\2\3\4",
    }  # fmt: skip
    parts[field] = b.varint({0x08: b.FLOAT, 0x18: 1, 0x20: 9, 0x28: 8}[field], width=width)
    value = b"".join(bytes([tag]) + body for tag, body in parts.items())
    check_same([value])
    assert isinstance(by_bindings(value), BundleEntry)


@pytest.mark.parametrize(
    "limits",
    [Limits(rank=1), Limits(strings=3), Limits(slices=0), Limits(message_bytes=20)],
    ids=str,
)
def test_limits_hold_alike(limits: Limits) -> None:
    check_same(
        [
            right_entry(b.FLOAT, [2], crc=1).to_bytes(),
            right_entry(b.FLOAT, [2, 2], crc=1).to_bytes(),
            right_entry(b.STRING, [3], crc=1).to_bytes(),
            right_entry(b.STRING, [4], crc=1).to_bytes(),
            b.Entry(b.FLOAT, [2], slices=[[(0, 1)]]).to_bytes(),
        ],
        limits,
    )


def test_no_entries_decode_to_no_rows() -> None:
    assert len(by_columns([])) == 0
