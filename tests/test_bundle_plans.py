"""Which bytes are read of many tensors, in what order, and where they are put in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ckptparse.bundle.arena import (
    Arena,
    Check,
    DenseRows,
    Stretch,
    check_mapped,
    plan_arenas,
    plan_placed,
    read_arenas,
    view_of,
)
from ckptparse.bundle.memory import Buffer, HugePages
from ckptparse.coding.checksum import crc32c

MIB = 1 << 20

# ---- where tensors lie in memory


def rows_of(*rows: tuple[int, int, int, int]) -> DenseRows:
    """Make rows of shard, offset, size and alignment."""
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return DenseRows.of(np.arange(len(rows)), *columns)


def plan(*rows: tuple[int, int, int, int], **options: Any) -> list[list[tuple[int, ...]]]:
    """Plan arenas; return of each stretch its rows, its shard, offset and size, its position."""
    arenas = plan_arenas(rows_of(*rows), **options)
    for arena in arenas:
        last = arena.stretches[-1]
        assert arena.size == last.position + last.size
    return [[stretch_of(stretch) for stretch in arena.stretches] for arena in arenas]


def stretch_of(found: Stretch) -> tuple[int, ...]:
    return found.low, found.high, found.shard_id, found.offset, found.size, found.position


def test_rows_are_sorted_by_their_data_file_and_their_offset() -> None:
    rows = rows_of((1, 0, 5, 1), (0, 9, 6, 2), (0, 3, 4, 4))
    assert rows.numbers.tolist() == [2, 1, 0]
    assert rows.shard_ids.tolist() == [0, 0, 1]
    part = rows.part(1, 3)
    assert part.offsets.tolist() == [9, 0] and part.sizes.tolist() == [6, 5]
    assert part.alignments.tolist() == [2, 1] and part.numbers.tolist() == [1, 0]


def test_neighbours_in_one_data_file_are_a_stretch() -> None:
    assert plan((0, 8, 100, 4), (0, 108, 50, 4)) == [[(0, 2, 0, 8, 150, 0)]]
    assert plan((0, 0, 100, 4), (0, 4196, 8, 4)) == [[(0, 2, 0, 0, 4204, 0)]]
    # A gap of more than a page, an overlap, another file: each begins another stretch.
    assert plan((0, 0, 100, 1), (0, 4197, 8, 1)) == [
        [(0, 1, 0, 0, 100, 0), (1, 2, 0, 4197, 8, 128)]
    ]
    assert plan((0, 0, 64, 1), (0, 63, 8, 1)) == [[(0, 1, 0, 0, 64, 0), (1, 2, 0, 63, 8, 64)]]
    assert plan((0, 0, 65, 4), (2, 68, 8, 4)) == [[(0, 1, 0, 0, 65, 0), (1, 2, 2, 68, 8, 128)]]
    assert plan((0, 0, 10, 1), (0, 17, 8, 1), gap=6) == [
        [(0, 1, 0, 0, 10, 0), (1, 2, 0, 17, 8, 64)]
    ]
    assert plan((0, 0, 10, 1), (0, 17, 8, 1), gap=7) == [[(0, 2, 0, 0, 25, 0)]]
    assert plan() == []


def test_an_arena_has_sixteen_mebibytes_unless_one_tensor_has_more() -> None:
    most = 16 * MIB
    assert plan((0, 0, 64, 1), (1, 0, most - 64, 1)) == [
        [(0, 1, 0, 0, 64, 0), (1, 2, 1, 0, most - 64, 64)]
    ]
    assert plan((0, 0, 64, 1), (1, 0, most - 63, 1)) == [
        [(0, 1, 0, 0, 64, 0)],
        [(1, 2, 1, 0, most - 63, 0)],
    ]
    half = most // 2
    assert plan((0, 5, half, 1), (0, 5 + half, half, 1)) == [[(0, 2, 0, 5, most, 0)]]
    assert plan((0, 5, half, 1), (0, 5 + half, half + 1, 1), (0, 6 + most, 3, 1)) == [
        [(0, 1, 0, 5, half, 0)],
        [(1, 3, 0, 5 + half, half + 4, 0)],
    ]
    assert plan((0, 0, 3, 1), (0, 3, most + 9, 1), (0, most + 12, 7, 1)) == [
        [(0, 1, 0, 0, 3, 0)],
        [(1, 2, 0, 3, most + 9, 0)],
        [(2, 3, 0, most + 12, 7, 0)],
    ]


LARGE, SMALL = 16_385, 16_384


def test_the_widest_elements_of_a_stretch_are_aligned() -> None:
    # The second tensor begins at 20001, which is 1 more than a multiple of 8: the stretch at 7.
    first, second = (0, 0, 20_001, 1), (0, 20_001, LARGE, 8)
    assert plan(first, second) == [[(0, 2, 0, 0, 20_001 + LARGE, 7)]]
    assert plan((0, 0, 10, 1), (1, 0, 20_001, 1), (1, 20_001, LARGE, 8)) == [
        [(0, 1, 0, 0, 10, 0), (1, 3, 1, 0, 20_001 + LARGE, 64 + 7)]
    ]
    # A small one is copied to where it is aligned, unless all are small.
    small = (0, 20_001, SMALL, 8)
    assert plan(first, small) == [[(0, 2, 0, 0, 20_001 + SMALL, 0)]]
    assert plan((0, 1, 5, 2), (0, 6, 5, 4)) == [[(0, 2, 0, 1, 10, 3)]]
    assert plan((0, 1, 5, 4), (0, 6, 5, 4)) == [[(0, 2, 0, 1, 10, 0)]]
    # The widest of the large ones, not of all.
    assert plan((0, 1, 6, 16), (0, 7, LARGE, 2)) == [[(0, 2, 0, 1, 6 + LARGE, 0)]]
    # A new arena begins with the stretch's own shift.
    assert plan((0, 0, 16 * MIB, 1), (1, 0, 20_001, 1), (1, 20_001, LARGE, 8)) == [
        [(0, 1, 0, 0, 16 * MIB, 0)],
        [(1, 3, 1, 0, 20_001 + LARGE, 7)],
    ]


def cuts(*rows: tuple[int, int]) -> list[int]:
    """Return before which rows a stretch begins, of rows of a gap and an alignment."""
    offset, made = 0, []
    for gap, alignment in rows:
        size = LARGE if alignment > 0 else SMALL
        offset += gap
        made.append((0, offset, size, abs(alignment)))
        offset += size
    return [low for arena in plan(*made) for low, *_ in arena]


def test_tensors_that_no_shift_aligns_are_no_stretch() -> None:
    """A large one takes 16385 bytes: with a gap of 7, the next begins as many beyond 8 bytes."""
    assert cuts((0, 8), (7, 8), (7, 8)) == [0]
    assert cuts((1, 8), (7, 8), (7, 8)) == [0]
    assert cuts((0, 8), (0, 8)) == [0, 1]
    assert cuts((0, 8), (3, 8), (7, 8)) == [0, 1]
    assert cuts((1, 4), (3, 4), (2, 4), (3, 4)) == [0, 2]
    # What is aligned to four bytes goes with what is aligned to eight at the same rest.
    assert cuts((1, 4), (3, 8), (7, 8), (3, 4)) == [0]
    assert cuts((1, 4), (3, 8), (3, 8)) == [0, 2]
    assert cuts((1, 8), (3, 4), (3, 8)) == [0]
    assert cuts((1, 8), (3, 4), (7, 8)) == [0, 2]
    # After a cut only the tensors of the new stretch count.
    assert cuts((0, 2), (0, 2), (1, 2), (1, 2)) == [0, 1]
    assert cuts((0, 2), (0, 2), (0, 1), (0, 2), (0, 2)) == [0, 1, 4]
    # Small ones are copied: they cut nothing, and nothing is aligned to them.
    assert cuts((1, -8), (0, 8), (0, -8), (7, 8)) == [0]
    assert cuts((1, -8), (0, -8), (0, 2)) == [0]
    # Bytes are aligned wherever they are.
    assert cuts((0, 1), (0, 1), (0, 2)) == [0]
    assert cuts((1, 2), (0, 1), (0, 2)) == [0]
    assert cuts((1, 2), (0, 1), (1, 2)) == [0, 2]


def placed(rows: DenseRows, *positions: int) -> tuple[int, list[tuple[int, ...]]]:
    arena = plan_placed(rows, np.array(positions, np.int64))
    return arena.size, [stretch_of(stretch) for stretch in arena.stretches]


def test_slices_that_follow_one_another_in_file_and_array_are_read_together() -> None:
    rows = rows_of((0, 5, 10, 1), (0, 15, 20, 1), (0, 35, 7, 1))
    assert placed(rows, 0, 10, 30) == (37, [(0, 3, 0, 5, 37, 0)])
    assert placed(rows, 27, 7, 0) == (
        37,
        [(0, 1, 0, 5, 10, 27), (1, 2, 0, 15, 20, 7), (2, 3, 0, 35, 7, 0)],
    )
    assert placed(rows, 0, 10, 31) == (38, [(0, 2, 0, 5, 30, 0), (2, 3, 0, 35, 7, 31)])
    apart = rows_of((0, 5, 10, 1), (0, 16, 20, 1), (1, 36, 7, 1))
    assert placed(apart, 0, 10, 30) == (
        37,
        [(0, 1, 0, 5, 10, 0), (1, 2, 0, 16, 20, 10), (2, 3, 1, 36, 7, 30)],
    )


# ---- checksums of what is read


def test_a_row_without_a_checksum_has_failed() -> None:
    check = Check(np.array([5, 6, 7], np.int64))
    assert check.find_failed() == (0, -1)
    check.put(0, [5, 6])
    assert check.find_failed() == (2, -1)
    check.put(2, [7])
    assert check.find_failed() is None
    check.put(1, [8, 9])
    assert check.find_failed() == (1, 8)


def test_the_checksum_of_a_row_in_parts_is_that_of_all_its_bytes() -> None:
    data = bytes(range(100))
    check = Check(np.array([4, crc32c(data)], np.int64))
    check.put(0, [4])
    # Its parts come in any order; what is put for the row itself is ignored.
    check.put_part(1, 60, 40, crc32c(data[60:]))
    check.put(1, [99])
    check.put_part(1, 0, 10, crc32c(data[:10]))
    check.put_part(1, 10, 50, crc32c(data[10:60]))
    assert check.find_failed() is None
    check.put_part(0, 0, 1, 11)
    assert check.find_failed() == (0, 11)


@dataclass
class DataFiles:
    """Data files in memory, which keep what is asked of them."""

    contents: Sequence[bytes]
    piece: int = 1000
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    @contextmanager
    def open(self, shard_id: int) -> Iterator[Any]:
        yield DataFile(self, shard_id)


@dataclass
class DataFile:
    files: DataFiles
    shard_id: int

    @property
    def piece(self) -> int:
        return self.files.piece

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.files.asked.append(("read", self.shard_id, offset, len(buffer)))
        buffer[:] = self.files.contents[self.shard_id][offset : offset + len(buffer)]

    def expect(self, offset: int, size: int) -> None:
        self.files.asked.append(("expect", self.shard_id, offset, size))


LAYOUTS = {
    "one": [(0, 3, 40)],
    "neighbours": [(0, 0, 10), (0, 10, 10), (0, 20, 5), (0, 25, 1)],
    "gaps": [(0, 1, 9), (0, 13, 17), (0, 30, 30), (0, 61, 2)],
    "overlaps": [(0, 0, 20), (0, 10, 20), (0, 10, 3)],
    "files": [(0, 5, 11), (1, 5, 30), (1, 35, 1), (1, 36, 20)],
    "many": [(0, n, 1) for n in range(30)],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_row_has_the_checksum_of_its_bytes(
    layout: list[tuple[int, int, int]], threads: int
) -> None:
    contents = [bytes(range(80)), bytes(range(100, 180))]
    rows = rows_of(*((*row, 1) for row in layout))
    places = list(
        zip(rows.shard_ids.tolist(), rows.offsets.tolist(), rows.sizes.tolist(), strict=True)
    )
    wanted = [contents[shard][offset : offset + size] for shard, offset, size in places]
    crcs = np.array(list(map(crc32c, wanted)), np.int64)
    for share in (1, 3, 10, 11, 1000):
        for piece in (4, 1000):
            files, check = DataFiles(contents, piece), Check(crcs)
            arenas = plan_arenas(rows)
            (buffer,) = read_arenas(
                rows, arenas, files.open, check=check, threads=threads, share=share
            )
            assert check.find_failed() is None
            for stretch in arenas[0].stretches:
                view = view_of(buffer, stretch)
                for row in range(stretch.low, stretch.high):
                    start = places[row][1] - stretch.offset
                    assert view[start : start + places[row][2]] == wanted[row]
            damaged = Check(crcs ^ (np.arange(len(crcs)) == len(crcs) - 1))
            read_arenas(rows, arenas, files.open, check=damaged, threads=threads, share=share)
            assert damaged.find_failed() == (len(crcs) - 1, crcs[-1])


def test_bytes_are_read_in_pieces_that_begin_with_each_share() -> None:
    rows = rows_of((0, 3, 40, 1), (1, 1, 5, 1))
    files = DataFiles([bytes(80), bytes(80)], piece=8)
    read_arenas(rows, plan_arenas(rows), files.open, check=None, threads=1, share=20)
    assert files.asked == [
        ("read", 0, 3, 8),
        ("read", 0, 11, 8),
        ("read", 0, 19, 4),
        ("read", 0, 23, 8),
        ("read", 0, 31, 8),
        ("read", 0, 39, 4),
        ("read", 1, 1, 5),
    ]


@pytest.mark.parametrize(
    ("threads", "order"), [(1, "e1 e2 r0 e3 r1 e4 r2 r3 r4"), (2, "e2 e3 r0 r1 r2 r3 r4 e4")]
)
def test_a_disk_is_asked_for_shares_some_places_before_they_are_read(
    threads: int, order: str
) -> None:
    """Of each thread two shares are asked for; what is less than a piece is not."""
    rows = rows_of((0, 7, 5 * MIB, 1), (1, 0, MIB - 1, 1))
    files = DataFiles([bytes(5 * MIB + 7), bytes(MIB)], piece=MIB)
    read_arenas(rows, plan_arenas(rows), files.open, check=None, threads=threads, share=MIB)
    names = [
        f"{what[0]}{(offset - 7) // MIB}" for what, shard, offset, size in files.asked if not shard
    ]
    sizes = {size for what, shard, offset, size in files.asked if not shard}
    assert sizes == {MIB}
    assert ("expect", 1, 0, MIB - 1) not in files.asked
    if threads == 1:
        assert " ".join(names) == order
    else:
        assert sorted(names) == sorted(order.split())
        assert names[:2] == ["e2", "e3"]


class Parts(Check):
    """Keeps which parts of rows have checksums."""

    def __init__(self, wanted: npt.NDArray[np.int64]) -> None:
        super().__init__(wanted)
        self.taken: list[tuple[int, int, int]] = []

    def put_part(self, row: int, start: int, size: int, crc: int) -> None:
        self.taken.append((row, start, size))


def test_only_a_row_that_reaches_beyond_a_share_comes_in_parts() -> None:
    rows = rows_of((0, 5, 10, 1), (0, 15, 20, 1), (0, 35, 4, 1), (0, 39, 1, 1))
    check = Parts(np.zeros(4, np.int64))
    files = DataFiles([bytes(80)])
    read_arenas(rows, plan_arenas(rows), files.open, check=check, threads=1, share=15)
    assert check.taken == [(1, 0, 5), (1, 5, 15)]
    check = Parts(np.zeros(4, np.int64))
    read_arenas(rows, plan_arenas(rows), files.open, check=check, threads=1, share=8)
    assert check.taken == [
        *[(0, 0, 8), (0, 8, 2), (1, 0, 6), (1, 6, 8), (1, 14, 6)],
        *[(2, 0, 2), (2, 2, 2)],
    ]


def test_each_share_prepares_its_own_part_of_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []

    class Noting(Buffer):
        def prepare(self, start: int, stop: int, huge_pages: HugePages) -> None:
            prepared.append((start, stop))

    monkeypatch.setattr("ckptparse.bundle.arena.Buffer", Noting)
    rows = rows_of((0, 5, 10, 1), (1, 5, 20, 1))
    files = DataFiles([bytes(80), bytes(80)])
    read_arenas(rows, plan_arenas(rows), files.open, check=None, threads=1, share=15)
    assert prepared == [(0, 10), (64, 79), (79, 84)]


def test_a_share_has_sixteen_mebibytes() -> None:
    most = 16 * MIB
    rows = rows_of((0, 0, most + MIB, 1))
    files = DataFiles([bytes(most + MIB)], piece=most)
    stretches = plan_arenas(rows)[0].stretches

    def view(stretch: Stretch) -> memoryview:
        return memoryview(files.contents[0])

    check = Check(np.zeros(1, np.int64))
    check_mapped(rows, stretches, view, files.open, check=check, threads=1)
    assert files.asked == [("expect", 0, most, MIB)]
    read_arenas(rows, plan_arenas(rows), files.open, check=None, threads=1)
    assert files.asked[1:] == [
        ("expect", 0, most, MIB),
        ("read", 0, 0, most),
        ("read", 0, most, MIB),
    ]


def test_tensors_that_are_mapped_have_checksums_too() -> None:
    data = bytes(range(100))
    rows = rows_of((0, 3, 40, 1), (0, 50, 20, 1))
    stretches = [stretch for arena in plan_arenas(rows, gap=0) for stretch in arena.stretches]
    assert len(stretches) == 2
    check = Check(np.array([crc32c(data[3:43]), crc32c(data[50:70])], np.int64))

    def view(stretch: Stretch) -> memoryview:
        return memoryview(data)[stretch.offset : stretch.offset + stretch.size]

    check_mapped(rows, stretches, view, DataFiles([data]).open, check=check, threads=1)
    assert check.find_failed() is None
    assert Arena().size == 0
