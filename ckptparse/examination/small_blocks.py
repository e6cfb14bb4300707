"""Decode the small blocks of an index many at a time.

Real indexes have few blocks. If one has thousands, what surrounds each takes longer than its
entries.
"""

from __future__ import annotations

from collections.abc import Sequence

from ckptparse.errors import CheckpointError
from ckptparse.examination.salvaged import SalvagedBlock
from ckptparse.examination.salvaged_blocks import TableLook
from ckptparse.table.block import Block, BlockEntries
from ckptparse.table.columns import TableColumns

__all__ = ["SmallBlocks"]

_SMALL = 32 << 10
"""Bytes of a small block at most."""
_TOGETHER = 1 << 20
"""Bytes of blocks that are decoded together, or little more."""


class SmallBlocks:
    """The entries of those blocks of a table that are small and proved."""

    def __init__(self, look: TableLook, places: Sequence[SalvagedBlock]) -> None:
        """Take a table and its blocks, in order."""
        self._look = look
        self._places = places
        self._known: dict[int, TableColumns] = {}
        self._end = 0

    def columns(self, number: int) -> TableColumns | None:
        """Return the entries of a block, asked for in order; None if they are to be decoded alone.

        That is if it is large or the only one, or breaks a rule.
        """
        if number >= self._end and len(self._places) > 1:
            self._decode_from(number)
        return self._known.pop(number, None)

    def _decode_from(self, number: int) -> None:
        numbers: list[int] = []
        blocks: list[BlockEntries] = []
        size = 0
        while number < len(self._places) and size < _TOGETHER:
            entries = self._decode(self._places[number])
            if entries is not None:
                numbers.append(number)
                blocks.append(entries)
                size += len(entries.contents)
            number += 1
        self._end = number
        if blocks:
            parts = TableColumns.of_blocks(blocks).split()
            self._known = dict(zip(numbers, parts, strict=True))

    def _decode(self, place: SalvagedBlock) -> BlockEntries | None:
        if not place.proved or place.size > _SMALL:
            return None
        try:
            contents = self._look.decompressed(place)
            if len(contents) > _SMALL:
                return None
            block = Block.from_bytes(contents)
            entries = block.decode_entries(limits=self._look.limits)
        except CheckpointError:
            return None  # What is wrong with it is told when its turn comes.
        self._look.runs.take(block, len(entries.keys))
        return entries
