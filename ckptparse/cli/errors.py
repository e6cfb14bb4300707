"""How an error is said: one sentence, where, what to try."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from typing import Any

import ckptparse
from ckptparse.cli.text import prefix_of
from ckptparse.text import as_commands, clean, escape

__all__ = ["UsageError", "describe_error", "error_to_dict"]

_NOT_THERE = (ckptparse.NotACheckpointError, ckptparse.CheckpointNotFoundError)
_PATTERN = frozenset("*?[")
_MOST_LISTED = 6
"""Names that a message lists: they fit into two lines."""


class UsageError(Exception):
    """The command line asks for what cannot be done; nothing is wrong with the checkpoint."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def describe_error(error: Exception) -> str:
    """Return the lines that are printed for an error, with the last line's end."""
    lines = [f"ckptparse: error: {_message(error)}"]
    where = ", ".join(_where(error))
    if where:
        lines.append(f"  at: {where}")
    hint = _hint(error)
    if hint:
        lines.append(f"  try: {hint}")
    return "\n".join(lines) + "\n"


def error_to_dict(error: Exception) -> dict[str, Any]:
    """Return an error as JSON has it."""
    closest = list(error.closest) if isinstance(error, ckptparse.TensorNotFoundError) else []
    place = {name: getattr(error, name, None) for name in ("path", "offset", "size", "tensor")}
    if isinstance(error, OSError) and place["path"] is None:
        place["path"] = error.filename
    return {
        "kind": type(error).__name__,
        "message": _message(error),
        **place,
        "hint": _hint(error),
        "closest": closest,
    }


def _message(error: Exception) -> str:
    if isinstance(error, (ckptparse.CheckpointError, UsageError)):
        return clean(error.message)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # No other error should come here: neither the library nor this program raises any on purpose.
    return clean(f"unexpected {type(error).__name__}: {error}".rstrip(": "))


def _where(error: Exception) -> Iterator[str]:
    if isinstance(error, ckptparse.CheckpointError):
        if error.tensor is not None:
            yield f"tensor '{escape(error.tensor)}'"
        if error.path is not None:
            yield f"file '{escape(error.path)}'"
        if error.offset is not None:
            yield f"offset {error.offset}"
        if error.size is not None:
            yield f"{error.size} bytes"
    elif isinstance(error, OSError) and error.filename is not None:
        yield f"file '{escape(os.fsdecode(error.filename))}'"


def _hint(error: Exception) -> str | None:
    """Say what to try, in terms of commands; for a mistyped path, what lies there."""
    if not isinstance(error, (ckptparse.CheckpointError, UsageError, OSError)):
        return "--debug shows where it happened; please report it"
    hint = getattr(error, "hint", None)
    if isinstance(error, _NOT_THERE) and _is_pattern(error.path or ""):
        return "name one checkpoint: no file has this name, and a quoted '*' is no pattern here"
    if isinstance(error, ckptparse.TensorNotFoundError) and error.closest:
        return "did you mean " + " or ".join(f"'{escape(name)}'" for name in error.closest) + "?"
    if isinstance(error, ckptparse.TensorNotFoundError) and hint is None:
        return "`ckptparse ls` lists the names"
    near = _near(error) if isinstance(error, ckptparse.CheckpointError) else None
    hint = "; ".join(part.rstrip(".") for part in (hint, near) if part)
    return as_commands(clean(hint)) if hint else None


def _is_pattern(path: str) -> bool:
    return not _PATTERN.isdisjoint(path) and "://" not in path and not os.path.lexists(path)


def _near(error: ckptparse.CheckpointError) -> str | None:
    """For a path that leads to no checkpoint, say what lies there."""
    if error.path is None:
        return None
    if isinstance(error, ckptparse.NotACheckpointError):
        in_it = os.path.isdir(error.path) and not getattr(error.identity, "contains", ())
        return _what_lies_near(os.path.join(error.path, "")) if in_it else None
    if not isinstance(error, ckptparse.CheckpointNotFoundError):
        return None
    if not os.path.lexists(error.path):
        return _what_lies_near(error.path, told=error.hint or "")
    # A file that is there names one that is not.
    return None if error.hint else _what_lies_near(os.path.join(os.path.dirname(error.path), ""))


def _what_lies_near(path: str, *, told: str = "") -> str | None:
    """Name what lies where a path was expected, the most alike first; None if that was `told`."""
    directory, name = os.path.split(path)
    while directory and not os.path.isdir(directory):
        directory, name = os.path.split(directory)
    try:
        entries = sorted(os.listdir(directory or os.curdir), key=lambda n: (n[:1] == ".", n))
    except OSError:
        return None
    there = list(dict.fromkeys(prefix_of(entry) for entry in entries))
    closest = difflib.get_close_matches(name, there, n=3, cutoff=0.5) if name else []
    listed = closest or there[:_MOST_LISTED]
    if not listed:
        return f"'{directory or os.curdir}' is empty"
    if closest:
        near = [os.path.join(directory, name) for name in closest]
        if any(one in told for one in near):
            return None
        return "the closest there: " + ", ".join(f"'{one}'" for one in near)
    more = ", …" if len(there) > len(listed) else ""
    named = ", ".join(f"'{name}'" for name in listed)
    verb = "is" if len(there) == 1 else "are"
    return f"in '{directory or os.curdir}' there {verb}: {named}{more}"
