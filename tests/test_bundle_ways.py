"""Which of two ways is taken to read tensors of a bundle: both give the same values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.reader import BundleReader
from ckptparse.bundle.shards import Manner, ShardFiles
from ckptparse.bundle.sliced import BundleSlices, _JoinedPayload
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ClosedError,
    LimitError,
    MalformedError,
    MissingShardError,
    TruncatedError,
)
from ckptparse.files.context import Context
from ckptparse.limits import Limits
from ckptparse.slices import Extent, SliceGrid, TensorSlice
from ckptparse.tensor import DEFAULT_OPTIONS, ReadOptions

pytestmark = pytest.mark.proto

MIB = 1 << 20


def opened(tmp_path: Path, made: b.Bundle, **limits: int) -> BundleReader:
    return BundleReader.open(made.write(tmp_path / "m"), Context(limits=Limits(**limits)))


# ---- many tensors


def tensors(*sizes: int) -> b.Bundle:
    made = b.Bundle()
    for number, size in enumerate(sizes):
        made.add(f"t{number:02}", np.full(size, number % 100, np.int8))
    return made


def are_few(reader: BundleReader) -> bool:
    return reader._are_few(reader.index.columns_of(list(reader.shapes())))


@pytest.mark.parametrize(
    ("sizes", "few"),
    [
        ([1], True),
        ([1] * 16, True),
        ([1] * 17, False),
        ([MIB], True),
        ([MIB + 1], False),
        ([MIB - 15] + [1] * 15, True),
        ([MIB - 14] + [1] * 15, False),
        ([5, 0, 5], False),
        ([], False),
    ],
)
def test_few_small_tensors_are_read_one_by_one(
    tmp_path: Path, sizes: list[int], few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = opened(tmp_path, tensors(*sizes))
    assert are_few(reader) == few
    taken = []
    for name in ("_read_singly", "_read_together"):

        def noting(*asked: Any, name: str = name) -> Any:
            taken.append(name)
            return getattr(BundleReader, name)(reader, *asked)

        monkeypatch.setattr(reader, name, noting)
    names = list(reader.shapes())[::-1]
    for mmap in (False, True):
        found = reader.read_many(names, replace(DEFAULT_OPTIONS, mmap=mmap))
        assert [array.tolist() for array in found] == [
            [int(name[1:]) % 100] * sizes[int(name[1:])] for name in names
        ]
    assert taken == ["_read_singly" if few else "_read_together", "_read_together"]
    reader.close()


def test_few_tensors_are_read_together_if_each_read_is_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = opened(tmp_path, tensors(3, 4))
    assert are_few(reader)
    asked = []

    def manner(shard_id: int) -> Manner:
        asked.append(shard_id)
        return Manner(MIB, 4096, 8)

    monkeypatch.setattr(reader.shards, "manner", manner)
    assert not are_few(reader) and asked == [0]


def test_few_tensors_are_read_together_if_what_they_share_is_counted(tmp_path: Path) -> None:
    for bytes_, few in ((MIB - 1, False), (MIB, True)):
        assert are_few(opened(tmp_path / str(bytes_), tensors(3), shared_bytes=bytes_)) == few


def test_a_tensor_of_one_byte_counts_for_the_size_of_its_file(tmp_path: Path) -> None:
    reader = opened(tmp_path, tensors(3, 1))
    assert reader.data_sizes() == {f"{tmp_path}/m.data-00000-of-00001": 4}


def test_a_data_file_that_holds_only_empty_tensors_ends_at_0(tmp_path: Path) -> None:
    made = tensors(3)
    made.add("e", np.zeros(0, np.int8), shard=1)
    reader = opened(tmp_path, made)
    assert reader.data_sizes() == {
        f"{tmp_path}/m.data-00000-of-00002": 3,
        f"{tmp_path}/m.data-00001-of-00002": 0,
    }


def test_a_slice_that_no_tensor_lists_is_read(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add(b.slice_key("gone", [(2, 3)]), np.arange(3, dtype=np.int8))
    ((name, piece, tensor),) = opened(tmp_path, made).orphan_slices()
    assert (name, str(piece), tensor.read().tolist()) == ("gone", "2,3", [0, 1, 2])


# ---- data files


def test_a_data_file_is_closed_with_the_reader_when_its_last_read_has_ended(
    tmp_path: Path,
) -> None:
    reader = opened(tmp_path, tensors(3))
    with reader.shards.open(0) as source:
        assert source.read_at(0, 3) == bytes(3)
    with reader.shards.open(0) as again:
        assert again is source
        reader.close()
        assert source.read_at(0, 3) == bytes(3)
    with pytest.raises(ClosedError):
        source.read_at(0, 3)
    with pytest.raises(ClosedError), reader.shards.open(0):
        pass


def test_what_is_wrong_with_a_data_file_may_be_told_by_its_first_read(tmp_path: Path) -> None:
    made = tensors(3)
    reader = opened(tmp_path, made)
    path = reader.shards.path(0)
    missing = r"Data file number 1 of 1 is missing"
    with pytest.raises(MissingShardError, match=missing) as gone, reader.shards.open(0):
        raise CheckpointNotFoundError("nothing is there", path=path)
    assert gone.value.path == path
    for hint, wanted in (("Do this", "Do this"), (None, "ckptparse.recover gives")):
        with pytest.raises(TruncatedError) as short, reader.shards.open(0):
            raise TruncatedError("too short", path=path, hint=hint)
        assert str(short.value.hint).startswith(wanted)
    # Nobody says how to tell whether these files were replaced.
    Path(path).unlink()
    shards = ShardFiles(str(tmp_path / "m"), reader.index.header, Context())
    with pytest.raises(MissingShardError, match=missing), shards.open(0):
        pass


def test_tensors_of_other_kinds_are_read_beside_the_numbers(tmp_path: Path) -> None:
    made = tensors(*[2] * 17)
    made.add("s", np.array([b"x", b"yz"], object))
    made.add_sliced("p", np.arange(8, dtype=np.float32).reshape(4, 2), b.split_rows(4, 2, 2))
    reader = opened(tmp_path, made)
    names = ["p", "t03", "s", "t16"]
    for asked in (names, names[::-1], ["p"], ["p", "t01"], ["s"], ["t01", "t02"]):
        found = dict(zip(asked, reader.read_many(asked, DEFAULT_OPTIONS), strict=True))
        for name, array in found.items():
            wanted = {"p": [[0, 1], [2, 3], [4, 5], [6, 7]], "s": [b"x", b"yz"]}
            assert array.tolist() == wanted.get(
                name, [int(name[1:] or 0)] * 2 if name[0] == "t" else None
            )


def test_a_tensors_payload_is_always_the_same_object(tmp_path: Path) -> None:
    reader = opened(tmp_path, tensors(3, 4))
    first = reader.find("t00", DEFAULT_OPTIONS)
    again = reader.find("t00", DEFAULT_OPTIONS)
    assert first is not None and again is not None and first.payload is again.payload
    listed = {tensor.name: tensor for tensor in reader.iter_tensors(DEFAULT_OPTIONS)}
    assert listed["t00"].payload is first.payload
    found = reader.find("t01", DEFAULT_OPTIONS)
    assert found is not None and found.payload is listed["t01"].payload
    assert reader.find("t02", DEFAULT_OPTIONS) is None
    assert (found.name, found.shape, found.data_type) == ("t01", (4,), b.INT8)


def test_one_name_is_left_out_of_a_listing(tmp_path: Path) -> None:
    """Names that no byte of UTF-8 stands for sort by their bytes, those of slices come first."""
    names = ["\udcff", "\ud7ff", "\U0001f600", "a", "\x00b"]
    made = b.Bundle()
    for name in names:
        made.add(name, np.zeros(2, np.int8))
    made.add_sliced("w", np.zeros((4, 2), np.int8), b.split_rows(4, 2, 2))
    reader = opened(tmp_path, made)
    stored = [tensor.name for tensor in reader.iter_tensors(DEFAULT_OPTIONS)]
    assert sorted(stored) == sorted([*names, "w"])
    for name in (*stored, "", "b", "\ud7fe", "zzz"):
        left = [t.name for t in reader.iter_tensors(DEFAULT_OPTIONS, without=name)]
        assert left == [one for one in stored if one != name]
    kept = {
        t.name: (t.shape, t.data_type) for t in reader.iter_tensors(DEFAULT_OPTIONS, without="a")
    }
    assert kept["w"] == ((4, 2), b.INT8) and kept["\x00b"] == ((2,), b.INT8)


def test_a_listing_makes_nothing_but_a_tensor_each(tmp_path: Path) -> None:
    made = tensors(3, 4)
    made.add("_CHECKPOINTABLE_OBJECT_GRAPH", np.array(b"", object))
    opened(tmp_path, made)
    with ckptparse.open(tmp_path / "m") as checkpoint:
        assert type(iter(checkpoint.values())) is map
        assert [tensor.name for tensor in checkpoint.values()] == ["t00", "t01"]
        first = checkpoint["t00"]
        assert next(iter(checkpoint.values())) is first


# ---- tensors in slices


def sliced(tmp_path: Path, count: int, columns: int = 1, **change: Any) -> tuple[Any, ...]:
    """Write a tensor in so many rows; return its reader, its slices, its entry and its array."""
    array = (np.arange(count * columns, dtype=np.int64) % 100).astype(np.int8)
    array = array.reshape(count, columns)
    rows = b.split_rows(count, count, 2)
    made = b.Bundle()
    made.add_sliced("w", array, rows, missing=change.pop("missing", []))
    if change:
        made.change(b.slice_key("w", rows[-1]), **change)
    reader = opened(tmp_path, made)
    entry = reader.index.find_entry("w")
    return reader, BundleSlices(reader.index, reader.shards), entry, array


@pytest.mark.parametrize(
    ("count", "columns", "together"),
    [
        (8, 1, False),
        (9, 1, True),
        (8, 1 << 15, False),
        (8, (1 << 15) + 1, True),
        (1, (1 << 18) + 1, True),
        (64, 3, True),
        (65, 3, True),
    ],
)
def test_few_small_slices_are_read_one_by_one(
    tmp_path: Path, count: int, columns: int, together: bool
) -> None:
    reader, slices, entry, array = sliced(tmp_path, count, columns)
    found = slices.read_together("w", entry, DEFAULT_OPTIONS)
    assert (found is not None) == together
    # For more than 64 slices the whole index is decoded, and for fewer it is not.
    assert (reader.index.known_listing is not None) == (count > 64)
    if found is not None:
        assert found.tolist() == array.tolist()
    reader, slices, entry, array = sliced(tmp_path / "again", count, columns)
    grid, payloads = slices.slice_payloads("w", entry)
    assert (reader.index.known_listing is not None) == (count > 64)
    assert grid.starts[:, 0].tolist() == list(range(count))
    rows = [payload.read(DEFAULT_OPTIONS).tolist() for payload in payloads]
    assert rows == array[:, None].tolist()
    reader.close()


@pytest.mark.parametrize("count", [9, 64, 65])
@pytest.mark.parametrize(
    "change",
    [
        {"missing": [3]},
        {"dtype": b.UINT8},
        {"shape": (1, 2), "size": 2},
        {"slices": [[(0, 1), None]], "size": 0, "crc": 0},
    ],
    ids=str,
)
def test_slices_of_which_one_breaks_a_rule_are_read_one_by_one(
    tmp_path: Path, count: int, change: dict[str, Any]
) -> None:
    reader, slices, entry, _ = sliced(tmp_path, count, 1, **change)
    assert slices.read_together("w", entry, DEFAULT_OPTIONS) is None
    tensor = reader.make_tensor("w", entry, DEFAULT_OPTIONS)
    with pytest.raises(CheckpointError, match=r"disagrees with its tensor|found none"):
        tensor.read()
    reader.close()


def test_a_slice_that_is_missing_is_not_the_last_entry_of_the_index(tmp_path: Path) -> None:
    rows = b.split_rows(70, 70, 2)
    made = b.Bundle()
    made.add_sliced("w", np.zeros((70, 1), np.int8), rows, missing=[69])
    made.add("z", np.ones((1, 1), np.int8))
    reader = opened(tmp_path, made)
    for tensor in (reader.find("w", DEFAULT_OPTIONS), ckptparse.open(str(tmp_path / "m"))["w"]):
        assert tensor is not None
        with pytest.raises(MalformedError, match="found none"):
            tensor.read()


def test_slices_that_leave_a_gap_are_not_read_together(tmp_path: Path) -> None:
    made = b.Bundle()
    rows = b.split_rows(20, 20, 1)
    made.add_sliced("w", np.zeros(20, np.int8), rows)
    made.change("w", slices=rows[:-1])
    reader = opened(tmp_path, made)
    entry = reader.index.find_entry("w")
    assert entry is not None and len(entry.slices) == 19
    slices = BundleSlices(reader.index, reader.shards)
    assert slices.read_together("w", entry, DEFAULT_OPTIONS) is None


def test_slices_are_copied_and_never_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, slices, entry, array = sliced(tmp_path, 9, 3)

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ShardFiles, "map", fail)
    found = slices.read_together("w", entry, replace(DEFAULT_OPTIONS, mmap=True))
    assert found.tolist() == array.tolist()


def test_strings_in_slices_are_read_one_by_one(tmp_path: Path) -> None:
    made = b.Bundle()
    array = np.array([b"%d" % n for n in range(20)], object)
    made.add_sliced("w", array, b.split_rows(20, 20, 1))
    reader = opened(tmp_path, made)
    entry = reader.index.find_entry("w")
    assert entry is not None
    slices = BundleSlices(reader.index, reader.shards)
    assert slices.read_together("w", entry, DEFAULT_OPTIONS) is None
    assert reader.make_tensor("w", entry, DEFAULT_OPTIONS).read().tolist() == array.tolist()


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    reader, slices, entry, _ = sliced(tmp_path, 9, 2, crc=5)
    for ask in (
        lambda: slices.read_together("w", entry, DEFAULT_OPTIONS),
        lambda: reader.make_tensor("w", entry, DEFAULT_OPTIONS).verify(),
    ):
        with pytest.raises(CheckpointError) as caught:
            ask()
        assert caught.value.tensor == f"w {entry.slices[8]}"
    with pytest.raises(LimitError):
        ckptparse.read(str(tmp_path / "m"), limits=Limits(slices=8))


class Sliced:
    """Slices that are read as a test says; how they are asked for is noted."""

    slices_are_read_whole = False

    def __init__(self, together: Any) -> None:
        self.together = together
        self.asked: list[Any] = []

    def read_together(self, _name: str, _entry: BundleEntry, options: ReadOptions) -> Any:
        self.asked.append(options.verify)
        if isinstance(self.together, CheckpointError):
            raise self.together
        return self.together

    def slice_payloads(self, _name: str, entry: BundleEntry) -> Any:
        self.asked.append("one by one")
        return SliceGrid(entry.slices, entry.shape), []


@pytest.mark.parametrize(
    ("kind", "size", "together", "asked"),
    [
        (b.INT8, 16 * MIB, np.zeros(1), [True]),
        (b.INT8, 16 * MIB + 1, np.zeros(1), ["one by one"]),
        (b.FLOAT, 4 * MIB, np.zeros(1), [True]),
        (b.FLOAT, 4 * MIB + 1, np.zeros(1), ["one by one"]),
        (b.STRING, 5, np.zeros(1), ["one by one"]),
        (b.INT8, 5, None, [True, "one by one"]),
        (b.INT8, 5, MalformedError("damaged"), [True, "one by one"]),
    ],
    ids=str,
)
def test_slices_of_a_tensor_of_up_to_16_mebibytes_are_checked_at_once_and_once(
    kind: int, size: int, together: Any, asked: list[Any]
) -> None:
    pieces = (TensorSlice((Extent(0, size),)),)
    slices: Any = Sliced(together)
    payload = _JoinedPayload(slices, "w", BundleEntry.in_slices(kind, (size,), pieces), path="m")
    for _ in range(2):
        payload.verify(ReadOptions(verify=False))
        assert slices.asked == asked


def test_a_part_of_a_tensor_in_slices_is_read_from_the_slices_that_hold_it(tmp_path: Path) -> None:
    reader, _, entry, array = sliced(tmp_path, 9, 2, crc=5)
    tensor = reader.make_tensor("w", entry, DEFAULT_OPTIONS)
    # The damaged slice is the last one.
    assert tensor[:8].tolist() == array[:8].tolist()
    assert not tensor.payload.is_read_whole
