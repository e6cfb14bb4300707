"""Sources made from others: ranges put together, and files as they were before a conversion."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, overload

from ckptparse.errors import CheckpointNotFoundError, ChecksumError, LimitError
from ckptparse.files.storage import FileStat, Source, Storage, check_range
from ckptparse.locks import make_lock

__all__ = [
    "ConvertedSource",
    "Converter",
    "JoinedSource",
    "Parts",
    "Range",
    "ReopenedSource",
    "ViewStorage",
]

_PIECE = 1 << 20
"""Bytes of a converted file that are read at once."""
_KEPT = 4
"""Converted pieces that are kept in memory: for as many threads that read side by side."""


class Range(NamedTuple):
    """Some bytes of a source."""

    source: Source | None
    """None for bytes that are absent: they read as zeros."""
    offset: int
    size: int


class Parts:
    """Parts of one file that make up another.

    Attributes:
        spans: (offset, size) of each; an offset of -1 stands for bytes that are not there.
        starts: Where each begins in the other file, and where the last one ends.
    """

    __slots__ = ("spans", "starts")

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self.spans = spans
        self.starts = (0, *accumulate(size for _, size in spans))


class _PartsOf(Sequence[Range]):
    """Parts as ranges of an open file, each made when it is asked for."""

    __slots__ = ("_spans", "source")

    def __init__(self, source: Source, parts: Parts) -> None:
        self.source = source
        self._spans = parts.spans

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, number: int) -> Range: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Range]: ...
    def __getitem__(self, number: int | slice) -> Range | Sequence[Range]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        offset, size = self._spans[number]
        return Range(None if offset < 0 else self.source, offset, size)


class JoinedSource:
    """Ranges of sources, one after the other, read as one file.

    Attributes:
        path: Its name.
        size: The sum of the ranges, in bytes.
        ranges: The ranges.
    """

    __slots__ = ("_starts", "path", "ranges", "size")

    piece = _PIECE
    gap = 0
    concurrency = None

    def __init__(self, path: str, ranges: Sequence[Range]) -> None:
        self.path = path
        self.ranges: Sequence[Range] = tuple(part for part in ranges if part.size)
        self._starts: Sequence[int] = [0, *accumulate(part.size for part in self.ranges)]
        self.size = self._starts[-1]

    @classmethod
    def of_one(cls, source: Source, parts: Parts) -> JoinedSource:
        """Return parts of one source, which takes no longer if they are thousands."""
        joined = cls(source.path, ())
        joined.ranges, joined._starts = _PartsOf(source, parts), parts.starts
        joined.size = parts.starts[-1]
        return joined

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        check_range(self, offset, size)
        buffer = bytearray(size)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`; absent ones are zeros."""
        check_range(self, offset, len(buffer))
        done = 0
        number = bisect_right(self._starts, offset) - 1
        while done < len(buffer):
            part = self.ranges[number]
            within = offset + done - self._starts[number]
            count = min(len(buffer) - done, part.size - within)
            target = buffer[done : done + count]
            if part.source is None:
                target[:] = bytes(count)
            else:
                part.source.read_into(part.offset + within, target)
            done += count
            number += 1

    def places(self, offset: int, size: int) -> list[Range]:
        """Return where some of its bytes lie: in files, not in other sources made of ranges."""
        check_range(self, offset, size)
        found: list[Range] = []
        done, number = 0, bisect_right(self._starts, offset) - 1
        while done < size:
            part = self.ranges[number]
            within = offset + done - self._starts[number]
            count = min(size - done, part.size - within)
            if isinstance(part.source, JoinedSource):
                found += part.source.places(part.offset + within, count)
            else:
                found.append(Range(part.source, part.offset + within, count))
            done += count
            number += 1
        return found

    def missing(self) -> list[tuple[int, int]]:
        """Return the ranges (start, stop) that are absent."""
        starts = zip(self.ranges, self._starts, strict=False)
        return [(start, start + part.size) for part, start in starts if part.source is None]

    def map(self) -> mmap.mmap | None:
        """Return None: its bytes are in several places."""
        return None

    def close(self) -> None:
        """Close all its sources."""
        if isinstance(self.ranges, _PartsOf):
            self.ranges.source.close()
            return
        for part in self.ranges:
            if part.source is not None:
                part.source.close()


