"""Values of one entry: read whole, in part, checked once, counted, and copied into another file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

from ckptparse.bundle.content import (
    ArrayContent,
    content_of,
    content_of_array,
    iter_buffers,
    list_bytes,
)
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.payload import BrokenPayload, DensePayload, SlicedPayload
from ckptparse.bundle.reader import BundleReader
from ckptparse.coding.checksum import crc32c
from ckptparse.errors import (
    CheckpointError,
    ChecksumError,
    LimitError,
    MalformedError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.context import Context
from ckptparse.limits import Limits
from ckptparse.slices import Extent, SliceGrid, TensorSlice
from ckptparse.tensor import DEFAULT_OPTIONS, ReadOptions, Tensor

pytestmark = pytest.mark.proto

MIB = 1 << 20
UNCHECKED = ReadOptions(verify=False)


def opened(tmp_path: Path, made: b.Bundle, **limits: int) -> BundleReader:
    return BundleReader.open(made.write(tmp_path / "m"), Context(limits=Limits(**limits)))


def found(reader: BundleReader, name: str, options: ReadOptions = DEFAULT_OPTIONS) -> Tensor:
    tensor = reader.find(name, options)
    assert tensor is not None
    return tensor


STRINGS = np.array([b"x", b"yz", b"", b"w" * 200], object)


def three_kinds(**change: Any) -> b.Bundle:
    """Make a bundle of numbers, strings and variants."""
    made = b.Bundle()
    made.add("w", np.arange(9, dtype=np.int16))
    made.add("s", STRINGS)
    made.add_variants("v", [b.variant_proto("t"), b.variant_proto("u")], (2,))
    for name in ("w", "s", "v"):
        made.change(name, **change)
    return made


# ---- entries of one place


@pytest.mark.parametrize("name", ["w", "s", "v"])
def test_a_checksum_is_compared_once_and_again_if_it_was_wrong(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.data-00000-of-00001"
    payload = found(opened(tmp_path, three_kinds()), name).payload
    whole = path.read_bytes()
    at = payload.location
    assert at is not None
    damaged = bytearray(whole)
    damaged[at.offset + at.size - 1] ^= 1
    path.write_bytes(damaged)
    for _ in range(2):
        with pytest.raises(ChecksumError):
            payload.verify(DEFAULT_OPTIONS)
        with pytest.raises(ChecksumError):
            payload.read(DEFAULT_OPTIONS)
    path.write_bytes(whole)
    payload.verify(DEFAULT_OPTIONS)
    path.write_bytes(damaged)
    payload.verify(DEFAULT_OPTIONS)


def test_a_part_is_read_without_its_checksum(tmp_path: Path) -> None:
    reader = opened(tmp_path, three_kinds(crc=3))
    assert found(reader, "w").payload.read_region((range(2, 8, 3),)).tolist() == [2, 5]
    assert found(reader, "s").payload.read_region((range(1, 2),)).tolist() == [b"yz"]
    for name in ("w", "s", "v"):
        with pytest.raises(ChecksumError):
            found(reader, name).read()
    assert found(reader, "s", UNCHECKED).read().tolist() == STRINGS.tolist()


def test_a_part_is_in_the_order_of_this_machine(tmp_path: Path) -> None:
    made = b.Bundle(big=True)
    made.add("w", np.array([1, 2, 3], np.int16))
    made.add("b", np.array([1, 1], np.bool_))
    reader = opened(tmp_path, made)
    path = tmp_path / "m.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-2] + b"\x02\x80")
    assert found(reader, "w").payload.read_region((range(1, 3),)).tolist() == [2, 3]
    part = found(reader, "b").payload.read_region((range(1, 2),))
    assert part.view(np.uint8).tolist() == [1]


def test_strings_are_counted_also_if_they_are_read_alone(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("s", np.array([b"y" * 2000] * 50, object))
    for most, fine in ((200_000, True), (1_000, False)):
        tensor = found(opened(tmp_path / str(most), made, memory_bytes=most), "s")
        if fine:
            assert len(tensor.read()) == 50
        else:
            with pytest.raises(LimitError) as caught:
                tensor.read()
            assert caught.value.limit == "memory_bytes"


@dataclass
class Shards:
    """One data file, which keeps what is asked of it."""

    content: bytes
    known_size: int | None = None
    asked: list[str] = field(default_factory=list)
    path: Any = "x"
    big_endian: bool = False
    piece: int = MIB
    concurrency: int | None = 7

    @contextmanager
    def open(self, shard_id: int) -> Iterator[Any]:
        assert shard_id == 2
        yield self

    @property
    def size(self) -> int:
        self.asked.append("size")
        return len(self.content)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.asked.append(f"read {offset} {len(buffer)}")
        part = self.content[offset : offset + len(buffer)]
        buffer[: len(part)] = part

    def read_at(self, offset: int, size: int) -> bytes:
        return self.content[offset : offset + size]

    def check_crc(self, entry: BundleEntry, computed: int) -> None:
        if entry.crc32c != computed:
            raise ChecksumError("", stored=entry.crc32c, computed=computed)


def int16_payload(shards: Shards, count: int, crc: int = 0) -> DensePayload:
    entry = BundleEntry(b.INT16, (count,), 2, 4, 2 * count, crc)
    return DensePayload(shards, entry)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "count", "asked"),
    [
        # The size of a remote file is told by the first read, which has a mebibyte at most.
        (None, 3, ["read 4 6", "size"]),
        (None, 1 << 19, [f"read 4 {MIB}", "size"]),
        (None, (1 << 19) + 1, ["size", f"read 4 {MIB + 2}"]),
        (9, 3, ["size", "read 4 6"]),
        (9, (1 << 19) + 1, ["size", f"read 4 {MIB + 2}"]),
    ],
)
def test_a_part_asks_for_the_size_of_its_file_once(
    known: int | None, count: int, asked: list[str]
) -> None:
    shards = Shards(bytes(2 * MIB), known)
    int16_payload(shards, 600_000).read_region((range(count),))
    assert shards.asked == asked


@pytest.mark.parametrize("known", [None, 9])
def test_a_tensor_that_ends_beyond_its_file_has_no_parts(known: int | None) -> None:
    shards = Shards(bytes(4 + 2 * 100), known)
    assert len(int16_payload(shards, 100).read_region((range(3),))) == 3
    with pytest.raises(TruncatedError):
        int16_payload(shards, 101).read_region((range(3),))


def test_a_tensor_of_more_than_a_mebibyte_is_read_by_several_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shards = Shards(bytes(2 * MIB))
    taken = []

    def read_dense(*asked: Any) -> Any:
        taken.append(asked)
        return "read"

    monkeypatch.setattr("ckptparse.bundle.many.read_dense", read_dense)
    found = int16_payload(shards, MIB // 2).read(UNCHECKED)
    assert not taken and not found.any() and shards.asked == [f"read 4 {MIB}"]
    payload = int16_payload(shards, MIB // 2 + 1)
    assert payload.read(UNCHECKED) == "read"  # type: ignore[comparison-overlap]
    assert taken == [(shards, payload.entry, UNCHECKED)]


def test_a_checksum_is_computed_by_as_many_threads_as_the_caller_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = bytes(range(100))
    shards = Shards(data, piece=33)
    taken = []

    def stream_crc(read_at: Any, offset: int, size: int, **rest: Any) -> int:
        taken.append((offset, size, rest["threads"], rest["piece"]))
        return crc32c(read_at(offset, size), rest["crc"])

    monkeypatch.setattr("ckptparse.bundle.payload.stream_crc", stream_crc)
    for threads in (None, 3):
        payload = int16_payload(shards, 30, crc32c(data[4:64]))
        payload.verify(ReadOptions(threads=threads))
        payload.verify(ReadOptions(threads=threads))
    assert taken == [(4, 60, 7, 33), (4, 60, 3, 33)]


# ---- slices


def test_a_slice_that_cannot_be_read_raises_what_is_wrong_whatever_is_asked() -> None:
    error = MalformedError("something")
    payload = BrokenPayload(error)
    for ask in (
        lambda: payload.read(DEFAULT_OPTIONS),
        lambda: payload.read_region(()),
        lambda: payload.verify(DEFAULT_OPTIONS),
    ):
        with pytest.raises(MalformedError) as caught:
            ask()
        assert caught.value is error


@dataclass
class Ready:
    """A slice whose values are there."""

    array: np.ndarray[Any, Any]
    options: list[ReadOptions] = field(default_factory=list)

    def read(self, options: ReadOptions) -> np.ndarray[Any, Any]:
        self.options.append(options)
        return self.array

    def read_region(self, region: tuple[range, ...]) -> np.ndarray[Any, Any]:
        return self.array[tuple(slice(r.start, r.stop, r.step) for r in region)]


@dataclass
class Counted:
    """Finds the two halves of a tensor, and is its own budget."""

    entry: BundleEntry
    payloads: list[Any]
    taken: list[int] = field(default_factory=list)
    slices_are_read_whole: bool = False

    def slice_payloads(self, name: str, entry: BundleEntry) -> tuple[SliceGrid, list[Any]]:
        assert (name, entry) == ("w", self.entry)
        return SliceGrid(entry.slices, entry.shape), self.payloads

    def budget(self) -> Any:
        return self

    def take(self, size: int) -> None:
        self.taken.append(size)


def halves(*payloads: Any, kind: int = b.INT16) -> tuple[SlicedPayload, Counted]:
    slices = tuple(TensorSlice((Extent(start, 2), Extent())) for start in (0, 2))
    entry = BundleEntry(kind, (4, 3), 0, 0, 0, 0, slices)
    finder = Counted(entry, list(payloads))
    return SlicedPayload(finder, "w", entry), finder


def test_a_tensor_in_slices_is_counted_before_memory_is_taken() -> None:
    array = np.arange(12, dtype=np.int16).reshape(4, 3)
    first, second = Ready(array[:2]), Ready(array[2:])
    payload, finder = halves(first, second)
    assert payload.read(DEFAULT_OPTIONS).tolist() == array.tolist()
    assert finder.taken == [24]
    assert [one.options[0].budget for one in (first, second)] == [None, None]
    assert payload.read_region((range(1, 3), range(2))).tolist() == array[1:3, :2].tolist()
    assert finder.taken == [24, 8]
    assert [str(piece) for piece, _ in payload.parts()] == ["0,2:-", "2,2:-"]
    # A budget of the caller is taken in place of an own one.
    given = Counted(finder.entry, [])
    payload.read(ReadOptions(budget=given))  # type: ignore[arg-type]
    assert given.taken == [24] and finder.taken == [24, 8]


def test_strings_in_slices_are_counted_slice_by_slice() -> None:
    array = np.array([[b"%d" % (3 * n + m) for m in range(3)] for n in range(4)], object)
    first, second = Ready(array[:2]), Ready(array[2:])
    payload, finder = halves(first, second, kind=b.STRING)
    assert payload.read(DEFAULT_OPTIONS).tolist() == array.tolist()
    assert finder.taken == []
    assert [one.options[0].budget for one in (first, second)] == [finder, finder]
    assert payload.read_region((range(1, 3), range(2))).tolist() == array[1:3, :2].tolist()
    assert finder.taken == [0]


def test_a_broken_slice_is_told_before_anything_is_counted_or_read() -> None:
    first = Ready(np.zeros((2, 3), np.int16))
    payload, finder = halves(first, BrokenPayload(MalformedError("something")))
    with pytest.raises(MalformedError, match="something") as caught:
        payload.read(DEFAULT_OPTIONS)
    assert caught.value.tensor == "w 2,2:-"
    assert not finder.taken and not first.options


def test_a_tensor_with_a_gap_is_read_in_parts_alone() -> None:
    entry = BundleEntry(b.INT16, (6,), 0, 0, 0, 0, (TensorSlice((Extent(0, 2),)),))
    finder = Counted(entry, [Ready(np.arange(2, dtype=np.int16))])
    payload = SlicedPayload(finder, "w", entry, path="y")
    for ask in (
        lambda: payload.read(DEFAULT_OPTIONS),
        lambda: payload.read_region((range(1, 3),)),
        lambda: payload.verify(DEFAULT_OPTIONS),
        payload.parts,
    ):
        with pytest.raises(MalformedError, match="Slices are missing") as caught:
            ask()
        assert caught.value.path == "y"
    assert payload.read_region((range(1, 2),)).tolist() == [1]


# ---- content to be written


def written(tensor: Any) -> tuple[bytes, int, int]:
    """Return the bytes that are written of a tensor, their size and their checksum."""
    content = content_of(tensor)
    pieces: list[bytes] = []
    crc = content.write_to(lambda piece: pieces.append(bytes(piece)))
    return b"".join(pieces), content.size, crc


def test_a_damaged_tensor_is_copied_only_if_nobody_asks_for_its_checksum(tmp_path: Path) -> None:
    reader = opened(tmp_path, three_kinds(crc=3))
    data = np.arange(9, dtype=np.int16).tobytes()
    for name in ("w", "s", "v"):
        with pytest.raises(ChecksumError):
            written(found(reader, name))
    assert written(found(reader, "w", UNCHECKED)) == (data, 18, crc32c(data))
    payload, _ = b.string_payload(STRINGS.tolist())
    assert written(found(reader, "s", UNCHECKED))[:2] == (payload, len(payload))


def test_what_ends_beyond_its_file_is_refused_before_any_byte_is_written(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("w", np.zeros(3 * MIB, np.int8))
    made.change("w", shape=(3 * MIB + 1,), size=3 * MIB + 1)
    content = content_of(found(opened(tmp_path, made), "w"))
    pieces: list[int] = []
    with pytest.raises(TruncatedError) as caught:
        content.write_to(lambda piece: pieces.append(len(piece)))
    assert not pieces and caught.value.size == 3 * MIB + 1


@pytest.mark.parametrize("big", [False, True])
def test_a_copy_has_the_bytes_of_a_little_endian_file(tmp_path: Path, big: bool) -> None:
    made = b.Bundle(big=big)
    values = np.arange(MIB, dtype=np.int16) + 1
    made.add("w", values)
    made.add("b", np.ones(3, np.bool_))
    made.add_sliced("p", np.arange(8, dtype=np.int16), b.split_rows(8, 2, 1))
    reader = opened(tmp_path, made)
    data = values.astype("<i2").tobytes()
    assert written(found(reader, "w")) == (data, 2 * MIB, crc32c(data))
    parts = np.arange(8, dtype="<i2").tobytes()
    assert written(found(reader, "p")) == (parts, 16, crc32c(parts))
    assert isinstance(content_of(found(reader, "p")), ArrayContent)
    assert written(found(reader, "b")) == (b"\1\1\1", 3, crc32c(b"\1\1\1"))


def test_what_a_data_file_cannot_hold_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="cannot hold DT_RESOURCE"):
        content_of_array(np.array([b"x"], object), 20)
    with pytest.raises(UnsupportedError, match="found int in it"):
        content_of_array(np.array([b"x", 3], object), b.STRING)
    with pytest.raises(UnsupportedError, match="missing"):
        content_of_array(np.ma.masked_array([1, 2], [0, 1]), b.INT16)
    values = np.array([["ß\udcff", b"\0"]], object)
    assert list_bytes(values) == ["ß".encode() + b"\xff", b"\0"]
    assert list_bytes(values[:, 1:]) == [b"\0"]
    with pytest.raises(UnsupportedError, match="NoneType"):
        list_bytes(np.array([b"", None], object))
    assert issubclass(UnsupportedError, CheckpointError)


@pytest.mark.parametrize(
    ("size", "held"),
    [
        (0, 0),
        (1, 1),
        (MIB - 1, MIB - 1),
        (MIB, MIB),
        (MIB + 1, MIB),
        (4 * MIB - 1, MIB),
        (4 * MIB, 3 * MIB),
        (4 * MIB + 1, 3 * MIB),
    ],
)
def test_buffers_lie_one_after_another_and_take_one_piece_or_three_of_a_large_tensor(
    size: int, held: int
) -> None:
    buffers = list(iter_buffers(size))
    assert [start for start, _ in buffers] == list(range(0, size, MIB))
    assert [len(part) for _, part in buffers] == [
        min(MIB, size - start) for start in range(0, size, MIB)
    ]
    addresses = {part.ctypes.data for _, part in buffers}
    assert len(addresses) == -(-held // MIB)
    for _, part in buffers:
        assert isinstance(part.base, np.ndarray) and part.base.nbytes == held
