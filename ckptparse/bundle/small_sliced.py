"""Read many small tensors at once that are stored in slices.

By itself, each takes as long as a hundred thousand bytes of any other tensor. Here the slices of
all are read together, if they are of the common form: numbers, cut along one axis, one slice after
another, none of them missing. All other tensors are left to `SlicedPayload`, which says what is
wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.index import Listing
from ckptparse.bundle.many import DenseReader
from ckptparse.bundle.shards import ShardFiles
from ckptparse.dtypes import item_size
from ckptparse.errors import CheckpointError
from ckptparse.tensor import SAFE_RANK, ReadOptions

__all__ = ["read_small_sliced"]

_FEW_TENSORS = 4
_SMALL = 1 << 12
"""Bytes of a small tensor at most."""
_MOST_SLICES = 64
"""Of one tensor: with more, other ways take less time."""
_BATCH = 4096
"""Slices that are read at once, at least: memory beside what has been put together."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a tensor is put together.

    Attributes:
        row: Which of the caller's rows it is.
        size: In bytes.
        axis: The one that it is cut along.
        parts: The rows of its slices in the index, from the first element on.
    """

    row: int
    size: int
    axis: int
    parts: Sequence[int]


def read_small_sliced(
    shards: ShardFiles,
    listing: Listing,
    entries: dict[int, tuple[str, BundleEntry]],
    options: ReadOptions,
) -> dict[int, tuple[npt.NDArray[Any], int]]:
    """Read those of some tensors in slices that are small and of the common form.

    Args:
        shards: The data files.
        listing: The whole index.
        entries: Row -> name and entry of a tensor in slices.
        options: How to read. Nothing is taken from its budget, and no more is made than it allows.

    Returns:
        Row -> array, and what is to be taken from the budget. What is damaged is not among them.
    """
    found: dict[int, tuple[npt.NDArray[Any], int]] = {}
    plans = [
        plan
        for row, (name, entry) in entries.items()
        if (plan := _plan(row, entry, listing, listing.parts[listing.rows[name]])) is not None
    ]
    if len(plans) < _FEW_TENSORS:
        return found
    taken = 0
    try:
        for plan, parts in _read_parts(shards, listing, plans, options):
            taken += plan.size
            if options.budget is not None:
                options.budget.check(taken)
            found[plan.row] = np.concatenate(parts, plan.axis), plan.size
    except CheckpointError:
        # Those that come later are read one by one, and the first that cannot be is told.
        return found
    return found


def _read_parts(
    shards: ShardFiles, listing: Listing, plans: Sequence[_Plan], options: ReadOptions
) -> Iterator[tuple[_Plan, list[npt.NDArray[Any]]]]:
    """Iterate over plans and the slices of each, which are read together."""
    how = replace(options, mmap=False, budget=None)
    start = 0
    while start < len(plans):
        some: list[_Plan] = []
        rows: list[int] = []
        while start < len(plans) and len(rows) < _BATCH:
            some.append(plans[start])
            rows += plans[start].parts
            start += 1
        columns = listing.columns.take(rows)
        arrays = iter(DenseReader(shards, columns, lambda _: None, how).read())
        for plan in some:
            yield plan, [next(arrays) for _ in plan.parts]


def _plan(row: int, entry: BundleEntry, listing: Listing, parts: Sequence[int]) -> _Plan | None:
    """Plan how a tensor is put together; None if it is none of the common form."""
    shape, width = entry.shape, item_size(entry.data_type)
    if width is None or len(shape) > SAFE_RANK or len(entry.slices) > _MOST_SLICES:
        return None
    size = math.prod(shape) * width
    # Numpy may refuse the dimensions of an empty one, and who reads it alone says so.
    if not size or size > _SMALL or -1 in parts:
        return None
    axis = _cut_axis(listing.columns.shapes[parts[0]], shape)
    if axis is None or not _agree(entry, listing, parts, axis):
        return None
    ends = [(piece.extents[axis], part) for piece, part in zip(entry.slices, parts, strict=True)]
    ends.sort(key=lambda one: one[0].start)
    end = 0
    for extent, _ in ends:
        if extent.start != end or extent.length is None:
            return None
        end += extent.length
    return _Plan(row, size, axis, [part for _, part in ends]) if end == shape[axis] else None


def _cut_axis(part: Sequence[int], shape: Sequence[int]) -> int | None:
    """Return the only axis in which a slice is shorter than its tensor."""
    if len(part) != len(shape):
        return None
    pairs = enumerate(zip(part, shape, strict=True))
    shorter = [axis for axis, (own, whole) in pairs if own != whole]
    return shorter[0] if len(shorter) == 1 else None


def _agree(entry: BundleEntry, listing: Listing, parts: Sequence[int], axis: int) -> bool:
    """Tell whether every slice is whole in all axes but one, and has an entry that says so."""
    shape, columns = entry.shape, listing.columns
    for part, piece in zip(parts, entry.slices, strict=True):
        extents = piece.extents
        if len(extents) != len(shape) or part in columns.others:
            return False
        for number, (extent, length) in enumerate(zip(extents, shape, strict=True)):
            whole = extent.length is None or (extent.start, extent.length) == (0, length)
            if number != axis and not whole:
                return False
        lengths = (*shape[:axis], extents[axis].length, *shape[axis + 1 :])
        if columns.shapes[part] != lengths or columns.data_types[part] != entry.data_type:
            return False
    return True
