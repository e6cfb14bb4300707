"""V1 checkpoints: of one file and of several, in slices, and every kind that they can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder
import expected
import numpy as np
import pytest
from expected import ExpectedCheckpoint, ExpectedTensor, assert_matches
from hypothesis import given
from hypothesis import strategies as st
from instruments import counted_reads
from v1_builder import LegacyFile, nan_with_payload

import ckptparse
from ckptparse import (
    CheckpointNotFoundError,
    MalformedError,
    MissingShardError,
    NotACheckpointError,
    TensorNotFoundError,
)

pytestmark = pytest.mark.proto

V1 = expected.checkpoints("v1")

EXAMPLE = bytes.fromhex(
    "00003f"
    "0a3d 0a0a 0a024141 1200 1803 2200"
    "0a11 0a03693634 120412020802 1809 22020a00"
    "0a18 0a0474657374 1208 12020802 12020803 1801 2204 0a00 0a00"
    "12020801"
    "00060d 004141000100 120b 0a024141 1200 1a03 3a0103"
    "01091f 693634000101 01807f 121d 0a03693634 12020a00"
    "1a12 5210 ffffffffffffffffff01 808080808020"
    "010c2a 74657374000101 02807f807f 1228 0a0474657374 12040a000a00 1a1a 2a18"
    "0000803f0000004000004040000080400000a0400000c040"
)
"""The entries of a file with AA = 3, i64 = [-1, 2**40] and test = [[1, 2, 3], [4, 5, 6]]."""


def name_of(checkpoint: ExpectedCheckpoint) -> str:
    return checkpoint.path.relative_to(expected.FIXTURES).as_posix()


def by_name(checkpoints: list[ExpectedCheckpoint]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("wrote", checkpoints, ids=map(name_of, checkpoints))


def write_example(path: Path) -> Path:
    contents = builder.close_block(EXAMPLE, [0])
    path.write_bytes(builder.assemble([builder.Stored(contents, key=b"\x01")]).data)
    return path


# ---- what TensorFlow wrote


@pytest.mark.checklist(61, 63)
@by_name(V1)
def test_what_tensorflow_wrote_is_read_as_it_restores_it(wrote: ExpectedCheckpoint) -> None:
    with ckptparse.open(wrote.path) as checkpoint:
        assert checkpoint.format == "v1"
        assert checkpoint.num_shards == wrote.data.get("shards", 1) == len(checkpoint.files)
        names = [*wrote.tensors, *wrote.data.get("broken", {})]
        assert list(checkpoint) == sorted(names, key=lambda n: n.encode("utf-8", "surrogateescape"))
        for name, tensor in wrote.tensors.items():
            assert_matches(checkpoint[name].read(), tensor)
            checkpoint[name].verify()
            assert checkpoint[name].crc32c is None
            assert checkpoint[name].location is None


@pytest.mark.checklist(55)
@by_name([wrote for wrote in V1 if "parts" in wrote.data])
def test_each_stored_slice_is_read_by_itself(wrote: ExpectedCheckpoint) -> None:
    with ckptparse.open(wrote.path) as checkpoint:
        for row in wrote.data["parts"]:
            part = ExpectedTensor.from_json(row)
            index = tuple(
                slice(None) if length < 0 else slice(start, start + length)
                for start, length in row["extents"]
            )
            assert_matches(checkpoint[part.name][index], part)


@pytest.mark.checklist(48, 54, 55)
@by_name([wrote for wrote in V1 if "broken" in wrote.data])
def test_a_hole_between_slices_fails_where_it_is_touched(wrote: ExpectedCheckpoint) -> None:
    with ckptparse.open(wrote.path) as checkpoint:
        for name, row in wrote.data["broken"].items():
            tensor = checkpoint[name]
            assert tensor.shape == tuple(row["shape"])
            assert tensor.kind == "sliced"
            with pytest.raises(MalformedError, match="Slices are missing"):
                tensor.read()
            with pytest.raises(MalformedError, match="Slices are missing"):
                tensor.verify()


@pytest.mark.checklist(51, 62)
def test_a_sharded_checkpoint_is_read_by_every_name_it_has(fixtures: Path) -> None:
    wrote = expected.load("v1/sharded").checkpoint
    root = fixtures / "v1" / "sharded"
    first = root / "model.ckpt-7-00000-of-00003"
    for spelling in [
        wrote.path,
        root / "model.ckpt-7",
        root / "model.ckpt-7-?????-of-?????",
        root / "model.ckpt-7-*",
        root / "model.ckpt-7.meta",
        first,
        root,
        root / "checkpoint",
    ]:
        arrays = ckptparse.read(spelling)
        assert list(arrays) == list(wrote.tensors)
        for name, tensor in wrote.tensors.items():
            assert_matches(arrays[name], tensor)


@pytest.mark.checklist(80)
def test_a_meta_graph_without_a_checkpoint_points_to_what_can_read_it(
    fixtures: Path, tmp_path: Path
) -> None:
    lonely = tmp_path / "model.ckpt-7.meta"
    lonely.write_bytes((fixtures / "v1/sharded/model.ckpt-7.meta").read_bytes())
    with pytest.raises(CheckpointNotFoundError, match="open_graph"):
        ckptparse.read(lonely)


# ---- the format


def test_the_worked_example_is_read(tmp_path: Path) -> None:
    arrays = ckptparse.read(write_example(tmp_path / "m"))
    assert list(arrays) == ["AA", "i64", "test"]
    assert arrays["AA"].shape == ()
    assert arrays["AA"] == 3
    assert arrays["AA"].dtype == np.int32
    assert arrays["i64"].tolist() == [-1, 1 << 40]
    assert arrays["test"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert arrays["test"].dtype == np.float32


def test_the_builder_makes_the_worked_example(tmp_path: Path) -> None:
    file = LegacyFile()
    file.add("AA", np.int32(3))
    file.add("i64", np.array([-1, 1 << 40], np.int64))
    file.add("test", np.arange(1, 7, dtype=np.float32).reshape(2, 3))
    assert file.data() == write_example(tmp_path / "m").read_bytes()


@pytest.mark.checklist(54)
def test_slices_in_any_order_make_the_whole(tmp_path: Path) -> None:
    whole = np.arange(50, dtype=np.int32).reshape(5, 10)
    file = LegacyFile()
    file.add("AA", np.float32(2))
    test = file.declare("test", (5, 10), builder.INT32)
    file.add_slice(test, [None, (3, 7)], whole[:, 3:])
    file.add_slice(test, [None, (0, 1)], whole[:, :1])
    file.add_slice(test, [(0, 5), (1, 2)], whole[:, 1:3])
    file.add("int16", np.array([-5, 6], np.int16))
    file.add("int64", np.array([-(1 << 62)], np.int64))
    with ckptparse.open(file.write(tmp_path / "m")) as checkpoint:
        assert list(checkpoint) == ["AA", "int16", "int64", "test"]
        tensor = checkpoint["test"]
        assert tensor.kind == "sliced"
        np.testing.assert_array_equal(tensor.read(), whole)
        np.testing.assert_array_equal(tensor[2:4, ::3], whole[2:4, ::3])
        np.testing.assert_array_equal(tensor[-1, 2], whole[-1, 2])
        assert checkpoint["int64"].read().tolist() == [-(1 << 62)]


@pytest.mark.checklist(51, 55)
@pytest.mark.parametrize("kind", ["float32", "int32", "int64", "int16", "int8", "uint8"])
def test_slices_of_several_files_come_together(tmp_path: Path, kind: str) -> None:
    whole = np.arange(20).reshape(5, 4).astype(kind)
    number = builder.number_of(whole)
    for shard, pieces in enumerate([[((0, 2), None)], [((2, 3), (0, 2)), ((2, 3), (2, 2))]]):
        file = LegacyFile()
        listed = file.declare("test", (5, 4), number)
        for extents in pieces:
            file.add_slice(listed, extents, whole[builder.region(extents, (5, 4))])
        file.write(tmp_path / f"m-{shard:05d}-of-00002")
    with ckptparse.open(tmp_path / "m") as checkpoint:
        assert checkpoint.num_shards == 2
        np.testing.assert_array_equal(checkpoint["test"].read(), whole)
        np.testing.assert_array_equal(checkpoint["test"][1:3, 1:], whole[1:3, 1:])


@pytest.mark.parametrize("extents", [[None, None], [(0, 2), (0, 3)], [None, (0, 3)]])
def test_a_slice_that_is_the_whole_makes_a_dense_tensor(tmp_path: Path, extents: list[Any]) -> None:
    file = LegacyFile()
    file.add_slice(file.declare("w", (2, 3), builder.INT32), extents, np.ones((2, 3), np.int32))
    with ckptparse.open(file.write(tmp_path / "m")) as checkpoint:
        assert checkpoint["w"].kind == "dense"
        assert checkpoint["w"].read().sum() == 6


def test_signalling_nans_keep_their_payload(tmp_path: Path) -> None:
    file = LegacyFile()
    file.add("quiet", nan_with_payload(0x7FC12345))
    file.add("signalling", nan_with_payload(0xFF812345))
    double = np.frombuffer((0x7FF0000000000ABC).to_bytes(8, "little"), np.float64)
    file.add("double", double)
    arrays = ckptparse.read(file.write(tmp_path / "m"))
    assert arrays["quiet"].view(np.uint32).tolist() == [0x7FC12345]
    assert arrays["signalling"].view(np.uint32).tolist() == [0xFF812345]
    assert arrays["double"].view(np.uint64).tolist() == [0x7FF0000000000ABC]


@pytest.mark.checklist(60)
@pytest.mark.parametrize(
    "values",
    [
        builder.field(5, b"\0" * 4),
        builder.field(5, b"\0" * 16),
        builder.field(4, b"\0" * 12),
        builder.field(7, b"\1\2\3"),
        builder.field(6, b"\0" * 24),
        b"",
    ],
    ids=["one value", "too many", "tensor_content", "integers", "doubles", "nothing"],
)
def test_any_other_number_of_values_than_elements_is_an_error(
    tmp_path: Path, values: bytes
) -> None:
    file = LegacyFile()
    file.add("w", np.zeros(3, np.float32)).slices[0].values = values
    file.add("good", np.ones(1, np.float32))
    with ckptparse.open(file.write(tmp_path / "m")) as checkpoint:
        assert checkpoint["w"].shape == (3,)
        with pytest.raises(MalformedError, match="Expected 3 values") as caught:
            checkpoint["w"].read()
        assert caught.value.tensor == "w"
        assert caught.value.path == str(tmp_path / "m")
        assert checkpoint["good"].read().tolist() == [1]


def test_what_a_record_says_of_itself_is_ignored(tmp_path: Path) -> None:
    values = builder.field(1, builder.INT64) + builder.field(2, builder.shape_proto([9]))
    file = LegacyFile()
    listed = file.add("w", np.array([1.5, 2.5], np.float32))
    listed.slices[0].values = values + listed.slices[0].values
    key, data = file.pairs()[1]
    other = data.replace(b"\n\x01w", b"\n\x01x")
    (tmp_path / "m").write_bytes(builder.table([file.pairs()[0], (key, other)]).data)
    assert ckptparse.read(tmp_path / "m")["w"].tolist() == [1.5, 2.5]


def test_values_that_are_not_packed_are_read(tmp_path: Path) -> None:
    file = LegacyFile()
    unpacked = b"".join(builder.field(7, value) for value in (1, -2, 3))
    file.add("w", np.zeros(3, np.int16)).slices[0].values = unpacked
    assert ckptparse.read(file.write(tmp_path / "m"))["w"].tolist() == [1, -2, 3]


@pytest.mark.checklist(56)
@pytest.mark.parametrize("number", [None, 0, 101, 20], ids=["none", "0", "reference", "resource"])
def test_a_tensor_of_no_type_is_listed_and_cannot_be_read(
    tmp_path: Path, number: int | None
) -> None:
    file = LegacyFile()
    file.add("w", np.zeros(2, np.float32)).data_type = number
    path = file.write(tmp_path / "m")
    assert ckptparse.list_variables(path) == [("w", (2,))]
    with ckptparse.open(path) as checkpoint, pytest.raises(MalformedError, match="DataType"):
        checkpoint["w"].read()


@pytest.mark.parametrize("above", [1 << 32, 1 << 63, 0x7FFFFFFF << 32, 0xFFFFFFFF << 32])
@pytest.mark.parametrize("number", [builder.FLOAT, 1 << 31, (1 << 32) - 1])
def test_of_the_number_of_a_type_the_lowest_32_bits_count_as_in_protobuf(
    tmp_path: Path, number: int, above: int
) -> None:
    file = LegacyFile()
    file.add("w", np.float32([1, 2]), builder.FLOAT).data_type = number | above
    path = file.write(tmp_path / "m")
    with ckptparse.open(path) as checkpoint:
        tensor = checkpoint["w"]
        if number == builder.FLOAT:
            assert tensor.read().tolist() == [1, 2]
        else:
            with pytest.raises(ckptparse.CheckpointError):
                tensor.read()
    assert ckptparse.verify(path).ok == (number == builder.FLOAT)


def test_a_tensor_that_lists_no_slices_is_not_there(tmp_path: Path) -> None:
    file = LegacyFile()
    file.declare("ghost", (2,), builder.FLOAT)
    file.add("w", np.float32(1))
    with ckptparse.open(file.write(tmp_path / "m")) as checkpoint:
        assert list(checkpoint) == ["w"]
        with pytest.raises(TensorNotFoundError):
            checkpoint["ghost"]


def test_an_unknown_rank_counts_for_nothing(tmp_path: Path) -> None:
    file = LegacyFile()
    file.add("scalar", np.float32(7)).unknown_rank = True
    assert ckptparse.read(file.write(tmp_path / "m"))["scalar"] == 7


def test_a_file_without_tensors_is_a_checkpoint_without_tensors(tmp_path: Path) -> None:
    assert ckptparse.read(LegacyFile().write(tmp_path / "m")) == {}


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    file = LegacyFile()
    names = [b"a\x00b", b"caf\xe9", "größe/κ".encode(), b"\xff\xff", b"x" * 3000]
    for number, name in enumerate(names):
        file.add(name, np.int32(number))
    arrays = ckptparse.read(file.write(tmp_path / "m"))
    assert {n.encode("utf-8", "surrogateescape"): int(a) for n, a in arrays.items()} == {
        name: number for number, name in enumerate(names)
    }


@pytest.mark.checklist(63)
def test_a_large_value_lies_in_a_block_of_its_own_and_only_that_is_read(tmp_path: Path) -> None:
    file = LegacyFile()
    large = np.arange(200_000, dtype=np.float32)
    file.add("large", large)
    file.add("small", np.float32(1))
    file.add("zlast", np.arange(3, dtype=np.int32))
    path = file.write(tmp_path / "m")
    with ckptparse.open(path) as checkpoint:
        with counted_reads() as reads:
            assert checkpoint["zlast"].read().tolist() == [0, 1, 2]
        assert reads.bytes_of() < 2000
        np.testing.assert_array_equal(checkpoint["large"].read(), large)


def test_compressed_blocks_are_read(tmp_path: Path) -> None:
    file = LegacyFile()
    file.add("w", np.zeros(1000, np.float32))
    path = file.write(tmp_path / "m", type=builder.SNAPPY, index_type=builder.SNAPPY)
    assert ckptparse.read(path)["w"].shape == (1000,)
    assert ckptparse.identify(path).kind == "v1"


def test_values_are_the_callers_own(tmp_path: Path) -> None:
    file = LegacyFile()
    file.add("w", np.arange(4, dtype=np.float32).reshape(2, 2))
    file.add("s", np.array([b"a", b""], object), builder.STRING)
    with ckptparse.open(file.write(tmp_path / "m")) as checkpoint:
        first, second = checkpoint["w"].read(), checkpoint["w"].read()
        first[...] = 9
        assert second.tolist() == [[0, 1], [2, 3]]
        assert checkpoint["w"][0].flags.writeable
        assert first.flags.c_contiguous
        assert checkpoint["s"].read().tolist() == [b"a", b""]
        assert checkpoint["s"].kind == "string"


KINDS = st.sampled_from(
    ["float32", "float64", "int32", "int64", "uint8", "int8", "bool", "float16"]
)


@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    kind=KINDS,
    seed=st.integers(0, 1 << 30),
    data=st.data(),
)
def test_any_tensor_comes_back_whole_and_in_parts(
    tmp_path_factory: pytest.TempPathFactory,
    shape: list[int],
    kind: str,
    seed: int,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("any") / "m"
    array = np.random.default_rng(seed).integers(-128, 128, shape).astype(kind)
    file = LegacyFile()
    file.add("w", array)
    rows = file.declare("rows", shape, builder.number_of(array))
    parts = min(3, shape[0]) if shape else 0
    for extents in builder.split_rows(shape[0], parts, len(shape)) if parts else []:
        file.add_slice(rows, extents, array[builder.region(extents, tuple(shape))])
    file.write(path)
    index = tuple(
        data.draw(st.slices(size) if size else st.just(slice(None))) for size in array.shape
    )
    with ckptparse.open(path) as checkpoint:
        for name in checkpoint:
            np.testing.assert_array_equal(checkpoint[name].read(), array)
            np.testing.assert_array_equal(checkpoint[name][index], array[index])


# ---- V1 and V2 told apart


def test_v1_and_v2_are_told_apart_by_content_whatever_they_are_called(tmp_path: Path) -> None:
    file = LegacyFile()
    file.add("w", np.float32(1))
    path = file.write(tmp_path / "old.index")
    for spelling in [tmp_path / "old", path]:
        with ckptparse.open(spelling) as checkpoint:
            assert checkpoint.format == "v1"
            assert checkpoint["w"].read() == 1


@pytest.mark.checklist(64)
def test_an_index_given_by_its_own_name_is_that_v2_checkpoint(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("w", np.array([1, 2], np.float32))
    bundle.write(tmp_path / "new")
    with ckptparse.open(tmp_path / "new.index") as checkpoint:
        assert checkpoint.format == "v2"
        assert checkpoint["w"].read().tolist() == [1, 2]


def test_an_index_under_a_name_that_no_prefix_has_says_how_to_name_it(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("w", np.array([1, 2], np.float32))
    (tmp_path / "renamed").write_bytes(bundle.index())
    with pytest.raises(NotACheckpointError, match=r"ends in \.index") as caught:
        ckptparse.open(tmp_path / "renamed")
    assert caught.value.identity.kind == "v2-index"


def test_the_newer_format_wins_where_both_have_the_name(tmp_path: Path) -> None:
    file = LegacyFile()
    file.add("old", np.float32(1))
    file.write(tmp_path / "m")
    bundle = builder.Bundle()
    bundle.add("new", np.array([1, 2], np.float32))
    bundle.write(tmp_path / "m")
    assert list(ckptparse.read(tmp_path / "m")) == ["new"]


# ---- several files


def write_shards(directory: Path, prefix: str, count: int) -> list[Path]:
    paths = []
    for shard in range(count):
        file = LegacyFile()
        file.add(f"w{shard}", np.int32(shard))
        paths.append(file.write(directory / f"{prefix}-{shard:05d}-of-{count:05d}"))
    return paths


def test_a_missing_file_of_several_is_an_error_that_names_it(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, "m", 3)
    paths[1].unlink()
    for spelling in ["m", "m-?????-of-00003", "m-*"]:
        with pytest.raises(MissingShardError, match="m-00001-of-00003"):
            ckptparse.open(tmp_path / spelling)


@pytest.mark.checklist(62)
def test_one_file_of_several_is_read_alone_where_others_are_missing(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, "m", 3)
    paths[1].unlink()
    with pytest.warns(UserWarning, match="Missing are .*m-00001-of-00003: "):
        assert list(ckptparse.read(paths[0])) == ["w0"]


def test_a_narrower_pattern_means_the_files_it_matches(tmp_path: Path) -> None:
    write_shards(tmp_path, "m", 3)
    assert list(ckptparse.read(tmp_path / "m-0000[02]-of-00003")) == ["w0", "w2"]


def test_a_prefix_of_two_checkpoints_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, "m", 2)
    write_shards(tmp_path, "m", 3)
    with pytest.raises(NotACheckpointError, match="2 and of 3 files"):
        ckptparse.open(tmp_path / "m")
    assert list(ckptparse.read(tmp_path / "m-?????-of-00002")) == ["w0", "w1"]


@pytest.mark.checklist(47)
def test_one_slice_in_two_files_overlaps(tmp_path: Path) -> None:
    for shard in range(2):
        file = LegacyFile()
        file.add("w", np.arange(2, dtype=np.int32))
        file.write(tmp_path / f"m-{shard:05d}-of-00002")
    with (
        ckptparse.open(tmp_path / "m") as checkpoint,
        pytest.raises(MalformedError, match="Overlapping slices"),
    ):
        checkpoint["w"].read()


@pytest.mark.parametrize(
    ("shape", "kind"), [((3,), "int32"), ((2,), "int64")], ids=["shape", "type"]
)
def test_files_that_disagree_about_a_tensor_are_refused(
    tmp_path: Path, shape: tuple[int, ...], kind: str
) -> None:
    for shard, array in enumerate([np.zeros(2, np.int32), np.zeros(shape, kind)]):
        file = LegacyFile()
        file.add("w", array)
        file.write(tmp_path / f"m-{shard:05d}-of-00002")
    with pytest.raises(MalformedError, match="disagree") as caught:
        ckptparse.open(tmp_path / "m")
    assert caught.value.tensor == "w"


def test_every_file_is_closed(tmp_path: Path) -> None:
    write_shards(tmp_path, "m", 3)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(5):
        ckptparse.read(tmp_path / "m")
    (tmp_path / "m-00001-of-00003").write_bytes(b"junk" * 100)
    for _ in range(5):
        with pytest.raises(MalformedError):
            ckptparse.read(tmp_path / "m")
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert after <= before
