"""Tell what is at a path: a checkpoint of any kind, or what it is instead.

A file is identified by its content, in `identification`. This module identifies directories, and
prefixes: paths that are no file, but with which names of files begin.
"""

from __future__ import annotations

import re

from ckptparse.errors import CheckpointError, CheckpointNotFoundError, PermissionDeniedError
from ckptparse.filenames import (
    INDEX_SUFFIX,
    SAVED_MODEL_FILES,
    STATE_FILE_NAME,
    VARIABLES,
    is_apple_double,
    shard_path,
    split_data_path,
    split_part,
    strip_temp_directory,
    strip_temporary,
)
from ckptparse.files.context import Cache, Place, Store, begin
from ckptparse.files.storage import FileStat
from ckptparse.graph.state import read_state
from ckptparse.identification import Identity, identify_file
from ckptparse.identification.identity import Finding
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.legacy import list_shards, match_pattern
from ckptparse.inventory.listed import find_listed
from ckptparse.inventory.nearby import hint_of_place
from ckptparse.inventory.parts import list_v1
from ckptparse.limits import DEFAULT_LIMITS, Limits

__all__ = ["explain_link", "identify", "identify_directory", "identify_names", "identify_path"]

_MOST_SHARDS = 100_000
"""If a header states more data files than this, they are not looked for one by one."""
_HUB_FILE = "tfhub_module.pb"


def identify(
    path: Place, *, store: Store = None, cache: Cache = None, limits: Limits = DEFAULT_LIMITS
) -> Identity:
    """Tell what is at a path: a checkpoint of any kind, or what it is instead.

    Args:
        path: A file, a directory, or the prefix or pattern of a checkpoint's files.
        store: As for `ckptparse.open`.
        cache: As for `open`.
        limits: Bounds on what is read and unpacked.

    Returns:
        Its kind is one of `KINDS`. If another file decides (the index of a prefix may be a Git LFS
        pointer), its `path` is that file.

    Raises:
        CheckpointNotFoundError: No file has that name, or a name that begins with it.
        PermissionDeniedError: It may not be read.
        UnsupportedError: The operating system refuses to open it.
    """
    place, context = begin(path, store=store, cache=cache, limits=limits, choose=False)
    return identify_path(place, Folders(context))


def identify_path(path: str, folders: Folders) -> Identity:
    """Tell what is at a path; errors are those of `identify`."""
    status = None if "\0" in path else folders.stat(path)
    if status is None:
        return identify_names(path, folders)
    if status.kind == "directory":
        return identify_directory(path, folders)
    if status.kind == "dangling":
        raise explain_link(path, status)
    return identify_file(path, folders.context)


def identify_directory(path: str, folders: Folders) -> Identity:
    """Identify a directory by the files in it."""
    bare = path.rstrip("/") or path
    model = _identify_saved_model(bare, folders)
    if model is not None:
        return model
    if folders.is_file(bare + INDEX_SUFFIX):
        return identify_names(bare, folders)
    names = folders.saved(bare)
    found = (
        _find_prefixes(bare, folders) | _find_listed(bare, folders) | _find_tables(bare, folders)
    )
    prefixes = tuple(sorted(found))
    leftovers = tuple(name for name in names if _is_leftover(bare, name, folders))
    parts = tuple(name for name in names if _is_part(name))
    if parts and all(name.startswith("part-") for name in prefixes):
        return Identity.of(Finding("interrupted-save", {"files": parts}), bare)
    if leftovers and not prefixes:
        return Identity.of(Finding("interrupted-save", {"files": leftovers}), bare)
    detail: dict[str, object] = {
        "state_file": STATE_FILE_NAME in folders.list(bare),
        "leftovers": leftovers,
    }
    if not prefixes:
        detail["advice"] = (
            "No checkpoint is directly in it: look in its subdirectories. `ckptparse scan` lists "
            "those of which an index is there."
        )
    return Identity.of(Finding("directory", detail, prefixes), bare)


def identify_names(path: str, folders: Folders) -> Identity:
    """Identify the files whose names begin with a path, if no file has that name itself.

    Raises:
        CheckpointNotFoundError: There are none.
    """
    if folders.is_file(path + INDEX_SUFFIX):
        return _identify_prefix(path, folders)
    directory, name = folders.split(path)
    shards = list_shards(path, folders)
    several = match_pattern(path, folders) or [file for found in shards.values() for file in found]
    if several:
        first = identify_file(several[0], folders.context)
        files = {"files": tuple(several)}
        return Identity.of(Finding("v1", files), path) if first.kind == "v1" else first
    names = folders.list(directory)
    leftovers = [one for one in names if _is_leftover_of(one, name)]
    data = [one for one in names if (split_data_path(one) or ("", 0, 0))[0] == name != ""]
    if leftovers:
        found = tuple(folders.join(directory, one) for one in (*leftovers, *data))
        return Identity.of(Finding("interrupted-save", {"files": found}), path)
    if data:
        found = tuple(folders.join(directory, one) for one in data)
        return Identity.of(_without_index(found), path)
    raise CheckpointNotFoundError(
        "Expected a file, a directory or the prefix of a checkpoint, found nothing with that name",
        path=path,
        hint=_suggest(directory, folders) or hint_of_place(path, folders),
    )


