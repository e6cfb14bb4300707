"""Entries of a table as columns: what many of them need in memory is a few arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckptparse.table.block import BlockEntries

__all__ = ["IntColumn", "TableColumns"]

IntColumn = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Entries of a table, as columns; entry i's value is `contents[starts[i]:ends[i]]`.

    Attributes:
        contents: The blocks, one after another.
        keys: Every key, each followed by one zero byte.
        key_ends: Shape (n,): where each key ends in `keys`.
        starts, ends: Shape (n,): where each value is in `contents`, in bytes.
        block_ends: For each block the number of entries up to its end.
    """

    contents: bytes
    keys: bytes
    key_ends: IntColumn
    starts: IntColumn
    ends: IntColumn
    block_ends: list[int]

    def __len__(self) -> int:
        return len(self.key_ends)

    def key(self, row: int) -> bytes:
        """Return one key."""
        start = int(self.key_ends[row - 1]) + 1 if row else 0
        return self.keys[start : int(self.key_ends[row])]

    def value(self, row: int) -> bytes:
        """Return one value."""
        return self.contents[int(self.starts[row]) : int(self.ends[row])]

    @classmethod
    def of_blocks(cls, blocks: Sequence[BlockEntries]) -> TableColumns:
        """Make columns of blocks that were decoded one by one."""
        keys = [key for block in blocks for key in block.keys]
        bases = np.cumsum([0, *(len(block.contents) for block in blocks)]).tolist()
        counts = [len(block.keys) for block in blocks]
        placed = list(zip(bases, blocks, strict=False))
        lengths = np.array([len(key) for key in keys], np.int64)
        return cls(
            b"".join(block.contents for block in blocks),
            b"".join(key + b"\x00" for key in keys),
            np.cumsum(lengths + 1) - 1,
            np.array([base + at for base, block in placed for at in block.starts], np.int64),
            np.array([base + at for base, block in placed for at in block.ends], np.int64),
            np.cumsum(counts).tolist(),
        )
