"""Damaged, odd and hostile V1 files: an error of ours that says where, or the right values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from builder import field, shape_proto
from hypothesis import given
from hypothesis import strategies as st
from instruments import MEGABYTE
from packages import tracemalloc
from v1_builder import LegacyFile

import ckptparse
from ckptparse import (
    CheckpointError,
    ChecksumError,
    DataLossError,
    LimitError,
    Limits,
    MalformedError,
    NotACheckpointError,
    TruncatedError,
    UnsupportedError,
)

pytestmark = pytest.mark.proto


def small_file() -> LegacyFile:
    file = LegacyFile()
    file.add("a/scalar", np.int64(-7))
    file.add("half", np.array([1, -1], np.float16))
    matrix = file.declare("matrix", (3, 2), builder.FLOAT)
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    file.add_slice(matrix, [(0, 1), None], values[:1])
    file.add_slice(matrix, [(1, 2), None], values[1:])
    file.add("words", np.array([b"one", b""], object), builder.STRING)
    return file


def read_all(path: Path) -> dict[str, Any]:
    arrays = ckptparse.read(path)
    return {name: (array.dtype.str, array.shape, array.tolist()) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    path = small_file().write(tmp_path_factory.mktemp("right") / "m")
    return path.read_bytes(), read_all(path)


def judge(path: Path, data: bytes, values: dict[str, Any]) -> type[CheckpointError] | None:
    """Read a damaged file: the class of the error, or None where all values are right."""
    path.write_bytes(data)
    try:
        found = read_all(path)
    except CheckpointError as error:
        return type(error)
    assert found == values, "wrong values, and no error"
    return None


@pytest.mark.bitflips
def test_every_flipped_bit_is_found_or_harmless(
    right: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    data, values = right
    table = builder.table(small_file().pairs())
    harmless = 0
    for offset in range(len(data)):
        for bit in range(8):
            verdict = judge(tmp_path / "m", table.flip(offset, bit), values)
            harmless += verdict is None
    # Nobody reads the metaindex block or the padding of the footer; of the metaindex's handle only
    # where it ends counts.
    handle = len(builder.handle(*table.metaindex))
    padding = 40 - handle - len(builder.handle(*table.index))
    unread = 8 * (table.metaindex[1] + 5 + padding)
    assert unread <= harmless <= unread + 8 * handle


@given(offset=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_wrong_values(
    right: tuple[bytes, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
    offset: int,
    bit: int,
) -> None:
    data = bytearray(right[0])
    data[offset % len(data)] ^= 1 << bit
    judge(tmp_path_factory.mktemp("flip") / "m", bytes(data), right[1])


def test_every_truncation_is_found(right: tuple[bytes, dict[str, Any]], tmp_path: Path) -> None:
    data, values = right
    for size in range(len(data)):
        verdict = judge(tmp_path / "m", data[:size], values)
        assert verdict is not None, f"{size} bytes of {len(data)} were read as a whole"
        # The first entry says what the file was; a few bytes say nothing.
        if size > 40:
            assert verdict is TruncatedError, size


def test_a_cut_off_file_says_so(right: tuple[bytes, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(right[0][:-60])
    with pytest.raises(TruncatedError, match="cut off") as caught:
        ckptparse.open(tmp_path / "m")
    assert "not an sstable" in str(caught.value)
    assert caught.value.path == str(tmp_path / "m")


def test_bytes_after_the_end_are_refused(
    right: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "m").write_bytes(right[0] + b"\0")
    with pytest.raises(MalformedError, match="not an sstable"):
        ckptparse.open(tmp_path / "m")


def test_a_damaged_block_names_its_place(
    right: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    table = builder.table(small_file().pairs())
    (tmp_path / "m").write_bytes(table.flip(5))
    with pytest.raises(ChecksumError, match="Checksum does not match") as caught:
        ckptparse.open(tmp_path / "m")
    assert (caught.value.path, caught.value.offset) == (str(tmp_path / "m"), 0)


def test_a_damaged_later_block_fails_only_what_lies_in_it(tmp_path: Path) -> None:
    file = small_file()
    file.add("zz", np.ones(300, np.float32))
    table = builder.table(file.pairs(), block_size=256)
    assert len(table.blocks) > 2
    path = tmp_path / "m"
    path.write_bytes(table.flip(table.blocks[-1][0] + 3))
    with ckptparse.open(path) as checkpoint:
        assert len(checkpoint) == 5
        assert checkpoint["a/scalar"].read() == -7
        with pytest.raises(ChecksumError) as caught:
            checkpoint["zz"].read()
        with pytest.raises(ChecksumError):
            checkpoint["zz"].verify()
    assert (caught.value.tensor, caught.value.offset) == ("zz", table.blocks[-1][0])


def broken_file(change: Callable[[LegacyFile], object]) -> LegacyFile:
    file = small_file()
    change(file)
    return file


def set_meta(value: bytes) -> Callable[[LegacyFile], object]:
    return lambda file: setattr(file, "meta", value)


def set_shape(*shape: int) -> Callable[[LegacyFile], object]:
    return lambda file: setattr(file.tensors[2], "shape", shape)


def set_extents(*extents: Any) -> Callable[[LegacyFile], object]:
    return lambda file: setattr(file.tensors[2].slices[0], "extents", extents)


@pytest.mark.checklist(57)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_shape(3, -1), "dimensions of 0 or more"),
        (set_shape(1 << 62, 1 << 62), r"2\*\*63"),
        (set_shape(1 << 62, 1 << 62, 0), r"2\*\*63"),
        (set_extents((0, 0), None), "length >= 1"),
        (set_extents((0, -3), None), "length >= 1"),
        (set_extents((-1, 2), None), "start >= 0"),
        (set_extents(((1 << 63) - 1, 5), None), "start >= 0"),
        (set_extents((2, 2), None), "out of bounds"),
        (set_extents((0, 1)), "rank 1"),
        (set_meta(b"\x0a\x05abc"), "field of 5 bytes"),
        (set_meta(b"\x0a\x04\x0a\x02\xff\xff"), "varint"),
        (lambda file: setattr(file, "has_meta", False), "the list of a V1 file's tensors"),
    ],
    ids=[
        "negative dimension",
        "too many elements",
        "too many elements before a zero",
        "empty extent",
        "negative length",
        "negative start",
        "extent beyond 2**63",
        "slice out of bounds",
        "slice of another rank",
        "list cut off",
        "list of junk",
        "no list",
    ],
)
def test_a_list_that_breaks_the_rules_is_refused_when_opened(
    tmp_path: Path, change: Callable[[LegacyFile], object], words: str
) -> None:
    path = broken_file(change).write(tmp_path / "m")
    with pytest.raises((MalformedError, NotACheckpointError)) as caught:
        ckptparse.open(path)
    if isinstance(caught.value, MalformedError):
        assert caught.match(words)
        assert caught.value.path == str(path)


@pytest.mark.checklist(58)
@pytest.mark.parametrize(
    ("version", "kind", "words"),
    [
        ({"min_consumer": 2}, UnsupportedError, "version 2 or newer"),
        ({"producer": -1}, MalformedError, "found -1"),
        ({"bad": [1]}, UnsupportedError, "excludes readers of version 1"),
    ],
    ids=["newer consumer", "negative producer", "bad consumer"],
)
def test_each_rule_of_versions_has_its_message(
    tmp_path: Path, version: dict[str, Any], kind: type[CheckpointError], words: str
) -> None:
    file = small_file()
    file.version = builder.version_proto(**version)
    with pytest.raises(kind, match=words):
        ckptparse.open(file.write(tmp_path / "m"))


def test_newer_producers_and_absent_versions_are_fine(tmp_path: Path) -> None:
    for number, version in enumerate([builder.version_proto(99), b""]):
        file = small_file()
        file.version = version
        assert len(ckptparse.read(file.write(tmp_path / f"m{number}"))) == 4


def test_a_missing_record_names_its_tensor(tmp_path: Path) -> None:
    file = small_file()
    file.tensors[2].slices[1].stored = False
    file.tensors[0].slices[0].stored = False
    with ckptparse.open(file.write(tmp_path / "m")) as checkpoint:
        with pytest.raises(MalformedError, match=r"Expected a record of slice \[1,2:-\]") as caught:
            checkpoint["matrix"].read()
        assert caught.value.tensor is not None
        assert "matrix" in caught.value.tensor
        with pytest.raises(MalformedError, match="found none"):
            checkpoint["a/scalar"].read()
        assert checkpoint["matrix"][0].tolist() == [0, 1]
        assert checkpoint["half"].read().tolist() == [1, -1]


@pytest.mark.parametrize(
    "record",
    [b"", b"\x12\xff", b"\x12\x05\x1a\x7f\x2a", field(2, field(3, b"\x2a\x03abc"))],
    ids=["empty", "cut off", "cut off inside", "cut off values"],
)
def test_a_record_of_junk_is_malformed(tmp_path: Path, record: bytes) -> None:
    pairs = small_file().pairs()
    pairs[2] = (pairs[2][0], record)
    (tmp_path / "m").write_bytes(builder.table(pairs).data)
    with ckptparse.open(tmp_path / "m") as checkpoint, pytest.raises(MalformedError) as caught:
        checkpoint["half"].read()
    assert caught.value.tensor == "half"
    assert caught.value.path == str(tmp_path / "m")


_HALVES = field(13, b"\x80\x78\x80\x7c")
"""The typed field of a TensorProto: two halves."""


@pytest.mark.parametrize(
    "record",
    [
        field(2, field(2, b"\x0a\x05\x08") + field(3, _HALVES)),
        field(2, field(3, _HALVES + field(2, b"\x12\x7f"))),
        field(1, b"\x0a\x7f") + field(2, field(3, _HALVES)),
        field(2, field(3, _HALVES[:3])) + field(2, field(3, _HALVES[3:])),
    ],
    ids=["slice", "shape", "list", "two halves of a message"],
)
def test_a_record_that_does_not_parse_is_malformed_wherever_it_is(
    tmp_path: Path, record: bytes
) -> None:
    """TensorFlow does not find such a tensor, though the values themselves are there."""
    pairs = small_file().pairs()
    number = next(n for n, (key, _) in enumerate(pairs) if b"half" in key)
    pairs[number] = (pairs[number][0], field(2, field(3, _HALVES)))
    (tmp_path / "m").write_bytes(builder.table(pairs).data)
    assert ckptparse.read(tmp_path / "m")["half"].shape
    pairs[number] = (pairs[number][0], record)
    (tmp_path / "m").write_bytes(builder.table(pairs).data)
    with ckptparse.open(tmp_path / "m") as checkpoint, pytest.raises(MalformedError) as caught:
        checkpoint["half"].read()
    assert caught.value.tensor == "half"
    report = ckptparse.verify(tmp_path / "m")
    assert {"v1.record"} == {problem.code for problem in report.problems}
    assert report.tensors["half"].status == "corrupt"


@pytest.mark.parametrize(
    ("limits", "field_name"),
    [
        (Limits(rank=1), "rank"),
        (Limits(slices=1), "slices"),
        (Limits(entries=3), "entries"),
        (Limits(index_bytes=8), "index_bytes"),
        (Limits(shards=0), "shards"),
    ],
)
def test_each_limit_is_checked_when_opened(tmp_path: Path, limits: Limits, field_name: str) -> None:
    path = small_file().write(tmp_path / "m")
    with pytest.raises(LimitError) as caught:
        ckptparse.open(path, limits=limits)
    assert caught.value.limit == field_name


def test_strings_are_limited_before_they_are_made(tmp_path: Path) -> None:
    path = small_file().write(tmp_path / "m")
    with (
        ckptparse.open(path, limits=Limits(strings=1)) as checkpoint,
        pytest.raises(LimitError, match="strings"),
    ):
        checkpoint["words"].read()


def test_a_claim_of_many_elements_costs_no_memory(tmp_path: Path) -> None:
    file = LegacyFile()
    huge = file.add("huge", np.float32(1))
    huge.shape, huge.slices[0].extents = (1 << 40,), [None]
    words = file.add("words", np.array(b"a", object), builder.STRING)
    words.shape, words.slices[0].extents = (1 << 20,), [None]
    with ckptparse.open(file.write(tmp_path / "m")) as checkpoint:
        tracemalloc.start()
        for name in ["huge", "words"]:
            with pytest.raises(DataLossError):
                checkpoint[name].read()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEGABYTE


def test_a_shape_nested_or_named_oddly_is_no_trouble(tmp_path: Path) -> None:
    file = small_file()
    dim = field(2, field(1, 2) + field(2, b"rows"))
    meta = field(1, b"half") + field(2, dim) + field(3, builder.HALF) + field(4, field(1, b""))
    file.meta = field(1, field(1, meta + field(99, b"unknown")) + field(2, b"\x08\x01"))
    assert ckptparse.read(file.write(tmp_path / "m"))["half"].tolist() == [1, -1]


def test_the_last_of_two_values_of_a_field_counts(tmp_path: Path) -> None:
    file = small_file()
    meta = (
        field(1, b"x")
        + field(1, b"half")
        + field(2, shape_proto([1])[:0])
        + field(2, shape_proto([2]))
        + field(3, builder.FLOAT)
        + field(3, builder.HALF)
        + field(4, field(1, b""))
    )
    file.meta = field(1, field(1, meta))
    assert ckptparse.read(file.write(tmp_path / "m"))["half"].tolist() == [1, -1]
