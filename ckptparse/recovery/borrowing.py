"""Tell whether bytes of files that are not the checkpoint's may be promised.

Bytes of another checkpoint, of a copy or of any file of the evidence have the checksum that the
index states. They are this save's if the index is. If the index was copied from another save, and
that save or a copy of it is among the evidence, all of it agrees, and nothing of it is this save's.
So the checkpoint's own data files are asked. What they hold

- is whole as the index says, and nothing that they hold speaks against it: the index is of this
  save. A frozen layer alone is whole in two saves, so what speaks against the index counts more.
- is nothing, a fill or noise: the index is all that is left, and it is believed.
- is something else: the bytes may be another save's, and are not promised.

Bytes that agree with what is left of a damaged tensor need no index: they are that tensor. If what
is left looks like whole weights and is another's, that speaks against the index. If it is known
whose it is, the index is believed where it differs from that save's and is right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, item_size
from ckptparse.examination.case import ATTEMPT_BYTES, Case
from ckptparse.examination.check import Check
from ckptparse.examination.outcome import Span
from ckptparse.examination.payload import Form, PartName, Payload
from ckptparse.examination.places import is_telling
from ckptparse.examination.plausibility import has_magnitudes
from ckptparse.examination.readers import PAGE, DataFiles
from ckptparse.problems import EvidenceRule, Status
from ckptparse.recovery.claims import Way
from ckptparse.recovery.mended import Mended, available_bytes
from ckptparse.recovery.offering import Offerer
from ckptparse.recovery.recipe import Recipe
from ckptparse.recovery.sectors import Sectors
from ckptparse.recovery.siblings import Siblings
from ckptparse.recovery.statistics import judge_at, judge_elements

__all__ = ["Borrowing", "Remains"]

_LEAST = 64
"""Bytes in a row that agree and are not one byte again and again: another save's 16 floats do not
agree by chance."""
_CHANGED = 8
"""Bytes in a row that may have been changed in what looks whole: a few bits or one number."""
_CHANGED_RECORD = 2
"""The same of a block: a number more may be the end of another save's."""
_MOST_BITS = 16
"""Single bits that may have been flipped: training changes several of each number."""
_MOSTLY = 0.9
"""Share of the bytes that differ which look wrong, if damage made them."""
_JUDGED_TYPES = frozenset({DataType.DT_FLOAT, DataType.DT_DOUBLE})
"""Types whose numbers lie in the blocks of V1 files as they are."""
_NEAR = 1 << 12
"""Bytes around its place in which a tensor is sought that was shifted."""
_PIECE = 16
"""Bytes that do not lie near by chance if most of them are different: 4 floats."""
_VARIED = 16
"""Different bytes of 64 that are no fill: weights have some 40."""
_SAMPLES = 16
"""Pieces that are looked for at other places."""
_MOST_WAYS = 8
"""Ways of reading a file in which bytes are compared."""
_COMPARED = 1 << 20
"""Bytes of a tensor that are compared."""
_LEAST_SCATTERED = 1 << 10
"""Bytes of a tensor that has a whole sector, at least."""
_MOST_WHOLE = 1 << 14
"""Whole tensors of which it is asked what another save's index says."""
_COMPARISONS = 8
"""Comparisons for each repair that is tried: as many as proofs by copies."""
_MOST_ASKED = 64
"""Tensors that are looked at until it is known whose a data file is."""

_TAKEN = frozenset({EvidenceRule.FILLED, EvidenceRule.MERGED})
"""Rules by which some bytes of a data file are replaced with those of others."""

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Remains(Enum):
    """What the checkpoint's own bytes say of bytes that were found elsewhere."""

    SAME = "they are these, damaged"
    CHANGED = "they are these, but for a few bytes"
    FILLED = "they may be these, with a fill over a part"
    OTHER = "they are others, and whole"
    NOTHING = "nothing"

    @property
    def are_same(self) -> bool:
        """Whether they are these. Of integers, another save's may differ in a few bytes, too."""
        return self in (Remains.SAME, Remains.CHANGED)


