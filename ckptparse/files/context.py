"""What one call of a public function works with, made where it begins and handed down."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

from ckptparse.files.local import LOCAL
from ckptparse.files.storage import Content, Storage
from ckptparse.limits import DEFAULT_LIMITS, Limits

__all__ = ["Context", "Progress", "Store", "begin", "find_storage"]

Progress = Callable[[int, int], None]
"""Called now and then with the bytes read so far, and the bytes to read."""

Store = Storage | Mapping[str, Content] | None
"""Where paths lead: a `Storage`, or names with their bytes or file objects. None: this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where files lie, how much they may ask for, and who is told how far the work has come."""

    storage: Storage = LOCAL
    limits: Limits = DEFAULT_LIMITS
    progress: Progress | None = None

    def read_whole(self, path: str, limit: str, what: str) -> bytes:
        """Read a file that is small, or too large for a limit.

        Args:
            path: The file.
            limit: The field of `Limits` that bounds its size.
            what: What is bounded, for the error: `The size of the index`.

        Raises:
            CheckpointNotFoundError: Nothing is there.
            LimitError: It is larger.
        """
        with closing(self.storage.open(path)) as source:
            self.limits.check(limit, source.size, what, path=path)
            return source.read_at(0, source.size)


def begin(
    path: str | os.PathLike[str],
    *,
    store: Store = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> tuple[str, Context]:
    """Begin a call of a public function: return the path as text, and the context of the call.

    Raises:
        TypeError: An argument is of another type: `limits=3`, a list for a path.
    """
    if not isinstance(limits, Limits):
        raise TypeError(
            f"limits is a ckptparse.Limits, such as Limits(entries=1000), "
            f"not {type(limits).__name__}"
        )
    if progress is not None and not callable(progress):
        raise TypeError(f"progress is a function, not {type(progress).__name__}")
    text = os.fsdecode(path)
    return text, Context(storage=find_storage(store), limits=limits, progress=progress)


def find_storage(store: Store) -> Storage:
    """Return the storage that a caller means.

    Raises:
        TypeError: It is none.
    """
    if store is None:
        return LOCAL
    if isinstance(store, Mapping):
        from ckptparse.files.memory import MemoryStorage

        return MemoryStorage(store)
    if all(callable(getattr(store, name, None)) for name in _METHODS):
        return store
    raise TypeError(
        f"store is a ckptparse.Storage, or a mapping of names to bytes or file objects, "
        f"not {type(store).__name__}"
    )


_METHODS = ("open", "stat", "list", "join", "split", "real")
