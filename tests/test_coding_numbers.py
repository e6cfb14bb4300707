"""Varints, checksums and order-preserving codes against the builder's own and fixed bytes."""

from __future__ import annotations

import builder as b
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptparse.coding import checksum, varint
from ckptparse.coding.checksum import combine_crc, crc32c, crc_of_zeros, mask_crc, unmask_crc
from ckptparse.coding.ordered_code import (
    decode_number,
    decode_signed,
    decode_string,
    encode_number,
    encode_signed,
    encode_string,
)
from ckptparse.coding.varint import decode_varint, decode_varints, encode_varint

UINT32 = st.integers(0, (1 << 32) - 1)
UINT64 = st.integers(0, (1 << 64) - 1)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)

# ---- varints


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (16383, "ff7f"),
        (16384, "808001"), ((1 << 32) - 1, "ffffffff0f"), ((1 << 64) - 1, "ffffffffffffffffff01"),
    ],
)  # fmt: skip
def test_varints_have_their_known_codes(value: int, code: str) -> None:
    data = bytes.fromhex(code)
    assert encode_varint(value) == data
    assert decode_varint(data + b"rest", 0, len(data)) == (value, len(data))


@given(UINT64, st.binary(max_size=5))
def test_varints_round_trip_at_any_position(value: int, before: bytes) -> None:
    data = before + encode_varint(value)
    assert data[len(before) :] == b.varint(value)
    assert decode_varint(data, len(before), len(data)) == (value, len(data))
    assert decode_varint(memoryview(data), len(before), len(data)) == (value, len(data))


@given(UINT64, st.integers(1, 10))
def test_varints_wider_than_needed_are_accepted(value: int, width: int) -> None:
    data = b.varint(value, width=width)
    assert decode_varint(data, 0, len(data)) == (value, len(data))


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (b"", 64), (b"\x80", 64), (b"\xff" * 9, 64), (b"\xff" * 10, 64),
        (b"\x80" * 10 + b"\0", 64), (b"\xff" * 9 + b"\x02", 64), (b"\xff" * 4 + b"\x10", 32),
        (b"\x80" * 5 + b"\0", 32), (b"\x80\x80\x80\x80\x80", 32),
        (b"\x80" * 5 + b"\0", 35),
    ],
)  # fmt: skip
def test_varints_cut_off_or_too_wide_are_value_errors(data: bytes, bits: int) -> None:
    with pytest.raises(ValueError, match="varint"):
        decode_varint(data, 0, len(data), bits=bits)


def test_varint_that_runs_past_its_end_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="varint"):
        decode_varint(b"\x80\x01", 0, 1)


