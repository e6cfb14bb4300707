"""Runs of bytes of given sizes and checksums, found in files of any kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckptparse.crc.search import Registers, Wanted
from ckptparse.files.storage import Source
from ckptparse.limits import Limits
from ckptparse.parallel import stream_crc
from ckptparse.recovery.evidence.containers import iter_candidates, iter_parts

__all__ = ["Match", "find_everywhere", "find_payloads"]

_PIECE = 1 << 25
_LARGEST = 1 << 28
_TINY = 16
"""Runs of fewer bytes lie everywhere, and prove nothing where they are found."""
_CHECKSUMS = 2**32


@dataclass(frozen=True, slots=True)
class Match:
    """A run of bytes that was found."""

    wanted: Wanted
    source: Source
    """The file, or the part of an archive, that holds it."""
    offset: int
    """In that source."""
    chance: float
    """Chance that other bytes have that checksum: how many places were tried, / 2^32."""


def find_payloads(source: Source, wanted: Iterable[Wanted], *, limits: Limits) -> Iterator[Match]:
    """Find runs at places that the container names, each once.

    Args:
        source: The file.
        wanted: What is sought; runs of fewer than 16 bytes are not.
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
    source: Source, wanted: Iterable[Wanted], *, step: int = 4, limits: Limits
) -> Iterator[Match]:
    """Find runs at every multiple of `step`, each once; archives are unpacked first.

    Takes about 5 s a GB for ten sizes at 4-byte steps.

    Args:
        source: The file.
        wanted: What is sought; runs of fewer than 16 bytes, or more than 256 MiB, are not.
        step: 4, or a multiple of 256.
        limits: Bounds on what is unpacked.
    """
    left = _by_size(wanted)
    for part in iter_parts(source, limits=limits):
        sizes = [size for size, crcs in left.items() if crcs and size <= min(part.size, _LARGEST)]
        overlap = max(sizes, default=0)
        positions = part.size // step
        for start in range(0, part.size if sizes else 0, _PIECE):
            items = [Wanted(size, crc) for size in sizes for crc in left[size]]
            data = part.read_at(start, min(_PIECE + overlap, part.size - start))
            found = Registers(data, step=step).find_each(items)
            for item, offsets in found.items():
                if offsets and offsets[0] < _PIECE:
                    left[item.size].discard(item.crc)
                    chance = positions * len(items) / _CHECKSUMS
                    yield Match(item, part, start + offsets[0], min(1.0, chance))


def _by_size(wanted: Iterable[Wanted]) -> Mapping[int, set[int]]:
    sizes: dict[int, set[int]] = defaultdict(set)
    for item in wanted:
        if item.size >= _TINY:
            sizes[item.size].add(item.crc)
    return dict(sizes)
