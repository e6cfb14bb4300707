"""`Checkpoint` and `read`: a mapping of names, choices of names, checks that are remembered."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from instruments import counted_reads

import ckptparse
from ckptparse import (
    Checkpoint,
    CheckpointError,
    CheckpointNotFoundError,
    ChecksumError,
    DataLossError,
    LimitError,
    MalformedError,
    MissingShardError,
    NotACheckpointError,
    Tensor,
    TensorNotFoundError,
    TruncatedError,
    UnsupportedError,
)

NAMES = ["global_step", "layer1/bias", "layer1/kernel", "layer1/kernel/Adam", "layer2/kernel"]


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    bundle = b.Bundle()
    for n, name in enumerate(NAMES):
        bundle.add(name, np.full((2, 2), n, np.float32))
    return bundle.write(tmp_path / "x")


# ---- a mapping


def test_checkpoint_is_a_mapping_of_lazy_tensors_in_the_order_of_the_index(prefix: str) -> None:
    with ckptparse.open(prefix) as checkpoint:
        assert isinstance(checkpoint, Checkpoint) and isinstance(checkpoint, Mapping)
        assert list(checkpoint) == list(checkpoint.keys()) == NAMES and len(checkpoint) == 5
        assert [t.name for t in checkpoint.values()] == NAMES
        assert all(isinstance(tensor, Tensor) for tensor in checkpoint.values())
        assert {k: t.shape for k, t in checkpoint.items()} == dict.fromkeys(NAMES, (2, 2))
        assert checkpoint.get("nothing") is None and checkpoint.get(NAMES[0]) is not None
        assert prefix in repr(checkpoint)


@pytest.mark.parametrize("listed_before", [False, True])
def test_names_are_found_before_and_after_a_listing(prefix: str, listed_before: bool) -> None:
    with ckptparse.open(prefix) as checkpoint:
        if listed_before:
            list(checkpoint)
        for n, name in enumerate(NAMES):
            assert name in checkpoint and checkpoint[name].read().tolist() == [[n, n]] * 2
        for name in ["", "layer1", "layer1/", "LAYER1/bias", "layer1/bias ", "\0", "layer1/bias\0"]:
            assert name not in checkpoint
            with pytest.raises(TensorNotFoundError):
                checkpoint[name]


@pytest.mark.parametrize("key", [None, 1, b"layer1/bias", ("layer1/bias",), 1.5])
def test_keys_that_are_no_strings_are_not_in_it(prefix: str, key: Any) -> None:
    with ckptparse.open(prefix) as checkpoint:
        assert key not in checkpoint


@pytest.mark.parametrize("listed_before", [False, True])
@pytest.mark.parametrize("key", ["\ud800", "a\udfffb", "layer1/bias\ud83d"])
def test_names_that_no_bytes_stand_for_are_not_found(
    prefix: str, key: str, listed_before: bool
) -> None:
    with ckptparse.open(prefix) as checkpoint:
        if listed_before:
            list(checkpoint)
        assert key not in checkpoint
        with pytest.raises(TensorNotFoundError):
            checkpoint[key]
    with pytest.raises(TensorNotFoundError):
        ckptparse.read(prefix, [key])


def test_missing_name_gives_the_closest_and_is_a_key_error(prefix: str) -> None:
    with ckptparse.open(prefix) as checkpoint, pytest.raises(KeyError) as caught:
        checkpoint["layer1/kernal"]
    error = caught.value
    assert isinstance(error, TensorNotFoundError)
    assert error.closest[0] == "layer1/kernel" and error.tensor == "layer1/kernal"
    assert "layer1/kernel" in str(error) and "layer1/kernal" in str(error)


def test_the_path_of_an_object_is_as_close_as_can_be_to_its_key(tmp_path: Path) -> None:
    bundle = b.Bundle()
    keys = [f"{path}/.ATTRIBUTES/VARIABLE_VALUE" for path in ("m/b", "m/bias", "m/kernel")]
    for key in keys:
        bundle.add(key, np.float32([0]))
    with ckptparse.open(bundle.write(tmp_path / "m")) as checkpoint:
        for wanted, closest in [
            ("m/b", keys[:1]),
            ("m/kernle", keys[2:]),
            ("m/kernle/.ATTRIBUTES/VARIABLE_VALUE", keys[2:]),
            ("other", []),
        ]:
            with pytest.raises(TensorNotFoundError) as caught:
                checkpoint[wanted]
            assert list(caught.value.closest) == closest


def test_properties_of_a_checkpoint_tell_its_files(prefix: str) -> None:
    with ckptparse.open(prefix) as checkpoint:
        assert (checkpoint.format, checkpoint.num_shards, checkpoint.byte_order) == (
            "v2",
            1,
            "little",
        )
        assert set(map(str, checkpoint.files)) == {
            prefix + ".index", prefix + ".data-00000-of-00001",
        }  # fmt: skip


def test_tensor_tells_what_the_index_says_of_it(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    bundle = b.Bundle()
    bundle.put(b"gap")
    bundle.add("w", array)
    prefix = bundle.write(tmp_path / "x")
    with ckptparse.open(prefix) as checkpoint:
        tensor = checkpoint["w"]
        location = tensor.location
        assert location is not None
        assert (location.shard, location.offset, location.size) == (0, 3, 12)
        assert location.path == prefix + ".data-00000-of-00001"
        assert tensor.crc32c == b.crc(array.tobytes())
        assert (tensor.ndim, tensor.size, tensor.nbytes, len(tensor)) == (2, 6, 12, 2)
        assert tensor.data_type == ckptparse.DataType.DT_INT16 and tensor.dtype == np.int16
        assert "w" in repr(tensor) and "(2, 3)" in repr(tensor)


def test_quantized_kinds_are_plain_integers_with_their_own_data_type(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("q", np.array([-1, 2], np.int8), dtype=b.QINT8)
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert checkpoint["q"].dtype == np.int8
        assert checkpoint["q"].data_type == ckptparse.DataType.DT_QINT8


def test_empty_checkpoint_is_an_empty_mapping(tmp_path: Path) -> None:
    prefix = b.Bundle().write(tmp_path / "x")
    assert ckptparse.read(prefix) == {} and ckptparse.list_variables(prefix) == []
    with ckptparse.open(prefix) as checkpoint:
        assert len(checkpoint) == 0 and "a" not in checkpoint
        with pytest.raises(TensorNotFoundError):
            checkpoint["a"]


def test_tensors_become_arrays_of_a_type_and_never_uncopied(prefix: str) -> None:
    with ckptparse.open(prefix) as checkpoint:
        tensor = checkpoint["layer1/bias"]
        assert np.asarray(tensor).dtype == np.float32
        assert np.asarray(tensor, np.int64).tolist() == [[1, 1], [1, 1]]
        assert np.array(tensor).flags.writeable
        assert tensor.__array__(np.float16, copy=True).dtype == np.float16
        with pytest.raises(ValueError, match="copy=False"):
            tensor.__array__(copy=False)


# ---- the :0 of a TensorFlow tensor's name


def test_suffix_zero_of_a_tensors_name_is_accepted(prefix: str) -> None:
    with ckptparse.open(prefix) as checkpoint:
        assert "layer1/bias:0" in checkpoint
        assert checkpoint["layer1/bias:0"].name == "layer1/bias"
        assert "layer1/bias:1" not in checkpoint and "layer1/bias:0:0" not in checkpoint
        assert ":0" not in checkpoint
    got = ckptparse.read(prefix, ["layer1/bias:0"])
    assert list(got) == ["layer1/bias"] and got["layer1/bias"].tolist() == [[1, 1]] * 2


@pytest.mark.parametrize("listed_before", [False, True])
def test_exact_name_wins_over_stripping_the_suffix(tmp_path: Path, listed_before: bool) -> None:
    bundle = b.Bundle()
    bundle.add("w", np.float32(1))
    bundle.add("w:0", np.float32(2))
    bundle.add("v:0", np.float32(3))
    prefix = bundle.write(tmp_path / "x")
    with ckptparse.open(prefix) as checkpoint:
        if listed_before:
            list(checkpoint)
        assert checkpoint["w"].read() == 1 and checkpoint["w:0"].read() == 2
        assert checkpoint["w:0:0"].read() == 2 and checkpoint["v:0"].read() == 3
        assert "v" not in checkpoint
    got = ckptparse.read(prefix, ["w:0", "w"])
    assert {k: float(v) for k, v in got.items()} == {"w:0": 2, "w": 1}


# ---- choices of names


def test_names_choose_exactly_and_in_their_order(prefix: str) -> None:
    got = ckptparse.read(prefix, ["layer2/kernel", "global_step"])
    assert list(got) == ["layer2/kernel", "global_step"]
    assert list(ckptparse.read(prefix, [])) == []
    assert list(ckptparse.read(prefix, iter(NAMES[:2]))) == NAMES[:2]
    assert list(ckptparse.read(prefix, ["global_step", "global_step:0", "global_step"])) == [
        "global_step"
    ]


def test_missing_name_among_names_is_not_found_before_anything_is_read(prefix: str) -> None:
    with counted_reads() as reads, pytest.raises(TensorNotFoundError) as caught:
        ckptparse.read(prefix, ["global_step", "absent"])
    assert caught.value.tensor == "absent" and reads.bytes_of(".data-") == 0


def test_one_string_for_names_is_refused(prefix: str) -> None:
    with pytest.raises(TypeError, match="several names"):
        ckptparse.read(prefix, "global_step")


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"include": "layer1/*"}, NAMES[1:4]),
        ({"include": "*"}, NAMES),
        ({"include": "*kernel"}, ["layer1/kernel", "layer2/kernel"]),
        ({"include": ["*/bias", "global*"]}, ["global_step", "layer1/bias"]),
        ({"include": "layer?/kernel"}, ["layer1/kernel", "layer2/kernel"]),
        ({"include": "layer[2-9]/*"}, ["layer2/kernel"]),
        ({"include": "layer[!1]*"}, ["layer2/kernel"]),
        ({"include": []}, []),
        ({"include": ()}, []),
        ({"exclude": "*Adam"}, [*NAMES[:3], NAMES[4]]),
        ({"exclude": ["*/Adam", "global_step"]}, ["layer1/bias", "layer1/kernel", "layer2/kernel"]),
        ({"exclude": []}, NAMES),
        ({"exclude": "*"}, []),
        ({"include": "layer1/*", "exclude": "*/Adam"}, ["layer1/bias", "layer1/kernel"]),
    ],
    ids=str,
)
def test_globs_choose_names_and_their_star_crosses_slashes(
    prefix: str, choice: dict[str, Any], wanted: list[str]
) -> None:
    assert list(ckptparse.read(prefix, **choice)) == wanted
    with ckptparse.open(prefix) as checkpoint:
        assert list(checkpoint.read(**choice)) == wanted


@pytest.mark.parametrize("pattern", ["kernel", "LAYER1/*"])
def test_a_glob_is_of_the_whole_name_and_of_its_case(prefix: str, pattern: str) -> None:
    with pytest.raises(TensorNotFoundError, match="matches the pattern"):
        ckptparse.read(prefix, include=pattern)


def test_a_glob_matches_the_name_that_it_is_letter_by_letter_too(tmp_path: Path) -> None:
    prefix = ckptparse.write(tmp_path / "m", {name: [0.0] for name in ("w[0]", "w0", "w1")})
    assert list(ckptparse.read(prefix, include="w[0]")) == ["w0", "w[0]"]
    assert list(ckptparse.read(prefix, exclude="w[0]")) == ["w1"]


def test_globs_narrow_the_names_given(prefix: str) -> None:
    names = ["layer2/kernel", "layer1/kernel", "global_step"]
    assert list(ckptparse.read(prefix, names, include="*kernel")) == names[:2]
    assert list(ckptparse.read(prefix, names, exclude="layer2*")) == names[1:]


@pytest.mark.parametrize("name", ["a\nb", "[x]", "a.b", "(x|y)", "\udcff", "*"])
def test_globs_meet_odd_names(tmp_path: Path, name: str) -> None:
    bundle = b.Bundle()
    bundle.add(name, np.float32(1))
    prefix = bundle.write(tmp_path / "x")
    assert list(ckptparse.read(prefix, include="*")) == [name]
    assert list(ckptparse.read(prefix, exclude="?*")) == []
    assert list(ckptparse.read(prefix, [name])) == [name]


def test_excluded_tensors_are_not_read_though_damaged(prefix: str, tmp_path: Path) -> None:
    shard = tmp_path / "x.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ChecksumError):
        ckptparse.read(prefix)
    assert list(ckptparse.read(prefix, exclude="global_step")) == NAMES[1:]


# ---- the object graph


def test_object_graph_is_no_tensor(tmp_path: Path) -> None:
    key = "_CHECKPOINTABLE_OBJECT_GRAPH"
    bundle = b.Bundle()
    bundle.add("v/.ATTRIBUTES/VARIABLE_VALUE", np.float32(1))
    bundle.add(key, np.array(b"", object))
    prefix = bundle.write(tmp_path / "x")
    assert list(ckptparse.read(prefix)) == ["v/.ATTRIBUTES/VARIABLE_VALUE"]
    assert [name for name, _ in ckptparse.list_variables(prefix)] == [
        "v/.ATTRIBUTES/VARIABLE_VALUE"
    ]
    with ckptparse.open(prefix) as checkpoint:
        assert list(checkpoint) == ["v/.ATTRIBUTES/VARIABLE_VALUE"] and len(checkpoint) == 1
        assert key not in checkpoint and f"{key}:0" not in checkpoint
        with pytest.raises(TensorNotFoundError):
            checkpoint[key]


# ---- checking


def test_verify_streams_once_and_is_remembered(prefix: str) -> None:
    with ckptparse.open(prefix) as checkpoint:
        tensor = checkpoint["layer1/bias"]
        with counted_reads() as first:
            tensor.verify()
        with counted_reads() as again:
            tensor.verify()
            checkpoint["layer1/bias"].verify()
    assert first.bytes_of(".data-") == 16 and again.bytes_of(".data-") == 0


def test_failed_verify_fails_again(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("w", np.zeros(3, np.float32), crc=7)
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        for _ in range(2):
            with pytest.raises(ChecksumError):
                checkpoint["w"].verify()


@pytest.mark.parametrize("kind", ["string", "variant", "sliced", "sliced string"])
def test_verify_of_every_kind_finds_damage_and_is_remembered(tmp_path: Path, kind: str) -> None:
    bundle = b.Bundle()
    if kind == "string":
        bundle.add("w", np.array([b"ab", b"cd"], object))
    elif kind == "variant":
        bundle.add_variants("w", [b.variant_proto("t", b"meta")], ())
    else:
        array = np.array([[b"a"], [b"b"]], object) if "string" in kind else np.zeros((2, 3))
        bundle.add_sliced("w", array, b.split_rows(2, 2, 2))
    prefix = bundle.write(tmp_path / "x")
    with ckptparse.open(prefix) as checkpoint:
        checkpoint["w"].verify()
        with counted_reads() as again:
            checkpoint["w"].verify()
        assert again.bytes_of(".data-") == 0
    shard = tmp_path / "x.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 0x10
    shard.write_bytes(data)
    with ckptparse.open(prefix) as checkpoint, pytest.raises(DataLossError):
        checkpoint["w"].verify()


def test_reading_a_part_is_unchecked_and_reading_all_is_checked(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("w", np.arange(6, dtype=np.float32).reshape(2, 3), crc=7)
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        tensor = checkpoint["w"]
        assert tensor[0].tolist() == [0, 1, 2] and tensor[1, 2] == 5
        for call in (
            tensor.read,
            lambda: tensor[...],
            lambda: tensor[:],
            lambda: tensor[0:2, ::1],
            lambda: tensor[::-1],
            lambda: np.asarray(tensor),
        ):
            with pytest.raises(ChecksumError):
                call()


# ---- closing


def test_closed_checkpoint_raises_its_own_errors_and_arrays_stay(prefix: str) -> None:
    checkpoint = ckptparse.open(prefix)
    tensor = checkpoint["global_step"]
    array = tensor.read()
    checkpoint.close()
    checkpoint.close()
    assert array.tolist() == [[0, 0]] * 2
    for call in (
        tensor.read,
        tensor.verify,
        lambda: tensor[0],
        lambda: checkpoint["layer2/kernel"][...],
        checkpoint.read,
    ):
        with pytest.raises((CheckpointError, ValueError)):
            call()


def test_no_file_stays_open(prefix: str) -> None:
    import os

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    with ckptparse.open(prefix) as checkpoint:
        checkpoint.read()
        checkpoint["global_step"][0]
    ckptparse.read(prefix)
    ckptparse.read(prefix, mmap=True)
    ckptparse.list_variables(prefix)
    with pytest.raises(TensorNotFoundError):
        ckptparse.read(prefix, ["absent"])
    assert count() == before


def test_no_file_stays_open_after_a_failure(tmp_path: Path) -> None:
    import os

    (tmp_path / "x.index").write_bytes(b.table([]).data)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(CheckpointError):
            ckptparse.open(tmp_path / "x")
    assert len(os.listdir("/proc/self/fd")) == before


# ---- errors


def test_every_error_is_the_standard_exception_too() -> None:
    standard = {
        CheckpointNotFoundError: FileNotFoundError,
        NotACheckpointError: ValueError,
        TensorNotFoundError: KeyError,
        DataLossError: ValueError,
        ChecksumError: DataLossError,
        TruncatedError: EOFError,
        MissingShardError: FileNotFoundError,
        MalformedError: DataLossError,
        LimitError: ValueError,
        UnsupportedError: NotImplementedError,
    }
    for kind, parent in standard.items():
        assert issubclass(kind, CheckpointError) and issubclass(kind, parent)
    for kind in (TruncatedError, MissingShardError, ChecksumError, MalformedError):
        assert issubclass(kind, DataLossError)
    assert not issubclass(CheckpointNotFoundError, DataLossError)


@pytest.mark.parametrize("kind", [CheckpointError, TruncatedError, TensorNotFoundError, LimitError])
def test_errors_say_where_and_survive_pickling(kind: type[CheckpointError]) -> None:
    error = kind("what happened", path="/p", offset=3, size=4, tensor="t", hint="Try this")
    text = str(error)
    assert all(word in text for word in ("what happened", "/p", "3", "4", "t", "Try this"))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is kind and str(again) == text
    assert (again.path, again.offset, again.size, again.tensor) == ("/p", 3, 4, "t")


def test_checksum_error_survives_pickling(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("w", np.zeros(3, np.float32), crc=7)
    with pytest.raises(ChecksumError) as caught:
        ckptparse.read(bundle.write(tmp_path / "x"))
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (again.stored, again.computed) == (caught.value.stored, caught.value.computed)
    assert str(again) == str(caught.value)
