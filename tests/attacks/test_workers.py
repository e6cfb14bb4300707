"""Hostile files whose work is shared among workers: what comes of them is what comes without."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from test_bounds import BOUNDS, LIMITS

import ckptparse

Job = Callable[[Path, Executor | None], Any]
MOST = ckptparse.Limits(**LIMITS)


JOBS: dict[str, Job] = {
    "verify": lambda path, executor: ckptparse.verify(
        path, executor=executor, limits=MOST
    ).to_dict(),
    "stats": lambda path, executor: repr(ckptparse.stats(path, executor=executor, limits=MOST)),
}


@pytest.fixture(scope="module", params=["threads", "processes"])
def workers(request: pytest.FixtureRequest) -> Iterator[Executor]:
    made: Executor = (
        ThreadPoolExecutor(2)
        if request.param == "threads"
        else ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    )
    with made:
        yield made


def outcome(job: Job, path: Path, executor: Executor | None) -> Any:
    """Return what a job finds, or which error of the package it raises."""
    try:
        return job(path, executor)
    except ckptparse.CheckpointError as error:
        return type(error).__name__


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("job", JOBS)
def test_workers_find_what_the_caller_finds(
    tmp_path: Path, workers: Executor, monkeypatch: pytest.MonkeyPatch, job: str, half: int
) -> None:
    asked, differ = [], {}
    submit = workers.submit

    def count(function: Any, /, *args: Any, **options: Any) -> Any:
        asked.append(function)
        return submit(function, *args, **options)

    monkeypatch.setattr(workers, "submit", count)
    for number, (bound, (make, _)) in enumerate(BOUNDS.items()):
        made = make()
        if "m.index" in made and number % 2 == half:
            folder = tmp_path / str(number)
            folder.mkdir()
            for name, data in made.items():
                (folder / name).write_bytes(data)
            alone, shared = (outcome(JOBS[job], folder / "m", one) for one in (None, workers))
            if alone != shared:
                differ[bound] = (alone, shared)
    assert differ == {}
    assert asked
