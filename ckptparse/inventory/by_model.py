"""A SavedModel: its variables, or the constants of one that has none."""

from __future__ import annotations

from dataclasses import replace

from ckptparse.errors import CheckpointNotFoundError
from ckptparse.filenames import INDEX_SUFFIX, SAVED_MODEL_FILES, VARIABLES, strip_copy_number
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.inventory import By, Candidate, Inventory
from ckptparse.inventory.parts import find_parts, list_prefixes
from ckptparse.inventory.places import take_bundle

__all__ = ["take_saved_model"]


def take_saved_model(directory: str, folders: Folders) -> Inventory:
    """Find the variables of a SavedModel, also if copying has moved them."""
    found = _find_variables(directory, folders)
    if found is not None:
        return Inventory(directory, found)
    prefix = folders.join(folders.join(directory, VARIABLES), VARIABLES)
    parts = find_parts(prefix, folders, by=By.SAVED_MODEL)
    if parts is not None:
        refusal = CheckpointNotFoundError(
            "Expected the index of the SavedModel's variables, found none",
            path=prefix + INDEX_SUFFIX,
            hint="Copy it again: only the index has the names of the tensors in its data files",
        )
        others = (replace(parts, saved_model=directory),)
        return Inventory(directory, refusal=refusal, others=others)
    files = folders.files(directory)
    name = next(name for name in SAVED_MODEL_FILES if name in files)
    frozen = Candidate(
        "graph", folders.join(directory, name), By.SAVED_MODEL, saved_model=directory
    )
    return Inventory(directory, frozen)


def _find_variables(directory: str, folders: Folders) -> Candidate | None:
    r"""Find the index of a SavedModel's variables.

    It is `variables/variables.index`; beside `saved_model.pb` if all files were put into one
    directory; `variables\variables.index` if they were unpacked from an archive made on Windows.
    """
    below = folders.join(directory, VARIABLES)
    for prefix in (
        folders.join(below, VARIABLES),
        folders.join(directory, VARIABLES),
        folders.join(directory, f"{VARIABLES}\\{VARIABLES}"),
    ):
        if folders.is_file(prefix + INDEX_SUFFIX):
            found = take_bundle(prefix, folders, by=By.SAVED_MODEL)
            return replace(found, saved_model=directory)
    for place in (below, directory):
        copies = [one for one in list_prefixes(place, folders) if _is_copy(one, folders)]
        if len(copies) == 1:
            found = take_bundle(copies[0], folders, by=By.SAVED_MODEL)
            return replace(found, saved_model=directory)
    return None


def _is_copy(prefix: str, folders: Folders) -> bool:
    return strip_copy_number(folders.split(prefix)[1]) == VARIABLES
