"""Entries decoded by the block, or singly, are those that the bindings decode, damage and all."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import builder as b
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptparse.bundle import shapes, together
from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.decoding import (
    decode_entry,
    decode_header,
    decode_plain_shape,
    decode_shape,
)
from ckptparse.bundle.entry import BundleEntry, BundleHeader, shape_from_proto
from ckptparse.bundle.together import EntryDecoder, _tell_apart
from ckptparse.errors import CheckpointError, LimitError, MalformedError
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto
from ckptparse.table.columns import TableColumns

SHARDS = 3

pytestmark = pytest.mark.proto


def by_bindings(value: bytes, limits: Limits = DEFAULT_LIMITS) -> BundleEntry:
    proto = parse_message(BundleEntryProto, value, limits=limits)
    return BundleEntry.from_proto(proto, num_shards=SHARDS, limits=limits)


def by_pattern(value: bytes, limits: Limits = DEFAULT_LIMITS) -> BundleEntry:
    return decode_entry(value, num_shards=SHARDS, limits=limits)


def by_columns(
    values: list[bytes],
    limits: Limits = DEFAULT_LIMITS,
    *,
    skipped: int = 0,
    singly: list[tuple[bytes, bytes]] | None = None,
) -> EntryColumns:
    """Decode entries together; `singly` takes the key and the value of those that need more."""

    return decoder_of(limits, singly).decode(table_of(values), skipped)


def decoder_of(
    limits: Limits = DEFAULT_LIMITS,
    singly: list[tuple[bytes, bytes]] | None = None,
    *,
    held: int = 1 << 30,
) -> EntryDecoder:
    """Make a decoder of a bundle whose files have so many bytes."""

    def decode_entry(key: bytes, value: bytes) -> BundleEntry:
        if singly is not None:
            singly.append((key, value))
        return by_bindings(value, limits)

    return EntryDecoder(
        num_shards=SHARDS,
        limits=limits,
        decode_entry=decode_entry,
        decode_shape=lambda data: shape_from_proto(
            parse_message(TensorShapeProto, data, limits=limits), limits=limits
        ),
        held=lambda: held,
    )


def table_of(values: list[bytes]) -> TableColumns:
    contents = b"".join(b"key" + value for value in values)
    ends = np.cumsum([3 + len(value) for value in values], dtype=np.int64)
    starts = ends - np.array([len(value) for value in values], np.int64)
    key_ends = np.arange(len(values), dtype=np.int64) * 4 + 3
    keys = b"key\x00" * len(values)
    return TableColumns(contents, keys, key_ends, starts, ends, [len(values)])


def outcome(call: Any, *arguments: Any) -> Any:
    """What a call gives, or the class of the error it raises."""
    try:
        return call(*arguments)
    except CheckpointError as error:
        return type(error)


def check_same(values: list[bytes], limits: Limits = DEFAULT_LIMITS) -> None:
    """Hold that the columns give each good entry and refuse each bad one as the bindings do."""
    single = [outcome(by_bindings, value, limits) for value in values]
    assert [outcome(by_pattern, value, limits) for value in values] == single
    good = [n for n, found in enumerate(single) if isinstance(found, BundleEntry)]
    columns = by_columns([values[n] for n in good], limits)
    assert len(columns) == len(good)
    assert [columns.entry(row) for row in range(len(good))] == [single[n] for n in good]
    for n, found in enumerate(single):
        if n not in good:
            among = [values[g] for g in good[:2]]
            assert outcome(by_columns, [*among, values[n], *among], limits) is found
    with mock.patch.object(together, "_FEW_LOOSE", 0), mock.patch.object(shapes, "_FEW", 0):
        columns = by_columns([values[n] for n in good], limits)
        assert [columns.entry(row) for row in range(len(good))] == [single[n] for n in good]
        if len(good) < len(values):
            refused = next(found for found in single if not isinstance(found, BundleEntry))
            assert outcome(by_columns, values, limits) is refused


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


@settings(max_examples=450, deadline=None)
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


def header_by_bindings(value: bytes, limits: Limits = DEFAULT_LIMITS) -> BundleHeader:
    proto = parse_message(BundleHeaderProto, value, limits=limits)
    return BundleHeader.from_proto(proto, limits=limits)


def shape_by_bindings(value: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, ...]:
    return shape_from_proto(parse_message(TensorShapeProto, value, limits=limits), limits=limits)


def edited(value: bytes, edits: list[tuple[int, int]]) -> bytes:
    out = bytearray(value)
    for place, byte in edits:
        out[place % len(out)] = byte
    return bytes(out)


EDITS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=2)


@settings(max_examples=500, deadline=None)
@given(
    st.builds(
        b.Header,
        num_shards=st.integers(0, 130) | st.integers(-(2**31), 2**31 - 1),
        endianness=st.integers(0, 2),
        version=st.none()
        | st.builds(b.version_proto, st.integers(0, 200), st.integers(0, 2), st.lists(st.just(1))),
        extra=st.sampled_from([b"", b.field(99, 1), b"\x08"]),
    ).map(lambda header: header.to_bytes(1)),
    EDITS,
)
def test_headers_decode_alike(value: bytes, edits: list[tuple[int, int]]) -> None:
    for data in (value, edited(value, edits) if value else value):
        for limits in (DEFAULT_LIMITS, Limits(shards=100)):
            wanted = outcome(header_by_bindings, data, limits)
            assert outcome(lambda *call: decode_header(call[0], limits=call[1]), data, limits) == (
                wanted
            )


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.integers(0, 300) | st.integers(-(2**63), 2**63 - 1), max_size=4).map(b.shape_proto),
    EDITS,
)
def test_shapes_decode_alike(value: bytes, edits: list[tuple[int, int]]) -> None:
    for data in (value, edited(value, edits) if value else value):
        for limits in (DEFAULT_LIMITS, Limits(rank=2)):
            wanted = outcome(shape_by_bindings, data, limits)
            assert outcome(lambda *call: decode_shape(call[0], limits=call[1]), data, limits) == (
                wanted
            )


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(
                st.integers(0, 300) | st.integers(-(2**63), 2**63 - 1) | st.just(2**40), max_size=4
            ).map(b.shape_proto),
            EDITS,
        ).map(lambda made: edited(*made) if made[0] else made[0]),
        max_size=6,
    ),
    st.integers(0, 3),
)
def test_shapes_that_are_decoded_together_are_decoded_alike(
    values: list[bytes], most_rank: int
) -> None:
    limits = Limits(rank=most_rank)
    data = b"".join(values)
    ends = np.cumsum([len(value) for value in values], dtype=np.int64)
    starts = ends - np.array([len(value) for value in values], np.int64)
    odd: list[int] = []
    decode = partial(decode_shape, limits=limits)
    with mock.patch.object(shapes, "_FEW", 0):
        made = shapes.Shapes(decode, most_rank=most_rank, take_odd=odd.append)
        found = made.find(data + bytes(16), starts, ends)
    one_by_one = shapes.Shapes(decode, most_rank=most_rank, take_odd=lambda _: None)
    assert list(zip(*found, strict=True)) == [one_by_one[value] for value in values]
    # A shape that breaks a rule in the common form may be told with the others, or is odd.
    assert sum(odd) <= sum(decode_plain_shape(value) is None for value in set(values))


def test_many_shapes_need_no_bindings() -> None:
    values = [b.shape_proto([number, 0, 2**50 + number][: number % 4]) for number in range(200)]
    ends = np.cumsum([len(value) for value in values], dtype=np.int64)
    starts = np.array([0, *ends[:-1]], np.int64)
    made = shapes.Shapes(refused, most_rank=254, take_odd=refused)
    found, counts = made.find(b"".join(values) + bytes(16), starts, ends)
    assert found == [(number, 0, 2**50 + number)[: number % 4] for number in range(200)]
    assert set(counts.tolist()) == {0, 1, *range(1, 200, 4)}


def refused(_: object) -> Any:
    raise AssertionError("it is called")


@pytest.mark.parametrize("size", [1, 127, 128, 300, *(1 << 7 * n for n in range(2, 9)), 2**63 - 1])
def test_the_common_form_needs_no_bindings(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    shape = b.shape_proto([size, 0])
    entry = b.Entry(b.INT8, (0, size, 1), 2, size, 0, size % 1000).to_bytes()
    header = b.Header(num_shards=min(size, 2**28 - 1), endianness=size % 2).to_bytes(1)
    limits = Limits(shards=1 << 28)
    monkeypatch.setattr("ckptparse.proto.parsing.parse_message", None)
    assert decode_shape(shape, limits=limits) == (size, 0)
    found = decode_entry(entry, num_shards=3, limits=limits)
    assert (found.shape, found.shard_id, found.offset) == ((0, size, 1), 2, size)
    assert decode_header(header, limits=limits).num_shards == min(size, 2**28 - 1)


def test_no_entries_decode_to_no_rows() -> None:
    assert len(by_columns([])) == 0


# ---- which entries are decoded together


def takes_the_long_way(value: bytes, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Tell whether an entry between two usual ones goes through the bindings."""
    usual = right_entry(b.INT16, [3], shard=1, offset=9, crc=7).to_bytes()
    singly: list[tuple[bytes, bytes]] = []
    found = outcome(lambda: by_columns([usual, value, usual], limits, singly=singly))
    wanted = outcome(by_bindings, value, limits)
    if isinstance(found, EntryColumns):
        assert [found.entry(row) for row in range(3)] == [
            by_bindings(usual),
            wanted,
            by_bindings(usual),
        ]
    else:
        assert found is wanted
    # The last entry of all has no bytes after it.
    last = outcome(by_columns, [usual, value], limits)
    assert (last.entry(1) if isinstance(last, EntryColumns) else last) == wanted
    assert singly in ([], [(b"key", value)])
    return bool(singly)


