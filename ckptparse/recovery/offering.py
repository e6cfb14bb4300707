"""Offer the bytes of a payload that no method proves, and mark what looks wrong in them.

Bytes without proof are `unverified`. So are those of a payload that was cut off: the cut explains
why its checksum cannot agree, but no checksum covers what is left. Two things are marked as
suspect: runs of zeros that begin or end at the border of a sector, and pieces whose elements do not
look like the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.dtypes import item_size
from ckptparse.examination.check import Check, object_spans, string_spans
from ckptparse.examination.hopeful import is_all_text
from ckptparse.examination.outcome import EvidenceRecord, Outcome, Span, merge_spans
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import is_text
from ckptparse.examination.readers import DataFiles
from ckptparse.files.views import JoinedSource, Range
from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.recovery.holes import Holes
from ckptparse.recovery.imaging.extents import Joined
from ckptparse.recovery.mended import Mended, at_place, available_bytes, recipe_of
from ckptparse.recovery.odd_strings import find_odd_strings, strings_in
from ckptparse.recovery.records import find_elements
from ckptparse.recovery.statistics import SECTOR, judge_at
from ckptparse.recovery.unchecked import has_wild_elements, judge_unchecked

__all__ = ["Offerer", "withheld", "zero_runs", "zeros_of_text"]

_NOWHERE = "nothing says where in the image its bytes are"
_LEAST_TEXT = 64
"""Bytes from which on a payload of wide elements may be seen to be text: that all of them lie below
128 has the chance 1 in 2^16 for the lower bytes of 16 weights alone, and none of them is zero."""
_TEXT_RUN = 128
"""Zeros that a sector of them in text leaves at least, half of it in the tensor: of UTF-16 256."""
_ROWS = 1 << 11
"""Sectors that are looked at together: 1 MiB fits into the processor's cache."""


