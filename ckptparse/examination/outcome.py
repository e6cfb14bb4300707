"""What is known of a tensor, a slice or a payload, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ckptparse.problems import Cause, EvidenceRule, Status
from ckptparse.text import brief_repr

__all__ = [
    "CHECKSUM_CHANCE",
    "ByteRange",
    "EvidenceRecord",
    "Judged",
    "Outcome",
    "PatchedRange",
    "Span",
    "merge_spans",
    "slices_note",
]

CHECKSUM_CHANCE = 2.0**-32
"""Chance that other bytes have a checksum of 32 bits."""
_MOST_LISTED = 64
"""Bytes of a patch that are listed themselves; of more, their SHA-256 alone."""


Span = tuple[int, int]
"""First and one past the last: elements in C order, or bytes."""


def merge_spans(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Join spans that touch or overlap; the result is sorted, and none is empty."""
    merged: list[Span] = []
    for start, stop in sorted(span for span in spans if span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return tuple(merged)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A run of bytes of a file."""

    path: str
    offset: int
    """Of its first byte, in bytes."""
    size: int
    """In bytes."""
    inside: str | None = None
    """What the offset counts in: the member of an archive, a dataset, or in a few words what was
    done with the file. None: in the file itself."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "path": self.path,
            "offset": self.offset,
            "size": self.size,
            "inside": self.inside,
        }

    def __str__(self) -> str:
        within = "" if self.inside is None else f" ({self.inside})"
        return f"{self.path}{within}:{self.offset}+{self.size}"


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """One reason to believe what is said of some values.

    Attributes:
        rule: What kind of reason.
        path: The file that it was found in; None if it is in no file.
        offset: Of the first byte of it there; None if it is the whole file.
        size: In bytes; None if it is the whole file.
        chance: The chance that it is wrong; None if no chance is known.
        inside: What the offset counts in: the member of an archive, a dataset, or in a few words
            what was done with the file. None: in the file itself.
    """

    rule: EvidenceRule
    path: str | None = None
    offset: int | None = None
    size: int | None = None
    chance: float | None = None
    inside: str | None = None

    @classmethod
    def at(
        cls, rule: EvidenceRule, place: ByteRange, chance: float | None = None
    ) -> EvidenceRecord:
        """Make the record of a run of bytes."""
        return cls(rule, place.path, place.offset, place.size, chance, place.inside)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "rule": self.rule._value_,
            "path": self.path,
            "offset": self.offset,
            "size": self.size,
            "chance": self.chance,
            "inside": self.inside,
        }


