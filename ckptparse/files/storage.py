"""What every place that holds files must give: `Storage` for all of them, a `Source` for one.

Paths are those of the storage: on this machine the system's own, in a mapping the names. Only the
storage takes them apart and puts them together.
"""

from __future__ import annotations

import mmap
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from ckptparse.errors import TruncatedError

__all__ = [
    "Buffer",
    "Content",
    "FileKind",
    "FileStat",
    "Source",
    "Storage",
    "check_range",
    "hold",
    "is_file",
]

Buffer = bytes | bytearray | memoryview
"""Bytes in memory."""
Content = Buffer | BinaryIO
"""What a name of a mapping stands for: bytes, or a file object that can be read and sought."""

FileKind = Literal["file", "directory", "dangling", "other"]
"""`dangling`: a link that leads nowhere; `other`: a FIFO, a device, a socket."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a storage says of a path without reading it."""

    kind: FileKind
    size: int = 0
    """Bytes; 0 for all that is no file."""
    identity: Hashable = None
    """Changes if the content does: time and inode, an ETag, a generation. None: nobody knows."""
    target: str | None = None
    """Where a link leads at which nothing lies."""


class Source(Protocol):
    """One file, read at positions by any number of threads, all that is asked or none."""

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
        """How many bytes one request should ask for, at the most."""
        ...

    @property
    def gap(self) -> int:
        """Ranges that lie closer than these many bytes are better read as one."""
        ...

    @property
    def concurrency(self) -> int | None:
        """How many requests at a time serve best; None: as many as there are processors."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`; `TruncatedError` if the file ends before them."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`; `TruncatedError` if the file ends before."""
        ...

    def map(self) -> mmap.mmap | None:
        """Map the whole file copy-on-write; None if this storage cannot."""
        ...

    def close(self) -> None:
        """Close it; closing twice is harmless."""
        ...


class Storage(Protocol):
    """Files by path. Picklable, so that workers can open what the caller named."""

    def open(self, path: str) -> Source:
        """Open a file.

        Raises:
            CheckpointNotFoundError: Nothing is there.
            NotACheckpointError: It is no regular file.
            PermissionDeniedError: It may not be read.
        """
        ...

    def stat(self, path: str) -> FileStat | None:
        """Tell what lies at a path; None if nothing does.

        Raises:
            PermissionDeniedError: Nobody may ask.
        """
        ...

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return what lies in a directory, by name, sorted; nothing if there is no such directory.

        Raises:
            PermissionDeniedError: It may not be listed.
        """
        ...

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory; the empty directory is the current one."""
        ...

    def real(self, path: str) -> str:
        """Return the path of the same file with links followed, and without `.` and `..`."""
        ...

    def split(self, path: str) -> tuple[str, str]:
        """Return directory and last name of a path, so that `join` gives the path again."""
        ...


def is_file(storage: Storage, path: str) -> bool:
    """Tell whether a file lies at a path."""
    status = storage.stat(path)
    return status is not None and status.kind == "file"


def hold(source: Source, *, most: int) -> Source:
    """Read a file whole if requests for its parts would cost more: a small one that is not local.

    What is given instead of it has the same path, and is in memory.
    """
    if source.concurrency is None or source.size > most:
        return source
    from ckptparse.files.memory import MemorySource

    data = source.read_at(0, source.size)
    source.close()
    return MemorySource(source.path, data)


def check_range(source: Source, offset: int, size: int) -> None:
    """Raise `TruncatedError` unless `size` bytes at `offset` lie within the source.

    No bytes lie anywhere: an empty tensor may stand beyond the end of a file that was cut.
    """
    if offset < 0 or size < 0 or (size and offset + size > source.size):
        raise TruncatedError(
            f"Read less bytes than requested: expected {size} bytes at offset {offset}, "
            f"found a file of {source.size} bytes",
            path=source.path,
            offset=offset,
            size=size,
        )
