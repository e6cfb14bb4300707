"""Real checkpoints read through every kind of storage: as from this machine, damage included."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import corpus
import pytest
import range_server
from corpus import Recorded

import ckptparse
from ckptparse import CheckpointError

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(corpus.directory() is None, reason="the corpus is not here"),
]

RECORDED = corpus.checkpoints()


@cache
def files() -> dict[str, bytes]:
    """Every file of the corpus, by its path there."""
    root = corpus.directory()
    assert root is not None
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".json")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@contextmanager
def in_obstore() -> Iterator[tuple[str, Any]]:
    store = pytest.importorskip("obstore").store.MemoryStore()
    for name, data in files().items():
        store.put(name, data)
    yield "", store


@contextmanager
def in_fsspec() -> Iterator[tuple[str, Any]]:
    filesystem = pytest.importorskip("fsspec").filesystem("memory")
    for name, data in files().items():
        filesystem.pipe_file(f"/corpus/{name}", data)
    yield "/corpus/", filesystem
    filesystem.rm("/corpus", recursive=True)


@contextmanager
def on_a_web_server() -> Iterator[tuple[str, Any]]:
    pytest.importorskip("obstore")
    with range_server.serve(files()) as server:
        yield f"{server.url}/", None


PLACES: dict[str, Callable[[], Any]] = {
    "obstore": in_obstore,
    "fsspec": in_fsspec,
    "http": on_a_web_server,
}


@pytest.fixture(scope="module", params=PLACES)
def place(request: Any) -> Iterator[tuple[str, str, Any]]:
    with PLACES[request.param]() as (root, store):
        yield request.param, root, store


def outcome(path: Any, store: Any = None) -> dict[str, Any]:
    """What reading gives, or the kind of error; of each tensor a hash, or the kind of error."""
    try:
        opened = ckptparse.open(path, store=store)
    except CheckpointError as error:
        return {"error": type(error).__name__}
    found: dict[str, Any] = {}
    with opened as checkpoint:
        for name, tensor in checkpoint.items():
            found[name] = content(tensor)
    return found


def content(tensor: ckptparse.Tensor) -> object:
    try:
        array = tensor.read()
    except CheckpointError as error:
        return type(error).__name__
    data = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return array.shape, array.dtype.str, hashlib.sha256(data).hexdigest()


@cache
def wanted(name: str) -> dict[str, Any]:
    (record,) = [one for one in RECORDED if one.name == name]
    return outcome(record.path)


@cache
def statuses(name: str) -> Any:
    (record,) = [one for one in RECORDED if one.name == name]
    return judged(record.path)


def judged(path: Any, store: Any = None) -> Any:
    try:
        report = ckptparse.verify(path, store=store)
    except CheckpointError as error:
        return type(error).__name__
    codes = sorted(problem.code for problem in report.problems)
    return codes, {name: one.status.value for name, one in report.tensors.items()}


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record.name)
def test_a_real_checkpoint_is_the_same_wherever_it_lies(
    record: Recorded, place: tuple[str, str, Any]
) -> None:
    kind, root, store = place
    base = corpus.directory()
    assert base is not None
    path = root + record.path.relative_to(base).as_posix()
    assert outcome(path, store) == wanted(record.name)
    # What only a list tells is not found on a web server: leftovers, and what lies beside.
    if kind != "http" or wanted(record.name).keys() != {"error"}:
        found, known = judged(path, store), statuses(record.name)
        assert found[-1] == known[-1] if kind == "http" else found == known
