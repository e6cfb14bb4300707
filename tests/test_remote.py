"""Checkpoints in buckets, on web servers and in fsspec's file systems, by the suite of storages."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
import range_server
from storage_suite import CHECKPOINTS, StorageSuite, check_alike, tree

import ckptparse
from ckptparse.errors import (
    CheckpointNotFoundError,
    PermissionDeniedError,
    StorageError,
    UnsupportedError,
)
from ckptparse.files import remote
from ckptparse.files.context import begin, find_storage
from ckptparse.files.storage import Storage, look_again, open_later

obstore = pytest.importorskip("obstore")
fsspec = pytest.importorskip("fsspec")


class TestStoreInMemory(StorageSuite):
    picklable = False

    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        store = obstore.store.MemoryStore()
        for name, data in files.items():
            store.put(name, data)
        return find_storage("x", store)[1], ""


class TestStoreOfADirectory(StorageSuite):
    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        for name, data in files.items():
            (self.tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tmp_path / name).write_bytes(data)
        return find_storage("x", obstore.store.LocalStore(str(self.tmp_path)))[1], ""


class TestFilesystemInMemory(StorageSuite):
    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        filesystem = fsspec.filesystem("memory")
        root = f"/{uuid.uuid4().hex}"
        for name, data in files.items():
            filesystem.pipe_file(f"{root}/{name}", data)
        return find_storage("x", filesystem)[1], root


class TestFilesystemOfADirectory(StorageSuite):
    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        for name, data in files.items():
            (self.tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tmp_path / name).write_bytes(data)
        return find_storage("x", fsspec.filesystem("file"))[1], str(self.tmp_path)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A bucket of moto's server, and the environment that leads to it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        import boto3

        client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="bucket")
        yield client
    server.stop()


class TestBucket(StorageSuite):
    @pytest.fixture(autouse=True)
    def _bucket(self, s3: Any) -> None:
        self.client = s3

    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        run = uuid.uuid4().hex
        for name, data in files.items():
            self.client.put_object(Bucket="bucket", Key=f"{run}/{name}", Body=data)
        root, context = begin(f"s3://bucket/{run}")
        return context.storage, root


# A web server.


@pytest.fixture
def served(fixtures: Path) -> Iterator[range_server.RangeServer]:
    files = {**tree(fixtures / "saver"), "large": bytes(range(256)) * 4096}
    with range_server.serve(files) as server:
        yield server


LATER = 1 << 19
"""Beyond the bytes that come with the answer whether a file is there."""


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_web_server_gives_what_local_files_give(name: str, fixtures: Path) -> None:
    top = CHECKPOINTS[name].partition("/")[0]
    with range_server.serve(tree(fixtures / top)) as server:
        place, local = f"{server.url}/{CHECKPOINTS[name]}", fixtures / CHECKPOINTS[name]
        check_alike(place, None, local)


def test_a_checkpoint_is_read_from_a_web_server(
    served: range_server.RangeServer, fixtures: Path
) -> None:
    found = ckptparse.read(f"{served.url}/saver/my_model")
    wanted = ckptparse.read(fixtures / "saver" / "my_model")
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "fault",
    [*map(range_server.status, (500, 503, 429)), range_server.reset, range_server.short_body],
)
def test_what_fails_once_is_asked_for_again(
    fault: range_server.Fault,
    served: range_server.RangeServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ckptparse.files")
    path, context = begin(f"{served.url}/large")
    with closing(context.storage.open(path)) as source:
        served.faults.append(fault)
        assert source.read_at(LATER, 40) == served.files["large"][LATER : LATER + 40]
    assert not served.faults
    # Counted, and told to whoever listens.
    assert context.storage.retries.count == 1  # type: ignore[attr-defined]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("asking again (1 of 8) after ") and said.endswith("/large")


@pytest.mark.parametrize("code", [400, 404, 416])
def test_what_will_be_no_better_is_not_asked_for_again(
    code: int, served: range_server.RangeServer
) -> None:
    path, context = begin(f"{served.url}/large")
    source = context.storage.open(path)
    served.faults.append(range_server.status(code))
    before = len(served.gets())
    with pytest.raises(ckptparse.CheckpointError):
        source.read_at(LATER, 40)
    assert len(served.gets()) == before + 1


@pytest.mark.parametrize("fault", [range_server.status(503), range_server.reset])
def test_what_fails_while_it_is_looked_for_is_asked_for_again(
    fault: range_server.Fault, served: range_server.RangeServer
) -> None:
    path, context = begin(f"{served.url}/large")
    served.faults.append(fault)
    status = look_again(context.storage, path)
    assert status is not None and status.size == 1 << 20
    assert not served.faults


@pytest.mark.parametrize(
    ("code", "kind"), [(403, PermissionDeniedError), (401, PermissionDeniedError)]
)
def test_what_is_refused_is_not_asked_for_again(
    code: int, kind: type[Exception], served: range_server.RangeServer
) -> None:
    path, context = begin(f"{served.url}/large")
    source = context.storage.open(path)
    served.faults.append(range_server.status(code))
    before = len(served.gets())
    with pytest.raises(PermissionDeniedError):
        source.read_at(LATER, 40)
    assert len(served.gets()) == before + 1


def test_a_connection_that_is_refused_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"it waits for {seconds} s"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]  # Nobody listens there, and nobody else may.
        with pytest.raises(StorageError, match="Connection refused"):
            ckptparse.read(f"http://127.0.0.1:{port}/m")


def test_an_object_that_is_replaced_between_two_reads_is_an_error(
    served: range_server.RangeServer,
) -> None:
    path, context = begin(f"{served.url}/large")
    for opener in (context.storage.open, lambda path: open_later(context.storage, path)):
        look_again(context.storage, path)
        source = opener(path)
        source.read_at(LATER, 8)
        served.tags["large"] = f'"{len(served.log)}"'
        with pytest.raises(StorageError, match="replaced while it was read"):
            source.read_at(LATER + 8, 8)


def test_a_file_of_fsspec_that_is_replaced_between_two_reads_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ckptparse.files.filesystem._LOOK_AGAIN", 0)
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/changing/w", b"0123456789")
    source = find_storage("x", filesystem)[1].open("/changing/w")
    assert bytes(source.read_at(0, 4)) == b"0123"
    filesystem.pipe_file("/changing/w", b"abcdefghij")
    with pytest.raises(StorageError, match="replaced while it was read"):
        source.read_at(4, 4)


def test_a_failure_that_lasts_ends_and_says_nothing_of_the_checkpoint(
    served: range_server.RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bounds of a minute, in a second.
    monkeypatch.setitem(remote._RETRIES, "retry_timeout", timedelta(milliseconds=500))
    monkeypatch.setitem(remote._RETRIES["backoff"], "max_backoff", timedelta(milliseconds=100))
    served.faults = range_server.Always([range_server.status(503)])
    began = time.monotonic()
    with pytest.raises(StorageError):
        ckptparse.verify(f"{served.url}/saver/my_model")
    assert time.monotonic() - began < 5
    assert 2 <= len(served.log) <= 40


def test_the_bounds_of_a_failure_sum_up_to_a_minute() -> None:
    pause, begun = remote._RETRIES["backoff"]["max_backoff"], remote._RETRIES["retry_timeout"]
    assert begun + pause + remote._CLIENT["timeout"] <= timedelta(seconds=60)
    assert remote._RETRIES["max_retries"] <= 10


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
@pytest.mark.parametrize("function", ["read", "verify"])
def test_control_c_ends_the_wait_at_once(function: str, served: range_server.RangeServer) -> None:
    # What runs in the background may be told to ignore the signal, and its children inherit that.
    code = (
        "import signal, ckptparse; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"ckptparse.{function}('{served.url}/saver/my_model')"
    )
    served.faults = range_server.Always([range_server.hang(25)])
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 20
            while not served.log and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert time.monotonic() - began < 5
    assert b"KeyboardInterrupt" in said


def test_no_password_stands_in_an_error_or_a_repr(served: range_server.RangeServer) -> None:
    url = f"http://user:secret@127.0.0.1:{served.port}/saver/none"
    path, context = begin(url)
    assert "secret" not in path and "secret" not in repr(context)
    with pytest.raises(CheckpointNotFoundError) as caught:
        context.storage.open(path)
    error = caught.value
    said = f"{error} {error!r} {error.__cause__} {error.__context__} {error.__dict__}"
    assert "secret" not in said and "user" not in said


def test_user_and_password_of_a_url_are_sent_and_to_no_other_host(
    served: range_server.RangeServer, fixtures: Path
) -> None:
    wanted = ckptparse.list_variables(fixtures / "saver" / "my_model")
    names = {"m.index": "saver/my_model.index"}

    def lead_away(handler: range_server.Handler) -> bool:
        target = f"http://127.0.0.1:{served.port}/{names[handler.path.lstrip('/')]}"
        handler.give(302, b"", {"Location": target})
        return True

    url = f"http://user:se%3Acret@127.0.0.1:{served.port}/saver/my_model"
    assert ckptparse.list_variables(url) == wanted
    assert served.authorizations == {"Basic dXNlcjpzZTpjcmV0"}
    served.authorizations.clear()
    with range_server.serve({}) as first:
        first.faults.extend([lead_away] * 9)
        assert ckptparse.list_variables(f"http://user@127.0.0.1:{first.port}/m") == wanted
        assert first.authorizations == {"Basic dXNlcjo="}
    assert served.authorizations == {None}


def test_a_user_that_is_no_text_is_no_unexpected_error(served: range_server.RangeServer) -> None:
    with pytest.raises(ckptparse.CheckpointError):
        ckptparse.read(f"http://\udcff:\ud800@127.0.0.1:{served.port}/none")


def test_a_signed_url_is_read_and_its_signature_stands_nowhere(fixtures: Path) -> None:
    data = (fixtures / "v1" / "unsharded" / "model.ckpt-2").read_bytes()
    with range_server.serve({"d/m.ckpt?sig=secret&x=1": data}) as server:
        url = f"{server.url}/d/m.ckpt?sig=secret&x=1"
        found = ckptparse.read(url)
        wanted = ckptparse.read(fixtures / "v1" / "unsharded" / "model.ckpt-2")
        assert list(found) == list(wanted)
        # A signature to read is good for no HEAD.
        assert {method for method, _, _ in server.log} == {"GET"}
        path, context = begin(url)
        assert "secret" not in f"{path} {context!r}"
        server.files.clear()
        with pytest.raises(CheckpointNotFoundError) as caught:
            ckptparse.read(url)
        error = caught.value
        assert "secret" not in f"{error!r} {error} {error.__cause__} {error.__context__}"


def test_an_archive_behind_a_signed_url_is_read(fixtures: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.add(fixtures / "saved_model" / "module", arcname=".")
    with range_server.serve({"hub/1?format=compressed": out.getvalue()}) as server:
        found = ckptparse.read(f"{server.url}/hub/1?format=compressed")
    wanted = ckptparse.read(fixtures / "saved_model" / "module")
    assert list(found) == list(wanted)


def test_the_url_of_a_bucket_has_no_query() -> None:
    with pytest.raises(UnsupportedError, match="query") as caught:
        begin("s3://bucket/run/m?signature=secret")
    assert "secret" not in str(caught.value)


def test_a_checkpoint_is_written_into_a_bucket(s3: Any) -> None:
    place = f"s3://bucket/{uuid.uuid4().hex}"
    arrays = {"w": np.arange(5 << 20, dtype=np.float32), "b": np.ones(3)}
    ckptparse.write(f"{place}/m", arrays)
    found = ckptparse.read(f"{place}/m")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ckptparse.OutputExistsError):
        ckptparse.write(f"{place}/m", arrays)
    ckptparse.convert(f"{place}/m", f"{place}/out.npz")
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket="bucket")["Contents"]]
    assert sum(key.startswith(place.rpartition("/")[2]) for key in keys) == 3
    # Sent in parts: its tag counts them.
    (data,) = [key for key in keys if key.startswith(place.rpartition("/")[2]) and ".data-" in key]
    assert s3.head_object(Bucket="bucket", Key=data)["ETag"].endswith('-3"')


def test_a_path_may_lead_up_and_down_again_but_not_out() -> None:
    store = obstore.store.MemoryStore()
    store.put("run/m", b"abc")
    with range_server.serve({"run/m": b"abc"}) as server:
        served = begin(f"{server.url}/run/m")[1].storage
        for where, root in ((find_storage("x", store)[1], ""), (served, f"{server.url}/")):
            status = where.stat(f"{root}other/../run/m")
            assert status is not None and status.size == 3
            assert where.stat(f"{root}run/../../m") is None
            assert dict(where.list(f"{root}..")) == {}


def test_a_scheme_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="nothing-such://"):
        begin("nothing-such://x/m")


def test_that_nobody_answers_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(remote._RETRIES, "max_retries", 0)
    with pytest.raises(StorageError) as caught:
        begin("http://127.0.0.1:1/m")
    assert not isinstance(caught.value, ckptparse.DataLossError)


# How many requests it takes.


class CountingStore:
    """Counts what is asked of an obstore store."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.gets: list[tuple[str, tuple[int, int]]] = []
        self.others: list[str] = []
        self._store = obstore.store.MemoryStore()
        for name, data in files.items():
            self._store.put(name, data)

    def get(self, key: str, *, options: Any) -> Any:
        self.gets.append((key, options["range"]))
        return self._store.get(key, options=options)

    def head(self, key: str) -> Any:
        self.others.append(key)
        return self._store.head(key)

    def list_with_delimiter(self, prefix: str | None) -> Any:
        self.others.append(prefix or "")
        return self._store.list_with_delimiter(prefix)

    def __len__(self) -> int:
        return len(self.gets) + len(self.others)


