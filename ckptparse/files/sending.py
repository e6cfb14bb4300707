"""Files that are written into a storage other than this machine: several objects, index last.

An object cannot be renamed, and appears when all of it has been sent. So each file is written to a
temporary file without a name first; when all are whole, they are sent in the order they were begun.
If others are replaced, the last of these goes first: whoever looks meanwhile finds no index, and
never one beside data that belongs to another. If sending fails, what has been sent is removed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

from ckptparse.errors import CheckpointError, OutputExistsError, UnsupportedError
from ckptparse.files.local import LOCAL
from ckptparse.files.storage import Storage, WritableStorage

__all__ = ["SentDirectory", "SentFiles", "as_writable", "check_writable"]


@dataclass(slots=True)
class _Spool:
    """A file that is being written, and will be sent."""

    path: str
    kept: BinaryIO
    """Open for as long as it takes, whoever closes the other."""
    stream: BinaryIO

    @classmethod
    def begin(cls, path: str) -> _Spool:
        """Make an empty one."""
        kept = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - closed by `discard`
        return cls(path, kept, os.fdopen(os.dup(kept.fileno()), "w+b"))

    def send(self, storage: WritableStorage, *, overwrite: bool) -> None:
        """Send it."""
        if not self.stream.closed:
            self.stream.flush()
        size = self.kept.seek(0, os.SEEK_END)
        self.kept.seek(0)
        storage.put(self.path, self.kept, size, overwrite=overwrite)

    def discard(self) -> None:
        """Forget it."""
        with suppress(OSError):
            self.stream.close()
        self.kept.close()


class SentFiles:
    """Files that are being written, and are sent together; see `OutputFiles`."""

    def __init__(
        self, storage: WritableStorage, *, overwrite: bool, retired: Collection[str] = ()
    ) -> None:
        self._storage = storage
        self._overwrite = overwrite
        self._retired = list(retired)
        self._spools: dict[str, _Spool] = {}

    def open(self, path: str) -> BinaryIO:
        """Begin a file, which can be written, read back and sought in; the caller closes it.

        Raises:
            OutputExistsError: Something is there, and it may not be replaced.
            ValueError: It has been begun already.
        """
        self._check(path)
        spool = self._spools[path] = _Spool.begin(path)
        return spool.stream

    def rename(self, path: str, new: str) -> None:
        """Let a file be sent under another name than it was begun with."""
        self._check(new)
        spools = {new if key == path else key: one for key, one in self._spools.items()}
        spools[new].path = new
        self._spools = spools

    def finish(self) -> None:
        """Send every file."""
        spools = list(self._spools.values())
        if self._overwrite and len(spools) > 1:
            former = dict.fromkeys([spool.path for spool in reversed(spools)] + self._retired)
            for path in former:
                if self._storage.stat(path) is not None:
                    self._storage.remove(path)
        sent: list[str] = []
        try:
            for spool in spools:
                spool.send(self._storage, overwrite=self._overwrite)
                sent.append(spool.path)
        except BaseException:
            for path in reversed(sent):
                with suppress(CheckpointError):
                    self._storage.remove(path)
            raise
        self.discard()

    def discard(self) -> None:
        """Forget what has not been sent."""
        for spool in self._spools.values():
            spool.discard()
        self._spools.clear()

    def _check(self, path: str) -> None:
        if path in self._spools:
            raise ValueError(f"{path!r} has been begun already")
        status = self._storage.stat(path)
        if status is not None and (status.kind == "directory" or not self._overwrite):
            raise _exists(path)


class SentDirectory:
    """Files below one name that are sent together; see `OutputDirectory`."""

    def __init__(
        self,
        storage: WritableStorage,
        path: str,
        *,
        overwrite: bool,
        may_replace: Callable[[Collection[str]], bool],
    ) -> None:
        self.path: str | None = path
        self._place = path.rstrip("/")
        self._storage = storage
        self._overwrite = overwrite
        self._may_replace = may_replace
        self._files = SentFiles(storage, overwrite=overwrite)
        self._former: list[str] = []

    def make(self) -> None:
        """See that it may be written."""
        status = self._storage.stat(self._place)
        if status is None:
            return
        names = self._storage.list(self._place)
        if not self._overwrite or status.kind != "directory" or not self._may_replace(names):
            raise _exists(self._place)
        self._former = [self._storage.join(self._place, name) for name in names]

    def open(self, name: str) -> BinaryIO:
        """Begin a file in it; the caller closes it."""
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"{name!r} is no name of a file in a directory")
        return self._files.open(self._storage.join(self._place, name))

    def finish(self) -> None:
        """Send every file, in place of those that were there."""
        for path in self._former:
            self._storage.remove(path)
        self._files.finish()

    def discard(self) -> None:
        """Forget what has not been sent."""
        self._files.discard()


def check_writable(storage: Storage, path: str) -> None:
    """Raise `UnsupportedError` unless files can be written there."""
    if storage is not LOCAL:
        as_writable(storage, path)


def as_writable(storage: Storage, path: str) -> WritableStorage:
    """Return a storage as one that can be written.

    Raises:
        UnsupportedError: It cannot.
    """
    can = all(callable(getattr(storage, name, None)) for name in ("put", "remove"))
    if not can or getattr(storage, "read_only", False):
        raise UnsupportedError(
            f"What this path leads to ({type(storage).__name__}) can be read only",
            path=path,
            hint="Write to this machine, to a bucket, or to a file system of fsspec",
        )
    return cast(WritableStorage, storage)


def _exists(path: str) -> OutputExistsError:
    return OutputExistsError(
        "Something is there already, and nothing is ever replaced unasked",
        path=path,
        hint="Choose another name, or ask to overwrite it",
    )
