"""Read files of any file system that `fsspec` knows: `hf://`, `memory://`, `hdfs://`, `zip://…::…`.

Only the methods that all of them have are used: `info`, `ls` and `cat_file`.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO, TypeVar

from ckptparse.errors import (
    CheckpointNotFoundError,
    NotACheckpointError,
    OutputExistsError,
    PermissionDeniedError,
    StorageError,
    UnsupportedError,
)
from ckptparse.files.ranges import RemoteSource
from ckptparse.files.storage import FileKind, FileStat, split_name

__all__ = ["FilesystemStorage", "open_url", "place_of"]

Result = TypeVar("Result")

_KINDS: Mapping[str, FileKind] = {"file": "file", "directory": "directory"}
_PIECE = 8 << 20
_WRITE = "writing"
_TAGS = ("ETag", "etag", "generation", "blob_id")
"""What file systems call what changes with a file."""
_TIMES = ("mtime", "LastModified", "created")
"""The same, less surely, if they have none of those."""
_LOOK_AGAIN = 1.0
"""Seconds between two looks at whether a file is still the same: each costs a request."""


class FilesystemStorage:
    """An `fsspec` file system. Paths are those of the file system, without a scheme.

    Attributes:
        root: If they are URLs all the same, what these begin with, such as `hf://`: what a function
            returns can be given to the next one then.
    """

    def __init__(self, filesystem: Any, *, root: str = "") -> None:
        self.root = root
        self._filesystem = filesystem

    def open(self, path: str) -> RemoteSource:
        """Open a file. Its size is the one that the file system states."""
        status = self.stat(path)
        if status is None:
            raise CheckpointNotFoundError("No such file", path=path)
        if status.kind != "file":
            raise NotACheckpointError("Expected a regular file, found a directory", path=path)

        inside, looked = self._inside(path), time.monotonic()

        def fetch(offset: int, size: int) -> Any:
            nonlocal looked
            data = _ask(
                path, lambda: self._filesystem.cat_file(inside, start=offset, end=offset + size)
            )
            if time.monotonic() - looked >= _LOOK_AGAIN:
                self._filesystem.invalidate_cache()
                if self.stat(path) != status:
                    raise StorageError(
                        "The file was replaced while it was read",
                        path=path,
                        hint="Read it again, when nobody writes to it",
                    )
                looked = time.monotonic()
            return data

        return RemoteSource(path, status.size, fetch)

    def stat(self, path: str) -> FileStat | None:
        """Tell what is at a path; None if nothing is."""
        try:
            return _stat(_ask(path, lambda: self._filesystem.info(self._inside(path))))
        except (CheckpointNotFoundError, NotACheckpointError):
            return None

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what is in a directory; nothing if there is no such directory."""
        status = self.stat(directory) if directory else FileStat("directory")
        if status is None or status.kind != "directory":
            return {}
        found = _ask(directory, lambda: self._filesystem.ls(self._inside(directory), detail=True))
        names = {posixpath.basename(info["name"].rstrip("/")): _stat(info) for info in found}
        return {name: names[name] for name in sorted(names) if name}

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return name if directory in ("", ".") else posixpath.join(directory, name)

    def real(self, path: str) -> str:
        """Return the path: links are followed by the file system itself."""
        return path

    def split(self, path: str) -> tuple[str, str]:
        """Return the directory and the last name of a path."""
        root = self.root if path.startswith(self.root) else ""
        directory, name = split_name(path[len(root) :])
        return root + directory, name

    def forget(self, path: str) -> None:  # noqa: ARG002 - of a list all is forgotten
        """Forget what is known of a file, so that it is asked for again."""
        self._filesystem.invalidate_cache()

    def scope(self, path: str) -> str | None:
        """Return what tells its files from those of others; None if it does not say what it is."""
        try:
            told = self._filesystem.to_json(include_password=False)
            return f"{told}\n{self._filesystem.unstrip_protocol(self._inside(path))}"
        except Exception:  # noqa: BLE001 - each plugin has errors of its own
            return None

    def put(self, path: str, file: BinaryIO, size: int, *, overwrite: bool) -> None:
        """Write a file, piece by piece; see `WritableStorage`."""
        if not overwrite and self.stat(path) is not None:
            raise OutputExistsError("Something is there already", path=path)
        out = _ask(path, lambda: self._filesystem.open(self._inside(path), "wb"), to=_WRITE)
        try:
            for _ in range(0, size, _PIECE):
                _ask(path, partial(out.write, file.read(_PIECE)), to=_WRITE)
        except BaseException:
            # To close it would let half of it appear.
            with suppress(Exception):
                out.discard()
            out.closed = True
            raise
        _ask(path, out.close, to=_WRITE)
        self._filesystem.invalidate_cache()

    def remove(self, path: str) -> None:
        """Remove a file; see `WritableStorage`."""
        _ask(path, lambda: self._filesystem.rm_file(self._inside(path)), to=_WRITE)
        self._filesystem.invalidate_cache()

    def _inside(self, path: str) -> str:
        """Return what the file system itself calls a path."""
        if not self.root or not path.startswith(self.root):
            return path
        inside: str = self._filesystem._strip_protocol(path)  # noqa: SLF001 - for plugins to have
        return inside


