"""Names of V1 files: one file, or several whose pattern stands for them all.

m.ckpt-7                        one file
m.ckpt-7-00000-of-00002         one of two
m.ckpt-7-?????-of-00002         both: what a state file lists, and what TensorFlow is given
"""

from __future__ import annotations

import fnmatch
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice

from ckptparse.errors import MissingShardError, NotACheckpointError

__all__ = ["find_legacy_files", "match_pattern", "strip_shard_suffix"]

_SHARD = re.compile(r"(?s)(.*)-(\d{5,})-of-(\d{5,})")
_SHARD_SUFFIX = re.compile(r"-[\d?]+-of-\d+$")
_NEVER_SHARDS = (".meta", ".index")
_WILD = set("*?[")
_MOST_LISTED = 5


def match_pattern(pattern: str) -> list[str]:
    """List the files that a pattern such as `ckpt-3-?????-of-00002` names, in order.

    Only the last part of the path is a pattern: directories are taken by their name.
    """
    directory, name = os.path.split(pattern)
    if not set(name) & _WILD:
        return []
    return _join_files(directory, fnmatch.filter(_list_names(directory), name))


def strip_shard_suffix(path: str) -> str:
    """Take `-00000-of-00002` or `-?????-of-00002` off a path."""
    return _SHARD_SUFFIX.sub("", path)


def find_legacy_files(path: str) -> tuple[str, ...]:
    """Find the files of a V1 checkpoint, whatever they turn out to hold.

    Args:
        path: The file; or of several the pattern, what precedes `-00000-of-00002` in their names,
            or one of them.

    Returns:
        Their paths, in order; none where there are none. Where one of several was given and
        others are not there, that one, with a `UserWarning`.

    Raises:
        MissingShardError: A pattern or prefix stands for files that are not all there.
        NotACheckpointError: A prefix stands for several checkpoints.
    """
    if "\0" in path:
        return ()
    if os.path.isfile(path):
        return _find_siblings(path)
    files = [file for file in match_pattern(path) if not file.endswith(_NEVER_SHARDS)]
    files = files or _match_prefix(path)
    missing = list(islice(_iter_missing(files, path), _MOST_LISTED))
    if missing:
        raise MissingShardError(
            f"Expected every file of a V1 checkpoint, found {len(files)}; not there: "
            f"{', '.join(missing)}",
            path=missing[0],
            hint="Give one of the files that are there to read what it holds",
        )
    return tuple(files)


def _find_siblings(path: str) -> tuple[str, ...]:
    """Find the files that belong to a given one, which may be one of several."""
    shard = _SHARD.fullmatch(path)
    if shard is None:
        return (path,)
    files = _list_shards(shard[1]).get(int(shard[3]), [])
    missing = list(islice(_iter_missing(files, shard[1]), _MOST_LISTED))
    if not missing:
        return tuple(files)
    warnings.warn(
        f"{path} is one of {int(shard[3])} files of a V1 checkpoint, and {', '.join(missing)} "
        "is not there: what it held is left out",
        UserWarning,
        stacklevel=2,
    )
    return (path,)


def _match_prefix(prefix: str) -> list[str]:
    shards = _list_shards(prefix)
    if len(shards) > 1:
        counts = " and of ".join(map(str, sorted(shards)))
        raise NotACheckpointError(
            f"Expected the files of one V1 checkpoint, found those of one of {counts} files",
            path=prefix,
            hint=f"Give one of them: {', '.join(files[0] for files in shards.values())}",
        )
    return next(iter(shards.values()), [])


def _list_shards(prefix: str) -> dict[int, list[str]]:
    """List the files `PREFIX-SSSSS-of-NNNNN`, in order, by their number N."""
    directory, name = os.path.split(prefix)
    shards: dict[int, list[str]] = defaultdict(list)
    for file in _list_names(directory):
        match = _SHARD.fullmatch(file)
        if match is not None and match[1] == name:
            shards[int(match[3])].extend(_join_files(directory, [file]))
    return {count: files for count, files in shards.items() if files}


def _iter_missing(files: Iterable[str], path: str) -> Iterator[str]:
    """Iterate over the files that the names of others say there are, and that a pattern means."""
    present = set(files)
    name = os.path.basename(path)
    counts = {(m[1], int(m[3])) for m in map(_SHARD.fullmatch, sorted(present)) if m is not None}
    for prefix, count in sorted(counts):
        for number in range(count):
            file = f"{prefix}-{number:05d}-of-{count:05d}"
            meant = not set(name) & _WILD or fnmatch.fnmatch(os.path.basename(file), name)
            if file not in present and meant:
                yield file


def _list_names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory or os.curdir))
    except (OSError, ValueError):
        return []


def _join_files(directory: str, names: Iterable[str]) -> list[str]:
    paths = (os.path.join(directory, name) for name in names)
    return [path for path in paths if os.path.isfile(path)]
