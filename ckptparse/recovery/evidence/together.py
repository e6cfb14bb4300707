"""Find runs of bytes in large files whose structure is not known: two that lie together.

One checksum that agrees proves nothing there: of the places in 17 MB, one agrees by chance 1 in
1,000. Two runs prove each other if both lie equally far from their places in the data file, or one
beside the other with few bytes between. From there on, the others are sought where they then must
be.

    search   some of the lost runs and their neighbours, at every multiple of 4; a few between these
    prove    two at one distance, or beside each other
    extend   all lost ones at these distances; then from each to the next, with few bytes between
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from ckptparse.crc.near import find_near
from ckptparse.crc.windows import Wanted
from ckptparse.files.storage import Source
from ckptparse.parallel import stream_crc
from ckptparse.recovery.evidence.fitting import Allowance
from ckptparse.recovery.evidence.payloads import LARGEST, SMALLEST, Match, iter_pieces
from ckptparse.recovery.evidence.sought import Runs
from ckptparse.recovery.evidence.tiled import Tiler
from ckptparse.recovery.workers import CALLER, Workers

__all__ = ["find_together"]

_MOST_PROBES = 64
"""Runs that are sought anywhere: for each size, a pass over the file takes 0.2 s for 1 GB. The more
there are, the nearer two must lie to prove each other."""
_MOST_BETWEEN = 24
"""Those that are sought between multiples of 4, too: three passes, and one more if some fit."""
_MOST_HITS = 64
"""Places at which one run is taken: what repeats in the file fits again and again."""
_MOST_BESIDE = 8
"""Runs behind one that are looked at as its neighbours."""
_WIDEST = 1 << 12
"""Bytes between two runs that prove each other at most: a name and a shape, or the rest of a page.
The more runs are sought, the nearer they must lie."""
_MOST_DISTANCES = 16
_FEWEST = 2
"""Distances at which the others are tried, and runs that lie at such a one."""
_NEAR = 1 << 9
"""Bytes between a run that is known and the next one."""
_PAGE, _ON_GRID = 1 << 12, 4
"""Bytes of a page, and how many runs at multiples of it (or of 4) tell that runs begin so."""
_WAYS = (1, -1, 2, -2, 3, -3)
"""How many further in the data file the next one may be: a writer may sort the tensors otherwise,
a kernel before its bias."""
_NEAREST = 2
_WORD = 4
_CHECKSUMS = 2**32
_FREE_TRIES = 10_000
_BYTES_A_TRY = 1 << 10
"""Places at which one run is tried, and for how many bytes of the file one more: each takes ten
microseconds."""
_MOST_GAPS = 4
"""Numbers of bytes between runs that are tried before a stretch is searched: headers repeat."""
_FREE_WINDOWS = 1_000
_BYTES_A_WINDOW = 1 << 15
"""Stretches that are searched for one run, likewise: each takes half a millisecond."""
_FREE_BYTES = 1 << 28
_MOST_TRIED = 16
"""Bytes that are tried, and how many times the file that may be more: 1 GB takes 0.3 s."""


class _Hit(NamedTuple):
    """A run, and where it may lie."""

    offset: int
    file: int
    """Of which data file it is,"""
    number: int
    """and which of its runs."""


class _Gaps(NamedTuple):
    """How many bytes may lie between two runs that prove each other."""

    any_two: int
    neighbours: int
    """If one is the next in the data file, too."""


def find_together(
    part: Source,
    files: Sequence[Runs],
    found: Collection[Wanted],
    *,
    chance: float,
    path: str | None = None,
    workers: Workers = CALLER,
    allowance: Allowance | None = None,
) -> Iterator[Match]:
    """Find lost runs that lie together in a file, each once.

    Args:
        part: The file, or a member of an archive.
        files: The runs of each data file.
        found: What need not be found.
        chance: How likely it may be, at most, that any of them are other bytes.
        path: By which workers find the file; None if they cannot.
        workers: Who searches.
        allowance: How much may be tried beside known runs, in this and in other files; None: what
            the file is worth.
    """
    if allowance is None:
        allowance = Allowance()
    allowance.add(part.size)
    finder = _Finder(part, files, allowance, found=found, chance=chance, path=path, workers=workers)
    return finder.find()


class _Finder:
    """Finds the runs in one file."""

    def __init__(
        self,
        part: Source,
        files: Sequence[Runs],
        allowance: Allowance,
        *,
        found: Collection[Wanted],
        chance: float,
        path: str | None,
        workers: Workers,
    ) -> None:
        self._part = part
        self._files = files
        self._found = set(found)
        self._most = chance
        self._path = path
        self._workers = workers
        self._allowance = allowance
        self._all_hits: list[_Hit] = []
        """Where runs fit, by chance or not."""
        self._chance = 0.0
        """Of all that was done so far."""
        self._tries = _FREE_TRIES + part.size // _BYTES_A_TRY
        self._windows = _FREE_WINDOWS + part.size // _BYTES_A_WINDOW
        self._gaps: list[int] = []
        self._bytes = _FREE_BYTES + _MOST_TRIED * part.size

    def find(self) -> Iterator[Match]:
        """Iterate over lost runs and where they are."""
        probes = self._choose()
        if len(probes) < 2:
            return
        anchors: dict[tuple[int, int], int] = {}
        proven = self._proven(probes)
        for hit in [*proven, *self._on_grid(sum(map(len, probes.values())))]:
            anchors.setdefault((hit.file, hit.number), hit.offset)
        known = iter(list(anchors.items()))
        for (file, number), offset in chain(known, self._at_distances(anchors), self._on(anchors)):
            item = self._files[file].wanted(number)
            if self._files[file].lost[number] and item not in self._found:
                self._found.add(item)
                yield Match(item, self._part, offset, self._chance)
        spans = (self._span(offset, *one) for one, offset in anchors.items())
        yield from self._end_to_end(self._tiler(list(spans)))
        yield from self._beside_open(anchors)

    # -- search

    def _choose(self) -> dict[Wanted, list[tuple[int, int]]]:
        """Choose what is sought: lost runs, all or some from everywhere; then their neighbours."""
        lost: list[tuple[int, int]] = []
        telling = []
        for file, runs in enumerate(self._files):
            fits = runs.telling & (runs.sizes >= SMALLEST)
            fits &= runs.sizes <= min(self._part.size, LARGEST)
            telling.append(fits)
            lost += [(file, number) for number in np.flatnonzero(fits & runs.lost).tolist()]
        lost = [one for one in lost if self._files[one[0]].wanted(one[1]) not in self._found]
        if len(lost) > _MOST_PROBES:
            lost = lost[:: -(-2 * len(lost) // _MOST_PROBES)]
        pairs = ((file, number + step) for file, number in lost for step in (0, 1))
        before = ((file, number - 1) for file, number in lost)
        found: dict[Wanted, list[tuple[int, int]]] = {}
        for file, number in chain(pairs, before):
            if 0 <= number < len(telling[file]) and telling[file][number]:
                item = self._files[file].wanted(number)
                if item in found or len(found) < _MOST_PROBES:
                    found.setdefault(item, []).append((file, number))
        return {item: list(dict.fromkeys(places)) for item, places in found.items()}

    def _proven(self, probes: Mapping[Wanted, list[tuple[int, int]]]) -> list[_Hit]:
        """Return what proves each other of the runs that fit anywhere."""
        # Between multiples of 4 fewer are sought: the bounds hold all the more.
        count = sum(map(len, probes.values()))
        one = self._part.size / _CHECKSUMS**2 + 2 / _CHECKSUMS
        # Any two at one distance, or any two beside each other, or a run and the next or the last.
        any_two, neighbours = count**2 * one, 2 * count * one
        widest = _Gaps(
            min(_WIDEST, int(self._most / 4 / any_two) - 1),
            min(_WIDEST, int(self._most / 4 / neighbours)),
        )
        if widest.any_two < 0:
            return []
        self._chance += (widest.any_two + 1) * any_two + widest.neighbours * neighbours
        hits = self._all_hits
        hits += self._hits(probes, list(probes), (0,))
        proven = _prove(hits, self._files, widest)
        if len({(hit.file, hit.number) for hit in proven}) < count:
            few = _pairs(list(probes))
            for remainder in range(1, _WORD):
                fitting = self._hits(probes, few, (remainder,))
                hits += fitting
                if len(few) < len(probes) and len(fitting) >= _ON_GRID:
                    others = [item for item in probes if item not in set(few)]
                    hits += self._hits(probes, others, (remainder,))
            proven = _prove(hits, self._files, widest)
        return proven

    def _hits(
        self,
        probes: Mapping[Wanted, list[tuple[int, int]]],
        chosen: Iterable[Wanted],
        remainders: Sequence[int],
    ) -> list[_Hit]:
        """Return where some of the runs fit, some bytes behind multiples of 4."""
        left: dict[int, set[int]] = defaultdict(set)
        for item in chosen:
            left[item.size].add(item.crc)
        counts: Counter[Wanted] = Counter()
        hits = []
        pieces = iter_pieces(self._part, list(left), left, remainders)
        for piece, found in self._workers.search(self._part, pieces, path=self._path):
            for (_, item), offsets in found.items():
                taken = offsets[: _MOST_HITS - counts[item]]
                counts[item] += len(taken)
                hits += [
                    _Hit(piece.start + offset, *place) for offset in taken for place in probes[item]
                ]
        return hits

    # -- extend

    def _tiler(self, spans: Sequence[tuple[int, int]]) -> Tiler:
        """Prepare the search for what lies beside some runs."""
        left = Counter(
            item for runs in self._files for item in runs.lost_ones() if item not in self._found
        )
        most = (self._most - self._chance) / 2
        return Tiler(self._part, left, spans, most, allowance=self._allowance)

    def _end_to_end(self, tiler: Tiler) -> Iterator[Match]:
        """Iterate over what lies beside some runs in another order than in the data file."""
        for item, offset in tiler.find():
            self._found.add(item)
            yield Match(item, self._part, offset, self._chance + tiler.chance)
        self._chance += tiler.chance

    def _span(self, offset: int, file: int, number: int) -> tuple[int, int]:
        return offset, offset + self._files[file].wanted(number).size

    def _beside_open(self, anchors: Mapping[tuple[int, int], int]) -> Iterator[Match]:
        """Iterate over what lies beside hits that nothing proves, and over these hits.

        A run that fits behind one proves it.
        """
        hits = [
            hit
            for hit in self._all_hits
            if (hit.file, hit.number) not in anchors
            and self._files[hit.file].wanted(hit.number) not in self._found
        ]
        tiler = self._tiler([self._span(hit.offset, *hit[1:]) for hit in hits])
        found = list(self._end_to_end(tiler))
        yield from found
        waiting, before = hits, len(hits) + 1
        # It lies beside one of the others, at a gap, by chance once in 2^32: before or behind it.
        pairs = len(hits) * (len(found) + len(hits))
        self._chance += 2 * len(tiler.gaps) * pairs / _CHECKSUMS
        while found and len(waiting) < before and self._chance <= self._most:
            before = len(waiting)
            beside = [hit for hit in waiting if tiler.adjoins(*self._span(hit.offset, *hit[1:]))]
            for hit in beside:
                tiler.prove(*self._span(hit.offset, *hit[1:]))
                item = self._files[hit.file].wanted(hit.number)
                if self._files[hit.file].lost[hit.number] and item not in self._found:
                    self._found.add(item)
                    yield Match(item, self._part, hit.offset, self._chance)
            waiting = [hit for hit in waiting if hit not in beside]

    def _on_grid(self, count: int) -> list[_Hit]:
        """Return the hits that lie at multiples of a page, some bytes on, if several do."""
        groups: dict[int, list[_Hit]] = defaultdict(list)
        for hit in self._all_hits:
            groups[hit.offset % _PAGE].append(hit)
        group = max(groups.values(), key=len, default=[])
        # Of all places that fit by chance, so many are at these multiples.
        chance = count * self._part.size / _PAGE / _CHECKSUMS
        if len({hit[1:] for hit in group}) < _ON_GRID or self._chance + chance > 3 / 4 * self._most:
            return []
        self._chance += chance
        return group

    def _at_distances(
        self, anchors: dict[tuple[int, int], int]
    ) -> Iterator[tuple[tuple[int, int], int]]:
        """Iterate over lost runs that lie as far from their places as those that are known."""
        distances = Counter(
            (file, offset - int(self._files[file].starts[number]))
            for (file, number), offset in anchors.items()
        )
        for (file, distance), count in distances.most_common(_MOST_DISTANCES):
            if count < _FEWEST:
                return
            runs = self._files[file]
            for number in np.flatnonzero(runs.lost).tolist():
                offset = int(runs.starts[number]) + distance
                if (file, number) not in anchors and self._lies_at(offset, runs.wanted(number)):
                    anchors[file, number] = offset
                    yield (file, number), offset

    def _on(self, anchors: dict[tuple[int, int], int]) -> Iterator[tuple[tuple[int, int], int]]:
        """Iterate over runs that lie before and behind those that are known, each by the next."""
        self._gaps = self._usual_gaps(anchors)
        waiting = deque(anchors)
        while waiting:
            file, number = waiting.popleft()
            for step in (1, -1):
                found = self._beside(file, number, step, anchors)
                if found is not None:
                    other, offset = found
                    anchors[file, other] = offset
                    waiting.append((file, other))
                    yield (file, other), offset

    def _usual_gaps(self, anchors: Mapping[tuple[int, int], int]) -> list[int]:
        """Return how many bytes lie between runs that are known, the most frequent first."""
        spans = sorted(
            (offset, offset + self._files[file].wanted(number).size)
            for (file, number), offset in anchors.items()
        )
        gaps = Counter(after - stop for (_, stop), (after, _) in pairwise(spans))
        return [gap for gap, _ in gaps.most_common() if 0 <= gap <= _NEAR][:_MOST_GAPS]

    def _beside(
        self, file: int, number: int, step: int, anchors: Mapping[tuple[int, int], int]
    ) -> tuple[int, int] | None:
        """Return which run lies behind one that is known, or before it, and where.

        The next in the data file is tried first, with as many bytes between as there. Then those
        near it, with as many as between others; then the nearest two, wherever they are near.
        """
        runs, offset = self._files[file], anchors[file, number]
        edge = offset + runs.wanted(number).size if step > 0 else offset
        near = [number + step * way for way in _WAYS if 0 <= number + step * way < len(runs.starts)]
        near = [other for other in near if (file, other) not in anchors]
        for other in near:
            item = runs.wanted(other)
            own = int(runs.starts[max(other, number)]) - runs.stop(min(other, number))
            for gap in dict.fromkeys((own, *self._gaps) if other == number + step else self._gaps):
                at = edge + gap if step > 0 else edge - gap - item.size
                if self._lies_at(at, item):
                    return other, at
        for other in near[:_NEAREST]:
            if abs(other - number) == 1:
                at_near = self._find_near(edge, runs.wanted(other), step)
                if at_near is not None:
                    return other, at_near
        return None

    def _find_near(self, edge: int, item: Wanted, step: int) -> int | None:
        """Return where a run lies a few bytes behind a place, or before it."""
        start = max(0, edge if step > 0 else edge - _NEAR - item.size)
        stop = min(self._part.size, edge + _NEAR + item.size if step > 0 else edge)
        if stop - start < item.size or not self._take(_NEAR, stop - start, windows=1):
            return None
        places = find_near(self._part.read_at(start, stop - start), *item)
        if not places:
            return None
        at = start + (places[0] if step > 0 else places[-1])
        self._gaps.insert(0, at - edge if step > 0 else edge - at - item.size)
        self._gaps = list(dict.fromkeys(self._gaps))[:_MOST_GAPS]
        return at

    def _lies_at(self, offset: int, item: Wanted) -> bool:
        if not 0 <= offset <= self._part.size - item.size or not self._take(1, item.size):
            return False
        return stream_crc(self._part.read_at, offset, item.size) == item.crc

    def _take(self, places: int, size: int, *, windows: int = 0) -> bool:
        """Take the work of trying a run at some places, and its chance, from what is left."""
        chance = self._chance + places / _CHECKSUMS
        left = self._tries - 1, self._bytes - size, self._windows - windows
        if min(left) < 0 or chance > self._most:
            return False
        self._tries, self._bytes, self._windows = left
        self._chance = chance
        return True


def _pairs(probes: Sequence[Wanted]) -> list[Wanted]:
    """Choose neighbours from everywhere: every other one of those sought has its next behind it."""
    if len(probes) <= _MOST_BETWEEN:
        return list(probes)
    firsts = np.linspace(0, len(probes) // 2 - 1, _MOST_BETWEEN // 2).astype(np.int64).tolist()
    return [probes[2 * first + behind] for first in firsts for behind in (0, 1)]


def _prove(hits: Sequence[_Hit], files: Sequence[Runs], widest: _Gaps) -> list[_Hit]:
    """Return those of which another lies at the same distance, or beside."""
    ordered = sorted(hits)
    proven = set(_at_one_distance(ordered, files))
    starts = [hit.offset for hit in ordered]
    for hit in ordered:
        item = files[hit.file].wanted(hit.number)
        end = hit.offset + item.size
        behind = bisect_left(starts, end)
        for other in ordered[behind : behind + _MOST_BESIDE]:
            gap = other.offset - end
            beside = other.file == hit.file and abs(other.number - hit.number) == 1
            if gap > (widest.neighbours if beside else widest.any_two):
                continue
            if files[other.file].wanted(other.number) != item:
                proven |= {hit, other}
    return sorted(proven)


def _at_one_distance(hits: Iterable[_Hit], files: Sequence[Runs]) -> Iterator[_Hit]:
    """Iterate over those of which another, that shares no byte with it, lies as far from home."""
    groups: dict[tuple[int, int], list[_Hit]] = defaultdict(list)
    for hit in hits:
        groups[hit.file, hit.offset - int(files[hit.file].starts[hit.number])].append(hit)
    for (file, _), group in groups.items():
        runs = files[file]
        first = min(runs.stop(hit.number) for hit in group)
        last = max(int(runs.starts[hit.number]) for hit in group)
        for hit in group:
            if runs.starts[hit.number] >= first or runs.stop(hit.number) <= last:
                yield hit
