"""Tell, after mending, whether the index is known to be of the same save as the data files.

A checksum says what a value was only if the index was written with the data. If it is of another
save, every tensor that changed between the two fails, and what follows from its checksum alone is
the other save's value. A small counter then differs by one byte, as after damage. So a value that
rests on a checksum is promised only if

- a tensor that hardly another save has is whole in the data files, or was so but for one byte. This
  is not asked if no such tensor fails, or if the data files hold nothing: then the index is all
  that is left.
- no tensor that two saves may hold with a small difference contradicts its checksum: its bytes are
  there, what is around it is whole, and no damage that can be seen comes near. One may do so if it
  alone fails: then it is a changed byte.

What large tensors show is looked at before mending (`doubt`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import item_size
from ckptparse.examination.case import Case
from ckptparse.examination.check import Check, fits, is_there
from ckptparse.examination.outcome import Outcome, Span
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import (
    LEAST_SAMPLE,
    LEAST_SOUGHT,
    Place,
    are_telling,
    is_noise,
    is_telling,
    stored_dtype,
)
from ckptparse.examination.plausibility import has_magnitudes
from ckptparse.examination.readers import PAGE, DataFile
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.problems import Cause, Status
from ckptparse.recovery.borrowing import Borrowing, Remains
from ckptparse.recovery.claims import (
    Way,
    is_varied,
    may_differ_by_little,
    rests_on_checksum,
    way_of,
)
from ckptparse.recovery.doubt import OtherFiles, is_like_weights, shows_itself
from ckptparse.recovery.evidence.containers import is_archive
from ckptparse.recovery.evidence.texts import HEAD
from ckptparse.recovery.loading import MendedPart, MendedTensor
from ckptparse.recovery.mended import Mended, available_bytes
from ckptparse.recovery.recipe import Recipe
from ckptparse.recovery.sound import RowMended
from ckptparse.recovery.statistics import SECTOR

__all__ = ["Belonging", "find_vanished", "judge_belonging"]

_MOST_WAYS = 8
"""Ways of reading a file in which a value is compared with what is stored."""
_MOST_ASKED = 64
"""Lost tensors that are looked for in data files that are not theirs."""
_NEAR = 64
"""Bytes at the end of a tensor of weights in which damage may not be seen: 16 elements."""
_NOTHING = frozenset({"lfs-pointer", "html", "zeros"})
"""What `identify` calls a file that holds nothing of a save."""
_SAMPLE = 1 << 20
"""First bytes of a data file by which it is told whether it holds anything."""


@dataclass(frozen=True, slots=True)
class Belonging:
    """What is promised of a checkpoint whose index may be of another save.

    Attributes:
        values: Whether what rests on checksums is.
        borrowed: Whether bytes of files are that are not its own.
        shown: Whether something of its own is as the index says.
        others: Whether its own bytes are whole, and others than bytes of files that are not its
            own and that the index asks for.
        ways: How files are read, and how far from their places, so that parts are whole.
    """

    values: bool
    borrowed: bool
    shown: bool
    others: bool
    ways: Collection[Way]

    def __bool__(self) -> bool:
        return self.values and self.borrowed


def judge_belonging(
    case: Case, mended: RowMapping[MendedTensor], borrowing: Borrowing
) -> Belonging:
    """Tell what is promised.

    Args:
        case: The checkpoint.
        mended: Its tensors, mended.
        borrowing: Tells which bytes are its own.
    """
    failing = _find_failing(mended, borrowing)
    others = _hold_others(case, failing)
    against = others or _is_contradicted(case, mended, failing)
    borrowed = _may_borrow(case, failing, borrowing, against=against)
    # Bytes elsewhere that nothing shows to be its own say nothing of values, as if there were none.
    values = (borrowed or not against) and _are_values_own(case, mended, failing)
    shown = borrowed or _is_shown(case, failing)
    ways = dict.fromkeys(_find_ways(failing)).keys()
    return Belonging(values, borrowed, shown, others, ways)


def _hold_others(case: Case, failing: Sequence[_Failing]) -> bool:
    """Tell whether own bytes are whole, and others than what other files have of the checksum."""
    if not any(one.is_borrowed for one in failing):
        return False
    others = OtherFiles(case)
    return any(
        one.remains is Remains.OTHER and not others.lie_over(one.payload.file) for one in failing
    )


def _is_contradicted(
    case: Case, mended: RowMapping[MendedTensor], failing: Sequence[_Failing]
) -> bool:
    """Tell whether own bytes say other things than an index whose bytes others have."""
    borrows = any(one.is_borrowed for one in failing)
    return borrows and bool(_count_contradictions(case, mended, failing))


def _may_borrow(
    case: Case, failing: Sequence[_Failing], borrowing: Borrowing, *, against: bool
) -> bool:
    """Tell whether bytes of other files are promised."""
    if not any(one.is_borrowed for one in failing):
        return True
    shown = _is_shown(case, failing)
    if not against:
        return shown or not _holds_anything(case, least=LEAST_SOUGHT)
    owners = borrowing.owners_of_failing()
    return shown and bool(owners) and borrowing.is_right_against(owners)


def _are_values_own(
    case: Case, mended: RowMapping[MendedTensor], failing: Sequence[_Failing]
) -> bool:
    """Tell whether what rests on checksums is promised."""
    if not any(one.is_claim for one in failing):
        return True
    if _may_be_shown(case, failing) and not _is_shown(case, failing) and _holds_anything(case):
        return False
    against = _count_contradictions(case, mended, failing)
    return not against or (against == 1 and len(failing) + _count_left(case, mended) == 1)


def _count_contradictions(
    case: Case, mended: RowMapping[MendedTensor], failing: Sequence[_Failing]
) -> int:
    """Count the tensors whose bytes lie where nothing is damaged, and differ: none, one, or two."""
    by_file: dict[DataFile, list[_Failing]] = defaultdict(list)
    for one in failing:
        by_file[one.payload.file].append(one)
    against, others = 0, OtherFiles(case)
    own = case.payload_files() | {DataFile(path) for path in case.survey.data_files.values()}
    paths = {file.path for file in own}
    # Of a file that somebody named, what is whole says whose it is, and the rest nothing.
    taken = {
        one.there[0]
        for one in failing
        if one.there is not None and one.tells and one.there[0].path in paths
    }
    for file, parts in by_file.items():
        mine = {one.there[0] for one in parts if one.there is not None}
        moved = any(one.path != file.path for one in mine & taken)
        if not moved and (not _holds(case, file) or others.lie_over(file) or file in taken - mine):
            # It holds nothing of its own, and that lies nowhere else.
            continue
        against += _Layout(case, file, parts, mended).count_contradictions()
        if against > 1:
            return against
    return against + _count_unlisted(case, failing, others)


def _count_unlisted(case: Case, failing: Sequence[_Failing], others: OtherFiles) -> int:
    """Count the tensors that lie in a data file that is not theirs, and differ.

    Nothing of a data file is as the index says, and it is longer than that says, or as long as
    another one. So that one lies there. If what belongs into that looks like whole weights there,
    and fails, the index says nothing of these weights.
    """
    paths = sorted(set(case.survey.data_files.values()) - _explained(case, failing))
    lost = list(islice(_lost_weights(failing), _MOST_ASKED)) if paths else []
    ends = {file: case.end_of(file) for file in {one.file for one in lost}}
    against = 0
    for file in map(DataFile, paths if lost else ()):
        size, end = case.files.size(file) or 0, case.end_of(file)
        there = [
            one
            for one in lost
            if one.end <= size
            and one.file.path != file.path
            and (size == ends[one.file] or one.offset >= end)
        ]
        if there and _holds(case, file) and not others.lie_over(file):
            against += sum(is_like_weights(case.files, one.moved(file)) for one in there)
    return against


def _explained(case: Case, failing: Sequence[_Failing]) -> set[str]:
    """Return the data files of which something is whole as the index says, or is so elsewhere."""
    known = {one.there[0].path for one in failing if one.there is not None and one.tells}
    known |= {one.payload.file.path for one in failing if one.check.cause is Cause.TEXT}
    known |= {one.payload.file.path for one in failing if one.is_own and one.tells}
    known |= {
        part.payload.file.path
        for _, part in case.held_parts()
        if part.payload is not None
        and part.check.status is Status.VERIFIED
        and is_telling(part.payload)
    }
    return known | {file.path for file in case.payload_files() if shows_itself(case, file)}


def _lost_weights(failing: Sequence[_Failing]) -> Iterator[Payload]:
    """Iterate over weights that no data file of the checkpoint holds."""
    for one in failing:
        mine = one.there is not None or one.is_own or one.are_same
        if not mine and is_telling(one.payload) and has_magnitudes(one.payload):
            yield one.payload


def find_vanished(case: Case) -> frozenset[str]:
    """Return the data files of which nothing is left, if nothing speaks against the index.

    All that fails then belongs into them: what agrees with its checksum anywhere is promised.
    """
    files = {
        part.payload.file
        for _, part in case.held_parts()
        if part.payload is not None and part.payload.size and part.is_lost
    }
    failed = case.failed
    for path in () if failed is None else failed.paths:
        if failed is not None and len(failed.lost_in(path)):
            files.add(DataFile(path))
    if any(_holds(case, file) for file in files):
        return frozenset()
    trusted = _is_shown(case, ()) or not _holds_anything(case, least=LEAST_SOUGHT)
    return frozenset(file.path for file in files) if trusted else frozenset()


@dataclass(frozen=True, slots=True)
class _Failing:
    """A part that fails at its place, and what was got back of it."""

    payload: Payload
    check: Check
    left: Callable[[], Mended | None]
    """Says what is left at its place if other bytes were taken from another file."""
    found: Mended
    """What was got back."""
    is_claim: bool
    """Whether its value is proved if what rests on checksums is."""
    there: Way | None
    """Where it is whole; None if it is not."""
    is_own: bool
    """Whether its bytes are a data file's of the checkpoint, but for a few that weights lost."""
    told: Callable[[], Remains]
    """Says what the checkpoint's own bytes tell of bytes that are other files'."""
    are_same: bool
    """Whether they tell that these are the same, damaged."""
    is_borrowed: bool
    """Whether its bytes are those of other files, and its own do not show that they are these."""
    tells: bool
    """Whether its bytes are such as hardly lie anywhere else."""

    @property
    def remains(self) -> Remains:
        """What the checkpoint's own bytes tell: asked for only if it matters."""
        return self.told()

    @property
    def seen(self) -> Mended:
        """What lies at its place: that is as damaged if its bytes are found elsewhere."""
        return self.left() or self.found

    @property
    def outcome(self) -> Outcome:
        """Of what lies at its place."""
        return self.seen.outcome

    @property
    def recipe(self) -> Recipe | None:
        """Of what lies at its place."""
        return self.seen.recipe

    @property
    def shows_damage(self) -> bool:
        """Whether it can be seen where it is damaged."""
        seen = self.outcome.suspect or self.check.holes
        return bool(seen) or not may_differ_by_little(self.payload)


