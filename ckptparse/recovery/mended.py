"""One payload after mending: what is known of it, and how to read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ckptparse.bundle.entry import count_elements
from ckptparse.coding.checksum import crc32c
from ckptparse.crc.flips import HIGHEST_CHANCE, Change
from ckptparse.examination.check import Check
from ckptparse.examination.outcome import (
    CHECKSUM_CHANCE,
    EvidenceRecord,
    Outcome,
    PatchedRange,
    Span,
)
from ckptparse.examination.payload import Payload
from ckptparse.examination.plain_rows import DAMAGED_DATA, DAMAGED_ENTRY
from ckptparse.examination.readers import DataFiles, checksum_of
from ckptparse.files.views import JoinedSource
from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.recovery.recipe import Patch, Recipe
from ckptparse.text import chance_text

__all__ = [
    "Mended",
    "at_place",
    "available_bytes",
    "changed",
    "crc_with",
    "grounds_of",
    "judged",
    "list_patches",
    "recipe_of",
    "whole_of",
    "without_chance",
]


@dataclass(frozen=True, slots=True)
class Mended:
    """One payload after mending.

    Attributes:
        outcome: What is known of it.
        recipe: How to get its bytes; None if there are none to offer.
    """

    outcome: Outcome
    recipe: Recipe | None = None

    @property
    def status(self) -> Status:
        """Status of the outcome."""
        return self.outcome.status

    def but(
        self,
        *,
        status: Status | None = None,
        cause: Cause | None = None,
        note: str | None = None,
    ) -> Mended:
        """Return a copy with another status, cause or note."""
        known = self.outcome
        outcome = replace(
            known,
            status=known.status if status is None else status,
            cause=known.cause if cause is None else cause,
            note=known.note if note is None else note,
        )
        return Mended(outcome, self.recipe)


def whole_of(payload: Payload) -> tuple[Span, ...]:
    """Return all elements of a payload."""
    return ((0, count_elements(payload.shape)),)


def recipe_of(payload: Payload, available: int | None = None) -> Recipe:
    """Return how to read the bytes at a payload's place; its file may have only some of them."""
    count = payload.size if available is None else available
    if not payload.size:
        return Recipe(0)
    return Recipe(payload.size, payload.file, payload.offset, count, crc=payload.crc32c)


def at_place(payload: Payload, status: Status, ranges: tuple[Span, ...]) -> Mended:
    """Return the bytes at a payload's place, unchanged."""
    source = payload.place if payload.size else None
    return Mended(Outcome(status, source=source, ranges=ranges), recipe_of(payload))


def grounds_of(
    rule: EvidenceRule, payload: Payload, chance: float | None, spans: Sequence[Span] = ()
) -> tuple[EvidenceRecord, ...]:
    """Return the evidence of bytes that were changed or found, and that they have the checksum.

    Args:
        rule: What was done.
        payload: Where the bytes lie that it was done to, or that were found.
        chance: Chance that it is wrong.
        spans: Which bytes of the payload; all of it if none are named.
    """
    steps = [
        EvidenceRecord.at(rule, payload.part(start, stop), chance)
        for start, stop in spans or ((0, payload.size),)
    ]
    agrees = EvidenceRecord.at(EvidenceRule.CHECKSUM, payload.place, CHECKSUM_CHANCE)
    return (*steps, agrees)


def list_patches(found: Mended, files: DataFiles) -> tuple[PatchedRange, ...]:
    """List the bytes in whose place a recipe takes others, and what stands there now."""
    recipe = found.recipe
    if recipe is None or recipe.file is None:
        return ()
    listed: list[PatchedRange] = []
    for patch in recipe.patches:
        count = max(0, min(len(patch.data), recipe.available - patch.offset))
        offset = recipe.offset + patch.offset
        old = bytes(files.read(recipe.file, offset, count)) if count else b""
        if files.size(recipe.file) is None:
            # It is lost, and all of these bytes were taken from copies of it.
            listed.append(PatchedRange.of(recipe.file.path, offset, old, patch.data))
            continue
        source = files.source(recipe.file)
        if isinstance(source, JoinedSource):
            listed += _located(source, offset, old, patch.data)
        else:
            path, inside = recipe.file.path, recipe.file.inside
            listed.append(PatchedRange.of(path, offset, old, patch.data, inside))
    return tuple(listed)


