"""What one call of a public function works with, made where it begins and handed down."""

from __future__ import annotations

from collections.abc import Callable
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
