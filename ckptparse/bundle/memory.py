"""Fresh memory for arrays. Getting it takes most of the time of a large read.

Measured on 1 GiB with checksums and two threads: huge pages take 84 ms, ordinary pages 246 ms, and
64 numpy arrays 110 ms. (numpy asks for huge pages too, but its arrays begin in the middle of one.)

A virtual machine may give unused memory back to its host. It pays 2.2 processor seconds for each
GiB that it needs again: then huge pages take 1.3 s, and ordinary pages 0.3 s, since their shorter
runs are not given back. So each part of a buffer asks for huge pages only while the first one of a
part comes quickly. This takes 0.33 s there, and costs nothing elsewhere.

The size of the buffers, from 16 MiB to 1 GiB, makes no difference; nor does that of pieces, from
256 KiB to 1 MiB. The checksums are a tenth of the time.
"""

from __future__ import annotations

import mmap
import time
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Buffer", "HugePages"]

_HUGE_PAGE = 2 << 20
"""Bytes of a huge page on x86-64 and ARM64 with pages of 4 KiB."""
_ADVICE: Any = getattr(mmap, "MADV_HUGEPAGE", None)
_NO_ADVICE: Any = getattr(mmap, "MADV_NOHUGEPAGE", None)
_QUICK = 0.001
"""Seconds. A huge page takes 0.2 ms if the machine has it, and 4 ms if the host must give it."""
_MOST_SLOW = 2
"""Slow huge pages after which no more are asked for: one alone may be an interruption."""
_QUICK_FOR_SLOW = 4
"""Quick ones that make up for a slow one. If there are more threads than processors, some are
interrupted in the middle of a page."""


class HugePages:
    """Remembers whether huge pages came quickly; the threads of one read share it."""

    def __init__(self) -> None:
        self._slow = self._quick = 0

    @property
    def wanted(self) -> bool:
        """Whether to ask for more."""
        return self._slow < _MOST_SLOW + self._quick // _QUICK_FOR_SLOW

    def note(self, seconds: float) -> bool:
        """Remember how long one took; return whether it was quick."""
        quick = seconds < _QUICK
        self._slow += not quick
        self._quick += quick
        return quick


class Buffer:
    """A writable buffer that is filled part by part.

    Attributes:
        array: Its bytes. A view of it keeps the whole buffer alive.
    """

    def __init__(self, size: int) -> None:
        """Make a buffer of `size` bytes.

        Raises:
            MemoryError: There is not enough memory.
        """
        self._pages: mmap.mmap | None = None
        if _ADVICE is None or _NO_ADVICE is None or size < _HUGE_PAGE:
            self.array: npt.NDArray[np.uint8] = np.empty(size, np.uint8)
            return
        try:
            # Private: memory shared with other processes never has huge pages.
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            self._pages = mmap.mmap(-1, size + _HUGE_PAGE, flags=flags)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryError(f"no {size} bytes of memory: {error}") from error
        whole = np.frombuffer(self._pages, np.uint8)
        self._start = -whole.ctypes.data % _HUGE_PAGE
        self._end = (len(whole) - self._start) // _HUGE_PAGE * _HUGE_PAGE
        self.array = whole[self._start : self._start + size]

    def prepare(self, start: int, stop: int, huge_pages: HugePages) -> None:
        """Ask for huge pages for a part that was not used yet, while they come quickly.

        The last one may reach beyond the part, if at least half of it is needed.
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
