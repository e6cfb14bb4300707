"""What `cache=` keeps of a server: asked for once, never another file's, no more than allowed."""

from __future__ import annotations

import errno
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
import range_server
from storage_suite import tree

import ckptparse
from ckptparse import Limits, tf
from ckptparse.errors import CheckpointNotFoundError, OutputError
from ckptparse.files.cache import BLOCK, BlockStore, CachedStorage
from ckptparse.files.context import begin, find_storage
from ckptparse.files.storage import FileStat

pytest.importorskip("obstore")

DATA = np.arange(6 * BLOCK // 8 + 1000, dtype=np.int64)
"""A file of seven blocks, the last of which is short."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[range_server.RangeServer]:
    (tmp_path / "run").mkdir()
    bundle = builder.Bundle()
    bundle.add("w", DATA)
    bundle.write(tmp_path / "run" / "m")
    with range_server.serve(tree(tmp_path / "run")) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def check(server: range_server.RangeServer, cache: Path, **options: Any) -> None:
    found = ckptparse.read(f"{server.url}/run/m", cache=cache, **options)
    np.testing.assert_array_equal(found["w"], DATA)


def test_what_was_read_is_not_asked_for_again(
    served: range_server.RangeServer, cache: Path
) -> None:
    check(served, cache)
    before = len(served.log)
    check(served, cache)
    assert [method for method, *_ in served.log[before:]].count("GET") == 0
    # Whether they are still the same files.
    assert [method for method, *_ in served.log[before:]].count("HEAD") == 2
    before = len(served.log)
    with ckptparse.open(f"{served.url}/run/m", cache=cache) as checkpoint:
        assert checkpoint["w"][5000] == 5000
        checkpoint["w"].verify()
    assert ckptparse.verify(f"{served.url}/run/m", cache=cache).ok
    assert {method for method, *_ in served.log[before:]} <= {"HEAD", "PROPFIND"}


def test_a_block_is_asked_for_once_by_many_threads(
    served: range_server.RangeServer, cache: Path
) -> None:
    served.delay = 0.02
    path, context = begin(f"{served.url}/run/m.data-00000-of-00001", cache=cache)
    wanted = served.files["run/m.data-00000-of-00001"]
    wrong: list[int] = []
    with closing(context.storage.open(path)) as source:

        def read(start: int) -> None:
            offsets = range(start, len(wanted) - 300_000, 1_000_003)
            found = ((one, source.read_at(one, 300_000)) for one in offsets)
            wrong.extend(one for one, data in found if data != wanted[one : one + 300_000])

        threads = [threading.Thread(target=read, args=(start,)) for start in range(0, 8000, 1000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    asked = [wanted for _, wanted in served.gets()]
    assert len(asked) == len(set(asked)) <= 7


class Held:
    """A file whose reads wait, in the process that made it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.process = os.getpid()
        self.path, self.size, self.piece, self.gap, self.concurrency = "f", len(data), BLOCK, 0, 1

    def read_at(self, offset: int, size: int) -> bytes:
        self.asked.set()
        if os.getpid() == self.process:
            self.go_on.wait(30)
        return self.data[offset : offset + size]

    def close(self) -> None:
        pass


class HeldStorage:
    names_tags = True

    def __init__(self, source: Held) -> None:
        self.source = source

    def scope(self, path: str) -> str:
        return path

    def stat(self, path: str) -> FileStat:
        return FileStat("file", self.source.size, '"tag"')

    def open(self, path: str) -> Held:
        return self.source


def run_in_fork(work: Callable[[], bool]) -> int:
    """Do it in a forked child, for ten seconds at most; return how that ended: 0 if it is true."""
    with warnings.catch_warnings():
        # Python says that a process of several threads should not be forked; some are all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        good = False
        with suppress(BaseException):
            good = work()
        os._exit(0 if good else 1)
    return os.waitpid(child, 0)[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_is_forked_while_a_block_is_fetched_fetches_it_itself(cache: Path) -> None:
    held = Held(bytes(range(256)) * 16)
    storage = CachedStorage(HeldStorage(held), BlockStore(str(cache), 1 << 30))
    source = storage.open("f")
    found: list[bytes] = []
    fetching = threading.Thread(target=lambda: found.append(source.read_at(10, 5)))
    fetching.start()
    assert held.asked.wait(10)
    assert run_in_fork(lambda: source.read_at(10, 5) == held.data[10:15]) == 0
    held.go_on.set()
    fetching.join(10)
    assert found == [held.data[10:15]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_reads_what_is_kept_and_says_that_it_cannot_ask(
    served: range_server.RangeServer, cache: Path
) -> None:
    with (
        ckptparse.open(f"{served.url}/run/m", cache=cache) as kept_here,
        ckptparse.open(f"{served.url}/run/m") as not_kept,
    ):
        kept_here["w"].read()

        def read() -> bool:
            with pytest.raises(ckptparse.UnsupportedError, match=r"forked.*'spawn'"):
                not_kept["w"].read()
            return bool((kept_here["w"].read() == DATA).all())

        assert run_in_fork(read) == 0
        np.testing.assert_array_equal(not_kept["w"].read(), DATA)


def test_the_drop_in_keeps_what_it_reads_and_takes_what_others_take(
    served: range_server.RangeServer, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, url = tf.train, f"{served.url}/run/m"
    for again in (False, True):
        before = len(served.gets())
        for _ in range(2):
            found = train.load_variable(url, "w", cache=cache)
            np.testing.assert_array_equal(found, DATA)
        assert train.list_variables(url, cache=cache) == [("w", [len(DATA)])]
        assert train.checkpoint_exists(url, cache=cache)
        tf.python.tools.inspect_checkpoint.print_tensors_in_checkpoint_file(
            url, "", all_tensors=False, all_tensor_names=True, cache=cache
        )
        assert f"tensor: w (int64) [{len(DATA)}]" in capsys.readouterr().out
        assert (len(served.gets()) == before) == again
    assert kept(cache)
    before = len(served.gets())
    np.testing.assert_array_equal(train.load_variable(url, "w"), DATA)
    assert len(served.gets()) > before


def test_a_replaced_file_is_read_anew(served: range_server.RangeServer, cache: Path) -> None:
    check(served, cache)
    other = builder.Bundle()
    other.add("w", DATA + 1)
    other.write(cache.parent / "run" / "m")
    served.files.update(tree(cache.parent / "run"))
    served.tags = dict.fromkeys(served.files, '"2"')
    found = ckptparse.read(f"{served.url}/run/m", cache=cache)
    np.testing.assert_array_equal(found["w"], DATA + 1)


@pytest.mark.parametrize("how", ["flipped", "cut", "longer", "empty", "another", "directory"])
def test_a_damaged_block_is_read_again(
    how: str, served: range_server.RangeServer, cache: Path
) -> None:
    check(served, cache)
    blocks = kept(cache)
    contents = [path.read_bytes() for path in blocks]
    for number, path in enumerate(blocks):
        data = bytearray(contents[number])
        if how == "flipped":
            data[len(data) // 2] ^= 4
        elif how == "another":
            # A whole block, and of the right checksum, under the name of another one.
            data = bytearray(contents[number - 1])
        elif how == "directory":
            path.unlink()
            path.mkdir()
            continue
        data = {"cut": data[:-1], "longer": data + b"0", "empty": bytearray()}.get(how, data)
        path.write_bytes(data)
    served.log.clear()
    # Without checksums of the tensors: the cache finds it by its own.
    check(served, cache, verify=False)
    assert len(served.gets()) >= 2
    if how != "directory":
        assert [path.read_bytes() for path in kept(cache)] == contents
        served.log.clear()
        check(served, cache)
        assert not served.gets()


def test_no_more_is_kept_than_allowed(served: range_server.RangeServer, cache: Path) -> None:
    for most in (3 * BLOCK, 100, 0):
        check(served, cache, limits=Limits(cache_bytes=most))
        if most == 3 * BLOCK:
            assert 0 < sum(path.stat().st_size for path in kept(cache)) <= most
    blocks = BlockStore(str(cache), 10 * 1100)
    for number in range(40):
        key = bytes([number]) * 32
        blocks.put(key, memoryview(bytes(1000)))
        assert blocks.get(key, 1000) == bytes(1000)
        assert sum(path.stat().st_size for path in kept(cache)) <= 10 * 1100


def test_the_least_recently_used_goes_first(cache: Path) -> None:
    blocks = BlockStore(str(cache), 10 * 1100)
    for number in range(9):
        blocks.put(bytes([number]) * 32, memoryview(bytes(1000)))
    for number, path in enumerate(kept(cache)):
        os.utime(path, (1000 + number, 1000 + number))
    assert blocks.get(bytes(32), 1000) is not None
    for number in range(20, 23):
        blocks.put(bytes([number]) * 32, memoryview(bytes(1000)))
    assert blocks.get(bytes(32), 1000) is not None
    assert blocks.get(bytes([1]) * 32, 1000) is None


def test_files_of_others_in_the_directory_are_left_alone(
    served: range_server.RangeServer, cache: Path
) -> None:
    (cache / "00").mkdir(parents=True)
    mine = [cache / "notes.txt", cache / "00" / "notes", cache / "00" / ("00" * 33)]
    for path in mine:
        path.write_bytes(b"x" * 10_000)
    check(served, cache, limits=Limits(cache_bytes=2 * BLOCK))
    assert all(path.exists() for path in mine)


def test_processes_share_it(served: range_server.RangeServer, cache: Path) -> None:
    code = (
        "import ckptparse, sys; "
        f"found = ckptparse.read('{served.url}/run/m', cache=sys.argv[1])['w']; "
        "assert (found == range(len(found))).all()"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(cache)]) for _ in range(4)]
    assert [one.wait(timeout=60) for one in running] == [0] * 4
    assert not [path for path in kept(cache) if path.name.endswith(".part")]
    served.log.clear()
    check(served, cache)
    assert not served.gets()


def test_only_what_has_a_strong_etag_is_kept(served: range_server.RangeServer, cache: Path) -> None:
    served.tags = dict.fromkeys(served.files, 'W/"1"')
    check(served, cache)
    assert kept(cache) == []


def test_two_servers_are_two_places(served: range_server.RangeServer, cache: Path) -> None:
    check(served, cache)
    bundle = builder.Bundle()
    bundle.add("w", DATA * 2)
    bundle.write(cache.parent / "run" / "m")
    # The same path, the same size, the same ETag.
    with range_server.serve(tree(cache.parent / "run")) as other:
        found = ckptparse.read(f"{other.url}/run/m", cache=cache)
    np.testing.assert_array_equal(found["w"], DATA * 2)


def test_a_signature_is_part_of_the_place_and_stands_nowhere(
    served: range_server.RangeServer, cache: Path, fixtures: Path
) -> None:
    data = (fixtures / "v1/unsharded/model.ckpt-2").read_bytes()
    other = bytearray(data)
    other[-1] ^= 1
    # The same path, the same size and the same ETag, but another object.
    with range_server.serve({"m?sig=secret0": data, "m?sig=secret1": bytes(other)}) as server:
        for _ in range(2):
            assert ckptparse.list_variables(f"{server.url}/m?sig=secret0", cache=cache)
            with pytest.raises(ckptparse.CheckpointError):
                ckptparse.list_variables(f"{server.url}/m?sig=secret1", cache=cache)
    text = b"".join(path.read_bytes()[:44] + path.name.encode() for path in kept(cache))
    assert kept(cache) and b"secret" not in text


@pytest.mark.parametrize("name", ["../../escape", "..%2f..%2fescape", "/etc/passwd", "a/../../b"])
def test_no_name_leads_out_of_the_directory(name: str, cache: Path, tmp_path: Path) -> None:
    files = dict.fromkeys((name, name.replace("%2f", "/"), "etc/passwd", "b"), b"\0" * 5000)
    before = set(tmp_path.rglob("*"))
    with range_server.serve(files) as server:
        for path in (name, "b"):
            # The server may say that it has no such file, or the library that there can be none.
            with suppress(CheckpointNotFoundError):
                ckptparse.identify(f"{server.url}/{path}", cache=cache)
    made = set(tmp_path.rglob("*")) - before
    assert all(path == cache or cache in path.parents for path in made)
    assert kept(cache)
    for path in kept(cache):
        assert len(path.name) == 64 and set(path.name) <= set("0123456789abcdef")


def test_it_is_for_nobody_else(served: range_server.RangeServer, cache: Path) -> None:
    check(served, cache)
    if os.name != "nt":
        assert {path.stat().st_mode & 0o077 for path in [cache, *cache.rglob("*")]} == {0}


def test_a_full_disk_keeps_nothing_and_reads_on(
    served: range_server.RangeServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ckptparse.files.cache.os.replace", refuse)
    check(served, cache)
    assert kept(cache) == []


def test_a_directory_that_cannot_be_made_is_an_error(
    served: range_server.RangeServer, cache: Path
) -> None:
    cache.write_bytes(b"a file")
    with pytest.raises(OutputError, match="cache"):
        check(served, cache)


def test_files_of_this_machine_and_of_memory_are_not_kept(cache: Path, fixtures: Path) -> None:
    ckptparse.read(fixtures / "saver" / "my_model", cache=cache)
    files = {path.name: path.read_bytes() for path in (fixtures / "saver").glob("my_model.*")}
    ckptparse.read("my_model", store=files, cache=cache)
    assert not cache.exists()


def test_a_file_without_etag_in_a_file_system_of_fsspec_is_not_kept(cache: Path) -> None:
    filesystem = pytest.importorskip("fsspec").filesystem("memory")
    filesystem.pipe_file("/kept/m", b"\0" * 100)
    ckptparse.identify("/kept/m", store=filesystem, cache=cache)
    assert kept(cache) == []


class Changing:
    """A file system of fsspec whose file is replaced between looking and reading."""

    protocol = "changing"

    def __init__(self) -> None:
        self.version = 1
        self.asked = 0

    def info(self, path: str) -> dict[str, Any]:
        if path != "m":
            raise FileNotFoundError(path)
        return {"name": path, "type": "file", "size": 100, "ETag": str(self.version)}

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        self.version += 1
        return bytes([self.version]) * (end - start)

    def to_json(self, **_: Any) -> str:
        return "changing"

    def unstrip_protocol(self, path: str) -> str:
        return f"changing://{path}"

    def invalidate_cache(self) -> None:
        self.asked += 1


def test_what_may_be_of_another_version_is_not_kept(cache: Path) -> None:
    _, storage = find_storage("m", Changing())
    cached = CachedStorage(storage, BlockStore(str(cache), 1 << 20))
    with closing(cached.open("m")) as source:
        source.read_at(0, 100)
    assert kept(cache) == []


def test_it_can_be_sent_to_another_process(served: range_server.RangeServer, cache: Path) -> None:
    path, context = begin(f"{served.url}/run/m.index", cache=cache)
    again = pickle.loads(pickle.dumps(context.storage))  # noqa: S301 - our own bytes
    with closing(again.open(path)) as source:
        assert source.read_at(0, source.size) == served.files["run/m.index"]
    assert len(kept(cache)) == 1


def test_every_function_that_takes_a_store_takes_a_cache() -> None:
    for name in ckptparse.__all__:
        function = getattr(ckptparse, name)
        if inspect.isfunction(function) and name != "write":
            found = inspect.signature(function).parameters
            assert ("store" in found) == ("cache" in found), name
    show = tf.python.tools.inspect_checkpoint.print_tensors_in_checkpoint_file
    for function in (show, *(getattr(tf.train, name) for name in tf.train.__all__)):
        if inspect.isfunction(function):
            assert {"store", "cache", "limits"} <= inspect.signature(function).parameters.keys()


def test_the_command_line_takes_it(
    served: range_server.RangeServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = pytest.importorskip("ckptparse.cli.app")
    for command in ("ls", "verify", "stats"):
        words = ["ckptparse", command, f"{served.url}/run/m", "--cache", str(cache)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as caught:
            app.run()
        assert not caught.value.code
        assert kept(cache)


def test_a_directory_that_no_name_can_have_is_said_to_be_so() -> None:
    with pytest.raises(OutputError, match="No directory can have that name"):
        BlockStore("a\0b", 1 << 20)
