"""Checkpoints, tensors and recoveries in other processes, and copies of them in this one."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse.files.local import LocalSource

CHECKPOINTS = {
    "v2": "saver/my_model",
    "v2 of strings": "dtypes/strings/model",
    "v2 in slices": "slices/columns/model",
    "v1": "v1/unsharded/model.ckpt-2",
    "v1 of several files": "v1/sharded/model.ckpt-7",
    "graph": "graphs/frozen_tf2/frozen.pb",
    "saved model": "saved_model/module",
}


def again(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tolist() == other[name].tolist()
        for name in one
    )


def small(directory: Path, *, first: float = 0.0) -> str:
    bundle = b.Bundle()
    for n in range(3):
        bundle.add(f"w{n}", np.arange(4, dtype=np.float32) + first + n)
    return str(bundle.write(directory / "model"))


def total(tensor: ckptparse.Tensor) -> float:
    """Work in another process."""
    return float(tensor.read().sum())


def names(checkpoint: ckptparse.Checkpoint) -> list[str]:
    """Work in another process."""
    with checkpoint:
        return list(checkpoint)


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": again,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_gives_the_same_values_again(name: str, way: str, fixtures: Path) -> None:
    with ckptparse.open(fixtures / CHECKPOINTS[name]) as checkpoint:
        with WAYS[way](checkpoint) as other:
            assert other is not checkpoint
            assert (other.path, other.format) == (checkpoint.path, checkpoint.format)
            assert other.num_shards == checkpoint.num_shards
            assert other.byte_order == checkpoint.byte_order
            assert same(other.read(), checkpoint.read())
        with pytest.raises(ckptparse.ClosedError):
            other.read()
        assert checkpoint.read(), "a copy is closed by itself"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_tensor_gives_the_same_values_again(name: str, way: str, fixtures: Path) -> None:
    with ckptparse.open(fixtures / CHECKPOINTS[name]) as checkpoint:
        for key, tensor in checkpoint.items():
            other = WAYS[way](tensor)
            assert (other.name, other.shape, other.dtype) == (key, tensor.shape, tensor.dtype)
            assert (other.kind, other.nbytes) == (tensor.kind, tensor.nbytes)
            assert other.crc32c == tensor.crc32c
            assert other.read().tolist() == tensor.read().tolist()
            other.verify()


def test_options_come_along(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    with ckptparse.open(prefix, verify=False, threads=2) as checkpoint:
        for tensor in (again(checkpoint["w0"]), again(checkpoint)["w0"]):
            assert tensor.options == ckptparse.ReadOptions(verify=False, threads=2)
        quiet = checkpoint["w1"].with_options(ckptparse.ReadOptions(verify=True))
        assert again(quiet).options.verify


def test_limits_come_along(tmp_path: Path) -> None:
    """What grew meanwhile is refused by the limits that it was opened with."""
    prefix = small(tmp_path)
    checkpoint = ckptparse.open(prefix, limits=ckptparse.Limits(entries=4))
    pickled = pickle.dumps(checkpoint)
    bundle = b.Bundle()
    for n in range(9):
        bundle.add(f"w{n}", np.zeros(3, np.float32))
    bundle.write(tmp_path / "model")
    with pytest.raises(ckptparse.CheckpointError):
        list(pickle.loads(pickled))  # noqa: S301


def test_variable_names_come_along(fixtures: Path) -> None:
    with ckptparse.open(fixtures / "saved_model" / "module", naming="variable") as checkpoint:
        assert list(again(checkpoint)) == list(checkpoint)


def test_a_slice_that_no_tensor_lists_comes_along(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("w", np.zeros(3, np.float32))
    bundle.add_sliced("s", np.arange(8, dtype=np.float32).reshape(4, 2), b.split_rows(2, 4, 2))
    del bundle.entries[b"s"]
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        orphans = checkpoint.orphan_slices
        assert len(orphans) > 1
        for _, _, tensor in orphans:
            assert again(tensor).read().tolist() == tensor.read().tolist()


def test_what_is_pickled_is_small_whatever_the_tensors(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("w", np.zeros(1 << 20, np.float32))
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert len(pickle.dumps(checkpoint)) < 2000
        assert len(pickle.dumps(checkpoint["w"])) < 2000


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The local files that are opened from now on."""
    paths: list[str] = []
    real = LocalSource.open.__func__  # type: ignore[attr-defined]

    def open_and_note(cls: type[LocalSource], path: str) -> LocalSource:
        paths.append(path)
        found: LocalSource = real(cls, path)
        return found

    monkeypatch.setattr(LocalSource, "open", classmethod(open_and_note))
    return paths


