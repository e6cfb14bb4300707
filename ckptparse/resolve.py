"""From whatever path the user has to the checkpoint it means (docs/format.md, section 5)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckptparse.backend import Format
from ckptparse.bundle.naming import INDEX_SUFFIX, split_data_path
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    NotACheckpointError,
    TruncatedError,
)
from ckptparse.legacy.naming import find_legacy_files, strip_shard_suffix
from ckptparse.limits import Limits

if TYPE_CHECKING:
    from ckptparse.identification import Identity

__all__ = [
    "PathLike",
    "Resolved",
    "not_a_checkpoint",
    "resolve_graph",
    "resolve_path",
    "resolve_saved_model",
]

PathLike = str | os.PathLike[str]
"""A path as callers give it."""

_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
_STATE_FILE = "checkpoint"
_VARIABLES = "variables"
META_SUFFIX = ".meta"
_OWN_KINDS = ("v1", "v2-index", "graph", "meta-graph")


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a path means."""

    format: Format
    path: str
    """The prefix of a V2 checkpoint; the file, prefix or pattern of any other."""
    files: tuple[str, ...] = ()
    """The files of a V1 checkpoint."""
    others: tuple[str, ...] = ()
    """Other checkpoints that the state file lists which led here, the newest first."""
    absent_from: str | None = None
    """The state file that names the path, where nothing lies at it."""


def resolve_path(path: PathLike, *, limits: Limits) -> Resolved:
    """Find the checkpoint that a path means.

    Args:
        path: A prefix, its `.index`, any of its data files, its `.meta`; a V1 file, or the prefix,
            the pattern or one of several; a graph; a directory with a state file, a SavedModel or
            its `variables/`.
        limits: Bounds on what the files on the way may ask for.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: Something else is there, or several checkpoints.
        DataLossError: What is there was cut off.
    """
    text = os.fsdecode(path)
    if _is_file(text + INDEX_SUFFIX):
        return Resolved("v2", text)
    if os.path.isdir(text):
        return _resolve_directory(text, limits=limits)
    if os.path.basename(text) in _SAVED_MODEL_FILES and os.path.exists(text):
        return _resolve_saved_model(os.path.dirname(text))
    found = _resolve_by_suffix(text) or _resolve_by_content(text, limits=limits)
    if found is not None:
        return found
    if os.path.lexists(text):
        raise not_a_checkpoint(_identify(text, limits=limits))
    raise _not_found(text, limits=limits)


def resolve_graph(path: PathLike, *, limits: Limits) -> tuple[str, str, str]:
    """Find the graph that a path means.

    Args:
        path: A graph, or the prefix or file of a checkpoint with a `.meta` beside it.
        limits: Bounds on what the files on the way may ask for.

    Returns:
        The file, `graph` or `meta-graph`, and `binary` or `text`.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: Something else is there.
        DataLossError: What is there was cut off.
    """
    text = os.fsdecode(path)
    data = split_data_path(text)
    prefix = text.removesuffix(INDEX_SUFFIX) if data is None else data[0]
    beside = strip_shard_suffix(prefix) + META_SUFFIX
    if not os.path.lexists(text) and _is_file(beside):
        text = beside
    identity = _identify(text, limits=limits)
    if identity.kind in ("v1", "v2-index", "v2-shard") and _is_file(beside):
        identity = _identify(beside, limits=limits)
    if identity.kind not in ("graph", "meta-graph"):
        raise not_a_checkpoint(identity, "a graph")
    return identity.path, identity.kind, str(identity.detail["encoding"])


def resolve_saved_model(path: PathLike, *, limits: Limits) -> str:
    """Find the directory of the SavedModel that a path means.

    Args:
        path: The directory, or its `saved_model.pb`, `.pbtxt` or `.cpb`.
        limits: Bounds on what the files on the way may ask for.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: Something else is there.
    """
    text = os.fsdecode(path)
    if os.path.basename(text) in _SAVED_MODEL_FILES and _is_file(text):
        return os.path.dirname(text) or os.curdir
    if any(_is_file(os.path.join(text, name)) for name in _SAVED_MODEL_FILES):
        return text
    if not os.path.lexists(text):
        raise _not_found(text, "SavedModel", limits=limits)
    raise not_a_checkpoint(_identify(text, limits=limits), "a SavedModel")


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
            hint="Copy the index beside it: nothing else names the values in it",
        )
    return None


def _resolve_by_content(text: str, *, limits: Limits) -> Resolved | None:
    """Look into a file to see whether it is a V1 checkpoint, a graph, or leads to a checkpoint."""
    files = find_legacy_files(text)
    if not files:
        return None
    identity = _identify(files[0], limits=limits)
    if identity.kind == "v1":
        return Resolved("v1", text, files)
    if text.endswith(META_SUFFIX) and identity.kind in ("meta-graph", "truncated", "unknown"):
        return _resolve_meta(text)
    if identity.kind in ("graph", "meta-graph"):
        return Resolved("graph", text)
    if identity.kind == "state-file":
        return _resolve_state(text, limits=limits)
    raise not_a_checkpoint(identity)


