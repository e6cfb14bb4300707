"""Tensors that share bytes of a data file, of which no writer makes any.

    data file    |   a   |
                     |   b   |
                       | c |           a run: it is read once, and each tensor gets a copy

In an arena each would be a stretch by itself, since arrays do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.arena import DenseRows
from ckptparse.coding.checksum import crc32c
from ckptparse.table.columns import IntColumn

__all__ = ["Sharing", "compute_crcs", "find_sharing"]

_MOST_COPIED = 1 << 20
"""Bytes of a tensor that is copied at most: of a larger one, reading it again takes no longer."""
_MOST_PLACES = 1 << 62
"""Up to here, places in all data files together are whole numbers of 64 bits."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Rows that share bytes, and the others.

    Attributes:
        apart, shared: Places of rows, rising: those that are alone, or large; and those that share.
        runs: What is read for those that share, a row for each run.
        bounds: Shape (runs + 1,): of `shared`, where each run begins, and where the last ends.
    """

    apart: npt.NDArray[np.intp]
    shared: npt.NDArray[np.intp]
    runs: DenseRows
    bounds: npt.NDArray[np.intp]


def find_sharing(rows: DenseRows) -> Sharing | None:
    """Find the small rows that share bytes with each other; None if there are none."""
    ends = rows.offsets + rows.sizes
    is_next = np.diff(rows.shard_ids) == 0
    if not (is_next & (rows.offsets[1:] < ends[:-1])).any():
        return None
    small = np.flatnonzero(rows.sizes <= _MOST_COPIED)
    bases = _lay_out(rows, ends)
    if bases is None or not len(small):
        return None
    starts, reach = (rows.offsets + bases)[small], np.maximum.accumulate((ends + bases)[small])
    joins = np.zeros(len(small) + 1, np.bool_)
    joins[1:-1] = starts[1:] < reach[:-1]
    shares = joins[:-1] | joins[1:]
    if not shares.any():
        return None
    shared = small[shares]
    first = np.flatnonzero(~joins[:-1][shares])
    bounds = np.append(first, len(shared))
    sizes = reach[shares][bounds[1:] - 1] - starts[shares][first]
    heads = rows.take(shared[first])
    runs = DenseRows(first, heads.shard_ids, heads.offsets, sizes, np.ones_like(sizes))
    apart = np.ones(len(rows.offsets), np.bool_)
    apart[shared] = False
    return Sharing(np.flatnonzero(apart), shared, runs, bounds)


def compute_crcs(rows: DenseRows, data: memoryview, offset: int) -> list[int]:
    """Return the checksum of each row of which bytes are there, from an offset on."""
    starts = (rows.offsets - offset).tolist()
    ends = (rows.offsets + rows.sizes - offset).tolist()
    return [crc32c(data[start:end]) for start, end in zip(starts, ends, strict=True)]


def _lay_out(rows: DenseRows, ends: IntColumn) -> IntColumn | None:
    """Return where the data file of each row begins if they lie end to end; None if too far."""
    span = int(ends.max())
    numbers = np.cumsum(np.diff(rows.shard_ids, prepend=rows.shard_ids[:1]) != 0)
    return None if span * (int(numbers[-1]) + 1) > _MOST_PLACES else numbers * span