class ReopenedSource:
    """A file that is opened for each read, so that thousands of them need few open files."""

    __slots__ = ("_storage", "path", "size")

    piece = _PIECE
    gap = 0
    concurrency = None

    def __init__(self, storage: Storage, path: str, size: int) -> None:
        self._storage = storage
        self.path = path
        self.size = size

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        with closing(self._storage.open(self.path)) as source:
            return source.read_at(offset, size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`."""
        with closing(self._storage.open(self.path)) as source:
            source.read_into(offset, buffer)

    def map(self) -> mmap.mmap | None:
        """Return None: it is not open."""
        return None

    def close(self) -> None:
        """Do nothing: it is not open."""


class ViewStorage:
    """Files that are made from parts of one file: checkpoints inside an image."""

    def __init__(
        self,
        storage: Storage,
        path: str,
        files: Mapping[str, Callable[[Source], Source]],
        *,
        opener: Callable[[Storage, str], Source] | None = None,
    ) -> None:
        """Take the names.

        Args:
            storage: Where the one file is.
            path: The one file.
            files: For each name, what makes it from the open file.
            opener: Opens the one file; None to let the storage open it.
        """
        self._storage = storage
        self._path = path
        self._files = dict(files)
        self._opener = opener

    def open(self, path: str) -> Source:
        """Open one of the names."""
        make = self._files.get(path)
        if make is None:
            raise CheckpointNotFoundError("No such file", path=path)
        opener = self._opener
        one = (
            self._storage.open(self._path) if opener is None else opener(self._storage, self._path)
        )
        return make(one)

    def stat(self, path: str) -> FileStat | None:
        """Tell what a name is."""
        if path in self._files:
            with closing(self.open(path)) as source:
                return FileStat("file", source.size)
        inside = any(self.split(name)[0] == path for name in self._files)
        return FileStat("directory") if inside else None

    def list(self, directory: str) -> Mapping[str, FileStat]:
        """Return the names in a directory."""
        names = (self.split(name) for name in sorted(self._files))
        found = {
            name: self.stat(self.join(directory, name))
            for place, name in names
            if place == directory
        }
        return {name: status for name, status in found.items() if status is not None}

    def join(self, directory: str, name: str) -> str:
        """Return the path of a name in a directory."""
        return self._storage.join(directory, name)

    def real(self, path: str) -> str:
        """Return the path: there are no links."""
        return path

    def split(self, path: str) -> tuple[str, str]:
        """Return the directory and the last name of a path."""
        return self._storage.split(path)


class Converter(Protocol):
    """Undoes a conversion, piece by piece."""

    def start(self) -> Any:
        """Return the state before the first byte."""
        ...

    def convert(self, data: bytes, state: Any, *, last: bool) -> tuple[bytes, int, Any]:
        """Undo the conversion of some bytes.

        Args:
            data: Bytes of the file; more follow unless `last`.
            state: The state after the bytes before them. It is not changed.
            last: Whether the file ends with them.

        Returns:
            The bytes as they were, some MiB at most; how many of `data` were used; the new state.

        Raises:
            ValueError: No such conversion makes these bytes.
        """
        ...


class _Mark(NamedTuple):
    """A place from which the conversion can go on."""

    source: int
    target: int
    state: Any


class ConvertedSource:
    """A file as it was before a conversion. It is read in pieces, and a few of them are kept.

    Attributes:
        path: Path of the file.
        size: How many bytes it had.
    """

    __slots__ = ("_converter", "_kept", "_lock", "_marks", "_source", "path", "size")

    piece = _PIECE
    gap = 0
    concurrency = 1

    def __init__(
        self, source: Source, converter: Converter, *, most: int, partial: bool = False
    ) -> None:
        """Read the whole file once.

        Args:
            source: The file as it is now; it is closed together with this one.
            converter: Undoes the conversion.
            most: How many bytes the file may have had.
            partial: Whether to take the bytes before the first place that cannot be undone.

        Raises:
            ValueError: No such conversion makes this file.
            LimitError: It would have more than `most` bytes.
        """
        self._source = source
        self._converter = converter
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = make_lock()
        self.path = source.path
        self._marks = [_Mark(0, 0, converter.start())]
        while self._marks[-1].source < source.size:
            mark = self._marks[-1]
            try:
                data, following = self._convert(mark)
                if not data and following.source == mark.source:
                    raise ValueError("The file ends within a character or a block")  # noqa: TRY301
            except ValueError:
                if not partial or not mark.target:
                    raise
                break
            if following.target > most:
                raise LimitError(
                    f"Expected at most {most} bytes, found more when the conversion was undone",
                    path=self.path,
                )
            self._marks.append(following)
        self.size = self._marks[-1].target

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset` of the file as it was.

        Raises:
            ChecksumError: The file has changed since it was opened.
        """
        check_range(self, offset, size)
        parts: list[bytes] = []
        missing = size
        number = bisect_right(self._marks, offset, key=lambda mark: mark.target) - 1
        while missing:
            data = self._piece(number)
            within = offset + size - missing - self._marks[number].target
            part = data[within : within + missing]
            parts.append(part)
            missing -= len(part)
            number += 1
        return b"".join(parts)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset` of the file as it was."""
        buffer[:] = self.read_at(offset, len(buffer))

    def map(self) -> mmap.mmap | None:
        """Return None: no file has these bytes."""
        return None

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _piece(self, number: int) -> bytes:
        with self._lock:
            data = self._kept.get(number)
            if data is None:
                data = self._kept[number] = self._convert_again(number)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(number)
            return data

    def _convert_again(self, number: int) -> bytes:
        """Undo the conversion of a piece that was seen when the file was opened."""
        mark, following = self._marks[number : number + 2]
        try:
            data, end = self._convert(mark)
        except ValueError as error:
            raise self._changed(mark) from error
        # Other bytes may be fewer or more than those that the marks count.
        if end.target != following.target:
            raise self._changed(mark)
        return data

    def _changed(self, mark: _Mark) -> ChecksumError:
        return ChecksumError(
            "The file has changed since it was opened: its bytes cannot be converted as before",
            path=self.path,
            offset=mark.source,
            hint="Open it again, when nobody writes to it",
        )

    def _convert(self, mark: _Mark) -> tuple[bytes, _Mark]:
        count = min(_PIECE, self._source.size - mark.source)
        data = self._source.read_at(mark.source, count)
        last = mark.source + count == self._source.size
        found, taken, state = self._converter.convert(data, mark.state, last=last)
        return found, _Mark(mark.source + taken, mark.target + len(found), state)
