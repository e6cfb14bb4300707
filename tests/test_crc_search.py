"""Runs of bytes found by their sizes and checksums: in a buffer, in a stream, in two fragments."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptparse.crc import grid
from ckptparse.crc.grid import FileRegisters, GridRegisters
from ckptparse.crc.registers import byte_registers, coarse_registers
from ckptparse.crc.search import Registers, find_splits
from ckptparse.crc.windows import Wanted
from ckptparse.parallel import most_threads

WANTED = st.tuples(st.integers(0, 40), st.integers(1, 600))


def wanted_at(data: bytes, start: int, size: int) -> Wanted:
    return Wanted(size, crc32c(data[start : start + size]))


def lies_at(data: bytes, item: Wanted, step: int, place: int = 0) -> list[int]:
    """Find a run the slow way."""
    starts = range(place, len(data) - item.size + 1, step)
    return [start for start in starts if crc32c(data[start : start + item.size]) == item.crc]


@pytest.mark.parametrize("step", [100, 1 << 18])
def test_registers_after_steps_are_those_of_all_bytes(step: int) -> None:
    for size in (0, 1, step - 1, step, step + 1, 2 * step + step // 2):
        data = np.random.default_rng(size).bytes(size)
        assert coarse_registers(data, step).tolist() == byte_registers(data)[::step].tolist()


@settings(max_examples=60)
@given(st.binary(min_size=700, max_size=1500), st.lists(WANTED, max_size=12), st.booleans())
def test_all_windows_of_several_sizes_are_found_together(
    data: bytes, places: list[tuple[int, int]], again: bool
) -> None:
    data = data + data if again else data
    wanted = [wanted_at(data, 4 * start, size) for start, size in places]
    found = Registers(data).find_each(wanted)
    assert found == {item: lies_at(data, item, 4) for item in wanted}


def reading(data: bytes) -> Callable[[int, memoryview], None]:
    """Read from bytes as from a file."""

    def read_into(start: int, buffer: memoryview) -> None:
        buffer[:] = data[start : start + len(buffer)]

    return read_into


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(1, 9)), max_size=9),
    st.lists(st.integers(1, 900), min_size=1, max_size=8),
)
def test_a_stream_gives_its_windows_whatever_the_pieces_it_came_in(
    seed: int, runs: list[tuple[int, int, int]], pieces: list[int]
) -> None:
    data = np.random.default_rng(seed).bytes(64 * 40)
    registers = GridRegisters(64, [16, 32, 48])
    start = number = 0
    while start < len(data):
        stop = min(start + pieces[number % len(pieces)], len(data))
        if number % 2:
            registers.extend_from(reading(data), start, stop)
        else:
            registers.extend(data[start:stop])
        start = stop
        number += 1
    for place in (0, 16, 32, 48):
        wanted = [
            wanted_at(data, 64 * block + place, 64 * blocks + 16 * quarters)
            for block, quarters, blocks in runs
        ]
        found = registers.find_each(wanted, place=place)
        assert found == {item: lies_at(data, item, 64, place) for item in wanted}


def test_the_last_window_of_a_stream_is_found_and_a_longer_one_is_not() -> None:
    data = np.random.default_rng(0).bytes(4096 * 5)
    registers = GridRegisters(4096)
    registers.extend(data)
    last = wanted_at(data, 4096 * 3, 8192)
    longer = Wanted(4096 * 6, 0)
    assert registers.find_each([last, longer]) == {last: [4096 * 3], longer: []}
    assert registers.size == len(data)


def test_a_stream_may_go_on_after_a_search() -> None:
    data = np.random.default_rng(0).bytes(4096 * 6)
    registers = GridRegisters(4096)
    registers.extend(data[: 4096 * 3])
    item = wanted_at(data, 4096 * 2, 4096 * 3)
    assert registers.find_each([item]) == {item: []}
    registers.extend(data[4096 * 3 :])
    assert registers.find_each([item]) == {item: [4096 * 2]}


def test_a_large_range_is_read_by_threads_and_its_registers_stay_in_order() -> None:
    size = (33 << 20) + 5
    data = np.random.default_rng(0).bytes(size)
    readers: set[int] = set()

    def read_into(offset: int, buffer: memoryview) -> None:
        readers.add(threading.get_ident())
        time.sleep(0.001)
        buffer[:] = data[offset : offset + len(buffer)]

    registers = GridRegisters(512, [100])
    registers.extend(data[:7])
    registers.extend_from(read_into, 7, size)
    parts = [(512 * 3000, 512 * 9000 + 100), (0, 512), (32 << 20, 1 << 20)]
    wanted = [wanted_at(data, start, count) for start, count in parts]
    found = registers.find_each(wanted)
    assert found == {one: [start] for one, (start, _) in zip(wanted, parts, strict=True)}
    assert registers.size == size // 512 * 512
    assert len(readers) == most_threads()


def test_a_place_that_was_not_kept_is_refused() -> None:
    registers = GridRegisters(512, [100])
    registers.extend(bytes(5120))
    with pytest.raises(ValueError, match="byte 7 of each block"):
        registers.find_each([Wanted(512, 0)], place=7)
    with pytest.raises(ValueError, match="byte 9 of each block"):
        registers.find_each([Wanted(521, 0)])


def test_many_checksums_of_one_size_are_told_apart() -> None:
    data = np.random.default_rng(2).bytes(4096 * 200)
    wanted = [wanted_at(data, 4096 * block, 8192) for block in range(199)]
    registers = GridRegisters(4096)
    registers.extend_from(reading(data), 0, len(data))
    found = registers.find_each(wanted)
    assert [found[item] for item in wanted] == [[4096 * block] for block in range(199)]


def test_a_thousand_runs_that_are_not_there_are_not_found() -> None:
    rng = np.random.default_rng(4)
    data = rng.bytes(1 << 20)
    sizes = rng.integers(1, 1 << 18, 1000)
    wanted = [Wanted(int(size), int(rng.integers(2**32))) for size in sizes]
    # The chance of one false match among them all is 1000 * 2^18 / 2^32: the seed has none.
    assert not any(Registers(data[: 1 << 16]).find_each(wanted).values())
    registers = GridRegisters(512, range(0, 512, 4))
    registers.extend(data)
    assert not any(registers.find_each([w._replace(size=w.size // 4 * 4) for w in wanted]).values())


# ------------------------------------------------------------------------------- two fragments


@given(st.data())
def test_a_split_is_found_wherever_it_is(draw: st.DataObject) -> None:
    rng = np.random.default_rng(draw.draw(st.integers(0, 99)))
    size = draw.draw(st.integers(1, 3000))
    first = draw.draw(st.integers(0, 127))
    run = rng.bytes(size)
    splits = range(first, size + 1, 128)
    if not splits:
        return
    split = draw.draw(st.sampled_from(splits))
    head = run[:split] + rng.bytes(draw.draw(st.integers(0, size - split)))
    tail = rng.bytes(draw.draw(st.integers(0, split))) + run[split:]
    found = find_splits(head, tail, crc32c(run), size, step=128, first=first)
    assert split in found
    joined = {at: head[:at] + tail[len(tail) - (size - at) :] for at in found}
    assert all(crc32c(bytes_) == crc32c(run) for bytes_ in joined.values())


def test_fragments_that_do_not_reach_each_other_have_no_split() -> None:
    assert find_splits(bytes(100), bytes(100), 0, 1000, step=64, first=0) == []


def test_a_thousand_pairs_of_random_fragments_have_no_split() -> None:
    rng = np.random.default_rng(6)
    for _ in range(1000):
        head, tail = rng.bytes(4096), rng.bytes(4096)
        crc = int(rng.integers(2**32))
        assert find_splits(head, tail, crc, 4096, step=128, first=int(rng.integers(128))) == []


def test_registers_of_every_byte_are_those_of_the_checksum() -> None:
    rng = np.random.default_rng(12)
    for size in (0, 1, 3, 4, 5, 1001):
        data = rng.bytes(size)
        expected = [crc32c(data[:end]) ^ 0xFFFFFFFF for end in range(size + 1)]
        assert byte_registers(data).tolist() == expected


def test_a_split_at_any_byte_is_found() -> None:
    rng = np.random.default_rng(13)
    first, second = rng.bytes(5000), rng.bytes(5000)
    for split in (0, 1, 77, 2500, 4999, 5000):
        whole = first[:split] + second[split:]
        assert split in find_splits(first, second, crc32c(whole), 5000, step=1, first=0)
    assert find_splits(first, second, 12345, 5000, step=1, first=0) == []


@pytest.mark.parametrize("places", [(), (2,), (1, 3, 5, 6)])
def test_registers_of_many_blocks_are_those_of_the_checksum(places: tuple[int, ...]) -> None:
    data = np.random.default_rng(13).bytes(8 * 3000 + 5)
    registers = GridRegisters(8, places)
    registers.extend(data[:9_001])
    registers.find_each([Wanted(8, 0)])
    registers.extend(data[9_001:])
    for place in registers.places:
        for block in (0, 1, 500, 1124, 1125, 2989):
            for end in registers.places:
                start, size = 8 * block + place, 8 * 7 + (end - place) % 8
                wanted = Wanted(size, crc32c(data[start : start + size]))
                assert start in registers.find_each([wanted], place=place)[wanted]


@pytest.mark.parametrize(
    ("most", "held", "window"),
    [(1 << 26, 1 << 23, 1 << 20), (1, 1 << 23, 1 << 20), (1 << 26, 0, 1 << 20), (1, 0, 511)],
)
def test_registers_of_a_file_are_those_of_a_stream(
    monkeypatch: pytest.MonkeyPatch, most: int, held: int, window: int
) -> None:
    monkeypatch.setattr(grid, "_KEPT_BYTES", most)
    monkeypatch.setattr(grid, "_HELD", held)  # Larger files are read by windows.
    monkeypatch.setattr(grid, "_WINDOW", window)  # A block may be longer than that.
    data = np.random.default_rng(14).bytes(512 * 1300 + 77)
    asked: list[int] = []

    def read_into(offset: int, buffer: memoryview) -> None:
        asked.append(offset)
        buffer[:] = data[offset : offset + len(buffer)]

    registers = FileRegisters(read_into, len(data), 512)
    rng = np.random.default_rng(15)
    for place in (0, 8, 300, 8, 511, 0):
        stream = GridRegisters(512, range(512))
        stream.extend(data)
        sizes = [1, 40, 512, 513, 20_000, 512 * 1299, 512 * 1300, len(data) + 1]
        starts = [place + 512 * int(rng.integers(900)) for _ in sizes]
        wanted = [wanted_at(data, *one) for one in zip(starts, sizes, strict=True)]
        assert registers.find_each(wanted, place=place) == stream.find_each(wanted, place=place)
    if most > 1:
        assert not registers.lacks([8, 300, 511])
        assert registers.lacks([8, 77, 78]) == 2
        asked.clear()
        registers.find_each([Wanted(40, 5)], place=8)
        assert not asked  # What was made once is kept.


@given(st.data())
@settings(max_examples=60)
def test_any_byte_at_which_fragments_meet_is_found_and_no_other(draw: st.DataObject) -> None:
    rng = np.random.default_rng(draw.draw(st.integers(0, 99)))
    size = draw.draw(st.integers(100, 20_000))
    split = draw.draw(st.integers(0, size))
    run = rng.bytes(size)
    head = run[:split] + rng.bytes(draw.draw(st.integers(0, size - split)))
    tail = rng.bytes(draw.draw(st.integers(0, split))) + run[split:]
    first = draw.draw(st.integers(0, 3))
    found = find_splits(head, tail, crc32c(run), size, step=1, first=first)
    assert (split in found) == (split >= first)
    for at in found:
        assert crc32c(head[:at] + tail[len(tail) - (size - at) :]) == crc32c(run)
    # Fragments that are equal meet everywhere.
    assert find_splits(run, run, crc32c(run), size, step=1, first=0) == list(range(size + 1))
