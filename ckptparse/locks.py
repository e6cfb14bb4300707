"""Locks that a forked child finds open.

A child has one thread: the one that forked. What the others of its parent held would stay locked
for ever, and whoever asks for it would hang. Nothing that these locks guard is ever half done in a
way that matters: a cache is filled or not, a list is read or not.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import cached_property
from typing import Any
from weakref import WeakSet

__all__ = ["make_lock", "make_reentrant_lock"]

_LOCKS: WeakSet[Any] = WeakSet()


def make_lock() -> threading.Lock:
    """Make a lock that is open in every child that is forked."""
    lock = threading.Lock()
    _LOCKS.add(lock)
    return lock


def make_reentrant_lock() -> threading.RLock:
    """Make a lock that its holder may take again, and that is open in every forked child."""
    lock = threading.RLock()
    _LOCKS.add(lock)
    return lock


def _open_all() -> None:
    for lock in (*_LOCKS, *_property_locks()):
        # As the standard library does with its own after a fork.
        lock._at_fork_reinit()  # noqa: SLF001


def _property_locks() -> list[Any]:
    """Find the locks of this package's cached properties, which have some until Python 3.11."""
    found: list[Any] = []
    if sys.version_info < (3, 12):
        modules = [
            module
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] == __package__
        ]
        owners = [one for module in modules for one in vars(module).values()]
        for owner in filter(lambda one: isinstance(one, type), owners):
            properties = (one for one in vars(owner).values() if isinstance(one, cached_property))
            found += [vars(one)["lock"] for one in properties]
    return found


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
