"""What is written into a mapping, a bucket or a file system of fsspec; file objects for paths."""

from __future__ import annotations

import io
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse import tf
from ckptparse.errors import (
    CheckpointNotFoundError,
    DataLossError,
    NotACheckpointError,
    OutputExistsError,
    StorageError,
    UnsupportedError,
)
from ckptparse.files.memory import MemoryStorage

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(1000, np.int64)}


def same(found: Mapping[str, Any], wanted: Mapping[str, Any] = ARRAYS) -> None:
    assert sorted(found) == sorted(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.fixture(params=["mapping", "obstore", "fsspec"])
def store(request: Any) -> Any:
    if request.param == "mapping":
        return {}
    if request.param == "obstore":
        return pytest.importorskip("obstore").store.MemoryStore()
    return pytest.importorskip("fsspec").filesystem("memory")


@pytest.fixture
def place() -> str:
    return f"/{uuid.uuid4().hex}"


@pytest.fixture
def local(tmp_path: Path) -> str:
    return ckptparse.write(tmp_path / "m", ARRAYS)


def test_what_is_written_is_what_this_machine_gets(
    store: Any, place: str, tmp_path: Path, local: str
) -> None:
    prefix = ckptparse.write(f"{place}/m", ARRAYS, store=store, max_shard_size=7000)
    assert prefix == f"{place}/m"
    same(ckptparse.read(prefix, store=store))
    assert ckptparse.verify(prefix, store=store).ok
    ckptparse.convert(prefix, tmp_path / "again", store=store)
    assert Path(f"{tmp_path}/again.index").read_bytes() == Path(f"{local}.index").read_bytes()


def test_nothing_is_replaced_unasked_and_all_of_the_old_one_goes_if_asked(
    store: Any, place: str
) -> None:
    ckptparse.write(f"{place}/m", ARRAYS, store=store, max_shard_size=100)
    with pytest.raises(OutputExistsError):
        ckptparse.write(f"{place}/m", {"c": np.ones(3)}, store=store)
    same(ckptparse.read(f"{place}/m", store=store))
    ckptparse.write(f"{place}/m", {"c": np.ones(3)}, store=store, overwrite=True)
    same(ckptparse.read(f"{place}/m", store=store), {"c": np.ones(3)})
    # Of the two data files of before, whose names say so, none is left.
    assert [p.code for p in ckptparse.verify(f"{place}/m", store=store).problems] == []


@pytest.mark.parametrize("format", ["v2", "npz", "npy", "safetensors"])
def test_every_format_is_converted_into_it(
    format: Any, store: Any, place: str, local: str, tmp_path: Path
) -> None:
    if format == "safetensors":
        pytest.importorskip("safetensors")
    done = ckptparse.convert(local, f"{place}/out", format=format, target_store=store)
    assert not done.dry_run
    with pytest.raises(OutputExistsError):
        ckptparse.convert(local, f"{place}/out", format=format, target_store=store)
    ckptparse.convert(local, f"{place}/out", format=format, target_store=store, overwrite=True)
    if format == "v2":
        same(ckptparse.read(f"{place}/out", store=store))


def test_the_state_file_is_kept_there_too(store: Any, place: str) -> None:
    for number in (1, 2):
        path = f"{place}/m-{number}"
        ckptparse.write(path, {"w": np.float32(number)}, store=store, update_state=True)
    assert ckptparse.latest_checkpoint(place, store=store) == f"{place}/m-2"


class Failing(MemoryStorage):
    """Takes so many files, and then no more."""

    def __init__(self, files: dict[str, Any], left: int) -> None:
        super().__init__(files)
        self.left = left
        self.order: list[str] = []

    def put(self, path: str, file: Any, size: int, *, overwrite: bool) -> None:
        if not self.left:
            raise StorageError("The line is dead", path=path)
        self.left -= 1
        self.order.append(path)
        super().put(path, file, size, overwrite=overwrite)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_if_sending_fails_nothing_stays(left: int) -> None:
    files: dict[str, Any] = {"other": b"kept"}
    with pytest.raises(StorageError, match="dead"):
        ckptparse.write("m", ARRAYS, store=Failing(files, left), max_shard_size=100)
    assert files == {"other": b"kept"}


def test_the_index_is_sent_last() -> None:
    storage = Failing({}, 9)
    ckptparse.write("m", ARRAYS, store=storage, max_shard_size=100)
    assert storage.order == ["m.data-00000-of-00002", "m.data-00001-of-00002", "m.index"]


def test_nothing_is_sent_if_the_source_is_damaged(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("w", np.ones(1000, np.float32))
    bundle.write(tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    files: dict[str, Any] = {}
    with pytest.raises(DataLossError):
        ckptparse.convert(tmp_path / "m", "out", target_store=files)
    assert files == {}


def test_what_cannot_be_written_is_refused_before_the_work() -> None:
    with pytest.raises(UnsupportedError, match="read only"):
        ckptparse.write("m", ARRAYS, store=MappingProxyType({}))
    pytest.importorskip("obstore")
    with pytest.raises(UnsupportedError, match="read only"):
        ckptparse.write("http://127.0.0.1:1/m", ARRAYS)


@pytest.fixture
def url() -> str:
    pytest.importorskip("fsspec")
    return f"memory://{uuid.uuid4().hex}"


def test_a_url_is_written_by_every_writer(url: str, local: str, tmp_path: Path) -> None:
    assert ckptparse.write(f"{url}/m", ARRAYS) == f"{url}/m"
    same(ckptparse.read(f"{url}/m"))
    ckptparse.convert(f"{url}/m", f"{url}/n")
    same(ckptparse.read(f"{url}/n"))
    with pytest.raises(OutputExistsError):
        ckptparse.convert(f"{url}/m", f"{url}/n")
    ckptparse.recover(local).write(f"{url}/r.npz")
    assert ckptparse.identify(f"{url}/r.npz").kind in ("npz", "zip")
    with pytest.raises(OutputExistsError):
        ckptparse.recover(local).write(f"{url}/r.npz")


@pytest.mark.parametrize("format", ["v2", "npz", "npy"])
def test_what_was_got_back_is_written_into_it(
    format: Any, store: Any, place: str, local: str
) -> None:
    data = Path(f"{local}.data-00000-of-00001")
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    recovery = ckptparse.recover(local)
    target = f"{place}/out" if format != "npz" else f"{place}/out.npz"
    written = recovery.write(target, format=format, store=store, offer="proved")
    assert len(written.files) >= 1
    if format == "v2":
        same(ckptparse.read(target, store=store), recovery_of(recovery))
    assert written.report is not None
    report = ckptparse.identify(written.report, store=store)
    assert report.kind not in ("empty", "zeros")
    with pytest.raises(OutputExistsError):
        recovery.write(target, format=format, store=store, offer="proved")
    recovery.write(target, format=format, store=store, offer="proved", overwrite=True)


def recovery_of(recovery: ckptparse.Recovery) -> dict[str, Any]:
    return {name: one.read() for name, one in recovery.items() if one.status.proved}


def test_the_command_line_writes_to_a_url(
    url: str, local: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process: the file system is one of its memory.
    app = pytest.importorskip("ckptparse.cli.app")
    for arguments in (["recover", local, "-o", f"{url}/r.npz"], ["convert", local, f"{url}/m"]):
        monkeypatch.setattr(sys, "argv", ["ckptparse", *arguments])
        with pytest.raises(SystemExit) as caught:
            app.run()
        assert not caught.value.code
    same(ckptparse.read(f"{url}/m"))
    assert ckptparse.identify(f"{url}/r.npz").kind in ("npz", "zip")


# File objects and paths of other libraries.


def test_a_file_object_is_a_path(fixtures: Path) -> None:
    for name in ("v1/unsharded/model.ckpt-2", "graphs/frozen_tf2/frozen.pb"):
        with open(fixtures / name, "rb") as file:
            same(ckptparse.read(file), ckptparse.read(fixtures / name))
            file.seek(5)
            assert ckptparse.list_variables(file) == ckptparse.list_variables(fixtures / name)
    with open(fixtures / "v1/unsharded/model.ckpt-2", "rb") as file:
        assert ckptparse.verify(file).ok
        assert ckptparse.identify(file).kind == "v1"
    with pytest.raises(NotACheckpointError):
        ckptparse.read(io.BytesIO(b"hello"))


def test_an_archive_in_a_file_object_is_read(local: str) -> None:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in Path(local).parent.glob("m.*"):
            archive.write(path, path.name)
    same(ckptparse.read(out))


def test_a_upath_is_a_path(url: str) -> None:
    upath = pytest.importorskip("upath")
    ckptparse.write(f"{url}/m", ARRAYS)
    same(ckptparse.read(upath.UPath(f"{url}/m")))
    assert ckptparse.verify(upath.UPath(f"{url}/m")).ok
    reader = tf.train.load_checkpoint(upath.UPath(f"{url}/m"))
    same({name: reader.get_tensor(name) for name in ARRAYS})


def test_a_upath_is_written_to_by_every_writer(url: str) -> None:
    place = pytest.importorskip("upath").UPath(url)
    assert ckptparse.write(place / "m", ARRAYS) == f"{url}/m"
    ckptparse.convert(place / "m", place / "n")
    same(ckptparse.read(f"{url}/n"))
    assert ckptparse.average([place / "m", place / "n"], place / "a") == f"{url}/a"
    assert ckptparse.verify(f"{url}/a").ok
    ckptparse.recover(place / "m").write(place / "r")
    assert ckptparse.identify(f"{url}/r/tensors.json")
    with pytest.raises(OutputExistsError):
        ckptparse.write(place / "m", ARRAYS)
    pytest.importorskip("jinja2")
    ckptparse.report_page(place / "m", place / "p.html")
    assert ckptparse.identify(place / "p.html").kind == "html"


def test_what_is_found_at_a_url_is_a_url_that_can_be_read(url: str) -> None:
    ckptparse.write(f"{url}/m", ARRAYS, update_state=True)
    assert ckptparse.latest_checkpoint(url) == tf.train.latest_checkpoint(url) == f"{url}/m"
    same(ckptparse.read(f"{url}/m"))
    with ckptparse.open(url) as checkpoint:
        assert checkpoint.files == (f"{url}/m.index", f"{url}/m.data-00000-of-00001")
    with pytest.raises(CheckpointNotFoundError, match=f"{url}/other"):
        ckptparse.read(f"{url}/other")
    state = ckptparse.checkpoint_state(url)
    assert state is not None
    assert state.latest == f"{url}/m"
