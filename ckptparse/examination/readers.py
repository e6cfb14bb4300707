"""Read data files while they are checked and mended: opened once, read in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c
from ckptparse.errors import CheckpointError, StorageError
from ckptparse.examination.outcome import Span, merge_spans
from ckptparse.files.context import Context, Progress
from ckptparse.files.storage import Source, Storage, expect
from ckptparse.limits import Budget, Singles
from ckptparse.parallel import PIECE_SIZE, stream_crc

__all__ = ["PAGE", "DataFile", "DataFiles", "checksum_of", "find_holes"]

PAGE = 4096
"""Bytes of a page, counted from the file's start: file systems and downloads lose whole pages."""
_ROUND = 64 << 20
"""Bytes of a long run between two calls of `progress`: their checksum takes some 20 ms."""
_AHEAD = 32 << 20
"""Bytes that a disk is asked for before they are wanted, if a file is read from start to end."""
_MOST_REMOTE = 4 << 20
"""Bytes of one request of several at a time: sixteen of them keep 64 MiB."""
_APART = 1 << 14
"""Bytes of a file that are read at a place that does not follow the one before."""
_WHOLE = 8 << 20
"""Bytes of a file that is kept whole once as much of it was read here and there."""
_MOST_WHOLE = 16 << 20
"""Bytes of all files that may be kept whole."""
_OPEN = 64
"""Files that are open at once: a quarter of the 256 that the strictest systems allow a process."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """Bytes that can be read: a file as it is, or as it was before it was converted.

    Attributes:
        path: The file.
        undo: Makes of the open file a source of what it was before; None to read it as it is.
        inside: What offsets count in then: the member of an archive, or in a few words what was
            done. None: they count in the file itself.
    """

    path: str
    undo: Callable[[Source], Source] | None = None
    inside: str | None = None

    def __hash__(self) -> int:
        """Take the texts, whose hashes Python keeps: a file is looked up for every payload."""
        return hash(self.path) ^ hash(self.inside)

    def open(self, storage: Storage) -> Source:
        """Open it; raises as the storage does."""
        source = storage.open(self.path)
        return source if self.undo is None else self.undo(source)


class _Window:
    """A file whose last piece is kept in memory, so that small tensors share one read."""

    __slots__ = ("_apart", "_asked", "_data", "_start", "may_be_whole", "read_count", "source")

    def __init__(self, source: Source, *, may_be_whole: bool = False) -> None:
        self.source = source
        self.read_count = 0
        self.may_be_whole = may_be_whole
        """Whether the file may be kept whole if it is read here and there."""
        self._apart = 0
        self._asked = self._start = 0
        self._data = b""

    def look_ahead(self, start: int, stop: int) -> None:
        """Have the bytes from `start` to some MiB after `stop` fetched, once."""
        start, stop = max(start, self._asked), min(stop + _AHEAD, self.source.size)
        # In large steps, since it takes a call of the system to learn whether they are needed.
        if stop - start > _AHEAD // 2:
            expect(self.source, start, stop - start)
            self._asked = stop

    def read(self, offset: int, size: int) -> memoryview:
        end = offset + size
        known = self._start + len(self._data)
        if offset < self._start or end > known:
            if self.source.concurrency is not None:
                # From a bucket, a request of 1 MiB takes nearly as long as one of 8.
                most = max(PIECE_SIZE, self.source.piece)
            else:
                # Of small tensors here and there, what lies behind one is not asked for.
                most = PIECE_SIZE if 0 <= offset - known <= PIECE_SIZE else _APART
            start, length = offset, max(size, min(most, self.source.size - offset))
            if self.may_be_whole and not 0 <= offset - known <= PIECE_SIZE:
                self._apart += length
                if self._apart > self.source.size:
                    start, length = 0, self.source.size
            self._start = start
            self._data = self.source.read_at(start, length)
            self.read_count += length
        return memoryview(self._data)[offset - self._start : end - self._start]


class DataFiles:
    """Open data files by path; use it in `contextlib.closing`."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._windows: dict[DataFile, _Window] = {}
        self._small: dict[DataFile, bytes] = {}
        self._whole = 0
        self._failed: dict[DataFile, CheckpointError] = {}
        self._sizes: dict[DataFile, int] = {}
        self._watcher: Progress | None = None
        self._done = self._total = 0
        self._is_sweep = False
        self._listed: list[str] = []
        self._held: int | None = None
        self.budget = Budget(context.limits, 0)
        """What is kept of the entries of all indexes together, against the files that are held."""
        self.singles = Singles(context.limits, 0)
        """The entries of these that are looked at one by one."""
        self.known: dict[tuple[str, int, int], int] = {}
        """Checksums that were computed: of a path, an offset and a size."""
        self.undone: dict[tuple[DataFile, int, int], int] = {}
        """Checksums of long runs of files as they were before a conversion: to undo it takes long,
        and several methods ask for the same ones."""
        self.judged: dict[tuple[DataFile, int, int, int, bool], tuple[Span, ...]] = {}
        """Which elements look wrong: of a file, an offset, a size, a type and a byte order."""
        self.copies: Sequence[str] = ()
        """Indexes and V1 files that may be copies of a checkpoint's own."""
        self.evidence_bytes = 0
        """Of the files that the caller named as evidence."""

    @property
    def is_remote(self) -> bool:
        """Whether the files that are open are better read by several requests at a time."""
        found = next(iter(self._windows.values()), None)
        return found is not None and (found.source.concurrency or 0) > 1

    @property
    def is_watched(self) -> bool:
        """Whether `begin` was called and `finish` was not."""
        return self._total > 0

    def begin(self, total: int, *, sweep: bool = False) -> None:
        """Start to call the caller's `progress` with the bytes read, of `total`.

        In a sweep nearly all bytes of the files are wanted, in their order: disks read ahead.
        """
        self._watcher, self._done, self._total = self.context.progress, 0, total
        self._is_sweep = sweep

    def finish(self) -> None:
        """Call `progress` once more, with all bytes read, and stop."""
        self.note_read(self._total - self._done)
        self._watcher, self._done, self._total = None, 0, 0
        self._is_sweep = False

    def hold(self, paths: Iterable[str]) -> None:
        """Begin a budget for a checkpoint of these files."""
        listed = list(paths)
        if listed != self._listed:
            self._listed, self._held = listed, None
        self.budget = Budget(self.context.limits, lambda: self.held_bytes)
        self.singles = Singles(self.context.limits, lambda: self.held_bytes)

    @property
    def held_bytes(self) -> int:
        """Size of the checkpoint's files together, when it was first asked for."""
        if self._held is None:
            self._held = sum(map(self._size_of, self._listed))
        return self._held

    def _size_of(self, path: str) -> int:
        status = self.context.storage.stat(path)
        return 0 if status is None else status.size

    def close(self) -> None:
        """Close every file."""
        for file in list(self._windows):
            self._close(file)

    def size(self, file: DataFile) -> int | None:
        """Return a file's size; None if it is not there or cannot be opened."""
        size = self._sizes.get(file)
        if size is None and (window := self._window(file)) is not None:
            size = self._sizes[file] = window.source.size
        return size

    def failure(self, file: DataFile) -> CheckpointError | None:
        """Return why a file cannot be opened."""
        return self._failed.get(file)

    def read(self, file: DataFile, offset: int, size: int) -> memoryview:
        """Read bytes. The caller has made sure with `size` that they are there."""
        small = self._small.get(file)
        if small is not None and offset + size <= len(small):
            return memoryview(small)[offset : offset + size]
        window = self._window(file)
        if window is None:
            raise self._failed[file]
        if window.may_be_whole and window.source.size <= _APART and file not in self._small:
            # Of thousands of small files, few stay open, and each is asked for again and again.
            self._small[file] = small = window.source.read_at(0, window.source.size)
            self._whole += len(small)
            self.note_read(len(small))
            return self.read(file, offset, size)
        self.look_ahead(file, offset, offset)
        before = window.read_count
        data = window.read(offset, size)
        self.note_read(window.read_count - before)
        return data

    def look_ahead(self, file: DataFile, start: int, stop: int) -> None:
        """In a sweep, have what comes after these bytes fetched, and what of them is not read."""
        window = self._windows.get(file) if self._is_sweep else None
        if window is not None:
            window.look_ahead(start, stop)

    def note_read(self, size: int) -> None:
        """Tell `progress` that `size` more bytes have been read."""
        if self._watcher is not None and size:
            self._done = min(self._done + size, self._total)
            self._watcher(self._done, self._total)

    def source(self, file: DataFile) -> Source:
        """Return the open file. The caller has made sure with `size` that it can be opened.

        It stays open until 64 others have been opened.
        """
        window = self._window(file)
        if window is None:
            raise self._failed[file]
        self._windows[file] = self._windows.pop(file)
        return window.source

    def _window(self, file: DataFile) -> _Window | None:
        window = self._windows.get(file)
        if window is not None or file in self._failed:
            return window
        try:
            source = file.open(self.context.storage)
        except StorageError:
            # Whether the file is there is not known: nothing may be said of it.
            raise
        except CheckpointError as error:
            self._failed[file] = error
            return None
        if len(self._windows) >= _OPEN:
            self._close(next(iter(self._windows)))
        small = source.size <= min(_WHOLE, _MOST_WHOLE - self._whole)
        window = self._windows[file] = _Window(source, may_be_whole=small)
        self._whole += source.size * small
        return window

    def _close(self, file: DataFile) -> None:
        window = self._windows.pop(file)
        self._whole -= window.source.size * window.may_be_whole
        window.source.close()


