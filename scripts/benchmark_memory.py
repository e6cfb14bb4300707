"""Memory for the readers of the benchmark."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

import numpy as np

__all__ = ["make_buffer", "make_ready"]

HUGE_PAGE = 2 << 20


def make_buffer(size: int) -> memoryview:
    """Return a fresh buffer of huge pages, which are the quickest to get."""
    pages = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    start = -np.frombuffer(pages, np.uint8).ctypes.data % HUGE_PAGE
    return memoryview(pages)[start : start + size]


def make_ready(size: int) -> None:
    """Touch memory, at most a quarter of the machine's, and give it back."""
    if not size:
        return
    size = min(size, os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 4)
    with (
        suppress(OSError),  # Where there is no such memory, or no huge pages, others are measured.
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory,
    ):
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1
