"""Make the error for a path without a checkpoint: what is there instead, or what is near."""

from __future__ import annotations

from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    NotACheckpointError,
    TruncatedError,
)
from ckptparse.filenames import INDEX_SUFFIX, split_data_path
from ckptparse.identification import Identity
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.identities import identify_names
from ckptparse.inventory.nearby import hint_of_directory, hint_of_spelling

__all__ = ["explain_absent", "refuse"]

_OWN_KINDS = ("v1", "v2-index", "graph", "meta-graph")


def refuse(identity: Identity, wanted: str = "a checkpoint") -> CheckpointError:
    """Return an error that says what is there instead of a checkpoint, or what was cut off."""
    if identity.kind == "truncated" and identity.detail.get("of") in _OWN_KINDS:
        return TruncatedError(
            f"Expected {wanted}, found {identity.meaning}: not an sstable, or not a whole message",
            path=identity.path,
            hint=identity.advice,
        )
    hint = identity.advice
    if identity.kind == "v2-index":
        hint = "Rename it: the name of an index ends in .index, and that of its data in .data-…"
    return NotACheckpointError(
        f"Expected {wanted}, found {identity.described}",
        path=identity.path,
        identity=identity,
        hint=hint,
    )


def explain_absent(
    path: str, folders: Folders, wanted: str = "checkpoint"
) -> CheckpointNotFoundError:
    """Return an error that says that nothing is at a path, and what is near."""
    hint = hint_of_spelling(path)
    if hint is not None:
        return CheckpointNotFoundError(f"No such {wanted}", path=path, hint=hint)
    if not folders.are_listed and not folders.files(folders.split(path)[0]):
        hint = "The server gives no lists: give the prefix of the checkpoint, or the whole name"
        return CheckpointNotFoundError(f"No such {wanted}", path=path, hint=hint)
    hint = hint_of_directory(path, folders)
    if hint is not None:
        return CheckpointNotFoundError(f"No such {wanted}", path=path, hint=hint)
    try:
        identity = identify_names(path, folders)
    except CheckpointError as error:
        return CheckpointNotFoundError(f"No such {wanted}", path=path, hint=error.hint)
    if split_data_path(str(_last_file(identity))) is None:
        return CheckpointNotFoundError(
            f"Expected a {wanted}, found {identity.meaning}", path=path, hint=identity.advice
        )
    return CheckpointNotFoundError(
        "Expected an index beside the data files, found none",
        path=path + INDEX_SUFFIX,
        hint=identity.advice,
    )


def _last_file(identity: Identity) -> object:
    files = identity.detail.get("files")
    return files[-1] if isinstance(files, tuple) and files else None