def counted(directory: Path) -> tuple[CountingStore, Storage]:
    store = CountingStore(tree(directory))
    return store, remote.ObjectStorage(store)


def many_tensors(directory: Path, count: int, *, shards: int = 1) -> None:
    bundle = builder.Bundle()
    for number in range(count):
        value = np.full(1024, number, np.float32)
        bundle.add(f"t{number:05d}", value, shard=number % shards)
    bundle.write(directory / "m")


def test_one_of_ten_thousand_tensors_takes_three_requests(tmp_path: Path) -> None:
    many_tensors(tmp_path, 10_000)
    store, storage = counted(tmp_path)
    with ckptparse.open(f"{tmp_path.name}/m", store=storage) as checkpoint:
        assert checkpoint["t07777"][:].tolist() == [7777] * 1024
    assert len(store) <= 3
    store, storage = counted(tmp_path)
    names = [f"t{number:05d}" for number in range(0, 10_000, 3)]
    found = ckptparse.read(f"{tmp_path.name}/m", names, store=storage)
    assert [int(array[9]) for array in found.values()] == list(range(0, 10_000, 3))
    assert len(store) <= 40


@pytest.fixture(params=["http", "s3"])
def asked(request: Any, tmp_path: Path) -> Iterator[tuple[Callable[[], str], list[str]]]:
    """Where the files of `tmp_path` are served, and a log of what is asked."""
    if request.param == "http":
        with range_server.serve({}) as server:

            def place() -> str:
                server.files.update(tree(tmp_path))
                server.log.clear()
                return f"{server.url}/{tmp_path.name}"

            yield place, server.log
        return
    client, log = request.getfixturevalue("s3"), Log()

    def place_in_bucket() -> str:
        run = uuid.uuid4().hex
        for name, data in tree(tmp_path).items():
            client.put_object(Bucket="bucket", Key=f"{run}/{name}", Body=data)
        log.asked.clear()
        return f"s3://bucket/{run}/{tmp_path.name}"

    logger = logging.getLogger("werkzeug")
    before = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    yield place_in_bucket, log.asked
    logger.removeHandler(log)
    logger.setLevel(before)


