"""From whatever path the user has to the checkpoint it means (docs/format.md, section 5)."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ckptparse.bundle.naming import INDEX_SUFFIX, split_data_path
from ckptparse.checkpoint import Format
from ckptparse.errors import CheckpointNotFoundError, NotACheckpointError
from ckptparse.graph.state import STATE_FILE_NAME, find_listed, iter_newest_first, read_state
from ckptparse.identification import identify
from ckptparse.limits import Limits

__all__ = ["PathLike", "Resolved", "resolve_path"]

PathLike = str | os.PathLike[str]

_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
_VARIABLES = "variables"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a path means: a format, and the prefix (V2) or file or pattern to open."""

    format: Format
    path: str


def resolve_path(path: PathLike, *, limits: Limits) -> Resolved:
    """Find the checkpoint that a path means.

    Args:
        path: A prefix, its `.index`, any of its data files, a directory with a state file, a
            SavedModel or its `variables/`.
        limits: Bounds on what the files on the way may ask for.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: Something else is there, or several checkpoints.
    """
    text = os.fsdecode(path)
    if _is_file(text + INDEX_SUFFIX):
        return Resolved("v2", text)
    if os.path.isdir(text):
        return _resolve_directory(text, limits=limits)
    if os.path.basename(text) in _SAVED_MODEL_FILES and os.path.exists(text):
        return _resolve_saved_model(os.path.dirname(text))
    found = _resolve_by_suffix(text)
    if found is not None:
        return found
    if os.path.lexists(text):
        raise _not_a_checkpoint(text)
    raise _not_found(text)


def _resolve_by_suffix(text: str) -> Resolved | None:
    """Understand the name of an index or of a data file."""
    if text.endswith(INDEX_SUFFIX) and _is_file(text):
        return Resolved("v2", text.removesuffix(INDEX_SUFFIX))
    data = split_data_path(text)
    if data is None:
        return None
    prefix = data[0]
    if _is_file(prefix + INDEX_SUFFIX):
        return Resolved("v2", prefix)
    if os.path.exists(text):
        raise CheckpointNotFoundError(
            "The data file has no index beside it",
            path=prefix + INDEX_SUFFIX,
            hint="ckptparse.recover tells what the data file alone still gives",
        )
    return None


def _resolve_directory(directory: str, *, limits: Limits) -> Resolved:
    """Try a directory as SavedModel, as its `variables/`, by its state file, by its only index."""
    if any(_is_file(os.path.join(directory, name)) for name in _SAVED_MODEL_FILES):
        return _resolve_saved_model(directory)
    if _is_file(os.path.join(directory, _VARIABLES + INDEX_SUFFIX)):
        return Resolved("v2", os.path.join(directory, _VARIABLES))
    if _is_file(os.path.join(directory, STATE_FILE_NAME)):
        return _resolve_state(directory, limits=limits)
    indexes = sorted(name for name in os.listdir(directory) if name.endswith(INDEX_SUFFIX))
    if len(indexes) == 1:
        return Resolved("v2", os.path.join(directory, indexes[0].removesuffix(INDEX_SUFFIX)))
    if not indexes:
        raise _not_a_checkpoint(directory)
    raise NotACheckpointError(
        f"The directory holds {len(indexes)} checkpoints and no state file that names the newest: "
        + ", ".join(name.removesuffix(INDEX_SUFFIX) for name in indexes),
        path=directory,
        hint="Name one of them",
    )


def _resolve_saved_model(directory: str) -> Resolved:
    prefix = os.path.join(directory, _VARIABLES, _VARIABLES)
    if _is_file(prefix + INDEX_SUFFIX):
        return Resolved("v2", prefix)
    raise CheckpointNotFoundError(
        "The SavedModel has no variables",
        path=prefix + INDEX_SUFFIX,
        hint="Its constants can be read with ckptparse.open_saved_model",
    )


def _resolve_state(directory: str, *, limits: Limits) -> Resolved:
    """Take exactly the newest checkpoint that the state file names."""
    state = read_state(os.path.join(directory, STATE_FILE_NAME), limits=limits)
    found = find_listed(directory, state.latest)
    if found is not None:
        return resolve_path(found, limits=limits)
    present = (find_listed(directory, path) for path in iter_newest_first(state))
    other = next((path for path in present if path is not None), None)
    raise CheckpointNotFoundError(
        f"The newest checkpoint that the state file names is not there: {state.latest}",
        path=os.path.join(directory, STATE_FILE_NAME),
        hint=f"The newest listed one that is there: {other}" if other else None,
    )


def _is_file(path: str) -> bool:
    return "\0" not in path and os.path.isfile(path)


def _not_found(text: str) -> CheckpointNotFoundError:
    directory = os.path.dirname(text) or os.curdir
    hint = None
    if not os.path.isdir(directory):
        hint = f"The directory {directory!r} does not exist"
    return CheckpointNotFoundError("No such checkpoint", path=text, hint=hint)


def _not_a_checkpoint(text: str) -> NotACheckpointError:
    identity = identify(text)
    return NotACheckpointError(
        f"Expected a checkpoint, found {identity.meaning}",
        path=text,
        identity=identity,
        hint=identity.advice,
    )
