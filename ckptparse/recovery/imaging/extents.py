"""Find where the payloads of data files are in an image, block by block.

A file system stores a file in one or more parts, each of whole blocks. A payload within one part is
found by its checksum, at its own offset within a block. Payloads beside it are at the same
distance. For a payload that lies in two parts, every border of a block is tried
(`crc.search.find_splits`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ckptparse.coding.checksum import combine_crc
from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.crc.grid import GridRegisters
from ckptparse.crc.windows import Wanted
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Parts, Range
from ckptparse.recovery.evidence.bounds import Note, ignore
from ckptparse.recovery.imaging.mapfile import Mapfile
from ckptparse.recovery.imaging.pieces import DataFile, Piece, Placement
from ckptparse.recovery.imaging.splits import SEGMENT, Searches, complete, lies_at, near
from ckptparse.recovery.imaging.stretches import MOST_WAYS, Stretches

__all__ = [
    "SEGMENT",
    "SMALLEST",
    "DataFile",
    "Joined",
    "Piece",
    "Placement",
    "chance_of",
    "complete",
    "count_covered",
    "find_anchors",
    "join",
    "lies_at",
    "put_together",
]

SMALLEST = 4096
"""The size of the smallest stripe. Larger ones are multiples of it, so its grid finds all."""

_PIECE = 1 << 26
"""Bytes after which the caller is told."""
_MOST_PLACES = 8
"""Offsets within a block at which a register is kept: each costs one call for every block."""
_MOST_PASSES = 4
"""Times that a segment is read: each seeks what fits into `_MOST_PLACES`. What is not found then is
only looked for beside payloads that were found."""
_LARGEST = 1 << 30
"""Bytes of the largest payload that is sought: segments overlap by its size."""
_ALWAYS_ABSENT = 1 << 26
_MOST_ABSENT = 64
"""Bytes of a data file that may be absent, and how many more for each byte of the image: they are
read as zeros, a gigabyte in a second."""
_LEAST = 16
"""Fewest bytes of a run of payloads that marks a place: shorter ones are equal in many files."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Opens several parts of a file as one file."""

    ranges: tuple[tuple[int, int], ...]
    """(offset, size); an offset of -1 stands for bytes that are not there."""
    _hash: int = field(init=False, repr=False, compare=False)
    _parts: Parts = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # There may be thousands, and files are looked up by what opens them, and opened often.
        object.__setattr__(self, "_hash", hash(self.ranges))
        object.__setattr__(self, "_parts", Parts(self.ranges))

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def of(cls, joined: JoinedSource, mapfile: Mapfile | None = None) -> Joined:
        """Take the ranges of a source that reads one file, without those `mapfile` excludes."""
        ranges: list[tuple[int, int]] = []
        for part in joined.ranges:
            if part.source is None:
                ranges.append((-1, part.size))
                continue
            done = 0
            bad = [] if mapfile is None else mapfile.within(part.offset, part.offset + part.size)
            for start, stop in bad:
                ranges += [(part.offset + done, start - done), (-1, stop - start)]
                done = stop
            ranges.append((part.offset + done, part.size - done))
        return cls(tuple((offset, size) for offset, size in ranges if size))

    def __call__(self, source: Source) -> Source:
        """Return the parts as one file."""
        return JoinedSource.of_one(source, self._parts)


@dataclass(slots=True)
class _Sought:
    """Payloads that begin at one offset within a block, by size and checksum."""

    wanted: dict[Wanted, list[tuple[int, Piece]]] = field(default_factory=lambda: defaultdict(list))
    total: int = 0


