"""Statistics that the workers of an executor make, of runs of tensors in the order of the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from typing import NamedTuple

from ckptparse.backend.small import Sized
from ckptparse.jobs.ahead import SOURCES, Workplace, find_place, waiting
from ckptparse.jobs.opening import Opened
from ckptparse.jobs.stats import measure_each
from ckptparse.statistics.summary import Summary
from ckptparse.tensor_like import ArrayTensor, TensorLike

__all__ = ["spread"]

_BUDGET = 64 << 20
"""Bytes of tensors that one piece of work has; a larger tensor is one alone."""
_MOST = 1000
"""Tensors that one piece of work has at most: each takes time however small it is."""

_Row = list[tuple[str, Summary]]


class _How(NamedTuple):
    """Whether checksums are checked, and histograms made."""

    verify: bool
    histogram: bool


def spread(
    opened: Opened, names: Sequence[str], executor: Executor, *, verify: bool, histogram: bool
) -> Iterator[_Row]:
    """Let an executor measure tensors.

    Args:
        opened: Where the tensors are.
        names: Which of them.
        executor: Who measures.
        verify: Whether checksums are checked first.
        histogram: Whether histograms are made.

    Returns:
        Names and statistics, as they are ready.

    Raises:
        StorageError: A worker failed; the error names its tensors.
        CheckpointError: As for reading.
    """
    shared = isinstance(executor, ThreadPoolExecutor)
    place = None if shared else find_place(opened)
    running: dict[Future[_Row], Sequence[str]] = {}
    try:
        for some in _runs(opened, names):
            with waiting(_describe(some), shared=shared):
                running[_start(opened, some, executor, place, _How(verify, histogram))] = some
        for future in as_completed(running):
            with waiting(_describe(running[future]), shared=shared):
                yield future.result()
    finally:
        for future in running:
            future.cancel()


def _start(
    opened: Opened,
    names: Sequence[str],
    executor: Executor,
    place: Workplace | None,
    how: _How,
) -> Future[_Row]:
    tensors = [(name, opened.tensors[name]) for name in names]
    if isinstance(executor, ThreadPoolExecutor):
        return executor.submit(_measure, tensors, how)
    if place is not None:
        # The name in the file, which another naming may not show.
        stored = [(name, tensor.name) for name, tensor in tensors]
        return executor.submit(_measure_there, place, stored, how)
    # Values that are in no file are sent.
    held = [(name, ArrayTensor(name, tensor.read(), tensor.data_type)) for name, tensor in tensors]
    return executor.submit(_measure, held, how)


def _measure(tensors: Sequence[tuple[str, TensorLike]], how: _How) -> _Row:
    sized = [Sized.of(name, tensor) for name, tensor in tensors]
    return [
        row
        for rows in measure_each(sized, verify=how.verify, histogram=how.histogram)
        for row in rows
    ]


def _measure_there(place: Workplace, names: Sequence[tuple[str, str]], how: _How) -> _Row:
    """Measure in a worker, which opens the checkpoint for itself, once for all its work."""
    with SOURCES.borrow(place) as opened:
        tensors = [(name, opened.tensors[stored]) for name, stored in names]
        return _measure(tensors, how)


def _runs(opened: Opened, names: Sequence[str]) -> Iterator[list[str]]:
    run: list[str] = []
    taken = 0
    for name in names:
        size = opened.tensors[name].nbytes
        if run and (taken + size > _BUDGET or len(run) >= _MOST):
            yield run
            run, taken = [], 0
        run.append(name)
        taken += size
    if run:
        yield run


def _describe(names: Sequence[str]) -> str:
    first, last = names[0], names[-1]
    return f"tensor {first!r}" if first == last else f"tensors {first!r} to {last!r}"
