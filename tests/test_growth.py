"""Sixteen times the work costs about sixteen times as much, and never the square of it.

The bound is between the two (16 and 256) and far from both, so that a busy machine fails nothing;
`scripts/benchmark.py --scale` draws the whole curve.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse.files.local import LocalSource

FEW, MANY = 1_000, 16_000
MOST = 70
"""Times the cost of the small job that the one of sixteen times its size may have."""


def cost(work: Callable[[], object]) -> float:
    """Processor seconds of this thread, the least of three."""

    def once() -> float:
        started = time.thread_time()
        work()
        return time.thread_time() - started

    return min(once() for _ in range(3))


def check_growth(work: Callable[[str], object], small: str, large: str) -> None:
    work(small)  # whatever is imported or made only once
    # What a job costs however small it is would hide how it grows, and is under a millisecond.
    assert cost(lambda: work(large)) < MOST * max(cost(lambda: work(small)), 0.001)


def write_entries(prefix: Path, count: int) -> str:
    bundle = builder.Bundle()
    for number in range(count):
        bundle.add(f"layer_{number:05d}/w", np.full(4, number, np.float32))
    return bundle.write(prefix)


def write_slices(prefix: Path, extents: list[list[tuple[int, int]]], shape: tuple[int, int]) -> str:
    bundle = builder.Bundle()
    values = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    bundle.add_sliced("v", values, extents)
    return bundle.write(prefix)


def write_rows(prefix: Path, count: int) -> str:
    return write_slices(prefix, [[(row, 1), (0, 4)] for row in range(count)], (count, 4))


def write_columns(prefix: Path, count: int) -> str:
    return write_slices(prefix, [[(0, 4), (column, 1)] for column in range(count)], (4, count))


def write_tiles(prefix: Path, count: int) -> str:
    """Slices of a grid of 40 columns: neither dimension alone tells them apart."""
    extents = [[(2 * (n // 40), 2), (2 * (n % 40), 2)] for n in range(count)]
    return write_slices(prefix, extents, (2 * count // 40, 80))


def write_shards(prefix: Path, count: int) -> str:
    bundle = builder.Bundle()
    for number in range(count):
        bundle.add(f"layer_{number:05d}/w", np.full(4, number, np.float32), shard=number)
    return bundle.write(prefix)


def write_string_shards(prefix: Path, count: int) -> str:
    bundle = builder.Bundle()
    for number in range(count):
        bundle.add(f"{number}", np.array([b"some words"], object), shard=number)
    return bundle.write(prefix)


def list_all(path: str) -> None:
    with ckptparse.open(path) as checkpoint:
        assert all(tensor.shape is not None for tensor in checkpoint.values())


def read_one(path: str) -> None:
    with ckptparse.open(path) as checkpoint:
        checkpoint["layer_00500/w"].read()


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("entries")
    return write_entries(folder / "few", FEW), write_entries(folder / "many", MANY)


@pytest.mark.parametrize("work", [ckptparse.read, ckptparse.list_variables, list_all])
def test_entries_cost_in_proportion(
    entries: tuple[str, str], work: Callable[[str], object]
) -> None:
    check_growth(work, *entries)


def test_one_of_many_costs_a_block_and_not_the_index(entries: tuple[str, str]) -> None:
    read_one(entries[0])
    assert cost(lambda: read_one(entries[1])) < 8 * max(cost(lambda: read_one(entries[0])), 0.001)


def compare(path: str) -> None:
    assert ckptparse.diff(path, path).same


@pytest.mark.parametrize("work", [ckptparse.verify, ckptparse.recover, compare])
def test_judging_entries_costs_in_proportion(
    entries: tuple[str, str], work: Callable[[str], object]
) -> None:
    check_growth(work, *entries)


def lose_footer(index: bytearray, data: bytearray) -> None:
    del index[-48:]


def zero_page(index: bytearray, data: bytearray) -> None:
    index[8192:12288] = bytes(4096)


def flip_bits(index: bytearray, data: bytearray) -> None:
    for place in range(5):
        data[place * len(data) // 5] ^= 4


def cut_data(index: bytearray, data: bytearray) -> None:
    del data[-4000:]


@pytest.mark.parametrize("damage", [lose_footer, zero_page, flip_bits, cut_data])
def test_judging_damaged_entries_costs_in_proportion(
    entries: tuple[str, str], tmp_path: Path, damage: Callable[[bytearray, bytearray], None]
) -> None:
    damaged = []
    for path in entries:
        folder = tmp_path / Path(path).name
        folder.mkdir()
        names = "m.index", "m.data-00000-of-00001"
        files = [bytearray(Path(f"{path}{name[1:]}").read_bytes()) for name in names]
        damage(*files)
        for name, data in zip(names, files, strict=True):
            (folder / name).write_bytes(data)
        damaged.append(str(folder / "m"))
    check_growth(ckptparse.recover, *damaged)


def test_writing_and_converting_entries_cost_in_proportion(
    entries: tuple[str, str], tmp_path: Path
) -> None:
    def convert(path: str) -> None:
        ckptparse.convert(path, tmp_path / "out.safetensors", overwrite=True)

    def write(path: str) -> None:
        ckptparse.write(tmp_path / "again", arrays[path], overwrite=True)

    arrays = {path: ckptparse.read(path) for path in entries}
    check_growth(convert, *entries)
    check_growth(write, *entries)


@pytest.mark.parametrize("write", [write_rows, write_columns, write_tiles])
def test_slices_of_one_variable_cost_in_proportion(
    tmp_path: Path, write: Callable[[Path, int], str]
) -> None:
    limits = ckptparse.Limits(single_entries=MANY)
    read = partial(ckptparse.read, limits=limits)
    check_growth(read, write(tmp_path / "few", FEW), write(tmp_path / "many", MANY))


def test_shards_cost_in_proportion(tmp_path: Path) -> None:
    few, many = write_shards(tmp_path / "few", 128), write_shards(tmp_path / "many", 2048)
    check_growth(ckptparse.read, few, many)
    check_growth(ckptparse.verify, few, many)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files by /proc")
@pytest.mark.parametrize("mmap", [False, True])
def test_shards_do_not_stay_open_beyond_a_bound(tmp_path: Path, mmap: bool) -> None:
    path = write_shards(tmp_path / "m", 512)
    before = len(os.listdir("/proc/self/fd"))
    with ckptparse.open(path, mmap=mmap) as checkpoint:
        arrays = checkpoint.read()
        # As many open as mapped, each to a bound of 64.
        assert len(os.listdir("/proc/self/fd")) - before <= (140 if mmap else 80)
    for number, array in enumerate(arrays.values()):
        assert (array == number).all()
    del arrays, array
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files by /proc")
def test_tensors_mapped_one_by_one_hold_open_no_more_files_than_a_bound(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    values = np.arange(1 << 19, dtype=np.float32)
    for number in range(200):
        bundle.add(f"{number}", values)
    with ckptparse.open(bundle.write(tmp_path / "m"), mmap=True) as checkpoint:
        before = len(os.listdir("/proc/self/fd"))
        arrays = [tensor.read() for tensor in checkpoint.values()]
        assert len(os.listdir("/proc/self/fd")) - before <= 80
    assert all((array == values).all() for array in arrays)


def test_a_system_that_refuses_to_map_gives_arrays_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> object:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("ckptparse.files.local.LocalSource.map", refuse)
    arrays = ckptparse.read(write_shards(tmp_path / "m", 3), mmap=True)
    assert [array.tolist() for array in arrays.values()] == [[n] * 4 for n in range(3)]


def test_each_shard_is_opened_once_or_where_there_are_many_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = LocalSource.open

    def note(path: str) -> LocalSource:
        opened.append(path)
        return real(path)

    monkeypatch.setattr("ckptparse.files.local.LocalSource.open", note)
    for count, times in (60, 1), (100, 2):
        opened.clear()
        ckptparse.read(write_shards(tmp_path / f"{count}", count))
        assert max(Counter(path for path in opened if ".data-" in path).values()) == times


def test_the_bound_on_shared_bytes_is_worked_out_once(tmp_path: Path) -> None:
    """However many tensors are read beyond it, the data files are not measured for each."""
    few, many = (write_string_shards(tmp_path / f"{n}", n) for n in (64, 1024))
    limits = replace(ckptparse.DEFAULT_LIMITS, shared_bytes=8)
    check_growth(lambda path: ckptparse.read(path, limits=limits), few, many)
