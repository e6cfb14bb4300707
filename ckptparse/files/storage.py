"""The contract of storages: a `Storage` finds files, and a `Source` is one open file.

Paths have the form of the storage: those of the system on this machine, names in a mapping. Only
the storage splits and joins them.
"""

from __future__ import annotations

import mmap
import posixpath
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from ckptparse.errors import TruncatedError

__all__ = [
    "Buffer",
    "Content",
    "FileKind",
    "FileStat",
    "ReadInto",
    "Source",
    "Storage",
    "WritableStorage",
    "check_range",
    "expect",
    "held_bytes",
    "hold",
    "is_file",
    "known_size",
    "look_again",
    "names_of_files",
    "open_later",
    "split_name",
]

Buffer = bytes | bytearray | memoryview
"""Bytes in memory."""
Content = Buffer | BinaryIO
"""What a mapping has for a name: bytes, or a file object that can be read and can seek."""
ReadInto = Callable[[int, memoryview], None]
"""Fills a buffer with the bytes of a file at an offset."""

FileKind = Literal["file", "directory", "dangling", "other"]
"""`dangling`: a link to nothing; `other`: a FIFO, a device, a socket."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a storage says of a path without reading the file."""

    kind: FileKind
    size: int = 0
    """In bytes; 0 if it is no file."""
    identity: Hashable = None
    """Of a file, changes if the content changes: time and inode, an ETag, a generation. Of a
    directory, is the same under every link to it. None: not known."""
    target: str | None = None
    """The target of a link to nothing."""


class Source(Protocol):
    """One open file. Any number of threads read at positions; a read gives all bytes or fails."""

    @property
    def path(self) -> str:
        """The path it was opened by."""
        ...

    @property
    def size(self) -> int:
        """Its size in bytes when it was opened."""
        ...

    @property
    def piece(self) -> int:
        """How many bytes one request should ask for at most."""
        ...

    @property
    def gap(self) -> int:
        """Ranges that are less than so many bytes apart are better read as one."""
        ...

    @property
    def concurrency(self) -> int | None:
        """How many requests at a time are best; None: as many as there are processors."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`; `TruncatedError` if the file ends before them."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`; `TruncatedError` if the file ends before."""
        ...

    def map(self) -> mmap.mmap | None:
        """Map the whole file copy-on-write; None if this storage cannot do it."""
        ...

    def close(self) -> None:
        """Close it; closing twice is harmless."""
        ...


class Storage(Protocol):
    """Files by path. It can be pickled, so that workers can open the caller's files."""

    def open(self, path: str) -> Source:
        """Open a file.

        Raises:
            CheckpointNotFoundError: There is no such file.
            NotACheckpointError: It is no regular file.
            PermissionDeniedError: It may not be read.
        """
        ...

    def stat(self, path: str) -> FileStat | None:
        """Tell what is at a path; None if nothing is.

        Raises:
            PermissionDeniedError: A directory on the way may not be entered.
        """
        ...

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what is in a directory, sorted by name; nothing if there is no such directory.

        Raises:
            PermissionDeniedError: It may not be listed.
        """
        ...

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory; the empty directory is the current one."""
        ...

    def real(self, path: str) -> str:
        """Return the path of the same file with links followed and without `.` and `..`."""
        ...

    def split(self, path: str) -> tuple[str, str]:
        """Return the directory and the last name of a path; `join` gives the path again."""
        ...


class WritableStorage(Storage, Protocol):
    """A storage into which files can be written, each as a whole."""

    def put(self, path: str, file: BinaryIO, size: int, *, overwrite: bool) -> None:
        """Write what a file holds from where it is; it appears when all of it is there.

        Args:
            path: Under which name.
            file: Its content, in memory or not: no more than some MiB are held at once.
            size: In bytes.
            overwrite: Whether a file of that name is replaced.

        Raises:
            OutputExistsError: There is one, and it may not be replaced.
            PermissionDeniedError: Nobody may write there.
            StorageError: It could not be written, for another reason.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove a file.

        Raises:
            PermissionDeniedError: Nobody may.
            StorageError: It could not be removed, for another reason.
        """
        ...


def is_file(storage: Storage, path: str) -> bool:
    """Tell whether a file is at a path."""
    status = storage.stat(path)
    return status is not None and status.kind == "file"


def open_later(storage: Storage, path: str) -> Source:
    """Open a file that will be read for sure.

    Some storages do not ask for it now: that it is not there, and its size, is told by a read.
    """
    opener: Callable[[str], Source] | None = getattr(storage, "open_later", None)
    return storage.open(path) if opener is None else opener(path)


def known_size(source: Source) -> int | None:
    """Return the size of a file; None if it would take a request to learn it."""
    if not hasattr(source, "known_size"):
        return source.size
    found: int | None = source.known_size
    return found


def expect(source: Source, offset: int, size: int) -> None:
    """Say that bytes will be wanted soon, so that a disk reads them while others are worked on.

    Nothing waits for them, and nothing fails: a storage that cannot do this takes no notice.
    """
    prepare: Callable[[int, int], None] | None = getattr(source, "expect", None)
    if prepare is not None:
        prepare(offset, size)


def split_name(path: str) -> tuple[str, str]:
    """Return the directory and the last name of a path whose names `/` divides.

    As `posixpath.split`, but that of two slashes or more the directory keeps all: where names are
    keys, `run//m` is another file than `run/m`.
    """
    directory, name = posixpath.split(path)
    start = path[: len(path) - len(name)]
    return (start if start.endswith("//") else directory), name


def look_again(storage: Storage, path: str) -> FileStat | None:
    """Tell what is at a path by now, whatever was found there before."""
    forget: Callable[[str], None] | None = getattr(storage, "forget", None)
    if forget is not None:
        forget(path)
    return storage.stat(path)


def names_of_files(listed: Mapping[str, FileStat]) -> list[str]:
    """Return the names of the regular files of a directory that was listed, sorted."""
    # Of a hundred thousand files of this machine no status is asked for.
    find: Callable[[], list[str]] | None = getattr(listed, "file_names", None)
    if find is not None:
        return find()
    return sorted(name for name, status in listed.items() if status.kind == "file")


def held_bytes(storage: Storage, paths: Iterable[str]) -> int:
    """Return the bytes of those files that are there, all together."""
    found = map(storage.stat, paths)
    return sum(status.size for status in found if status is not None)


def hold(source: Source, *, most: int) -> Source:
    """Read a small remote file as a whole, since requests for its parts would take longer.

    The result has the same path and is in memory. Other files are returned unchanged.
    """
    if source.concurrency is None or source.size > most:
        return source
    from ckptparse.files.memory import MemorySource

    data = source.read_at(0, source.size)
    source.close()
    return MemorySource(source.path, data)


def check_range(source: Source, offset: int, size: int) -> None:
    """Raise `TruncatedError` unless `size` bytes at `offset` are within the source.

    An empty range is always right: an empty tensor may have an offset beyond the end.
    """
    if offset < 0 or size < 0 or (size and offset + size > source.size):
        raise TruncatedError(
            f"Read less bytes than requested: expected {size} bytes at offset {offset}, "
            f"found a file of {source.size} bytes",
            path=source.path,
            offset=offset,
            size=size,
        )
