"""Parts of tensors that fail at their places, and what the checkpoint's own bytes say of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ckptparse.examination.check import Check
from ckptparse.examination.outcome import Outcome
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.places import LEAST_SAMPLE, is_telling
from ckptparse.examination.readers import DataFile
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.problems import Status
from ckptparse.recovery.borrowing import Borrowing, Remains
from ckptparse.recovery.claims import (
    Way,
    is_varied,
    may_differ_by_little,
    rests_on_checksum,
    way_of,
)
from ckptparse.recovery.loading import MendedPart, MendedTensor
from ckptparse.recovery.mended import Mended
from ckptparse.recovery.recipe import Recipe

__all__ = ["Failing", "find_failing", "find_ways"]


@dataclass(frozen=True, slots=True)
class Failing:
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
        if not may_differ_by_little(self.payload) or self.check.holes or self.outcome.suspect:
            return True
        return self.are_same and self.remains is Remains.SAME


def find_failing(mended: RowMapping[MendedTensor], borrowing: Borrowing) -> list[Failing]:
    """Return all parts that fail, and what the checkpoint's own bytes say of them."""
    parts = list(_iter_failing(mended))
    found = [_judge(part, one, borrowing, ()) for part, one in parts]
    if not any(one.is_borrowed for one in found):
        return found
    by_file: dict[DataFile, list[Failing]] = defaultdict(list)
    for one in found:
        by_file[one.payload.file].append(one)
    ways = {file: list(find_ways(these)) for file, these in by_file.items()}
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
) -> Failing:
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
    return Failing(
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


def find_ways(failing: Sequence[Failing]) -> Iterator[Way]:
    """Iterate over how a file is read, and how far from their places, so that parts are whole.

    A small number lies at any distance by chance. Several do not lie at the same.
    """
    found: dict[Way, list[Failing]] = defaultdict(list)
    for one in failing:
        if one.there is not None:
            found[one.there].append(one)
    for there, parts in found.items():
        size = sum(one.payload.size for one in parts)
        undone = there[0].undo is not None and not there[1]
        if undone or any(one.tells for one in parts) or (len(parts) > 1 and size >= LEAST_SAMPLE):
            yield there
