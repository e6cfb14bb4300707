"""Several threads ask one open checkpoint, model or graph everything at the same time.

Each answer is the one that a single thread gets. Threads change places a thousand times more often
than usual, so that what is found lazily is found by several at once, also where the interpreter
lets only one of them run; a free-threaded one lets all of them.
"""

from __future__ import annotations

import copy
import os
import pickle
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse.backend.places import Places
from ckptparse.files.local import LocalSource
from ckptparse.files.memory import MemoryStorage
from ckptparse.proto.wire import for_threads
from ckptparse.tensor import Tensor

pytestmark = pytest.mark.proto

THREADS = 8
Question = Callable[[Any], object]


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def told(value: object) -> object:
    """An answer as plain values that can be compared."""
    if isinstance(value, np.ndarray):
        return (
            str(value.dtype),
            value.shape,
            value.tolist() if value.dtype == object else value.tobytes(),
        )
    if isinstance(value, Tensor):
        return value.name, value.shape, value.data_type, value.kind, value.location, value.crc32c
    if isinstance(value, Places):
        return tuple(told(getattr(value, part.name)) for part in fields(value))
    if isinstance(value, Mapping):
        return {key: told(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [told(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {
            part.name: told(getattr(value, part.name)) for part in fields(value) if part.compare
        }
    return re.sub(r"0x[0-9a-f]+", "an address", str(value))


def answer(question: Question, thing: Any) -> object:
    try:
        return told(question(thing))
    except Exception as error:  # noqa: BLE001 - any is an answer, that of one thread or not
        return type(error).__name__, str(error)


def ask_all(open_one: Callable[[], Any], questions: Mapping[str, Question], times: int = 1) -> None:
    """Ask one thing everything in every thread, each time in another order."""
    with open_one() as alone:
        wanted = {name: answer(question, alone) for name, question in questions.items()}
    for seed in range(times):
        with open_one() as shared:
            found = ask_together(shared, questions, seed)
        for answers in found:
            assert answers == wanted


def ask_together(
    shared: object, questions: Mapping[str, Question], seed: int
) -> list[dict[str, object]]:
    """Return the answers that each thread gets; two at a time ask in the same order."""
    found: list[dict[str, object]] = []

    def work(number: int) -> None:
        names = list(questions)
        random.Random(seed * THREADS + number // 2).shuffle(names)
        found.append({name: answer(questions[name], shared) for name in names})

    run_together(work)
    return found


def run_together(work: Callable[[int], None]) -> None:
    """Let every thread begin at the same time; what one raises is raised here."""
    start = threading.Barrier(THREADS)
    failed: list[Exception] = []

    def begin(number: int) -> None:
        start.wait()
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits
            failed.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in failed:
        raise error


def properties(kind: type) -> dict[str, Question]:
    """Every public property of a class."""
    names = [name for name in dir(kind) if not name.startswith("_")]
    found = {name: getattr(kind, name) for name in names}
    return {
        name: lambda thing, name=name: getattr(thing, name)
        for name, part in found.items()
        if not callable(part)
    }


def some(tensor: Tensor) -> object:
    return tensor[tuple(slice(0, 2) for _ in tensor.shape)]


OF_CHECKPOINTS: dict[str, Question] = {
    **properties(ckptparse.Checkpoint),
    "names": list,
    "length": len,
    "shapes": lambda one: one.shapes(),
    "items": lambda one: dict(one.items()),
    "values": lambda one: list(one.values()),
    "read": lambda one: one.read(),
    "read_last": lambda one: one.read(list(one)[-3:]),
    "each": lambda one: {name: one[name].read() for name in one},
    "parts": lambda one: {name: some(one[name]) for name in reversed(list(one))},
    "verified": lambda one: [tensor.verify() for tensor in one.values()],
    "lookups": lambda one: [one.get(name) for name in list(one)[::-1]],
    "missing": lambda one: one["no such name"],
    "contained": lambda one: ["no such name" in one, *(f"{name}:0" in one for name in one)],
    "places": lambda one: one.places(),
    "tree": lambda one: str(one.tree()),
    "training_graph": lambda one: list(one.find_training_graph().variables),
    "copied": lambda one: copy.copy(one).shapes(),
    "pickled": lambda one: pickle.loads(pickle.dumps(one)).read(),  # noqa: S301
    "in_a_notebook": lambda one: one._repr_html_(),
}


@pytest.mark.parametrize(
    "name",
    [
        "dtypes/every_kind/model",
        "objects/keras2_cells_trained/weights",
        "roles/two_adams/model.ckpt",
        "saver/my_model",
        "slices/many_starts/model",
        "slices/strings/model",
        "table/several_blocks/model",
        "v1/slices_across_files",
    ],
)
def test_a_checkpoint_answers_every_thread_as_it_answers_one(fixtures: Path, name: str) -> None:
    ask_all(lambda: ckptparse.open(fixtures / name), OF_CHECKPOINTS, 2)


def test_an_archive_answers_every_thread_as_it_answers_one(fixtures: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (fixtures / "objects/keras2_cells_trained").iterdir():
            archive.write(path, path.name)
    ask_all(lambda: ckptparse.open(tmp_path / "z.zip"), OF_CHECKPOINTS)


OF_GRAPHS: dict[str, Question] = {
    **properties(ckptparse.Graph),
    "nodes_told": lambda one: [str(one.nodes[name]) for name in one.nodes],
    "functions_told": lambda one: {name: list(part.nodes) for name, part in one.functions.items()},
    "constants_told": lambda one: {name: part.read() for name, part in one.constants.items()},
    "consumers": lambda one: [list(map(str, one.consumers(name))) for name in one.nodes],
}


class Lasting:
    """A graph, which nobody need close."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> ckptparse.Graph:
        return ckptparse.open_graph(self.path)

    def __exit__(self, *_: object) -> None:
        return


@pytest.mark.parametrize("name", ["graphs/functions/graph.pb", "saver/my_model.meta"])
def test_a_graph_answers_every_thread_as_it_answers_one(fixtures: Path, name: str) -> None:
    ask_all(lambda: Lasting(fixtures / name), OF_GRAPHS, 2)


def inside(name: str, questions: Mapping[str, Question]) -> dict[str, Question]:
    return {
        f"{name}.{key}": lambda thing, question=question: question(getattr(thing, name))
        for key, question in questions.items()
    }


OF_MODELS: dict[str, Question] = {
    **properties(ckptparse.SavedModel),
    "tree": lambda one: str(one.tree()),
    "meta_graph": lambda one: str(one.meta_graph("serve")),
    "in_a_notebook": lambda one: one._repr_html_(),
    **inside("variables", OF_CHECKPOINTS),
    **inside("objects", properties(ckptparse.SavedObjects)),
    **{
        f"meta_graphs.{name}": lambda thing, question=question: list(
            map(question, thing.meta_graphs)
        )
        for name, question in properties(ckptparse.MetaGraph).items()
    },
}


@pytest.mark.parametrize("name", ["keras2_functional", "tf1_partitioned", "keras3_export"])
def test_a_saved_model_answers_every_thread_as_it_answers_one(fixtures: Path, name: str) -> None:
    ask_all(lambda: ckptparse.open_saved_model(fixtures / "saved_model" / name), OF_MODELS)


# ---- one that is closed meanwhile, and blocks that are kept


def many_blocks(directory: Path) -> str:
    made = b.Bundle()
    for number in range(400):
        made.add(f"t{number:03}", np.full(3, number, np.float32))
    return made.write(directory / "m", block_size=256)


def ask_until_closed(one: ckptparse.Checkpoint, number: int, *, shapes: bool) -> None:
    """Ask for tensors in an order of its own, until that is refused."""
    order = random.Random(number)
    try:
        while True:
            wanted = order.randrange(400)
            assert one[f"t{wanted:03}"].read().tolist() == [wanted] * 3
            assert not shapes or len(one.shapes()) == 400
    except ckptparse.ClosedError:
        return


def check_closed(one: ckptparse.Checkpoint, *, shapes: bool) -> None:
    """Close one while seven threads ask it: each is answered, or told that it is closed."""

    def work(number: int) -> None:
        if number == 0:
            one.close()
        else:
            ask_until_closed(one, number, shapes=shapes)

    run_together(work)
    for question in (one.shapes, lambda: one["t001"]):
        with pytest.raises(ckptparse.ClosedError):
            question()


@pytest.mark.parametrize("shapes", [False, True])
def test_what_is_closed_by_another_thread_says_so(tmp_path: Path, shapes: bool) -> None:
    prefix = many_blocks(tmp_path)
    for _ in range(20):
        check_closed(ckptparse.open(prefix), shapes=shapes)
    with ckptparse.open(prefix) as one:
        for _ in range(20):
            check_closed(copy.copy(one), shapes=shapes)


def test_blocks_are_kept_by_several_threads_at_once(tmp_path: Path) -> None:
    prefix = many_blocks(tmp_path)
    for _ in range(5):
        with ckptparse.open(prefix) as one:
            run_together(partial(read_in_any_order, one))


def read_in_any_order(one: ckptparse.Checkpoint, number: int) -> None:
    for wanted in random.Random(number).sample(range(400), 400):
        assert one[f"t{wanted:03}"].read().tolist() == [wanted] * 3


@pytest.mark.parametrize("what", ["find", "shapes"])
def test_what_is_found_while_it_is_closed_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    one = ckptparse.open(many_blocks(tmp_path))
    real = getattr(one._backend, what)

    def closing(*asked: Any) -> Any:
        found = real(*asked)
        one.close()
        return found

    monkeypatch.setattr(one._backend, what, closing)
    question = one.shapes if what == "shapes" else lambda: one["t001"]
    assert question()
    with pytest.raises(ckptparse.ClosedError):
        question()


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs preadv")
@pytest.mark.parametrize("way", ["pread", "preadv"])
def test_a_file_that_is_closed_while_it_is_read_is_not_mistaken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The system gives the number of a closed file to the one that is opened next."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    one, others = LocalSource.open(str(tmp_path / "one")), []
    real = getattr(os, way)

    def closing_first(*how: Any) -> Any:
        one.close()
        others.append(LocalSource.open(str(tmp_path / "two")))
        return real(*how)

    monkeypatch.setattr(os, way, closing_first)
    found = bytearray(3)
    if way == "pread":
        found[:] = one.read_at(0, 3)
    else:
        one.read_into(0, memoryview(found))
    assert found == b"one"
    with pytest.raises(ckptparse.ClosedError):
        one.read_at(0, 3)


def test_bytes_in_memory_are_read_by_several_threads() -> None:
    """CPython does not guard how a view counts its slices, so threads must not share one."""
    data = bytes(range(256))
    source = MemoryStorage({"x": memoryview(data)}).open("x")
    whole = for_threads(data)
    errors: list[Exception] = []

    def read(start: int) -> None:
        buffer = bytearray(8)
        try:
            for at in range(start, start + 20_000):
                place = at % 248
                source.read_into(place, memoryview(buffer))
                found = (source.read_at(place, 8), bytes(buffer), bytes(whole[place : place + 8]))
                assert found == (data[place : place + 8],) * 3
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