class Borrowing:
    """Tells which bytes are not the checkpoint's own, and what its own bytes say of them."""

    def __init__(self, case: Case, siblings: Siblings, offerer: Offerer) -> None:
        """Take the checkpoint, checked; nothing is read yet."""
        self._case = case
        self._offerer = offerer
        self.files: DataFiles = case.files
        self._siblings = siblings
        self._mine = {file.path for file in case.payload_files()} | set(case.survey.leftovers)
        # Of some the index may say that nothing lies there.
        self._mine |= set(case.survey.data_files.values())
        self._told: dict[tuple[Way, _Looks, Recipe], Remains | None] = {}
        self._left_over: dict[Payload, Mended | None] = {}
        self._scattered: dict[Recipe, bool] = {}
        attempts = case.context.limits.attempts + case.files.held_bytes // ATTEMPT_BYTES
        self._left = _COMPARISONS * attempts

    def is_own(self, path: str) -> bool:
        """Tell whether a file is one of the checkpoint's own data files."""
        return path in self._mine

    def is_lent(self, found: Mended, payload: Payload) -> bool:
        """Tell whether bytes of other files are promised."""
        return self._lent(found, payload) is not None

    def is_borrowed(self, found: Mended, payload: Payload, ways: Collection[Way] = ()) -> bool:
        """Tell whether bytes are promised that nothing but the index calls this save's."""
        return self.is_lent(found, payload) and self.is_borrowed_if(
            found, payload, are_same=self.are_same(found, payload, ways)
        )

    def is_borrowed_if(self, found: Mended, payload: Payload, *, are_same: bool) -> bool:
        """Tell the same if it is known whether the checkpoint's own bytes are these, damaged."""
        return (
            self.is_lent(found, payload)
            and not are_same
            and not self.is_right_against_lender(found, payload)
        )

    def are_same(self, found: Mended, payload: Payload, ways: Collection[Way] = ()) -> bool:
        """Tell whether `remains` says that the checkpoint's own bytes are these, damaged.

        That takes less than to say what they are else.
        """
        recipe = self._lent(found, payload)
        if recipe is None:
            return False
        told = self._told_near(payload, recipe, ways)
        if any(one is not None and one.are_same for one in told):
            return True
        return self._is_scattered(payload, recipe)

    def _is_scattered(self, payload: Payload, recipe: Recipe) -> bool:
        """Tell whether the sectors of bytes lie in the checkpoint's own files, in another order.

        So it is if the stripes of a data file lie in a wrong order.
        """
        if payload.form is Form.RECORD or payload.size < _LEAST_SCATTERED:
            return False
        if recipe not in self._scattered:
            data = recipe.part(self.files, 0, min(payload.size, _COMPARED))
            self._scattered[recipe] = self._sectors.hold(data, payload.offset)
        return self._scattered[recipe]

    @cached_property
    def _sectors(self) -> Sectors:
        """The sectors of the checkpoint's own data files."""
        return Sectors(self.files, sorted(self._mine))

    def remains(self, found: Mended, payload: Payload, ways: Collection[Way] = ()) -> Remains:
        """Say what the checkpoint's own bytes tell of bytes that were found elsewhere.

        Args:
            found: Where bytes were found.
            payload: Whose they are.
            ways: How its file is read, and how far from their places, so that others are whole.
        """
        recipe = self._lent(found, payload)
        if recipe is None:
            return Remains.NOTHING
        if self._is_scattered(payload, recipe):
            return Remains.SAME
        told = {*self._told_near(payload, recipe, ways)}
        if not any(one is not None and one.are_same for one in told):
            told = {self._remains_at(way, payload, recipe) for way in _places(payload, ways)}
        return next(one for one in Remains if one in {*told, Remains.NOTHING})

    def _told_near(
        self, payload: Payload, recipe: Recipe, ways: Collection[Way]
    ) -> Iterator[Remains | None]:
        """Compare what lies where a payload may lie, as far as that is done in one step."""
        return (self._told_at(way, payload, recipe) for way in _places(payload, ways))

    def _remains_at(self, way: Way, payload: Payload, recipe: Recipe) -> Remains:
        """Say what lies at one place."""
        told = self._told_at(way, payload, recipe)
        if told is None:
            there = payload.moved(*way)
            own, other = self._both(there, recipe.part(self.files, 0, min(there.size, _COMPARED)))
            told = _compare(own, other, there, self.files)
            self._told[way, _looks_of(payload), recipe] = told
        return told

    def _told_at(self, way: Way, payload: Payload, recipe: Recipe) -> Remains | None:
        """Compare what lies at one place, once; nothing, if more are asked than are allowed.

        None if these are other bytes, and it takes longer to say what they are.
        """
        key = way, _looks_of(payload), recipe
        if key not in self._told:
            self._left -= 1
            told: Remains | None = Remains.NOTHING
            if self._left >= 0 and payload.offset + way[1] >= 0:
                there = payload.moved(*way)
                told = self._compare(there, recipe.part(self.files, 0, min(there.size, _COMPARED)))
            self._told[key] = told
        return self._told[key]

    def _compare(self, there: Payload, other: Bytes) -> Remains | None:
        own, expected = self._both(there, other)
        told: Remains | None = Remains.NOTHING
        if len(own):
            may_be = _agree_long(own, own != expected)
            told = _compare(own, expected, there, self.files) if may_be else None
        if told is not None and told.are_same:
            return told
        return Remains.SAME if self._is_shifted(there, other) else told

    def _both(self, there: Payload, other: Bytes) -> tuple[Bytes, Bytes]:
        """Return what lies at a place, in whole elements, and as much of what was found elsewhere.

        Nothing of either, if it is too little to compare.
        """
        width = item_size(there.data_type) or 1
        held = min(available_bytes(self.files, there), len(other)) // width * width
        if held < _LEAST:
            return other[:0], other[:0]
        own = np.frombuffer(self.files.read(there.file, there.offset, held), np.uint8)
        return own, other[:held]

    def _is_shifted(self, there: Payload, other: Bytes) -> bool:
        """Tell whether bytes lie near, but for places at which some were put in, or lost."""
        _, data = self._around(there, len(other))
        first = _find_from_start(data, other)
        last = _find_from_start(data[::-1], other[::-1])
        if first is not None and last is not None:
            head, tail = first[1], last[1]
            lost = len(other) - head - tail
            put_in = len(data) - last[0] - tail - first[0] - head
            if min(lost, put_in) < _CHANGED:
                return True
        return _lie_in_pieces(data, other)

    def way_nearby(self, found: Mended, payload: Payload) -> Way | None:
        """Return where in its own file bytes lie whole that are taken from another; None: nowhere.

        Bytes were put in before them, or lost.
        """
        recipe = self._lent(found, payload)
        if recipe is None or not _LEAST <= payload.size <= _COMPARED:
            return None
        low, data = self._around(payload, payload.size)
        at = data.find(recipe.part(self.files, 0, payload.size).tobytes())
        return None if at < 0 else (payload.file, low + at - payload.offset)

    def _around(self, there: Payload, size: int) -> tuple[int, bytes]:
        """Return what lies near the place of a payload, and at which offset that begins."""
        held = self.files.size(there.file) or 0
        low = max(0, min(there.offset - _NEAR, held))
        high = min(held, there.offset + size + _NEAR)
        return low, bytes(self.files.read(there.file, low, high - low)) if high > low else b""

    def left_at_place(self, found: Mended, payload: Payload, check: Check) -> Mended | None:
        """Return what its own file has of a payload, and what of that looks wrong.

        None if nothing was taken from other files, or only what its own bytes lack; of large ones,
        and if more are asked than are allowed, too.
        """
        recipe = self._lent(found, payload)
        if recipe is None or recipe.file is None or self.is_own(recipe.file.path):
            return None
        if payload not in self._left_over:
            self._left -= 1
            may = self._left >= 0 and payload.size <= _COMPARED
            self._left_over[payload] = self._offerer.offer(payload, check) if may else None
        return self._left_over[payload]

    def is_another_record(self, found: Mended, payload: Payload) -> bool:
        """Tell whether a block of another V1 file is taken for one that may not have been it.

        Its checksum stands at its end. If the file goes over there into another save's, it is that
        one's: then what stands before is neither noise nor a fill, and is no part of what was
        found.
        """
        recipe = self._lent(found, payload)
        if recipe is None or payload.form is not Form.RECORD:
            return False
        held = min(available_bytes(self.files, payload), payload.size, _COMPARED)
        own = np.frombuffer(self.files.read(payload.file, payload.offset, held), np.uint8)
        return not _is_damaged_block(own, recipe.part(self.files, 0, held), payload)

    def knows_better(self, name: PartName, payload: Payload, check: Check) -> set[str]:
        """Return the indexes of the saves that a tensor is of which fails at its place."""
        if check.computed is None or not is_telling(payload):
            return set()
        return {
            one.index for one in self._siblings.named(name, payload) if one.crc32c == check.computed
        }

    def is_right_against(self, indexes: set[str]) -> bool:
        """Tell whether something is whole of which each of some other indexes says other things."""
        return indexes <= self._differing

    def is_right_against_lender(self, found: Mended, payload: Payload) -> bool:
        """Tell whether bytes are another save's, which is known not to be that of the index."""
        recipe = self._lent(found, payload)
        paths = set() if recipe is None or recipe.file is None else {recipe.file.path}
        paths |= {one.path for one in found.outcome.grounds if one.rule in _TAKEN and one.path}
        lenders = {path for path in paths if not self.is_own(path)}
        indexes = {self._siblings.index_of(path) for path in lenders}
        told = {one for one in indexes if one is not None}
        return bool(told) and len(told) == len(indexes) and self.is_right_against(told)

    def owners_of_failing(self) -> set[str]:
        """Return the indexes of the saves whose bytes lie where tensors fail."""
        found: set[str] = set()
        parts = (
            (name, part)
            for name, part in self._case.held_parts()
            if part.payload is not None and part.check.status is Status.CORRUPT
        )
        for name, part in islice(parts, _MOST_ASKED):
            if part.payload is not None:
                found |= self.knows_better(name, part.payload, part.check)
        return found

    @cached_property
    def _differing(self) -> set[str]:
        """The indexes that say other things of what is whole."""
        return {
            one.index
            for name, payload in self._whole()
            for one in self._siblings.named(name, payload)
            if one.crc32c != payload.crc32c
        }

    def _whole(self) -> Iterator[tuple[PartName, Payload]]:
        for name, part in islice(self._case.whole_parts(), _MOST_WHOLE):
            payload = part.payload
            if payload is not None and part.check.status is Status.VERIFIED and is_telling(payload):
                yield name, payload

    def _lent(self, found: Mended, payload: Payload) -> Recipe | None:
        """Return how to read what was taken from other files; None if nothing was."""
        recipe = found.recipe
        if recipe is None or recipe.file is None or not payload.size:
            return None
        if not found.status.proved:
            return None
        if not self.is_own(recipe.file.path):
            return recipe
        taken = any(
            record.rule in _TAKEN and record.path is not None and not self.is_own(record.path)
            for record in found.outcome.grounds
        )
        return recipe if taken and recipe.patches else None


