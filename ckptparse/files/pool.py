"""Sources opened when first needed, a bounded number at a time, however many shards there are."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from ckptparse.errors import ClosedError
from ckptparse.files.storage import Source, Storage
from ckptparse.locks import make_lock

__all__ = ["SourcePool"]


class SourcePool:
    """Files opened when first needed, the least recently used closed beyond a bound.

    Safe to use from several threads at once; a file in use is never closed.
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
        """Give the open file of that path for as long as the context lasts."""
        source = self._take(path)
        try:
            yield source
        finally:
            self._give_back(path)

    def map(self, source: Source) -> mmap.mmap | None:
        """Map an open file; None where as many are mapped as may be, or the system refuses.

        A map has an open file of its own for as long as anything refers to it.
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
        """Close every file, now or when its last user is done. Maps stay."""
        with self._lock:
            self._closed = True
            self._evict(0)

    def _take(self, path: str) -> Source:
        with self._lock:
            if self._closed:
                raise ClosedError("The checkpoint has been closed", path=path)
            source = self._open.get(path)
            if source is None:
                source = self._open[path] = self._storage.open(path)
            self._open.move_to_end(path)
            self._users[path] = self._users.get(path, 0) + 1
            return source

    def _give_back(self, path: str) -> None:
        with self._lock:
            self._users[path] -= 1
            if not self._users[path]:
                del self._users[path]
            self._evict(0 if self._closed else self._capacity)

    def _evict(self, capacity: int) -> None:
        if len(self._open) <= capacity:
            return
        idle = [path for path in self._open if path not in self._users]
        for path in idle[: len(self._open) - capacity]:
            self._open.pop(path).close()
