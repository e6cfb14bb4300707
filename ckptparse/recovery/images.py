"""Find lost tensors in any bytes: disk images, swap files, files that a rescue program saved.

A file system places each part of a file at a multiple of 512 bytes. So a tensor's offset in an
image has the same remainder by 512 as its offset in the data file. A few tensors of each data file
are sought, spread over the file; the others are at the same distance. The image is searched in
pieces, which overlap by the size of the largest tensor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ckptparse.crc.windows import Wanted
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Case
from ckptparse.examination.payload import Payload
from ckptparse.examination.places import NO_CHANCE, Place, find_place, is_telling
from ckptparse.examination.readers import DataFile
from ckptparse.problems import Cause, EvidenceRule
from ckptparse.recovery.workers import Piece, Workers

__all__ = ["find_in_images"]

_STEP = 512
"""Bytes of a sector: file systems place the parts of a file at its multiples."""
_PIECE = 1 << 26
"""Bytes of an image that are searched at once. One register for each sector takes 0.5 MiB."""
_MOST_OVERLAP = 1 << 28
"""Bytes of the largest payload that is sought: a piece and its overlap are held in memory."""
_MOST_SOUGHT = 16
"""Payloads that are sought, spread over the file: parts of a sixteenth of it and more are found."""

Places = dict[DataFile, list[Place]]


def find_in_images(case: Case, paths: Iterable[str], places: Places, workers: Workers) -> Places:
    """Look for lost payloads in other files; return `places` with those found, by data file.

    Raises:
        StorageError: A worker failed.
        CheckpointError: One of the files cannot be opened.
    """
    found = defaultdict(list, {file: list(known) for file, known in places.items()})
    lost: list[Payload] | None = None
    for path in paths:
        file = DataFile(path)
        size = case.files.size(file)
        if size is None:
            raise case.files.failure(file) or CheckpointError("It cannot be opened", path=path)
        if lost is None:
            lost = list(_iter_lost(case, found))
            telling = _sort_telling(lost)
        if size and lost:
            hits = _iter_hits(case, file, size, telling, workers)
            added = _take(case, file, hits, lost, found)
            if added:
                lost = _still_lost(case, lost, added)
                telling = _still_lost(case, telling, added)
    return dict(found)


def _still_lost(case: Case, lost: Sequence[Payload], added: Places) -> list[Payload]:
    """Return which payloads are at none of the places that were added."""
    return [
        payload
        for payload in lost
        if find_place(case.files, added.get(payload.file, ()), payload) is None
    ]


def _take(
    case: Case,
    file: DataFile,
    hits: Iterable[tuple[Payload, int]],
    lost: Sequence[Payload],
    places: Places,
) -> Places:
    """Add the places of what was found; return them."""
    added: Places = defaultdict(list)
    deltas: dict[tuple[DataFile, int], int] = defaultdict(int)
    for payload, offset in hits:
        deltas[payload.file, offset - payload.offset] += 1
    positions = (case.files.size(file) or 0) // _STEP
    for (own, delta), count in deltas.items():
        chance = positions / 2**32 if count == 1 else NO_CHANCE
        what = f"finding it in {file.path}"
        place = Place(file, delta, Cause.SHIFTED, what, chance, EvidenceRule.IMAGE)
        added[own].append(_confirmed(case, place, own, lost))
        places[own].append(added[own][-1])
    return added


def _iter_lost(case: Case, places: Places) -> Iterator[Payload]:
    for part in case.iter_held():
        payload = part.payload
        if payload is None or not part.is_lost:
            continue
        if find_place(case.files, places.get(payload.file, ()), payload) is None:
            yield payload


def _iter_hits(
    case: Case, file: DataFile, size: int, telling: Sequence[Payload], workers: Workers
) -> Iterator[tuple[Payload, int]]:
    """Iterate over the offsets in a file where a lost payload is; some are sought."""
    sought = telling[:: -(-len(telling) // _MOST_SOUGHT) or 1]
    if not sought:
        return
    groups: dict[int, dict[Wanted, list[Payload]]] = defaultdict(lambda: defaultdict(list))
    for payload in sought:
        item = Wanted(payload.size, payload.crc32c or 0)
        groups[payload.offset % _STEP][item].append(payload)
    wanted = {remainder: tuple(group) for remainder, group in groups.items()}
    reach = _PIECE + max(payload.size for payload in sought)
    pieces = (
        Piece(start, min(reach, size - start), _PIECE, _STEP, wanted)
        for start in range(0, size, _PIECE)
    )
    for piece, found in workers.search(case.files.source(file), pieces, path=file.path):
        for (remainder, item), offsets in found.items():
            for payload in groups[remainder][item]:
                for offset in offsets:
                    yield payload, piece.start + offset


def _sort_telling(lost: Sequence[Payload]) -> list[Payload]:
    """Return lost payloads that are neither small nor constant, in the order of the files."""
    good = [
        payload
        for payload in lost
        if _STEP <= payload.size <= _MOST_OVERLAP and is_telling(payload)
    ]
    return sorted(good, key=lambda payload: (payload.file.path, payload.offset))


def _confirmed(case: Case, place: Place, own: DataFile, lost: Sequence[Payload]) -> Place:
    """Lower the chance of a place if at least two payloads are at the same distance."""
    mine = [payload for payload in lost if payload.file == own]
    fitting = sum(place.hold_each(case.files, mine))
    return replace(place, chance=NO_CHANCE) if fitting > 1 else place
