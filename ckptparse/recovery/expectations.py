"""Numbers that something else than the checksum says: the step in the prefix, values of siblings.

A counter of a run rises evenly. So its values at two steps give its value at a third one.
"""

from __future__ import annotations

from itertools import combinations

from ckptparse.examination.check import fits
from ckptparse.examination.payload import PartName, Payload
from ckptparse.examination.readers import DataFiles
from ckptparse.filenames import INDEX_SUFFIX, find_step
from ckptparse.recovery.siblings import Siblings

__all__ = ["Expectations"]

_MOST_PAIRS = 32
"""Pairs of siblings that may say a number: eight siblings have 28 pairs. Each number fits by chance
1 in 2^32, so all of them together 1 in 134 million."""
_SIZE = 8
"""Bytes of an int64: counters are int64."""


class Expectations:
    """The values that an 8-byte integer may have, and why."""

    def __init__(self, prefix: str, files: DataFiles, siblings: Siblings) -> None:
        self._step = find_step(prefix)
        self._files = files
        self._siblings = siblings

    def of(self, name: PartName, payload: Payload) -> dict[int, str]:
        """Return the numbers that a payload may hold, each with what says it."""
        if self._step is None:
            return {}
        found = {self._step: "the step in the checkpoint's name"}
        known = sorted(self._known(name, payload).items())
        for (first, low), (second, high) in list(combinations(known, 2))[:_MOST_PAIRS]:
            rise, rest = divmod((high - low) * (self._step - first), second - first)
            if not rest and 0 <= low + rise < 1 << 63:
                found.setdefault(low + rise, "which follows from the checkpoints beside it")
        return found

    def _known(self, name: PartName, payload: Payload) -> dict[int, int]:
        """Return the values that siblings hold, by their steps."""
        known: dict[int, int] = {}
        for other in self._siblings.named(name, payload):
            step = find_step(other.index.removesuffix(INDEX_SUFFIX))
            if step is not None and step != self._step and fits(self._files, other):
                data = bytes(self._files.read(other.file, other.offset, _SIZE))
                known[step] = int.from_bytes(data, "big" if payload.big_endian else "little")
        return known
