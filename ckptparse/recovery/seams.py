"""Find where bytes were lost within a tensor, by the same tensor of another checkpoint.

The tensors before it lie at their places, those behind it some bytes ahead of them. No checksum
tells where in between the bytes were lost. But weights change little from one save to the next: up
to the seam the elements are nearest to those that the other checkpoint has there, behind it to
those that it has as far on as bytes were lost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import count_elements
from ckptparse.dtypes import DataType, item_size
from ckptparse.examination.case import Case
from ckptparse.examination.outcome import EvidenceRecord, Outcome, merge_spans
from ckptparse.examination.payload import Payload
from ckptparse.examination.places import Place, stored_dtype
from ckptparse.examination.plausibility import has_magnitudes
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.recovery.mended import Mended, available_bytes, recipe_of
from ckptparse.recovery.recipe import Patch

__all__ = ["Seam", "Seams", "find_seam", "offer_torn"]

_LARGEST = 1 << 28
"""Bytes of the largest tensor that is compared: a few times that many are held in memory."""
_CLEAR = 0.5
"""How many more elements must be nearest to their own place than to the other, as a share. Of
weights that have nothing in common as many are as are not."""
_TOLD = 64
"""Elements that must say something on each side of the seam: if they have nothing in common, as
clear a majority of them is four deviations above the expected none, and is needed twice."""
_UNSURE = 8
"""Elements on either side are left out if fewer than so many speak for where they are."""


@dataclass(frozen=True, slots=True)
class Seam:
    """A tensor within which bytes were lost: how far from their places its neighbours lie."""

    before: int
    after: int

    @property
    def lost(self) -> int:
        """How many bytes."""
        return self.before - self.after


class Seams:
    """Knows which tensors lie whole in their data file, and how far from their places."""

    def __init__(self, case: Case, places: Mapping[DataFile, Sequence[Place]]) -> None:
        self._case = case
        self._places = places
        self._whole: dict[DataFile, list[tuple[int, ...]]] = {}

    def find(self, payload: Payload) -> Seam | None:
        """Return the seam within a payload; None if there is no sign of one."""
        file = payload.file
        if not any(place.file == file and place.delta for place in self._places.get(file, ())):
            return None
        if file not in self._whole:
            self._whole[file] = sorted(self._iter_whole(file))
        known = self._whole[file]
        number = bisect_left(known, (payload.offset,))
        before = known[number - 1] if number else (0, 0, 0)
        # Both neighbours must be whole: else the bytes may have been lost within one of them.
        if before[1] != payload.offset or number == len(known) or known[number][0] != payload.end:
            return None
        seam = Seam(before[2], known[number][2])
        return seam if 0 < seam.lost < payload.size else None

    def _iter_whole(self, file: DataFile) -> Iterator[tuple[int, ...]]:
        """Iterate over whole payloads: first byte, end, and how far from there they lie."""
        shifts = [place for place in self._places.get(file, ()) if place.file == file]
        for _, part in self._case.parts():
            payload = part.payload
            if payload is None or payload.file != file or not payload.size:
                continue
            if part.check.status is Status.VERIFIED:
                yield payload.offset, payload.end, 0
            elif part.check.cause is Cause.SHIFTED:
                found = (one.delta for one in shifts if one.holds(self._case.files, payload))
                delta = next(found, None)
                if delta is not None:
                    yield payload.offset, payload.end, delta


def offer_torn(
    files: DataFiles, payload: Payload, seam: Seam, others: Iterable[Payload]
) -> Mended | None:
    """Offer what lies on both sides of a seam; None if no other checkpoint tells where it is."""
    width = item_size(payload.data_type) or 1
    head = payload.moved(payload.file, seam.before)
    left = payload.size - seam.lost
    if not has_magnitudes(payload) or payload.size > _LARGEST or seam.lost % width:
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
    near = np.flatnonzero(sums >= sums[place] - _UNSURE)
    return int(near[0]), int(near[-1])


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
    tail = EvidenceRecord(
        EvidenceRule.SHIFTED, head.file.path, head.offset + last * width, len(own) - last * width
    )
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
