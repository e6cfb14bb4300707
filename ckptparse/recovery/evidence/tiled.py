"""Find runs of bytes that lie end to end with known ones, in whatever order.

A writer that sorts tensors otherwise still puts one behind the other: with no byte between, with as
many as between others (a header), or at the next multiple of 64 or 4,096. So behind a run that is
known some other begins, and the checksums of all sizes from there on are those of the first bytes
of one stretch: one pass tries them all.

    forwards    from the end of each known run, then of each that was found
    backwards   from the start of each before which nothing is known: one pass, since the checksum
                of a stretch and that of its first part give that of the rest

A run that fits has another behind it, or it is the last one, which may be there by chance.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from itertools import pairwise

from ckptparse.coding.checksum import crc32c
from ckptparse.crc.field import multiply, power_of_x
from ckptparse.crc.windows import Wanted
from ckptparse.files.storage import Source

__all__ = ["Tiler"]

_CHECKSUMS = 2**32
_MOST_GAPS = 3
"""Numbers of bytes between runs that are tried: those that lie between known ones most often."""
_WIDEST = 1 << 12
"""Bytes of the largest of them, and the largest multiple that runs begin at."""
_LEAST_STEP = 8
"""Runs of numbers begin at multiples of 4 as it is."""
_FEW = 4
"""Runs that must begin at multiples of a step: three by chance are all at one of 64 or more once in
4,096."""
_FREE_TRIES = 50_000
_BYTES_A_TRY = 32
"""Sizes that are tried, and for how many bytes of the file one more: each takes a microsecond."""
_FREE_BYTES = 1 << 24
_MOST_TRIED = 8
"""Bytes that are tried, and how many times the file that may be more: 1 GB takes 0.3 s."""
_WINDOW = 1 << 16
"""Bytes that are read at first: most runs end within."""


class Tiler:
    """Finds what lies beside known runs.

    Attributes:
        gaps: How many bytes lie between runs, behind the next multiple of a step.
        chance: Chance that any of what was found is something else.
    """

    def __init__(
        self, part: Source, wanted: Iterable[Wanted], known: Iterable[tuple[int, int]], most: float
    ) -> None:
        """Take what is known.

        Args:
            part: The file, or a member of an archive.
            wanted: The runs that are sought.
            known: Where runs that are known begin and end.
            most: How likely it may be, at most, that any that is found is something else.
        """
        self._part = part
        self._most = most
        self.chance = 0.0
        self._left: dict[int, set[int]] = defaultdict(set)
        for item in wanted:
            self._left[item.size].add(item.crc)
        self._count = sum(map(len, self._left.values()))
        self._sizes = sorted(self._left)
        self._spans = sorted(set(known))
        self._starts = [start for start, _ in self._spans]
        self._known = set(self._starts)
        self._found: set[int] = set()
        """Where runs begin that were found."""
        self._next: set[int] = set()
        """Where others begin that lie behind these."""
        self._tries = _FREE_TRIES + part.size // _BYTES_A_TRY
        self._bytes = _FREE_BYTES + _MOST_TRIED * part.size
        self._step, self._rest = self._grid()
        self.gaps = self._usual_gaps()

    def find(self) -> Iterator[tuple[Wanted, int]]:
        """Iterate over runs and their offsets."""
        waiting = deque(self._spans)
        while waiting:
            while waiting:
                yield from self._chain(waiting.popleft()[1])
            for start, _ in list(self._spans):
                found = self._before(start)
                if found is not None and self._charge():
                    waiting.append(self._note(*found))
                    yield found

    def _chain(self, edge: int) -> Iterator[tuple[Wanted, int]]:
        """Iterate over runs one behind the other, from the end of a known one."""
        last: tuple[Wanted, int] | None = None
        while True:
            found = self._behind(edge)
            if found is None:
                break
            if last is not None:
                # Something else would have none behind it.
                yield last
            last = found
            _, edge = self._note(*found)
        closed = last is not None and any(
            self._rounded(edge) + gap in self._known for gap in self.gaps
        )
        if (closed or self._charge()) and last is not None:
            yield last

    def adjoins(self, start: int, stop: int) -> bool:
        """Tell whether a run that was found lies beside a run, with as many bytes between."""
        behind = {self._rounded(stop) + gap for gap in self.gaps}
        return start in self._next or not behind.isdisjoint(self._found)

    def prove(self, start: int, stop: int) -> None:
        """Take a run that was known from the start as one that was found."""
        self._found.add(start)
        self._next |= {self._rounded(stop) + gap for gap in self.gaps}

    # -- what lies between runs

    def _grid(self) -> tuple[int, int]:
        """Return the step at whose multiples the runs begin, some bytes on."""
        if len(self._starts) < _FEW:
            return 1, 0
        apart = math.gcd(*(after - before for before, after in pairwise(self._starts)))
        step = math.gcd(apart, _WIDEST)
        return (step, self._starts[0] % step) if step >= _LEAST_STEP else (1, 0)

    def _usual_gaps(self) -> list[int]:
        """Return how many bytes lie between runs, behind the next multiple of the step."""
        gaps = Counter(
            after - self._rounded(stop) for (_, stop), (after, _) in pairwise(self._spans)
        )
        usual = [gap for gap, _ in gaps.most_common() if 0 <= gap <= _WIDEST]
        return list(dict.fromkeys([*usual[:_MOST_GAPS], 0]))

    def _rounded(self, place: int) -> int:
        return place + (self._rest - place) % self._step

    # -- forwards

    def _behind(self, edge: int) -> tuple[Wanted, int] | None:
        """Return a run that begins behind a known one."""
        if not self._take(1):
            return None
        for gap in self.gaps:
            start = self._rounded(edge) + gap
            if start >= self._part.size or self._is_known(start):
                continue
            item = self._at(start)
            if item is not None:
                return item, start
        return None

    def _at(self, start: int) -> Wanted | None:
        """Return the run that begins there."""
        room = self._part.size - start
        number = bisect_right(self._starts, start)
        if number < len(self._starts):
            room = min(room, self._starts[number] - start)
        sizes = self._sizes[: bisect_right(self._sizes, room)]
        if not sizes or not self._take(len(sizes)):
            return None
        window, done, crc = memoryview(b""), 0, 0
        for size in sizes:
            if size > len(window):
                wide = min(sizes[-1], max(size, _WINDOW, 2 * len(window)))
                self._bytes -= wide - len(window)
                if self._bytes < 0:
                    return None
                more = self._part.read_at(start + len(window), wide - len(window))
                window = memoryview(bytes(window) + more)
            crc = crc32c(window[done:size], crc)
            done = size
            if crc in self._left[size]:
                return Wanted(size, crc)
        return None

    # -- backwards

    def _before(self, edge: int) -> tuple[Wanted, int] | None:
        """Return a run that ends before a known one, if nothing known does."""
        if not self._take(1):
            return None
        number = bisect_right(self._starts, edge - 1) - 1
        last = self._spans[number][1] if number >= 0 else 0
        for gap in self.gaps:
            room = edge - gap - last
            sizes = self._sizes[: bisect_right(self._sizes, room)]
            if not sizes or (number >= 0 and self._rounded(last) + gap >= edge):
                continue
            if not self._take(len(sizes)):
                return None
            found = (
                self._ending_at(edge - gap, sizes)
                if self._step == 1
                else self._stepping_to(edge - gap, sizes)
            )
            if found is not None:
                return found
        return None

    def _ending_at(self, stop: int, sizes: list[int]) -> tuple[Wanted, int] | None:
        """Return the run that ends there."""
        first = stop - sizes[-1]
        self._bytes -= sizes[-1]
        if self._bytes < 0:
            return None
        data = memoryview(self._part.read_at(first, sizes[-1]))
        heads, crc, done = [], 0, 0
        for size in reversed(sizes):
            crc = crc32c(data[done : len(data) - size], crc)
            done = len(data) - size
            heads.append((size, crc))
        whole = crc32c(data[done:], crc)
        for size, head in reversed(heads):
            # What stands behind is what the checksum of all has beyond that of the first part.
            own = whole ^ multiply(head, power_of_x(8 * size))
            if own in self._left[size]:
                return Wanted(size, own), stop - size
        return None

    def _stepping_to(self, stop: int, sizes: list[int]) -> tuple[Wanted, int] | None:
        """Return the run of which the next one begins there, at the next multiple of the step."""
        for size in sizes:
            start = stop - size
            start -= (start - self._rest) % self._step
            self._bytes -= size
            if start < 0 or self._bytes < 0:
                return None
            crc = crc32c(self._part.read_at(start, size))
            if crc in self._left[size]:
                return Wanted(size, crc), start
        return None

    # -- what was done

    def _is_known(self, start: int) -> bool:
        number = bisect_right(self._starts, start) - 1
        return number >= 0 and start < self._spans[number][1]

    def _note(self, item: Wanted, offset: int) -> tuple[int, int]:
        """Take a run that was found out of what is sought; return where it lies."""
        self._left[item.size].discard(item.crc)
        self._count -= 1
        if not self._left[item.size]:
            self._sizes.remove(item.size)
        span = offset, offset + item.size
        insort(self._spans, span)
        insort(self._starts, offset)
        self._known.add(offset)
        self.prove(*span)
        return span

    def _take(self, tries: int) -> bool:
        """Take the work of trying all sizes at a place from what is left."""
        self._tries -= tries
        return self._tries >= 0

    def _charge(self) -> bool:
        """Take the chance that what fits beside a known run is something else from what is left.

        Not of a run behind which another fits as well: both do by chance once in 2^64.
        """
        chance = self.chance + len(self.gaps) * (self._count + 1) / _CHECKSUMS
        if chance > self._most:
            return False
        self.chance = chance
        return True
