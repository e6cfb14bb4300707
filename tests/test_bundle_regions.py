"""Which bytes are read of a region of a tensor, and how memory is asked for."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ckptparse.bundle.memory import Buffer, HugePages
from ckptparse.bundle.regions import read_region

MIB = 1 << 20

# ---- a region of one tensor


def region_of(
    array: npt.NDArray[Any], *ranges: range
) -> tuple[npt.NDArray[Any], list[tuple[int, int]]]:
    """Read a region; return it, and the offset and the size of each read."""
    data, done = array.tobytes(), []

    def read_into(offset: int, buffer: memoryview) -> None:
        done.append((offset, len(buffer)))
        buffer[:] = data[offset : offset + len(buffer)]

    return read_region(read_into, array.shape, array.dtype, ranges), done


def check_region(
    array: npt.NDArray[Any], ranges: Sequence[range], reads: list[tuple[int, int]]
) -> None:
    found, done = region_of(array, *ranges)
    wanted = array[np.ix_(*(np.array(one, np.intp) for one in ranges))] if ranges else array
    assert found.shape == wanted.shape and found.tobytes() == wanted.tobytes()
    assert done == reads


def bytes_in(*shape: int) -> npt.NDArray[np.uint8]:
    return np.resize(np.arange(251, dtype=np.uint8), shape)


def test_what_lies_together_is_one_read() -> None:
    table = np.arange(20, dtype=np.int32).reshape(4, 5)
    check_region(np.array(7.0), (), [(0, 8)])
    check_region(table, (range(4), range(5)), [(0, 80)])
    check_region(table, (range(1, 3), range(5)), [(20, 40)])
    check_region(table, (range(2, 3), range(1, 4)), [(40, 20)])
    check_region(table, (range(3, 4, 2), range(5)), [(60, 20)])
    check_region(table, (range(3, 4), range(4, 5, 3)), [(60, 20)])
    check_region(table[0], (range(2, 3, 2),), [(8, 4)])
    check_region(table, (range(2, 2), range(5)), [])
    check_region(np.zeros((0, 5)), (range(0), range(5)), [])


def test_rows_are_read_with_what_lies_between() -> None:
    table = np.arange(20, dtype=np.int32).reshape(4, 5)
    check_region(table, (range(1, 3), range(1, 2)), [(20, 40)])
    check_region(table, (range(1, 4, 2), range(1, 4, 2)), [(20, 60)])
    check_region(table, (range(0, 3, 2), range(5)), [(0, 60)])
    cube = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    check_region(cube, (range(1, 3), range(1, 3), range(5)), [(40, 80)])
    check_region(cube, (range(1, 2), range(1, 4, 2), range(2, 5)), [(40, 40)])
    check_region(cube, (range(0, 3, 2), range(1, 2), range(0, 5, 4)), [(0, 120)])


def test_a_gap_of_a_page_is_read_over_and_one_byte_more_is_not() -> None:
    # Two bytes of each row are wanted: the gap is the rest of it.
    columns = range(1, 3)
    check_region(bytes_in(3, 4098), (range(1, 3), columns), [(4098, 2 * 4098)])
    check_region(bytes_in(3, 4099), (range(1, 3), columns), [(4100, 2), (8199, 2)])
    check_region(bytes_in(3, 2049), (range(0, 3, 2), columns), [(0, 3 * 2049)])
    check_region(bytes_in(3, 2050), (range(0, 3, 2), columns), [(1, 2), (4101, 2)])
    check_region(bytes_in(9000), (range(2, 9000, 4097),), [(2, 8195)])
    check_region(bytes_in(9000), (range(2, 9000, 4098),), [(2, 1), (4100, 1), (8198, 1)])
    # The gap between rows of a cube is counted from the last wanted byte to the next first one.
    cube = bytes_in(3, 100, 50)
    check_region(cube, (range(3), range(90), range(50)), [(0, 15000)])
    check_region(
        cube,
        (range(3), range(2), range(1, 3)),
        [(5000 * row, 100) for row in range(3)],
    )
    # 19 rows down, 4 bytes on, and the byte itself: 4095 bytes are between the cube's rows.
    check_region(cube, (range(1, 3), range(18, 37), range(7, 12)), [(5000, 10000)])
    check_region(cube, (range(1, 3), range(18, 36), range(7, 12)), [(5900, 900), (10900, 900)])


def test_what_is_read_at_once_with_bytes_that_nobody_wants_is_a_mebibyte() -> None:
    for width, reads in (
        (1 << 18, [(0, 4), (4, 4), (8, 2)]),
        ((1 << 18) - 1, [(0, 4), (4, 4), (8, 2)]),
        ((1 << 18) + 1, [(0, 3), (3, 3), (6, 3), (9, 1)]),
        (1 << 19, [(0, 2), (2, 2), (4, 2), (6, 2), (8, 2)]),
    ):
        check_region(
            bytes_in(10, width),
            (range(10), range(1, width)),
            [(first * width, count * width) for first, count in reads],
        )
    for width in ((1 << 19) + 1, (1 << 20) + 1):
        check_region(
            bytes_in(3, width),
            (range(3), range(1, width)),
            [(row * width + 1, width - 1) for row in range(3)],
        )
    # What has no such bytes is one read, however large it is.
    check_region(bytes_in(5, MIB), (range(1, 4), range(MIB)), [(MIB, 3 * MIB)])
    # Every second row: a step counts as many bytes as it passes.
    check_region(
        bytes_in(11, 1 << 17),
        (range(0, 11, 2), range(1 << 17)),
        [(row << 17, 1 << 17) for row in range(0, 11, 2)],
    )
    check_region(
        bytes_in(2000, 600),
        (range(0, 2000, 2), range(600)),
        # 873 rows of 1200 bytes are the most that a mebibyte holds.
        [(0, 1745 * 600), (1746 * 600, 253 * 600)],
    )


# ---- memory


@dataclass
class Advice:
    """Takes the place of a buffer's pages, and keeps what is asked of them."""

    asked: list[tuple[int, int, int]] = field(default_factory=list)
    fails: bool = False

    def madvise(self, advice: int, start: int, size: int) -> None:
        self.asked.append((advice, start, size))
        if self.fails:
            raise OSError