def checksum_of(files: DataFiles, file: DataFile, offset: int, size: int, *, crc: int = 0) -> int:
    """Return the CRC of a run of bytes. Short runs share a read, threads share a long run."""
    if not crc and file.undo is None and (file.path, offset, size) in files.known:
        return files.known[file.path, offset, size]
    if size <= PIECE_SIZE:
        return crc32c(files.read(file, offset, size), crc) if size else crc
    key = file, offset, size
    if not crc and key in files.undone:
        return files.undone[key]
    source = files.source(file)
    found = crc
    for start in range(offset, offset + size, _ROUND):
        count = min(_ROUND, offset + size - start)
        files.look_ahead(file, start, start + count)
        found = _stream(source, start, count, found)
        files.note_read(count)
    if not crc and file.undo is not None:
        files.undone[key] = found
    return found


def _stream(source: Source, start: int, size: int, crc: int) -> int:
    if source.concurrency is None:
        return stream_crc(source.read_at, start, size, crc=crc)
    piece = min(source.piece, _MOST_REMOTE)
    threads = source.concurrency
    return stream_crc(source.read_at, start, size, crc=crc, threads=threads, piece=piece)


def find_holes(files: DataFiles, file: DataFile, offset: int, size: int) -> tuple[Span, ...]:
    """Return the pages of zeros that touch a run of bytes, as spans within the run.

    Pages are counted from the start of the file and have 4 KiB; the last one may be shorter.
    """
    file_size = files.size(file) or 0
    if 0 < size <= PAGE and offset + size <= file_size:
        # It is on one page or two. One that holds a part of it that is not zeros is no hole.
        data, border = bytes(files.read(file, offset, size)), PAGE - offset % PAGE
        if any(data[:border]) and (size <= border or any(data[border:])):
            return ()
    first = offset // PAGE * PAGE
    last = min(-(-(offset + size) // PAGE) * PAGE, file_size)
    holes: list[Span] = []
    for start in range(first, last, PIECE_SIZE):
        piece = np.frombuffer(files.read(file, start, min(PIECE_SIZE, last - start)), np.uint8)
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
