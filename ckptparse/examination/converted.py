"""Choose the checkpoint of a path, also if it is a V1 file that was converted as a whole."""

from __future__ import annotations

from contextlib import closing

from ckptparse.errors import (
    CheckpointError,
    DataLossError,
    NotACheckpointError,
    PermissionDeniedError,
)
from ckptparse.files.context import Context
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.legacy import take_legacy
from ckptparse.inventory.lenient import Choice, choose_leniently

__all__ = ["choose"]

_START = b"\0\0"
"""The first bytes of a V1 file: its first key shares nothing, and is empty."""


def choose(path: str, folders: Folders) -> Choice:
    """Return the checkpoint of which anything is there, whole or damaged.

    Raises:
        CheckpointNotFoundError: No file of one is there.
        NotACheckpointError: The file there was never part of one, or the path can mean several.
        DataLossError: Of the file there nothing was left.
        PermissionDeniedError: It may not be read.
    """
    try:
        return choose_leniently(path, folders)
    except (NotACheckpointError, DataLossError) as error:
        # With its first bytes as they were, it looks like a file that was cut off.
        found = take_legacy(path, folders, is_file=folders.is_file(path))
        candidate = found.meant or next(iter(found.others), None)
        files = candidate.files if candidate else ()
        if candidate is None or not files or not _was_legacy(files[0], folders.context):
            raise
        return Choice(candidate, refusal=error)


def _was_legacy(path: str, context: Context) -> bool:
    """Tell whether a file was a V1 checkpoint before it was converted."""
    # Few paths lead here, and these take time to import.
    from ckptparse.examination.encodings import Undone, sample_conversions
    from ckptparse.identification.sample import Sample
    from ckptparse.identification.tables import find_cut_table, find_table

    try:
        source = context.storage.open(path)
    except PermissionDeniedError:
        raise
    except CheckpointError:
        return False
    with closing(source):
        for steps, head in sample_conversions(source):
            if not head.startswith(_START):
                continue
            try:
                sample = Sample(Undone(steps)(source), context)
            except CheckpointError:
                continue
            found = find_table(sample) or find_cut_table(sample)
            if found is not None and "v1" in (found.kind, found.detail.get("of")):
                return True
    return False