def coded(**widths: int) -> bytes:
    """Code an entry of two floats; a field has its number in so many bytes; 0 leaves it out."""
    body = {
        "dtype": (0x08, b.FLOAT),
        "shape": (0x12, 4),
        "shard": (0x18, 2),
        "offset": (0x20, 5),
        "size": (0x28, 8),
    }
    out = b""
    for name, (tag, number) in body.items():
        width = widths.get(name, 1)
        out += bytes([tag]) + b.varint(number, width=width) if width else b""
        out += b"\x12\x02\x08\x02" if name == "shape" and width else b""
    return out + b"\x35\1\2\3\4"


CRC = b"\x35\1\2\3\4"
OVERLONG = b"\x82\x80\x80\x80"


@pytest.mark.parametrize(
    ("value", "long"),
    [
        (coded(), False),
        (coded(dtype=2), True),
        (coded(dtype=0), True),
        (coded(shape=2), True),
        (coded(shape=0), True),
        (coded(shard=0), False),
        (coded(shard=4), False),
        (coded(shard=9), False),
        (coded(shard=10), True),
        (coded(offset=0), False),
        (coded(offset=9), False),
        (coded(offset=10), True),
        (coded(size=0), True),
        (coded(size=9), False),
        (coded(size=10), True),
        (coded(shard=4, offset=9, size=9), False),
        (coded(shard=0, offset=0), False),
        (coded()[:-5], True),
        (coded()[:-1], True),
        (coded() + b"\x40", True),
        (coded() + b"\x40\x01", True),
        (coded() + b"\x35\1\2\3\4", True),
        (coded()[:-5] + b"\x20\x05" + coded()[-5:], True),
        # Varints, shapes and checksums that the end of the bytes cuts off.
        (coded()[:1], True),
        (coded()[:2], True),
        (coded()[:3], True),
        (coded()[:4], True),
        (coded()[:7], True),
        (coded()[:8], True),
        (coded()[:9], True),
        (coded(offset=9)[:16], True),
        (coded(offset=9)[:13], True),
        (coded(size=9)[:-6], True),
        (coded(size=9)[:-7], True),
        (b"", True),
        (b"\x08", True),
        (b"\x08\x01\x12\x7f\x35\1\2\3\4", True),
        # A number of too many bytes, of which the last ones look like the next field.
        (b"\x08\x01\x12\x04\x12\x02\x08\x02\x18" + OVERLONG + b"\x20\x05\x28\x08" + CRC, True),
        (b"\x08\x01\x12\x04\x12\x02\x08\x02\x20\x85" + bytes([128] * 8) + b"\x28\x08" + CRC, True),
        # A field of a shape that nobody knows; the same if the shape's size is 16512 and not 128.
        (b"\x08\x01\x12\x0e\x81\x01" + bytes(8) + b"\x12\x02\x08\x02\x28\x08" + CRC, False),
        (
            b"\x08\x01\x12\x80\x81\x01"
            + bytes(8)
            + b"\x12\x02\x08\x01" * 29
            + b"\x08\x00\x28\x04"
            + CRC,
            True,
        ),
        # The shape reaches over the checksum.
        (b"\x08\x01\x12\x05\x35\1\2\3\4", True),
    ],
)
def test_an_entry_of_the_usual_form_is_decoded_with_the_others(value: bytes, long: bool) -> None:
    assert takes_the_long_way(value) == long