def _located(source: JoinedSource, offset: int, old: bytes, new: bytes) -> Iterator[PatchedRange]:
    """Describe a change, in the files that bytes really lie in: an image is one, its parts none."""
    done = 0
    for part in source.places(offset, len(old)):
        stop = done + part.size
        if part.source is not None:
            path = part.source.path
            yield PatchedRange.of(path, part.offset, old[done:stop], new[done:stop])
        done = stop


def available_bytes(files: DataFiles, payload: Payload) -> int:
    """Return how many bytes of a payload its file has."""
    size = files.size(payload.file) or 0
    return max(0, min(payload.size, size - payload.offset))


def crc_with(files: DataFiles, payload: Payload, patches: Sequence[Patch]) -> int:
    """Return the CRC of a payload with patches made; they are sorted and do not overlap."""
    crc = position = 0
    file, offset, available = payload.file, payload.offset, available_bytes(files, payload)
    for patch in patches:
        count = max(0, min(patch.offset, available) - position)
        crc = checksum_of(files, file, offset + position, count, crc=crc)
        crc = crc32c(patch.data, crc)
        position = patch.offset + len(patch.data)
    return checksum_of(files, file, offset + position, max(0, available - position), crc=crc)


def changed(files: DataFiles, payload: Payload, change: Change, chance: float, what: str) -> Mended:
    """Return a payload with a small change that makes its checksum agree."""
    old = files.read(payload.file, payload.offset + change.offset, len(change.mask))
    new = bytes(a ^ b for a, b in zip(old, change.mask, strict=True))
    method = f"{'flipping' if change.is_one_bit else 'changing'} {what} back"
    outcome = Outcome(
        Status.CORRECTED,
        Cause.BITS,
        method,
        payload.place,
        chance,
        whole_of(payload),
        note=f"{method} makes the checksum agree{_chance_said(chance)}",
        grounds=grounds_of(
            EvidenceRule.BIT if change.is_one_bit else EvidenceRule.BYTES,
            payload,
            chance,
            [(change.offset, change.offset + len(change.mask))],
        ),
    )
    return Mended(outcome, replace(recipe_of(payload), patches=(Patch(change.offset, new),)))


def judged(found: Mended, payload: Payload, check: Check) -> Mended:
    """Lower the status to what the chance and the proof of the entry allow."""
    outcome = found.outcome
    cause, own = outcome.cause, outcome.chance
    if cause is None and check.cause is not Cause.UNKNOWN:
        cause = check.cause
    if outcome.status.proved and cause is Cause.UNKNOWN:
        cause = None
    chance = max(own or 0.0, payload.chance)
    own = own if own is None else chance
    if cause is not outcome.cause or own != outcome.chance:
        outcome = replace(outcome, cause=cause, chance=own)
    if outcome.status.proved and not payload.proved:
        # Whatever the method says of its chance: the entry that it rests on is not proved.
        said = without_chance(found.outcome)
        note = "; ".join(filter(None, (said, _doubt_of(payload, outcome.status))))
        outcome = replace(outcome, status=Status.UNVERIFIED, chance=None, note=note)
    elif outcome.status.proved and chance > HIGHEST_CHANCE:
        outcome = replace(outcome, status=Status.UNVERIFIED)
    return found if outcome is found.outcome else replace(found, outcome=outcome)


def without_chance(outcome: Outcome) -> str:
    """Return the sentence without the chance that it states."""
    if not outcome.chance:
        return outcome.note
    return outcome.note.replace(_chance_said(outcome.chance), "")


def _chance_said(chance: float) -> str:
    return f"; the chance that this is wrong is {chance_text(chance)}"


def _doubt_of(payload: Payload, status: Status) -> str:
    """Say why a payload is not proved; of a value that was derived, no bytes were read."""
    derived = status is Status.DERIVED and payload.doubt == DAMAGED_DATA
    return DAMAGED_ENTRY if derived else payload.doubt
