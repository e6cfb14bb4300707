"""Files that are read by requests for ranges, and how what comes gets into memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

from ckptparse.errors import StorageError, TruncatedError
from ckptparse.files.storage import check_range

__all__ = ["RangeSource", "RemoteSource", "body_of", "check_count", "copy_into", "pour"]

_CHUNK = 64 << 10
"""Bytes of a body that are handed over together at least: 0.01 ms of copying."""
_LARGE_CHUNK = 8 << 20
"""The same if all of the body is kept: a smaller body is one chunk, and is not copied."""


class RangeSource:
    """What is read by requests for ranges, whichever they are."""

    __slots__ = ()

    # Measured with 20 ms for each request and 100 MB/s for each connection: 16 connections with
    # 8 MiB each take 1.1 times the least possible time; with 1 MiB each, twice as long.
    piece = 8 << 20
    gap = 64 << 10
    concurrency = 16

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        return bytes(self._read(offset, size))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`, piece by piece."""
        for start in range(0, len(buffer), self.piece):
            self._fill(offset + start, buffer[start : start + self.piece])

    def map(self) -> mmap.mmap | None:
        """Return None: there is no file to map."""
        return None

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _read(self, offset: int, size: int) -> memoryview:
        raise NotImplementedError

    def _fill(self, offset: int, buffer: memoryview) -> None:
        raise NotImplementedError


class RemoteSource(RangeSource):
    """An object, read by range."""

    __slots__ = ("_fetch", "_pour", "path", "size")

    def __init__(
        self,
        path: str,
        size: int,
        fetch: Callable[[int, int], Any],
        pour: Callable[[int, memoryview], int] | None = None,
    ) -> None:
        """Take what reads it.

        Args:
            path: The path it was opened by.
            size: Its size in bytes.
            fetch: Returns the bytes of a range (anything with the buffer protocol).
            pour: Reads the bytes at an offset into a buffer; returns how many have come.
        """
        self.path = path
        self.size = size
        self._fetch = fetch
        self._pour = pour

    def _read(self, offset: int, size: int) -> memoryview:
        check_range(self, offset, size)
        # A request cannot ask for an empty range.
        found = memoryview(self._fetch(offset, size) if size else b"")
        check_count(self.path, offset, size, len(found))
        return found

    def _fill(self, offset: int, buffer: memoryview) -> None:
        size = len(buffer)
        if self._pour is None or not size:
            copy_into(buffer, self._read(offset, size))
            return
        check_range(self, offset, size)
        check_count(self.path, offset, size, self._pour(offset, buffer))


def check_count(path: str, offset: int, size: int, found: int) -> None:
    """Make sure that as many bytes have come as were asked for.

    Raises:
        TruncatedError: There are fewer: of a range that goes beyond the end they come so.
        StorageError: There are more: the server does not do what it says.
    """
    if found > size:
        raise StorageError(
            f"Expected {size} bytes from the server at offset {offset}, found more",
            path=path,
            hint="Look what answers at this address, a proxy or a page to log in perhaps",
        )
    if found < size:
        raise TruncatedError(
            f"Expected {size} bytes from the server, found {found}",
            path=path,
            offset=offset,
            size=size,
        )


def copy_into(buffer: memoryview, data: Any) -> None:
    """Copy as many bytes as the buffer has; others run meanwhile, which a plain slice stops."""
    import numpy as np

    np.copyto(np.frombuffer(buffer, np.uint8), np.frombuffer(data, np.uint8))


def body_of(answer: Any, most: int) -> Any:
    """Return the body of an answer, as bytes or what has their buffer.

    Of a server that gives more than `most` bytes no more are taken than show it: the library would
    take whatever comes, and memory for it.
    """
    chunks: list[Any] = []
    done = 0
    for chunk in answer.stream(min_chunk_size=min(most, _LARGE_CHUNK)):
        chunks.append(chunk)
        done += len(chunk)
        if done > most:
            break
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def pour(answer: Any, buffer: memoryview) -> int:
    """Copy the body of an answer into a buffer while it comes; return how many bytes it has.

    To wait for all of it takes memory twice, and fresh memory takes longer than to copy. What does
    not fit is not waited for.
    """
    done = 0
    for chunk in answer.stream(min_chunk_size=_CHUNK):
        start, done = done, done + len(chunk)
        if done > len(buffer):
            break
        copy_into(buffer[start:done], chunk)
    return done
