"""Pieces of files that are searched: by the caller, or by the workers of any executor.

A worker gets what can be pickled: the storage, which bytes of which file, and what is sought. It
gives back offsets. Results come in the order of the pieces, so that whoever searches finds the
same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptparse.crc.search import Registers
from ckptparse.crc.windows import Wanted
from ckptparse.errors import CheckpointError, StorageError
from ckptparse.files.noted import NotedStorage
from ckptparse.files.storage import FileStat, Source, Storage

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

__all__ = ["CALLER", "Found", "Piece", "Workers"]

_AHEAD = 32
"""Pieces that are given to an executor before the result of the first is taken."""

Found = dict[tuple[int, Wanted], list[int]]
"""Offsets in a piece, by the remainder and what was sought there."""
_Sent = list[tuple[int, int, list[int]]]
"""The same as plain numbers: remainder, which of those sought there, offsets. Some engines send
tuples with names as others."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file, and what is sought in them.

    Attributes:
        start: The first byte.
        size: How many bytes are read.
        most: Where runs may begin: before this offset in the piece. The rest is overlap.
        step: Runs are sought at multiples of it,
        wanted: beginning with an offset: what is sought, by this remainder.
    """

    start: int
    size: int
    most: int
    step: int
    wanted: Mapping[int, tuple[Wanted, ...]]

    def search(self, source: Source) -> Found:
        """Search the piece in an open file."""
        data = memoryview(source.read_at(self.start, self.size))
        return {
            (remainder, item): [remainder + at for at in offsets if remainder + at < self.most]
            for remainder, wanted in self.wanted.items()
            for item, offsets in Registers(data[remainder:], step=self.step)
            .find_each(wanted)
            .items()
            if offsets
        }


@dataclass(frozen=True, slots=True)
class _Work:
    """A piece, and what a worker needs to open its file."""

    storage: Storage
    path: str
    status: FileStat | None
    piece: Piece

    def __call__(self) -> _Sent:
        # Imported only now: it brings what executors need with it.
        from ckptparse.examination.spread import is_same

        if not is_same(self.status, self.storage.stat(self.path)):
            raise StorageError("The file was replaced while it was read", path=self.path)
        with closing(self.storage.open(self.path)) as source:
            found = self.piece.search(source)
        return [
            (remainder, self.piece.wanted[remainder].index(item), offsets)
            for (remainder, item), offsets in found.items()
        ]

    def received(self, sent: _Sent) -> Found:
        """Turn what a worker sent into what was found."""
        wanted = self.piece.wanted
        return {
            (remainder, wanted[remainder][number]): list(offsets)
            for remainder, number, offsets in sent
        }

    def __str__(self) -> str:
        end = self.piece.start + self.piece.size
        return f"{self.path!r} from byte {self.piece.start} to byte {end}"


class Workers:
    """Those who search.

    Attributes:
        failure: What a worker failed with, or that it reaches another file. It tells this from what
            is wrong with the file: that is no reason to stop.
    """

    __slots__ = ("_executor", "_storage", "failure")

    def __init__(self, executor: Executor | None = None, storage: Storage | None = None) -> None:
        """Take an executor, and where files are opened; without them the caller searches."""
        self._executor = executor
        self._storage = storage.beneath if isinstance(storage, NotedStorage) else storage
        self.failure: CheckpointError | None = None

    def search(
        self, source: Source, pieces: Iterable[Piece], *, path: str | None
    ) -> Iterator[tuple[Piece, Found]]:
        """Iterate over pieces and what is in them, in their order.

        Args:
            source: The file.
            pieces: What to search. Without an executor, each is asked for after the last is done.
            path: By which workers find the file; None if they cannot: then the caller searches.

        Raises:
            StorageError: A worker failed; the error names the file and the bytes.
            CheckpointError: The file cannot be read.
        """
        if self._executor is None or self._storage is None or path is None:
            for piece in pieces:
                yield piece, piece.search(source)
            return
        running: deque[tuple[_Work, Future[_Sent]]] = deque()
        status = self._storage.stat(path)
        try:
            for piece in pieces:
                work = _Work(self._storage, path, status, piece)
                running.append((work, self._executor.submit(work)))
                if len(running) == _AHEAD:
                    yield self._done(*running.popleft())
            while running:
                yield self._done(*running.popleft())
        finally:
            for _, future in running:
                future.cancel()

    def _done(self, work: _Work, future: Future[_Sent]) -> tuple[Piece, Found]:
        error = future.exception()
        if error is None:
            return work.piece, work.received(future.result())
        if isinstance(error, StorageError):
            self.failure = error
        if isinstance(error, CheckpointError):
            raise error
        self.failure = StorageError(
            f"A worker failed at {work}: {type(error).__name__}: {error}",
            hint="What a worker gets must be picklable, and it must reach the files by the same "
            "path",
        )
        raise self.failure from error


CALLER = Workers()
"""Nobody else: the caller searches."""
