"""What is this file? One answer for any file or directory, by content and never by name alone.

Reads are bounded: the head and the tail of a file, a table's index, tags of messages, names in an
archive. A name counts only together with content: a data file has no marks of its own, so that it
takes the index beside it to know one.
"""

from __future__ import annotations

import os
import stat

from ckptparse.errors import CheckpointNotFoundError
from ckptparse.files.local import LocalSource
from ckptparse.identification.archive import find_archive
from ckptparse.identification.folder import identify_absent, identify_directory, is_leftover_name
from ckptparse.identification.identity import KINDS, Finding, Identity
from ckptparse.identification.magic import find_magic
from ckptparse.identification.sample import Sample
from ckptparse.identification.tables import find_cut_table, find_shard, find_table
from ckptparse.identification.text import find_foreign_text, find_known_text
from ckptparse.identification.wire import find_message
from ckptparse.limits import DEFAULT_LIMITS, Limits

__all__ = ["KINDS", "Identity", "identify"]

_MOST_ZEROS = 1 << 28
"""Bytes of a file of zeros that are read to be sure; of a larger one, the start and the end."""


def identify(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Identity:
    """Tell what lies at a path: a checkpoint of whatever kind, or what it is instead.

    Args:
        path: A file, a directory, or the prefix or pattern of a checkpoint's files.
        limits: Bounds on what is read and unpacked.

    Returns:
        Its kind is one of `KINDS`. Where another file decided, as the index of a prefix that is
        a Git LFS pointer, its `path` is that file.

    Raises:
        CheckpointNotFoundError: Nothing is there, by that name or by names that begin with it.
        UnsupportedError: The operating system refuses to open it.
    """
    place = os.fsdecode(path)
    try:
        mode = os.stat(place).st_mode
    except (OSError, ValueError):
        _check_link(place)
        return identify_absent(place, lambda file: _identify_file(file, limits))
    if stat.S_ISDIR(mode):
        bare = place.rstrip(os.sep) or place
        return identify_directory(bare, lambda file: _identify_file(file, limits))
    return _identify_file(place, limits)


def _identify_file(path: str, limits: Limits) -> Identity:
    if not os.path.isfile(path):
        return Identity.of(Finding("unknown", {"what": "no regular file"}), path)
    with LocalSource.open(path) as source:
        return Identity.of(_find(Sample(source, limits)), path)


def _find(sample: Sample) -> Finding:
    finding = find_foreign_text(sample)
    if finding is not None:
        return finding
    if is_leftover_name(sample.name) and sample.size:
        inner = _find_content(sample)
        known = {} if inner.kind == "unknown" else {"of": inner.kind, **inner.detail}
        return Finding("interrupted-save", known)
    return _find_shard_or_zeros(sample) or _find_content(sample)


def _find_shard_or_zeros(sample: Sample) -> Finding | None:
    shard = find_shard(sample)
    if shard is not None and "index" not in shard.detail:
        return shard
    if not sample.size:
        return Finding("empty")
    return _find_zeros(sample)


def _find_content(sample: Sample) -> Finding:
    for find in (
        find_table,
        find_archive,
        find_magic,
        find_known_text,
        find_message,
        find_cut_table,
        find_shard,
    ):
        finding = find(sample)
        if finding is not None:
            return finding
    return Finding("unknown")


def _find_zeros(sample: Sample) -> Finding | None:
    if sample.head.strip(b"\0") or sample.tail.strip(b"\0"):
        return None
    if sample.size > _MOST_ZEROS:
        sampled = len(sample.head) + len(sample.tail)
        return Finding("zeros", {"size": sample.size, "sampled_bytes": sampled})
    if any(chunk.strip(b"\0") for chunk in sample.iter_chunks()):
        return None
    return Finding("zeros", {"size": sample.size})


def _check_link(path: str) -> None:
    if os.path.islink(path):
        raise CheckpointNotFoundError(
            f"Expected a file, found a symbolic link to {os.readlink(path)!r}, where there is none",
            path=path,
        )