MOST = (1 << 63) - 1


@pytest.mark.parametrize(
    ("said", "long"),
    [
        (b.Entry(b.FLOAT, (2,), size=8), False),
        (b.Entry(b.FLOAT, (2,), size=9), True),
        (b.Entry(b.FLOAT, (2,), size=4), True),
        (b.Entry(b.FLOAT, (), size=4), False),
        (b.Entry(b.FLOAT, (0,), size=0), False),
        (b.Entry(b.FLOAT, (0,), size=2), True),
        (b.Entry(b.BOOL, (5, 3), size=15), False),
        (b.Entry(b.COMPLEX128, (3,), size=48), False),
        (b.Entry(b.INT8, (MOST,), size=MOST, offset=MOST), False),
        (b.Entry(b.INT8, (1 << 62, 2), size=0), True),
        (b.Entry(b.INT8, (-1,), size=0), True),
        (b.Entry(b.FLOAT, (2,), size=8, shard=2), False),
        (b.Entry(b.FLOAT, (2,), size=8, shard=3), True),
        (b.Entry(b.FLOAT, (2,), size=8, shard=-1), True),
        (b.Entry(b.FLOAT, (2,), size=8, offset=-1), True),
        (b.Entry(b.FLOAT, (2,), size=-1), True),
        (b.Entry(20, (2,), size=8), True),
        (b.Entry(99, (2,), size=8), False),
        (b.Entry(100, (2,), size=8), True),
        (b.Entry(127, (2,), size=8), True),
        (b.Entry(128, (2,), size=8), True),
        (b.Entry(b.STRING, (3,), size=3), False),
        (b.Entry(b.STRING, (3,), size=200), False),
        (b.Entry(b.STRING, (3,), size=2), True),
        (b.Entry(b.STRING, (4,), size=9), True),
        (b.Entry(b.VARIANT, (3,), size=9), False),
        (b.Entry(b.VARIANT, (4,), size=9), True),
        (b.Entry(b.STRING, (), size=1), False),
        (b.Entry(b.FLOAT, (4,), size=16), False),
        # A shape's size is one byte: 31 dimensions take 124 bytes, 32 take 128.
        (b.Entry(b.FLOAT, (1,) * 31, size=4), False),
        (b.Entry(b.FLOAT, (1,) * 32, size=4), True),
    ],
)
def test_an_entry_whose_fields_agree_is_decoded_with_the_others(said: b.Entry, long: bool) -> None:
    for crc in (0, 1, 1 << 31, (1 << 32) - 1):
        assert takes_the_long_way(said.but(crc=crc).to_bytes(), Limits(strings=3)) == long
    # A checksum of 0 is left out.
    assert takes_the_long_way(said.to_bytes(), Limits(strings=3))


