"""Servers that do harm: redirects, endless bodies, lengths that lie, objects that change."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import builder as b
import numpy as np
import pytest
from instruments import outcome_in_little_memory
from range_server import Handler, RangeServer, serve

import ckptparse
from ckptparse.files import remote

pytest.importorskip("obstore")


@pytest.fixture
def server() -> Iterator[RangeServer]:
    made = b.Bundle()
    made.add("w", np.arange(64, dtype=np.float32))
    files = {f"run/{name}": data for name, data in made.files("m").items()}
    with serve(files) as served:
        yield served


def headed(handler: Handler, status: int, length: int, total: str) -> None:
    handler.send_response(status)
    handler.send_header("ETag", '"1"')
    handler.send_header("Content-Length", str(length))
    handler.send_header("Content-Range", total)
    handler.end_headers()
    handler.close_connection = True


def endless(handler: Handler) -> bool:
    """Give bytes for as long as somebody takes them, up to a gigabyte."""
    handler.send_response(200)
    handler.send_header("ETag", '"1"')
    handler.end_headers()
    with suppress(OSError):
        for _ in range(1 << 10):
            handler.wfile.write(bytes(1 << 20))
    handler.close_connection = True
    return True


def too_long(handler: Handler) -> bool:
    """Say a petabyte, and hang up."""
    headed(handler, 206, 1 << 50, f"bytes 0-{(1 << 50) - 1}/{1 << 50}")
    return True


def negative(handler: Handler) -> bool:
    headed(handler, 206, 0, "bytes 5-1/2")
    return True


def too_much(handler: Handler) -> bool:
    """Answer as it should be, and go on, up to three gigabytes."""
    path, wanted = handler.path.lstrip("/"), handler.headers.get("Range")
    data = handler.server.served.files.get(path)
    if data is None or wanted is None or handler.command != "GET":
        return False
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, stop = int(first), min(int(last) + 1, len(data))
    headed(handler, 206, 3 << 30, f"bytes {start}-{stop - 1}/{len(data)}")
    with suppress(OSError):
        handler.wfile.write(data[start:stop])
        for _ in range(3 << 10):
            handler.wfile.write(bytes(1 << 20))
    return True


def ignored(handler: Handler) -> bool:
    """Give the whole file, whichever part was asked for."""
    data = handler.server.served.files.get(handler.path.lstrip("/"))
    if data is None or handler.command != "GET":
        return False
    handler.give(200, data, {"ETag": '"1"'})
    return True


def redirect(handler: Handler) -> bool:
    handler.send_response(302)
    handler.send_header("Location", f"http://127.0.0.1:{handler.server.served.port}/secret")
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    return True


def loop(handler: Handler) -> bool:
    handler.server.served.faults.append(loop)
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    return True


def value_or_none(read: Callable[[], np.ndarray]) -> list[float] | None:
    """Read; None if that is an error of the package. The library may have asked once more."""
    try:
        return read().tolist()
    except ckptparse.CheckpointError:
        return None


@pytest.mark.parametrize("fault", [endless, too_long, negative, loop], ids=lambda one: one.__name__)
def test_a_server_that_lies_is_an_error_in_little_memory(
    server: RangeServer, fault: Callable[[Handler], bool]
) -> None:
    with ckptparse.open(f"{server.url}/run/m") as checkpoint:
        tensor = checkpoint["w"]
        server.faults += [fault] * 12
        assert value_or_none(tensor.read) in (None, list(range(64)))


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("scheme", ["http", "store"])
def test_a_server_that_gives_more_than_it_was_asked_for_costs_no_memory(
    server: RangeServer, tmp_path: Path, ending: str, scheme: str
) -> None:
    """An answer of three gigabytes is read by a process that may grow by 256 MiB."""
    server.faults = OnlyFor(f"run/m.{ending}", too_much)
    code = f"""
    import obstore.store
    store = None
    path = "{server.url}/run/m"
    if {scheme!r} == "store":
        client = {{"allow_http": True}}
        store = obstore.store.HTTPStore.from_url("{server.url}", client_options=client)
        path = "run/m"
    print(outcome(lambda: ckptparse.read(path, store=store)))
    """
    assert outcome_in_little_memory(tmp_path, code) == "StorageError"


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001"])
def test_a_server_that_gives_no_parts_is_told_as_such(server: RangeServer, ending: str) -> None:
    server.faults = OnlyFor(f"run/m.{ending}", ignored)
    with pytest.raises(ckptparse.UnsupportedError, match="does not give parts"):
        ckptparse.read(f"{server.url}/run/m")


class OnlyFor(list[Callable[[Handler], bool]]):
    """A fault of one path, each time."""

    def __init__(self, path: str, fault: Callable[[Handler], bool]) -> None:
        super().__init__([fault])
        self.path = path

    def pop(self, _: Any = 0) -> Callable[[Handler], bool]:
        return lambda handler: handler.path.lstrip("/") == self.path and self[0](handler)


def test_a_redirect_gives_what_lies_there_or_an_error(server: RangeServer) -> None:
    """The bytes of another place have another checksum: they are never taken for the tensor."""
    server.files["secret"] = bytes(4096)
    server.faults += [redirect] * 3
    found = value_or_none(lambda: ckptparse.read(f"{server.url}/run/m")["w"])
    assert found in (None, list(range(64)))


def test_an_object_that_is_replaced_between_index_and_data_is_said(server: RangeServer) -> None:
    with ckptparse.open(f"{server.url}/run/m") as checkpoint:
        checkpoint["w"].read()
        for name in list(server.files):
            server.tags[name] = '"2"'
        with pytest.raises(ckptparse.StorageError, match="replaced while it was read"):
            checkpoint["w"].read()


def test_names_of_a_mapping_that_lead_out_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.index").write_bytes(b"x")
    for name in ("../secret", str(tmp_path / "secret"), "a/../../secret"):
        with pytest.raises(ckptparse.CheckpointNotFoundError):
            ckptparse.read(name, store={"run/m.index": b""})


# Lists of buckets.

Page = Callable[[int], bytes]
"""Makes the part of a list of a number, from 1 on."""


def listed(keys: Iterable[tuple[str, int]], *, then: str | None = None) -> bytes:
    """Make a part of a list of S3, and perhaps name the one that follows."""
    objects = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;1&quot;</ETag><Size>{size}</Size></Contents>"
        for key, size in keys
    )
    more = f"<NextContinuationToken>{then}</NextContinuationToken>" if then else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{str(then is not None).lower()}</IsTruncated>{more}{objects}"
        "</ListBucketResult>"
    ).encode()


@contextmanager
def bucket(server: RangeServer, page: Page) -> Iterator[Any]:
    """Let a server be a bucket, of which all lists are the same."""
    from obstore.store import S3Store

    number = count(1)

    def answer(handler: Handler) -> bool:
        if "list-type" not in handler.path:
            return False
        handler.close_connection = True
        with suppress(OSError):
            handler.give(200, page(next(number)), {"Content-Type": "application/xml"})
        return True

    server.files |= {f"bucket/{key}": data for key, data in server.files.items()}
    server.faults = Always(answer)
    yield S3Store(
        "bucket",
        endpoint=server.url,
        access_key_id="a",
        secret_access_key="b",  # noqa: S106 - nobody checks it
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


class Always(list[Callable[[Handler], bool]]):
    """A fault of each request."""

    def __init__(self, fault: Callable[[Handler], bool]) -> None:
        super().__init__([fault])

    def pop(self, _: Any = 0) -> Callable[[Handler], bool]:
        return self[0]


def outcome_of(call: Callable[..., Any], store: Any) -> str:
    """Return what comes of a call: the name of an error of the package, or "value"."""
    try:
        value = call("run/m", store=store)
    except ckptparse.CheckpointError as error:
        return type(error).__name__ if str(error).isprintable() else str(error)
    if isinstance(value, dict):
        assert value["w"].tolist() == list(range(64))
    return "value"


def outcomes_of(store: Any) -> dict[str, str]:
    return {name: outcome_of(getattr(ckptparse, name), store) for name in ALL}


ALL = ("read", "verify", "identify", "recover")


@pytest.mark.parametrize("page", ["again and again", "without end"])
def test_a_list_that_never_ends_is_left(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.setattr(remote, "_LASTING", timedelta(seconds=0.5))
    own = [(key, len(data)) for key, data in server.files.items()]

    def make(number: int) -> bytes:
        if page == "again and again":
            return listed(own, then="same")
        return listed([(f"run/{number}-{row}", 1) for row in range(100)], then=f"t{number}")

    with bucket(server, make) as store:
        with pytest.raises(ckptparse.StorageError, match="did not end within"):
            ckptparse.read("run/m", store=store)
        # The library has stopped, too.
        asked = len(server.log)
        time.sleep(0.3)
        assert len(server.log) <= asked + 1


def test_a_list_is_asked_for_where_a_loop_runs(server: RangeServer) -> None:
    own = [(key, len(data)) for key, data in server.files.items()]

    async def read(store: Any) -> list[float]:
        found: list[float] = ckptparse.read("run/m", store=store)["w"].tolist()
        return found

    with bucket(server, lambda _: listed(own)) as store, ThreadPoolExecutor(1) as pool:
        assert asyncio.run(read(store)) == list(range(64))
        again = bucket(server, lambda _: listed(own))
        with again as other:
            assert pool.submit(asyncio.run, read(other)).result() == list(range(64))


def test_a_list_of_many_names_costs_what_it_holds(server: RangeServer) -> None:
    own = [(key, len(data)) for key, data in server.files.items()]
    pages, calls = 30, 0

    def make(number: int) -> bytes:
        names = [(f"run/f{number:03}{row:03}.bin", 1) for row in range(1000)]
        return listed(own + names, then=f"t{number}" if number % pages else None)

    def note(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    with bucket(server, make) as store:
        sys.setprofile(note)
        try:
            found = outcomes_of(store)
        finally:
            sys.setprofile(None)
    assert found == dict.fromkeys(ALL, "value")
    # Each call asks for the list once, and looks at each name about four times.
    assert len(server.log) <= len(ALL) * (pages + 4)
    assert calls <= 8 * len(ALL) * pages * 1000


@pytest.mark.parametrize("name", ["run/../secret", "run//x", "run/..", "run/&#27;[31m", "run/\0x"])
def test_a_name_of_a_list_that_is_no_path_is_said(server: RangeServer, name: str) -> None:
    own = [(key, len(data)) for key, data in server.files.items()]
    with bucket(server, lambda _: listed([*own, (name, 6)])) as store:
        assert outcomes_of(store) == dict.fromkeys(ALL, "UnsupportedError")
        with pytest.raises(ckptparse.UnsupportedError, match="a name that is no path"):
            ckptparse.read("run/m", store=store)
        with pytest.raises(ckptparse.CheckpointNotFoundError):
            ckptparse.read("run/./m", store=store)


@pytest.mark.parametrize(
    ("sizes", "outcomes"),
    [
        ((3, None), dict.fromkeys(ALL, "value")),
        ((None, 3), {"read": "TruncatedError"}),
        ((-1,), dict.fromkeys(ALL, "StorageError")),
        ((1 << 62,), {"read": "LimitError", "identify": "TruncatedError"}),
        ((1 << 70,), dict.fromkeys(ALL, "StorageError")),
    ],
    ids=["a wrong one first", "a wrong one last", "negative", "huge", "beyond all numbers"],
)
def test_a_list_that_lies_of_sizes_is_an_error_or_found_out(
    server: RangeServer, sizes: tuple[int | None, ...], outcomes: dict[str, str]
) -> None:
    """Of a name that is there twice the last size counts. `None` stands for the right one."""
    keys = [
        (key, len(data) if size is None else size)
        for size in sizes
        for key, data in server.files.items()
    ]
    with bucket(server, lambda _: listed(keys)) as store:
        assert outcomes_of(store) == {**dict.fromkeys(ALL, "value"), **outcomes}


@pytest.mark.parametrize(
    "page", [b"", b"<a>" * 100_000, b'<!DOCTYPE l [<!ENTITY a "aa">]><l>&a;</l>']
)
def test_what_is_no_list_is_an_error(server: RangeServer, page: bytes) -> None:
    with bucket(server, lambda _: page) as store:
        assert outcomes_of(store) == dict.fromkeys(ALL, "StorageError")
