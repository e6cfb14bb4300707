"""CRC-32C as arithmetic: what a checksum alone tells."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from packages import ml_dtypes

from ckptparse.crc import field
from ckptparse.crc.field import ORDER, discrete_log, discrete_log_below, multiply, power_of_x
from ckptparse.crc.flips import (
    Change,
    chance_of_bit,
    chance_of_word,
    find_bit,
    find_crc_bit,
    find_words,
)
from ckptparse.crc.inversion import (
    chance_of_zeros,
    derive_constant,
    derive_integer,
    derive_tail,
    derive_word,
    find_zeros,
    integer_is_proved,
    is_counter,
)
from ckptparse.crc.search import Registers

WORDS = st.integers(0, 2**32 - 1)


def quickest(work: Callable[[], object], *, times: int = 5) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return min(once() for _ in range(times))


# ------------------------------------------------------------------------------------------- field


@given(WORDS, WORDS, WORDS)
def test_multiplication_commutes_and_distributes(a: int, b: int, c: int) -> None:
    assert multiply(a, b) == multiply(b, a)
    assert multiply(a, b ^ c) == multiply(a, b) ^ multiply(a, c)
    assert multiply(a, field.ONE) == a
    assert field.multiply_by(a, b) == multiply(a, b)


@given(st.binary(max_size=100), st.integers(0, 5000))
def test_zero_bytes_advance_a_register_by_a_power_of_x(data: bytes, zeros: int) -> None:
    register = crc32c(data) ^ 0xFFFFFFFF
    advanced = multiply(register, power_of_x(8 * zeros))
    assert advanced ^ 0xFFFFFFFF == crc32c(data + bytes(zeros))


@given(st.integers(0, ORDER - 1))
def test_a_logarithm_undoes_a_power(exponent: int) -> None:
    power = power_of_x(exponent)
    assert discrete_log_below(power, ORDER) == discrete_log(power) == exponent
    assert discrete_log_below(power, exponent) is None


def test_powers_of_x_repeat_after_their_order() -> None:
    assert power_of_x(ORDER) == field.ONE and power_of_x(-5) == power_of_x(ORDER - 5)


def test_a_logarithm_takes_milliseconds_once_its_table_is_made() -> None:
    field._steps.cache_clear()
    assert quickest(field._steps, times=1) < 0.25
    assert quickest(lambda: discrete_log_below(power_of_x(2_000_000_000), ORDER)) < 0.02


# ------------------------------------------------------------------------------------------- flips


@given(st.binary(min_size=1, max_size=5000), st.data())
def test_a_flipped_bit_is_located_exactly(data: bytes, draw: st.DataObject) -> None:
    offset = draw.draw(st.integers(0, len(data) - 1))
    bit = draw.draw(st.integers(0, 7))
    damaged = Change(offset, bytes([1 << bit])).apply(data)
    change = find_bit(crc32c(data), crc32c(damaged), len(data))
    assert change is not None
    assert (change.offset, change.bit, change.apply(damaged)) == (offset, bit, data)


def test_a_bit_far_into_a_large_payload_is_located_without_looking_at_it() -> None:
    size = 256 << 20
    # 8 (size - 1 - offset) + (7 - bit) powers from the end of the bytes, 32 more in the register.
    offset, bit = 12_345_678, 3
    difference = power_of_x(8 * (size - 1 - offset) + 7 - bit + 32)
    change = find_bit(0, difference, size - 1)
    assert change is not None and (change.offset, change.bit) == (offset - 1, bit)
    assert quickest(lambda: find_bit(0, difference, size - 1)) < 0.02


def test_beyond_2_to_the_31_bits_no_bit_is_claimed() -> None:
    assert find_bit(0, power_of_x(40), (1 << 28) + 1) is None
    assert find_bit(0, power_of_x(40), 0) is None


@given(st.binary(min_size=2, max_size=3000), st.integers(1, 3), st.data())
def test_a_changed_word_is_among_the_candidates(
    data: bytes, width: int, draw: st.DataObject
) -> None:
    if len(data) < width:
        return
    place = draw.draw(st.integers(0, len(data) // width - 1)) * width
    mask = draw.draw(st.binary(min_size=width, max_size=width).filter(any))
    damaged = Change(place, mask).apply(data)
    found = find_words(crc32c(data), crc32c(damaged), len(data), width=width, limit=4096)
    assert any(change.apply(damaged) == data for change in found)


def test_the_chances_are_those_of_counting() -> None:
    assert chance_of_bit(512 << 10) == pytest.approx(1 / 1024)
    assert chance_of_bit(64 << 20) == pytest.approx(1 / 8)
    assert chance_of_word(1 << 20, 1) == pytest.approx((1 << 20) * 255 / 2**32)
    assert chance_of_word(1 << 30, 3) == 1.0


def test_a_flipped_bit_of_the_stored_checksum_is_told_apart() -> None:
    assert find_crc_bit(0x1234, 0x1235) and not find_crc_bit(0x1234, 0x1237)


# --------------------------------------------------------------------------------------- inversion


@given(st.binary(min_size=1, max_size=4))
def test_up_to_four_bytes_follow_from_their_checksum(data: bytes) -> None:
    assert derive_word(crc32c(data), len(data)) == data


@given(st.binary(max_size=50), st.binary(min_size=1, max_size=4))
def test_a_cut_off_tail_of_four_bytes_follows_from_the_head(head: bytes, tail: bytes) -> None:
    assert derive_tail(crc32c(head + tail), crc32c(head), len(tail)) == tail


def test_a_checksum_that_no_byte_has_gives_nothing() -> None:
    assert derive_word(crc32c(b"ab"), 1) is None


def test_a_thousand_scalars_take_milliseconds() -> None:
    crcs = [crc32c(number.to_bytes(4, "little")) for number in range(1000)]
    assert quickest(lambda: [derive_word(crc, 4) for crc in crcs]) < 0.2


@given(WORDS, st.booleans())
def test_an_integer_below_2_to_the_32_is_found(value: int, big: bool) -> None:
    crc = crc32c(value.to_bytes(8, "big" if big else "little"))
    found, chance = derive_integer(crc, big_endian=big)
    assert found == value and chance == 2.0 ** (max(1, value.bit_length()) - 32)


def test_an_integer_is_believed_when_small_or_a_counter_by_name() -> None:
    assert integer_is_proved((1 << 22) - 1) and not integer_is_proved(1 << 22)


def test_counters_are_known_by_the_last_part_of_their_name() -> None:
    for name in ("global_step", "save_counter/.ATTRIBUTES/VARIABLE_VALUE", "Adam/iter"):
        assert is_counter(name)
    assert is_counter("optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE")
    assert not is_counter("global_step_2") and not is_counter("iter/x")


@pytest.mark.parametrize("kind", ["<i4", ">i4", "<i8", "u1", "<f4", ">f4", "<f8", "<f2", "<c8"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 127, 1000])
@pytest.mark.parametrize("value", [0, 1])
def test_zeros_and_ones_are_recognised(kind: str, count: int, value: int) -> None:
    full = np.full(count, value, kind)
    found = derive_constant(crc32c(full.tobytes()), full.dtype, count)
    assert found is not None and found.payload(full.dtype) == full.tobytes()
    assert found.chance < 1e-6


@pytest.mark.parametrize("kind", ["<i4", ">i4", "<i8", "<u2", "<f4", ">f8"])
@pytest.mark.parametrize("count", [2, 3, 8, 100, 1000, 4097])
def test_counting_from_zero_is_recognised(kind: str, count: int) -> None:
    counted = np.arange(count).astype(kind)
    found = derive_constant(crc32c(counted.tobytes()), counted.dtype, count)
    assert found is not None and found.payload(counted.dtype) == counted.tobytes()


@pytest.mark.parametrize("value", [1e-3, 1e-5, 1e-6, 1e-7, 1e-8, -1.0, 0.1])
def test_common_fills_are_recognised_in_every_kind(value: float) -> None:
    for kind in (np.dtype("<f4"), np.dtype("<f8"), np.dtype(ml_dtypes.bfloat16)):
        full = np.full((3, 11), value).astype(kind)
        found = derive_constant(crc32c(full.tobytes()), kind, 33)
        assert found is not None and found.payload(kind) == full.tobytes()


def test_a_fill_outside_the_list_proves_nothing_and_is_not_claimed() -> None:
    assert (
        derive_constant(crc32c(np.full(100, 0.37, "<f4").tobytes()), np.dtype("<f4"), 100) is None
    )


def test_a_constant_of_a_gigabyte_takes_no_longer() -> None:
    crc = crc32c(b"")  # of nothing that is in the list
    assert quickest(lambda: derive_constant(crc, np.dtype("<f4"), 1 << 28)) < 0.1


@pytest.mark.parametrize(
    ("crc", "size"), [(4004437628, 1024), (1925235876, 65536), (517592881, 768 * 768 * 4)]
)
def test_the_checksums_of_public_reports_are_those_of_zeros(crc: int, size: int) -> None:
    assert find_zeros(crc) == size
    assert chance_of_zeros(size) < 1e-6


@given(st.integers(1, 10**9))
def test_the_length_of_any_run_of_zeros_follows_from_its_checksum(size: int) -> None:
    crc = multiply(0xFFFFFFFF, power_of_x(8 * size)) ^ 0xFFFFFFFF
    assert find_zeros(crc) == size


def test_a_checksum_that_no_run_of_zeros_has_gives_none() -> None:
    assert find_zeros(0xFFFFFFFF ^ 1) is None


# ------------------------------------------------------------------------------------------ search


@given(
    st.binary(min_size=1, max_size=3000),
    st.sampled_from([4, 256]),
    st.data(),
)
def test_every_window_is_found_by_its_checksum(data: bytes, step: int, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, (len(data) - 1) // step)) * step
    size = draw.draw(st.integers(1, len(data) - start))
    found = Registers(data, step=step).find(size, crc32c(data[start : start + size]))
    assert start in found


def test_a_window_longer_than_the_bytes_is_not_found() -> None:
    registers = Registers(b"abcd")
    assert registers.positions(5) == 0 and registers.find(5, 0) == []


def test_a_tensor_is_found_in_megabytes_within_a_second() -> None:
    data = np.random.default_rng(1).bytes(8 << 20)
    start, size = 5_000_000, 100_001
    crc = crc32c(data[start : start + size])
    assert Registers(data).find(size, crc) == [start]
    assert quickest(lambda: Registers(data).find(size, crc), times=2) < 1.5
