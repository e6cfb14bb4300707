"""Read files that were converted as a whole as they were before. Each conversion is a `Source`.

... 0a ...   ->   ... 0d 0a ...        `UndoneLineEnds` takes the carriage returns out again
"""

from __future__ import annotations

import mmap
from enum import Enum

import numpy as np
import numpy.typing as npt

from ckptparse.files.storage import Source, check_range
from ckptparse.parallel import PIECE_SIZE

__all__ = ["LineEnds", "UndoneLineEnds", "find_line_ends", "lacks_returns"]

_CR, _LF = 13, 10
_TEXT_SAMPLE = 1 << 22
"""Bytes at a file's start that are searched for line ends. In 4 MiB of random bytes 16,384 are line
feeds, four times `_MANY_FEEDS`."""
_FEW_FEEDS = 4
"""Line feeds that must all follow a carriage return. By chance one in 256 does: four in 2^32."""
_MANY_FEEDS = 4096
"""Line feeds of which none may follow a carriage return. In random bytes 16 of them would; that
none does has the chance e^-16, 1 in 9 million."""
_SOME_FEEDS = 16
"""Line feeds of a file that may have lost its carriage returns."""
_MANY_RETURNS = 1024
"""Other carriage returns that must be there. A file that holds none shows nothing by this sign."""
_LIKE_FEEDS = b"\t\v\f\x0e"
"""The bytes whose numbers are those of line feeds and carriage returns, in numbers and in noise."""
_FEW_LIKE = 48
"""So many of each of them must be there. That none is a carriage return then has the chance
e^-48."""
_MORE_FEEDS = 1.4
"""Line feeds for each of them, if carriage returns became line feeds: two. Without that it is one,
and of 48 hardly ever 1.4."""


class LineEnds(Enum):
    """A conversion of line ends, and the sign of it."""

    CRLF = "every line feed in it follows a carriage return"
    LF = "no carriage return in it stands before a line feed"
    CR = "it holds no carriage return, and too many line feeds for that: they became line feeds"


def find_line_ends(source: Source) -> LineEnds | None:
    """Tell from the start of a file whether its line ends were converted."""
    sample = bytes(source.read_at(0, min(source.size, _TEXT_SAMPLE)))
    feeds, pairs = sample.count(b"\n"), sample.count(b"\r\n")
    if feeds >= _FEW_FEEDS and feeds == pairs:
        return LineEnds.CRLF
    # Among random bytes one line feed in 256 follows a carriage return.
    if feeds >= _MANY_FEEDS and not pairs and sample.count(b"\r") > _MANY_RETURNS:
        return LineEnds.LF
    alike = [sample.count(byte) for byte in _LIKE_FEEDS]
    if min(alike) >= _FEW_LIKE and b"\r" not in sample and feeds >= _MORE_FEEDS * max(alike):
        return LineEnds.CR
    return None


def lacks_returns(source: Source) -> bool:
    """Tell whether a file has line feeds and no carriage return, as hardly a file of weights has.

    By chance 16 line feeds and no return come together once in e^16, or 9 million.
    """
    sample = bytes(source.read_at(0, min(source.size, _TEXT_SAMPLE)))
    return b"\r" not in sample and sample.count(b"\n") >= _SOME_FEEDS


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
