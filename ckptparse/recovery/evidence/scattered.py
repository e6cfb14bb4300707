"""Put the tensors of a data file in order that lie in it end to end, but in another order.

What is known of the file's places leads to the others (`tiled`). All of them together are one more
place: the file as its index describes it, with nothing where no tensor was found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ckptparse.crc.flips import HIGHEST_CHANCE
from ckptparse.crc.windows import Wanted
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.recovery.evidence.fitting import Allowance
from ckptparse.recovery.evidence.tiled import Tiler

__all__ = ["Gathered", "find_scattered"]

_FEWEST = 2
"""Tensors that are worth a place of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Opens a file with its tensors where the index has them.

    Attributes:
        moves: Offset by the index, offset in the file, size; by the first.
        chance: Chance that any of them is something else.
    """

    moves: tuple[tuple[int, int, int], ...]
    chance: float

    def __call__(self, source: Source) -> Source:
        """Return the file in the order of the index."""
        return JoinedSource(source.path, list(self._iter_ranges(source)))

    def _iter_ranges(self, source: Source) -> Iterator[Range]:
        done = 0
        for target, offset, size in self.moves:
            # Entries of a damaged index may share bytes; each tensor was found whole.
            if target >= done:
                yield Range(None, 0, target - done)
                yield Range(source, offset, size)
                done = target + size


def find_scattered(
    source: Source,
    known: Iterable[tuple[int, int]],
    edges: Iterable[int],
    lost: Iterable[tuple[int, int, int]],
    allowance: Allowance,
) -> Gathered | None:
    """Find lost tensors beside known ones; None if there are not two.

    Args:
        source: The data file.
        known: Where tensors that are known begin and end in it.
        edges: Where others may begin.
        lost: Offset by the index, size and checksum of each that is lost.
        allowance: How much may be tried.
    """
    targets: dict[Wanted, list[int]] = defaultdict(list)
    for offset, size, crc in lost:
        targets[Wanted(size, crc)].append(offset)
    counts = {item: len(offsets) for item, offsets in targets.items()}
    tiler = Tiler(source, counts, known, HIGHEST_CHANCE / 4, allowance=allowance, edges=edges)
    moves: dict[int, tuple[int, int]] = {}
    for item, offset in tiler.find():
        for target in targets[item]:
            moves.setdefault(target, (offset, item.size))
    if len(moves) < _FEWEST:
        return None
    ordered = tuple((target, *there) for target, there in sorted(moves.items()))
    return Gathered(ordered, tiler.chance)
