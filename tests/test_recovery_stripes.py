"""Stripes of an array of disks, put together in the wrong order."""

from __future__ import annotations

import numpy as np
import pytest

from ckptparse.coding.checksum import crc32c
from ckptparse.files.memory import MemorySource
from ckptparse.recovery.stripes import Found, find_stripes, try_stripes

ROW = 8


def permute(data: bytes, size: int, order: list[int]) -> bytes:
    """Put stripes together so that the one of number `order[n]` is what belongs at n."""
    row = size * len(order)
    out = bytearray(data)
    for start in range(0, len(data) // row * row, row):
        for number, there in enumerate(order):
            piece = data[start + number * size : start + (number + 1) * size]
            out[start + there * size : start + (there + 1) * size] = piece
    return bytes(out)


def payloads(data: bytes, mixed: bytes, size: int) -> list[Found]:
    """Find small payloads wherever they lie."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(data) - 3000, 60).tolist()
    runs = [(start, int(rng.integers(200, 3000))) for start in starts]
    whole = [
        (start, count) for start, count in runs if start // size == (start + count - 1) // size
    ]
    return [Found(start, mixed.index(data[start : start + count]), count) for start, count in whole]


@pytest.mark.parametrize("order", [[1, 0], [2, 0, 1], [0, 3, 2, 1], [4, 3, 2, 1, 0]])
@pytest.mark.parametrize("size", [4096, 65536])
def test_the_order_of_stripes_is_found_and_undone(size: int, order: list[int]) -> None:
    data = np.random.default_rng(1).bytes(size * len(order) * 5 + 1000)
    mixed = permute(data, size, order)
    stripes = find_stripes(payloads(data, mixed, size))
    assert stripes is not None
    undone = stripes.undo(MemorySource("x", mixed))
    assert undone.read_at(0, undone.size) == data


def test_payloads_at_their_places_are_no_case_of_stripes() -> None:
    assert find_stripes([Found(n, n, 100) for n in range(0, 10_000, 500)]) is None


def test_a_thousand_sets_of_random_places_have_no_order() -> None:
    rng = np.random.default_rng(2)
    for _ in range(1000):
        places = rng.integers(0, 1 << 22, (12, 2)).tolist()
        assert find_stripes([Found(a, b, 100) for a, b in places]) is None


def test_three_payloads_are_too_few() -> None:
    data = np.random.default_rng(1).bytes(4096 * 8)
    mixed = permute(data, 4096, [1, 0])
    few = payloads(data, mixed, 4096)[:3]
    assert find_stripes(few) is None


class Counting(MemorySource):
    """Counts the bytes that are read."""

    read = 0

    def read_at(self, offset: int, size: int) -> bytes:
        self.read += size
        return super().read_at(offset, size)


@pytest.mark.parametrize("order", [[1, 0], [2, 0, 1], [4, 3, 2, 1, 0]])
def test_of_all_orders_the_one_is_found_that_makes_two_payloads_right(order: list[int]) -> None:
    data = np.random.default_rng(3).bytes(16384 * len(order) * 5 + 1000)
    source = Counting("x", permute(data, 16384, order))
    runs = [(5_000, 60_000), (90_000, 40_001), (len(data) - 30_000, 30_000)]
    told = [(start, count, crc32c(data[start : start + count])) for start, count in runs]
    stripes = try_stripes(source, told)
    assert stripes is not None
    undone = stripes.undo(source)
    assert undone.read_at(0, undone.size) == data


def test_to_try_all_orders_each_byte_is_read_once_for_each_size_and_number_of_disks() -> None:
    source = Counting("x", np.random.default_rng(4).bytes(8 << 20))
    assert try_stripes(source, [(0, 1 << 21, 1), (1 << 21, 1 << 21, 2)]) is None
    # Nine sizes, two to five disks; of the last row of stripes more than is needed.
    assert source.read <= 9 * 4 * (2 << 20) + 4 * sum(5 << power for power in range(12, 21))
