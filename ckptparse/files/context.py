"""What one call of a public function works with, made where it begins and handed down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from ckptparse.files.local import LOCAL
from ckptparse.files.storage import Storage
from ckptparse.limits import DEFAULT_LIMITS, Limits

__all__ = ["Context", "Progress"]

Progress = Callable[[int, int], None]
"""Called now and then with the bytes read so far, and the bytes to read."""


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
