"""Answers of servers that are too long, too short, or of another object, each check by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ckptparse.errors import (
    CheckpointNotFoundError,
    StorageError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.ranges import RemoteSource, body_of, check_count, pour
from ckptparse.files.remote import ObjectStorage, ask, matching
from ckptparse.files.retries import Retries
from ckptparse.files.web import WebStorage

DATA = bytes(range(100))


@dataclass
class Answer:
    """A body in chunks, and what the headers say."""

    chunks: list[bytes]
    meta: Mapping[str, Any] = field(default_factory=dict)
    taken: int = 0

    def stream(self, *, min_chunk_size: int) -> Iterator[bytes]:
        assert 0 < min_chunk_size <= 8 << 20
        for chunk in self.chunks:
            self.taken += 1
            yield chunk


def test_a_body_is_taken_as_far_as_it_was_asked_for() -> None:
    for chunks, taken in (
        ([b"abcd"], 1),
        ([b"ab", b"cd"], 2),
        ([b"abcde", b"x"], 1),
        ([b"ab", b"cd", b"e", b"x"], 3),
        ([b"ab"], 1),
        ([], 0),
    ):
        answer = Answer(chunks)
        assert bytes(body_of(answer, 4)) == b"".join(chunks[:taken]) and answer.taken == taken
        answer, buffer = Answer(chunks), bytearray(b"....")
        found = pour(answer, memoryview(buffer))
        assert (found, answer.taken) == (sum(map(len, chunks[:taken])), taken)
        fitting = b"".join(chunks)
        assert found > 4 or bytes(buffer) == fitting + b"...."[len(fitting) :]


def test_more_and_fewer_bytes_than_were_asked_for_are_different_errors() -> None:
    check_count("x", 3, 4, 4)
    with pytest.raises(TruncatedError) as fewer:
        check_count("x", 3, 4, 3)
    assert (fewer.value.path, fewer.value.offset, fewer.value.size) == ("x", 3, 4)
    with pytest.raises(StorageError, match="found more") as more:
        check_count("x", 3, 4, 5)
    assert more.value.path == "x"


@pytest.mark.parametrize("poured", [False, True])
@pytest.mark.parametrize(("change", "kind"), [(-1, TruncatedError), (1, StorageError), (0, None)])
def test_an_object_gives_as_many_bytes_as_were_asked_for(
    poured: bool, change: int, kind: type[Exception] | None
) -> None:
    def fetch(offset: int, size: int) -> bytes:
        return DATA[offset : offset + size + change]

    def fill(offset: int, buffer: memoryview) -> int:
        return pour(Answer([fetch(offset, len(buffer))]), buffer)

    source = RemoteSource("x", len(DATA), fetch, fill if poured else None)
    buffer = bytearray(5)
    if kind is None:
        assert source.read_at(7, 5) == DATA[7:12]
        source.read_into(7, memoryview(buffer))
        assert buffer == DATA[7:12]
        return
    with pytest.raises(kind):
        source.read_at(7, 5)
    with pytest.raises(kind):
        source.read_into(7, memoryview(buffer))


@pytest.mark.parametrize(("offset", "size"), [(96, 5), (101, 1), (-1, 3), (1 << 60, 1), (0, 101)])
def test_an_object_is_not_asked_for_bytes_beyond_its_end(offset: int, size: int) -> None:
    def fail(*_: object) -> int:
        raise AssertionError

    for pouring in (None, fail):
        source = RemoteSource("x", len(DATA), fail, pouring)
        with pytest.raises(TruncatedError):
            source.read_at(offset, size)
        with pytest.raises(TruncatedError):
            source.read_into(offset, memoryview(bytearray(size)))


def test_the_tag_of_an_object_is_a_condition_unless_it_is_weak() -> None:
    assert matching('"1"') == {"if_match": '"1"'}
    assert matching('W/"1"') == {} == matching(None) == matching(5)


def test_an_object_of_a_bucket_that_is_replaced_is_told() -> None:
    stores = pytest.importorskip("obstore.store")
    store = stores.MemoryStore()
    store.put("run/w", DATA)
    storage = ObjectStorage(store)
    source = storage.open("run/w")
    assert source.read_at(3, 4) == DATA[3:7]
    store.put("run/w", DATA[::-1])
    with pytest.raises(StorageError, match="replaced while it was read"):
        source.read_at(3, 4)
    with pytest.raises(StorageError, match="replaced while it was read"):
        source.read_into(3, memoryview(bytearray(4)))


@pytest.mark.parametrize("path", ["../run/w", "run/../../run/w", "..", "../../x"])
def test_a_path_that_leads_out_of_a_store_is_not_asked_for(path: str) -> None:
    class Fails:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    for storage in (ObjectStorage(Fails()), WebStorage(Fails())):
        storage.__dict__["_lists"] = False
        assert storage.stat(path) is None
        with pytest.raises(CheckpointNotFoundError):
            storage.open(path)
    assert ObjectStorage(Fails()).list(path) == {}


@dataclass
class Web:
    """A web server of one file, which answers as it is told to."""

    size: int = len(DATA)
    tag: str | None = '"1"'
    change: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)

    def get(self, key: str, *, options: Mapping[str, Any]) -> Answer:
        assert key == "w"
        start, stop = options["range"]
        self.asked.append((start, stop))
        end = min(stop, self.size)
        body = DATA[start : end + self.change]
        return Answer([body], {"size": self.size, "e_tag": self.tag})

    def head(self, key: str) -> Mapping[str, Any]:
        return {"size": self.size, "e_tag": self.tag}


def web(server: Web) -> WebStorage:
    storage = WebStorage(server)
    storage.__dict__["_lists"] = False
    return storage


@pytest.mark.parametrize(("change", "kind"), [(-1, TruncatedError), (1, StorageError)])
def test_a_web_server_gives_as_many_bytes_as_were_asked_for(
    change: int, kind: type[Exception]
) -> None:
    source = web(Web(change=change)).open_later("w")
    with pytest.raises(kind):
        source.read_at(7, 5)
    with pytest.raises(kind):
        source.read_into(7, memoryview(bytearray(5)))


def test_the_first_bytes_of_a_file_are_all_that_were_asked_for() -> None:
    # 64 KiB are asked for, and the file has 100 bytes.
    assert web(Web()).stat("w") is not None
    with pytest.raises(TruncatedError):
        web(Web(change=-1)).stat("w")
    with pytest.raises(StorageError):
        web(Web(size=99, change=1)).stat("w")


@pytest.mark.parametrize("changed", [{"size": 99}, {"tag": '"2"'}, {"tag": None}])
def test_a_file_of_a_web_server_that_is_replaced_is_told(changed: dict[str, Any]) -> None:
    server = Web()
    source = web(server).open_later("w")
    assert source.read_at(7, 5) == DATA[7:12] and source.known_size == 100
    for name, value in changed.items():
        setattr(server, name, value)
    with pytest.raises(StorageError, match="replaced while it was read"):
        source.read_at(20, 5)
    with pytest.raises(StorageError, match="replaced while it was read"):
        source.read_into(20, memoryview(bytearray(5)))


def test_a_web_server_is_not_asked_for_bytes_beyond_an_end_that_is_known() -> None:
    server = Web()
    source = web(server).open_later("w")
    # That it is not known yet is no reason to take what is missing for read.
    with pytest.raises(TruncatedError):
        source.read_at(97, 5)
    server.asked.clear()
    for offset, size in ((96, 5), (101, 1), (-1, 3)):
        with pytest.raises(TruncatedError):
            source.read_at(offset, size)
        with pytest.raises(TruncatedError):
            source.read_into(offset, memoryview(bytearray(size)))
    assert not server.asked


# ---- what is asked again


class GenericError(Exception):
    """The class that the library has for nearly all that fails; only its text says more."""


class NotSupportedError(Exception):
    """Its class for a whole file in answer to a request for a part."""


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("connection reset", 4),
        ("status: 503", 4),
        ("status code: 500", 4),
        ("status: 429", 4),
        ("status: 408", 4),
        ("status: 404", 1),
        ("status: 499", 1),
        # What leads in a circle, or lies, will be no better next time.
        ("Kind { kind: Redirect }", 1),
        ("Failed to parse the header Content-Range", 1),
        ("UnexpectedRange", 1),
    ],
)
def test_what_will_be_no_better_is_asked_for_once(text: str, times: int) -> None:
    asked = []

    def request() -> None:
        asked.append(1)
        raise GenericError(text)

    retries = Retries(most=3, within=5, first=0.001, longest=0.002)
    with pytest.raises(StorageError) as caught:
        ask("x", request, retries=retries)
    assert (len(asked), retries.count) == (times, times - 1)
    # The library's words may hold a password.
    assert text not in str(caught.value) and caught.value.__context__ is None


def test_a_server_that_gives_no_parts_is_told_as_such() -> None:
    def request() -> None:
        raise NotSupportedError

    with pytest.raises(UnsupportedError, match="does not give parts"):
        ask("x", request)
