"""Read entries of a damaged block of a table, as far as they can still be read.

Reading starts again at every restart, where a key is stored in full (docs/format.md, section 1.5).
If the restart array is damaged too, it starts at every position where an entry with a full key can
begin.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

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
_MOST_STARTS = 1 << 18
"""Places of one block that are looked at for the start of an entry."""
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

    def refuse(self) -> bool:
        """Count an entry that looks wrong; tell whether others may be tried."""
        self.left -= 1
        return self.left > 0

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
    restarts, end = _restarts_of(contents) if whole else ([], len(contents))
    starts = restarts or [0]
    reached = 0
    for number, start in enumerate(starts):
        stop = starts[number + 1] if number + 1 < len(starts) else end
        reached = stop
        for key, value, position in _iter_run(contents, start, stop, budget):
            if accept(key, value):
                yield key, value
            elif not budget.refuse():
                return
            reached = position
        if not restarts and reached < end:
            yield from _iter_anywhere(contents, reached, end, accept, budget)


def _restarts_of(contents: bytes) -> tuple[list[int], int]:
    """Return the restarts, and where the entries end; no restarts if the array is damaged.

    The first restart is always 0, the others rise. Those that do not are left out; the array counts
    as damaged if fewer than half are left.
    """
    if len(contents) < 8:
        return [], len(contents)
    count = fixed32(contents, len(contents) - _WORD)
    end = len(contents) - _WORD - _WORD * count
    if count < 1 or end < 0:
        return [], len(contents)
    found = np.frombuffer(contents, "<u4", count, end)[1:]
    found = found[(found > 0) & (found < end)]
    rising = np.ones(len(found), np.bool_)
    rising[1:] = found[1:] > np.maximum.accumulate(found)[:-1]
    good = [0, *found[rising].tolist()]
    return (good, end) if 2 * len(good) > count else ([], len(contents))


def _iter_run(
    contents: bytes, start: int, stop: int, budget: Budget
) -> Iterator[tuple[bytes, bytes, int]]:
    """Iterate over the entries between two restarts up to the first that cannot be one."""
    key = b""
    position = start
    while position < stop:
        try:
            shared, key_start, value_start, value_end = decode_entry(contents, position, stop)
        except MalformedError:
            return
        if shared > len(key) or (position == start and shared):
            return
        if position and not shared and key_start == value_start:
            # Only the first key of a table is empty. These bytes are zeros, and no entry.
            return
        key = key[:shared] + contents[key_start:value_start]
        budget.count_key(key)
        position = value_end
        yield key, contents[value_start:value_end], position


def _iter_anywhere(
    contents: bytes, start: int, end: int, accept: Accept, budget: Budget
) -> Iterator[tuple[bytes, bytes]]:
    """Find an entry with a full key that looks right, at any position; go on from there."""
    view = np.frombuffer(contents, np.uint8)[start:end]
    # Three varints: 0 bytes shared, then the sizes of a key and a value that are not empty.
    likely = (view[:-2] == 0) & (view[1:-1] > 0) & (view[2:] > 0)
    reached = 0
    for found in np.flatnonzero(likely)[:_MOST_STARTS].tolist():
        position = start + found
        if position < reached:
            continue
        for key, value, stop in _iter_run(contents, position, end, budget):
            if not accept(key, value):
                if not budget.refuse():
                    return
                break
            yield key, value
            reached = stop
