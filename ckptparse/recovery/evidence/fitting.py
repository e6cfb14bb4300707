"""Tell which of the runs that are sought begins at a place of a file, or ends there.

The checksums of all sizes from a place on are tried. Of a few small sizes they are those of the
first bytes of one stretch, one after the other. Of many they follow from the registers at the ends
(`crc.spans`): 3,000 sizes take 0.1 ms, however large they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c
from ckptparse.crc.prefixes import Prefixes
from ckptparse.crc.spans import SpanChecksums
from ckptparse.crc.windows import Wanted
from ckptparse.files.storage import Source

__all__ = ["Allowance", "Fitting"]

IntColumn = npt.NDArray[np.int64]

_FEW = 48
_SMALL = 1 << 15
"""Sizes that are tried one after the other: so many at most, of so many bytes."""
_A_PLACE, _ALL_AT_ONCE, _TOGETHER = 20, 150, 32
"""What trying a place takes, beside one for each size; what all sizes at once take beside one for
so many; see `Allowance`."""
_FREE_TRIES = 500_000
_BYTES_A_TRY = 8
"""Sizes that are tried, and for how many bytes of the files one more: each takes 0.4 µs."""
_FREE_BYTES = 1 << 24
_MOST_TRIED = 64
"""Bytes that are tried, and how many times the files that may be more; see `Prefixes.work`."""
_DENSITY = 1 << 6
_MOST_MARKS = 1 << 24
"""Marks for each checksum, and of all: of what does not fit, one in so many is looked at again."""


class Allowance:
    """How much may be tried in all files that are searched for one checkpoint."""

    __slots__ = ("_bytes", "_tries", "exceeded")

    def __init__(self) -> None:
        self._tries = _FREE_TRIES
        self._bytes = _FREE_BYTES
        self.exceeded = False
        """Whether more was asked for."""

    def add(self, size: int) -> None:
        """Allow what a file of so many bytes is worth."""
        self._tries += size // _BYTES_A_TRY
        self._bytes += _MOST_TRIED * size

    def take(self, tries: int, size: int = 0) -> bool:
        """Take some of both; tell whether so much was left."""
        self._tries -= tries
        self._bytes -= size
        self.exceeded |= self._tries < 0 or self._bytes < 0
        return not self.exceeded


class Fitting:
    """Runs that are sought, and how many there are of each.

    Attributes:
        count: How many different ones are left.
        tried: How many were compared with what is at places, in all.
    """

    def __init__(self, part: Source, wanted: Mapping[Wanted, int], allowance: Allowance) -> None:
        """Take an open file, and what is sought in it.

        Args:
            part: The file, or a member of an archive.
            wanted: The runs, and how many of each.
            allowance: How much may be tried.
        """
        self._part = part
        self._allowance = allowance
        self._left: dict[int, dict[int, int]] = {}
        for (size, crc), count in wanted.items():
            self._left.setdefault(size, {})[crc] = count
        self.count = len(wanted)
        self.tried = 0
        self._sizes = sorted(self._left)
        self._prefixes = Prefixes(part)
        self._charged = 0
        self._together: _Together | None = None

    def take(self, item: Wanted) -> None:
        """Take one out that was found."""
        crcs = self._left[item.size]
        crcs[item.crc] -= 1
        if not crcs[item.crc]:
            del crcs[item.crc]
            self.count -= 1
            if not crcs:
                self._sizes.remove(item.size)

    def give_back(self, item: Wanted) -> None:
        """Put one back that was found, and is not believed."""
        crcs = self._left[item.size]
        if not crcs:
            self._sizes.insert(bisect_right(self._sizes, item.size), item.size)
            # What was forgotten when it was the last of its size is made again.
            self._together = None
        self.count += item.crc not in crcs
        crcs[item.crc] = crcs.get(item.crc, 0) + 1

    def some(self, count: int, without: Collection[Wanted]) -> list[Wanted]:
        """Return some that are left, of sizes from everywhere."""
        left = [Wanted(size, crc) for size in self._sizes for crc in self._left[size]]
        left = [item for item in left if item not in without]
        return left[:: -(-len(left) // count) or 1]

    def beginning_at(self, start: int, room: int) -> Wanted | None:
        """Return the run of the smallest size that begins at a place, within so many bytes."""
        count = bisect_right(self._sizes, room)
        if not count:
            return None
        self.tried += self.count
        if count <= _FEW and self._sizes[count - 1] <= _SMALL:
            return self._first_of(start, self._sizes[:count])
        together = self._all_together()
        count = int(np.searchsorted(together.sizes, room, side="right"))
        if not self._take_together(count):
            return None
        return self._fitting(together, together.behind(start, count))[0]

    def ending_at(self, stop: int, room: int, *, step: int, rest: int) -> tuple[Wanted, int] | None:
        """Return the run, and its start, behind which the next one begins at a place.

        Args:
            stop: The place.
            room: How many bytes before it are not known.
            step: Runs begin at multiples of it,
            rest: some bytes on: so a few bytes may lie between a run and the place.
        """
        if not self._sizes or room < self._sizes[0]:
            return None
        together = self._all_together()
        sizes = together.sizes[: np.searchsorted(together.sizes, room, side="right")]
        starts = stop - sizes
        starts -= (starts - rest) % step
        count = int(np.count_nonzero(starts >= stop - room))
        if not count or not self._take_together(2 * count):
            return None
        self.tried += self.count
        starts = starts[:count]
        item, number = self._fitting(together, together.between(starts, starts + sizes[:count]))
        return None if item is None else (item, int(starts[number]))

    # -- few sizes

    def _first_of(self, start: int, sizes: list[int]) -> Wanted | None:
        if not self._allowance.take(_A_PLACE + len(sizes), sizes[-1]):
            return None
        window = memoryview(self._part.read_at(start, sizes[-1]))
        done = crc = 0
        for size in sizes:
            crc = crc32c(window[done:size], crc)
            done = size
            if crc in self._left[size]:
                return Wanted(size, crc)
        return None

    # -- all at once

    def _all_together(self) -> _Together:
        """Return the sizes in columns; those of which none is left are forgotten by and by."""
        if self._together is None or 2 * len(self._sizes) < len(self._together.sizes):
            self._together = _Together(self._prefixes, self._sizes, self._left)
        return self._together

    def _take_together(self, count: int) -> bool:
        """Take the work of all sizes at a place; what was read is counted a little later."""
        read = self._prefixes.work - self._charged
        self._charged += read
        return self._allowance.take(_ALL_AT_ONCE + count // _TOGETHER, read)

    def _fitting(
        self, together: _Together, crcs: npt.NDArray[np.uint32]
    ) -> tuple[Wanted | None, int]:
        """Return the first run of which the checksum is that of its size, and its number."""
        for number in together.likely(crcs):
            item = Wanted(int(together.sizes[number]), int(crcs[number]))
            if item.crc in self._left[item.size]:
                return item, number
        return None, 0


class _Together(SpanChecksums):
    """Checksums of all sizes that are sought, and marks that tell which of them may be of a run."""

    def __init__(
        self, prefixes: Prefixes, sizes: list[int], left: Mapping[int, Mapping[int, int]]
    ) -> None:
        super().__init__(prefixes, np.array(sizes, np.int64))
        crcs = np.array([crc for size in sizes for crc in left[size]], np.uint32)
        most = min(_MOST_MARKS, _DENSITY << len(crcs).bit_length())
        self._low = np.uint32(most - 1)
        self._marks = np.zeros(most, np.bool_)
        self._marks[crcs & self._low] = True

    def likely(self, crcs: npt.NDArray[np.uint32]) -> list[int]:
        """Return the numbers of the sizes of which some run may have the checksum."""
        found: list[int] = np.flatnonzero(self._marks[crcs & self._low]).tolist()
        return found