HUGE = 2 * MIB
on_linux = pytest.mark.skipif(
    not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no huge pages"
)


@on_linux
def test_a_buffer_begins_with_a_huge_page_if_it_has_one() -> None:
    for size in (0, 1, HUGE - 1):
        small = Buffer(size)
        assert small._pages is None and small.array.nbytes == size
        small.prepare(0, size, HugePages())
    for size in (HUGE, HUGE + 1, 3 * HUGE):
        buffer = Buffer(size)
        assert buffer._pages is not None and len(buffer._pages) == size + HUGE
        assert buffer.array.nbytes == size and buffer.array.ctypes.data % HUGE == 0
        assert buffer.array.flags.writeable and not buffer.array.any()
        assert buffer._end % HUGE == 0
        assert (
            buffer._start + buffer._end <= len(buffer._pages) < buffer._start + buffer._end + HUGE
        )
    for size in (1 << 61, (1 << 63) - 1, 1 << 64):
        with pytest.raises(MemoryError, match=r"no [0-9]+ bytes of memory"):
            Buffer(size)


@on_linux
@pytest.mark.parametrize(
    ("start", "stop", "found"),
    [
        (0, HUGE, (0, 1)),
        (0, 3 * HUGE, (0, 3)),
        (1, 3 * HUGE, (1, 2)),
        (HUGE, 2 * HUGE, (1, 1)),
        # The last one is asked for if half of it is needed.
        (0, HUGE // 2, (0, 1)),
        (0, HUGE // 2 - 1, None),
        (0, HUGE + HUGE // 2 - 1, (0, 1)),
        (0, HUGE + HUGE // 2, (0, 2)),
        (1, HUGE, None),
        (1, HUGE + HUGE // 2, (1, 1)),
        # There are four.
        (3 * HUGE, 4 * HUGE + HUGE // 2, (3, 1)),
        (4 * HUGE, 5 * HUGE, None),
    ],
)
def test_huge_pages_are_asked_for_a_part_of_a_buffer(
    monkeypatch: pytest.MonkeyPatch, start: int, stop: int, found: tuple[int, int] | None
) -> None:
    buffer, advice, pages = Buffer(5 * HUGE), Advice(), HugePages()
    buffer.array[:] = 1
    buffer._pages, buffer._end = advice, 4 * HUGE  # type: ignore[assignment]
    ticks = iter([10.0, 10.0005])
    monkeypatch.setattr("ckptparse.bundle.memory.time.perf_counter", lambda: next(ticks))
    buffer.prepare(start, stop, pages)
    if found is None:
        assert not advice.asked and buffer.array.all()
        return
    page, count = found
    where = buffer._start + page * HUGE, count * HUGE
    assert advice.asked == [(mmap.MADV_HUGEPAGE, *where)]
    # A byte of the first one is written, which is what takes the time.
    assert np.flatnonzero(buffer.array == 0).tolist() == [page * HUGE]
    assert pages._quick == 1 and pages._slow == 0


@on_linux
def test_a_part_whose_first_huge_page_is_slow_takes_small_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer, advice, pages = Buffer(4 * HUGE), Advice(), HugePages()
    buffer._pages = advice  # type: ignore[assignment]
    ticks = iter([10.0, 10.002, 20.0, 20.002])
    monkeypatch.setattr("ckptparse.bundle.memory.time.perf_counter", lambda: next(ticks))
    for _ in range(3):
        buffer.prepare(0, 2 * HUGE, pages)
    where = buffer._start, 2 * HUGE
    once = [(mmap.MADV_HUGEPAGE, *where), (mmap.MADV_NOHUGEPAGE, *where)]
    # After the second slow one no more are asked for.
    assert advice.asked == 2 * once and not pages.wanted


@on_linux
def test_a_system_without_huge_pages_gives_ordinary_ones() -> None:
    buffer, advice = Buffer(2 * HUGE), Advice(fails=True)
    buffer._pages = advice  # type: ignore[assignment]
    buffer.prepare(0, 2 * HUGE, HugePages())
    assert len(advice.asked) == 1


def test_four_quick_pages_make_up_for_a_slow_one() -> None:
    pages = HugePages()
    assert pages.wanted
    # A thousandth of a second is not quick any more.
    assert pages.note(0.0009) and not pages.note(0.001)
    assert pages.wanted and not pages.note(1)
    assert not pages.wanted
    for number in range(3):
        assert pages.note(0) and pages.wanted == (number == 2)
