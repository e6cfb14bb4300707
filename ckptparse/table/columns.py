"""Entries of a table as columns: what many of them need in memory is a few arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

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

    def without_values(self) -> TableColumns:
        """Return the keys alone; no value can be asked for."""
        none = self.starts[:0]
        return TableColumns(b"", self.keys, self.key_ends, none, none, self.block_ends)

    def part(self, low: int, high: int) -> TableColumns:
        """Return rows `low` to `high`, with bytes of their own, as one block."""
        if low == high:
            none = self.starts[:0]
            return TableColumns(b"", b"", none, none, none, [0])
        start, stop = int(self.starts[low]), int(self.ends[high - 1])
        first, last = int(self.key_ends[low - 1]) + 1 if low else 0, int(self.key_ends[high - 1])
        return TableColumns(
            self.contents[start:stop],
            self.keys[first : last + 1],
            self.key_ends[low:high] - first,
            self.starts[low:high] - start,
            self.ends[low:high] - start,
            [high - low],
        )

    def split(self) -> list[TableColumns]:
        """Return each block by itself."""
        return [self.part(low, high) for low, high in pairwise([0, *self.block_ends])]

    @classmethod
    def concatenate(cls, parts: Sequence[TableColumns]) -> TableColumns:
        """Join columns, at least one."""
        counts = [len(part) for part in parts]

        def moved(columns: Sequence[IntColumn], sizes: Sequence[int]) -> IntColumn:
            bases = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
            return np.concatenate(columns) + np.repeat(bases, counts)

        contents = [len(part.contents) for part in parts]
        ends = zip(accumulate(counts), parts, strict=True)
        return cls(
            b"".join(part.contents for part in parts),
            b"".join(part.keys for part in parts),
            moved([part.key_ends for part in parts], [len(part.keys) for part in parts]),
            moved([part.starts for part in parts], contents),
            moved([part.ends for part in parts], contents),
            [end - len(part) + one for end, part in ends for one in part.block_ends],
        )

    @classmethod
    def of_blocks(cls, blocks: Sequence[BlockEntries]) -> TableColumns:
        """Make columns of blocks that were decoded one by one."""
        keys = list(chain.from_iterable(block.keys for block in blocks))
        counts = [len(block.keys) for block in blocks]
        bases = np.cumsum([0, *(len(block.contents) for block in blocks)], dtype=np.int64)
        bases = np.repeat(bases[:-1], counts)

        def column(parts: Iterable[Iterable[int]]) -> IntColumn:
            return np.fromiter(chain.from_iterable(parts), np.int64, len(keys))

        return cls(
            b"".join(block.contents for block in blocks),
            b"\x00".join([*keys, b""]),
            np.cumsum(column([map(len, keys)]) + 1) - 1,
            column(block.starts for block in blocks) + bases,
            column(block.ends for block in blocks) + bases,
            np.cumsum(counts, dtype=np.int64).tolist(),
        )