def test_varints_are_decoded_together() -> None:
    values = [0, 127, 128, 300, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    for count in range(1, len(values) + 1):
        data = b"".join(map(b.varint, values[:count]))
        found, size = decode_varints(np.frombuffer(data + b"\x05\x80", np.uint8), count)
        assert (found.tolist(), size) == (values[:count], len(data))


@pytest.mark.parametrize(
    ("data", "count", "words"),
    [
        (b"\x01\x02", 3, "cut off"),
        (b"", 1, "cut off"),
        (b"\x80\x80", 1, "cut off"),
        (b"\x01\x80\x02\x80", 3, "cut off"),
        (b"\x80" * 10 + b"\0", 1, "cut off, or longer than 10 bytes"),
        (b"\x80" * 10 + b"\0\0", 2, "longer than 10 bytes"),
        (b"\xff" * 9 + b"\x02", 1, "wider than 64 bits"),
        (b"\0" + b"\x80" * 9 + b"\x03\x01", 3, "wider than 64 bits"),
    ],
)
def test_varints_that_cannot_be_decoded_together_are_value_errors(
    data: bytes, count: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        decode_varints(np.frombuffer(data, np.uint8), count)


def test_negative_numbers_have_no_varint() -> None:
    with pytest.raises(ValueError, match="negative"):
        encode_varint(-1)


# ---- checksums


def test_checksums_have_their_known_values() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert mask_crc(0) == 0xA282EAD8
    assert unmask_crc(0) == 2324967102


@given(UINT32)
def test_masking_is_undone_by_unmasking(value: int) -> None:
    assert mask_crc(value) == b.mask(value)
    assert unmask_crc(mask_crc(value)) == value
    assert mask_crc(unmask_crc(value)) == value


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_checksums_of_parts_combine_to_that_of_the_whole(first: bytes, second: bytes) -> None:
    whole = crc32c(first + second)
    assert crc32c(second, crc32c(first)) == whole
    assert combine_crc(crc32c(first), crc32c(second), len(second)) == whole


@pytest.mark.parametrize("size", [0, 1, 7, 8, 1000, 1 << 20])
def test_checksum_of_zeros_needs_no_zeros(size: int) -> None:
    assert crc_of_zeros(size) == crc32c(bytes(size))


def test_checksums_over_few_zeros_need_no_tables_that_were_made_before() -> None:
    checksum._byte_tables.cache_clear()
    checksum._zeros_operator.cache_clear()
    for size in range(70):
        zeros = bytes(size)
        for number in range(16):
            first = b"%d" % number
            whole = combine_crc(crc32c(first), crc32c(zeros), size)
            assert whole == crc32c(first + zeros)


def test_checksum_of_more_zeros_than_memory_is_consistent() -> None:
    half = crc_of_zeros(1 << 50)
    assert combine_crc(half, half, 1 << 50) == crc_of_zeros(1 << 51)


# ---- ordered codes


@pytest.mark.checklist(46)
@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0, "80"), (1, "81"), (63, "bf"), (64, "c040"), (8191, "dfff"), (8192, "e02000"),
        (1 << 20, "f0100000"), ((1 << 48) - 1, "feffffffffffff"), (1 << 48, "ff01000000000000"),
        (1 << 55, "ff8080000000000000"), (1 << 62, "ffc04000000000000000"),
        ((1 << 63) - 2, "ffc07ffffffffffffffe"), (-1, "7f"), (-64, "40"), (-65, "3fbf"),
    ],
)  # fmt: skip
def test_signed_numbers_have_the_codes_of_the_format(value: int, code: str) -> None:
    data = bytes.fromhex(code)
    assert encode_signed(value) == data
    assert decode_signed(b"xx" + data + b"yy", 2) == (value, 2 + len(data))


@pytest.mark.parametrize("code", ["ffc08000000000000000", "003f7fffffffffffffff"])
def test_signed_numbers_beyond_64_bits_are_refused(code: str) -> None:
    """They are 2**63 and -2**63 - 1."""
    with pytest.raises(ValueError, match="minimal"):
        decode_signed(bytes.fromhex(code), 0)


@given(INT64)
def test_signed_numbers_round_trip_and_equal_the_builders(value: int) -> None:
    data = encode_signed(value)
    assert data == b.ordered_signed(value)
    assert decode_signed(data, 0) == (value, len(data))


@given(INT64, INT64)
def test_signed_codes_sort_as_their_values(first: int, second: int) -> None:
    assert (encode_signed(first) < encode_signed(second)) == (first < second)


@pytest.mark.parametrize("value", [n for k in range(63) for n in ((1 << k) - 1, 1 << k, -(1 << k))])
def test_signed_numbers_at_every_power_of_two_round_trip(value: int) -> None:
    assert encode_signed(value) == b.ordered_signed(value)
    assert decode_signed(encode_signed(value), 0)[0] == value


@given(UINT64)
def test_unsigned_numbers_round_trip_and_equal_the_builders(value: int) -> None:
    data = encode_number(value)
    assert data == b.ordered_number(value)
    assert decode_number(data, 0) == (value, len(data))