def _resolve_meta(path: str) -> Resolved:
    """Find the checkpoint beside a `.meta`: its name lacks the number of a V1 file."""
    prefix = path.removesuffix(META_SUFFIX)
    if _is_file(prefix + INDEX_SUFFIX):
        return Resolved("v2", prefix)
    files = find_legacy_files(prefix)
    if files:
        return Resolved("v1", prefix, files)
    raise CheckpointNotFoundError(
        "The meta graph has no checkpoint beside it",
        path=path,
        hint="Its structure can be read with ckptparse.open_graph",
    )


def _resolve_directory(directory: str, *, limits: Limits) -> Resolved:
    """Try a directory as SavedModel, as its `variables/`, by its state file, by its only index."""
    if any(_is_file(os.path.join(directory, name)) for name in _SAVED_MODEL_FILES):
        return _resolve_saved_model(directory)
    if _is_file(os.path.join(directory, _VARIABLES + INDEX_SUFFIX)):
        return Resolved("v2", os.path.join(directory, _VARIABLES))
    state_file = os.path.join(directory, _STATE_FILE)
    if _is_file(state_file):
        return _resolve_state(state_file, limits=limits)
    indexes = sorted(name for name in os.listdir(directory) if name.endswith(INDEX_SUFFIX))
    if len(indexes) == 1:
        return Resolved("v2", os.path.join(directory, indexes[0].removesuffix(INDEX_SUFFIX)))
    if not indexes:
        raise not_a_checkpoint(_identify(directory, limits=limits))
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


def _resolve_state(path: str, *, limits: Limits) -> Resolved:
    """Take exactly the newest checkpoint that a state file names."""
    from ckptparse.graph.state import find_listed, iter_newest_first, read_state

    state = read_state(path, limits=limits)
    directory = os.path.dirname(path)
    newest, *rest = iter_newest_first(state)
    present = (find_listed(directory, listed) for listed in rest)
    others = tuple(listed for listed in present if listed is not None)
    found = find_listed(directory, newest)
    if found is None:
        return Resolved("v2", state.latest, others=others, absent_from=path)
    # Never through `resolve_path`: what a state file lists is no state file, nor a directory.
    if _is_file(found + INDEX_SUFFIX):
        return Resolved("v2", found, others=others)
    resolved = _resolve_by_suffix(found) or Resolved("v1", found, find_legacy_files(found))
    return replace(resolved, others=others)


def _identify(path: str, *, limits: Limits) -> Identity:
    # A checkpoint that is found by its name needs none of this.
    from ckptparse.identification import identify

    return identify(path, limits=limits)


def _is_file(path: str) -> bool:
    return "\0" not in path and os.path.isfile(path)


def _not_found(text: str, wanted: str = "checkpoint", *, limits: Limits) -> CheckpointError:
    directory = os.path.dirname(text) or os.curdir
    if not os.path.isdir(directory):
        hint = f"The directory {directory!r} does not exist"
        return CheckpointNotFoundError(f"No such {wanted}", path=text, hint=hint)
    try:
        identity = _identify(text, limits=limits)
    except CheckpointError as error:
        return CheckpointNotFoundError(f"No such {wanted}", path=text, hint=error.hint)
    if split_data_path(str(_last_file(identity))) is None:
        return CheckpointNotFoundError(
            f"Expected a {wanted}, found {identity.meaning}", path=text, hint=identity.advice
        )
    return CheckpointNotFoundError(
        "The data files have no index beside them", path=text + INDEX_SUFFIX, hint=identity.advice
    )


def _last_file(identity: Identity) -> object:
    files = identity.detail.get("files")
    return files[-1] if isinstance(files, tuple) and files else None


def not_a_checkpoint(identity: Identity, wanted: str = "a checkpoint") -> CheckpointError:
    """Say what is there instead of a checkpoint, or what was cut off."""
    if identity.kind == "truncated" and identity.detail.get("of") in _OWN_KINDS:
        return TruncatedError(
            f"Expected {wanted}, found {identity.meaning}: not an sstable, or no whole message",
            path=identity.path,
            hint=identity.advice,
        )
    hint = identity.advice
    if identity.kind == "v2-index":
        hint = "Rename it: the name of an index ends in .index, that of its data in .data-…"
    return NotACheckpointError(
        f"Expected {wanted}, found {identity.meaning}",
        path=identity.path,
        identity=identity,
        hint=hint,
    )
