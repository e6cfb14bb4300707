"""Checksums of many tensors, computed by the workers of any `concurrent.futures.Executor`.

A worker gets what can be pickled: the storage, and which bytes of which files. It gives back one
number for each tensor, or for each piece of a large one; pieces are combined here. What a worker
finds damaged is left open: whoever asked looks at it again, and says what is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import combine_crc, crc32c
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    DataLossError,
    StorageError,
    UnsupportedError,
)
from ckptparse.examination.readers import DataFiles
from ckptparse.files.noted import NotedStorage
from ckptparse.files.storage import FileStat, Source, Storage
from ckptparse.parallel import PIECE_SIZE, run_all

__all__ = ["Places", "is_same", "spread_checksums"]

_BUDGET = 64 << 20
"""Bytes that one piece of work takes."""
_FILE_COST = 8 << 20
"""What opening another file costs, in bytes that could be read meanwhile."""
_THREADS = 16
_MOST_READ = 4 << 20
"""Bytes that a worker reads at once: sixteen of them keep 64 MiB."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the bytes of tensors lie, sorted by file and offset; all arrays have shape (n,).

    Attributes:
        paths: The files.
        files: For each tensor the number of its file.
        offsets: In bytes.
        sizes: In bytes.
    """

    paths: Sequence[str]
    files: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes of one tensor: all, or a piece."""

    number: int
    offset: int
    size: int


_Found = list[tuple[int, int, int]]
"""Number, CRC and size of spans."""


@dataclass(slots=True)
class _Work:
    """What one worker does at once: spans of files, and what these files are."""

    storage: Storage
    files: list[tuple[str, FileStat | None, list[_Span]]]
    size: int = 0
    cost: int = 0

    def __str__(self) -> str:
        (first, _, spans), (last, _, ends) = self.files[0], self.files[-1]
        end = f"byte {ends[-1].offset + ends[-1].size}"
        start = f"{first!r} from byte {spans[0].offset}"
        return f"{start} to {end}" if first == last else f"{start}, to {last!r}, {end}"

    def __call__(self) -> _Found:
        """Compute: number, CRC and size of each span."""
        found: _Found = []
        for path, status, spans in self.files:
            if not is_same(status, self.storage.stat(path)):
                raise StorageError("The file was replaced while it was read", path=path)
            with closing(self.storage.open(path)) as source:
                for group in _group(spans):
                    found += _check_group(source, group)
        return found


def spread_checksums(
    places: Places, files: DataFiles, executor: Executor | None
) -> npt.NDArray[np.int64]:
    """Compute the CRC of every tensor.

    Args:
        places: Where they lie.
        files: Where the files are found, and who is told how far the work is.
        executor: Who works; None: threads, as many as the storage serves best.

    Returns:
        Shape (n,): -1 for those that could not be read.

    Raises:
        StorageError: A worker failed, what it needs cannot be sent to it, or a file cannot be read
            now; the error names the files and the bytes.
        CheckpointError: A file may not be read.
    """
    storage = files.context.storage
    storage = storage.beneath if isinstance(storage, NotedStorage) else storage
    works = list(_iter_work(places, storage))
    found = _by_threads(works, files) if executor is None else _by(executor, works, files)
    pieces: dict[int, list[tuple[int, int]]] = {}
    # In the order of the file, so that the pieces of a tensor are put together in theirs.
    for spans in found:
        for number, crc, size in spans:
            pieces.setdefault(number, []).append((crc, size))
    crcs = np.full(len(places.sizes), -1, np.int64)
    for number, parts in pieces.items():
        if sum(size for _, size in parts) == places.sizes[number]:
            crcs[number] = _combine(parts)
    return crcs


def _by_threads(works: Sequence[_Work], files: DataFiles) -> list[_Found]:
    """Let threads of our own work, which wait for answers most of the time."""
    found: list[_Found] = [[] for _ in works]
    lock = threading.Lock()

    def job(number: int) -> None:
        with suppress(DataLossError, CheckpointNotFoundError):
            found[number] = works[number]()
        with lock:
            files.note_read(works[number].size)

    run_all([partial(job, number) for number in range(len(works))], _THREADS)
    return found


