"""Offer both sides of damage within a tensor of a file that was converted to text.

In the file as it was before that, the tensor before it lies at one distance from its place, the one
behind it at another. So it begins at the one and ends at the other. Where it goes over, its
elements tell: read at the wrong distance they look like noise, unless it is off by whole elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ckptparse.bundle.entry import count_elements
from ckptparse.dtypes import item_size
from ckptparse.examination.check import Check
from ckptparse.examination.outcome import EvidenceRecord, Outcome, Span, merge_spans
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import Place
from ckptparse.examination.readers import DataFiles
from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.recovery.mended import Mended
from ckptparse.recovery.offering import zeros_of_text
from ckptparse.recovery.recipe import Patch, Recipe
from ckptparse.recovery.statistics import SECTOR, judge_elements

__all__ = ["Sides", "find_sides", "offer_sides"]

_LARGEST = 1 << 28
"""Bytes of the largest tensor that is looked at: it is held in memory."""
_COMPARED = 1 << 12
_LEAST_COMPARED = 16
"""Bytes that are compared, and the fewest that tell that two files are the same up to there."""
_RUN = 2 * SECTOR
"""Bytes of the shortest run of odd elements that is damage for sure: one piece in 1,100 looks odd
by chance."""


class Sides(NamedTuple):
    """Where a payload lies as the one before it does, and as the one behind it does."""

    head: Payload | None
    """None: nothing is known of what lies before it,"""
    tail: Payload | None
    """or behind it."""
    method: str
    """How the file is read."""

    @property
    def lost(self) -> int | None:
        """How many bytes were lost between; below zero: put in. None if that is not known."""
        if self.head is None or self.tail is None or self.head.file != self.tail.file:
            return None
        return self.head.offset - self.tail.offset


def find_sides(files: DataFiles, payload: Payload, places: Iterable[Place]) -> Sides | None:
    """Return where a payload lies on both sides of damage within it; None if nothing tells.

    Args:
        files: What opens files.
        payload: Where it belongs.
        places: Where the bytes of its file lie once a conversion is undone.
    """
    before = after = None
    for place in places:
        first, last = place.certain or (0, 0)
        if first <= payload.offset and (first < last == payload.offset or payload.end <= last):
            before = before or place
        if last > first == payload.end:
            after = after or place
    told = after or before
    if told is None:
        return None
    head = None if before is None else before.of(payload)
    tail = None if after is None else after.of(payload)
    if head is not None and tail is not None and head.file != tail.file:
        other = payload.moved(tail.file, head.offset - payload.offset)
        head = other if _begin_alike(files, head, other) else head
    return Sides(head, tail, told.method)


def _begin_alike(files: DataFiles, one: Payload, other: Payload) -> bool:
    size = min(_COMPARED, _available(files, one), _available(files, other))
    if size < _LEAST_COMPARED:
        return False
    first = bytes(files.read(one.file, one.offset, size))
    return first == bytes(files.read(other.file, other.offset, size))


def _available(files: DataFiles, payload: Payload) -> int:
    if payload.offset < 0:
        return 0
    return max(0, min(payload.size, (files.size(payload.file) or 0) - payload.offset))


def offer_sides(files: DataFiles, payload: Payload, sides: Sides, check: Check) -> Mended | None:
    """Offer what lies on both sides of damage; None if its elements do not tell where that is.

    What lies between is left out, and so is a sector on each side of it.
    """
    width = item_size(payload.data_type)
    if payload.form is not Form.PLAIN or not width or payload.size > _LARGEST:
        return None
    count = count_elements(payload.shape)
    shifted = sides.lost is None or sides.lost % width != 0
    head = _Side.read(files, sides.head, width)
    tail = _Side.read(files, sides.tail, width, is_tail=True)
    stop = head.sure(count, shifted=shifted)
    start = count - tail.sure(count, shifted=shifted)
    if stop > start or (not stop and start == count):
        return None
    suspect = [(low, min(high, stop)) for low, high in head.suspect]
    suspect += [(max(count - high, start), count - low) for low, high in tail.suspect]
    end = tail.data[len(tail.data) - (count - start) * width :]
    outcome = Outcome(
        Status.UNVERIFIED,
        Cause.TEXT,
        source=(sides.head or sides.tail or payload).place,
        ranges=merge_spans([(0, stop), (start, count)]),
        suspect=merge_spans(suspect),
        note=f"{check.outcome.note}; after {sides.method}, it is damaged within: its elements up "
        f"to {stop:,}, and from {start:,} on, look like its own",
        grounds=tuple(_grounds(sides, stop * width, start * width)),
    )
    recipe = Recipe(payload.size, patches=(Patch(start * width, end),) if end else ())
    if sides.head is not None and stop:
        there = sides.head
        recipe = replace(recipe, file=there.file, offset=there.offset, available=stop * width)
    return Mended(outcome, recipe)


class _Side(NamedTuple):
    """The bytes of a payload as one side of it continues."""

    data: bytes
    suspect: Sequence[Span] = ()
    """Elements that look odd, counted from the payload's start, or from its end if that is it,"""
    total: int = 0
    """out of so many,"""
    width: int = 1
    """each of so many bytes."""

    @classmethod
    def read(
        cls, files: DataFiles, there: Payload | None, width: int, *, is_tail: bool = False
    ) -> _Side:
        """Read what is there."""
        if there is None:
            return cls(b"")
        size = files.size(there.file) or 0
        low = -(min(0, there.offset) // width) * width
        high = min(there.size, size - there.offset) // width * width
        if low >= high or (low if not is_tail else high < there.size):
            return cls(b"")
        data = bytes(files.read(there.file, there.offset + low, high - low))
        odd = judge_elements(
            data, there.data_type, offset=there.offset + low, big_endian=there.big_endian
        ).suspect
        odd = merge_spans([*odd, *zeros_of_text(memoryview(data), width)])
        count = len(data) // width
        if is_tail:
            odd = tuple((count - stop, count - start) for start, stop in reversed(odd))
        return cls(data, odd, count, width)

    def sure(self, count: int, *, shifted: bool) -> int:
        """Return how many elements belong to this side, as far as they tell.

        Args:
            count: How many the payload has.
            shifted: Whether the others look odd, since they begin between two elements.
        """
        place, best, odd = 0, 0, 0
        if shifted:
            for start, stop in (*self.suspect, (self.total, self.total)):
                # More of them look right up to there than look odd.
                if start - 2 * odd > best:
                    place, best = start, start - 2 * odd
                odd += stop - start
        else:
            long = (start for start, stop in self.suspect if (stop - start) * self.width >= _RUN)
            place = next(long, count)
        if place == count:
            # Nothing shows where the other side begins.
            return 0
        return max(0, place - -(-SECTOR // self.width))


def _grounds(sides: Sides, stop: int, start: int) -> Iterator[EvidenceRecord]:
    """Iterate over where the two sides lie."""
    if sides.head is not None and stop:
        yield EvidenceRecord.at(EvidenceRule.CONVERTED, sides.head.part(0, stop))
    if sides.tail is not None and start < sides.tail.size:
        there = sides.tail.part(start, sides.tail.size)
        yield EvidenceRecord.at(EvidenceRule.CONVERTED, there)
    told = sides.head or sides.tail
    if told is not None:
        yield EvidenceRecord.at(EvidenceRule.MISMATCH, told.place)
