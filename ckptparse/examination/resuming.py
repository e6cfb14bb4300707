"""Read entries of a damaged block of a table, as far as they can still be read.

    entry  entry  ???  entry  entry  |  entry ...  |  restart array
                       ^ its key is known if it shares what all keys up to the next restart share

Reading starts again at every restart, where a key is stored in full (docs/format.md, section 1.5).
Behind damage it also starts at every position where an entry can begin whose key is known: it is
stored in full, or shares with the key before it just what the last key before the damage and the
next restart's have in common. Keys rise, so all keys between these two begin so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

import numpy as np

from ckptparse.errors import MalformedError
from ckptparse.examination.carving import fixed32
from ckptparse.limits import Limits
from ckptparse.table.block import check_key_bytes, decode_entry

__all__ = ["Accept", "iter_resumed", "longest_rising"]

Accept = Callable[[bytes, bytes], bool]
"""Tells whether a key and a value that no checksum covers look like an entry."""
_WORD = 4
"""Bytes of a restart offset, and of their number, at a block's end: docs/format.md, section 1.4."""
_ONE_BYTE = 0x80
"""A varint below it is one byte."""
_MOST_STARTS = 1 << 17
"""Places of one table that are tried for the start of an entry: 0.3 s of a hostile one."""
_MOST_REFUSED = 1 << 13
"""Entries of one table that may look wrong: 0.3 s of a hostile one; a damaged block has few."""


class Budget:
    """What reading on in the damaged blocks of one table may cost, all together."""

    def __init__(self, limits: Limits, size: int) -> None:
        """Begin.

        Args:
            limits: Bounds on what keys may take, written out.
            size: Of the table.
        """
        self._limits = limits
        self._size = size
        self._keys = 0
        self.left = _MOST_REFUSED
        """Entries that may still look wrong."""
        self.starts = _MOST_STARTS
        """Places that may still be tried."""

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may be tried."""
        return self.left <= 0 or self.starts <= 0

    def count_key(self, key: bytes) -> None:
        """Count a key that was written out.

        Raises:
            LimitError: All keys take more than their blocks can hold.
        """
        self._keys += len(key)
        check_key_bytes(self._keys, self._size, self._limits)


def longest_rising(keys: Sequence[bytes]) -> list[int]:
    """Return the positions of the keys that form the longest strictly rising chain.

    Keys of a table rise. If some conflict, those that agree with more others are likely right.
    """
    lowest: list[bytes] = []  # the lowest last key of the chains of each length
    ends: list[int] = []
    before: list[int] = []
    for place, key in enumerate(keys):
        length = bisect_left(lowest, key)
        before.append(ends[length - 1] if length else -1)
        if length == len(lowest):
            lowest.append(key)
            ends.append(place)
        else:
            lowest[length], ends[length] = key, place
    chain = []
    place = ends[-1] if ends else -1
    while place >= 0:
        chain.append(place)
        place = before[place]
    return chain[::-1]


def iter_resumed(
    contents: bytes, accept: Accept, budget: Budget, *, whole: bool = True
) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over the keys and values that can be read from damaged contents.

    Args:
        contents: The damaged bytes.
        accept: Tells what can be an entry.
        budget: What that may cost.
        whole: Whether they are a block from end to end, so that its restart array comes last.

    Raises:
        LimitError: The keys take more than `Limits` allow.
    """
    restarts, end = _restarts_of(contents) if whole else ([0], len(contents))
    return iter(_Resuming(contents, restarts, end, accept, budget))


