"""Find what a path means, of any kind that a caller may have (docs/format.md, section 5).

A path is tried as a prefix, then as a directory, then as a file, then as the name of several files.
A directory is tried as a SavedModel, as the `variables/` of one, by its state file, by its only
index, and by its only V1 checkpoint. A file is not opened if its name is enough.
"""

from __future__ import annotations

import os
import warnings

from ckptparse.errors import CheckpointNotFoundError
from ckptparse.filenames import INDEX_SUFFIX, strip_copy_number
from ckptparse.files.context import Context, Place
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.inventory import By, Candidate, Inventory

__all__ = ["PathLike", "choose_strictly", "take_bundle", "take_inventory"]

PathLike = Place
"""A path as callers give it."""


def choose_strictly(
    path: str | os.PathLike[str], context: Context, folders: Folders | None = None
) -> Inventory:
    """Return the inventory of a path that means one checkpoint.

    Args:
        path, context: Where it lies.
        folders: The directories, if some of them were listed already.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: Something else is there, or several checkpoints.
        DataLossError: The file there was cut off.
        PermissionDeniedError: It may not be read.
    """
    text = path if isinstance(path, str) else os.fsdecode(path)
    inventory = take_inventory(text, folders or Folders(context))
    for warning in filter(None, (inventory.elsewhere, inventory.warning)):
        from ckptparse.text import clean

        warnings.warn(clean(warning), UserWarning, stacklevel=3)
    return inventory


def take_inventory(path: str, folders: Folders) -> Inventory:
    """Tell what is at a path; of one that was told before, the same.

    Raises:
        PermissionDeniedError: It may not be read.
    """
    known = folders.inventories.get(path)
    if known is None:
        known = folders.inventories[path] = _take_inventory(path, folders)
    return known


def _take_inventory(path: str, folders: Folders) -> Inventory:
    if "\0" in path:
        return Inventory(path, refusal=CheckpointNotFoundError("No such checkpoint", path=path))
    if folders.is_file(path + INDEX_SUFFIX):
        return Inventory(path, take_bundle(path, folders))
    # Imported only now: for a checkpoint that is found by its prefix they are not needed.
    from ckptparse.inventory.by_directory import take_directory
    from ckptparse.inventory.by_file import take_file, take_names, take_special

    status = folders.stat(path)
    if not folders.are_listed:
        from ckptparse.inventory.by_name import look_around

        status = look_around(path, status, folders)
    if status is None:
        return take_names(path, folders)
    if status.kind == "directory":
        return take_directory(path, folders)
    if status.kind == "file":
        return take_file(path, folders)
    return take_special(path, status, folders)


def take_bundle(prefix: str, folders: Folders, *, by: By = By.NAME) -> Candidate:
    """Return a V2 checkpoint for its index, to whose name a browser may have added a number.

    The data of `P (1).index` is `P (1).data-…`, or `P.data-…` if only that is there.
    """
    if not prefix.endswith(")"):
        return Candidate("v2", prefix, by)
    directory, name = folders.split(prefix)
    base = strip_copy_number(name)
    if base is None:
        return Candidate("v2", prefix, by)
    owners = folders.owners(directory)
    if name in owners or base not in owners:
        return Candidate("v2", prefix, by)
    path = folders.join(directory, base)
    return Candidate("v2", path, by, renamed_index=prefix + INDEX_SUFFIX)