def find_anchors(
    image: Source,
    files: Sequence[DataFile],
    block: int,
    *,
    start: int = 0,
    watch: Callable[[int], None] | None = None,
) -> Iterator[list[tuple[int, Placement]]]:
    """Iterate over segments of an image, each with the payloads that are there in one part.

    There are several passes. The first seeks payloads at the most common offsets within a block.
    Neighbours of a found payload are looked for beside it; later passes seek what is left.

    Args:
        image: The image.
        files: The data files that are sought.
        block: The size of a block.
        start: The first byte that is looked at; a multiple of the segment's size.
        watch: Called with the number of bytes read since the last call.

    Returns:
        For each segment, (number of the file, placement) of each payload found.
    """
    known: set[tuple[int, Piece]] = set()
    tried: set[tuple[Piece, int]] = set()
    sought = [_marking(file, block) for file in files]
    overlap = max((piece.size for file in files for piece in file.pieces), default=0)
    for first in range(start, image.size, SEGMENT):
        found: list[tuple[int, Placement]] = []
        for number in range(_MOST_PASSES):
            groups = _group(sought, block, known)
            if not groups or (number and not found):
                break
            stop = min(image.size, first + SEGMENT + min(overlap, _LARGEST))
            hits = _search(image, groups, block, (first, stop), watch)
            for index, piece, position in _choose(hits):
                if position < first + SEGMENT:
                    known.add((index, piece))
                    found.append((index, Placement(piece.offset, piece.size, position)))
            for index, (piece, placement) in _neighbours(image, files, found, known, tried):
                known.add((index, piece))
                found.append((index, placement))
        yield found


