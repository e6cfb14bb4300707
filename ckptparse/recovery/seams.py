"""Find where bytes were lost within a tensor, by the same tensor of another checkpoint.

The tensors before it lie at their places, those behind it some bytes ahead of them. No checksum
tells where in between the bytes were lost. But weights change little from one save to the next: up
to the seam the elements are nearest to those that the other checkpoint has there, behind it to
those that it has as far on as bytes were lost. If bytes were lost at two places, what lies between
them is nearest to neither, and is left out.

If no other checkpoint tells, each element may belong where it lies or further on. Then all are
suspect.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.dtypes import DataType, item_size
from ckptparse.examination.case import Case
from ckptparse.examination.outcome import EvidenceRecord, Outcome, merge_spans
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import Place, stored_dtype
from ckptparse.examination.plausibility import has_magnitudes
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.recovery.mended import Mended, available_bytes, recipe_of
from ckptparse.recovery.recipe import Patch

__all__ = ["Seam", "Seams", "find_seam", "offer_torn", "offer_unplaced"]

_LARGEST = 1 << 28
"""Bytes of the largest tensor that is compared: a few times that many are held in memory."""
_CLEAR = 0.5
"""How many more elements must be nearest to their own place than to the other, as a share. Of
weights that have nothing in common as many are as are not."""
_TOLD = 64
"""Elements that must say something on each side of the seam: if they have nothing in common, as
clear a majority of them is four deviations above the expected none, and is needed twice."""
_HELD = 0.5
"""What a vote must be worth, as a share of the usual one of its side, to be no loss to that side.
Of elements that are nearest to neither place, as many votes are against a side as for it."""
_UNSURE = 4.0
"""Elements at the end of a side are left out until so many votes, over what they must be worth, are
for it: that those of other elements come to so much by chance is less likely than 1 in 1,000."""


class _Whole(NamedTuple):
    """A whole payload: its first byte and end in the intact file, and how far from there it lies.

    By default: the start of the file, where it belongs.
    """

    start: int = 0
    end: int = 0
    delta: int = 0


@dataclass(frozen=True, slots=True)
class Seam:
    """How far from their places the nearest whole payloads lie, on both sides of a damaged one.

    Attributes:
        before: Of the payload before it.
        after: Of the one behind it.
        stop: Offset in the damaged file where that one begins.
        tight: Whether both are its neighbours.
    """

    before: int
    after: int
    stop: int
    tight: bool

    @property
    def lost(self) -> int:
        """How many bytes were lost between them; below zero: so many were put in."""
        return self.before - self.after


class Seams:
    """Knows which tensors lie whole in their data file, and how far from their places."""

    def __init__(self, case: Case, places: Mapping[DataFile, Sequence[Place]]) -> None:
        self._case = case
        self._places = places
        self._whole: dict[DataFile, list[_Whole]] = {}

    def find(self, payload: Payload) -> Seam | None:
        """Return what lies around a payload; None if nothing around it lies out of its place."""
        file = payload.file
        if not any(place.file == file and place.delta for place in self._places.get(file, ())):
            return None
        if file not in self._whole:
            self._whole[file] = _own(self._iter_whole(file))
        known = self._whole[file]
        number = bisect_left(known, (payload.offset,))
        before = known[number - 1] if number else _Whole()
        after = known[number] if number < len(known) else self._end(file, before.delta)
        if after is None or before.end > payload.offset or after.start < payload.end:
            return None
        tight = before.end == payload.offset and after.start == payload.end
        seam = Seam(before.delta, after.delta, after.start + after.delta, tight)
        if seam.stop < before.end + before.delta or not (seam.before or seam.after):
            return None
        return seam

    def _end(self, file: DataFile, delta: int) -> _Whole | None:
        """Return the end of a file, if it lies as far from its place as what is before it.

        Else it may have been cut off, too, and nothing tells.
        """
        end = self._case.end_of(file)
        return _Whole(end, end, delta) if self._case.files.size(file) == end + delta else None

    def _iter_whole(self, file: DataFile) -> Iterator[_Whole]:
        """Iterate over whole payloads that lie in a file."""
        shifts = [place for place in self._places.get(file, ()) if place.file == file]
        sound = self._case.sound if file.undo is None else None
        if sound is not None:
            starts, stops = sound.spans_of(file.path)
            yield from map(_Whole, starts.tolist(), stops.tolist())
        if file.undo is None:
            yield from self._iter_failed(file, shifts)
        for part in self._case.held_in(file):
            payload = part.payload
            if payload is None or not payload.size:
                continue
            if part.check.status is Status.VERIFIED:
                yield _Whole(payload.offset, payload.end)
            elif part.check.cause is Cause.SHIFTED:
                found = (one.delta for one in shifts if one.holds(self._case.files, payload))
                delta = next(found, None)
                if delta is not None:
                    yield _Whole(payload.offset, payload.end, delta)

    def _iter_failed(self, file: DataFile, shifts: Sequence[Place]) -> Iterator[_Whole]:
        """Iterate over whole payloads among rows that share their bytes, or lie elsewhere."""
        failed = self._case.failed
        if failed is None:
            return
        mine = failed.of_path(file.path)
        mine = mine[failed.sizes[mine] > 0]
        starts, stops = failed.starts[mine], failed.starts[mine] + failed.sizes[mine]
        good = failed.good[mine]
        yield from map(_Whole, starts[good].tolist(), stops[good].tolist())
        left = np.flatnonzero(failed.has_cause(Cause.SHIFTED)[mine])
        for place in shifts:
            there = place.hold_rows(self._case.files, failed, mine[left])
            rows = left[there]
            for start, stop in zip(starts[rows].tolist(), stops[rows].tolist(), strict=True):
                yield _Whole(start, stop, place.delta)
            left = left[~there]


def _own(found: Iterable[_Whole]) -> list[_Whole]:
    """Return payloads in order, without those whose bytes are another's that lies at its place."""
    known = sorted(found)
    fixed = [one for one in known if not one.delta]
    own = []
    for one in known:
        number = bisect_left(fixed, (one.end + one.delta,))
        last = fixed[number - 1] if one.delta and number else None
        if last is None or last.end <= one.start + one.delta:
            own.append(one)
    return own


