"""A table that lost the carriage returns before line feeds, as text mode takes them: put back.

The footer says how long the table was, so how many are lost is known. Each block has a checksum,
which tells before which line feeds they stood.

    ... 0d 0a ...   ->   ... 0a ...        `Returned` puts the carriage returns back
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

from ckptparse.coding.checksum import crc32c, mask_crc
from ckptparse.errors import CheckpointError
from ckptparse.examination.carving import fixed32
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.limits import Limits
from ckptparse.table.block import Block
from ckptparse.table.format import (
    FOOTER_SIZE,
    TRAILER_SIZE,
    BlockHandle,
    Footer,
    decompress_block,
    read_footer,
)

__all__ = ["Returned", "find_lost_returns"]

_MOST_BYTES = 1 << 22
"""Bytes of a table in which they are sought. One in 65,536 is lost, and few tables are as large."""
_MOST_LOST = 64
"""How many are put back at most: of more, a table has many blocks that lost two or three."""
_MOST_WORK = 1 << 30
"""Bytes whose checksums are computed, a quarter of a second. One loss in a block of n line feeds
takes n times the block, two take half of n squared times."""
_A_TRY = 1 << 14
"""What a try costs beside, in bytes: 3 µs."""


@dataclass(frozen=True, slots=True)
class Returned:
    """Opens a file with carriage returns put back before some line feeds."""

    places: tuple[int, ...]

    def __call__(self, source: Source) -> Source:
        """Open it."""
        letter = MemorySource(source.path, b"\r")
        ranges: list[Range] = []
        start = 0
        for place in self.places:
            ranges += [Range(source, start, place - start), Range(letter, 0, 1)]
            start = place
        return JoinedSource(source.path, [*ranges, Range(source, start, source.size - start)])


def find_lost_returns(source: Source, limits: Limits) -> tuple[int, ...] | None:
    """Return before which line feeds of a table carriage returns were; None if that is not so.

    All its blocks have their checksums with them. That this is chance is 1 in 2^32 for each that
    was tried.
    """
    if not FOOTER_SIZE <= source.size <= _MOST_BYTES:
        return None
    try:
        footer = read_footer(source)
        lost = footer.index.end + FOOTER_SIZE - source.size
        if not 0 < lost <= _MOST_LOST:
            return None
        return _Search(bytes(source.read_at(0, source.size)), limits, source.path).find(
            footer, lost
        )
    except CheckpointError:
        return None


class _Search:
    def __init__(self, data: bytes, limits: Limits, path: str) -> None:
        self._data = data
        self._limits = limits
        self._path = path
        self._left = _MOST_WORK

    def find(self, footer: Footer, lost: int) -> tuple[int, ...] | None:
        """Search all blocks in their order."""
        if b"\r\n" in self._data:
            return None
        index = footer.index
        # The index block is behind all others: what it lost itself is told first.
        ways = (self._restored(index, lost - inside, inside) for inside in range(lost + 1))
        last = next(filter(None, ways), None)
        if last is None:
            return None
        stored, behind = last
        found: list[int] = []
        for handle in sorted([*self._handles(stored, index), footer.metaindex]):
            restored = self._restored_in(handle, len(found), lost - len(behind) - len(found))
            if restored is None:
                return None
            found += restored
        return (*found, *behind) if len(found) + len(behind) == lost else None

    def _restored_in(self, handle: BlockHandle, before: int, most: int) -> list[int] | None:
        ways = (self._restored(handle, before, count) for count in range(most + 1))
        return next((places for _, places in filter(None, ways)), None)

    def _handles(self, stored: bytes, handle: BlockHandle) -> list[BlockHandle]:
        contents = decompress_block(
            stored[: handle.size],
            stored[handle.size],
            limits=self._limits,
            path=self._path,
            offset=handle.offset,
        )
        entries = Block.from_bytes(contents).decode_entries(limits=self._limits)
        values = zip(entries.starts, entries.ends, strict=True)
        return [BlockHandle.from_bytes(contents[start:stop])[0] for start, stop in values]

    def _restored(
        self, handle: BlockHandle, before: int, count: int
    ) -> tuple[bytes, list[int]] | None:
        """Return a block with so many carriage returns put back, and where; None if in vain.

        Args:
            handle: Where it was.
            before: How many were lost before it.
            count: How many were lost in it.
        """
        begin = handle.offset - before
        piece = self._data[begin : begin + handle.size + TRAILER_SIZE - count]
        if begin < 0 or len(piece) != handle.size + TRAILER_SIZE - count:
            return None
        # The line feed may be the first byte of the next block.
        stop = begin + len(piece) + 1
        feeds = [at for at, byte in enumerate(self._data[begin:stop]) if byte == 10 and count]
        for places in combinations(feeds, count):
            self._left -= len(piece) + _A_TRY
            if self._left < 0:
                return None
            edges = [0, *places, len(piece)]
            parts = (piece[start:stop] for start, stop in pairwise(edges))
            stored = b"\r".join(parts)
            covered = handle.size + 1
            if mask_crc(crc32c(stored[:covered])) == fixed32(stored, covered):
                return stored, [begin + place for place in places]
        return None
