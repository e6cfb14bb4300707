"""Tell of what fails in a data file whether its bytes lie there undamaged, and differ.

What is whole around a part tells how the file is read there, and what is damaged near it explains
why the part fails.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import item_size
from ckptparse.examination.case import Case
from ckptparse.examination.check import fits, is_there
from ckptparse.examination.outcome import Span
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import LEAST_SOUGHT, Place, stored_dtype
from ckptparse.examination.readers import PAGE, DataFile
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.problems import Cause, Status
from ckptparse.recovery.borrowing import Remains
from ckptparse.recovery.claims import Way, may_differ_by_little
from ckptparse.recovery.doubt import is_like_weights
from ckptparse.recovery.failing import Failing, find_ways
from ckptparse.recovery.loading import MendedTensor
from ckptparse.recovery.mended import available_bytes
from ckptparse.recovery.sound import RowMended
from ckptparse.recovery.statistics import SECTOR

__all__ = ["Surroundings"]

_MOST_WAYS = 8
"""Ways of reading a file in which a value is compared with what is stored."""
_NEAR = 64
"""Bytes at the end of a tensor of weights in which damage may not be seen: 16 elements."""
_ENOUGH = 2
"""Tensors that contradict: more say no more."""
_COMPARED = 1 << 20
"""First bytes of a part that are compared."""


@dataclass(frozen=True, slots=True)
class _Side:
    """What lies on one side of a tensor that fails.

    Attributes:
        there: Where the next one lies that is whole; None if there is none.
        damage: Offset of the nearest tensor whose damage reaches to this side; None if none does.
        beside: Whether nothing that fails lies between.
    """

    there: Way | None = None
    damage: int | None = None
    beside: bool = False


class Surroundings:
    """What of one data file is whole, and what is not, by offset."""

    def __init__(
        self,
        case: Case,
        file: DataFile,
        failing: Sequence[Failing],
        mended: RowMapping[MendedTensor],
    ) -> None:
        self._files = case.files
        self._file = file
        known = self._known = dict.fromkeys([(file, 0), *find_ways(failing)])
        whole = [one for one in failing if one.there in known]
        self._broken = sorted(
            (one for one in failing if one.there not in known),
            key=lambda one: (one.payload.offset, one.payload.end),
        )
        spans = [*_whole_spans(case, file, whole), *_spans_of_rows(case, file, mended)]
        self._usual = self._find_usual([there for starts, _, there in spans if len(starts)])
        # A few bytes have their checksum by chance, or where others lie.
        spans = [
            (starts[long], stops[long], there)
            for starts, stops, there in spans
            if len(long := np.flatnonzero(stops - starts >= LEAST_SOUGHT))
        ]
        self._ways = [there for _, _, there in spans]
        empty = np.zeros(0, np.int64)
        starts = np.concatenate([empty, *(one for one, _, _ in spans)])
        order = np.argsort(starts, kind="stable")
        self._starts = starts[order]
        self._stops = np.concatenate([empty, *(one for _, one, _ in spans)])[order]
        counts = [len(one) for one, _, _ in spans]
        self._way = np.repeat(np.arange(len(spans)), counts)[order]

    def _find_usual(self, ways: Collection[Way]) -> Way:
        """Return where what is beside nothing whole lies, from the ways in which others do.

        If a conversion of the file was undone, all lies there. If others lie in one other file, and
        none in its own, that one lies in its place.
        """
        undone = (way for way in self._known if way[0].path == self._file.path and way[0].undo)
        converted = next((way for way in undone if not way[1]), None)
        swapped = {way for way in self._known if way[0].path != self._file.path and not way[1]}
        if converted is None and len(swapped) == 1 and (self._file, 0) not in ways:
            return swapped.pop()
        return converted or (self._file, 0)

    def count_contradictions(self) -> int:
        """Count the tensors whose bytes lie where nothing is damaged, and differ: two at most."""
        if not len(self._starts) and any(one.check.cause is Cause.TEXT for one in self._broken):
            # It was converted, and that is not undone: nothing lies where it belongs.
            return 0
        shown = [one.shows_damage for one in self._broken]
        before, after = self._look(-1, shown), self._look(1, shown)
        told = zip(self._broken, before, after, strict=True)
        return sum(1 for _ in islice((one for one in told if self._contradicts(*one)), _ENOUGH))

    def _contradicts(self, one: Failing, before: _Side, after: _Side) -> bool:
        small = may_differ_by_little(one.payload)
        sides = [side.there for side in (before, after) if side.there is not None]
        # What looks wrong at its place says nothing if what is around it lies elsewhere.
        odd = one.outcome.suspect or one.check.holes or _is_withheld(one)
        seen = odd and (not sides or self._usual in sides)
        if seen or self._is_damaged_beside(one, before, after) or (one.is_own and not small):
            return False
        if one.remains in (Remains.SAME, Remains.FILLED):
            return False
        places = [one.payload.moved(*side) for side in sides] or [one.payload.moved(*self._usual)]
        # If it is whole there, its value was taken from an equal one.
        if any(not is_there(self._files, one) or fits(self._files, one) for one in places):
            return False
        apart = len({place.file for place in places}) > 1
        if not apart and before.beside and after.beside and len(set(map(self._read, places))) > 1:
            # Bytes were put in there, or lost.
            return False
        if not small:
            return any(map(self._holds_weights, places if apart else places[:1]))
        return not self._is_filled(places[0], one.payload)

    def _holds_weights(self, place: Payload) -> bool:
        """Tell whether weights lie there. Zeros look like them, and are what damage leaves."""
        own = self._read(place)
        return 2 * own.count(0) < len(own) and is_like_weights(self._files, place)

    @staticmethod
    def _is_damaged_beside(one: Failing, before: _Side, after: _Side) -> bool:
        """Tell whether damage comes near to a part."""
        if before.damage is not None and one.payload.offset - before.damage <= PAGE:
            return True
        return after.damage is not None and after.damage - one.payload.end <= PAGE

    def _read(self, place: Payload) -> bytes:
        return bytes(self._files.read(place.file, place.offset, min(place.size, _COMPARED)))

    def _look(self, step: Literal[-1, 1], shown: Sequence[bool]) -> list[_Side]:
        """Return what comes next on one side of each.

        What fails on the way, and does not show where it is damaged (`shown`), says nothing.
        """
        sides: list[_Side] = []
        last: Failing | None = None
        is_shown = False
        for one, shows in zip(self._broken[::-step], shown[::-step], strict=True):
            whole = self._next_whole(one.payload, step)
            there = None if whole is None else self._ways[int(self._way[whole])]
            if last is None or (
                whole is not None and _is_beyond(last.payload, self._span(whole), step)
            ):
                sides.append(_Side(there, beside=True))
            elif is_shown:
                edge = last.payload.end if step < 0 else last.payload.offset
                sides.append(_Side(damage=edge if self._is_damaged_at(last, -step) else None))
            else:
                sides.append(replace(sides[-1], beside=False))
            last, is_shown = one, shows
        return sides[::-step]

    def _next_whole(self, payload: Payload, step: int) -> int | None:
        """Return the number of what is whole and comes next on one side."""
        if step < 0:
            at = int(np.searchsorted(self._starts, payload.offset, "left")) - 1
            return at if at >= 0 and self._stops[at] <= payload.offset else None
        at = int(np.searchsorted(self._starts, payload.end, "left"))
        return at if at < len(self._starts) else None

    def _span(self, number: int) -> Span:
        return int(self._starts[number]), int(self._stops[number])

    def _is_damaged_at(self, one: Failing, step: int) -> bool:
        """Tell whether damage that can be seen comes near to the start (-1) or end of a part."""
        spans = self._damaged_spans(one)
        if step < 0:
            return any(start < _NEAR for start, _ in spans)
        return any(stop > one.payload.size - _NEAR for _, stop in spans)

    def _damaged_spans(self, one: Failing) -> list[Span]:
        """Return the bytes of a part that are seen to be damaged."""
        payload, recipe = one.payload, one.recipe
        if recipe is None and one.outcome.cause is Cause.TEXT:
            # Nothing tells where the file was damaged after it was converted.
            return []
        if recipe is None:
            return [] if self._lies_elsewhere(payload) else [(0, payload.size)]
        if one.outcome.cause is Cause.SHIFTED and one.outcome.suspect == one.outcome.ranges:
            # Bytes were put in somewhere, or lost: that is one place, and nothing tells which.
            return []
        if recipe.derived is not None:
            return self._unlike(payload, recipe.derived.payload(stored_dtype(payload)))
        if one.are_same and recipe.file is not None:
            size = min(payload.size, _COMPARED)
            value = bytearray(
                self._files.read(recipe.file, recipe.offset, min(size, recipe.available))
            )
            return self._unlike(payload, bytes(value.ljust(size, b"\0")))
        held = recipe.available
        width = item_size(payload.data_type) or 1
        spans = list(one.check.holes)
        spans += [(start * width, stop * width) for start, stop in one.outcome.suspect]
        patches = [(patch.offset, patch.offset + len(patch.data)) for patch in recipe.patches]
        # If all bytes are replaced, those that were put in are left out.
        spans += [] if patches == [(0, payload.size)] else patches
        spans += [(held, payload.size)] if held < payload.size else []
        return spans

    def _lies_elsewhere(self, payload: Payload) -> bool:
        """Tell whether its file lies in another one's place, with whole weights for it."""
        moved = [payload.moved(*way) for way in self._known if way[0].path != self._file.path]
        return any(
            is_there(self._files, one) and is_like_weights(self._files, one)
            for one in moved[:_MOST_WAYS]
        )

    def _unlike(self, payload: Payload, value: bytes) -> list[Span]:
        """Return where the bytes of a payload differ from a value, however its file is read.

        If bytes were put in, what stands before them agrees in one way, and what follows in
        another.
        """
        expected = np.frombuffer(value, np.uint8)
        differ = np.ones(len(expected), np.bool_)
        for way in islice(self._known, _MOST_WAYS):
            place = payload.moved(*way)
            held = available_bytes(self._files, place) if place.offset >= 0 else 0
            if held := min(held, len(expected)):
                stored = np.frombuffer(self._files.read(place.file, place.offset, held), np.uint8)
                differ[:held] &= stored != expected[:held]
        wrong = np.flatnonzero(differ)
        if not len(wrong):
            return []
        # The first bytes of a large one are compared: damage at their end may go on.
        last = int(wrong[-1]) + 1
        return [(int(wrong[0]), payload.size if last == len(expected) else last)]

    def _is_filled(self, there: Payload, payload: Payload) -> bool:
        """Tell whether the sectors around a payload hold one byte again and again, and more fails.

        Small numbers are mostly zeros, and so may be the constants beside them.
        """
        low = there.offset // SECTOR * SECTOR
        high = -(-there.end // SECTOR) * SECTOR
        size = min(high, self._files.size(there.file) or 0) - low
        data = bytes(self._files.read(there.file, low, size))
        if data.strip(data[:1]):
            return False
        delta = there.offset - payload.offset
        others = (one.payload for one in self._broken if one.payload is not payload)
        return any(one.offset + delta < high and one.end + delta > low for one in others)


def _is_withheld(one: Failing) -> bool:
    """Tell whether all strings of a part look wrong: nothing of it is offered."""
    return one.payload.form is Form.STRINGS and one.recipe is None


def _is_beyond(payload: Payload, span: Span, step: int) -> bool:
    return payload.end <= span[0] if step < 0 else payload.offset >= span[1]


Column = npt.NDArray[np.int64]


def _whole_spans(
    case: Case, file: DataFile, failing: Sequence[Failing]
) -> Iterator[tuple[Column, Column, Way]]:
    """Iterate over where objects belong that are whole, for each way of reading the file."""
    found: dict[Way, list[Span]] = defaultdict(list)
    for part in case.held_in(file):
        if part.payload is not None and part.check.status is Status.VERIFIED:
            found[file, 0].append((part.payload.offset, part.payload.end))
    for one in failing:
        if one.there is not None:
            found[one.there].append((one.payload.offset, one.payload.end))
    for there, spans in found.items():
        starts, stops = np.array(spans, np.int64).T
        yield starts, stops, there


def _spans_of_rows(
    case: Case, file: DataFile, mended: RowMapping[MendedTensor]
) -> Iterator[tuple[Column, Column, Way]]:
    """Iterate over the same of rows."""
    if file.undo is not None or case.sound is None or case.sound.plain.are_records:
        return
    yield (*case.sound.spans_of(file.path), (file, 0))
    failed = case.failed
    if failed is None:
        return
    mine = failed.of_path(file.path)
    good = mine[failed.good[mine]]
    yield failed.starts[good], failed.starts[good] + failed.sizes[good], (file, 0)
    by_place: dict[Place, list[int]] = defaultdict(list)
    for row, place in (mended.make.places if isinstance(mended.make, RowMended) else {}).items():
        if place.file.path == file.path:
            by_place[place].append(failed.numbers[row])
    for place, numbers in by_place.items():
        starts = failed.starts[numbers]
        yield starts, starts + failed.sizes[numbers], (place.file, place.delta)