def offer_unplaced(files: DataFiles, payload: Payload, seam: Seam, note: str) -> Mended | None:
    """Offer bytes of which nothing tells where they belong: every element is suspect.

    They are offered as they follow what lies before them. None if there are none.
    """
    head = payload.moved(payload.file, seam.before)
    width = item_size(payload.data_type)
    if payload.form is not Form.PLAIN or not width or head.offset < 0:
        return None
    left = min(payload.size, seam.stop - head.offset, available_bytes(files, head)) // width
    if left <= 0:
        return None
    outcome = Outcome(
        Status.UNVERIFIED,
        Cause.SHIFTED,
        source=head.place,
        ranges=((0, left),),
        suspect=((0, left),),
        note=note,
        grounds=(EvidenceRecord.at(EvidenceRule.MISMATCH, head.place),),
    )
    return Mended(outcome, replace(recipe_of(head, left * width), crc=None))


def offer_torn(
    files: DataFiles, payload: Payload, seam: Seam, others: Iterable[Payload]
) -> Mended | None:
    """Offer what lies on both sides of a seam; None if no other checkpoint tells where it is."""
    width = item_size(payload.data_type) or 1
    head = payload.moved(payload.file, seam.before)
    left = payload.size - seam.lost
    if not (seam.tight and 0 < seam.lost < payload.size) or seam.lost % width:
        return None
    if not has_magnitudes(payload) or payload.size > _LARGEST:
        return None
    if head.offset < 0 or available_bytes(files, head) < left:
        return None
    own = bytes(files.read(head.file, head.offset, left))
    for other in others:
        if available_bytes(files, other) < other.size:
            continue
        theirs = files.read(other.file, other.offset, other.size)
        found = find_seam(_values(own, payload), _values(theirs, payload))
        if found is not None:
            return _offered(head, seam, own, other, found)
    return None