_Looks = tuple[int, int, int, bool]


def _looks_of(payload: Payload) -> _Looks:
    """Return what is compared of a payload, apart from its file."""
    return payload.offset, payload.size, payload.data_type, payload.big_endian


def _places(payload: Payload, ways: Collection[Way]) -> Iterable[Way]:
    """Return where what is left of a payload may lie; nowhere if it is too small to tell."""
    if payload.size < _LEAST or payload.form is Form.RECORD:
        return ()
    return dict.fromkeys(((payload.file, 0), *islice(ways, _MOST_WAYS)))


def _compare(own: Bytes, other: Bytes, payload: Payload, files: DataFiles) -> Remains:
    differ = own != other
    close = _compare_closely(own, other, differ)
    if close is not None:
        return close
    width = item_size(payload.data_type) or 1
    odd = np.zeros(len(own), np.bool_)
    for start, stop in judge_at(files, payload, own):
        odd[start * width : stop * width] = True
    if width > 1:
        odd |= _find_text(own)
    filled = _find_fills(own)
    odd &= ~filled
    holes = _find_holes(differ & filled, payload.offset)
    left = np.flatnonzero(differ & ~odd & ~holes)
    if _is_small(own[left] ^ other[left], left):
        return Remains.SAME if _agree_long(own, differ) else Remains.NOTHING
    odd |= filled
    left = np.flatnonzero(differ & ~odd)
    if _is_small(own[left] ^ other[left], left):
        return Remains.FILLED
    if has_magnitudes(payload) and _are_others(own, other, odd, width):
        return Remains.SAME if _lie_elsewhere(own, other, differ) else Remains.OTHER
    return Remains.NOTHING


