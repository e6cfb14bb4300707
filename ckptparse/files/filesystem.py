"""Read files of any file system that `fsspec` knows: `hf://`, `memory://`, `hdfs://`, `zip://…::…`.

Only the methods that all of them have are used: `info`, `ls` and `cat_file`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ckptparse.errors import (
    CheckpointNotFoundError,
    NotACheckpointError,
    PermissionDeniedError,
    StorageError,
    UnsupportedError,
)
from ckptparse.files.remote import RemoteSource
from ckptparse.files.storage import FileKind, FileStat

__all__ = ["FilesystemStorage", "open_url"]

Result = TypeVar("Result")

_KINDS: Mapping[str, FileKind] = {"file": "file", "directory": "directory"}
_TAGS = ("ETag", "etag", "generation", "mtime")


class FilesystemStorage:
    """An `fsspec` file system. Paths are those of the file system, without a scheme."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def open(self, path: str) -> RemoteSource:
        """Open a file. Its size is the one that the file system states."""
        status = self.stat(path)
        if status is None:
            raise CheckpointNotFoundError("No such file", path=path)
        if status.kind != "file":
            raise NotACheckpointError("Expected a regular file, found a directory", path=path)

        def fetch(offset: int, size: int) -> Any:
            return _ask(
                path, lambda: self._filesystem.cat_file(path, start=offset, end=offset + size)
            )

        return RemoteSource(path, status.size, fetch)

    def stat(self, path: str) -> FileStat | None:
        """Tell what is at a path; None if nothing is."""
        try:
            return _stat(_ask(path, lambda: self._filesystem.info(path)))
        except (CheckpointNotFoundError, NotACheckpointError):
            return None

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what is in a directory; nothing if there is no such directory."""
        status = self.stat(directory) if directory else FileStat("directory")
        if status is None or status.kind != "directory":
            return {}
        found = _ask(directory, lambda: self._filesystem.ls(directory, detail=True))
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
        return posixpath.split(path)


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
    return path, FilesystemStorage(filesystem)


def _stat(info: Mapping[str, Any]) -> FileStat:
    kind = _KINDS.get(info["type"], "other")
    if kind != "file":
        return FileStat(kind)
    identity = next((info[tag] for tag in _TAGS if info.get(tag) is not None), None)
    return FileStat("file", int(info["size"] or 0), None if identity is None else str(identity))


def _ask(path: str, request: Callable[[], Result]) -> Result:
    """Ask the file system; if it fails, say why without its words, which may have a password."""
    try:
        return request()
    except FileNotFoundError:
        raise CheckpointNotFoundError("No such file", path=path) from None
    except (NotADirectoryError, IsADirectoryError):
        raise NotACheckpointError("Expected a regular file", path=path) from None
    except PermissionError:
        raise PermissionDeniedError(
            "The file system does not allow reading it", path=path
        ) from None
    except Exception as error:  # noqa: BLE001 - each plugin has errors of its own
        kind = type(error).__name__
    raise StorageError(f"The file system did not answer ({kind})", path=path)
