"""Fresh memory for arrays: what a large read mostly costs.

Measured on 1 GiB with checksums, two threads: huge pages 84 ms, ordinary ones 246, 64 arrays of
numpy's own 110 (it asks for huge pages too, but its arrays begin in the middle of one).

A virtual machine may hand memory that nobody uses back to its host, and pays 2.2 processor seconds
for each GiB that it wants again: huge pages then take 1.3 s, ordinary ones 0.3, since those lie in
shorter runs, which are not handed back. So each part of a buffer asks for huge pages as long as the
first one of a part comes quickly: 0.33 s there, and nothing lost elsewhere.

The size of the buffers, from 16 MiB to 1 GiB, changes nothing; pieces from 256 KiB to 1 MiB are
alike. The checksums, taken while a piece is in the processor's cache, are a tenth of it all.
"""

from __future__ import annotations

import mmap
import time
from contextlib import suppress

import numpy as np
import numpy.typing as npt

__all__ = ["Buffer", "HugePages"]

_HUGE_PAGE = 2 << 20
_ADVICE: int = getattr(mmap, "MADV_HUGEPAGE", -1)
_NO_ADVICE: int = getattr(mmap, "MADV_NOHUGEPAGE", -1)
_QUICK = 0.001
"""Seconds: a huge page that is at hand takes 0.2 ms, one that is not takes 4 ms."""
_MOST_SLOW = 2


class HugePages:
    """Whether huge pages have come quickly so far; shared by the threads of one read."""

    def __init__(self) -> None:
        self._slow = 0

    @property
    def wanted(self) -> bool:
        """Whether to ask for more."""
        return self._slow < _MOST_SLOW

    def note(self, seconds: float) -> bool:
        """Take note of how long one took; return whether that was quick."""
        quick = seconds < _QUICK
        self._slow += not quick
        return quick


class Buffer:
    """A writable buffer, to be filled part by part.

    Attributes:
        array: Its bytes. Whatever views it keeps the whole alive.
    """

    def __init__(self, size: int) -> None:
        """Make a buffer of `size` bytes.

        Raises:
            MemoryError: There is no such memory.
        """
        self._pages: mmap.mmap | None = None
        if _ADVICE < 0 or _NO_ADVICE < 0 or size < _HUGE_PAGE:
            self.array: npt.NDArray[np.uint8] = np.empty(size, np.uint8)
            return
        try:
            # Private, since memory shared with other processes never has huge pages.
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            self._pages = mmap.mmap(-1, size + _HUGE_PAGE, flags=flags)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryError(f"no {size} bytes of memory: {error}") from error
        whole = np.frombuffer(self._pages, np.uint8)
        self._start = -whole.ctypes.data % _HUGE_PAGE
        self._end = (len(whole) - self._start) // _HUGE_PAGE * _HUGE_PAGE
        self.array = whole[self._start : self._start + size]

    def prepare(self, start: int, stop: int, huge_pages: HugePages) -> None:
        """Ask for huge pages for a part that is still unused, as long as they come quickly.

        The last one may reach beyond the part, where at least half of it is needed.
        """
        if self._pages is None or not huge_pages.wanted:
            return
        low = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        high = min((stop + _HUGE_PAGE // 2) // _HUGE_PAGE * _HUGE_PAGE, self._end)
        if low >= high:
            return
        where = self._start + low, high - low
        with suppress(OSError):  # A kernel without huge pages gives ordinary ones.
            self._pages.madvise(_ADVICE, *where)
            started = time.perf_counter()
            self.array[low] = 0
            if not huge_pages.note(time.perf_counter() - started):
                self._pages.madvise(_NO_ADVICE, *where)
