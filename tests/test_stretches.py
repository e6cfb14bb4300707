"""Payloads that go on behind gaps of an image, and what is believed of those that do not."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from crc32c import crc32c

from ckptparse.dtypes import DataType
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.recovery.imaging import splits, stretches
from ckptparse.recovery.imaging.extents import Joined, join
from ckptparse.recovery.imaging.pieces import DataFile, Piece, Placement
from ckptparse.recovery.imaging.splits import complete
from ckptparse.recovery.imaging.stretches import MOST_WAYS, Stretches

BLOCK = 1024
FLOAT = int(DataType.DT_FLOAT)
TABLE = b"\xff" * 600 + bytes(BLOCK - 600) + bytes(2 * BLOCK)
"""A bitmap and an empty table."""


def weights(count: int, seed: int = 0) -> bytes:
    """Make so many blocks."""
    return np.random.default_rng(seed).normal(0, 0.05, count * BLOCK // 4).astype("<f4").tobytes()


def piece(data: bytes, offset: int) -> Piece:
    return Piece(offset, len(data), crc32c(data), FLOAT)


FIRST, LARGE = weights(4), weights(60, seed=1)
FILE = DataFile(64 * BLOCK, (piece(FIRST, 0), piece(LARGE, 4 * BLOCK)))


def image(*parts: bytes) -> MemorySource:
    return MemorySource("disk.img", b"".join(parts))


def read(disk: MemorySource, proved: list[Placement]) -> tuple[bytes, Joined]:
    joined = join("disk.img", disk, FILE, proved, Stretches(disk, BLOCK))
    return joined.read_at(0, joined.size), Joined.of(joined)


def absent(disk: MemorySource) -> list[int]:
    """Return the blocks of which nothing is offered."""
    _, joined = read(disk, [Placement(0, len(FIRST), 0)])
    found, start = [], 0
    for offset, size in joined.ranges:
        if offset < 0:
            found += range(start // BLOCK, (start + size) // BLOCK)
        start += size
    return found


@pytest.mark.parametrize("cuts", [[7], [7, 30], [7, 30, 31], [1, 2, 3, 50]])
def test_a_payload_goes_on_behind_any_number_of_gaps(cuts: list[int]) -> None:
    parts, done = [FIRST], 0
    for cut in cuts:
        parts += [LARGE[done * BLOCK : cut * BLOCK], TABLE]
        done = cut
    disk = image(*parts, LARGE[done * BLOCK :], TABLE, weights(5, seed=2))
    proved = complete(disk, FILE, [Placement(0, len(FIRST), 0)], BLOCK)
    assert sum(one.size for one in proved) == 64 * BLOCK
    assert read(disk, proved)[0] == FIRST + LARGE


def test_a_payload_goes_on_in_a_stretch_that_lies_before() -> None:
    disk = image(TABLE, LARGE[20 * BLOCK :], TABLE, FIRST, LARGE[: 20 * BLOCK], TABLE)
    at = len(TABLE) + 40 * BLOCK + len(TABLE)
    proved = complete(disk, FILE, [Placement(0, len(FIRST), at)], BLOCK)
    assert read(disk, proved)[0] == FIRST + LARGE


def test_zeros_of_a_tensor_at_the_edge_of_a_gap_are_its_own() -> None:
    large = LARGE[: 20 * BLOCK] + bytes(2 * BLOCK) + LARGE[22 * BLOCK :]
    file = DataFile(64 * BLOCK, (piece(FIRST, 0), piece(large, 4 * BLOCK)))
    disk = image(FIRST, large[: 21 * BLOCK], TABLE, large[21 * BLOCK :], TABLE)
    proved = complete(disk, file, [Placement(0, len(FIRST), 0)], BLOCK)
    assert sum(one.size for one in proved) == 64 * BLOCK


def test_nothing_is_believed_that_lies_behind_a_gap() -> None:
    damaged = bytearray(LARGE)
    damaged[5 * BLOCK : 5 * BLOCK + 8] = bytes(8)
    disk = image(FIRST, bytes(damaged[: 20 * BLOCK]), TABLE, bytes(damaged[20 * BLOCK :]), TABLE)
    assert absent(disk) == list(range(24, 64))


def test_nothing_is_believed_of_elements_that_cannot_be_judged() -> None:
    file = DataFile(64 * BLOCK, (piece(FIRST, 0), Piece(4 * BLOCK, len(LARGE), 1)))
    disk = image(FIRST, LARGE)
    joined = join("disk.img", disk, file, [Placement(0, len(FIRST), 0)], Stretches(disk, BLOCK))
    assert Joined.of(joined).ranges == ((0, 4 * BLOCK), (-1, 60 * BLOCK))


def test_what_two_stretches_claim_is_nobodys() -> None:
    last = weights(4, seed=3)
    pieces = (*FILE.pieces, piece(last, 64 * BLOCK))
    file = DataFile(68 * BLOCK, pieces)
    disk = image(FIRST, weights(60, seed=4), TABLE, weights(60, seed=5), last)
    ends = [Placement(0, len(FIRST), 0), Placement(64 * BLOCK, len(last), disk.size - len(last))]
    joined = join("disk.img", disk, file, ends, Stretches(disk, BLOCK))
    assert Joined.of(joined).ranges[1] == (-1, 60 * BLOCK)


def test_a_thousand_payloads_that_are_not_there_go_on_behind_no_gap() -> None:
    rng = np.random.default_rng(8)
    parts = [part for number in range(3) for part in (weights(9, seed=number), TABLE)]
    disk = image(FIRST, *parts)
    known = Stretches(disk, BLOCK)
    tried = 0
    for number in range(1000):
        one = Piece(4 * BLOCK + 4 * number, 14 * BLOCK, int(rng.integers(2**32)), FLOAT)
        assert known.find(one, 4 * BLOCK + 4 * number, forward=True) == []
        tried += 1
    assert MOST_WAYS * tried / 2**32 < 1e-3


def test_ways_that_lead_nowhere_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    take = stretches._Steps.take

    def count(steps: Any) -> bool:
        counted.append(1)
        return take(steps)

    monkeypatch.setattr(stretches._Steps, "take", count)
    sectors = [weights(1, seed=number) + b"\xff" * BLOCK for number in range(60)]
    disk = image(FIRST, *sectors)
    known = Stretches(disk, BLOCK)
    for number in range(20):
        one = Piece(4 * BLOCK, 50 * BLOCK + 4 * number, number, FLOAT)
        assert known.find(one, 4 * BLOCK + 4 * number, forward=True) == []
    most = stretches._FREE_STEPS + disk.size // stretches._BYTES_A_STEP
    # When none are left, a few are asked for before a way ends.
    assert stretches._MOST_STEPS < len(counted) < 2 * most


def test_searches_of_the_whole_image_that_find_nothing_have_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of five copies with 600 bad sectors each, thousands of them took most of a minute."""
    counted: list[int] = []
    search = splits.Searches.find_one

    def count(*given: Any) -> list[tuple[int, int]]:
        counted.append(1)
        return search(*given)

    monkeypatch.setattr(splits.Searches, "find_one", count)
    lost = tuple(Piece(4 * BLOCK + 700 * number, 700, number, FLOAT) for number in range(300))
    file = DataFile(4 * BLOCK + 300 * 700, (piece(FIRST, 0), *lost))
    disk = image(FIRST, weights(210, seed=9))
    noted: list[str] = []
    searches = splits.Searches(disk, BLOCK, noted.append)
    complete(disk, file, [Placement(0, len(FIRST), 0)], BLOCK, searches=searches)
    assert 0 < len(counted) <= 2 * splits._FREE_FAILURES
    assert set(noted) == {splits._LEFT}