def _marking(file: DataFile, block: int) -> Sequence[Piece]:
    """Return the payloads of a file that mark a place, or runs of them if there are none."""
    large = [piece for piece in file.pieces if block // 2 <= piece.size <= _LARGEST]
    return large or _runs(file, block)


def _group(
    sought: Sequence[Sequence[Piece]], block: int, known: set[tuple[int, Piece]]
) -> dict[int, _Sought]:
    """Group what is sought by its offset within a block; no more groups than a pass can take."""
    groups: dict[int, _Sought] = defaultdict(_Sought)
    for index, marking in enumerate(sought):
        for piece in marking:
            if (index, piece) not in known:
                group = groups[piece.offset % block]
                group.wanted[Wanted(piece.size, piece.crc)].append((index, piece))
                group.total += piece.size
    chosen: dict[int, _Sought] = {}
    places: set[int] = set()
    for place, group in sorted(groups.items(), key=lambda item: -item[1].total):
        fitting = _Sought()
        for wanted, pieces in sorted(group.wanted.items(), key=lambda item: -item[0].size):
            more = places | {place, (place + wanted.size) % block}
            if len(more) <= _MOST_PLACES:
                places = more
                fitting.wanted[wanted] = pieces
        if fitting.wanted:
            chosen[place] = fitting
    return chosen


def _runs(file: DataFile, block: int) -> list[Piece]:
    """Join payloads that lie end to end: a small one alone does not mark a place.

    None is much longer than a block of the image: in a longer one more may be damaged.
    """
    runs: list[Piece] = []
    for piece in file.pieces:
        last = runs[-1] if runs else None
        beside = last is not None and last.offset + last.size == piece.offset
        if last is not None and beside and last.size < block:
            crc = combine_crc(last.crc, piece.crc, piece.size)
            runs[-1] = Piece(last.offset, last.size + piece.size, crc)
        else:
            runs.append(piece)
    return [run for run in runs if run.size >= _LEAST]


def _search(
    image: Source,
    groups: Mapping[int, _Sought],
    block: int,
    span: tuple[int, int],
    watch: Callable[[int], None] | None,
) -> list[tuple[int, Piece, list[int]]]:
    """Return the payloads that are in a range of the image, each with all its places."""
    start, stop = span
    places = {(place + wanted.size) % block for place in groups for wanted in groups[place].wanted}
    registers = GridRegisters(block, places | groups.keys())
    for position in range(start, stop, _PIECE):
        count = min(_PIECE, stop - position)
        registers.extend_from(image.read_into, position, position + count)
        if watch is not None:
            watch(count)
    return [
        (index, piece, [start + offset for offset in offsets])
        for place, group in groups.items()
        for wanted, offsets in registers.find_each(group.wanted, place=place).items()
        for index, piece in group.wanted[wanted]
        if offsets
    ]


def _choose(
    hits: Sequence[tuple[int, Piece, list[int]]],
) -> Iterator[tuple[int, Piece, int]]:
    """Choose the place of each payload: the one at the distance that most others have too."""
    votes = Counter(
        (index, position - piece.offset) for index, piece, places in hits for position in places
    )
    for index, piece, places in hits:
        yield index, piece, max(places, key=lambda p: votes[index, p - piece.offset])


def _neighbours(
    image: Source,
    files: Sequence[DataFile],
    found: Iterable[tuple[int, Placement]],
    known: set[tuple[int, Piece]],
    tried: set[tuple[Piece, int]],
) -> Iterator[tuple[int, tuple[Piece, Placement]]]:
    """Iterate over payloads that are beside found ones, at the same distance.

    Where one was `tried` in vain, it is not looked for again.
    """
    by_file: dict[int, list[Placement]] = defaultdict(list)
    for index, placement in found:
        by_file[index].append(placement)
    for index, placements in by_file.items():
        placements.sort()
        for piece in files[index].pieces:
            if (index, piece) in known or not piece.size:
                continue
            for distance in near(placements, piece.offset):
                position = piece.offset + distance
                if (piece, position) in tried:
                    continue
                if lies_at(image, piece, position):
                    yield index, (piece, Placement(piece.offset, piece.size, position))
                    break
                tried.add((piece, position))


def put_together(
    image: Source,
    files: Sequence[DataFile],
    block: int,
    *,
    believe: bool = True,
    note: Note = ignore,
) -> dict[int, JoinedSource]:
    """Find data files in an image, and put each together; those found, by number.

    Args:
        image: The image.
        files: What belongs into the data files.
        block: The size of a block.
        believe: Whether what lies beside something found may belong to it: in an image, but not in
            a data file of other tensors.
        note: Is told if not all of it was searched for all.
    """
    anchors: dict[int, list[Placement]] = defaultdict(list)
    for segment in find_anchors(image, files, block):
        for number, placement in segment:
            anchors[number].append(placement)
    found = {}
    stretches, searches = Stretches(image, block), Searches(image, block, note)
    for number, placements in anchors.items():
        proved = complete(image, files[number], placements, block, stretches, searches=searches)
        found[number] = join(image.path, image, files[number], proved, stretches, believe=believe)
    return found


def chance_of(image_size: int, files: Sequence[DataFile], block: int) -> float:
    """Return the chance that a payload is found where it is not: of the search that tries most."""
    positions = image_size // block
    splits = max((piece.size // block for file in files for piece in file.pieces), default=0)
    chances = [tried / 2**32 for tried in (positions, splits, MOST_WAYS, 2 * splits * positions)]
    return max(chance for chance in chances if chance <= HIGHEST_CHANCE or chance == chances[0])


def count_covered(placements: Iterable[Placement]) -> int:
    """Return how many bytes of a data file some placements cover, each counted once."""
    covered = done = 0
    for one in sorted(placements):
        end = one.offset + one.size
        covered += max(0, end - max(done, one.offset))
        done = max(done, end)
    return covered


def join(
    path: str,
    image: Source,
    file: DataFile,
    proved: Sequence[Placement],
    stretches: Stretches,
    *,
    believe: bool = True,
) -> JoinedSource:
    """Put a data file together: proved placements, and around them what most likely belongs there.

    Between two placements at the same distance, the image's bytes are taken. If the distances
    differ, the first one holds up to the block in which the second placement begins. But nothing
    of a payload is taken that lies behind a gap of its stretch, or that both sides claim. Bytes of
    which nothing is known are not there. If they are far more than the image, the file is cut off
    there: an index may state any size in a few bytes.
    """
    ranges: list[Range] = []
    done = 0
    distance = proved[0].position - proved[0].offset if proved else None
    for one in proved:
        if one.offset + one.size <= done:
            continue
        following = one.position - one.offset
        # A part of a file begins with a whole block.
        border = one.offset if following == distance else one.offset - one.offset % stretches.block
        border = max(done, border)
        ranges += _clipped(image, done, border - done, distance)
        end = one.offset + one.size
        ranges += _clipped(image, border, end - border, following)
        done, distance = end, following
    ranges += _clipped(image, done, file.size - done, distance)
    spans = _unplaced(file, proved, stretches if believe else None)
    ranges = list(_with_spans(image, ranges, spans))
    return JoinedSource(path, list(_bounded(ranges, _ALWAYS_ABSENT + _MOST_ABSENT * image.size)))


_Span = tuple[int, int, int | None]
"""Bytes of a data file (start, stop), and their distance to the image; None if they are absent."""


def _unplaced(
    file: DataFile, proved: Sequence[Placement], stretches: Stretches | None
) -> list[_Span]:
    """Return where the bytes of payloads that were not found most likely lie."""
    spans: list[_Span] = []
    sides = [None, *proved, None] if proved else []
    edge = number = 0
    for before, after in pairwise(sides):
        edge = max(edge, 0 if before is None else before.offset + before.size)
        end = file.size if after is None else after.offset
        while number < len(file.pieces) and file.pieces[number].offset < edge:
            number += 1
        missing = []
        while number < len(file.pieces) and file.pieces[number].offset < end:
            missing.append(file.pieces[number])
            number += 1
        if missing and not _at_one_distance(before, after):
            believed: list[_Span] = [(edge, end, None)]
            if stretches is not None:
                believed = _believed(missing, (before, after), (edge, end), stretches)
            for piece in missing:
                spans += _within(believed, piece.offset, piece.offset + piece.size)
    return spans


def _at_one_distance(before: Placement | None, after: Placement | None) -> bool:
    """Tell whether what lies between two placements lies in the stretch of both."""
    if before is None or after is None:
        return False
    return before.position - before.offset == after.position - after.offset


def _believed(
    missing: Sequence[Piece],
    sides: tuple[Placement | None, Placement | None],
    span: tuple[int, int],
    stretches: Stretches,
) -> list[_Span]:
    """Return what of a span goes on from the placements around it, up to the next gap.

    What both of them claim is nobody's: two stretches or more meet there, and which is right is not
    known.
    """
    (before, after), (start, stop) = sides, span
    head = tail = 0
    ahead = behind = None
    if before is not None:
        ahead = before.position - before.offset
        head = stretches.room(missing[0], start + ahead, forward=True)
    if after is not None:
        behind = after.position - after.offset
        tail = stretches.room(missing[-1], stop + behind, forward=False)
    size = stop - start
    head, tail = min(head, size), min(tail, size)
    head, tail = (size - tail, size - head) if head + tail > size else (head, tail)
    return [
        (start, start + head, ahead),
        (start + head, stop - tail, None),
        (stop - tail, stop, behind),
    ]


def _within(spans: Iterable[_Span], low: int, high: int) -> Iterator[_Span]:
    """Iterate over what of some spans lies between two offsets."""
    for start, stop, distance in spans:
        if start < high and stop > low and start < stop:
            yield max(start, low), min(stop, high), distance


def _with_spans(image: Source, ranges: Iterable[Range], spans: Sequence[_Span]) -> Iterator[Range]:
    """Iterate over the ranges of a file, with other bytes or none at some spans of it."""
    cuts = sorted({edge for start, stop, _ in spans for edge in (start, stop)})
    starts = [start for start, _, _ in spans]
    position = 0
    for part in ranges:
        edges = cuts[bisect_right(cuts, position) : bisect_left(cuts, position + part.size)]
        for start, stop in pairwise([position, *edges, position + part.size]):
            number = bisect_right(starts, start) - 1
            if number >= 0 and start < spans[number][1]:
                distance = spans[number][2]
                if distance is None:
                    yield Range(None, 0, stop - start)
                else:
                    yield from _clipped(image, start, stop - start, distance)
            else:
                offset = 0 if part.source is None else part.offset + start - position
                yield Range(part.source, offset, stop - start)
        position += part.size


def _bounded(ranges: Iterable[Range], most: int) -> Iterator[Range]:
    """Iterate over ranges up to where more bytes than these are absent."""
    for part in ranges:
        if part.source is None:
            if part.size > most:
                return
            most -= part.size
        yield part


def _clipped(image: Source, offset: int, size: int, distance: int | None) -> list[Range]:
    """Return bytes of the image at a distance; those outside of the image are absent."""
    if distance is None:
        return [Range(None, 0, size)]
    low = max(0, min(size, -(offset + distance)))
    high = max(low, min(size, image.size - offset - distance))
    return [
        Range(None, 0, low),
        Range(image, offset + distance + low, high - low),
        Range(None, 0, size - high),
    ]