def explain_link(path: str, status: FileStat) -> CheckpointNotFoundError:
    """Return an error that says that a link leads to nothing."""
    where = "" if status.target is None else f" to {status.target!r}"
    return CheckpointNotFoundError(
        f"Expected a file, found a symbolic link{where}, and there is no such file", path=path
    )


def _identify_saved_model(path: str, folders: Folders) -> Identity | None:
    """Identify a directory by the graph file of a SavedModel; None if it has none."""
    names = folders.list(path)
    name = next((name for name in SAVED_MODEL_FILES if name in names), None)
    if name is None:
        return None
    graph = identify_file(folders.join(path, name), folders.context)
    index = folders.join(folders.join(path, VARIABLES), VARIABLES) + INDEX_SUFFIX
    variables = folders.is_file(index) and (
        identify_file(index, folders.context).kind == "v2-index"
    )
    detail: dict[str, object] = {"graph": name, "variables": variables}
    if not graph.kind.startswith("saved-model-"):
        if not variables:
            return None if graph.kind == "unknown" else graph
        detail["damage"] = f"{name} is {graph.meaning}"
    kind = "hub-module" if _HUB_FILE in names else "savedmodel"
    return Identity.of(Finding(kind, detail), path)


def _identify_prefix(path: str, folders: Folders) -> Identity:
    index = identify_file(path + INDEX_SUFFIX, folders.context)
    if index.kind != "v2-index":
        return index
    detail = dict(index.detail)
    num_shards = detail.get("num_shards")
    if isinstance(num_shards, int) and 0 < num_shards <= _MOST_SHARDS:
        directory, name = folders.split(path)
        names = folders.files(directory)
        files = (shard_path(name, shard_id, num_shards) for shard_id in range(num_shards))
        missing = tuple(folders.join(directory, one) for one in files if one not in names)
        if missing:
            detail["missing"] = missing
            detail["advice"] = (
                f"{len(missing)} of its {num_shards} data files are not there: copy them beside "
                "its index, or get the rest back with ckptparse.recover."
            )
    return Identity.of(Finding("v2-prefix", detail), path)


def _without_index(data: tuple[str, ...]) -> Finding:
    advice = (
        "Its index is not there: copy it beside the data files. Only the index has the names of "
        "their tensors."
    )
    return Finding("v2-prefix", {"index": "missing", "files": data, "advice": advice})


def _find_prefixes(directory: str, folders: Folders) -> set[str]:
    """Return the V2 prefixes that the names of files have."""
    indexes = [name for name in folders.saved(directory) if name.endswith(INDEX_SUFFIX)]
    prefixes = {name.removesuffix(INDEX_SUFFIX) for name in indexes if not is_apple_double(name)}
    data = folders.data_files(directory)
    return prefixes | {parts[0] for name, parts in data.items() if not is_apple_double(name)}


def _find_listed(directory: str, folders: Folders) -> set[str]:
    """Return the checkpoints that the state file lists and that are in the directory."""
    if not folders.is_file(folders.join(directory, STATE_FILE_NAME)):
        return set()
    try:
        state = read_state(folders.join(directory, STATE_FILE_NAME), folders.context)
        found = [find_listed(one, directory, folders) for one in state.newest_first()]
    except PermissionDeniedError:
        raise
    except CheckpointError:
        return set()
    here = (folders.split(one.path) for one in found if one is not None)
    return {name for place, name in here if place == directory}


def _find_tables(directory: str, folders: Folders) -> set[str]:
    """Return the V1 files among the first files of a directory."""
    return {folders.split(path)[1] for path in list_v1(directory, folders)}


def _is_part(name: str) -> bool:
    part = split_part(name)
    return part is not None and part.base is None and strip_temporary(name) is None


def _is_leftover(directory: str, name: str, folders: Folders) -> bool:
    if strip_temporary(name) is not None:
        return True
    if strip_temp_directory(name) is None:
        return False
    return any(map(split_part, folders.list(folders.join(directory, name))))


def _is_leftover_of(name: str, base: str) -> bool:
    final = strip_temporary(name)
    if final is not None:
        return final == base or final.startswith(f"{base}.")
    return bool(re.match(rf"{re.escape(base)}_temp", name))


def _suggest(directory: str, folders: Folders) -> str | None:
    prefixes = sorted(_find_prefixes(directory, folders))
    if not prefixes:
        return None
    listed = [folders.join(directory, name) for name in prefixes[:5]]
    more = [f"… ({len(prefixes) - 5} more)"] if len(prefixes) > 5 else []
    return f"There is: {', '.join([*listed, *more])}"
