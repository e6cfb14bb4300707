"""Find the bytes of a payload elsewhere, by its checksum.

Tried in this order: another tensor of the same checkpoint; other places and files; other
checkpoints; files of any kind that the caller named. Then the payload's own bytes with their holes
filled from another checkpoint, and several damaged copies put together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ckptparse.crc.copies import Copy, merge_copies
from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.crc.search import find_splits
from ckptparse.crc.windows import Wanted
from ckptparse.dtypes import item_size
from ckptparse.examination.check import Check
from ckptparse.examination.failed_rows import FailedRows
from ckptparse.examination.outcome import CHECKSUM_CHANCE, EvidenceRecord, Outcome, Span
from ckptparse.examination.payload import Form, PartName, Payload
from ckptparse.examination.places import NO_CHANCE, Place, Twins, find_place
from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.recovery.copies import Copies
from ckptparse.recovery.evidence.gather import Found
from ckptparse.recovery.halves import Sides, find_sides
from ckptparse.recovery.mended import (
    Mended,
    at_place,
    available_bytes,
    crc_with,
    grounds_of,
    recipe_of,
    whole_of,
)
from ckptparse.recovery.recipe import Patch
from ckptparse.recovery.siblings import Siblings
from ckptparse.recovery.statistics import judge_at

__all__ = ["Matcher", "taken_from"]

IntColumn = npt.NDArray[np.int64]

_LARGEST_SPLIT = 1 << 22
"""Bytes of the largest payload of which every byte is tried as the one where others were put in:
the chance that one fits is 1 in 1,000."""
_LEAVING_OUT = "leaving out bytes that were put in"
_FILE_METHOD = "taking another file's bytes"
_SIBLING_METHOD = "taking a sibling's bytes"
_MOST_DISTANCES = 8
"""Distances of which each pair of neighbours is tried, for every payload that is lost."""
_MOST_MERGED = 1 << 31
"""Bytes of all copies of one payload together at most: they are held in memory, 2 GiB."""


class Matcher:
    """Finds the bytes of payloads by their checksums."""

    def __init__(
        self,
        files: DataFiles,
        twins: Twins,
        places: Mapping[DataFile, Sequence[Place]],
        siblings: Siblings,
        *,
        found: Mapping[Wanted, Found],
        copies: Copies,
    ) -> None:
        """Take what is known of other places.

        Args:
            files: What opens files.
            twins: Verified payloads of the checkpoint.
            places: Where bytes of data files are instead.
            siblings: Other checkpoints; some may be copies.
            found: Runs of bytes in files that the caller named.
            copies: Where copies of data files may be.
        """
        self._found = found
        self._copies = copies
        self._files = files
        self._twins = twins
        self._places = places
        # The surest first: of a payload of few bytes another place may have the checksum by chance.
        self._surest = {
            file: sorted(known, key=lambda place: place.chance) for file, known in places.items()
        }
        self._siblings = siblings
        self._sure = {file: list(_iter_sure(known, file)) for file, known in self._surest.items()}
        self._within = {
            file: [place for place in known if place.file == file] for file, known in places.items()
        }
        self._converted = {file: list(_iter_texts(known, file)) for file, known in places.items()}

    def find(self, name: PartName, payload: Payload, check: Check) -> Iterator[Mended | None]:
        """Try the methods one after the other; None if one finds nothing."""
        if payload.crc32c is None or not payload.size:
            return
        yield self._from_twin(payload)
        yield self._from_places(payload)
        yield self._from_two_places(payload)
        yield self._from_equal(payload)
        yield self._from_evidence(payload)
        yield self._filled(name, payload, check)
        yield self._merged(name, payload, check)

    def undone(self, payload: Payload) -> Iterator[Place]:
        """Iterate over where a payload's file was put together, whether it is whole there or not.

        A conversion of the file was undone, or its blocks were found in an image.
        """
        for place in self._places.get(payload.file, ()):
            own = place.file.path == payload.file.path or place.rule is EvidenceRule.IMAGE
            if own and place.file.undo is not None and not place.delta and place.surrounds(payload):
                yield place

    def converted(self, payload: Payload) -> Iterator[Place]:
        """Iterate over where a payload lies in its own file once a conversion of it is undone."""
        for place in self._texts(payload):
            if place.surrounds(payload):
                yield place

    def sides(self, payload: Payload) -> Sides | None:
        """Return where a payload lies on both sides of damage to a converted file."""
        return find_sides(self._files, payload, self._texts(payload))

    def is_converted(self, payload: Payload) -> bool:
        """Tell whether a payload's file was converted."""
        return bool(self._texts(payload))

    def _texts(self, payload: Payload) -> Sequence[Place]:
        return self._converted.get(payload.file, ())

    def _from_twin(self, payload: Payload) -> Mended | None:
        found = self._twins.find(payload)
        if found is None:
            return None
        name, twin = found
        note = f"{name!r} has the same size and checksum, and is whole"
        return _equal(
            twin,
            payload,
            None,
            method="taking another tensor's bytes",
            chance=NO_CHANCE,
            note=note,
            rule=EvidenceRule.TWIN,
        )

    def _from_places(self, payload: Payload) -> Mended | None:
        place = find_place(self._files, self._surest.get(payload.file, ()), payload)
        if place is None:
            return None
        note = self._describe(place.file) if place.cause is None else ""
        return taken_from(place, payload, note)

    def find_elsewhere(self, payload: Payload) -> Mended | None:
        """Return a payload that surely lies in its own file, but elsewhere.

        No method finds anything surer but an equal tensor that is whole, and no other checkpoint's
        bytes can be meant.
        """
        if payload.crc32c is None or not payload.size or self._twins.find(payload) is not None:
            return None
        place = find_place(self._files, self._sure_places(payload.file), payload)
        return None if place is None else taken_from(place, payload)

    def rows_elsewhere(
        self, rows: FailedRows, numbers: IntColumn, vanished: Collection[str]
    ) -> dict[int, Place]:
        """Return which of some rows that have failed `find_elsewhere` finds, and where.

        Of `vanished` data files also those that another checkpoint holds, or a file which the
        caller named.
        """
        found: dict[int, Place] = {}
        numbers = numbers[(rows.sizes[numbers] > 0) & self._twins.are_alone(rows, numbers)]
        for path in rows.paths:
            mine = np.intersect1d(rows.of_path(path), numbers, assume_unique=True)
            for place in self._sure_places(DataFile(path)):
                there = place.hold_rows(self._files, rows, mine)
                found.update(dict.fromkeys(rows.rows[mine[there]].tolist(), place))
                mine = mine[~there]
            if path in vanished:
                equal = dict(self._rows_of_siblings(rows, mine))
                mine = mine[~np.isin(rows.rows[mine], list(equal))]
                found.update(equal)
                found.update(self._rows_in_evidence(rows, mine))
        return found

    def _rows_of_siblings(
        self, rows: FailedRows, numbers: IntColumn
    ) -> Iterator[tuple[int, Place]]:
        """Iterate over rows of which another checkpoint has the same bytes."""
        for number in numbers.tolist():
            other = self._siblings.find_equal(rows.payload(number))
            if other is not None:
                row, delta = int(rows.rows[number]), other.offset - int(rows.starts[number])
                rule = EvidenceRule.SIBLING
                yield row, Place(other.file, delta, None, _SIBLING_METHOD, NO_CHANCE, rule)

    def _rows_in_evidence(
        self, rows: FailedRows, numbers: IntColumn
    ) -> Iterator[tuple[int, Place]]:
        """Iterate over rows that lie as they are in a file that the caller named."""
        columns = (rows.rows, rows.starts, rows.sizes, rows.crcs)
        for row, start, *item in zip(*(one[numbers].tolist() for one in columns), strict=True):
            found = self._found.get(Wanted(*item))
            if found is not None and found.turned is None and found.chance <= HIGHEST_CHANCE:
                chance, rule = max(found.chance, NO_CHANCE), EvidenceRule.FILE
                yield row, Place(found.file, found.offset - start, None, _FILE_METHOD, chance, rule)

    def _sure_places(self, file: DataFile) -> list[Place]:
        return self._sure.get(file, [])

    def _from_two_places(self, payload: Payload) -> Mended | None:
        """Take a payload into which bytes were put: its end lies further on than its start."""
        file = payload.file
        if payload.form is not Form.PLAIN or payload.size > _LARGEST_SPLIT:
            return None
        places, size = self._within.get(file, ()), self._files.size(file) or 0
        deltas = sorted({0, *(place.delta for place in places if place.may_border(payload))})
        for before, after in pairwise(deltas[:_MOST_DISTANCES]):
            if payload.offset + before < 0 or payload.end + after > size:
                continue
            found = self._split(payload, payload.moved(file, before), payload.moved(file, after))
            if found is not None:
                return found
        sides = self.sides(payload)
        if sides is None or sides.head is None or sides.tail is None or (sides.lost or 0) >= 0:
            return None
        return self._split(payload, sides.head, sides.tail, sides.method)

    def _split(
        self, payload: Payload, first: Payload, last: Payload, method: str = ""
    ) -> Mended | None:
        """Find where a payload goes over from one place to another."""
        size = self._files.size(last.file) or 0
        if first.offset < 0 or last.end > size or payload.crc32c is None:
            return None
        head = self._files.read(first.file, first.offset, first.size)
        tail = self._files.read(last.file, last.offset, last.size)
        splits = find_splits(head, tail, payload.crc32c, payload.size, step=1, first=0)
        if not splits or splits[0] == 0 or splits[-1] == payload.size:
            # What is whole at one of both is found there, with what that proves.
            return None
        # Splits beside each other give the same bytes: what was put in begins as what follows.
        split = splits[0]
        whole = bytes(head[:split]) + bytes(tail[split:])
        if any(whole != bytes(head[:other]) + bytes(tail[other:]) for other in splits[1:8]):
            return None
        chance = payload.size / 2**32
        outcome = Outcome(
            Status.CORRECTED,
            Cause.TEXT if method else Cause.SHIFTED,
            f"{method}, and {_LEAVING_OUT}" if method else _LEAVING_OUT,
            payload.place,
            chance,
            whole_of(payload),
            note=f"{last.offset - first.offset} bytes were put in before its byte {split}",
            grounds=_taken(
                [(0, split, first), (split, payload.size, last)],
                payload,
                chance,
                EvidenceRule.SHIFTED,
            ),
        )
        recipe = recipe_of(payload, available_bytes(self._files, payload))
        return Mended(outcome, replace(recipe, patches=(Patch(0, whole),)))

    def _from_equal(self, payload: Payload) -> Mended | None:
        other = self._siblings.find_equal(payload)
        if other is None:
            return None
        note = self._describe(other.file)
        return _equal(
            other,
            payload,
            None,
            method=_SIBLING_METHOD,
            chance=NO_CHANCE,
            note=note,
            rule=EvidenceRule.SIBLING,
        )

    def _from_evidence(self, payload: Payload) -> Mended | None:
        """Take bytes from a file of any kind that the caller named."""
        if payload.form is not Form.PLAIN or payload.crc32c is None:
            return None
        found = self._found.get(Wanted(payload.size, payload.crc32c))
        if found is None:
            return None
        there = payload.moved(found.file, found.offset - payload.offset)
        note, method, rule = self._describe(found.file), _FILE_METHOD, EvidenceRule.FILE
        if found.name is not None:
            note += f", under the name {found.name!r:.100}"
        if found.turned is not None:
            axes = ", ".join(map(str, found.turned.axes))
            note += f", if its axes, which lie there in the order ({axes}), are put in their own"
            method = f"{_FILE_METHOD}, with its axes put in order from ({axes})"
            rule = EvidenceRule.AXES
        return _equal(
            there,
            payload,
            None,
            method=method,
            chance=max(found.chance, NO_CHANCE),
            note=note,
            rule=rule,
        )

    def _describe(self, file: DataFile) -> str:
        name = self._files.context.storage.split(file.path)[1]
        return f"{name} holds bytes of the same size and checksum"

    def _filled(self, name: PartName, payload: Payload, check: Check) -> Mended | None:
        """Fill holes, or the end if it was cut off, with a sibling's bytes."""
        if payload.form in (Form.STRINGS, Form.VARIANTS):
            return None
        holes = check.holes or self._cut_off(payload, check)
        if not holes or holes == ((0, payload.size),):
            return None
        for other in self._siblings.named(name, payload):
            size = self._files.size(other.file)
            if size is None or other.end > size:
                continue
            patches = self._patches(other, holes)
            if crc_with(self._files, payload, patches) == payload.crc32c:
                outcome = Outcome(
                    Status.CORRECTED,
                    check.cause,
                    "filling the lost bytes from a sibling",
                    payload.place,
                    NO_CHANCE,
                    whole_of(payload),
                    note=f"its lost bytes were taken from the copy {other.file.path}; then its "
                    "checksum agrees",
                    grounds=_taken([(*hole, other) for hole in holes], payload, NO_CHANCE),
                )
                recipe = recipe_of(payload, available_bytes(self._files, payload))
                return Mended(outcome, replace(recipe, patches=patches))
        return None

    def _merged(self, name: PartName, payload: Payload, check: Check) -> Mended | None:
        """Put the payload together from its own bytes and damaged copies of it."""
        if payload.form is not Form.PLAIN or payload.crc32c is None:
            return None
        there = [payload, *self._copies.of(name, payload)]
        if len(there) < 2 or len(there) * payload.size > _MOST_MERGED:
            return None
        stored = [self._stored(one) for one in there]
        if all(data == stored[0] for data in stored):
            # Of equal bytes nothing else can be put together.
            return None
        copies = [
            self._copy(one, data, check if one is payload else None)
            for one, data in zip(there, stored, strict=True)
        ]
        merged = merge_copies(copies, payload.crc32c, offset=payload.offset)
        if merged is None:
            return None
        patches = tuple(
            Patch(start, bytes(copies[number].data[start:stop]))
            for start, stop, number in merged.pieces
            if number
        )
        others = sorted({there[number].file.path for _, _, number in merged.pieces if number})
        names = ", ".join(others)
        taken = sum(stop - start for start, stop, number in merged.pieces if number)
        outcome = Outcome(
            Status.CORRECTED,
            check.cause,
            "merging damaged copies",
            payload.place,
            max(merged.chance, NO_CHANCE),
            whole_of(payload),
            note=f"{taken} of its {payload.size} bytes were taken from "
            f"{'the copy' if len(others) == 1 else 'the copies'} {names}; then its checksum "
            "agrees",
            grounds=_taken(
                [(start, stop, there[number]) for start, stop, number in merged.pieces if number],
                payload,
                max(merged.chance, NO_CHANCE),
                EvidenceRule.MERGED,
            ),
        )
        recipe = recipe_of(payload, available_bytes(self._files, payload))
        return Mended(outcome, replace(recipe, patches=patches))

    def _stored(self, payload: Payload) -> bytes:
        """Read as many bytes of a copy as its file has."""
        available = available_bytes(self._files, payload)
        return (
            bytes(self._files.read(payload.file, payload.offset, available)) if available else b""
        )

    def _copy(self, payload: Payload, data: bytes, check: Check | None) -> Copy:
        """Take a copy, and mark which of its bytes are absent and which look wrong."""
        available = len(data)
        data += bytes(payload.size - available)
        absent = [(available, payload.size)] if available < payload.size else []
        width = item_size(payload.data_type) or 1
        # What is absent is zeros: at that place and of that size nothing else is judged.
        odd = judge_at(self._files, payload, data)
        doubted = [(start * width, stop * width) for start, stop in odd]
        holes = check.holes if check is not None else ()
        return Copy(data, absent, [*doubted, *holes])

    def _patches(self, other: Payload, holes: Sequence[Span]) -> tuple[Patch, ...]:
        return tuple(
            Patch(start, bytes(self._files.read(other.file, other.offset + start, stop - start)))
            for start, stop in holes
        )

    def _cut_off(self, payload: Payload, check: Check) -> tuple[Span, ...]:
        available = available_bytes(self._files, payload)
        if check.cause is not Cause.TRUNCATED or not available:
            return ()
        return ((available, payload.size),)


