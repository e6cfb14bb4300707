"""Files that lie in memory: a mapping from names, parted by `/`, to bytes."""

from __future__ import annotations

import mmap
import posixpath
from collections.abc import Mapping

from ckptparse.errors import CheckpointNotFoundError, NotACheckpointError
from ckptparse.files.storage import FileStat, check_range

__all__ = ["MemorySource", "MemoryStorage"]

Buffer = bytes | bytearray | memoryview


class MemorySource:
    """Bytes in memory, read at positions."""

    __slots__ = ("_data", "path", "size")

    piece = 1 << 20
    gap = 0
    concurrency = None

    def __init__(self, path: str, data: Buffer) -> None:
        self.path = path
        self._data = memoryview(data).cast("B")
        self.size = len(self._data)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return a copy of exactly `size` bytes at `offset`."""
        check_range(self, offset, size)
        return bytes(self._data[offset : offset + size])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`."""
        check_range(self, offset, len(buffer))
        buffer[:] = self._data[offset : offset + len(buffer)]

    def map(self) -> mmap.mmap | None:
        """Return None: there is no file to map."""
        return None

    def close(self) -> None:
        """Do nothing: the bytes are the caller's."""


class MemoryStorage:
    """A mapping from names to bytes as a file system: `run/ckpt-1.index` lies in `run`."""

    def __init__(self, files: Mapping[str, Buffer]) -> None:
        self._files = files

    def open(self, path: str) -> MemorySource:
        """Open one of the names."""
        data = self._files.get(path)
        if data is not None:
            return MemorySource(path, data)
        if self._is_directory(path):
            raise NotACheckpointError("Expected a regular file, found a directory", path=path)
        raise CheckpointNotFoundError("No such file", path=path)

    def stat(self, path: str) -> FileStat | None:
        """Tell what a name is: a file, the directory that others lie in, or None."""
        data = self._files.get(path)
        if data is not None:
            return FileStat("file", memoryview(data).nbytes)
        return FileStat("directory") if self._is_directory(path) else None

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return the names in a directory."""
        start = _prefix(directory)
        inside = (path[len(start) :] for path in self._files if path.startswith(start))
        names = sorted({name.partition("/")[0] for name in inside if name})
        found = {name: self.stat(self.join(directory, name)) for name in names}
        return {name: status for name, status in found.items() if status is not None}

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return name if directory in ("", ".") else posixpath.join(directory, name)

    def real(self, path: str) -> str:
        """Return the path: a mapping has no links."""
        return path

    def split(self, path: str) -> tuple[str, str]:
        """Return directory and last name of a path."""
        return posixpath.split(path)

    def _is_directory(self, path: str) -> bool:
        start = _prefix(path)
        return any(name.startswith(start) for name in self._files)


def _prefix(directory: str) -> str:
    plain = directory.rstrip("/")
    return "" if plain in ("", ".") else f"{plain}/"
