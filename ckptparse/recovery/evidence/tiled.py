"""Find runs of bytes that lie end to end with known ones, in whatever order.

A writer that sorts tensors otherwise still puts one behind the other: with no byte between, with as
many as between others (a header), or at the next multiple of 64 or 4,096. So behind a run that is
known some other begins, and all that are sought are tried there at once (`fitting`).

    forwards    from the start of the file, and from the end of each known run
    backwards   from the start of each before which nothing is known

What fits by chance has nothing behind it: a run is believed if the next one fits as well, or if it
ends where a known one begins, or the file ends. Each place that was tried adds to the chance, and
so does each run that is believed without such a next one.

Runs of a few bytes (steps, flags) prove nothing, and are passed over if one that does lies behind
them. So are zeros: they may be any number of runs.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.search import Registers
from ckptparse.crc.windows import Wanted
from ckptparse.files.storage import Source
from ckptparse.recovery.evidence.fitting import Allowance, Fitting

__all__ = ["Tiler"]

_Run = tuple[Wanted, int]

_CHECKSUMS = 2**32
_MOST_GAPS = 3
"""Numbers of bytes between runs that are tried: those that lie between known ones most often."""
_WIDEST = 1 << 12
"""Bytes of the largest of them, and the largest multiple that runs begin at."""
_STEPS = (8, 16, 32, 64, 256, 4096)
"""Multiples at which runs may begin, if what is known does not tell."""
_LEAST_STEP = 8
"""Runs of numbers begin at multiples of 4 as it is."""
_FEW = 4
"""Runs that must begin at multiples of a step: three by chance are all at one of 64 or more once in
4,096."""
_TELLING = 16
"""Bytes of the smallest run that proves something: smaller ones are equal again and again."""
_LEAST_NAMED = 5
"""Bytes of the smallest run that is told of: smaller ones follow from their checksums."""
_MOST_PASSED = 32
"""Places behind runs of a few bytes, or zeros, that are tried for what lies behind one edge."""
_SOUGHT, _MOST_SEARCHED = 16, 1 << 27
"""Runs that are sought at once wherever nothing is known, and bytes of the largest such stretch."""
_SEARCH, _BYTES_A_TRY = 2500, 32
"""What a search takes of an `Allowance`, and for how many bytes one more."""
_WORD = 4
_ZEROS = 1 << 16
_MOST_ZEROS = 1 << 24
"""Zeros that are read at once, and that are passed over at most."""
_OWN_ZEROS = 16
"""Bytes of zeros that the run behind others may begin with."""


class Tiler:
    """Finds what lies beside known runs.

    Attributes:
        chance: Chance that any of what was found is something else.
        gaps: How many bytes lie between runs, behind the next multiple of a step.
    """

    def __init__(
        self,
        part: Source,
        wanted: Mapping[Wanted, int],
        known: Iterable[tuple[int, int]],
        most: float,
        *,
        allowance: Allowance | None = None,
        edges: Iterable[int] = (),
    ) -> None:
        """Take what is known.

        Args:
            part: The file, or a member of an archive.
            wanted: The runs that are sought, and how many of each.
            known: Where runs that are known begin and end.
            most: How likely it may be, at most, that any that is found is something else.
            allowance: How much may be tried; None: what a file of that size is worth.
            edges: Where others may begin.
        """
        if allowance is None:
            allowance = Allowance()
            allowance.add(part.size)
        self.chance = 0.0
        self._part = part
        self._most = most
        self._allowance = allowance
        telling = {item: n for item, n in wanted.items() if item.size >= _TELLING}
        zeros = {size: crc_of_zeros(size) for size in {size for size, _ in telling}}
        telling = {item: n for item, n in telling.items() if zeros[item.size] != item.crc}
        self._fitting = Fitting(part, telling, allowance)
        self._small = {item: n for item, n in wanted.items() if 0 < item.size < _TELLING}
        self._small_sizes = sorted({size for size, _ in self._small}, reverse=True)
        self._width = math.gcd(_WORD, *(size for size, _ in wanted))
        self._spans = sorted({one for one in known if one[0] < one[1] <= part.size})
        self._starts = [start for start, _ in self._spans]
        self._edges = sorted({0, *edges, *(stop for _, stop in self._spans)})
        self._known = {*self._starts, part.size}
        self._found: set[int] = set()
        """Where runs begin that were found."""
        self._next: set[int] = set()
        """Where others begin that lie behind these."""
        self._sought: set[Wanted] = set()
        """What was sought everywhere."""
        self._left = 0
        """How many places may still be tried behind runs of a few bytes."""
        self._step, self._rest = self._grid()
        self.gaps = self._usual_gaps()

    def find(self) -> Iterator[_Run]:
        """Iterate over runs and their offsets."""
        edges, likely = self._edges, 0.0
        while edges:
            for edge in edges:
                yield from self._chain(edge, self._behind, self._ends_where_one_begins, likely)
            self._step, self._rest = self._grid()
            self.gaps = self._usual_gaps()
            for start in list(self._starts):
                yield from self._chain(start, self._before, self._begins_where_one_ends)
            edges, likely = self._search()

    def _chain(
        self,
        edge: int,
        find: Callable[[int], list[_Run]],
        is_closed: Callable[[_Run], bool],
        likely: float = 0.0,
    ) -> Iterator[_Run]:
        """Iterate over runs one beside the other, from the edge of a known one.

        Args:
            edge: Where that ends, or begins.
            find: Finds the next ones from an edge on, the one that proves something last.
            is_closed: Tells whether what lies beside a run is known.
            likely: How many runs fit by chance at all places of which the edge was chosen.
        """
        last: list[_Run] = []
        before = 0.0
        while True:
            done = self._fitting.tried
            group = find(edge)
            chance = (self._fitting.tried - done) / _CHECKSUMS
            # Something else would have none beside it.
            if not group or (last and not self._charge(before * chance)):
                break
            yield from self._believed(last)
            last, before = group, chance if last else max(chance, likely)
            for item, _ in group:
                self._take(item)
            (size, _), start = group[-1]
            edge = start + size if find == self._behind else start
        if not last:
            # It might have been believed alone.
            self._charge(chance)
        elif self._charge(before * (self._density if is_closed(last[-1]) else 1)):
            yield from self._believed(last)
        else:
            for item, _ in last:
                self._give_back(item)

    def _search(self) -> tuple[list[int], float]:
        """Return where some of the runs that are left lie, if any were in another order.

        Damage is passed over so. It is also told how many lie there by chance.
        """
        chosen = self._fitting.some(_SOUGHT, self._sought) if self._found else []
        edges, places = list[int](), 0
        least = min((item.size for item in chosen), default=0)
        stops = [0, *(stop for _, stop in self._spans)]
        for start, stop in zip(stops, [*self._starts, self._part.size], strict=True):
            size = stop - start
            if not chosen or size < least:
                continue
            if size > _MOST_SEARCHED or not self._allowance.take(_SEARCH + size // _BYTES_A_TRY):
                break
            data = memoryview(self._part.read_at(start, size))
            for residue in range(0, _WORD, self._width):
                fitting = Registers(data[residue:]).find_each(chosen)
                edges += [start + residue + at for found in fitting.values() for at in found[:1]]
                places += size // _WORD
        self._sought.update(chosen)
        return sorted(edges), places * len(chosen) / _CHECKSUMS

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

    def _places(self, edge: int) -> list[int]:
        """Return where a run begins that lies behind an edge, as far as is known."""
        start = self._rounded(edge)
        return [start + gap for gap in self.gaps]

    def _others(self, edge: int) -> Iterator[int]:
        """Iterate over where else it may begin, if nothing tells at which multiples runs do."""
        if self._step == 1:
            known = {edge, *self._places(edge)}
            for step in _STEPS:
                start = edge + -edge % step
                if start not in known:
                    known.add(start)
                    yield start

    # -- forwards

    def _behind(self, edge: int) -> list[_Run]:
        """Return the run that begins behind an edge, and any of a few bytes before it."""
        if not self._known.isdisjoint(self._places(edge)):
            return []
        self._left = _MOST_PASSED
        return self._from(edge)

    def _from(self, edge: int) -> list[_Run]:
        found = self._first_at(self._places(edge))
        if found is not None:
            return [found]
        self._left -= 1
        if self._left < 0:
            return []
        behind = self._behind_small(edge)
        if behind:
            return behind
        found = self._first_at(self._others(edge))
        return self._behind_zeros(self._rounded(edge)) if found is None else [found]

    def _first_at(self, places: Iterable[int]) -> _Run | None:
        return next(filter(None, map(self._at, places)), None)

    def _at(self, start: int) -> _Run | None:
        """Return the run that begins there."""
        number = bisect_right(self._starts, start)
        if number and start < self._spans[number - 1][1]:
            return None
        stop = self._starts[number] if number < len(self._starts) else self._part.size
        if stop <= start:
            return None
        item = self._fitting.beginning_at(start, stop - start)
        return None if item is None else (item, start)

    def _behind_small(self, edge: int) -> list[_Run]:
        """Return the next run behind some of a few bytes, with these; nothing if there is none."""
        start = self._rounded(edge)
        if not self._small_sizes or not self._allowance.take(1):
            return []
        data = memoryview(self._part.read_at(start, min(_TELLING, max(0, self._part.size - start))))
        for size in self._small_sizes:
            item = Wanted(size, crc32c(data[:size]))
            if size > len(data) or not self._small.get(item):
                continue
            self._take(item)
            rest = self._from(start + size)
            self._give_back(item)
            if rest:
                return [(item, start), *rest]
        return []

    def _behind_zeros(self, start: int) -> list[_Run]:
        """Return what lies behind zeros; it may begin with a few of its own."""
        zeros = self._count_zeros(start)
        zeros -= zeros % self._width
        for own in range(0, min(zeros, _OWN_ZEROS), self._width):
            place = start + zeros - own
            found = self._at(place)
            behind = self._behind_small(place) if found is None else [found]
            if behind:
                return behind
        return []

    def _count_zeros(self, start: int) -> int:
        zeros = 0
        while zeros < _MOST_ZEROS:
            size = min(_ZEROS if zeros else _TELLING, self._part.size - start - zeros)
            if size <= 0 or not self._allowance.take(1 + size // _ZEROS, size):
                break
            left = len(self._part.read_at(start + zeros, size).lstrip(b"\0"))
            zeros += size - left
            if left:
                break
        return zeros

    def _ends_where_one_begins(self, run: _Run) -> bool:
        item, start = run
        return not self._known.isdisjoint(self._places(start + item.size))

    # -- backwards

    def _before(self, edge: int) -> list[_Run]:
        """Return the run that ends before an edge, if nothing known does."""
        number = bisect_right(self._starts, edge - 1) - 1
        last = self._spans[number][1] if number >= 0 else 0
        for gap in self.gaps:
            if last and self._rounded(last) + gap >= edge:
                continue
            found = self._fitting.ending_at(
                edge - gap, edge - gap - last, step=self._step, rest=self._rest
            )
            if found is not None:
                return [found]
        return []

    def _begins_where_one_ends(self, run: _Run) -> bool:
        start = run[1]
        number = bisect_right(self._starts, start - 1) - 1
        return number >= 0 and start in self._places(self._spans[number][1])

    # -- what was done

    def _take(self, item: Wanted) -> None:
        if item.size < _TELLING:
            self._small[item] -= 1
        else:
            self._fitting.take(item)

    def _give_back(self, item: Wanted) -> None:
        if item.size < _TELLING:
            self._small[item] += 1
        else:
            self._fitting.give_back(item)

    def _believed(self, runs: Iterable[_Run]) -> Iterator[_Run]:
        """Take runs as known; iterate over those that are told of."""
        for item, start in runs:
            span = start, start + item.size
            insort(self._spans, span)
            insort(self._starts, start)
            self._known.add(start)
            self.prove(*span)
            if item.size >= _LEAST_NAMED:
                yield item, start

    @property
    def _density(self) -> float:
        """How likely it is that by chance a run ends where a known one begins."""
        return min(1.0, 2 * len(self.gaps) * len(self._known) / max(1, self._part.size))

    def _charge(self, chance: float) -> bool:
        """Take the chance that what fits beside a run is something else from what is left."""
        if self.chance + chance > self._most:
            return False
        self.chance += chance
        return True