def test_the_first_entries_of_a_table_are_skipped() -> None:
    entries = [right_entry(b.FLOAT, [n], shard=1, offset=n, crc=n).to_bytes() for n in range(5)]
    entries[3] += b"\x40\x01"
    singly: list[tuple[bytes, bytes]] = []
    columns = by_columns(entries, skipped=2, singly=singly)
    assert [columns.entry(row) for row in range(3)] == list(map(by_bindings, entries[2:]))
    assert singly == [(b"key", entries[3])]


def test_an_entry_that_ends_before_its_shape_is_malformed_beside_any_other() -> None:
    long = b.Entry(b.FLOAT, (1,) * 8, size=4, crc=1).to_bytes()
    assert by_columns([long]).shapes == [(1,) * 8]
    with pytest.raises(CheckpointError):
        by_columns([long, b"\x08\x01\x12"])


def test_an_entry_in_slices_is_kept_beside_the_columns() -> None:
    entries = [
        right_entry(b.FLOAT, [4], crc=1).to_bytes(),
        b.Entry(b.FLOAT, [4], slices=[[(0, 2)], [(2, 2)]]).to_bytes(),
    ]
    columns = by_columns(entries)
    assert list(columns.others) == [1] and columns.shapes == [(4,), (4,)]
    assert columns.data_types.tolist() == [b.FLOAT] * 2


