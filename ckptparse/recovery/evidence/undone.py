"""Find where the bytes of a data file lie once its conversion to text is undone.

Before the first damage that came later, all lie at their places. Behind it they lie some distance
away, or not: checksums tell. Between two payloads that lie at one distance, so does all else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.encodings import Undone, find_conversions, name_steps
from ckptparse.examination.places import NO_CHANCE, Place, find_shifts
from ckptparse.examination.readers import DataFile
from ckptparse.files.storage import Source
from ckptparse.problems import Cause
from ckptparse.recovery.damaged_text import (
    DamagedText,
    find_damaged_text,
    gives_noise,
    undo_damaged_text,
)
from ckptparse.recovery.evidence.lost import Lost

__all__ = ["find_texts"]

_SOUGHT = 12
_ROUNDS = 3
"""Payloads that are sought at other distances in one pass, and passes, for all ways of undoing
together; one more for each two."""
_EVERYWHERE = 1 << 63


@dataclass(frozen=True, slots=True)
class _UndoneText:
    """Opens a file that was damaged after a conversion as it was before that."""

    how: DamagedText

    def __call__(self, source: Source) -> Source:
        try:
            return undo_damaged_text(source, self.how)
        except ValueError as error:
            raise CheckpointError(
                "The file has changed since it was examined", path=source.path
            ) from error


def find_texts(case: Case, file: DataFile, lost: Lost) -> list[Place]:
    """Return where lost payloads of a file lie once a conversion is undone; none if there is none.

    Args:
        case: The checkpoint.
        file: A data file as it is stored.
        lost: Its payloads that were not found anywhere yet.
    """
    source = case.files.source(file)
    whole = _whole_of(case, file, lost)
    found = [] if whole is None else [whole]
    left = lost if whole is None else lost.without(whole)
    ways = find_damaged_text(source) if len(left) else []
    rounds = _ROUNDS + (len(ways) + 1) // 2
    for how in ways:
        more, left, rounds = _behind_damage(case, file, how, left, rounds)
        found += more
    return [replace(place, certain=_certain(case, place, found, lost)) for place in found]


def _whole_of(case: Case, file: DataFile, lost: Lost) -> Place | None:
    """Return the file as it was before a conversion of all of it; None if nothing is there then."""
    source = case.files.source(file)
    are_weights = not len(lost.without_weights())
    for steps in find_conversions(source):
        if are_weights and len(steps) == 1 and gives_noise(source, steps[0]):
            continue
        undone = DataFile(file.path, Undone(steps), "conversion undone")
        place = Place(undone, 0, Cause.TEXT, f"undoing {name_steps(steps)}", NO_CHANCE)
        if lost.size_in(place):
            return place
    return None


def _behind_damage(
    case: Case, file: DataFile, how: DamagedText, lost: Lost, rounds: int
) -> tuple[list[Place], Lost, int]:
    """Return the places that a way of undoing gives, what is lost still, and the rounds left."""
    found: list[Place] = []
    left = lost
    undone = DataFile(file.path, _UndoneText(how), "conversion undone")
    # Of weights, half of all bytes are lost where U+FFFD was put in.
    weights = how.conversion is not None
    more = [Place(undone, 0, Cause.TEXT, how.method, NO_CHANCE, weights=weights)]
    is_first = True
    while more and len(left):
        before = len(left)
        for place in more:
            rest = left.without(place)
            # Samples alone tell what U+FFFD was put into: then nothing else is there.
            if len(rest) < len(left) or (not weights and not place.delta):
                found.append(_told(place, left, rest))
                left = rest
        more = []
        sought = left if weights else left.without_weights()
        if rounds and len(sought) and (len(left) < before or is_first):
            rounds -= 1
            more = _shifted(case, undone, sought, how)
        is_first = False
    return found, left, rounds


def _told(place: Place, left: Lost, rest: Lost) -> Place:
    """Return a place, with what follows from how many payloads were found there."""
    if len(left) - len(rest) != 1:
        return replace(place, chance=NO_CHANCE)
    alone = set(left.spans()).difference(rest.spans())
    return replace(place, alone=alone.pop()) if len(alone) == 1 else place


def _shifted(case: Case, undone: DataFile, left: Lost, how: DamagedText) -> list[Place]:
    """Return where some of the payloads lie that are left."""
    return [
        Place(
            undone,
            shift.delta,
            Cause.TEXT,
            f"{how.method}, and reading it {shift.delta:+d} bytes from its place",
            shift.chance,
            weights=how.conversion is not None,
        )
        for shift in find_shifts(case.files, undone, left.few(_SOUGHT), far=True)
    ]


def _certain(case: Case, place: Place, places: Sequence[Place], lost: Lost) -> tuple[int, int]:
    """Return between which offsets of the data file all bytes lie in a place."""
    if isinstance(place.file.undo, _UndoneText) and place.file.undo.how.conversion is None:
        # What was replaced is lost, and most of the rest is not where it was.
        return 0, 0
    everything = lost.spans()
    mine = _held(lost, place, everything)
    others = [
        start
        for other in places
        if other.delta != place.delta
        for start, _ in _held(lost, other, everything)
    ]
    if not mine:
        return 0, 0
    first = mine[0][0]
    until = min((start for start in others if start > first), default=_EVERYWHERE)
    last = max(stop for start, stop in mine if start < until)
    size = case.files.size(place.file) or 0
    following = next((stop for start, stop in everything if start >= last), None)
    if isinstance(place.file.undo, Undone) and (following is None or following > size):
        # Nothing more is there: the file was cut.
        last = _EVERYWHERE
    return 0 if not place.delta else first, last


def _held(lost: Lost, place: Place, everything: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    left = set(lost.without(place).spans())
    return [span for span in everything if span not in left]
