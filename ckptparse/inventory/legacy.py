"""Find the files of a V1 checkpoint: one, or several whose names say how many there are.

m.ckpt-7                        one file
m.ckpt-7-00000-of-00002         one of two
m.ckpt-7-?????-of-00002         both: this pattern is in a state file, and TensorFlow takes it
"""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from ckptparse.errors import (
    CheckpointError,
    LimitError,
    MissingShardError,
    NotACheckpointError,
    PermissionDeniedError,
)
from ckptparse.filenames import (
    INDEX_SUFFIX,
    META_SUFFIX,
    is_pattern,
    legacy_path,
    split_legacy_path,
)
from ckptparse.files.context import Context
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.inventory import Candidate, Inventory
from ckptparse.legacy.metadata import read_metadata
from ckptparse.table.reader import Table

__all__ = [
    "LegacyFiles",
    "find_legacy",
    "list_shards",
    "lists_tensors",
    "match_pattern",
    "take_legacy",
]

_NEVER_SHARDS = (META_SUFFIX, INDEX_SUFFIX)
_MOST_LISTED = 5
"""Missing files that an error names: more do not fit into a sentence."""
_MOST_SHARDS = 100_000
"""Files that are looked for at most. A name can state any number of them."""


@dataclass(frozen=True, slots=True)
class LegacyFiles:
    """The files that a path may mean as a V1 checkpoint; their content is not known yet.

    Attributes:
        present: Those that are there, in order.
        absent: Some of those that are missing, as the names of the others say.
        of: How many files there should be, as the names say.
        chosen: The one of several that the path names, or None.
        counts: If there are several sets with that prefix: the number of files of each.
    """

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    of: int = 1
    chosen: str | None = None
    counts: tuple[int, ...] = field(default=())

    @property
    def readable(self) -> tuple[str, ...]:
        """The files that the strict reader takes: all; of an incomplete set the one named."""
        return (self.chosen,) if self.chosen is not None and self.absent else self.present

    def refusal(self, path: str) -> CheckpointError | None:
        """Return an error if the strict reader may not take them; None if it may."""
        if len(self.counts) > 1:
            counts = " and of ".join(map(str, self.counts))
            return NotACheckpointError(
                f"Expected the files of one V1 checkpoint, found sets of {counts} files",
                path=path,
                hint=f"Give one file of a set: {', '.join(self.present)}",
            )
        if self.absent and self.chosen is None:
            return MissingShardError(
                f"Expected {self.of} files of a V1 checkpoint, found {len(self.present)}; missing: "
                f"{', '.join(self.absent)}",
                path=self.absent[0],
                hint="To read one of the files that are there, give its path",
            )
        return None

    def warning(self) -> str | None:
        """Return a warning if one of several files is read and others are missing; else None."""
        if self.chosen is None or not self.absent:
            return None
        return (
            f"{self.chosen} is one of {self.of} files of a V1 checkpoint. Missing are "
            f"{', '.join(self.absent)}: their tensors are left out"
        )


def find_legacy(path: str, folders: Folders, *, is_file: bool) -> LegacyFiles:
    """Find the files of a V1 checkpoint.

    Args:
        path: The file. Of several files: their pattern, the part of their names before
            `-00000-of-00002`, or one of them.
        folders: Where to look.
        is_file: Whether a file with exactly that name is there.
    """
    if is_file:
        return _find_siblings(path, folders)
    files = [file for file in match_pattern(path, folders) if not file.endswith(_NEVER_SHARDS)]
    if files:
        absent = _absent(files, path, folders)
        return LegacyFiles(tuple(files), absent, len(files) + len(absent))
    shards = list_shards(path, folders)
    if len(shards) > 1:
        firsts = tuple(found[0] for found in shards.values())
        return LegacyFiles(firsts, counts=tuple(sorted(shards)))
    for count, found in shards.items():
        return LegacyFiles(tuple(found), _absent(found, path, folders, found[:1]), count)
    return LegacyFiles()


_FORM = re.compile(r"[^*?\[\]]*-\?{5}-of-\d+")
"""The pattern of all files of one set, as a state file has it."""
_SHARD_END = re.compile(r"-\d{5,19}-of-(\d{5,19})")
"""What follows the prefix in the name of one of several files, as `split_legacy_path` takes it."""
_IS_CASE_KEPT = not fnmatch.fnmatch("a", "A")
"""Whether `fnmatch` tells large letters from small ones: it follows the system."""


