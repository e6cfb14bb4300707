"""Tell what happened to payloads whose bytes were found nowhere: flipped bits, or another save.

Of an index and a data file of different saves, constants agree and trained tensors do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ckptparse.crc.flips import HIGHEST_CHANCE, chance_of_bit, find_bit
from ckptparse.examination.case import ATTEMPT_BYTES, Case, Part
from ckptparse.examination.check import Check
from ckptparse.examination.conversions import lacks_returns
from ckptparse.examination.damaged_file import NO_ROWS, ByOffset, DamagedFile
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import IntColumn, are_telling, is_telling
from ckptparse.examination.plausibility import has_magnitudes, is_plausible
from ckptparse.examination.readers import PAGE
from ckptparse.problems import Cause

__all__ = ["tell_apart"]

_SECTOR = 512
"""Bytes of the smallest piece that is moved as one: stripes and blocks are some of them."""
_SAMPLES = 8
"""Payloads that are looked at to tell whether a file holds trained values."""


def tell_apart(case: Case, group: DamagedFile, size: int | None) -> None:
    """Tell single flipped bits from a mixed save, in tensors whose cause is not known yet.

    Args:
        case: The checkpoint.
        group: What is damaged in the data file, and where its bytes were found.
        size: How many bytes the data file has.
    """
    _Unexplained(case, group, size).run()


class _Unexplained:
    """What is left of one data file when all else was tried."""

    def __init__(self, case: Case, group: DamagedFile, size: int | None) -> None:
        self.case = case
        self.files = case.files
        self.failed = case.failed
        self.group = group
        self.size = size

    def run(self) -> None:
        """Tell single flipped bits from a mixed save, in tensors whose cause is not known yet."""
        waiting = [
            (part, payload) for part, payload in self.group.parts if self.group.is_open(part)
        ]
        rows = self.group.open_rows()
        most = self.case.context.limits.attempts + (self.size or 0) // ATTEMPT_BYTES
        first, first_rows = ByOffset([one for _, one in waiting], self.failed, rows).first(most)
        tried = [waiting[number] for number in first]
        flipped = {id(part) for part, payload in tried if _is_flipped(part.check, payload)}
        for part, _ in waiting:
            if id(part) in flipped:
                part.check = part.check.because(Cause.BITS)
        flipped_rows = self._flipped(first_rows)
        self.group.blame(flipped_rows, Cause.BITS)
        count = len(flipped) + len(flipped_rows)
        # Zeros explain a tensor with holes. Only what else fails may be of another save.
        waiting = [pair for pair in waiting if pair[0].check.cause is not Cause.ZEROS]
        if self.failed is not None:
            rows = rows[~self.failed.has_cause(Cause.ZEROS)[rows]]
        total = len(waiting) + len(rows)
        if count >= total or not self._is_mixed([payload for _, payload in waiting], rows):
            return
        if self._is_in_parts():
            # The index is about what was found, and what else it is about may lie elsewhere too.
            self.group.report(
                "shard.shifted",
                f"the checksums of {total} more tensors disagree, and others lie whole sectors "
                "from their places: parts of the file may be in another order",
            )
            return
        if 2 * count < total:
            flipped, flipped_rows = set(), NO_ROWS
        left = [part for part, _ in waiting if id(part) not in flipped]
        self._call_mixed(total, left, rows[~np.isin(rows, flipped_rows)])

    def _call_mixed(self, total: int, parts: Sequence[Part], rows: IntColumn) -> None:
        """Say that index and data file are of different saves, as far as can be told."""
        self.group.report(
            "set.mixed",
            f"the checksums of {total} tensors disagree, though their bytes look like whole "
            "values: either index and data file are of different saves, or the file was changed "
            "in many places",
        )
        for part in parts:
            part.check = part.check.because(Cause.MIXED)
        self.group.blame(rows, Cause.MIXED)

    def _flipped(self, rows: IntColumn) -> IntColumn:
        """Return the rows of which one flipped bit explains the checksum."""
        failed = self.failed
        if failed is None:
            return rows
        columns = (failed.crcs[rows], failed.computed[rows], failed.sizes[rows])
        told = zip(*(column.tolist() for column in columns), strict=True)
        return rows[np.array([_explains_bit(*one) for one in told], np.bool_)]

    def _is_in_parts(self) -> bool:
        """Tell whether bytes of the file were found whole sectors from their place."""
        return any(
            place.file == self.group.file
            and place.cause is Cause.SHIFTED
            and place.chance <= HIGHEST_CHANCE
            and place.delta % _SECTOR == 0
            for place in self.group.places
        )

    def _is_mixed(self, waiting: Sequence[Payload], rows: IntColumn) -> bool:
        """Tell whether the file is full of plausible values, and those that can change are wrong.

        Half of the payloads that can change must fail, the file must have the size that the index
        expects, and more than half of some samples must look like trained values.
        """
        if self.failed is not None:
            rows = rows[are_telling(self.failed.plain, self.failed.rows[rows])]
        telling = ByOffset([one for one in waiting if is_telling(one)], self.failed, rows)
        if len(telling) < 2:
            return False
        size, changing = self._count_changing(2 * len(telling))
        return (
            2 * len(telling) >= changing
            and self.size == size
            and self._look_trained(telling)
            and not lacks_returns(self.files.source(self.group.file))
        )

    def _look_trained(self, telling: Sequence[Payload]) -> bool:
        """Tell whether more than half of some samples look like trained values.

        Floats show it. Of others, which look so always, not all may lie in one page: damage to that
        would explain them.
        """
        samples = telling[:_SAMPLES]
        floats = [payload for payload in samples if has_magnitudes(payload)]
        plausible = sum(is_plausible(self.files, payload) for payload in floats)
        if floats:
            return 2 * plausible > len(floats)
        last = max(payload.offset // PAGE for payload in telling[-1:])
        return last > min((payload.end - 1) // PAGE for payload in samples)

    def _count_changing(self, most: int) -> tuple[int, int]:
        """Return where the payloads of the file end, and how many can change.

        Of more than `most` it is not said how many.
        """
        file = self.group.file
        held = list(self.case.held_in(file))
        # What has holes fails anyway, and says nothing of the rest.
        holed = {part.payload for part in held if part.check.cause is Cause.ZEROS}
        there = [part.payload for part in held if part.payload is not None]
        end = max((payload.end for payload in there), default=0)
        changing = sum(is_telling(payload) for payload in there if payload not in holed)
        sound, failed = self.case.sound, self.failed
        if file.undo is not None or sound is None:
            return end, changing
        end = max(end, sound.end_of(file.path))
        if failed is not None:
            end = max(end, failed.end_of(file.path))
            rows = failed.of_path(file.path)
            rows = failed.rows[rows[~failed.has_cause(Cause.ZEROS)[rows]]]
            changing += int(np.count_nonzero(are_telling(failed.plain, rows)))
        if changing <= most:
            rows = sound.rows_of(file.path)
            changing += int(np.count_nonzero(are_telling(sound.plain, rows)))
        return end, changing


def _is_flipped(check: Check, payload: Payload) -> bool:
    """Tell whether one flipped bit explains a checksum, and this is not a chance hit."""
    crc = payload.crc32c
    if check.computed is None or crc is None or payload.form in (Form.STRINGS, Form.VARIANTS):
        return False
    return _explains_bit(crc, check.computed, payload.size)


def _explains_bit(stored: int, computed: int, size: int) -> bool:
    """Tell whether one flipped bit explains a checksum, and this is not a chance hit."""
    return chance_of_bit(size) <= HIGHEST_CHANCE and find_bit(stored, computed, size) is not None
