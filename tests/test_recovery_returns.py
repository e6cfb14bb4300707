"""Carriage returns that were lost before line feeds, put back."""

from __future__ import annotations

import numpy as np
import pytest
from crc32c import crc32c

from ckptparse.crc.choices import find_choices
from ckptparse.examination.returns import _match, restore_returns


def lose(raw: bytes) -> tuple[bytes, int]:
    """Convert as a program does that takes bytes for text; return how many returns went."""
    converted = raw.replace(b"\r\n", b"\n")
    return converted, len(raw) - len(converted)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2"])
def test_returns_lost_in_weights_are_put_back(dtype: str) -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 0.05, 150_000).astype(dtype).tobytes()
    converted, lost = lose(raw)
    assert lost > 1
    following = rng.bytes(2 * lost)
    found = restore_returns(
        converted + following, len(raw), crc32c(raw), width=np.dtype(dtype).itemsize
    )
    assert found is not None and found.build(converted + following) == raw
    assert found.taken == len(converted) and found.chance <= 1e-3


def test_two_line_feeds_beside_each_other_are_told_apart_by_the_checksum() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.05, 60_000).astype("<f4")
    raw = bytearray(values.tobytes())
    for place in (50_000, 100_001, 200_002):
        raw[place : place + 5] = b"\n\r\n\n\n"
    converted, lost = lose(bytes(raw))
    assert lost >= 3
    found = restore_returns(converted, len(raw), crc32c(raw), width=4)
    assert found is not None and found.build(converted) == bytes(raw)


def test_few_lost_returns_are_found_in_bytes_of_any_kind() -> None:
    rng = np.random.default_rng(2)
    for count in (1, 2, 3, 4):
        raw = bytearray(rng.bytes(3000).replace(b"\r", b"x"))
        for number in range(count):
            raw[700 * number + 50 : 700 * number + 52] = b"\r\n"
        assert raw.count(b"\n") > 10
        converted, lost = lose(bytes(raw))
        assert lost == count
        found = restore_returns(converted + b"more", len(raw), crc32c(raw))
        assert found is not None and found.build(converted + b"more") == bytes(raw)
        assert 0 < found.chance <= 1e-3


def test_bytes_that_lost_nothing_are_taken_as_they_are() -> None:
    raw = bytes(range(256))
    found = restore_returns(raw + b"more", 256, crc32c(raw))
    assert found is not None and (found.places, found.taken, found.chance) == ((), 256, 0.0)


def test_weights_whose_checksum_is_anothers_give_nothing() -> None:
    raw = np.random.default_rng(3).normal(0, 0.05, 100_000).astype("<f4").tobytes()
    converted, _ = lose(raw)
    assert restore_returns(converted, len(raw), crc32c(raw) ^ 1, width=4) is None


def test_a_thousand_random_runs_have_no_returns_to_be_put_back() -> None:
    rng = np.random.default_rng(4)
    for _ in range(1000):
        data = rng.bytes(int(rng.integers(1, 1200)))
        size = len(data) + int(rng.integers(0, 3))
        assert restore_returns(data, size, int(rng.integers(2**32)), width=4) is None


def test_line_feeds_are_chosen_in_their_order_and_only_if_one_choice_fits() -> None:
    first, second = np.array([1, 2, 4, 9], np.uint32), np.array([16, 32, 64, 9], np.uint32)
    assert _match([first, second], 1 ^ 32) == (0, 1)
    assert _match([first, second], 4 ^ 32) is None  # The third line feed is not before the second.
    assert _match([first, np.array([16, 32, 32, 9], np.uint32)], 1 ^ 32) is None


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_return_that_was_lost_behind_a_run_is_none_of_its_own(count: int) -> None:
    """The run has lost some itself; just behind it the next one has lost some, too."""
    rng = np.random.default_rng(count)
    raw = bytearray(rng.normal(0, 0.05, 1000 * count + 4000).astype("<f4").tobytes())
    raw = bytearray(bytes(raw).replace(b"\r", b"\x0e"))
    for number in range(count):
        raw[4000 * number + 3000 : 4000 * number + 3002] = b"\r\n"
    following = bytearray(bytes(rng.normal(0, 0.05, 4000).astype("<f4")).replace(b"\r", b"\x0e"))
    following[5:7] = following[41:43] = b"\r\n"
    converted, lost = lose(bytes(raw + following))
    assert lost == count + 2
    found = restore_returns(converted, len(raw), crc32c(raw), width=4)
    assert found is not None and len(found.places) == count
    assert found.build(converted) == bytes(raw)


def test_choices_add_up_to_the_target() -> None:
    rng = np.random.default_rng(5)
    for _ in range(100):
        groups = [rng.integers(0, 2**32, n).tolist() for n in rng.integers(1, 4, 12)]
        picked = tuple(int(rng.integers(len(group))) for group in groups)
        target = 0
        for group, number in zip(groups, picked, strict=True):
            target ^= group[number]
        assert find_choices(groups, target) == [picked]


def test_a_thousand_targets_that_no_choice_gives_have_none() -> None:
    rng = np.random.default_rng(6)
    groups = [rng.integers(0, 2**32, 2).tolist() for _ in range(10)]
    assert not any(find_choices(groups, int(rng.integers(2**32))) for _ in range(1000))
