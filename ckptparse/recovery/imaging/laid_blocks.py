"""Where the blocks of a table lie in an image, as far as that is known.

A *distance* is that from an offset in the file to the place in the image.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ckptparse.coding.checksum import unmask_crc
from ckptparse.examination.carving import fixed32
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.parallel import stream_crc
from ckptparse.recovery.imaging.block_starts import BlockStart, may_begin
from ckptparse.recovery.imaging.pieces import Placement
from ckptparse.recovery.imaging.tables import FoundTable
from ckptparse.table.format import TRAILER_SIZE, BlockHandle, Compression

__all__ = ["LaidBlocks", "distance_of", "is_whole", "merged", "open_parts", "placed", "stored_crc"]

_LEGACY, _LAST_LEGACY = b"\0", b"\1"
"""How every key of a V1 file but the first begins (section 3.2), and what its index block has for
the last one."""
_KINDS = frozenset(Compression)


@dataclass(slots=True)
class LaidBlocks:
    """Where the blocks of one table lie."""

    table: FoundTable
    handles: Sequence[BlockHandle]
    """The data blocks, then the metaindex block."""
    starts: Sequence[BlockStart]
    """Of the data blocks."""
    last: list[Placement]
    """The index block, and the footer behind it."""
    whole: dict[int, int] = field(default_factory=dict)
    """Whole blocks, each with its distance."""
    split: dict[int, list[Placement]] = field(default_factory=dict)
    """Blocks in two parts."""
    beside: set[int] = field(default_factory=set)
    """Blocks that are whole if they lie in the last part, too. It may begin behind them."""
    damaged: set[int] = field(default_factory=set)
    """Blocks that begin there but are not whole."""
    sought: set[int] = field(default_factory=set)
    distances: Counter[int] = field(default_factory=Counter)
    """Those at which blocks that were sought may begin, and how many of them."""
    likely: list[int] = field(default_factory=list)
    """The most common of these."""
    tried: set[tuple[int, int, bool]] = field(default_factory=set)
    """Blocks, each with the distance of what follows, whose first part was not found."""
    untied: list[int] = field(default_factory=list)
    """Where blocks begin that nothing ties to the block before."""

    @property
    def own(self) -> int:
        """The distance of the last part."""
        return self.table.start

    @property
    def legacy(self) -> bool:
        """Whether its keys are those of a V1 file."""
        return any(start.last.startswith((_LEGACY, _LAST_LEGACY)) for start in self.starts)

    def knows(self, number: int) -> bool:
        """Tell whether a block was found."""
        return number in self.whole or number in self.split

    def missing(self) -> list[int]:
        """Return the blocks that were not found, the last one first."""
        return [n for n in reversed(range(len(self.handles))) if not self.knows(n)]

    def before(self, number: int) -> int | None:
        """Return the distance of the end of the block before one; None if it was not found."""
        parts = self.split.get(number - 1)
        return self.whole.get(number - 1) if parts is None else distance_of(parts[-1])

    def behind(self, number: int) -> int | None:
        """Return the distance of what follows a block; None if it was not found."""
        if number + 1 == len(self.handles):
            return distance_of(self.last[0])
        parts = self.split.get(number + 1)
        return self.whole.get(number + 1) if parts is None else distance_of(parts[0])

    def begins(self, image: Source, number: int, distance: int) -> bool:
        """Tell whether a data block may begin at a distance."""
        if number >= len(self.starts):
            return False
        start = self.starts[number]
        return may_begin(image, start.offset + distance, start)

    def unsought(self) -> list[int]:
        """Return missing data blocks that may begin elsewhere and were not sought, the last first.

        One that begins at the distance of the last part, and is not whole there, is damaged. But
        before the last of these, another save of the model may lie in the place of this one.
        """
        missing = [n for n in self.missing() if n < len(self.starts)]
        known = self.sought | self.beside | self.damaged.difference(missing[:1])
        return [n for n in missing if n not in known]

    def add_places(self, start: BlockStart, places: Sequence[int], most: int) -> None:
        """Add those of the places at which a block may begin that are nearest to the last part.

        Args:
            start: The block.
            places: The places in the image, in order.
            most: How many are added.
        """
        middle = bisect_left(places, start.offset + self.own)
        low = max(0, min(middle - most // 2, len(places) - most))
        self.distances.update(place - start.offset for place in places[low : low + most])

    def contradicts(self, run: Sequence[int], first: int, last: int, block: int) -> bool:
        """Tell whether a run of blocks shares a block of the image with others that lie elsewhere.

        Args:
            run: The numbers of the blocks, in order.
            first: The distance at which the run begins.
            last: The distance at which it ends.
            block: Bytes of a block of the image.
        """
        before, behind = self.before(run[0]), self.behind(run[-1])
        start, end = self.handles[run[0]].offset, self.handles[run[-1]].end
        return (start % block > 0 and before not in (None, first)) or (
            end % block > 0 and behind not in (None, last)
        )

    def around(self, number: int) -> tuple[int | None, int]:
        """Return the distances of what was found nearest before a block, and nearest behind it."""
        known = sorted({*self.whole, *self.split})
        place = bisect_left(known, number)
        before = self.before(known[place - 1] + 1) if place else None
        behind = self.behind(known[place] - 1) if place < len(known) else None
        return before, distance_of(self.last[0]) if behind is None else behind


def placed(start: int, stop: int, distance: int) -> Placement:
    """Return where the bytes of a file from `start` to `stop` lie at a distance."""
    return Placement(start, stop - start, start + distance)


def distance_of(one: Placement) -> int:
    """Return the distance of some bytes."""
    return one.position - one.offset


def merged(parts: Iterable[Placement]) -> list[Placement]:
    """Join those that lie end to end, in the file and in the image."""
    found: list[Placement] = []
    for one in parts:
        last = found[-1] if found else Placement(-1, 0, -1)
        if last.offset + last.size == one.offset and distance_of(last) == distance_of(one):
            found[-1] = last._replace(size=last.size + one.size)
        else:
            found.append(one)
    return found


def open_parts(image: Source, parts: Iterable[Placement]) -> JoinedSource:
    """Return parts of a file that follow each other as one source."""
    return JoinedSource(image.path, [Range(image, one.position, one.size) for one in parts])


def is_whole(source: Source, position: int, size: int) -> bool:
    """Tell whether a block with its trailer is whole at a place."""
    crc = stored_crc(source, position, size) if position >= 0 else None
    return crc is not None and stream_crc(source.read_at, position, size + 1) == crc


def stored_crc(source: Source, position: int, size: int) -> int | None:
    """Return the checksum behind a block that begins at a place; None if there is no trailer."""
    start = position + size
    if not 0 <= start <= source.size - TRAILER_SIZE:
        return None
    trailer = source.read_at(start, TRAILER_SIZE)
    return unmask_crc(fixed32(trailer, 1)) if trailer[0] in _KINDS else None
