"""Which files of the evidence were searched in part only, and which bound that was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ckptparse.problems import Problem
from ckptparse.text import count

__all__ = ["Bounds", "Note", "ignore"]

_MOST_TOLD = 20
"""Files of which each has a problem of its own: one problem counts the others."""

Note = Callable[[str], None]
"""Is told what was left out of a file, and what the caller can do."""


def ignore(what: str) -> None:
    """Take a note, and forget it."""


class Bounds:
    """What was left out of the evidence: for each file, each bound that was met, once."""

    __slots__ = ("_met",)

    def __init__(self) -> None:
        self._met: dict[str, dict[str, None]] = {}

    def note(self, path: str, what: str) -> None:
        """Note what was left out of a file, or of a directory."""
        self._met.setdefault(path, {})[what] = None

    def of(self, path: str) -> Note:
        """Return what takes the notes of one file."""
        return partial(self.note, path)

    def problems(self, place: str) -> list[Problem]:
        """Return a warning for each file, and one that counts those beyond twenty.

        Args:
            place: The checkpoint, which that one is about.
        """
        found = [
            _warning(path, f"not all of this evidence was searched: {'; '.join(whats)}")
            for path, whats in list(self._met.items())[:_MOST_TOLD]
        ]
        if len(self._met) > len(found):
            more = count(len(self._met) - len(found), "more file")
            found.append(_warning(place, f"not all of {more} of the evidence was searched"))
        return found


def _warning(where: str, message: str) -> Problem:
    return Problem.of("evidence.unsearched", where, message)
