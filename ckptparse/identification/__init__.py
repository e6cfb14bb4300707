"""What is this file? One answer for any file, by content and never by name alone.

Reads are bounded: the head and the tail of a file, a table's index, tags of messages, names in an
archive. A name counts only together with content: a data file has no marks of its own, so that it
takes the index beside it to know one. What directories and prefixes are, `inventory.identify` says.
"""

from __future__ import annotations

from ckptparse.filenames import strip_temporary
from ckptparse.files.context import Context
from ckptparse.identification.archive import find_archive
from ckptparse.identification.identity import KINDS, Finding, Identity
from ckptparse.identification.magic import find_magic
from ckptparse.identification.sample import Indexes, Sample
from ckptparse.identification.stand_ins import find_stand_in
from ckptparse.identification.tables import find_cut_table, find_shard, find_table
from ckptparse.identification.text import find_foreign_text, find_known_text
from ckptparse.identification.wire import find_message, find_named_message

__all__ = ["KINDS", "Identity", "Indexes", "identify_file"]

_MOST_ZEROS = 1 << 28
"""Bytes of a file of zeros that are read to be sure; of a larger one, the start and the end."""


def identify_file(path: str, context: Context, indexes: Indexes | None = None) -> Identity:
    """Tell what a file is.

    Args:
        path, context: The file.
        indexes: What was read of indexes, if many data files of one are identified.

    Raises:
        CheckpointNotFoundError: It is not there.
        PermissionDeniedError: It may not be read.
        UnsupportedError: The operating system refuses to open it.
    """
    status = context.storage.stat(path)
    if status is not None and status.kind in ("directory", "other"):
        return Identity.of(Finding("unknown", {"what": "not a regular file"}), path)
    source = context.storage.open(path)
    try:
        return Identity.of(_find(Sample(source, context, indexes)), path)
    finally:
        source.close()


def _find(sample: Sample) -> Finding:
    finding = find_foreign_text(sample) or find_stand_in(sample)
    if finding is not None:
        return finding
    if strip_temporary(sample.name) is not None and sample.size:
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
        find_named_message,
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
