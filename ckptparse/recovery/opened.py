"""Files that were converted or packed, kept open while many tensors are read.

To open one, all of it is read: only then is it known where the bytes are that it had before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from ckptparse.examination.readers import DataFile
from ckptparse.files.storage import Source, Storage
from ckptparse.locks import make_lock

__all__ = ["OpenedFiles"]

_MOST = 4
"""Files that are kept. Each holds marks and a few pieces, a member of a zip its bytes."""


class OpenedFiles:
    """The files of one recovery. Those that were converted stay open within `keep`."""

    __slots__ = ("_keepers", "_kept", "_lock")

    def __init__(self) -> None:
        self._kept: dict[DataFile, Source] = {}
        self._keepers = 0
        self._lock = make_lock()

    def __reduce__(self) -> tuple[type[OpenedFiles], tuple[()]]:
        return OpenedFiles, ()  # Nothing is open in another process.

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Keep what is opened from now on."""
        with self._lock:
            self._keepers += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers -= 1
                if not self._keepers:
                    self._kept.clear()

    @contextmanager
    def borrow(self, file: DataFile, storage: Storage) -> Iterator[Source]:
        """Give an open file, for use in a `with` statement; raises as `DataFile.open` does."""
        if file.undo is None or not self._keepers:
            with closing(file.open(storage)) as source:
                yield source
            return
        with self._lock:
            kept = self._kept.get(file)
        if kept is None:
            kept = file.open(storage)
            with self._lock:
                # While it was opened, the last `keep` may have ended.
                if self._keepers:
                    self._kept[file] = kept
                # It is closed when nobody uses it any more: another thread may read it now.
                if len(self._kept) > _MOST:
                    del self._kept[next(iter(self._kept))]
        yield kept
