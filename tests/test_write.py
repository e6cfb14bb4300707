"""`write`: a V2 checkpoint of arrays and of tensors from elsewhere."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from crc32c import crc32c
from instruments import allocating_at_most
from packages import ml_dtypes

import ckptparse
from ckptparse.files import placing
from ckptparse.parallel import PIECE_SIZE

Tensors = dict[str, Any]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def read_files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# What is written.


def test_arrays_are_stored_in_the_order_they_are_given_in(tmp_path: Path) -> None:
    values = {"z": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.int64([7])}
    prefix = ckptparse.write(tmp_path / "m", values)
    assert prefix == str(tmp_path / "m")
    bundle = b.Bundle()
    for name, array in values.items():
        bundle.add(name, array)
    assert read_files(tmp_path) == bundle.files("m")


def test_whatever_numpy_makes_an_array_of_can_be_written(tmp_path: Path) -> None:
    values: Tensors = {
        "float": 1.5,
        "list": [[1, 2], [3, 4]],
        "text": "naïve",
        "bytes": b"a\0",
        "texts": np.array(["a", "ß"]),
        "half": np.float16(2),
        "empty": np.zeros((0, 3), np.complex64),
        "bf16": np.array([1, 2], ml_dtypes.bfloat16),
        "big": np.array([1, 2], ">i4"),
    }
    got = ckptparse.read(ckptparse.write(tmp_path / "m", values))
    assert got["float"].item() == 1.5 and got["float"].dtype == np.float64
    assert got["list"].tolist() == [[1, 2], [3, 4]]
    assert got["text"].item() == "naïve".encode() and got["bytes"].item() == b"a\0"
    assert got["texts"].tolist() == [b"a", "ß".encode()]
    assert got["half"].shape == () and got["empty"].shape == (0, 3)
    assert got["bf16"].dtype == ml_dtypes.bfloat16 and got["big"].tolist() == [1, 2]


def test_no_tensor_at_all_is_a_checkpoint_too(tmp_path: Path) -> None:
    prefix = ckptparse.write(tmp_path / "m", {})
    assert ckptparse.read(prefix) == {} and ckptparse.verify(prefix).ok


def test_kinds_that_numpy_has_no_name_for_are_kept(tmp_path: Path, fixtures: Path) -> None:
    with ckptparse.open(fixtures / "dtypes" / "quantized" / "model") as source:
        ckptparse.write(tmp_path / "m", source)
        kinds = {name: tensor.data_type for name, tensor in source.items()}
    with ckptparse.open(tmp_path / "m") as made:
        assert {name: tensor.data_type for name, tensor in made.items()} == kinds
    one = np.zeros(2, np.dtype([("qint8", "i1")]))
    with ckptparse.open(ckptparse.write(tmp_path / "q", {"q": one})) as made:
        assert made["q"].data_type == ckptparse.DataType.DT_QINT8


@pytest.mark.parametrize("value", [np.zeros(2, "M8[s]"), np.zeros(1, "f8,i4"), object()])
def test_what_tensorflow_has_no_kind_for_is_refused_by_name(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ckptparse.UnsupportedError, match="tensor 'odd'"):
        ckptparse.write(tmp_path / "m", {"fine": 1.0, "odd": value})
    assert names(tmp_path) == []


def test_every_checkpoint_that_can_be_opened_can_be_written(tmp_path: Path, fixtures: Path) -> None:
    sources = ["v1/every_dtype/model", "slices/every_dtype/model", "graphs/frozen_tf1/frozen.pb"]
    for number, path in enumerate(sources):
        with ckptparse.open(fixtures / path) as source:
            prefix = ckptparse.write(tmp_path / f"m{number}", source)
            wanted = source.read()
        got = ckptparse.read(prefix)
        assert got.keys() == wanted.keys()
        assert all(b.same(got[name], wanted[name]) for name in got)


def test_slices_are_put_together_or_kept(tmp_path: Path, fixtures: Path) -> None:
    original = fixtures / "slices" / "columns" / "model"
    with ckptparse.open(original) as source:
        joined = ckptparse.write(tmp_path / "joined", source)
        kept = ckptparse.write(tmp_path / "kept", source, keep_slices=True)
        wanted = source.read()
        sliced = [name for name, tensor in source.items() if tensor.kind == "sliced"]
    for prefix, kind in ((joined, "dense"), (kept, "sliced")):
        with ckptparse.open(prefix) as made:
            assert {made[name].kind for name in sliced} == {kind}
            assert all(b.same(made[name].read(), wanted[name]) for name in wanted)


def test_what_was_recovered_can_be_written(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", np.float32([1, 2]))
    bundle.add("b", np.float32([3, 4, 5, 6, 7]))
    prefix = bundle.write(tmp_path / "m")
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:12])
    recovery = ckptparse.recover(prefix)
    with pytest.raises(ckptparse.UnsupportedError, match="fill=0"):
        ckptparse.write(tmp_path / "fixed", recovery)
    filled = {name: tensor.read(fill=0) for name, tensor in recovery.items()}
    got = ckptparse.read(ckptparse.write(tmp_path / "fixed", filled))
    assert got["a"].tolist() == [1, 2] and got["b"].tolist() == [3, 0, 0, 0, 0]


# Several data files.


def test_a_data_file_that_would_be_too_large_is_followed_by_another(tmp_path: Path) -> None:
    values = {name: np.full(n, n, np.uint8) for name, n in [("a", 3), ("b", 2), ("c", 9), ("d", 1)]}
    with ckptparse.open(ckptparse.write(tmp_path / "m", values, max_shard_size=5)) as made:
        assert made.num_shards == 3
        shards = [tensor.location.shard for tensor in made.values() if tensor.location]
        assert shards == [0, 0, 1, 2]
    assert ckptparse.verify(tmp_path / "m").ok


def test_strings_count_as_they_are_stored(tmp_path: Path) -> None:
    values = {"a": np.array([b"x" * 10], object), "b": np.array([b"y" * 10], object)}
    for most, shards in ((30, 1), (29, 2)):
        prefix = ckptparse.write(tmp_path / f"m{most}", values, max_shard_size=most)
        with ckptparse.open(prefix) as made:
            assert made.num_shards == shards


def test_a_size_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ckptparse.write(tmp_path / "m", {}, max_shard_size=0)


# The object graph.


def test_an_object_graph_is_taken_over_byte_for_byte(tmp_path: Path, fixtures: Path) -> None:
    with ckptparse.open(fixtures / "objects" / "nested" / "ckpt-1") as source:
        graph = source.object_graph
        assert graph is not None
        for number, choice in enumerate((graph, graph.serialized)):
            prefix = ckptparse.write(tmp_path / f"m{number}", source, object_graph=choice)
            with ckptparse.open(prefix) as made:
                assert made.object_graph is not None
                assert made.object_graph.serialized == graph.serialized
                assert list(made) == list(source)


def test_an_object_graph_is_made_of_names(tmp_path: Path) -> None:
    values = {"model/d.1/kernel": np.float32([1]), "model/d.1/bias": np.float32([2]), "step": 3}
    prefix = ckptparse.write(tmp_path / "m", values, object_graph="make")
    with ckptparse.open(prefix) as made:
        assert list(made) == [
            "model/d..1/bias/.ATTRIBUTES/VARIABLE_VALUE",
            "model/d..1/kernel/.ATTRIBUTES/VARIABLE_VALUE",
            "step/.ATTRIBUTES/VARIABLE_VALUE",
        ]
        graph = made.object_graph
        assert graph is not None
        assert graph["model"]["d.1"]["kernel"].read().tolist() == [1]
        assert graph["model"]["d.1"]["kernel"].full_name == "model/d.1/kernel"
    assert list(ckptparse.read(prefix, naming="variable")) == sorted(values)


def test_an_object_graph_that_is_made_knows_slot_variables(tmp_path: Path) -> None:
    end = ".ATTRIBUTES/VARIABLE_VALUE"
    slot = f"w/.OPTIMIZER_SLOT/opt/m/{end}"
    values = {f"w/{end}": np.float32([1]), slot: np.float32([2]), f"opt/iter/{end}": np.int64(5)}
    with ckptparse.open(ckptparse.write(tmp_path / "m", values, object_graph="make")) as made:
        graph = made.object_graph
        assert graph is not None
        (found,) = graph["opt"].slot_variables
        assert (found.slot_name, found.variable.path) == ("m", "w")
        assert made.optimizer is not None and made.optimizer.slots
        assert [node.node_id for node in graph.nodes()] == list(range(graph.node_count))


@pytest.mark.proto
@pytest.mark.parametrize("name", ["f\x00o\udcffo", "a/\udcff/b"])
def test_a_name_that_is_not_utf_8_is_in_no_object_graph(name: str, tmp_path: Path) -> None:
    with pytest.raises(ckptparse.UnsupportedError, match="is not UTF-8") as caught:
        ckptparse.write(tmp_path / "m", {"b": 1.0, name: 2.0}, object_graph="make")
    assert repr(name) in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_two_names_of_one_key_are_refused(tmp_path: Path) -> None:
    twice = {"a/b": 1.0, "a/b/.ATTRIBUTES/VARIABLE_VALUE": 2.0}
    with pytest.raises(ckptparse.UnsupportedError, match="Two tensors"):
        ckptparse.write(tmp_path / "m", twice, object_graph="make")


def test_an_object_graph_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="given twice"):
        ckptparse.write(tmp_path / "m", {"_CHECKPOINTABLE_OBJECT_GRAPH": b""}, object_graph=b"")


# The state file.


def test_the_state_file_names_the_new_checkpoint_if_that_is_asked_for(tmp_path: Path) -> None:
    ckptparse.write(tmp_path / "ckpt-1", {"a": 1.0})
    assert "checkpoint" not in names(tmp_path)
    ckptparse.write(tmp_path / "ckpt-2", {"a": 2.0}, update_state=True)
    assert (tmp_path / "checkpoint").read_text() == (
        'model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-2"\n'
    )
    assert ckptparse.latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-2")


def test_what_a_state_file_lists_stays(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "b"\n'
        'all_model_checkpoint_paths: "a"\nall_model_checkpoint_paths: "b"\n'
        "all_model_checkpoint_timestamps: 1.5\nall_model_checkpoint_timestamps: 2.5\n"
        "last_preserved_timestamp: 0.5\n"
    )
    ckptparse.write(tmp_path / "a", {"x": 1.0}, update_state=True)
    state = ckptparse.checkpoint_state(tmp_path)
    assert state is not None
    assert [Path(path).name for path in state.paths] == ["b", "a"]
    assert state.timestamps[0] == 2.5 and state.timestamps[1] > 1e9 and state.last_preserved == 0.5


def test_a_state_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("not: [a state file")
    with pytest.raises(ckptparse.DataLossError):
        ckptparse.write(tmp_path / "m", {"x": 1.0}, update_state=True)
    assert (tmp_path / "checkpoint").read_text() == "not: [a state file"


# What is there already, and what fails.


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    ckptparse.write(tmp_path / "m", {"a": 1.0})
    before = read_files(tmp_path)
    with pytest.raises(ckptparse.OutputExistsError, match=r"overwrite=True") as caught:
        ckptparse.write(tmp_path / "m", {"a": 2.0})
    assert caught.value.filename == str(tmp_path / "m.index")
    assert read_files(tmp_path) == before


def test_data_files_without_an_index_are_not_replaced_unasked_either(tmp_path: Path) -> None:
    (tmp_path / "m.data-00001-of-00002").write_bytes(b"somebody's")
    with pytest.raises(ckptparse.OutputExistsError):
        ckptparse.write(tmp_path / "m", {"a": 2.0})
    assert names(tmp_path) == ["m.data-00001-of-00002"]


def test_a_checkpoint_of_more_data_files_is_replaced_with_all_of_them(tmp_path: Path) -> None:
    values = {"a": np.zeros(9), "b": np.ones(9)}
    ckptparse.write(tmp_path / "m", values, max_shard_size=80)
    (tmp_path / "m.meta").write_bytes(b"not ours")
    ckptparse.write(tmp_path / "m", values, overwrite=True)
    assert names(tmp_path) == ["m.data-00000-of-00001", "m.index", "m.meta"]


def test_a_checkpoint_may_be_replaced_by_one_made_of_itself(tmp_path: Path) -> None:
    prefix = ckptparse.write(tmp_path / "m", {"a": np.arange(5), "b": np.arange(9)})
    with ckptparse.open(prefix) as source:
        ckptparse.write(prefix, {"b": source["b"]}, overwrite=True)
    assert ckptparse.read(prefix)["b"].tolist() == list(range(9))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_source_that_is_damaged_leaves_everything_as_it_was(
    overwrite: bool, tmp_path: Path
) -> None:
    bundle = b.Bundle()
    bundle.add("a", np.arange(2000, dtype=np.int16))
    prefix = bundle.write(tmp_path / "source" / "m")
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    target = tmp_path / "target"
    target.mkdir()
    if overwrite:
        ckptparse.write(target / "m", {"old": 1.0})
    before = read_files(target)
    damaged = pytest.raises(ckptparse.ChecksumError, match="tensor 'a'")
    with ckptparse.open(prefix) as source, damaged:
        ckptparse.write(target / "m", source, overwrite=overwrite)
    assert read_files(target) == before
    with ckptparse.open(prefix, verify=False) as source:
        ckptparse.write(target / "m", source, overwrite=overwrite)
    assert ckptparse.verify(target / "m").ok


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_name_is_no_prefix(
    overwrite: bool, tmp_path: Path, fixtures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fixtures / "saver" / "my_model"
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for write in (
        lambda: ckptparse.write("", {"w": np.ones(2)}, overwrite=overwrite),
        lambda: ckptparse.convert(model, "", overwrite=overwrite),
        lambda: ckptparse.average([model], "", overwrite=overwrite),
    ):
        with pytest.raises(ckptparse.OutputError, match="Expected a prefix to write to"):
            write()
    assert not list(tmp_path.glob("*/*"))


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ckptparse.CheckpointNotFoundError, match="directory to write into"):
        ckptparse.write(tmp_path / "none" / "m", {"a": 1.0})
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ckptparse.PermissionDeniedError):
        ckptparse.write(tmp_path / "m", {"a": 1.0})
    tmp_path.chmod(stat.S_IRWXU)


def test_a_refusal_of_the_system_is_one_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "no", str(tmp_path / "m.data-00000-of-00001.tempstate"))

    monkeypatch.setattr(placing, "create_file", refuse)
    with pytest.raises(ckptparse.PermissionDeniedError):
        ckptparse.write(tmp_path / "m", {"a": 1.0})


# Memory.


def test_a_tensor_of_a_checkpoint_is_streamed(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", np.arange(8 << 20, dtype=np.uint8))
    prefix = bundle.write(tmp_path / "m")
    with ckptparse.open(prefix) as source, allocating_at_most(4 << 20):
        ckptparse.write(tmp_path / "n", source)
    assert read_files(tmp_path)["n.index"] == read_files(tmp_path)["m.index"]


@pytest.mark.parametrize("size", [(4 << 20) - 1, 4 << 20, (9 << 20) + 5])
@pytest.mark.parametrize("of", ["arrays", "a checkpoint"])
def test_of_a_large_tensor_a_piece_is_checked_while_another_is_written(
    tmp_path: Path, of: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckptparse.parallel.most_threads", lambda: 2)
    threads: set[int] = set()
    real = crc32c

    def watched(data: memoryview, crc: int = 0) -> int:
        if len(data) > PIECE_SIZE // 2:
            threads.add(threading.get_ident())
        return real(data, crc)

    monkeypatch.setattr("ckptparse.bundle.content.crc32c", watched)
    array = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    bundle = b.Bundle()
    bundle.add("a", array)
    prefix = bundle.write(tmp_path / "m")
    with ckptparse.open(prefix) as source:
        tensors = {"a": array} if of == "arrays" else source
        ckptparse.write(tmp_path / "n", tensors)
    assert len(threads) == 1
    assert (threading.get_ident() in threads) == (size < 4 << 20)
    files = read_files(tmp_path)
    assert files["n.index"] == files["m.index"]
    assert files["n.data-00000-of-00001"] == files["m.data-00000-of-00001"]


def test_an_array_is_written_without_a_copy_of_it(tmp_path: Path) -> None:
    array = np.zeros((1 << 10, 1 << 11), np.float32)
    with allocating_at_most(5 << 20):
        ckptparse.write(
            tmp_path / "n", {"rows": array, "columns": array.T, "big": array.view(">f4")}
        )
    assert ckptparse.verify(tmp_path / "n").ok