def match_pattern(pattern: str, folders: Folders) -> list[str]:
    """List the files that match a pattern such as `ckpt-3-?????-of-00002`, in order.

    Only the last part of the path is a pattern. The names of directories are taken literally.
    """
    if not is_pattern(pattern):
        return []
    directory, name = folders.split(pattern)
    if not is_pattern(name):
        return []
    names = folders.names(directory)
    if _IS_CASE_KEPT and _FORM.fullmatch(name):
        # TensorFlow's own: of many patterns, nearly none has a file that begins as it does.
        start, end = name.partition("-?????-of-")[::2]
        low = bisect_left(names, f"{start}-")
        high = bisect_left(names, f"{start}.", low)
        names = [one for one in names[low:high] if len(one) == len(name) and one.endswith(end)]
    return [folders.join(directory, one) for one in fnmatch.filter(names, name)] if names else []


def list_shards(prefix: str, folders: Folders) -> dict[int, list[str]]:
    """List the files `PREFIX-SSSSS-of-NNNNN`, in order, by their number N."""
    directory, name = folders.split(prefix)
    shards: dict[int, list[str]] = defaultdict(list)
    start = f"{name}-"
    names = folders.names(directory)
    for number in range(bisect_left(names, start), len(names)):
        file = names[number]
        if not file.startswith(start):
            break
        end = _SHARD_END.fullmatch(file, len(name))
        if end is not None:
            shards[int(end[1])].append(folders.join(directory, file))
    return dict(shards)


def take_legacy(path: str, folders: Folders, *, is_file: bool) -> Inventory:
    """Tell what a path means as a V1 checkpoint; arguments are those of `find_legacy`."""
    found = find_legacy(path, folders, is_file=is_file)
    candidate = Candidate("v1", path, files=found.readable)
    refusal = found.refusal(path)
    if refusal is None:
        return Inventory(path, candidate, warning=found.warning())
    if len(found.counts) > 1:
        return Inventory(path, refusal=refusal, ambiguous=True)
    return Inventory(path, refusal=refusal, others=(candidate,))


def lists_tensors(path: str, context: Context) -> bool:
    """Tell whether a file is a V1 checkpoint whose list names a tensor."""
    try:
        with closing(context.storage.open(path)) as source:
            table = Table.open(source, limits=context.limits)
            return bool(read_metadata(table, limits=context.limits))
    except PermissionDeniedError:
        raise
    except LimitError as error:
        # A list of too many tensors or slices is one: whoever opens it is told of the limit.
        return error.limit in ("small_tensors", "single_entries")
    except CheckpointError:
        return False


def _find_siblings(path: str, folders: Folders) -> LegacyFiles:
    """Find the files that belong to a given one, which may be one of several."""
    shard = split_legacy_path(path)
    if shard is None:
        return LegacyFiles((path,))
    prefix, _, count = shard
    files = list_shards(prefix, folders).get(count, [path])
    absent = _absent(files, prefix, folders, files[:1])
    return LegacyFiles(tuple(files), absent, count, chosen=path)


def _absent(
    files: Sequence[str], path: str, folders: Folders, one_each: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return some of the missing files that others' names imply and that match a pattern.

    Args:
        files: Those that are there.
        path: The pattern, or a prefix.
        folders: Where they are.
        one_each: One file of each set; None if it is not known which are of one set.
    """
    found = _iter_absent(set(files), path, folders, files if one_each is None else one_each)
    return tuple(islice(found, _MOST_LISTED))


def _iter_absent(
    present: Collection[str], path: str, folders: Folders, files: Iterable[str]
) -> Iterator[str]:
    name = folders.split(path)[1]
    sets = {(one[0], one[2]) for one in map(split_legacy_path, files) if one is not None}
    for prefix, count in sorted(sets):
        for number in range(min(count, _MOST_SHARDS)):
            file = legacy_path(prefix, number, count)
            if file in present:
                continue
            if not is_pattern(name) or fnmatch.fnmatch(folders.split(file)[1], name):
                yield file
