"""Find the checkpoints that a state file names.

A relative path is joined to the directory of the state file. An absolute path may lead to another
directory, since a copied training directory still names the original. So its last part is looked
for beside the state file first. Only if it is not there, the path itself is taken, with a warning.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from ckptparse.errors import CheckpointError, PermissionDeniedError
from ckptparse.filenames import (
    INDEX_SUFFIX,
    STATE_FILE_NAME,
    last_part,
)
from ckptparse.files.context import Cache, Context, Place, Store, begin
from ckptparse.graph.state import CheckpointState, StateFile, decode_state, read_message
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.legacy import match_pattern
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.text import clean

__all__ = [
    "Listed",
    "checkpoint_exists",
    "checkpoint_state",
    "find_listed",
    "latest_checkpoint",
    "warn_elsewhere",
]


@dataclass(frozen=True, slots=True)
class Listed:
    """A listed checkpoint that is there.

    Attributes:
        path: Its prefix, V1 file or pattern.
        is_elsewhere: Whether it is in another directory than the state file, at its absolute path.
    """

    path: str
    is_elsewhere: bool = False


def find_listed(listed: str, directory: str, folders: Folders) -> Listed | None:
    """Return where a listed checkpoint is; None if it is not found.

    Only existence is tested: of an index, or of a V1 file.

    Args:
        listed: The path in the state file.
        directory: The directory of the state file.
        folders: Where to look.
    """
    name = last_part(listed)
    if not name or "\0" in listed:
        return None
    here = folders.join(directory, name)
    if not folders.is_absolute(listed):
        for path in (folders.join(directory, listed), here):
            if checkpoint_exists(path, folders):
                return Listed(path)
        return None
    start = folders.join(directory, "")
    if start and listed.startswith(start) and checkpoint_exists(listed, folders):
        return Listed(listed)
    if checkpoint_exists(here, folders):
        return Listed(here)
    return Listed(listed, is_elsewhere=True) if checkpoint_exists(listed, folders) else None


def checkpoint_exists(path: str, folders: Folders) -> bool:
    """Tell whether there is a checkpoint for a prefix, a V1 file or a pattern of V1 files."""
    return (
        folders.is_file(path + INDEX_SUFFIX)
        or folders.is_file(path)
        or bool(match_pattern(path, folders))
    )


def checkpoint_state(
    directory: Place,
    latest_filename: str | None = None,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> CheckpointState | None:
    """Read the state file of a directory.

    Args:
        directory: Where the state file is.
        latest_filename: Its name; None means `checkpoint`.
        store: As for `ckptparse.open`.
        cache: As for `open`.
        limits: Bounds on its size.

    Returns:
        None if there is no state file; also None, with a `UserWarning`, if its text cannot be
        parsed.

    Raises:
        MalformedError: The state file names no newest checkpoint; it may be empty.
        PermissionDeniedError: It may not be read.
    """
    place, context = begin(directory, store=store, cache=cache, limits=limits, choose=False)
    state = _read_state(place, latest_filename, context)
    return None if state is None else _joined(state, context)


def latest_checkpoint(
    directory: Place,
    latest_filename: str | None = None,
    *,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> str | None:
    """Find the newest checkpoint that the state file of a directory lists and that exists.

    Only existence is tested: of a V2 checkpoint's index, or of a V1 file. If a listed path leads
    out of the directory, its last part is looked for in the directory first. So a copied or moved
    directory means its own files.

    Returns:
        The prefix; of a V1 checkpoint of several files their pattern. A `UserWarning` is given if
        it is not the newest that is listed, or is in another directory. None if no listed
        checkpoint exists, or if there is no state file; also None, with a `UserWarning`, if the
        state file cannot be parsed.

    Raises:
        MalformedError: The state file names no newest checkpoint; it may be empty.
        PermissionDeniedError: The state file may not be read, or the directory may not be listed.
    """
    place, context = begin(directory, store=store, cache=cache, limits=limits, choose=False)
    folders = Folders(context)
    state = _read_state(place, latest_filename, context)
    if state is None:
        return None
    for listed in state.newest_first():
        found = find_listed(listed, state.directory, folders)
        if found is None:
            continue
        if listed != state.latest:
            latest = folders.join(state.directory, state.latest)
            _warn(
                f"The newest listed checkpoint, {latest}, does not exist; {found.path} is the "
                "newest that exists"
            )
        elif found.is_elsewhere:
            _warn(warn_elsewhere(state.path, found.path))
        return found.path
    return None


def warn_elsewhere(state_path: str, path: str) -> str:
    """Return a warning: the checkpoint is in another directory than its state file."""
    return (
        f"{state_path} names a checkpoint in another directory, and there is none with that name "
        f"beside it: {path} is taken"
    )


def _read_state(directory: str, latest_filename: str | None, context: Context) -> StateFile | None:
    path = context.storage.join(directory, latest_filename or STATE_FILE_NAME)
    status = context.storage.stat(path)
    if status is None or status.kind != "file":
        return None
    try:
        message = read_message(path, context)
    except PermissionDeniedError:
        raise
    except CheckpointError as error:
        _warn(f"{path} is not a readable state file: {error}", stacklevel=4)
        return None
    return decode_state(message, path, context)


def _joined(state: StateFile, context: Context) -> CheckpointState:
    def join(listed: str) -> str:
        return context.storage.join(state.directory, listed)

    return CheckpointState(
        latest=join(state.latest),
        paths=tuple(map(join, state.paths)),
        timestamps=state.timestamps,
        last_preserved=state.last_preserved,
    )


def _warn(message: str, *, stacklevel: int = 3) -> None:
    warnings.warn(clean(message), UserWarning, stacklevel=stacklevel)
