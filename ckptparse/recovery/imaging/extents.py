"""Find where the payloads of data files are in an image, block by block.

A file system stores a file in one or more parts, each of whole blocks. A payload within one part is
found by its checksum, at its own offset within a block. Payloads beside it are at the same
distance. For a payload that lies in two parts, every border of a block is tried
(`crc.search.find_splits`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ckptparse.coding.checksum import combine_crc
from ckptparse.crc.field import multiply, power_of_x
from ckptparse.crc.search import GridRegisters, Wanted, find_splits
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.parallel import stream_crc
from ckptparse.recovery.imaging.mapfile import Mapfile

__all__ = [
    "SEGMENT",
    "SMALLEST",
    "DataFile",
    "Joined",
    "Piece",
    "Placement",
    "complete",
    "count_covered",
    "find_anchors",
    "join",
    "lies_at",
    "put_together",
]

SMALLEST = 4096
"""The size of the smallest stripe. Larger ones are multiples of it, so its grid finds all."""

SEGMENT = 1 << 34
"""Bytes of an image whose registers are in memory at one time: 16 GiB in blocks of 4 KiB, with 8
registers of 4 bytes each, take 128 MiB."""
_PIECE = 1 << 22
"""Bytes that are read at once."""
_MOST_PLACES = 8
"""Offsets within a block at which a register is kept: each costs one call for every block."""
_MOST_PASSES = 4
"""Times that a segment is read: each seeks what fits into `_MOST_PLACES`. What is not found then is
only looked for beside payloads that were found."""
_MOST_ROUNDS = 16
"""Rounds in which neighbours of found payloads are sought. Each but the last finds at least one,
which may be in a part of its own: a file in more parts than this may stay incomplete."""
_LARGEST = 1 << 30
"""Bytes of the largest payload that is sought: segments overlap by its size."""
_LEAST = 16
"""Fewest bytes of a run of payloads that marks a place: shorter ones are equal in many files."""
_LARGEST_SPLIT = 1 << 28
"""Bytes of the largest payload that is sought in two parts: both are held in memory."""
_LARGEST_SEARCHED = 1 << 24
"""Bytes of the largest payload of which one part may be anywhere: each border is one more size to
seek, so the work grows with the square of the size."""
_CHECKSUMS = 2**32
"""Values of a checksum: other bytes have the same one with a chance of 1 in so many."""
_HIGHEST_CHANCE = 1e-3
"""As `crc.flips.HIGHEST_CHANCE`: a split is taken only if this bound holds for all borders."""


class Piece(NamedTuple):
    """A payload of a data file."""

    offset: int
    size: int
    crc: int
    """Its unmasked CRC-32C."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file, as an index describes it."""

    size: int
    pieces: tuple[Piece, ...]
    """Sorted by offset."""


class Placement(NamedTuple):
    """Where some bytes of a data file are in the image."""

    offset: int
    """In the data file."""
    size: int
    position: int
    """In the image."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Opens several parts of a file as one file."""

    ranges: tuple[tuple[int, int], ...]
    """(offset, size); an offset of -1 stands for bytes that are not there."""

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

    @property
    def bad(self) -> tuple[tuple[int, int], ...]:
        """Ranges of bytes (start, stop) that are not there."""
        found = []
        start = 0
        for offset, size in self.ranges:
            if offset < 0:
                found.append((start, start + size))
            start += size
        return tuple(found)

    def __call__(self, source: Source) -> Source:
        """Return the parts as one file."""
        parts = (
            Range(None if offset < 0 else source, offset, size) for offset, size in self.ranges
        )
        return JoinedSource(source.path, list(parts))


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
    overlap = max((piece.size for file in files for piece in file.pieces), default=0)
    for first in range(start, image.size, SEGMENT):
        found: list[tuple[int, Placement]] = []
        for number in range(_MOST_PASSES):
            groups = _group(files, block, known)
            if not groups or (number and not found):
                break
            stop = min(image.size, first + SEGMENT + min(overlap, _LARGEST))
            hits = _search(image, groups, block, (first, stop), watch)
            for index, piece, position in _choose(hits):
                if position < first + SEGMENT:
                    known.add((index, piece))
                    found.append((index, Placement(piece.offset, piece.size, position)))
            for index, near in _neighbours(image, files, found, known):
                known.add((index, Piece(*near[0])))
                found.append((index, near[1]))
        yield found


