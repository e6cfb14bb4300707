"""Exact reads of bytes: the only module that opens data files.

A `ByteSource` gives the bytes that were asked for or raises `TruncatedError`; it never gives fewer.
A `SourcePool` keeps a bounded number of them open or mapped, however many shards a checkpoint has.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING
from weakref import WeakSet

from ckptparse.errors import (
    CheckpointNotFoundError,
    DataLossError,
    NotACheckpointError,
    TruncatedError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ByteSource", "SourcePool"]

_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    # A FIFO would otherwise keep us waiting for a writer.
    | getattr(os, "O_NONBLOCK", 0)
)
_HAS_PREADV = hasattr(os, "preadv")


class ByteSource:
    """A regular file, read at positions. Safe to use from several threads at once.

    Attributes:
        path: The path it was opened by.
        size: Its size in bytes when it was opened.
    """

    __slots__ = ("_descriptor", "_lock", "path", "size")

    def __init__(self, path: str, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        self._descriptor = descriptor
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str) -> ByteSource:
        """Open a file.

        Raises:
            CheckpointNotFoundError: Nothing is there.
            NotACheckpointError: It is a directory, a FIFO, a device or a socket.
            UnsupportedError: The operating system refuses to open it.
        """
        try:
            descriptor = os.open(path, _OPEN_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointNotFoundError("No such file", path=path) from None
        except (OSError, ValueError) as error:
            raise UnsupportedError(f"The file cannot be opened: {error}", path=path) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise NotACheckpointError(
                f"Expected a regular file, found {_kind_of(status.st_mode)}", path=path
            )
        return cls(path, descriptor, status.st_size)

    def read_at(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`.

        Raises:
            TruncatedError: The file ends before them.
        """
        self.check_range(offset, size)
        if size == 0:
            return b""
        data = self._read_some(offset, size)
        if len(data) == size:
            return data
        whole = bytearray(size)
        self.read_into(offset, memoryview(whole))
        return bytes(whole)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a writable buffer of bytes with the bytes at `offset`.

        Raises:
            TruncatedError: The file ends before the buffer is full.
        """
        size = len(buffer)
        self.check_range(offset, size)
        done = 0
        while done < size:
            count = self._fill(offset + done, buffer[done:])
            if count == 0:
                raise self._shrunk(offset, size, done)
            done += count

    def check_range(self, offset: int, size: int) -> None:
        """Raise `TruncatedError` unless `size` bytes at `offset` lie within the file."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise TruncatedError(
                f"Read less bytes than requested: expected {size} bytes at offset {offset}, "
                f"found a file of {self.size} bytes",
                path=self.path,
                offset=offset,
                size=size,
            )

    def map(self) -> mmap.mmap:
        """Map the whole file, copy-on-write: writes to the mapping never reach the file."""
        return mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_COPY)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # At the end of the interpreter there may be no `os` left, and no need to close anything.
        if os is not None:
            self.close()

    def _read_some(self, offset: int, size: int) -> bytes:
        try:
            if _HAS_PREADV:
                return os.pread(self._descriptor, size, offset)
            with self._lock:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                return os.read(self._descriptor, size)
        except OSError as error:
            raise self._failed(error, offset, size) from error

    def _fill(self, offset: int, buffer: memoryview) -> int:
        if not _HAS_PREADV:
            data = self._read_some(offset, len(buffer))
            buffer[: len(data)] = data
            return len(data)
        try:
            return os.preadv(self._descriptor, [buffer], offset)
        except OSError as error:
            raise self._failed(error, offset, len(buffer)) from error

    def _failed(self, error: OSError, offset: int, size: int) -> Exception:
        if self._descriptor < 0:
            return ValueError(f"The file has been closed: {self.path}")
        return DataLossError(
            f"The file cannot be read: {error}", path=self.path, offset=offset, size=size
        )

    def _shrunk(self, offset: int, size: int, done: int) -> TruncatedError:
        return TruncatedError(
            f"Read less bytes than requested: expected {size} bytes, found {done}: "
            "the file has shrunk since it was opened",
            path=self.path,
            offset=offset,
            size=size,
        )


def _kind_of(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


class SourcePool:
    """Files opened when first needed, the least recently used closed beyond a bound.

    Safe to use from several threads at once; a file in use is never closed.
    """

    def __init__(self, *, capacity: int = 64) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._open: OrderedDict[str, ByteSource] = OrderedDict()
        self._users: dict[str, int] = {}
        self._maps: WeakSet[mmap.mmap] = WeakSet()
        self._closed = False

    @contextmanager
    def borrow(self, path: str) -> Iterator[ByteSource]:
        """Give the open file of that path for as long as the context lasts."""
        source = self._take(path)
        try:
            yield source
        finally:
            self._give_back(path)

    def map(self, source: ByteSource) -> mmap.mmap | None:
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
            self._maps.add(mapped)
            return mapped

    def close(self) -> None:
        """Close every file, now or when its last user is done. Maps stay."""
        with self._lock:
            self._closed = True
            self._evict(0)

    def _take(self, path: str) -> ByteSource:
        with self._lock:
            if self._closed:
                raise ValueError(f"The checkpoint has been closed: {path}")
            source = self._open.get(path)
            if source is None:
                source = self._open[path] = ByteSource.open(path)
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