class Log(logging.Handler):
    """What the server of S3 says of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.asked.append(record.getMessage())


def test_a_server_is_asked_for_no_more_than_is_needed(
    asked: tuple[Callable[[], str], list[Any]], tmp_path: Path
) -> None:
    place, log = asked
    many_tensors(tmp_path, 10_000)
    value = np.arange(1 << 20, dtype=np.float32).reshape(-1, 1024)
    bundle = builder.Bundle()
    bundle.add("w", value)
    bundle.write(tmp_path / "rows")
    path = place()
    with ckptparse.open(f"{path}/m") as checkpoint:
        assert checkpoint["t07777"][:].tolist() == [7777] * 1024
    assert 2 <= len(log) <= 3
    log.clear()
    names = [f"t{number:05d}" for number in range(0, 10_000, 3)]
    found = ckptparse.read(f"{path}/m", names)
    assert [int(array[9]) for array in found.values()] == list(range(0, 10_000, 3))
    assert 2 <= len(log) <= 40
    log.clear()
    with ckptparse.open(f"{path}/rows") as checkpoint:
        np.testing.assert_array_equal(checkpoint["w"][100:110], value[100:110])
    assert 2 <= len(log) <= 3
    if path.startswith("http"):
        data = [wanted for _, name, wanted in log if ".data-" in name]
        assert data == [f"bytes={100 * 4096}-{110 * 4096 - 1}"]


@pytest.mark.parametrize("function", ["read", "verify", "recover"])
def test_a_server_is_asked_for_each_data_file_once(
    function: str, asked: tuple[Callable[[], str], list[Any]], tmp_path: Path, request: Any
) -> None:
    place, log = asked
    # The server of S3 here takes some 15 ms for each request.
    count = 60 if "s3" in request.node.name else 1000
    many_tensors(tmp_path, count, shards=count)
    found = getattr(ckptparse, function)(f"{place()}/m")
    if function == "read":
        assert [int(array[9]) for array in found.values()] == list(range(count))
    else:
        assert found.ok if function == "verify" else found.report.ok
    assert count < len(log) <= count + 10


@pytest.mark.parametrize("damage", ["none", "missing", "short", "not there", "index missing"])
def test_a_web_server_shows_the_damage_that_is_there(damage: str, tmp_path: Path) -> None:
    many_tensors(tmp_path, 100, shards=10)
    files = tree(tmp_path)
    name = f"{tmp_path.name}/m.data-00003-of-00010"
    if damage == "missing":
        del files[name]
    elif damage == "short":
        files[name] = files[name][:5000]
    elif damage == "index missing":
        del files[f"{tmp_path.name}/m.index"]
    with range_server.serve({} if damage == "not there" else files) as server:
        place = f"{server.url}/{tmp_path.name}/m"
        if damage == "not there":
            with pytest.raises(CheckpointNotFoundError, match="gives no lists"):
                ckptparse.verify(place)
            return
        report = ckptparse.verify(place)
        codes = {
            "missing": {"shard.missing"},
            "short": {"shard.truncated"},
            "index missing": {"index.missing"},
        }
        assert report.ok == (damage == "none")
        assert {one.code for one in report.problems} >= codes.get(damage, set())
        if damage == "none":
            return
        kinds = {
            "missing": ckptparse.MissingShardError,
            "short": ckptparse.TruncatedError,
            "index missing": CheckpointNotFoundError,
        }
        with pytest.raises(kinds[damage]):
            ckptparse.read(place)
        if damage == "index missing":
            return
        with ckptparse.open(place) as checkpoint:
            assert int(checkpoint["t00004"][9]) == 4
            with pytest.raises(kinds[damage]):
                checkpoint["t00093"][5]


def test_what_an_index_states_is_not_believed_beyond_the_limits(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("w", np.zeros(1000, np.uint8))
    bundle.write(tmp_path / "m")
    with range_server.serve(tree(tmp_path)) as server:
        place = f"{server.url}/{tmp_path.name}/m"
        limits = ckptparse.Limits(shared_bytes=999)
        assert len(ckptparse.read(place, limits=limits)["w"]) == 1000
        methods = [method for method, name, _ in server.log if ".data-" in name]
        # Asked for its size first: the index alone is not believed.
        assert methods == ["HEAD", "GET"]
        server.log.clear()
        assert len(ckptparse.read(place)["w"]) == 1000
        methods = [method for method, name, _ in server.log if ".data-" in name]
        assert methods == ["GET"]


def test_a_thousand_data_files_take_one_request_each(tmp_path: Path) -> None:
    many_tensors(tmp_path, 1000, shards=1000)
    store, storage = counted(tmp_path)
    found = ckptparse.read(f"{tmp_path.name}/m", store=storage)
    assert [int(array[9]) for array in found.values()] == list(range(1000))
    assert len(store) <= 1010


def test_a_thousand_data_files_are_verified_by_one_request_each(tmp_path: Path) -> None:
    many_tensors(tmp_path, 1000, shards=1000)
    store, storage = counted(tmp_path)
    assert ckptparse.verify(f"{tmp_path.name}/m", store=storage).ok
    assert len(store) <= 1010


def test_verify_and_recover_ask_for_large_pieces(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    for number in range(40):
        bundle.add(f"w{number:02d}", np.full(1 << 19, number, np.uint8))
    bundle.write(tmp_path / "m")
    for function in (ckptparse.verify, lambda *a, **b: ckptparse.recover(*a, **b).report):
        store, storage = counted(tmp_path)
        assert function(f"{tmp_path.name}/m", store=storage).ok
        data = [stop - start for key, (start, stop) in store.gets if ".data-" in key]
        assert sum(data) <= 1.2 * (20 << 20)
        assert len(data) <= 8


def test_rows_of_a_large_tensor_take_their_bytes_only(tmp_path: Path) -> None:
    value = np.arange(1 << 22, dtype=np.float32).reshape(-1, 1024)
    bundle = builder.Bundle()
    bundle.add("w", value)
    bundle.write(tmp_path / "m")
    store, storage = counted(tmp_path)
    with ckptparse.open(f"{tmp_path.name}/m", store=storage) as checkpoint:
        np.testing.assert_array_equal(checkpoint["w"][100:110], value[100:110])
    data = [wanted for key, wanted in store.gets if ".data-" in key]
    assert data == [(100 * 4096, 110 * 4096)]


def test_a_large_tensor_is_split_over_connections(tmp_path: Path) -> None:
    bundle = builder.Bundle()
    bundle.add("w", np.zeros(20 << 20, np.uint8))
    bundle.write(tmp_path / "m")
    store, storage = counted(tmp_path)
    with ckptparse.open(f"{tmp_path.name}/m", store=storage) as checkpoint:
        checkpoint["w"].verify()
        assert not checkpoint["w"].read().any()
    data = [wanted for key, wanted in store.gets if ".data-" in key]
    assert sorted(data) == sorted([(0, 8 << 20), (8 << 20, 16 << 20), (16 << 20, 20 << 20)] * 2)


def test_the_data_files_of_a_server_without_lists_count_for_the_limit_of_slices(
    tmp_path: Path,
) -> None:
    bundle = builder.Bundle()
    value = np.arange(4000, dtype=np.float32).reshape(2000, 2)
    bundle.add_sliced("w", value, builder.split_rows(2000, 200, 2))
    bundle.write(tmp_path / "m")
    held = sum(path.stat().st_size for path in tmp_path.iterdir()) >> 12
    with range_server.serve(tree(tmp_path)) as server:
        for single, refused in ((200 - held, False), (199 - held, True)):
            limits = ckptparse.Limits(single_entries=single)
            context = pytest.raises(ckptparse.LimitError) if refused else nullcontext()
            with context:
                ckptparse.list_variables(f"{server.url}/{tmp_path.name}/m", limits=limits)