def test_nothing_is_opened_before_the_first_use(tmp_path: Path, opened: list[str]) -> None:
    with ckptparse.open(small(tmp_path)) as checkpoint:
        pickled = pickle.dumps(checkpoint)
        of_tensor = pickle.dumps(checkpoint["w1"])
    opened.clear()
    other, tensor = pickle.loads(pickled), pickle.loads(of_tensor)  # noqa: S301
    assert (tensor.name, tensor.shape, other.path) == ("w1", (4,), checkpoint.path)
    assert repr(other)
    assert opened == []
    tensor.read()
    assert opened != []


def test_a_thousand_tensors_open_their_checkpoint_once(tmp_path: Path, opened: list[str]) -> None:
    prefix = small(tmp_path)
    with ckptparse.open(prefix) as checkpoint:
        pickled = [pickle.dumps(checkpoint[f"w{n % 3}"]) for n in range(1000)]
        pickled_whole = pickle.dumps(checkpoint)
    opened.clear()
    tensors = [pickle.loads(one) for one in pickled]  # noqa: S301
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(total, tensors)) == sum(6.0 + 4 * (n % 3) for n in range(1000))
    whole = pickle.loads(pickled_whole)  # noqa: S301
    assert len(whole.read()) == 3
    assert sorted(opened) == sorted([f"{prefix}.index", f"{prefix}.data-00000-of-00001"])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="lists the open files of Linux")
def test_files_are_closed_with_the_last_that_uses_them(tmp_path: Path) -> None:
    def held() -> int:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum(os.path.exists(link) and str(tmp_path) in os.readlink(link) for link in links)

    with ckptparse.open(small(tmp_path)) as checkpoint:
        first, second, third = again(checkpoint), again(checkpoint), again(checkpoint["w0"])
    for one in (first, second):
        one.read()
    third.read()
    assert held() == 2
    first.close()
    assert held() == 2
    second.close()
    assert third.read().sum() == 6.0, "others read on"
    del third
    assert held() == 0


@pytest.mark.parametrize("start", ["spawn", "fork", "forkserver"])
def test_workers_read_what_they_are_handed(start: str, fixtures: Path) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    if start == "fork" and threading.active_count() > 1:
        pytest.skip("a process of several threads is not forked")
    context = multiprocessing.get_context(start)
    with ckptparse.open(fixtures / "saver" / "my_model") as checkpoint:
        tensors = [tensor for tensor in checkpoint.values() if tensor.kind == "dense"]
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(total, tensors)) == list(map(total, tensors))
            assert pool.submit(names, checkpoint).result() == list(checkpoint)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_reads_on(tmp_path: Path) -> None:
    if threading.active_count() > 1:
        pytest.skip("a process of several threads is not forked")
    with ckptparse.open(small(tmp_path)) as checkpoint:
        tensor, other = checkpoint["w1"], again(checkpoint["w2"])
        other.read()
        child = os.fork()
        if child == 0:
            good = total(tensor) == 10.0 and total(other) == 14.0 and total(again(tensor)) == 10.0
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert total(tensor) == 10.0


