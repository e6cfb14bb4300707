"""Files that are read by requests for ranges, and how what comes gets into memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

from ckptparse.errors import TruncatedError
from ckptparse.files.storage import check_range

__all__ = ["RangeSource", "RemoteSource", "check_count", "copy_into", "pour"]

_CHUNK = 64 << 10
"""Bytes of a body that are handed over together at least: 0.01 ms of copying."""


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
    """Raise `TruncatedError` unless so many bytes have come as were asked for.

    Of a range that goes beyond the end, fewer come, without an error.
    """
    if found != size:
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


def pour(answer: Any, buffer: memoryview) -> int:
    """Copy the body of an answer into a buffer while it comes; return how many bytes it has.

    To wait for all of it takes memory twice, and fresh memory takes longer than to copy.
    """
    done = 0
    for chunk in answer.stream(min_chunk_size=_CHUNK):
        size = len(chunk)
        if done + size <= len(buffer):
            copy_into(buffer[done : done + size], chunk)
        done += size
    return done
