"""Marks of CRC registers: what they are, and what is found with them at every size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from crc32c import crc32c

from ckptparse.crc import threads
from ckptparse.crc.field import ONE, multiply, power_of_x
from ckptparse.crc.search import Registers
from ckptparse.crc.sequences import Words, _Pairs, sequences_of
from ckptparse.crc.windows import Column, Wanted, _true_places

ALL_ONES = 0xFFFFFFFF
X_PLUS_1 = ONE | ONE >> 1
STEPS = [4, 512, 768, 4096]


def mark_of(element: int) -> int:
    """Compute a mark as it is defined: bit 15 - t is the highest bit of z · (x + 1) · x^-t."""
    value, back = multiply(element, X_PLUS_1), power_of_x(-1)
    mark = 0
    for place in range(16):
        mark |= value >> 31 << 15 - place
        value = multiply(value, back)
    return mark


def some_elements(count: int) -> Iterator[int]:
    yield from (1, ONE, X_PLUS_1, ALL_ONES)
    yield from np.random.default_rng(count).integers(0, 2**32, count).tolist()


@pytest.mark.parametrize("step", STEPS)
def test_a_mark_is_what_it_is_defined_to_be(step: int) -> None:
    sequences = sequences_of(step)
    for element in some_elements(20):
        assert sequences.mark(element) == mark_of(element)


@pytest.mark.parametrize("step", STEPS)
def test_every_polynomial_is_a_sum_of_few_powers_modulo_q(step: int) -> None:
    sequences = sequences_of(step)
    for find, most, bound in ((sequences.terms, 2, 2**18), (sequences.near, 4, 2**14)):
        for element in some_elements(50):
            terms = find(element)
            total = 0
            for term in terms:
                total ^= power_of_x(-8 * step * term)
            assert multiply(total, X_PLUS_1) == multiply(element, X_PLUS_1)
            assert len(terms) <= most
            assert all(term < bound for term in terms)


def test_a_polynomial_that_is_zero_modulo_q_has_no_terms() -> None:
    # Q is P divided by x + 1.
    quotient, remainder = 0, 1 << 32 | int(f"{0x82F63B78:032b}"[::-1], 2)
    for degree in range(31, -1, -1):
        if remainder >> degree + 1 & 1:
            remainder ^= 0b11 << degree
            quotient |= 1 << degree
    reflected = int(f"{quotient:032b}"[::-1], 2)
    assert remainder == 0
    assert sequences_of(4).terms(reflected) == sequences_of(4).near(reflected) == ()
    assert sequences_of(4).mark(reflected) == 0


def test_a_polynomial_that_is_no_sum_of_two_powers_is_one_of_three(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sequences, pair, calls = sequences_of(4), _Pairs._pair, []

    def second_time(self: _Pairs, target: int, others: Words) -> tuple[int, ...] | None:
        calls.append(target)
        return pair(self, target, others) if len(calls) > 1 else None

    monkeypatch.setattr(_Pairs, "_pair", second_time)
    terms = sequences.terms(0x12345678)
    assert len(terms) == 3
    total = 0
    for term in terms:
        total ^= sequences.mark(power_of_x(-32 * term))
    assert total == sequences.mark(0x12345678)


@pytest.mark.parametrize("step", STEPS)
def test_the_sequence_of_marks_goes_on_as_it_began(step: int) -> None:
    sequences = sequences_of(step)
    for first in (0, 1, 262_143, 262_144, 393_230, 1_999_999, 2**31 - 1000):
        marks = np.empty(2**19, np.uint16)
        sequences.fill(first, marks)
        for place in (0, 1, 131_071, 131_072, 262_144, 393_230, 2**19 - 1):
            power = power_of_x(-8 * step * (first + place))
            assert marks[place] == sequences.mark(power)


@pytest.mark.parametrize("size", [4, 7, 63, 64, 4096, 262_144, 1_048_576, 1_200_003])
@pytest.mark.parametrize("rest", [0, 1, 2, 3])
def test_marks_of_data_are_those_of_the_registers_after_every_word(size: int, rest: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    track = Registers(data)._track(rest)
    marks = track.marks()
    assert len(marks) == track.count == (size - rest) // 4 + 1
    chosen = np.random.default_rng(1).integers(0, track.count, 60).tolist()
    positions = np.unique([*chosen, 0, track.count - 1])
    registers = [crc32c(data[: 4 * at + rest]) ^ ALL_ONES for at in positions.tolist()]
    assert track.values(positions).tolist() == registers
    expected = [
        mark_of(multiply(register, power_of_x(-8 * (4 * at + rest))))
        for at, register in zip(positions.tolist(), registers, strict=True)
    ]
    assert marks[positions].tolist() == expected


def test_registers_of_data_are_the_same_whether_few_or_all_are_asked_for() -> None:
    data = np.random.default_rng(3).bytes(40_003)
    for rest in range(4):
        all_of_them = Registers(data)._track(rest)
        every = all_of_them.values(np.arange(all_of_them.count))
        few = Registers(data)._track(rest)
        some = np.array([7000, 3, 3, 0, 9999])
        assert few.values(some).tolist() == every[some].tolist()


@pytest.mark.parametrize("count", [1, 31, 33, 65_536, 131_041, 131_072, 262_113, 262_144, 300_000])
def test_marks_of_registers_that_are_kept_are_taken_back_from_their_place(count: int) -> None:
    words = np.random.default_rng(count).integers(0, 2**32, count, dtype=np.uint32)
    marks = Column(512, 100, words).marks()
    for at in {0, count // 2, count - 1}:
        element = multiply(int(words[at]), power_of_x(-8 * (512 * at + 100)))
        assert marks[at] == mark_of(element)


@pytest.mark.parametrize("places", [[], [0], [999], [0, 1, 2], [*range(5, 900, 30)], range(1000)])
def test_places_that_fit_are_listed_whether_few_or_many(places: Sequence[int]) -> None:
    fits = bytearray(1000)
    for place in places:
        fits[place] = True
    assert _true_places(fits, 1000).tolist() == list(places)
    assert _true_places(fits, 500).tolist() == [place for place in places if place < 500]


def test_a_power_of_x_is_that_many_products() -> None:
    x = power_of_x(1)
    value = power_of_x(65_500)
    for exponent in range(65_501, 65_800):
        value = multiply(value, x)
        assert power_of_x(exponent) == value
    assert multiply(power_of_x(-(2**40)), power_of_x(2**40)) == power_of_x(0)


def test_windows_of_any_size_are_found_in_millions_of_bytes() -> None:
    rng = np.random.default_rng(7)
    data = rng.bytes(5_000_003)
    sizes = [1, 5, 18, 4095, 4096, 65_537, 1_000_002, 4_999_999, 5_000_003]
    sizes += rng.integers(20, 4_000_000, 30).tolist()
    places: dict[Wanted, int] = {}
    for size in sizes:
        last = (len(data) - size) // 4
        for start in {0, 4 * last, 4 * int(rng.integers(0, last + 1))}:
            places[Wanted(size, crc32c(data[start : start + size]))] = start
    found = Registers(data).find_each(places)
    assert all(start in found[item] for item, start in places.items())
    # One of a single byte is everywhere, and no more of the others by chance.
    assert all(len(found[item]) == 1 for item in places if item.size > 4)
    assert all(
        crc32c(data[start : start + item.size]) == item.crc
        for item in places
        for start in found[item][:50]
    )


def test_many_checksums_of_one_size_are_found_together() -> None:
    data = np.random.default_rng(8).bytes(1_000_000)
    wanted = {Wanted(402, crc32c(data[at : at + 402])): at for at in range(0, 800_000, 1000)}
    found = Registers(data).find_each(wanted)
    assert found == {item: [at] for item, at in wanted.items()}


def test_thousands_of_checksums_of_one_size_are_found_beside_one_of_another() -> None:
    data = np.random.default_rng(8).bytes(400_000)
    wanted = {Wanted(62, crc32c(data[at : at + 62])): at for at in range(0, 390_000, 100)}
    wanted[Wanted(100_001, crc32c(data[40_000:140_001]))] = 40_000
    assert Registers(data).find_each(wanted) == {item: [at] for item, at in wanted.items()}


def test_every_window_of_zeros_is_found_between_words_too() -> None:
    data = bytes(700_000)
    for size in (1002, 1003):
        found = Registers(data).find(size, crc32c(bytes(size)))
        assert found == list(range(0, len(data) - size + 1, 4))


def test_registers_of_sectors_find_sizes_that_are_no_multiple_of_them() -> None:
    data = np.random.default_rng(9).bytes(512 * 3000 + 77)
    for size in (512, 513, 100_000, 512 * 3000 + 77):
        for start in (0, (len(data) - size) // 512 * 512):
            wanted = crc32c(data[start : start + size])
            assert start in Registers(data, step=512).find(size, wanted)


def test_several_threads_find_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(10).bytes(3_000_000)
    wanted = [Wanted(40_000, crc32c(data[at : at + 40_000])) for at in (4, 400_000, 2_960_000)]
    monkeypatch.setattr("ckptparse.crc.threads.most_threads", lambda: 1)
    alone = Registers(data).find_each(wanted)
    monkeypatch.setattr("ckptparse.crc.threads.most_threads", lambda: 5)
    assert Registers(data).find_each(wanted) == alone
    assert [at for offsets in alone.values() for at in offsets] == [4, 400_000, 2_960_000]


def test_threads_find_the_same_where_the_interpreter_has_no_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = np.random.default_rng(8).bytes(3_000_000) + bytes(1_000_000)
    runs = [(1004, 400_000), (2_000_000, 4), (77_777, 1_234_560)]
    wanted = [Wanted(size, crc32c(data[start : start + size])) for size, start in runs]
    wanted += [Wanted(1004, crc32c(data[:1004])), Wanted(8, crc32c(bytes(8)))]
    alone = Registers(data).find_each(wanted)
    monkeypatch.setattr(threads, "has_lock", lambda: False)
    monkeypatch.setattr(threads, "most_threads", lambda: 3)
    assert Registers(data).find_each(wanted) == alone
    assert [alone[item][0] for item in wanted[:4]] == [400_000, 4, 1_234_560, 0]
    assert len(alone[wanted[4]]) >= 249_999