def _find_failing(mended: RowMapping[MendedTensor], borrowing: Borrowing) -> list[_Failing]:
    """Return all parts that fail, and what the checkpoint's own bytes say of them."""
    parts = list(_iter_failing(mended))
    found = [_judge(part, one, borrowing, ()) for part, one in parts]
    if not any(one.is_borrowed for one in found):
        return found
    by_file: dict[DataFile, list[_Failing]] = defaultdict(list)
    for one in found:
        by_file[one.payload.file].append(one)
    ways = {file: list(_find_ways(these)) for file, these in by_file.items()}
    for file, known in list(ways.items()):
        for there, delta in known:
            if there.path != file.path and not delta:
                # What belongs there may lie here in turn.
                ways.setdefault(there, []).append((file, 0))
    return [
        _judge(part, payload, borrowing, ways.get(payload.file, ()))
        if ways.get(payload.file) and borrowing.is_lent(part.mended, payload)
        else known
        for (part, payload), known in zip(parts, found, strict=True)
    ]


def _iter_failing(mended: RowMapping[MendedTensor]) -> Iterator[tuple[MendedPart, Payload]]:
    for tensor in mended.held.values():
        for part in tensor.parts:
            payload, check = part.part.payload, part.part.check
            if payload is None or not payload.size or payload.form is Form.RECORD:
                continue
            if check.status is not Status.VERIFIED:
                yield part, payload


