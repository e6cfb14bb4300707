"""Read files that were converted as a whole as they were before. Each conversion is a `Source`.

... 0a ...   ->   ... 0d 0a ...        `UndoneLineEnds` takes the carriage returns out again
"""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

from ckptparse.files.storage import Source, check_range
from ckptparse.parallel import PIECE_SIZE

__all__ = ["UndoneLineEnds"]

_CR, _LF = 13, 10


class UndoneLineEnds:
    """A file without the carriage returns that stand before line feeds."""

    __slots__ = ("_before", "_source", "size")

    def __init__(self, source: Source) -> None:
        self._source = source
        returns = _find_returns(source)
        self.size = source.size - len(returns)
        # Where each is taken out, counted in bytes that remain.
        self._before = returns - np.arange(len(returns))

    @property
    def path(self) -> str:
        """The path of the file itself."""
        return self._source.path

    @property
    def piece(self) -> int:
        """As the file's."""
        return self._source.piece

    @property
    def gap(self) -> int:
        """As the file's."""
        return self._source.gap

    @property
    def concurrency(self) -> int | None:
        """As the file's."""
        return self._source.concurrency

    def read_at(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes of what remains; `TruncatedError` if it ends before them."""
        check_range(self, offset, size)
        if not size:
            return b""
        first, last = self._original(offset), self._original(offset + size - 1)
        return self._source.read_at(first, last + 1 - first).replace(b"\r\n", b"\n")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with what remains at `offset`."""
        buffer[:] = self.read_at(offset, len(buffer))

    def map(self) -> mmap.mmap | None:
        """Return None: what remains lies nowhere in one piece, so it cannot be mapped."""
        return None

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _original(self, position: int) -> int:
        """Return where a byte that remains stands in the file."""
        return position + int(np.searchsorted(self._before, position, "right"))


def _find_returns(source: Source) -> npt.NDArray[np.int64]:
    """Return the positions of the carriage returns that stand before line feeds."""
    found = [np.empty(0, np.int64)]
    for start in range(0, source.size, PIECE_SIZE):
        # One byte more, so that a pair across two pieces is found.
        data = np.frombuffer(
            source.read_at(start, min(PIECE_SIZE + 1, source.size - start)), np.uint8
        )
        found.append(np.flatnonzero((data[:-1] == _CR) & (data[1:] == _LF)) + start)
    return np.concatenate(found)