def _group(
    files: Sequence[DataFile], block: int, known: set[tuple[int, Piece]]
) -> dict[int, _Sought]:
    """Group what is sought by its offset within a block; no more groups than a pass can take."""
    groups: dict[int, _Sought] = defaultdict(_Sought)
    for index, file in enumerate(files):
        large = [piece for piece in file.pieces if block // 2 <= piece.size <= _LARGEST]
        for piece in large or _runs(file):
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


def _runs(file: DataFile) -> list[Piece]:
    """Join payloads that lie end to end: a small one alone does not mark a place."""
    runs: list[Piece] = []
    for piece in file.pieces:
        last = runs[-1] if runs else None
        if last is not None and last.offset + last.size == piece.offset:
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
        registers.extend(image.read_at(position, count))
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
) -> Iterator[tuple[int, tuple[Piece, Placement]]]:
    """Iterate over payloads that are beside found ones, at the same distance."""
    by_file: dict[int, list[Placement]] = defaultdict(list)
    for index, placement in found:
        by_file[index].append(placement)
    for index, placements in by_file.items():
        placements.sort()
        for piece in files[index].pieces:
            if (index, piece) in known or not piece.size:
                continue
            for distance in _near(placements, piece.offset):
                position = piece.offset + distance
                if lies_at(image, piece, position):
                    yield index, (piece, Placement(piece.offset, piece.size, position))
                    break


def _near(placements: Sequence[Placement], offset: int) -> list[int]:
    """Return the distances, from file to image, of the placements before and after an offset."""
    number = bisect_left(placements, (offset,))
    near = placements[max(0, number - 1) : number + 1]
    return list(dict.fromkeys(one.position - one.offset for one in near))


def lies_at(image: Source, piece: Piece, position: int) -> bool:
    """Tell whether a payload is at a position of the image."""
    if position < 0 or position + piece.size > image.size:
        return False
    return stream_crc(image.read_at, position, piece.size) == piece.crc


def complete(
    image: Source, file: DataFile, placements: Iterable[Placement], block: int
) -> list[Placement]:
    """Find payloads beside those found, or in two parts between them.

    Returns:
        Placements that are proved, by offset: of whole payloads, or of their two parts.
    """
    proved = sorted(placements)
    for _ in range(_MOST_ROUNDS):
        before = len(proved)
        for find in (_find_between, _find_other_part):
            proved = _with_found(image, file, proved, block, find)
            # The quicker search comes first again: it may go on from what was just found.
            if len(proved) > before:
                break
        if len(proved) == before:
            break
    return proved


def _with_found(
    image: Source,
    file: DataFile,
    proved: list[Placement],
    block: int,
    find: Callable[[Source, Piece, Sequence[Placement], int], list[Placement]],
) -> list[Placement]:
    """Add the missing payloads that a search finds."""
    known = {one.offset for one in proved if one.size}
    for piece in file.pieces:
        if piece.offset not in known and piece.size:
            proved = sorted([*proved, *find(image, piece, proved, block)])
    return proved


def _find_between(
    image: Source, piece: Piece, proved: Sequence[Placement], block: int
) -> list[Placement]:
    distances = _near(proved, piece.offset)
    for distance in distances:
        if lies_at(image, piece, piece.offset + distance):
            return [Placement(piece.offset, piece.size, piece.offset + distance)]
    if len(distances) < 2 or piece.size > _LARGEST_SPLIT:
        return []
    chance = piece.size / block / _CHECKSUMS
    if chance > _HIGHEST_CHANCE:
        return []
    start, end = piece.offset + distances[0], piece.offset + piece.size + distances[1]
    head = _read(image, start, min(start + piece.size, image.size))
    tail = _read(image, max(0, end - piece.size), end)
    border = -piece.offset % block
    splits = find_splits(head, tail, piece.crc, piece.size, step=block, first=border)
    if len(splits) != 1:
        return []
    split = splits[0]
    return [
        Placement(piece.offset, split, start),
        Placement(piece.offset + split, piece.size - split, end - (piece.size - split)),
    ]


