"""Find runs of bytes of given sizes and checksums in files of any kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptparse.crc.windows import Wanted
from ckptparse.files.storage import Source
from ckptparse.limits import Limits
from ckptparse.parallel import stream_crc
from ckptparse.recovery.evidence.containers import iter_candidates, iter_parts
from ckptparse.recovery.workers import CALLER, Piece, Workers

__all__ = ["Match", "find_everywhere", "find_payloads"]

_PIECE = 1 << 25
"""Bytes that are searched at once; their registers take as much memory again."""
_LARGEST = 1 << 28
"""Bytes of the largest run that is sought anywhere: pieces overlap by its size, in memory."""
_TINY = 16
"""Runs of fewer bytes are not sought. They are steps, flags and rates, equal bytes are everywhere,
and up to 4 bytes follow from the checksum alone."""
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


def find_payloads(source: Source, wanted: Iterable[Wanted], *, limits: Limits) -> Iterator[Match]:
    """Find runs at the places that a container names, each once.

    Args:
        source: The file.
        wanted: The runs. Those of fewer than 16 bytes are not sought.
        limits: Bounds on what is unpacked.
    """
    left = _by_size(wanted)
    tried = 0
    for part in iter_parts(source, limits=limits):
        seen: set[tuple[int, int]] = set()
        for offset, size in iter_candidates(part, left.keys()):
            crcs = left.get(size)
            if not crcs or (offset, size) in seen or offset + size > part.size:
                continue
            seen.add((offset, size))
            tried += 1
            crc = stream_crc(part.read_at, offset, size)
            if crc in crcs:
                crcs.discard(crc)
                yield Match(Wanted(size, crc), part, offset, tried * (len(crcs) + 1) / _CHECKSUMS)
        if not any(left.values()):
            return


def find_everywhere(
    source: Source,
    wanted: Iterable[Wanted],
    *,
    step: int = 4,
    limits: Limits,
    workers: Workers = CALLER,
) -> Iterator[Match]:
    """Find runs at the multiples of `step`, each once. Archives are unpacked first.

    Args:
        source: The file.
        wanted: The runs. Those of fewer than 16 bytes or more than 256 MiB are not sought.
        step: 4, or a multiple of 256.
        limits: Bounds on what is unpacked.
        workers: Who searches. What was unpacked is searched by the caller.
    """
    left = _by_size(wanted)
    for part in iter_parts(source, limits=limits):
        sizes = [size for size, crcs in left.items() if crcs and size <= min(part.size, _LARGEST)]
        if not sizes:
            continue
        positions = part.size // step
        path = source.path if part is source else None
        for piece, found in workers.search(part, _iter_pieces(part, sizes, left, step), path=path):
            # What was found in an earlier piece is not sought any more.
            count = sum(len(left[size]) for size in sizes)
            chance = min(1.0, positions * count / _CHECKSUMS)
            for (_, item), offsets in found.items():
                if offsets and item.crc in left[item.size]:
                    left[item.size].discard(item.crc)
                    yield Match(item, part, piece.start + offsets[0], chance)


def _iter_pieces(
    part: Source, sizes: Sequence[int], left: Mapping[int, set[int]], step: int
) -> Iterator[Piece]:
    """Iterate over the pieces of a file, each with what is left to be sought in it."""
    # Pieces overlap by the largest run: a piece is a quarter of it at least, so that all of them
    # together read no more than five times the bytes.
    piece = max(_PIECE, max(sizes) // 4)
    for start in range(0, part.size, piece):
        items = tuple(Wanted(size, crc) for size in sizes for crc in sorted(left[size]))
        if not items:
            return
        size = min(piece + max(sizes), part.size - start)
        yield Piece(start, size, piece, step, {0: items})


def _by_size(wanted: Iterable[Wanted]) -> Mapping[int, set[int]]:
    sizes: dict[int, set[int]] = defaultdict(set)
    for item in wanted:
        if item.size >= _TINY:
            sizes[item.size].add(item.crc)
    return dict(sizes)
