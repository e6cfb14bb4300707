"""Find the files of a checkpoint where nobody gives lists: on a web server, by their names alone.

What no name tells is not found there: leftovers of a save, other checkpoints of the directory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from ckptparse.bundle.index import BundleIndex
from ckptparse.errors import CheckpointError, StorageError
from ckptparse.filenames import (
    INDEX_SUFFIX,
    SAVED_MODEL_FILES,
    STATE_FILE_NAME,
    VARIABLES,
    legacy_path,
    shard_path,
    split_data_path,
    split_legacy_path,
)
from ckptparse.files.storage import FileStat
from ckptparse.inventory.folders import Folders

__all__ = ["look_around", "look_beside"]

_MOST_SHARDS = 100_000
"""Files that are asked for at most. A name or an index can state any number of them."""
_MOST_GUESSED = 16
"""Numbers of files that are tried if nothing says how many there are."""
_KNOWN_NAMES = (STATE_FILE_NAME, *SAVED_MODEL_FILES, f"{VARIABLES}/{VARIABLES}{INDEX_SUFFIX}")
"""Files that a directory of checkpoints, or of a model, has under the same name everywhere."""


def look_around(path: str, status: FileStat | None, folders: Folders) -> FileStat | None:
    """Tell what is at a path: also a directory, if it has a file whose name is always the same."""
    if status is not None:
        look_beside(path, folders)
        return status
    folders.look_for([folders.join(path, name) for name in _KNOWN_NAMES])
    return folders.stat(path)


def look_beside(path: str, folders: Folders) -> None:
    """Ask for the files that belong to a path, so that they are known from here on.

    Args:
        path: A prefix, or any file of a checkpoint.
        folders: Where to look; nothing is asked of a storage that gives lists.
    """
    if folders.are_listed:
        return
    data, legacy = split_data_path(path), split_legacy_path(path)
    prefix = data[0] if data else path.removesuffix(INDEX_SUFFIX)
    count = _count_shards(prefix, folders) or (data[2] if data else None)
    if count is not None:
        named = range(min(count, _MOST_SHARDS))
        folders.look_for([shard_path(prefix, number, count) for number in named])
    elif legacy is not None:
        named = range(min(legacy[2], _MOST_SHARDS))
        folders.look_for([legacy_path(legacy[0], number, legacy[2]) for number in named])
    elif not folders.is_file(path):
        for name in (shard_path, legacy_path):
            _guess(name, prefix, folders)


def _guess(name: Callable[[str, int, int], str], prefix: str, folders: Folders) -> None:
    """Ask for the first file of each number of files; of what is there, for the others too."""
    counts = range(1, _MOST_GUESSED + 1)
    folders.look_for([name(prefix, 0, count) for count in counts])
    for count in counts:
        if folders.is_file(name(prefix, 0, count)):
            folders.look_for([name(prefix, number, count) for number in range(count)])


def _count_shards(prefix: str, folders: Folders) -> int | None:
    """Return how many data files the index states; None if there is no index that can be read."""
    path = prefix + INDEX_SUFFIX
    if not folders.is_file(path):
        return None
    try:
        with closing(BundleIndex.open(path, folders.context)) as index:
            return index.header.num_shards
    except StorageError:
        raise
    except CheckpointError:
        return None
