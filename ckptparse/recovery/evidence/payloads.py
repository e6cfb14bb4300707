"""Find runs of bytes of given sizes and checksums in files of any kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ckptparse.coding.checksum import crc32c
from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.crc.windows import Wanted
from ckptparse.files.storage import Source
from ckptparse.limits import Limits
from ckptparse.parallel import stream_crc
from ckptparse.recovery.evidence.axes import LARGEST as LARGEST_TURNED
from ckptparse.recovery.evidence.axes import TensorForm, Turned, orders_of, turn_back
from ckptparse.recovery.evidence.bounds import Note, ignore
from ckptparse.recovery.evidence.containers import Candidate, iter_candidates, iter_parts
from ckptparse.recovery.evidence.datasets import NamedDataset
from ckptparse.recovery.evidence.names import MOST_NAMESAKES, Names
from ckptparse.recovery.workers import CALLER, Piece, Workers

__all__ = [
    "LARGEST",
    "SMALLEST",
    "Match",
    "Sought",
    "find_anywhere",
    "find_payloads",
    "iter_pieces",
]

_PIECE = 1 << 25
"""Bytes that are searched at once; their registers take as much memory again."""
LARGEST = 1 << 28
"""Bytes of the largest run that is sought anywhere: pieces overlap by its size, in memory."""
_SMALLEST_NAMED = 5
"""Bytes of the smallest run that is sought at the places that a container names: up to 4 bytes
follow from the checksum alone."""
SMALLEST = 16
"""Bytes of the smallest run that is sought anywhere. Smaller ones are steps, flags and rates: each
size more costs a pass over the file."""
_MOST_TURNED = 1 << 32
"""Bytes whose axes are put in another order, for one file: that takes some ten seconds. Of a small
file, 16 times its size, or 64 MiB more."""
_FREE_TRIES = 10_000
_BYTES_A_TRY = 256
"""Places of a file that are tried, and for how many bytes there may be one more: each takes ten
microseconds. A container names few beside those of its tensors. What has a name of its own there
is one of these."""
_FREE_TRIED = 1 << 28
_MOST_TRIED = 64
"""Bytes at these places, and how many times the file that may be more: places overlap."""
_WORD = 4
"""Bytes from one place that is tried to the next."""
_MOST_BETWEEN = 12
"""Runs that are sought between multiples of 4, too: three passes, for 100 MB 2 s."""
_CHECKSUMS = 2**32
"""Values of a checksum: other bytes have the same one with a chance of 1 in so many."""


@dataclass(frozen=True, slots=True)
class Match:
    """A run of bytes that was found."""

    wanted: Wanted
    source: Source
    """The file, or the member of an archive, that holds it."""
    offset: int
    """In that source."""
    chance: float
    """Chance that these are other bytes: the number of places that were tried, / 2^32."""
    turned: Turned | None = None
    """How its axes lie there; None: in their own order."""
    name: str | None = None
    """What it is called there, if that told that it is this run."""


Forms = Mapping[Wanted, Collection[TensorForm]]


class Sought:
    """Runs that are sought in one file after another, each until it is surely found.

    Attributes:
        left: Checksums by size. One that was found stays there while that is not sure.
    """

    def __init__(self, wanted: Iterable[Wanted], forms: Forms | None = None) -> None:
        """Take the runs in their order, and of those that are tensors their shapes."""
        items = list(wanted)
        self.left = _by_size(items, _SMALLEST_NAMED)
        self._after = dict(pairwise(items))
        self._forms: dict[int, set[TensorForm]] = defaultdict(set)
        for item, these in (forms or {}).items():
            self._forms[item.size].update(these)
        self._turned: dict[int, list[Turned]] = {}

    def drop(self, item: Wanted) -> None:
        """Seek a run no more."""
        self.left.get(item.size, set()).discard(item.crc)

    def following(self, item: Wanted) -> Wanted | None:
        """Return the run that is expected behind another."""
        return self._after.get(item)

    def turned(self, size: int) -> list[Turned]:
        """Return how the axes of tensors of a size may lie."""
        if size not in self._turned:
            forms = self._forms.get(size, ())
            self._turned[size] = [Turned(form, axes) for form in forms for axes in orders_of(form)]
        return self._turned[size]


def find_payloads(
    source: Source,
    wanted: Iterable[Wanted] | Sought,
    *,
    limits: Limits,
    forms: Forms | None = None,
    note: Note = ignore,
    names: Names | None = None,
) -> Iterator[Match]:
    """Find runs at the places that a container names, each until it is surely found.

    Args:
        source: The file.
        wanted: The runs; or what is left of them, after other files. Those of fewer than 5 bytes
            are not sought. Behind one that was found the next one is expected: it fits by chance 1
            in 2^32, however many are sought.
        limits: Bounds on what is unpacked.
        forms: Of runs that are tensors: their shapes. They are found with their axes in another
            order, too.
        note: Is told what was left out.
        names: What runs are called. One that has its name there fits by chance as seldom.
    """
    sought = wanted if isinstance(wanted, Sought) else Sought(wanted, forms)
    hits = _Hits(source, sought, names)
    turner = _Turner(sought, limits, source.size, note)
    places = _FREE_TRIES + source.size // _BYTES_A_TRY
    read = _FREE_TRIED + _MOST_TRIED * source.size
    for part in iter_parts(source, limits=limits, note=note):
        for place in _iter_sought(part, hits.left, limits, note):
            size = place.size
            places, read = places - (place.name is None), read - size
            if min(places, read) < 0:
                note("its structure names very many places, and not all of them were tried")
                return
            for crc, turned in _read_as(part, place, turner):
                if hits.fits(size, crc):
                    match = hits.take(part, place, crc, turned)
                    if match is not None:
                        turner.note(turned)
                        yield match
                    break
        if not any(hits.left.values()):
            return


def _iter_sought(
    part: Source, left: Mapping[int, set[int]], limits: Limits, note: Note
) -> Iterator[Candidate]:
    """Iterate over the places within a part where runs of sizes may be that are still sought."""
    seen: set[tuple[int, int]] = set()
    for place in iter_candidates(part, left.keys(), limits=limits, note=note):
        span = place.offset, place.size
        if left.get(place.size) and span not in seen and sum(span) <= part.size:
            seen.add(span)
            yield place


class _Hits:
    """How often something else than runs that are sought may have fitted by chance."""

    def __init__(self, source: Source, sought: Sought, names: Names | None) -> None:
        self.left = sought.left
        self._source = source
        self._names = names
        self._sought = sought
        self._following: Wanted | None = None
        self._tried = self._expected = 0
        self._unsure: dict[Wanted, float] = {}

    def fits(self, size: int, crc: int) -> bool:
        """Count a place that is tried; tell whether it has a checksum that is sought."""
        self._tried += 1
        self._expected += self._following is not None
        return crc in self.left.get(size, ())

    def take(self, part: Source, place: Candidate, crc: int, turned: Turned | None) -> Match | None:
        """Return what was found at a place that fits; None if it is known with a lower chance."""
        item = Wanted(place.size, crc)
        # Of one that is expected, nothing else was tried: only it may fit by chance.
        is_next = item == self._following
        hits = self._expected if is_next else self._tried * len(self.left[place.size])
        called = None
        if hits > HIGHEST_CHANCE * _CHECKSUMS:
            called = self._name_of(part, place, item)
            hits = hits if called is None else min(hits, self._tried * MOST_NAMESAKES)
        chance = hits / _CHECKSUMS
        self._following = self._sought.following(item)
        if chance <= HIGHEST_CHANCE:
            self._sought.drop(item)
        elif chance >= self._unsure.get(item, 1.0):
            return None
        else:
            self._unsure[item] = chance
        if isinstance(part, NamedDataset):
            # It is read where it lies in the file.
            return Match(item, part.file, part.offset, chance, turned, called)
        return Match(item, part, place.offset, chance, turned, called)

    def _name_of(self, part: Source, place: Candidate, item: Wanted) -> str | None:
        """Return what a run is called at a place, if it has this name."""
        if self._names is None:
            return None
        name = place.name or part.path.removeprefix(self._source.path).removeprefix(":")
        name = name or part.path
        return name if self._names.mean(name, item) else None


def _read_as(
    part: Source, place: Candidate, turner: _Turner
) -> Iterator[tuple[int, Turned | None]]:
    """Iterate over the checksums of a run: as it is, and with its axes in other orders."""
    yield stream_crc(part.read_at, place.offset, place.size), None
    if turner.takes(place.size):
        yield from turner.checksums(part.read_at(place.offset, place.size))


class _Turner:
    """Puts the axes of runs in the orders that converters use; those that fitted come first."""

    def __init__(self, sought: Sought, limits: Limits, size: int, note: Note) -> None:
        self._note = note
        self._turned = sought.turned
        self._fitted: Counter[tuple[int, ...]] = Counter()
        # A run is in memory twice while it is turned.
        self._largest = min(LARGEST_TURNED, limits.memory_bytes // 2)
        self._left = min(_MOST_TURNED, (1 << 26) + 16 * size)

    def takes(self, size: int) -> bool:
        """Tell whether a run of that size may be a tensor that was turned."""
        if not self._turned(size):
            return False
        if size > min(self._largest, self._left):
            self._note("not all tensors were tried with their axes in another order")
            return False
        return True

    def checksums(self, data: bytes) -> Iterator[tuple[int, Turned]]:
        """Iterate over the checksums of a run in other orders."""
        for turned in sorted(self._turned(len(data)), key=lambda one: -self._fitted[one.axes]):
            if not self.takes(len(data)):
                return
            self._left -= len(data)
            yield crc32c(turn_back(data, turned)), turned

    def note(self, turned: Turned | None) -> None:
        """Note that a tensor was found, and in which order."""
        if turned is not None:
            self._fitted[turned.axes] += 1


def find_anywhere(
    part: Source,
    wanted: Iterable[Wanted],
    *,
    between: bool = True,
    path: str | None = None,
    workers: Workers = CALLER,
) -> Iterator[Match]:
    """Find runs at the multiples of 4, each once.

    Args:
        part: A file, or a member of an archive.
        wanted: The runs. Those of fewer than 16 bytes or more than 256 MiB are not sought.
        between: Whether, if more than a quarter of them are not at multiples of 4, some are sought
            between these, too, and all at the distances from them at which one is.
        path: By which workers find the file; None if they cannot: then the caller searches.
        workers: Who searches.
    """
    left = _by_size(wanted, SMALLEST)
    sizes = [size for size, crcs in left.items() if crcs and size <= min(part.size, LARGEST)]
    if not sizes:
        return
    search = _Search(part, path, left, workers)
    before = sum(map(len, left.values()))
    yield from search.find(sizes, (0,))
    if not between or _WORD * sum(map(len, left.values())) <= before:
        return
    for remainder in search.remainders(sizes):
        yield from search.find(sizes, (remainder,))


@dataclass(frozen=True, slots=True)
class _Search:
    """A search of one file, or of a member of an archive."""

    part: Source
    path: str | None
    """By which workers find it; None if they cannot."""
    left: Mapping[int, set[int]]
    """What is sought: checksums by size. What is found is taken out."""
    workers: Workers

    def find(self, sizes: Sequence[int], remainders: Sequence[int]) -> Iterator[Match]:
        """Find what is left of some sizes, some bytes behind multiples of the step."""
        # What was found in an earlier piece is not sought any more.
        count = sum(len(self.left[size]) for size in sizes)
        chance = min(1.0, len(remainders) * (self.part.size // _WORD) * count / _CHECKSUMS)
        for start, item, offset in self._iter_found(self.left, sizes, remainders):
            if item.crc in self.left[item.size]:
                self.left[item.size].discard(item.crc)
                yield Match(item, self.part, start + offset, chance)

    def remainders(self, sizes: Sequence[int]) -> list[int]:
        """Return at which distances from multiples of 4 one of the largest runs lies."""
        few: dict[int, set[int]] = defaultdict(set)
        largest = [(size, crc) for size in sorted(sizes, reverse=True) for crc in self.left[size]]
        # One that fits by chance costs a search more: what that finds has a chance of its own.
        for size, crc in largest[:_MOST_BETWEEN]:
            few[size].add(crc)
        found = self._iter_found(few, list(few), range(1, _WORD)) if few else ()
        return sorted({(start + offset) % _WORD for start, _, offset in found})

    def _iter_found(
        self, left: Mapping[int, set[int]], sizes: Sequence[int], remainders: Sequence[int]
    ) -> Iterator[tuple[int, Wanted, int]]:
        """Iterate over the start of a piece, what was found in it, and where first."""
        pieces = iter_pieces(self.part, sizes, left, remainders)
        for piece, found in self.workers.search(self.part, pieces, path=self.path):
            for (_, item), offsets in found.items():
                if offsets:
                    yield piece.start, item, offsets[0]


def iter_pieces(
    part: Source,
    sizes: Sequence[int],
    left: Mapping[int, set[int]],
    remainders: Sequence[int],
) -> Iterator[Piece]:
    """Iterate over the pieces of a file, each with what is left to be sought in it."""
    # Pieces overlap by the largest run: a piece is a quarter of it at least, so that all of them
    # together read no more than five times the bytes.
    piece = max(_PIECE, max(sizes) // 4)
    for start in range(0, part.size, piece):
        items = tuple(Wanted(size, crc) for size in sizes for crc in sorted(left[size]))
        if not items:
            return
        size = min(piece + max(sizes) + max(remainders), part.size - start)
        yield Piece(start, size, piece, _WORD, dict.fromkeys(remainders, items))


def _by_size(wanted: Iterable[Wanted], smallest: int) -> dict[int, set[int]]:
    sizes: dict[int, set[int]] = defaultdict(set)
    for item in wanted:
        if item.size >= smallest:
            sizes[item.size].add(item.crc)
    return dict(sizes)
