"""A path that is a state file: it means exactly the newest checkpoint that it names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ckptparse.errors import CheckpointError, CheckpointNotFoundError, PermissionDeniedError
from ckptparse.filenames import INDEX_SUFFIX, split_data_path
from ckptparse.graph.state import StateFile, read_state
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.inventory import By, Candidate, Inventory
from ckptparse.inventory.legacy import take_legacy
from ckptparse.inventory.listed import find_listed, warn_elsewhere
from ckptparse.inventory.parts import find_parts, newest_first
from ckptparse.inventory.places import take_bundle

__all__ = ["take_state"]


def take_state(path: str, folders: Folders) -> Inventory:
    """Take exactly the newest checkpoint that a state file names."""
    directory = folders.split(path)[0]
    try:
        state = read_state(path, folders.context)
    except PermissionDeniedError:
        raise
    except CheckpointError as error:
        others = tuple(newest_first(directory, folders))
        return Inventory(path, refusal=error, others=others, state_path=path)
    return _of_listed(state, directory, folders)


def _of_listed(state: StateFile, directory: str, folders: Folders) -> Inventory:
    newest, *rest = state.newest_first()
    older = tuple(_iter_older(rest, directory, folders))
    found = find_listed(newest, directory, folders)
    if found is not None:
        inventory = _of_listed_path(found.path, folders)
        meant = inventory.meant
        return replace(
            inventory,
            path=state.path,
            meant=None if meant is None else replace(meant, by=By.STATE),
            others=(*inventory.others, *older),
            state_path=state.path,
            elsewhere=warn_elsewhere(state.path, found.path) if found.is_elsewhere else None,
        )
    latest = folders.join(directory, newest)
    refusal = CheckpointNotFoundError(
        f"The state file names {latest} as the newest checkpoint, and it is not there",
        path=state.path,
    )
    parts = find_parts(latest, folders, by=By.STATE)
    fallback = () if older else tuple(newest_first(directory, folders))
    others = (*((parts,) if parts else ()), *older, *fallback)
    return Inventory(state.path, refusal=refusal, others=others, state_path=state.path)


def _iter_older(listed: Iterable[str], directory: str, folders: Folders) -> Iterator[Candidate]:
    """Iterate over the listed checkpoints that are there, and that may be read."""
    for one in listed:
        try:
            found = find_listed(one, directory, folders)
            inventory = None if found is None else _of_listed_path(found.path, folders)
        except PermissionDeniedError:
            continue
        if inventory is not None and inventory.meant is not None:
            yield replace(inventory.meant, by=By.LISTED)


def _of_listed_path(path: str, folders: Folders) -> Inventory:
    """Take a path that a state file lists. Another state file or a directory is not followed."""
    if folders.is_file(path + INDEX_SUFFIX):
        return Inventory(path, take_bundle(path, folders))
    data = split_data_path(path)
    if path.endswith(INDEX_SUFFIX):
        return Inventory(path, take_bundle(path.removesuffix(INDEX_SUFFIX), folders))
    if data is not None and folders.is_file(data[0] + INDEX_SUFFIX):
        return Inventory(path, take_bundle(data[0], folders))
    return take_legacy(path, folders, is_file=folders.is_file(path))