@dataclass(frozen=True, slots=True)
class PatchedRange:
    """Bytes of a file that were replaced in the result. The file itself is never changed.

    Attributes:
        path: The file.
        offset: Of the first of them there, in bytes.
        size: In bytes. A file that was cut off may end within them, or before.
        old: Those that stand in the file; None if they are more than 64.
        new: Those that were taken instead; None likewise.
        old_sha256: SHA-256 of those that stand in the file, in hexadecimal digits.
        new_sha256: SHA-256 of those that were taken instead.
        inside: What the offset counts in: in a few words what was done with the file before. None:
            in the file itself.
    """

    path: str
    offset: int
    size: int
    old: bytes | None
    new: bytes | None
    old_sha256: str
    new_sha256: str
    inside: str | None = None

    @classmethod
    def of(
        cls, path: str, offset: int, old: bytes, new: bytes, inside: str | None = None
    ) -> PatchedRange:
        """Describe a change."""
        from hashlib import sha256

        listed = len(new) <= _MOST_LISTED
        return cls(
            path,
            offset,
            len(new),
            old if listed else None,
            new if listed else None,
            sha256(old).hexdigest(),
            sha256(new).hexdigest(),
            inside,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them: bytes as hexadecimal digits."""
        return {
            "path": self.path,
            "offset": self.offset,
            "size": self.size,
            "old": None if self.old is None else self.old.hex(),
            "new": None if self.new is None else self.new.hex(),
            "old_sha256": self.old_sha256,
            "new_sha256": self.new_sha256,
            "inside": self.inside,
        }

    def __repr__(self) -> str:
        return f"<PatchedRange {self.path}:{self.offset}+{self.size}>"


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """What is known of some values, and how it is known.

    Attributes:
        status: A word of `ckptparse.Status`.
        cause: What most likely happened; None if they are whole.
        method: How the values were got back, in a few words; None if they were simply read.
        source: Where their bytes lie; None if they lie in several places, or nowhere.
        chance: Chance that the values are wrong; None if there is no such figure.
        ranges: The elements present, in C order, as (first, one past the last).
        suspect: Those of them that look wrong.
        note: A sentence for a person.
        patches: Bytes of files that were replaced in the result.
        grounds: The evidence, but for what `source` and `status` say themselves; see `evidence`.
    """

    status: Status
    cause: Cause | None = None
    method: str | None = None
    source: ByteRange | None = None
    chance: float | None = None
    ranges: tuple[Span, ...] = ()
    suspect: tuple[Span, ...] = ()
    note: str = ""
    patches: tuple[PatchedRange, ...] = ()
    grounds: tuple[EvidenceRecord, ...] = ()

    @property
    def evidence(self) -> tuple[EvidenceRecord, ...]:
        """Why it is believed, step by step: who says so, what was done, what agrees."""
        # Of what was simply read the last step is always the same, and never stored.
        if self.source is None or self.status is not Status.VERIFIED:
            return self.grounds
        agrees = EvidenceRecord.at(EvidenceRule.CHECKSUM, self.source, CHECKSUM_CHANCE)
        return (*self.grounds, agrees)

    def placed(
        self,
        source: ByteRange | None,
        grounds: tuple[EvidenceRecord, ...],
        patches: tuple[PatchedRange, ...],
    ) -> Outcome:
        """Return a copy that says otherwise where the bytes lie, what says so, what was replaced.

        `dataclasses.replace` takes twice as long, and of a damaged index every row needs this.
        """
        return Outcome(
            self.status,
            self.cause,
            self.method,
            source,
            self.chance,
            self.ranges,
            self.suspect,
            self.note,
            patches,
            grounds,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        # `value` is a function of `Enum`, and takes ten times as long.
        return {
            "status": self.status._value_,
            "cause": None if self.cause is None else self.cause._value_,
            "method": self.method,
            "source": None if self.source is None else self.source.to_dict(),
            "chance": self.chance,
            "ranges": [list(span) for span in self.ranges],
            "suspect": [list(span) for span in self.suspect],
            "note": self.note,
            "patches": [patch.to_dict() for patch in self.patches],
            "evidence": [record.to_dict() for record in self.evidence],
        }

    def __repr__(self) -> str:
        return brief_repr(self)


@dataclass(frozen=True, slots=True)
class Judged:
    """Something that has an outcome. Each part of the outcome is an attribute too."""

    outcome: Outcome
    """All of the following in one value."""

    @property
    def status(self) -> Status:
        """A word of `ckptparse.Status`; equals the plain string."""
        return self.outcome.status

    @property
    def cause(self) -> Cause | None:
        """What most likely happened; None if it is whole."""
        return self.outcome.cause

    @property
    def method(self) -> str | None:
        """How it was got back, in a few words; None if its bytes were simply read."""
        return self.outcome.method

    @property
    def source(self) -> ByteRange | None:
        """Where its bytes lie; None if they lie in several places, or nowhere."""
        return self.outcome.source

    @property
    def chance(self) -> float | None:
        """Chance that a value given for it is wrong; None if there is no such figure."""
        return self.outcome.chance

    @property
    def ranges(self) -> tuple[Span, ...]:
        """The elements present, in C order, as (first, one past the last)."""
        return self.outcome.ranges

    @property
    def suspect(self) -> tuple[Span, ...]:
        """Elements that are present and look wrong, in C order, as (first, one past the last)."""
        return self.outcome.suspect

    @property
    def note(self) -> str:
        """A sentence for a person."""
        return self.outcome.note

    @property
    def patches(self) -> tuple[PatchedRange, ...]:
        """Bytes of files that were replaced in the result."""
        return self.outcome.patches

    @property
    def evidence(self) -> tuple[EvidenceRecord, ...]:
        """Why it is believed, step by step: who says so, what was done, what agrees."""
        return self.outcome.evidence


def slices_note(outcomes: Sequence[Outcome], good: int, verb: str) -> str:
    """Say how many slices of a tensor are whole, or proved, and what the others lack.

    If no index describes any of them, nothing is known of that.
    """
    notes = sorted({one.note for one in outcomes if one.note})
    longest = [one for one in notes if not any(two != one and two.startswith(one) for two in notes)]
    known = any(one.cause is not Cause.NO_CHECKSUM for one in outcomes)
    head = [f"{good} of {len(outcomes)} slices {verb}"] if known else []
    return "; ".join([*head, *longest[:3]])
