"""Numbers that something beside the checksum says: the step in the prefix, and what siblings hold.

A counter of a run rises evenly, so two siblings at known steps tell what it is at a third.
"""

from __future__ import annotations

from itertools import combinations

from ckptparse.examination.check import fits
from ckptparse.examination.payload import PartName, Payload
from ckptparse.examination.readers import DataFiles
from ckptparse.filenames import find_step
from ckptparse.recovery.siblings import Siblings

__all__ = ["Expectations"]

_MOST_PAIRS = 32
"""Pairs of siblings that may say a number: each adds its chance to fit by accident."""
_SIZE = 8


class Expectations:
    """What an 8-byte integer may be, and why."""

    def __init__(self, prefix: str, files: DataFiles, siblings: Siblings) -> None:
        self._step = find_step(prefix)
        self._files = files
        self._siblings = siblings

    def of(self, name: PartName, payload: Payload) -> dict[int, str]:
        """Return the numbers that a payload may hold, each with what says so."""
        if self._step is None:
            return {}
        found = {self._step: "the step in the checkpoint's name"}
        known = sorted(self._known(name, payload).items())
        for (first, low), (second, high) in list(combinations(known, 2))[:_MOST_PAIRS]:
            rise, rest = divmod((high - low) * (self._step - first), second - first)
            if not rest and 0 <= low + rise < 1 << 63:
                found.setdefault(low + rise, "what it is in the checkpoints beside")
        return found

    def _known(self, name: PartName, payload: Payload) -> dict[int, int]:
        """Return the value at each step at which a sibling holds it."""
        known: dict[int, int] = {}
        for other in self._siblings.named(name, payload):
            step = find_step(other.index.removesuffix(".index"))
            if step is not None and step != self._step and fits(self._files, other):
                data = bytes(self._files.read(other.file, other.offset, _SIZE))
                known[step] = int.from_bytes(data, "big" if payload.big_endian else "little")
        return known