@pytest.mark.parametrize("name", ["v2", "v1", "graph"])
def test_what_changed_meanwhile_is_told(name: str, fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / CHECKPOINTS[name]
    for file in source.parent.glob(f"{source.name}*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with ckptparse.open(tmp_path / source.name) as checkpoint:
        pickled = pickle.dumps((checkpoint, next(iter(checkpoint.values()))))
    other = {"v2": "dtypes/strings/model.index", "v1": "v1/unsharded/model.ckpt-1"}
    index = tmp_path / (f"{source.name}.index" if name == "v2" else source.name)
    if name == "graph":
        index.write_bytes(index.read_bytes() + b"\x22\x00")
    else:
        index.write_bytes((fixtures / other[name]).read_bytes())
    again_checkpoint, tensor = pickle.loads(pickled)  # noqa: S301
    for call in (again_checkpoint.read, tensor.read, lambda: len(again_checkpoint)):
        with pytest.raises(ckptparse.StorageError, match="was changed after it was pickled"):
            call()


def test_what_was_written_again_with_other_values_is_told(tmp_path: Path) -> None:
    """The same names and sizes, and even the same time: the index holds other checksums."""
    prefix = small(tmp_path)
    with ckptparse.open(prefix) as checkpoint:
        pickled = pickle.dumps(checkpoint["w0"])
    before = os.stat(f"{prefix}.index")
    small(tmp_path, first=7.0)
    os.utime(f"{prefix}.index", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ckptparse.StorageError, match="was changed"):
        pickle.loads(pickled).read()  # noqa: S301


def test_what_is_gone_meanwhile_is_not_found(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    with ckptparse.open(prefix) as checkpoint:
        other = again(checkpoint)
    os.unlink(f"{prefix}.index")
    with pytest.raises(ckptparse.CheckpointNotFoundError):
        other.read()


def test_a_directory_means_the_checkpoint_that_it_meant(tmp_path: Path) -> None:
    """Training goes on, and its state file names another meanwhile."""
    small(tmp_path)
    state = tmp_path / "checkpoint"
    state.write_text('model_checkpoint_path: "model"\n')
    with ckptparse.open(tmp_path) as checkpoint:
        other = again(checkpoint)
    state.write_text('model_checkpoint_path: "gone"\n')
    assert len(other.read()) == 3


def test_a_relative_path_is_found_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    small(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    with ckptparse.open("model") as checkpoint:
        pickled = pickle.dumps((checkpoint, checkpoint["w0"]))
    monkeypatch.chdir(tmp_path)
    other, tensor = pickle.loads(pickled)  # noqa: S301
    assert len(other.read()) == 3
    assert total(tensor) == 6.0


def test_a_mapping_goes_along_with_its_bytes(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    files: dict[str, Any] = {
        "model.index": Path(f"{prefix}.index").read_bytes(),
        "model.data-00000-of-00001": memoryview(Path(f"{prefix}.data-00000-of-00001").read_bytes()),
    }
    with ckptparse.open("model", store=files) as checkpoint:
        for way in WAYS.values():
            assert total(way(checkpoint["w1"])) == 10.0
            assert same(way(checkpoint).read(), checkpoint.read())


@pytest.mark.parametrize("way", WAYS)
def test_an_archive_is_opened_by_each(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    small(tmp_path / "in")
    shutil.make_archive(str(tmp_path / "model"), "gztar", tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    checkpoint = ckptparse.open("model.tar.gz")
    other, tensor = WAYS[way](checkpoint), WAYS[way](checkpoint["w0"])
    if way == "pickle":
        monkeypatch.chdir("in")
        checkpoint.close()
        assert total(tensor) == 6.0
    assert len(other.read()) == 3
    checkpoint.close()
    assert len(other.read()) == 3, "each opens the archive for itself"
    other.close()


def test_a_store_that_cannot_be_pickled_is_told(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    with Path(f"{prefix}.index").open("rb") as index:
        data = Path(f"{prefix}.data-00000-of-00001").read_bytes()
        store = {"model.index": index, "model.data-00000-of-00001": data}
        with ckptparse.open("model", store=store) as checkpoint:
            for value in (checkpoint, checkpoint["w0"]):
                with pytest.raises(ckptparse.UnsupportedError, match="store cannot be handed"):
                    pickle.dumps(value)
            assert len(copy.copy(checkpoint).read()) == 3, "a copy needs no other process"


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_is_closed_is_neither_pickled_nor_copied(name: str, fixtures: Path) -> None:
    checkpoint = ckptparse.open(fixtures / CHECKPOINTS[name])
    tensor = next(iter(checkpoint.values()))
    other = again(checkpoint)
    other_tensor = next(iter(other.values()))
    checkpoint.close()
    other.close()
    for call in (
        lambda: pickle.dumps(checkpoint),
        lambda: copy.copy(checkpoint),
        lambda: pickle.dumps(tensor),
        lambda: pickle.dumps(other),
        lambda: copy.copy(other),
        lambda: other["w"],
        lambda: pickle.dumps(other_tensor),
        other_tensor.read,
        lambda: other_tensor[...],
        other_tensor.verify,
    ):
        with pytest.raises(ckptparse.ClosedError):
            call()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name", ["module", "keras2_sequential", "tf1_partitioned", "no_variables_tf2"]
)
def test_a_saved_model_is_read_again(name: str, way: str, fixtures: Path) -> None:
    path = fixtures / "saved_model" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    with ckptparse.open_saved_model(path) as model:
        other = WAYS[way](model)
        assert [graph.tags for graph in other.meta_graphs] == [g.tags for g in model.meta_graphs]
        assert same(other.variables.read(), model.variables.read())
        assert [layer.name for layer in other.layers] == [layer.name for layer in model.layers]
        variables = WAYS[way](model.variables)
        assert same(variables.read(), model.variables.read())
        assert [layer.name for layer in variables.layers] == [
            layer.name for layer in model.variables.layers
        ]
        other.close()
        with pytest.raises(ckptparse.ClosedError):
            pickle.dumps(other)


def test_a_saved_model_that_changed_is_told(fixtures: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(fixtures / "saved_model" / "module", tmp_path / "model")
    with ckptparse.open_saved_model(copied) as model:
        pickled = pickle.dumps(model)
    (copied / "saved_model.pb").write_bytes((copied / "saved_model.pb").read_bytes() + b"\x08\x01")
    shutil.copy(fixtures / "saver" / "my_model.index", copied / "variables" / "variables.index")
    other = pickle.loads(pickled)  # noqa: S301
    for call in (lambda: other.meta_graphs, other.variables.read):
        with pytest.raises(ckptparse.StorageError, match="was changed"):
            call()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", ["graphs/frozen_tf2/frozen.pb", "saver/my_model.meta"])
def test_a_graph_carries_its_bytes(file: str, way: str, fixtures: Path) -> None:
    graph = ckptparse.open_graph(fixtures / file)
    other = WAYS[way](graph)
    assert list(other.nodes) == list(graph.nodes)
    assert (other.is_meta_graph, other.path) == (graph.is_meta_graph, graph.path)
    assert list(other.variables) == list(graph.variables)
    for name, constant in graph.constants.items():
        found = WAYS[way](constant)
        assert (
            found.read().tolist()
            == constant.read().tolist()
            == other.constants[name].read().tolist()
        )


@pytest.mark.parametrize("way", WAYS)
def test_a_recovery_gives_the_same_again(way: str, tmp_path: Path) -> None:
    prefix = small(tmp_path)
    data = Path(f"{prefix}.data-00000-of-00001")
    damaged = bytearray(data.read_bytes())
    damaged[5] ^= 4
    data.write_bytes(damaged[:40])
    recovery = ckptparse.recover(prefix)
    assert not recovery.whole and len(recovery)
    other = WAYS[way](recovery)
    assert other.report.to_dict() == recovery.report.to_dict()
    assert list(other) == list(recovery)
    for name, tensor in recovery.items():
        assert other[name].read().tolist() == tensor.read().tolist()
        assert WAYS[way](tensor).read().tolist() == tensor.read().tolist()
        assert (other[name].status, other[name].method) == (tensor.status, tensor.method)


def test_a_worker_reads_what_was_got_back(tmp_path: Path) -> None:
    data = Path(f"{small(tmp_path)}.data-00000-of-00001")
    damaged = bytearray(data.read_bytes())
    damaged[5] ^= 4
    data.write_bytes(damaged)
    recovery = ckptparse.recover(tmp_path / "model")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert list(pool.map(total, recovery.values())) == [6.0, 10.0, 14.0]


def test_keys_are_completed_in_notebooks(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    with ckptparse.open(prefix) as checkpoint:
        assert checkpoint._ipython_key_completions_() == ["w0", "w1", "w2"]
    assert checkpoint._ipython_key_completions_() == []
    assert ckptparse.recover(prefix)._ipython_key_completions_() == ["w0", "w1", "w2"]


def test_nothing_is_printed_when_a_process_ends_with_copies_open(tmp_path: Path) -> None:
    program = (
        "import copy, pickle, sys, threading, ckptparse\n"
        f"checkpoint = ckptparse.open({small(tmp_path)!r})\n"
        "kept = [pickle.loads(pickle.dumps(t)) for t in checkpoint.values()]\n"
        "[t.read() for t in kept]\n"
        "other = copy.copy(checkpoint); other.read()\n"
        "sys.modules['kept'] = kept, other\n"
        "cycle = [other]; cycle.append(cycle)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