def scattered(count: int) -> tuple[MemorySource, DataFile]:
    """Make an image of payloads in stretches of five blocks, in any order but for the first."""
    bodies = [weights(3, seed=number)[: 2 * BLOCK + 4 * number] for number in range(1, count)]
    pieces, data, offset = [piece(FIRST, 0)], FIRST, len(FIRST)
    for body in bodies:
        pieces.append(piece(body, offset))
        offset, data = offset + len(body), data + body
    size = 5 * BLOCK
    runs = [data[at : at + size].ljust(size, b"\0") for at in range(0, len(data), size)]
    order = np.random.default_rng(3).permutation(len(runs) - 1) + 1
    disk = image(runs[0], *(runs[number] for number in order.tolist()))
    return disk, DataFile(offset, tuple(pieces))


def test_parts_that_lie_anywhere_share_the_registers_of_the_image() -> None:
    disk, file = scattered(60)
    known = [Placement(0, len(FIRST), 0)]
    searches = splits.Searches(disk, BLOCK)
    searches._passes = 10**6
    all_found = complete(disk, file, known, BLOCK, searches=searches)
    assert len(all_found) > 60
    passes = 10**6 - searches._passes
    assert complete(disk, file, known, BLOCK, searches=searches) == all_found
    # Of what was asked for once, nothing is made anew.
    assert 10**6 - searches._passes == passes


