"""Many dense tensors read at once: their ranges, their checksums, whose memory they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import numpy.typing as npt
import pytest

from ckptparse.bundle.arena import Arena, DenseRows
from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.many import DenseReader, _batches, check_sharing, read_dense
from ckptparse.bundle.reader import BundleReader, _is_taken
from ckptparse.bundle.shards import Manner
from ckptparse.bundle.sharing import find_sharing
from ckptparse.errors import (
    ChecksumError,
    ClosedError,
    LimitError,
    MalformedError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.context import Context
from ckptparse.limits import Budget, Limits
from ckptparse.slices import Extent, SliceGrid, TensorSlice
from ckptparse.tensor import DEFAULT_OPTIONS, ReadOptions

pytestmark = pytest.mark.proto

MIB = 1 << 20
Array = npt.NDArray[Any]


def opened(tmp_path: Path, made: b.Bundle, **limits: int) -> BundleReader:
    return BundleReader.open(made.write(tmp_path / "m"), Context(limits=Limits(**limits)))


def dense(reader: BundleReader, names: Sequence[str] = (), **options: Any) -> DenseReader:
    names = names or list(reader.shapes())
    columns = reader.index.columns_of(names)
    return DenseReader(reader.shards, columns, names.__getitem__, ReadOptions(**options))


each_way = pytest.mark.parametrize(
    "way",
    [{}, {"mmap": True}, {"verify": False}, {"mmap": True, "verify": False}, {"threads": 2}],
    ids=str,
)

# ---- ranges


@each_way
def test_the_first_tensor_that_ends_beyond_its_file_is_told_before_memory_is_taken(
    tmp_path: Path, way: dict[str, Any]
) -> None:
    made = b.Bundle()
    made.add("a", np.arange(5, dtype=np.int8))
    made.add("e", np.zeros(0, np.int8))
    made.change("e", offset=1 << 62)
    made.add("w", np.arange(3, dtype=np.int8))
    made.add("x", np.arange(1, dtype=np.int8), shard=1)
    reader = opened(tmp_path, made)
    found = dense(reader, **way).read()
    assert [array.tolist() for array in found] == [[0, 1, 2, 3, 4], [], [0, 1, 2], [0]]
    for name, change in (
        ("w", {"shape": (1 << 42,), "size": 1 << 42}),
        ("w", {"shape": (4,), "size": 4}),
        ("x", {"offset": 1}),
        ("x", {"offset": (1 << 63) - 1}),
        ("w", {"offset": 6}),
    ):
        made.entries[b"v"] = made.entries[name.encode()].but(**change)
        made.entries[b"y"] = made.entries[b"v"]
        broken = opened(tmp_path, made)
        with pytest.raises(TruncatedError) as caught:
            dense(broken, **way).read()
        # Of several, the first in the order of the names is told.
        assert caught.value.tensor == "v"


@pytest.mark.parametrize("held", [0, 5, 1 << 40])
def test_what_tensors_share_is_what_they_take_beyond_their_files(held: int) -> None:
    for most in (0, 7, 1 << 30):
        limits = Limits(shared_bytes=most)
        for taken in (0, held, held + most):
            check_sharing(limits, float(taken), held)
        with pytest.raises(LimitError) as caught:
            check_sharing(limits, float(held + most + 1), held)
        assert caught.value.limit == "shared_bytes"


def test_tensors_that_share_bytes_are_counted(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("a", np.zeros(1000, np.int8))
    for number in range(9):
        made.entries[b"b%d" % number] = made.entries[b"a"]
    assert len(dense(opened(tmp_path, made, shared_bytes=9000)).read()) == 10
    with pytest.raises(LimitError) as caught:
        dense(opened(tmp_path, made, shared_bytes=8999)).read()
    assert caught.value.limit == "shared_bytes"
    reader = opened(tmp_path, made, memory_bytes=8999)
    assert len(dense(reader).read()) == 10
    with pytest.raises(LimitError) as caught:
        dense(reader, budget=reader.shards.budget()).read()
    assert caught.value.limit == "memory_bytes"


def sharing_bundle() -> b.Bundle:
    """Tensors of which some share bytes, in two data files; `a` and `z` are alone."""
    made = b.Bundle()
    made.add("a", np.arange(50, 59, dtype=np.int8))
    made.add("b", np.arange(40, dtype=np.int8))
    made.add("z", np.arange(60, 69, dtype=np.int8))
    made.add("other", np.arange(40, dtype=np.int8), shard=1)
    for name, whole, at, size in (
        ("c", "b", 0, 40),
        ("d", "b", 33, 7),
        ("e", "b", 20, 14),
        ("f", "other", 3, 9),
        ("g", "other", 11, 5),
    ):
        entry = made.entries[whole.encode()]
        data = bytes(range(at, at + size))
        made.entries[name.encode()] = entry.but(
            offset=entry.offset + at, shape=(size,), size=size, crc=b.masked_crc(data)
        )
    return made


@each_way
def test_tensors_that_share_bytes_have_memory_of_their_own(
    tmp_path: Path, way: dict[str, Any]
) -> None:
    found = dict(
        zip("abcdefgoz", dense(opened(tmp_path, sharing_bundle()), **way).read(), strict=True)
    )
    wanted = {
        "a": range(50, 59), "b": range(40), "c": range(40), "d": range(33, 40), "e": range(20, 34),
        "f": range(3, 12), "g": range(11, 16), "o": range(40), "z": range(60, 69),
    }  # fmt: skip
    assert {name: array.tolist() for name, array in found.items()} == {
        name: list(values) for name, values in wanted.items()
    }
    for name, array in found.items():
        np.add(array, 1, out=array)
        assert [one.tolist() for key, one in found.items() if key > name] == [
            list(values) for key, values in wanted.items() if key > name
        ]


@pytest.mark.parametrize(
    ("damaged", "told"), [("dz", "d"), ("ad", "a"), ("gz", "z"), ("ed", "e"), ("g", "g")]
)
def test_of_tensors_that_share_bytes_and_others_the_one_that_is_stored_first_is_told(
    tmp_path: Path, damaged: str, told: str
) -> None:
    made = sharing_bundle()
    for name in damaged:
        made.change(name, crc=1)
    reader = opened(tmp_path, made)
    with pytest.raises(ChecksumError) as caught:
        dense(reader).read()
    assert caught.value.tensor == told
    assert len(dense(reader, verify=False).read()) == 9


@dataclass
class Remote:
    """Data files that are asked for their size: its place in `asked` is the file's number."""

    contents: Sequence[bytes]
    context: Context = field(default_factory=Context)
    concurrency: int | None = 5
    big_endian: bool = False
    asked: list[int] = field(default_factory=list)

    def path(self, shard_id: int) -> str:
        return f"data{shard_id}"

    @contextmanager
    def open(self, shard_id: int) -> Iterator[Any]:
        yield RemoteFile(self, shard_id)

    def manner(self, shard_id: int) -> Manner:
        return Manner(100, 10, self.concurrency)