class Offerer:
    """Offers the bytes of payloads of which nothing is proved."""

    def __init__(self, files: DataFiles, holes: Holes) -> None:
        self._files = files
        self._holes = holes

    def needs_judgement(self, payload: Payload) -> bool:
        """Tell quickly whether any element of a payload without a checksum may look wrong."""
        data, _ = self._whole_elements(payload)
        return has_wild_elements(data, payload.data_type, big_endian=payload.big_endian)

    def mark(self, payload: Payload, found: Mended, *, judged: bool) -> Mended:
        """Mark what looks wrong in a payload without a checksum, which is offered as it is.

        Args:
            payload: Where it lies.
            found: All of it.
            judged: Whether its elements are compared with each other.
        """
        if payload.form is Form.STRINGS:
            text = bytes(self._files.read(payload.file, payload.offset, payload.size))
            spans = string_spans(text, count_elements(payload.shape), big_endian=payload.big_endian)
            suspect = strings_in(self._holes.of(payload), spans or ())
            return _marked(payload, found, found.outcome.ranges, suspect)
        data, width = self._whole_elements(payload)
        count = len(data) // width
        odd = _in_elements(self._holes.of(payload), width)
        if judged:
            odd += judge_unchecked(
                data, payload.data_type, offset=payload.offset, big_endian=payload.big_endian
            )
        if width > 1 and len(data) >= _LEAST_TEXT and is_text(data):
            odd = [(0, count)]
        ranges = self._there(payload, width, count)
        if not ranges:
            return Mended(replace(found.outcome, status=Status.MISSING, ranges=(), note=_NOWHERE))
        return _marked(payload, found, ranges, _shared(merge_spans(odd), ranges))

    def mark_record(self, payload: Payload, found: Mended, check: Check) -> Mended:
        """Mark what looks wrong in a record of a damaged block, which is offered as it is."""
        place = find_elements(self._files, payload)
        width = item_size(payload.data_type)
        if place is None or not width:
            return found
        data = self._files.read(place.file, place.offset, place.size)
        zeros = _in_elements(self._zeros(place, place.size, 0), width)
        suspect = merge_spans([*zeros, *judge_at(self._files, place, data)])
        if suspect == found.outcome.ranges:
            return withheld(payload, replace(check, outcome=_as_corrupt(check.outcome)))
        return _marked(payload, found, found.outcome.ranges, suspect)

    def _whole_elements(self, payload: Payload) -> tuple[memoryview, int]:
        """Return the bytes of a payload, and how many an element has."""
        width = item_size(payload.data_type) or 1
        size = payload.size // width * width
        return self._files.read(payload.file, payload.offset, size), width

    def offer(
        self, payload: Payload, check: Check, *, moved: int = 0, from_text: bool = False
    ) -> Mended:
        """Offer the bytes of a payload that are there, or say that there are none.

        Args:
            payload: Where they lie.
            check: What is known of them.
            moved: How many bytes further on that is than they lay when they were written: they may
                have been damaged before that, or after it.
            from_text: Whether the file was text, and this is undone.
        """
        available = available_bytes(self._files, payload)
        if check.cause is Cause.FOREIGN or not available:
            return withheld(payload, check)
        if payload.form is Form.PLAIN:
            return self._elements(payload, check, available, moved, from_text=from_text)
        return (
            withheld(payload, check)
            if payload.form is Form.RECORD
            else self._objects(payload, check, available)
        )

    def _elements(
        self, payload: Payload, check: Check, available: int, moved: int, *, from_text: bool
    ) -> Mended:
        width = item_size(payload.data_type)
        count = available // width if width else 0
        if not width or not count:
            return withheld(payload, check)
        data = self._files.read(payload.file, payload.offset, count * width)
        if width > 1 and len(data) >= _LEAST_TEXT and (is_text(data) or is_all_text(data)):
            return withheld(payload, check)
        # Without a zero byte there is no run of them, and of a few bytes that is soon told.
        some = count * width >= SECTOR or b"\0" in bytes(data)
        zeros = [
            span
            for delta in ({0, moved % SECTOR} if some else ())
            for span in _in_elements(self._zeros(payload, count * width, delta), width)
        ]
        if from_text:
            zeros += zeros_of_text(data, width)
        odd = judge_at(self._files, payload, data)
        ranges = self._there(payload, width, count)
        if not ranges:
            return Mended(replace(check.outcome, status=Status.MISSING, ranges=(), note=_NOWHERE))
        suspect = _shared(merge_spans([*zeros, *odd]), ranges)
        if suspect == ranges:
            return withheld(payload, check)
        return self._offered(payload, check, ranges, suspect)

    def _zeros(self, payload: Payload, size: int, moved: int) -> list[Span]:
        """Return the runs of zeros in a payload that look like lost sectors.

        They are looked for in whole sectors of the file, as they were before all was moved on by
        some bytes: a payload may have but the end of one.
        """
        ahead = min((payload.offset - moved) % SECTOR, payload.offset)
        stop = -(-(payload.offset - moved + size) // SECTOR) * SECTOR + moved
        stop = min(stop, self._files.size(payload.file) or 0)
        data = self._files.read(payload.file, payload.offset - ahead, stop - payload.offset + ahead)
        runs = zero_runs(data, payload.moved(payload.file, -ahead - moved))
        return [
            (max(0, start - ahead), min(stop - ahead, size))
            for start, stop in runs
            if start < ahead + size and stop > ahead
        ]

    def _objects(self, payload: Payload, check: Check, available: int) -> Mended:
        data = bytes(self._files.read(payload.file, payload.offset, available))
        spans = object_spans(payload, data)
        if not spans:
            return withheld(payload, check)
        whole = sum(stop <= available for _, stop in spans)
        suspect: tuple[Span, ...] = ()
        # A variant has a checksum of its own.
        if payload.form is not Form.VARIANTS:
            zeros = strings_in(zero_runs(memoryview(data), payload), spans[:whole])
            odd = find_odd_strings(data, spans[:whole], payload.offset)
            suspect = merge_spans([*zeros, *odd])
        ranges = merge_spans([(0, whole)])
        if suspect == ranges:
            return withheld(payload, check)
        return self._offered(payload, check, ranges, suspect)

    def _offered(
        self,
        payload: Payload,
        check: Check,
        ranges: tuple[Span, ...],
        suspect: tuple[Span, ...],
    ) -> Mended:
        found = at_place(payload, Status.UNVERIFIED, ranges)
        recipe = replace(recipe_of(payload, available_bytes(self._files, payload)), crc=None)
        outcome = replace(
            found.outcome,
            cause=check.cause,
            suspect=suspect,
            note=_noted(check.outcome.note, payload, suspect),
            grounds=check.outcome.grounds + tuple(_beside(self._image_of(payload), payload)),
        )
        return Mended(outcome, recipe)

    def _there(self, payload: Payload, width: int, count: int) -> tuple[Span, ...]:
        """Return which of the first elements of a payload lie in a file, or were found."""
        image = self._image_of(payload)
        if image is None:
            return ((0, count),) if count else ()
        return _without(_in_elements(_nowhere(image, payload), width), count)

    def _image_of(self, payload: Payload) -> JoinedSource | None:
        """Return a payload's file if that was put together from blocks of an image."""
        file = payload.file
        if file.undo is not None and not isinstance(file.undo, Joined):
            return None
        source = self._files.source(file)
        return source if isinstance(source, JoinedSource) else None


def _as_corrupt(outcome: Outcome) -> Outcome:
    return replace(outcome, status=Status.CORRUPT)


def _marked(
    payload: Payload, found: Mended, ranges: tuple[Span, ...], suspect: tuple[Span, ...]
) -> Mended:
    """Add what looks wrong to what is known of a payload; it is offered even if that is all."""
    if not suspect and (ranges, suspect) == (found.outcome.ranges, found.outcome.suspect):
        return found
    note = _noted(found.outcome.note, payload, suspect)
    return replace(found, outcome=replace(found.outcome, ranges=ranges, suspect=suspect, note=note))


def _noted(note: str, payload: Payload, suspect: tuple[Span, ...]) -> str:
    """Add to a sentence how many elements look wrong."""
    if not suspect:
        return note
    lost = sum(stop - start for start, stop in suspect)
    total = count_elements(payload.shape)
    return f"{note}; {lost:,} of its {total:,} elements look wrong"


def withheld(payload: Payload, check: Check, note: str | None = None) -> Mended:
    """Say that no bytes of a payload are offered, perhaps with another sentence."""
    there = check.status is not Status.MISSING
    # Some of it was there, and none of that is plausible.
    status = Status.CORRUPT if check.status is Status.PARTIAL else check.status
    place = payload.place if there else None
    note = check.outcome.note if note is None else note
    known = check.outcome
    # `replace` takes twice as long, and thousands of rows may be withheld.
    outcome = Outcome(
        status,
        known.cause,
        known.method,
        place,
        known.chance,
        (),
        known.suspect,
        note,
        known.patches,
        known.grounds,
    )
    return Mended(outcome)


def _nowhere(image: JoinedSource | None, payload: Payload) -> list[Span]:
    """Return the bytes of a payload that an image does not have, or a rescuer could not read."""
    return [span for part, span in _parts_of(image, payload) if part.source is None]


def _beside(image: JoinedSource | None, payload: Payload) -> Iterator[EvidenceRecord]:
    """Iterate over where the bytes of a payload lie in an image."""
    for part, (start, stop) in _parts_of(image, payload):
        if part.source is not None:
            rule, path = EvidenceRule.BESIDE, part.source.path
            yield EvidenceRecord(rule, path, part.offset, stop - start)


def _parts_of(image: JoinedSource | None, payload: Payload) -> Iterator[tuple[Range, Span]]:
    """Iterate over the parts of an image that make up a payload, and their bytes of it."""
    if image is None:
        return
    done = 0
    for part in image.places(payload.offset, min(payload.size, image.size - payload.offset)):
        yield part, (done, done + part.size)
        done += part.size


def _in_elements(spans: Sequence[Span], width: int) -> list[Span]:
    """Return the elements of which some bytes lie in ranges of bytes."""
    return [(start // width, -(-stop // width)) for start, stop in spans]


def _without(spans: Sequence[Span], count: int) -> tuple[Span, ...]:
    """Return the elements, out of so many, that lie in none of some ranges."""
    edges = [0, *(edge for span in merge_spans(spans) for edge in span), count]
    return merge_spans(list(zip(edges[::2], edges[1::2], strict=True)))


def _shared(spans: Sequence[Span], others: Sequence[Span]) -> tuple[Span, ...]:
    """Return what two sorted sequences of ranges have in common."""
    found = []
    waiting = list(others)
    for start, stop in spans:
        while waiting and waiting[0][1] <= start:
            waiting.pop(0)
        for low, high in waiting:
            if low >= stop:
                break
            found.append((max(start, low), min(stop, high)))
    return merge_spans(found)


def zero_runs(data: memoryview, payload: Payload) -> tuple[Span, ...]:
    """Return the runs of zeros in a payload's bytes that look like lost sectors.

    Such a run fills at least one sector of the file, and begins or ends at the border of one. Zeros
    of the tensor itself begin and end with its rows. The whole run is returned, also the zeros
    beyond the sector's border.
    """
    view = np.frombuffer(data, np.uint8)
    ahead = -payload.offset % SECTOR
    count = max(0, len(view) - ahead) // SECTOR
    sectors = view[ahead : ahead + count * SECTOR].reshape(count, SECTOR)
    empty = np.concatenate(([False], _is_empty(sectors), [False])).astype(np.int8)
    edges = ahead + SECTOR * np.flatnonzero(np.diff(empty))
    runs = [
        (_first_zero(view, int(start)), _last_zero(view, int(stop)))
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    ]
    return merge_spans([run for run in runs if _is_lost_sector(*run, len(view), payload.offset)])


def zeros_of_text(data: memoryview, width: int) -> list[Span]:
    """Return the elements in runs of zeros such as a lost sector leaves in text.

    Once that is undone, a sector is fewer of them, at any place.
    """
    empty = np.frombuffer(data, np.uint8) == 0
    edges = np.flatnonzero(np.diff(np.concatenate(([False], empty, [False])).astype(np.int8)))
    runs = edges.reshape(-1, 2)
    long = runs[runs[:, 1] - runs[:, 0] >= _TEXT_RUN].tolist()
    return _in_elements([(start, stop) for start, stop in long], width)


def _is_empty(sectors: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell which rows hold only zeros; some rows at a time, since masks take memory."""
    empty = np.empty(len(sectors), np.bool_)
    for start in range(0, len(sectors), _ROWS):
        part = sectors[start : start + _ROWS]
        empty[start : start + _ROWS] = ~part.any(axis=1)
    return empty


def _first_zero(view: npt.NDArray[np.uint8], start: int) -> int:
    """Return where the zeros before `start` begin: at most one sector before it."""
    near = max(0, start - SECTOR)
    filled = np.flatnonzero(view[near:start])
    return near + int(filled[-1]) + 1 if len(filled) else near


def _last_zero(view: npt.NDArray[np.uint8], stop: int) -> int:
    """Return where the zeros after `stop` end: at most one sector after it."""
    filled = np.flatnonzero(view[stop : stop + SECTOR])
    return stop + int(filled[0]) if len(filled) else min(len(view), stop + SECTOR)


def _is_lost_sector(start: int, stop: int, size: int, offset: int) -> bool:
    """Tell whether a run begins or ends at the border of a sector, or at the payload's own end."""
    first, last = offset + start, offset + stop
    return first % SECTOR == 0 or last % SECTOR == 0 or start == 0 or stop == size
