"""Whether the only payload that was found at some distance from its place may really lie there.

In a large file some run of bytes has the checksum of a damaged payload by chance: in 100 MB that
happens to one payload in 43. If bytes were lost, or came in between, all that is behind lies
elsewhere too. So what is whole at its own place tells against it.
"""

from __future__ import annotations

import numpy as np

from ckptparse.examination.case import Case
from ckptparse.examination.places import IntColumn, are_telling, is_telling
from ckptparse.examination.readers import DataFile
from ckptparse.problems import Status

__all__ = ["WholePayloads"]


class WholePayloads:
    """The payloads of a data file that are whole at their places, and are not whole by chance."""

    def __init__(self, case: Case, file: DataFile) -> None:
        self._as_long_as_said = case.files.size(file) == case.end_of(file)
        starts, ends = zip(*_spans(case, file), strict=True)
        self._starts: IntColumn = np.concatenate(starts)
        self._ends: IntColumn = np.concatenate(ends)

    def deny(self, start: int, end: int, delta: int) -> bool:
        """Tell whether a payload from `start` to `end` lies no `delta` bytes from there.

        It does not if what is whole lies there, or behind the payload; nor if something is whole
        before it, and the file is as long as the index says: no byte was lost, none came in.
        """
        if not len(self._starts):
            return False
        there = (self._starts < end + delta) & (self._ends > start + delta)
        return bool(there.any() or self._as_long_as_said or (self._starts >= end).any())


def _spans(case: Case, file: DataFile) -> list[tuple[IntColumn, IntColumn]]:
    held = [
        (one.offset, one.end)
        for part, one in case.checked_in(file)
        if part.check.status is Status.VERIFIED and is_telling(one)
    ]
    array = np.array(held, np.int64).reshape(-1, 2)
    found = [(array[:, 0], array[:, 1])]
    sound, failed = case.sound, case.failed
    if file.undo is not None:
        return found
    if sound is not None and not sound.plain.are_records:
        rows = sound.rows_of(file.path)
        rows = rows[are_telling(sound.plain, rows)]
        columns = sound.plain.columns
        found.append((columns.offsets[rows], columns.offsets[rows] + columns.sizes[rows]))
    if failed is not None and not failed.plain.are_records:
        numbers = failed.of_path(file.path)
        numbers = numbers[failed.good[numbers]]
        numbers = numbers[are_telling(failed.plain, failed.rows[numbers])]
        found.append((failed.starts[numbers], failed.starts[numbers] + failed.sizes[numbers]))
    return found
