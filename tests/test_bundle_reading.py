"""Reading many tensors at once: whose memory the arrays are, in what order, by how many threads."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instruments import MEGABYTE, allocating_at_most, counted_reads, outcome_in_little_memory
from packages import ml_dtypes

import ckptparse
from ckptparse import ChecksumError, TruncatedError
from ckptparse.bundle.memory import HugePages

Array = np.ndarray[Any, Any]
KINDS = [np.int8, np.bool_, np.float16, np.float32, np.float64, np.complex128]
KINDS += [ml_dtypes.bfloat16] if ml_dtypes else []


def random_array(number: int, size: int, kind: Any = np.int8) -> Array:
    chance = np.random.default_rng(number)
    if kind is np.bool_:
        return chance.integers(0, 2, size).astype(bool)
    return np.frombuffer(chance.bytes(size * np.dtype(kind).itemsize), kind)


def mixed_bundle(*, big: bool = False, alignment: int = 1) -> tuple[b.Bundle, dict[str, Array]]:
    """Tensors of many sizes and kinds in two shards, so that few offsets are aligned."""
    bundle, wanted = b.Bundle(big=big, alignment=alignment), {}
    for n in range(60):
        kind = KINDS[n % len(KINDS)]
        name = f"t{n * 37 % 60:02}"
        wanted[name] = random_array(n, [0, 1, 3, 50, 1000, 5001][n % 6], kind)
        bundle.add(name, wanted[name], shard=n % 2)
        if n % 11 == 0:
            bundle.put(bytes([n]) * (n * 150), shard=n % 2)
    return bundle, wanted


def check_all(got: dict[str, Array], wanted: dict[str, Array]) -> None:
    assert list(got) == sorted(wanted)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes(), name


WAYS: list[dict[str, Any]] = [
    {}, {"threads": 1}, {"threads": 4}, {"mmap": True}, {"mmap": True, "threads": 3},
    {"verify": False}, {"verify": False, "mmap": True},
]  # fmt: skip
each_way = pytest.mark.parametrize("way", WAYS, ids=str)

# ---- whose the arrays are


@each_way
@pytest.mark.parametrize("big", [False, True], ids=["little", "big"])
def test_arrays_are_right_aligned_native_writable_and_c_ordered(
    tmp_path: Path, way: dict[str, Any], big: bool
) -> None:
    bundle, wanted = mixed_bundle(big=big)
    got = ckptparse.read(bundle.write(tmp_path / "x"), **way)
    check_all(got, wanted)
    for array in got.values():
        assert type(array) is np.ndarray
        assert array.flags.writeable and array.flags.aligned and array.flags.c_contiguous
        assert array.dtype.isnative


@each_way
def test_arrays_are_disjoint(tmp_path: Path, way: dict[str, Any]) -> None:
    bundle, wanted = mixed_bundle()
    shared = bundle.entries[b"t01"]
    for name in ("copy1", "copy2"):
        bundle.entries[name.encode()] = shared
        wanted[name] = wanted["t01"]
    got = ckptparse.read(bundle.write(tmp_path / "x"), **way)
    check_all(got, wanted)
    spans = sorted((array.ctypes.data, array.nbytes) for array in got.values() if array.size)
    assert all(a + size <= c for (a, size), (c, _) in pairwise(spans))


@each_way
def test_writing_into_one_array_changes_no_other(tmp_path: Path, way: dict[str, Any]) -> None:
    bundle, wanted = mixed_bundle()
    got = ckptparse.read(bundle.write(tmp_path / "x"), **way)
    for name in sorted(wanted)[::2]:
        got[name].view(np.uint8)[...] = 0xAB
    for name in sorted(wanted)[1::2]:
        assert got[name].tobytes() == wanted[name].tobytes()


@each_way
def test_writing_into_arrays_reaches_neither_file_nor_later_reads(
    tmp_path: Path, way: dict[str, Any]
) -> None:
    bundle, wanted = mixed_bundle()
    prefix = bundle.write(tmp_path / "x")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for array in ckptparse.read(prefix, **way).values():
        array.view(np.uint8)[...] = 0xAB
    with ckptparse.open(prefix, **way) as checkpoint:
        for name in wanted:
            checkpoint[name].read().view(np.uint8)[...] = 0xCD
            checkpoint[name][...].view(np.uint8)[...] = 0xCD
        check_all(checkpoint.read(), wanted)
    gc.collect()
    os.sync()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    check_all(ckptparse.read(prefix, **way), wanted)


def test_arrays_that_were_read_outlive_file_and_checkpoint(tmp_path: Path) -> None:
    bundle, wanted = mixed_bundle()
    prefix = bundle.write(tmp_path / "x")
    plain, mapped = ckptparse.read(prefix), ckptparse.read(prefix, mmap=True)
    for path in tmp_path.iterdir():
        path.unlink()
    gc.collect()
    check_all(plain, wanted)
    check_all(mapped, wanted)


def test_arrays_that_were_read_do_not_see_later_writes_to_the_file(tmp_path: Path) -> None:
    bundle, wanted = mixed_bundle()
    got = ckptparse.read(bundle.write(tmp_path / "x"))
    for path in tmp_path.glob("*.data-*"):
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
    check_all(got, wanted)


def test_mapped_arrays_are_views_of_the_file_in_every_shard(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for n in range(12):
        bundle.add(f"t{n}", random_array(n, 4096, np.float32), shard=n // 4)
    prefix = bundle.write(tmp_path / "x")
    with allocating_at_most(96 << 10):
        got = ckptparse.read(prefix, mmap=True, verify=False)
    assert not any(array.flags.owndata for array in got.values())


def test_one_surviving_array_keeps_little_more_than_itself(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for n in range(40):
        bundle.add(f"t{n:02}", np.full(1 << 20, n, np.float32))
    prefix = bundle.write(tmp_path / "x")
    code = f"""
    import gc
    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096
    ckptparse.read({prefix!r}, ["t00"])
    gc.collect()
    before = resident()
    got = ckptparse.read({prefix!r})
    one = got["t20"]
    del got
    gc.collect()
    print(resident() - before <= one.nbytes + (64 << 20), one[0])
    """
    assert outcome_in_little_memory(tmp_path, code, budget=1 << 30) == "True 20.0"


# ---- large tensors: pieces, shares and threads


SIZES = [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, (16 << 20) + 5, (33 << 20) + 3, 7, 20 << 20]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, b.Bundle, dict[str, Array]]:
    bundle, wanted = b.Bundle(), {}
    for n, size in enumerate(SIZES):
        wanted[f"t{n}"] = random_array(n, size)
        bundle.add(f"t{n}", wanted[f"t{n}"])
    return bundle.write(tmp_path_factory.mktemp("large") / "x"), bundle, wanted


@each_way
def test_tensors_larger_than_a_piece_come_back(
    large: tuple[str, b.Bundle, dict[str, Array]], way: dict[str, Any]
) -> None:
    prefix, _, wanted = large
    check_all(ckptparse.read(prefix, **way), wanted)
    with ckptparse.open(prefix, **way) as checkpoint:
        for name, array in wanted.items():
            assert np.array_equal(checkpoint[name].read(), array)
            checkpoint[name].verify()


def test_damage_anywhere_in_large_tensors_is_found_by_every_way(
    large: tuple[str, b.Bundle, dict[str, Array]], tmp_path: Path
) -> None:
    prefix, bundle, _ = large
    shard = Path(prefix + ".data-00000-of-00001")
    chance = np.random.default_rng(5)
    starts = [(e.offset, e.size, k.decode()) for k, e in bundle.entries.items()]
    places = [(o, k) for o, s, k in starts] + [(o + s - 1, k) for o, s, k in starts]
    places += [(o + int(chance.integers(s)), k) for o, s, k in starts for _ in range(2)]
    with shard.open("r+b") as file:
        for n, (place, name) in enumerate(places):
            file.seek(place)
            old = file.read(1)
            file.seek(place)
            file.write(bytes([old[0] ^ 1 << n % 8]))
            file.flush()
            for way in ({}, {"threads": 3}, {"mmap": True}):
                with pytest.raises(ChecksumError) as caught:
                    ckptparse.read(prefix, **way)
                assert caught.value.tensor == name
            with ckptparse.open(prefix) as checkpoint, pytest.raises(ChecksumError):
                checkpoint[name].verify()
            file.seek(place)
            file.write(old)
            file.flush()


def test_streamed_verify_takes_little_memory(
    large: tuple[str, b.Bundle, dict[str, Array]],
) -> None:
    prefix, _, _ = large
    with ckptparse.open(prefix) as checkpoint, allocating_at_most(4 * MEGABYTE):
        for tensor in checkpoint.values():
            tensor.verify()


def test_streamed_verify_of_long_strings_takes_little_memory(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("s", np.array([b"short", bytes(40 << 20), b""], object))
    prefix = bundle.write(tmp_path / "x")
    with ckptparse.open(prefix) as checkpoint, allocating_at_most(4 * MEGABYTE):
        checkpoint["s"].verify()
    shard = Path(prefix + ".data-00000-of-00001")
    for place in (0, 5, 8, 12, 1000, shard.stat().st_size - 1):
        with shard.open("r+b") as file:
            file.seek(place)
            old = file.read(1)
            file.seek(place)
            file.write(bytes([old[0] ^ 1]))
        with ckptparse.open(prefix) as checkpoint, pytest.raises(ChecksumError) as caught:
            checkpoint["s"].verify()
        assert caught.value.tensor == "s" and caught.value.path == str(shard)
        with shard.open("r+b") as file:
            file.seek(place)
            file.write(old)


def test_of_several_damaged_tensors_the_first_stored_is_named(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for name in ("z", "m", "a"):
        bundle.add(name, np.zeros(10, np.float32), crc=1)
    with pytest.raises(ChecksumError) as caught:
        ckptparse.read(bundle.write(tmp_path / "x"), threads=4)
    assert caught.value.tensor == "z"


def test_checkpoints_are_read_from_several_threads_at_once(tmp_path: Path) -> None:
    bundle, wanted = mixed_bundle()
    with ckptparse.open(bundle.write(tmp_path / "x", block_size=512)) as checkpoint:
        start = threading.Barrier(8)

        def work(seed: int) -> None:
            start.wait()
            names = sorted(wanted)
            np.random.default_rng(seed).shuffle(names)
            for name in names:
                assert checkpoint[name].read().tobytes() == wanted[name].tobytes()
                assert name in checkpoint
            check_all(checkpoint.read(), wanted)

        with ThreadPoolExecutor(8) as executor:
            list(executor.map(work, range(8)))


@pytest.mark.parametrize("mmap", [False, True])
def test_more_shards_than_files_are_kept_open_read_in_many_threads(
    tmp_path: Path, mmap: bool
) -> None:
    bundle, wanted = b.Bundle(), {}
    for n in range(200):
        wanted[f"t{n:03}"] = random_array(n, 3000)
        bundle.add(f"t{n:03}", wanted[f"t{n:03}"], shard=n)
    prefix = bundle.write(tmp_path / "x")
    check_all(ckptparse.read(prefix, threads=16, mmap=mmap), wanted)
    with ckptparse.open(prefix) as checkpoint, ThreadPoolExecutor(16) as executor:
        got = executor.map(lambda name: checkpoint[name].read().tobytes(), wanted)
        assert list(got) == [array.tobytes() for array in wanted.values()]


@pytest.mark.parametrize("threads", [0, -1, 1, 2, 64])
def test_any_number_of_threads_reads_the_same_or_is_refused(tmp_path: Path, threads: int) -> None:
    bundle, wanted = mixed_bundle()
    prefix = bundle.write(tmp_path / "x")
    try:
        got = ckptparse.read(prefix, threads=threads)
    except ValueError:
        assert threads < 1
    else:
        check_all(got, wanted)


# ---- layouts


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_layout_of_payloads_reads_by_every_way(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bundle, wanted = b.Bundle(), {}
    for n in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(KINDS))
        size = data.draw(st.integers(0, 40))
        shard = data.draw(st.integers(0, 1))
        array = random_array(n, size, kind)
        stored = len(bundle.shards.setdefault(shard, bytearray()))
        place = data.draw(st.sampled_from(["end", "gap", "far", "again"]))
        others = [k for k, e in bundle.entries.items() if e.shard == shard and e.size]
        if place == "again" and others:
            # Bytes of another tensor, from some byte on: only of kinds that take any bytes.
            other = bundle.entries[data.draw(st.sampled_from(others))]
            offset = other.offset + data.draw(st.integers(0, other.size - 1))
            raw = bytes(bundle.shards[shard][offset:])[: data.draw(st.integers(0, 30))]
            array = np.frombuffer(raw, np.uint8)
            bundle.add(f"t{n:02}", array, shard=shard, at=offset)
        else:
            gap = {"gap": data.draw(st.integers(0, 9)), "far": 5000}.get(place, 0)
            bundle.add(f"t{n:02}", array, shard=shard, at=stored + gap)
        wanted[f"t{n:02}"] = array
    prefix = bundle.write(tmp_path_factory.mktemp("layout") / "x")
    for way in ({}, {"mmap": True}):
        got = ckptparse.read(prefix, **way)
        check_all(got, wanted)
        assert all(array.flags.aligned and array.flags.writeable for array in got.values())
        for array in got.values():
            array.view(np.uint8)[...] = 0x55


def test_neighbours_are_read_together_and_far_ones_not(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for n in range(500):
        bundle.add(f"t{n:03}", np.full(4, n, np.float32))
    bundle.put(bytes(5 * MEGABYTE))
    bundle.add("z", np.float32(1))
    prefix = bundle.write(tmp_path / "x")
    with counted_reads() as reads:
        ckptparse.read(prefix)
    data = [read for read in reads.done if ".data-" in read[0]]
    assert len(data) <= 4 and reads.bytes_of(".data-") <= 500 * 16 + 4 + 4096


def test_shard_that_shrinks_between_opening_and_reading_is_truncated(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", np.zeros(1000, np.float32))
    prefix = bundle.write(tmp_path / "x")
    with ckptparse.open(prefix) as checkpoint:
        checkpoint["a"][0]
        os.truncate(prefix + ".data-00000-of-00001", 100)
        with pytest.raises((TruncatedError, ChecksumError)):
            checkpoint["a"].read()
        with pytest.raises(TruncatedError):
            checkpoint["a"][500]


def test_reading_holds_no_more_than_the_arrays_and_little_beside(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for n in range(30):
        bundle.add(f"t{n}", np.full(1 << 18, n, np.float32))
    prefix = bundle.write(tmp_path / "x")
    code = f"""
    got = ckptparse.read({prefix!r})
    print(sum(int(a[-1]) for a in got.values()))
    """
    wanted = str(sum(range(30)))
    assert outcome_in_little_memory(tmp_path, code, budget=100 * MEGABYTE) == wanted


def test_huge_pages_are_asked_for_while_most_of_them_come_quickly() -> None:
    pages = HugePages()
    pages.note(0.004)
    assert pages.wanted
    pages.note(0.004)
    assert not pages.wanted
    pages = HugePages()
    for _ in range(20):
        # One in five is slow: its thread was interrupted.
        for seconds in (0.004, 0.0002, 0.0002, 0.0002, 0.0002):
            pages.note(seconds)
            assert pages.wanted
    for _ in range(2):
        pages.note(0.004)
    assert not pages.wanted
