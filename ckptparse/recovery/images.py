"""Lost tensors in any bytes at all: disk images, swap files, what a file rescuer brought up.

File systems place files, and the stretches of files, at multiples of 512 bytes, so a tensor lies
there at the same remainder as in its data file. A few tensors of each data file are sought, spread
over it, in pieces that overlap by as much as the largest needs; the others lie the same distance
away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ckptparse.crc.search import Registers
from ckptparse.examination.case import Case
from ckptparse.examination.check import check_stored
from ckptparse.examination.diagnose import Place, is_telling, moved
from ckptparse.examination.index_view import Stored
from ckptparse.problems import Cause, Status

__all__ = ["find_in_images"]

_STEP = 512
_PIECE = 1 << 26
_MOST_OVERLAP = 1 << 28
_MOST_SOUGHT = 16


def find_in_images(case: Case, paths: Iterable[str], places: dict[str, list[Place]]) -> None:
    """Look for what is lost in other files; add where it lies to `places`, by data file."""
    for path in paths:
        size = case.files.size(path)
        lost = list(_iter_lost(case, places))
        if not size or not lost:
            continue
        deltas: dict[tuple[str, int], int] = defaultdict(int)
        for stored, offset in _iter_hits(case, path, size, lost):
            deltas[stored.path, offset - stored.entry.offset] += 1
        positions = size // _STEP
        for (data_path, delta), hits in deltas.items():
            chance = positions / 2**32 if hits == 1 else 2**-32
            place = Place(path, delta, Cause.SHIFTED, f"found in {path}", chance)
            places.setdefault(data_path, []).append(_confirmed(case, place, data_path, lost))


def _iter_lost(case: Case, places: dict[str, list[Place]]) -> Iterator[Stored]:
    for assessed in case.tensors.values():
        for part in assessed.parts:
            stored = part.stored
            if stored is None or part.check.status in (Status.VERIFIED, Status.UNVERIFIED):
                continue
            known = places.get(stored.path, ())
            if not any(_fits(case, stored, place) for place in known):
                yield stored


def _iter_hits(
    case: Case, path: str, size: int, lost: Sequence[Stored]
) -> Iterator[tuple[Stored, int]]:
    """Iterate over the places where a lost payload lies in a file."""
    sought = _choose(lost)
    overlap = max((stored.entry.size for stored in sought), default=0)
    reader = case.files.source(path)
    for start in range(0, size, _PIECE):
        stop = min(size, start + _PIECE + overlap)
        data = memoryview(reader.read_at(start, stop - start))
        for remainder, group in _by_remainder(sought).items():
            registers = Registers(data[remainder:], step=_STEP)
            for stored in group:
                for offset in registers.find(stored.entry.size, stored.entry.crc32c):
                    if offset < _PIECE:
                        yield stored, start + remainder + offset


def _choose(lost: Sequence[Stored]) -> list[Stored]:
    """Choose payloads that are neither small nor constant, spread over what is lost."""
    good = [
        stored
        for stored in lost
        if _STEP <= stored.entry.size <= _MOST_OVERLAP and is_telling(stored)
    ]
    good.sort(key=lambda stored: (stored.path, stored.entry.offset))
    step = -(-len(good) // _MOST_SOUGHT) or 1
    return good[::step]


def _by_remainder(sought: Sequence[Stored]) -> dict[int, list[Stored]]:
    groups: dict[int, list[Stored]] = defaultdict(list)
    for stored in sought:
        groups[stored.entry.offset % _STEP].append(stored)
    return groups


def _confirmed(case: Case, place: Place, data_path: str, lost: Sequence[Stored]) -> Place:
    """Lower the chance of a place where two payloads at least lie at the same distance."""
    fitting = sum(stored.path == data_path and _fits(case, stored, place) for stored in lost)
    return replace(place, chance=2**-32) if fitting > 1 else place


def _fits(case: Case, stored: Stored, place: Place) -> bool:
    there = moved(stored, place)
    size = case.files.size(place.path)
    if size is None or there.entry.offset < 0 or there.entry.offset + there.entry.size > size:
        return False
    return check_stored(case.files, replace(there, proved=True)).status is Status.VERIFIED
