"""Work shared among threads: every job once, the first error raised, checksums joined."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from crc32c import crc32c

from ckptparse import parallel
from ckptparse.parallel import (
    PIECE_SIZE,
    PIECES_AHEAD,
    iter_ahead,
    pick_threads,
    run_all,
    stream_crc,
)

DATA = np.random.default_rng(0).integers(0, 256, 9 * PIECE_SIZE + 5, np.uint8).tobytes()


def read_at(offset: int, size: int) -> bytes:
    assert size <= PIECE_SIZE
    assert 0 <= offset <= offset + size <= len(DATA)
    return DATA[offset : offset + size]


@pytest.mark.parametrize("threads", [None, 1, 3, 50])
@pytest.mark.parametrize(
    "size",
    [0, 1, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 4 * PIECE_SIZE, 4 * PIECE_SIZE + 1,
     9 * PIECE_SIZE - 7],
)  # fmt: skip
def test_the_checksum_of_a_stream_is_that_of_its_bytes(size: int, threads: int | None) -> None:
    head = crc32c(DATA[:7])
    found = stream_crc(read_at, 7, size, crc=head, threads=threads)
    assert found == crc32c(DATA[: 7 + size])


def test_an_error_while_a_stream_is_read_is_raised_where_the_caller_waits() -> None:
    def broken(offset: int, size: int) -> bytes:
        if offset >= 5 * PIECE_SIZE:
            raise EOFError(offset)
        return read_at(offset, size)

    with pytest.raises(EOFError):
        stream_crc(broken, 0, len(DATA), threads=3)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_job_runs_once(threads: int) -> None:
    done: list[int] = []

    def job(number: int) -> Callable[[], None]:
        return lambda: done.append(number)

    run_all([job(number) for number in range(100)], threads)
    assert sorted(done) == list(range(100))
    run_all([], threads)


def test_jobs_run_at_the_same_time_on_as_many_threads_as_were_asked_for() -> None:
    meeting = threading.Barrier(3)
    run_all([lambda: meeting.wait(30) and None] * 3, 3)


def test_after_a_failure_no_further_job_begins() -> None:
    done: list[int] = []

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([lambda: done.append(1), fail, lambda: done.append(2)], 1)
    assert done == [1]


def test_where_the_system_gives_no_threads_the_caller_does_it_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[int] = []
    run_all([lambda: done.append(1)] * 5, 3)
    assert done == [1] * 5


def test_an_interrupted_caller_leaves_no_jobs_to_the_other_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, interrupted = threading.Event(), threading.Event()
    done: list[int] = []
    caller = threading.current_thread()

    def job() -> None:
        begun.set()
        assert interrupted.wait(30)
        done.append(1)

    def interrupt(pending: list[Callable[[], None]], errors: list[BaseException]) -> None:
        if threading.current_thread() is caller:
            assert begun.wait(30)
            raise KeyboardInterrupt
        real(pending, errors)

    real = parallel._work
    monkeypatch.setattr(parallel, "_work", interrupt)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run_all([job] * 50, 2)
    interrupted.set()
    for other in set(threading.enumerate()) - before:
        other.join(30)
    assert done == [1]


def test_an_error_keeps_nothing_alive_once_it_has_been_handled() -> None:
    class Buffer:
        pass

    def fail(buffer: Buffer) -> None:
        raise EOFError

    def read() -> weakref.ref[Buffer]:
        buffer = Buffer()
        with suppress(EOFError):
            run_all([partial(fail, buffer)], 1)
        return weakref.ref(buffer)

    gc.disable()
    try:
        assert read()() is None
    finally:
        gc.enable()


def test_an_error_in_making_items_keeps_nothing_alive_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Buffer:
        pass

    def make(buffer: Buffer) -> Iterator[int]:
        yield 0
        raise EOFError(id(buffer))

    def read() -> weakref.ref[Buffer]:
        buffer = Buffer()
        with suppress(EOFError):
            list(iter_ahead(make(buffer)))
        return weakref.ref(buffer)

    monkeypatch.setattr(parallel, "most_threads", lambda: 2)
    gc.disable()
    try:
        assert read()() is None
    finally:
        gc.enable()


def test_small_work_is_done_by_the_caller_alone() -> None:
    assert pick_threads(None, 100, share=100) == 1
    assert pick_threads(None, 1 << 30, share=100) >= 1
    assert pick_threads(5, 1, share=100) == 5


def test_items_made_ahead_come_in_order_and_few_exist_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "most_threads", lambda: 2)
    makers: set[int] = set()
    found: list[int] = []

    def make() -> Iterator[int]:
        for number in range(200):
            makers.add(threading.get_ident())
            # This one, those that wait, and the one that the caller uses.
            assert number + 1 - len(found) <= PIECES_AHEAD
            yield number

    for item in iter_ahead(make()):
        found.append(item)  # noqa: PERF402 - used up at this moment
    assert found == list(range(200))
    assert makers
    assert threading.get_ident() not in makers


@pytest.mark.parametrize("number", [0, 1, 7])
def test_an_error_in_making_an_item_is_raised_after_those_before_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "most_threads", lambda: 2)

    def make() -> Iterator[int]:
        yield from range(number)
        raise EOFError

    found: list[int] = []
    before = threading.active_count()
    with pytest.raises(EOFError):
        found.extend(iter_ahead(make()))
    assert found == list(range(number))
    assert threading.active_count() == before


def test_who_asks_for_no_further_item_leaves_no_thread_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "most_threads", lambda: 2)
    before = threading.active_count()
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(1_000_000):
            made.append(number)
            yield number

    items = iter_ahead(make())
    assert next(items) == 0
    assert threading.active_count() == before + 1
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(made) <= PIECES_AHEAD + 1


@pytest.mark.parametrize("why", ["one processor", "no thread"])
def test_items_are_made_by_the_caller_if_no_other_thread_can(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parallel, "most_threads", lambda: 1 if why == "one processor" else 2)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert list(iter_ahead(iter("abc"))) == ["a", "b", "c"]