@dataclass
class RemoteFile:
    files: Remote
    shard_id: int
    known_size: int | None = None
    piece: int = 100

    @property
    def path(self) -> str:
        return self.files.path(self.shard_id)

    @property
    def size(self) -> int:
        self.files.asked.append(self.shard_id)
        return len(self.files.contents[self.shard_id])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.files.contents[self.shard_id][offset : offset + len(buffer)]


def remote(files: Remote, *entries: tuple[int, int, int], **options: Any) -> DenseReader:
    """Return a reader of entries of a data file, an offset and a size."""
    made = [BundleEntry(b.INT8, (size,), shard, at, size, 0) for shard, at, size in entries]
    columns = EntryColumns.of_entries(made)
    asked = ReadOptions(verify=False, **options)
    return DenseReader(files, columns, "abc".__getitem__, asked)  # type: ignore[arg-type]


def test_a_remote_file_is_not_asked_for_its_size_unless_tensors_take_much() -> None:
    contents = [bytes(range(100)), bytes(range(100, 200))]
    entries = [(0, 3, 5), (1, 95, 5)]
    for most, asked in ((10, []), (9, [0, 1])):
        files = Remote(contents, Context(limits=Limits(shared_bytes=most)))
        found = remote(files, *entries).read()
        assert [array.tolist() for array in found] == [[3, 4, 5, 6, 7], [*range(-61, -56)]]
        assert sorted(files.asked) == asked
    files = Remote(contents, Context(limits=Limits(shared_bytes=9)))
    with pytest.raises(TruncatedError) as caught:
        remote(files, (0, 3, 5), (1, 96, 5)).read()
    assert caught.value.tensor == "b" and caught.value.path == "data1"
    # The bytes of all files are set against what is taken, once they are known.
    files = Remote(contents, Context(limits=Limits(shared_bytes=50)))
    assert len(remote(files, (0, 0, 100), (0, 0, 100), (1, 0, 50)).read()) == 3
    files.context = Context(limits=Limits(shared_bytes=49))
    with pytest.raises(LimitError):
        remote(files, (0, 0, 100), (0, 0, 100), (1, 0, 50)).read()


