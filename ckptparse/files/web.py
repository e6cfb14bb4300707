"""Read files of a web server by range, with `obstore`. Most such servers give no lists.

So a name is looked for by a request for the first bytes of its file. The answer has the size and
the ETag as well, and is kept: a small file is read by that one request. A data file that an index
names is not looked for at all: the first range that is read of it tells its size.

Those that give lists speak WebDAV; each is asked, once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    NotACheckpointError,
    PermissionDeniedError,
    StorageError,
    UnsupportedError,
)
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.ranges import RangeSource, body_of, check_count, copy_into, pour
from ckptparse.files.remote import ObjectStorage, ask, is_outside, matching, stat_of
from ckptparse.files.storage import FileStat, check_range

__all__ = ["WebSource", "WebStorage"]

Result = TypeVar("Result")

_FIRST = 64 << 10
"""First bytes of a file that come with the answer whether it is there."""
_FIRST_OF_INDEX = 8 << 20
"""The same for an index, which is read as a whole: it has some 130,000 entries then."""
_KEPT = 32 << 20
"""First bytes that are kept, of all files together."""


class WebSource(RangeSource):
    """A file of a web server. Its size is that of the first answer."""

    __slots__ = ("_key", "_storage", "path")

    def __init__(self, storage: WebStorage, path: str, key: str) -> None:
        self.path = path
        self._storage = storage
        self._key = key

    @property
    def known_size(self) -> int | None:
        """The size, if an answer has told it; None if it would take a request."""
        status = self._storage.known(self._key)
        return None if status is None else status.size

    @property
    def size(self) -> int:
        """The size; that takes a request unless it is known.

        Raises:
            CheckpointNotFoundError: The file is not there.
        """
        known = self._storage.known(self._key)
        return (known or self._storage.ask_for_size(self.path, self._key)).size

    def _read(self, offset: int, size: int) -> memoryview:
        if self.known_size is not None or offset < 0:
            check_range(self, offset, size)
        if not size:
            return memoryview(b"")
        return self._storage.read(self.path, self._key, offset, size)

    def _fill(self, offset: int, buffer: memoryview) -> None:
        if self.known_size is not None or offset < 0:
            check_range(self, offset, len(buffer))
        if buffer:
            self._storage.read_into(self.path, self._key, offset, buffer)


class WebStorage(ObjectStorage):
    """An `obstore` store of a web server as a file system.

    Attributes:
        root: The start of all paths, such as `https://host/`; empty if paths are the keys.
    """

    asks_for_first = True
    """Whether the answer that a file is there is to come with its first bytes."""

    def __init__(self, store: Any, *, root: str = "", once: Any = None) -> None:
        """Take the store, and one that asks only once and does not wait long."""
        super().__init__(store, root=root, reader=None if once is None else store)
        self._once = store if once is None else once
        self._lists: bool | None = None
        self._answers: dict[str, FileStat | None] = {}
        self._firsts: OrderedDict[str, bytes] = OrderedDict()

    @property
    def read_only(self) -> bool:
        """Web servers only give."""
        return True

    @property
    def lists(self) -> bool:
        """Whether the server gives lists; it is asked when it first matters."""
        with self._lock:
            if self._lists is None:
                self._lists = self._ask_for_list("")
            return self._lists

    def open(self, path: str) -> WebSource:  # type: ignore[override] # both are sources
        """Open a file, after it was looked for."""
        status = self.stat(path)
        if status is None:
            raise CheckpointNotFoundError("No such file", path=path)
        if status.kind != "file":
            raise NotACheckpointError("Expected a file, found a directory", path=path)
        return self.open_later(path)

    def open_later(self, path: str) -> WebSource:
        """Open a file without looking for it: that it is not there is told by the first read."""
        return WebSource(self, path, self._key(path))

    def stat(self, path: str) -> FileStat | None:
        """Tell what is at a path; no directory is known of a server without lists."""
        key = self._key(path)
        if not key:
            return FileStat("directory")
        if is_outside(key):
            return None
        if self.lists:
            return super().stat(path)
        found = self.look(path, key)
        if found is None and self._known_below(key):
            return FileStat("directory")
        return found

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what is in a directory; of a server without lists, what was found there so far."""
        if self.lists:
            return super().list(directory)
        place = self._key(directory)
        found: dict[str, FileStat] = {}
        for key, status in self._known_below(place).items():
            name, slash, _ = key[len(place) :].lstrip("/").partition("/")
            found[name] = FileStat("directory") if slash else status
        return {name: found[name] for name in sorted(found)}

    def _known_below(self, key: str) -> dict[str, FileStat]:
        start = f"{key}/" if key else ""
        with self._lock:
            known = list(self._answers.items())
        return {key: status for key, status in known if status and key.startswith(start)}

    # What is known of a file.

    def known(self, key: str) -> FileStat | None:
        """Return what answers have told of a file; None if nothing, or that it is not there."""
        with self._lock:
            return self._answers.get(key)

    def look(self, path: str, key: str) -> FileStat | None:
        """Look for a file, once; None if it is not there."""
        with self._lock:
            if key in self._answers:
                return self._answers[key]
        try:
            if not self.asks_for_first:
                return self.ask_for_size(path, key)
            return self._ask_for_first(path, key)
        except CheckpointNotFoundError:
            with self._lock:
                return self._answers.setdefault(key, None)

    def ask_for_size(self, path: str, key: str) -> FileStat:
        """Ask for no bytes of a file, only what it is."""
        head = ask(path, lambda: self._store.head(key), retries=self.retries)
        return self._note(path, key, stat_of(head))

    def read(self, path: str, key: str, offset: int, size: int) -> memoryview:
        """Return exactly these bytes of a file; those that came with its first bytes are kept."""
        held = self._held(key, offset, size)
        if len(held) == size:
            return held
        rest = memoryview(b"")
        missing = size - len(held)

        def receive(answer: Any) -> int:
            nonlocal rest
            rest = memoryview(body_of(answer, missing))
            return len(rest)

        self._ask_for_range(path, key, offset + len(held), missing, receive)
        return memoryview(b"".join((held, rest))) if held else rest

    def read_into(self, path: str, key: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`, while they come."""
        held = self._held(key, offset, len(buffer))
        if held:
            copy_into(buffer[: len(held)], held)
        rest = buffer[len(held) :]
        if rest:
            start = offset + len(held)
            self._ask_for_range(path, key, start, len(rest), lambda answer: pour(answer, rest))

    def _held(self, key: str, offset: int, size: int) -> memoryview:
        with self._lock:
            first = self._firsts.get(key, b"")
        return memoryview(first)[offset : offset + size]

    def forget(self, path: str) -> None:
        """Forget what is known of a file, so that it is asked for again."""
        super().forget(path)
        with self._lock:
            self._answers.pop(self._key(path), None)
            self._firsts.pop(self._key(path), None)

    def _note(self, path: str, key: str, status: FileStat) -> FileStat:
        """Remember what an answer tells of a file; raise if an earlier one told something else."""
        with self._lock:
            known = self._answers.get(key) or status
            self._answers[key] = known
        if known != status:
            raise StorageError(
                "The file was replaced while it was read",
                path=path,
                hint="Read it again when no other program writes to it",
            )
        return known

    def _ask_for_first(self, path: str, key: str) -> FileStat:
        size = _FIRST_OF_INDEX if key.endswith(INDEX_SUFFIX) else _FIRST
        try:
            status, first = self._get(
                path, key, (0, size), {}, lambda answer: body_of(answer, size)
            )
        except (CheckpointNotFoundError, PermissionDeniedError):
            raise
        except (StorageError, UnsupportedError):
            # An empty file has no first byte, and a server may give no ranges.
            head = ask(path, lambda: self._once.head(key))
            return self._note(path, key, stat_of(head))
        check_count(path, 0, min(size, status.size), len(first))
        self._note(path, key, status)
        with self._lock:
            self._firsts[key] = bytes(first)
            while sum(map(len, self._firsts.values())) > _KEPT:
                self._firsts.popitem(last=False)
        return status

    def _ask_for_range(
        self, path: str, key: str, offset: int, size: int, receive: Callable[[Any], int]
    ) -> None:
        """Ask for a range; `receive` takes the answer and returns how many bytes have come."""
        known = self.known(key)
        match = matching(None if known is None else known.identity)
        try:
            status, count = self._get(path, key, (offset, offset + size), match, receive)
        except (CheckpointNotFoundError, PermissionDeniedError):
            raise
        except StorageError:
            # A range that begins beyond the end is refused.
            if known is None:
                check_range(WebSource(self, path, key), offset, size)
            raise
        self._note(path, key, status)
        check_range(WebSource(self, path, key), offset, size)
        check_count(path, offset, size, count)

    def _get(
        self,
        path: str,
        key: str,
        wanted: tuple[int, int],
        match: Mapping[str, Any],
        receive: Callable[[Any], Result],
    ) -> tuple[FileStat, Result]:
        options = {"range": wanted, **match}

        def request() -> tuple[FileStat, Result]:
            answer = self._store.get(key, options=options)
            return stat_of(answer.meta), receive(answer)

        return ask(path, request, retries=self.retries)

    def _ask_for_list(self, directory: str) -> bool:
        try:
            self._listed[directory] = self._list_of(directory, self._once)
        except CheckpointError:
            return False
        return True

    def __getstate__(self) -> tuple[Any, ...]:
        return self._store, self.root, None if self.retries is None else self._once

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        store, root, once = state
        self.__init__(store, root=root, once=once)  # type: ignore[misc] # makes a new lock
