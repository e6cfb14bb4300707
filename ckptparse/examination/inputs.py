"""The inputs of a report: the version, the options, and the files that were read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from importlib import import_module
from typing import Any

from ckptparse.filenames import INDEX_SUFFIX, STATE_FILE_NAME, split_data_path
from ckptparse.files.noted import NotedStorage
from ckptparse.files.storage import Storage
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.parallel import PIECE_SIZE

__all__ = [
    "HashedFile",
    "describe_limits",
    "hash_files",
    "list_inputs",
    "own_version",
    "read_limits",
]


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file that was read, or written.

    Attributes:
        path: The file.
        role: What it was read as: `index`, `shard`, `v1`, `leftover`, `graph`, `fingerprint` or
            `state` of the checkpoint; `sibling`: of another checkpoint; `evidence`, `mapfile` or
            `shapes`: the caller named it; `image`: the checkpoint lies in it; `other`. Of one that
            was written: `output`.
        size: In bytes.
        sha256: SHA-256 of its bytes in hexadecimal digits; None if nobody asked.
    """

    path: str
    role: str
    size: int
    sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {"path": self.path, "role": self.role, "size": self.size, "sha256": self.sha256}


def own_version() -> str:
    """Return the version of this package."""
    return str(import_module("ckptparse").__version__)


def describe_limits(limits: Limits) -> dict[str, Any]:
    """Return the limits that differ from the defaults."""
    named = {field.name: getattr(limits, field.name) for field in fields(limits)}
    return {name: value for name, value in named.items() if value != getattr(DEFAULT_LIMITS, name)}


def read_limits(values: Mapping[str, Any]) -> Limits:
    """Return the limits that `describe_limits` told.

    Raises:
        TypeError: They are none.
    """
    if not all(type(value) is int for value in values.values()):
        raise TypeError(f"expected a number for each limit, found {dict(values)!r:.80}")
    return replace(DEFAULT_LIMITS, **values)


def list_inputs(
    noted: NotedStorage,
    roles: Mapping[str, str],
    *,
    hashes: bool = False,
) -> tuple[HashedFile, ...]:
    """List the files that have been read.

    Args:
        noted: What has noted them.
        roles: The roles that are known, by path.
        hashes: Whether each is read again, and hashed.
    """
    opened = dict(noted.opened)
    files = tuple(
        HashedFile(path, roles.get(path) or _usual_role(noted, path), size)
        for path, size in opened.items()
    )
    return hash_files(files, noted) if hashes else files


def hash_files(files: Iterable[HashedFile], storage: Storage) -> tuple[HashedFile, ...]:
    """Read files and hash them; those that have a hash already stay as they are.

    Raises:
        CheckpointError: One cannot be read any more.
    """
    return tuple(file if file.sha256 is not None else _hash_file(file, storage) for file in files)


def _hash_file(file: HashedFile, storage: Storage) -> HashedFile:
    digest = sha256()
    with closing(storage.open(file.path)) as source:
        for start in range(0, source.size, PIECE_SIZE):
            digest.update(source.read_at(start, min(PIECE_SIZE, source.size - start)))
        return replace(file, size=source.size, sha256=digest.hexdigest())


def _usual_role(storage: Storage, path: str) -> str:
    """Tell what a file is read as, by its name, that is none of the checkpoint's own."""
    name = storage.split(path)[1]
    if name == STATE_FILE_NAME:
        return "state"
    if name.endswith(INDEX_SUFFIX) or split_data_path(name) is not None:
        return "sibling"
    graphs = name.endswith((".meta", ".pb", ".pbtxt", ".cpb")) or "tfevents" in name
    return "graph" if graphs else "other"
