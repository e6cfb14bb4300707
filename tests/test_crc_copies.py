"""Damaged copies of the same bytes, put together by their checksum."""

from __future__ import annotations

import numpy as np
import pytest
from crc32c import crc32c

from ckptparse.crc.copies import SECTOR, Copy, merge_copies

KIB = 1024


def make(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def spoil(data: bytes, sectors: list[int], *, offset: int = 0, filler: int = 0) -> bytes:
    """Overwrite whole sectors of the file, as far as they lie in the bytes."""
    spoilt = bytearray(data)
    for sector in sectors:
        start = max(0, sector * SECTOR - offset % SECTOR)
        stop = min(len(data), (sector + 1) * SECTOR - offset % SECTOR)
        spoilt[start:stop] = bytes([filler]) * (stop - start)
    return bytes(spoilt)


def pick(count: int, of: int, seed: int, avoid: frozenset[int] = frozenset()) -> list[int]:
    numbers = [n for n in np.random.default_rng(seed).permutation(of).tolist() if n not in avoid]
    return numbers[:count]


@pytest.mark.parametrize("offset", [0, 100, 511, 4096 + 7])
def test_two_copies_damaged_in_different_sectors_give_the_whole(offset: int) -> None:
    data = make(100 * KIB + 13)
    ours = pick(10, 200, seed=1)
    theirs = pick(10, 200, seed=2, avoid=frozenset(ours))
    copies = [Copy(spoil(data, ours, offset=offset)), Copy(spoil(data, theirs, offset=offset))]
    merged = merge_copies(copies, crc32c(data), offset=offset)
    assert merged is not None and merged.build(copies) == data
    assert merged.chance <= 1e-3 and merged.places == 20


def test_a_run_of_bad_sectors_is_one_unknown() -> None:
    data = make(400 * KIB)
    copies = [Copy(spoil(data, list(range(300)))), Copy(spoil(data, list(range(500, 780))))]
    merged = merge_copies(copies, crc32c(data))
    assert merged is not None and merged.build(copies) == data
    assert merged.chance == 4 / 2**32 and merged.places == 580


def test_neighbouring_sectors_damaged_in_different_copies_are_told_apart() -> None:
    data = make(40 * KIB)
    copies = [Copy(spoil(data, [10, 11])), Copy(spoil(data, [12, 13]))]
    merged = merge_copies(copies, crc32c(data))
    assert merged is not None and merged.build(copies) == data


def test_a_majority_proposes_and_the_checksum_confirms() -> None:
    data = make(1000 * KIB)
    taken: set[int] = set()
    copies = []
    for seed in range(3):
        sectors = pick(150, 2000, seed, frozenset(taken))
        taken |= set(sectors)
        copies.append(Copy(spoil(data, sectors)))
    merged = merge_copies(copies, crc32c(data))
    assert merged is not None and merged.build(copies) == data
    assert merged.chance <= 1e-3 and merged.places == 450


def test_what_looks_wrong_is_left_out_first() -> None:
    data = make(1000 * KIB)
    ours = pick(60, 2000, seed=1)
    theirs = pick(60, 2000, seed=2, avoid=frozenset(ours))
    plain = [Copy(spoil(data, ours)), Copy(spoil(data, theirs))]
    assert merge_copies(plain, crc32c(data)) is None
    doubted = [[(n * SECTOR, (n + 1) * SECTOR) for n in each] for each in (ours, theirs)]
    copies = [copy._replace(doubted=spans) for copy, spans in zip(plain, doubted, strict=True)]
    merged = merge_copies(copies, crc32c(data))
    assert merged is not None and merged.build(copies) == data and merged.chance <= 1e-3


def test_a_copy_that_was_cut_off_is_filled_up_from_another() -> None:
    data = make(64 * KIB)
    short = data[: 40 * KIB + 5]
    copies = [
        Copy(spoil(short, [3]) + bytes(len(data) - len(short)), absent=[(len(short), len(data))]),
        Copy(spoil(data, [50, 60])),
    ]
    merged = merge_copies(copies, crc32c(data))
    assert merged is not None and merged.build(copies) == data


def test_known_bad_sectors_leave_no_choice_and_no_chance() -> None:
    data = make(64 * KIB)
    copies = [
        Copy(spoil(data, [7, 8]), absent=[(7 * SECTOR, 9 * SECTOR)]),
        Copy(spoil(data, [20]), absent=[(20 * SECTOR, 21 * SECTOR)]),
    ]
    merged = merge_copies(copies, crc32c(data))
    assert merged is not None and merged.build(copies) == data
    assert merged.chance == 0.0 and merged.places == 0
    assert [piece[2] for piece in merged.pieces] == [0, 1, 0]


def test_a_sector_that_no_copy_has_gives_nothing() -> None:
    data = make(8 * KIB)
    copies = [Copy(data, absent=[(0, 600)]), Copy(data, absent=[(512, 700)])]
    assert merge_copies(copies, crc32c(data)) is None


def test_a_sector_that_is_damaged_in_every_copy_gives_nothing() -> None:
    data = make(64 * KIB)
    copies = [Copy(spoil(data, [7, 9])), Copy(spoil(data, [7, 12], filler=255))]
    assert merge_copies(copies, crc32c(data)) is None


def test_copies_of_something_else_give_nothing() -> None:
    data = make(4096 * KIB)
    assert merge_copies([Copy(data), Copy(make(len(data), seed=1))], crc32c(data[::-1])) is None


def test_one_whole_copy_is_taken_as_it_is() -> None:
    data = make(3000)
    merged = merge_copies([Copy(data)], crc32c(data))
    assert merged is not None and merged.pieces == ((0, 3000, 0),) and merged.chance == 0.0
    assert merge_copies([Copy(data)], crc32c(data) ^ 1) is None


def test_no_bytes_give_nothing() -> None:
    assert merge_copies([Copy(b""), Copy(b"")], 0) is None


def test_a_thousand_pairs_that_no_choice_makes_right_give_nothing() -> None:
    rng = np.random.default_rng(8)
    for number in range(1000):
        data = rng.bytes(8 * KIB)
        copies = [Copy(spoil(data, pick(4, 16, seed=number + shift))) for shift in (0, 5000)]
        assert merge_copies(copies, int(rng.integers(2**32))) is None


def test_whatever_is_put_together_has_the_checksum() -> None:
    rng = np.random.default_rng(9)
    found = 0
    for number in range(200):
        data = rng.bytes(int(rng.integers(1, 20 * KIB)))
        offset = int(rng.integers(0, 5000))
        sectors = len(data) // SECTOR + 2
        copies = [
            Copy(spoil(data, pick(3, sectors, seed=3 * number + n), offset=offset))
            for n in range(3)
        ]
        merged = merge_copies(copies, crc32c(data), offset=offset)
        if merged is not None:
            found += 1
            assert crc32c(merged.build(copies)) == crc32c(data)
            assert merged.chance > 1e-3 or merged.build(copies) == data
    assert found > 150
