"""Undo a conversion to UTF-16 of a file that was damaged afterwards.

Every byte became two. If an odd number of bytes was lost or put in, all pairs behind begin one byte
further on: of pairs that begin at the wrong byte, hardly any is a character that a byte became.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Pairs", "share_odd"]

_BLOCK = 64
"""Bytes that are judged together: 32 pairs."""
_MOST_ODD = 8
"""Pairs of these that are no character, at most. At the wrong byte, 3 of 32 are one by chance."""
_ZERO = 0x30
"""What stands for a pair that is no character."""
_MARKS = (b"\xff\xfe", b"\xfe\xff")

_Bytes = npt.NDArray[np.uint8]
_Counts = npt.NDArray[np.int64]


class _State(NamedTuple):
    """Whether the next byte is the first, and how many bytes further on a pair begins."""

    is_first: bool
    phase: int


class Pairs:
    """Pairs of bytes, each for one byte; what is no character, too."""

    def __init__(self, letters: str, *, big_endian: bool) -> None:
        """Take the characters that the 256 bytes became."""
        self._letters = letters
        self._order = ">u2" if big_endian else "<u2"

    def start(self) -> _State:
        """Return the state before the first byte."""
        return _State(True, 0)

    def convert(self, data: bytes, state: _State, *, last: bool) -> tuple[bytes, int, _State]:
        """Undo the conversion of some bytes; as `Converter`."""
        skipped = 2 if state.is_first and data[:2] in _MARKS else 0
        body = np.frombuffer(data, np.uint8)[skipped:]
        # A pair that begins one byte further on needs the first byte of the next block.
        count = max(0, len(body) - 1) // _BLOCK
        phases = self._phases(body, count, state.phase)
        found = []
        edges = [0, *(np.flatnonzero(np.diff(phases)) + 1).tolist(), count]
        for start, stop in pairwise(edges):
            phase = int(phases[start]) if count else state.phase
            found.append(self._bytes_of(body[_BLOCK * start + phase : _BLOCK * stop + phase]))
        phase = int(phases[-1]) if count else state.phase
        taken = _BLOCK * count
        if last:
            rest = body[taken + phase :]
            if len(rest) % 2 and self._order == "<u2":
                # Of the last pair the second byte was lost, which nearly always is zero.
                rest = np.append(rest, np.uint8(0))
            found.append(self._bytes_of(rest))
            taken = len(body)
        return b"".join(found), skipped + taken, _State(False, phase)

    def _phases(self, body: _Bytes, count: int, before: int) -> npt.NDArray[np.intp]:
        """Return for each block how many bytes further on its pairs begin."""
        odd = [self._count_odd(body[phase : phase + _BLOCK * count]) for phase in (0, 1)]
        good = [counts <= _MOST_ODD for counts in odd]
        # What both may be, or neither, goes on as before.
        told = good[0] != good[1]
        last = np.maximum.accumulate(np.where(told, np.arange(count), -1))
        return np.where(last < 0, before, good[1].astype(np.intp)[last])

    def _count_odd(self, data: _Bytes) -> _Counts:
        odd = self._table[1][data.view(self._order)]
        counts: _Counts = odd.reshape(-1, _BLOCK // 2).sum(axis=1, dtype=np.int64)
        return counts

    def _bytes_of(self, data: _Bytes) -> bytes:
        pairs = data[: len(data) // 2 * 2].view(self._order)
        found: _Bytes = self._table[0][pairs]
        return found.tobytes()

    @cached_property
    def _table(self) -> tuple[_Bytes, npt.NDArray[np.bool_]]:
        return _table_of(self._letters)


@lru_cache(maxsize=2)
def _table_of(letters: str) -> tuple[_Bytes, npt.NDArray[np.bool_]]:
    """Return for each pair the byte that became it, and whether none did."""
    found = np.full(1 << 16, _ZERO, np.uint8)
    none = np.ones(1 << 16, np.bool_)
    codes = [ord(letter) for letter in letters]
    found[codes] = np.arange(256)
    none[codes] = False
    return found, none


def share_odd(sample: bytes, letters: str, *, big_endian: bool, phases: Sequence[int]) -> float:
    """Return which share of a sample's pairs are no characters, if they begin where fewest are.

    Of pairs most of which are zero nothing was made: then that is 1.
    """
    order = ">u2" if big_endian else "<u2"
    none = _table_of(letters)[1]
    least = 1.0
    for phase in phases:
        pairs = np.frombuffer(sample[phase : phase + (len(sample) - 1) // 2 * 2], order)
        if 2 * np.count_nonzero(pairs) > len(pairs):
            least = min(least, float(none[pairs].mean()))
    return least