def _are_others(own: Bytes, other: Bytes, odd: Mask, width: int) -> bool:
    """Tell whether most elements differ of those that are neither zero nor odd.

    Zeros may be rows that were not trained yet. If all that is expected is one number, they count.
    """
    count = len(own) // width
    mine, theirs = (one[: count * width].reshape(-1, width) for one in (own, other))
    differ = (mine != theirs).any(axis=1)
    if (theirs == theirs[:1]).all():
        return bool(2 * np.count_nonzero(differ) > count)
    left = differ[(mine != 0).any(axis=1) & ~odd[: count * width : width]]
    return len(left) * width >= _LEAST and bool(2 * np.count_nonzero(left) > len(left))


def _compare_closely(own: Bytes, other: Bytes, differ: Mask) -> Remains | None:
    """Say the same of bytes of which none differ, or a few; None if there are more.

    If none do, the rest was cut off.
    """
    wrong = np.flatnonzero(differ)
    if not _is_small(own[wrong] ^ other[wrong], wrong):
        return None
    told = Remains.CHANGED if len(wrong) else Remains.SAME
    return told if _agree_long(own, differ) else Remains.NOTHING


def _lie_elsewhere(own: Bytes, other: Bytes, differ: Mask) -> bool:
    """Tell whether most of what differs is in the other bytes, at other places.

    So it is with stripes in a wrong order, or where bytes were lost here and there.
    """
    whole = other.tobytes()
    starts = range(0, len(own) - _PIECE + 1, _PIECE)
    wrong = [at for at in starts if differ[at : at + _PIECE].any()]
    pieces = [own[at : at + _PIECE].tobytes() for at in wrong[:: max(1, len(wrong) // _SAMPLES)]]
    varied = [one for one in pieces if len(set(one)) > _PIECE // 2]
    return bool(varied) and 2 * sum(one in whole for one in varied) > len(varied)


def _is_damaged_block(own: Bytes, other: Bytes, payload: Payload) -> bool:
    """Tell whether bytes of a block are what damage leaves where they differ from others."""
    differ = own != other
    left = np.flatnonzero(differ & ~_find_fills(own))
    if _is_small(own[left] ^ other[left], left, _CHANGED_RECORD):
        return True
    if payload.data_type not in _JUDGED_TYPES or not _is_even(own[left]):
        return False
    width = item_size(payload.data_type) or 1
    # Nothing says at which byte of the block its numbers begin.
    shares = []
    for first in range(width):
        odd = np.zeros(len(own), np.bool_)
        judged = judge_elements(
            own[first : first + (len(own) - first) // width * width].tobytes(),
            payload.data_type,
            offset=payload.offset + first,
        )
        for start, stop in judged.suspect:
            odd[first + start * width : first + stop * width] = True
        shares.append(float(odd[left].mean()))
    return min(shares) > _MOSTLY


def _is_even(data: Bytes) -> bool:
    """Tell whether bytes may be noise: small integers and text have few different ones."""
    counts = np.bincount(data, minlength=256)
    return len(data) >= _LEAST and 16 * int(counts.max()) < len(data) + 16 * _VARIED


def _find_fills(own: Bytes) -> Mask:
    """Tell which bytes are in a run of one byte again and again.

    Zeros may be right: rows that were not trained yet, which the other save has trained.
    """
    borders = np.flatnonzero(np.concatenate(([True], own[1:] != own[:-1], [True])))
    sizes = np.diff(borders)
    return np.repeat(sizes >= _CHANGED, sizes)


def _find_text(own: Bytes) -> Mask:
    """Tell which bytes are in a run of text: a page of HTML that a server sent at last, say."""
    printable = ((own >= 0x20) & (own < 0x7F)) | (own == 0x09) | (own == 0x0A) | (own == 0x0D)
    borders = np.flatnonzero(np.concatenate(([True], printable[1:] != printable[:-1], [True])))
    sizes = np.diff(borders)
    found: Mask = printable & np.repeat(sizes >= _LEAST, sizes)
    return found


def _find_holes(differ: Mask, offset: int) -> Mask:
    """Tell which bytes of fills that differ are lost pages: they begin and end at borders.

    Of rows that were not trained, 1 in 500 begins there by chance, and as many end there.
    """
    found = np.zeros(len(differ), np.bool_)
    wrong = np.flatnonzero(differ)
    for run in np.split(wrong, np.flatnonzero(np.diff(wrong) > _CHANGED) + 1):
        if not len(run):
            continue
        start, stop = int(run[0]), int(run[-1]) + 1
        begins = (offset + start) % PAGE < _CHANGED
        ends = -(offset + stop) % PAGE < _CHANGED
        if begins and (ends or stop == len(differ)):
            found[start:stop] = True
    return found


def _find_from_start(data: bytes, value: Bytes) -> Span | None:
    """Find where a value begins in some bytes, and how many of its bytes are there.

    It is sought by its first bytes that are no fill.
    """
    own = np.frombuffer(data, np.uint8)
    for at in range(0, len(value) - _LEAST + 1, _LEAST):
        anchor = value[at : at + _LEAST].tobytes()
        if len(set(anchor)) >= _VARIED:
            start = data.find(anchor) - at
            count = _count_equal(own[start:], value) if start >= 0 else 0
            return (start, count) if count > at else None
    return None


def _lie_in_pieces(data: bytes, value: Bytes) -> bool:
    """Tell whether all of a value is in some bytes, but for a few that were lost here and there.

    So it is if a text conversion left out some byte everywhere. What lies behind is nearer then;
    where it is not, bytes were changed: of another save, a few rows may be.
    """
    deltas: list[int] = []
    place = done = 0
    for at in range(0, len(value) - _PIECE + 1, _PIECE):
        piece = value[at : at + _PIECE].tobytes()
        start = data.find(piece, place, place + 2 * _NEAR) if len(set(piece)) > _PIECE // 2 else -1
        if start < 0:
            if at + _PIECE - done > _LEAST:
                return False
            continue
        if deltas and at > done and start - at == deltas[-1]:
            return False
        deltas.append(start - at)
        place, done = start + _PIECE, at + _PIECE
    return len(value) - done <= _LEAST and len(set(deltas)) > 1


def _count_equal(one: Bytes, other: Bytes) -> int:
    """Count the bytes that are equal from the start on."""
    size = min(len(one), len(other))
    wrong = np.flatnonzero(one[:size] != other[:size])
    return int(wrong[0]) if len(wrong) else size


def _is_small(masks: Bytes, at: npt.NDArray[np.int64], most: int = _CHANGED) -> bool:
    """Tell whether a few bytes in a row were changed, or single bits."""
    if not len(at) or at[-1] - at[0] < most:
        return True
    return len(at) <= _MOST_BITS and not np.any(masks & (masks - 1))


def _agree_long(own: Bytes, differ: Mask) -> bool:
    """Tell whether enough bytes in a row agree, and are no fill."""
    borders = np.flatnonzero(np.concatenate(([True], differ, [True])))
    gaps = borders[1:] - borders[:-1] - 1
    for at in np.flatnonzero(gaps >= _LEAST).tolist():
        run = own[borders[at] : borders[at] + gaps[at]]
        # A run of zeros between others is no more than zeros.
        if np.count_nonzero(run[:-1] != run[1:]) >= _LEAST // 4:
            return True
    return False