@pytest.mark.parametrize(("concurrency", "threads"), [(5, 5), (None, 1)])
def test_files_are_asked_for_their_sizes_by_as_many_threads_as_their_storage_takes(
    monkeypatch: pytest.MonkeyPatch, concurrency: int | None, threads: int
) -> None:
    taken = []

    def run_all(jobs: Sequence[Any], count: int) -> None:
        taken.append((len(jobs), count))
        for job in jobs:
            job()

    monkeypatch.setattr("ckptparse.bundle.many.run_all", run_all)
    limits = Context(limits=Limits(shared_bytes=0))
    files = Remote([bytes(100)] * 3, limits, concurrency)
    remote(files, (0, 0, 10), (2, 0, 10)).read()
    assert taken == [(2, threads)] and files.asked == [0, 2]
    remote(files, (1, 0, 10)).read()
    assert taken[1:] == [(1, threads)] and files.asked[2:] == [1]


# ---- how they are read


@pytest.mark.parametrize(
    ("concurrency", "options", "wanted"),
    [
        (5, {}, (5, 100)),
        (5, {"threads": 2}, (2, 100)),
        (None, {}, (1, 16 * MIB)),
        (None, {"threads": 3}, (3, 16 * MIB)),
    ],
)
def test_tensors_are_read_by_as_many_threads_as_their_storage_takes(
    monkeypatch: pytest.MonkeyPatch,
    concurrency: int | None,
    options: dict[str, Any],
    wanted: tuple[int, int],
) -> None:
    taken = []

    def read_arenas(rows: DenseRows, arenas: Sequence[Arena], *_: Any, **how: Any) -> list[Array]:
        taken.append((how["threads"], how["share"]))
        # A gap of 10 bytes is read over, and one of 11 is not.
        assert [len(arena.stretches) for arena in arenas] == [2]
        return [np.zeros(arena.size, np.uint8) for arena in arenas]

    monkeypatch.setattr("ckptparse.bundle.many.read_arenas", read_arenas)
    files = Remote([bytes(100)], concurrency=concurrency)
    remote(files, (0, 0, 10), (0, 20, 10), (0, 41, 5), **options).read()
    assert taken == [wanted]


