"""A path that is a directory: a SavedModel, its `variables/`, or one with a state file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ckptparse.errors import NotACheckpointError
from ckptparse.filenames import (
    INDEX_SUFFIX,
    SAVED_MODEL_FILES,
    STATE_FILE_NAME,
    VARIABLES,
    strip_temp_directory,
)
from ckptparse.inventory.absent import refuse
from ckptparse.inventory.by_model import take_saved_model
from ckptparse.inventory.by_state import take_state
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.identities import identify_directory
from ckptparse.inventory.inventory import By, Candidate, Inventory
from ckptparse.inventory.legacy import take_legacy
from ckptparse.inventory.parts import find_parts, list_prefixes, list_v1, newest_first
from ckptparse.inventory.places import take_bundle

__all__ = ["take_directory"]

_MOST_NAMED = 100
"""Checkpoints that an error names."""


def take_directory(path: str, folders: Folders) -> Inventory:
    """Tell what a directory means: a SavedModel, its `variables/`, by state file, by its files."""
    files = folders.files(path)
    if any(name in files for name in SAVED_MODEL_FILES):
        return replace(take_saved_model(path, folders), path=path)
    if VARIABLES + INDEX_SUFFIX in files:
        return Inventory(path, take_bundle(folders.join(path, VARIABLES), folders, by=By.ONLY))
    if STATE_FILE_NAME in files:
        return replace(take_state(folders.join(path, STATE_FILE_NAME), folders), path=path)
    prefixes = list_prefixes(path, folders)
    if prefixes:
        return _of_several(
            path, [take_bundle(one, folders, by=By.ONLY) for one in prefixes], folders
        )
    return _of_rest(path, folders)


def _of_rest(path: str, folders: Folders) -> Inventory:
    """Tell what a directory without an index means, from its other files."""
    below = folders.join(folders.join(path, VARIABLES), VARIABLES)
    if folders.is_file(below + INDEX_SUFFIX):
        # A SavedModel that has lost its saved_model.pb.
        return Inventory(path, take_bundle(below, folders, by=By.SAVED_MODEL))
    refusal = refuse(identify_directory(path, folders))
    parts = _of_parts(path, folders)
    if parts is not None:
        return Inventory(path, refusal=refusal, others=(parts,))
    legacy = [
        take_legacy(one, folders, is_file=folders.is_file(one)) for one in list_v1(path, folders)
    ]
    if len(legacy) == 1:
        return _only(path, legacy[0])
    if legacy:
        found = [one.meant or one.others[0] for one in legacy if one.meant or one.others]
        return _of_several(path, found, folders)
    return Inventory(path, refusal=refusal, others=tuple(newest_first(path, folders)))


def _only(path: str, found: Inventory) -> Inventory:
    meant = None if found.meant is None else replace(found.meant, by=By.ONLY)
    return replace(found, path=path, meant=meant)


def _of_parts(path: str, folders: Folders) -> Candidate | None:
    """Take a directory of parts as the checkpoint that they were meant to become."""
    bare = path.rstrip("/") or path
    prefix = strip_temp_directory(bare)
    if prefix is None:
        return None
    found = find_parts(prefix, folders)
    return None if found is None else replace(found, parts_in=bare)


def _of_several(path: str, found: Iterable[Candidate], folders: Folders) -> Inventory:
    first, *rest = found
    if not rest:
        return Inventory(path, first)
    named = [first, *rest[: _MOST_NAMED - 1]]
    names = ", ".join(folders.split(one.path)[1] for one in named)
    more = 1 + len(rest) - len(named)
    refusal = NotACheckpointError(
        f"The directory holds {1 + len(rest)} checkpoints and no state file that names the newest: "
        + (f"{names} and {more} more" if more else names),
        path=path,
        hint="Give the path of one of them",
    )
    return Inventory(path, refusal=refusal, ambiguous=True)
