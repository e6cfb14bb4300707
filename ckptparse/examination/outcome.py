"""What is known of a tensor, a slice or a payload, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ckptparse.problems import Cause, Status
from ckptparse.text import brief_repr

__all__ = ["ByteRange", "Judged", "Outcome", "Span", "merge_spans"]

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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {"path": self.path, "offset": self.offset, "size": self.size}

    def __str__(self) -> str:
        return f"{self.path}:{self.offset}+{self.size}"


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
    """

    status: Status
    cause: Cause | None = None
    method: str | None = None
    source: ByteRange | None = None
    chance: float | None = None
    ranges: tuple[Span, ...] = ()
    suspect: tuple[Span, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "status": self.status.value,
            "cause": None if self.cause is None else self.cause.value,
            "method": self.method,
            "source": None if self.source is None else self.source.to_dict(),
            "chance": self.chance,
            "ranges": [list(span) for span in self.ranges],
            "suspect": [list(span) for span in self.suspect],
            "note": self.note,
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