def find_seam(
    own: npt.NDArray[np.floating[Any]], theirs: npt.NDArray[np.floating[Any]]
) -> tuple[int, int] | None:
    """Find where elements were lost, by those of another save.

    Args:
        own: What is left.
        theirs: All elements, more than are left.

    Returns:
        Up to where elements are surely before the seam, and from where on they are behind it; None
        if nothing tells.
    """
    lost = len(theirs) - len(own)
    with np.errstate(invalid="ignore", over="ignore"):
        here = np.abs(own - theirs[: len(own)])
        there = np.abs(own - theirs[lost:])
    votes = (here < there).astype(np.int8) - (there < here)
    sums = np.concatenate(([0], np.cumsum(votes, dtype=np.int64)))
    place = int(np.argmax(sums))
    if not (_is_clear(votes[:place]) and _is_clear(-votes[place:])):
        return None
    first = _last_sure(votes, votes[:place])
    last = len(votes) - _last_sure(-votes[::-1], -votes[place:])
    return (first, last) if first <= last else None


def _last_sure(votes: npt.NDArray[np.int8], side: npt.NDArray[np.int8]) -> int:
    """Return how many elements from the start on are surely on its side, by the votes for it.

    Args:
        votes: Of all elements, beginning with those of the side.
        side: Those of the elements that are usually on it.
    """
    worth = _HELD * int(side.sum(dtype=np.int64)) / int(np.count_nonzero(side))
    told = np.abs(votes).cumsum(dtype=np.int64)
    sums = np.concatenate(([0.0], votes.cumsum(dtype=np.int64) - worth * told))
    return int(np.flatnonzero(sums >= sums.max() - _UNSURE / worth)[0])


def _is_clear(votes: npt.NDArray[np.int8]) -> bool:
    """Tell whether the votes of a side agree; a side on which hardly any are says nothing."""
    told = int(np.count_nonzero(votes))
    return told >= _TOLD and int(votes.sum(dtype=np.int64)) >= _CLEAR * told


def _values(data: bytes | memoryview, payload: Payload) -> npt.NDArray[np.floating[Any]]:
    if payload.data_type == DataType.DT_BFLOAT16:
        # The upper half of a float32.
        order = ">" if payload.big_endian else "<"
        upper = np.frombuffer(data, order + "u2").astype(np.uint32) << np.uint32(16)
        widened: npt.NDArray[np.floating[Any]] = upper.view(np.float32)
        return widened
    values: npt.NDArray[np.floating[Any]] = np.frombuffer(data, stored_dtype(payload))
    return values


def _offered(
    head: Payload, seam: Seam, own: bytes, other: Payload, found: tuple[int, int]
) -> Mended:
    width = item_size(head.data_type) or 1
    first, last = found
    start = last * width + seam.lost
    ranges = merge_spans([(0, first), (start // width, count_elements(head.shape))])
    rest = head.part(last * width, len(own))
    tail = EvidenceRecord.at(EvidenceRule.SHIFTED, rest)
    outcome = Outcome(
        Status.UNVERIFIED,
        Cause.SHIFTED,
        source=head.place,
        ranges=ranges,
        note=f"{seam.lost:,} bytes were lost within it, about after its byte {first * width:,}: up "
        f"to there, and from byte {start:,} on, its elements are like those of {other.file.path}",
        grounds=(tail, EvidenceRecord.at(EvidenceRule.LIKE_SIBLING, other.place)),
    )
    patch = Patch(start, own[last * width :])
    recipe = replace(recipe_of(head, len(own)), crc=None, patches=(patch,))
    return Mended(outcome, recipe)
