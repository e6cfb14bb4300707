"""Say why nothing is at a path: how it is spelled, which directory is missing, or what is near."""

from __future__ import annotations

import re

from ckptparse.errors import CheckpointError, CheckpointNotFoundError, closest_names
from ckptparse.files.context import Context
from ckptparse.files.storage import Source
from ckptparse.inventory.folders import Folders

__all__ = ["hint_of_directory", "hint_of_place", "hint_of_spelling", "open_named"]

_WINDOWS = re.compile(r"[A-Za-z]:\\")


def hint_of_spelling(path: str) -> str | None:
    """Say what is wrong in the spelling of a path, if this is why nothing is there."""
    if path.startswith("~"):
        return "Python does not expand `~`: pass os.path.expanduser(path)"
    if _WINDOWS.match(path) or ("\\" in path and "/" not in path):
        return "Backslashes separate directories on Windows only: write `/`"
    return None


def hint_of_directory(path: str, folders: Folders) -> str | None:
    """Say that the directory of a path does not exist, if this is why nothing is there."""
    directory = folders.split(path)[0]
    if not directory or folders.is_directory(directory):
        return None
    return f"The directory {directory!r} does not exist"


def hint_of_place(path: str, folders: Folders) -> str | None:
    """Say why nothing is at a path; None if that cannot be told."""
    if hint := hint_of_spelling(path):
        return hint
    path = path.rstrip("/") or path
    if not folders.are_listed:
        return None
    try:
        if hint := hint_of_directory(path, folders):
            return hint
        directory, name = folders.split(path)
        names = closest_names(name, folders.list(directory))
    except CheckpointError:
        return None
    if names:
        return f"There is: {', '.join(folders.join(directory, one) for one in names)}"
    return f"Nothing {f'in {directory!r}' if directory else 'there'} has a name like it"


def open_named(path: str, context: Context) -> Source:
    """Open a file that the caller named.

    Raises:
        CheckpointNotFoundError: It is not there; it says what is near.
    """
    try:
        return context.storage.open(path)
    except CheckpointNotFoundError as error:
        error.hint = error.hint or hint_of_place(path, Folders(context))
        raise