def _judge(
    part: MendedPart, payload: Payload, borrowing: Borrowing, ways: Sequence[Way]
) -> _Failing:
    """Say of a part what the checkpoint's own bytes tell; `ways` matter if its bytes are lent."""
    found = part.mended
    claim = found.status.proved and rests_on_checksum(found, payload, borrowing.files)
    same = borrowing.are_same(found, payload, ways)
    lent = borrowing.is_lent(found, payload)
    borrowed = borrowing.is_borrowed_if(found, payload, are_same=same)
    # What is left of a tensor says nothing of those beside it in the other file.
    there = None if borrowed or same else way_of(found, payload)
    if same:
        there = borrowing.way_nearby(found, payload)
    # Bytes are own if they lie in a data file, or what is left there is of them.
    own = found.status.proved and not claim and not borrowed
    own = own and (there is not None or lent or bool(found.recipe and found.recipe.patches))
    left = partial(borrowing.left_at_place, found, payload, part.part.check)
    return _Failing(
        payload=payload,
        check=part.part.check,
        left=(lambda: None) if same else left,
        found=found,
        is_claim=claim,
        there=there,
        is_own=own,
        told=partial(borrowing.remains, found, payload, ways),
        are_same=same,
        is_borrowed=borrowed,
        tells=is_telling(payload) and is_varied(found, borrowing.files),
    )


