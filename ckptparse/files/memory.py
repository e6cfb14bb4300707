"""Files in memory, or that are open already: a mapping from names to bytes or file objects."""

from __future__ import annotations

import mmap
import posixpath
import threading
from collections.abc import Mapping, MutableMapping
from typing import BinaryIO, cast

import numpy as np

from ckptparse.errors import (
    CheckpointNotFoundError,
    ClosedError,
    DataLossError,
    NotACheckpointError,
    OutputExistsError,
    TruncatedError,
)
from ckptparse.files.storage import (
    Buffer,
    Content,
    FileStat,
    Source,
    check_range,
    split_name,
)
from ckptparse.locks import make_lock

__all__ = ["MemorySource", "MemoryStorage", "ObjectSource"]


class MemorySource:
    """Bytes in memory, read at positions."""

    __slots__ = ("_data", "path", "size")

    piece = 1 << 20
    gap = 0
    concurrency = None

    def __init__(self, path: str, data: Buffer) -> None:
        self.path = path
        # An array: without the interpreter's lock, threads must not share a view.
        self._data = np.frombuffer(memoryview(data).cast("B"), np.uint8)
        self.size = len(self._data)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return a copy of exactly `size` bytes at `offset`."""
        check_range(self, offset, size)
        return self._data[offset : offset + size].tobytes()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`."""
        check_range(self, offset, len(buffer))
        buffer[:] = self._data[offset : offset + len(buffer)].data

    def map(self) -> mmap.mmap | None:
        """Return None: there is no file to map."""
        return None

    def close(self) -> None:
        """Do nothing: the bytes belong to the caller."""


class ObjectSource:
    """A file object of the caller. One thread at a time seeks and reads in it.

    Its position changes. The caller closes it.
    """

    __slots__ = ("_file", "_lock", "path", "size")

    piece = 1 << 20
    gap = 4096
    concurrency = 1

    def __init__(self, path: str, file: BinaryIO, lock: threading.Lock) -> None:
        """Take a file object.

        Raises:
            NotACheckpointError: It cannot seek: a pipe, a socket.
        """
        self.path = path
        self._file = file
        self._lock = lock
        self.size = _size_of(path, file, lock)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        check_range(self, offset, size)
        parts: list[bytes] = []
        done = 0
        with self._lock:
            while done < size:
                part = self._read(offset + done, size - done)
                if not part:
                    raise TruncatedError(
                        f"Expected {size} bytes from the file object, found {done}",
                        path=self.path,
                        offset=offset,
                        size=size,
                    )
                parts.append(part)
                done += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`."""
        buffer[:] = self.read_at(offset, len(buffer))

    def map(self) -> mmap.mmap | None:
        """Return None: there may be no file behind the file object."""
        return None

    def close(self) -> None:
        """Do nothing: the file object belongs to the caller."""

    def _read(self, offset: int, size: int) -> bytes:
        try:
            self._file.seek(offset)
            return self._file.read(size)
        except OSError as error:
            raise DataLossError(
                f"The file object cannot be read: {error}", path=self.path, offset=offset, size=size
            ) from error
        except ValueError as error:  # What `io` raises for a closed file.
            raise ClosedError("The file object has been closed", path=self.path) from error


def _size_of(path: str, file: BinaryIO, lock: threading.Lock) -> int:
    if not hasattr(file, "seek"):
        raise TypeError(
            f"Expected bytes or a file object under {path!r}, found {type(file).__name__}"
        )
    try:
        with lock:
            return file.seek(0, 2)
    # This one first: the error of a file object that cannot seek is also a `ValueError`.
    except OSError as error:
        raise NotACheckpointError(
            f"Expected a file object that can seek, found one that cannot: {error}", path=path
        ) from error
    except ValueError as error:
        raise ClosedError("The file object has been closed", path=path) from error


class MemoryStorage:
    """A mapping as a file system. `/` divides names: `run/ckpt-1.index` is a file in `run`."""

    def __init__(self, files: Mapping[str, Content]) -> None:
        self._files = files
        # One lock for all: two names may stand for one file object.
        self._lock = make_lock()

    def open(self, path: str) -> Source:
        """Open one of the names."""
        content = self._files.get(path)
        if content is None:
            if self._is_directory(path):
                raise NotACheckpointError("Expected a regular file, found a directory", path=path)
            raise CheckpointNotFoundError("No such file", path=path)
        if isinstance(content, Buffer):
            return MemorySource(path, content)
        return ObjectSource(path, content, self._lock)

    def stat(self, path: str) -> FileStat | None:
        """Tell what a name is: a file, the directory of other names, or None."""
        content = self._files.get(path)
        if content is not None:
            return self._stat_file(path, content)
        return FileStat("directory") if self._is_directory(path) else None

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return the names in a directory."""
        start = self._start(directory)
        found: dict[str, FileStat] = {}
        for path, content in self._files.items():
            name, slash, _ = path[len(start) :].partition("/")
            if not name or not path.startswith(start):
                continue
            if slash:
                # As in a bucket, a name may be both: then it is the file.
                found.setdefault(name, FileStat("directory"))
            else:
                found[name] = self._stat_file(path, content)
        return {name: found[name] for name in sorted(found)}

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return name if directory in ("", ".") else posixpath.join(directory, name)

    def real(self, path: str) -> str:
        """Return the path: a mapping has no links."""
        return path

    def split(self, path: str) -> tuple[str, str]:
        """Return the directory and the last name of a path."""
        return split_name(path)

    def put(self, path: str, file: BinaryIO, size: int, *, overwrite: bool) -> None:
        """Put bytes under a name; see `WritableStorage`."""
        if not overwrite and path in self._files:
            raise OutputExistsError("The mapping has that name already", path=path)
        self._writable()[path] = file.read(size)

    def remove(self, path: str) -> None:
        """Remove a name; see `WritableStorage`."""
        self._writable().pop(path, None)

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return not isinstance(self._files, MutableMapping)

    def _writable(self) -> MutableMapping[str, Content]:
        return cast("MutableMapping[str, Content]", self._files)

    def __getstate__(self) -> Mapping[str, Content]:
        # Of a mapping of another class, such as one over a database, the class is kept.
        if not isinstance(self._files, dict):
            return self._files
        return {
            path: bytes(content) if isinstance(content, memoryview) else content
            for path, content in self._files.items()
        }

    def __setstate__(self, files: Mapping[str, Content]) -> None:
        self.__init__(files)  # type: ignore[misc] # a lock is not pickled; a new one is made

    def _stat_file(self, path: str, content: Content) -> FileStat:
        if isinstance(content, Buffer):
            return FileStat("file", memoryview(content).nbytes, id(content))
        return FileStat("file", _size_of(path, content, self._lock), id(content))

    def _is_directory(self, path: str) -> bool:
        start = self._start(path)
        return any(name.startswith(start) for name in self._files)

    def _start(self, directory: str) -> str:
        """Return what the names in a directory begin with."""
        if directory.endswith("//"):
            return directory
        plain = directory.rstrip("/")
        if plain not in ("", "."):
            return f"{plain}/"
        rooted = directory == "/" and any(name.startswith("/") for name in self._files)
        return "/" if rooted else ""
