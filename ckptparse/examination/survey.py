"""Find which files belong to the checkpoint of a path, and what kind each file is."""

from __future__ import annotations

from ckptparse.errors import CheckpointError, PermissionDeniedError
from ckptparse.examination.converted import choose
from ckptparse.files.context import Context
from ckptparse.identification import Identity, Indexes, identify_file
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.parts import survey_candidate
from ckptparse.inventory.survey import Survey

__all__ = ["identity_of", "survey_path"]


def survey_path(path: str, context: Context, folders: Folders | None = None) -> Survey:
    """List the files of the checkpoint of a prefix or a V1 file.

    Args:
        path: The prefix, or the file.
        context: Where it lies.
        folders: What was listed for others of the same directories.

    Raises:
        CheckpointNotFoundError: Nothing of one is there.
        NotACheckpointError: What is there was never part of one.
        PermissionDeniedError: It may not be read.
    """
    folders = folders or Folders(context)
    return survey_candidate(choose(path, folders).candidate, folders)


def identity_of(path: str, context: Context, indexes: Indexes | None = None) -> Identity | None:
    """Identify a file; None if it cannot be read. Many data files share what is read of indexes.

    Raises:
        PermissionDeniedError: It may not be read.
    """
    try:
        return identify_file(path, context, indexes)
    except PermissionDeniedError:
        raise
    except CheckpointError:
        return None