def _count_left(case: Case, mended: RowMapping[MendedTensor]) -> int:
    """Count the rows that fail and were not mended one by one."""
    failed = case.failed
    if failed is None:
        return 0
    lost = np.flatnonzero(~failed.good).tolist()
    return sum(failed.names[number] not in mended.held for number in lost)


def _may_be_shown(case: Case, failing: Sequence[_Failing]) -> bool:
    """Tell whether a tensor fails that hardly another save has, and whose bytes are there.

    Of those that were cut off nothing is there to show it, if the file is not packed, and what is
    left of them looks right.
    """
    if any(
        is_telling(one.payload)
        and (
            one.check.status is Status.CORRUPT
            or (one.check.status is Status.PARTIAL and one.outcome.suspect)
            or _is_packed(case, one.payload.file)
        )
        for one in failing
    ):
        return True
    failed = case.failed
    return failed is not None and bool(are_telling(failed.plain, failed.rows[failed.wrong]).any())


def _is_packed(case: Case, file: DataFile) -> bool:
    size = min(case.files.size(file) or 0, HEAD)
    return bool(size) and is_archive(bytes(case.files.read(file, 0, size)))


def _is_shown(case: Case, failing: Sequence[_Failing]) -> bool:
    """Tell whether something in the data files is as the index says, that hardly others have."""
    if any(one.is_own and one.tells for one in failing):
        return True
    whole = (
        part.payload
        for _, part in case.held_parts()
        if part.payload is not None and part.check.status is Status.VERIFIED
    )
    return any(map(is_telling, whole)) or any(shows_itself(case, f) for f in case.payload_files())


def _holds_anything(case: Case, least: int = 0) -> bool:
    """Tell whether any data file holds bytes that may be of a save: neither a fill nor noise.

    What is shorter than the least that tells anything is nothing.
    """
    files = case.payload_files()
    if least:
        # Of those in which the index says that nothing lies, too.
        files |= {DataFile(path) for path in case.survey.data_files.values()}
    return any((case.files.size(file) or 0) >= least and _holds(case, file) for file in files)


def _holds(case: Case, file: DataFile) -> bool:
    size = min(case.files.size(file) or 0, _SAMPLE)
    data = case.files.read(file, 0, size) if size else memoryview(b"")
    if not bytes(data).strip(bytes(data[:1])):
        return False
    identity = case.identity_of(file.path)
    if identity is not None and identity.kind in _NOTHING:
        return False
    # What is packed is as even as noise.
    return is_archive(bytes(data[:HEAD])) or not is_noise(data)