def test_a_part_of_columns_keeps_the_entries_beside_them() -> None:
    entries = [right_entry(b.FLOAT, [n], offset=n, crc=1).to_bytes() for n in range(4)]
    entries[1:1] = [b.Entry(b.FLOAT, [4], slices=[[(0, 2)], [(2, 2)]]).to_bytes()]
    columns = by_columns(entries)
    for low in range(5):
        for high in range(low, 6):
            part = columns.part(low, high)
            assert [part.entry(row) for row in range(len(part))] == [
                columns.entry(row) for row in range(low, high)
            ]
            assert list(part.others) == ([1 - low] if low <= 1 < high else [])


# ---- shapes that are equal


def told_apart(*spans: bytes, after: bytes = b"") -> tuple[int, list[bytes]]:
    """Return how many spans are decoded, and for each the one that is decoded in its place."""
    contents = b"".join(b"ab" + span for span in spans) + after
    ends = np.cumsum([2 + len(span) for span in spans], dtype=np.int64)
    starts = ends - np.array(list(map(len, spans)), np.int64)
    first, which = _tell_apart(contents + bytes(32), starts, ends)
    met = [contents[starts[row] : ends[row]] for row in first.tolist()]
    return len(met), [met[number] for number in which.tolist()]


def test_equal_shapes_are_decoded_once() -> None:
    for size in (0, 1, 3, 7, 8, 9, 15, 16, 17, 24, 25, 31, 32):
        spans = [bytes([n]) * size for n in (1, 2, 1, 3, 2)]
        assert told_apart(*spans) == (len(set(spans)), spans)
        # What differs in one byte is another one, and so is what has a zero more.
        for place in range(size):
            other = bytes(n == place for n in range(size))
            assert told_apart(bytes(size), other, bytes(size)) == (
                2,
                [bytes(size), other, bytes(size)],
            )
        if size:
            assert told_apart(bytes(size), bytes(size - 1)) == (2, [bytes(size), bytes(size - 1)])
    assert told_apart(b"", b"x") == (2, [b"", b"x"])
    # What follows does not count.
    assert told_apart(b"xyz", b"xyz", b"xyz", after=b"q") == (1, [b"xyz"] * 3)


def test_long_shapes_are_decoded_each() -> None:
    spans = [b"x" * 33, b"y", b"x" * 33, b"y"]
    assert told_apart(*spans) == (4, spans)
    assert told_apart() == (0, [])


