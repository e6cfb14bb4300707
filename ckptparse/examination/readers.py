"""Data files while they are checked and mended: opened once, read in pieces, holes found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c
from ckptparse.errors import CheckpointError
from ckptparse.examination.report import Span, merge_spans
from ckptparse.files.local import LocalSource
from ckptparse.files.storage import Source
from ckptparse.parallel import PIECE_SIZE, stream_crc

__all__ = [
    "PAGE",
    "DataFiles",
    "Progress",
    "Reader",
    "checksum_of",
    "find_holes",
    "open_reader",
    "undone_path",
]

PAGE = 4096
"""Bytes of a page: files lose whole ones."""
_ROUND = 64 << 20
"""Bytes between two words to the watcher, of long runs."""
_OPEN = 64
_UNDONE = "\0crlf"
"""Marks a path: the file as it was before line feeds got carriage returns. No path has a NUL."""


class Reader(Protocol):
    """Bytes at positions: a file, or a file with a conversion undone."""

    path: str
    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Read exactly so many bytes."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def undone_path(path: str) -> str:
    """Return the path under which a file is read with carriage returns taken out."""
    return path + _UNDONE


def open_reader(path: str) -> Reader:
    """Open a file, or what `undone_path` says of one.

    Raises:
        CheckpointError: It cannot be opened.
    """
    if path.endswith(_UNDONE):
        return _UndoneText(LocalSource.open(path.removesuffix(_UNDONE)))
    return LocalSource.open(path)


class _UndoneText:
    """A file without the carriage returns that stand before line feeds."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.path = source.path
        returns = _find_returns(source)
        self.size = source.size - len(returns)
        # Where each is taken out, in positions of what remains.
        self._before = returns - np.arange(len(returns))

    def read_at(self, offset: int, size: int) -> bytes:
        if not size:
            return b""
        first, last = self._original(offset), self._original(offset + size - 1)
        return self._source.read_at(first, last + 1 - first).replace(b"\r\n", b"\n")

    def _original(self, position: int) -> int:
        """Return where a byte that remains stands in the file."""
        return position + int(np.searchsorted(self._before, position, "right"))

    def close(self) -> None:
        self._source.close()


def _find_returns(source: Source) -> npt.NDArray[np.int64]:
    found = [np.empty(0, np.int64)]
    for start in range(0, source.size, PIECE_SIZE):
        # One byte more, for a pair across the edge.
        data = np.frombuffer(
            source.read_at(start, min(PIECE_SIZE + 1, source.size - start)), np.uint8
        )
        found.append(np.flatnonzero((data[:-1] == 13) & (data[1:] == 10)) + start)
    return np.concatenate(found)


Progress = Callable[[int, int], None]
"""Called now and then with the bytes read so far, and the bytes to read."""


class _Window:
    """A file, of which the piece last read is kept, so that small tensors share a read."""

    __slots__ = ("_data", "_start", "read_count", "source")

    def __init__(self, source: Reader) -> None:
        self.source = source
        self.read_count = 0
        self._start = 0
        self._data = b""

    def read(self, offset: int, size: int) -> memoryview:
        end = offset + size
        if offset < self._start or end > self._start + len(self._data):
            self._start = offset
            length = max(size, min(PIECE_SIZE, self.source.size - offset))
            self._data = self.source.read_at(offset, length)
            self.read_count += length
        return memoryview(self._data)[offset - self._start : end - self._start]


class DataFiles:
    """Open data files by path; use it in `contextlib.closing`."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}
        self._failed: dict[str, CheckpointError] = {}
        self._watcher: Progress | None = None
        self._done = self._total = 0

    def watch(self, watcher: Progress | None, total: int) -> None:
        """Tell a watcher from now on how many of `total` bytes have been read; None: nobody."""
        self._watcher, self._done, self._total = watcher, 0, total

    def close(self) -> None:
        """Close every file."""
        for window in self._windows.values():
            window.source.close()
        self._windows.clear()

    def size(self, path: str) -> int | None:
        """Return a file's size; None where it is not there or cannot be opened."""
        window = self._window(path)
        return None if window is None else window.source.size

    def failure(self, path: str) -> CheckpointError | None:
        """Return why a file cannot be opened."""
        return self._failed.get(path)

    def read(self, path: str, offset: int, size: int) -> memoryview:
        """Read bytes that are there: the caller has compared with `size`."""
        window = self._window(path)
        if window is None:
            raise self._failed[path]
        before = window.read_count
        data = window.read(offset, size)
        self.note_read(window.read_count - before)
        return data

    def note_read(self, size: int) -> None:
        """Tell the watcher that so many bytes more have been read."""
        if self._watcher is not None and size:
            self._done = min(self._done + size, self._total)
            self._watcher(self._done, self._total)

    def source(self, path: str) -> Reader:
        """Return the open file; the caller has asked for its size."""
        window = self._window(path)
        if window is None:
            raise self._failed[path]
        return window.source

    def _window(self, path: str) -> _Window | None:
        window = self._windows.get(path)
        if window is not None or path in self._failed:
            return window
        try:
            source = open_reader(path)
        except CheckpointError as error:
            self._failed[path] = error
            return None
        if len(self._windows) >= _OPEN:
            self._windows.pop(next(iter(self._windows))).source.close()
        window = self._windows[path] = _Window(source)
        return window


def checksum_of(files: DataFiles, path: str, offset: int, size: int, *, crc: int = 0) -> int:
    """Return the CRC of a run of bytes: a short one shares a read, a long one several threads."""
    if size <= PIECE_SIZE:
        return crc32c(files.read(path, offset, size), crc) if size else crc
    source = files.source(path)
    for start in range(offset, offset + size, _ROUND):
        count = min(_ROUND, offset + size - start)
        crc = stream_crc(source.read_at, start, count, crc=crc)
        files.note_read(count)
    return crc


def find_holes(files: DataFiles, path: str, offset: int, size: int) -> tuple[Span, ...]:
    """Return the pages of nothing but zeros that touch a run of bytes, as spans within it.

    Pages are those of the file, 4 KiB each, the last one perhaps shorter.
    """
    file_size = files.size(path) or 0
    first = offset // PAGE * PAGE
    last = min(-(-(offset + size) // PAGE) * PAGE, file_size)
    holes: list[Span] = []
    for start in range(first, last, PIECE_SIZE):
        piece = np.frombuffer(files.read(path, start, min(PIECE_SIZE, last - start)), np.uint8)
        whole = len(piece) // PAGE * PAGE
        empty = (piece[:whole].reshape(-1, PAGE) == 0).all(axis=1)
        holes.extend(_runs(empty, start))
        if whole < len(piece) and not piece[whole:].any():
            holes.append((start + whole, start + len(piece)))
    inside = [(max(0, a - offset), min(size, b - offset)) for a, b in holes]
    return merge_spans(inside)


def _runs(empty: npt.NDArray[np.bool_], start: int) -> list[Span]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], empty, [False])).astype(np.int8)))
    return [
        (start + int(low) * PAGE, start + int(high) * PAGE)
        for low, high in zip(edges[::2], edges[1::2], strict=True)
    ]
