"""A sign of life on standard error for what takes more than a second, in a terminal only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["working"]

_DELAY = 1.0
"""Seconds before anything is shown."""


@contextmanager
def working(title: str, *, quiet: bool = False) -> Iterator[None]:
    """Show what is being done, and for how long, from the second second on until it is done."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_show, args=(title, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _show(title: str, done: threading.Event) -> None:
    if done.wait(_DELAY):
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(title, total=None)
        done.wait()
