"""CRC registers in bit planes: what they hold, and what is found with them at every size."""

from __future__ import annotations

import numpy as np
import pytest
from crc32c import crc32c

from ckptparse.crc.field import multiply, multiply_table, power_of_x
from ckptparse.crc.planes import Planes, rows_of_factor
from ckptparse.crc.search import Registers
from ckptparse.crc.windows import Wanted

ALL_ONES = 0xFFFFFFFF


@pytest.mark.parametrize("size", [0, 3, 4, 7, 63, 64, 2047, 4096, 70_001, 2_200_003])
def test_the_planes_of_data_hold_the_registers_before_every_word(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    planes = Planes.of_data(np.frombuffer(data, np.uint8))
    assert planes.count == size // 4 + 1
    chosen = np.random.default_rng(1).integers(0, planes.count, 300)
    positions = np.unique([*chosen.tolist(), 0, planes.count - 1])
    expected = [crc32c(data[: 4 * at]) ^ ALL_ONES for at in positions.tolist()]
    assert planes.values(positions).tolist() == expected


@pytest.mark.parametrize("count", [1, 31, 33, 1000, 300_000])
def test_the_planes_of_registers_hold_them(count: int) -> None:
    words = np.random.default_rng(count).integers(0, 2**32, count, dtype=np.uint32)
    planes = Planes.of_words(words, room=count + 5)
    assert planes.values(np.arange(count)).tolist() == words.tolist()


def test_each_bit_of_a_product_is_the_sum_of_the_bits_that_are_named() -> None:
    factor = power_of_x(12345)
    rows = rows_of_factor(multiply_table(factor)).tolist()
    for value in (1, 0x80000000, 0xDEADBEEF, ALL_ONES):
        bits = [(row & value).bit_count() & 1 for row in rows]
        assert sum(bit << place for place, bit in enumerate(bits)) == multiply(value, factor)


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


def test_every_window_of_zeros_is_found() -> None:
    data = bytes(1_200_000)
    item = Wanted(1000, crc32c(bytes(1000)))
    assert Registers(data).find_each([item]) == {item: list(range(0, 1_199_001, 4))}


def test_registers_of_sectors_find_sizes_that_are_no_multiple_of_them() -> None:
    data = np.random.default_rng(9).bytes(512 * 3000 + 77)
    for size in (512, 513, 100_000, 512 * 3000 + 77):
        for start in (0, (len(data) - size) // 512 * 512):
            wanted = crc32c(data[start : start + size])
            assert start in Registers(data, step=512).find(size, wanted)


def test_several_threads_find_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(10).bytes(3_000_000)
    wanted = [Wanted(40_000, crc32c(data[at : at + 40_000])) for at in (4, 400_000, 2_960_000)]
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    alone = Registers(data).find_each(wanted)
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert Registers(data).find_each(wanted) == alone
    assert [at for offsets in alone.values() for at in offsets] == [4, 400_000, 2_960_000]