def test_memory_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_arenas(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("ckptparse.bundle.many.read_arenas", read_arenas)
    with pytest.raises(UnsupportedError, match="not enough memory for 17 bytes"):
        remote(Remote([bytes(100)]), (0, 0, 10), (0, 20, 7)).read()


def test_a_kind_or_a_rank_that_numpy_lacks_is_told_of_its_tensor(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("a", np.zeros(3, np.int8))
    made.add("b", np.zeros(3, np.int8))
    made.change("b", dtype=99, size=3)
    made.add("c", np.zeros(3, np.int8))
    with pytest.raises(UnsupportedError, match="99") as caught:
        dense(opened(tmp_path, made)).read()
    assert caught.value.tensor == "b"
    for rank in (32, 65):
        made.change("b", dtype=b.INT8, shape=(1,) * (rank - 1) + (3,))
        reader = opened(tmp_path, made)
        if rank == 32:
            assert dense(reader).read()[1].ndim == 32
            continue
        with pytest.raises(UnsupportedError, match="dimensions") as caught:
            dense(reader).read()
        assert caught.value.tensor == "b"


def test_one_tensor_is_read_alone(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("a", np.arange(5, dtype=np.int8))
    reader = opened(tmp_path, made)
    entry = reader.index.find_entry("a")
    assert entry is not None
    assert read_dense(reader.shards, entry, ReadOptions()).tolist() == [0, 1, 2, 3, 4]


# ---- checksums


@each_way
def test_damage_is_told_of_the_tensor_that_is_stored_first(
    tmp_path: Path, way: dict[str, Any]
) -> None:
    made = b.Bundle()
    for name in "cab":
        made.add(name, np.arange(9, dtype=np.int16))
    made.change("a", crc=1)
    made.change("b", crc=2)
    reader = dense(opened(tmp_path, made), **way)
    if not way.get("verify", True):
        assert len(reader.read()) == 3
        return
    with pytest.raises(ChecksumError) as caught:
        reader.read()
    assert caught.value.tensor == "a" and caught.value.offset == 18


@pytest.mark.parametrize("mmap", [False, True])
def test_an_empty_tensor_has_the_checksum_0(tmp_path: Path, mmap: bool) -> None:
    made = b.Bundle()
    made.add("a", np.arange(3, dtype=np.int8))
    for name in "efg":
        made.add(name, np.zeros(0, np.int8))
    assert len(dense(opened(tmp_path, made), mmap=mmap).read()) == 4
    made.change("f", crc=b.masked_crc(b"x"))
    made.change("g", crc=b.masked_crc(b"y"))
    with pytest.raises(ChecksumError) as caught:
        dense(opened(tmp_path, made), mmap=mmap).read()
    assert caught.value.tensor == "f"
    assert (caught.value.stored, caught.value.computed) == (b.crc(b"x"), 0)
    assert len(dense(opened(tmp_path, made), mmap=mmap, verify=False).read()) == 4
    # The stored checksum 1 is as wrong.
    made.change("f", crc=b.mask(1))
    with pytest.raises(ChecksumError) as caught:
        dense(opened(tmp_path, made), mmap=mmap).read()
    assert caught.value.tensor == "f"


# ---- memory


def is_view(array: Array) -> bool:
    return array.base is not None


def test_only_what_is_not_aligned_is_copied(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("a", np.arange(3, dtype=np.int8))
    made.add("b", np.arange(2, dtype=np.float64))
    made.add("c", np.arange(1, dtype=np.int8))
    made.add("d", np.arange(2, dtype=np.float64))
    made.add("e", np.arange(2, dtype=np.int16))
    found = dense(opened(tmp_path, made)).read()
    assert all(array.flags.aligned for array in found)
    # The first wide one, at 3, is aligned; the next, at 20, is 17 bytes on; and two bytes at 36.
    assert list(map(is_view, found)) == [True, True, True, False, False]
    assert [array.tolist() for array in found] == [[0, 1, 2], [0, 1], [0], [0, 1], [0, 1]]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("mmap", [False, True])
def test_stored_bytes_become_elements_of_each_kind(tmp_path: Path, big: bool, mmap: bool) -> None:
    made = b.Bundle(big=big)
    made.put_entry("b", b"\2\0\1", b.masked_crc(b"\2\0\1"), dtype=b.BOOL, shape=(3,))
    made.add("i", np.arange(3, dtype=np.int8) - 1)
    made.add("s", np.arange(3, dtype=np.int16) + 1)
    made.add("z", np.array([1 + 2j], np.complex64))
    found = dense(opened(tmp_path, made), mmap=mmap).read()
    assert found[0].view(np.uint8).tolist() == [1, 0, 1]
    assert [array.tolist() for array in found[1:]] == [[-1, 0, 1], [1, 2, 3], [1 + 2j]]


def test_mapped_arrays_are_views_unless_they_share_bytes(tmp_path: Path) -> None:
    made = b.Bundle()
    for shard in range(3):
        # The first data file is the shortest: nothing of another one fits in it.
        for name in "ab":
            made.add(f"{name}{shard}", np.arange(4 + 8 * shard, dtype=np.int8), shard=shard)
    at = made.entries[b"a1"]
    made.entries[b"c1"] = at.but(offset=3, shape=(2,), size=2, crc=None)
    made.entries[b"d1"] = at
    made.change("c1", crc=b.masked_crc(b"\3\4"))
    made.entries[b"e0"] = made.entries[b"a0"].but(
        offset=1, shape=(2,), size=2, crc=b.masked_crc(b"\1\2")
    )
    names = sorted(name.decode() for name in made.entries)
    found = dict(zip(names, dense(opened(tmp_path, made), names, mmap=True).read(), strict=True))
    for name, array in found.items():
        wanted = {"c1": [3, 4], "e0": [1, 2]}.get(name, list(range(4 + 8 * int(name[1]))))
        assert array.tolist() == wanted
    # Of two that share bytes the one that begins first is a view; neighbours share none.
    views = {name for name, array in found.items() if is_view(array)}
    assert views in ({*names} - {"c1", "d1", "e0"}, {*names} - {"c1", "a1", "e0"})
    for array in found.values():
        np.add(array, 1, out=array)
    assert found["a0"].tolist() == [1, 2, 3, 4] and found["c1"].tolist() == [4, 5]
    assert found["a1"].tolist() == found["d1"].tolist() == list(range(1, 13))


@pytest.mark.parametrize("mapped", [0, 1, 2, 3])
def test_data_files_that_cannot_be_mapped_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: int
) -> None:
    made = b.Bundle()
    for shard in range(3):
        made.add(f"a{shard}", np.arange(4 + 8 * shard, dtype=np.int8), shard=shard)
    reader = opened(tmp_path, made)
    way, asked = reader.shards.map, []

    def map_some(shard_id: int) -> Any:
        asked.append(shard_id)
        return way(shard_id) if shard_id < mapped else None

    monkeypatch.setattr(reader.shards, "map", map_some)
    found = dense(reader, mmap=True).read()
    assert [array.tolist() for array in found] == [list(range(4 + 8 * n)) for n in range(3)]
    assert asked == list(range(min(mapped + 1, 3)))
    for wrong in range(3):
        made.change(f"a{wrong}", crc=1)
        reader = opened(tmp_path, made)
        monkeypatch.setattr(reader.shards, "map", map_some)
        with pytest.raises(ChecksumError) as caught:
            dense(reader, mmap=True).read()
        assert caught.value.tensor == f"a{wrong}"
        made.change(f"a{wrong}", crc=b.masked_crc(bytes(range(4 + 8 * wrong))))


# ---- slices of one tensor


def test_slices_are_read_in_groups_of_32_mebibytes_at_most() -> None:
    most = 32 * MIB
    for sizes, groups in (
        ([], []),
        ([5], [1]),
        ([most], [1]),
        ([most + 1], [1]),
        ([most // 2, most // 2], [2]),
        ([most // 2, most // 2 + 1], [1, 1]),
        ([most // 2, most // 2, 1, 2, 3], [2, 3]),
        ([most + 1, 1, 1], [1, 2]),
        ([1, most + 1, 1, 1], [1, 1, 2]),
        ([1, most, most, 1], [1, 1, 1, 1]),
        ([1, most - 1, 1, most - 1, 1], [2, 2, 1]),
    ):
        found = list(_batches(np.array(sizes, np.int64)))
        assert [number for group in found for number in group] == list(range(len(sizes)))
        assert list(map(len, found)) == groups


def grid_of(shape: tuple[int, ...], *slices: tuple[Any, ...]) -> SliceGrid:
    made = [
        TensorSlice(tuple(Extent(*extent) if extent else Extent() for extent in one))
        for one in slices
    ]
    return SliceGrid(made, shape)


def sliced(
    tmp_path: Path,
    array: Array,
    slices: Sequence[Any],
    *,
    big: bool = False,
    damaged: Any = None,
    **options: Any,
) -> tuple[DenseReader, SliceGrid]:
    made = b.Bundle(big=big)
    made.add_sliced("w", array, slices)
    if damaged is not None:
        made.change(b.slice_key("w", damaged), crc=7)
    reader = opened(tmp_path, made)
    entry = reader.index.find_entry("w")
    assert entry is not None
    entries = [reader.index.find_slice("w", piece) for piece in entry.slices]
    columns = EntryColumns.of_entries([one for one in entries if one is not None])
    asked = DenseReader(reader.shards, columns, lambda _: "w", ReadOptions(**options))
    return asked, SliceGrid(entry.slices, entry.shape)


ROWS = [[(0, 2), None], [(2, 1), None], [(3, 5), None]]
COLUMNS = [[None, (0, 2)], [None, (2, 1)], [None, (3, 5)]]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("slices", [ROWS, COLUMNS], ids=["rows", "columns"])
@pytest.mark.parametrize("scale", [1, 64])
def test_slices_are_put_together(
    tmp_path: Path, big: bool, slices: list[Any], scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (8, 8) if slices is COLUMNS else (8, 8 * scale * scale)
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    asked, grid = sliced(tmp_path, array, slices, big=big)
    for most in (1, 100, 32 * MIB):
        monkeypatch.setattr("ckptparse.bundle.many._BATCH_SIZE", most)
        assert asked.assemble(grid).tolist() == array.tolist()


def test_slices_that_fit_one_group_are_planned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(64, dtype=np.int32).reshape(8, 8)
    asked, grid = sliced(tmp_path, array, COLUMNS)
    taken, way = [], DenseReader._take

    def take(self: DenseReader, numbers: range) -> DenseReader:
        taken.append(numbers)
        return way(self, numbers)

    monkeypatch.setattr(DenseReader, "_take", take)
    assert asked.assemble(grid).tolist() == array.tolist()
    assert not taken
    monkeypatch.setattr("ckptparse.bundle.many._BATCH_SIZE", 96)
    assert asked.assemble(grid).tolist() == array.tolist()
    assert taken == [range(2), range(2, 3)]


def place(
    shape: tuple[int, ...], *slices: tuple[Any, ...], gap: int = 0
) -> list[tuple[int, int]] | None:
    """Place slices of int16 in an array; return the size and the position of each stretch."""
    grid = grid_of(shape, *slices)
    counts = (grid.stops - grid.starts).prod(axis=1).tolist()
    offset, entries = 0, []
    for count in counts:
        entries.append((0, offset, 2 * count))
        offset += 2 * count + gap
    asked = remote(Remote([b""]), *entries)
    column = [np.array(part, np.int64) for part in zip(*entries, strict=True)]
    rows = DenseRows.of(np.arange(len(entries)), *column, np.full(len(entries), 2))
    arena = asked._place(rows, grid, np.dtype(np.int16))
    if arena is None:
        return None
    assert arena.size == 2 * np.prod(shape)
    return [(stretch.size, stretch.position) for stretch in arena.stretches]


def test_slices_of_whole_rows_are_read_into_their_place_if_they_are_large() -> None:
    half = (0, 64), (64, 64)
    assert place((128, 64), *((rows, None) for rows in half)) == [(16384, 0)]
    assert place((128, 64), *((rows, None) for rows in reversed(half)), gap=8) is None
    assert place((128, 128), *((rows, None) for rows in reversed(half)), gap=8) == [
        (16384, 16384),
        (16384, 0),
    ]
    assert place((128, 4, 64), *((rows, None, None) for rows in half), gap=8) == [
        (32768, 0),
        (32768, 32768),
    ]
    # Less than 16 KiB are copied to their place, and so are columns.
    assert place((127, 64), ((0, 64), None), ((64, 63), None)) is None
    assert place((1024, 128), (None, (0, 64)), (None, (64, 64))) is None
    assert place((1024, 4, 64), (None, (0, 1), None), (None, (1, 3), None)) is None
    assert place((1024, 4, 64), (None, None, (0, 60)), (None, None, (60, 4))) is None
    # Stretches take 16 KiB on average, or copying is better: here four of them 64 KiB, and less.
    parts = [((32 * n, 32), None) for n in range(4)]
    assert place((128, 256), *parts, gap=8) == [(16384, 16384 * n) for n in range(4)]
    assert place((128, 255), *parts, gap=8) is None


@pytest.mark.parametrize("slices", [ROWS, COLUMNS], ids=["rows", "columns"])
def test_a_damaged_slice_is_told_however_slices_are_put_together(
    tmp_path: Path, slices: list[Any]
) -> None:
    array = np.arange(8 * 8 * 4096, dtype=np.int32).reshape(8, -1)
    if slices is COLUMNS:
        array = array.reshape(-1, 8)
    asked, grid = sliced(tmp_path, array, slices, damaged=slices[1])
    with pytest.raises(ChecksumError):
        asked.assemble(grid)


def test_placed_slices_have_the_order_of_this_machine(tmp_path: Path) -> None:
    array = np.arange(1 << 14, dtype=np.int16).reshape(128, 128)
    asked, grid = sliced(tmp_path, array, [[(64, 64), None], [(0, 64), None]], big=True)
    found = asked.assemble(grid)
    assert found.tolist() == array.tolist() and found.dtype == np.int16


def shares(*rows: tuple[int, int, int]) -> tuple[list[int], list[int], list[int]] | None:
    """Find what shares bytes among rows of shard, offset and size: shared, bounds, run sizes."""
    shard_ids, offsets, sizes = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    numbers = np.arange(len(rows))
    found = find_sharing(DenseRows(numbers, shard_ids, offsets, sizes, np.ones_like(sizes)))
    if found is None:
        return None
    assert sorted([*found.shared, *found.apart]) == numbers.tolist()
    return found.shared.tolist(), found.bounds.tolist(), found.runs.sizes.tolist()


def test_rows_that_share_bytes_make_runs_and_large_ones_stay_apart() -> None:
    mib = 1 << 20
    assert shares((0, 0, 8), (0, 8, 8), (1, 8, 8)) is None
    assert shares((0, 0, 8), (0, 7, 8), (0, 15, 8), (1, 0, 8)) == ([0, 1], [0, 2], [15])
    assert shares((0, 0, 8), (0, 4, 8), (1, 0, 9), (1, 0, 4)) == ([0, 1, 2, 3], [0, 2, 4], [12, 9])
    assert shares((0, 0, mib), (0, 0, 4)) == ([0, 1], [0, 2], [mib])
    assert shares((0, 0, mib + 1), (0, 0, 4)) is None


def test_places_of_all_data_files_together_stay_whole_numbers_of_64_bits() -> None:
    most = 1 << 62
    pair = ((0, 0, 8), (0, 4, 8))
    assert shares(*pair, (0, most - 4, 4)) == ([0, 1], [0, 2], [12])
    assert shares(*pair, (0, most - 3, 4)) is None
    third = most // 3
    assert shares(*pair, (1, 0, 4), (2, third - 4, 4)) == ([0, 1], [0, 2], [12])
    assert shares(*pair, (1, 0, 4), (2, third - 3, 4)) is None


# ---- which way is taken


def test_few_small_tensors_are_read_one_after_another(tmp_path: Path) -> None:
    made = b.Bundle()
    for number in range(17):
        made.add(f"t{number:02}", np.array([number], np.uint8))
    made.add("half", np.zeros(1 << 19, np.uint8))
    made.add("less", np.zeros((1 << 19) - 1, np.uint8))
    made.add("more", np.zeros((1 << 19) + 1, np.uint8))
    made.add("none", np.zeros(0, np.uint8))
    names = [f"t{number:02}" for number in range(17)]
    reader = opened(tmp_path, made)

    def are_few(chosen: Sequence[str], reader: BundleReader = reader) -> bool:
        return reader._are_few(reader.index.columns_of(chosen))

    assert are_few(names[:1]) and are_few(names[:16])
    assert not are_few(names) and not are_few([])
    assert not are_few(["t00", "none"])
    assert are_few(["half", "less", "t00"]) and not are_few(["less", "more", "t00"])
    for shared, few in ((1 << 20, True), ((1 << 20) - 1, False)):
        assert are_few(names[:2], opened(tmp_path, made, shared_bytes=shared)) == few


def test_of_a_listing_all_tensors_are_given_but_for_one(tmp_path: Path) -> None:
    made = b.Bundle()
    for name in "abc":
        made.add(name, np.ones(1, np.float32))
    reader = opened(tmp_path, made)
    for without, names in ((None, "abc"), ("b", "ac"), ("z", "abc"), ("a", "bc"), ("c", "ab")):
        tensors = list(reader.iter_tensors(DEFAULT_OPTIONS, without=without))
        assert "".join(tensor.name for tensor in tensors) == names
        assert [tensor.shape for tensor in tensors] == [(1,)] * len(names)


def test_a_data_file_ends_where_its_last_byte_lies_and_none_of_it_for_what_is_empty(
    tmp_path: Path,
) -> None:
    made = b.Bundle()
    made.add("a", np.array([1], np.uint8), shard=0)
    made.add("b", np.zeros(0, np.uint8), shard=1)
    made.change("b", offset=77)
    assert list(opened(tmp_path, made).data_sizes().values()) == [1, 0]


def test_what_was_read_together_is_taken_from_the_budget_if_it_has_that_much() -> None:
    assert _is_taken(None, 1 << 60)
    budget = Budget(Limits(memory_bytes=10), 0)
    assert _is_taken(budget, 6) and not _is_taken(budget, 5) and _is_taken(budget, 4)
    assert not _is_taken(budget, 1)


def test_a_closed_reader_reads_no_data(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("a", np.zeros(9, np.float32))
    reader = opened(tmp_path, made)
    (tensor,) = reader.iter_tensors(DEFAULT_OPTIONS)
    reader.close()
    with pytest.raises(ClosedError):
        tensor.read()


@pytest.mark.parametrize("size", [1, 600])
def test_tensors_of_strings_are_as_many_as_the_limit_says(tmp_path: Path, size: int) -> None:
    made = b.Bundle()
    names = [f"s{number:02}" for number in range(20)]
    for name in names:
        made.add(name, np.array([b"x" * size], object))
    made.write(tmp_path / "m")
    beyond = sum(path.stat().st_size for path in tmp_path.iterdir()) // 512
    least = max(0, 20 - beyond)
    reader = opened(tmp_path, made, small_tensors=least)
    assert len(reader.read_many(names, DEFAULT_OPTIONS)) == 20
    if least:
        with pytest.raises(LimitError) as caught:
            opened(tmp_path, made, small_tensors=least - 1).read_many(names, DEFAULT_OPTIONS)
        assert caught.value.limit == "small_tensors"


def test_an_orphan_that_is_in_slices_itself_is_malformed(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add_sliced("w", np.zeros((2, 2), np.float32), b.split_rows(2, 2, 2))
    key = b.slice_key("gone", [(0, 1), None])
    made.entries[key] = made.entries.pop(b"w")
    (found,) = [
        tensor for name, _, tensor in opened(tmp_path, made).orphan_slices() if name == "gone"
    ]
    with pytest.raises(MalformedError, match="stored in slices itself"):
        found.read()


def test_slices_among_few_names_are_read_without_the_whole_index(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add_sliced("w", np.arange(4, dtype=np.float32).reshape(2, 2), b.split_rows(2, 2, 2))
    for number in range(20):
        made.add(f"t{number:02}", np.array([number], np.uint8))
    reader = opened(tmp_path, made)
    names = ["w", *(f"t{number:02}" for number in range(20))]
    first, *others = reader.read_many(names, DEFAULT_OPTIONS)
    assert reader.index.known_listing is None
    assert first.tolist() == [[0, 1], [2, 3]]
    assert [array.tolist() for array in others] == [[number] for number in range(20)]


def test_variants_are_read_one_by_one_and_are_as_many_as_the_limit_says(tmp_path: Path) -> None:
    made = b.Bundle()
    names = [f"v{number}" for number in range(5)]
    for name in names:
        made.add_variants(name, [b.variant_proto("kind")], (1,))
    # With so low a bound on what tensors share, they are not read like a few small ones.
    reader = opened(tmp_path, made, single_entries=5, shared_bytes=1000)
    assert len(reader.read_many(names, DEFAULT_OPTIONS)) == 5
    reader = opened(tmp_path, made, single_entries=4, shared_bytes=1000)
    with pytest.raises(LimitError) as caught:
        reader.read_many(names, DEFAULT_OPTIONS)
    assert caught.value.limit == "single_entries"
