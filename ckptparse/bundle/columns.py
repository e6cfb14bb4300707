"""Entries of an index as columns: what many of them need in memory is a few arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ckptparse.bundle.entry import BundleEntry
from ckptparse.table.columns import IntColumn

__all__ = ["EntryColumns", "Shape"]

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EntryColumns:
    """Checked entries; row i of every column is one entry's field.

    Attributes:
        data_types, shard_ids, offsets, sizes, crcs: Shape (n,), int64; as in `BundleEntry`.
        shapes: As in `BundleEntry`.
        others: The rows with slices, as entries.
    """

    data_types: IntColumn
    shard_ids: IntColumn
    offsets: IntColumn
    sizes: IntColumn
    crcs: IntColumn
    shapes: list[Shape]
    others: dict[int, BundleEntry]

    def __len__(self) -> int:
        return len(self.shapes)

    def entry(self, row: int) -> BundleEntry:
        """Return one row as an entry."""
        other = self.others.get(row)
        if other is not None:
            return other
        return BundleEntry(
            int(self.data_types[row]),
            self.shapes[row],
            int(self.shard_ids[row]),
            int(self.offsets[row]),
            int(self.sizes[row]),
            int(self.crcs[row]),
        )

    def take(self, rows: Sequence[int]) -> EntryColumns:
        """Return some of the rows, in that order; none of them of `others`."""
        index = np.array(rows, np.intp)
        return EntryColumns(
            self.data_types[index],
            self.shard_ids[index],
            self.offsets[index],
            self.sizes[index],
            self.crcs[index],
            [self.shapes[row] for row in rows],
            {},
        )

    def part(self, low: int, high: int) -> EntryColumns:
        """Return rows `low` to `high`, as views."""
        others = self.others
        return EntryColumns(
            self.data_types[low:high],
            self.shard_ids[low:high],
            self.offsets[low:high],
            self.sizes[low:high],
            self.crcs[low:high],
            self.shapes[low:high],
            {row - low: others[row] for row in range(low, high) if row in others} if others else {},
        )

    @classmethod
    def of_entries(cls, entries: Sequence[BundleEntry]) -> EntryColumns:
        """Make columns of single entries."""
        return cls(
            np.array([entry.data_type for entry in entries], np.int64),
            np.array([entry.shard_id for entry in entries], np.int64),
            np.array([entry.offset for entry in entries], np.int64),
            np.array([entry.size for entry in entries], np.int64),
            np.array([entry.crc32c for entry in entries], np.int64),
            [entry.shape for entry in entries],
            {row: entry for row, entry in enumerate(entries) if entry.slices},
        )

    @classmethod
    def concatenate(cls, parts: Sequence[EntryColumns]) -> EntryColumns:
        """Join the columns of blocks, at least of one."""
        shapes: list[Shape] = []
        others: dict[int, BundleEntry] = {}
        for part in parts:
            others.update((len(shapes) + row, entry) for row, entry in part.others.items())
            shapes.extend(part.shapes)
        return cls(
            np.concatenate([part.data_types for part in parts]),
            np.concatenate([part.shard_ids for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.crcs for part in parts]),
            shapes,
            others,
        )