class _Resuming:
    """Reads one block, and goes on behind damage."""

    def __init__(
        self, contents: bytes, restarts: Sequence[int], end: int, accept: Accept, budget: Budget
    ) -> None:
        self._contents = contents
        self._end = end
        # If the entries do not end where the array seems to begin, it may begin further on.
        self._stops = [*restarts[1:], end, len(contents)]
        self._accept = accept
        self._budget = budget
        self._last = b""
        """The last key that looks right."""
        self._position = 0
        """Nothing before it is looked at again."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        at, before = 0, b""
        for stop in takewhile(lambda _: not self._budget.is_spent, self._stops):
            for key, value, end in self._iter_run(at, stop, before):
                at, before = end, key
                if self._looks_right(key, value):
                    self._position = end
                    yield key, value
                elif self._budget.is_spent:
                    return
            if at == self._end:
                return
            if at < stop:
                following = self._key_at(stop)
                if following is None and stop < len(self._contents):
                    # No entry begins there: this restart is damaged, or what lies behind it.
                    continue
                yield from self._iter_anywhere(stop, following)
            at, before = stop, b""
            self._position = stop

    def _iter_run(self, start: int, stop: int, key: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        return _iter_run(self._contents, start, stop, key, self._budget)

    def _looks_right(self, key: bytes, value: bytes) -> bool:
        if self._accept(key, value):
            self._last = key
            return True
        self._budget.left -= 1
        return False

    def _key_at(self, restart: int) -> bytes | None:
        """Return the key of the entry that begins at a restart; None if none does."""
        for key, value, _ in self._iter_run(restart, len(self._contents), b""):
            if self._accept(key, value):
                return key
            break
        self._budget.left -= 1
        return None

    def _iter_anywhere(self, stop: int, following: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Find an entry that looks right, at any position; go on from there.

        Args:
            stop: Where the search ends.
            following: The key that is stored there; None if it is not known.
        """
        known = b"" if following is None else _shared(self._last, following)
        start = self._position
        view = np.frombuffer(self._contents, np.uint8)[start:stop]
        # Three varints: bytes that are shared, then the sizes of a key and a value, not empty.
        shared = view[:-2]
        likely = ((shared == 0) | (shared == len(known))) & (view[1:-1] > 0) & (view[2:] > 0)
        for position in (np.flatnonzero(likely) + start).tolist():
            if self._budget.is_spent:
                return
            if position >= self._position:
                self._budget.starts -= 1
                yield from self._iter_from(position, stop, known, following or b"")

    def _iter_from(
        self, position: int, stop: int, known: bytes, following: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the entries from a position on, if the first one looks right."""
        shares = self._contents[position] > 0
        is_first = True
        for key, value, end in self._iter_run(position, stop, known if shares else b""):
            if is_first and shares and not self._last < key < following:
                return
            if self._looks_right(key, value):
                self._position = end
                yield key, value
            elif is_first:
                return
            is_first = False


def _shared(one: bytes, other: bytes) -> bytes:
    """Return with what two keys begin; nothing if that takes more than one byte to state."""
    pairs = zip(one[:_ONE_BYTE], other[:_ONE_BYTE], strict=False)
    size = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return one[:size] if size < _ONE_BYTE else b""


def _restarts_of(contents: bytes) -> tuple[list[int], int]:
    """Return the restarts, and where the entries end; only the first if the array is damaged.

    The first restart is always 0, the others rise. Those that do not are left out; the array counts
    as damaged if fewer than half are left.
    """
    if len(contents) < 8:
        return [0], len(contents)
    count = fixed32(contents, len(contents) - _WORD)
    end = len(contents) - _WORD - _WORD * count
    if count < 1 or end < 0:
        return [0], len(contents)
    found = np.frombuffer(contents, "<u4", count, end)[1:]
    found = found[(found > 0) & (found < end)]
    rising = np.ones(len(found), np.bool_)
    rising[1:] = found[1:] > np.maximum.accumulate(found)[:-1]
    good = [0, *found[rising].tolist()]
    return (good, end) if 2 * len(good) > count else ([0], len(contents))


def _iter_run(
    contents: bytes, start: int, stop: int, key: bytes, budget: Budget
) -> Iterator[tuple[bytes, bytes, int]]:
    """Iterate over entries up to the first that cannot be one.

    Args:
        contents: The damaged bytes.
        start: Where the first begins.
        stop: None ends behind it.
        key: That before the first, or as much of it as is known; empty at a restart.
        budget: What that may cost.

    Yields:
        Key, value, and where the next entry begins.
    """
    position = start
    while position < stop:
        try:
            shared, key_start, value_start, value_end = decode_entry(contents, position, stop)
        except MalformedError:
            return
        if shared > len(key):
            return
        if position and not shared and key_start == value_start:
            # Only the first key of a table is empty. These bytes are zeros, and no entry.
            return
        key = key[:shared] + contents[key_start:value_start]
        budget.count_key(key)
        position = value_end
        yield key, contents[value_start:value_end], position
