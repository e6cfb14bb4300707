"""Locks that a forked child finds open, and whether the interpreter has one of its own.

A child has one thread: the one that forked. What the others of its parent held would stay locked
for ever, and whoever asks for it would hang. Nothing that these locks guard is ever half done in a
way that matters: a cache is filled or not, a list is read or not.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Hashable, Iterable
from functools import cached_property
from typing import Any, Generic, TypeVar
from weakref import WeakSet

__all__ = ["Claims", "has_lock", "make_lock", "make_reentrant_lock"]

Thing = TypeVar("Thing", bound=Hashable)

_LOCKS: WeakSet[Any] = WeakSet()


def has_lock() -> bool:
    """Tell whether the interpreter has its lock: free-threaded CPython works without."""
    ask: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return ask is None or ask()


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


class Claims(Generic[Thing]):
    """What is being done by one thread, so that others wait for it. A forked child has none."""

    def __init__(self) -> None:
        self._at_fork_reinit()
        _LOCKS.add(self)

    def claim(self, things: Iterable[Thing]) -> tuple[list[Thing], dict[Thing, threading.Event]]:
        """Return what nobody else is doing, which is claimed now, and what to wait for of the rest.

        What is claimed is given to `release` in the end.
        """
        mine: list[Thing] = []
        others: dict[Thing, threading.Event] = {}
        with self._lock:
            for one in things:
                event = self._done.get(one)
                if event is None:
                    self._done[one] = threading.Event()
                    mine.append(one)
                else:
                    others[one] = event
        return mine, others

    def release(self, things: Iterable[Thing]) -> None:
        """Let those go on that wait for things that were claimed."""
        with self._lock:
            for one in things:
                # A child that is forked in between has no claim of its parent.
                event = self._done.pop(one, None)
                if event is not None:
                    event.set()

    def _at_fork_reinit(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[Thing, threading.Event] = {}


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