@pytest.mark.checklist(45)
@given(st.lists(st.sampled_from(b"\x00\x01\xfe\xffa"), max_size=12).map(bytes))
def test_strings_round_trip_and_equal_the_builders(value: bytes) -> None:
    data = encode_string(value)
    assert data == b.ordered_string(value)
    assert decode_string(b"x" + data + b"rest", 1) == (value, 1 + len(data))


@pytest.mark.parametrize(
    "code",
    ["", "61", "00", "6100", "6100ff", "0002", "ff", "ffff", "ff01", "00ff", "610061"],
)
def test_broken_strings_are_value_errors(code: str) -> None:
    with pytest.raises(ValueError, match="string"):
        decode_string(bytes.fromhex(code), 0)


@pytest.mark.parametrize("code", ["", "01", "0100", "020001", "0901020304050607 0809", "ff"])
def test_broken_unsigned_numbers_are_value_errors(code: str) -> None:
    with pytest.raises(ValueError, match="number"):
        decode_number(bytes.fromhex(code), 0)


@pytest.mark.parametrize(
    "code",
    ["", "c0", "e020", "c000", "c001", "3fff", "ff", "ffff", "ffff00", "ff80", "00", "0000",
     "ffc0ffffffffffffffff", "ffe0000000000000000000", "003f" + "00" * 8],
)  # fmt: skip
def test_broken_signed_numbers_are_value_errors(code: str) -> None:
    with pytest.raises(ValueError, match="number"):
        decode_signed(bytes.fromhex(code), 0)


@given(st.binary(max_size=14))
def test_any_bytes_are_a_signed_number_in_its_only_code_or_a_value_error(data: bytes) -> None:
    try:
        value, end = decode_signed(data, 0)
    except ValueError:
        return
    assert encode_signed(value) == data[:end]


@given(st.binary(max_size=14))
def test_any_bytes_are_a_string_in_its_only_code_or_a_value_error(data: bytes) -> None:
    try:
        value, end = decode_string(data, 0)
    except ValueError:
        return
    assert encode_string(value) == data[:end]


def test_a_string_may_be_all_there_is() -> None:
    assert decode_string(b"a\x00\x01", 0) == (b"a", 3)


def test_a_varint_of_65_bits_is_refused_unless_asked_otherwise() -> None:
    with pytest.raises(ValueError, match="64"):
        decode_varint(b"\xff" * 9 + b"\x02", 0, 10)


def _outcome(data: bytes, count: int) -> object:
    try:
        found, size = decode_varints(np.frombuffer(data, np.uint8), count)
    except ValueError as error:
        return str(error)
    assert found.dtype == np.uint64
    return found.tolist(), size


@given(
    st.lists(st.sampled_from([0x00, 0x01, 0x02, 0x7F, 0x80, 0x81, 0xFF]), max_size=40),
    st.integers(1, 8),
)
def test_few_varints_are_decoded_as_many_are(data: list[int], count: int) -> None:
    few = _outcome(bytes(data), count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varint, "_FEW", 0)
        assert _outcome(bytes(data), count) == few


def test_few_varints_are_decoded_without_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varint, "_decode_block", None)
    assert _outcome(b"\x80\x01" * 8, 8) == ([128] * 8, 16)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x00\x01", b""),
        (b"\x00\xff\x00\x01", b"\x00"),
        (b"\xff\x00\x00\x01", b"\xff"),
        (b"a\xff\x00\x00\xff\x00\x01", b"a\xff\x00"),
    ],
)
def test_a_string_at_the_start_ends_with_its_terminator(data: bytes, text: bytes) -> None:
    assert decode_string(data, 0) == (text, len(data))
    assert decode_string(data + b"\x00\x01", 0) == (text, len(data))


@pytest.mark.parametrize(
    "data", [b"", b"a", b"a\x00", b"\x00\x02\x00\x01", b"\xff\x01\x00\x01", b"\xff\x00\x01"]
)
def test_what_has_no_terminator_of_its_own_or_a_wrong_escape_is_no_string(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no terminator|no escape"):
        decode_string(data, 0)