def _by(executor: Executor, works: Sequence[_Work], files: DataFiles) -> list[_Found]:
    running: dict[Future[_Found], _Work] = {}
    try:
        for work in works:
            running[executor.submit(work)] = work
        for future in as_completed(running):
            _raise_failure(future, running[future])
            files.note_read(running[future].size)
        return [[] if future.exception() else future.result() for future in running]
    finally:
        for future in running:
            future.cancel()


def _raise_failure(future: Future[_Found], work: _Work) -> None:
    """Raise what stops the whole work; what is wrong with a file does not."""
    error = future.exception()
    if error is None or isinstance(error, (DataLossError, CheckpointNotFoundError)):
        return
    if isinstance(error, UnsupportedError):
        # The worker is one that cannot read it, such as a forked process; the caller could.
        raise StorageError(f"A worker failed at {work}: {error}") from error
    if isinstance(error, CheckpointError):
        raise error
    raise StorageError(
        f"A worker failed at {work}: {type(error).__name__}: {error}",
        hint="What a worker gets must be picklable, and it must reach the files by the same path",
    ) from error


def _combine(parts: Sequence[tuple[int, int]]) -> int:
    crc = 0
    for part, size in parts:
        crc = combine_crc(crc, part, size)
    return crc


def _iter_work(places: Places, storage: Storage) -> Iterator[_Work]:
    """Cut the work into pieces of about the same cost, in the order of the files."""
    work = _Work(storage, [])
    columns = (places.files.tolist(), places.offsets.tolist(), places.sizes.tolist())
    known: tuple[int, FileStat | None] = (-1, None)
    for number, (file, offset, size) in enumerate(zip(*columns, strict=True)):
        if known[0] != file:
            known = file, storage.stat(places.paths[file])
        done = 0
        while done < size:
            if work.cost >= _BUDGET:
                yield work
                work = _Work(storage, [])
            path = places.paths[file]
            if not work.files or work.files[-1][0] != path:
                work.files.append((path, known[1], []))
                work.cost += _FILE_COST
            count = min(size - done, _BUDGET)
            work.files[-1][2].append(_Span(number, offset + done, count))
            work.cost += count
            work.size += count
            done += count
    if work.files:
        yield work


def is_same(known: FileStat | None, found: FileStat | None, *, absent: bool = True) -> bool:
    """Tell whether a worker finds the file that was meant.

    Args:
        known: What it was.
        found: What the worker finds.
        absent: What to say of a file that is not there: that is told again when it is opened.
    """
    if known == found:
        return True
    if known is None or found is None:
        return absent
    before, now = known.identity, found.identity
    if known.size != found.size or isinstance(before, str) or isinstance(now, str):
        return False
    # On another machine the same file has another device and number, and the same time; bytes in
    # memory lie elsewhere.
    known_time = before[0] if isinstance(before, tuple) else None
    return bool(known_time == (now[0] if isinstance(now, tuple) else None))


def _group(spans: Sequence[_Span]) -> Iterator[list[_Span]]:
    """Put together what is read at once: neighbours, or one that is large."""
    group: list[_Span] = []
    for span in spans:
        if group and span.offset + span.size - group[0].offset > _MOST_READ:
            yield group
            group = []
        group.append(span)
    yield group


def _check_group(source: Source, group: Sequence[_Span]) -> Iterator[tuple[int, int, int]]:
    step = _MOST_READ if source.concurrency is not None else PIECE_SIZE
    if len(group) == 1:
        (span,) = group
        crc = 0
        for start in range(0, span.size, step):
            data = source.read_at(span.offset + start, min(step, span.size - start))
            crc = crc32c(data, crc)
        yield span.number, crc, span.size
        return
    first = group[0].offset
    whole = memoryview(source.read_at(first, group[-1].offset + group[-1].size - first))
    for span in group:
        low = span.offset - first
        yield span.number, crc32c(whole[low : low + span.size]), span.size