def _iter_sure(places: Iterable[Place], file: DataFile) -> Iterator[Place]:
    """Iterate over the places within a file that surely hold what they seem to."""
    for place in places:
        if place.file.path == file.path and place.cause and place.chance <= HIGHEST_CHANCE:
            yield place


def _iter_texts(places: Iterable[Place], file: DataFile) -> Iterator[Place]:
    """Iterate over the file once a conversion of it is undone."""
    for place in places:
        own = place.file.path == file.path and place.file.undo is not None
        if own and place.cause is Cause.TEXT and (not place.delta or place.certain):
            yield place


def taken_from(place: Place, payload: Payload, note: str = "") -> Mended:
    """Return a payload with the bytes that a place holds."""
    return _equal(
        place.of(payload),
        payload,
        place.cause,
        method=place.method,
        chance=place.chance,
        note=note,
        rule=place.rule,
    )


def _equal(
    there: Payload,
    payload: Payload,
    cause: Cause | None,
    *,
    method: str,
    chance: float,
    note: str,
    rule: EvidenceRule,
) -> Mended:
    """Return a payload with equal bytes from elsewhere."""
    found = at_place(there, Status.CORRECTED, whole_of(payload))
    outcome = replace(
        found.outcome,
        cause=cause,
        method=method,
        chance=chance,
        note=note,
        grounds=grounds_of(rule, there, chance),
    )
    return replace(found, outcome=outcome)


def _taken(
    pieces: Sequence[tuple[int, int, Payload]],
    payload: Payload,
    chance: float,
    rule: EvidenceRule = EvidenceRule.FILLED,
) -> tuple[EvidenceRecord, ...]:
    """Return the evidence of pieces that were taken from elsewhere: first byte, end, and whose."""
    steps = [
        EvidenceRecord.at(rule, other.part(start, stop), chance) for start, stop, other in pieces
    ]
    agrees = EvidenceRecord.at(EvidenceRule.CHECKSUM, payload.place, CHECKSUM_CHANCE)
    return (*steps, agrees)
