"""A bounded look into one file: its head, its tail, and windows in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptparse.files.context import Context
from ckptparse.files.storage import Source

if TYPE_CHECKING:
    from ckptparse.bundle.columns import EntryColumns

__all__ = ["WINDOW", "Indexes", "Sample"]

Indexes = dict[str, "tuple[int, EntryColumns] | None"]
"""Of indexes by path: how many shards each states, and its first entries; None if it is none."""
WINDOW = 1 << 16
"""Bytes of the head and of the tail, and of one read in between."""


class Sample:
    """The bytes of a file that are looked at, however large it is.

    Attributes:
        source: The file.
        path: Its path.
        name: The last part of its path.
        size: Its size in bytes.
        head: Its first bytes, at most `WINDOW`.
        tail: Its last bytes, at most `WINDOW`.
        context: Where files beside it lie, and bounds on what is read and unpacked.
        limits: Those bounds.
        indexes: What was read of indexes beside it, by path.
    """

    def __init__(self, source: Source, context: Context, indexes: Indexes | None = None) -> None:
        self.source = source
        self.context = context
        self.indexes: Indexes = {} if indexes is None else indexes
        self.limits = context.limits
        self.path = source.path
        self.name = context.storage.split(source.path)[1]
        self.size = source.size
        self.head = source.read_at(0, min(self.size, WINDOW))
        start = max(0, self.size - WINDOW)
        self.tail = source.read_at(start, self.size - start)
        self._window = self.head
        self._window_start = 0

    def peek(self, offset: int, size: int) -> bytes:
        """Return the bytes at an offset: up to `size`, at most `WINDOW`, fewer at the end."""
        end = min(offset + min(size, WINDOW), self.size)
        if offset >= end:
            return b""
        if offset < self._window_start or end > self._window_start + len(self._window):
            self._window_start = offset
            self._window = self.source.read_at(offset, min(WINDOW, self.size - offset))
        start = offset - self._window_start
        return self._window[start : start + end - offset]

    def iter_chunks(self, size: int = 1 << 20, *, most: int | None = None) -> Iterator[bytes]:
        """Iterate over the file from its start, in chunks, up to `most` bytes."""
        end = self.size if most is None else min(self.size, most)
        for offset in range(0, end, size):
            yield self.source.read_at(offset, min(size, end - offset))