def test_registers_of_the_image_are_not_made_without_end() -> None:
    disk, file = scattered(60)
    known = [Placement(0, len(FIRST), 0)]
    noted: list[str] = []
    searches = splits.Searches(disk, BLOCK, noted.append)
    searches._passes = 3
    found = complete(disk, file, known, BLOCK, searches=searches)
    assert set(noted) == {splits._LEFT}
    noted.clear()
    assert len(found) < len(complete(disk, file, known, BLOCK))
    assert not noted


@pytest.mark.parametrize("size", [1 << 20, 1 << 24, 1 << 27, 1 << 30])
def test_an_image_is_passed_over_as_often_whatever_its_size(size: int) -> None:
    made = splits.Searches(cast(Source, SimpleNamespace(size=size, read_into=None)), BLOCK)
    assert made._passes >= 64
    assert made._passes * size <= 64 * size + (1 << 29)


def test_a_file_of_thousands_of_parts_is_read_as_one_of_ranges_is() -> None:
    disk = image(weights(20))
    rng = np.random.default_rng(5)
    spans = tuple((int(at), 16) for at in rng.integers(-1, 20 * BLOCK - 16, 3000))
    joined = Joined(tuple((max(-1, at), size) for at, size in spans))
    opened = joined(disk)
    parts = [Range(None if at < 0 else disk, at, size) for at, size in joined.ranges]
    known = JoinedSource("disk.img", parts)
    assert opened.size == known.size
    assert opened.read_at(0, opened.size) == known.read_at(0, known.size)
    assert opened.read_at(1001, 333) == known.read_at(1001, 333)
    assert isinstance(opened, JoinedSource)
    assert opened.places(100, 70) == known.places(100, 70)
    assert opened.missing() == known.missing()
    assert list(opened.ranges) == list(known.ranges)
    assert opened.ranges[5:7] == list(known.ranges[5:7])
    copied = pickle.loads(pickle.dumps(joined))  # noqa: S301
    assert copied == joined
    assert hash(copied) == hash(joined)


def test_what_was_sought_in_vain_is_sought_again_only_beside_something_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, whole = scattered(60)
    lost = tuple(Piece(whole.size + 3000 * n, 3000, n, FLOAT) for n in range(20))
    file = DataFile(whole.size + 60_000, (*whole.pieces, *lost))
    met: list[tuple[object, ...]] = []

    def note(find: Any) -> Any:
        def noted(image: Any, piece: Piece, proved: Any, block: int, **given: Any) -> Any:
            found = find(image, piece, proved, block, **given)
            sides = tuple(splits.near(proved, piece.offset))
            met.append((find, piece.offset, sides, proved[-1].offset < piece.offset))
            return found

        return noted

    monkeypatch.setattr(splits, "_find_between", note(splits._find_between))
    monkeypatch.setattr(splits, "_find_other_part", note(splits._find_other_part))
    known = [Placement(0, len(FIRST), 0)]
    complete(disk, file, known, BLOCK)
    behind = [one for one in met if one[3]]
    assert len(behind) > 2 * len(lost)
    assert len(set(behind)) == len(behind)
