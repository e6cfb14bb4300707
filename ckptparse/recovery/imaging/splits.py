"""What lies between the payloads that were found in an image: in two stretches, or more.

between    a payload in two stretches, each going on from a neighbour: every border is tried
one part   a payload of which one part goes on from a neighbour, and the other lies anywhere
gaps       a payload goes on behind bytes that are unlike weights (`stretches`)
anchors    of a stretch that holds no large payload as a whole, a small one tells the distance:
           then those around it lie in two stretches each
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from ckptparse.coding.checksum import combine_crc, crc_of_zeros
from ckptparse.crc.field import multiply, power_of_x
from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.crc.grid import FileRegisters, GridRegisters
from ckptparse.crc.search import find_splits
from ckptparse.crc.windows import Wanted
from ckptparse.files.storage import Source
from ckptparse.parallel import stream_crc
from ckptparse.recovery.evidence.bounds import Note, ignore
from ckptparse.recovery.imaging.pieces import DataFile, Piece, Placement
from ckptparse.recovery.imaging.stretches import Stretches

__all__ = [
    "SEGMENT",
    "DataFile",
    "Piece",
    "Placement",
    "Searches",
    "complete",
    "find_split",
    "lies_at",
    "near",
]

SEGMENT = 1 << 34
"""Bytes of an image whose registers are kept at one time."""
_MOST_ROUNDS = 64
"""Rounds in which what was found leads to more: each finds a payload at least, most find many."""
_LEAST = 16
"""Bytes of a payload that marks a place: shorter ones lie in many places."""
_LARGEST_SPLIT = 1 << 28
"""Bytes of a payload in two parts, both beside a neighbour: it is read twice into memory."""
_LARGEST_SEARCHED = 1 << 24
"""Bytes of a payload of which one part may lie anywhere: the work grows with the square."""
_MOST_ANCHORS = 32
"""Small payloads that are sought at one time: four of them cost a pass over the image."""
_MOST_HITS = 64
"""Places of one small payload that are looked at: constant ones lie everywhere."""
_MOST_PLACES = 8
"""Places within a block that one pass over the image seeks at: each needs registers of its own."""
_FREE_FAILURES = 64
_BYTES_A_FAILURE = 1 << 20
"""Payloads in one image, and for how many of its bytes there may be one more, of which the other
part is sought anywhere and not found: each costs two passes or more, 0.3 s for 100 MB."""
_PASSES = 4
"""Passes over the image for each of these: each place of its blocks takes one, and payloads that
are found need some, too."""
_MOST_PASSES, _PASSED_BYTES = 64, 1 << 29
"""Passes over an image of any size, and how many bytes more are passed over: more of them for each
of its bytes would take the square of its size. One takes 0.03 s for 100 MB, in all 2 s."""
_CHECKSUMS = 2**32
"""A place that is wrong more often than 1 in 1,000 is not taken for the right one."""


_LEFT = (
    "not all tensors of which one part lies apart were looked for in it, since others took as many "
    "searches as its size allows (name a smaller image, or the files in it)"
)


class Searches:
    """Searches of a whole image for the other part of a payload: how many, and what they share."""

    __slots__ = ("_block", "_left", "_note", "_passes", "_registers", "image")

    def __init__(self, image: Source, block: int, note: Note = ignore) -> None:
        """Take the image and the size of its blocks; `note` is told if no more are allowed."""
        self.image = image
        self._block = block
        self._note = note
        self._left = _FREE_FAILURES + image.size // _BYTES_A_FAILURE
        most = _MOST_PASSES + _PASSED_BYTES // max(1, image.size)
        self._passes = min(_PASSES * self._left, most)
        self._registers = FileRegisters(image.read_into, image.size, block)

    def may_begin(self) -> bool:
        """Tell whether one more search is allowed."""
        if self._left <= 0:
            self._note(_LEFT)
        return self._left > 0

    def note_failure(self) -> None:
        """Count a search that found nothing."""
        self._left -= 1

    def find_one(self, wanted: Mapping[Wanted, int], offset: int) -> list[tuple[int, int]]:
        """Return where the one run that is there at all lies, and its split; else nothing.

        It begins at the place of a block that the offset in its file says.
        """
        place = offset % self._block
        ends = {(place + item.size) % self._block for item in wanted}
        passes = self._registers.lacks({place, *ends})
        if passes > self._passes:
            self._note(_LEFT)
            return []
        self._passes -= passes
        hits = [
            (offset, wanted[item])
            for item, offsets in self._registers.find_each(wanted, place=place).items()
            for offset in offsets
        ]
        return hits if len(hits) == 1 else []


def complete(
    image: Source,
    file: DataFile,
    placements: Iterable[Placement],
    block: int,
    stretches: Stretches | None = None,
    *,
    searches: Searches | None = None,
) -> list[Placement]:
    """Find what lies beside what has been found, or goes on behind a gap.

    Args:
        image: The image.
        file: What belongs into the data file.
        placements: What has been found.
        block: The size of a block.
        stretches: The gaps of the image, if they are known already.
        searches: Those for other data files in the image.

    Returns:
        What is proved, by offset: placements of whole payloads, or of their two parts.
    """
    proved = sorted(placements)
    sought: set[Piece] = set()
    gaps = stretches or Stretches(image, block)
    shared = searches or Searches(image, block)

    def behind(_: Source, piece: Piece, these: Sequence[Placement], size: int) -> list[Placement]:
        return _find_behind(gaps, piece, these, size)

    between = _once(_find_between)
    elsewhere = _once(partial(_find_other_part, searches=shared))
    for _ in range(_MOST_ROUNDS):
        before = len(proved)
        for find in (between, elsewhere):
            proved = _with_found(image, file, proved, block, find)
            # What has just been found is a neighbour for the quicker search.
            if len(proved) > before:
                break
        if len(proved) == before:
            proved = _with_anchors(image, file, proved, block, sought)
        if len(proved) == before:
            proved = _with_found(image, file, proved, block, behind)
        if len(proved) == before:
            break
    return proved


_Find = Callable[[Source, Piece, Sequence[Placement], int], list[Placement]]


def _once(find: _Find) -> _Find:
    """Return a search that is not tried again in vain while what lies around is the same."""
    tried: set[tuple[int, int | None, int | None]] = set()

    def found_by(
        image: Source, piece: Piece, proved: Sequence[Placement], block: int
    ) -> list[Placement]:
        number = bisect_left(proved, (piece.offset,))
        sides = (proved[number - 1] if number else None, *proved[number : number + 1], None)[:2]
        before, after = (None if one is None else one.position - one.offset for one in sides)
        key = piece.offset, before, after
        found = [] if key in tried else find(image, piece, proved, block)
        if not found:
            tried.add(key)
        return found

    return found_by


def near(placements: Sequence[Placement], offset: int) -> list[int]:
    """Return the distances, from file to image, of what lies before and after an offset."""
    number = bisect_left(placements, (offset,))
    near = placements[max(0, number - 1) : number + 1]
    return list(dict.fromkeys(one.position - one.offset for one in near))


def lies_at(image: Source, piece: Piece, position: int) -> bool:
    """Tell whether a payload lies there."""
    if position < 0 or position + piece.size > image.size:
        return False
    return stream_crc(image.read_at, position, piece.size) == piece.crc


def _with_found(
    image: Source,
    file: DataFile,
    proved: list[Placement],
    block: int,
    find: _Find,
) -> list[Placement]:
    """Add what a search finds of the payloads that are still missing."""
    known = {one.offset for one in proved if one.size}
    for piece in file.pieces:
        if piece.offset not in known and piece.size:
            found = find(image, piece, proved, block)
            proved = sorted([*proved, *found]) if found else proved
    return proved


def _with_anchors(
    image: Source, file: DataFile, proved: list[Placement], block: int, sought: set[Piece]
) -> list[Placement]:
    """Add small payloads that lie beside missing ones, wherever they are; each is sought once."""
    small = [piece for piece in _between_missing(file, proved, block) if piece not in sought]
    chosen = sorted(small, key=lambda piece: -piece.size)[:_MOST_ANCHORS]
    sought.update(chosen)
    for piece, positions in _search_small(image, chosen, block):
        for position in positions[:_MOST_HITS]:
            anchor = Placement(piece.offset, piece.size, position)
            trial = sorted([*proved, anchor])
            found = _confirming(image, file, trial, anchor, block)
            # One place of its own is proved by its checksum if few others were tried.
            alone = len(positions) == 1 and image.size // block <= HIGHEST_CHANCE * _CHECKSUMS
            if found or alone:
                proved = sorted([*trial, *found])
                break
    return proved


def _between_missing(file: DataFile, proved: Sequence[Placement], block: int) -> list[Piece]:
    """Return the small payloads that are missing, and have a missing neighbour that is larger."""
    known = {one.offset for one in proved}
    missing = [piece for piece in file.pieces if piece.size and piece.offset not in known]
    found = []
    for number, piece in enumerate(missing):
        beside = missing[max(0, number - 1) : number + 2]
        telling = _LEAST <= piece.size < block and piece.crc != crc_of_zeros(piece.size)
        if telling and any(one.size > piece.size for one in beside):
            found.append(piece)
    return found


def _search_small(
    image: Source, pieces: Sequence[Piece], block: int
) -> list[tuple[Piece, list[int]]]:
    """Return where small payloads lie, at their own places of a block; a few in each pass."""
    found: list[tuple[Piece, list[int]]] = []
    waiting = list(pieces) if image.size <= SEGMENT else []
    while waiting:
        places: set[int] = set()
        these: list[Piece] = []
        for piece in list(waiting):
            more = places | {piece.offset % block, (piece.offset + piece.size) % block}
            if len(more) <= _MOST_PLACES:
                places = more
                these.append(piece)
                waiting.remove(piece)
        registers = _grid(image, block, places)
        for piece in these:
            wanted = Wanted(piece.size, piece.crc)
            hits = registers.find_each([wanted], place=piece.offset % block)[wanted]
            if hits:
                found.append((piece, hits))
    return found


def _confirming(
    image: Source, file: DataFile, trial: Sequence[Placement], anchor: Placement, block: int
) -> list[Placement]:
    """Return what of the nearest missing payloads lies between an anchor and what is known."""
    known = {one.offset for one in trial}
    missing = [piece for piece in file.pieces if piece.size and piece.offset not in known]
    number = bisect_left(missing, (anchor.offset,))
    found: list[Placement] = []
    for piece in missing[max(0, number - 1) : number + 1]:
        found += _find_between(image, piece, trial, block)
    return found


def _find_between(
    image: Source, piece: Piece, proved: Sequence[Placement], block: int
) -> list[Placement]:
    distances = near(proved, piece.offset)
    for distance in distances:
        if lies_at(image, piece, piece.offset + distance):
            return [Placement(piece.offset, piece.size, piece.offset + distance)]
    if len(distances) < 2:
        return []
    start, end = piece.offset + distances[0], piece.offset + piece.size + distances[1]
    return find_split(image, piece, (start, end), block)


def find_split(image: Source, piece: Piece, span: tuple[int, int], block: int) -> list[Placement]:
    """Return the two parts of a payload that begins and ends at these places of an image.

    There are none if no border of a block makes its checksum right, or if several do that give
    different bytes.
    """
    chance = piece.size / block / _CHECKSUMS
    if piece.size > _LARGEST_SPLIT or chance > HIGHEST_CHANCE:
        return []
    start, end = span
    head = _read(image, start, min(start + piece.size, image.size))
    tail = _read(image, max(0, end - piece.size), end)
    border = -piece.offset % block
    splits = find_splits(head, tail, piece.crc, piece.size, step=block, first=border)
    if not splits:
        return []
    split, last = splits[0], splits[-1]
    # Of a tail that was cut off at the image's start, its own bytes count from there.
    ahead = piece.size - len(tail)
    if split < last and head[split:last] != tail[split - ahead : last - ahead]:
        return []
    return [
        Placement(piece.offset, split, start),
        Placement(piece.offset + split, piece.size - split, end - (piece.size - split)),
    ]


def _find_behind(
    stretches: Stretches, piece: Piece, proved: Sequence[Placement], block: int
) -> list[Placement]:
    """Find a payload that goes on from a neighbour, behind gaps of any size."""
    if piece.size < block:
        return []
    number = bisect_left(proved, (piece.offset,))
    if number < len(proved):
        after = proved[number]
        beside = after.offset - piece.offset - piece.size
        # Farther away, a gap may lie between them.
        if 0 <= beside < block:
            found = stretches.find(piece, after.position - beside, forward=False)
            if found:
                return found
    if number:
        before = proved[number - 1]
        beside = piece.offset - before.offset - before.size
        if 0 <= beside < block:
            return stretches.find(piece, before.position + before.size + beside, forward=True)
    return []


def _find_other_part(
    image: Source, piece: Piece, proved: Sequence[Placement], block: int, *, searches: Searches
) -> list[Placement]:
    """Find a payload of which one part goes on from its neighbour, and the other lies anywhere."""
    splits = range(-piece.offset % block or block, piece.size, block)
    positions = image.size // block
    small = piece.size <= _LARGEST_SEARCHED and image.size <= SEGMENT
    if not small or 2 * len(splits) * positions > HIGHEST_CHANCE * _CHECKSUMS:
        return []
    if not splits or not searches.may_begin():
        return []
    number = bisect_left(proved, (piece.offset,))
    found: list[Placement] = []
    if number < len(proved):
        after = proved[number].position - proved[number].offset
        end = piece.offset + piece.size + after
        found = _find_head(piece, splits, end, searches)
    if number and not found:
        before = proved[number - 1].position - proved[number - 1].offset
        found = _find_tail(piece, splits, piece.offset + before, searches)
    if not found:
        searches.note_failure()
    return found


def _find_head(piece: Piece, splits: range, end: int, searches: Searches) -> list[Placement]:
    """Find the first part of a payload whose last part ends there."""
    wanted: dict[Wanted, int] = {}
    for split in splits:
        rest = piece.size - split
        if end - rest >= 0 and end <= searches.image.size:
            tail = stream_crc(searches.image.read_at, end - rest, rest)
            wanted[Wanted(split, multiply(piece.crc ^ tail, power_of_x(-8 * rest)))] = split
    for position, split in searches.find_one(wanted, piece.offset):
        rest = piece.size - split
        return [
            Placement(piece.offset, split, position),
            Placement(piece.offset + split, rest, end - rest),
        ]
    return []


def _find_tail(piece: Piece, splits: range, start: int, searches: Searches) -> list[Placement]:
    """Find the last part of a payload whose first part begins there."""
    wanted: dict[Wanted, int] = {}
    for split in splits:
        if start >= 0 and start + split <= searches.image.size:
            head = stream_crc(searches.image.read_at, start, split)
            rest = piece.size - split
            wanted[Wanted(rest, piece.crc ^ combine_crc(head, 0, rest))] = split
    for position, split in searches.find_one(wanted, 0):
        return [
            Placement(piece.offset, split, start),
            Placement(piece.offset + split, piece.size - split, position),
        ]
    return []


def _read(image: Source, start: int, stop: int) -> bytes:
    low, high = max(0, start), min(stop, image.size)
    return image.read_at(low, high - low) if low == start and high > low else b""


def _grid(image: Source, block: int, places: Iterable[int]) -> GridRegisters:
    registers = GridRegisters(block, places)
    registers.extend_from(image.read_into, 0, image.size)
    return registers
