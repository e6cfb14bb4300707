"""The usual entry of an index is told at once: and only if the whole look tells the same."""

from __future__ import annotations

import builder as b
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptparse.bundle.entry import BundleEntry
from ckptparse.errors import CheckpointError
from ckptparse.examination.plain_entries import is_plain_entry
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_bundle_pb2 import BundleEntryProto

USUAL = b.Entry(b.FLOAT, (31, 7), 0, 1_000, 868, 12_345).to_bytes()


def looks_right(value: bytes) -> bool:
    """The whole look."""
    try:
        proto = parse_message(BundleEntryProto, value)
        BundleEntry.from_proto(proto, num_shards=DEFAULT_LIMITS.shards, limits=DEFAULT_LIMITS)
    except CheckpointError:
        return False
    return bool(proto.SerializeToString() == value)


@pytest.mark.parametrize(
    ("kind", "shape", "offset", "size"),
    [
        (b.FLOAT, (), 0, 4),
        (b.FLOAT, (3,), 1 << 40, 12),
        (b.FLOAT, (0, 5), 7, 0),
        (b.INT8, (300,), 127, 300),
        (b.FLOAT, (1000, 1000), 128, 4_000_000),
    ],
)
def test_usual_entries_are_told(kind: int, shape: tuple[int, ...], offset: int, size: int) -> None:
    value = b.Entry(kind, shape, 0, offset, size, 99).to_bytes()
    assert looks_right(value)
    assert is_plain_entry(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x08",
        USUAL[:-1],
        USUAL + b"\0",
        USUAL[:-4] + bytes(4),
        # Its shape is longer than the value; its size is another; it has an offset of eleven bytes.
        USUAL[:3] + b"\x7f" + USUAL[4:],
        b.Entry(b.FLOAT, (31, 7), 0, 1_000, 867, 12_345).to_bytes(),
        b"\x08\x01\x12\x00\x20" + b"\xff" * 10 + b"\x01\x28\x04\x35abcd",
        # A number in more bytes than it needs; one that is 0 and yet there; a type never stored.
        b"\x08\x01\x12\x00\x20\x80\x00\x28\x04\x35abcd",
        b"\x08\x01\x12\x00\x20\x00\x28\x04\x35abcd",
        b"\x08\x14\x12\x00\x28\x04\x35abcd",
    ],
)
def test_what_is_wrong_or_unusual_is_not_told(value: bytes) -> None:
    assert not is_plain_entry(value)


@settings(max_examples=400)
@given(st.integers(0, len(USUAL) - 1), st.integers(0, 255), st.integers(0, 255), st.booleans())
@example(4, 0x0A, 0x12, False)
def test_what_is_told_of_changed_entries_is_true(
    place: int, first: int, second: int, insert: bool
) -> None:
    changed = bytearray(USUAL)
    changed[place : place + (0 if insert else 2)] = bytes([first, second])
    if is_plain_entry(bytes(changed)):
        assert looks_right(bytes(changed))


@given(st.binary(max_size=40))
def test_what_is_told_of_any_bytes_is_true(value: bytes) -> None:
    for given_value in (
        value,
        b"\x08\x01\x12" + value,
        b"\x08\x03\x12\x04\x12\x02\x08\x02" + value,
    ):
        if is_plain_entry(given_value):
            assert looks_right(given_value)