def _find_other_part(
    image: Source, piece: Piece, proved: Sequence[Placement], block: int
) -> list[Placement]:
    """Find a payload in two parts: one beside its neighbour, the other anywhere in the image."""
    splits = range(-piece.offset % block or block, piece.size, block)
    positions = image.size // block
    small = piece.size <= _LARGEST_SEARCHED and image.size <= SEGMENT
    if not small or 2 * len(splits) * positions > _HIGHEST_CHANCE * _CHECKSUMS:
        return []
    number = bisect_left(proved, (piece.offset,))
    if number < len(proved):
        after = proved[number].position - proved[number].offset
        found = _find_head(image, piece, splits, piece.offset + piece.size + after, block)
        if found:
            return found
    if number:
        before = proved[number - 1].position - proved[number - 1].offset
        return _find_tail(image, piece, splits, piece.offset + before, block)
    return []


def _find_head(image: Source, piece: Piece, splits: range, end: int, block: int) -> list[Placement]:
    """Find the first part of a payload whose last part ends there."""
    wanted: dict[Wanted, int] = {}
    for split in splits:
        rest = piece.size - split
        if end - rest >= 0 and end <= image.size:
            tail = stream_crc(image.read_at, end - rest, rest)
            wanted[Wanted(split, multiply(piece.crc ^ tail, power_of_x(-8 * rest)))] = split
    for position, split in _search_one(image, wanted, piece.offset % block, block):
        rest = piece.size - split
        return [
            Placement(piece.offset, split, position),
            Placement(piece.offset + split, rest, end - rest),
        ]
    return []


def _find_tail(
    image: Source, piece: Piece, splits: range, start: int, block: int
) -> list[Placement]:
    """Find the last part of a payload whose first part begins there."""
    wanted: dict[Wanted, int] = {}
    for split in splits:
        if start >= 0 and start + split <= image.size:
            head = stream_crc(image.read_at, start, split)
            rest = piece.size - split
            wanted[Wanted(rest, piece.crc ^ combine_crc(head, 0, rest))] = split
    for position, split in _search_one(image, wanted, 0, block):
        return [
            Placement(piece.offset, split, start),
            Placement(piece.offset + split, piece.size - split, position),
        ]
    return []


def _search_one(
    image: Source, wanted: Mapping[Wanted, int], place: int, block: int
) -> list[tuple[int, int]]:
    """Return where the one run that is found is, and its split; nothing if there are several."""
    registers = GridRegisters(block, {place, *((place + item.size) % block for item in wanted)})
    for position in range(0, image.size, _PIECE):
        registers.extend(image.read_at(position, min(_PIECE, image.size - position)))
    hits = [
        (offset, wanted[item])
        for item, offsets in registers.find_each(wanted, place=place).items()
        for offset in offsets
    ]
    return hits if len(hits) == 1 else []


def _read(image: Source, start: int, stop: int) -> bytes:
    low, high = max(0, start), min(stop, image.size)
    return image.read_at(low, high - low) if low == start and high > low else b""


def put_together(image: Source, files: Sequence[DataFile], block: int) -> dict[int, JoinedSource]:
    """Find data files in an image, and put each together; those found, by number."""
    anchors: dict[int, list[Placement]] = defaultdict(list)
    for segment in find_anchors(image, files, block):
        for number, placement in segment:
            anchors[number].append(placement)
    found = {}
    for number, placements in anchors.items():
        proved = complete(image, files[number], placements, block)
        found[number] = join(image.path, image, files[number], proved, block)
    return found


def count_covered(placements: Iterable[Placement]) -> int:
    """Return how many bytes of a data file some placements cover, each counted once."""
    covered = done = 0
    for one in sorted(placements):
        end = one.offset + one.size
        covered += max(0, end - max(done, one.offset))
        done = max(done, end)
    return covered


def join(
    path: str, image: Source, file: DataFile, proved: Sequence[Placement], block: int
) -> JoinedSource:
    """Put a data file together: proved placements, and around them what most likely belongs there.

    Between two placements at the same distance, the image's bytes are taken. If the distances
    differ, the first one holds up to the block in which the second placement begins. Bytes of which
    nothing is known are not there.
    """
    ranges: list[Range] = []
    done = 0
    distance = proved[0].position - proved[0].offset if proved else None
    for one in proved:
        if one.offset + one.size <= done:
            continue
        following = one.position - one.offset
        # A part of a file begins with a whole block.
        border = one.offset if following == distance else one.offset - one.offset % block
        border = max(done, border)
        ranges += _clipped(image, done, border - done, distance)
        end = one.offset + one.size
        ranges += _clipped(image, border, end - border, following)
        done, distance = end, following
    return JoinedSource(path, [*ranges, *_clipped(image, done, file.size - done, distance)])


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
