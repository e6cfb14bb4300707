"""Open sources when they are first needed, only so many at a time, for any number of shards."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from ckptparse.errors import ClosedError
from ckptparse.files.storage import Source, Storage, open_later
from ckptparse.locks import make_lock

__all__ = ["SourcePool"]


class SourcePool:
    """Files that are opened when first needed. If too many are open, the least recently used close.

    Several threads may use it at once. A file in use is never closed.

    The usual bound is 64 files, a quarter of what the strictest systems allow a process.
    """

    def __init__(self, storage: Storage, *, capacity: int = 64) -> None:
        self._storage = storage
        self._capacity = capacity
        self._lock = make_lock()
        self._open: OrderedDict[str, Source] = OrderedDict()
        self._users: dict[str, int] = {}
        self._maps: WeakSet[mmap.mmap] = WeakSet()
        self._closed = False

    @contextmanager
    def borrow(self, path: str) -> Iterator[Source]:
        """Return the open file of that path, for use in a `with` statement."""
        source = self.take(path)
        try:
            yield source
        finally:
            self.give_back(path)

    def take(self, path: str) -> Source:
        """Return the open file of that path; each call is followed by one of `give_back`."""
        with self._lock:
            if self._closed:
                raise ClosedError("The checkpoint has been closed", path=path)
            source = self._open.get(path)
            if source is None:
                source = self._open[path] = open_later(self._storage, path)
            self._open.move_to_end(path)
            self._users[path] = self._users.get(path, 0) + 1
            return source

    def give_back(self, path: str) -> None:
        """Let the file of that path be closed when others need its place."""
        with self._lock:
            self._users[path] -= 1
            if not self._users[path]:
                del self._users[path]
            self._evict(0 if self._closed else self._capacity)

    def map(self, source: Source) -> mmap.mmap | None:
        """Map an open file; None if too many are mapped already, or if the system refuses.

        A map keeps the file open as long as anything refers to it.
        """
        with self._lock:
            if len(self._maps) >= self._capacity:
                return None
            try:
                mapped = source.map()
            except OSError:
                return None
            if mapped is not None:
                self._maps.add(mapped)
            return mapped

    def close(self) -> None:
        """Close every file, now or when its last read has ended. Maps stay."""
        with self._lock:
            self._closed = True
            self._evict(0)

    def _evict(self, capacity: int) -> None:
        if len(self._open) <= capacity:
            return
        idle = [path for path in self._open if path not in self._users]
        for path in idle[: len(self._open) - capacity]:
            self._open.pop(path).close()