def open_url(url: str) -> tuple[str, FilesystemStorage]:
    """Return the path and the storage of a URL that `fsspec` knows.

    Raises:
        UnsupportedError: `fsspec` is not installed, or none of its plugins knows the scheme.
    """
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise UnsupportedError(
            f"Reading from {scheme}:// needs the package fsspec, and its plugin for {scheme}",
            hint="pip install fsspec; for buckets and web servers pip install 'ckptparse[remote]'",
        ) from error
    try:
        filesystem, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UnsupportedError(
            f"fsspec has no plugin for {scheme}://",
            hint="Install the plugin that the documentation of fsspec names for it",
        ) from error
    # There a path is the whole URL, and would stand in messages.
    secret = path.startswith("http") and ("?" in path or "@" in path.split("/")[2])
    if secret:
        raise UnsupportedError(
            f"A URL of {scheme}:// with a user, a password or a query is read by obstore only",
            hint="pip install 'ckptparse[remote]'",
        )
    return place_of(url, path, filesystem)


def place_of(url: str, path: str, filesystem: Any) -> tuple[str, FilesystemStorage]:
    """Return the path and the storage of what has a URL, and a path in its file system.

    The path is the URL, so that what a function returns can be given to the next one. But in a
    chain, what follows is another URL; and before an @ may stand a password.
    """
    scheme, mark, rest = url.partition("://")
    if not mark or "::" in url or "?" in url or "@" in rest.partition("/")[0]:
        return path, FilesystemStorage(filesystem)
    return url, FilesystemStorage(filesystem, root=scheme + mark)


def _stat(info: Mapping[str, Any]) -> FileStat:
    kind = _KINDS.get(info["type"], "other")
    if kind != "file":
        return FileStat(kind)
    size = int(info["size"] or 0)
    tag = next((tag for tag in (*_TAGS, *_TIMES) if info.get(tag) is not None), None)
    if tag is None:
        return FileStat("file", size)
    value = info[tag]
    if isinstance(value, datetime):
        # A listing may give the same time as a number.
        value = value.timestamp()
    # Another file may have the same time.
    return FileStat("file", size, (str(value),) if tag in _TIMES else str(value))


def _ask(path: str, request: Callable[[], Result], *, to: str = "reading") -> Result:
    """Ask the file system, and say why that failed without its words: they may hold a password."""
    try:
        return request()
    except Exception as error:  # noqa: BLE001 - each plugin has errors of its own
        kind = type(error)
    # From here on without the error, so that nobody who looks at what came before finds it.
    if issubclass(kind, FileNotFoundError):
        raise CheckpointNotFoundError("No such file", path=path)
    if issubclass(kind, (NotADirectoryError, IsADirectoryError)):
        raise NotACheckpointError("Expected a regular file", path=path)
    if issubclass(kind, PermissionError):
        raise PermissionDeniedError(f"The file system does not allow {to} it", path=path)
    raise StorageError(f"The file system did not answer ({kind.__name__})", path=path)