def test_shapes_that_are_made_to_be_mixed_up_are_decoded_each() -> None:
    """Who knows how bytes become one number can choose two of the same number."""
    mixer, every = 0x9E3779B97F4A7C15, (1 << 64) - 1

    def mix(state: int, word: int) -> int:
        state = (state ^ word) * mixer & every
        return state ^ (state >> 32)

    for size in (16, 24):
        first, other = 0x1122334455667788, 0x99AABBCCDDEEFF00
        second = 0x0102030405060708
        twin = second ^ mix(size, first) ^ mix(size, other)
        spans = [
            b"".join(word.to_bytes(8, "little") for word in (*pair, *[5] * (size // 8 - 2)))
            for pair in ((first, second), (other, twin), (first, second))
        ]
        assert told_apart(*spans) == (3, spans)


def tag(field: int, wire: int, width: int = 0) -> bytes:
    """A field's tag, in so many bytes at least."""
    return b.varint(field << 3 | wire, width=width or 1)


CHECKSUM = tag(6, 5) + b"\1\2\3\4"
DTYPE, SHAPE, SIZE = b"\x08\x01", b"\x12\x04\x12\x02\x08\x02", b"\x28\x08"
LOOSE = {
    "numbers that take more bytes": b"\x08\x81\x00\x12\x04\x12\x02\x08\x02\x28\x88\x80\x00"
    + CHECKSUM,
    "another order": CHECKSUM + SIZE + SHAPE + DTYPE,
    "no checksum": DTYPE + SHAPE + SIZE,
    "no shape": DTYPE + b"\x28\x04",
    "a number twice": DTYPE + SHAPE + b"\x28\x05" + SIZE + CHECKSUM,
    "unknown numbers": DTYPE + SHAPE + SIZE + CHECKSUM + tag(99, 0) + b"\xff\x01",
    "unknown bytes": DTYPE + SHAPE + tag(15, 2) + b"\x03abc" + SIZE + CHECKSUM,
    "unknown words": tag(9, 1) + b"12345678" + DTYPE + SHAPE + SIZE + tag(10, 5) + b"1234",
    "an unknown kind": b"\x08\x37" + SHAPE + b"\x28\x03" + CHECKSUM,
}


@pytest.mark.parametrize("value", LOOSE.values(), ids=LOOSE)
def test_many_entries_that_no_writer_makes_so_are_decoded_together(value: bytes) -> None:
    singly: list[tuple[bytes, bytes]] = []
    columns = by_columns([value] * 40, singly=singly)
    assert not singly
    assert {columns.entry(row) for row in range(40)} == {by_bindings(value)}


def test_entries_whose_fields_come_in_many_orders_are_decoded_together() -> None:
    fields = [DTYPE, SHAPE, b"\x18\x02", b"\x20\x05", SIZE, CHECKSUM]
    values = [b"".join(fields[at:] + fields[:at]) for at in range(6)] + [*LOOSE.values()]
    singly: list[tuple[bytes, bytes]] = []
    columns = by_columns(values * 3, singly=singly)
    assert not singly
    assert [columns.entry(row) for row in range(len(values))] == list(map(by_bindings, values))


def test_tags_that_take_more_bytes_are_understood() -> None:
    # The pure Python runtime of protobuf 3.20 takes such a tag for one that it does not know.
    value = tag(1, 0, 3) + b"\x01" + SHAPE + tag(5, 0, 5) + b"\x08" + CHECKSUM
    columns = by_columns([value] * 40)
    wanted = by_bindings(DTYPE + SHAPE + SIZE + CHECKSUM)
    assert {columns.entry(row) for row in range(40)} == {wanted}


# Fields in another order, and an entry of the usual form whose shape has a name in a dimension.
SHUFFLED = CHECKSUM + SIZE + SHAPE + DTYPE
NAMED = DTYPE + b"\x12\x07" + b"\x12\x05\x08\x02\x12\x01x" + SIZE + CHECKSUM


def decode_parts(counts: list[int], value: bytes, allowed: int) -> Any:
    """Decode entries in several tables of one bundle without other bytes; the limit, or none."""
    decoder = decoder_of(Limits(small_tensors=allowed), held=0)
    for count in counts:
        found = outcome(decoder.decode, table_of([value] * count), 0)
        if found is LimitError:
            return found
        assert {found.entry(row) for row in range(count)} == {by_bindings(value)}
    return None


@pytest.mark.parametrize(
    ("counts", "allowed", "wanted"),
    [
        ([16], 0, None),
        ([17], 2, None),
        ([17], 1, LimitError),
        ([32], 2, None),
        ([33], 2, LimitError),
        ([17, 31], 3, None),
        ([17, 32], 3, LimitError),
        ([16, 17], 3, None),
        ([16, 17], 2, LimitError),
    ],
)
def test_entries_of_other_forms_are_counted_by_sixteens_for_the_whole_bundle(
    counts: list[int], allowed: int, wanted: Any
) -> None:
    assert decode_parts(counts, SHUFFLED, allowed) is wanted


@pytest.mark.parametrize(
    ("counts", "allowed", "wanted"),
    [
        ([16], 0, None),
        ([17], 17, None),
        ([17], 16, LimitError),
        ([17, 17], 34, None),
        ([17, 17], 33, LimitError),
    ],
)
def test_entries_that_cannot_be_read_together_are_counted_one_by_one(
    counts: list[int], allowed: int, wanted: Any
) -> None:
    value = DTYPE + SHAPE + SIZE + (tag(30, 0) + b"\x00") * 20
    assert decode_parts(counts, value, allowed) is wanted


@pytest.mark.parametrize(
    ("counts", "allowed", "wanted"), [([1], 1, None), ([1], 0, LimitError), ([9, 9], 1, None)]
)
def test_a_shape_of_another_form_is_counted_once_for_the_whole_bundle(
    counts: list[int], allowed: int, wanted: Any
) -> None:
    assert decode_parts(counts, NAMED, allowed) is wanted


def test_shapes_of_another_form_are_counted_with_the_entries_that_are_read_alone() -> None:
    values = [NAMED.replace(b"x", bytes([letter])) for letter in b"abc"]
    for allowed, wanted in ((3, EntryColumns), (2, LimitError)):
        decoder = decoder_of(Limits(small_tensors=allowed), held=0)
        found = outcome(decoder.decode, table_of(values), 0)
        assert wanted in (found, type(found))
    decoder = decoder_of(Limits(small_tensors=19), held=0)
    decoder.decode(table_of(values), 0)
    alone = DTYPE + SHAPE + SIZE + (tag(30, 0) + b"\x00") * 20
    assert outcome(decoder.decode, table_of([alone] * 17), 0) is LimitError


@pytest.mark.parametrize("skipped", [0, 1])
@pytest.mark.parametrize("kind", [0, 20, 100])
def test_behind_an_entry_of_a_kind_that_is_never_stored_nothing_is_decoded(
    kind: int, skipped: int
) -> None:
    never = b"\x08" + bytes([kind]) + SHAPE + SIZE + CHECKSUM
    usual = DTYPE + SHAPE + SIZE + CHECKSUM
    singly: list[tuple[bytes, bytes]] = []
    for before, behind in ((0, [NAMED]), (1, [NAMED, never]), (3, [NAMED] * 3)):
        decoder = decoder_of(Limits(small_tensors=0), singly, held=0)
        values = [NAMED] * skipped + [usual] * before + [never, *behind]
        assert outcome(decoder.decode, table_of(values), skipped) is MalformedError
    assert singly == [(b"key", never)] * 3


ODD = {
    "a second shape": DTYPE + SHAPE + b"\x12\x00" + SIZE + CHECKSUM,
    "a group": DTYPE + SHAPE + SIZE + tag(20, 3) + tag(20, 4),
    "a field of another kind": DTYPE + SHAPE + SIZE + tag(4, 2) + b"\x00",
    "more fields than are read": (DTYPE + SHAPE + SIZE) + (tag(30, 0) + b"\x00") * 20,
    "a data type of more than one byte": b"\x08\x81\x80\x80\x80\x10" + SHAPE + SIZE,
    "a shard of more than 31 bits": DTYPE + SHAPE + b"\x18\x80\x80\x80\x80\x10" + SIZE,
    "no number of a field": tag(0, 0) + b"\x00" + DTYPE + SHAPE + SIZE,
    "a tag of more than 32 bits": b"\xf8\xff\xff\xff\x7f\x00" + DTYPE + SHAPE + SIZE,
    "a tag of six bytes": DTYPE + SHAPE + tag(5, 0, 6) + b"\x08" + CHECKSUM,
    "a tag of six bytes, the last of which looks like a number": DTYPE
    + SHAPE
    + tag(5, 0, 5)[:-1]
    + b"\x80\x04"
    + SIZE
    + CHECKSUM,
    "a tag of 2^32": b"\x80\x80\x80\x80\x10\x00" + DTYPE + SHAPE + SIZE,
    "a length beyond the end": DTYPE + SHAPE + SIZE + tag(15, 2) + b"\x04abc",
    "a length that ends the entry before its numbers": DTYPE + SHAPE + b"\x28",
    "a number of ten bytes": DTYPE + SHAPE + SIZE + b"\x20" + b"\x80" * 9 + b"\x01",
    "slices": b.Entry(b.FLOAT, (4,), slices=([(0, 2)], [(2, 2)])).to_bytes(),
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_what_is_odder_still_is_left_to_the_bindings(value: bytes) -> None:
    singly: list[tuple[bytes, bytes]] = []
    found = outcome(lambda: by_columns([value] * 40, singly=singly).entry(7))
    assert singly[0] == (b"key", value)
    assert found == outcome(by_bindings, value)
