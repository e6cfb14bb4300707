"""Which checkpoint the path of an archive means: the only one in it.

Names tell, as they do in a directory: a SavedModel by its graph file, a checkpoint by its index (or
by its state file, if there are several); if there is neither, the only file there is.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping

from ckptparse.errors import NotACheckpointError
from ckptparse.filenames import (
    INDEX_SUFFIX,
    SAVED_MODEL_FILES,
    STATE_FILE_NAME,
    VARIABLES,
    is_apple_double,
    split_data_path,
    split_legacy_path,
)
from ckptparse.files.archives.listing import Member
from ckptparse.files.archives.storage import ArchiveStorage

__all__ = ["choose", "find_checkpoints"]

_GRAPHS = (".pb", ".pbtxt")
_SHOWN = 10
"""Checkpoints that an error lists: more do not fit into a message."""


def choose(archive: ArchiveStorage) -> str | None:
    """Return the path of the checkpoint in an archive; None if there is none.

    Raises:
        NotACheckpointError: There are several.
        CheckpointError: The archive cannot be read.
    """
    path = archive.path
    found = find_checkpoints(archive.listing().members)
    if len(found) > 1:
        raise _several(path, found)
    if not found:
        # It may be what another program keeps: npz, Keras, PyTorch.
        return None
    return archive.join(path, found[0]) if found[0] else path


def find_checkpoints(members: Mapping[str, Member]) -> list[str]:
    """Return what could be meant, as paths in the archive; `""` is its top."""
    files = (name for name, member in members.items() if member.kind in ("file", "dangling"))
    parted = [posixpath.split(name) for name in files]
    parted = [(place, name) for place, name in parted if not is_apple_double(name)]
    models = {place for place, name in parted if name in SAVED_MODEL_FILES}
    own = {posixpath.join(place, VARIABLES) for place in models}
    stated = {place for place, name in parted if name == STATE_FILE_NAME}
    indexes = {
        posixpath.join(place, name.removesuffix(INDEX_SUFFIX))
        for place, name in parted
        if name.endswith(INDEX_SUFFIX) and place not in own
    }
    found = set(models)
    counts = Counter(map(posixpath.dirname, indexes))
    for prefix in indexes:
        place = posixpath.dirname(prefix)
        found.add(place if counts[place] > 1 and place in stated else prefix)
    return sorted(found or _without_index(parted, own) or _lone_files(parted))


def _without_index(parted: list[tuple[str, str]], own: set[str]) -> set[str]:
    """Return the prefixes of data files that have lost their index."""
    data = ((place, split_data_path(name)) for place, name in parted if place not in own)
    return {posixpath.join(place, parts[0]) for place, parts in data if parts is not None}


def _lone_files(parted: list[tuple[str, str]]) -> set[str]:
    """Return V1 files and graphs, which only their content tells, if names leave no choice."""
    several = {
        posixpath.join(place, parts[0])
        for place, parts in ((place, split_legacy_path(name)) for place, name in parted)
        if parts is not None
    }
    named = {posixpath.join(place, name) for place, name in parted if ".ckpt" in name}
    named = {name for name in named if not name.endswith((".meta", ".txt", ".json"))}
    graphs = {posixpath.join(place, name) for place, name in parted if name.endswith(_GRAPHS)}
    # What has an ending belongs to another program, such as the only array of an npz.
    plain = {posixpath.join(place, name) for place, name in parted if "." not in name}
    return several or named or graphs or (plain if len(parted) == 1 else set())


def _several(path: str, found: list[str]) -> NotACheckpointError:
    shown = [f"{path}/{name}" if name else f"{path}/" for name in found[:_SHOWN]]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return NotACheckpointError(
        f"{len(found)} checkpoints are in the archive: {', '.join(shown)}{more}",
        path=path,
        hint="Name one of them",
    )
