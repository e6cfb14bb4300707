"""The explanation of a message as a value, and a row of the tables of messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

from ckptparse.text import brief_repr

__all__ = ["MESSAGE_CODES", "VERIFY", "Explanation", "Row", "row"]

MESSAGE_CODES = MappingProxyType(
    {
        "class.unknown": "The file names a class that the program does not know.",
        "file.damaged": "A file of another format (HDF5) is damaged.",
        "file.locked": "Another process has the file open, or the file system cannot lock it.",
        "file.truncated": "A file of another format (HDF5) is cut off.",
        "format.other": "The file is of another kind than the program expects.",
        "hub.cache": "The local copy of a TensorFlow Hub model is not whole.",
        "model.mismatch": "The file's layers are not those of the program's model.",
        "name.duplicate": "Two parts of a save have the same name.",
        "name.missing": "The program asks for a name that the checkpoint does not have.",
        "name.style": "A checkpoint by names is restored by objects, or the other way round.",
        "name.unused": "The checkpoint holds values that the program did not take.",
        "op.unknown": "The graph needs an operation that the program does not have.",
        "optimizer.mismatch": "The checkpoint's optimizer is of another Keras than the program's.",
        "path.wrong": "There is nothing to load at that path.",
        "save.failed": "A checkpoint could not be written.",
        "scheme.unsupported": "The program cannot read from there: `[local]`, `https://`, `gs://`.",
        "shape.mismatch": "A tensor has another shape than the variable that takes it.",
        "type.mismatch": "A tensor has another type than the variable that takes it.",
        "version.mismatch": "The file was written by another version than can read it.",
    }
)
"""Codes of explanations that are not about damage, and what they mean."""

VERIFY = (
    "`ckptparse.verify(path)` tells which tensors are whole, `ckptparse.recover(path)` saves them"
)


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """What is known about a message.

    Attributes:
        code: A key of `ckptparse.PROBLEM_CODES` if the message is about damage, one of
            `ckptparse.MESSAGE_CODES` if it is about use; None if nothing is known.
        meaning: What the message says, in plain words.
        cause: What most likely happened.
        advice: What to check or to do.
    """

    code: str | None
    meaning: str
    cause: str
    advice: str

    def __str__(self) -> str:
        head = f"[{self.code}] " if self.code else ""
        return f"{head}{self.meaning}\nCause: {self.cause}\nAdvice: {self.advice}"

    def __repr__(self) -> str:
        return brief_repr(self)


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of message: how it is recognised, and what it means.

    Attributes:
        pattern: Is in every message of this kind.
        answer: What it means, or a function that works it out from the numbers in it.
        needs: Must be in the same line, if the pattern alone could be about other things.
        within: Must be somewhere in the text, for the same reason.
    """

    pattern: re.Pattern[str]
    answer: Explanation | Callable[[re.Match[str]], Explanation | None]
    needs: re.Pattern[str] | None = None
    within: re.Pattern[str] | None = None

    def explain(self, text: str) -> Explanation | None:
        """Return what a text of this kind means; None if it is of another kind."""
        if self.within is not None and not self.within.search(text):
            return None
        for found in self._iter_matches(text):
            answer = self.answer
            explained = answer if isinstance(answer, Explanation) else answer(found)
            if explained is not None:
                return explained
        return None

    def _iter_matches(self, text: str) -> Iterator[re.Match[str]]:
        known, fits = (-1, -1), True
        for found in self.pattern.finditer(text):
            if self.needs is not None:
                start = text.rfind("\n", 0, found.start()) + 1
                end = text.find("\n", found.end())
                line = (start, end if end >= 0 else len(text))
                # One line may have thousands of matches: it is looked through once.
                if line != known:
                    known, fits = line, self.needs.search(text[slice(*line)]) is not None
            if fits:
                yield found


def row(
    pattern: str,
    answer: Explanation | Callable[[re.Match[str]], Explanation | None],
    *,
    needs: str | None = None,
    within: str | None = None,
) -> Row:
    """Make a row. All patterns match capital and small letters."""
    return Row(re.compile(pattern, re.IGNORECASE), answer, _compile(needs), _compile(within))


def _compile(pattern: str | None) -> re.Pattern[str] | None:
    return None if pattern is None else re.compile(pattern, re.IGNORECASE)