def _find_ways(failing: Sequence[_Failing]) -> Iterator[Way]:
    """Iterate over how a file is read, and how far from their places, so that parts are whole.

    A small number lies at any distance by chance. Several do not lie at the same.
    """
    found: dict[Way, list[_Failing]] = defaultdict(list)
    for one in failing:
        if one.there is not None:
            found[one.there].append(one)
    for there, parts in found.items():
        size = sum(one.payload.size for one in parts)
        undone = there[0].undo is not None and not there[1]
        if undone or any(one.tells for one in parts) or (len(parts) > 1 and size >= LEAST_SAMPLE):
            yield there


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


class _Layout:
    """What of one data file is whole, and what is not, by offset."""

    def __init__(
        self,
        case: Case,
        file: DataFile,
        failing: Sequence[_Failing],
        mended: RowMapping[MendedTensor],
    ) -> None:
        self._files = case.files
        self._file = file
        known = self._known = dict.fromkeys([(file, 0), *_find_ways(failing)])
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
        """Count the tensors whose bytes lie where nothing is damaged, and differ."""
        if not len(self._starts) and any(one.check.cause is Cause.TEXT for one in self._broken):
            # It was converted, and that is not undone: nothing lies where it belongs.
            return 0
        before, after = self._look(-1), self._look(1)
        return sum(map(self._contradicts, self._broken, before, after))

    def _contradicts(self, one: _Failing, before: _Side, after: _Side) -> bool:
        small = may_differ_by_little(one.payload)
        sides = [side.there for side in (before, after) if side.there is not None]
        # What looks wrong at its place says nothing if what is around it lies elsewhere.
        seen = (one.outcome.suspect or one.check.holes) and (not sides or self._usual in sides)
        if seen or self._is_damaged_beside(one, before, after) or (one.is_own and not small):
            return False
        if one.remains is Remains.FILLED:
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
    def _is_damaged_beside(one: _Failing, before: _Side, after: _Side) -> bool:
        """Tell whether damage comes near to a part."""
        if before.damage is not None and one.payload.offset - before.damage <= PAGE:
            return True
        return after.damage is not None and after.damage - one.payload.end <= PAGE

    def _read(self, place: Payload) -> bytes:
        return bytes(self._files.read(place.file, place.offset, min(place.size, _SAMPLE)))

    def _look(self, step: Literal[-1, 1]) -> list[_Side]:
        """Return what comes next on one side of each.

        What fails on the way, and does not show where it is damaged, says nothing.
        """
        sides: list[_Side] = []
        last: _Failing | None = None
        for one in self._broken[::-step]:
            whole = self._next_whole(one.payload, step)
            there = None if whole is None else self._ways[int(self._way[whole])]
            if last is None or (
                whole is not None and _is_beyond(last.payload, self._span(whole), step)
            ):
                sides.append(_Side(there, beside=True))
            elif last.shows_damage:
                edge = last.payload.end if step < 0 else last.payload.offset
                sides.append(_Side(damage=edge if self._is_damaged_at(last, -step) else None))
            else:
                sides.append(replace(sides[-1], beside=False))
            last = one
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

    def _is_damaged_at(self, one: _Failing, step: int) -> bool:
        """Tell whether damage that can be seen comes near to the start (-1) or end of a part."""
        spans = self._damaged_spans(one)
        if step < 0:
            return any(start < _NEAR for start, _ in spans)
        return any(stop > one.payload.size - _NEAR for _, stop in spans)

    def _damaged_spans(self, one: _Failing) -> list[Span]:
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
            size = min(payload.size, _SAMPLE)
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


def _is_beyond(payload: Payload, span: Span, step: int) -> bool:
    return payload.end <= span[0] if step < 0 else payload.offset >= span[1]


Column = npt.NDArray[np.int64]


def _whole_spans(
    case: Case, file: DataFile, failing: Sequence[_Failing]
) -> Iterator[tuple[Column, Column, Way]]:
    """Iterate over where objects belong that are whole, for each way of reading the file."""
    found: dict[Way, list[Span]] = defaultdict(list)
    for _, part in case.held_in(file):
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
