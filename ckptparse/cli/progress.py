"""A progress bar on standard error for what takes more than a second, in a terminal only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Advance", "working"]

Advance = Callable[[int, int], None]
"""Takes how much is done, and how much there is to do."""

_DELAY = 1.0
"""Seconds before anything is shown."""
_REFRESH = 0.1
"""Seconds between two looks at how far the work is."""


@contextmanager
def working(title: str, *, quiet: bool = False) -> Iterator[Advance]:
    """Show what is being done, and how far it is, from the second second on until it is done.

    Yields:
        A function that is to be told how far the work is; until it has been, the bar pulses.
    """
    bar = _Bar(title)
    if quiet or not sys.stderr.isatty():
        yield bar.advance
        return
    watcher = threading.Thread(target=bar.show, daemon=True)
    watcher.start()
    try:
        yield bar.advance
    finally:
        bar.done.set()
        watcher.join()


class _Bar:
    """How far the work is, and a thread's view of it."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.done = threading.Event()
        self._position: tuple[int, int] | None = None

    def advance(self, done: int, total: int) -> None:
        """Note how far the work is."""
        self._position = done, total

    def show(self) -> None:
        """Draw the bar until all is done, if that takes longer than a moment."""
        if self.done.wait(_DELAY):
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(self.title, total=None)
            while not self.done.wait(_REFRESH):
                if self._position is not None:
                    done, total = self._position
                    progress.update(task, completed=done, total=total)
